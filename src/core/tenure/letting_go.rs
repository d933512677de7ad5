//! How the baton is let go: node proven inactive, `Release`, transfer; or, without a lead, only the first.

use super::upgrading::InPlace;
use super::{CRASHES_MAX, Ending, Reason, Stage, TRUSTED_AFTER};
use crate::base::guard_frame::ExitCause;
use crate::base::ids::{Epoch, NodeId, SignMark, Term};
use crate::base::signing::Custody;
use crate::base::time::Now;
use crate::core::event::Action;
use crate::core::{Core, Lead};

impl Core {
    /// Ends the tenure in good order: node proven inactive, `Release`, transfer to `target` or to the
    /// best one then.
    pub(in crate::core) fn let_go(&mut self, now: Now, reason: Reason, target: Option<NodeId>, out: &mut Vec<Action>) {
        // A node that answers no probe hears no gentler word either.
        let kill = self.host.is_unhealthy();
        self.end_tenure(now, reason, target, true, kill, out);
    }

    /// A node that does not answer is not asked to end while somebody waits for its key: all of `stop_timeout` would
    /// pass.
    pub(in crate::core) fn kill_silent_node(&mut self, now: Now, out: &mut Vec<Action>) {
        let awaited = self.best_target().is_some();
        let Some(tenure) = &mut self.tenure else { return };
        let Some(ending) = &mut tenure.ending else { return };
        if !ending.inactive && !ending.kill && (awaited || ending.target.is_some()) {
            ending.kill = true;
            tenure.stage_since = now.boot;
            out.push(Action::Deactivate { kill: true });
        }
    }

    /// Ends the tenure of a leader whose lease is not to be trusted any more. There is nothing to
    /// release: the guard's deadline stands.
    pub(in crate::core) fn abandon_tenure(&mut self, now: Now, reason: Reason, out: &mut Vec<Action>) {
        let kill = matches!(reason, Reason::Slept | Reason::GuardSilent | Reason::Stalled | Reason::DiskHung);
        if let Some(ending) = self.tenure.as_mut().and_then(|tenure| tenure.ending.as_mut()) {
            ending.release = false;
            if ending.inactive {
                self.tenure = None;
            } else if kill && !ending.kill {
                ending.kill = true;
                out.push(Action::Deactivate { kill });
            }
            return;
        }
        self.end_tenure(now, reason, None, false, kill, out);
    }

    fn end_tenure(
        &mut self,
        now: Now,
        reason: Reason,
        target: Option<NodeId>,
        release: bool,
        kill: bool,
        out: &mut Vec<Action>,
    ) {
        let Some(tenure) = self.tenure.as_mut().filter(|tenure| tenure.ending.is_none()) else { return };
        let gave_key = tenure.gave_key();
        let ordered = tenure.deactivates_to_upgrade();
        let last_signed = tenure.mark_without_key();
        tenure.ending = Some(Ending { reason, target, release, kill, inactive: !gave_key, last_signed });
        tenure.enter(Stage::Stopping, now.boot);
        if gave_key {
            // For an upgrade the order was given before; only a harsher one is given again.
            if kill || !ordered {
                out.push(Action::Deactivate { kill });
            }
        } else {
            out.push(Action::Disarm { epoch: tenure.epoch });
            self.release_or_drop(out);
        }
    }

    /// Invariant (fence 1): a node with the key that no tenure wants any more, and whose guard may be
    /// disarmed by now, does not go on. Its start overtook the order to let go.
    pub(in crate::core) fn stop_unwanted_validator(&mut self, validator_epoch: Option<Epoch>, out: &mut Vec<Action>) {
        let Some(epoch) = validator_epoch else { return };
        if !self.tenure.as_ref().is_some_and(|tenure| tenure.epoch == epoch && tenure.gave_key()) {
            out.push(Action::Deactivate { kill: true });
        }
    }

    pub(in crate::core) fn note_inactive(&mut self, now: Now, recorded: Option<SignMark>, out: &mut Vec<Action>) {
        match self.settings.custody {
            Custody::Links => self.host.key_is_gone(),
            Custody::Signer => self.host.key_was_never_here(),
        }
        if self.stage().is_some_and(|stage| matches!(stage, Stage::Linking | Stage::Activating | Stage::Active)) {
            // Rule (c): the answer to an order of before the key was given, which proves nothing about what came after.
            self.host.give_key();
        }
        self.quiet_from(now);
        if let Some(epoch) = self.host.take_foreign_epoch() {
            out.push(Action::Disarm { epoch });
        }
        let Some(tenure) = &mut self.tenure else { return };
        let mark = tenure.released_mark(recorded);
        if tenure.deactivates_to_upgrade() {
            tenure.in_place = Some(InPlace::Inactive { last_signed: mark });
        }
        let Some(ending) = tenure.ending.as_mut().filter(|ending| !ending.inactive) else { return };
        ending.inactive = true;
        ending.last_signed = mark;
        tenure.stage_since = now.boot;
        out.push(Action::Disarm { epoch: tenure.epoch });
        self.release_or_drop(out);
    }

    /// The node is inactive: propose the `Release` when that was the plan and the lead still stands.
    fn release_or_drop(&mut self, out: &mut Vec<Action>) {
        let Some(tenure) = &self.tenure else { return };
        let Some(ending) = &tenure.ending else { return };
        match &mut self.lead {
            Some(lead) if ending.release && lead.term == tenure.term => {
                lead.releasing = true;
                out.push(Action::ProposeRelease {
                    epoch: tenure.epoch,
                    last_signed: ending.last_signed,
                    reason: ending.reason.as_str().into(),
                    to: ending.target.clone(),
                });
            }
            Some(_) | None => self.tenure = None,
        }
    }

    pub(super) fn note_released(&mut self, now: Now, term: Term, out: &mut Vec<Action>) {
        self.gate.note_release(term);
        let ready = |core: &Core, id: &NodeId| {
            core.stays_voter(id) && core.peers.get(id).is_some_and(|peer| peer.ready && peer.reachable)
        };
        let Some(lead) = self.lead.as_mut().filter(|lead| lead.term == term) else { return };
        let wanted = match self.tenure.take() {
            Some(tenure) if tenure.term == term => tenure.ending.and_then(|ending| ending.target),
            other => {
                self.tenure = other;
                None
            }
        };
        lead.offered_at = None;
        if let Some(to) = wanted.filter(|to| ready(self, to))
            && let Some(lead) = &mut self.lead
        {
            lead.offered_at = Some(now.boot);
            out.push(Action::TransferLead { to });
        }
    }

    pub(in crate::core) fn note_proposal_failed(&mut self, out: &mut Vec<Action>) {
        let Some(tenure) = &self.tenure else {
            self.propose_release_again(out);
            return;
        };
        match tenure.stage {
            // Claimed again if the lead stands. Should this claim commit after all, it serves as well: nothing
            // was armed, and the second one of its epoch is rejected.
            Stage::Claiming => self.tenure = None,
            // Before the node is proven inactive, what failed was proposed earlier, and there is nothing to release
            // yet.
            Stage::Stopping if tenure.may_key_come() => {}
            Stage::Stopping => self.release_or_drop(out),
            Stage::Arming | Stage::Settling | Stage::Linking | Stage::Activating | Stage::Active | Stage::Upgrading => {
            }
        }
    }

    fn propose_release_again(&mut self, out: &mut Vec<Action>) {
        let released = self.has_released();
        if let Some(Lead { releasing: true, .. }) = &self.lead
            && !released
        {
            let (epoch, reason) = (self.view.epoch, Reason::CannotHold.as_str().into());
            out.push(Action::ProposeRelease { epoch, last_signed: None, reason, to: None });
        }
    }

    pub(in crate::core) fn note_exited(&mut self, now: Now, cause: ExitCause, out: &mut Vec<Action>) {
        match cause {
            ExitCause::ByItself => {
                let comes_back = self.settings.failback;
                if let Some(tenure) = &mut self.tenure {
                    tenure.ended_early |= match tenure.stage {
                        Stage::Activating => !tenure.recorded,
                        Stage::Active => comes_back && now.boot.since(tenure.stage_since) < TRUSTED_AFTER,
                        Stage::Claiming
                        | Stage::Arming
                        | Stage::Settling
                        | Stage::Linking
                        | Stage::Upgrading
                        | Stage::Stopping => false,
                    };
                }
                self.tenure_lost_node(now, Reason::NodeExited, out);
            }
            // A stop that was ordered before this tenure, to restart the node as standby, came late.
            ExitCause::Stopped { .. } if self.stage().is_some_and(|s| s == Stage::Activating || s == Stage::Active) => {
                self.tenure_lost_node(now, Reason::NodeExited, out);
            }
            // Asked for by an action in progress, or followed by `Fenced`.
            ExitCause::Stopped { .. } | ExitCause::Fenced => {}
        }
    }

    /// The node of a holder is gone: to a ready standby at once, else up again here.
    pub(in crate::core) fn tenure_lost_node(&mut self, now: Now, reason: Reason, out: &mut Vec<Action>) {
        let Some(tenure) = &self.tenure else { return };
        let crashes_too_often = self.host.crashes() > CRASHES_MAX && !self.view.orders.is_paused();
        let hopeless = reason == Reason::GuardGone || crashes_too_often;
        let elsewhere = hopeless || self.best_target().is_some();
        match tenure.stage {
            Stage::Stopping => {}
            // It is to be stopped anyway.
            Stage::Upgrading if reason == Reason::NodeExited => {}
            Stage::Activating | Stage::Active if !elsewhere => {
                if let Some(tenure) = &mut self.tenure {
                    tenure.reactivate = true;
                    tenure.enter(Stage::Activating, now.boot);
                }
                self.host.restart_at_once(now.boot);
            }
            Stage::Claiming
            | Stage::Arming
            | Stage::Settling
            | Stage::Linking
            | Stage::Activating
            | Stage::Active
            | Stage::Upgrading => self.let_go_without_node(now, reason, out),
        }
    }

    /// Liveness: a node that ends at what was to activate it, or soon after, would do so again. Without a pause that
    /// grows, a preferred host would take the baton from the others for ever.
    pub(super) fn let_go_without_node(&mut self, now: Now, reason: Reason, out: &mut Vec<Action>) {
        if self.tenure.as_ref().is_some_and(|tenure| tenure.ended_early) && self.best_target().is_some() {
            self.host.distrust(now.boot);
        }
        self.let_go(now, reason, None, out);
    }

    /// The guard killed the node and put the links into standby. What was still under way here may
    /// have touched them after that, so they are put there once more.
    pub(in crate::core) fn note_fenced(&mut self, now: Now, epoch: Epoch, out: &mut Vec<Action>) {
        if self.tenure.as_ref().is_some_and(|tenure| tenure.epoch == epoch) {
            self.end_tenure(now, Reason::LeaseLost, None, false, true, out);
        }
    }
}
