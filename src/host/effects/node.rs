//! Everything that changes links or the life of the chain node, one job after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;
use tracing::{info, warn};

use super::file_queue::{Done, FileQueue};
use super::probe::CLOSELY;
use super::{Hands, NodeSeen, first_signature, key_places, last_words, letting_go, owner, upgrade};
use crate::base::chain_node::{Activation, Health, SignFloor};
use crate::base::guard_frame::{NodeSpec, ToGuard};
use crate::base::ids::{Epoch, UpgradeName};
use crate::base::time::BootTime;
use crate::core::Event;
use crate::host::chain::Reload;

/// A reload takes milliseconds. One that has not shown after this is asked about, and not before: what the
/// node says of reloads may still be about the one before.
const RELOAD_SHOWS_IN: Duration = Duration::from_secs(1);
/// Bound of an `exec` activation.
pub(super) const EXEC_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) enum Job {
    StartStandby,
    Link { epoch: Epoch, floor: SignFloor },
    Activate { epoch: Epoch },
    Deactivate { kill: bool },
    Upgrade { name: UpgradeName, back: bool },
}

pub(super) async fn work(hands: Arc<Hands>, mut jobs: mpsc::UnboundedReceiver<Job>) {
    // An order to let go that was queued behind a job cancels it also when it came before the job began.
    let mut let_go = hands.let_go.subscribe();
    let mut done: u64 = 0;
    // What the newest activation has brought about on the chain.
    let mut watching = JoinSet::new();
    let mut files = FileQueue::default();
    while let Some(job) = jobs.recv().await {
        let cancelled = *let_go.borrow_and_update() > done;
        match job {
            Job::StartStandby if cancelled => hands.core.step(Event::StartWithheld),
            Job::StartStandby => {
                if unless_let_go(&mut let_go, start_standby(&hands, &mut files)).await.is_none() {
                    hands.core.step(Event::StartWithheld);
                }
            }
            Job::Link { .. } | Job::Activate { .. } if cancelled => {}
            Job::Link { epoch, floor } => {
                let orders = done;
                // What has begun with the files is done to its end, and whatever touches them later comes after it.
                unless_let_go(&mut let_go, link(&hands, &mut files, epoch, floor, orders)).await;
            }
            Job::Activate { epoch } => {
                drop(std::mem::take(&mut watching));
                watching.spawn(first_signature::watch(hands.clone(), epoch));
                // Ends here only in what can be repeated: frames to the guard and questions to the node.
                unless_let_go(&mut let_go, activate(&hands, epoch)).await;
            }
            Job::Deactivate { kill } => {
                done += 1;
                drop(std::mem::take(&mut watching));
                letting_go::deactivate(&hands, &mut files, kill).await;
            }
            Job::Upgrade { name, back } => {
                files.idle().await;
                upgrade::carry_out(&hands, name, back).await;
            }
        }
    }
}

/// `None` once an order to let go has come: `work` is given up.
async fn unless_let_go<T>(let_go: &mut watch::Receiver<u64>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        _ = let_go.changed() => {
            let_go.mark_changed();
            None
        }
    }
}

async fn start_standby(hands: &Arc<Hands>, files: &mut FileQueue) {
    if let Err(reason) = after_stop(hands, files).await {
        hands.core.step(Event::NodeStartFailed { reason });
        return;
    }
    if !owner::is_place_free(hands).await {
        hands.core.step(Event::StartWithheld);
        return;
    }
    let spec = match key_places::check(hands).await {
        Ok(()) => node_spec(hands).await,
        Err(reason) => Err(reason),
    };
    match spec {
        Ok(node) => {
            last_words::before_start(hands).await;
            order_start(hands, node, None);
        }
        Err(reason) => not_started(hands, &reason),
    }
}

/// After all that was done with the files before.
pub(super) fn after_stop(hands: &Arc<Hands>, files: &mut FileQueue) -> Done<Result<(), String>> {
    let hands = hands.clone();
    files.then(async move { hands.chain.after_stop().await.map_err(|error| error.to_string()) })
}

/// As the configuration says it, with the binary that upgrades have left as the current one.
async fn node_spec(hands: &Hands) -> Result<NodeSpec, String> {
    let spec = hands.chain.node_spec();
    let Some(upgrader) = &hands.upgrader else { return Ok(spec) };
    let upgrades = upgrader.upgrades.clone();
    let started = spawn_blocking(move || upgrades.started(spec).map_err(|error| error.to_string()));
    started.await.map_err(|error| error.to_string())?
}

/// The guard was not even asked.
fn not_started(hands: &Hands, reason: &str) {
    warn!("the chain node is not started: {reason}");
    hands.core.step(Event::NodeStartFailed { reason: reason.to_owned() });
}

/// From here on only the guard's answer tells whether a node runs: an order to let go that comes before the
/// answer must not take the node for stopped.
fn order_start(hands: &Hands, node: NodeSpec, validator_epoch: Option<Epoch>) {
    hands.node.send_replace(NodeSeen::Unknown);
    hands.send(ToGuard::Start { node, validator_epoch });
}

/// Brings the links to validating. Needs the guard's word for `epoch` at that very moment, and that no order to let go
/// has come since `orders` of them.
async fn link(hands: &Arc<Hands>, files: &mut FileQueue, epoch: Epoch, floor: SignFloor, orders: u64) {
    // The answer that met the floor: a node that is stopped now gives no other.
    let settled = hands.seen.borrow().health.clone();
    if *hands.chain.activation() == Activation::Restart {
        hands.stop_node(hands.stop_timeout).await;
    }
    hands.showed_key.store(false, Ordering::Relaxed);
    hands.has_key.send_replace(true);
    let theirs = hands.clone();
    let linked = files.then(async move {
        let hands = theirs;
        hands.chain.after_stop().await.map_err(|error| error.to_string())?;
        let prepared = hands.chain.prepare_validator(&floor, settled.as_ref()).await;
        for warning in prepared.map_err(|error| error.to_string())? {
            warn!(epoch = epoch.0, "{warning}");
        }
        swap(&hands, epoch, orders).await
    });
    match linked.await {
        Ok(()) => {
            info!(epoch = epoch.0, %floor, "links validating");
            hands.core.step(Event::Linked { epoch });
        }
        Err(reason) => {
            warn!(epoch = epoch.0, "links not changed: {reason}");
            hands.core.step(Event::LinksFailed { reason });
        }
    }
}

async fn swap(hands: &Arc<Hands>, epoch: Epoch, orders: u64) -> Result<(), String> {
    let hands = hands.clone();
    let swapped = spawn_blocking(move || {
        let let_go = || *hands.let_go.borrow() > orders;
        if let_go() {
            return Err("the baton was let go meanwhile".to_string());
        }
        let proof = hands.guard().armed.take().filter(|proof| proof.epoch() == epoch);
        let Some(proof) = proof else { return Err("the guard is not armed".to_string()) };
        let swapped = hands.links.swap(&proof, BootTime::now).map_err(|error| error.to_string());
        let mut guard = hands.guard();
        if !let_go() {
            // A renewal may have brought a later word meanwhile, which is the better one.
            guard.armed.get_or_insert(proof);
        }
        drop(guard);
        hands.links_seen.may_have_changed();
        swapped
    });
    swapped.await.map_err(|error| error.to_string())?
}

async fn activate(hands: &Arc<Hands>, epoch: Epoch) {
    match activate_and_prove(hands, epoch).await {
        Ok(()) => {
            hands.showed_key.store(true, Ordering::Relaxed);
            hands.core.step(Event::Activated { epoch });
        }
        Err(reason) => {
            warn!(epoch = epoch.0, "not activated: {reason}");
            hands.core.step(Event::ActivationFailed { epoch, reason });
        }
    }
}

async fn activate_and_prove(hands: &Arc<Hands>, epoch: Epoch) -> Result<(), String> {
    let running = matches!(*hands.node.borrow(), NodeSeen::Running(_));
    let signal = match hands.chain.activation() {
        Activation::Signal(signal) if running => Some(*signal),
        Activation::Exec { activate, .. } if running => {
            hands.chain.run_exec(activate, EXEC_MAX).await.map_err(|error| error.to_string())?;
            None
        }
        Activation::Restart | Activation::Signal(_) | Activation::Exec { .. } => {
            start(hands, epoch).await?;
            None
        }
    };
    let order = signal.map(|signal| ToGuard::Signal { signal, validator_epoch: Some(epoch) });
    prove(hands, order, |health| hands.chain.proves_active(health)).await
}

/// Has the guard signal the running node, if there is an `order` for that, and probes closely until an answer
/// is as `wanted`.
pub(super) async fn prove(
    hands: &Hands,
    order: Option<ToGuard>,
    wanted: impl Fn(&Health) -> bool,
) -> Result<(), String> {
    let proof = async {
        let reload = match order {
            Some(order) => Some(ask_to_reload(hands, order).await),
            None => None,
        };
        tokio::select! {
            () = await_probe(hands, wanted) => Ok(()),
            // Questions to the node can be given up at any point.
            reason = refusal(hands, reload.as_ref()) => Err(refused(hands, &reason)),
            reason = signal_refusal(hands), if reload.is_some() => Err(reason),
        }
    };
    let mut node = hands.node.subscribe();
    tokio::select! {
        proven = proof => proven,
        _ = node.wait_for(|seen| matches!(seen, NodeSeen::Stopped)) => Err("the chain node ended".into()),
    }
}

/// Signals the node once it has answered a probe: before that, the signal could end it.
async fn ask_to_reload(hands: &Hands, order: ToGuard) -> Reload {
    let mut answered = hands.answered.subscribe();
    // Fails only at the end of all.
    let _ = answered.wait_for(|pid| pid.is_some_and(|pid| hands.runs_node(pid))).await;
    let reload = hands.chain.begin_reload().await;
    hands.signal_refused.send_replace(None);
    hands.send(order);
    reload
}

/// Ends when the node says that it refused `reload`; never without one.
async fn refusal(hands: &Hands, reload: Option<&Reload>) -> String {
    loop {
        sleep(RELOAD_SHOWS_IN).await;
        if let Some(reload) = reload
            && let Some(reason) = hands.chain.reload_refusal(reload).await
        {
            return reason;
        }
    }
}

/// Ends when the guard says that it did not send the newest signal.
async fn signal_refusal(hands: &Hands) -> String {
    let mut refused = hands.signal_refused.subscribe();
    let reason = refused.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
    format!("the guard did not signal the chain node: {}", reason.unwrap_or_default())
}

fn refused(hands: &Hands, reason: &str) -> String {
    let told = format!("the chain node refused to reload and keeps what it had: {reason}");
    hands.note(told.clone());
    told
}

async fn start(hands: &Arc<Hands>, epoch: Epoch) -> Result<(), String> {
    let spec = node_spec(hands).await.inspect_err(|reason| not_started(hands, reason))?;
    last_words::before_start(hands).await;
    let mut node = hands.node.subscribe();
    order_start(hands, spec, Some(epoch));
    let answered = node.wait_for(|seen| matches!(seen, NodeSeen::Running(_) | NodeSeen::Refused(_))).await;
    match answered.as_deref() {
        Ok(NodeSeen::Refused(reason)) => Err(reason.clone()),
        Ok(NodeSeen::Running(_) | NodeSeen::Stopped | NodeSeen::Unknown) | Err(_) => Ok(()),
    }
}

/// Probes closely until an answer is as `wanted`.
async fn await_probe(hands: &Hands, wanted: impl Fn(&Health) -> bool) {
    loop {
        let asked = hands.running_pid();
        let answer = owner::ask(hands).await;
        if let (Ok(_), Some(pid)) = (&answer, asked.filter(|pid| hands.runs_node(*pid))) {
            hands.note_answer(pid);
        }
        if answer.is_ok_and(|health| wanted(&health)) {
            return;
        }
        sleep(CLOSELY).await;
    }
}
