//! What a coordinator leaves behind when it is asked to stop, and what the next one makes of it: a restart or an
//! upgrade costs a standby nothing, and a holder one handover; and `baton fence`, which leaves nothing. The signature
//! log is the judge.

use std::process::Command;
use std::time::Duration;

use crate::common::TestNet;
use localnet::hosts::faults::{self, What};
use localnet::judge::status::{await_status, query_host};
use localnet::process::launch;
use localnet::process::procs::{self, Proc};
use localnet::runs::demo::{Pair, ask_baton};
use rustix::process::Signal;

const ADOPT_BOUND: Duration = Duration::from_secs(15);

fn processes(t: &TestNet, host: &str) -> Vec<Proc> {
    faults::of_host(&t.net, host, What::Host)
}

/// Asserts that guard and node run on a host without a coordinator, and that no link leads to the key. The pid of the
/// node.
fn assert_standby_left(t: &TestNet, host: &str) -> i32 {
    let left = processes(t, host);
    let names: Vec<&str> = left.iter().map(Proc::program).collect();
    assert_eq!(left.len(), 2, "guard and node should be left on {host}: {left:?}");
    assert!(names.contains(&"baton-guard") && names.contains(&"simchain"), "{left:?}");
    let link = t.net.chain_home(host).join("validator_key.json");
    assert!(link.symlink_metadata().is_err(), "{} leads to the key", link.display());
    left.iter().find(|process| What::Node.matches(process)).unwrap().pid
}

/// Starts the coordinator of `host`; asserts that it is a ready standby with the node that ran before.
fn assert_adopted(t: &TestNet, host: &str, node: i32) {
    launch::start_coordinator(&t.net, host).unwrap();
    let ready = format!("{host} is a ready standby again");
    // By its own word: the others remember what it said before it ended.
    t.or_logs(await_status(
        &t.net,
        &ready,
        ADOPT_BOUND,
        |_| (),
        |_| query_host(&t.net, host).is_ok_and(|own| own.is_ready_standby(host)),
    ));
    let own = t.or_logs(query_host(&t.net, host));
    let pid = own.members.iter().find(|member| member.id == host).and_then(|member| member.node_pid);
    assert_eq!(pid, Some(node as u32), "the node that ran before is adopted: {own:#?}");
}

#[test]
fn a_restart_leaves_the_standby_node_running_and_a_holder_hands_over_first() {
    let t = TestNet::up(&[]);
    let Pair { holder, standby } = t.pair();
    t.end_coordinator(&holder, Signal::TERM);
    let node = assert_standby_left(&t, &holder);
    let moved = t.active(&standby);
    assert_eq!((&moved["kind"], &moved["reason"]), (&"handover".into(), &"shutdown".into()), "{moved}");
    assert_adopted(&t, &holder, node);
    assert_eq!(t.pair(), Pair { holder: standby.clone(), standby: holder.clone() });

    t.end_coordinator(&holder, Signal::TERM);
    assert_eq!(assert_standby_left(&t, &holder), node);
    assert_adopted(&t, &holder, node);
    assert_eq!(t.pair(), Pair { holder: standby, standby: holder });
    t.assert_nothing_signed_twice();
}

#[test]
fn a_holder_without_a_standby_lets_go_and_takes_the_baton_up_again() {
    let t = TestNet::up(&[]);
    let Pair { holder, standby } = t.pair();
    t.kill_host(&standby);
    t.end_coordinator(&holder, Signal::TERM);
    let node = assert_standby_left(&t, &holder);
    launch::start_coordinator(&t.net, &holder).unwrap();
    let again = t.active(&holder);
    assert!(again["epoch"].as_u64() > Some(1), "{again}");
    // It may have lost the node to its guard since, on a machine that is busy enough.
    let log = std::fs::read_to_string(t.net.host_dir(&holder).join("coordinator.log")).unwrap();
    assert!(log.contains(&format!("node=Some({node})")), "not adopted: {log}");
    t.assert_nothing_signed_twice();
}

#[test]
fn ctrl_c_and_sigterm_with_stop_node_leave_nothing_of_a_host_running() {
    let t = TestNet::up(&[]);
    let Pair { holder, standby } = t.pair();
    for host in [&standby, &holder] {
        t.end_coordinator(host, Signal::INT);
        assert_eq!(processes(&t, host), [], "{host}");
    }
    for host in [&standby, &holder] {
        let mut command = Command::new(&t.net.programs.baton);
        command.args(["run", "--stop-node", "--config"]).arg(t.net.config_file(host));
        launch::spawn(&t.net, command, host, &t.net.host_dir(host).join("coordinator.log"), None).unwrap();
    }
    for host in [t.pair().standby, t.pair().holder] {
        t.end_coordinator(&host, Signal::TERM);
        assert_eq!(processes(&t, &host), [], "{host}");
    }
    t.assert_nothing_signed_twice();
}

/// What `baton fence` says on `host`; asserts its exit code.
fn fence(t: &TestNet, host: &str, code: i32) -> String {
    let answer = t.or_logs(ask_baton(&t.net, host, &["fence"]));
    let said = format!("{}{}", answer.stdout, answer.stderr).trim_end().to_owned();
    assert_eq!(answer.code, Some(code), "baton fence on {host}: {said}");
    said
}

fn assert_fenced(t: &TestNet, host: &str) {
    assert_eq!(processes(t, host), [], "{host}");
    let socket = t.net.host(host).unwrap().run_dir.join("admin.sock");
    assert!(!socket.exists(), "a fence as root would keep out a coordinator of another user: {}", socket.display());
    let link = t.net.chain_home(host).join("validator_key.json");
    assert!(link.symlink_metadata().is_err(), "{} leads to the key", link.display());
}

#[test]
fn a_fence_ends_what_a_coordinator_left_and_is_certain_of_it() {
    let t = TestNet::up(&[]);
    let Pair { holder, standby } = t.pair();
    let before = processes(&t, &holder);
    let refused = fence(&t, &holder, 1);
    assert!(refused.starts_with("baton: fence: not proven: a coordinator runs on this host ("), "{refused}");
    assert_eq!(processes(&t, &holder), before, "a refused fence touches nothing");

    t.end_coordinator(&standby, Signal::TERM);
    let node = assert_standby_left(&t, &standby);
    let said = fence(&t, &standby, 0);
    assert!(
        said.starts_with(&format!("{standby} is fenced: links in standby, ended: chain node {node}, guard ")),
        "{said}"
    );
    assert_fenced(&t, &standby);
    let again = fence(&t, &standby, 0);
    assert_eq!(again, format!("{standby} is fenced: links in standby, no chain node ran"));
    launch::start_coordinator(&t.net, &standby).unwrap();
    assert_eq!(t.pair(), Pair { holder: holder.clone(), standby: standby.clone() });

    // The holder's coordinator crashes, and its guard hangs before it can fence.
    let hung = faults::find(&t.net, &holder, What::Guard).unwrap();
    procs::signal(&hung, Signal::STOP).unwrap();
    faults::kill(&faults::find(&t.net, &holder, What::Coordinator).unwrap()).unwrap();
    fence(&t, &holder, 0);
    assert_fenced(&t, &holder);
    t.active(&standby);
    launch::start_coordinator(&t.net, &holder).unwrap();
    assert_eq!(t.pair(), Pair { holder: standby, standby: holder });
    assert!(fence(&t, "host-c", 0).starts_with("host-c is an arbiter"));
    t.assert_nothing_signed_twice();
}
