//! Fence 3: from which block on a new holder may sign.
//!
//! Invariant: when a floor is met, everything that an earlier holder can have signed with the shared
//! key lies at or below what the new holder's chain node already has, or refuses to sign again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::chain_node::{FloorBasis, Health, SignFloor};
use crate::base::ids::SignMark;
use crate::base::time::WallTime;

/// What a claimer knows of the signatures made before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FloorSource {
    /// No epoch was ever claimed.
    NeverSigned,
    /// The holder of the last epoch released it and said what it signed last.
    Exact(SignMark),
    /// The last holder did not say; the floor has to settle.
    Unknown,
}

/// The floor for a holder that claims now. `quiet_since` is a moment after which no other host, and
/// not this one either, can have signed; `clock_skew` bounds its difference to block header times.
///
/// A cluster that never signed still settles: its key may have been in use before it was handed to
/// the cluster.
pub fn for_claim(source: FloorSource, quiet_since: WallTime, clock_skew: Duration) -> SignFloor {
    match source {
        FloorSource::Exact(mark) => SignFloor::Mark(mark),
        FloorSource::NeverSigned | FloorSource::Unknown => SignFloor::BlockAfter(quiet_since + clock_skew),
    }
}

/// What a claimer goes by: a released mark is exact only as long as no higher one was `seen` on any host. A higher
/// one says that the key has signed since, outside of the cluster, and nobody knows how far.
pub fn source(released: FloorSource, seen: Option<SignMark>) -> FloorSource {
    match released {
        FloorSource::Exact(mark) if SignMark::is_news(seen, Some(mark)) => FloorSource::Unknown,
        FloorSource::NeverSigned | FloorSource::Exact(_) | FloorSource::Unknown => released,
    }
}

/// What `for_claim`'s floor rests on.
pub fn basis(source: FloorSource) -> FloorBasis {
    match source {
        FloorSource::NeverSigned => FloorBasis::NeverSigned,
        FloorSource::Exact(_) => FloorBasis::Release,
        FloorSource::Unknown => FloorBasis::Settled,
    }
}

/// The floor of `on_halt = "replica"`, once the chain stands still and no block of after the claim will
/// come: the last mark `seen`, by gossip or in the own node's files. `None`: there is nothing to go by,
/// and the holder waits on.
///
/// This breaks the invariant when the old holder signed something of which no word came here; the
/// operator chose that. An exact floor stays: hearsay is no better.
pub fn of_replica(source: FloorSource, seen: Option<SignMark>) -> Option<SignFloor> {
    match (source, seen) {
        (FloorSource::Exact(_), _) | (FloorSource::Unknown, None) => None,
        (FloorSource::NeverSigned | FloorSource::Unknown, Some(mark)) => Some(SignFloor::Mark(mark)),
        (FloorSource::NeverSigned, None) => Some(SignFloor::None),
    }
}

/// The floor of an operator's word that nothing was signed above `above`. An exact floor stays, and what was `seen` of
/// the key lies below it too.
///
/// On a chain where heights are approved ahead of their blocks, `heard` is the highest head of any host when the old
/// holder had to be silent: the word is about its approvals, and blocks of it that nobody has heard of are taken for
/// unmade.
pub fn of_operator(source: FloorSource, above: u64, seen: Option<SignMark>, heard: Option<u64>) -> Option<SignFloor> {
    let told = match heard {
        Some(head) => SignMark::of_approvals(head, above),
        None => SignMark::whole_height(above),
    };
    match source {
        FloorSource::Exact(_) => None,
        FloorSource::NeverSigned | FloorSource::Unknown => {
            Some(SignFloor::Mark(seen.map_or(told, |seen| seen.with(told))))
        }
    }
}

/// Whether a chain node in this `health` is past `floor`. With `node_refuses`, the node itself signs
/// nothing at or below a mark, so that it need not have caught up to it.
///
/// A mark with approvals has two halves, and needs both. The head: a node makes no block or chunk, and approves no
/// height, at or below what it has; so with a lower head it could make a block anew, or skip a height that was
/// endorsed. The approvals: a node endorses the block after its head unless it has approved that far; so with lower
/// ones it could endorse a height that was skipped. A head that is itself at the approvals leaves nothing below them to
/// approve, whatever the node tells.
pub fn is_met(floor: &SignFloor, health: &Health, node_refuses: bool) -> bool {
    match floor {
        SignFloor::None => true,
        SignFloor::Mark(mark) => {
            node_refuses || (health.height >= mark.height && health.approved.max(health.height) >= mark.approved)
        }
        SignFloor::BlockAfter(quiet) => health.head_time.is_some_and(|head_time| head_time > *quiet),
    }
}

/// What a floor that rests on clocks asks for without any: a head above `head_heard`, the highest of any host that was
/// heard of when the old holder had to be silent.
pub fn is_above(floor: &SignFloor, health: &Health, head_heard: u64) -> bool {
    match floor {
        SignFloor::BlockAfter(_) => health.height > head_heard,
        SignFloor::None | SignFloor::Mark(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::chain_node::KeyState;

    fn head(height: u64, head_time_ms: u64) -> Health {
        Health {
            synced: true,
            height,
            head_time: Some(wall(head_time_ms)),
            approved: 0,
            peers: None,
            key: KeyState::Absent,
            latency: Duration::ZERO,
            version: String::new(),
        }
    }

    fn wall(millis: u64) -> WallTime {
        WallTime::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn after_a_release_the_floor_is_the_old_holders_last_mark() {
        let floor = for_claim(FloorSource::Exact(SignMark::at_height(7)), wall(1000), Duration::from_millis(10));
        assert_eq!(floor, SignFloor::Mark(SignMark::at_height(7)));
        assert!(!is_met(&floor, &head(6, 5000), false));
        assert!(is_met(&floor, &head(7, 0), false));
        assert!(is_met(&floor, &head(6, 0), true));
    }

    #[test]
    fn a_mark_with_approvals_needs_the_own_head_and_the_own_approvals() {
        let mark = SignMark::of_approvals(7, 10);
        let floor = for_claim(FloorSource::Exact(mark), wall(1000), Duration::from_millis(10));
        assert_eq!(floor, SignFloor::Mark(mark));
        let met = |height, approved| is_met(&floor, &Health { approved, ..head(height, 5000) }, false);
        assert!(met(7, 10) && met(8, 12), "no further block is awaited");
        assert!(!met(6, 10) && !met(6, 90), "a block or chunk of 7 could be made anew");
        assert!(!met(7, 9), "10 was skipped, and could be endorsed after a block of 9");
        assert!(!met(9, 0) && met(10, 0), "a node that does not tell has its head alone");
        let [ahead, behind] = [SignMark::of_approvals(7, 11), SignMark::of_approvals(6, 10)];
        assert_eq!(source(FloorSource::Exact(mark), Some(ahead)), FloorSource::Unknown);
        assert_eq!(source(FloorSource::Exact(mark), Some(behind)), FloorSource::Exact(mark));
        assert_eq!(of_replica(FloorSource::Unknown, Some(mark)), Some(SignFloor::Mark(mark)));
    }

    #[test]
    fn without_a_release_only_a_block_made_after_the_lease_was_won_will_do() {
        for source in [FloorSource::Unknown, FloorSource::NeverSigned] {
            let floor = for_claim(source, wall(1000), Duration::from_millis(10));
            assert!(!is_met(&floor, &head(90, 1010), false));
            assert!(is_met(&floor, &head(90, 1011), false));
            assert!(is_above(&floor, &head(90, 1011), 89));
            assert!(!is_above(&floor, &head(90, 1011), 90), "it was heard of before, by whatever clock");
        }
    }

    #[test]
    fn a_released_mark_is_exact_until_a_higher_one_is_seen() {
        let [six, seven, eight] = [6, 7, 8].map(SignMark::at_height);
        for seen in [None, Some(six), Some(seven)] {
            assert_eq!(source(FloorSource::Exact(seven), seen), FloorSource::Exact(seven), "{seen:?}");
        }
        assert_eq!(source(FloorSource::Exact(seven), Some(eight)), FloorSource::Unknown);
        assert_eq!(source(FloorSource::NeverSigned, Some(eight)), FloorSource::NeverSigned);
    }

    #[test]
    fn a_replica_goes_by_the_last_mark_seen_and_not_by_its_absence() {
        let (seven, nine) = (SignMark::at_height(7), SignMark::at_height(9));
        assert_eq!(of_replica(FloorSource::Unknown, Some(nine)), Some(SignFloor::Mark(nine)));
        assert_eq!(of_replica(FloorSource::Unknown, None), None, "somebody signed, nobody knows what");
        assert_eq!(of_replica(FloorSource::Exact(seven), Some(nine)), None, "exact is exact");
        assert_eq!(of_replica(FloorSource::NeverSigned, None), Some(SignFloor::None), "a chain's very start");
        assert_eq!(of_replica(FloorSource::NeverSigned, Some(nine)), Some(SignFloor::Mark(nine)));
    }

    #[test]
    fn an_operators_word_is_never_below_what_is_known() {
        let (seven, whole) = (SignMark::at_height(7), SignMark::whole_height);
        assert_eq!(of_operator(FloorSource::Exact(seven), 9, None, None), None, "exact is exact");
        for source in [FloorSource::Unknown, FloorSource::NeverSigned] {
            assert_eq!(of_operator(source, 9, Some(seven), None), Some(SignFloor::Mark(whole(9))));
            assert_eq!(of_operator(source, 6, Some(seven), None), Some(SignFloor::Mark(seven)));
            assert_eq!(of_operator(source, 9, None, Some(7)), Some(SignFloor::Mark(SignMark::of_approvals(7, 9))));
            let seen = SignMark::of_approvals(8, 12);
            assert_eq!(of_operator(source, 9, Some(seen), Some(7)), Some(SignFloor::Mark(seen)));
        }
    }

    #[test]
    fn a_node_that_tells_no_head_time_never_settles_by_time() {
        let floor = SignFloor::BlockAfter(wall(1000));
        let silent = Health { head_time: None, ..head(90, 0) };
        assert!(!is_met(&floor, &silent, true));
    }
}
