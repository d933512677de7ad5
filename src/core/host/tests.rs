use super::*;
use crate::base::guard_frame::Containment;

fn at(secs: u64) -> BootTime {
    BootTime::from_nanos(secs * 1_000_000_000)
}

fn running() -> Host {
    let mut host = Host::new(true, 3, None, at(0));
    host.guard_attached(at(0), None, None, &mut Vec::new());
    host.started(at(0), None);
    host
}

#[test]
fn nothing_is_proven_before_the_guard_was_asked() {
    assert!(!Host::new(true, 3, None, at(0)).is_proven());
    assert!(Host::new(false, 3, None, at(0)).is_proven(), "an arbiter has no chain node");
}

#[test]
fn a_node_found_with_the_key_is_killed_and_proves_nothing_until_it_is_gone() {
    let mut host = Host::new(true, 3, None, at(0));
    let node = NodeProcess {
        pid: 1,
        started_at: at(0),
        validator_epoch: Some(Epoch(4)),
        containment: Containment::default(),
        stopping: false,
    };
    let mut out = Vec::new();
    host.guard_attached(at(1), Some(&node), None, &mut out);
    assert_eq!(out, [Action::Deactivate { kill: true }]);
    assert!(!host.is_proven());
    host.exited(at(1), ExitCause::Stopped { killed: true });
    assert!(host.is_proven());
}

#[test]
fn a_standby_found_running_is_adopted() {
    let mut host = Host::new(true, 3, None, at(0));
    let node = NodeProcess {
        pid: 1,
        started_at: at(0),
        validator_epoch: None,
        containment: Containment::default(),
        stopping: false,
    };
    let mut out = Vec::new();
    host.guard_attached(at(1), Some(&node), None, &mut out);
    assert!(out.is_empty() && host.is_proven() && host.is_node_running());
}

#[test]
fn a_node_that_keeps_crashing_waits_longer_each_time_and_is_not_ready() {
    let mut host = running();
    let waits: Vec<u64> = (0..4)
        .map(|_| {
            host.exited(at(10), ExitCause::ByItself);
            let wait = host.start_at().since(at(10)).as_secs();
            host.started(at(10), None);
            wait
        })
        .collect();
    assert_eq!(waits, [1, 2, 4, 8]);
    assert!(matches!(host.not_ready(at(11)), Some(NotReady::Unsteady { .. })));
}

#[test]
fn a_node_that_ran_long_enough_has_its_crashes_forgotten() {
    let mut host = running();
    host.exited(at(1), ExitCause::ByItself);
    host.started(at(2), None);
    host.exited(at(6), ExitCause::ByItself);
    assert_eq!(host.start_at(), at(8), "two crashes, and four seconds between them");
    host.started(at(8), None);
    host.exited(at(18), ExitCause::ByItself);
    assert_eq!(host.start_at(), at(19));
}

#[test]
fn a_lost_guard_proves_the_node_gone_only_when_it_was_seen_gone() {
    let mut host = running();
    host.guard_gone(false);
    assert!(!host.is_proven());
    host.guard_gone(true);
    assert!(host.is_proven() && host.is_node_stopped());
}
