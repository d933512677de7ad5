//! What a record consists of.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::base::ids::NodeId;
use crate::base::time::{Now, WallTime};
use crate::core::fences::votes::Refusal;
use crate::core::{Action, Core, Event};

/// Who wrote a segment. It stands there as JSON, so that every later version can name the one that wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The version of baton.
    pub version: String,
    pub member: NodeId,
    /// When the coordinator was started: two segments with the same head are of one run.
    pub started_at: WallTime,
}

/// A record is a sequence of these. Whatever changes the bytes of one, and so anything in the core's state, its events
/// or its actions, is a new [`FORMAT`](super::FORMAT).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry<'a> {
    /// The core as it is before the next entry. Begins every segment, and follows every gap.
    Core(Box<Cow<'a, Core>>),
    /// One step, and the [`digest`] of what the core answered. The digest stands last: it is known last.
    Step { now: Now, event: Box<Cow<'a, Event>>, answer: [u8; 4] },
    /// The vote gate was asked, and what it answered.
    Asked { now: Now, question: Question, refused: Option<Refusal> },
    /// So many entries were not kept here: the disk was full or slow.
    Gap { entries: u64 },
}

/// What the vote gate is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Whether this member may help to elect that one.
    Vote { candidate: NodeId },
    /// Whether it may ask for votes itself.
    Campaign,
}

/// Of the actions that followed from one step.
///
/// # Panics
/// Never: actions are plain data.
pub fn digest(actions: &[Action]) -> [u8; 4] {
    let bytes = postcard::to_stdvec(actions).expect("actions are plain data");
    crc32fast::hash(&bytes).to_le_bytes()
}
