//! Frames between coordinator and signer: one protobuf message each, with its length before it. Either end ends the
//! connection at the first one that it does not understand.

use std::io::{self, Read};

use prost::Message;

#[allow(clippy::all)]
pub mod proto {
    tonic::include_proto!("baton.signer.v1");
}

/// Longest message in bytes, without the four of its length.
pub const FRAME_MAX: usize = 4 << 20;

/// Bytes of the length before a message.
pub const LENGTH_BYTES: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {len} bytes is longer than the {FRAME_MAX} allowed")]
    TooLong { len: usize },
    #[error("a frame is not understood: {0}")]
    Garbled(#[from] prost::DecodeError),
    #[error("the connection ended within a frame")]
    Cut,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One frame with its length before it.
///
/// # Errors
/// `TooLong`; nothing is to be sent.
pub fn encode(message: &impl Message) -> Result<Vec<u8>, FrameError> {
    let len = message.encoded_len();
    if len > FRAME_MAX {
        return Err(FrameError::TooLong { len });
    }
    let mut bytes = (len as u32).to_be_bytes().to_vec();
    bytes.extend(message.encode_to_vec());
    Ok(bytes)
}

/// The length of the message behind these bytes.
///
/// # Errors
/// `TooLong`, before any of it is read.
pub fn length(bytes: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    let len = u32::from_be_bytes(bytes) as usize;
    if len > FRAME_MAX { Err(FrameError::TooLong { len }) } else { Ok(len) }
}

/// The next frame; `None` where the stream ends before it. Waits as long as `stream` does.
///
/// # Errors
/// The stream has no more meaning: close it.
pub fn read<M: Message + Default>(stream: &mut impl Read) -> Result<Option<M>, FrameError> {
    let mut head = Vec::with_capacity(LENGTH_BYTES);
    stream.by_ref().take(LENGTH_BYTES as u64).read_to_end(&mut head)?;
    if head.is_empty() {
        return Ok(None);
    }
    let head = <[u8; LENGTH_BYTES]>::try_from(head.as_slice()).map_err(|_| FrameError::Cut)?;
    let len = length(head)?;
    // No larger than what has come.
    let mut body = Vec::new();
    stream.by_ref().take(len as u64).read_to_end(&mut body)?;
    if body.len() < len {
        return Err(FrameError::Cut);
    }
    Ok(Some(M::decode(body.as_slice())?))
}

#[cfg(test)]
mod tests {
    use super::proto::{PublicKeyRequest, Request, Reserve, request};
    use super::*;

    fn reserve(length: usize) -> Request {
        Request { id: 7, ask: Some(request::Ask::Reserve(Reserve { sign_bytes: vec![1; length] })) }
    }

    #[test]
    fn frames_come_out_whole_and_in_order_and_the_end_is_no_frame() {
        let sent = [reserve(100_000), Request { id: 8, ask: Some(request::Ask::PublicKey(PublicKeyRequest {})) }];
        let bytes: Vec<u8> = sent.iter().flat_map(|frame| encode(frame).unwrap()).collect();
        let mut stream = bytes.as_slice();
        for frame in &sent {
            assert_eq!(read::<Request>(&mut stream).unwrap().as_ref(), Some(frame));
        }
        assert_eq!(read::<Request>(&mut stream).unwrap(), None);
    }

    #[test]
    fn a_frame_that_is_cut_or_too_long_or_of_another_kind_is_an_error() {
        let whole = encode(&reserve(3)).unwrap();
        for cut in 1..whole.len() {
            assert!(matches!(read::<Request>(&mut &whole[..cut]), Err(FrameError::Cut)), "cut at {cut}");
        }
        let long = (FRAME_MAX as u32 + 1).to_be_bytes();
        assert!(matches!(read::<Request>(&mut &long[..]), Err(FrameError::TooLong { .. })));
        assert!(matches!(encode(&reserve(FRAME_MAX)), Err(FrameError::TooLong { .. })));
        assert!(matches!(read::<Request>(&mut &[0, 0, 0, 1, 0xff][..]), Err(FrameError::Garbled(_))));
    }
}
