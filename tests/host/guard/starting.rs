//! The start of a chain node whose log or program waits for a disk, and of one whose program the kernel would part from
//! its guard.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use baton::base::guard_frame::{Containment, ExitCause, ExitStatus, FromGuard, ToGuard};
use baton::base::time::BootTime;
use rustix::fs::{CWD, Mode, XattrFlags, mkfifoat, setxattr};
use rustix::process::{Uid, geteuid};
use rustix::thread::set_thread_res_uid;

use super::FOREVER;
use super::containment::without_namespaces;
use super::harness::*;

const NOBODY: u32 = 65534;
/// `struct vfs_cap_data` of revision 2: CAP_NET_BIND_SERVICE, permitted and in effect.
const CAPABILITIES: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Opening it for writing waits until somebody reads.
fn hung_log(place: &Place) -> baton::base::guard_frame::NodeSpec {
    mkfifoat(CWD, place.path("hung"), Mode::from_raw_mode(0o600)).unwrap();
    let mut node = place.node("echo > $DIR/ran; exec sleep 120");
    node.log = Some(place.path("hung"));
    node
}

#[test]
fn a_log_that_hangs_keeps_an_armed_guard_from_nothing() {
    for prepare in [|_: &mut Command| (), without_namespaces] {
        let place = Place::new();
        let _guard = place.guard_with(prepare);
        let mut wire = place.welcomed();
        wire.arm(E1, in_time(SOON));
        let node = wire.start(hung_log(&place), Some(E1));
        let armed = wire.arm(E1, in_time(ms(400)));
        let (pid, status, cause) = (node.pid, ExitStatus::Signal(9), ExitCause::Fenced);
        assert_eq!(wire.next(), FromGuard::Exited { pid, status, cause }, "{}", place.guard_log());
        let fenced = wire.next();
        assert!(
            matches!(fenced, FromGuard::Fenced { epoch: E1, fired_at, .. } if fired_at >= armed.deadline()),
            "{fenced:?}"
        );
        assert!(!lives(node.pid) && !place.path("ran").exists());
        // And nothing of it stands in the way of the next one.
        wire.start(place.node(FOREVER), None);
    }
}

#[test]
fn a_log_that_hung_lets_the_node_run_when_it_opens() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    wire.arm(E1, in_time(SOON));
    let node = wire.start(hung_log(&place), Some(E1));
    assert!(!place.path("ran").exists());
    let _reader = std::fs::File::open(place.path("hung")).unwrap();
    await_that("the node", || place.path("ran").exists().then_some(()));
    assert!(lives(node.pid));
}

#[test]
fn a_late_failure_ends_the_node_and_stands_in_the_guards_log() {
    let place = Place::new();
    let _guard = place.guard();
    let mut wire = place.welcomed();
    let mut node = hung_log(&place);
    node.argv = vec!["/no/such/neard".into()];
    wire.arm(E1, in_time(SOON));
    let node = wire.start(node, Some(E1));
    let _reader = std::fs::File::open(place.path("hung")).unwrap();
    let exited = FromGuard::Exited { pid: node.pid, status: ExitStatus::Code(127), cause: ExitCause::ByItself };
    assert_eq!(wire.next(), exited);
    wire.send(&ToGuard::Disarm { epoch: E1 });
    assert_eq!(wire.next(), FromGuard::Disarmed { epoch: E1 });
    let named = || place.guard_log().contains("the chain node never ran: cannot run /no/such/neard: ").then_some(());
    await_that("its reason in the guard's log", named);
}

#[test]
fn a_chain_node_and_what_it_starts_get_no_new_privileges() {
    for prepare in [|_: &mut Command| (), without_namespaces] {
        let place = Place::new();
        let _guard = place.guard_with(prepare);
        let script = "grep NoNewPrivs /proc/self/status > $DIR/new; mv $DIR/new $DIR/seen; exec sleep 120";
        place.welcomed().start(place.node(script), None);
        let seen = await_that("what the node sees", || std::fs::read_to_string(place.path("seen")).ok());
        assert_eq!(seen.split_whitespace().last(), Some("1"), "{seen}");
    }
}

/// No new privileges are not enough: the kernel clears the signal at the parent's death also for these.
#[test]
fn a_program_with_file_capabilities_is_refused_by_name_where_nothing_but_a_signal_would_end_it() {
    if !geteuid().is_root() {
        eprintln!("left out: only root can give a file capabilities");
        return;
    }
    let place = Place::new();
    let shell = std::fs::canonicalize("/bin/sh").unwrap();
    let program = place.path("sh");
    std::fs::copy(shell, &program).unwrap();
    let guard = place.path("baton-guard");
    std::fs::copy(GUARD, &guard).unwrap();
    for name in ["", "home", "validator.json", "validator_node.json", "voter_node.json", "guard.log"] {
        let path = place.path(name);
        if name == "guard.log" {
            std::fs::write(&path, "").unwrap();
        }
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let anybody = std::fs::Permissions::from_mode(0o755);
    [&guard, &program].into_iter().for_each(|path| std::fs::set_permissions(path, anybody.clone()).unwrap());
    if let Err(error) = setxattr(&program, "security.capability", &CAPABILITIES, XattrFlags::empty()) {
        eprintln!("left out: no file capabilities here: {error}");
        return;
    }
    let _guard = place.guard_of(&guard, |command| {
        command.uid(NOBODY).gid(NOBODY);
        without_namespaces(command);
    });
    // A guard listens to its own user alone. This thread is the test's, and ends with it.
    let (root, nobody) = (Uid::from_raw(0), Uid::from_raw(NOBODY));
    set_thread_res_uid(root, nobody, root).unwrap();
    let mut wire = place.welcomed();
    set_thread_res_uid(root, root, root).unwrap();
    let mut node = place.node(FOREVER);
    node.argv[0] = program.display().to_string();
    let reason = wire.refused(ToGuard::Start { node: node.clone(), validator_epoch: None });
    let named = reason.contains(&*program.to_string_lossy()) && reason.contains("file capabilities");
    assert!(named && reason.contains("setcap -r"), "{reason}");
    rustix::fs::removexattr(&program, "security.capability").unwrap();
    let before = BootTime::now();
    let node = wire.start(node, None);
    assert_eq!(node.containment, Containment::DirectChild);
    assert!(node.started_at >= before);
}
