//! The moment at which an operator's handover begins. A chain that knows ahead when the validator has a block or a
//! chunk to produce tells windows without any; the move begins in one that is as long as the last moves took, or goes
//! without. It chooses a moment and nothing else: the handover is as safe at any other.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::info;

use super::report::Reporter;
use crate::core::agreed::replicated::{Move, MoveKind};
use crate::host::chain::ProbeError;
use crate::host::chain::near::windows::{Pace, Window, default_length};

/// The longest of this many last handovers tells how long one takes.
const HANDOVERS: usize = 5;
/// Between two questions to the chain node, unless a block comes sooner.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What to do about an answer of the chain node.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Begin, and tell the operator this.
    Begin(String),
    LookAgain {
        after: Duration,
    },
}

/// Returns when it has come, after `within` at the latest. What it says is for the operator; nothing where the chain
/// tells no windows.
pub(super) async fn come(reporter: &Reporter, within: Duration) -> String {
    let Some(effects) = reporter.effects.as_ref().filter(|_| !within.is_zero()) else { return String::new() };
    let length = {
        let state = reporter.applied.borrow();
        last_took(state.replicated.moves.iter().rev())
    };
    let chain = reporter.config.chain.as_ref();
    let Some(length) = length.or(chain.map(|chain| default_length(&chain.activation))) else { return String::new() };
    search(length, within, || effects.maintenance_window(length)).await
}

async fn search<A>(length: Duration, within: Duration, ask: impl Fn() -> A) -> String
where
    A: Future<Output = Option<Result<(Pace, Option<Window>), ProbeError>>>,
{
    let began = Instant::now();
    let mut last = "its chain node does not answer";
    loop {
        let Ok(answer) = timeout_at(began + within, ask()).await else {
            return without(length, began.elapsed(), last);
        };
        let waited = began.elapsed();
        let next = match answer {
            None => return String::new(),
            Some(Ok((pace, window))) => judge(&pace, window, length, waited, within.saturating_sub(waited)),
            Some(Err(error)) => {
                info!("a handover waits for no maintenance window: {error}");
                return String::new();
            }
        };
        match next {
            Next::Begin(words) => return words,
            Next::LookAgain { after } => {
                last = "none came";
                sleep(after).await;
            }
        }
    }
}

/// How long a handover takes, from the release until the next holder is active. `newest_first` are the moves so far.
fn last_took<'a>(newest_first: impl Iterator<Item = &'a Move>) -> Option<Duration> {
    let handovers = newest_first.filter(|row| row.kind == MoveKind::Handover).filter_map(|row| row.end);
    handovers.take(HANDOVERS).map(|end| end.gap.max(end.took)).max()
}

fn judge(pace: &Pace, window: Option<Window>, length: Duration, waited: Duration, left: Duration) -> Next {
    let pause = pace.block_time.min(LOOK_EVERY);
    match window {
        Some(window) if window.starts_in.is_zero() => Next::Begin(format!(
            "begun after {waited:.1?}: the validator has no block and no chunk to produce at {window}"
        )),
        Some(window) if window.starts_in > left => {
            let starts_in = window.starts_in;
            Next::Begin(without(length, waited, &format!("the next, {window}, begins in about {starts_in:.1?}")))
        }
        Some(_) | None if left.is_zero() => Next::Begin(without(length, waited, "none came")),
        Some(_) | None => Next::LookAgain { after: pause.min(left) },
    }
}

fn without(length: Duration, waited: Duration, because: &str) -> String {
    format!("begun after {waited:.1?} without {length:.1?} in which the validator has nothing to produce: {because}")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::base::chain_node::MetFloor;
    use crate::base::ids::Epoch;
    use crate::base::time::WallTime;
    use crate::core::agreed::replicated::MoveEnd;

    const SECOND: Duration = Duration::from_secs(1);
    const PACE: Pace = Pace { head: 18, block_time: Duration::from_millis(600) };

    fn window(starts_in: Duration) -> Option<Window> {
        Some(Window { heights: 25..40, starts_in, lasts: 9 * SECOND })
    }

    fn begun(next: Next) -> String {
        match next {
            Next::Begin(words) => words,
            Next::LookAgain { after } => panic!("looks again after {after:?}"),
        }
    }

    #[test]
    fn it_begins_in_an_open_window_and_waits_for_one_that_opens_in_time() {
        let open = begun(judge(&PACE, window(Duration::ZERO), SECOND, 2 * SECOND, 8 * SECOND));
        let words =
            "begun after 2.0s: the validator has no block and no chunk to produce at heights 25 to 39 (15 blocks)";
        assert_eq!(open, words);
        let again = Next::LookAgain { after: PACE.block_time };
        assert_eq!(judge(&PACE, window(3 * SECOND), SECOND, SECOND, 9 * SECOND), again);
        assert_eq!(judge(&PACE, None, SECOND, SECOND, 9 * SECOND), again, "the next epoch may have one");
        let rest = Duration::from_millis(5);
        assert_eq!(judge(&PACE, None, SECOND, SECOND, rest), Next::LookAgain { after: rest }, "no later than allowed");
    }

    #[test]
    fn it_begins_without_a_window_that_does_not_come_in_time() {
        let far = begun(judge(&PACE, window(40 * SECOND), SECOND, SECOND, 9 * SECOND));
        assert!(far.ends_with("the next, heights 25 to 39 (15 blocks), begins in about 40.0s"), "{far}");
        let over = begun(judge(&PACE, None, SECOND, 10 * SECOND, Duration::ZERO));
        assert_eq!(over, "begun after 10.0s without 1.0s in which the validator has nothing to produce: none came");
    }

    fn search_with(
        within: Duration,
        ask: impl AsyncFn() -> Option<Result<(Pace, Option<Window>), ProbeError>>,
    ) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(search(SECOND, within, || ask()))
    }

    #[test]
    fn the_chain_is_asked_until_a_window_is_open_and_no_longer_than_allowed() {
        let asked = Cell::new(0);
        let opens = search_with(60 * SECOND, async || {
            asked.set(asked.get() + 1);
            let pace = Pace { block_time: Duration::from_millis(1), ..PACE };
            Some(Ok((pace, window(if asked.get() < 3 { SECOND } else { Duration::ZERO }))))
        });
        assert!(opens.contains("no block and no chunk to produce at heights 25 to 39"), "{opens}");
        assert_eq!(asked.get(), 3);
        let silent = search_with(Duration::from_millis(5), async || std::future::pending().await);
        assert!(silent.ends_with(": its chain node does not answer"), "{silent}");
        assert_eq!(search_with(60 * SECOND, async || None), "", "this chain tells no windows");
    }

    fn row(kind: MoveKind, secs: Option<u32>) -> Move {
        let end = secs.map(|secs| MoveEnd {
            active_at: WallTime::default(),
            gap: secs * SECOND,
            took: SECOND,
            floor: MetFloor::default(),
        });
        let (to, claimed_at) = ("a".into(), WallTime::default());
        Move { epoch: Epoch(1), from: None, to, kind, reason: String::new(), claimed_at, end, laid: None }
    }

    #[test]
    fn the_longest_of_the_last_handovers_tells_how_long_one_takes() {
        use MoveKind::{Failover, Handover};
        let moves = [(Failover, Some(90)), (Handover, Some(2)), (Handover, None), (Handover, Some(3))];
        let moves = moves.map(|(kind, secs)| row(kind, secs));
        assert_eq!(last_took(moves.iter()), Some(3 * SECOND));
        let mut many = vec![row(Handover, Some(1)); HANDOVERS];
        many.push(row(Handover, Some(30)));
        assert_eq!(last_took(many.iter()), Some(SECOND), "that was long ago");
        assert_eq!(last_took([row(Failover, Some(1))].iter()), None);
    }
}
