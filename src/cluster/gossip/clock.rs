//! Round-trip time and clock offset of one peer from the four times of an exchange. Pure; kept in the
//! table, fed by the peer tasks. For warnings and people only: no lease depends on it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::time::WallTime;

/// Samples remembered. The one with the smallest round trip counts, of those since the last step of either clock.
const SAMPLES: usize = 8;

/// What one exchange tells of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockSample {
    /// Time on the way, there and back, without the peer's own work.
    pub rtt: Duration,
    /// The peer's wall clock minus this host's, nanoseconds; wrong by at most half of `rtt`.
    pub offset: i64,
}

impl ClockSample {
    /// NTP's estimate (RFC 5905, section 8): half of the asymmetry of the two directions. `sent` is
    /// this host's wall clock, `received` and `answered` the peer's; `took` is measured on a clock that
    /// nobody steps.
    pub fn from_exchange(sent: WallTime, received: WallTime, answered: WallTime, took: Duration) -> ClockSample {
        let rtt = took.saturating_sub(answered.since(received));
        let [t1, t2, t3] = [sent, received, answered].map(|time| i128::from(time.as_nanos()));
        let t4 = t1 + took.as_nanos() as i128;
        let offset = ((t2 - t1) + (t3 - t4)) / 2;
        let offset = i64::try_from(offset).unwrap_or(if offset < 0 { i64::MIN } else { i64::MAX });
        ClockSample { rtt, offset }
    }

    /// Whether both can be of one true offset, by which each is wrong by half of its round trip at most.
    fn agrees_with(self, other: ClockSample) -> bool {
        let apart = Duration::from_nanos(self.offset.abs_diff(other.offset));
        apart <= (self.rtt + other.rtt) / 2
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct ClockFilter {
    samples: VecDeque<ClockSample>,
}

impl ClockFilter {
    pub(super) fn add(&mut self, sample: ClockSample) {
        self.samples.retain(|earlier| earlier.agrees_with(sample));
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    pub(super) fn best(&self) -> Option<ClockSample> {
        self.samples.iter().copied().min_by_key(|sample| sample.rtt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn sample(there: u64, work: u64, back: u64, peer_ahead: u64) -> ClockSample {
        let sent = WallTime::from_nanos(1_000_000_000_000);
        let received = sent + ms(there + peer_ahead);
        ClockSample::from_exchange(sent, received, received + ms(work), ms(there + work + back))
    }

    #[test]
    fn equal_ways_give_the_exact_offset_and_the_peers_work_is_not_on_the_way() {
        let sample = sample(10, 30, 10, 5000);
        assert_eq!(sample, ClockSample { rtt: ms(20), offset: 5_000_000_000 });
    }

    #[test]
    fn unequal_ways_are_wrong_by_at_most_half_a_round_trip() {
        let sample = sample(90, 0, 10, 0);
        assert_eq!(sample.offset, 40_000_000);
        assert!(sample.offset.unsigned_abs() <= sample.rtt.as_nanos() as u64 / 2);
    }

    #[test]
    fn the_quickest_of_the_last_eight_counts_and_no_older_one() {
        let mut filter = ClockFilter::default();
        filter.add(sample(1, 0, 1, 20));
        for _ in 0..7 {
            filter.add(sample(40, 0, 0, 0));
        }
        assert_eq!(filter.best(), Some(ClockSample { rtt: ms(2), offset: 20_000_000 }));
        filter.add(sample(3, 0, 3, 20));
        assert_eq!(filter.best(), Some(ClockSample { rtt: ms(6), offset: 20_000_000 }));
    }

    #[test]
    fn what_was_measured_before_a_clock_was_set_counts_no_more() {
        let mut filter = ClockFilter::default();
        filter.add(sample(1, 0, 1, 700));
        filter.add(sample(40, 0, 40, 0));
        assert_eq!(filter.best(), Some(ClockSample { rtt: ms(80), offset: 0 }));
    }

    #[test]
    fn a_peer_with_a_senseless_clock_is_far_off_but_does_no_harm() {
        let (early, late) = (WallTime::from_nanos(0), WallTime::from_nanos(u64::MAX));
        assert_eq!(ClockSample::from_exchange(early, late, late, ms(1)).offset, i64::MAX);
        assert_eq!(ClockSample::from_exchange(late, early, early, ms(1)).offset, i64::MIN);
        assert_eq!(ClockSample::from_exchange(early, early, late, ms(1)).rtt, Duration::ZERO);
    }
}
