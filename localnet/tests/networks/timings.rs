//! `[timing]` is changed host by host, as docs/alerts.md advises where a lease is lost too often, and in between the
//! holder is cut off. The signature log is the judge: a holder whose own lease is longer than what the others promised
//! signs on while they elect another.

use std::time::Duration;

use crate::common::{TestNet, long_leases};
use localnet::judge::measure::Watch;
use localnet::net::Net;
use localnet::net::wires::{Request, Way, ask};
use localnet::process::launch;
use localnet::runs::demo::request_handover;
use localnet::runs::timing::{self, Timing};
use rustix::process::Signal;

/// For whatever must come sooner or later, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(90);
/// Signatures of the next holder before the heal: time for the one before it to sign beside them.
const SIDE_BY_SIDE: usize = 20;
/// How often a step is tried anew when the baton moved by itself meanwhile.
const ATTEMPTS: usize = 8;

fn cut(net: &Net, host: &str) {
    ask(&net.wires_socket(), &Request::Cut { host: host.into(), ways: vec![Way::In, Way::Out] }).unwrap();
}

fn heal(net: &Net, host: &str) {
    ask(&net.wires_socket(), &Request::Heal { host: host.into() }).unwrap();
}

/// The holder is cut off until another host signs, and comes back. Then somebody signs.
fn cut_off_the_holder(t: &TestNet, meanwhile: impl FnOnce(&str)) {
    let pair = t.pair();
    let mut watch = t.or_logs(Watch::begin(&t.net));
    // Whoever is cut off before it signs has nothing to sign beside.
    t.or_logs(watch.await_by(&pair.holder, 1, PATIENCE));
    let cut_at = watch.now_ns();
    cut(&t.net, &pair.holder);
    meanwhile(&pair.holder);
    let next = watch.await_next(cut_at, &pair.holder, PATIENCE);
    let beside = next.and_then(|next| watch.await_by(&next.host, SIDE_BY_SIDE, PATIENCE));
    heal(&t.net, &pair.holder);
    t.or_logs(beside);
    let healed_at = watch.now_ns();
    t.or_logs(watch.await_next(healed_at, "", PATIENCE));
}

/// `host` holds the baton, and another host could take it.
fn bring_to(t: &TestNet, host: &str) {
    for _ in 0..ATTEMPTS {
        let pair = t.pair();
        if pair.holder == host {
            return;
        }
        // Refused or not: on a busy machine the holder may have lost its lease meanwhile.
        let _ = request_handover(&t.net, &pair.holder, Some(host));
    }
    panic!("{host} never holds the baton\n{}", launch::diagnosis(&t.net));
}

/// The file of `host` is changed and its coordinator restarted, which hands the baton over first.
fn change(t: &TestNet, host: &str, timing: Timing) {
    t.or_logs(timing::write(&t.net, host, timing));
    t.or_logs(timing::restart(&t.net, host));
    t.or_logs(timing::await_in_force(&t.net, host, timing, PATIENCE));
}

/// The coordinators of all but the holder crash and are started again: what they promised lies on their disks, or is
/// forgotten.
fn crash_the_others(t: &TestNet, holder: &str) {
    let others = || t.net.hosts.iter().map(|host| host.id.as_str()).filter(|id| *id != holder);
    for host in others() {
        t.end_coordinator(host, Signal::KILL);
    }
    for host in others() {
        t.or_logs(launch::start_coordinator(&t.net, host));
    }
}

#[test]
fn a_holder_whose_lease_alone_is_longer_signs_nothing_beside_its_successor() {
    let of_host_a = |config: &str| config.contains("[member]\nid = \"host-a\"\n");
    let t = TestNet::up_with(|config| if of_host_a(&config) { long_leases(config) } else { config });
    let in_force = |host| t.or_logs(timing::in_force(&t.net, host));
    assert_eq!((in_force("host-a"), in_force("host-b")), (Timing::Wan, Timing::Lan));
    bring_to(&t, "host-a");
    cut_off_the_holder(&t, |_| ());
    // The others promised it; a restart must not forget that.
    bring_to(&t, "host-a");
    cut_off_the_holder(&t, |holder| crash_the_others(&t, holder));
    t.pair();
    t.assert_nothing_signed_twice();
}

#[test]
fn timing_changed_host_by_host_and_back_under_cuts_restarts_and_handovers_signs_nothing_twice() {
    let t = TestNet::up(&[]);
    change(&t, "host-a", Timing::Wan);
    bring_to(&t, "host-a");
    cut_off_the_holder(&t, |_| ());
    change(&t, "host-b", Timing::Wan);
    cut_off_the_holder(&t, |_| ());
    change(&t, "host-c", Timing::Wan);
    // And back, the host that holds the baton last.
    bring_to(&t, "host-a");
    change(&t, "host-c", Timing::Lan);
    change(&t, "host-b", Timing::Lan);
    bring_to(&t, "host-a");
    cut_off_the_holder(&t, |_| ());
    change(&t, "host-a", Timing::Lan);
    t.pair();
    t.assert_nothing_signed_twice();
}
