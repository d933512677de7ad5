//! Several members' records, held against each other: how far their clocks are apart, which of their leases intersect, and
//! what was signed outside of one.

use std::time::Duration;

use super::observed::{Accepted, Answered, Observed};
use crate::base::ids::NodeId;
use crate::rules::Breach;
use crate::rules::cluster::{Leases, Signed, one_lease, signed_inside};

/// Taken for the error of an offset that nobody measured.
const UNMEASURED: Duration = Duration::from_secs(1);

/// A guard that is not scheduled kills late, and a stopped one is killed by the kernel. So long after a lease a signature is
/// no sign of a guard that does not fire.
const KILLED_WITHIN: Duration = Duration::from_millis(500);

/// By which clock members are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// They ran on one machine.
    OneKernel,
    /// Each has a wall clock of its own. By how much they differ is what gossip measured, bounded by the order of
    /// requests and answers.
    Walls,
}

/// By how much a member's wall clock is ahead of that of the first member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offset {
    pub member: NodeId,
    pub nanos: i128,
    /// It may be so much more or less.
    pub error: Duration,
    /// How many exchanges bound it; 0: gossip alone tells.
    pub exchanges: usize,
}

/// What a comparison comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Of every member but the first, by its wall clock; none where they share a clock.
    pub offsets: Vec<Offset>,
    pub breaches: Vec<Breach>,
}

/// Compares `members`, of which each is one of a replay. `signed` has times of the clock that they share; without one,
/// of the first member's wall clock.
pub fn merged(members: &[&Observed], clocks: Clocks, signed: &[Signed]) -> Merged {
    let (leases, offsets): (Vec<Leases>, Vec<Offset>) = match clocks {
        Clocks::OneKernel => (members.iter().filter_map(|member| member.leases_by_boot()).collect(), Vec::new()),
        Clocks::Walls => by_walls(members),
    };
    let error = offsets.iter().map(|offset| offset.error).max().unwrap_or_default();
    // Of two members, each may be off by that.
    let mut breaches = one_lease(&leases, 2 * error);
    breaches.extend(signed_inside(&leases, signed, error + KILLED_WITHIN));
    Merged { offsets, breaches }
}

fn by_walls(members: &[&Observed]) -> (Vec<Leases>, Vec<Offset>) {
    let Some((first, others)) = members.split_first() else { return Default::default() };
    let offsets: Vec<Offset> = others.iter().filter_map(|other| offset_between(first, other)).collect();
    let of = |member: &Observed| offsets.iter().find(|offset| Some(&offset.member) == member.member.as_ref());
    let leases = members.iter().filter_map(|member| member.leases_by_wall(of(member).map_or(0, |offset| offset.nanos)));
    (leases.collect(), offsets)
}

/// By how much the wall clock of `other` is ahead of that of `first`.
fn offset_between(first: &Observed, other: &Observed) -> Option<Offset> {
    let (me, member) = (first.member.clone()?, other.member.clone()?);
    let told = first.offsets.get(&member).map(|offset| (i128::from(offset.nanos), offset.error));
    let (nanos, error) = told
        .or_else(|| other.offsets.get(&me).map(|offset| (-i128::from(offset.nanos), offset.error)))
        .unwrap_or((0, UNMEASURED));
    let measured = Bounds { least: nanos - nanos_of(error), most: nanos + nanos_of(error) };
    let mut bounds = measured;
    let mut exchanges = 0;
    // What one leads, the other follows.
    for found in exchanges_between(&first.answered, &other.accepted, &me, &member, measured) {
        exchanges += usize::from(bounds.meet(found));
    }
    for found in exchanges_between(&other.answered, &first.accepted, &member, &me, measured.reversed()) {
        exchanges += usize::from(bounds.meet(found.reversed()));
    }
    let error = Duration::from_nanos(((bounds.most - bounds.least + 1) / 2) as u64);
    Some(Offset { member, nanos: (bounds.least + bounds.most) / 2, error, exchanges })
}

fn nanos_of(time: Duration) -> i128 {
    time.as_nanos() as i128
}

/// Within which an offset lies, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    least: i128,
    most: i128,
}

impl Bounds {
    fn reversed(self) -> Bounds {
        Bounds { least: -self.most, most: -self.least }
    }

    /// Both hold, unless they contradict each other: then a clock was set, and the first stand.
    fn meet(&mut self, other: Bounds) -> bool {
        let both = Bounds { least: self.least.max(other.least), most: self.most.min(other.most) };
        let agree = both.least <= both.most;
        if agree {
            *self = both;
        }
        agree
    }
}

/// For each answered request of `leader` that only one acceptance of `follower` can be of: it arrived after it was sent,
/// and was accepted before the answer was noted.
fn exchanges_between(
    answered: &[Answered],
    accepted: &[Accepted],
    leader: &NodeId,
    follower: &NodeId,
    measured: Bounds,
) -> Vec<Bounds> {
    let arrivals: Vec<&Accepted> = accepted.iter().filter(|accepted| accepted.leader == *leader).collect();
    let bound = |answered: &Answered| {
        let from = arrivals.partition_point(|arrival| arrival.arrived_at < answered.sent_at + measured.least);
        let within = |arrival: &&&Accepted| arrival.arrived_at <= answered.noted_at + measured.most;
        let mut fitting = arrivals[from..].iter().take_while(within).filter(|arrival| arrival.term == answered.term);
        match (fitting.next(), fitting.next()) {
            (Some(arrival), None) => Some(Bounds {
                least: arrival.arrived_at - answered.noted_at,
                most: arrival.arrived_at - answered.sent_at,
            }),
            _ => None,
        }
    };
    answered.iter().filter(|answered| answered.by == *follower).filter_map(bound).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::core::ClockOffset;

    const MS: i128 = 1_000_000;

    /// A follower whose clock is 40 ms ahead accepts what is 3 ms under way, each 150 ms; its answer takes 2 ms.
    fn pair(measured_ms: i64, error_ms: u64) -> (Observed, Observed) {
        let offset = ClockOffset { nanos: measured_ms * 1_000_000, error: Duration::from_millis(error_ms) };
        let (mut leader, mut follower) = (Observed::of("a"), Observed::of("b"));
        leader.offsets = BTreeMap::from([("b".into(), offset)]);
        for beat in 0..20 {
            let sent_at = 1_000_000 * MS + beat * 150 * MS;
            leader.answered.push(Answered { by: "b".into(), term: 3, sent_at, noted_at: sent_at + 5 * MS });
            follower.accepted.push(Accepted { leader: "a".into(), term: 3, arrived_at: sent_at + 43 * MS });
        }
        (leader, follower)
    }

    #[test]
    fn what_gossip_measured_is_bounded_by_the_order_of_messages() {
        let (leader, follower) = pair(30, 30);
        let offset = offset_between(&leader, &follower).expect("two members");
        assert_eq!((offset.exchanges, offset.error), (20, Duration::from_micros(2500)), "{offset:?}");
        assert!((offset.nanos - 40 * MS).abs() <= nanos_of(offset.error), "{offset:?}");
        let back = offset_between(&follower, &leader).expect("two members");
        assert_eq!((back.nanos, back.error), (-offset.nanos, offset.error), "measured by one, used by both");
    }

    #[test]
    fn where_an_answer_may_be_of_two_requests_gossip_alone_tells() {
        let (leader, follower) = pair(30, 400);
        let offset = offset_between(&leader, &follower).expect("two members");
        assert_eq!((offset.exchanges, offset.nanos, offset.error), (0, 30 * MS, Duration::from_millis(400)));
        assert_eq!(offset_between(&leader, &Observed::of("c")).expect("two members").error, UNMEASURED);
    }
}
