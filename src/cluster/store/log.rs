//! openraft's log storage. Reads come from memory, where an entry stands as soon as it is appended;
//! writes go through the writer's queue, in the order in which memory changed.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader};
use prost::Message;
use tokio::sync::watch;

use super::disk::{JOINED, PURGED, entry_key};
use super::writer::{Done, Write};
use super::{Shared, VALUE_BYTES_MAX, invalid, lock};
use crate::base::ids::NodeId;
use crate::cluster::wire::{Entry, LogId, TypeConfig, Vote, proto};
use crate::core::agreed::members::Members;

/// The log and the vote. Clones share them.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
}

impl LogStore {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        LogStore { shared }
    }

    /// Calls `hook` with the present membership, and from then on with every other one.
    ///
    /// Invariant (fence 1): for an entry of this member as leader, before it is replicated: openraft sends nothing
    /// of an entry before `append` was called with it.
    pub fn on_members(&self, hook: impl Fn(&Arc<Members>) + Send + 'static) {
        let mut place = lock(&self.shared.hook);
        hook(&self.shared.members.borrow());
        *place = Some(Box::new(hook));
    }

    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.shared.members.subscribe()
    }

    /// For whom a vote is on its way to the disk.
    pub fn voting(&self) -> watch::Receiver<Option<NodeId>> {
        self.shared.voting.subscribe()
    }

    /// This store is known from now on, also after a restart, as one that joins: it begins with a log that others
    /// wrote, in which an earlier member of its name may have had a vote.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn mark_joined(&self) -> io::Result<()> {
        let write = Write { changes: vec![(JOINED.into(), Some(Vec::new()))], ..Write::default() };
        self.shared.writer.write(write).await
    }

    /// Puts the entries behind the last one, in memory and into the queue, or does nothing.
    fn append_all(&self, entries: Vec<Entry>, done: Done) -> Result<(), (io::Error, Done)> {
        let mut log = self.shared.log();
        let mut changes = Vec::with_capacity(entries.len());
        let mut last = log.last_id();
        for entry in &entries {
            if let Some(before) = last.filter(|before| before.index + 1 != entry.log_id.index) {
                return Err((invalid(format!("append {} behind {before}: a hole in the log", entry.log_id)), done));
            }
            let bytes = proto::Entry::from(entry).encode_to_vec();
            if bytes.len() > VALUE_BYTES_MAX {
                let (id, length) = (entry.log_id, bytes.len());
                return Err((
                    invalid(format!("entry {id} has {length} bytes, the store takes {VALUE_BYTES_MAX}")),
                    done,
                ));
            }
            changes.push((entry_key(entry.log_id.index), Some(bytes)));
            last = Some(entry.log_id);
        }
        let membership = entries.iter().any(|entry| matches!(entry.payload, EntryPayload::Membership(_)));
        log.entries.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        // Still under the lock: the queue has the order of memory.
        self.shared.writer.queue(Write { changes, vote: None, done });
        drop(log);
        if membership {
            self.shared.note_members();
        }
        Ok(())
    }
}

/// Says that a vote is on its way to the disk, until it is dropped.
struct Voting<'a>(&'a watch::Sender<Option<NodeId>>);

impl<'a> Voting<'a> {
    fn begin(voting: &'a watch::Sender<Option<NodeId>>, vote: &Vote) -> Voting<'a> {
        voting.send_replace(Some(vote.leader_id.voted_for.clone()));
        Voting(voting)
    }
}

impl Drop for Voting<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        if is_empty(&range) {
            return Ok(Vec::new());
        }
        Ok(self.shared.log().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.log().vote.clone())
    }
}

/// Whether no index lies in `range`: a map would panic on one that runs backwards.
fn is_empty(range: &impl RangeBounds<u64>) -> bool {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    match range.end_bound() {
        Bound::Included(end) => start > *end,
        Bound::Excluded(end) => start >= *end,
        Bound::Unbounded => false,
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let log = self.shared.log();
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: log.last_id() })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    /// Durable when it returns, but for the mark that a vote which is on disk was won: `mod.rs` tells why nobody waits
    /// for that. It goes into the queue before any entry of its leader.
    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let write = Write { vote: Some(vote.clone()), ..Write::default() };
        {
            let mut log = self.shared.log();
            let voted = |known: &Vote| known.leader_id == vote.leader_id && !known.committed;
            if vote.committed && log.vote.as_ref().is_some_and(voted) {
                log.vote = Some(vote.clone());
                self.shared.writer.queue(write);
                return Ok(());
            }
        }
        let _voting = Voting::begin(&self.shared.voting, vote);
        self.shared.writer.write(write).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().collect();
        self.append_all(entries, Done::Append(callback)).map_err(|(error, done)| {
            done.tell(Err(io::Error::new(error.kind(), error.to_string())));
            error
        })
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let mut log = self.shared.log();
        let removed = log.entries.split_off(&last.map_or(0, |id| id.index + 1));
        let changes = removed.into_keys().map(|index| (entry_key(index), None)).collect();
        self.shared.writer.queue(Write { changes, ..Write::default() });
        drop(log);
        self.shared.note_members();
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut log = self.shared.log();
        let kept = log.entries.split_off(&(upto.index + 1));
        let removed = std::mem::replace(&mut log.entries, kept);
        log.purged = Some(upto);
        let mut changes: Vec<_> = removed.into_keys().map(|index| (entry_key(index), None)).collect();
        changes.push((PURGED.into(), Some(proto::LogId::from(&upto).encode_to_vec())));
        self.shared.writer.queue(Write { changes, ..Write::default() });
        Ok(())
    }
}
