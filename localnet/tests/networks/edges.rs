//! What an operator meets at the edges of a move, by real coordinators: a second handover right after the first, one whose
//! time is over in the midst of it, a holder that proposes without a quorum, and a member that the others refuse.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::{TestNet, long_leases, said};
use localnet::hosts::faults::{self, What};
use localnet::hosts::folders::empty;
use localnet::judge::status::{Answer, POLL_EVERY};
use localnet::process::launch::{self, diagnosis};
use localnet::process::procs;
use localnet::runs::demo::{Pair, ask_baton};
use rustix::process::Signal;

const ARBITER: &str = "host-c";
const PATIENCE: Duration = Duration::from_secs(60);
const PROPOSES: &str = " proposing Release{";

/// Waits until the answer of `host` contains `words`.
fn await_said(t: &TestNet, host: &str, verb: &str, words: &str) {
    let began = Instant::now();
    loop {
        let told = ask_baton(&t.net, host, &[verb]).map(|answer| answer.stdout);
        if told.as_ref().is_ok_and(|told| told.contains(words)) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{verb} at {host}: {told:?}\n{}", diagnosis(&t.net));
        std::thread::sleep(POLL_EVERY);
    }
}

#[test]
fn handovers_one_right_after_the_other_wait_for_the_old_holders_node() {
    let t = TestNet::up_with(long_leases);
    let Pair { holder, standby } = t.pair();
    for to in [&standby, &holder, &standby, &holder] {
        let told = said(&t, ARBITER, &["handover", "--to", to], 0);
        assert!(told.contains(&format!("{to} ")), "{told}");
    }
    assert_eq!(t.pair(), Pair { holder, standby });
    t.assert_nothing_signed_twice();
}

#[test]
fn a_handover_whose_time_is_over_in_the_midst_says_what_became_of_it() {
    let t = TestNet::up_with(long_leases);
    for millis in [1, 10, 20, 30, 40, 60] {
        let Pair { holder, standby } = t.pair();
        let timeout = format!("{millis}ms");
        let Answer { code, stdout, stderr } =
            t.or_logs(ask_baton(&t.net, &holder, &["handover", "--to", &standby, "--timeout", &timeout]));
        let now = t.pair().holder;
        println!("{timeout}: {code:?} {stdout}{stderr}");
        let (moved, told) = (now == standby, format!("{holder} -> {standby} under epoch"));
        assert_eq!((code == Some(0), stdout.contains(&told)), (moved, moved), "{now} holds it: {stdout}{stderr}");
    }
    t.assert_nothing_signed_twice();
}

#[test]
fn a_holder_without_a_quorum_says_once_that_it_proposes_its_release() {
    let t = TestNet::up_with(long_leases);
    let Pair { holder, standby } = t.pair();
    let others: Vec<_> = [standby.as_str(), ARBITER]
        .iter()
        .flat_map(|host| t.or_logs(faults::find(&t.net, host, What::Coordinator)))
        .collect();
    t.or_logs(procs::signal(&others, Signal::STOP));
    t.or_logs(faults::kill(&t.or_logs(faults::find(&t.net, &holder, What::Node))));
    t.await_log(&holder, PROPOSES, 1, PATIENCE);
    await_said(&t, &holder, "status", "quorum NO");
    t.or_logs(procs::signal(&others, Signal::CONT));
    t.await_log(&holder, "applied Release", 1, PATIENCE);
    t.pair();
    let log = fs::read_to_string(t.net.host_dir(&holder).join("coordinator.log")).unwrap();
    let told: Vec<&str> = log.lines().filter(|line| line.contains(PROPOSES)).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    t.assert_nothing_signed_twice();
}

#[test]
fn the_others_say_of_a_wiped_member_that_it_was_wiped() {
    let t = TestNet::up_with(long_leases);
    let Pair { holder, standby } = t.pair();
    t.kill_host(ARBITER);
    await_said(&t, &holder, "why", "host-c cannot be reached from here.");
    t.or_logs(empty(&t.net.state_dir(ARBITER)));
    t.or_logs(launch::start_coordinator(&t.net, ARBITER));
    for host in [&holder, &standby] {
        await_said(&t, host, "why", "host-c came with the store ");
        assert!(said(&t, host, &["why"], 0).contains("it was wiped or copied"));
    }
    t.assert_nothing_signed_twice();
}
