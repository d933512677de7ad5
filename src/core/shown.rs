//! What is shown of a member: to operators, to its peers, and to the shell that performs what it decides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::host::Host;
use super::{Core, NotReady, Peer, Settings, Stage, State, View};
use crate::base::ids::{NodeId, SignMark, Term};
use crate::base::signing::Custody;
use crate::base::time::BootTime;
use crate::core::fences::lease::VoterSets;
use crate::core::fences::votes::VoteGate;
use crate::core::tenure::{Reason, Tenure};

impl Core {
    pub fn me(&self) -> &NodeId {
        &self.settings.me
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn gate(&self) -> &VoteGate {
        &self.gate
    }

    pub fn voters(&self) -> &VoterSets {
        &self.voters
    }

    /// It was just made, and has heard of nobody.
    pub fn is_untouched(&self) -> bool {
        let alone = self.peers.is_empty() && self.lead.is_none() && self.gate.promised().is_none();
        alone && !self.host.has_guard() && self.host.health().is_none()
    }

    /// Of every member that it knows of, and some of them twice.
    pub fn names(&self) -> impl Iterator<Item = &NodeId> {
        self.settings.priorities.keys().chain(self.configured.keys()).chain(self.peers.keys()).chain(&self.view.holder)
    }

    pub fn state(&self, now: BootTime) -> State {
        if self.shutdown.is_some() {
            State::Shutdown
        } else if self.tenure.is_some() {
            State::Validating
        } else if self.host.runs_node() && self.host.health().is_none() {
            State::Startup
        } else if self.host.health().is_some_and(|health| !health.synced) {
            State::Syncing
        } else if self.host.runs_node() && self.not_ready(now).is_some() || self.votes_for_nobody(now).is_some() {
            State::Registering
        } else if self.is_voter(&self.settings.me) && (self.lead.is_some() || self.gate.loyal_to(now).is_some()) {
            State::Voting
        } else {
            State::Registering
        }
    }

    pub fn stage(&self) -> Option<Stage> {
        self.tenure.as_ref().map(Tenure::stage)
    }

    /// Why this member lets the baton go, while it does.
    pub fn ending(&self) -> Option<Reason> {
        self.tenure.as_ref().and_then(Tenure::ending)
    }

    /// Whom this member follows, or itself while it leads.
    pub fn leader(&self, now: BootTime) -> Option<&NodeId> {
        if self.lead.is_some() { Some(&self.settings.me) } else { self.gate.loyal_to(now) }
    }

    /// What gossip told of the other members.
    pub fn peers(&self) -> &BTreeMap<NodeId, Peer> {
        &self.peers
    }

    /// Every member that the log knows, with its priority as orders leave it; this one may not be among them.
    pub fn members(&self) -> &BTreeMap<NodeId, u32> {
        &self.priorities
    }

    /// Why this member could not take the baton now; `None` when it could.
    pub fn not_ready(&self, now: BootTime) -> Option<NotReady> {
        if self.shutdown.is_some() {
            return Some(NotReady::Leaving);
        }
        if !self.is_voter(&self.settings.me) {
            return Some(NotReady::NoVoter);
        }
        if self.host.runs_node() && self.view.orders.is_in_maintenance(&self.settings.me) {
            return Some(NotReady::Maintenance);
        }
        let agreed = self.view.custody;
        if self.host.runs_node() && agreed != self.settings.custody {
            return Some(NotReady::Custody { agreed });
        }
        if let Some(alarm) = self.key_alarm().filter(|_| self.host.runs_node()) {
            return Some(alarm);
        }
        let stuck = || Some(NotReady::HeadStuck { behind_for: self.stuck_for(now)? });
        let silent = || Some(NotReady::SilentMembers { members: self.silent_majority()? });
        // Where the log decides, no clock takes part.
        let by_clock = self.host.runs_node() && self.settings.custody == Custody::Links;
        let clock = || Some(NotReady::Clock { off_by: self.clock.off.filter(|_| by_clock)? });
        let lost = || Some(NotReady::PromiseLost { left: self.votes_for_nobody(now)? });
        let of_host = || match self.host.not_ready(now) {
            told if !self.host.runs_node() => lost().or(told),
            Some(NotReady::Syncing { lag: None }) => Some(NotReady::Syncing { lag: self.lag(now) }),
            told => told,
        };
        self.rival(now).or_else(of_host).or_else(clock).or_else(stuck).or_else(silent).or_else(lost)
    }

    /// For how long; a leader needs no vote.
    fn votes_for_nobody(&self, now: BootTime) -> Option<Duration> {
        self.gate.lost_promise_left(now).filter(|_| self.lead.is_none())
    }

    pub fn is_active(&self) -> bool {
        self.stage() == Some(Stage::Active)
    }

    pub fn leads(&self) -> Option<Term> {
        self.lead.as_ref().map(|lead| lead.term)
    }

    /// Whether `id` has a vote, before or after the change of the membership that is under way.
    pub fn is_voter(&self, id: &NodeId) -> bool {
        self.voters.iter().any(|set| set.contains(id))
    }

    /// Those that acknowledged a request which this member, as leader, sent less than a lease ago, itself included.
    pub fn answering(&self, now: BootTime) -> BTreeSet<NodeId> {
        let Some(lead) = &self.lead else { return BTreeSet::new() };
        lead.lease.acked_since(now - self.settings.timing.lease()).chain([self.settings.me.clone()]).collect()
    }

    pub fn is_node_proven(&self) -> bool {
        self.host.is_proven()
    }

    /// Time until the guard of a holder fires; `None` unless this member leads with a live lease.
    pub fn lease_remaining(&self, now: BootTime) -> Option<Duration> {
        self.deadline(now).map(|deadline| deadline.since(now)).filter(|left| !left.is_zero())
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The highest mark that this member knows of; see [`Event::MarkSeen`].
    pub fn mark_seen(&self) -> Option<SignMark> {
        self.mark_seen
    }

    pub fn view(&self) -> &View {
        &self.view
    }
}
