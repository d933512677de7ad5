//! Messages over a socket of this host, as they are.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::connection::{Channel, Lost};
use super::proto::Message;
use super::{FrameBuffer, encode};

/// For the rest of a message that has begun.
const MESSAGE_TIME: Duration = Duration::from_secs(5);

pub(super) struct Plain<S> {
    stream: S,
    unread: FrameBuffer,
    chunk: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Plain<S> {
    pub(super) fn new(stream: S) -> Plain<S> {
        Plain { stream, unread: FrameBuffer::default(), chunk: vec![0; 4 << 10] }
    }

    /// Reads what is there, at least one byte. Cancelled, it has read nothing.
    async fn fill(&mut self) -> Result<(), Lost> {
        match self.stream.read(&mut self.chunk).await {
            Ok(0) => Err(Lost::Closed),
            Ok(read) => {
                self.unread.push(&self.chunk[..read]);
                Ok(())
            }
            Err(error) => Err(Lost::by("it cannot be read", &error)),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Channel for Plain<S> {
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

    async fn send(&mut self, message: Message) -> Result<(), Lost> {
        let written = self.stream.write_all(&encode(&message)).await;
        written.map_err(|error| Lost::by("an answer could not be written", &error))
    }
}
