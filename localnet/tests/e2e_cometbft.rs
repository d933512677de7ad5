//! baton with a real chain: CometBFT, three validators alone and a fourth shared by two hosts. Needs the
//! `cometbft` program, and says how to install it where it is not.

mod common;

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Ground, TestNet, said};
use localnet::chains::cometbft;
use localnet::hosts;
use localnet::hosts::faults::{self, What};
use localnet::judge::measure::Watch;
use localnet::judge::status::{Status, await_status};
use localnet::net::http;
use localnet::net::{ChainKind, Custody, Profile, Shape};
use localnet::process::launch;
use localnet::process::procs::{self, MARKER};
use localnet::runs::bench::{self, Fault, Plan};
use localnet::runs::demo::{Pair, ask_baton};
use rustix::process::Signal;
use serde_json::Value;

/// A start of the node as validator is part of the move.
const MOVE_BOUND: Duration = Duration::from_secs(40);

/// A chain node without baton, which ends with the test.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs cometbft; see README"]
fn a_host_with_its_throwaway_key_follows_the_chain_through_the_wires() {
    let ground = Ground::new();
    let net = launch::prepare(&ground.dir, Shape::usual(ChainKind::Cometbft)).unwrap();
    launch::start_wires(&net).unwrap();
    launch::start_validators(&net).unwrap();
    let host = net.host("host-b").unwrap();
    let home = net.chain_home(&host.id);
    let config = home.join("config");
    symlink(config.join("standby_priv_validator_key.json"), config.join("priv_validator_key.json")).unwrap();
    let mut command = cometbft::node_command(&net, &home);
    // Marked, so that it ends with the network even when the test is killed.
    command.env(MARKER, &net.dir).stdout(Stdio::null()).stderr(Stdio::null());
    let _node = Node(command.spawn().unwrap());
    let start = Instant::now();
    loop {
        let status = http::get_json(host.rpc(), "/status");
        let synced = |s: &Value| s["result"]["sync_info"]["catching_up"] == false;
        let high = |s: &Value| s["result"]["sync_info"]["latest_block_height"] != "0";
        if status.as_ref().is_ok_and(|s| synced(s) && high(s)) {
            return;
        }
        assert!(start.elapsed() < MOVE_BOUND, "host-b does not follow the chain: {status:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Of every fault; more of them where BATON_COMETBFT_ROUNDS says so.
fn rounds() -> usize {
    std::env::var("BATON_COMETBFT_ROUNDS").map_or(1, |text| text.parse().expect("BATON_COMETBFT_ROUNDS is a number"))
}

#[test]
#[ignore = "needs cometbft; see README"]
fn a_shared_validator_survives_every_fault_and_signs_no_step_twice() {
    let ground = Ground::new();
    let chain = ChainKind::Cometbft;
    let faults = Fault::usual(chain).to_vec();
    let plan = Plan { shape: Shape::usual(chain), rounds: rounds(), faults, seed: rand::random() };
    let results = bench::run(&ground.dir, &plan).unwrap_or_else(|error| panic!("{error:#}"));
    println!("{}", results.table());
    assert!(results.clean, "the checker found a violation, see above");
    for (fault, row) in &results.rows {
        assert_eq!((row.rounds, row.overlap, row.double), (plan.rounds, 0, 0), "{fault:?}: {row:?}");
        assert!(row.missed.is_some(), "{fault:?}: {row:?}");
    }
}

#[test]
#[ignore = "needs cometbft; see README"]
fn what_the_log_admits_survives_every_fault_and_no_step_is_signed_twice() {
    let ground = Ground::new();
    let chain = ChainKind::Cometbft;
    let faults = [&Fault::usual(chain)[..], &[Fault::CoordinatorKill, Fault::SignerKill, Fault::StandbyHost]].concat();
    let shape = Shape { custody: Custody::Signer, ..Shape::usual(chain) };
    // More kinds of faults than above.
    let plan = Plan { shape, rounds: rounds().min(2), faults, seed: rand::random() };
    let results = bench::run(&ground.dir, &plan).unwrap_or_else(|error| panic!("{error:#}"));
    println!("{}", results.table());
    assert!(results.clean, "the checker found a violation, see above");
    for (fault, row) in &results.rows {
        assert_eq!((row.rounds, row.double), (plan.rounds, 0), "{fault:?}: {row:?}");
        assert!(row.missed.is_some(), "{fault:?}: {row:?}");
    }
}

/// The sentries as `host` shows them, and who asked for what was signed last.
fn sentries_of(t: &TestNet, host: &str) -> Value {
    let text = t.or_logs(ask_baton(&t.net, host, &["status", "--json"])).stdout;
    serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{error}: {text}"))["signer"].take()
}

fn await_signer(t: &TestNet, host: &str, what: &str, reached: impl Fn(&Value) -> bool) {
    let start = Instant::now();
    loop {
        let seen = sentries_of(t, host);
        if reached(&seen) {
            return;
        }
        assert!(start.elapsed() < MOVE_BOUND, "{host}: not {what}: {seen:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs cometbft; see README"]
fn a_sentry_asks_whoever_holds_the_baton_and_signs_on_while_the_holders_node_does_not() {
    let ports = tempfile::tempdir().unwrap();
    let picked = localnet::net::ports::pick(ports.path(), 3).unwrap();
    let free = [0, 1, 2].map(|i| SocketAddr::from(([127, 0, 0, 1], picked[i])));
    let address = format!("tcp://{}", free[2]);
    let shape = Shape { custody: Custody::Signer, ..Shape::usual(ChainKind::Cometbft) };
    let named = |config: String| config.replace("[signer]\n", &format!("[signer]\nsentries = [\"{address}\"]\n"));
    let t = TestNet::prepared(shape, named);
    let home = t.net.dir.join("sentry");
    cometbft::lay_sentry(&t.net, "host-a", &home, free).unwrap();
    launch::start(&t.net, |_| ()).unwrap();
    let Pair { holder, standby } = t.pair();
    await_signer(&t, &holder, "told that nobody listens", |signer| {
        signer["sentries"][0]["lost_because"].as_str().is_some_and(|why| why.contains("no chain node is reached"))
    });
    let why = said(&t, &holder, &["why"], 0);
    assert!(why.contains(&format!("The sentry {address} asks for no signatures")), "{why}");

    let mut command = cometbft::node_command(&t.net, &home);
    // Marked, so that it ends with the network even when the test is killed.
    command.env(MARKER, &t.net.dir).stdout(Stdio::null()).stderr(Stdio::null());
    let _node = Node(command.spawn().unwrap());
    for (host, other) in [(&holder, &standby), (&standby, &holder)] {
        if t.pair().holder != *host {
            said(&t, other, &["handover", "--to", host], 0);
        }
        let asks =
            |signer: &Value| signer["sentries"][0]["lost_because"].is_null() && signer["sentries"][0].is_object();
        await_signer(&t, host, "served by its sentry", asks);
        assert_eq!(sentries_of(&t, other)["sentries"], serde_json::json!([]), "{other} does not hold the baton");
    }
    // So that it stays there.
    said(&t, &standby, &["pause"], 0);
    let node = t.or_logs(faults::find(&t.net, &standby, What::Node));
    t.or_logs(procs::signal(&node, Signal::STOP));
    await_signer(&t, &standby, "signing for its sentry", |signer| signer["sentry"] == address.as_str());
    t.or_logs(procs::signal(&node, Signal::CONT));
    said(&t, &standby, &["resume"], 0);
    t.pair();
    t.assert_nothing_signed_twice();
}

/// Requests of `host`'s chain node that were answered without a signature.
fn refused_at(t: &TestNet, host: &str) -> u64 {
    let page = http::get(t.net.host(host).unwrap().metrics(), "/metrics").unwrap();
    let text = String::from_utf8(page).unwrap();
    let own = "baton_sign_requests_total{node=\"own\",outcome=\"";
    let counted = text.lines().filter_map(|line| line.strip_prefix(own)?.split_once("\"} "));
    let refused = counted.filter(|(outcome, _)| !["granted", "repeated"].contains(outcome));
    refused.map(|(_, count)| count.parse::<u64>().unwrap()).sum()
}

#[test]
#[ignore = "needs cometbft; see README"]
fn without_a_quorum_requests_are_refused_no_node_ends_and_signing_goes_on_by_itself() {
    let shape = Shape { custody: Custody::Signer, profile: Profile::Signer, ..Shape::usual(ChainKind::Cometbft) };
    let t = TestNet::prepared(shape, |config| config);
    launch::start(&t.net, |_| ()).unwrap();
    let Pair { holder, standby } = t.pair();
    let nodes = || [&holder, &standby].map(|host| t.or_logs(faults::find(&t.net, host, What::Node)));
    let before = nodes();
    let others: Vec<&str> = t.net.hosts.iter().map(|host| host.id.as_str()).filter(|id| *id != holder).collect();
    others.iter().for_each(|other| t.end_coordinator(other, Signal::KILL));
    let (refused, began) = (refused_at(&t, &holder), Instant::now());
    while refused_at(&t, &holder) < refused + 5 {
        assert!(
            began.elapsed() < MOVE_BOUND,
            "{} requests refused in {MOVE_BOUND:?}",
            refused_at(&t, &holder) - refused
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(nodes(), before, "a chain node has ended");
    let mut watch = Watch::begin(&t.net).unwrap();
    others.iter().for_each(|other| t.or_logs(launch::start_coordinator(&t.net, other)));
    // So many steps that a block has some of them.
    t.or_logs(watch.await_by(&t.pair().holder, 8, MOVE_BOUND));
    assert_eq!(nodes(), before, "a chain node has ended");
    t.assert_nothing_signed_twice();
}

/// As "Change the custody of the key" in docs/operating.md has it.
#[test]
#[ignore = "needs cometbft; see README"]
fn the_custody_of_the_key_changes_on_a_running_cluster_and_back() {
    let mut t = TestNet::prepared(Shape::usual(ChainKind::Cometbft), |config| config);
    launch::start(&t.net, |_| ()).unwrap();
    for custody in [Custody::Signer, Custody::Links] {
        let before = t.pair();
        t.net.custody = custody;
        for host in [&before.standby, &before.holder] {
            t.end_coordinator(host, Signal::INT);
            let laid = t.net.host(host).unwrap();
            hosts::write_all(&t.net).unwrap();
            t.or_logs(cometbft::lay_custody(&t.net, laid));
            t.or_logs(launch::start_coordinator(&t.net, host));
        }
        let nobody = |status: &Status| status.holder.is_none() && status.leader.is_some();
        t.or_logs(await_status(&t.net, "nobody holds the baton", MOVE_BOUND, |_| (), nobody));
        let refused = said(&t, &before.holder, &["why"], 1);
        assert!(refused.contains("custody"), "{refused}");
        match custody {
            Custody::Signer => {
                let state = t.net.chain_home(&before.holder).join("data/priv_validator_state.json");
                let state = state.to_str().unwrap();
                said(&t, &before.holder, &["signer", "import", "--state", state], 0);
            }
            Custody::Links | Custody::Single => drop(said(&t, &before.holder, &["signer", "close"], 0)),
        }
        let after = t.pair();
        let mut watch = Watch::begin(&t.net).unwrap();
        t.or_logs(watch.await_by(&after.holder, 4, MOVE_BOUND));
    }
    // What either custody signed, by the bytes of every vote, and by what the chain says.
    t.net.custody = Custody::Signer;
    t.assert_nothing_signed_twice();
}
