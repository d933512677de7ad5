//! What must hold of all members together: their leases, and what was signed.

use std::time::Duration;

use super::{ArmedSpan, Breach, Rule};
use crate::base::ids::{Epoch, NodeId};
use crate::base::time::BootTime;

/// The leases under which the guard of one member was armed, by a clock that all members of a comparison share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leases {
    pub member: NodeId,
    pub spans: Vec<ArmedSpan>,
    /// A guard kills within this time after its deadline.
    pub kill_max: Duration,
    /// From when to when nothing is known of the guard.
    pub unknown: Vec<(BootTime, BootTime)>,
    /// When this member applied the `Release` of an epoch, whoever held that.
    pub released: Vec<(Epoch, BootTime)>,
}

impl Leases {
    fn covers(&self, at: BootTime) -> bool {
        let armed = |span: &ArmedSpan| span.from <= at && at <= span.until + self.kill_max;
        self.spans.iter().any(armed) || self.is_unknown(at)
    }

    fn is_unknown(&self, at: BootTime) -> bool {
        self.unknown.iter().any(|(from, until)| *from <= at && at <= *until)
    }

    /// When `span` of this member was over for certain. What it did last may be missing where it was killed; that it let
    /// go is then known from the `Release`, as whoever of `all` was the first applied it.
    fn end(&self, span: &ArmedSpan, all: &[Leases]) -> BootTime {
        let releases = all.iter().flat_map(|leases| &leases.released).filter(|(epoch, _)| *epoch == span.epoch);
        let released = releases.map(|(_, at)| *at).min().filter(|at| self.is_unknown(*at));
        released.map_or(span.until, |at| at.min(span.until))
    }
}

/// A chain node of `member` signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub member: NodeId,
    pub height: u64,
    pub at: BootTime,
}

/// Leases of two members that intersect by more than `error`, which is how far the times of two members may be off.
pub fn one_lease(all: &[Leases], error: Duration) -> Vec<Breach> {
    let mut spans: Vec<(&NodeId, ArmedSpan)> = Vec::new();
    for leases in all {
        let ended = |span: &ArmedSpan| ArmedSpan { until: leases.end(span, all), ..*span };
        spans.extend(leases.spans.iter().map(|span| (&leases.member, ended(span))));
    }
    spans.sort_by_key(|(_, span)| span.from);
    let mut breaches = Vec::new();
    for (nth, (member, span)) in spans.iter().enumerate() {
        // Whoever began before it and lasts longest.
        let others = spans[..nth].iter().filter(|(other, _)| other != member);
        if let Some((other, before)) = others.max_by_key(|(_, before)| before.until)
            && before.until > span.from + error
        {
            breaches.push(breach_of_two(member, span, other, before));
        }
    }
    breaches
}

fn breach_of_two(member: &NodeId, span: &ArmedSpan, other: &NodeId, before: &ArmedSpan) -> Breach {
    let (Epoch(own), Epoch(theirs)) = (span.epoch, before.epoch);
    let by = before.until.min(span.until).since(span.from).as_micros() as f64 / 1e3;
    let text =
        format!("its guard is armed under epoch {own} while that of {other} is under epoch {theirs}, for {by} ms");
    Breach { rule: Rule::OneLease, member: member.clone(), at: span.from, text }
}

/// Signatures that lie in no lease of their host by more than `error`. Hosts of which there are no leases are not
/// judged.
pub fn signed_inside(all: &[Leases], signed: &[Signed], error: Duration) -> Vec<Breach> {
    let outside = |signed: &&Signed| {
        let Some(leases) = all.iter().find(|leases| leases.member == signed.member) else { return false };
        ![signed.at - error, signed.at, signed.at + error].into_iter().any(|at| leases.covers(at))
    };
    let breach = |signed: &Signed| {
        let text = format!("its chain node signed height {} in no lease of this host", signed.height);
        Breach { rule: Rule::SignedInLease, member: signed.member.clone(), at: signed.at, text }
    };
    signed.iter().filter(outside).map(breach).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXACT: Duration = Duration::ZERO;

    fn at(ms: u64) -> BootTime {
        BootTime::from_nanos(ms * 1_000_000)
    }

    fn leases(member: &str, spans: &[(u64, u64, u64)]) -> Leases {
        let span = |(epoch, from, until): &(u64, u64, u64)| ArmedSpan {
            epoch: Epoch(*epoch),
            from: at(*from),
            until: at(*until),
        };
        let spans = spans.iter().map(span).collect();
        Leases {
            member: member.into(),
            spans,
            kill_max: Duration::from_millis(5),
            unknown: vec![(at(300), at(310))],
            released: vec![],
        }
    }

    #[test]
    fn two_guards_that_are_armed_at_once_are_told_unless_the_clocks_may_be_off_by_as_much() {
        let all = [leases("a", &[(1, 10, 100), (3, 149, 200)]), leases("b", &[(2, 100, 150)])];
        let told: Vec<String> = one_lease(&all, EXACT).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "one lease at a time is broken by a at 0.149 s of its clock: its guard is armed under epoch 3 while that of b is \
              under epoch 2, for 1 ms"
            ]
        );
        assert!(one_lease(&all, Duration::from_millis(1)).is_empty());
    }

    #[test]
    fn a_release_ends_a_lease_of_whose_end_the_record_is_missing() {
        let mut all = [leases("a", &[(1, 10, 350)]), leases("b", &[(2, 306, 400)]), leases("c", &[])];
        all[2].released = vec![(Epoch(1), at(305))];
        assert!(one_lease(&all, EXACT).is_empty(), "a may have let go at 305 ms");
        all[2].released = vec![(Epoch(1), at(299))];
        assert_eq!(one_lease(&all, EXACT).len(), 1, "a is known not to have let go at 299 ms");
        all[2].released = vec![(Epoch(1), at(307))];
        assert_eq!(one_lease(&all, EXACT).len(), 1, "b was too early");
        all[2].released = vec![(Epoch(3), at(305))];
        assert_eq!(one_lease(&all, EXACT).len(), 1, "another lease was let go");
    }

    #[test]
    fn a_lease_inside_of_a_longer_one_is_told_whatever_comes_between() {
        let all = [leases("a", &[(1, 10, 100)]), leases("b", &[(2, 20, 30)]), leases("c", &[(3, 90, 95)])];
        assert_eq!(one_lease(&all, EXACT).len(), 2);
    }

    #[test]
    fn a_signature_has_to_lie_in_a_lease_or_where_nothing_is_known_of_it() {
        let all = [leases("a", &[(1, 10, 100)])];
        let signed = |ms: u64, member: &str| Signed { member: member.into(), height: ms, at: at(ms) };
        let told = |ms| signed_inside(&all, &[signed(ms, "a")], EXACT).len();
        assert_eq!([9, 10, 105, 106, 299, 305].map(told), [1, 0, 0, 1, 1, 0]);
        assert!(signed_inside(&all, &[signed(106, "a")], Duration::from_millis(1)).is_empty());
        assert!(signed_inside(&all, &[signed(500, "z")], EXACT).is_empty(), "nothing is known of z");
    }
}
