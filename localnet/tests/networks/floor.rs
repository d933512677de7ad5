//! The sign floor with real processes: a holder that dies in the instant of a signature, and a chain that stands
//! still with its holder gone for good. The signature log is the judge.

use std::time::{Duration, Instant};

use crate::common::{TestNet, long_leases};
use localnet::hosts::faults::{self, What};
use localnet::judge::measure::Watch;
use localnet::judge::signlog::{self, Signature};
use localnet::judge::status;
use localnet::net::http;
use localnet::process::launch;
use localnet::process::procs::{self, Proc, marked};
use localnet::runs::demo::{Pair, ask_baton};
use rustix::process::Signal;
use serde_json::Value;

const MOVE_BOUND: Duration = Duration::from_secs(20);

/// The last signature of `dead` and the first one after it, which another host made.
fn across(t: &TestNet, dead: &str) -> (Signature, Signature) {
    let mut log = signlog::read(&t.net.sign_log()).unwrap();
    log.retain(|signature| signature.key == t.net.shared_key);
    let last = log.iter().rposition(|signature| signature.host == dead).expect("it signed before");
    let next = log.get(last + 1).expect("another host signed after it");
    (log[last].clone(), next.clone())
}

/// Lets `strike` end the holder, and sees the standby take over above what was signed last.
fn die(t: &TestNet, strike: impl FnOnce(&Pair)) -> (Pair, Value) {
    let pair = t.pair();
    let mut watch = t.or_logs(Watch::begin(&t.net));
    t.or_logs(watch.await_by(&pair.holder, 1, MOVE_BOUND));
    let struck_at = watch.now_ns();
    strike(&pair);
    t.or_logs(watch.await_next(struck_at, &pair.holder, MOVE_BOUND));
    let (last, next) = across(t, &pair.holder);
    assert!(next.height > last.height, "{last}, then {next}");
    let moved = t.active(&pair.standby);
    (pair, moved)
}

#[test]
fn a_height_signed_in_the_instant_of_death_is_not_signed_again() {
    let t = TestNet::up_with(long_leases);
    let mut released = 0;
    for _ in 0..4 {
        // Logged and never sent: nobody but the dead node's own files knows of it.
        let (pair, moved) = die(&t, |pair| t.pretend(&pair.holder, "dies-signing"));
        let (last, _) = across(&t, &pair.holder);
        match moved["floor_source"].as_str() {
            Some("release") => {
                released += 1;
                assert_eq!(moved["reason"], "node-exited", "{moved}");
                assert_eq!(moved["floor"], format!("above {}", last.height), "{moved}");
            }
            // On a machine so busy that the lease ran out meanwhile.
            Some("settled") => eprintln!("not released: {moved}\n{}", launch::diagnosis(&t.net)),
            other => panic!("a floor by {other:?}: {moved}"),
        }
        assert_eq!(t.pair(), Pair { holder: pair.standby, standby: pair.holder });
    }
    assert!(released > 0, "{}", launch::diagnosis(&t.net));
    let (pair, moved) = die(&t, |pair| {
        t.kill_host(&pair.holder);
    });
    assert_eq!(
        (moved["kind"].as_str(), moved["floor_source"].as_str()),
        (Some("failover"), Some("settled")),
        "{moved}"
    );
    let shown = t.or_logs(localnet::judge::status::for_people(&t.net, &pair.standby));
    assert!(shown.contains(", settled:\n  floor a block after "), "{shown}");
    t.assert_nothing_signed_twice();
}

fn validators(t: &TestNet) -> Vec<Proc> {
    marked(&t.net.dir).into_iter().filter(|proc| t.net.validators.iter().any(|v| v.id == proc.host)).collect()
}

/// The holder's host is gone for good, the chain stands still, and every other coordinator was restarted: all that is
/// left of the old holder's last mark is what the receivers of gossip kept.
#[test]
fn a_halted_chain_goes_on_by_the_mark_that_a_restarted_receiver_kept() {
    let replica = |config: String| {
        long_leases(config).replace("[[chain.links]]", "on_halt = \"replica\"\nhalt_after = \"2s\"\n\n[[chain.links]]")
    };
    let t = TestNet::up_with(replica);
    let pair = t.pair();
    await_mark_file(&t, &pair.standby);
    // This chain's nodes call themselves out of sync when it stands still; neard and CometBFT do not.
    t.pretend(&pair.standby, "in-sync");
    procs::signal(&validators(&t), Signal::STOP).unwrap();
    t.kill_host(&pair.holder);
    for host in t.net.hosts.iter().filter(|host| host.id != pair.holder) {
        faults::kill(&faults::find(&t.net, &host.id, What::Coordinator).unwrap()).unwrap();
    }
    for host in t.net.hosts.iter().filter(|host| host.id != pair.holder) {
        launch::start_coordinator(&t.net, &host.id).unwrap();
    }
    let moved = t.active(&pair.standby);
    assert_eq!(moved["floor_source"], "replica", "{moved}");
    assert!(moved["settled_in_ms"].as_u64() >= Some(2000), "{moved}");

    procs::signal(&validators(&t), Signal::CONT).unwrap();
    let mut watch = t.or_logs(Watch::begin(&t.net));
    t.or_logs(watch.await_by(&pair.standby, 5, MOVE_BOUND));
    t.assert_nothing_signed_twice();
}

/// As above, with `on_halt = "wait"`: an operator says how far the key has signed.
#[test]
fn a_halted_chain_goes_on_by_an_operators_word() {
    let t = TestNet::up_with(long_leases);
    let pair = t.pair();
    await_mark_file(&t, &pair.standby);
    let early = ["floor", "--above", "1", "--because", "a test"];
    let refused = crate::common::said(&t, &pair.standby, &early, 1);
    assert!(refused.contains("does not settle"), "{refused}");
    t.pretend(&pair.standby, "in-sync");
    procs::signal(&validators(&t), Signal::STOP).unwrap();
    t.kill_host(&pair.holder);
    settles_on_a_halted_chain(&t, &pair.standby);
    hand_back_to_the_lost_host(&t, &pair);
    let settling = pair.holder;
    t.or_logs(launch::await_step(|| {
        let low = ask_baton(&t.net, &settling, &early)?.stderr;
        anyhow::ensure!(low.contains("the key has signed at height"), "{low}");
        Ok(())
    }));
    let log = signlog::read(&t.net.sign_log()).unwrap();
    let signed =
        log.iter().filter(|signature| signature.key == t.net.shared_key).map(|signature| signature.height).max();
    let signed = signed.expect("a signature");
    let above = signed.to_string();
    let said = crate::common::said(&t, &settling, &["floor", "--above", &above, "--because", "a test"], 0);
    assert!(said.contains(&format!("signs above height {above}")), "{said}");

    procs::signal(&validators(&t), Signal::CONT).unwrap();
    let moved = t.active(&settling);
    assert_eq!(
        (moved["floor_source"].as_str(), moved["laid_floor"]["above"].as_u64()),
        (Some("operator"), Some(signed))
    );
    let mut watch = t.or_logs(Watch::begin(&t.net));
    t.or_logs(watch.await_by(&settling, 5, MOVE_BOUND));
    t.assert_nothing_signed_twice();
}

/// Waits until `why`, the page and the status of `host` say it. The status has one line for it, which it cuts.
fn settles_on_a_halted_chain(t: &TestNet, host: &str) {
    let page = t.net.host(host).unwrap().metrics();
    t.or_logs(launch::await_step(|| {
        let page = String::from_utf8_lossy(&http::get(page, "/")?).into_owned();
        let (halted, signed) = ("the chain stands still at height", "is known to be signed");
        for shown in [ask_baton(&t.net, host, &["why"])?.stdout, page] {
            let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
            anyhow::ensure!(shown.contains(halted) && shown.contains(signed), "{shown}");
        }
        let status = status::for_people(&t.net, host)?;
        anyhow::ensure!(status.contains(halted), "{status}");
        Ok(())
    }));
}

/// Its host comes back while the one that took over settles, and is told to hand over to it. It settles as well.
fn hand_back_to_the_lost_host(t: &TestNet, Pair { holder: lost, standby: settling }: &Pair) {
    launch::start_coordinator(&t.net, lost).unwrap();
    let rpc = t.net.host(lost).unwrap().rpc();
    t.or_logs(launch::await_step(|| http::get_json(rpc, "/pretend?in-sync").map(drop)));
    t.or_logs(launch::await_step(|| {
        // Nobody becomes active in that time.
        let made = ask_baton(&t.net, settling, &["handover", "--to", lost, "--timeout", "2s"])?;
        anyhow::ensure!(made.stderr.contains(&format!("{lost} holds the baton already")), "{}", made.stderr);
        Ok(())
    }));
}

fn await_mark_file(t: &TestNet, host: &str) {
    let file = t.net.host_dir(host).join("state/mark");
    let start = Instant::now();
    while !file.exists() {
        assert!(start.elapsed() < MOVE_BOUND, "{host} kept no mark");
        std::thread::sleep(localnet::judge::status::POLL_EVERY);
    }
}
