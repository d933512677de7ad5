//! The two clocks of baton. Leases live on [`BootTime`] alone; [`WallTime`] is compared with block
//! headers and shown to people, and never decides who may sign.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A point on CLOCK_BOOTTIME, nanoseconds since boot. It goes on through suspend, which
/// `std::time::Instant` (CLOCK_MONOTONIC) does not; it means nothing on another host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootTime(u64);

impl BootTime {
    pub fn now() -> Self {
        BootTime(read(ClockId::Boottime))
    }

    pub const fn from_nanos(nanos: u64) -> Self {
        BootTime(nanos)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero when `earlier` is the later one.
    pub fn since(self, earlier: BootTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Time to the next multiple of `every`, which is not zero. What has a pace and no other reason to be done at one
    /// moment or another waits for that, so that one wake-up serves all of it.
    pub fn until_multiple_of(self, every: Duration) -> Duration {
        let every = nanos(every);
        Duration::from_nanos(every - self.0 % every)
    }
}

impl Add<Duration> for BootTime {
    type Output = BootTime;
    fn add(self, d: Duration) -> BootTime {
        BootTime(self.0.saturating_add(nanos(d)))
    }
}

/// Saturates at boot.
impl Sub<Duration> for BootTime {
    type Output = BootTime;
    fn sub(self, d: Duration) -> BootTime {
        BootTime(self.0.saturating_sub(nanos(d)))
    }
}

/// How long this host has been suspended since boot: CLOCK_BOOTTIME − CLOCK_MONOTONIC. The two reads
/// are not atomic, so two results differ by microseconds without any suspend in between.
pub fn suspended() -> Duration {
    let monotonic = read(ClockId::Monotonic);
    Duration::from_nanos(read(ClockId::Boottime).saturating_sub(monotonic))
}

/// A point on CLOCK_REALTIME, nanoseconds since 1970. It may be stepped at any moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(u64);

impl WallTime {
    /// Before 1970 it is 1970.
    pub fn now() -> Self {
        WallTime(nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    pub const fn from_nanos(nanos: u64) -> Self {
        WallTime(nanos)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero when `earlier` is the later one.
    pub fn since(self, earlier: WallTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for WallTime {
    type Output = WallTime;
    fn add(self, d: Duration) -> WallTime {
        WallTime(self.0.saturating_add(nanos(d)))
    }
}

/// Saturates at 1970.
impl Sub<Duration> for WallTime {
    type Output = WallTime;
    fn sub(self, d: Duration) -> WallTime {
        WallTime(self.0.saturating_sub(nanos(d)))
    }
}

impl fmt::Display for WallTime {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = OffsetDateTime::from_unix_timestamp_nanos(self.0.into()).map_err(|_| fmt::Error)?;
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second, millis) = at.to_hms_milli();
        write!(f, "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z", u8::from(month))
    }
}

/// The moment of an event on both clocks, read by the caller: what decides never reads a clock itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Now {
    pub boot: BootTime,
    pub wall: WallTime,
}

impl Now {
    pub fn read() -> Self {
        Now { boot: BootTime::now(), wall: WallTime::now() }
    }
}

fn read(clock: ClockId) -> u64 {
    let t = clock_gettime(clock);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_reads_as_rfc_3339() {
        assert_eq!(WallTime::from_nanos(0).to_string(), "1970-01-01T00:00:00.000Z");
        let leap_day = WallTime::from_nanos(1_709_208_000_123_000_000);
        assert_eq!(leap_day.to_string(), "2024-02-29T12:00:00.123Z");
    }

    #[test]
    fn what_has_a_pace_meets_at_its_multiples() {
        let (second, at) = (Duration::from_secs(1), |millis: u64| BootTime::from_nanos(millis * 1_000_000));
        assert_eq!(at(2_300).until_multiple_of(second), Duration::from_millis(700));
        assert_eq!(at(2_999).until_multiple_of(second), Duration::from_millis(1));
        assert_eq!(at(3_000).until_multiple_of(second), second, "the one that has begun was served");
    }

    #[test]
    fn boot_time_never_wraps() {
        let start = BootTime::from_nanos(5);
        assert_eq!(start - Duration::from_secs(1), BootTime::from_nanos(0));
        assert_eq!(start.since(start + Duration::from_secs(1)), Duration::ZERO);
    }
}
