//! One connection to a chain node: its requests are answered in order, one at a time, as it makes them.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::messages::{self, Next, Wanted};
use super::proto::Message;
use super::{ANSWER_MAX, Ask, Link, Refusal, Signed};
use crate::base::signing::PublicKey;

/// For the node to take an answer.
const ANSWER_TAKEN_MAX: Duration = Duration::from_secs(5);

/// A stream to a chain node, cut into messages.
pub trait Channel: Send {
    /// Cancelled, it has lost nothing.
    fn next(&mut self) -> impl Future<Output = Result<Message, Lost>> + Send;
    fn send(&mut self, message: Message) -> impl Future<Output = Result<(), Lost>> + Send;
}

/// What a connection needs to answer.
pub struct Desk<'a> {
    pub node: &'a str,
    pub public_key: &'a PublicKey,
    pub asks: &'a mpsc::Sender<Ask>,
    pub state: &'a watch::Sender<Link>,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// As when it ends.
    #[error("the chain node has closed its connection")]
    Closed,
    #[error("the connection to the chain node is closed: {0}")]
    Broken(String),
}

impl Lost {
    /// A node that ends has rarely read all that it was told.
    pub(super) fn by(what: &str, error: &io::Error) -> Lost {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Lost::Closed,
            _ => Lost::Broken(format!("{what}: {error}")),
        }
    }
}

pub async fn serve(channel: impl Channel, desk: &Desk<'_>) -> Lost {
    match (Connection { channel, early: None, desk }).run().await {
        Ok(never) => match never {},
        Err(lost) => lost,
    }
}

struct Connection<'a, C> {
    channel: C,
    /// What was said while an answer was awaited. What is said after it stays in the channel.
    early: Option<Message>,
    desk: &'a Desk<'a>,
}

impl<C: Channel> Connection<'_, C> {
    async fn run(mut self) -> Result<Infallible, Lost> {
        let mut has_refused = false;
        loop {
            let message = match self.early.take() {
                Some(message) => message,
                None => self.channel.next().await?,
            };
            self.heard();
            let answer = match messages::read(message, self.desk.public_key) {
                Next::Answer(answer) => answer,
                Next::Refuse(answer, why) => {
                    // It may ask the same with every vote: one line a connection.
                    if !std::mem::replace(&mut has_refused, true) {
                        tracing::warn!(node = self.desk.node, "the chain node's request is refused: {why}");
                    }
                    answer
                }
                Next::Sign(wanted) => {
                    let signed = self.ask(&wanted).await?;
                    wanted.answer(signed)
                }
            };
            timeout(ANSWER_TAKEN_MAX, self.channel.send(answer))
                .await
                .map_err(|_| Lost::Broken(format!("it has not taken an answer within {ANSWER_TAKEN_MAX:?}")))??;
        }
    }

    /// A connection that the node serves is one that it asks on.
    fn heard(&self) {
        let is_first = self.desk.state.send_if_modified(|link| match link {
            Link::Up { .. } => false,
            Link::Waiting { .. } | Link::Down { .. } => {
                *link = Link::Up { since: Instant::now() };
                true
            }
        });
        if is_first {
            tracing::info!(node = self.desk.node, "the chain node asks this coordinator for its signatures");
        }
    }

    /// A node that ends meanwhile is noticed: it may be there again within the time of an answer, and waits only 3 s
    /// for its signer.
    async fn ask(&mut self, wanted: &Wanted) -> Result<Result<Signed, Refusal>, Lost> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask {
            node: self.desk.node.to_owned(),
            bytes: wanted.bytes.clone(),
            extension: wanted.extension.clone(),
            asked_at: Instant::now(),
            answer,
        };
        let mut signed = std::pin::pin!(bounded(self.desk.asks, ask, answered));
        loop {
            tokio::select! {
                signed = &mut signed => return Ok(signed),
                // A node asks one thing at a time; whatever comes is kept for after the answer.
                message = self.channel.next(), if self.early.is_none() => self.early = Some(message?),
            }
        }
    }
}

/// The answer, or a refusal in its place within [`ANSWER_MAX`].
fn bounded(
    asks: &mpsc::Sender<Ask>,
    ask: Ask,
    answered: oneshot::Receiver<Result<Signed, Refusal>>,
) -> impl Future<Output = Result<Signed, Refusal>> {
    let nobody = |what: &str| Refusal(format!("baton {what}"));
    let signed = async move {
        asks.send(ask).await.map_err(|_| nobody("is stopping"))?;
        answered.await.unwrap_or_else(|_| Err(nobody("does not sign this")))
    };
    async move {
        let signed = timeout(ANSWER_MAX, signed).await;
        signed.unwrap_or_else(|_| Err(nobody(&format!("has no signature within {ANSWER_MAX:?}"))))
    }
}
