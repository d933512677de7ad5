//! The guard as a real process, over its real socket, with chain nodes that misbehave.

mod client;
mod containment;
pub mod harness;
mod hung_disk;
mod realtime;
mod starting;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use baton::base::guard_frame::LinkState;
use baton::base::guard_frame::{ArmedGuard, ExitCause, ExitStatus, FRAME_MAX, FromGuard, GUARD_PROTOCOL, ToGuard};
use baton::base::ids::Epoch;
use baton::base::time::BootTime;
use harness::*;
use rustix::process::Signal;

const FOREVER: &str = "exec sleep 120";

/// Armed, linked, started: the host validates until `lease` from now.
fn validator(place: &Place, wire: &mut Wire, script: &str, lease: Duration) -> (u32, BootTime) {
    let armed = wire.arm(E1, in_time(lease));
    let proof = ArmedGuard::from_frame(&FromGuard::Armed(armed), BootTime::now()).expect("a live proof");
    place.key_links().swap(&proof, BootTime::now).unwrap();
    (wire.start(place.node(script), Some(E1)).pid, armed.deadline())
}

#[test]
fn a_silent_coordinator_loses_its_validator_at_the_deadline_and_hears_of_it() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    let (pid, deadline) = validator(&place, &mut wire, FOREVER, ms(400));
    assert_eq!(place.key_links().state(), LinkState::Validating);
    // Nothing is sent from here on, as by a coordinator under SIGSTOP.
    let exited = wire.next();
    assert_eq!(exited, FromGuard::Exited { pid, status: ExitStatus::Signal(9), cause: ExitCause::Fenced });
    let FromGuard::Fenced { epoch, fired_at, done_at, links_error: None } = wire.next() else {
        panic!("no Fenced after Exited")
    };
    println!("fired {:?} after the deadline, done {:?} later", fired_at.since(deadline), done_at.since(fired_at));
    assert_eq!(epoch, E1);
    assert!(fired_at >= deadline, "{fired_at:?} is before {deadline:?}");
    assert!(done_at.since(deadline) < ms(1000), "{:?} too late", done_at.since(deadline));
    assert!(!lives(pid));
    place.await_standby();
}

#[test]
fn a_dead_coordinator_loses_its_validator_and_the_next_one_is_told() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    let (pid, _) = validator(&place, &mut wire, FOREVER, ms(300));
    drop(wire);
    await_death(pid);
    place.await_standby();
    let mut wire = place.coordinator();
    let welcome = wire.next();
    assert!(matches!(welcome, FromGuard::Welcome { node: None, armed: None, .. }), "{welcome:?}");
    assert!(matches!(wire.next(), FromGuard::Exited { cause: ExitCause::Fenced, .. }));
    assert!(matches!(wire.next(), FromGuard::Fenced { epoch: E1, .. }));
    // It has been heard once this coordinator speaks, and is not told a third one.
    assert!(wire.refused(ToGuard::Stop { timeout: ms(1) }).contains("no chain node"));
    drop(wire);
    let mut wire = place.welcomed();
    assert!(wire.refused(ToGuard::Stop { timeout: ms(1) }).contains("no chain node"));
}

#[test]
fn a_fence_told_to_a_coordinator_that_dies_without_reading_is_told_again() {
    let place = Place::new();
    let _guard = place.guard();
    let mut first = place.welcomed();
    first.arm(E1, in_time(ms(100)));
    await_that("a fence", || place.guard_log().contains("fencing").then_some(()));
    // `Fenced` lies unread in the socket of the first.
    let mut second = place.coordinator();
    assert!(matches!(second.next(), FromGuard::Welcome { armed: None, .. }));
    assert!(matches!(second.next(), FromGuard::Fenced { epoch: E1, .. }));
}

#[test]
fn a_standby_outlives_its_coordinator_and_is_adopted_by_the_next() {
    let place = Place::new();
    let guard = place.guard();
    let mut wire = place.welcomed();
    let started = wire.start(place.node(FOREVER), None);
    let armed = wire.arm(E2, in_time(SOON));
    drop(wire);
    let welcome = place.coordinator().next();
    let expected = FromGuard::Welcome {
        protocol: GUARD_PROTOCOL,
        guard_pid: guard.pid(),
        node: Some(started.clone()),
        armed: Some(armed),
        answers_pings: true,
        watchdog: None,
    };
    assert_eq!(welcome, expected);
    assert!(lives(started.pid));
}

#[test]
fn a_child_that_left_the_group_and_lost_its_parent_dies_with_the_fence() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    // The middle shell ends at once, so the sleeper belongs to nobody but the guard.
    let script = "(setsid sh -c 'read me _ < /proc/self/stat; echo $me > $DIR/orphan; exec sleep 120' &) ; \
                  setsid sh -c 'read me _ < /proc/self/stat; echo $me > $DIR/child; trap \"\" TERM HUP INT; while :; do sleep 1; done' & \
                  exec sleep 120";
    let (pid, _) = validator(&place, &mut wire, script, ms(600));
    let (orphan, child) = (place.pid_in("orphan"), place.pid_in("child"));
    assert!(lives(orphan) && lives(child));
    assert!(matches!(wire.next(), FromGuard::Exited { cause: ExitCause::Fenced, .. }));
    // `Exited` says that all are gone, not that they will be.
    assert!(![pid, orphan, child].into_iter().any(lives), "{pid} {orphan} {child}");
}

#[test]
fn a_node_that_ends_by_itself_takes_its_children_along() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    let script = "setsid sh -c 'read me _ < /proc/self/stat; echo $me > $DIR/child; exec sleep 120' & \
                  while [ ! -s $DIR/child ]; do sleep 0.01; done; exit 7";
    let pid = wire.start(place.node(script), None).pid;
    let exited = wire.next();
    assert_eq!(exited, FromGuard::Exited { pid, status: ExitStatus::Code(7), cause: ExitCause::ByItself });
    assert!(!lives(place.pid_in("child")));
}

#[test]
fn a_node_that_ignores_sigterm_is_killed_after_the_timeout() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    let deaf = "trap '' TERM; read me _ < /proc/self/stat; echo $me > $DIR/deaf; while :; do sleep 1; done";
    let pid = wire.start(place.node(deaf), None).pid;
    assert_eq!(place.pid_in("deaf"), pid);
    let asked = BootTime::now();
    wire.send(&ToGuard::Stop { timeout: ms(200) });
    let cause = ExitCause::Stopped { killed: true };
    assert_eq!(wire.next(), FromGuard::Exited { pid, status: ExitStatus::Signal(9), cause });
    assert!(BootTime::now().since(asked) >= ms(200));
}

#[test]
fn a_node_that_obeys_sigterm_is_stopped_and_not_killed() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    let pid = wire.start(place.node(FOREVER), None).pid;
    wire.send(&ToGuard::Stop { timeout: SOON * 6 });
    let cause = ExitCause::Stopped { killed: false };
    assert_eq!(wire.next(), FromGuard::Exited { pid, status: ExitStatus::Signal(15), cause });
}

#[test]
fn a_killed_guard_takes_its_chain_node_with_it() {
    let place = Place::new();
    let mut guard = place.guard();
    let pid = place.welcomed().start(place.node(FOREVER), None).pid;
    guard.child.kill().unwrap();
    guard.child.wait().unwrap();
    await_death(pid);
}

/// The host stands still across its deadline: the guard cannot fence, and nobody else is there to do it.
#[test]
fn a_stopped_guard_dies_soon_after_its_deadline_and_a_stopped_node_with_it() {
    let place = Place::new();
    let mut guard = place.guard();
    let mut wire = place.welcomed();
    let (pid, deadline) = validator(&place, &mut wire, FOREVER, ms(400));
    signal(guard.pid(), Signal::STOP);
    signal(pid, Signal::STOP);
    await_death(pid);
    let late = BootTime::now().since(deadline);
    println!("the node was dead {late:?} after the deadline");
    assert!(BootTime::now() >= deadline + KILL_MAX / 2, "the guard was given less than half of kill_max");
    let end = guard.child.wait().unwrap();
    assert_eq!(end.signal(), Some(Signal::KILL.as_raw()));
}

#[test]
fn a_stopped_guard_with_nothing_to_fence_is_left_alone() {
    let place = Place::new();
    let guard = place.guard();
    let mut wire = place.welcomed();
    let fenced = wire.arm(E1, in_time(ms(50)));
    assert!(matches!(wire.next(), FromGuard::Fenced { epoch: E1, .. }));
    // Refused until the links are put away.
    let disarmed = await_that("links that were put away", || wire.try_arm(E2, in_time(ms(300))));
    wire.send(&ToGuard::Disarm { epoch: E2 });
    assert_eq!(wire.next(), FromGuard::Disarmed { epoch: E2 });
    let pid = wire.start(place.node(FOREVER), None).pid;
    signal(guard.pid(), Signal::STOP);
    let last = disarmed.deadline().max(fenced.deadline()) + KILL_MAX;
    await_that("the time at which a backstop would have struck", || (BootTime::now() > last).then_some(()));
    assert!(lives(guard.pid()) && lives(pid));
    signal(guard.pid(), Signal::CONT);
    assert_eq!(wire.arm(Epoch(3), in_time(SOON)).epoch(), Epoch(3));
}

#[test]
fn a_renewal_puts_off_the_backstop_too() {
    let place = Place::new();
    let guard = place.guard();
    let mut wire = place.welcomed();
    let (pid, first) = validator(&place, &mut wire, FOREVER, ms(300));
    wire.arm(E1, in_time(SOON));
    signal(guard.pid(), Signal::STOP);
    let over = first + KILL_MAX;
    await_that("the time of the first backstop", || (BootTime::now() > over).then_some(()));
    assert!(lives(guard.pid()) && lives(pid));
    signal(guard.pid(), Signal::CONT);
}

#[test]
fn a_guard_told_to_end_ends_the_whole_family_and_puts_the_links_away() {
    let place = Place::new();
    let mut guard = place.guard();
    let mut wire = place.welcomed();
    let script = "setsid sh -c 'read me _ < /proc/self/stat; echo $me > $DIR/child; exec sleep 120' & exec sleep 120";
    let (pid, _) = validator(&place, &mut wire, script, SOON * 6);
    let child = place.pid_in("child");
    signal(guard.pid(), Signal::TERM);
    assert_eq!(guard.exit_code(), Some(0), "{}", place.guard_log());
    assert!(!lives(pid) && !lives(child));
    assert_eq!(place.key_links().state(), LinkState::Standby);
    assert!(!place.socket().exists());
}

#[test]
fn renewals_keep_a_validator_alive_and_their_end_is_its_end() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    let (pid, first) = validator(&place, &mut wire, FOREVER, ms(800));
    while BootTime::now() < first + ms(400) {
        wire.arm(E1, in_time(ms(800)));
        std::thread::sleep(ms(50));
    }
    assert!(lives(pid), "{}", place.guard_log());
    let last = wire.arm(E1, in_time(ms(300))).deadline();
    assert!(matches!(wire.next(), FromGuard::Exited { cause: ExitCause::Fenced, .. }));
    assert!(BootTime::now() >= last);
}

#[test]
fn a_renewal_never_moves_a_deadline_back() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    let far = in_time(SOON * 6);
    assert_eq!(wire.arm(E1, far).deadline(), far);
    assert_eq!(wire.arm(E1, in_time(ms(50))).deadline(), far);
    let pid = wire.start(place.node(FOREVER), Some(E1)).pid;
    wire.send(&ToGuard::Signal { signal: 0x7fff, validator_epoch: None });
    assert!(matches!(wire.next(), FromGuard::Refused { .. }), "something else happened within the old deadline");
    assert!(lives(pid));
}

#[test]
fn arming_is_refused_for_a_lower_epoch_a_passed_deadline_and_a_fenced_epoch() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    wire.arm(E2, in_time(ms(150)));
    let reason = wire.refused(ToGuard::Arm { epoch: E1, deadline: in_time(SOON) });
    assert!(reason.contains("epoch 1 is over"), "{reason}");
    let reason = wire.refused(ToGuard::Arm { epoch: E2, deadline: BootTime::now() - ms(1) });
    assert!(reason.contains("passed"), "{reason}");
    assert!(matches!(wire.next(), FromGuard::Fenced { epoch: E2, .. }), "fenced without a chain node as well");
    let refused =
        || Some(wire.refused(ToGuard::Arm { epoch: E2, deadline: in_time(SOON) })).filter(|it| !it.contains("still"));
    let reason = await_that("links that were put away", refused);
    assert!(reason.contains("fenced"), "{reason}");
}

#[test]
fn nothing_makes_a_validator_of_an_unarmed_guard() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    let start = |epoch| ToGuard::Start { node: place.node("touch $DIR/ran"), validator_epoch: Some(epoch) };
    let signal = |epoch| ToGuard::Signal { signal: 1, validator_epoch: Some(epoch) };
    assert!(wire.refused(start(E1)).contains("not armed"));
    assert!(wire.refused(signal(E1)).contains("not armed"));
    wire.arm(E2, in_time(SOON));
    assert!(wire.refused(start(E1)).contains("armed under epoch 2"));
    wire.send(&ToGuard::Disarm { epoch: E2 });
    assert_eq!(wire.next(), FromGuard::Disarmed { epoch: E2 });
    assert!(wire.refused(start(E2)).contains("not armed"));
    assert!(!place.path("ran").exists());
}

#[test]
fn a_signal_makes_a_validator_of_a_standby_and_disarm_makes_it_a_standby_again() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    let script = "trap 'echo hup >> $DIR/hup' HUP; read me _ < /proc/self/stat; echo $me > $DIR/up; while :; do sleep 0.02; done";
    wire.start(place.node(script), None);
    place.pid_in("up");
    wire.arm(E1, in_time(SOON));
    wire.send(&ToGuard::Signal { signal: 1, validator_epoch: Some(E1) });
    assert_eq!(wire.next(), FromGuard::Signalled { signal: 1 });
    await_that("the node's answer to SIGHUP", || place.path("hup").exists().then_some(()));
    let epoch_now = || match place.coordinator().next() {
        FromGuard::Welcome { node: Some(node), .. } => node.validator_epoch,
        other => panic!("instead of Welcome with a node: {other:?}"),
    };
    assert_eq!(epoch_now(), Some(E1));
    let mut wire = place.welcomed();
    wire.send(&ToGuard::Disarm { epoch: E1 });
    assert_eq!(wire.next(), FromGuard::Disarmed { epoch: E1 });
    assert_eq!(epoch_now(), None);
}

#[test]
fn a_start_as_standby_puts_the_links_into_standby_first() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    let [key, node_key] = &place.links()[..] else { unreachable!() };
    std::os::unix::fs::symlink(&key.validating, &key.link).unwrap();
    std::os::unix::fs::symlink("/nowhere", &node_key.link).unwrap();
    wire.start(place.node("[ -e validator_key.json ] && touch $DIR/had_key; exec sleep 120"), None);
    assert_eq!(place.key_links().state(), LinkState::Standby);
    wire.send(&ToGuard::Stop { timeout: SOON });
    wire.next();
    assert!(!place.path("had_key").exists());
    std::fs::write(&key.link, "a real key").unwrap();
    let reason = wire.refused(ToGuard::Start { node: place.node(FOREVER), validator_epoch: None });
    assert!(reason.contains("is a regular file; move it away"), "{reason}");
}

#[test]
fn a_start_that_cannot_work_is_refused_with_its_reason() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    let mut node = place.node(FOREVER);
    node.argv = vec!["/no/such/neard".into()];
    let reason = wire.refused(ToGuard::Start { node: node.clone(), validator_epoch: None });
    assert!(reason.contains("/no/such/neard"), "{reason}");
    node.cwd = "/no/such/home".into();
    let reason = wire.refused(ToGuard::Start { node, validator_epoch: None });
    assert!(reason.contains("working directory /no/such/home"), "{reason}");
    wire.start(place.node(FOREVER), None);
    let again = wire.refused(ToGuard::Start { node: place.node(FOREVER), validator_epoch: None });
    assert!(again.contains("runs already"), "{again}");
    assert!(wire.refused(ToGuard::Quit).contains("stop it first"));
}

#[test]
fn a_newer_coordinator_replaces_the_older_and_a_mute_stranger_does_not() {
    let place = Place::new();
    let _guard = place.guard();
    let mut older = place.welcomed();
    let _stranger = Wire::connect(&place.socket());
    older.arm(E1, in_time(SOON));
    let mut newer = place.welcomed();
    assert_eq!(older.try_next(), None, "the older connection is still open");
    newer.arm(E1, in_time(SOON));
}

#[test]
fn another_member_does_not_get_a_busy_guard() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    wire.arm(E1, in_time(SOON));
    let mut other = Wire::connect(&place.socket());
    let hello = place.hello("host-b", GUARD_PROTOCOL);
    let reason = other.refused(hello);
    assert!(reason.contains("serves member host-a"), "{reason}");
    assert_eq!(other.try_next(), None);
    wire.arm(E1, in_time(SOON));
}

#[test]
fn garbage_closes_its_connection_and_nothing_else() {
    let place = Place::new();
    let _guard = place.guard();
    let mut standby = place.welcomed();
    let pid = standby.start(place.node(FOREVER), None).pid;
    let too_long = [&(FRAME_MAX as u32 + 1).to_be_bytes()[..], b"x"].concat();
    let no_json = [&5u32.to_be_bytes()[..], b"hello"].concat();
    let no_hello = baton::base::guard_frame::encode(&ToGuard::Quit).unwrap();
    let old = place.hello("host-a", 999);
    let unknown_version = baton::base::guard_frame::encode(&old).unwrap();
    for (bytes, reason) in [
        (too_long, "is longer than"),
        (no_json, "not understood"),
        (no_hello, "began with Quit"),
        (unknown_version, "protocol 999"),
    ] {
        let mut wire = Wire::connect(&place.socket());
        wire.stream.write_all(&bytes).unwrap();
        while wire.try_next().is_some() {}
        let log = place.guard_log();
        assert!(log.contains(reason), "no {reason:?} in\n{log}");
    }
    standby.arm(E1, in_time(SOON));
    assert!(lives(pid));
}

#[test]
fn a_coordinator_that_never_reads_loses_its_connection_and_not_the_fence() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    let (pid, _) = validator(&place, &mut wire, FOREVER, ms(1500));
    let renewal = baton::base::guard_frame::encode(&ToGuard::Disarm { epoch: E2 }).unwrap();
    wire.stream.set_write_timeout(Some(SOON)).unwrap();
    // Every one is answered by a refusal that nobody reads.
    let flood = renewal.repeat(1000);
    await_that("the end of the connection", || wire.stream.write_all(&flood).is_err().then_some(()));
    await_death(pid);
    // While there was something to fence, the guard wrote nothing to its log.
    await_that("the reason in the log", || place.guard_log().contains("bytes unread").then_some(()));
}

#[test]
fn a_second_guard_on_the_same_socket_gives_up_and_a_stale_socket_is_replaced() {
    let place = Place::new();
    let mut guard = place.guard();
    let mode = std::fs::metadata(place.socket()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let second = run_guard(&["--socket", place.socket().to_str().unwrap()]);
    assert_eq!(second.0, Some(1));
    assert!(second.1.contains("another guard serves"), "{}", second.1);
    place.welcomed();
    guard.child.kill().unwrap();
    guard.child.wait().unwrap();
    assert!(place.socket().exists(), "SIGKILL leaves the socket behind");
    let _next = place.guard();
    place.welcomed();
}

#[test]
fn wrong_arguments_are_one_clear_line_and_code_2() {
    for (args, reason) in [
        (&["--sock"][..], "unknown argument --sock"),
        (&["--socket"], "--socket needs a path"),
        (&["--socket", "relative"], "not an absolute path"),
        (&[], "--socket is missing"),
    ] {
        let (code, said) = run_guard(args);
        assert_eq!(code, Some(2), "{args:?}");
        assert!(said.contains(reason) && said.lines().count() == 1, "{said}");
    }
}

fn run_guard(args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(GUARD);
    command.args(args).stdout(Stdio::null());
    die_with_us(&mut command);
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn the_chain_node_gets_a_session_the_marker_and_its_old_priority() {
    let place = Place::new();
    let _guard = place.guard();
    let pid = place.welcomed().start(place.node(FOREVER), None).pid;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    assert_eq!((fields[2], fields[3]), (&*pid.to_string(), &*pid.to_string()), "group and session");
    let ours = rustix::process::getpriority_process(None).unwrap();
    assert_eq!(fields[16], ours.to_string(), "nice");
    let oom = |path: String| std::fs::read_to_string(path).unwrap();
    assert_eq!(oom(format!("/proc/{pid}/oom_score_adj")), oom("/proc/self/oom_score_adj".into()));
    let marker = format!("BATON_GUARD={}", place.socket().display());
    // The kernel fills it in a moment after exec has succeeded.
    await_that("the marker in the node's environment", || {
        let environ = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        environ.split('\0').any(|variable| variable == marker).then_some(())
    });
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let blocked = status.lines().find(|line| line.starts_with("SigBlk")).unwrap();
    assert!(blocked.ends_with("0000000000000000"), "{blocked}");
}

#[test]
fn a_guard_without_a_file_descriptor_left_is_not_busy_and_fences_in_time() {
    let place = Place::new();
    let guard = place.guard();
    let mut wire = place.welcomed();
    let (pid, deadline) = validator(&place, &mut wire, FOREVER, ms(2500));
    let before = guard.allow_files(Some(guard.files_in_use()));
    // Nobody can let it in: it waits and keeps the listener readable.
    let mut knocks = Wire::connect(&place.socket());
    let (busy, began_at) = (guard.cpu_time(), BootTime::now());
    assert!(matches!(wire.next(), FromGuard::Exited { pid: exited, cause: ExitCause::Fenced, .. } if exited == pid));
    let fenced_at = BootTime::now();
    let (busy, took) = (guard.cpu_time() - busy, fenced_at.since(began_at));
    assert!(busy < took / 4, "{busy:?} of {took:?} with nothing to do");
    assert!(fenced_at.since(deadline) < ms(1000), "{:?} too late", fenced_at.since(deadline));
    assert!(!lives(pid));
    place.await_standby();

    guard.allow_files(before);
    knocks.send(&place.hello("host-a", GUARD_PROTOCOL));
    assert!(matches!(knocks.next(), FromGuard::Welcome { .. }), "let in as soon as that can be");
    let told = place.guard_log().matches("cannot accept a connection").count();
    assert_eq!(told, 1, "{}", place.guard_log());
}
