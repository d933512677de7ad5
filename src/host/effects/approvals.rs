//! How far the own chain node has approved blocks, on chains where that runs ahead of the head: asked of a standby that
//! settles (`probe.rs`), of a node that was just proven keyless (`node.rs`) and, for gossip, of a holder (`mark.rs`).
//!
//! Invariant (fence 3): a mark that is passed on covers all that the key has signed on this host. What the node tells
//! only rises, so an answer to a question that was asked after the key was gone does. Approvals are read before the
//! head and the key, so that what is told of a node that still has the key lies below what is told once it is gone.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::{Hands, owner};
use crate::base::chain_node::KeyState;
use crate::base::ids::SignMark;

/// Between two questions of a standby: a block takes longer.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// After a question without an answer, which takes time from the probes.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Both answers after the key is gone; the `Release` waits for them.
const MARK_MAX: Duration = Duration::from_millis(500);

/// What one process of the chain node has told last, which is true of it ever after.
pub(super) struct Told {
    pid: u32,
    approved: u64,
    ask_at: Instant,
}

impl Told {
    pub(super) fn nothing() -> Told {
        Told { pid: 0, approved: 0, ask_at: Instant::now() }
    }

    /// Up to where the process `pid`, which has just answered a probe, has approved at least. It is asked while blocks
    /// are awaited `closely`.
    pub(super) async fn by(&mut self, hands: &Hands, pid: u32, closely: bool) -> u64 {
        if self.pid != pid {
            *self = Told { pid, ..Told::nothing() };
        }
        if closely && hands.chain.tells_approvals() && Instant::now() >= self.ask_at {
            let pause = match hands.chain.approved().await {
                Ok(_) if !hands.runs_node(pid) => RETRY_AFTER,
                Ok(approved) => {
                    self.approved = self.approved.max(approved);
                    ASK_EVERY
                }
                Err(error) => {
                    debug!("{error}");
                    RETRY_AFTER
                }
            };
            self.ask_at = Instant::now() + pause;
        }
        self.approved
    }
}

/// The mark to pass on of a node that was proven keyless and still runs. `None`: it does not tell, and nobody passes on
/// a mark.
///
/// There is none of a node that was stopped: between the last answer and its end it could approve more heights and make
/// more blocks than can be told. A bound that counts a height more for each slot of that time has the next holder wait
/// for a later block, which is what it does without a mark.
pub(super) async fn of_keyless(hands: &Hands) -> Option<SignMark> {
    let told = match timeout(MARK_MAX, ask(hands, KeyState::Absent)).await {
        Ok(told) => told,
        Err(_) => Err(format!("no answer within {MARK_MAX:?}")),
    };
    told.inspect_err(|error| warn!("the next holder waits for a block, since nobody knows what was approved: {error}"))
        .ok()
}

/// A mark that a holder's node has reached, for those who hear no later one.
pub(super) async fn of_holder(hands: &Hands) -> Option<SignMark> {
    ask(hands, KeyState::Loaded).await.inspect_err(|error| debug!("{error}")).ok()
}

/// # Errors
/// The node does not tell, is not ours, ended meanwhile or says something else of its key than `key`.
async fn ask(hands: &Hands, key: KeyState) -> Result<SignMark, String> {
    let pid = hands.answered_pid().ok_or("no chain node runs")?;
    let approved = hands.chain.approved().await.map_err(|error| error.to_string())?;
    let health = owner::ask(hands).await?;
    if !hands.runs_node(pid) {
        return Err("the chain node ended meanwhile".to_owned());
    }
    if health.key != key {
        return Err(format!("the chain node says {:?} of its key, not {key:?}", health.key));
    }
    // A node at its very beginning has approved nothing; a mark of approvals is never without any.
    Ok(SignMark::of_approvals(health.height, approved.max(health.height).max(1)))
}
