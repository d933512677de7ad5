//! The vote gate (fence 2): whether this member may help to elect somebody now.
//!
//! It stands before Vote and PreVote requests of others, before the handler of a leadership transfer
//! and before this member's own candidacy. It only ever refuses; Raft's own rules still apply after it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::ids::{NodeId, Term};
use crate::base::time::BootTime;
use crate::core::left_out::{LeftOut, is_left_out};
use crate::core::settings::Memory;

/// What a member must remember in order not to vote inside somebody's lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VoteGate {
    /// `lease·(1+ρ)` of this member's own configuration.
    promise: Duration,
    /// End of rule (a); `None` for a store that never voted or logged anything.
    quarantine_until: Option<BootTime>,
    /// See [`Memory::promise_lost`].
    promise_lost: bool,
    /// Rule (b): to the leader of the highest term that was accepted, until the last of all promises so far ends.
    promised: Option<Promise>,
    /// Term of this member's own vote.
    vote_term: Term,
    /// Rule W: term of the newest `Release` in this member's log.
    released_term: Option<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Promise {
    leader: NodeId,
    term: Term,
    until: BootTime,
}

/// Why no vote is given now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Rule (a): a promise made before the restart may still be alive.
    Quarantine { left: Duration },
    /// Rule (b): this member promised `leader` its loyalty.
    Promised { leader: NodeId, left: Duration },
    /// Rule (c): the own chain node may still sign.
    NodeNotProven,
    /// By its own log, the cluster does not know this member, or not with this store.
    NoMember,
    /// It may help others to a majority, but has no vote to lead by.
    NoVoter,
}

impl VoteGate {
    /// `promise` is what this member's own configuration asks for, `memory.promised` the longest that it may have made
    /// before it was started: rule (a) waits out the longer.
    pub fn new(promise: Duration, started_at: BootTime, memory: &Memory) -> Self {
        let quarantined = !memory.fresh && !is_left_out(LeftOut::Quarantine);
        let quarantine_until = quarantined.then_some(started_at + promise.max(memory.promised));
        let Memory { vote_term, released_term, promise_lost, .. } = *memory;
        VoteGate { promise, quarantine_until, promise_lost, promised: None, vote_term, released_term }
    }

    /// A request of `leader` that had arrived at `arrived_at` was accepted. This member keeps its promise for
    /// `promise`, or for as long as its own configuration asks for, if that is longer.
    pub fn note_accepted(&mut self, leader: &NodeId, term: Term, arrived_at: BootTime, promise: Duration) {
        self.note_vote(term);
        self.promise_to(leader, term, arrived_at + promise.max(self.promise));
    }

    /// A quorum answered requests which this member, as leader of `term`, had sent at `acked_at`: it promises
    /// itself what every follower promised it.
    pub fn note_own_lease(&mut self, me: &NodeId, term: Term, acked_at: BootTime) {
        if !is_left_out(LeftOut::OwnPromise) {
            self.promise_to(me, term, acked_at + self.promise);
        }
    }

    /// This member's own vote is of `term` now.
    pub fn note_vote(&mut self, term: Term) {
        self.vote_term = self.vote_term.max(term);
    }

    /// A `Release` written in `term` stands in this member's log.
    pub fn note_release(&mut self, term: Term) {
        self.released_term = self.released_term.max(Some(term));
    }

    /// Whether the newest `Release` in this member's log was written in `term`.
    pub fn has_released(&self, term: Term) -> bool {
        self.released_term == Some(term)
    }

    pub fn vote_term(&self) -> Term {
        self.vote_term
    }

    /// Term of the newest `Release` in this member's log.
    pub fn released_term(&self) -> Option<Term> {
        self.released_term
    }

    /// End of rule (a), which a store that never voted does not have.
    pub fn quarantine_until(&self) -> Option<BootTime> {
        self.quarantine_until
    }

    /// The leader of the last promise, its term, and the end of all promises so far.
    pub fn promised(&self) -> Option<(&NodeId, Term, BootTime)> {
        self.promised.as_ref().map(|promise| (&promise.leader, promise.term, promise.until))
    }

    /// When rules (a) and (b) let `candidate` pass; in the past when they do already.
    pub fn opens_at(&self, candidate: &NodeId) -> BootTime {
        if self.is_waived() {
            return BootTime::from_nanos(0);
        }
        let quarantine = self.quarantine_until.unwrap_or(BootTime::from_nanos(0));
        let promise = match &self.promised {
            Some(promise) if promise.leader != *candidate && !is_left_out(LeftOut::Promise) => promise.until,
            Some(_) | None => BootTime::from_nanos(0),
        };
        quarantine.max(promise)
    }

    /// For how long rule (a) still waits out a promise of which nobody knows how long it was.
    pub fn lost_promise_left(&self, now: BootTime) -> Option<Duration> {
        let until = self.quarantine_until.filter(|until| self.promise_lost && now < *until && !self.is_waived());
        until.map(|until| until.since(now))
    }

    /// To whom this member is loyal at `now`, by its last promise.
    pub fn loyal_to(&self, now: BootTime) -> Option<&NodeId> {
        self.promised.as_ref().filter(|promise| now < promise.until).map(|promise| &promise.leader)
    }

    /// The leader of the last promise, alive or not.
    pub fn last_leader(&self) -> Option<&NodeId> {
        self.promised.as_ref().map(|promise| &promise.leader)
    }

    /// End of the last promise, alive or not.
    pub fn promise_end(&self) -> Option<BootTime> {
        self.promised.as_ref().map(|promise| promise.until)
    }

    /// # Errors
    /// The first of the rules (c), (a), (b) that forbids a vote for `candidate`.
    pub fn check(&self, now: BootTime, candidate: &NodeId, node_proven: bool) -> Result<(), Refusal> {
        if !node_proven && !is_left_out(LeftOut::NodeProof) {
            return Err(Refusal::NodeNotProven);
        }
        if self.is_waived() {
            return Ok(());
        }
        if let Some(until) = self.quarantine_until
            && now < until
        {
            return Err(Refusal::Quarantine { left: until.since(now) });
        }
        match &self.promised {
            Some(_) if is_left_out(LeftOut::Promise) => Ok(()),
            Some(promise) if promise.leader != *candidate && now < promise.until => {
                Err(Refusal::Promised { leader: promise.leader.clone(), left: promise.until.since(now) })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Rule W: the leader of the term that this member still votes in has let go, and never claims
    /// again in that term.
    fn is_waived(&self) -> bool {
        let of_any_term = is_left_out(LeftOut::ReleaseOfTheTerm) && self.released_term.is_some();
        self.released_term == Some(self.vote_term) || of_any_term
    }

    /// The leader of the highest term has the promise, until the last of all promises so far has run out.
    ///
    /// Invariant (rule (b)): an acceptance may be reported late, after one of a later leader. It lengthens the promise
    /// and gives it to nobody else, or the earlier leader could be elected inside the later one's lease.
    fn promise_to(&mut self, leader: &NodeId, term: Term, until: BootTime) {
        match &mut self.promised {
            Some(newer) if term < newer.term => newer.until = until.max(newer.until),
            earlier => {
                let until = earlier.as_ref().map_or(until, |earlier| until.max(earlier.until));
                *earlier = Some(Promise { leader: leader.clone(), term, until });
            }
        }
    }
}

impl Refusal {
    /// The rule of docs/safety.md that refuses.
    pub fn rule(&self) -> &'static str {
        match self {
            Refusal::Quarantine { .. } => "rule (a)",
            Refusal::Promised { .. } => "rule (b)",
            Refusal::NodeNotProven => "rule (c)",
            Refusal::NoMember | Refusal::NoVoter => "the membership",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Quarantine { left } => write!(f, "restarted too recently, {} ms to wait", left.as_millis()),
            Refusal::Promised { leader, left } => {
                write!(f, "promised to {leader} for {} more ms", left.as_millis())
            }
            Refusal::NodeNotProven => write!(f, "own chain node is not proven stopped or keyless"),
            Refusal::NoMember => write!(f, "not a member by the own log"),
            Refusal::NoVoter => write!(f, "not a voter by the own log"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISE: Duration = Duration::from_millis(1001);

    fn at(millis: u64) -> BootTime {
        BootTime::from_nanos(millis * 1_000_000)
    }

    fn fresh_gate() -> VoteGate {
        VoteGate::new(PROMISE, at(0), &Memory::fresh())
    }

    /// One that was started anew, with a vote of `vote_term`.
    fn restarted(started_at: BootTime, vote_term: Term, released_term: Option<Term>) -> VoteGate {
        let memory = Memory { fresh: false, vote_term, released_term, ..Memory::fresh() };
        VoteGate::new(PROMISE, started_at, &memory)
    }

    fn candidate(name: &str) -> NodeId {
        name.into()
    }

    #[test]
    fn a_restarted_member_waits_out_a_promise_it_may_have_forgotten() {
        let gate = restarted(at(5000), 3, None);
        assert!(matches!(gate.check(at(6000), &candidate("b"), true), Err(Refusal::Quarantine { .. })));
        assert_eq!(gate.check(at(6001), &candidate("b"), true), Ok(()));
    }

    #[test]
    fn a_fresh_store_has_no_promise_to_wait_out() {
        assert_eq!(fresh_gate().check(at(0), &candidate("b"), true), Ok(()));
    }

    #[test]
    fn a_promise_holds_against_all_but_its_leader() {
        let mut gate = fresh_gate();
        gate.note_accepted(&candidate("a"), 1, at(100), PROMISE);
        assert!(matches!(gate.check(at(1100), &candidate("b"), true), Err(Refusal::Promised { .. })));
        assert_eq!(gate.check(at(1100), &candidate("a"), true), Ok(()));
        assert_eq!(gate.check(at(1101), &candidate("b"), true), Ok(()));
    }

    #[test]
    fn a_promise_to_a_new_leader_never_shortens_the_one_before() {
        let mut gate = fresh_gate();
        gate.note_accepted(&candidate("a"), 1, at(200), PROMISE);
        gate.note_accepted(&candidate("b"), 2, at(100), PROMISE);
        assert!(gate.check(at(1200), &candidate("a"), true).is_err());
        assert!(gate.check(at(1200), &candidate("c"), true).is_err());
    }

    #[test]
    fn a_late_report_of_an_earlier_leader_lengthens_a_promise_and_takes_over_none() {
        let mut gate = fresh_gate();
        gate.note_accepted(&candidate("b"), 2, at(100), PROMISE);
        gate.note_accepted(&candidate("a"), 1, at(150), PROMISE);
        assert!(gate.check(at(200), &candidate("a"), true).is_err(), "b leads term 2, and its lease lives");
        assert_eq!(gate.loyal_to(at(200)), Some(&candidate("b")));
        assert!(gate.check(at(1150), &candidate("c"), true).is_err(), "what was promised to a is kept too");
        assert_eq!(gate.check(at(1151), &candidate("c"), true), Ok(()));
    }

    #[test]
    fn a_promise_lasts_for_the_longer_of_what_the_leader_asks_and_what_the_configuration_says() {
        let mut gate = fresh_gate();
        gate.note_accepted(&candidate("a"), 1, at(100), 3 * PROMISE);
        assert!(gate.check(at(3102), &candidate("b"), true).is_err());
        assert_eq!(gate.check(at(3103), &candidate("b"), true), Ok(()));
        gate.note_accepted(&candidate("a"), 1, at(5000), PROMISE / 10);
        assert!(gate.check(at(6000), &candidate("b"), true).is_err());
    }

    #[test]
    fn a_restarted_member_waits_out_the_longest_promise_that_it_may_have_made() {
        let memory = Memory { fresh: false, promised: 3 * PROMISE, ..Memory::fresh() };
        let gate = VoteGate::new(PROMISE, at(5000), &memory);
        assert!(matches!(gate.check(at(8002), &candidate("b"), true), Err(Refusal::Quarantine { .. })));
        assert_eq!(gate.check(at(8003), &candidate("b"), true), Ok(()));
    }

    #[test]
    fn a_leader_keeps_the_promise_that_its_followers_made_it() {
        let mut gate = fresh_gate();
        gate.note_own_lease(&candidate("me"), 1, at(100));
        assert!(gate.check(at(1000), &candidate("b"), true).is_err());
    }

    #[test]
    fn an_unproven_chain_node_forbids_every_vote_also_after_a_release() {
        let mut gate = fresh_gate();
        gate.note_vote(4);
        gate.note_release(4);
        assert_eq!(gate.check(at(9_000), &candidate("b"), false), Err(Refusal::NodeNotProven));
    }

    #[test]
    fn a_release_waives_time_only_for_a_vote_of_its_own_term() {
        let mut gate = restarted(at(0), 3, None);
        gate.note_accepted(&candidate("a"), 3, at(50), PROMISE);
        gate.note_release(3);
        assert_eq!(gate.check(at(60), &candidate("b"), true), Ok(()));
        gate.note_vote(4);
        assert!(gate.check(at(70), &candidate("c"), true).is_err(), "the next holder may lead in term 4 already");
    }

    #[test]
    fn a_release_of_an_earlier_term_waives_nothing() {
        let mut gate = restarted(at(0), 4, Some(3));
        assert!(gate.check(at(10), &candidate("b"), true).is_err());
        gate.note_release(4);
        assert_eq!(gate.check(at(10), &candidate("b"), true), Ok(()));
    }
}
