//! One member, followed by what it is told and what it asks for.

use std::collections::BTreeSet;
use std::time::Duration;

use super::guard::{ArmedSpan, ArmedSpans, KeyOut};
use super::promises::Promises;
use super::quorum::{LeadSeen, deadline_max, promise};
use super::{Breach, Rule};
use crate::base::ids::{Epoch, NodeId, Role, Term};
use crate::base::signing::Custody;
use crate::base::time::BootTime;
use crate::base::timing::Timing;
use crate::core::agreed::replicated::{Applied, Command};
use crate::core::{Action, Core, Event};

/// What is known of one member from outside, and what it did that it must not do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Witness {
    me: NodeId,
    timing: Timing,
    /// `timing.lease` of members that do not state theirs.
    unstated_lease: Option<Duration>,
    /// A chain node of this host gets the key.
    links_key: bool,
    promises: Promises,
    lead: Option<LeadSeen>,
    voters: Vec<BTreeSet<NodeId>>,
    /// The term of the last `Release` that was applied.
    applied_release: Option<Term>,
    key: KeyOut,
    spans: ArmedSpans,
    /// The longest that its guard has to kill, of all runs.
    kill_max: Duration,
    /// What the guard was doing when this witness came is known.
    knows_guard: bool,
    breaches: Vec<Breach>,
}

impl Witness {
    /// Of a member as it is at `now`: just started, or in the midst of its life.
    pub fn new(core: &Core, now: BootTime) -> Witness {
        let settings = core.settings();
        let gate = core.gate();
        let links_key = settings.role == Role::Validator && settings.custody == Custody::Links;
        let mut promises = Promises::default();
        promises.voted(gate.vote_term());
        gate.released_term().into_iter().for_each(|term| promises.released(term));
        promises.quarantine_until = match gate.quarantine_until() {
            None if core.is_untouched() && gate.vote_term() > 0 => Some(now + promise(&settings.timing)),
            until => until,
        };
        if let Some((leader, term, until)) = gate.promised() {
            promises.promised(leader, term, until);
        }
        Witness {
            me: settings.me.clone(),
            timing: settings.timing,
            unstated_lease: settings.unstated_lease,
            links_key,
            promises,
            lead: core.leads().map(|term| LeadSeen::new(term, false)),
            voters: core.voters().to_vec(),
            applied_release: None,
            key: if links_key && !core.host().is_proven() { KeyOut::Unknown } else { KeyOut::No },
            spans: ArmedSpans::default(),
            kill_max: settings.timing.kill_max(),
            knows_guard: core.is_untouched(),
            breaches: Vec::new(),
        }
    }

    /// Of the next run of the member that `earlier` followed, on a host that was not booted anew.
    pub fn again(core: &Core, now: BootTime, earlier: Witness) -> Witness {
        let mut witness = Witness::new(core, now);
        witness.promises.inherit(&earlier.promises);
        witness.spans = earlier.spans;
        witness.kill_max = witness.kill_max.max(earlier.kill_max);
        witness.breaches = earlier.breaches;
        witness
    }

    /// `core` was told `event` at `now`, is as it is now, and asked for `actions`.
    pub fn step(&mut self, core: &Core, now: BootTime, event: &Event, actions: &[Action]) {
        self.hear(now, event);
        self.take_up_lead(core.leads());
        self.count_lease(now, event);
        actions.iter().for_each(|action| self.watch(now, action));
        // Only now: what it asked for may have come before it gave the lead up.
        self.lead.take_if(|_| core.leads().is_none());
        self.promises.forget_before(now);
    }

    /// It lets a vote for `candidate`, or its own candidacy, pass.
    pub fn vote_granted(&mut self, now: BootTime, candidate: &NodeId) {
        if self.key != KeyOut::No {
            self.breaks(
                Rule::NodeProof,
                now,
                format!("it helped {candidate} while its own chain node may have the key"),
            );
        }
        if let Err((rule, text)) = self.promises.may_vote(now, candidate) {
            self.breaks(rule, now, text);
        }
    }

    pub fn member(&self) -> &NodeId {
        &self.me
    }

    /// When its guard was armed, the newest last.
    pub fn spans(&self) -> &[ArmedSpan] {
        &self.spans.spans
    }

    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }

    /// The longest that its guard has to kill after a deadline: what one run armed, another with a shorter time may judge.
    pub fn kill_max(&self) -> Duration {
        self.kill_max
    }

    fn hear(&mut self, now: BootTime, event: &Event) {
        match event {
            Event::Accepted { leader, term, arrived_at, promise: asked } => {
                self.promises.voted(*term);
                self.promises.promised(leader, *term, *arrived_at + (*asked).max(promise(&self.timing)));
            }
            Event::Voted { term } | Event::Considered { term } => self.promises.voted(*term),
            Event::ReleaseLogged { term } => self.promises.released(*term),
            Event::Applied { term, command, outcome, .. } => self.hear_applied(now, *term, command, outcome),
            Event::Restored { released_term: Some(term), .. } => self.promises.released(*term),
            Event::Voters(voters) => self.voters = voters.clone(),
            Event::GuardAttached { node, armed } => {
                self.knows_guard = true;
                if let Some(armed) = armed {
                    self.spans.found(now, armed.epoch(), armed.deadline());
                }
                let keyless = node.as_ref().is_none_or(|node| node.validator_epoch.is_none() && armed.is_none());
                self.found_node(keyless);
            }
            Event::GuardArmed { epoch, deadline } => {
                self.knows_guard = true;
                self.spans.armed(now, *epoch, *deadline);
            }
            Event::Fenced { epoch } => self.spans.disarmed(now, *epoch),
            Event::GuardGone { node_proven_dead: true } => self.found_node(true),
            Event::NodeStarted { validator_epoch: Some(_) } if self.key == KeyOut::No => self.found_node(false),
            Event::NodeExited { .. } if self.key == KeyOut::Unknown => self.key = KeyOut::No,
            Event::Inactive { .. } if self.key != (KeyOut::Given { taken_back: false }) => self.key = KeyOut::No,
            _ => {}
        }
    }

    fn hear_applied(&mut self, now: BootTime, term: Term, command: &Command, outcome: &Applied) {
        if command.is_release() {
            self.promises.released(term);
            self.applied_release = Some(term);
        }
        if let Applied::Claimed { .. } = outcome
            && self.applied_release == Some(term)
        {
            self.breaks(Rule::SecondClaim, now, format!("{command} counts, after a release of its term {term}"));
        }
    }

    fn found_node(&mut self, keyless: bool) {
        self.key = if keyless || !self.links_key { KeyOut::No } else { KeyOut::Unknown };
    }

    fn take_up_lead(&mut self, leads: Option<Term>) {
        let Some(term) = leads.filter(|term| self.lead.as_ref().is_none_or(|lead| lead.term != *term)) else { return };
        self.promises.voted(term);
        self.lead = Some(LeadSeen::new(term, true));
    }

    fn count_lease(&mut self, now: BootTime, event: &Event) {
        let Some(lead) = &mut self.lead else { return };
        match event {
            Event::Slept => lead.forget(),
            Event::Acked { from, term, sent_at, promised } if *term == lead.term && *from != self.me => {
                let needed = promise(&self.timing);
                let vouched = self.unstated_lease.is_some_and(|lease| lease >= self.timing.lease());
                let Some(promised) = promised.or(vouched.then_some(needed)) else { return };
                lead.acked(from, *sent_at, promised, needed);
                if let Some(acked_at) = lead.acked_at(&self.me, now, &self.voters) {
                    self.promises.promised(&self.me, *term, acked_at + needed);
                }
            }
            _ => {}
        }
    }

    fn watch(&mut self, now: BootTime, action: &Action) {
        match action {
            Action::Arm { epoch, deadline } => self.watch_arming(now, *epoch, *deadline),
            Action::Disarm { epoch } => self.spans.disarmed(now, *epoch),
            Action::LinkValidating { epoch, .. } => {
                if self.knows_guard && !self.spans.is_armed(*epoch) {
                    let text = format!("it links the key for epoch {epoch}, for which its guard is not armed");
                    self.breaks(Rule::ArmedLink, now, text);
                }
                self.give_key();
            }
            Action::Activate { .. } => self.give_key(),
            Action::Deactivate { .. } => {
                if let KeyOut::Given { taken_back } = &mut self.key {
                    *taken_back = true;
                }
            }
            Action::ProposeRelease { epoch, .. } if self.key != KeyOut::No => {
                let text = format!("it releases epoch {epoch} while its chain node may have the key");
                self.breaks(Rule::ReleaseProof, now, text);
            }
            _ => {}
        }
    }

    fn give_key(&mut self) {
        if self.links_key {
            self.key = KeyOut::Given { taken_back: false };
        }
    }

    fn watch_arming(&mut self, now: BootTime, epoch: Epoch, deadline: BootTime) {
        self.spans.asked(now, epoch, deadline);
        let Some(lead) = &self.lead else {
            return self.breaks(Rule::LeaseBound, now, format!("it arms its guard for epoch {epoch} without a lead"));
        };
        if !lead.whole {
            return;
        }
        let acked_at = lead.acked_at(&self.me, now, &self.voters);
        let bound = acked_at.map(|acked_at| deadline_max(&self.timing, acked_at));
        if bound.is_none_or(|bound| bound < deadline) {
            let beyond = bound.map_or("no quorum has promised anything".to_owned(), |bound| {
                format!("{} ms beyond what a quorum has promised", deadline.since(bound).as_micros() as f64 / 1e3)
            });
            self.breaks(Rule::LeaseBound, now, format!("it arms its guard for epoch {epoch}, {beyond}"));
        }
    }

    fn breaks(&mut self, rule: Rule, at: BootTime, text: String) {
        self.breaches.push(Breach { rule, member: self.me.clone(), at, text });
    }
}
