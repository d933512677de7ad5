//! A time in the past, as commands that read a record take it.

use std::time::Duration;

use super::at::{DAY, of_day};
use crate::base::time::WallTime;
use crate::config::units;
use crate::host::chain::parse_rfc3339;

/// A moment in the past, as it was written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment {
    At(WallTime),
    OfDay(Duration),
    Ago(Duration),
}

impl Moment {
    pub(super) fn parse(text: &str) -> Result<Moment, String> {
        let at = parse_rfc3339(text).map(Moment::At).or_else(|| of_day(text).map(Moment::OfDay));
        at.or_else(|| units::duration(text).ok().map(Moment::Ago)).ok_or_else(|| {
            "write \"2026-06-14T09:30:00Z\" or another zone, \"09:30\" or \"09:30:00\" in UTC, or \"30m\"".to_owned()
        })
    }

    /// With `now` as the present.
    pub(super) fn before(self, now: WallTime) -> WallTime {
        match self {
            Moment::At(at) => at,
            Moment::OfDay(of_day) => {
                let midnight = WallTime::from_nanos(now.as_nanos() - now.as_nanos() % DAY.as_nanos() as u64);
                let today = midnight + of_day;
                if today <= now { today } else { today - DAY }
            }
            Moment::Ago(ago) => now - ago,
        }
    }
}
