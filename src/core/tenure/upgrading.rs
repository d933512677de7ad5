//! An upgrade of a holder's chain node in its place: the key is taken away and that is proven, the binary is swapped,
//! the key is given back; all under one epoch, whose lease and guard are renewed as ever.
//!
//! Invariants: the binary is swapped only once the node is proven inactive (`Host::begin_upgrade`); the key is given
//! back only while the lease lives; from the proof until then the member's vote is as free as a standby's (rule (c)).

use serde::{Deserialize, Serialize};

use super::{Reason, Stage, Tenure};
use crate::base::chain_node::SignFloor;
use crate::base::ids::{SignMark, UpgradeName};
use crate::base::time::Now;
use crate::core::Core;
use crate::core::event::Action;

/// What of an upgrade in its place a holder has behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum InPlace {
    /// The key is being taken away.
    Deactivating,
    /// The node was proven inactive; what a `Release` has to say of signatures.
    Inactive { last_signed: Option<SignMark> },
    /// The new binary may be given the key.
    Upgraded { last_signed: Option<SignMark> },
}

impl Tenure {
    /// The order to take the key away for an upgrade stands, and there is no proof yet.
    pub(super) fn deactivates_to_upgrade(&self) -> bool {
        self.stage == Stage::Upgrading && self.in_place == Some(InPlace::Deactivating)
    }

    /// What the node was proven to have signed before its upgrade.
    pub(super) fn mark_before_upgrade(&self) -> Option<SignMark> {
        match self.in_place? {
            InPlace::Deactivating => None,
            InPlace::Inactive { last_signed } | InPlace::Upgraded { last_signed } => last_signed,
        }
    }

    fn upgrade_in_place(&mut self, step: InPlace, now: Now) {
        self.in_place = Some(step);
        self.enter(Stage::Upgrading, now.boot);
    }
}

impl Core {
    /// A holder's key is taken away first; whoever has none yet is upgraded as a standby.
    pub(in crate::core) fn note_upgrade_due(&mut self, now: Now, name: UpgradeName, back: bool, out: &mut Vec<Action>) {
        self.host.upgrade_due(name, back);
        let Some(tenure) = self.tenure.as_mut().filter(|_| self.host.upgrading().is_some()) else { return };
        match tenure.stage {
            Stage::Linking | Stage::Activating | Stage::Active => {
                tenure.reactivate = false;
                tenure.upgrade_in_place(InPlace::Deactivating, now);
                out.push(Action::Deactivate { kill: false });
            }
            // Under way already; what was taken for granted before it is under way may still change its name.
            Stage::Upgrading => {}
            // Settling waits for it; a tenure that ends is followed by it.
            Stage::Claiming | Stage::Arming | Stage::Settling | Stage::Stopping => {}
        }
    }

    /// Nobody else works on the node: begins what is due.
    pub(in crate::core) fn upgrade_node(&mut self, out: &mut Vec<Action>) {
        let busy = self.tenure.as_ref().is_some_and(Tenure::may_key_come);
        if !busy && !self.finished && self.shutdown.is_none() {
            self.host.begin_upgrade(out);
        }
    }

    pub(in crate::core) fn note_upgrade_ended(&mut self, now: Now, failed: bool, out: &mut Vec<Action>) {
        if !self.host.upgrade_ended(now.boot, failed) {
            return;
        }
        let Some(tenure) = self.tenure.as_mut().filter(|tenure| tenure.stage == Stage::Upgrading) else { return };
        if failed {
            return self.let_go(now, Reason::UpgradeFailed, None, out);
        }
        let last_signed = tenure.mark_before_upgrade();
        tenure.upgrade_in_place(InPlace::Upgraded { last_signed }, now);
        self.link_upgraded(now, out);
    }

    /// Invariants: the key is given back under a lease that lives (fence 1), of the epoch under which it was taken
    /// away. So nobody else can have signed since, and the floor that was met still is (fence 3): a node that enforces
    /// it is given its own mark once more, any other has the blocks that met it.
    pub(super) fn link_upgraded(&mut self, now: Now, out: &mut Vec<Action>) {
        // A proof that was ordered before the key is given back must not be taken for one of after it (rule (c)).
        let proven = self.host.is_proven();
        let live = proven && self.deadline(now.boot).is_some_and(|deadline| now.boot < deadline);
        let refuses = self.settings.node_refuses;
        let Some(tenure) = self.tenure.as_mut().filter(|_| live) else { return };
        let floor = tenure.mark_before_upgrade().filter(|_| refuses).map_or(SignFloor::None, SignFloor::Mark);
        if let Some(InPlace::Upgraded { .. }) = tenure.in_place {
            tenure.in_place = None;
            tenure.after_upgrade = true;
            tenure.enter(Stage::Linking, now.boot);
            out.push(Action::LinkValidating { epoch: tenure.epoch, floor });
            self.host.give_key();
        }
    }
}
