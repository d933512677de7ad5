//! The connection to the guard: attached at start, followed, and attached anew when it is lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{Hands, NodeSeen, last_words, upgrade};
use crate::base::guard_frame::{ArmedGuard, ExitCause, FromGuard, ToGuard};
use crate::base::ids::Epoch;
use crate::base::time::BootTime;
use crate::core::Event;
use crate::host::guard_client::{GuardClient, GuardError, GuardEvent};

/// Between two attempts to get a guard back.
const ATTACH_AGAIN: Duration = Duration::from_millis(500);
/// For a node that an earlier coordinator had told to end: nobody takes the baton here while it lives.
const STOPPED_BEFORE_MAX: Duration = Duration::from_secs(1);

pub(super) async fn attach(hands: &Arc<Hands>) -> Result<mpsc::UnboundedReceiver<GuardEvent>, GuardError> {
    let (events, receiver) = mpsc::unbounded_channel();
    let (client, attached) = GuardClient::attach(hands.guard_settings.clone(), events).await?;
    info!(guard = attached.guard_pid, node = ?attached.node.as_ref().map(|n| n.pid), "guard attached");
    if hands.guard_settings.watchdog.is_some() && attached.watchdog.is_none() {
        warn!(
            "this guard feeds no watchdog: it is of an earlier version, or was armed without one before this coordinator came"
        );
    }
    hands.guard().client = Some(client);
    hands.attached.send_replace(true);
    hands.node_ran.fetch_or(attached.node.is_some(), Ordering::Relaxed);
    hands.node.send_replace(attached.node.clone().map_or(NodeSeen::Stopped, NodeSeen::Running));
    if attached.node.as_ref().is_some_and(|node| node.stopping) {
        info!("the chain node is being stopped, on an order of before; it gets {STOPPED_BEFORE_MAX:?} more");
        hands.send(ToGuard::Stop { timeout: STOPPED_BEFORE_MAX });
    }
    hands.core.step(Event::GuardAttached { node: attached.node, armed: attached.armed });
    Ok(receiver)
}

pub(super) async fn follow(hands: Arc<Hands>, mut events: mpsc::UnboundedReceiver<GuardEvent>) {
    loop {
        match events.recv().await {
            Some(GuardEvent::Frame(frame, received_at)) => {
                upgrade::look_before_exit(&hands, &frame).await;
                hear(&hands, frame, received_at);
            }
            Some(GuardEvent::Answers(answers)) => {
                warn!(answers, "the guard's answers to pings");
                hands.core.step(Event::GuardAnswers(answers));
            }
            Some(GuardEvent::Gone { reason, guard_runs, node_proven_dead }) => {
                warn!(node_proven_dead, guard_runs, "guard lost: {reason}");
                lose(&hands, node_proven_dead);
            }
            None => lose(&hands, false),
        }
        if !*hands.attached.borrow() {
            if hands.leaving.load(Ordering::Relaxed) {
                return;
            }
            events = attach_again(&hands).await;
        }
    }
}

fn lose(hands: &Hands, node_proven_dead: bool) {
    let mut guard = hands.guard();
    guard.client = None;
    guard.armed = None;
    drop(guard);
    hands.attached.send_replace(false);
    hands.node.send_replace(if node_proven_dead { NodeSeen::Stopped } else { NodeSeen::Unknown });
    hands.core.step(Event::GuardGone { node_proven_dead });
}

async fn attach_again(hands: &Arc<Hands>) -> mpsc::UnboundedReceiver<GuardEvent> {
    loop {
        match attach(hands).await {
            Ok(events) => return events,
            Err(error) => warn!("{error}; trying again"),
        }
        sleep(ATTACH_AGAIN).await;
    }
}

fn hear(hands: &Arc<Hands>, frame: FromGuard, received_at: BootTime) {
    if let Some(proof) = ArmedGuard::from_frame(&frame, received_at) {
        let (epoch, deadline) = (proof.epoch(), proof.deadline());
        hands.guard().armed = Some(proof);
        hands.core.step(Event::GuardArmed { epoch, deadline });
        return;
    }
    // Whatever else it says, it may have put the links into standby before, or be about to.
    hands.links_seen.may_have_changed();
    match frame {
        FromGuard::Started { node } => {
            let validator_epoch = node.validator_epoch;
            info!(pid = node.pid, epoch = validator_epoch.map(|epoch| epoch.0), "chain node started");
            if hands.node_ran.swap(true, Ordering::Relaxed) {
                hands.node_restarts.fetch_add(1, Ordering::Relaxed);
            }
            hands.node.send_replace(NodeSeen::Running(node));
            hands.core.step(Event::NodeStarted { validator_epoch });
        }
        FromGuard::Exited { pid, status, cause } => {
            if !hands.runs_node(pid) {
                // Told again to a coordinator that was not there when it happened.
                return;
            }
            let asked = cause != ExitCause::ByItself;
            let epoch = hands.validator_epoch().map(|epoch| epoch.0);
            info!(pid, ?status, asked, epoch, "chain node gone");
            if !asked {
                last_words::tell(hands, status);
            }
            hands.node.send_replace(NodeSeen::Stopped);
            hands.core.step(Event::NodeExited { cause });
        }
        FromGuard::Fenced { epoch, fired_at, done_at, links_error } => {
            let took_ms = done_at.since(fired_at).as_millis() as u64;
            warn!(epoch = epoch.0, took_ms, "fenced: the lease ran out");
            hands.fences.fetch_add(1, Ordering::Relaxed);
            hands.guard().armed = None;
            hands.core.step(Event::Fenced { epoch });
            if let Some(reason) = links_error {
                hands.core.step(Event::LinksFailed { reason });
            }
        }
        FromGuard::Refused { request: _, reason, superseded_by: Some(by) } => superseded(hands, &reason, by),
        FromGuard::Refused { request, reason, superseded_by: None } => refused(hands, &request, reason),
        FromGuard::Pong => {}
        FromGuard::Armed(_) => warn!("the guard's word came after its own deadline"),
        FromGuard::Disarmed { .. } | FromGuard::Signalled { .. } => {}
        FromGuard::Welcome { .. } => warn!("the guard greets twice"),
    }
}

fn superseded(hands: &Hands, reason: &str, by: Epoch) {
    let told = format!(
        "the guard was armed under epoch {by} before ({reason}): the stores of the cluster were made anew since it was started"
    );
    warn!("{told}");
    hands.note(told);
    hands.core.step(Event::GuardSuperseded { by });
}

fn refused(hands: &Hands, request: &str, reason: String) {
    if request == "Signal" {
        hands.signal_refused.send_replace(Some(reason));
        return;
    }
    if request == "Stop" {
        // The only ground on which a stop is refused: no chain node runs.
        hands.node.send_if_modified(|seen| {
            let stopped = matches!(seen, NodeSeen::Refused(_));
            if stopped {
                *seen = NodeSeen::Stopped;
            }
            stopped
        });
        return;
    }
    warn!(request, "refused by the guard: {reason}");
    if request == "Start" {
        hands.node.send_replace(NodeSeen::Refused(reason.clone()));
        hands.core.step(Event::NodeStartFailed { reason });
    }
}
