//! Looks at what the shared key signs on the chain, while the core wants to know: whether it is in use where no host of
//! the cluster is the holder. It only looks; what that proves is weighed by the core.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::debug;

use super::Hands;
use crate::base::chain_node::{KeyLook, KeyWork, OnChain, Shown};
use crate::base::time::{BootTime, WallTime};
use crate::core::Event;

/// Less than the time between two blocks of most chains.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What a chain counts may have been signed so many blocks earlier than it was counted.
const COUNTED_LATE_MAX: u64 = 3;
/// As many looks as there can be heights to go back to, with some that showed no new one.
const TRAIL_MAX: usize = 32;

pub(super) async fn watch(hands: Arc<Hands>) {
    let mut trail = Trail::default();
    while hands.chain.sees_key_on_chain() {
        if hands.core.read(|core, now| core.wants_key_look(now)) {
            match hands.chain.key_work().await {
                Ok(Some(work)) => {
                    if let Some(look) = trail.follow(work, WallTime::now()) {
                        debug!(height = look.height, signed = look.signed, "looked for the shared key on the chain");
                        hands.core.step(Event::KeyLooked(look));
                    }
                }
                // A key that no block names.
                Ok(None) => return,
                Err(error) => debug!("{error}"),
            }
        }
        sleep(BootTime::now().until_multiple_of(LOOK_EVERY)).await;
    }
}

/// What a chain counts is told by the difference of two looks, and may have been signed some blocks before the first.
#[derive(Default)]
struct Trail {
    counted: Option<OnChain>,
    /// Heights and header times of earlier looks, the oldest first.
    seen: VecDeque<(u64, WallTime)>,
}

impl Trail {
    /// The look that `work` makes after the ones before; `None` when it cannot tell yet, or shows no new block.
    fn follow(&mut self, work: KeyWork, looked_at: WallTime) -> Option<KeyLook> {
        let KeyWork { height, time, shown } = work;
        let counted = match shown {
            Shown::Signed(signed) => return Some(KeyLook { height, after: time, signed, looked_at }),
            Shown::Counted(counted) => counted,
        };
        let before = self.counted.replace(counted);
        let newest = self.seen.back().map(|(height, _)| *height);
        // Signed at the earliest so many blocks before the look before this one.
        let reach = newest.map(|newest| newest.saturating_sub(COUNTED_LATE_MAX));
        let after = self.seen.iter().rev().find(|(height, _)| Some(*height) <= reach).map(|(_, time)| *time);
        if newest.is_none_or(|newest| height > newest) {
            self.seen.push_back((height, time));
            while self.seen.len() > TRAIL_MAX {
                self.seen.pop_front();
            }
        }
        Some(KeyLook { height, after: after?, signed: counted.new_since(&before?).is_some(), looked_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> WallTime {
        WallTime::from_nanos(secs * 1_000_000_000)
    }

    /// One block a second, and `chunks` so far.
    fn counted(height: u64, chunks: u64) -> KeyWork {
        let counted = OnChain { epoch: 1, validates: true, blocks: 0, chunks, endorsements: 0 };
        KeyWork { height, time: at(height), shown: Shown::Counted(counted) }
    }

    #[test]
    fn a_signed_block_was_signed_after_its_header_time() {
        let work = KeyWork { height: 7, time: at(70), shown: Shown::Signed(true) };
        let look = Trail::default().follow(work, at(71));
        assert_eq!(look, Some(KeyLook { height: 7, after: at(70), signed: true, looked_at: at(71) }));
    }

    #[test]
    fn what_is_counted_may_have_been_signed_three_blocks_before_the_last_look() {
        let mut trail = Trail::default();
        for height in 10..13 {
            assert_eq!(
                trail.follow(counted(height, 5), at(100)),
                None,
                "{height}: nothing to compare with so far back"
            );
        }
        assert_eq!(trail.follow(counted(13, 5), at(100)), None);
        let look = trail.follow(counted(14, 5), at(100));
        assert_eq!(look, Some(KeyLook { height: 14, after: at(10), signed: false, looked_at: at(100) }));
        let look = trail.follow(counted(15, 6), at(101));
        assert_eq!(look, Some(KeyLook { height: 15, after: at(11), signed: true, looked_at: at(101) }));
        let look = trail.follow(counted(15, 6), at(102)).expect("told");
        assert!(!look.signed, "counted before: {look:?}");
    }

    #[test]
    fn what_was_counted_while_nobody_looked_may_be_as_old_as_the_look_before() {
        let mut trail = Trail::default();
        for height in 10..15 {
            trail.follow(counted(height, 5), at(100));
        }
        let look = trail.follow(counted(500, 90), at(600)).expect("told");
        assert_eq!((look.signed, look.after), (true, at(11)));
    }
}
