//! How far a download is, for whoever waits for it, and whether it is still wanted.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

/// How often it is asked whether the work is still wanted while nothing comes.
const LOOK: Duration = Duration::from_millis(100);

pub(super) struct Watch<'a> {
    progress: &'a mut dyn FnMut(u64, Option<u64>) -> bool,
    pub(super) done: u64,
    pub(super) total: Option<u64>,
}

/// The work is not wanted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unwanted;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Unwanted,
    Late,
}

impl Watch<'_> {
    pub(super) fn new<'a>(progress: &'a mut dyn FnMut(u64, Option<u64>) -> bool) -> Watch<'a> {
        Watch { progress, done: 0, total: None }
    }

    pub(super) fn tell(&mut self) -> Result<(), Unwanted> {
        if (self.progress)(self.done, self.total) { Ok(()) } else { Err(Unwanted) }
    }

    /// Awaits `work` for at most `bound`, and no longer than it is wanted.
    pub(super) async fn within<T>(&mut self, bound: Duration, work: impl Future<Output = T>) -> Result<T, Cut> {
        let until = Instant::now() + bound;
        let mut work = pin!(work);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left.min(LOOK), work.as_mut()).await {
                Ok(result) => return Ok(result),
                Err(_) if Instant::now() >= until => return Err(Cut::Late),
                Err(_) => self.tell().map_err(|Unwanted| Cut::Unwanted)?,
            }
        }
    }

    /// # Errors
    /// When it is not wanted any more.
    pub(super) async fn pause(&mut self, length: Duration) -> Result<(), Unwanted> {
        match self.within(length, std::future::pending::<()>()).await {
            Ok(()) | Err(Cut::Late) => Ok(()),
            Err(Cut::Unwanted) => Err(Unwanted),
        }
    }
}
