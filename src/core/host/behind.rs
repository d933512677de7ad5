//! How far the chain node is behind what the log has admitted, where the log decides what is signed. A node that was
//! frozen with its host says for a while that it is in sync, while its head is far below; the log knows better, and
//! needs nobody else's word.
//!
//! This decides about liveness only: the log refuses what such a node would ask for.

use serde::{Deserialize, Serialize};

use super::Host;

/// A node in step is asked to sign the block above its head; that its head comes a block late is ordinary.
const ORDINARY: u64 = 2;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Behind {
    /// The highest height of an admitted request.
    admitted: u64,
    /// Blocks from the head at the last probe to the highest height that was admitted by then.
    blocks: u64,
}

impl Host {
    pub fn note_admitted(&mut self, height: u64) {
        self.behind.admitted = self.behind.admitted.max(height);
    }

    pub(super) fn compare_with_log(&mut self, head: u64) {
        self.behind.blocks = self.behind.admitted.saturating_sub(head);
    }

    /// In blocks, when it is more than a node in step is.
    pub(super) fn behind_log(&self) -> Option<u64> {
        Some(self.behind.blocks).filter(|blocks| *blocks > ORDINARY)
    }
}
