//! How the baton is taken and let go: claim, arm, settle, link, activate; deactivate, release, transfer.
//!
//! Invariants: the links go to validating only under an epoch that the guard armed and past the floor;
//! a `Release` is proposed only after the node was proven inactive; after it, nothing is claimed in the
//! same term (rule W).

use std::time::Duration;

use crate::chain_node::SignFloor;
use crate::core::event::{Action, Handover, View};
use crate::core::floor;
use crate::core::replicated::{Applied, Command, FloorSource};
use crate::core::{Core, Lead};
use crate::guard_frame::ExitCause;
use crate::ids::{Epoch, NodeId, SignMark, Term};
use crate::time::{BootTime, Now};

/// A holder without a ready standby starts its crashed node again this often before it lets go.
const CRASHES_MAX: u32 = 3;
/// A preferred member is ready this long before it gets the baton back (`failback`).
const FAILBACK_AFTER: Duration = Duration::from_secs(10);
/// An operator's handover is answered by then, for better or worse.
const HANDOVER_MAX: Duration = Duration::from_secs(60);

/// The phase inside `Validating`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    Claiming,
    Arming,
    Settling,
    Linking,
    Activating,
    Active,
    Stopping,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Claiming => "Claiming",
            Stage::Arming => "Arming",
            Stage::Settling => "Settling",
            Stage::Linking => "Linking",
            Stage::Activating => "Activating",
            Stage::Active => "Active",
            Stage::Stopping => "Stopping",
        }
    }
}

/// Why a member lets go. The text stands in the history and labels a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Operator,
    Failback,
    Shutdown,
    NodeExited,
    ProbeFailed,
    OutOfSync,
    HeadStuck,
    LinksFailed,
    ActivationFailed,
    GuardGone,
    StoreFailed,
    LeadLost,
    LeaseLost,
    Slept,
    CannotHold,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Operator => "operator",
            Reason::Failback => "failback",
            Reason::Shutdown => "shutdown",
            Reason::NodeExited => "node-exited",
            Reason::ProbeFailed => "probe-failed",
            Reason::OutOfSync => "out-of-sync",
            Reason::HeadStuck => "head-stuck",
            Reason::LinksFailed => "links-failed",
            Reason::ActivationFailed => "activation-failed",
            Reason::GuardGone => "guard-gone",
            Reason::StoreFailed => "store-failed",
            Reason::LeadLost => "lead-lost",
            Reason::LeaseLost => "lease-lost",
            Reason::Slept => "host-slept",
            Reason::CannotHold => "cannot-hold",
        }
    }
}

/// One attempt to hold the baton, from the proposal of its `Claim` to the proof that it is over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tenure {
    term: Term,
    epoch: Epoch,
    stage: Stage,
    began_at: BootTime,
    stage_since: BootTime,
    /// What was known of earlier signatures when this tenure was claimed.
    source: FloorSource,
    floor: SignFloor,
    /// Height of the block that met the floor.
    settled_height: u64,
    /// The last deadline that the guard was asked for.
    deadline: Option<BootTime>,
    /// The node crashed and is to be activated again.
    reactivate: bool,
    /// Its activation stands in the history.
    recorded: bool,
    /// Set in `Stopping`.
    ending: Option<Ending>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ending {
    reason: Reason,
    target: Option<NodeId>,
    /// Whether to release and transfer, which takes the lead.
    release: bool,
    /// The node was proven inactive.
    inactive: bool,
    last_signed: Option<SignMark>,
}

/// An operator waits for the end of this handover.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AskedHandover {
    to: NodeId,
    epoch: Epoch,
    asked_at: BootTime,
}

impl Tenure {
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether the chain node is being stopped or started on behalf of this tenure.
    pub fn works_on_node(&self) -> bool {
        match self.stage {
            Stage::Claiming | Stage::Arming | Stage::Settling => false,
            Stage::Linking | Stage::Activating | Stage::Active => true,
            Stage::Stopping => self.ending.as_ref().is_some_and(|ending| !ending.inactive),
        }
    }

    /// Whether the node may have got the key.
    fn gave_key(&self) -> bool {
        matches!(self.stage, Stage::Linking | Stage::Activating | Stage::Active)
    }

    fn enter(&mut self, stage: Stage, now: BootTime) {
        self.stage = stage;
        self.stage_since = now;
    }

    /// What to say in the `Release` about signatures up to here. A node that recorded nothing newer
    /// has still to count everything that lay below its floor as signed.
    fn released_mark(&self, recorded: Option<SignMark>) -> Option<SignMark> {
        let below_floor = match self.floor {
            SignFloor::None => SignMark::default(),
            SignFloor::Mark(mark) => mark,
            SignFloor::BlockAfter(_) => SignMark::at_height(self.settled_height),
        };
        recorded.map(|mark| mark.max(below_floor))
    }

    /// The mark to pass on when this tenure never gave the key away.
    fn inherited_mark(&self) -> Option<SignMark> {
        match self.source {
            FloorSource::Exact(mark) => Some(mark),
            FloorSource::NeverSigned | FloorSource::Unknown => None,
        }
    }
}

/// Taking the baton.
impl Core {
    pub(super) fn claim(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(lead) = &self.lead else { return };
        let epoch = self.view.epoch.next();
        let reason = match &self.view.holder {
            Some(holder) if *holder == self.settings.me => "taken-up-again".into(),
            Some(_) => Reason::LeaseLost.as_str().into(),
            None => self.release_reason.clone().unwrap_or_else(|| "start".into()),
        };
        self.tenure = Some(Tenure {
            term: lead.term,
            epoch,
            stage: Stage::Claiming,
            began_at: now.boot,
            stage_since: now.boot,
            source: self.view.floor,
            floor: SignFloor::None,
            settled_height: 0,
            deadline: None,
            reactivate: false,
            recorded: false,
            ending: None,
        });
        out.push(Action::WatchChain { closely: true });
        out.push(Action::ProposeClaim { epoch, reason });
    }

    pub(super) fn note_applied(
        &mut self,
        now: Now,
        term: Term,
        command: &Command,
        outcome: &Applied,
        view: View,
        out: &mut Vec<Action>,
    ) {
        self.view = view;
        match command {
            Command::Claim { epoch, member, .. } if *member == self.settings.me => {
                self.note_claimed(now, term, *epoch, outcome, out);
            }
            Command::Release { reason, .. } => {
                self.release_reason = Some(reason.clone());
                self.note_released(now, term, out);
            }
            Command::Activated { epoch, .. } => self.answer_handover(*epoch, out),
            Command::Claim { .. } | Command::Join { .. } => {}
        }
    }

    fn note_claimed(&mut self, now: Now, term: Term, epoch: Epoch, outcome: &Applied, out: &mut Vec<Action>) {
        let Some(tenure) = self.tenure.as_mut().filter(|t| t.stage == Stage::Claiming) else { return };
        if tenure.term != term || tenure.epoch != epoch {
            return;
        }
        let (Applied::Claimed { .. }, Some(lead)) = (outcome, &self.lead) else {
            self.tenure = None;
            return;
        };
        tenure.floor = floor::for_claim(tenure.source, lead.quiet_since, self.settings.clock_skew);
        tenure.enter(Stage::Arming, now.boot);
        self.renew(now, out);
    }

    /// Moves the guard's deadline to what the lease allows now.
    pub(super) fn renew(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(deadline) = self.deadline(now.boot).filter(|deadline| *deadline > now.boot) else { return };
        let Some(tenure) = &mut self.tenure else { return };
        let finished = tenure.ending.as_ref().is_some_and(|ending| ending.inactive);
        if tenure.stage == Stage::Claiming || finished || tenure.deadline.is_some_and(|last| deadline <= last) {
            return;
        }
        tenure.deadline = Some(deadline);
        out.push(Action::Arm { epoch: tenure.epoch, deadline });
    }

    pub(super) fn note_armed(&mut self, now: Now, epoch: Epoch, out: &mut Vec<Action>) {
        if let Some(tenure) = self.tenure.as_mut().filter(|t| t.stage == Stage::Arming && t.epoch == epoch) {
            tenure.enter(Stage::Settling, now.boot);
        }
        self.advance_tenure(now, out);
    }

    pub(super) fn note_linked(&mut self, now: Now, epoch: Epoch, out: &mut Vec<Action>) {
        if let Some(tenure) = self.tenure.as_mut().filter(|t| t.stage == Stage::Linking && t.epoch == epoch) {
            tenure.enter(Stage::Activating, now.boot);
            out.push(Action::Activate { epoch });
        }
    }

    pub(super) fn note_activated(&mut self, now: Now, epoch: Epoch, out: &mut Vec<Action>) {
        let Some(tenure) = self.tenure.as_mut().filter(|t| t.stage == Stage::Activating && t.epoch == epoch) else {
            return;
        };
        tenure.enter(Stage::Active, now.boot);
        out.push(Action::WatchChain { closely: false });
        if !std::mem::replace(&mut tenure.recorded, true) {
            out.push(Action::ProposeActivated { epoch, floor: tenure.floor, began_at: tenure.began_at });
        }
    }

    pub(super) fn note_activation_failed(&mut self, now: Now, epoch: Epoch, out: &mut Vec<Action>) {
        let running = self.host.is_node_running();
        let ours = self.tenure.as_ref().is_some_and(|t| t.stage == Stage::Activating && t.epoch == epoch);
        // A node that crashed meanwhile is dealt with as such.
        if ours && running {
            self.host.distrust(now.boot);
            self.let_go(now, Reason::ActivationFailed, None, out);
        }
    }

    /// What time and health alone bring about.
    pub(super) fn advance_tenure(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(tenure) = &self.tenure else { return };
        match tenure.stage {
            Stage::Claiming | Stage::Linking | Stage::Stopping => {}
            Stage::Arming => self.renew(now, out),
            Stage::Settling => self.settle(now, out),
            Stage::Activating => self.watch_activation(now, out),
            Stage::Active => self.watch_active(now, out),
        }
        if self.shutdown.is_some() && self.tenure.as_ref().is_some_and(|t| t.stage != Stage::Stopping) {
            self.let_go(now, Reason::Shutdown, None, out);
        }
    }

    fn settle(&mut self, now: Now, out: &mut Vec<Action>) {
        let live = self.deadline(now.boot).is_some_and(|deadline| now.boot < deadline);
        let replica = self.peers.values().filter_map(|peer| peer.last_signed).max();
        let (Some(tenure), Some(health)) = (&mut self.tenure, self.host.health()) else { return };
        if let Some(settle_max) = self.settings.settle_max
            && now.boot.since(tenure.stage_since) >= settle_max
        {
            tenure.floor = replica.map_or(SignFloor::None, SignFloor::Mark);
        }
        if live && self.host.is_node_running() && floor::is_met(&tenure.floor, health, self.settings.node_refuses) {
            tenure.settled_height = health.height;
            tenure.enter(Stage::Linking, now.boot);
            out.push(Action::LinkValidating { epoch: tenure.epoch, floor: tenure.floor });
            self.host.give_key();
        }
    }

    fn watch_activation(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(tenure) = &mut self.tenure else { return };
        if now.boot.since(tenure.stage_since) >= self.settings.activation_max {
            self.host.distrust(now.boot);
            self.let_go(now, Reason::ActivationFailed, None, out);
        } else if tenure.reactivate && self.best_target().is_some() {
            self.let_go(now, Reason::NodeExited, None, out);
        } else if let Some(tenure) = &mut self.tenure
            && tenure.reactivate
            && now.boot >= self.host.start_at()
        {
            tenure.reactivate = false;
            tenure.enter(Stage::Activating, now.boot);
            self.host.give_key();
            out.push(Action::Activate { epoch: tenure.epoch });
        }
    }

    /// A holder that does badly lets go when somebody else is ready, and stays put otherwise.
    fn watch_active(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.best_target().is_none() {
            return;
        }
        let peers_ahead = self.peers.values().any(|peer| peer.height > self.host.height());
        if self.host.is_unhealthy() {
            self.let_go(now, Reason::ProbeFailed, None, out);
        } else if self.host.out_of_sync_for(now.boot) >= self.settings.head_still_max {
            self.let_go(now, Reason::OutOfSync, None, out);
        } else if peers_ahead && self.host.head_still_for(now.boot) >= self.settings.head_still_max {
            self.host.distrust(now.boot);
            self.let_go(now, Reason::HeadStuck, None, out);
        } else if let Some(preferred) = self.preferred_target(now.boot) {
            self.let_go(now, Reason::Failback, Some(preferred), out);
        }
    }

    /// With `failback`, a ready member of higher priority, once this tenure has lasted a while.
    fn preferred_target(&self, now: BootTime) -> Option<NodeId> {
        let settled_in = self.tenure.as_ref().is_some_and(|t| now.since(t.stage_since) >= FAILBACK_AFTER);
        let priority = |id: &NodeId| self.settings.priorities.get(id).copied().unwrap_or(0);
        self.best_target()
            .filter(|target| self.settings.failback && settled_in && priority(target) > priority(&self.settings.me))
            .cloned()
    }

    pub(super) fn tenure_wakeup(&self) -> Vec<BootTime> {
        let mut moments = Vec::new();
        if let Some(tenure) = &self.tenure {
            match tenure.stage {
                Stage::Settling => moments.extend(self.settings.settle_max.map(|max| tenure.stage_since + max)),
                Stage::Activating => {
                    moments.push(tenure.stage_since + self.settings.activation_max);
                    moments.push(self.host.start_at());
                }
                Stage::Active => moments.push(tenure.stage_since + FAILBACK_AFTER),
                Stage::Claiming | Stage::Arming | Stage::Linking | Stage::Stopping => {}
            }
        }
        moments.extend(self.asked.as_ref().map(|asked| asked.asked_at + HANDOVER_MAX));
        moments
    }
}

/// Letting the baton go.
impl Core {
    /// Ends the tenure in good order: node proven inactive, `Release`, transfer to `target` or to the
    /// best one then.
    pub(super) fn let_go(&mut self, now: Now, reason: Reason, target: Option<NodeId>, out: &mut Vec<Action>) {
        self.end_tenure(now, reason, target, true, false, out);
    }

    /// Ends the tenure of a leader whose lease is not to be trusted any more. There is nothing to
    /// release: the guard's deadline stands.
    pub(super) fn abandon_tenure(&mut self, now: Now, reason: Reason, out: &mut Vec<Action>) {
        if let Some(ending) = self.tenure.as_mut().and_then(|tenure| tenure.ending.as_mut()) {
            ending.release = false;
            if ending.inactive {
                self.tenure = None;
            }
            return;
        }
        self.end_tenure(now, reason, None, false, reason == Reason::Slept, out);
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
        let last_signed = tenure.inherited_mark();
        tenure.ending = Some(Ending { reason, target, release, inactive: !gave_key, last_signed });
        tenure.enter(Stage::Stopping, now.boot);
        if gave_key {
            out.push(Action::Deactivate { kill });
        } else {
            out.push(Action::Disarm { epoch: tenure.epoch });
            self.release_or_drop(out);
        }
    }

    /// Invariant (fence 1): a node with the key that no tenure wants any more, and whose guard may be
    /// disarmed by now, does not go on. Its start overtook the order to let go.
    pub(super) fn stop_unwanted_validator(&mut self, validator_epoch: Option<Epoch>, out: &mut Vec<Action>) {
        let Some(epoch) = validator_epoch else { return };
        if !self.tenure.as_ref().is_some_and(|tenure| tenure.epoch == epoch && tenure.gave_key()) {
            out.push(Action::Deactivate { kill: true });
        }
    }

    pub(super) fn note_inactive(&mut self, now: Now, recorded: Option<SignMark>, out: &mut Vec<Action>) {
        self.host.key_is_gone();
        if let Some(lead) = &mut self.lead {
            lead.quiet_since = now.wall;
        }
        if let Some(epoch) = self.host.take_foreign_epoch() {
            out.push(Action::Disarm { epoch });
        }
        let Some(tenure) = &mut self.tenure else { return };
        let mark = tenure.released_mark(recorded);
        let Some(ending) = tenure.ending.as_mut().filter(|ending| !ending.inactive) else { return };
        ending.inactive = true;
        ending.last_signed = mark;
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
                });
            }
            Some(_) | None => self.tenure = None,
        }
    }

    fn note_released(&mut self, now: Now, term: Term, out: &mut Vec<Action>) {
        self.gate.note_release(term);
        let ready = |core: &Core, id: &NodeId| core.peers.get(id).is_some_and(|peer| peer.ready && peer.reachable);
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

    pub(super) fn note_proposal_failed(&mut self, out: &mut Vec<Action>) {
        let Some(tenure) = &self.tenure else {
            self.propose_release_again(out);
            return;
        };
        match tenure.stage {
            // Claimed again if the lead stands. Should this claim commit after all, it serves as well: nothing
            // was armed, and the second one of its epoch is rejected.
            Stage::Claiming => self.tenure = None,
            Stage::Stopping => self.release_or_drop(out),
            Stage::Arming | Stage::Settling | Stage::Linking | Stage::Activating | Stage::Active => {}
        }
    }

    fn propose_release_again(&mut self, out: &mut Vec<Action>) {
        let released = self.has_released();
        if let Some(Lead { releasing: true, .. }) = &self.lead
            && !released
        {
            let (epoch, reason) = (self.view.epoch, Reason::CannotHold.as_str().into());
            out.push(Action::ProposeRelease { epoch, last_signed: None, reason });
        }
    }

    pub(super) fn note_exited(&mut self, now: Now, cause: ExitCause, out: &mut Vec<Action>) {
        match cause {
            ExitCause::ByItself => self.tenure_lost_node(now, Reason::NodeExited, out),
            // Asked for by an action in progress, or followed by `Fenced`.
            ExitCause::Stopped { .. } | ExitCause::Fenced => {}
        }
    }

    /// The node of a holder is gone: to a ready standby at once, else up again here.
    pub(super) fn tenure_lost_node(&mut self, now: Now, reason: Reason, out: &mut Vec<Action>) {
        let Some(tenure) = &self.tenure else { return };
        let hopeless = reason == Reason::GuardGone || self.host.crashes() > CRASHES_MAX;
        let elsewhere = hopeless || self.best_target().is_some();
        match tenure.stage {
            Stage::Stopping => {}
            Stage::Activating | Stage::Active if !elsewhere => {
                if let Some(tenure) = &mut self.tenure {
                    tenure.reactivate = true;
                    tenure.enter(Stage::Activating, now.boot);
                }
            }
            Stage::Claiming | Stage::Arming | Stage::Settling | Stage::Linking | Stage::Activating | Stage::Active => {
                self.let_go(now, reason, None, out)
            }
        }
    }

    /// The guard killed the node and put the links into standby. What was still under way here may
    /// have touched them after that, so they are put there once more.
    pub(super) fn note_fenced(&mut self, now: Now, epoch: Epoch, out: &mut Vec<Action>) {
        if self.tenure.as_ref().is_some_and(|tenure| tenure.epoch == epoch) {
            self.end_tenure(now, Reason::LeaseLost, None, false, true, out);
        }
    }
}

/// What an operator asked for.
impl Core {
    pub(super) fn note_handover_wanted(&mut self, now: Now, to: Option<NodeId>, out: &mut Vec<Action>) {
        match self.handover_target(to) {
            Ok(target) => {
                let epoch = self.view.epoch;
                self.asked = Some(AskedHandover { to: target.clone(), epoch, asked_at: now.boot });
                self.let_go(now, Reason::Operator, Some(target), out);
            }
            Err(reason) => out.push(Action::AnswerHandover(Err(reason))),
        }
    }

    fn handover_target(&self, to: Option<NodeId>) -> Result<NodeId, String> {
        if !self.is_active() {
            let me = &self.settings.me;
            return Err(match &self.view.holder {
                Some(holder) if holder != me => format!("{me} does not hold the baton; ask {holder}, who does"),
                Some(_) => format!("{me} is taking or leaving the baton; try again in a moment"),
                None => "nobody holds the baton; there is nothing to hand over".into(),
            });
        }
        let Some(to) = to else {
            return self.best_target().cloned().ok_or_else(|| "no other member is ready to take the baton".into());
        };
        if to == self.settings.me {
            return Err(format!("{to} holds the baton already"));
        }
        match self.peers.get(&to) {
            Some(peer) if peer.ready && peer.reachable => Ok(to),
            Some(peer) if peer.reachable => Err(format!("{to} is not ready to take the baton; see `baton status`")),
            Some(_) => Err(format!("{to} cannot be reached from here")),
            None if self.settings.priorities.contains_key(&to) => Err(format!("{to} has not been heard of yet")),
            None => Err(format!("{to} is not a member of this cluster")),
        }
    }

    fn answer_handover(&mut self, epoch: Epoch, out: &mut Vec<Action>) {
        let Some(asked) = self.asked.take_if(|asked| epoch > asked.epoch) else { return };
        out.push(Action::AnswerHandover(match &self.view.holder {
            Some(holder) if *holder == asked.to => Ok(Handover { to: asked.to, epoch, asked_at: asked.asked_at }),
            Some(holder) => Err(format!("{} did not take the baton; {holder} holds it now", asked.to)),
            None => Err(format!("{} took the baton and let it go again", asked.to)),
        }));
    }

    /// The operator is answered in time, also by a member that leads and holds nothing any more.
    pub(super) fn give_up_on_handover(&mut self, now: Now, out: &mut Vec<Action>) {
        if let Some(asked) = self.asked.take_if(|asked| now.boot.since(asked.asked_at) >= HANDOVER_MAX) {
            let waited = HANDOVER_MAX.as_secs();
            out.push(Action::AnswerHandover(Err(format!("{} is not active after {waited} s", asked.to))));
        }
    }
}
