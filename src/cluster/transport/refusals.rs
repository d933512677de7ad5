//! Connections that did not come about for want of a good certificate: counted all, told of now and then.
//! Whoever can reach the port could fill the log otherwise.

use std::fmt::Display;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::time::BootTime;

const TELL_EVERY: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Refusals {
    count: AtomicU64,
    told_at: Mutex<Option<BootTime>>,
}

impl Refusals {
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn note(&self, who: impl Display, why: impl Display) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if self.may_tell(BootTime::now()) {
            tracing::warn!(count, "refused a connection of {who}: {why}");
        } else {
            tracing::debug!("refused a connection of {who}: {why}");
        }
    }

    fn may_tell(&self, now: BootTime) -> bool {
        let mut told_at = self.told_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let may = told_at.is_none_or(|told_at| now.since(told_at) >= TELL_EVERY);
        if may {
            *told_at = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_counted_and_few_are_told() {
        let refusals = Refusals::default();
        let start = BootTime::now();
        assert!(refusals.may_tell(start));
        assert!(!refusals.may_tell(start + TELL_EVERY / 2));
        assert!(refusals.may_tell(start + TELL_EVERY));
        refusals.note("somebody", "a reason");
        refusals.note("somebody", "a reason");
        assert_eq!(refusals.count(), 2);
    }
}
