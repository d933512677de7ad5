//! How the key is taken away: links, node, files, mark, and what the core is told of each. The last that happens to a
//! tenure on this host; `node.rs` calls it as one of its jobs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::file_queue::{Done, FileQueue};
use super::node::{EXEC_MAX, after_stop, prove};
use super::{Hands, NodeSeen, approvals, owner};
use crate::base::chain_node::Activation;
use crate::base::guard_frame::ToGuard;
use crate::base::ids::SignMark;
use crate::core::Event;
use crate::host::chain::ProbeError;

/// A hot deactivation that is not proven by then is followed by a stop.
const PROOF_MAX: Duration = Duration::from_secs(2);
/// A hot deactivation takes the links away first. One that cannot do so by then is followed by a stop.
const LINKS_MAX: Duration = Duration::from_secs(2);
/// For a node that is to give its key away to show that it answers; one with more time by its configuration counts as
/// answering.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// A node that is being stopped is asked at this pace whether it still answers, and counts as silent after so many
/// questions in a row that it took and did not answer.
const SILENCE_LOOK_EVERY: Duration = Duration::from_millis(500);
const SILENT_AFTER: u32 = 2;
/// Once the node is proven inactive, for its links and its files: what is not there by then is late, or unknown.
const FILES_MAX: Duration = Duration::from_millis(500);

/// Takes the key away and proves it. A node that can give it away gets its links changed first, and is stopped when
/// they do not change in time; any other is stopped beside that. The core hears of a node that does not answer before
/// it is told to end, and may have it killed.
///
/// Invariant: a node that is dead signs nothing, wherever its links lead; no other starts before they are in standby,
/// since its start comes after them in `files`, and the guard looks to it too.
pub(super) async fn deactivate(hands: &Arc<Hands>, files: &mut FileQueue, kill: bool) {
    let mut links = LinksAway::begin(hands, files);
    let keyless = end_signing(hands, &mut links, kill).await;
    let saved = after_stop(hands, files);
    links.wait(FILES_MAX).await;
    await_saved(saved).await;
    let last_signed = mark(hands, keyless).await;
    hands.has_key.send_replace(false);
    hands.core.step(Event::Inactive { last_signed });
    links.tell(hands);
    if keyless {
        // A node that gave its key away may hold on to the connections that the next holder needs.
        hands.send(ToGuard::Stop { timeout: hands.stop_timeout });
    }
}

/// How a node that was asked for its key answered.
enum Answer {
    Keyless,
    Silent,
    KeepsKey,
}

/// Whether the node gave its key away; otherwise it is gone.
async fn end_signing(hands: &Arc<Hands>, links: &mut LinksAway, kill: bool) -> bool {
    let asked = !kill && matches!(*hands.node.borrow(), NodeSeen::Running(_));
    let answer = match asked && can_give_key_away(hands) {
        true => ask_for_key(hands, links).await,
        false => Answer::KeepsKey,
    };
    let silent = match answer {
        Answer::Keyless => return true,
        Answer::Silent => true,
        // It may have begun to hang since.
        Answer::KeepsKey => asked && is_silent(hands).await,
    };
    if silent {
        tell_silent(hands);
    }
    if kill {
        hands.stop_node(Duration::ZERO).await;
    } else {
        tokio::select! {
            () = hands.stop_node(hands.stop_timeout) => {}
            () = watch_for_silence(hands) => unreachable!("it has no end"),
        }
    }
    false
}

fn tell_silent(hands: &Hands) {
    warn!(epoch = hands.epoch(), "the chain node does not answer");
    hands.core.step(Event::NodeSilent);
}

/// Goes on for as long as a node is being stopped. One that has answered before may begin to hang now: it takes
/// questions and answers none, while one that ends in good order refuses them.
async fn watch_for_silence(hands: &Hands) {
    let mut late = 0;
    loop {
        sleep(SILENCE_LOOK_EVERY).await;
        let probe = hands.chain.probe().await;
        late = match probe {
            Err(ProbeError::Timeout { .. }) if hands.answered_pid().is_some() => late + 1,
            Ok(_) | Err(_) => 0,
        };
        if late == SILENT_AFTER {
            tell_silent(hands);
        } else if late > SILENT_AFTER {
            // Somebody who could take over may have come since.
            hands.core.step(Event::NodeSilent);
        }
    }
}

async fn ask_for_key(hands: &Arc<Hands>, links: &mut LinksAway) -> Answer {
    let ((), silent) = tokio::join!(links.wait(LINKS_MAX), is_silent(hands));
    if silent {
        Answer::Silent
    } else if links.are_away() && take_key(hands).await {
        Answer::Keyless
    } else {
        Answer::KeepsKey
    }
}

/// Whether the node has answered before and does not now. Nothing is known of one that only starts: it has time to end.
async fn is_silent(hands: &Hands) -> bool {
    hands.answered_pid().is_some() && matches!(timeout(ANSWER_MAX, owner::ask(hands)).await, Ok(Err(_)))
}

/// The links on their way to standby.
struct LinksAway {
    under_way: Done<Result<(), String>>,
    ended: Option<Result<(), String>>,
}

impl LinksAway {
    fn begin(hands: &Arc<Hands>, files: &mut FileQueue) -> LinksAway {
        let hands = hands.clone();
        LinksAway { under_way: files.then(async move { to_standby(&hands).await }), ended: None }
    }

    /// Until they are there or have failed, for `max` at most.
    async fn wait(&mut self, max: Duration) {
        if self.ended.is_none() {
            self.ended = timeout(max, &mut self.under_way).await.ok();
        }
    }

    fn are_away(&self) -> bool {
        matches!(self.ended, Some(Ok(())))
    }

    /// The core hears how it ended, also of those that are late.
    fn tell(self, hands: &Arc<Hands>) {
        match self.ended {
            Some(Ok(())) => {}
            Some(Err(reason)) => links_failed(hands, reason),
            None => {
                links_failed(
                    hands,
                    "the links are not in standby yet; see to the disk of the chain node's home".into(),
                );
                tokio::spawn(follow_links(hands.clone(), self.under_way));
            }
        }
    }
}

fn links_failed(hands: &Hands, reason: String) {
    warn!(epoch = hands.epoch(), "links not in standby: {reason}");
    hands.core.step(Event::LinksFailed { reason });
}

/// The core hears of links that are late.
async fn follow_links(hands: Arc<Hands>, linked: Done<Result<(), String>>) {
    match linked.await {
        Ok(()) => {
            info!("the links are in standby");
            hands.core.step(Event::LinksPutAway);
        }
        Err(reason) => links_failed(&hands, reason),
    }
}

async fn await_saved(saved: Done<Result<(), String>>) {
    match timeout(FILES_MAX, saved).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!("{error}"),
        Err(_) => warn!("the files of the stopped chain node are not saved after {FILES_MAX:?}; see to its disk"),
    }
}

/// What the key has signed, for the `Release`.
async fn mark(hands: &Hands, keyless: bool) -> Option<SignMark> {
    match hands.chain.tells_approvals() {
        true if keyless => approvals::of_keyless(hands).await,
        true => None,
        false => last_signed(hands).await,
    }
}

/// What the proven inactive node signed last; nothing where its files do not say it in time, and nobody passes on a
/// mark then.
async fn last_signed(hands: &Hands) -> Option<SignMark> {
    match timeout(FILES_MAX, hands.chain.last_signed()).await {
        Ok(Ok(mark)) => mark,
        Ok(Err(error)) => {
            warn!("{error}");
            None
        }
        Err(_) => {
            warn!("what the chain node signed last is not known after {FILES_MAX:?}; see to its disk");
            None
        }
    }
}

async fn to_standby(hands: &Arc<Hands>) -> Result<(), String> {
    let hands = hands.clone();
    let done = spawn_blocking(move || {
        let done = hands.links.to_standby().map_err(|error| error.to_string());
        hands.links_seen.may_have_changed();
        done
    });
    done.await.map_err(|error| error.to_string())?
}

/// Whether the chain node can drop its key while it runs, and prove that.
fn can_give_key_away(hands: &Hands) -> bool {
    // One that never showed the key may be about to load it: that it has none now proves nothing.
    hands.showed_key.load(Ordering::Relaxed)
        && hands.chain.proves_key_by_probe()
        && *hands.chain.activation() != Activation::Restart
}

/// Whether the running node was brought to drop its key and says so.
async fn take_key(hands: &Arc<Hands>) -> bool {
    let signal = match hands.chain.activation() {
        Activation::Restart => return false,
        // A node that cannot be signalled yet would have to be waited for; stopping it takes no longer.
        Activation::Signal(_) if hands.answered_pid().is_none() => return false,
        Activation::Signal(signal) => Some(*signal),
        Activation::Exec { deactivate, .. } => {
            if let Err(error) = hands.chain.run_exec(deactivate, EXEC_MAX).await {
                warn!("{error}");
                return false;
            }
            None
        }
    };
    let order = signal.map(|signal| ToGuard::Signal { signal, validator_epoch: None });
    let proof = prove(hands, order, |health| hands.chain.proves_keyless(health));
    let unproven = match timeout(PROOF_MAX, proof).await {
        Ok(Ok(())) => return true,
        Ok(Err(reason)) => reason,
        Err(_) => format!("it does not say so within {PROOF_MAX:?}"),
    };
    warn!(epoch = hands.epoch(), "the chain node is stopped, since it is not proven keyless: {unproven}");
    false
}
