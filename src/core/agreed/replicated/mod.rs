//! What the cluster agrees on: the commands in the Raft log and the state that they make. Pure: the
//! same commands in the same order make the same state on every member, so nothing here reads a
//! clock or a configuration. `store` applies committed entries with it, `core` and the status read
//! the result, `wire` carries it.

mod command;
pub mod knows;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::chain_node::MetFloor;
use crate::base::ids::{Epoch, NodeId, SignMark, Term};
use crate::base::signing::Custody;
use crate::base::time::WallTime;
use crate::core::agreed::orders::{Barred, Orders};
use crate::core::agreed::sign_log::{Grant, SignLog, SignRequest, Verdict};
use crate::core::fences::floor::FloorSource;
use crate::core::left_out::{LeftOut, is_left_out};
use crate::core::upgrades::Plans;

pub use command::{Baton, Command, Set, Signing, Upgrade};

/// Rows of the history that are kept; the oldest goes first.
pub const MOVES_MAX: usize = 200;

/// Bytes of a reason that are kept in the history, so that the whole state stays far below the
/// size at which the store would put it into a file of its own.
pub const REASON_BYTES_MAX: usize = 160;

/// Longest failure of an upgrade plan: what went wrong and how to go on, with paths in it.
pub const FAILURE_BYTES_MAX: usize = 600;

/// What a committed command did. Every member computes the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Applied {
    Claimed {
        epoch: Epoch,
        member: NodeId,
        /// What the entries before the claim tell of earlier signatures.
        source: FloorSource,
    },
    Released {
        epoch: Epoch,
    },
    Recorded,
    /// What became of a request to sign.
    Weighed(Verdict),
    /// The command changed nothing. The proposer must act as if it had never been written.
    Rejected {
        reason: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReleaseInfo {
    pub epoch: Epoch,
    /// Term of the leader that wrote it: rule W is about this term and no other.
    pub term: Term,
    /// Absent unless the holder of the epoch wrote it and knew its mark.
    pub last_signed: Option<SignMark>,
    pub at: WallTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MoveKind {
    /// Nobody held the baton before.
    First,
    /// The holder before never let go by itself.
    Failover,
    /// The holder before let go first.
    Handover,
}

impl MoveKind {
    pub fn as_str(self) -> &'static str {
        match self {
            MoveKind::First => "first",
            MoveKind::Failover => "failover",
            MoveKind::Handover => "handover",
        }
    }
}

/// One row of the history: how the baton came to the holder of `epoch`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Move {
    pub epoch: Epoch,
    /// The member that claimed before; it may be the same one.
    pub from: Option<NodeId>,
    pub to: NodeId,
    pub kind: MoveKind,
    /// At most [`REASON_BYTES_MAX`] bytes.
    pub reason: String,
    pub claimed_at: WallTime,
    /// `None` while the new holder is not proven active, and for good when it never became so.
    pub end: Option<MoveEnd>,
    /// By an operator, while the new holder settled.
    #[serde(default)]
    pub laid: Option<LaidFloor>,
}

/// An operator's word on how far the shared key has signed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LaidFloor {
    pub above: u64,
    /// At most [`REASON_BYTES_MAX`] bytes.
    pub because: String,
    pub at: WallTime,
}

/// How a move ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MoveEnd {
    pub active_at: WallTime,
    /// Handover: from the old holder's `Release` until active, by the wall clocks of two hosts. First
    /// and failover: from the `Claim` until active, by one host's wall clock; the time before the
    /// claim, in which nobody held the baton, is not in it, since no entry knows when it began.
    pub gap: Duration,
    /// By the new holder's steady clock, see [`Baton::Activated`].
    pub took: Duration,
    pub floor: MetFloor,
}

/// What the core reads of the replicated state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    pub epoch: Epoch,
    pub holder: Option<NodeId>,
    pub orders: Orders,
    /// With whom the baton stays while the cluster is paused.
    pub keepers: BTreeSet<NodeId>,
    pub custody: Custody,
}

impl View {
    /// # Errors
    /// The operator's order that forbids it.
    pub fn may_claim(&self, member: &NodeId) -> Result<(), Barred> {
        self.orders.may_claim(member, self.keepers.iter())
    }
}

/// The replicated state after some prefix of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Replicated {
    /// The highest claimed epoch.
    pub epoch: Epoch,
    /// Who may hold the baton under `epoch`: the claimer, until any leader releases that epoch.
    pub holder: Option<NodeId>,
    /// Term of the `Claim` of `epoch`. There is one leader a term, so an entry of the same term is
    /// the holder's own word.
    pub claimed_in_term: Term,
    /// The newest `Release`, whoever wrote it: what rule W reads.
    pub last_release: Option<ReleaseInfo>,
    /// The `Release` of `epoch` by its own holder: what the floor and the history read. A later
    /// leader's `Release` leaves it alone; the next `Claim` clears it.
    pub let_go: Option<ReleaseInfo>,
    /// Why `let_go` was written: the reason of the move that follows.
    pub release_reason: String,
    /// Where the gap of the last move begins; see [`MoveEnd::gap`].
    pub gap_from: WallTime,
    /// Incarnation of each member's store.
    pub incarnations: BTreeMap<NodeId, u64>,
    /// Oldest first, at most [`MOVES_MAX`]; once anything was claimed the last row is `epoch`'s.
    pub moves: VecDeque<Move>,
    /// Whom the holder of `epoch` released it to by an operator's word; the next `Claim` clears it.
    #[serde(default)]
    pub heir: Option<NodeId>,
    #[serde(default)]
    pub orders: Orders,
    /// The members of the first membership; empty when a version wrote the state that did not note it.
    #[serde(default)]
    pub founders: BTreeSet<NodeId>,
    #[serde(default)]
    pub plans: Plans,
    /// Once the log has decided what is signed.
    #[serde(default)]
    pub sign_log: Option<SignLog>,
}

impl Replicated {
    /// Applies one committed command of an entry of `term`.
    pub fn apply(&mut self, term: Term, command: &Command) -> Applied {
        match command {
            Command::Baton(step) => self.pass(term, step),
            Command::Join { member, incarnation } => self.join(member, *incarnation),
            Command::Set(set) => {
                self.orders.set(set);
                Applied::Recorded
            }
            Command::LayFloor { epoch, above, because, at } => {
                let because = bounded(because, REASON_BYTES_MAX);
                recorded(self.lay_floor(*epoch, LaidFloor { above: *above, because, at: *at }))
            }
            Command::Upgrade(change) => recorded(self.change_plans(change)),
            Command::Signing(step) => self.sign(term, step),
        }
    }

    fn pass(&mut self, term: Term, step: &Baton) -> Applied {
        match step {
            Baton::Claim { epoch, member, reason, at } => self.claim(term, *epoch, member, reason, *at),
            Baton::Release { epoch, last_signed, reason, at, to } => {
                let applied = self.release(term, *epoch, *last_signed, reason, *at);
                if self.let_go.is_some_and(|release| release.term == term) {
                    self.heir.clone_from(to);
                }
                applied
            }
            Baton::Activated { epoch, at, floor, took } => self.activated(*epoch, *at, *floor, *took),
        }
    }

    fn change_plans(&mut self, change: &Upgrade) -> Result<(), String> {
        match change {
            Upgrade::Plan { name, height, source, back, at } => self.plans.plan(name, *height, source, *back, *at),
            Upgrade::Cancel { name, at } => self.plans.cancel(name, *at),
            Upgrade::Turn { name, member, at: _ } => self.plans.give_turn(name, member, self.holder.as_ref()),
            Upgrade::End { name, failed, at } => {
                let bounded =
                    |(member, reason): &(NodeId, String)| (member.clone(), bounded(reason, FAILURE_BYTES_MAX));
                self.plans.end(name, failed.as_ref().map(bounded), *at)
            }
        }
    }

    fn sign(&mut self, term: Term, step: &Signing) -> Applied {
        match step {
            Signing::Open { chain, key, last, at: _ } => recorded(self.open_sign_log(chain, key, last)),
            Signing::Close { at } => recorded(self.close_sign_log(term, *at)),
            Signing::Sign(request) => Applied::Weighed(self.admit(request)),
        }
    }

    fn admit(&mut self, request: &SignRequest) -> Verdict {
        match &mut self.sign_log {
            Some(log) => log.admit(request),
            None => Verdict::NotHere { chain: None },
        }
    }

    /// Invariant: what chain nodes signed with the key lies at or below `last`, and none of them has it.
    fn open_sign_log(&mut self, chain: &str, key: &str, last: &Grant) -> Result<(), String> {
        let begins = self.custody() == Custody::Links;
        if begins {
            self.may_change_custody()?;
        }
        if let Some(log) = &self.sign_log {
            log.may_begin_with(chain, key, last)?;
        }
        let released = self.let_go.and_then(|release| release.last_signed);
        if let Some(mark) = released.filter(|mark| !SignMark::from(last.place).covers(mark)) {
            return Err(format!("the last holder signed {mark}, which is above {}", last.place));
        }
        let log = SignLog { chain: chain.to_owned(), key: key.to_owned(), last: *last, by: None, closed: false };
        if begins {
            self.begin_custody();
        }
        self.sign_log = Some(log);
        Ok(())
    }

    /// Invariant: nothing is admitted from here on, and the next holder's floor is all that was.
    fn close_sign_log(&mut self, term: Term, at: WallTime) -> Result<(), String> {
        if self.custody() == Custody::Links {
            return Err("the chain node of the holder has the key already".to_owned());
        }
        self.may_change_custody()?;
        self.begin_custody();
        let last_signed = self.sign_log.as_mut().map(|log| {
            log.closed = true;
            log.mark()
        });
        self.let_go = Some(ReleaseInfo { epoch: self.epoch, term, last_signed, at });
        "custody".clone_into(&mut self.release_reason);
        Ok(())
    }

    /// # Errors
    /// Somebody may sign under the present custody.
    fn may_change_custody(&self) -> Result<(), String> {
        match &self.holder {
            None => Ok(()),
            Some(holder) => Err(format!("{holder} holds the baton; stop baton on it first")),
        }
    }

    /// A claim that was proposed under the earlier custody is not for the next epoch.
    fn begin_custody(&mut self) {
        self.epoch = self.epoch.next();
        self.claimed_in_term = 0;
        self.let_go = None;
        self.heir = None;
    }

    /// Who has the validator's key.
    pub fn custody(&self) -> Custody {
        match &self.sign_log {
            Some(SignLog { closed: false, .. }) => Custody::Signer,
            Some(SignLog { closed: true, .. }) | None => Custody::Links,
        }
    }

    /// Takes note of a committed membership, the `index`th entry of the log: whoever belongs no more leaves nothing
    /// behind, so that a member of the same name starts anew.
    pub fn note_members<'a>(&mut self, index: u64, members: impl Iterator<Item = &'a NodeId>) {
        let members: BTreeSet<NodeId> = members.cloned().collect();
        self.incarnations.retain(|id, _| members.contains(id));
        self.orders.retain(|id| members.contains(id));
        self.plans.retain(|id| members.contains(id));
        if index == 0 {
            self.founders = members;
        }
    }

    /// What a claim that came next would know of earlier signatures.
    pub fn floor_source(&self) -> FloorSource {
        if self.epoch == Epoch::default() {
            return FloorSource::NeverSigned;
        }
        match self.let_go.and_then(|release| release.last_signed) {
            Some(mark) => FloorSource::Exact(mark),
            None => FloorSource::Unknown,
        }
    }

    /// What the core reads of this state.
    pub fn view(&self) -> View {
        View {
            epoch: self.epoch,
            holder: self.holder.clone(),
            orders: self.orders.clone(),
            keepers: self.keepers().cloned().collect::<BTreeSet<_>>(),
            custody: self.custody(),
        }
    }

    /// With whom the baton stays while the cluster is paused: the member that was active last, those that
    /// claimed since and failed, and the one to whom an operator moved it.
    fn keepers(&self) -> impl Iterator<Item = &NodeId> {
        let mut active = false;
        let since = self.moves.iter().rev().take_while(move |row| !std::mem::replace(&mut active, row.end.is_some()));
        since.map(|row| &row.to).chain(&self.heir)
    }

    fn claim(&mut self, term: Term, epoch: Epoch, member: &NodeId, reason: &str, at: WallTime) -> Applied {
        if epoch != self.epoch.next() {
            return rejected(format!("claim of epoch {epoch} by {member}: the next epoch is {}", self.epoch.next()));
        }
        if let Some(release) =
            self.last_release.filter(|release| release.term == term && !is_left_out(LeftOut::NoSecondClaim))
        {
            return rejected(format!(
                "claim of epoch {epoch} by {member}: the leader of term {term} released epoch {} in the same term and \
                 must win a new one first",
                release.epoch
            ));
        }
        // An order that is committed before the claim counts, whether the claimer has heard of it or not.
        if let Err(barred) = self.orders.may_claim(member, self.keepers()) {
            return rejected(format!("claim of epoch {epoch} by {member}: {barred}"));
        }
        let (from, kind) = match (self.moves.back(), self.let_go) {
            (None, _) => (None, MoveKind::First),
            (Some(last), None) => (Some(last.to.clone()), MoveKind::Failover),
            (Some(last), Some(_)) => (Some(last.to.clone()), MoveKind::Handover),
        };
        // A claim proposed before its leader had applied the release cannot have known why.
        let reason = if self.let_go.is_some() { &self.release_reason } else { reason };
        let row = Move {
            epoch,
            from,
            to: member.clone(),
            kind,
            reason: bounded(reason, REASON_BYTES_MAX),
            claimed_at: at,
            end: None,
            laid: None,
        };
        let source = self.floor_source();
        self.gap_from = self.let_go.map_or(at, |release| release.at);
        self.epoch = epoch;
        self.holder = Some(member.clone());
        self.claimed_in_term = term;
        self.let_go = None;
        self.heir = None;
        if self.moves.len() == MOVES_MAX {
            self.moves.pop_front();
        }
        self.moves.push_back(row);
        Applied::Claimed { epoch, member: member.clone(), source }
    }

    fn release(
        &mut self,
        term: Term,
        epoch: Epoch,
        last_signed: Option<SignMark>,
        reason: &str,
        at: WallTime,
    ) -> Applied {
        let of_current = epoch == self.epoch && epoch != Epoch::default();
        let by_holder = of_current && term == self.claimed_in_term;
        let release = ReleaseInfo { epoch, term, last_signed: last_signed.filter(|_| by_holder), at };
        self.last_release = Some(release);
        if of_current {
            self.holder = None;
        }
        if by_holder {
            // A release that was written twice counts from the first and with the higher mark.
            if self.let_go.is_none() {
                self.release_reason = bounded(reason, REASON_BYTES_MAX);
            }
            let first = self.let_go.unwrap_or(release);
            let last_signed = SignMark::of_both(first.last_signed, release.last_signed);
            self.let_go = Some(ReleaseInfo { last_signed, ..first });
        }
        Applied::Released { epoch }
    }

    fn activated(&mut self, epoch: Epoch, at: WallTime, floor: MetFloor, took: Duration) -> Applied {
        let gap = at.since(self.gap_from);
        match self.moves.back_mut() {
            Some(row) if row.epoch == epoch && row.end.is_none() => {
                row.end = Some(MoveEnd { active_at: at, gap, took, floor });
                Applied::Recorded
            }
            Some(row) if row.epoch == epoch => rejected(format!("epoch {epoch} was recorded as active before")),
            Some(_) | None => rejected(format!("epoch {epoch} became active, but the epoch is {}", self.epoch)),
        }
    }

    /// The newest word counts.
    fn lay_floor(&mut self, epoch: Epoch, laid: LaidFloor) -> Result<(), String> {
        match self.moves.back_mut() {
            Some(row) if row.epoch == epoch && self.holder.is_some() && row.end.is_none() => {
                row.laid = Some(laid);
                Ok(())
            }
            Some(_) | None => Err(format!("floor above {}: nobody settles under epoch {epoch}", laid.above)),
        }
    }

    fn join(&mut self, member: &NodeId, incarnation: u64) -> Applied {
        match self.incarnations.get(member) {
            None => {
                self.incarnations.insert(member.clone(), incarnation);
                Applied::Recorded
            }
            Some(known) if *known == incarnation => Applied::Recorded,
            Some(known) => rejected(format!(
                "{member} joined with the store {known:016x} and now has {incarnation:016x}: its store was wiped or \
                 copied; remove the member and add it again"
            )),
        }
    }
}

fn recorded(change: Result<(), String>) -> Applied {
    change.map_or_else(rejected, |()| Applied::Recorded)
}

fn rejected(reason: String) -> Applied {
    Applied::Rejected { reason }
}

/// `reason` cut to `bytes_max`, at the end of a character; that something is missing is seen.
fn bounded(reason: &str, bytes_max: usize) -> String {
    const CUT: &str = "…";
    if reason.len() <= bytes_max {
        return reason.to_owned();
    }
    format!("{}{CUT}", &reason[..reason.floor_char_boundary(bytes_max - CUT.len())])
}

#[cfg(test)]
mod tests;
