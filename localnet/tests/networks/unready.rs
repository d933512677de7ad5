//! Standbys that could not take the baton, and were once given it: one whose wall clock is an hour ahead, one without its
//! key file, and one whose node is being stopped and ignores SIGTERM. The first two are not chosen until they could, the
//! third signs with another node. What they print are figures of docs/measurements.md, with BATON_SHORT_LEASES=1 those of
//! the default profile.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::{TestNet, long_leases, said};
use localnet::chains::sim;
use localnet::hosts::clock;
use localnet::hosts::faults::{self, What};
use localnet::judge::measure::Watch;
use localnet::judge::status::{POLL_EVERY, not_ready, query_host};
use localnet::net::{ChainKind, Shape};
use localnet::process::launch::{self, diagnosis};
use localnet::process::procs;
use localnet::runs::demo::Pair;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(60);
/// An hour, less or more by some milliseconds.
const CLOCK_OFF: &str = "the wall clock is off by 3";
const HOUR_NS: i64 = 3_600_000_000_000;
/// Longer than the promises to a lost holder last, and an election takes: whoever has not taken the baton by then does
/// not.
const LONG_ENOUGH: Duration = Duration::from_secs(7);

/// Waits until the coordinator of `at` says of `host` that it is not ready because of something that begins so.
fn await_unready(t: &TestNet, at: &str, host: &str, because: &str) {
    let start = Instant::now();
    loop {
        let told = not_ready(&t.net, at, host);
        if matches!(&told, Ok(Some(reason)) if reason.starts_with(because)) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{at} says of {host}: {told:?}\n{}", diagnosis(&t.net));
        std::thread::sleep(POLL_EVERY);
    }
}

#[test]
fn a_standby_whose_clock_is_an_hour_ahead_is_not_chosen_until_its_clock_is_right() {
    let t = TestNet::prepared(Shape::usual(ChainKind::Sim), long_leases);
    t.or_logs(clock::install(&t.net));
    t.or_logs(launch::start(&t.net, |_| ()));
    let Pair { holder, standby } = t.pair();
    t.or_logs(clock::step(&t.net, &standby, HOUR_NS));
    await_unready(&t, &holder, &standby, CLOCK_OFF);
    let refused = said(&t, &holder, &["handover", "--to", &standby], 1);
    assert!(refused.contains(&format!("{standby} is not ready to take the baton: {CLOCK_OFF}")), "{refused}");

    // Nobody else is left to say what time it is.
    let mended = || t.or_logs(clock::step(&t.net, &standby, 0));
    signs_once_mended(&t, &Pair { holder, standby: standby.clone() }, mended);
}

/// The holder's host is lost, and the standby takes the baton as soon as it is `mended`, and not before.
fn signs_once_mended(t: &TestNet, Pair { holder, standby }: &Pair, mended: impl FnOnce()) {
    let mut watch = t.or_logs(Watch::begin(&t.net));
    t.kill_host(holder);
    let lost = Instant::now();
    while lost.elapsed() < LONG_ENOUGH {
        let own = t.or_logs(query_host(&t.net, standby));
        assert!(own.holder.as_ref() != Some(standby), "{}\n{}", own.summary(), diagnosis(&t.net));
        std::thread::sleep(POLL_EVERY);
    }
    let mended_ns = watch.now_ns();
    mended();
    let first = t.or_logs(watch.await_next(mended_ns, holder, PATIENCE));
    assert_eq!(&first.host, standby);
    println!("{standby} signs {} ms after it was mended", (first.at_ns - mended_ns) / 1_000_000);
    t.or_logs(launch::start_coordinator(&t.net, holder));
    assert_eq!(t.pair(), Pair { holder: standby.clone(), standby: holder.clone() });
    t.assert_nothing_signed_twice();
}

#[test]
fn a_standby_without_its_key_file_is_not_chosen_until_the_file_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let key_of = |host: &str| dir.path().join(host);
    let t = TestNet::prepared(Shape::usual(ChainKind::Sim), |config| {
        let config = long_leases(config);
        match ["host-a", "host-b"].into_iter().find(|host| config.contains(&format!("[member]\nid = {host:?}"))) {
            Some(host) => config.replace("validating = ", &format!("validating = {:?} # ", key_of(host))),
            None => config,
        }
    });
    for host in ["host-a", "host-b"] {
        fs::copy(sim::shared_key_file(&t.net), key_of(host)).unwrap();
    }
    t.or_logs(launch::start(&t.net, |_| ()));
    let pair = t.pair();
    let (key, aside) = (key_of(&pair.standby), dir.path().join("aside"));
    fs::rename(&key, &aside).unwrap();
    let gone = Instant::now();
    let missing = format!("key {}", key.display());
    await_unready(&t, &pair.holder, &pair.standby, &missing);
    println!("{} knows it after {} ms", pair.holder, gone.elapsed().as_millis());
    let refused = said(&t, &pair.holder, &["handover", "--to", &pair.standby], 1);
    assert!(refused.contains(&format!("{} is not ready to take the baton: {missing}", pair.standby)), "{refused}");
    signs_once_mended(&t, &pair, || fs::rename(&aside, &key).unwrap());
}

/// Longer than the test: who waits for a node to end of itself is not done by then.
fn patient_stop(config: String) -> String {
    let before = "stop_timeout = \"2s\"";
    assert!(!config.contains("[chain]") || config.contains(before), "{config}");
    long_leases(config).replace(before, "stop_timeout = \"600s\"")
}

#[test]
fn a_node_that_ignores_sigterm_over_a_restart_of_its_coordinator_keeps_its_host_from_nothing() {
    let t = TestNet::up_with(patient_stop);
    let Pair { holder, standby } = t.pair();
    t.pretend(&standby, "ignores-term");
    let node = t.or_logs(faults::find(&t.net, &standby, What::Node));
    let coordinator = t.or_logs(faults::find(&t.net, &standby, What::Coordinator));
    t.or_logs(procs::signal(&coordinator, Signal::INT));
    t.await_words(&t.net.node_log(&standby), "pretends not to hear", 1, PATIENCE);
    t.or_logs(faults::kill(&coordinator));
    t.or_logs(launch::start_coordinator(&t.net, &standby));
    t.await_log(&standby, "the chain node is being stopped, on an order of before", 1, PATIENCE);

    let mut watch = t.or_logs(Watch::begin(&t.net));
    let lost_ns = watch.now_ns();
    t.kill_host(&holder);
    let first = t.or_logs(watch.await_next(lost_ns, &holder, PATIENCE));
    assert_eq!(first.host, standby);
    println!("{standby} signs after {} ms", (first.at_ns - lost_ns) / 1_000_000);
    let now = t.or_logs(faults::find(&t.net, &standby, What::Node));
    assert!(now.iter().all(|process| process.pid != node[0].pid), "{now:?} was told to end\n{}", diagnosis(&t.net));
    t.or_logs(launch::start_coordinator(&t.net, &holder));
    assert_eq!(t.pair(), Pair { holder: standby, standby: holder });
    t.assert_nothing_signed_twice();
}
