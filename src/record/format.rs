//! How a record looks in a file: segments, one after the other. A segment is [`MAGIC`], the number of the format, and
//! frames; the first frame is the [`Head`] as JSON, the others are entries as postcard. A frame is the length of what it
//! holds, its CRC-32, and what it holds; numbers are little-endian. So an export is a concatenation of segments.

use thiserror::Error;

use super::entry::{Entry, Head};

/// Grows with every change of the bytes of an entry: an older record is refused by the version that wrote it.
pub const FORMAT: u32 = 2;

const MAGIC: [u8; 8] = *b"batonrec";
const NUMBER_BYTES: usize = size_of::<u32>();
/// No entry is near as long, and `MAGIC` read as a length is longer.
const FRAME_BYTES_MAX: u32 = 16 << 20;

/// What keeps a file from being read at all.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    #[error("this is no record of baton")]
    NoRecord,
    #[error(
        "this record has format {format} and was written by baton {version}; this baton {} reads format {FORMAT}: replay it with \
         baton {version}", env!("CARGO_PKG_VERSION")
    )]
    OtherFormat { format: u32, version: String },
}

/// Bytes inside a record that are no entry: a file that was cut off in the middle of a write, or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub bytes: u64,
}

/// The next part of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// A segment begins.
    Head(Head),
    Entry(Entry<'static>),
    Unreadable(Unreadable),
}

/// The beginning of a segment.
pub(super) fn encode_head(head: &Head) -> Vec<u8> {
    let json = serde_json::to_vec(head).expect("plain text and numbers are JSON");
    let mut bytes = Vec::from(MAGIC);
    bytes.extend(FORMAT.to_le_bytes());
    push_frame(&mut bytes, &json);
    bytes
}

/// The bytes of an entry, without a frame.
pub(super) fn encode_entry(entry: &Entry) -> Vec<u8> {
    postcard::to_stdvec(entry).expect("an entry is plain data")
}

/// Whether these bytes of an entry are a [`Entry::Core`].
pub(super) fn is_core(entry: &[u8]) -> bool {
    // Of an enum, postcard writes the number of the variant first.
    entry.first() == Some(&0)
}

pub(super) fn push_frame(bytes: &mut Vec<u8>, content: &[u8]) {
    let length = u32::try_from(content.len()).expect("an entry has no four gigabytes");
    bytes.extend(length.to_le_bytes());
    bytes.extend(crc32fast::hash(content).to_le_bytes());
    bytes.extend(content);
}

/// A record with these pieces; what was unreadable is left out.
pub fn encode<'a>(pieces: impl IntoIterator<Item = &'a Piece>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Head(head) => bytes.extend(encode_head(head)),
            Piece::Entry(entry) => push_frame(&mut bytes, &encode_entry(entry)),
            Piece::Unreadable(_) => {}
        }
    }
    bytes
}

/// The pieces of a record, in the order in which they were written.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    rest: &'a [u8],
}

impl<'a> Pieces<'a> {
    /// # Errors
    /// It is no record, or not of this format.
    pub fn read(bytes: &'a [u8]) -> Result<Pieces<'a>, RecordError> {
        let mut rest = bytes;
        // All heads first: what a replay cannot end, it does not begin.
        let mut at = 0;
        while let Some(found) = find_magic(&bytes[at..]) {
            let segment = &bytes[at + found + MAGIC.len()..];
            if let Some((format, after)) = take_number(segment)
                && format != FORMAT
            {
                let head = take_frame(after).and_then(|(content, _)| serde_json::from_slice::<Head>(content).ok());
                let version = head.map_or_else(|| "of another version".to_owned(), |head| head.version);
                return Err(RecordError::OtherFormat { format, version });
            }
            if at == 0 {
                rest = &bytes[found..];
            }
            at += found + MAGIC.len();
        }
        if at == 0 { Err(RecordError::NoRecord) } else { Ok(Pieces { rest }) }
    }

    fn next_head(&mut self) -> Option<Head> {
        let (_, after) = take_number(self.rest.strip_prefix(&MAGIC)?)?;
        let (content, after) = take_frame(after)?;
        let head = serde_json::from_slice(content).ok()?;
        self.rest = after;
        Some(head)
    }

    fn next_entry(&mut self) -> Option<Entry<'static>> {
        let (content, after) = take_frame(self.rest)?;
        let entry = postcard::from_bytes(content).ok()?;
        self.rest = after;
        Some(entry)
    }

    /// To the next segment, or to the end.
    fn skip(&mut self) -> Unreadable {
        let past = self.rest.len().min(1);
        let bytes = find_magic(&self.rest[past..]).map_or(self.rest.len(), |found| past + found);
        self.rest = &self.rest[bytes..];
        Unreadable { bytes: bytes as u64 }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.rest.is_empty() {
            return None;
        }
        let head = self.next_head().map(Piece::Head);
        let piece = head.or_else(|| self.next_entry().map(Piece::Entry));
        Some(piece.unwrap_or_else(|| Piece::Unreadable(self.skip())))
    }
}

fn find_magic(bytes: &[u8]) -> Option<usize> {
    bytes.windows(MAGIC.len()).position(|window| window == MAGIC)
}

fn take_number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<NUMBER_BYTES>()?;
    Some((u32::from_le_bytes(*number), rest))
}

/// What the first frame holds, and what follows it.
fn take_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = take_number(bytes)?;
    let (sum, rest) = take_number(rest)?;
    if length > FRAME_BYTES_MAX {
        return None;
    }
    let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    (crc32fast::hash(content) == sum).then_some((content, rest))
}
