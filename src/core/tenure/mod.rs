//! How the baton is taken and let go: claim, arm, settle, link, activate; deactivate, release, transfer.
//!
//! Invariants: the links go to validating only under an epoch that the guard armed and past the floor;
//! a `Release` is proposed only after the node was proven inactive; after it, nothing is claimed in the
//! same term (rule W).

mod handover;
mod letting_go;
mod limits;
mod reason;
mod settling;
mod upgrading;

use std::time::Duration;

use crate::base::chain_node::{MetFloor, SignFloor};
use crate::base::ids::{Epoch, NodeId, SignMark, Term};
use crate::base::time::{BootTime, Now};
use crate::core::Core;
use crate::core::agreed::replicated::{Applied, Baton, Command, View};
use crate::core::event::Action;
use crate::core::fences::floor::{self, FloorSource};
use crate::core::left_out::{LeftOut, is_left_out};
pub use reason::Reason;
use serde::{Deserialize, Serialize};
pub use settling::Halt;
use upgrading::InPlace;

/// A holder without a ready standby starts its crashed node again this often before it lets go.
const CRASHES_MAX: u32 = 3;
/// A preferred member is ready this long before it gets the baton back (`failback`).
const FAILBACK_AFTER: Duration = Duration::from_secs(10);
/// After this time as a holder, earlier failures as one are forgotten.
const TRUSTED_AFTER: Duration = Duration::from_secs(60);

/// Once one host has heard from the chain that it is to be upgraded, so have the others: a look at the file, and
/// gossip.
const ALL_UPGRADE_WITHIN: Duration = Duration::from_secs(2);

/// The phase inside `Validating`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    Claiming,
    Arming,
    Settling,
    Linking,
    Activating,
    Active,
    /// The key is taken away while the chain node's binary is swapped.
    Upgrading,
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
            Stage::Upgrading => "Upgrading",
            Stage::Stopping => "Stopping",
        }
    }
}

/// One attempt to hold the baton, from the proposal of its `Claim` to the proof that it is over.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tenure {
    term: Term,
    epoch: Epoch,
    stage: Stage,
    began_at: BootTime,
    stage_since: BootTime,
    /// What the log before the `Claim` tells of earlier signatures; unknown until the claim is applied.
    source: FloorSource,
    /// What the claim asks for.
    wanted: SignFloor,
    /// In place of that: nothing was signed above, by an operator's word.
    laid: Option<u64>,
    /// What was met, once it is. The key is not given before.
    floor: MetFloor,
    /// The last deadline that the guard was asked for.
    deadline: Option<BootTime>,
    /// The last deadline that the guard has confirmed.
    armed_until: Option<BootTime>,
    /// Since when it has been asked for another and has not answered.
    asked_since: Option<BootTime>,
    /// The node crashed and is to be activated again.
    reactivate: bool,
    /// Set in `Upgrading`.
    in_place: Option<InPlace>,
    /// The node runs a new binary and has not been active since.
    after_upgrade: bool,
    /// Its activation stands in the history.
    recorded: bool,
    /// The node has ended by itself before it was active in this tenure, or with `failback` soon after, and has not become
    /// it since.
    ended_early: bool,
    /// Set in `Stopping`.
    ending: Option<Ending>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Ending {
    reason: Reason,
    target: Option<NodeId>,
    /// Whether to release and transfer, which takes the lead.
    release: bool,
    /// The node is killed, and not asked to end.
    kill: bool,
    /// The node was proven inactive.
    inactive: bool,
    last_signed: Option<SignMark>,
}

/// An operator waits for the end of this handover.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AskedHandover {
    to: NodeId,
    /// The one under which this member held the baton.
    epoch: Epoch,
    /// `to` has claimed it since.
    claimed: bool,
    asked_at: BootTime,
    /// It is answered by then, for better or worse.
    timeout: Duration,
}

impl Tenure {
    pub fn stage(&self) -> Stage {
        self.stage
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Why it is being ended, once it is.
    pub fn ending(&self) -> Option<Reason> {
        self.ending.as_ref().map(|ending| ending.reason)
    }

    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Whether the chain node is being stopped or started on behalf of this tenure.
    pub fn works_on_node(&self) -> bool {
        self.stage == Stage::Upgrading || self.may_key_come()
    }

    /// Whether a start with the key may have been ordered of which nothing was heard yet: no exit of the node proves
    /// anything before `Inactive`.
    pub fn may_key_come(&self) -> bool {
        match self.stage {
            Stage::Claiming | Stage::Arming | Stage::Settling => false,
            Stage::Linking | Stage::Activating | Stage::Active => true,
            Stage::Upgrading => self.deactivates_to_upgrade(),
            Stage::Stopping => self.ending.as_ref().is_some_and(|ending| !ending.inactive),
        }
    }

    /// Whether the node may have got the key.
    fn gave_key(&self) -> bool {
        matches!(self.stage, Stage::Linking | Stage::Activating | Stage::Active) || self.deactivates_to_upgrade()
    }

    fn enter(&mut self, stage: Stage, now: BootTime) {
        self.stage = stage;
        self.stage_since = now;
    }

    /// What to say in the `Release` about signatures up to here. A node that recorded nothing newer
    /// has still to count everything that lay below its floor as signed.
    fn released_mark(&self, recorded: Option<SignMark>) -> Option<SignMark> {
        let below_floor = match self.floor.floor {
            SignFloor::None => SignMark::default(),
            SignFloor::Mark(mark) => mark,
            SignFloor::BlockAfter(_) => SignMark::at_height(self.floor.height),
        };
        recorded.map(|mark| mark.with(below_floor))
    }

    /// The mark to pass on when the node has no key: never had it in this tenure, or was proven inactive to be
    /// upgraded.
    fn mark_without_key(&self) -> Option<SignMark> {
        if self.in_place.is_some() { self.mark_before_upgrade() } else { self.inherited_mark() }
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
    pub(in crate::core) fn claim(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(lead) = &self.lead else { return };
        let epoch = self.view.epoch.next();
        // After a holder's own release, the reason of the move is the reason of the release.
        let reason = match &self.view.holder {
            Some(holder) if *holder == self.settings.me => "taken-up-again".into(),
            None if self.view.epoch == Epoch::default() => "start".into(),
            Some(_) | None => Reason::LeaseLost.as_str().into(),
        };
        self.tenure = Some(Tenure {
            term: lead.term,
            epoch,
            stage: Stage::Claiming,
            began_at: now.boot,
            stage_since: now.boot,
            source: FloorSource::Unknown,
            wanted: SignFloor::None,
            laid: None,
            floor: MetFloor::default(),
            deadline: None,
            armed_until: None,
            asked_since: None,
            reactivate: false,
            in_place: None,
            after_upgrade: false,
            recorded: false,
            ended_early: false,
            ending: None,
        });
        out.push(Action::WatchChain { closely: true });
        out.push(Action::ProposeClaim { epoch, reason });
    }

    pub(in crate::core) fn note_applied(
        &mut self,
        now: Now,
        term: Term,
        command: &Command,
        outcome: &Applied,
        view: View,
        out: &mut Vec<Action>,
    ) {
        self.note_view(view);
        match command {
            Command::Baton(Baton::Claim { epoch, member, .. }) if *member != self.settings.me => {
                self.note_claim_of(member, *epoch, outcome);
            }
            Command::Baton(Baton::Claim { epoch, .. }) => self.note_claimed(now, term, *epoch, outcome, out),
            Command::Baton(Baton::Release { .. }) => self.note_released(now, term, out),
            Command::Baton(Baton::Activated { epoch, .. }) => self.answer_handover(*epoch, out),
            Command::LayFloor { epoch, above, .. } => self.note_floor_laid(*epoch, *above, outcome),
            Command::Join { .. } | Command::Set(_) | Command::Upgrade(_) | Command::Signing(_) => {}
        }
    }

    fn note_claimed(&mut self, now: Now, term: Term, epoch: Epoch, outcome: &Applied, out: &mut Vec<Action>) {
        let Some(tenure) = self.tenure.as_mut().filter(|t| t.stage == Stage::Claiming) else { return };
        if tenure.term != term || tenure.epoch != epoch {
            return;
        }
        let (Applied::Claimed { source, .. }, Some(lead)) = (outcome, &self.lead) else {
            self.tenure = None;
            return;
        };
        tenure.source = floor::source(*source, self.mark_seen);
        tenure.wanted = floor::for_claim(tenure.source, lead.quiet_since, self.settings.clock_skew);
        tenure.enter(Stage::Arming, now.boot);
        self.renew(now, out);
    }

    /// Moves the guard's deadline to what the lease allows now.
    pub(in crate::core) fn renew(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(deadline) = self.deadline(now.boot).filter(|deadline| *deadline > now.boot) else { return };
        let Some(tenure) = &mut self.tenure else { return };
        let finished = tenure.ending.as_ref().is_some_and(|ending| ending.inactive);
        if tenure.stage == Stage::Claiming || finished || tenure.deadline.is_some_and(|last| deadline <= last) {
            return;
        }
        tenure.deadline = Some(deadline);
        tenure.asked_since.get_or_insert(now.boot);
        let never = if is_left_out(LeftOut::Deadline) { Duration::from_secs(3600) } else { Duration::ZERO };
        let deadline = deadline + never;
        out.push(Action::Arm { epoch: tenure.epoch, deadline });
    }

    pub(in crate::core) fn note_armed(&mut self, now: Now, epoch: Epoch, deadline: BootTime, out: &mut Vec<Action>) {
        if let Some(tenure) = self.tenure.as_mut().filter(|t| t.epoch == epoch) {
            tenure.armed_until = tenure.armed_until.max(Some(deadline));
            tenure.asked_since = None;
            if tenure.stage == Stage::Arming {
                tenure.enter(Stage::Settling, now.boot);
            }
        }
        self.advance_tenure(now, out);
    }

    pub(in crate::core) fn note_linked(&mut self, now: Now, epoch: Epoch, out: &mut Vec<Action>) {
        if let Some(tenure) = self.tenure.as_mut().filter(|t| t.stage == Stage::Linking && t.epoch == epoch) {
            tenure.enter(Stage::Activating, now.boot);
            out.push(Action::Activate { epoch });
        }
    }

    pub(in crate::core) fn note_activated(&mut self, now: Now, epoch: Epoch, out: &mut Vec<Action>) {
        let Some(tenure) = self.tenure.as_mut().filter(|t| t.stage == Stage::Activating && t.epoch == epoch) else {
            return;
        };
        tenure.enter(Stage::Active, now.boot);
        (tenure.after_upgrade, tenure.ended_early) = (false, false);
        out.push(Action::WatchChain { closely: false });
        if !std::mem::replace(&mut tenure.recorded, true) {
            out.push(Action::ProposeActivated { epoch, floor: tenure.floor, began_at: tenure.began_at });
        }
    }

    pub(in crate::core) fn note_activation_failed(&mut self, now: Now, epoch: Epoch, out: &mut Vec<Action>) {
        let running = self.host.is_node_running();
        let ours = self.tenure.as_ref().is_some_and(|t| t.stage == Stage::Activating && t.epoch == epoch);
        // A node that crashed meanwhile is dealt with as such.
        if ours && running {
            self.host.distrust(now.boot);
            self.let_go(now, Reason::ActivationFailed, None, out);
        }
    }

    /// What time and health alone bring about.
    pub(in crate::core) fn advance_tenure(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(tenure) = &self.tenure else { return };
        match tenure.stage {
            Stage::Claiming | Stage::Linking | Stage::Stopping => {}
            Stage::Arming => self.renew(now, out),
            Stage::Settling => self.settle(now, out),
            Stage::Activating => self.watch_activation(now, out),
            Stage::Active => self.watch_active(now, out),
            Stage::Upgrading => self.link_upgraded(now, out),
        }
        if self.shutdown.is_some() && self.tenure.as_ref().is_some_and(|t| t.stage != Stage::Stopping) {
            self.let_go(now, Reason::Shutdown, None, out);
        }
    }

    fn watch_activation(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(tenure) = &self.tenure else { return };
        // It answered before it was told to load the key. One that only starts is not counted as unhealthy.
        if self.host.is_unhealthy() && self.best_target().is_some() {
            self.host.distrust(now.boot);
            return self.let_go(now, Reason::ProbeFailed, None, out);
        }
        let late = now.boot.since(tenure.stage_since) >= self.settings.activation_max;
        let migrates = tenure.after_upgrade;
        // A new binary may have to change its whole database before it answers. To let go ends it in the midst of that,
        // for nothing while nobody else is ready.
        if late && (!migrates || self.best_target().is_some()) {
            self.host.distrust(now.boot);
            self.let_go(now, Reason::ActivationFailed, None, out);
        } else if tenure.reactivate && self.best_target().is_some() {
            self.let_go_without_node(now, Reason::NodeExited, out);
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
        if self.tenure.as_ref().is_some_and(|tenure| now.boot.since(tenure.stage_since) >= TRUSTED_AFTER) {
            self.host.trust_again();
        }
        if self.best_target().is_none() {
            return;
        }
        if self.view.orders.is_in_maintenance(&self.settings.me) {
            return self.let_go(now, Reason::Maintenance, None, out);
        }
        if let Some(reason) = self.degraded(now.boot) {
            if reason == Reason::HeadStuck {
                self.host.distrust(now.boot);
            }
            self.let_go(now, reason, None, out);
        } else if let Some(preferred) = self.preferred_target(now.boot) {
            self.let_go(now, Reason::Failback, Some(preferred), out);
        }
    }

    /// With `failback`, a ready member of higher priority, once this tenure has lasted a while.
    fn preferred_target(&self, now: BootTime) -> Option<NodeId> {
        let settled_in = self.tenure.as_ref().is_some_and(|t| now.since(t.stage_since) >= FAILBACK_AFTER);
        let priority = |id: &NodeId| self.priorities.get(id).copied().unwrap_or(0);
        self.best_target()
            .filter(|target| self.settings.failback && settled_in && priority(target) > priority(&self.settings.me))
            .cloned()
    }

    pub(in crate::core) fn tenure_wakeup(&self) -> Vec<BootTime> {
        let mut moments = Vec::new();
        if let Some(tenure) = &self.tenure {
            match tenure.stage {
                Stage::Settling => {
                    moments.extend(self.replica_at());
                    moments.extend(self.clock_wakeup());
                    moments.push(self.settles_too_long_at(tenure.stage_since));
                    moments.extend(self.host.upgrading().map(|_| tenure.stage_since + ALL_UPGRADE_WITHIN));
                }
                Stage::Activating => {
                    moments.push(tenure.stage_since + self.settings.activation_max);
                    moments.push(self.host.start_at());
                }
                Stage::Active => moments.push(tenure.stage_since + FAILBACK_AFTER),
                Stage::Claiming | Stage::Arming | Stage::Linking | Stage::Upgrading | Stage::Stopping => {}
            }
        }
        moments.extend(self.limit_wakeups());
        moments.extend(self.asked.as_ref().map(|asked| asked.asked_at + asked.timeout));
        moments
    }
}
