//! A part of a record, by time.

use super::entry::Entry;
use super::format::Piece;
use crate::base::time::WallTime;

impl Piece {
    /// When it was, by the wall clock of its host; `None` of what has no time.
    pub fn at(&self) -> Option<WallTime> {
        match self {
            Piece::Entry(Entry::Step { now, .. } | Entry::Asked { now, .. }) => Some(now.wall),
            Piece::Entry(Entry::Core(_) | Entry::Gap { .. }) | Piece::Head(_) | Piece::Unreadable(_) => None,
        }
    }
}

/// What of `pieces` is not before `since` and not after `until`, and from the head and the core on that it needs to be
/// replayed.
pub fn within(pieces: impl Iterator<Item = Piece>, since: WallTime, until: WallTime) -> impl Iterator<Item = Piece> {
    // Since the last head: whether any of it is wanted is not known yet.
    let mut held = Vec::new();
    let mut wanted = false;
    pieces.flat_map(move |piece| {
        if matches!(piece, Piece::Head(_)) {
            held.clear();
            wanted = false;
        }
        if piece.at().is_some_and(|at| at > until) {
            return Vec::new();
        }
        wanted |= piece.at().is_some_and(|at| at >= since);
        held.push(piece);
        if wanted { std::mem::take(&mut held) } else { Vec::new() }
    })
}
