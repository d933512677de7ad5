//! What the core was told and what it answered, kept for whoever wants to look at a night again.
//!
//! [`Recorder`] stands where the core is stepped and hands entries to a thread that carries no lease; nobody waits for
//! it. `ring` keeps them in a bounded set of files, `format` is how they look there, and [`replay()`] has the same core go
//! through them once more: it says where the answers differ, and `story` tells what happened. [`past()`] stops at a
//! moment, and [`Timelines`] has the steps of the last moves, live or out of a record. A record decides nothing.

mod anonymous;
mod entry;
mod format;
mod merged;
mod observed;
mod part;
mod past;
mod recorder;
mod replay;
mod ring;
mod story;
mod timeline;

pub use anonymous::anonymous;
pub use entry::{Entry, Head, Question, digest};
pub use format::{FORMAT, Piece, Pieces, RecordError, Unreadable, encode};
pub use merged::{Clocks, Merged, Offset, merged};
pub use observed::Observed;
pub use part::within;
pub use past::{Past, past, timeline_of};
pub use recorder::Recorder;
pub use replay::{Difference, Replay, replay};
pub use ring::{Segment, read, segments};
pub use story::Told;
pub use timeline::{Moment, Step, TIMELINES_MAX, Timeline, Timelines};

/// The directory of a record, in the coordinator's `state_dir`.
pub const DIRECTORY: &str = "record";
