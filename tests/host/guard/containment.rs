//! What the kernel ends when nobody else does: a chain node that hides below a script, in sessions of its own and
//! without a parent, dies with its guard all the same.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use baton::base::guard_frame::{Containment, ExitCause, ExitStatus, FromGuard, NodeProcess, ToGuard};
use baton::base::time::BootTime;
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

use super::FOREVER;
use super::harness::*;
use crate::kit::refuse_unshare::refuse_unshare;

/// A start script that does not end in `exec`. What it starts leaves group, session and parent, and hears no signal.
const WRAPPER: &str = "note() { read me _ < /proc/self/stat; echo $me > $DIR/$1; }; \
    (setsid sh -c 'trap \"\" TERM HUP INT; read me _ < /proc/self/stat; echo $me > $DIR/orphan; \
                   while :; do sleep 1; done' &) ; \
    setsid sh -c 'trap \"\" TERM HUP INT; read me _ < /proc/self/stat; echo $me > $DIR/child; \
                  while :; do sleep 1; done' & \
    note script; wait";

fn family(place: &Place) -> [u32; 3] {
    ["script", "child", "orphan"].map(|name| place.pid_in(name))
}

/// As in a container with Docker's seccomp profile, and on a host that forbids user namespaces.
pub fn without_namespaces(command: &mut Command) {
    // SAFETY: two system calls, no allocation and no lock.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(refuse_unshare)
    };
}

/// Root as it is in many containers: with capabilities that a user namespace would take away.
fn without_sys_admin(command: &mut Command) {
    let drop_it = || {
        let _ = remove_capability_from_bounding_set(CapabilitySet::SYS_ADMIN);
        Ok::<(), io::Error>(())
    };
    // SAFETY: a system call, no allocation and no lock.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(drop_it)
    };
}

/// Whether this host gives us a namespace; says so where it does not, unless BATON_REQUIRE_NAMESPACES is set.
fn is_contained(place: &Place, node: &NodeProcess) -> bool {
    let contained = node.containment == Containment::PidNamespace;
    if !contained {
        assert!(std::env::var_os("BATON_REQUIRE_NAMESPACES").is_none(), "{}", place.guard_log());
        eprintln!("left out: no PID namespace here: {}", place.guard_log());
    }
    contained
}

#[test]
fn a_killed_guard_takes_every_descendant_of_its_chain_node_along() {
    let place = Place::new();
    let mut guard = place.guard();
    let node = place.welcomed().start(place.node(WRAPPER), None);
    let family = family(&place);
    if !is_contained(&place, &node) {
        return;
    }
    assert!(family.into_iter().all(lives));
    guard.child.kill().unwrap();
    guard.child.wait().unwrap();
    family.into_iter().for_each(await_death);
}

#[test]
fn a_killed_guard_takes_stopped_descendants_along_and_a_stopped_first_process() {
    let place = Place::new();
    let mut guard = place.guard();
    let node = place.welcomed().start(place.node(WRAPPER), None);
    let family = family(&place);
    if !is_contained(&place, &node) {
        return;
    }
    let first = first_process_of(guard.pid());
    for pid in family.into_iter().chain([first]) {
        signal(pid, Signal::STOP);
    }
    guard.child.kill().unwrap();
    guard.child.wait().unwrap();
    family.into_iter().chain([first]).for_each(await_death);
}

/// The host stands still across its deadline, with a chain node that the kernel does not know as the guard's child.
#[test]
fn the_backstop_of_a_stopped_guard_takes_stopped_descendants_along() {
    let place = Place::new();
    let mut guard = place.guard();
    let mut wire = place.welcomed();
    let armed = wire.arm(E1, in_time(ms(1500)));
    let node = wire.start(place.node(WRAPPER), Some(E1));
    let family = family(&place);
    if !is_contained(&place, &node) {
        return;
    }
    let first = first_process_of(guard.pid());
    for pid in [guard.pid(), first].into_iter().chain(family) {
        signal(pid, Signal::STOP);
    }
    assert!(BootTime::now() < armed.deadline(), "too slow to try it");
    family.into_iter().for_each(await_death);
    assert!(BootTime::now() >= armed.deadline() + KILL_MAX / 2);
    let end = guard.child.wait().unwrap();
    assert_eq!(end.signal(), Some(Signal::KILL.as_raw()));
}

#[test]
fn a_stop_ends_descendants_that_hear_no_sigterm_and_exited_means_that_all_are_gone() {
    let place = Place::new();
    let guard = place.guard();
    let mut wire = place.welcomed();
    let node = wire.start(place.node(WRAPPER), None);
    let family = family(&place);
    let contained = is_contained(&place, &node);
    wire.send(&ToGuard::Stop { timeout: SOON });
    let cause = ExitCause::Stopped { killed: false };
    assert_eq!(wire.next(), FromGuard::Exited { pid: node.pid, status: ExitStatus::Signal(15), cause });
    assert!(!family.into_iter().any(lives));
    assert_eq!(children_of(guard.pid()), [0; 0], "the namespace's first process is gone too");
    // And nothing stands in the way of the next one.
    let again = wire.start(place.node(FOREVER), None);
    assert_eq!(again.containment == Containment::PidNamespace, contained);
}

#[test]
fn a_chain_node_is_the_guards_own_child_and_its_exit_status_arrives() {
    let place = Place::new();
    let guard = place.guard();
    let mut wire = place.welcomed();
    let script = "read me parent _ < /proc/self/stat; echo $me > $DIR/pid; read go < $DIR/go; exit 7";
    rustix::fs::mkfifoat(rustix::fs::CWD, place.path("go"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let node = wire.start(place.node(script), None);
    assert_eq!(place.pid_in("pid"), node.pid, "the number that operators see");
    assert!(children_of(guard.pid()).contains(&node.pid));
    std::fs::write(place.path("go"), "\n").unwrap();
    let exited = FromGuard::Exited { pid: node.pid, status: ExitStatus::Code(7), cause: ExitCause::ByItself };
    assert_eq!(wire.next(), exited);
}

#[test]
fn a_first_process_that_is_killed_ends_the_chain_node_and_the_guard_says_so() {
    let place = Place::new();
    let guard = place.guard();
    let mut wire = place.welcomed();
    let node = wire.start(place.node(WRAPPER), None);
    let family = family(&place);
    if !is_contained(&place, &node) {
        return;
    }
    signal(first_process_of(guard.pid()), Signal::KILL);
    let exited = FromGuard::Exited { pid: node.pid, status: ExitStatus::Signal(9), cause: ExitCause::ByItself };
    assert_eq!(wire.next(), exited);
    assert!(!family.into_iter().any(lives));
}

#[test]
fn a_program_that_does_not_exist_leaves_no_namespace_behind() {
    let place = Place::new();
    let guard = place.guard();
    let mut wire = place.welcomed();
    let mut node = place.node(FOREVER);
    node.argv = vec!["/no/such/neard".into()];
    let reason = wire.refused(ToGuard::Start { node, validator_epoch: None });
    assert!(reason.starts_with("cannot run /no/such/neard: "), "{reason}");
    assert_eq!(children_of(guard.pid()), [0; 0]);
}

#[test]
fn a_host_without_namespaces_runs_the_node_as_a_direct_child_and_is_told_so() {
    let place = Place::new();
    let mut guard = place.guard_with(without_namespaces);
    let mut wire = place.welcomed();
    let node = wire.start(place.node(FOREVER), None);
    assert_eq!(node.containment, Containment::DirectChild);
    let log = place.guard_log();
    assert!(log.contains("no PID namespace for the chain node: unshare"), "{log}");
    let welcome = place.coordinator().next();
    assert!(matches!(&welcome, FromGuard::Welcome { node: Some(known), .. } if *known == node), "{welcome:?}");
    guard.child.kill().unwrap();
    guard.child.wait().unwrap();
    await_death(node.pid);
}

#[test]
fn a_first_process_is_nothing_to_be_started_by_hand() {
    let output = Command::new(GUARD).arg("first-process").output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("started by a guard"), "{said}");
}

#[test]
fn a_started_frame_of_an_earlier_version_says_direct_child() {
    let node: NodeProcess = serde_json::from_str(r#"{"pid": 7, "started_at": 1, "validator_epoch": null}"#).unwrap();
    assert_eq!(node.containment, Containment::DirectChild);
}

fn children_of(guard: u32) -> Vec<u32> {
    let children = |task| std::fs::read_to_string(format!("/proc/{guard}/task/{task}/children")).unwrap();
    children(guard).split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The guard's child whose name says so.
fn first_process_of(guard: u32) -> u32 {
    let is_first = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"baton-guard\0first-process\0")
    };
    children_of(guard).into_iter().find(is_first).expect("a first process")
}

#[test]
fn a_chain_nodes_file_mode_mask_and_files_are_as_without_a_namespace() {
    let seen = |prepare: fn(&mut Command)| {
        let place = Place::new();
        let _guard = place.guard_with(prepare);
        let script = "umask > $DIR/mask; ulimit -a > $DIR/limits; ls /proc/self/fd > $DIR/files; nice > $DIR/nice; \
                      cat /proc/self/oom_score_adj > $DIR/oom; echo > $DIR/done; exec sleep 120";
        place.welcomed().start(place.node(script), None);
        await_that("what the node sees", || place.path("done").exists().then_some(()));
        ["mask", "limits", "files", "nice", "oom"].map(|name| std::fs::read_to_string(place.path(name)).unwrap())
    };
    assert_eq!(seen(|_| ()), seen(without_namespaces));
}

#[test]
fn a_trial_tells_what_a_guard_would_get() {
    let tell = |prepare: fn(&mut Command)| {
        let mut command = Command::new(GUARD);
        command.arg("try-namespace");
        prepare(&mut command);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let refused = tell(without_namespaces);
    assert!(refused.contains("Operation not permitted"), "{refused}");
    if rustix::process::geteuid().is_root() {
        let kept = tell(without_sys_admin);
        assert!(kept.starts_with("unshare, and a user namespace would take away"), "{kept}");
    }
    let place = Place::new();
    let _guard = place.guard();
    let node = place.welcomed().start(place.node(FOREVER), None);
    assert_eq!(tell(|_| ()) == "pid-namespace\n", node.containment == Containment::PidNamespace);
}

/// As the unit runs it: a user without any right, who cannot get one either.
#[test]
fn a_service_user_gets_a_user_namespace_for_it() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: not root, so every other test here is this one");
        return;
    }
    let place = Place::new();
    let guard = place.path("baton-guard");
    std::fs::copy(GUARD, &guard).unwrap();
    let anybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place.path(""), anybody.clone()).unwrap();
    std::fs::set_permissions(&guard, anybody).unwrap();
    let mut command = Command::new(&guard);
    command.arg("try-namespace").uid(65534).gid(65534);
    let told = String::from_utf8(command.output().unwrap().stdout).unwrap();
    if told != "pid-namespace\n" {
        assert!(std::env::var_os("BATON_REQUIRE_NAMESPACES").is_none(), "{told}");
        eprintln!("left out: no user namespaces here: {told}");
    }
}
