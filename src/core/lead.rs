//! Leadership of a Raft term: how it comes and goes, the lease that acknowledgements give it, and what a leader
//! without a tenure does with it. It knows nothing of links and chain nodes.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::Action;
use super::peers::Peer;
use super::{Core, tenure};
use crate::base::ids::{NodeId, Term};
use crate::base::time::{BootTime, Now, WallTime};
use crate::core::fences::lease::Lease;
use crate::core::left_out::{LeftOut, is_left_out};

/// Leadership of one Raft term.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Lead {
    pub(super) term: Term,
    pub(super) lease: Lease,
    pub(super) since: BootTime,
    /// No other host can have signed after this moment.
    pub(super) quiet_since: WallTime,
    /// The highest head of any host that was heard of at that moment.
    pub(super) head_heard: u64,
    /// A `Release` of this term was proposed: nothing is claimed in this term any more, whether it
    /// commits or not.
    pub(super) releasing: bool,
    /// When leadership was last offered to somebody.
    pub(super) offered_at: Option<BootTime>,
}

impl Core {
    /// Invariant (fence 2): before this member can help another term, its own lead is over, so that no
    /// answer that comes later can lengthen its lease. Raft may still refuse the vote; then the lead is
    /// taken up again, with a lease that starts from nothing.
    pub(super) fn note_voting(&mut self, now: Now, term: Term, out: &mut Vec<Action>) {
        self.voting_in = Some(term);
        if self.lead.as_ref().is_some_and(|lead| lead.term < term) {
            self.note_lead_lost(now, out);
        }
    }

    pub(super) fn note_vote(&mut self, now: Now, term: Term, out: &mut Vec<Action>) {
        self.forget_resigned(term);
        if self.lead.as_ref().is_some_and(|lead| lead.term < term) {
            self.note_lead_lost(now, out);
        }
        self.gate.note_vote(term);
    }

    pub(super) fn note_led(&mut self, now: Now, term: Term, out: &mut Vec<Action>) {
        let known = self.lead.as_ref().is_some_and(|lead| lead.term == term) || self.has_resigned(term);
        let outvoted = term < self.gate.vote_term() || self.voting_in.is_some_and(|voting| term < voting);
        if known || outvoted {
            return;
        }
        self.note_lead_lost(now, out);
        self.gate.note_vote(term);
        self.lead = Some(Lead {
            term,
            lease: Lease::new(self.settings.me.clone(), term),
            since: now.boot,
            quiet_since: now.wall,
            head_heard: self.highest_head(),
            releasing: false,
            offered_at: None,
        });
        self.watch_key_anew(now.wall);
        if self.host.runs_node() {
            out.push(Action::WatchChain { closely: true });
        }
    }

    pub(super) fn note_lead_lost(&mut self, now: Now, out: &mut Vec<Action>) {
        self.resigned = None;
        if self.lead.take().is_some() {
            self.abandon_tenure(now, tenure::Reason::LeadLost, out);
            if self.host.runs_node() {
                out.push(Action::WatchChain { closely: false });
            }
        }
    }

    /// Invariant (fence 1): an answer counts for no longer than its promise, whatever lease the peer is configured
    /// with.
    pub(super) fn note_acked(
        &mut self,
        now: Now,
        from: &NodeId,
        term: Term,
        sent_at: BootTime,
        promised: Option<Duration>,
        out: &mut Vec<Action>,
    ) {
        let own = self.settings.timing.promise();
        let shortfall = promised.or(self.unstated_promise()).map(|promised| own.saturating_sub(promised));
        let Some(lead) = &mut self.lead else { return };
        lead.lease.note(from, term, sent_at, shortfall);
        if let Some(acked_at) = lead.lease.acked_at(now.boot, &self.voters) {
            self.gate.note_own_lease(&self.settings.me, lead.term, acked_at);
        }
        self.renew(now, out);
    }

    /// How long members promise that do not say it, when an operator vouches that it is no shorter than this member
    /// needs.
    fn unstated_promise(&self) -> Option<Duration> {
        let own = self.settings.timing.span();
        self.settings.unstated_lease.filter(|lease| *lease >= own.lease()).map(|_| own.promise())
    }

    /// Voters whose promises cannot be counted on, when there is no majority without them.
    pub(super) fn silent_majority(&self) -> Option<Vec<NodeId>> {
        if self.unstated_promise().is_some() {
            return None;
        }
        let is_silent = |id: &NodeId| self.peers.get(id).is_some_and(|peer| peer.silent_on_lease);
        let lacks_majority = |set: &BTreeSet<NodeId>| set.iter().filter(|id| !is_silent(id)).count() <= set.len() / 2;
        let lacking = self.voters.iter().any(lacks_majority);
        lacking.then(|| self.peers.keys().filter(|id| is_silent(id) && self.is_voter(id)).cloned().collect())
    }

    /// A host that slept cannot tell for how long its guard and its peers were deaf to each other.
    pub(super) fn note_slept(&mut self, now: Now, out: &mut Vec<Action>) {
        if let Some(lead) = &mut self.lead {
            lead.lease = Lease::new(self.settings.me.clone(), lead.term);
            self.abandon_tenure(now, tenure::Reason::Slept, out);
        }
    }

    /// What a leader without a tenure does: claim, or find somebody who can.
    pub(super) fn use_lead(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.tenure.is_some() || self.lead.is_none() {
            return;
        }
        let claims_again = is_left_out(LeftOut::NoSecondClaim);
        let releasing = self.lead.as_ref().is_some_and(|lead| lead.releasing) && !claims_again;
        let may_become_ready = self.host.runs_node() && self.stays_voter(&self.settings.me);
        if self.has_released() && !claims_again {
            self.offer_lead(now, out);
        } else if releasing {
            // Nothing to do before it commits.
        } else if self.host.may_sign_unasked() {
            // A release says that this member's node is inactive.
        } else if self.may_hold(now.boot) {
            let live =
                self.deadline(now.boot).is_some_and(|deadline| now.boot + self.settings.timing.heartbeat() < deadline);
            let alone = self.sole_founder_waits_until().is_some_and(|until| now.boot < until);
            if live && !alone && !self.awaits_key_looks(now.boot) {
                self.claim(now, out);
            }
        } else if self.best_target().is_some()
            && let Some(lead) = &mut self.lead
            && (!may_become_ready || now.boot.since(lead.since) >= self.settings.timing.lease())
        {
            lead.releasing = true;
            out.push(Action::ProposeRelease {
                epoch: self.view.epoch,
                last_signed: None,
                reason: tenure::Reason::CannotHold.as_str().into(),
                to: None,
            });
        }
    }

    /// Invariant (rule W): called only once a `Release` of the own term is committed. A leader that could
    /// hold the baton again, and is the only one, needs a new term first: whoever wins it gives it back.
    pub(super) fn offer_lead(&mut self, now: Now, out: &mut Vec<Action>) {
        let wanted = self.may_hold(now.boot);
        let follows = |(id, peer): &(&NodeId, &Peer)| peer.reachable && self.stays_voter(id);
        let anybody = || self.peers.iter().find(follows).map(|(id, _)| id).filter(|_| wanted);
        let Some(to) = self.best_target().or_else(anybody).cloned() else { return };
        let Some(lead) = &mut self.lead else { return };
        let waited = lead.offered_at.is_none_or(|at| now.boot.since(at) >= self.settings.timing.lease());
        if waited {
            lead.offered_at = Some(now.boot);
            out.push(Action::TransferLead { to });
        }
    }

    fn highest_head(&self) -> u64 {
        self.peers.values().map(|peer| peer.height).chain([self.host.height()]).max().unwrap_or(0)
    }

    pub(super) fn head_heard(&self) -> u64 {
        self.lead.as_ref().map_or(0, |lead| lead.head_heard)
    }

    /// From now on no other host can have signed, nor this one.
    pub(super) fn quiet_from(&mut self, now: Now) {
        let head_heard = self.highest_head();
        if let Some(lead) = &mut self.lead {
            (lead.quiet_since, lead.head_heard) = (now.wall, head_heard);
        }
    }

    /// A `Release` of the term that this member leads stands in its log.
    pub(super) fn has_released(&self) -> bool {
        self.lead.as_ref().is_some_and(|lead| self.gate.has_released(lead.term))
    }

    /// When the guard of a holder with the present lease fires; `None` without a lease.
    pub(super) fn deadline(&self, now: BootTime) -> Option<BootTime> {
        let lease = &self.lead.as_ref()?.lease;
        let timing = &self.settings.timing;
        let acked_at = lease.acked_at(now, &self.voters)?;
        if is_left_out(LeftOut::Drift) {
            return Some(acked_at + timing.lease() - timing.kill_max());
        }
        Some(timing.deadline(acked_at))
    }
}
