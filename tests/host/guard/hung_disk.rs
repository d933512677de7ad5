//! The disk of the chain node's home hangs: links can neither be changed nor synced, and the guard does all else.

use std::process::{Command, Stdio};
use std::time::Instant;

use baton::base::guard_frame::LinkState;
use baton::base::guard_frame::{ExitCause, FromGuard, ToGuard};
use baton::base::time::BootTime;
use rustix::process::Signal;

use super::harness::*;
use super::{FOREVER, validator};
use crate::kit::hang::Disk;

/// A guard whose disk can be made to hang.
fn guard_on_disk(place: &Place) -> (GuardProcess, Disk) {
    let log = std::fs::OpenOptions::new().append(true).create(true).open(place.path("guard.log")).unwrap();
    let mut command = Command::new(GUARD);
    command.arg("--socket").arg(place.socket()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    die_with_us(&mut command);
    let (child, disk) = Disk::under(&mut command, |command| command.spawn().unwrap());
    await_that("a guard that listens", || place.guard_log().contains("serves").then_some(()));
    (GuardProcess { child }, disk)
}

#[test]
fn a_fence_on_a_hung_disk_kills_and_tells_first_and_the_guard_answers_on() {
    let place = Place::new();
    let (_guard, disk) = guard_on_disk(&place);
    let mut wire = place.welcomed();
    let (pid, deadline) = validator(&place, &mut wire, FOREVER, ms(400));
    disk.hang();
    let exited = wire.next();
    assert!(
        matches!(exited, FromGuard::Exited { pid: gone, cause: ExitCause::Fenced, .. } if gone == pid),
        "{exited:?}"
    );
    let FromGuard::Fenced { epoch: E1, done_at, .. } = wire.next() else { panic!("no Fenced after Exited") };
    assert!(!lives(pid));
    assert!(done_at.since(deadline) < ms(1000), "{:?} too late", done_at.since(deadline));
    await_that("a call that hangs", || (disk.held() > 0).then_some(()));
    assert_eq!(place.key_links().state(), LinkState::Validating, "the disk hangs");

    // Whoever asks is answered; a node is not started, and no epoch armed that the late change could hit.
    let reason = wire.refused(ToGuard::Arm { epoch: E2, deadline: in_time(SOON) });
    assert!(reason.contains("still being put to standby"), "{reason}");
    wire.send(&ToGuard::Start { node: place.node("touch $DIR/ran; exec sleep 120"), validator_epoch: None });
    let reason = wire.refused(ToGuard::Start { node: place.node("touch $DIR/ran"), validator_epoch: Some(E1) });
    assert!(reason.contains("about to be started"), "{reason}");
    assert!(!place.path("ran").exists());
}

#[test]
fn a_standby_starts_once_a_hung_disk_is_back_and_finds_its_links_in_standby() {
    let place = Place::new();
    let (_guard, disk) = guard_on_disk(&place);
    let mut wire = place.welcomed();
    validator(&place, &mut wire, FOREVER, ms(200));
    disk.hang();
    assert!(matches!(wire.next(), FromGuard::Exited { .. }));
    assert!(matches!(wire.next(), FromGuard::Fenced { .. }));
    let node = place.node("[ -e validator_key.json ] && touch $DIR/had_key; touch $DIR/ran; exec sleep 120");
    wire.send(&ToGuard::Start { node: node.clone(), validator_epoch: None });
    let reason = wire.refused(ToGuard::Start { node, validator_epoch: None });
    assert!(reason.contains("about to be started"), "{reason}");
    assert!(!place.path("ran").exists());
    disk.thaw();
    let started = wire.next();
    assert!(matches!(started, FromGuard::Started { .. }), "{started:?}");
    await_that("the standby", || place.path("ran").exists().then_some(()));
    assert!(!place.path("had_key").exists());
    assert_eq!(place.key_links().state(), LinkState::Standby);
    // All is done: the next tenure is armed.
    wire.arm(E2, in_time(SOON));
}

#[test]
fn a_start_that_waits_for_a_hung_disk_is_taken_back_by_a_stop() {
    let place = Place::new();
    let (_guard, disk) = guard_on_disk(&place);
    let mut wire = place.welcomed();
    disk.hang();
    wire.send(&ToGuard::Start { node: place.node("touch $DIR/ran; exec sleep 120"), validator_epoch: None });
    await_that("a call that hangs", || (disk.held() > 0).then_some(()));
    wire.send(&ToGuard::Stop { timeout: SOON });
    let refused = wire.next();
    assert!(matches!(&refused, FromGuard::Refused { request, .. } if request == "Start"), "{refused:?}");
    let reason = wire.refused(ToGuard::Stop { timeout: SOON });
    assert!(reason.contains("no chain node"), "{reason}");
    disk.thaw();
    // The links are in standby by the time at which a second start is done, and nothing of the first has run.
    wire.start(place.node(FOREVER), None);
    assert!(!place.path("ran").exists());
}

#[test]
fn renewals_are_taken_while_links_of_another_start_hang() {
    let place = Place::new();
    let (_guard, disk) = guard_on_disk(&place);
    let mut wire = place.welcomed();
    wire.arm(E1, in_time(ms(600)));
    disk.hang();
    wire.send(&ToGuard::Start { node: place.node(FOREVER), validator_epoch: None });
    await_that("a call that hangs", || (disk.held() > 0).then_some(()));
    let until = BootTime::now() + ms(1200);
    while BootTime::now() < until {
        wire.arm(E1, in_time(ms(600)));
        std::thread::sleep(ms(50));
    }
    let reason = wire.refused(ToGuard::Start { node: place.node(FOREVER), validator_epoch: Some(E1) });
    assert!(reason.contains("about to be started"), "{reason}");
}

#[test]
fn a_guard_told_to_end_on_a_hung_disk_kills_at_once_and_ends_when_the_links_are_away() {
    let place = Place::new();
    let (mut guard, disk) = guard_on_disk(&place);
    let mut wire = place.welcomed();
    let (pid, _) = validator(&place, &mut wire, FOREVER, SOON * 6);
    disk.hang();
    let asked = Instant::now();
    signal(guard.pid(), Signal::TERM);
    await_death(pid);
    assert!(asked.elapsed() < SOON);
    assert!(matches!(wire.next(), FromGuard::Exited { .. }), "the coordinator hears of it");
    await_that("a call that hangs", || (disk.held() > 0).then_some(()));
    assert!(guard.child.try_wait().unwrap().is_none(), "its links are not away yet");
    disk.thaw();
    assert_eq!(guard.exit_code(), Some(0), "{}", place.guard_log());
    assert_eq!(place.key_links().state(), LinkState::Standby);
}
