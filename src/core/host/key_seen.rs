//! A chain node that says that it has the validator's key although this host did not give it: a copy of the key where a
//! standby finds it, or another process that answers in the node's place.
//!
//! Invariant (rule (c)): the node's own word ends the proof that it is keyless. It is killed at once, kept down with a
//! growing pause, and not trusted with the baton until a later process says that it has no key.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CRASH_FORGOTTEN_AFTER, Host, Node};
use crate::base::chain_node::KeyState;
use crate::base::ids::Epoch;
use crate::base::time::BootTime;

/// The alarm, from the first such word until a process of the node says that it has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct KeySeen {
    /// Head of the node that said so last.
    height: u64,
    /// The kill was ordered, and the end that follows counts as a crash.
    struck: bool,
}

impl Host {
    /// Height of the chain node that had the key without the baton.
    pub fn key_seen(&self) -> Option<u64> {
        self.key_seen.map(|seen| seen.height)
    }

    /// Such a node has not been proven stopped yet.
    pub fn may_sign_unasked(&self) -> bool {
        self.key_seen.is_some() && !self.proven
    }

    /// Weighs the newest answer of a node that has no key as far as this host knows. `true`: it says that it has one,
    /// counts as unproven from here on, and is to be killed. `armed` is the epoch under which the guard watches it.
    ///
    /// A node that is starting, or being stopped, may still be answered for by the process before.
    pub fn weigh_key(&mut self, now: BootTime, armed: Option<Epoch>) -> bool {
        let Node::Running { since } = self.node else { return false };
        let Some(health) = self.health.as_ref().filter(|_| self.proven) else { return false };
        match health.key {
            KeyState::Untold => false,
            KeyState::Absent => {
                self.key_seen = None;
                false
            }
            KeyState::Loaded => {
                self.key_seen = Some(KeySeen { height: health.height, struck: true });
                self.forget_crashes(now.since(since));
                self.proven = false;
                self.node = Node::Stopping;
                self.foreign_epoch = armed.or(self.foreign_epoch);
                true
            }
        }
    }

    /// The node is gone. Whether that was its end for having the key.
    pub(super) fn end_strike(&mut self) -> bool {
        self.key_seen.as_mut().is_some_and(|seen| std::mem::replace(&mut seen.struck, false))
    }

    /// For the time that the node ran.
    pub(super) fn forget_crashes(&mut self, ran: Duration) {
        let forgotten = ran.as_secs() / CRASH_FORGOTTEN_AFTER.as_secs();
        self.crashes = self.crashes.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX));
    }
}
