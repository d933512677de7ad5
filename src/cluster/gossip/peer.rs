//! The sending side: one task a peer, which pushes the own record when it changed and exchanges
//! everything each second. A peer that hangs or is gone costs its own task one attempt a second, and one
//! for each time that it calls itself.

use std::error::Error;
use std::sync::Arc;

use tokio::time::{sleep, timeout};
use tonic::Status;
use tonic::transport::Channel;

use super::clock::ClockSample;
use super::{EXCHANGE_EVERY, FAILURES_MAX, PUSH_EVERY, RPC_TIMEOUT, Shared, Table, sender_of};
use crate::base::ids::NodeId;
use crate::base::time::{BootTime, WallTime};
use crate::cluster::identity::Stranger;
use crate::cluster::transport::MESSAGE_BYTES_MAX;
use crate::cluster::wire::WireError;
use crate::cluster::wire::proto::ExchangeRequest;
use crate::cluster::wire::proto::gossip_client::GossipClient;

#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error("no answer within {RPC_TIMEOUT:?}")]
    Timeout,
    #[error("{}", describe(.0))]
    Rpc(Status),
    #[error("its answer cannot be read: {0}")]
    Unreadable(#[from] WireError),
    #[error("its answer is refused: {0}")]
    Refused(#[from] Stranger),
}

pub(super) async fn run(shared: Arc<Shared>, peer: NodeId, channel: Channel) {
    let mut client = client(channel);
    let mut to_push = shared.to_push.subscribe();
    let mut table = shared.table.subscribe();
    // Nothing was heard yet: the first exchange is made at once.
    let mut failures: u32 = 1;
    let mut called_before = None;
    loop {
        let called_at = |table: &Table| table.get(&peer).and_then(|heard| heard.called_at);
        let next_exchange = sleep(BootTime::now().until_multiple_of(EXCHANGE_EVERY));
        let full = match failures {
            0 => tokio::select! {
                () = next_exchange => true,
                pushed = to_push.changed() => {
                    if pushed.is_err() {
                        return;
                    }
                    false
                }
            },
            // Whether the peer is gone or one message was lost is not left open for a second.
            1..FAILURES_MAX => true,
            // What was to be pushed goes with the full exchange.
            FAILURES_MAX.. => {
                // Who is back calls: it is not kept waiting for its answer, nor is whoever awaits it.
                tokio::select! {
                    () = next_exchange => {}
                    called = table.wait_for(|table| called_at(table) != called_before) => if called.is_err() { return },
                }
                true
            }
        };
        to_push.mark_unchanged();
        called_before = called_at(&shared.table());
        let (outcome, ()) = tokio::join!(exchange(&shared, &mut client, &peer, full), sleep(PUSH_EVERY));
        failures = match outcome {
            Ok(()) => 0,
            Err(error) => {
                note_failure(&shared, &peer, &error);
                failures.saturating_add(1)
            }
        };
    }
}

/// Pushes the own record once.
pub(super) async fn tell(shared: Arc<Shared>, peer: NodeId, channel: Channel) {
    if let Err(error) = exchange(&shared, &mut client(channel), &peer, false).await {
        tracing::debug!(%peer, %error, "gossip: not told");
    }
}

fn client(channel: Channel) -> GossipClient<Channel> {
    GossipClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
}

async fn exchange(
    shared: &Shared,
    client: &mut GossipClient<Channel>,
    peer: &NodeId,
    full: bool,
) -> Result<(), ExchangeError> {
    let table = shared.table();
    let records = if full { table.records() } else { vec![(**table.mine()).clone()] };
    let (sent_at, started) = (WallTime::now(), BootTime::now());
    let sender = Some((&shared.identity.me()).into());
    let request = ExchangeRequest { sender, records, full, sent_at_ns: sent_at.as_nanos() };
    let answer = timeout(RPC_TIMEOUT, client.exchange(request)).await;
    let now = BootTime::now();
    let answer = answer.map_err(|_| ExchangeError::Timeout)?.map_err(ExchangeError::Rpc)?.into_inner();

    let sender = sender_of(answer.sender, "ExchangeResponse")?;
    shared.identity.check_from(&sender, peer)?;
    let [received, answered] = [answer.received_at_ns, answer.answered_at_ns].map(WallTime::from_nanos);
    let sample = ClockSample::from_exchange(sent_at, received, answered, now.since(started));
    shared.merge(answer.records, now);
    let mut back = false;
    shared.update(|table| {
        back = table.get(peer).is_some_and(|heard| heard.exchanged_at.is_none() || heard.failures > 0);
        table.exchange_succeeded(peer, sample, now);
        true
    });
    if back {
        tracing::info!(%peer, rtt = ?sample.rtt, "gossip: peer answers");
    }
    Ok(())
}

fn note_failure(shared: &Shared, peer: &NodeId, error: &ExchangeError) {
    let text = error.to_string();
    let mut news = false;
    shared.update(|table| {
        news = table.exchange_failed(peer, &text);
        true
    });
    if news {
        tracing::warn!(%peer, error = text, "gossip: exchange failed");
    }
}

/// tonic's own text for a refused connection is "transport error"; the reason is in its sources.
fn describe(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut source = status.source();
    while let Some(error) = source {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        source = error.source();
    }
    text
}
