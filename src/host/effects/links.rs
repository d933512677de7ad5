//! How the links stand, for people and monitors: read from the disk by a thread that may wait for it, once a second
//! and after every change that was made here or by the guard. No fence rests on it: who changes links reads them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Hands;
use crate::base::guard_frame::LinkState;
use crate::base::time::BootTime;

/// Somebody else may change them at any time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct LinksSeen {
    state: watch::Sender<LinkState>,
    changed: Notify,
}

impl LinksSeen {
    pub(super) fn new(state: LinkState) -> LinksSeen {
        LinksSeen { state: watch::Sender::new(state), changed: Notify::new() }
    }

    /// They may stand differently from now on.
    pub(super) fn may_have_changed(&self) {
        self.changed.notify_one();
    }

    /// As they were found last.
    pub(super) fn seen(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }
}

/// Until the coordinator ends. While the disk hangs, what was seen last stays.
pub(super) async fn watch(hands: Arc<Hands>) {
    loop {
        let looking = hands.clone();
        // The runtime ends.
        let Ok(found) = spawn_blocking(move || looking.links.state()).await else { return };
        hands.links_seen.state.send_if_modified(|state| std::mem::replace(state, found) != found);
        // Late is as good as called.
        let _ = timeout(BootTime::now().until_multiple_of(LOOK_EVERY), hands.links_seen.changed.notified()).await;
    }
}
