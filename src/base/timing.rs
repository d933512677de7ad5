//! The durations of the lease and the inequalities between them (fence 1). Everything that compares
//! a time with a lease gets its numbers here; nothing here reads a clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::time::BootTime;

/// How long a leader's lease is, and by which error of the clocks it is measured. It travels with every request of a
/// leader, since its followers may be configured with another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseSpan {
    lease: Duration,
    drift_ppm: u32,
}

impl LeaseSpan {
    /// # Errors
    /// A value is out of the range of [`Timing`].
    pub fn new(lease: Duration, drift_ppm: u32) -> Result<LeaseSpan, TimingError> {
        check_range("lease", lease, LEASE_MAX)?;
        check_drift(drift_ppm)?;
        Ok(LeaseSpan { lease, drift_ppm })
    }

    pub fn lease(self) -> Duration {
        self.lease
    }

    pub fn drift_ppm(self) -> u32 {
        self.drift_ppm
    }

    /// `lease·(1+ρ)`: how long a promise of such a lease is kept, by the clock of who made it.
    pub fn promise(self) -> Duration {
        self.lease + self.drift()
    }

    /// The longer lease, measured by the larger error: a promise of it covers both.
    pub fn joined(self, other: LeaseSpan) -> LeaseSpan {
        LeaseSpan { lease: self.lease.max(other.lease), drift_ppm: self.drift_ppm.max(other.drift_ppm) }
    }

    fn drift(self) -> Duration {
        // In whole nanoseconds and rounded up, so that no float rounds towards danger.
        let nanos = self.lease.as_nanos() * u128::from(self.drift_ppm);
        Duration::from_nanos(nanos.div_ceil(1_000_000) as u64)
    }
}

/// The longest lease that can be configured.
const LEASE_MAX: Duration = Duration::from_secs(120);
const DRIFT_PPM_MAX: u32 = 100_000;
/// A disk on which a vote takes longer is no member's.
const VOTE_MAX: Duration = Duration::from_secs(2);
const SHORTEST: Duration = Duration::from_millis(10);

/// Durations that satisfy the inequalities below: it cannot be built otherwise.
///
/// With ρ = `drift_ppm` / 10⁶, the assumed bound on the error of a host's clock rate:
/// - `deadline = acked_at + lease·(1−ρ) − kill_max`: the guard fires here, and has `kill_max` to
///   kill before the shortest promise that any clock can measure runs out;
/// - a member keeps its promise for `lease·(1+ρ)` by its own clock;
/// - `3·heartbeat + kill_max < lease·(1−ρ)`: two lost heartbeats in a row cost no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Timing {
    heartbeat: Duration,
    lease: Duration,
    kill_max: Duration,
    drift_ppm: u32,
}

/// As somebody wrote it down.
#[derive(Deserialize)]
struct Unchecked {
    heartbeat: Duration,
    lease: Duration,
    kill_max: Duration,
    drift_ppm: u32,
}

impl TryFrom<Unchecked> for Timing {
    type Error = TimingError;

    fn try_from(Unchecked { heartbeat, lease, kill_max, drift_ppm }: Unchecked) -> Result<Timing, TimingError> {
        Timing::new(heartbeat, lease, kill_max, drift_ppm)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    #[error(
        "timing.lease = {lease:?} is too short: 3 × heartbeat ({heartbeat:?}) + kill_max ({kill_max:?}) = \
         {needed:?} must be less than lease × (1 − {drift_ppm} ppm) = {lease_min:?}; raise lease or lower heartbeat"
    )]
    LeaseTooShort {
        lease: Duration,
        heartbeat: Duration,
        kill_max: Duration,
        drift_ppm: u32,
        needed: Duration,
        lease_min: Duration,
    },
    #[error("timing.{name} = {value:?} is out of range; use {min:?} to {max:?}")]
    OutOfRange { name: &'static str, value: Duration, min: Duration, max: Duration },
    #[error("timing.drift_ppm = {0} is out of range; use 0 to 100000 (parts per million)")]
    DriftOutOfRange(u32),
}

impl Timing {
    /// One data centre: heartbeat 150 ms, lease 1 s, kill_max 150 ms, 1000 ppm.
    pub const LAN: Timing = Timing {
        heartbeat: Duration::from_millis(150),
        lease: Duration::from_secs(1),
        kill_max: Duration::from_millis(150),
        drift_ppm: 1000,
    };

    /// Hosts in one place that grant the real-time priority: heartbeat 60 ms, lease 400 ms, kill_max 80 ms, 1000 ppm.
    pub const FAST: Timing = Timing {
        heartbeat: Duration::from_millis(60),
        lease: Duration::from_millis(400),
        kill_max: Duration::from_millis(80),
        drift_ppm: 1000,
    };

    /// Where the log decides what is signed, for round trips up to 40 ms: heartbeat 110 ms, lease 450 ms, kill_max 80 ms,
    /// 1000 ppm. No safety rests on this lease; a request that no quorum answers is refused after two of it.
    pub const SIGNER: Timing = Timing {
        heartbeat: Duration::from_millis(110),
        lease: Duration::from_millis(450),
        kill_max: Duration::from_millis(80),
        drift_ppm: 1000,
    };

    /// Across regions: heartbeat 400 ms, lease 3 s, kill_max 300 ms, 1000 ppm.
    pub const WAN: Timing = Timing {
        heartbeat: Duration::from_millis(400),
        lease: Duration::from_secs(3),
        kill_max: Duration::from_millis(300),
        drift_ppm: 1000,
    };

    /// # Errors
    /// When a value is out of its range or an inequality does not hold; nothing is adjusted.
    pub fn new(
        heartbeat: Duration,
        lease: Duration,
        kill_max: Duration,
        drift_ppm: u32,
    ) -> Result<Timing, TimingError> {
        let ms = Duration::from_millis;
        for (name, value, max) in
            [("heartbeat", heartbeat, ms(10_000)), ("lease", lease, LEASE_MAX), ("kill_max", kill_max, ms(10_000))]
        {
            check_range(name, value, max)?;
        }
        check_drift(drift_ppm)?;
        let timing = Timing { heartbeat, lease, kill_max, drift_ppm };
        let needed = 3 * heartbeat + kill_max;
        let lease_min = timing.lease_min();
        if needed < lease_min {
            Ok(timing)
        } else {
            Err(TimingError::LeaseTooShort { lease, heartbeat, kill_max, drift_ppm, needed, lease_min })
        }
    }

    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    pub fn lease(&self) -> Duration {
        self.lease
    }

    pub fn kill_max(&self) -> Duration {
        self.kill_max
    }

    pub fn drift_ppm(&self) -> u32 {
        self.drift_ppm
    }

    pub fn span(&self) -> LeaseSpan {
        LeaseSpan { lease: self.lease, drift_ppm: self.drift_ppm }
    }

    /// `lease·(1−ρ)`: what the holder may count on.
    pub fn lease_min(&self) -> Duration {
        self.lease - self.span().drift()
    }

    /// `lease·(1+ρ)`: how long a member keeps its promise, unless the leader's lease is longer.
    pub fn promise(&self) -> Duration {
        self.span().promise()
    }

    /// The longest promise that any member can have been configured to make, by this one's clock.
    pub fn promise_max() -> Duration {
        LeaseSpan { lease: LEASE_MAX, drift_ppm: DRIFT_PPM_MAX }.promise()
    }

    /// How long a candidate waits for a vote: as long as the slowest disk of a quorum takes, within reason. openraft
    /// wants it shorter than its own lease, which is a heartbeat shorter than ours.
    pub fn vote_max(&self) -> Duration {
        (self.lease - self.heartbeat - Duration::from_millis(1)).min(VOTE_MAX)
    }

    /// The longest time-out of a watchdog that can be fed while a lease lives: it must run out before the lease does, also
    /// when an answer came a heartbeat late, and not before the guard has had `kill_max` to kill.
    pub fn watchdog_max(&self) -> Duration {
        self.lease_min() - self.kill_max - self.heartbeat
    }

    /// When the guard fires for a lease that a quorum acknowledged with requests sent at `acked_at`.
    pub fn deadline(&self, acked_at: BootTime) -> BootTime {
        let deadline = acked_at + (self.lease_min() - self.kill_max);
        assert!(deadline + self.kill_max <= acked_at + self.lease, "the guard would fire after the lease");
        deadline
    }
}

fn check_range(name: &'static str, value: Duration, max: Duration) -> Result<(), TimingError> {
    if value < SHORTEST || value > max {
        return Err(TimingError::OutOfRange { name, value, min: SHORTEST, max });
    }
    Ok(())
}

fn check_drift(drift_ppm: u32) -> Result<(), TimingError> {
    if drift_ppm > DRIFT_PPM_MAX { Err(TimingError::DriftOutOfRange(drift_ppm)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_profiles_satisfy_their_own_inequalities() {
        for profile in [Timing::FAST, Timing::LAN, Timing::SIGNER, Timing::WAN] {
            let again = Timing::new(profile.heartbeat, profile.lease, profile.kill_max, profile.drift_ppm);
            assert_eq!(again, Ok(profile));
        }
    }

    #[test]
    fn a_timing_that_is_read_satisfies_them_too() {
        let read = |timing: &Timing| {
            let text = serde_json::to_string(timing).expect("numbers are JSON");
            serde_json::from_str::<Timing>(&text)
        };
        assert_eq!(read(&Timing::LAN).expect("as it was written"), Timing::LAN);
        let refused = read(&Timing { kill_max: ms(900), ..Timing::LAN }).expect_err("no lease is left");
        assert!(refused.to_string().contains("timing.lease = 1s is too short"), "{refused}");
    }

    #[test]
    fn a_lease_that_two_lost_heartbeats_would_end_is_refused_with_its_numbers() {
        let error = Timing::new(ms(150), ms(600), ms(150), 1000).unwrap_err();
        assert!(matches!(error, TimingError::LeaseTooShort { .. }));
        let text = error.to_string();
        assert!(text.contains("600ms") && text.contains("599.4ms"), "{text}");
    }

    #[test]
    fn the_deadline_leaves_kill_max_before_the_earliest_end_of_any_promise() {
        let sent = BootTime::from_nanos(5_000_000_000);
        let deadline = Timing::LAN.deadline(sent);
        assert_eq!(deadline, sent + ms(999 - 150));
        assert!(deadline + Timing::LAN.kill_max() < sent + Timing::LAN.promise());
    }

    #[test]
    fn the_devices_of_most_hosts_take_whole_seconds_which_only_a_long_lease_has_room_for() {
        assert_eq!(Timing::WAN.watchdog_max(), ms(2997 - 300 - 400));
        assert!([Timing::FAST, Timing::LAN].iter().all(|timing| timing.watchdog_max() < ms(1000)));
    }

    #[test]
    fn a_promise_of_two_spans_covers_the_longer_lease_by_the_worse_clock() {
        let short = LeaseSpan::new(ms(1000), 100_000).unwrap();
        let long = LeaseSpan::new(ms(3000), 1000).unwrap();
        for joined in [short.joined(long), long.joined(short)] {
            assert_eq!(joined.promise(), ms(3300));
        }
        assert!(LeaseSpan::new(ms(120_001), 0).is_err() && LeaseSpan::new(ms(1000), 100_001).is_err());
        assert_eq!(Timing::promise_max(), ms(132_000));
    }

    #[test]
    fn zero_and_huge_values_are_refused_by_name() {
        let error = Timing::new(Duration::ZERO, ms(1000), ms(150), 1000).unwrap_err();
        assert!(error.to_string().starts_with("timing.heartbeat"), "{error}");
        assert_eq!(Timing::new(ms(150), ms(1000), ms(150), 200_000), Err(TimingError::DriftOutOfRange(200_000)));
    }
}
