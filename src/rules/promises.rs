//! What a member owes to leaders, and which votes it may give meanwhile (fence 2).

use std::collections::BTreeMap;

use super::Rule;
use crate::base::ids::{NodeId, Term};
use crate::base::time::BootTime;

/// Promises and the own vote, as a witness has seen them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Promises {
    /// To the leader of each term that was accepted, and until when.
    given: BTreeMap<Term, (NodeId, BootTime)>,
    /// Until then a promise of before the start may be alive.
    pub(super) quarantine_until: Option<BootTime>,
    /// Of the own vote, and of the newest `Release` in the own log.
    pub(super) vote_term: Term,
    released_term: Option<Term>,
}

impl Promises {
    pub(super) fn promised(&mut self, leader: &NodeId, term: Term, until: BootTime) {
        let (to, last) = self.given.entry(term).or_insert_with(|| (leader.clone(), until));
        *to = leader.clone();
        *last = (*last).max(until);
    }

    /// Also of terms that are over: the vote is of the highest.
    pub(super) fn voted(&mut self, term: Term) {
        self.vote_term = self.vote_term.max(term);
    }

    pub(super) fn released(&mut self, term: Term) {
        self.released_term = self.released_term.max(Some(term));
    }

    /// What binds this member no more at `now`.
    pub(super) fn forget_before(&mut self, now: BootTime) {
        // The newest names the leader that is followed.
        let newest = self.given.last_key_value().map(|(term, _)| *term);
        self.given.retain(|term, (_, until)| now < *until || Some(*term) == newest);
    }

    /// When the last of them ends.
    fn until(&self) -> Option<BootTime> {
        self.given.values().map(|(_, until)| *until).max()
    }

    /// # Errors
    /// The rule that forbids a vote for `candidate` at `now`, and why.
    pub(super) fn may_vote(&self, now: BootTime, candidate: &NodeId) -> Result<(), (Rule, String)> {
        if self.released_term == Some(self.vote_term) {
            return Ok(());
        }
        if let Some(until) = self.quarantine_until.filter(|until| now < *until) {
            let left = until.since(now).as_millis();
            let text = format!("it helped {candidate} {left} ms before all that it may have promised had ended");
            return Err((Rule::Quarantine, text));
        }
        let followed = self.given.last_key_value().map(|(_, (leader, _))| leader);
        match (followed, self.until()) {
            (Some(leader), Some(until)) if leader != candidate && now < until => {
                let left = until.since(now).as_millis();
                Err((Rule::Promise, format!("it helped {candidate}, and owes {leader} its loyalty for {left} ms more")))
            }
            _ => Ok(()),
        }
    }

    /// Those of an earlier run, which the store has to remember.
    pub(super) fn inherit(&mut self, earlier: &Promises) {
        // A store that was made anew has forgotten them: this is another member of the same name.
        if earlier.vote_term > self.vote_term {
            return;
        }
        for (term, (leader, until)) in &earlier.given {
            self.promised(leader, *term, *until);
        }
        self.released_term = self.released_term.max(earlier.released_term);
    }
}
