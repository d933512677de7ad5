//! A record up to a moment: the core as it was then, and how the moves before went.

use super::entry::{Entry, Head, digest};
use super::format::Piece;
use super::timeline::{Timeline, Timelines};
use crate::base::ids::{Epoch, NodeId};
use crate::base::time::{Now, WallTime};
use crate::core::agreed::replicated::{Applied, Baton, Command};
use crate::core::{Core, Event};

/// What a record says of a moment.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Who wrote the last of it.
    pub head: Option<Head>,
    core: Option<Core>,
    /// Of the last entry that `core` was told.
    now: Option<Now>,
    /// When the first entry was.
    pub since: Option<WallTime>,
    /// When the next entry is, of those that were left.
    pub next: Option<WallTime>,
    pub timelines: Timelines,
    /// Answers that were not the recorded ones, since the last whole core.
    pub differ: u64,
}

/// Goes through `pieces` up to the first that is later than `until`.
pub fn past(pieces: impl IntoIterator<Item = Piece>, until: WallTime) -> Past {
    let mut past = Past::default();
    for piece in pieces {
        if let Some(at) = piece.at() {
            past.since.get_or_insert(at);
            if at > until {
                past.next = Some(at);
                break;
            }
        }
        past.take(piece);
    }
    past
}

impl Past {
    /// The core after the last entry, and when that was; `None` where nothing could be replayed.
    pub fn core(&self) -> Option<(&Core, Now)> {
        self.core.as_ref().zip(self.now)
    }

    fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Head(head) => {
                // The next segment of a run goes on where the last one ended.
                if self.head.as_ref() != Some(&head) {
                    self.head = Some(head);
                    self.interrupt();
                }
            }
            Piece::Unreadable(_) | Piece::Entry(Entry::Gap { .. }) => self.interrupt(),
            Piece::Entry(Entry::Core(core)) => {
                self.core = Some(core.into_owned());
                self.differ = 0;
            }
            Piece::Entry(Entry::Step { now, event, answer }) => {
                let Some(core) = &mut self.core else { return };
                let event = event.into_owned();
                self.timelines.before(core, now, &event);
                let actions = core.step(now, event);
                self.timelines.after(core, now, &actions);
                self.differ += u64::from(digest(&actions) != answer);
                self.now = Some(now);
            }
            Piece::Entry(Entry::Asked { now, .. }) => self.now = self.core.as_ref().map(|_| now),
        }
    }

    fn interrupt(&mut self) {
        (self.core, self.now) = (None, None);
        self.timelines.interrupt();
    }
}

/// The timeline of `epoch` out of `segments` of one record, the newest first, and who saw it so. Each is asked for once,
/// and no older one than is needed.
///
/// # Errors
/// A segment could not be had.
pub fn timeline_of<E>(
    epoch: Epoch,
    segments: impl IntoIterator<Item = Result<Vec<Piece>, E>>,
) -> Result<Option<(NodeId, Timeline)>, E> {
    // Of what is newer than the segment that is looked at, the oldest first.
    let mut newer: Vec<Vec<Piece>> = Vec::new();
    let mut segments = segments.into_iter();
    while let Some(segment) = segments.next().transpose()? {
        let claimed = segment.iter().any(|piece| is_claim_of(piece, epoch));
        newer.insert(0, segment);
        if claimed {
            // What led to the claim may stand in the one before.
            if let Some(before) = segments.next().transpose()? {
                newer.insert(0, before);
            }
            return Ok(follow(epoch, newer));
        }
    }
    Ok(None)
}

fn follow(epoch: Epoch, segments: Vec<Vec<Piece>>) -> Option<(NodeId, Timeline)> {
    let mut past = Past::default();
    for piece in segments.into_iter().flatten() {
        past.take(piece);
        // Many more moves may follow, and push it out.
        if past.timelines.moves().any(|timeline| timeline.epoch == epoch && timeline.is_over()) {
            break;
        }
    }
    let timeline = past.timelines.moves().find(|timeline| timeline.epoch == epoch)?;
    Some((past.head.as_ref()?.member.clone(), timeline.clone()))
}

fn is_claim_of(piece: &Piece, wanted: Epoch) -> bool {
    let Piece::Entry(Entry::Step { event, .. }) = piece else { return false };
    let Event::Applied { command: Command::Baton(Baton::Claim { epoch, .. }), outcome, .. } = event.as_ref().as_ref()
    else {
        return false;
    };
    *epoch == wanted && matches!(outcome, Applied::Claimed { .. })
}
