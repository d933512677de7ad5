//! The thread that owns every write of the store. Writes are durable in the order in which they were
//! queued; those that wait together are joined into one group and flushed once. The first error ends
//! it: nothing is written after a write that may or may not be on disk.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use openraft::storage::IOFlushed;
use tokio::sync::{oneshot, watch};

use super::disk::{Disk, Key};
use super::{Health, LogImage, lock};
use crate::wire::{TypeConfig, Vote};

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
}

impl Writer {
    pub(super) fn start(disk: Disk, log: Arc<Mutex<LogImage>>, health: watch::Sender<Health>) -> io::Result<Writer> {
        let (queue, writes) = channel();
        let thread =
            thread::Builder::new().name("store-writer".into()).spawn(move || run(disk, &writes, &log, &health))?;
        Ok(Writer { queue: Some(queue), thread: Some(thread) })
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

fn run(mut disk: Disk, writes: &Receiver<Write>, log: &Mutex<LogImage>, health: &watch::Sender<Health>) {
    let mut next = None;
    while let Some(first) = next.take().or_else(|| writes.recv().ok()) {
        let (group, left_over) = join_waiting(first, writes);
        next = left_over;
        if let Err(reason) = commit(&mut disk, &group, log) {
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

fn commit(disk: &mut Disk, group: &[Write], log: &Mutex<LogImage>) -> Result<(), String> {
    let vote = group.iter().rev().find_map(|write| write.vote.as_ref());
    let changes = group.iter().flat_map(|write| write.changes.iter());
    // sled panics on some of its own errors.
    match catch_unwind(AssertUnwindSafe(|| disk.commit(changes, vote))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(error.to_string()),
        Err(panic) => return Err(format!("the database panicked: {}", super::disk::panic_text(&*panic))),
    }
    if let Some(vote) = vote {
        lock(log).vote = Some(vote.clone());
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
