//! Maintenance windows: runs of heights at which the validator has no block and no chunk to produce, which of them is
//! long enough to move the baton in, and the wait for it. Who hands over asks, at a command or in the coordinator. A
//! window chooses a moment and nothing else: the handover is as safe at any other.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::base::chain_node::Activation;

/// Between two questions to the node, unless a block comes sooner.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What a move takes with room to spare; a restart has to open its database first.
const HOT: Duration = Duration::from_secs(5);
const RESTART: Duration = Duration::from_secs(60);

/// How long a window has to be where nothing else is known.
pub fn default_length(activation: &Activation) -> Duration {
    match activation {
        Activation::Restart => RESTART,
        Activation::Signal(_) | Activation::Exec { .. } => HOT,
    }
}

/// The pace of the chain, from two of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Height of the newest block.
    pub head: u64,
    pub block_time: Duration,
}

/// A window, or what is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The end is not included.
    pub heights: Range<u64>,
    /// Estimated time until its first height is the next one to be produced; zero within it.
    pub starts_in: Duration,
    /// Estimated.
    pub lasts: Duration,
}

/// By its heights.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.heights;
        write!(f, "heights {start} to {} ({} blocks)", end - 1, end - start)
    }
}

impl Pace {
    /// Blocks that come in `length`, and one in reserve for a chain that speeds up.
    pub fn blocks_in(&self, length: Duration) -> u64 {
        let blocks = length.as_nanos().div_ceil(self.block_time.as_nanos().max(1));
        u64::try_from(blocks).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// The first window of which enough is left for `length`.
    pub fn choose(&self, windows: &[Range<u64>], length: Duration) -> Option<Window> {
        let (next, needed) = (self.head + 1, self.blocks_in(length));
        let left = |window: &Range<u64>| window.start.max(next)..window.end;
        let fits = |heights: &Range<u64>| heights.end.saturating_sub(heights.start) >= needed;
        let heights = windows.iter().map(left).filter(fits).min_by_key(|heights| heights.start)?;
        let time = |blocks: u64| self.block_time.saturating_mul(u32::try_from(blocks).unwrap_or(u32::MAX));
        let (starts_in, lasts) = (time(heights.start - next), time(heights.end - heights.start));
        Some(Window { heights, starts_in, lasts })
    }
}

/// Asks again and again until a window is open; `None` when none is by `until`, as soon as that is known. `note` hears
/// each answer, and ends the search with an error of its own.
pub async fn open_window<AskError, Ended, A>(
    until: Instant,
    ask: impl Fn() -> A,
    mut note: impl FnMut(Result<(&Pace, Option<&Window>), AskError>) -> Result<(), Ended>,
) -> Result<Option<Window>, Ended>
where
    A: Future<Output = Result<(Pace, Option<Window>), AskError>>,
{
    loop {
        let Ok(answer) = timeout_at(until, ask()).await else { return Ok(None) };
        let mut pause = LOOK_EVERY;
        match answer {
            Err(error) => note(Err(error))?,
            Ok((pace, window)) => {
                note(Ok((&pace, window.as_ref())))?;
                match window {
                    Some(window) if window.starts_in.is_zero() => return Ok(Some(window)),
                    Some(window) if Instant::now() + window.starts_in > until => return Ok(None),
                    Some(_) | None => pause = pause.min(pace.block_time),
                }
            }
        }
        if timeout_at(until, sleep(pause)).await.is_err() {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(head: u64) -> Pace {
        Pace { head, block_time: Duration::from_secs(1) }
    }

    fn heights(head: u64, windows: &[Range<u64>], secs: u64) -> Option<Range<u64>> {
        pace(head).choose(windows, Duration::from_secs(secs)).map(|window| window.heights)
    }

    #[test]
    fn the_first_window_with_enough_left_is_chosen() {
        let windows = [100..103, 110..114, 120..130];
        assert_eq!(heights(90, &windows, 2), Some(100..103));
        assert_eq!(heights(90, &windows, 3), Some(110..114));
        assert_eq!(heights(90, &windows, 9), Some(120..130));
        assert_eq!(heights(90, &windows, 10), None);
        assert_eq!(heights(111, &windows, 3), Some(120..130), "only 112 and 113 are left of the second");
        assert_eq!(heights(123, &windows, 5), Some(124..130));
        assert_eq!(heights(129, &windows, 0), None);
        assert_eq!(heights(90, &[120..130, 100..103], 2), Some(100..103), "in whatever order they come");
    }

    #[test]
    fn a_window_has_begun_when_its_first_height_is_the_next_one() {
        let windows = [100..110, 120..130];
        let starts_in = |head| pace(head).choose(&windows, Duration::from_secs(2)).expect("fits").starts_in;
        assert_eq!(starts_in(90), Duration::from_secs(9));
        assert_eq!(starts_in(98), Duration::from_secs(1));
        assert_eq!(starts_in(99), Duration::ZERO);
        assert_eq!(starts_in(105), Duration::ZERO);
    }

    #[test]
    fn a_block_more_than_the_time_takes_is_asked_for() {
        let pace = Pace { head: 1, block_time: Duration::from_millis(600) };
        assert_eq!(pace.blocks_in(Duration::from_secs(5)), 10);
        assert_eq!(pace.blocks_in(Duration::ZERO), 1);
    }
}
