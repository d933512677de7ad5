//! The durable Raft store of one member: vote, log and applied state, in sled, with openraft's
//! storage traits. Only `raft` and `coordinator` open one. It never repairs: what it cannot explain
//! by a crash in the order below, it refuses.
//!
//! # What makes a write durable
//!
//! One thread owns every write ([`writer`]). It joins what waits in its queue into one atomic sled
//! batch and then, in this order: `apply_batch`; `db.flush()`; `fdatasync` of `<dir>/db` through our
//! own handle; the seal; the callbacks. That is one sync, for a vote as for anything else. Behind a
//! vote's answer, another thread brings it into the vote file ([`vote_copies`]), with two more.
//!
//! An answer stands for what sled's file has on disk, and for that alone: so it always was for entries.
//! The vote file is there for the day on which sled loses what was synced. It is written only after sled
//! has the vote for good, so it is never ahead, and a start that finds it ahead refuses: sled was cut. What was
//! given up for the shorter answer: in the moment between a vote's answer and its second copy, a vote that
//! sled loses although it was synced is missed, and that takes a power cut in that moment as well: after a
//! killed process, the seal tells.
//!
//! A vote that was won differs from the one that is on disk by a mark that Raft does without: whoever
//! starts again leads by a new vote. So it is queued and not waited for; every entry of its term is
//! queued behind it.
//!
//! Read in the source of sled 0.34.7, with `flush_every_ms(None)`:
//! - `flush()` ends in `make_stable`: it seals the current buffer, waits until a pool thread has
//!   `pwrite`n it, and on Linux follows with `sync_file_range`. That starts no journal commit (a grown
//!   file's size can be lost) and sends no cache flush to the device. `fdatasync` on any handle of the
//!   same inode does both, and everything that sled has acknowledged is in that one file.
//! - A value, or a page of up to 16 values, above a quarter of a segment (128 KiB) goes to a file of
//!   its own in `blobs/`, which nobody fsyncs. [`VALUE_BYTES_MAX`] keeps us away from that.
//! - A segment (512 KiB) is freed for reuse only when the header of a later segment is on disk and
//!   records that the log was written to at least a whole segment beyond the copies that replaced it.
//!   A group of writes is bounded far below one ([`writer::GROUP_BYTES_MAX`]), so a `fdatasync` lies
//!   between the copies and the reuse, even on a disk that reorders.
//! - `snap.*` (the page table) is written only while opening: fsynced, renamed, the old one removed.
//!   The directory is not fsynced, so we do that after opening and before any write. Its temporary name,
//!   `snap.*.generating`, is read like a whole one at the next opening, so we remove it before.
//! - `conf` and the creation of `db` and `blobs/` are not fsynced, and a half-written `conf` is refused: a new store
//!   is made as `store.new`, fsynced and then renamed.
//! - Recovery cuts the log silently at the first record that fails its checksum. That is right for a
//!   write that was never acknowledged and wrong for every other loss, hence the [`seal`], the vote
//!   file and the checks in [`disk`].

mod disk;
mod log;
mod look;
mod mark_file;
mod origin_file;
mod promise_file;
mod reserve;
mod seal;
mod sealed_file;
mod start_file;
mod state_machine;
mod vote_copies;
mod vote_file;
mod writer;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::EntryPayload;
use tokio::sync::{mpsc, watch};

pub use self::log::LogStore;
pub use self::look::{Look, look};
pub use self::mark_file::MarkFile;
pub use self::origin_file::{ORIGIN_FILE, check_origin};
pub use self::promise_file::{LongestPromise, PromiseFile};
pub use self::reserve::Reserve;
pub use self::start_file::count_start;
pub use self::state_machine::{SnapshotBuilder, StateMachine};
pub use crate::cluster::wire::AppliedState;

use self::disk::Disk;
use self::vote_copies::VoteCopies;
use self::writer::Writer;
use crate::base::ids::{NodeId, SignMark, Term};
use crate::cluster::wire::{Entry, LogId, Vote, command, members};
use crate::core::View;
use crate::core::agreed::members::Members;
use crate::core::agreed::replicated::{Applied, Command};
use crate::core::fences::floor::FloorSource;

/// Version of the layout on disk.
pub const FORMAT: u32 = 1;

/// Bytes of one stored value; a larger one is an error.
pub const VALUE_BYTES_MAX: usize = 96 * 1024;

/// Why a store cannot be used. Nothing was changed that a later start could not refuse again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("store {} is in use by another process, which holds {}; stop that process first", dir.display(), lock.display())]
    InUse { dir: PathBuf, lock: PathBuf },
    #[error(
        "store {} belongs to cluster \"{cluster}\", member \"{member}\"; this is cluster \"{our_cluster}\", member \
         \"{our_member}\": correct cluster.name, member.id or member.state_dir", dir.display()
    )]
    Foreign { dir: PathBuf, cluster: String, member: String, our_cluster: String, our_member: String },
    #[error("store {} has format {found}, this version of baton knows format {FORMAT}; start the version that wrote it", dir.display())]
    Format { dir: PathBuf, found: u32 },
    #[error(
        "store {} is damaged: {reason}; a member must not vote after losing what it promised: remove it from the \
         cluster, move {} away and add it again", dir.display(), dir.display()
    )]
    Damaged { dir: PathBuf, reason: String },
    #[error(
        "{} is a copy: its database file {now}, the one that this member ran with {then}. Since it was copied, the member may \
         have promised and voted what the copy does not know. Remove the member, empty the directory and add it anew with \
         member.join = true; only if it has not run since it was copied, remove {}/{ORIGIN_FILE} and start again",
        dir.display(), dir.display()
    )]
    Copied { dir: PathBuf, now: String, then: String },
    #[error("{operation} {}: {reason}", path.display())]
    Io { operation: &'static str, path: PathBuf, reason: String },
}

impl StoreError {
    fn io(operation: &'static str, path: &Path, error: impl ToString) -> Self {
        StoreError::Io { operation, path: path.to_path_buf(), reason: error.to_string() }
    }

    /// What was found in the `copy` of a directory, said of the `original`.
    fn seen_in(self, copy: &Path, original: &Path) -> Self {
        let place = |path: PathBuf| path.strip_prefix(copy).map(|below| original.join(below)).unwrap_or(path);
        match self {
            StoreError::InUse { dir, lock } => StoreError::InUse { dir: place(dir), lock: place(lock) },
            StoreError::Foreign { dir, cluster, member, our_cluster, our_member } => {
                StoreError::Foreign { dir: place(dir), cluster, member, our_cluster, our_member }
            }
            StoreError::Format { dir, found } => StoreError::Format { dir: place(dir), found },
            StoreError::Damaged { dir, reason } => {
                let [copy, original] = [copy, original].map(|dir| dir.display().to_string());
                StoreError::Damaged { dir: place(dir), reason: reason.replace(&copy, &original) }
            }
            StoreError::Copied { dir, now, then } => StoreError::Copied { dir: place(dir), now, then },
            StoreError::Io { operation, path, reason } => StoreError::Io { operation, path: place(path), reason },
        }
    }
}

/// Whether the store still keeps what it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Good,
    /// For good: a member whose store failed must let go of the baton and stop.
    Failed(Arc<str>),
}

/// What became of the applied state, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    Entry(AppliedEntry),
    /// A snapshot of another member took the place of all before; its newest `Release` is of this term.
    Snapshot(View, Option<Term>),
    /// A member went, and the orders about it with it.
    Forgotten(View),
}

/// A committed command, in log order. After a restart, entries that were applied but whose result was
/// not yet on disk come again; after a snapshot, those that it replaced never come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedEntry {
    pub term: Term,
    pub index: u64,
    pub command: Command,
    pub result: Applied,
    /// The state that it left.
    pub view: View,
}

/// Called with the file before each sync that a write of the log or of a vote makes. An error is taken for the sync's
/// own.
pub type BeforeSync = Arc<dyn Fn(&Path) -> io::Result<()> + Send + Sync>;

/// An opened store.
pub struct Opened {
    pub log: LogStore,
    pub state_machine: StateMachine,
    pub store: Store,
    /// Random number made with the store.
    pub incarnation: u64,
    /// This store has never voted and never logged anything.
    pub fresh: bool,
    /// It was made to join a cluster that exists; see [`LogStore::mark_joined`].
    pub joined: bool,
    pub news: mpsc::UnboundedReceiver<News>,
}

/// A view of an opened store. Cheap to clone. The store closes, writing what still waits, when the
/// last of [`LogStore`], [`StateMachine`] and `Store` is dropped.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

impl Store {
    /// Opens the store in `state_dir`, or makes one when there is none. Blocks for some fsyncs.
    ///
    /// # Errors
    /// When it is in use, belongs to another cluster or member, has another format, lost something
    /// that was acknowledged, or cannot be read or written. Only `InUse` is worth a retry.
    pub fn open(state_dir: &Path, cluster: &str, member: &NodeId) -> Result<Opened, StoreError> {
        Store::open_observed(state_dir, cluster, member, Arc::new(|_| Ok(())))
    }

    /// As [`Store::open`], on a disk of which every sync is told first: to measure it, or to stand in for a slow one.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_observed(
        state_dir: &Path,
        cluster: &str,
        member: &NodeId,
        before_sync: BeforeSync,
    ) -> Result<Opened, StoreError> {
        let (disk, contents) = Disk::open(state_dir, cluster, member, before_sync)?;
        let disk::Contents { incarnation, joined, log, applied, vote_file } = contents;
        let fresh = log.vote.is_none() && log.last_id().is_none() && applied.last_applied.is_none();
        let (health, health_seen) = watch::channel(Health::Good);
        let unstarted = |error: io::Error| StoreError::io("start the writer of", state_dir, error);
        let copies = VoteCopies::start(vote_file, log.vote.clone(), health.clone()).map_err(unstarted)?;
        let log = Arc::new(Mutex::new(log));
        let writer = Writer::start(disk, copies, Arc::clone(&log), health).map_err(unstarted)?;
        let (applied, applied_seen) = watch::channel(applied);
        let members = watch::channel(Arc::default()).0;
        let hook = Mutex::default();
        let voting = watch::Sender::new(None);
        let shared =
            Arc::new(Shared { log, writer, health: health_seen, applied: applied_seen, members, voting, hook });
        shared.note_members();
        let (tell, news) = mpsc::unbounded_channel();
        Ok(Opened {
            log: LogStore::new(Arc::clone(&shared)),
            state_machine: StateMachine::new(Arc::clone(&shared), applied, tell),
            store: Store { shared },
            incarnation,
            fresh,
            joined,
            news,
        })
    }

    /// From now on `reserve` is given up before a write would find no room.
    pub fn keep(&self, reserve: Arc<Reserve>) {
        self.shared.writer.keep(reserve);
    }

    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.clone()
    }

    /// The state after the last applied entry, updated before the proposer of that entry hears of it.
    pub fn applied(&self) -> watch::Receiver<AppliedState> {
        self.shared.applied.clone()
    }

    /// Who belongs to the cluster by the last membership in the log, committed or not.
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.shared.members.subscribe()
    }

    /// The last vote that is on disk.
    pub fn vote(&self) -> Option<Vote> {
        self.shared.log().vote.clone()
    }

    /// Term of the newest `Release` in the log, committed or not, or in the applied state when the
    /// log holds none: what rule W compares with this member's own vote.
    pub fn last_release_term(&self) -> Option<Term> {
        let in_log = self.shared.log().last_release_term();
        in_log.or_else(|| self.shared.applied.borrow().replicated.last_release.map(|release| release.term))
    }

    /// The mark with which the cluster last let go of the key, as long as this log, committed or not, knows of no
    /// tenure after that.
    pub fn released_mark(&self) -> Option<SignMark> {
        let applied = self.shared.applied.borrow();
        match applied.replicated.floor_source() {
            FloorSource::Exact(mark) if !self.shared.log().moves_after(applied.last_applied) => Some(mark),
            FloorSource::NeverSigned | FloorSource::Exact(_) | FloorSource::Unknown => None,
        }
    }
}

/// What the handles of one store have in common.
struct Shared {
    log: Arc<Mutex<LogImage>>,
    writer: Writer,
    health: watch::Receiver<Health>,
    applied: watch::Receiver<AppliedState>,
    members: watch::Sender<Arc<Members>>,
    voting: watch::Sender<Option<NodeId>>,
    hook: Mutex<Option<MembersHook>>,
}

/// Told of every change of the membership before whatever made it goes on.
type MembersHook = Box<dyn Fn(&Arc<Members>) + Send>;

impl Shared {
    /// Publishes the last membership of the log, or of the applied state when the log holds none, and tells the
    /// hook.
    fn note_members(&self) {
        let in_log = self.log().last_membership();
        let applied = self.applied.borrow().membership.clone();
        // A snapshot may be ahead of the log until that is purged.
        let members = match in_log {
            Some((id, in_log)) if Some(id) >= *applied.log_id() => in_log,
            Some(_) | None => members(applied.membership()),
        };
        let members = Arc::new(members);
        let changed = self.members.send_if_modified(|known| {
            let changed = *known != members;
            known.clone_from(&members);
            changed
        });
        if let Some(hook) = lock(&self.hook).as_ref().filter(|_| changed) {
            hook(&members);
        }
    }

    fn log(&self) -> MutexGuard<'_, LogImage> {
        lock(&self.log)
    }
}

/// No code panics while it holds one of our locks half way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The log in memory: entries as soon as they are appended, a vote once it is on disk, and that it was won at once.
/// Purging bounds it to some hundred small entries.
#[derive(Debug, Default)]
struct LogImage {
    entries: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
}

impl LogImage {
    fn last_id(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }

    fn last_membership(&self) -> Option<(LogId, Members)> {
        self.entries.values().rev().find_map(|entry| match &entry.payload {
            EntryPayload::Membership(membership) => Some((entry.log_id, members(membership))),
            EntryPayload::Blank | EntryPayload::Normal(_) => None,
        })
    }

    /// Whether the baton is taken or let go of by an entry after `applied`.
    fn moves_after(&self, applied: Option<LogId>) -> bool {
        let first = applied.map_or(0, |id| id.index + 1);
        let moves = |command: &Command| command.is_claim() || command.is_release();
        self.entries.range(first..).any(|(_, entry)| command(entry).is_some_and(moves))
    }

    fn last_release_term(&self) -> Option<Term> {
        let releases = |entry: &&Entry| command(entry).is_some_and(Command::is_release);
        self.entries.values().rev().find(releases).map(|entry| entry.log_id.leader_id.term)
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}
