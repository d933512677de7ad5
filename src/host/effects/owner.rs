//! Whether it is our own node that answers: asked before an answer is believed, before the chain node is started, and
//! once a second. What is found goes to the core, which neither starts the node nor claims beside somebody else's.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{Hands, NodeSeen};
use crate::base::chain_node::Health;
use crate::base::guard_frame::NodeProcess;
use crate::core::Event;
use crate::host::chain::{Endpoint, Owner, foreign_user};

/// For so long a proof holds while the same node runs.
const PROOF_LASTS: Duration = Duration::from_secs(1);
/// For so long it is not looked again for a foreign node to be gone, which takes a walk over all processes.
const FOREIGN_LASTS: Duration = Duration::from_millis(500);
/// Between two looks while no chain node of ours runs.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was found out, for the node with this number.
struct Look {
    at: Instant,
    node: Option<u32>,
    owner: Owner,
    /// Sockets that were shown to be of that node or what it started.
    proven: BTreeSet<u64>,
}

pub(super) struct OwnerWatch {
    /// `None` for a probe by a program, of which nobody knows whom it asks.
    endpoint: Option<Endpoint>,
    home: PathBuf,
    command: Vec<String>,
    last: Mutex<Option<Look>>,
    /// The reason for which an owner could not be known was said.
    said: std::sync::Mutex<String>,
}

impl OwnerWatch {
    pub(super) fn new(endpoint: Option<Endpoint>, home: PathBuf, command: Vec<String>) -> OwnerWatch {
        OwnerWatch { endpoint, home, command, last: Mutex::default(), said: std::sync::Mutex::default() }
    }
}

/// Asks the chain node for its health. An answer of another process is none.
///
/// # Errors
/// Why there is no answer of our own node.
pub(super) async fn ask(hands: &Hands) -> Result<Health, String> {
    let before = owner(hands).await;
    if let Some(reason) = refusal(&before) {
        return Err(reason);
    }
    let health = hands.chain.probe().await.map_err(|error| error.to_string())?;
    if before != Owner::Nobody {
        return Ok(health);
    }
    // It may have begun to listen between the look and the question.
    match owner(hands).await {
        Owner::Nobody => {
            Err("something answers where no process of this host listens; probe the node itself".to_owned())
        }
        after => refusal(&after).map_or(Ok(health), Err),
    }
}

/// Why an answer from there is none of our node.
fn refusal(owner: &Owner) -> Option<String> {
    match owner {
        Owner::Foreign(who) => Some(who.clone()),
        Owner::Elsewhere(addr) => Some(format!("{addr} is no address of this host")),
        Owner::Ours(_) | Owner::Nobody | Owner::Unknown(_) => None,
    }
}

/// Looks at the address while no node of ours runs there, and at the home if somebody was found in it. Without a guard
/// not: what descends from one that is lost would be taken for somebody else's.
async fn look_without_node(hands: &Hands) {
    let in_home = hands.foreign_in_home.borrow().is_some();
    if in_home && hands.has_guard() {
        look_into_home(hands).await;
    }
    owner(hands).await;
}

/// Whether the node may be started: nobody else listens where it is probed or has its home open.
pub(super) async fn is_place_free(hands: &Hands) -> bool {
    if !hands.has_guard() {
        // Nothing is started without one, and what it left may still be there.
        return true;
    }
    look_into_home(hands).await;
    owner(hands).await;
    !hands.is_foreign_known()
}

async fn look_into_home(hands: &Hands) {
    let (home, command) = (hands.owner.home.clone(), hands.owner.command.clone());
    let guard = hands.guard_pid();
    let found = spawn_blocking(move || foreign_user(&home, &command, guard)).await.unwrap_or_default();
    hands.foreign_in_home.send_replace(found);
    tell(hands);
}

/// Whose node answers now, or did a moment ago.
async fn owner(hands: &Hands) -> Owner {
    let Some(endpoint) = &hands.owner.endpoint else { return Owner::Unknown("a program asks the node".into()) };
    let Some(guard) = hands.guard_pid() else { return Owner::Unknown("no guard answers".into()) };
    let node = match &*hands.node.borrow() {
        NodeSeen::Running(process) => Some(process.pid),
        NodeSeen::Unknown | NodeSeen::Stopped | NodeSeen::Refused(_) => None,
    };
    let mut last = hands.owner.last.lock().await;
    let same = last.as_ref().filter(|look| look.node == node);
    if let Some(look) = same.filter(|look| look.at.elapsed() < lasts(&look.owner)) {
        return look.owner.clone();
    }
    let proven = same.map(|look| look.proven.clone()).unwrap_or_default();
    let (asked, known) = (endpoint.clone(), proven.clone());
    let looked = spawn_blocking(move || asked.owner(Some(guard), &known)).await;
    let owner = match looked.unwrap_or_else(|error| Owner::Unknown(error.to_string())) {
        Owner::Elsewhere(addr) => Owner::Foreign(endpoint.elsewhere(addr)),
        owner => owner,
    };
    let proven = match &owner {
        Owner::Ours(inodes) => inodes.clone(),
        Owner::Nobody | Owner::Foreign(_) | Owner::Elsewhere(_) | Owner::Unknown(_) => proven,
    };
    *last = Some(Look { at: Instant::now(), node, owner: owner.clone(), proven });
    drop(last);
    say_unknown(hands, endpoint, &owner);
    let foreign = match &owner {
        Owner::Foreign(who) => Some(who.clone()),
        Owner::Ours(_) | Owner::Nobody | Owner::Elsewhere(_) | Owner::Unknown(_) => None,
    };
    hands.foreign_listener.send_replace(foreign);
    tell(hands);
    owner
}

fn lasts(owner: &Owner) -> Duration {
    match owner {
        Owner::Ours(_) | Owner::Unknown(_) => PROOF_LASTS,
        Owner::Foreign(_) | Owner::Elsewhere(_) => FOREIGN_LASTS,
        Owner::Nobody => Duration::ZERO,
    }
}

/// Once for each reason: nothing can be done about it from here.
fn say_unknown(hands: &Hands, endpoint: &Endpoint, owner: &Owner) {
    let Owner::Unknown(reason) = owner else { return };
    let mut said = hands.owner.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if *said != *reason {
        warn!("it cannot be proven that our own node answers at {}: {reason}", endpoint.shown());
        said.clone_from(reason);
    }
}

/// The core and the log hear of every change.
fn tell(hands: &Hands) {
    let listener = hands.foreign_listener.borrow().clone();
    let found = listener.or_else(|| hands.foreign_in_home.borrow().clone());
    let changed = hands.seen.send_if_modified(|seen| {
        let changed = seen.foreign != found;
        seen.foreign.clone_from(&found);
        if changed && found.is_some() {
            seen.health = None;
        }
        changed
    });
    if changed {
        match &found {
            Some(who) => error!("a node that is not ours: {who}"),
            None => info!("the node that was not ours is gone"),
        }
        hands.core.step(Event::ForeignNode { found });
    }
}

/// Watches until our own node runs.
pub(super) async fn watch_until_running(hands: &Arc<Hands>) -> Option<NodeProcess> {
    let mut node = hands.node.subscribe();
    loop {
        let running = node.wait_for(|seen| matches!(seen, NodeSeen::Running(_)));
        let seen = tokio::time::timeout(LOOK_EVERY, running).await.map(|seen| seen.map(|seen| seen.clone()));
        match seen {
            Ok(Ok(NodeSeen::Running(process))) => return Some(process),
            Ok(Ok(NodeSeen::Unknown | NodeSeen::Stopped | NodeSeen::Refused(_))) => {}
            Ok(Err(_)) => return None,
            Err(_) => look_without_node(hands).await,
        }
    }
}
