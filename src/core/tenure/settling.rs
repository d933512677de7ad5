//! Settling: the holder waits until its chain node is past the sign floor, and gives it the key only then.

use super::{ALL_UPGRADE_WITHIN, Reason, Stage, Tenure};
use crate::base::chain_node::{FloorBasis, MetFloor, SignFloor};
use crate::base::ids::Epoch;
use crate::base::signing::Custody;
use crate::base::time::{BootTime, Now, WallTime};
use crate::core::Core;
use crate::core::agreed::replicated::Applied;
use crate::core::event::Action;
use crate::core::fences::floor::{self, FloorSource};

/// A chain that makes no block while a holder waits for one. It may wait for this very validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halt {
    pub height: u64,
    pub since: WallTime,
    /// Nothing above is known to be signed.
    pub known: u64,
}

impl Tenure {
    /// While it settles, `floor` says what is waited for.
    pub(in crate::core) fn settle_anew(&mut self, floor: impl FnOnce(FloorSource) -> SignFloor) {
        if self.stage == Stage::Settling {
            self.wanted = floor(self.source);
        }
    }

    pub(in crate::core) fn awaits_block_after(&self) -> Option<WallTime> {
        match self.wanted {
            SignFloor::BlockAfter(after) if self.stage == Stage::Settling => Some(after),
            SignFloor::BlockAfter(_) | SignFloor::Mark(_) | SignFloor::None => None,
        }
    }
}

impl Core {
    /// Invariant (fence 3): the key is linked only here, once the chain node is past the floor.
    pub(super) fn settle(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.is_key_elsewhere() {
            return self.leave_to_key_elsewhere(now, out);
        }
        if let Some(reason) = self.degraded(now.boot).filter(|_| self.best_target().is_some()) {
            return self.let_go(now, reason, None, out);
        }
        if self.host.upgrading().is_some() {
            return self.settle_after_upgrade(now, out);
        }
        self.note_clock_set_back(now);
        let live = self.deadline(now.boot).is_some_and(|deadline| now.boot < deadline);
        let Some((floor, basis)) = self.floor_to_meet(now.boot) else { return };
        let (head_heard, refuses) = (self.head_heard(), self.settings.node_refuses);
        let (Some(tenure), Some(health)) = (&mut self.tenure, self.host.health()) else { return };
        let settling_since = tenure.stage_since;
        // A clock that is known to be wrong says nothing about when a block was made.
        let timed = !matches!(floor, SignFloor::BlockAfter(_)) || self.clock.off.is_none();
        let met = timed && floor::is_met(&floor, health, refuses) && floor::is_above(&floor, health, head_heard);
        if live && self.host.is_node_running() && met {
            let settled_in = now.boot.since(tenure.stage_since);
            tenure.floor = MetFloor { floor, basis: Some(basis), height: health.height, settled_in };
            tenure.enter(Stage::Linking, now.boot);
            out.push(Action::LinkValidating { epoch: tenure.epoch, floor });
            self.host.give_key();
        } else if matches!(floor, SignFloor::BlockAfter(_))
            && self.settles_by_wrong_clock(now.boot, settling_since)
            && self.best_target().is_some()
        {
            self.leave_to_right_clock(now, out);
        }
    }

    /// Nobody knows how far the key has signed: no mark is passed on.
    fn leave_to_key_elsewhere(&mut self, now: Now, out: &mut Vec<Action>) {
        if let Some(tenure) = &mut self.tenure {
            tenure.source = FloorSource::Unknown;
        }
        self.let_go(now, Reason::KeyElsewhere, None, out);
    }

    /// The key is not given to a node that is about to be stopped. Somebody who stays ready while this host is upgraded
    /// takes over; where the chain itself asks for the upgrade, all ask soon.
    fn settle_after_upgrade(&mut self, now: Now, out: &mut Vec<Action>) {
        let since = self.tenure.as_ref().map_or(now.boot, |tenure| tenure.stage_since);
        if now.boot.since(since) >= ALL_UPGRADE_WITHIN && self.best_target().is_some() {
            self.let_go(now, Reason::Upgrade, None, out);
        }
    }

    /// Invariant (fence 3): it rests on the operator's word.
    pub(super) fn note_floor_laid(&mut self, epoch: Epoch, above: u64, outcome: &Applied) {
        let ours = |tenure: &&mut Tenure| tenure.epoch == epoch && *outcome == Applied::Recorded;
        if let Some(tenure) = self.tenure.as_mut().filter(ours) {
            tenure.laid = Some(above);
        }
    }

    fn laid_floor(&self) -> Option<SignFloor> {
        let tenure = self.tenure.as_ref()?;
        let tells_approvals = self.host.health().is_some_and(|health| health.approved > 0);
        let heard = tells_approvals.then(|| self.head_heard());
        floor::of_operator(tenure.source, tenure.laid?, self.mark_seen, heard)
    }

    /// What the claim asks for, or an operator laid in its place; while the chain stands still for too long, what
    /// gossip told instead.
    fn floor_to_meet(&self, now: BootTime) -> Option<(SignFloor, FloorBasis)> {
        let tenure = self.tenure.as_ref()?;
        if self.settings.custody == Custody::Signer {
            return Some((SignFloor::None, FloorBasis::Log));
        }
        if let Some(laid) = self.laid_floor() {
            return Some((laid, FloorBasis::Operator));
        }
        let replica = self.replica_at().filter(|at| now >= *at).and(floor::of_replica(tenure.source, self.mark_seen));
        Some(match replica {
            Some(floor) => (floor, FloorBasis::Replica),
            None => (tenure.wanted, floor::basis(tenure.source)),
        })
    }

    /// When a chain that stands still has done so for too long since this member began to settle.
    pub(super) fn replica_at(&self) -> Option<BootTime> {
        let settling_since = self.tenure.as_ref()?.stage_since;
        Some(settling_since.max(self.host.head_moved_at()) + self.settings.settle_max?)
    }

    /// While this member settles by time: the chain stands still here, and nobody who can be reached is ahead.
    pub fn halt(&self, now: Now) -> Option<Halt> {
        let (SignFloor::BlockAfter(_), _) = self.settling(now.boot)? else { return None };
        let height = self.host.health()?.height;
        let still = now.boot.since(self.host.head_moved_at());
        let known = self.mark_seen.map_or(height, |seen| seen.height.max(seen.approved).max(height));
        let higher = self.peers.values().any(|peer| peer.reachable && peer.height > height);
        let halted = still >= self.settings.head_still_max && !higher;
        halted.then(|| Halt { height, since: now.wall - still, known })
    }

    /// While this member settles: the floor that its chain node has still to meet.
    pub fn settling(&self, now: BootTime) -> Option<(SignFloor, FloorBasis)> {
        if self.stage() == Some(Stage::Settling) { self.floor_to_meet(now) } else { None }
    }
}
