//! The thread that owns every write of the store. Writes are durable in the order in which they were
//! queued; those that wait together are joined into one group and flushed once. The first error ends
//! it: nothing is written after a write that may or may not be on disk.
//!
//! A vote's second copy is made behind its answer, by `vote_copies`.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};

use openraft::storage::IOFlushed;
use tokio::sync::{oneshot, watch};

use super::disk::{Disk, Key};
use super::vote_copies::VoteCopies;
use super::{Health, LogImage, Reserve, lock};
use crate::cluster::wire::{TypeConfig, Vote};

/// A group takes no further write once it holds this much; see the file header of `store`.
pub(super) const GROUP_BYTES_MAX: usize = 128 * 1024;

/// One write: all of it becomes durable or none.
#[derive(Default)]
pub(super) struct Write {
    /// A value, or `None` to remove the key.
    pub(super) changes: Vec<(Key, Option<Vec<u8>>)>,
    pub(super) vote: Option<Vote>,
    pub(super) done: Done,
}

/// Who is told once a write is durable or has failed.
#[derive(Default)]
pub(super) enum Done {
    /// A later write of the same caller tells: the queue keeps the order.
    #[default]
    Nobody,
    Append(IOFlushed<TypeConfig>),
    Waiter(oneshot::Sender<io::Result<()>>),
}

impl Done {
    pub(super) fn tell(self, result: io::Result<()>) {
        match self {
            Done::Nobody => {}
            Done::Append(callback) => callback.io_completed(result),
            // A caller that went away no longer asks.
            Done::Waiter(waiter) => drop(waiter.send(result)),
        }
    }
}

impl Write {
    fn bytes(&self) -> usize {
        self.changes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum()
    }
}

pub(super) struct Writer {
    queue: Option<Sender<Write>>,
    thread: Option<JoinHandle<()>>,
    reserve: Arc<OnceLock<Arc<Reserve>>>,
}

impl Writer {
    pub(super) fn start(
        disk: Disk,
        copies: VoteCopies,
        log: Arc<Mutex<LogImage>>,
        health: watch::Sender<Health>,
    ) -> io::Result<Writer> {
        let (queue, writes) = channel();
        let reserve = Arc::<OnceLock<_>>::default();
        let room = reserve.clone();
        // In this order: the directory stays locked until the last copy is made.
        let mut files = WrittenFiles { copies, disk };
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(&mut files, &writes, &log, &health, &room))?;
        Ok(Writer { queue: Some(queue), thread: Some(thread), reserve })
    }

    pub(super) fn keep(&self, reserve: Arc<Reserve>) {
        // A store is opened, and given its reserve, once.
        let _ = self.reserve.set(reserve);
    }

    /// Queues a write. Its `done` is told in every case.
    pub(super) fn queue(&self, write: Write) {
        let rejected = match &self.queue {
            Some(queue) => queue.send(write).err().map(|error| error.0),
            None => Some(write),
        };
        if let Some(write) = rejected {
            write.done.tell(Err(io::Error::other("the store is closed")));
        }
    }

    /// Queues a write and waits until it is durable.
    pub(super) async fn write(&self, mut write: Write) -> io::Result<()> {
        let (waiter, result) = oneshot::channel();
        write.done = Done::Waiter(waiter);
        self.queue(write);
        result.await.unwrap_or_else(|_| Err(io::Error::other("the store's writer has ended")))
    }
}

impl Drop for Writer {
    /// Writes what still waits, then closes the database.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // Its panics are caught and reported where they happen.
            drop(thread.join());
        }
    }
}

/// What a commit writes to.
struct WrittenFiles {
    copies: VoteCopies,
    disk: Disk,
}

fn run(
    files: &mut WrittenFiles,
    writes: &Receiver<Write>,
    log: &Mutex<LogImage>,
    health: &watch::Sender<Health>,
    reserve: &OnceLock<Arc<Reserve>>,
) {
    let mut next = None;
    while let Some(first) = next.take().or_else(|| writes.recv().ok()) {
        let (group, left_over) = join_waiting(first, writes);
        next = left_over;
        // A write that finds no room ends the store: it is unknown what of it is on disk.
        if let Some(reserve) = reserve.get() {
            reserve.before_write();
        }
        let failed = match &*health.borrow() {
            Health::Good => None,
            Health::Failed(reason) => Some(reason.to_string()),
        };
        if let Err(reason) = failed.map_or_else(|| commit(files, &group, log), Err) {
            health.send_replace(Health::Failed(reason.as_str().into()));
            fail_all(group.into_iter().chain(next), writes, &reason);
            return;
        }
        for write in group {
            write.done.tell(Ok(()));
        }
    }
}

/// `first` and what waits behind it, and the write that would have made the group too large.
fn join_waiting(first: Write, writes: &Receiver<Write>) -> (Vec<Write>, Option<Write>) {
    let mut bytes = first.bytes();
    let mut group = vec![first];
    while let Ok(write) = writes.try_recv() {
        bytes += write.bytes();
        if bytes > GROUP_BYTES_MAX {
            return (group, Some(write));
        }
        group.push(write);
    }
    (group, None)
}

fn commit(files: &mut WrittenFiles, group: &[Write], log: &Mutex<LogImage>) -> Result<(), String> {
    let vote = group.iter().rev().find_map(|write| write.vote.as_ref());
    let changes = group.iter().flat_map(|write| write.changes.iter());
    // sled panics on some of its own errors.
    match catch_unwind(AssertUnwindSafe(|| files.disk.commit(changes, vote))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(error.to_string()),
        Err(panic) => return Err(format!("the database panicked: {}", super::disk::panic_text(&*panic))),
    }
    if let Some(vote) = vote {
        lock(log).vote = Some(vote.clone());
        files.copies.copy(vote);
    }
    Ok(())
}

/// Answers every write from now on with `reason`, until the store is dropped.
fn fail_all(failed: impl Iterator<Item = Write>, writes: &Receiver<Write>, reason: &str) {
    tracing::error!(reason, "the store failed; this member must stop");
    for write in failed.chain(writes) {
        write.done.tell(Err(io::Error::other(reason.to_string())));
    }
}
