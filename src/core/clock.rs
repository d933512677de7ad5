//! Whether this host's wall clock is right, as far as the other members' clocks tell. The sign floor after a failover
//! rests on it: a clock that is behind could let an old block pass, one that is ahead waits for a block that is long in
//! coming.
//!
//! It only ever forbids: a host whose clock is off is not chosen, and lets go while it settles.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Core;
use super::event::Action;
use super::fences::floor;
use super::tenure::{Reason, Tenure};
use crate::base::ids::NodeId;
use crate::base::time::{BootTime, Now};

/// Blocks above every head that was heard of when the lease was won, in this time besides `clock_skew`, and all of them
/// too old by their header times: then it is the clock of this host that is ahead.
const BLOCKS_TO_SETTLE: u64 = 3;
const TIME_TO_SETTLE: Duration = Duration::from_secs(2);

/// Gossip measures once a second, and takes whoever was not heard for three for out of reach (`cluster/gossip/table.rs`).
const MEASURED_ANEW: Duration = Duration::from_secs(5);

/// A member's wall clock minus this host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClockOffset {
    pub nanos: i64,
    /// The true offset is at most this much larger or smaller.
    pub error: Duration,
}

impl ClockOffset {
    fn size(self) -> Duration {
        Duration::from_nanos(self.nanos.unsigned_abs())
    }

    fn exceeds(self, bound: Duration) -> bool {
        self.size() > bound + self.error
    }
}

/// What is known of this host's wall clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct OwnClock {
    /// Against a majority, and by more than `clock_skew`.
    pub(super) off: Option<Duration>,
    /// A majority of the voters, this host included, is in reach and has the same time.
    agreed: bool,
    /// Since when it has been so, and behind the floor that it once gave.
    set_back_at: Option<BootTime>,
}

impl OwnClock {
    /// By how much it is off stands until most of those in reach agree, also when they are too few for a majority.
    fn compare(&mut self, offsets: &BTreeMap<NodeId, ClockOffset>, voters: &BTreeSet<NodeId>, bound: Duration) {
        let known: Vec<ClockOffset> =
            offsets.iter().filter(|(id, _)| voters.contains(*id)).map(|(_, offset)| *offset).collect();
        let off: Vec<Duration> =
            known.iter().filter(|offset| offset.exceeds(bound)).map(|offset| offset.size()).collect();
        let agree = known.len() - off.len();
        self.agreed = agree > off.len() && agree + 1 > voters.len() / 2;
        if off.len() > voters.len() / 2 {
            self.off = off.into_iter().min();
        } else if agree > off.len() {
            self.off = None;
        }
    }

    /// When a measure of it can no longer be from before it was set back.
    fn measured_anew_at(&self) -> Option<BootTime> {
        self.set_back_at.map(|at| at + MEASURED_ANEW)
    }
}

impl Core {
    pub(super) fn note_clock_offsets(&mut self, now: Now, offsets: &BTreeMap<NodeId, ClockOffset>) {
        let Some(voters) = self.voters.last() else { return };
        let before = self.clock.off;
        self.clock.compare(offsets, voters, self.settings.clock_skew);
        if before.is_some() && self.clock.off.is_none() {
            self.settle_by_right_clock(now);
        }
    }

    /// While it settles: nobody could say that the clock was ahead when the lease was won, and it has been set back since.
    pub(super) fn note_clock_set_back(&mut self, now: Now) {
        let awaited = self.tenure.as_ref().and_then(Tenure::awaits_block_after);
        let ahead = awaited.is_some_and(|after| after > now.wall + self.settings.clock_skew);
        if !ahead || !self.clock.agreed {
            self.clock.set_back_at = None;
            return;
        }
        self.clock.set_back_at.get_or_insert(now.boot);
        if self.clock.measured_anew_at().is_some_and(|at| now.boot >= at) {
            self.clock.set_back_at = None;
            self.settle_by_right_clock(now);
        }
    }

    pub(super) fn clock_wakeup(&self) -> Option<BootTime> {
        self.clock.measured_anew_at()
    }

    /// What was taken from the wrong clock is taken anew.
    ///
    /// Invariant (fence 3): the present moment is later than that in which the lease was won, and a majority agrees
    /// with the clock that tells it.
    fn settle_by_right_clock(&mut self, now: Now) {
        self.quiet_from(now);
        let skew = self.settings.clock_skew;
        if let Some(tenure) = &mut self.tenure {
            tenure.settle_anew(|source| floor::for_claim(source, now.wall, skew));
        }
    }

    /// While it settles by a wrong clock, another host could hold. Several blocks that are all too old say the same.
    pub(super) fn settles_by_wrong_clock(&self, now: BootTime, settling_since: BootTime) -> bool {
        let blocks = self.host.height().saturating_sub(self.head_heard());
        let too_many = blocks >= BLOCKS_TO_SETTLE && now >= self.settles_too_long_at(settling_since);
        self.clock.off.is_some() || too_many
    }

    /// From when on several blocks that are all too old speak against the clock.
    pub(super) fn settles_too_long_at(&self, settling_since: BootTime) -> BootTime {
        settling_since + self.settings.clock_skew + TIME_TO_SETTLE
    }

    pub(super) fn leave_to_right_clock(&mut self, now: Now, out: &mut Vec<Action>) {
        self.host.distrust(now.boot);
        self.let_go(now, Reason::ClockOff, None, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKEW: Duration = Duration::from_millis(200);
    const HOUR: i64 = 3_600_000_000_000;

    fn offsets(list: &[(&str, i64)]) -> BTreeMap<NodeId, ClockOffset> {
        let error = Duration::from_millis(5);
        list.iter().map(|(id, nanos)| ((*id).into(), ClockOffset { nanos: *nanos, error })).collect()
    }

    fn compared(list: &[(&str, i64)], before: Option<Duration>) -> OwnClock {
        let mut clock = OwnClock { off: before, ..OwnClock::default() };
        clock.compare(&offsets(list), &["a", "b", "c"].map(NodeId::from).into(), SKEW);
        clock
    }

    fn found_by_a(list: &[(&str, i64)], before: Option<Duration>) -> Option<Duration> {
        compared(list, before).off
    }

    #[test]
    fn a_clock_is_off_when_a_majority_says_so() {
        let hour = Some(Duration::from_nanos(HOUR.unsigned_abs()));
        assert_eq!(found_by_a(&[("b", -HOUR), ("c", -HOUR)], None), hour);
        assert_eq!(found_by_a(&[("b", -HOUR), ("c", 1)], None), None, "it is b's that is off");
        assert_eq!(found_by_a(&[("b", -HOUR)], None), None, "one against one");
        assert_eq!(found_by_a(&[("b", 204_000_000), ("c", 204_000_000)], None), None, "within the error");
        assert!(found_by_a(&[("b", 206_000_000), ("c", 206_000_000)], None).is_some());
        assert_eq!(found_by_a(&[("b", -HOUR), ("d", -HOUR)], None), None, "d has no vote");
    }

    #[test]
    fn what_a_majority_said_stands_until_those_in_reach_agree() {
        let hour = Some(Duration::from_nanos(HOUR.unsigned_abs()));
        assert_eq!(found_by_a(&[("c", -HOUR)], hour), hour, "b is lost");
        assert_eq!(found_by_a(&[], hour), hour);
        assert_eq!(found_by_a(&[("c", 3)], hour), None);
        assert_eq!(found_by_a(&[("b", -HOUR), ("c", 3)], hour), hour, "one says so, one does not");
    }

    #[test]
    fn a_clock_is_right_when_a_majority_says_so_and_not_when_nobody_does() {
        assert!(compared(&[("b", 1), ("c", -1)], None).agreed);
        assert!(compared(&[("c", -1)], None).agreed, "a and c are a majority");
        assert!(!compared(&[("b", HOUR), ("c", -1)], None).agreed, "one against one");
        assert!(!compared(&[], None).agreed && !compared(&[("d", 1)], None).agreed);
    }
}
