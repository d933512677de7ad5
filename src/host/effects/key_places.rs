//! Whether the links still decide who signs on this host: no standby target has become a copy of the validator key, and
//! no process of the chain node was told of another home or another key. Looked at before a standby starts, and while
//! the node runs; what is found keeps this host from being chosen, by name, and the node from running as a standby.
//! Also whether the key files could be linked at all: without, this host is not chosen either, and its standby runs on.
//!
//! What the files and the processes say is the driver's to judge (`host/chain/targets.rs`, `host/chain/process.rs`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{Hands, NodeSeen};
use crate::base::guard_frame::NodeProcess;
use crate::base::processes;
use crate::base::time::BootTime;
use crate::core::Event;
use crate::host::chain::Stamps;

/// Between two looks at the targets' inodes and times.
const TARGETS_EVERY: Duration = Duration::from_secs(1);
/// A wrapper comes to the chain node itself within this, and is looked at often meanwhile.
const STARTING: Duration = Duration::from_secs(5);
const STARTING_EVERY: Duration = Duration::from_millis(50);
/// Between two looks at the processes of a node that has run for longer.
const NODE_EVERY: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct KeyPlaces {
    known: Mutex<Known>,
    /// One comparison at a time.
    comparing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    /// The targets' stamps when they were compared last.
    compared: Option<Stamps>,
    /// What was wrong with them then.
    targets: Option<String>,
    /// What a process of the node said of its home or its key. Stays: only another command can mend it, and each start
    /// that finds out may sign.
    node: Option<String>,
    told: Option<String>,
    /// Why the validator's key could not be linked now, as the core was told.
    unusable: Option<String>,
}

impl KeyPlaces {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing is known to be wrong with the targets as they are now, and nothing was found wrong with the node.
///
/// # Errors
/// What is wrong, or why it is not known: the chain node is not to run as a standby.
pub(super) async fn check(hands: &Arc<Hands>) -> Result<(), String> {
    let _one_at_a_time = hands.key_places.comparing.lock().await;
    let looking = hands.clone();
    let stamps = spawn_blocking(move || looking.chain.target_stamps()).await.map_err(|error| error.to_string())?;
    if hands.key_places.known().compared.as_ref() != Some(&stamps) {
        let targets = hands.chain.check_targets().await.err().map(|error| error.to_string());
        let mut known = hands.key_places.known();
        // A comparison that failed for the moment is made again.
        known.compared = targets.is_none().then_some(stamps);
        known.targets = targets;
    }
    tell(hands);
    let known = hands.key_places.known();
    known.node.clone().or_else(|| known.targets.clone()).map_or(Ok(()), Err)
}

/// Whether the key could be linked if the baton came now. A standby runs without.
async fn check_usable(hands: &Arc<Hands>) {
    let looking = hands.clone();
    let found = spawn_blocking(move || looking.links.check_keys().err().map(|error| error.to_string())).await;
    // The runtime ends.
    let Ok(reason) = found else { return };
    let mut known = hands.key_places.known();
    if known.unusable == reason {
        return;
    }
    known.unusable.clone_from(&reason);
    drop(known);
    match &reason {
        Some(reason) => warn!("this host takes no baton: {reason}"),
        None => info!("the validator's key files can be used again"),
    }
    hands.core.step(Event::KeysUnusable { reason });
}

/// Has the core know of what has changed, and the log.
fn tell(hands: &Hands) {
    let mut known = hands.key_places.known();
    let reason = known.node.clone().or_else(|| known.targets.clone());
    if known.told == reason {
        return;
    }
    known.told.clone_from(&reason);
    drop(known);
    match &reason {
        Some(reason) => warn!("this host takes no baton and starts no standby: {reason}"),
        None => info!("the key files of this host are in order again"),
    }
    hands.core.step(Event::KeyDefect { reason });
}

/// Until the coordinator ends.
pub(super) async fn watch_targets(hands: Arc<Hands>) {
    loop {
        // What it says was told, and is asked for again by whoever starts a standby.
        let _ = check(&hands).await;
        check_usable(&hands).await;
        sleep(BootTime::now().until_multiple_of(TARGETS_EVERY)).await;
    }
}

/// Looks at the processes of every chain node that runs, as long as it runs. Until the coordinator ends.
pub(super) async fn watch_node(hands: Arc<Hands>) {
    let mut node = hands.node.subscribe();
    loop {
        let process = match &*node.borrow_and_update() {
            NodeSeen::Running(process) => Some(process.clone()),
            NodeSeen::Unknown | NodeSeen::Stopped | NodeSeen::Refused(_) => None,
        };
        let Some(process) = process else {
            if node.changed().await.is_err() {
                return;
            }
            continue;
        };
        // Looks can be given up at any point.
        let found = tokio::select! {
            reason = find_misplaced(&hands, &process) => Some(reason),
            () = gone(&hands, &process) => None,
        };
        if let Some(reason) = found {
            hands.key_places.known().node = Some(reason.clone());
            tell(&hands);
            let_go(&hands, &process, reason).await;
        }
    }
}

/// Returns once a process of the node is found that its links decide nothing about.
async fn find_misplaced(hands: &Arc<Hands>, node: &NodeProcess) -> String {
    let since = Instant::now();
    loop {
        let (looking, pid) = (hands.clone(), node.pid);
        let found = spawn_blocking(move || {
            family(pid).into_iter().find_map(|process| looking.chain.misplaced_process(process))
        });
        if let Ok(Some(found)) = found.await {
            return format!("{found}; correct chain.command, or the script that it is, and restart baton");
        }
        let every = if since.elapsed() < STARTING { STARTING_EVERY } else { NODE_EVERY };
        sleep(BootTime::now().until_multiple_of(every)).await;
    }
}

/// The node ends: a holder's with its tenure, which takes the key away first, any other at once.
async fn let_go(hands: &Hands, process: &NodeProcess, reason: String) {
    if hands.core.read(|core, _| core.stage().is_some()) {
        hands.core.step(Event::LinksFailed { reason });
    } else {
        hands.stop_node(hands.stop_timeout).await;
    }
    gone(hands, process).await;
}

/// Returns when this process is not the node that runs, as far as is known.
async fn gone(hands: &Hands, process: &NodeProcess) {
    let mut node = hands.node.subscribe();
    // Fails only at the end of all.
    let _ = node.wait_for(|seen| !matches!(seen, NodeSeen::Running(now) if now.pid == process.pid)).await;
}

/// The chain node and all that descends from it, and what else the guard is the parent of: a wrapper's orphans.
fn family(node: u32) -> Vec<u32> {
    let guard = processes::stat(node).map(|stat| stat.parent);
    // Whoever takes over a dead guard's children has others, too.
    let guard = guard.filter(|guard| processes::program(*guard).is_some_and(|name| name.starts_with("baton-guard")));
    let mut found = guard.map(processes::children).unwrap_or_default();
    if !found.contains(&node) {
        found.push(node);
    }
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(processes::children(*pid));
        next += 1;
    }
    found
}
