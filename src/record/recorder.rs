//! Where the core is stepped: entries leave here for the thread that writes them, and nothing is ever waited for.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use super::entry::{Entry, Head, Question, digest};
use super::format::encode_entry;
use super::ring::Ring;
use crate::base::ids::NodeId;
use crate::base::time::{BootTime, Now, WallTime};
use crate::core::fences::votes::Refusal;
use crate::core::{Action, Core, Event};

/// The writer looks this often: so much is lost when the coordinator is killed.
const WRITE_EVERY: Duration = Duration::from_millis(500);
/// Entries that wait for the writer. A disk that hangs for longer than it takes to fill this costs a gap.
const QUEUE_ENTRIES: usize = 4096;
/// A coordinator that ends waits no longer for its last entries to be written.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// Takes down what the core is told and what it answers, or nothing at all.
#[derive(Debug)]
pub struct Recorder {
    line: Option<Line>,
}

/// To the thread that writes.
#[derive(Debug)]
struct Line {
    entries: SyncSender<Vec<u8>>,
    ended: Receiver<()>,
    /// Whether the next entry shall be the core itself.
    wants_core: Arc<AtomicBool>,
    /// Since the queue was full.
    lost: u64,
}

/// A step whose answer is not known yet.
#[must_use]
pub struct Begun(Vec<u8>);

impl Recorder {
    /// Keeps nothing.
    pub fn off() -> Recorder {
        Recorder { line: None }
    }

    /// Keeps up to `bytes_max` in `dir`, which is made if need be. What goes wrong there costs entries, and is logged.
    pub fn start(dir: PathBuf, bytes_max: u64, member: NodeId) -> Recorder {
        let head = Head { version: env!("CARGO_PKG_VERSION").to_owned(), member, started_at: WallTime::now() };
        let wants_core = Arc::new(AtomicBool::new(true));
        let (sender, entries) = sync_channel(QUEUE_ENTRIES);
        let (end, ended) = sync_channel(1);
        let asks = wants_core.clone();
        let writer = std::thread::Builder::new().name("record".into()).spawn(move || {
            write(&mut Ring::open(dir, bytes_max, &head, asks), &entries);
            let _ = end.send(());
        });
        match writer {
            Ok(_) => Recorder { line: Some(Line { entries: sender, ended, wants_core, lost: 0 }) },
            Err(error) => {
                tracing::warn!("nothing is recorded: {error}");
                Recorder::off()
            }
        }
    }

    /// To be called before `core` takes the step.
    pub fn begin(&mut self, core: &Core, now: Now, event: &Event) -> Begun {
        let Some(line) = &mut self.line else { return Begun(Vec::new()) };
        line.lead_in(core);
        Begun(encode_entry(&Entry::Step { now, event: Box::new(Cow::Borrowed(event)), answer: [0; 4] }))
    }

    /// To be called with what the step came to, before anything else is.
    pub fn end(&mut self, Begun(mut step): Begun, actions: &[Action]) {
        let Some(line) = &mut self.line else { return };
        if let Some(answer) = step.last_chunk_mut() {
            *answer = digest(actions);
        }
        line.send(step);
    }

    /// The vote gate of `core` was asked.
    pub fn asked(&mut self, core: &Core, now: Now, question: Question, answer: &Result<(), Refusal>) {
        let Some(line) = &mut self.line else { return };
        line.lead_in(core);
        line.send(encode_entry(&Entry::Asked { now, question, refused: answer.clone().err() }));
    }

    /// Ends, with all that was taken down so far in its file, if the disk answers within half a second.
    pub fn close(&mut self) {
        let Some(Line { entries, ended, .. }) = self.line.take() else { return };
        drop(entries);
        if ended.recv_timeout(CLOSE_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the end of the record could not be written in time");
        }
    }
}

impl Line {
    /// What has to stand before the next entry, so that it can be replayed.
    fn lead_in(&mut self, core: &Core) {
        let gap = self.lost > 0;
        if gap && self.entries.try_send(encode_entry(&Entry::Gap { entries: self.lost })).is_ok() {
            self.lost = 0;
        }
        if self.wants_core.swap(false, Ordering::Relaxed) || gap {
            self.send(encode_entry(&Entry::Core(Box::new(Cow::Borrowed(core)))));
        }
    }

    fn send(&mut self, entry: Vec<u8>) {
        // While something is missing, the gap has to be told of first.
        if self.lost > 0 || self.entries.try_send(entry).is_err() {
            self.lost += 1;
        }
    }
}

fn write(ring: &mut Ring, entries: &Receiver<Vec<u8>>) {
    loop {
        let mut taken = Vec::new();
        let open = loop {
            match entries.try_recv() {
                Ok(entry) => taken.push(entry),
                Err(TryRecvError::Empty) => break true,
                Err(TryRecvError::Disconnected) => break false,
            }
        };
        ring.append(&taken);
        if !open {
            return;
        }
        // With all else that has this pace.
        std::thread::sleep(BootTime::now().until_multiple_of(WRITE_EVERY));
    }
}
