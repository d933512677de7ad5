//! Coordinators of this version beside those of the version before upgrade plans: they hold one lease, hand one baton
//! over and pass orders on to one another, and a plan waits until everybody knows of plans.
//!
//! `BATON_OLDER_BIN=DIR cargo test -p localnet --test networks upgrade_mixed:: -- --ignored --nocapture`, with `baton`
//! and `baton-guard` of a commit before upgrade plans in DIR.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::common::upgrades::{assert_sound, await_plan, binary, pair_runs, prepare, until, upgrade};
use crate::common::{Ground, TestNet, said};
use localnet::chains::cosmovisor;
use localnet::judge::status::{Status, query_host};
use localnet::net::{Net, write_file};
use localnet::process::launch;
use localnet::runs::demo::{Pair, ask_baton};
use rustix::process::Signal;

const ARBITER: &str = "host-c";

/// The same network to whoever starts and asks with the older programs.
fn older(net: &Net) -> Net {
    let folder =
        std::env::var_os("BATON_OLDER_BIN").map(PathBuf::from).expect("set BATON_OLDER_BIN; see the file's head");
    let mut older = net.clone();
    older.programs.baton = folder.join("baton");
    for program in ["baton", "baton-guard"] {
        assert!(folder.join(program).is_file(), "{} lacks {program}", folder.display());
    }
    older
}

/// What the hosts were configured with.
struct Configs {
    net: Net,
    texts: BTreeMap<String, String>,
}

impl Configs {
    fn of(net: &Net) -> Configs {
        let read = |id: &String| std::fs::read_to_string(net.config_file(id)).unwrap();
        let texts = net.hosts.iter().map(|host| (host.id.clone(), read(&host.id))).collect();
        Configs { net: net.clone(), texts }
    }

    fn restore(&self, host: &str) {
        write_file(&self.net.config_file(host), &self.texts[host]).unwrap();
    }

    /// `host`, which is to run the newer programs, counts on older members, which do not say for how long they promise.
    fn vouch_for_older(&self, host: &str) {
        let file = self.net.config_file(host);
        let text = std::fs::read_to_string(&file).unwrap();
        let vouched = text.replace("[timing]\n", "[timing]\nolder_members_lease = \"3s\"\n");
        assert_ne!(vouched, text, "{text}");
        write_file(&file, &vouched).unwrap();
    }

    /// The configuration of `host` has no section that the older programs do not know, and starts the first binary.
    fn forget_upgrades(&self, host: &str) {
        let first = cosmovisor::place(&self.net, host, cosmovisor::GENESIS);
        let without = self.texts[host].split("\n[upgrade]").next().unwrap();
        let text = without.replace("[\"simd\"", &format!("[\"{}\"", first.display()));
        write_file(&self.net.config_file(host), &text).unwrap();
    }
}

/// The coordinator of `host` ends as for an upgrade of baton, and another one of `with`'s programs follows it.
fn change(t: &TestNet, host: &str, with: &Net) {
    t.end_coordinator(host, Signal::TERM);
    launch::start_coordinator(with, host).unwrap();
    // By its own word: the others remember what it said before it ended.
    until(t, &format!("{host} serves again"), || match query_host(with, host) {
        Ok(status) if host == ARBITER && status.quorum => Ok(()),
        Ok(status) if status.is_ready_standby(host) || status.active().is_some_and(|one| one.id == host) => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
    println!("{host} runs {}; {:?}", with.programs.baton.display(), t.pair());
}

/// A plan is refused at `asked`, in words that name one of these.
fn assert_names_an_older_one(t: &TestNet, asked: &str, older: &[&str]) {
    let refused = upgrade(t, asked, &["plan", "v2", "--binary", &binary(t, "v2")], 1);
    // By a leader that is itself older, the one that asks it has other words.
    let words = ["knows no upgrade plans", "knows no such order; upgrade it"];
    let names_one = older.iter().any(|id| refused.contains(id));
    assert!(names_one && words.iter().any(|word| refused.contains(word)), "{refused}");
}

/// Orders at `asked`, which does not lead: it passes them on to `leader`, and both show them.
fn orders_are_passed_on(t: &TestNet, asked: &str, leader: &str) {
    let sees = |what: &str, is_so: &dyn Fn(&Status) -> bool| {
        for host in [asked, leader] {
            until(t, &format!("{what}, as {host} sees"), || match query_host(&t.net, host) {
                Ok(status) if is_so(&status) => Ok(()),
                seen => Err(format!("{seen:?}")),
            });
        }
    };
    assert_eq!(said(t, asked, &["pause"], 0), format!("paused: the baton stays with {leader} until baton resume"));
    sees("paused", &|status| status.paused);
    assert_eq!(said(t, asked, &["resume"], 0), "not paused: the baton moves by itself");
    sees("not paused", &|status| !status.paused);
    assert_eq!(said(t, asked, &["priority", asked, "7"], 0), format!("{asked} has priority 7"));
    assert_eq!(said(t, asked, &["priority", asked, "configured"], 0), format!("{asked} has its configured priority"));
    // No member is named: the one that was asked, not the one that it is passed on to.
    assert_eq!(said(t, asked, &["maintenance", "on"], 0), format!("{asked} is in maintenance and takes no baton"));
    let maintenance = |status: &Status| status.members.iter().any(|one| one.id == asked && one.maintenance);
    sees("in maintenance", &maintenance);
    assert_eq!(said(t, asked, &["maintenance", "off"], 0), format!("{asked} is not in maintenance"));
    sees("not in maintenance", &|status| !maintenance(status));
}

/// There, as the holder is told, and back again, as the other one is told. Whichever is newer, each passes orders on to
/// the other. A coordinator that has just started may not be let vote yet, and then the baton comes back.
fn hand_over_twice(t: &TestNet) {
    for at_holder in [true, false] {
        let Pair { holder, standby } = t.pair();
        orders_are_passed_on(t, &standby, &holder);
        let asked = if at_holder { &holder } else { &standby };
        until(t, &format!("{holder} hands over to {standby}, asked of {asked}"), || {
            if t.pair().holder == standby {
                return Ok(());
            }
            let answer = t.or_logs(ask_baton(&t.net, asked, &["handover", "--to", &standby]));
            print!("{}{}", answer.stdout, answer.stderr);
            Err(format!("{}{}", answer.stdout, answer.stderr))
        });
    }
}

#[test]
#[ignore = "needs BATON_OLDER_BIN"]
fn newer_coordinators_take_over_an_older_cluster_one_by_one() {
    let ground = Ground::new();
    let net = prepare(&ground, |config| config);
    let older = older(&net);
    let configs = Configs::of(&net);
    net.hosts.iter().for_each(|host| configs.forget_upgrades(&host.id));
    launch::start(&older, |_| ()).unwrap();
    let t = TestNet { ground, net };
    hand_over_twice(&t);
    for host in ["host-a", "host-b", ARBITER] {
        let refused = t.or_logs(ask_baton(&t.net, host, &["upgrade", "plan", "v2", "--binary", &binary(&t, "v2")]));
        println!("while {host} is older: {}{}", refused.stdout, refused.stderr);
        assert_ne!(refused.code, Some(0));
        // The order that needs no such word is arbiter first; this one is harder.
        configs.vouch_for_older(host);
        change(&t, host, &t.net);
        if host != ARBITER {
            assert_names_an_older_one(&t, host, &[ARBITER, "host-b"]);
        }
        hand_over_twice(&t);
    }
    assert_sound(&t);

    for host in ["host-a", "host-b"] {
        configs.restore(host);
        change(&t, host, &t.net);
    }
    upgrade(&t, ARBITER, &["plan", "v2", "--binary", &binary(&t, "v2")], 0);
    pair_runs(&t, "v2");
    await_plan(&t, ARBITER, "v2", "done");
    assert_sound(&t);
}

#[test]
#[ignore = "needs BATON_OLDER_BIN"]
fn an_older_coordinator_joins_a_newer_cluster_and_no_plan_is_made_meanwhile() {
    let ground = Ground::new();
    let net = prepare(&ground, |config| config);
    let older = older(&net);
    let configs = Configs::of(&net);
    launch::start(&net, |_| ()).unwrap();
    let t = TestNet { ground, net };
    for host in ["host-b", "host-a", ARBITER] {
        configs.forget_upgrades(host);
        change(&t, host, &older);
        assert_names_an_older_one(&t, if host == ARBITER { "host-a" } else { ARBITER }, &[host]);
        hand_over_twice(&t);
        configs.restore(host);
        change(&t, host, &t.net);
        hand_over_twice(&t);
    }
    upgrade(&t, ARBITER, &["plan", "v2", "--binary", &binary(&t, "v2")], 0);
    pair_runs(&t, "v2");
    assert_sound(&t);
}
