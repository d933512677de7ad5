//! The stream between chain node and signer cut into messages: each stands behind its length, a varint.

use prost::Message as _;

use super::proto::Message;

/// Longest message that is read. The node's own signer reads 10 KiB; an extension may be longer than that.
pub const MESSAGE_MAX: usize = 2 << 20;
/// Longest encoding of a length.
const VARINT_MAX: usize = 10;

/// What no chain node says. The connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    #[error("its message of {bytes} bytes is longer than {MESSAGE_MAX}")]
    TooLong { bytes: usize },
    #[error("what it says is no message of a chain node to its signer: {0}")]
    Garbage(#[from] prost::DecodeError),
}

/// What was read of a stream and not yet taken.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// Of `bytes`, those that were taken: many short messages are not moved once each.
    taken: usize,
}

impl FrameBuffer {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..std::mem::take(&mut self.taken));
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub fn is_empty(&self) -> bool {
        self.unread().is_empty()
    }

    /// The next whole message; `None` until the rest of it was pushed.
    ///
    /// # Errors
    /// Nothing after it can be read.
    pub fn take(&mut self) -> Result<Option<Message>, BadMessage> {
        let mut rest = self.unread();
        let bytes = match prost::decode_length_delimiter(&mut rest) {
            Ok(bytes) if bytes > MESSAGE_MAX => return Err(BadMessage::TooLong { bytes }),
            Ok(bytes) => bytes,
            // Fewer bytes than that may be the beginning of one.
            Err(_) if self.unread().len() < VARINT_MAX => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(message) = rest.get(..bytes) else { return Ok(None) };
        let left = rest.len() - bytes;
        let message = Message::decode(message)?;
        self.taken = self.bytes.len() - left;
        Ok(Some(message))
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }
}

pub fn encode(message: &Message) -> Vec<u8> {
    message.encode_length_delimited_to_vec()
}
