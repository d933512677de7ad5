//! The coordinator's end: how it finds, starts, loses and outlives a guard, with real processes.

use std::process::Command;

use baton::base::guard_frame::{ExitCause, FromGuard, GUARD_MARKER, LinesAs, ToGuard};
use baton::host::guard_client::{Attached, GuardClient, GuardError, GuardEvent, GuardSettings};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use super::harness::*;
use crate::kit::program::guard_in;

fn settings(place: &Place) -> GuardSettings {
    GuardSettings {
        binary: guard_in(&place.path("")),
        socket: place.socket(),
        member: "host-a".into(),
        links: place.links(),
        log: Some(place.path("guard.log")),
        lines_as: LinesAs::Text,
        kill_max: ms(150),
        watchdog: None,
    }
}

struct Coordinator {
    client: GuardClient,
    attached: Attached,
    events: UnboundedReceiver<GuardEvent>,
}

impl Coordinator {
    async fn attach(place: &Place) -> Coordinator {
        let (tx, events) = unbounded_channel();
        match GuardClient::attach(settings(place), tx).await {
            Ok((client, attached)) => Coordinator { client, attached, events },
            Err(e) => panic!("{e}\n{}", place.guard_log()),
        }
    }

    async fn next(&mut self) -> GuardEvent {
        timeout(SOON, self.events.recv()).await.expect("an event in time").expect("events go on")
    }

    /// The next one about frames and the connection.
    async fn event(&mut self) -> GuardEvent {
        loop {
            let event = self.next().await;
            if !matches!(event, GuardEvent::Answers(_)) {
                return event;
            }
        }
    }

    async fn answers(&mut self) -> bool {
        loop {
            if let GuardEvent::Answers(answers) = self.next().await {
                return answers;
            }
        }
    }

    async fn frame(&mut self) -> FromGuard {
        match self.event().await {
            GuardEvent::Frame(frame, _) => frame,
            other @ (GuardEvent::Gone { .. } | GuardEvent::Answers(_)) => panic!("{other:?}"),
        }
    }

    async fn start(&mut self, place: &Place, script: &str) -> u32 {
        self.client.send(ToGuard::Start { node: place.node(script), validator_epoch: None });
        match self.frame().await {
            FromGuard::Started { node } => node.pid,
            other => panic!("instead of Started: {other:?}"),
        }
    }

    /// Reads up to `Gone`: its reason, whether the guard runs, whether the node is proven dead.
    async fn gone(&mut self) -> (String, bool, bool) {
        loop {
            match self.event().await {
                GuardEvent::Frame(..) | GuardEvent::Answers(_) => (),
                GuardEvent::Gone { reason, guard_runs, node_proven_dead } => {
                    return (reason, guard_runs, node_proven_dead);
                }
            }
        }
    }

    async fn quit(mut self) {
        self.client.send(ToGuard::Stop { timeout: ms(0) });
        self.client.send(ToGuard::Quit);
        // Refused while the node dies; asked again once it is gone.
        while let Ok(Some(event)) = timeout(SOON, self.events.recv()).await {
            match event {
                GuardEvent::Frame(FromGuard::Exited { .. }, _) => self.client.send(ToGuard::Quit),
                GuardEvent::Frame(..) | GuardEvent::Answers(_) => (),
                GuardEvent::Gone { .. } => return,
            }
        }
        panic!("the guard did not quit");
    }
}

const FAMILY: &str =
    "setsid sh -c 'read me _ < /proc/self/stat; echo $me > $DIR/child; exec sleep 120' & exec sleep 120";

#[tokio::test]
async fn a_guard_that_stops_while_it_is_idle_is_told_of_and_so_is_its_return() {
    let place = Place::new();
    let mut coordinator = Coordinator::attach(&place).await;
    let guard = Pid::from_raw(coordinator.client.guard_pid() as i32).expect("a process");
    kill_process(guard, Signal::STOP).expect("SIGSTOP");
    assert!(!coordinator.answers().await);
    kill_process(guard, Signal::CONT).expect("SIGCONT");
    assert!(coordinator.answers().await);
    coordinator.quit().await;
}

#[tokio::test]
async fn a_client_starts_a_guard_and_the_next_client_finds_it_with_its_node() {
    let place = Place::new();
    let mut first = Coordinator::attach(&place).await;
    assert_eq!((first.attached.node.clone(), first.attached.armed), (None, None));
    let pid = first.start(&place, "exec sleep 120").await;
    let guard_pid = first.client.guard_pid();
    drop(first);
    let second = Coordinator::attach(&place).await;
    assert_eq!(second.attached.guard_pid, guard_pid);
    assert_eq!(second.attached.node.as_ref().map(|node| node.pid), Some(pid));
    assert!(lives(pid));
    second.quit().await;
    assert!(!lives(pid));
}

#[tokio::test]
async fn a_started_guard_has_a_session_of_its_own() {
    let place = Place::new();
    let coordinator = Coordinator::attach(&place).await;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", coordinator.client.guard_pid())).unwrap();
    let session = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap().to_string();
    assert_eq!(session, coordinator.client.guard_pid().to_string());
    coordinator.quit().await;
}

#[tokio::test]
async fn when_the_guard_is_killed_the_client_proves_that_the_whole_family_is_gone() {
    // Without a namespace, the kernel kills the node with the guard, and only the client can find the child. The filter
    // is for this test's thread, and so for the guard that it starts.
    crate::kit::refuse_unshare::refuse_unshare().unwrap();
    let place = Place::new();
    let mut coordinator = Coordinator::attach(&place).await;
    let pid = coordinator.start(&place, FAMILY).await;
    let child = place.pid_in("child");
    signal(coordinator.client.guard_pid(), Signal::KILL);
    let (reason, guard_runs, node_proven_dead) = coordinator.gone().await;
    assert!(!guard_runs && node_proven_dead, "{reason}");
    assert!(!lives(pid) && !lives(child), "node {pid} or child {child}: {reason}");
    assert!(reason.contains(&child.to_string()), "{reason}");
}

/// In the middle of that, a process shows no environment, and so no marker.
#[tokio::test]
async fn what_runs_one_program_after_the_other_is_found_too() {
    crate::kit::refuse_unshare::refuse_unshare().unwrap();
    for round in 0..20 {
        let place = Place::new();
        let mut coordinator = Coordinator::attach(&place).await;
        let script = "printf '#!/bin/sh\nexec $DIR/again' > $DIR/again; chmod +x $DIR/again
            setsid sh -c 'read me _ < /proc/self/stat; echo $me > $DIR/child; exec $DIR/again' & exec sleep 120";
        let pid = coordinator.start(&place, script).await;
        let child = place.pid_in("child");
        signal(coordinator.client.guard_pid(), Signal::KILL);
        let (reason, _, node_proven_dead) = coordinator.gone().await;
        assert!(node_proven_dead && !lives(pid) && !lives(child), "round {round}: {pid} or {child}: {reason}");
    }
}

#[tokio::test]
async fn when_the_guard_is_killed_the_end_of_a_namespace_is_proven_too() {
    let place = Place::new();
    let mut coordinator = Coordinator::attach(&place).await;
    let pid = coordinator.start(&place, FAMILY).await;
    let child = place.pid_in("child");
    signal(coordinator.client.guard_pid(), Signal::KILL);
    let (reason, guard_runs, node_proven_dead) = coordinator.gone().await;
    assert!(!guard_runs && node_proven_dead, "{reason}");
    assert!(!lives(pid) && !lives(child), "node {pid} or child {child}: {reason}");
}

#[tokio::test]
async fn what_a_dead_guard_left_is_killed_before_a_new_guard_is_started() {
    let place = Place::new();
    let marker = |socket: &str| format!("{GUARD_MARKER}={socket}");
    let stray = |socket: &str| {
        let mut command = Command::new("setsid");
        command.args(["env", &marker(socket), "sleep", "120"]);
        die_with_us(&mut command);
        command.spawn().unwrap()
    };
    let mut ours = stray(place.socket().to_str().unwrap());
    let mut foreign = stray("/run/another/guard.sock");
    for child in [&ours, &foreign] {
        let environ = format!("/proc/{}/environ", child.id());
        await_that("a stray", || std::fs::read_to_string(&environ).ok()?.contains(GUARD_MARKER).then_some(()));
    }
    let coordinator = Coordinator::attach(&place).await;
    assert_eq!(coordinator.attached.node, None);
    assert!(!lives(ours.id()), "the stray lives");
    assert!(lives(foreign.id()), "a process of another guard was killed");
    foreign.kill().unwrap();
    foreign.wait().unwrap();
    ours.wait().unwrap();
    coordinator.quit().await;
}

#[tokio::test]
async fn a_stopped_guard_loses_its_validator_to_the_client_and_is_then_killed() {
    let place = Place::new();
    let mut coordinator = Coordinator::attach(&place).await;
    let pid = coordinator.start(&place, FAMILY).await;
    let child = place.pid_in("child");
    let deadline = in_time(ms(400));
    coordinator.client.send(ToGuard::Arm { epoch: E1, deadline });
    assert!(matches!(coordinator.frame().await, FromGuard::Armed(_)));
    signal(coordinator.client.guard_pid(), Signal::STOP);
    let waited = tokio::task::spawn_blocking(move || {
        await_death(pid);
        await_death(child);
        baton::base::time::BootTime::now().since(deadline)
    });
    let late = waited.await.unwrap();
    println!("dead {late:?} after the deadline");
    assert!(late < ms(1000), "{late:?}");
    let (reason, guard_runs, node_proven_dead) = coordinator.gone().await;
    assert!(!guard_runs && node_proven_dead, "{reason}");
}

#[tokio::test]
async fn a_guard_that_does_not_answer_is_replaced_together_with_its_node() {
    let place = Place::new();
    let mut first = Coordinator::attach(&place).await;
    let pid = first.start(&place, "exec sleep 120").await;
    let hung = first.client.guard_pid();
    drop(first);
    signal(hung, Signal::STOP);
    let second = Coordinator::attach(&place).await;
    assert_ne!(second.attached.guard_pid, hung);
    assert_eq!(second.attached.node, None);
    assert!(!lives(pid) && !lives(hung));
    second.quit().await;
}

#[tokio::test]
async fn a_guard_that_only_closed_the_connection_keeps_its_node() {
    let place = Place::new();
    let mut older = Coordinator::attach(&place).await;
    let pid = older.start(&place, "exec sleep 120").await;
    let newer = Coordinator::attach(&place).await;
    let (reason, guard_runs, node_proven_dead) = older.gone().await;
    assert!(guard_runs && !node_proven_dead, "{reason}");
    assert!(lives(pid));
    newer.quit().await;
}

#[tokio::test]
async fn a_fence_reaches_the_coordinator_with_links_in_standby() {
    let place = Place::new();
    let mut coordinator = Coordinator::attach(&place).await;
    let pid = coordinator.start(&place, "exec sleep 120").await;
    coordinator.client.send(ToGuard::Arm { epoch: E1, deadline: in_time(ms(150)) });
    assert!(matches!(coordinator.frame().await, FromGuard::Armed(_)));
    let exited = coordinator.frame().await;
    assert!(matches!(exited, FromGuard::Exited { cause: ExitCause::Fenced, .. }), "{exited:?}");
    let fenced = coordinator.frame().await;
    assert!(matches!(fenced, FromGuard::Fenced { epoch: E1, links_error: None, .. }), "{fenced:?}");
    assert!(!lives(pid));
    place.await_standby();
    coordinator.quit().await;
}

#[tokio::test]
async fn attaching_fails_with_words_when_there_is_no_guard_to_be_had() {
    let place = Place::new();
    let attach = async |settings| GuardClient::attach(settings, unbounded_channel().0).await.unwrap_err();
    let no_binary = attach(GuardSettings { binary: "/no/such/guard".into(), ..settings(&place) }).await;
    assert!(no_binary.to_string().contains("start guard /no/such/guard"), "{no_binary}");
    let no_dir = attach(GuardSettings { socket: "/no/such/dir/guard.sock".into(), ..settings(&place) }).await;
    assert!(no_dir.to_string().contains("/no/such/dir/guard.sock"), "{no_dir}");
    let dead = attach(GuardSettings { binary: "/bin/false".into(), ..settings(&place) }).await;
    assert!(dead.to_string().contains("before it was ready"), "{dead}");

    let mut holder = Coordinator::attach(&place).await;
    holder.start(&place, "exec sleep 120").await;
    let other = attach(GuardSettings { member: "host-b".into(), ..settings(&place) }).await;
    assert!(matches!(other, GuardError::Refused { .. }), "{other}");
    assert!(other.to_string().contains("serves member host-a"), "{other}");
    holder.quit().await;
}
