//! Which threads of a host run at a real-time priority: those that a lease waits for, and no others. Where no process
//! may take one, this says so and passes, unless BATON_REQUIRE_REALTIME is set.

use std::collections::BTreeSet;
use std::fs;
use std::thread;

use crate::common::TestNet;
use baton::base::ids::Role;
use baton::base::realtime::{Priority, take};
use localnet::hosts::faults::{self, What};
use rustix::process::{Pid, getpriority_process, setpriority_process};

const OTHER: (i32, i32) = (0, 0);

const fn real_time(priority: Priority) -> (i32, i32) {
    (2, priority.number())
}

fn permitted() -> bool {
    let Err(error) = thread::spawn(|| take(Priority::Guard)).join().unwrap() else { return true };
    assert!(std::env::var_os("BATON_REQUIRE_REALTIME").is_none(), "no real-time priority here: {error}");
    eprintln!("left out: no real-time priority here: {error}");
    false
}

/// Name, policy and real-time priority of every thread; the process's first thread comes first.
fn threads(pid: i32) -> Vec<(String, (i32, i32))> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let ids: BTreeSet<i32> = tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    // A thread may end while we look.
    let stats = ids.into_iter().filter_map(|id| fs::read_to_string(format!("/proc/{pid}/task/{id}/stat")).ok());
    let parse = |stat: String| {
        let (name, rest) = stat.split_once('(').unwrap().1.rsplit_once(')').unwrap();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        (name.to_owned(), (fields[38].parse().unwrap(), fields[37].parse().unwrap()))
    };
    stats.map(parse).collect()
}

#[test]
fn what_carries_a_lease_is_real_time_and_nothing_else_is() {
    if !permitted() {
        return;
    }
    // What is started by a real-time thread has no nice value left unless it is handed on.
    let nice = (getpriority_process(None).unwrap() + 1).min(19);
    setpriority_process(None, nice).unwrap();
    let t = TestNet::up(&[]);
    t.pair();
    for host in &t.net.hosts {
        let coordinator = threads(faults::find(&t.net, &host.id, What::Coordinator).unwrap()[0].pid);
        let of =
            |name: &str| coordinator.iter().filter(|(other, _)| other == name).map(|(_, s)| *s).collect::<Vec<_>>();
        assert_eq!(coordinator[0], ("baton".into(), real_time(Priority::Coordinator)), "the main thread");
        let carry = coordinator.iter().filter(|(_, scheduling)| *scheduling != OTHER).collect::<Vec<_>>();
        assert_eq!(carry.len(), 1, "the main thread alone: {coordinator:?}");
        assert_eq!(of("baton-desk"), [OTHER], "operators and monitors");
        assert_eq!(of("store-writer"), [OTHER], "it spins for sled's threads");
        if host.role == Role::Validator {
            let guard = threads(faults::find(&t.net, &host.id, What::Guard).unwrap()[0].pid);
            let loops = ("baton-guard".to_owned(), real_time(Priority::Guard));
            assert_eq!(guard, [loops, ("links".to_owned(), OTHER)], "a disk is waited for beside the deadline");
            for node in faults::find(&t.net, &host.id, What::Node).unwrap() {
                let started_with = getpriority_process(Pid::from_raw(node.pid)).unwrap();
                assert_eq!(started_with, nice, "the chain node's nice value, as baton was started");
                let node = threads(node.pid);
                assert!(node.iter().all(|(_, scheduling)| *scheduling == OTHER), "the chain node: {node:?}");
            }
        }
    }
}
