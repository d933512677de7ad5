//! Records of bad bytes.

use std::convert::Infallible;

use baton::base::time::WallTime;
use baton::record::{Piece, Pieces, anonymous, encode as encode_record, past, replay, timeline_of, within};

use super::one_line;

/// Larger ones are other people's mistakes, and take long to replay.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// A record, as `baton replay`, `record export`, `why --at` and `history --detail` read one. Also without its checksums,
/// which keep most changes of it from being read at all: the first byte says so.
pub fn record(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let forged = kind % 2 == 1;
    let mended = if forged { with_sums(bytes) } else { bytes.to_vec() };
    let pieces: Vec<Piece> = match Pieces::read(&mended[..mended.len().min(RECORD_BYTES_MAX)]) {
        Ok(pieces) => pieces.collect(),
        Err(error) => return one_line(error),
    };
    let written = encode_record(&pieces);
    let readable = pieces.iter().filter(|piece| !matches!(piece, Piece::Unreadable(_)));
    if readable.clone().next().is_some_and(|first| matches!(first, Piece::Head(_))) {
        let again = Pieces::read(&written).expect("what was read can be written");
        assert!(again.collect::<Vec<_>>().iter().eq(readable), "it is written otherwise");
    }
    let times: Vec<WallTime> = pieces.iter().filter_map(Piece::at).collect();
    let (since, until) = (times.first().copied().unwrap_or_default(), times.last().copied().unwrap_or_default());
    let part = within(pieces.iter().cloned(), since, until);
    assert!(part.filter_map(|piece| piece.at()).all(|at| at <= until), "later than asked for");
    // A core asserts what it decides by. Of a state that was never a core's, a sum says nothing.
    if forged {
        return;
    }
    let _ = replay(pieces.clone());
    let past = past(pieces.clone(), until);
    for timeline in past.timelines.moves() {
        let found = timeline_of(timeline.epoch, [Ok::<_, Infallible>(pieces.clone())]).expect("it is there");
        assert!(found.is_none_or(|(_, found)| found.epoch == timeline.epoch));
    }
    if let Err(error) = anonymous(pieces) {
        one_line(error);
    }
}

/// Every frame that has its length gets the checksum of what it holds.
fn with_sums(bytes: &[u8]) -> Vec<u8> {
    const HEAD: usize = 12;
    let mut bytes = bytes.to_vec();
    let mut at = HEAD;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        let Some(content) = bytes.get(at + 8..).and_then(|rest| rest.get(..length)) else { break };
        let sum = crc32fast::hash(content).to_le_bytes();
        bytes[at + 4..at + 8].copy_from_slice(&sum);
        at += 8 + length;
    }
    bytes
}
