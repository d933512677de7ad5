//! Fence 1 on a starved host: the guard's real-time priority, which its chain node does not have. Where no process may
//! take one, these tests say so and pass, unless BATON_REQUIRE_REALTIME is set.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use baton::base::guard_frame::{FromGuard, GUARD_PROTOCOL, ToGuard};
use baton::base::ids::Epoch;
use baton::base::realtime::{Priority, take};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, remove_capability_from_bounding_set};

use super::FOREVER;
use super::harness::*;

const RR: i32 = 2;
const OTHER: i32 = 0;
/// Of a chain node with many.
const THREADS: usize = 64;

/// Policy and real-time priority, as proc(5) tells them of a process's first thread.
fn scheduling(pid: u32) -> (i32, i32) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[38].parse().unwrap(), fields[37].parse().unwrap())
}

/// Whether a process may take a real-time priority here.
fn permitted() -> bool {
    let Err(error) = std::thread::spawn(|| take(Priority::Guard)).join().unwrap() else { return true };
    assert!(std::env::var_os("BATON_REQUIRE_REALTIME").is_none(), "no real-time priority here: {error}");
    eprintln!("left out: no real-time priority here: {error}");
    false
}

/// Its guard has no CAP_SYS_NICE, whoever runs it, and may go up to the real-time priority `limit`.
fn without_privilege(command: &mut Command, limit: u64) {
    let limit_it = move || {
        // Not root: then it has no capability either.
        let _ = remove_capability_from_bounding_set(CapabilitySet::SYS_NICE);
        Ok::<(), io::Error>(setrlimit(Resource::Rtprio, Rlimit { current: Some(limit), maximum: Some(limit) })?)
    };
    // SAFETY: two system calls, no allocation and no lock.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(limit_it)
    };
}

#[test]
fn a_guard_runs_before_a_coordinator_and_its_chain_node_behind_both() {
    if !permitted() {
        return;
    }
    let place = Place::new();
    let guard = place.guard();
    assert_eq!(scheduling(guard.pid()), (RR, Priority::Guard.number()));
    assert!(Priority::Guard.number() > Priority::Coordinator.number());
    let node = place
        .welcomed()
        .start(place.node("sh -c 'read me _ < /proc/self/stat; echo $me > $DIR/child; exec sleep 120' & wait"), None);
    assert_eq!(scheduling(node.pid), (OTHER, 0));
    assert_eq!(scheduling(place.pid_in("child")), (OTHER, 0));
}

#[test]
fn the_limit_that_the_systemd_unit_sets_is_enough() {
    let wanted = Priority::Guard.number() as u64;
    // In many containers root may not raise a limit.
    let may_raise = capabilities(None).unwrap().effective.contains(CapabilitySet::SYS_RESOURCE);
    if !may_raise && getrlimit(Resource::Rtprio).maximum.is_some_and(|limit| limit < wanted) {
        eprintln!("left out: RLIMIT_RTPRIO cannot be raised here without CAP_SYS_RESOURCE");
        return;
    }
    let place = Place::new();
    let guard = place.guard_with(|command| without_privilege(command, wanted));
    assert_eq!(scheduling(guard.pid()), (RR, Priority::Guard.number()), "{}", place.guard_log());
    let node = place.welcomed().start(place.node(FOREVER), None);
    assert_eq!(scheduling(node.pid), (OTHER, 0));
}

#[test]
fn a_guard_that_may_not_take_one_says_so_and_fences_all_the_same() {
    let place = Place::new();
    let guard = place.guard_with(|command| without_privilege(command, 0));
    assert_eq!(scheduling(guard.pid()), (OTHER, 0));
    assert!(place.guard_log().contains("no real-time priority"), "{}", place.guard_log());
    let mut wire = place.welcomed();
    let (pid, _) = super::validator(&place, &mut wire, FOREVER, ms(300));
    await_death(pid);
}

/// Looks at the threads of the process whose number is in `pid` as a monitor does, and at the next one's, until `over`.
fn monitor(pid: &AtomicU32, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let threads = format!("/proc/{}/task", pid.load(Ordering::Relaxed));
        for thread in fs::read_dir(&threads).into_iter().flatten().flatten() {
            for file in ["stat", "status", "comm", "children"] {
                let _ = fs::metadata(thread.path().join(file));
            }
        }
    }
}

#[test]
#[ignore = "the chain node of another test"]
fn many_threads() {
    thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(thread::park))));
}

/// Whoever looks at a dead process helps the kernel to take it out of /proc, and the guard that reaps it does the same.
/// Two that do so wait for each other, spinning; so the one must not have a priority that the other lacks.
#[test]
fn monitors_that_look_at_a_dying_chain_node_do_not_hold_up_its_guard() {
    if !permitted() {
        return;
    }
    let place = Place::new();
    let guard = place.guard();
    let mut wire = Wire::connect(&place.socket());
    let member = "host-a".into();
    wire.send(&ToGuard::Hello {
        protocol: GUARD_PROTOCOL,
        member,
        links: place.links(),
        kill_max: ms(100),
        watchdog: None,
    });
    assert!(matches!(wire.next(), FromGuard::Welcome { .. }));
    let us = std::env::current_exe().expect("this program");
    let node = place.node(&format!("exec {} --ignored --exact guard::realtime::many_threads", us.display()));
    let (pid, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let lost = thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(|| monitor(&pid, &over))));
        let lost = (1..=40).find(|round| {
            let started = wire.start(node.clone(), None).pid;
            pid.store(started, Ordering::Relaxed);
            let threads = || fs::read_dir(format!("/proc/{started}/task")).map_or(0, Iterator::count);
            await_that("a chain node with its threads", || (threads() > THREADS).then_some(()));
            let epoch = Epoch(*round);
            wire.arm(epoch, in_time(ms(400)));
            wire.send(&ToGuard::Stop { timeout: SOON });
            // A guard that is held up until its deadline is killed by the kernel.
            loop {
                match wire.try_next() {
                    Some(FromGuard::Exited { .. }) => break,
                    Some(_) => {}
                    None => return true,
                }
            }
            wire.send(&ToGuard::Disarm { epoch });
            wire.try_next().is_none()
        });
        over.store(true, Ordering::Relaxed);
        lost
    });
    assert_eq!(lost, None, "the guard {} was killed while it stopped its node: {}", guard.pid(), place.guard_log());
}
