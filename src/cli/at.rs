//! `baton handover --at`: reads the moment, and waits for it on the wall clock of this host. Until then the wait is
//! this process alone: it ends with it, and nothing is asked of the cluster.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::anyhow;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::ends::{Ends, end_by};
use super::{Failure, print};
use crate::base::time::WallTime;
use crate::config::units;
use crate::host::chain::parse_rfc3339;
use crate::operator::explain::ago;

const DAY: Duration = Duration::from_secs(86_400);
/// Later than this is worth a line: the host was asleep, or its clock was set.
const LATE: Duration = Duration::from_secs(2);

/// A moment as it was written. Which one it is depends on when that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Moment(WallTime),
    /// The next time that it is so late in UTC, counted from midnight.
    OfDay(Duration),
    In(Duration),
}

impl At {
    /// RFC 3339 with a zone, `HH:MM` or `HH:MM:SS` in UTC, or `+` and a duration.
    pub(super) fn parse(text: &str) -> Result<At, String> {
        if let Some(duration) = text.strip_prefix('+') {
            return units::duration(duration).map(At::In);
        }
        let at = parse_rfc3339(text).map(At::Moment).or_else(|| of_day(text).map(At::OfDay));
        at.ok_or_else(|| {
            "write \"2026-06-14T09:30:00Z\" or another zone, \"09:30\" or \"09:30:00\" in UTC, or \"+30m\"".to_owned()
        })
    }

    /// # Errors
    /// It is not later than `now`.
    pub(super) fn after(self, now: WallTime) -> Result<WallTime, Failure> {
        let due = match self {
            At::Moment(moment) => moment,
            At::OfDay(of_day) => {
                let midnight = WallTime::from_nanos(now.as_nanos() - now.as_nanos() % DAY.as_nanos() as u64);
                let today = midnight + of_day;
                if today > now { today } else { today + DAY }
            }
            At::In(duration) => now + duration,
        };
        if due.since(now).is_zero() {
            return Err(Failure::BadInput(anyhow!("--at: {due} is not in the future: it is {now} here")));
        }
        if due == WallTime::from_nanos(u64::MAX) {
            return Err(Failure::BadInput(anyhow!("--at: that is after {due}, the last time that can be told")));
        }
        Ok(due)
    }
}

fn of_day(text: &str) -> Option<Duration> {
    let two = |part: &str| (part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse());
    let parts: Vec<u64> = text.split(':').map(|part| two(part)?.ok()).collect::<Option<_>>()?;
    let (hour, minute, second) = match parts[..] {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    let is_one = hour < 24 && minute < 60 && second < 60;
    is_one.then(|| Duration::from_secs(hour * 3600 + minute * 60 + second))
}

/// `in 3 h 20 min`, of seconds that have begun.
pub(super) fn how_long(due: WallTime, now: WallTime) -> String {
    let left = due.since(now);
    format!("in {}", ago(Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0))))
}

/// Returns once it is `due`, or later, by the wall clock. A signal to end means from then on what it means
/// to any other command.
///
/// # Errors
/// A signal to end came first.
pub(super) async fn wait(due: WallTime) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Failed(anyhow!("handover: not begun: wait for {due}: {error}"));
    // Before anything is said, so that nobody who reads it is too early.
    let mut ends = Ends::catch().map_err(failed)?;
    let alarm = Alarm::new().map_err(failed)?;
    print(&format!("handover at {due}, {}; until then Ctrl-C cancels it\n", how_long(due, WallTime::now())));
    let waited = tokio::select! {
        waited = until(due, WallTime::now, async |due| alarm.ring(due).await) => waited,
        _ = ends.next() => {
            let error = anyhow!("handover: cancelled before {due}; nothing was asked of the cluster");
            return Err(Failure::Failed(error));
        }
    };
    waited.map_err(failed)?;
    let now = WallTime::now();
    if now.since(due) > LATE {
        print(&format!("it is {now}, {} after that: this host slept, or its clock was set\n", ago(now.since(due))));
    }
    tokio::spawn(async move { end_by(ends.next().await) });
    Ok(())
}

/// `ring` returns at the time that it is given, or earlier when it cannot know when that is any more.
async fn until(
    due: WallTime,
    now: impl Fn() -> WallTime,
    ring: impl AsyncFn(WallTime) -> io::Result<()>,
) -> io::Result<()> {
    while now() < due {
        ring(due).await?;
    }
    Ok(())
}

/// A timer on CLOCK_REALTIME, which counts what the host sleeps.
struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    #[allow(unsafe_code)]
    fn new() -> io::Result<Alarm> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: an `OwnedFd` names one file descriptor for as long as it lives, and lives in the `AsyncFd`.
        let timer = unsafe { AsyncFd::register(timer) };
        Ok(Alarm(timer?))
    }

    /// Returns at `due`, and whenever the clock is set.
    async fn ring(&self, due: WallTime) -> io::Result<()> {
        let nanos = due.as_nanos();
        let at = Timespec { tv_sec: (nanos / 1_000_000_000) as _, tv_nsec: (nanos % 1_000_000_000) as _ };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        match timerfd_settime(self.0.get_ref(), flags, &Itimerspec { it_interval: never, it_value: at }) {
            // The clock was set since it was asked last; the timer is armed all the same.
            Ok(_) | Err(Errno::CANCELED) => {}
            Err(error) => return Err(error.into()),
        }
        loop {
            let mut ready = self.0.readable().await?;
            match rustix::io::read(self.0.get_ref(), &mut [0; 8]) {
                Ok(_) | Err(Errno::CANCELED) => return Ok(()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn moment(text: &str) -> WallTime {
        parse_rfc3339(text).expect("a time")
    }

    fn due(text: &str) -> Option<String> {
        let at = At::parse(text).expect("a time");
        at.after(moment("2026-06-14T09:30:00Z")).ok().map(|due| due.to_string())
    }

    #[test]
    fn a_moment_is_one_in_any_zone_a_time_of_day_in_utc_or_a_while_from_now() {
        for (text, expected) in [
            ("2026-06-14T09:30:01Z", "2026-06-14T09:30:01.000Z"),
            ("2026-06-14T12:00:00+02:00", "2026-06-14T10:00:00.000Z"),
            ("09:31", "2026-06-14T09:31:00.000Z"),
            ("09:30:01", "2026-06-14T09:30:01.000Z"),
            ("+90s", "2026-06-14T09:31:30.000Z"),
            ("+36h", "2026-06-15T21:30:00.000Z"),
        ] {
            assert_eq!(due(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_time_of_day_that_has_come_is_tomorrows() {
        for (text, expected) in [
            ("09:30", "2026-06-15T09:30:00.000Z"),
            ("09:29:59", "2026-06-15T09:29:59.000Z"),
            ("00:00", "2026-06-15T00:00:00.000Z"),
        ] {
            assert_eq!(due(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_in_the_future_is_refused() {
        for text in ["2026-06-14T09:30:00Z", "2026-06-14T09:31:00+01:00", "1969-01-01T00:00:00Z", "+0s", "+6000000h"] {
            assert_eq!(due(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_no_time() {
        for text in [
            "",
            "+",
            "soon",
            "9:30",
            "24:00",
            "09:60",
            "09:30:60",
            "09:30:00:00",
            "+9:30",
            "+30",
            "2026-06-14T09:30:00",
            "2026-06-14",
            "09:30Z",
            "é9:30",
        ] {
            assert!(At::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_left_is_told_in_seconds_that_have_begun() {
        let now = moment("2026-06-14T09:30:00Z");
        assert_eq!(how_long(now + Duration::from_millis(10), now), "in 1 s");
        assert_eq!(how_long(now + Duration::from_secs(12_000), now), "in 3 h 20 min");
    }

    /// Waits from 09:30:00 until 09:31:00 on a clock that shows one of `rings` after each ring; the time at which
    /// the wait ended, and how many rings were not needed.
    async fn waited(rings: &[&str]) -> (WallTime, usize) {
        let clock = RefCell::new((moment("2026-06-14T09:30:00Z"), rings.iter()));
        let ring = async |_| {
            let mut clock = clock.borrow_mut();
            clock.0 = moment(clock.1.next().expect("no more rings than needed"));
            Ok(())
        };
        until(moment("2026-06-14T09:31:00Z"), || clock.borrow().0, ring).await.expect("waited");
        let clock = clock.borrow();
        (clock.0, clock.1.len())
    }

    #[tokio::test]
    async fn a_clock_that_is_set_moves_the_end_of_the_wait_with_it() {
        let back = waited(&["2026-06-14T08:00:00Z", "2026-06-14T08:00:05Z", "2026-06-14T09:31:00Z"]).await;
        assert_eq!(back, (moment("2026-06-14T09:31:00Z"), 0));
        let forth = waited(&["2026-06-14T12:00:00Z", "2026-06-14T12:00:01Z"]).await;
        assert_eq!(forth, (moment("2026-06-14T12:00:00Z"), 1));
    }

    #[tokio::test]
    async fn the_timer_rings_when_it_is_time_and_at_once_when_that_has_passed() {
        let alarm = Alarm::new().expect("a timer");
        let soon = WallTime::now() + Duration::from_millis(50);
        until(soon, WallTime::now, async |due| alarm.ring(due).await).await.expect("rung");
        assert!(WallTime::now() >= soon);
        alarm.ring(moment("2026-06-14T09:30:00Z")).await.expect("rung");
    }
}
