//! What an operator orders, on whole hosts: maintenance, pause, priority, and a handover that fails. Asked of
//! any host, leader or not. The signature log is the judge.

use std::time::{Duration, Instant};

use crate::common::{TestNet, said};
use localnet::hosts::faults::{self, What};
use localnet::judge::measure::Watch;
use localnet::judge::status::{Status, await_status, query, query_host};
use localnet::process::launch;
use localnet::process::procs;
use localnet::runs::demo::Pair;
use rustix::process::Signal;

const ARBITER: &str = "host-c";
/// For a move; see e2e.rs.
const MOVE_BOUND: Duration = Duration::from_secs(15);
/// Longer than every lease, promise and campaign: what has not happened by then does not happen.
const LONG_ENOUGH: Duration = Duration::from_secs(6);

fn await_active(t: &TestNet, id: &str) -> Status {
    let active = |status: &Status| status.active().is_some_and(|member| member.id == id);
    t.or_logs(await_status(&t.net, &format!("{id} is Active"), MOVE_BOUND, |_| (), active))
}

/// Asserts that nobody is Active for as long as it would take to change that.
fn assert_nobody_takes_it(t: &TestNet, lost: &str) {
    let began = Instant::now();
    while began.elapsed() < LONG_ENOUGH {
        let status = t.or_logs(query(&t.net));
        let active = status.active().filter(|member| member.id != lost);
        assert!(active.is_none(), "after {:?}: {}", began.elapsed(), status.summary());
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_holder_in_maintenance_hands_over_and_takes_the_baton_only_after_it() {
    let t = TestNet::up(&[]);
    let Pair { holder, standby } = t.pair();
    // Of the arbiter, which neither leads nor holds.
    let line = said(&t, ARBITER, &["maintenance", "on", "--member", &holder], 0);
    assert!(line.starts_with(&format!("{holder} is in maintenance and hands the baton over")), "{line}");
    let status = await_active(&t, &standby);
    let member = status.members.iter().find(|member| member.id == holder).unwrap();
    assert!(member.maintenance && !status.is_ready_standby(&holder), "{status:#?}");
    let history = said(&t, ARBITER, &["history"], 0);
    assert!(history.contains("maintenance"), "{history}");

    let refused = said(&t, ARBITER, &["handover", "--to", &holder], 1);
    assert!(refused.contains(&format!("{holder} is in maintenance")), "{refused}");
    // With the other host gone, it leads perhaps, but does not hold.
    t.kill_host(&standby);
    assert_nobody_takes_it(&t, &standby);
    // Of itself: no member is named.
    assert_eq!(said(&t, &holder, &["maintenance", "off"], 0), format!("{holder} is not in maintenance"));
    await_active(&t, &holder);
    launch::start_coordinator(&t.net, &standby).unwrap();
    assert_eq!(t.pair(), Pair { holder, standby });
    t.assert_nothing_signed_twice();
}

#[test]
fn a_paused_cluster_lets_nobody_take_the_baton_until_it_is_resumed() {
    let t = TestNet::up(&[]);
    let Pair { holder, standby } = t.pair();
    let line = said(&t, &standby, &["pause"], 0);
    assert_eq!(line, format!("paused: the baton stays with {holder} until baton resume"));
    assert!(t.or_logs(query_host(&t.net, &standby)).paused, "the host that was asked shows it at once");
    t.kill_host(&holder);
    assert_nobody_takes_it(&t, &holder);
    assert_eq!(said(&t, ARBITER, &["resume"], 0), "not paused: the baton moves by itself");
    await_active(&t, &standby);
    launch::start_coordinator(&t.net, &holder).unwrap();
    assert_eq!(t.pair(), Pair { holder: standby, standby: holder });
    t.assert_nothing_signed_twice();
}

#[test]
fn in_a_pause_a_restarted_holder_goes_on_and_a_handover_still_works() {
    let t = TestNet::up(&[]);
    let Pair { holder, standby } = t.pair();
    said(&t, &holder, &["pause"], 0);
    let before = t.or_logs(query(&t.net)).epoch;
    t.kill_host(&holder);
    launch::start_coordinator(&t.net, &holder).unwrap();
    // Gossip remembers the dead holder for a moment.
    let again = |status: &Status| status.epoch > before && status.active().is_some_and(|member| member.id == holder);
    t.or_logs(await_status(&t.net, "the holder is Active again", MOVE_BOUND, |_| (), again));
    let own = t.or_logs(query_host(&t.net, &holder));
    let holds = own.active().is_some_and(|member| member.id == holder);
    assert!(own.quorum || !holds, "its lease runs, whatever it has heard since its start: {own:#?}");
    assert_eq!(t.pair(), Pair { holder: holder.clone(), standby: standby.clone() });

    let foreseen = said(&t, ARBITER, &["handover", "--dry-run"], 0);
    assert!(foreseen.starts_with(&format!("{holder} -> {standby} would be tried now")), "{foreseen}");
    await_active(&t, &holder);
    let done = said(&t, ARBITER, &["handover"], 0);
    assert!(done.starts_with(&format!("{holder} -> {standby} under epoch ")), "{done}");
    assert_eq!(t.pair(), Pair { holder: standby, standby: holder });
    t.assert_nothing_signed_twice();
}

#[test]
fn a_handover_that_fails_leads_back_to_the_old_holder() {
    let t = TestNet::up(&[]);
    let Pair { holder, standby } = t.pair();
    let mut watch = t.or_logs(Watch::begin(&t.net));
    // It is still taken for ready, and will answer nobody.
    let targets = faults::find(&t.net, &standby, What::Coordinator).unwrap();
    procs::signal(&targets, Signal::STOP).unwrap();
    let refused = said(&t, &holder, &["handover", "--to", &standby], 1);
    let told = [format!("{standby} did not take the baton; {holder} holds it now")];
    assert!(told.iter().any(|told| refused.contains(told)), "{refused}");
    t.or_logs(watch.await_by(&holder, 1, MOVE_BOUND));
    procs::signal(&targets, Signal::CONT).unwrap();
    assert_eq!(t.pair(), Pair { holder, standby });
    t.assert_nothing_signed_twice();
}

#[test]
fn an_order_that_cannot_be_committed_is_answered_in_time() {
    let t = TestNet::up(&[]);
    let Pair { holder, standby } = t.pair();
    let wrong = said(&t, &holder, &["maintenance", "on", "--member", ARBITER], 1);
    assert!(wrong.contains("host-c is an arbiter and never holds the baton"), "{wrong}");
    let wrong = said(&t, &holder, &["priority", "host-z", "1"], 1);
    assert!(wrong.contains("\"host-z\" is not a member of this cluster; there are host-a, host-b, host-c"), "{wrong}");
    assert_eq!(said(&t, ARBITER, &["priority", &standby, "300"], 0), format!("{standby} has priority 300"));
    let status = t.or_logs(query_host(&t.net, ARBITER));
    assert!(status.members.iter().any(|m| m.id == standby && m.priority == Some(300)), "{status:#?}");

    for host in [&holder, &standby] {
        t.kill_host(host);
    }
    let began = Instant::now();
    let line = said(&t, ARBITER, &["pause"], 1);
    assert!(line.starts_with("baton: pause: not known to be committed after 8s: "), "{line}");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    t.assert_nothing_signed_twice();
}
