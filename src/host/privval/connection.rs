//! One connection to a chain node: its requests are answered in order, one at a time, as it makes them.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::messages::{self, Next, Wanted};
use super::proto::Message;
use super::{ANSWER_MAX, Ask, FrameBuffer, Link, Refusal, Signed, encode};
use crate::base::signing::PublicKey;

/// For the rest of a message that has begun, and for the node to take an answer.
const MESSAGE_TIME: Duration = Duration::from_secs(5);

/// Whatever the node's address leads to.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

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
    fn by(what: &str, error: io::Error) -> Lost {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Lost::Closed,
            _ => Lost::Broken(format!("{what}: {error}")),
        }
    }
}

pub async fn serve(stream: impl Stream, desk: &Desk<'_>) -> Lost {
    let connection = Connection { stream, unread: FrameBuffer::default(), chunk: vec![0; 4 << 10], desk };
    match connection.run().await {
        Ok(never) => match never {},
        Err(lost) => lost,
    }
}

struct Connection<'a, S> {
    stream: S,
    unread: FrameBuffer,
    chunk: Vec<u8>,
    desk: &'a Desk<'a>,
}

impl<S: Stream> Connection<'_, S> {
    async fn run(mut self) -> Result<Infallible, Lost> {
        let mut has_refused = false;
        loop {
            let message = self.next().await?;
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
            let bytes = encode(&answer);
            match timeout(MESSAGE_TIME, self.stream.write_all(&bytes)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(Lost::by("an answer could not be written", error)),
                Err(_) => return Err(Lost::Broken(format!("it has not taken an answer within {MESSAGE_TIME:?}"))),
            }
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

    async fn next(&mut self) -> Result<Message, Lost> {
        loop {
            if let Some(message) = self.unread.take().map_err(|error| Lost::Broken(error.to_string()))? {
                return Ok(message);
            }
            if self.unread.is_empty() {
                self.fill().await?;
            } else {
                let rest = timeout(MESSAGE_TIME, self.fill()).await;
                rest.map_err(|_| Lost::Broken(format!("the rest of a message has not come within {MESSAGE_TIME:?}")))??;
            }
        }
    }

    /// Reads what is there, at least one byte. Cancelled, it has read nothing.
    async fn fill(&mut self) -> Result<(), Lost> {
        match self.stream.read(&mut self.chunk).await {
            Ok(0) => Err(Lost::Closed),
            Ok(read) => {
                self.unread.push(&self.chunk[..read]);
                Ok(())
            }
            Err(error) => Err(Lost::by("it cannot be read", error)),
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
                read = self.fill(), if !self.unread.is_full() => read?,
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
