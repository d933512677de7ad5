//! `baton handover --window`: waits until the validator has no block and no chunk to produce for long
//! enough, as the chain node of this host tells. Only neard knows such windows. It chooses a moment and
//! nothing else: the handover is as safe without it.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::config::{Config, DriverKind};
use crate::coordinator;
use crate::host::chain::near::Near;
use crate::host::chain::near::windows::{Window, default_length};

use super::client::Client;
use super::{Failure, print};

/// Between two questions to the node, unless a block comes sooner.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Returns within a window of which `length` is left, the default for how this host activates without one,
/// and says what is left of `timeout`.
///
/// # Errors
/// This host does not hold the baton, its node does not tell, or no such window comes within `timeout`.
pub(super) async fn wait(
    client: &mut Client,
    config: &Config,
    length: Option<Duration>,
    timeout: Duration,
) -> Result<Duration, Failure> {
    let give_up_at = Instant::now() + timeout;
    let chain = config.chain.as_ref().filter(|chain| chain.driver == DriverKind::Near);
    let Some(chain) = chain else {
        let error = anyhow::anyhow!("--window: only a near node tells maintenance windows; leave it out");
        return Err(Failure::BadInput(error));
    };
    let status = client.status().await?;
    if status.holder != status.member {
        let (member, holder) = (&status.member, &status.holder);
        let error = match holder.is_empty() {
            true => anyhow::anyhow!("handover: nobody holds the baton; there is nothing to hand over"),
            false => anyhow::anyhow!("handover: {member} does not hold the baton; ask {holder}, who does"),
        };
        return Err(Failure::Failed(error));
    }
    let keys = coordinator::key_reader().map_err(Failure::BadInput)?;
    let near = Near::new(chain, keys).map_err(|error| Failure::BadInput(error.into()))?;
    near.account().await.map_err(|error| Failure::BadInput(error.into()))?;
    let length = length.unwrap_or_else(|| default_length(&chain.activation));
    Search { near, length, timeout, give_up_at, shown: None }.run().await?;
    Ok(give_up_at.saturating_duration_since(Instant::now()))
}

struct Search {
    near: Near,
    length: Duration,
    timeout: Duration,
    give_up_at: Instant,
    /// The heights that were printed last.
    shown: Option<std::ops::Range<u64>>,
}

impl Search {
    async fn run(mut self) -> Result<(), Failure> {
        let mut last = "the node has not answered".to_owned();
        loop {
            let asked = timeout_at(self.give_up_at, self.near.next_window(self.length)).await;
            let pause = match asked {
                Err(_) => return Err(self.none_came(&last)),
                Ok(Ok((_, Some(window)))) if window.starts_in.is_zero() => {
                    self.show(&window);
                    return Ok(());
                }
                Ok(Ok((pace, Some(window)))) => {
                    self.show(&window);
                    last = format!("the next one, {window}, begins in about {}", about(window.starts_in));
                    if Instant::now() + window.starts_in > self.give_up_at {
                        return Err(self.none_came(&last));
                    }
                    pace.block_time.min(LOOK_EVERY)
                }
                Ok(Ok((pace, None))) => {
                    let blocks = pace.blocks_in(self.length);
                    last = format!("the node knows none of {blocks} blocks after height {} in this epoch", pace.head);
                    LOOK_EVERY
                }
                Ok(Err(error)) => {
                    last = error.to_string();
                    LOOK_EVERY
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = sleep_until(self.give_up_at) => return Err(self.none_came(&last)),
            }
        }
    }

    /// Once for each window.
    fn show(&mut self, window: &Window) {
        if self.shown.as_ref().is_some_and(|shown| shown.end == window.heights.end) {
            return;
        }
        let (lasts, starts) = (about(window.lasts), about(window.starts_in));
        let begins = if window.starts_in.is_zero() { "is open".into() } else { format!("begins in about {starts}") };
        print(&format!("maintenance window: {window}, about {lasts}; it {begins}\n"));
        self.shown = Some(window.heights.clone());
    }

    fn none_came(&self, last: &str) -> Failure {
        let (length, timeout) = (self.length, self.timeout);
        Failure::Failed(anyhow::anyhow!(
            "handover: not begun: no maintenance window of {length:?} within {timeout:?}: {last}; \
             raise --timeout, ask for a shorter --window=, or leave it out"
        ))
    }
}

fn about(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..7200 => format!("{} min", time.as_secs().div_ceil(60)),
        _ => format!("{:.1} h", time.as_secs_f64() / 3600.0),
    }
}
