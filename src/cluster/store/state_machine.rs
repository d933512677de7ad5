//! openraft's state machine: applies committed entries to the replicated state, publishes it, and
//! makes and installs snapshots. The rules are in `replicated`; here is only their place in the log.
//!
//! The state goes to the same queue as the log. Nobody waits for it: the entries that made it are
//! durable on a quorum already, the queue keeps the state behind them and before the purge that
//! removes them, and after a crash openraft applies the rest again. So a snapshot need not be kept
//! either: the stored state is one. Installing a snapshot is awaited, because a leader counts it.
//!
//! Requests to sign come several times a block and change one place of the state. They alone do not make it be written:
//! that would be a second sync for each. It is written with the next other entry, or once a snapshot is asked for.
//!
//! Invariant: the state on disk is never behind what was purged from the log. openraft purges what a snapshot has, and
//! the state is queued before the builder of that snapshot is handed out.

use std::io;
use std::sync::{Arc, Mutex};

use openraft::storage::EntryResponder;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, storage::RaftStateMachine};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt};

use super::disk::APPLIED;
use super::writer::Write;
use super::{AppliedEntry, AppliedState, News, Shared, lock};
use crate::cluster::wire::{Entry, LogId, SnapshotData, SnapshotMeta, StoredMembership, TypeConfig, decode, proto};
use crate::core::agreed::replicated::Applied;

type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// The newest snapshot, until the store is closed.
type CurrentSnapshot = Arc<Mutex<Option<(SnapshotMeta, SnapshotData)>>>;

pub struct StateMachine {
    shared: Arc<Shared>,
    state: AppliedState,
    /// The state on disk, or on its way there, lacks requests to sign.
    unwritten: bool,
    published: watch::Sender<AppliedState>,
    news: mpsc::UnboundedSender<News>,
    snapshot: CurrentSnapshot,
}

impl StateMachine {
    pub(super) fn new(
        shared: Arc<Shared>,
        published: watch::Sender<AppliedState>,
        news: mpsc::UnboundedSender<News>,
    ) -> Self {
        let state = published.borrow().clone();
        StateMachine { shared, state, unwritten: false, published, news, snapshot: CurrentSnapshot::default() }
    }

    /// Applies one entry and tells everyone but its proposer.
    fn apply_one(&mut self, entry: Entry) -> Applied {
        let id = entry.log_id;
        self.state.last_applied = Some(id);
        self.state.from_snapshot = false;
        let command = match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Membership(membership) => {
                let members = membership.nodes().map(|(id, _)| id);
                let before = self.state.replicated.view();
                Arc::make_mut(&mut self.state.replicated).note_members(id.index, members);
                let view = self.state.replicated.view();
                if view != before {
                    // Nobody listens any more once the coordinator has ended.
                    let _ = self.news.send(News::Forgotten(view));
                }
                self.state.membership = StoredMembership::new(Some(id), membership);
                None
            }
            EntryPayload::Normal(command) => Some(command),
        };
        let term = id.leader_id.term;
        let applied = command.as_ref().map(|command| Arc::make_mut(&mut self.state.replicated).apply(term, command));
        self.published.send_replace(self.state.clone());
        let Some((command, result)) = command.zip(applied) else { return Applied::Recorded };
        if matches!(result, Applied::Weighed(_)) {
            // Its proposer alone waits for it, and nothing of the view has changed.
            return result;
        }
        // Nobody listens any more once the coordinator has ended.
        let view = self.state.replicated.view();
        let entry = AppliedEntry { term, index: id.index, command, result: result.clone(), view };
        let _ = self.news.send(News::Entry(entry));
        result
    }

    /// Behind all that is queued, and before all that will be.
    fn queue_state(&mut self) {
        self.shared.writer.queue(self.state_write());
        self.unwritten = false;
    }

    fn state_write(&self) -> Write {
        let bytes = proto::StoredState::from(&self.state).encode_to_vec();
        Write { changes: vec![(APPLIED.into(), Some(bytes))], ..Write::default() }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.state.last_applied, self.state.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut changed = false;
        while let Some(item) = entries.next().await {
            let (entry, proposer) = item?;
            let result = self.apply_one(entry);
            let weighed = matches!(result, Applied::Weighed(_));
            self.unwritten |= weighed;
            changed |= !weighed;
            if let Some(proposer) = proposer {
                proposer.send(result);
            }
        }
        if changed {
            self.queue_state();
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        if self.unwritten {
            self.queue_state();
        }
        SnapshotBuilder { state: self.state.clone(), snapshot: Arc::clone(&self.snapshot) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> io::Result<()> {
        let replicated = decode::<proto::Replicated>("Replicated", &data).and_then(TryInto::try_into);
        let replicated = replicated.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.state = AppliedState {
            last_applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
            replicated: Arc::new(replicated),
            from_snapshot: true,
        };
        self.shared.writer.write(self.state_write()).await?;
        self.unwritten = false;
        *lock(&self.snapshot) = Some((meta.clone(), data));
        self.published.send_replace(self.state.clone());
        self.shared.note_members();
        let released_term = self.state.replicated.last_release.map(|release| release.term);
        let _ = self.news.send(News::Snapshot(self.state.replicated.view(), released_term));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let current = lock(&self.snapshot).clone();
        Ok(current.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Makes a snapshot of the state as it was when the builder was made.
pub struct SnapshotBuilder {
    state: AppliedState,
    snapshot: CurrentSnapshot,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let meta =
            SnapshotMeta { last_log_id: self.state.last_applied, last_membership: self.state.membership.clone() };
        let snapshot = proto::Replicated::from(&*self.state.replicated).encode_to_vec();
        let mut current = lock(&self.snapshot);
        // A newer one may have been installed meanwhile.
        if current.as_ref().is_none_or(|(known, _)| known.last_log_id <= meta.last_log_id) {
            *current = Some((meta.clone(), snapshot.clone()));
        }
        Ok(Snapshot { meta, snapshot })
    }
}
