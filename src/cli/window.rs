//! `baton handover --window`: waits until the validator has no block and no chunk to produce for long
//! enough, as the chain node of this host tells. Only neard knows such windows. It chooses a moment and
//! nothing else: the handover is as safe without it.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Config, DriverKind};
use crate::coordinator;
use crate::host::chain::ProbeError;
use crate::host::chain::near::Near;
use crate::host::chain::near::windows::{Pace, Window, default_length, open_window};

use super::client::Client;
use super::{Failure, print};

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
    let (mut last, mut shown) = ("the node has not answered".to_owned(), None);
    let note = |answer: Result<(&Pace, Option<&Window>), ProbeError>| {
        last = match answer {
            Ok((_, Some(window))) => {
                // Once for each window.
                if shown.replace(window.heights.end) != Some(window.heights.end) {
                    show(window);
                }
                format!("the next one, {window}, begins in about {}", about(window.starts_in))
            }
            Ok((pace, None)) => {
                let blocks = pace.blocks_in(length);
                format!("the node knows none of {blocks} blocks after height {} in this epoch", pace.head)
            }
            Err(error) => error.to_string(),
        };
        Ok::<(), Infallible>(())
    };
    let Ok(opened) = open_window(give_up_at, || near.next_window(length), note).await;
    if opened.is_none() {
        return Err(Failure::Failed(anyhow::anyhow!(
            "handover: not begun: no maintenance window of {length:?} within {timeout:?}: {last}; \
             raise --timeout, ask for a shorter --window=, or leave it out"
        )));
    }
    Ok(give_up_at.saturating_duration_since(Instant::now()))
}

fn show(window: &Window) {
    let (lasts, starts) = (about(window.lasts), about(window.starts_in));
    let begins = if window.starts_in.is_zero() { "is open".into() } else { format!("begins in about {starts}") };
    print(&format!("maintenance window: {window}, about {lasts}; it {begins}\n"));
}

fn about(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..7200 => format!("{} min", time.as_secs().div_ceil(60)),
        _ => format!("{:.1} h", time.as_secs_f64() / 3600.0),
    }
}
