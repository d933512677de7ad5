//! The lease of a leader: until when a quorum has promised to elect nobody else.
//!
//! Invariant (fence 1): at `acked_at`, a quorum of every voter set had answered a request that was
//! sent then or later, so none of its members votes for another before `acked_at + lease`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::ids::{NodeId, Term};
use crate::base::time::BootTime;

/// One set of voters, or two during a membership change (joint consensus).
pub type VoterSets = Vec<BTreeSet<NodeId>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    me: NodeId,
    term: Term,
    acked: BTreeMap<NodeId, Acked>,
}

/// What one peer has accepted in the term.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Acked {
    /// The latest sending time of a request.
    answered: Option<BootTime>,
    /// From when on its promise lasts for a whole lease: the sending time, or earlier when it promised less than that.
    /// `None` while it is not known to have promised anything.
    promised_from: Option<BootTime>,
}

impl Lease {
    pub fn new(me: NodeId, term: Term) -> Self {
        Lease { me, term, acked: BTreeMap::new() }
    }

    pub fn term(&self) -> Term {
        self.term
    }

    /// Notes that `from` accepted a request which this leader sent at `sent_at` in `term`. Its promise falls short of
    /// this leader's lease by `shortfall`; `None`: nothing is known of one.
    pub fn note(&mut self, from: &NodeId, term: Term, sent_at: BootTime, shortfall: Option<Duration>) {
        if term != self.term || *from == self.me {
            return;
        }
        let acked = self.acked.entry(from.clone()).or_default();
        acked.answered = acked.answered.max(Some(sent_at));
        // What would begin before the clock did is left out.
        let whole_from = shortfall.filter(|shortfall| BootTime::default() + *shortfall <= sent_at);
        acked.promised_from = acked.promised_from.max(whole_from.map(|shortfall| sent_at - shortfall));
    }

    /// The latest moment from which on a quorum of every set promises a whole lease: the latest sending time that a
    /// quorum of every set has answered, the leader itself counting as `now` where it is one of them. `None` until
    /// there is one.
    pub fn acked_at(&self, now: BootTime, voters: &VoterSets) -> Option<BootTime> {
        voters.iter().map(|set| self.acked_at_by(now, set)).min().flatten()
    }

    /// Peers that accepted a request sent at `from` or later.
    pub fn acked_since(&self, from: BootTime) -> impl Iterator<Item = NodeId> {
        self.acked.iter().filter(move |(_, acked)| acked.answered >= Some(from)).map(|(id, _)| id.clone())
    }

    fn acked_at_by(&self, now: BootTime, voters: &BTreeSet<NodeId>) -> Option<BootTime> {
        let mut times: Vec<BootTime> = voters.iter().filter_map(|voter| self.time_of(voter, now)).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        times.get(voters.len() / 2).copied()
    }

    fn time_of(&self, voter: &NodeId, now: BootTime) -> Option<BootTime> {
        if *voter == self.me { Some(now) } else { self.acked.get(voter)?.promised_from }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The peer promised as much as the leader needs.
    const WHOLE: Option<Duration> = Some(Duration::ZERO);

    fn at(nanos: u64) -> BootTime {
        BootTime::from_nanos(nanos)
    }

    fn set(names: &str) -> BTreeSet<NodeId> {
        names.split(' ').map(NodeId::from).collect()
    }

    fn lease(acks: &[(&str, u64)]) -> Lease {
        let mut lease = Lease::new("a".into(), 3);
        for (from, sent_at) in acks {
            lease.note(&(*from).into(), 3, at(*sent_at), WHOLE);
        }
        lease
    }

    #[test]
    fn the_quorum_counts_the_leader_as_now_and_takes_the_slowest_it_needs() {
        assert_eq!(lease(&[("b", 10), ("c", 20)]).acked_at(at(99), &vec![set("a b c")]), Some(at(20)));
        assert_eq!(lease(&[("b", 10), ("c", 20)]).acked_at(at(99), &vec![set("a b c d e")]), Some(at(10)));
        assert_eq!(lease(&[("b", 10)]).acked_at(at(99), &vec![set("a b c d e")]), None);
        assert_eq!(lease(&[("b", 10)]).acked_at(at(99), &vec![set("a b")]), Some(at(10)));
    }

    #[test]
    fn joint_consensus_needs_a_quorum_of_both_sets() {
        let lease = lease(&[("b", 30), ("d", 10), ("e", 5)]);
        assert_eq!(lease.acked_at(at(99), &vec![set("a b c"), set("a d e")]), Some(at(10)));
        assert_eq!(lease.acked_at(at(99), &vec![set("a b c"), set("a x y")]), None);
    }

    /// Every set of voters out of a to e, as a list of bits.
    fn all_sets() -> Vec<BTreeSet<NodeId>> {
        let names = ["a", "b", "c", "d", "e"];
        let of_bits = |bits: u32| {
            let chosen = names.iter().enumerate().filter(|(place, _)| bits >> place & 1 == 1);
            chosen.map(|(_, name)| NodeId::from(*name)).collect()
        };
        (1..32).map(of_bits).collect()
    }

    fn is_quorum(of: &VoterSets, acked: &BTreeSet<NodeId>) -> bool {
        of.iter().all(|set| set.intersection(acked).count() > set.len() / 2)
    }

    /// Whether every quorum of `one` shares a member with every quorum of `other`.
    fn always_meet(one: &VoterSets, other: &VoterSets) -> bool {
        let quorums = |of: &VoterSets| all_sets().into_iter().filter(|acked| is_quorum(of, acked)).collect::<Vec<_>>();
        let theirs = quorums(other);
        quorums(one).iter().all(|mine| theirs.iter().all(|theirs| !mine.is_disjoint(theirs)))
    }

    /// What the proof in docs/safety.md ("Membership changes") stands on, for every change of one voter.
    #[test]
    fn quorums_of_a_membership_and_of_the_next_always_share_a_member() {
        for before in all_sets() {
            for after in all_sets().into_iter().filter(|after| before.symmetric_difference(after).count() == 1) {
                let (old, new) = (vec![before.clone()], vec![after.clone()]);
                let joint = vec![before.clone(), after.clone()];
                for (one, next) in [(&old, &joint), (&joint, &new), (&old, &new)] {
                    assert!(always_meet(one, next), "{one:?} and {next:?}");
                }
            }
        }
    }

    /// Why the voters must be those of the newest entry: a leader that counted over its memberships of two
    /// changes ago had a lease beside which another leader could be elected.
    #[test]
    fn quorums_two_changes_apart_need_not_share_a_member() {
        let stale = vec![set("a b c")];
        assert!(!always_meet(&stale, &vec![set("a b c d e")]));
        let mut lease = Lease::new("a".into(), 3);
        lease.note(&"b".into(), 3, at(10), WHOLE);
        assert_eq!(lease.acked_at(at(99), &stale), Some(at(10)), "by a and b, while c, d and e elect another");
        assert_eq!(lease.acked_at(at(99), &vec![set("a b c d e")]), None);
    }

    #[test]
    fn an_answer_counts_for_no_longer_than_it_promises() {
        let voters = vec![set("a b c")];
        let mut lease = lease(&[]);
        lease.note(&"b".into(), 3, at(50), Some(Duration::from_nanos(20)));
        assert_eq!(lease.acked_at(at(99), &voters), Some(at(30)));
        lease.note(&"b".into(), 3, at(40), WHOLE);
        assert_eq!(lease.acked_at(at(99), &voters), Some(at(40)), "an earlier answer may promise for longer");
        lease.note(&"b".into(), 3, at(60), Some(Duration::from_nanos(61)));
        assert_eq!(lease.acked_at(at(99), &voters), Some(at(40)));
    }

    #[test]
    fn an_answer_that_promises_nothing_makes_no_lease_and_is_an_answer_all_the_same() {
        let mut lease = lease(&[]);
        lease.note(&"b".into(), 3, at(50), None);
        assert_eq!(lease.acked_at(at(99), &vec![set("a b c")]), None);
        assert_eq!(lease.acked_since(at(50)).collect::<Vec<_>>(), [NodeId::from("b")]);
    }

    #[test]
    fn an_answer_of_another_term_an_older_one_and_ones_own_change_nothing() {
        let mut lease = lease(&[("b", 30)]);
        lease.note(&"b".into(), 2, at(50), WHOLE);
        lease.note(&"b".into(), 3, at(20), WHOLE);
        lease.note(&"a".into(), 3, at(90), WHOLE);
        assert_eq!(lease.acked_at(at(99), &vec![set("a b c")]), Some(at(30)));
    }
}
