//! When this member campaigns. openraft's own timers are off; whoever may hold the baton goes first.
//!
//! This decides about liveness only: a wrong rank costs time or an election, never safety.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::ids::{NodeId, Term};
use crate::base::time::BootTime;
use crate::base::timing::Timing;
use crate::core::fences::lease::VoterSets;
use crate::core::peers::Peer;

/// What the order of candidates depends on, highest first: priority, height, then the lower id.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing<'a> {
    priority: u32,
    height: u64,
    id: &'a NodeId,
}

impl Standing<'_> {
    fn precedes(&self, other: &Standing<'_>) -> bool {
        (self.priority, self.height, std::cmp::Reverse(self.id))
            > (other.priority, other.height, std::cmp::Reverse(other.id))
    }
}

/// How many reachable, ready members that may claim come before `me`, the lost leader not counted.
pub fn rank(
    me: &NodeId,
    my_height: u64,
    priorities: &BTreeMap<NodeId, u32>,
    peers: &BTreeMap<NodeId, Peer>,
    may_claim: impl Fn(&NodeId) -> bool,
    lost_leader: Option<&NodeId>,
) -> u32 {
    let priority = |id: &NodeId| priorities.get(id).copied().unwrap_or(0);
    let mine = Standing { priority: priority(me), height: my_height, id: me };
    let before = peers.iter().filter(|(id, peer)| {
        let theirs = Standing { priority: priority(id), height: peer.height, id };
        peer.ready && peer.reachable && may_claim(id) && Some(*id) != lost_leader && theirs.precedes(&mine)
    });
    before.count() as u32
}

/// The best member to hand over to: ready, reachable, allowed to claim, first in the order of candidates.
pub fn best_target<'a>(
    priorities: &BTreeMap<NodeId, u32>,
    peers: &'a BTreeMap<NodeId, Peer>,
    may_claim: impl Fn(&NodeId) -> bool,
) -> Option<&'a NodeId> {
    let priority = |id: &NodeId| priorities.get(id).copied().unwrap_or(0);
    peers
        .iter()
        .filter(|(id, peer)| peer.ready && peer.reachable && may_claim(id))
        .map(|(id, peer)| Standing { priority: priority(id), height: peer.height, id })
        .reduce(|best, next| if next.precedes(&best) { next } else { best })
        .map(|standing| standing.id)
}

/// More members than that need not be kept apart.
const PLACES_MAX: u32 = 8;

/// Which of the candidates this member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It may hold the baton: its [`rank`].
    Rank(u32),
    /// It may not, and is at this place of the roster.
    Ineligible { place: u32 },
}

/// When to campaign next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Campaigns {
    started_at: BootTime,
    not_before: BootTime,
    asked: Option<Asked>,
}

/// The votes of one term that this member has asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Asked {
    term: Term,
    /// They may come until then.
    until: BootTime,
    /// By whom no vote comes any more.
    denied: BTreeSet<NodeId>,
}

impl Campaigns {
    pub fn new(started_at: BootTime) -> Self {
        Campaigns { started_at, not_before: started_at, asked: None }
    }

    /// Two candidates of neighbouring rank are two heartbeats apart, so that the first one's votes are
    /// out before the second one asks. A member that could not hold the baton waits half a lease: no longer,
    /// since it may be the only one whose log the others vote for, and everybody waits for it then.
    ///
    /// Such members have no rank to tell them apart. Each waits a heartbeat longer than the one before it in the roster,
    /// every time anew: whatever sets two of them off at the same moment, their next campaigns are apart.
    pub fn due_at(&self, opens_at: BootTime, turn: Turn, timing: &Timing) -> BootTime {
        let (delay, apart) = match turn {
            Turn::Rank(rank) => (2 * timing.heartbeat() * rank, Duration::ZERO),
            Turn::Ineligible { place } => (timing.lease() / 2, timing.heartbeat() * place.min(PLACES_MAX)),
        };
        let votes_come_until = self.asked.as_ref().map_or(self.not_before, |asked| asked.until);
        self.not_before.max(votes_come_until).max(opens_at.max(self.started_at) + delay) + apart
    }

    /// Another candidate has this member's vote: it has its time to win and to say so.
    pub fn voted(&mut self, now: BootTime, timing: &Timing) {
        self.not_before = self.not_before.max(now + 2 * timing.heartbeat());
    }

    /// The votes of `term` were asked for at `now`. As long as they can win it, this member does not go on to the next
    /// term: on slow disks its own next campaign would overtake the votes of this one, again and again.
    pub fn asked(&mut self, now: BootTime, term: Term, timing: &Timing) {
        if self.asked.as_ref().is_none_or(|asked| asked.term < term) {
            self.asked = Some(Asked { term, until: now + timing.vote_max(), denied: BTreeSet::new() });
        }
    }

    /// `by` gives no vote of `term`. Once those that are left are too few, or are known to be `gone`, nothing is waited
    /// for.
    pub fn denied(&mut self, by: NodeId, term: Term, voters: &VoterSets, gone: impl Fn(&NodeId) -> bool) {
        let Some(asked) = self.asked.as_mut().filter(|asked| asked.term == term) else { return };
        asked.denied.insert(by);
        let may_vote = |id: &&NodeId| !asked.denied.contains(*id) && !gone(id);
        let can_win = voters.iter().all(|set| set.iter().filter(may_vote).count() > set.len() / 2);
        if !can_win {
            asked.until = BootTime::from_nanos(0);
        }
    }

    /// A campaign starts at `now`. The next one may come after this one's pre-votes, which wait for no disk; from
    /// [`Campaigns::asked`] on it waits for the votes.
    pub fn started(&mut self, now: BootTime, turn: Turn, timing: &Timing) {
        let spread: Duration = timing.heartbeat()
            * match turn {
                Turn::Rank(rank) => rank.min(PLACES_MAX),
                Turn::Ineligible { .. } => 1,
            };
        self.not_before = now + 2 * timing.heartbeat() + spread;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(ready: bool, height: u64) -> Peer {
        Peer { ready, reachable: true, height, ..Peer::default() }
    }

    fn priorities() -> BTreeMap<NodeId, u32> {
        [("a", 100), ("b", 90), ("c", 90), ("z", 0)].map(|(id, p)| (id.into(), p)).into()
    }

    fn peers(list: &[(&str, Peer)]) -> BTreeMap<NodeId, Peer> {
        list.iter().map(|(id, peer)| ((*id).into(), peer.clone())).collect()
    }

    #[test]
    fn candidates_come_by_priority_then_height_then_id() {
        let around_b = peers(&[("a", peer(true, 5)), ("c", peer(true, 9))]);
        assert_eq!(rank(&"b".into(), 8, &priorities(), &around_b, |_| true, None), 2, "c is as preferred, and higher");
        assert_eq!(
            rank(&"b".into(), 9, &priorities(), &around_b, |_| true, None),
            1,
            "c is as high, and of a later id"
        );
    }

    #[test]
    fn the_lost_leader_and_members_that_are_not_ready_keep_nobody_waiting() {
        let around_b = peers(&[("a", peer(true, 5)), ("c", peer(false, 9))]);
        assert_eq!(rank(&"b".into(), 1, &priorities(), &around_b, |_| true, Some(&"a".into())), 0);
    }

    #[test]
    fn a_member_that_may_not_claim_keeps_nobody_waiting_and_is_no_target() {
        let around_c = peers(&[("a", peer(true, 5)), ("b", peer(true, 5))]);
        let not_a = |id: &NodeId| id.as_str() != "a";
        assert_eq!(rank(&"c".into(), 5, &priorities(), &around_c, not_a, None), 1);
        assert_eq!(best_target(&priorities(), &around_c, not_a), Some(&"b".into()));
    }

    #[test]
    fn the_target_of_a_handover_is_ready_and_reachable_first() {
        let mut around_a = peers(&[("b", peer(false, 9)), ("c", peer(true, 1)), ("z", peer(true, 99))]);
        assert_eq!(best_target(&priorities(), &around_a, |_| true), Some(&"c".into()));
        around_a.get_mut(&NodeId::from("c")).unwrap().reachable = false;
        assert_eq!(best_target(&priorities(), &around_a, |_| true), Some(&"z".into()));
        assert_eq!(best_target(&priorities(), &BTreeMap::new(), |_| true), None);
    }

    #[test]
    fn ranks_are_two_heartbeats_apart_and_the_ineligible_come_last() {
        let campaigns = Campaigns::new(BootTime::from_nanos(0));
        let opens_at = BootTime::from_nanos(5_000_000_000);
        let due = |turn| campaigns.due_at(opens_at, turn, &Timing::LAN).since(opens_at).as_millis();
        assert_eq!([0, 1, 2].map(|rank| due(Turn::Rank(rank))), [0, 300, 600]);
        assert_eq!([0, 1, 2].map(|place| due(Turn::Ineligible { place })), [500, 650, 800]);
    }

    #[test]
    fn a_member_that_just_started_leaves_the_eligible_their_time() {
        let started_at = BootTime::from_nanos(7_000_000_000);
        let due =
            Campaigns::new(started_at).due_at(BootTime::from_nanos(0), Turn::Ineligible { place: 0 }, &Timing::LAN);
        assert_eq!(due.since(started_at), Timing::LAN.lease() / 2);
    }

    #[test]
    fn a_campaign_is_not_repeated_before_its_votes_can_have_come() {
        let mut campaigns = Campaigns::new(BootTime::from_nanos(0));
        let now = BootTime::from_nanos(1_000_000_000);
        campaigns.started(now, Turn::Rank(0), &Timing::LAN);
        assert_eq!(campaigns.due_at(now, Turn::Rank(0), &Timing::LAN).since(now), 2 * Timing::LAN.heartbeat());
    }

    /// Three members that could not hold the baton campaign, and each denies the others its vote within 20 ms of its own
    /// campaign.
    #[test]
    fn members_that_cannot_hold_the_baton_do_not_keep_step() {
        let ms = |millis: u64| BootTime::from_nanos(millis * 1_000_000);
        let turns = [0, 1, 2].map(|place| Turn::Ineligible { place });
        // All of them voted for one that was lost, at the same moment.
        let mut members = turns.map(|_| Campaigns::new(ms(0)));
        members.iter_mut().for_each(|member| member.voted(ms(1000), &Timing::LAN));
        let mut begun: Vec<(u64, usize)> = Vec::new();
        for now in 1000..4000 {
            for (index, member) in members.iter_mut().enumerate() {
                if ms(now) >= member.due_at(ms(0), turns[index], &Timing::LAN) {
                    member.started(ms(now), turns[index], &Timing::LAN);
                    begun.push((now, index));
                }
            }
        }
        let alone = begun
            .iter()
            .filter(|(at, who)| !begun.iter().any(|(other_at, other)| other != who && other_at.abs_diff(*at) <= 40));
        assert!(alone.count() >= begun.len() / 2, "{begun:?}");
    }

    /// When the next campaign is due, in milliseconds after votes of term 7 were asked for in the one at hand, and
    /// denied by some.
    fn due_after_denials(denials: &[(&str, Term)], gone: &str) -> u128 {
        let voters = vec![["a", "b", "c", "d", "e"].map(NodeId::from).into()];
        let mut campaigns = Campaigns::new(BootTime::from_nanos(0));
        let now = BootTime::from_nanos(1_000_000_000);
        campaigns.started(now, Turn::Rank(0), &Timing::LAN);
        campaigns.asked(now, 7, &Timing::LAN);
        for (by, term) in denials {
            // It is told for every peer, and begins no wait anew.
            campaigns.asked(now + Timing::LAN.heartbeat(), 7, &Timing::LAN);
            campaigns.denied((*by).into(), *term, &voters, |id| id.as_str() == gone);
        }
        campaigns.due_at(now, Turn::Rank(0), &Timing::LAN).since(now).as_millis()
    }

    #[test]
    fn votes_that_were_asked_for_are_waited_for_as_long_as_they_can_win() {
        let (patient, soon) = (Timing::LAN.vote_max().as_millis(), 300);
        assert_eq!(due_after_denials(&[], "nobody"), patient);
        assert_eq!(due_after_denials(&[("b", 7), ("c", 7)], "nobody"), patient, "d and e may still vote");
        assert_eq!(due_after_denials(&[("b", 7), ("c", 7), ("d", 7)], "nobody"), soon);
        assert_eq!(due_after_denials(&[("b", 7), ("c", 7)], "e"), soon, "e is known to be lost");
        assert_eq!(due_after_denials(&[("b", 6), ("c", 6), ("d", 6)], "nobody"), patient, "of an earlier term");
    }
}
