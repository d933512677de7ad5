//! The whole of baton on the stand-in chain: real coordinators, guards and chain nodes on three hosts,
//! broken one way at a time. The signature log is the judge.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Ground, TestNet};
use localnet::hosts::faults::{self, What};
use localnet::judge::measure::{Signed, Watch};
use localnet::judge::status::{Member, Status, await_status};
use localnet::net::wires::{Request, Way, ask};
use localnet::process::launch;
use localnet::process::procs::{self, marked};
use localnet::runs::demo::{Pair, hand_over};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// For a move; the goals of section 8 are measured by bench, in release builds.
const MOVE_BOUND: Duration = Duration::from_secs(15);
const END_BOUND: Duration = Duration::from_secs(30);

/// Strikes the holder with `fault`; the first signature of another host after it, which is the standby's.
fn move_after(t: &TestNet, pair: &Pair, fault: impl FnOnce()) -> Signed {
    let mut watch = t.or_logs(Watch::begin(&t.net));
    let struck_at = watch.now_ns();
    fault();
    let next = t.or_logs(watch.await_next(struck_at, &pair.holder, MOVE_BOUND));
    assert_eq!(next.host, pair.standby, "{next:?}");
    next
}

#[test]
fn a_lost_host_is_replaced_and_returns_as_standby() {
    let t = TestNet::up(&[]);
    let pair = t.pair();
    let targets = faults::find(&t.net, &pair.holder, What::Host).unwrap();
    assert!(targets.len() >= 3, "coordinator, guard and node: {targets:?}");
    move_after(&t, &pair, || faults::kill_host(&t.net, &pair.holder, &targets).unwrap());
    launch::start_coordinator(&t.net, &pair.holder).unwrap();
    assert_eq!(t.pair(), Pair { holder: pair.standby, standby: pair.holder });
    t.assert_nothing_signed_twice();
}

#[test]
fn a_killed_chain_node_moves_the_baton_to_the_ready_standby() {
    let t = TestNet::up(&[]);
    let pair = t.pair();
    let targets = faults::find(&t.net, &pair.holder, What::Node).unwrap();
    move_after(&t, &pair, || faults::kill(&targets).unwrap());
    assert_eq!(t.pair(), Pair { holder: pair.standby, standby: pair.holder });
    t.assert_nothing_signed_twice();
}

#[test]
fn a_killed_coordinator_takes_its_chain_node_with_it_before_another_host_signs() {
    let t = TestNet::up(&[]);
    let pair = t.pair();
    let targets = faults::find(&t.net, &pair.holder, What::Coordinator).unwrap();
    move_after(&t, &pair, || faults::kill(&targets).unwrap());
    launch::start_coordinator(&t.net, &pair.holder).unwrap();
    assert_eq!(t.pair(), Pair { holder: pair.standby, standby: pair.holder });
    t.assert_nothing_signed_twice();
}

#[test]
fn a_paused_coordinator_loses_the_baton_and_does_not_sign_when_it_wakes() {
    const PAUSE: Duration = Duration::from_secs(10);
    let t = TestNet::up(&[]);
    let pair = t.pair();
    let targets = faults::find(&t.net, &pair.holder, What::Coordinator).unwrap();
    let paused = Instant::now();
    move_after(&t, &pair, || procs::signal(&targets, Signal::STOP).unwrap());
    // The pause itself is the fault: what matters is what happens at its end.
    std::thread::sleep(PAUSE.saturating_sub(paused.elapsed()));
    procs::signal(&targets, Signal::CONT).unwrap();
    assert_eq!(t.pair(), Pair { holder: pair.standby, standby: pair.holder });
    t.assert_nothing_signed_twice();
}

#[test]
fn the_baton_is_handed_over_there_and_back() {
    let t = TestNet::up(&[]);
    let there = t.pair();
    let moved = t.or_logs(hand_over(&t.net, &there));
    assert_eq!(moved.first.host, there.standby, "{:?}", moved.first);
    let back = t.pair();
    assert_eq!(back, Pair { holder: there.standby, standby: there.holder });
    let moved = t.or_logs(hand_over(&t.net, &back));
    assert_eq!(moved.first.host, back.standby, "{:?}", moved.first);
    let pair = t.pair();
    // What the chain has seen of the new holder is told to every member.
    let told = |m: &Member| m.id == pair.holder && m.node_note.starts_with("first ");
    let is_told = |status: &Status| status.members.iter().any(told);
    t.or_logs(await_status(&t.net, "the first signature on chain is told", MOVE_BOUND, |_| (), is_told));
    t.assert_nothing_signed_twice();
}

#[test]
fn a_holder_that_is_cut_off_stops_signing_before_its_successor_starts() {
    let t = TestNet::up(&[]);
    for ways in [vec![Way::In, Way::Out], vec![Way::Out], vec![Way::In]] {
        let pair = t.pair();
        let cut = Request::Cut { host: pair.holder.clone(), ways };
        move_after(&t, &pair, || drop(ask(&t.net.wires_socket(), &cut).unwrap()));
        ask(&t.net.wires_socket(), &Request::Heal { host: pair.holder.clone() }).unwrap();
    }
    t.pair();
    t.assert_nothing_signed_twice();
}

#[test]
fn down_leaves_nothing_running() {
    let t = TestNet::up(&[]);
    assert!(!marked(&t.net.dir).is_empty(), "nothing was up");
    let second = t.ground.run(&["up"]);
    assert!(!second.status.success(), "a second network came up in the same folder");
    t.ground.succeed(&["down"]);
    assert_eq!(marked(&t.net.dir), []);
    assert!(!t.net.wires_socket().exists());
}

/// A demo that has a holder, in a process group of its own as a shell would start it.
fn demo_under_way(ground: &Ground) -> Child {
    let mut demo = ground.command(&["demo"]).process_group(0).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(demo.stdout.as_mut().unwrap()).lines();
    let seen: Vec<String> = lines.map_while(Result::ok).take_while(|l| !l.contains("holds the baton")).collect();
    assert!(demo.try_wait().unwrap().is_none(), "the demo ended early: {seen:#?}");
    assert!(!marked(&ground.dir).is_empty(), "nothing is up: {seen:#?}");
    demo
}

fn await_nothing_marked(ground: &Ground) {
    let start = Instant::now();
    while !marked(&ground.dir).is_empty() {
        assert!(start.elapsed() < END_BOUND, "still running: {:?}", marked(&ground.dir));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn ctrl_c_on_a_demo_leaves_nothing_running() {
    let ground = Ground::new();
    let mut demo = demo_under_way(&ground);
    kill_process_group(Pid::from_child(&demo), Signal::INT).unwrap();
    let mut rest = String::new();
    // To the end of the output, so that the demo never blocks on a full pipe.
    demo.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    let status = demo.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{status}\n{rest}");
    assert_eq!(marked(&ground.dir), [], "when the demo has ended, so has all else");
}

#[test]
fn a_killed_demo_leaves_nothing_running() {
    let ground = Ground::new();
    let mut demo = demo_under_way(&ground);
    kill_process(Pid::from_child(&demo), Signal::KILL).unwrap();
    demo.wait().unwrap();
    await_nothing_marked(&ground);
}
