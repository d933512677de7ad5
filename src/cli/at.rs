//! `baton handover --at`: reads the moment, and waits for it on the wall clock of this host. Until then the wait is
//! this process alone: it ends with it, and nothing is asked of the cluster.

use std::io;
use std::time::Duration;

use anyhow::anyhow;
use tokio::time::sleep;

use super::ends::{Ends, end_by};
use super::{Failure, print};
use crate::base::time::WallTime;
use crate::config::units;
use crate::host::chain::parse_rfc3339;
use crate::operator::explain::ago;

/// Between two looks at the clock.
const LOOK_EVERY: Duration = Duration::from_secs(1);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
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

/// Since midnight in UTC.
pub(super) fn of_day(text: &str) -> Option<Duration> {
    let seconds = match text.len() {
        5 => ":00",
        8 => "",
        _ => return None,
    };
    parse_rfc3339(&format!("1970-01-01T{text}{seconds}Z")).map(|at| at.since(WallTime::default()))
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
    print(&format!("handover at {due}, {}; until then Ctrl-C cancels it\n", how_long(due, WallTime::now())));
    tokio::select! {
        () = until(due, LOOK_EVERY, WallTime::now) => {}
        _ = ends.next() => {
            let error = anyhow!("handover: cancelled before {due}; nothing was asked of the cluster");
            return Err(Failure::Failed(error));
        }
    }
    let now = WallTime::now();
    if now.since(due) > LATE {
        print(&format!("it is {now}, {} after that: this host slept, or its clock was set\n", ago(now.since(due))));
    }
    tokio::spawn(async move { end_by(ends.next().await) });
    Ok(())
}

/// The clock may be set, and goes on while the host sleeps.
async fn until(due: WallTime, every: Duration, mut now: impl FnMut() -> WallTime) {
    loop {
        let left = due.since(now());
        if left.is_zero() {
            return;
        }
        sleep(left.min(every)).await;
    }
}

#[cfg(test)]
mod tests {
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

    #[tokio::test]
    async fn a_clock_that_is_set_moves_the_end_of_the_wait_with_it() {
        let back = ["09:30:00", "08:00:00", "08:00:05", "09:30:59", "09:31:00"];
        for times in [&back[..], &["09:30:00", "12:00:00"]] {
            let mut looks = times.iter();
            let now =
                || WallTime::default() + of_day(looks.next().expect("no more looks than needed")).expect("a time");
            let due = WallTime::default() + of_day("09:31").expect("a time");
            until(due, Duration::from_millis(1), now).await;
            assert_eq!(looks.len(), 0, "{times:?}");
        }
    }
}
