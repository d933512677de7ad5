//! The moment at which an operator's handover begins. A chain that knows ahead when the validator has a block or a
//! chunk to produce tells windows without any; the move begins in one that is as long as the last moves took, or goes
//! without. It chooses a moment and nothing else: the handover is as safe at any other.

use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::report::Reporter;
use crate::core::agreed::replicated::{Move, MoveKind};
use crate::host::chain::ProbeError;
use crate::host::chain::near::windows::{Pace, Window, default_length, open_window};

/// The longest of this many last handovers tells how long one takes.
const HANDOVERS: usize = 5;

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
    let ask = || async move { effects.maintenance_window(length).await.ok_or(None)?.map_err(Some) };
    search(length, within, ask).await
}

/// `ask` fails with `None` where the chain tells no windows.
async fn search<A>(length: Duration, within: Duration, ask: impl Fn() -> A) -> String
where
    A: Future<Output = Result<(Pace, Option<Window>), Option<ProbeError>>>,
{
    let began = Instant::now();
    let mut last = "its chain node does not answer".to_owned();
    let note = |answer: Result<(&Pace, Option<&Window>), Option<ProbeError>>| {
        last = match answer.map_err(|error| error.map(|e| info!("a handover waits for no maintenance window: {e}")))? {
            (_, Some(window)) => format!("the next, {window}, begins in about {:.1?}", window.starts_in),
            (_, None) => "none came".to_owned(),
        };
        Ok(())
    };
    let found: Result<Option<Window>, Option<()>> = open_window(began + within, ask, note).await;
    let waited = began.elapsed();
    match found {
        Ok(Some(window)) => {
            format!("begun after {waited:.1?}: the validator has no block and no chunk to produce at {window}")
        }
        Ok(None) => format!(
            "begun after {waited:.1?} without {length:.1?} in which the validator has nothing to produce: {last}"
        ),
        Err(_) => String::new(),
    }
}

/// How long a handover takes, from the release until the next holder is active. `newest_first` are the moves so far.
fn last_took<'a>(newest_first: impl Iterator<Item = &'a Move>) -> Option<Duration> {
    let handovers = newest_first.filter(|row| row.kind == MoveKind::Handover).filter_map(|row| row.end);
    handovers.take(HANDOVERS).map(|end| end.gap.max(end.took)).max()
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
    const PACE: Pace = Pace { head: 18, block_time: Duration::from_millis(1) };

    fn window(starts_in: Duration) -> Option<Window> {
        Some(Window { heights: 25..40, starts_in, lasts: 9 * SECOND })
    }

    /// What the search says, and how often it has asked; `opens_in` is told by the number of the question.
    fn searched(within: Duration, opens_in: impl Fn(u32) -> Option<Duration>) -> (String, u32) {
        let asked = Cell::new(0);
        let ask = async || {
            asked.set(asked.get() + 1);
            Ok((PACE, opens_in(asked.get()).and_then(window)))
        };
        (search_with(within, ask), asked.get())
    }

    fn search_with(
        within: Duration,
        ask: impl AsyncFn() -> Result<(Pace, Option<Window>), Option<ProbeError>>,
    ) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(search(SECOND, within, || ask()))
    }

    #[test]
    fn it_begins_in_an_open_window_and_waits_for_one_that_opens_in_time() {
        let (open, asked) = searched(60 * SECOND, |_| Some(Duration::ZERO));
        let words = ": the validator has no block and no chunk to produce at heights 25 to 39 (15 blocks)";
        assert!(open.starts_with("begun after ") && open.ends_with(words) && asked == 1, "{open}");
        // The next epoch may have one; it opens; it is open.
        let (open, asked) = searched(60 * SECOND, |question| match question {
            1 => None,
            2 => Some(SECOND),
            _ => Some(Duration::ZERO),
        });
        assert!(open.ends_with(words) && asked == 3, "{open}, asked {asked} times");
    }

    #[test]
    fn it_begins_without_a_window_that_does_not_come_in_time() {
        let (far, asked) = searched(9 * SECOND, |_| Some(40 * SECOND));
        assert!(far.ends_with("the next, heights 25 to 39 (15 blocks), begins in about 40.0s") && asked == 1, "{far}");
        let ms = Duration::from_millis(20);
        let (over, _) = searched(ms, |_| None);
        assert!(over.ends_with(" without 1.0s in which the validator has nothing to produce: none came"), "{over}");
        let silent = search_with(ms, async || std::future::pending().await);
        assert!(silent.ends_with(": its chain node does not answer"), "{silent}");
        assert_eq!(search_with(60 * SECOND, async || Err(None)), "", "this chain tells no windows");
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
