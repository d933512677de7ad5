//! Raft among the members: openraft behind our vote gate, elections by our policy. Nothing else in
//! baton names openraft's API. `coordinator` starts it and performs the core's proposals with it.
//!
//! These ways of openraft 0.10 would break the safety argument or the policy, and are off: elections by timer
//! (`enable_elect`), the one that comes with `initialize`, a restarted leader that resumes (`enable_leader_restore`),
//! a removed leader that transfers by itself (`removed_leader_step_down`), and the network's `pre_vote`, which grants
//! when it is not implemented. Its own leader lease is `election_timeout_max`; it is kept shorter than ours, which
//! alone counts. `election_timeout_min` is how long it waits for a vote.
//!
//! `service` answers peers; votes and appends exclude each other there. `client` takes the sending time on
//! CLOCK_BOOTTIME. It reports an acknowledgement only for an accepted request of the store that joined under the
//! peer's name, and of the one process that speaks for it (`identity`). A request that openraft has given up on goes
//! on as long as its answer can lengthen the lease (`late`). Leader ids are openraft's standard ones (one leader a
//! term): rule W counts on that. Heartbeats write nothing to disk.

mod client;
mod late;
mod lead;
mod members;
mod service;
pub mod silence;

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::vote::leader_id_std::CommittedLeaderId;
use openraft::{Config, EntryPayload, Raft, SnapshotPolicy, StepDownPolicy};
use tokio::sync::{Mutex, RwLock, watch};

pub use members::NotChanged;

use late::LateCalls;
use silence::Patience;

use crate::base::ids::NodeId;
use crate::base::timing::Timing;
use crate::cluster::identity::Identity;
use crate::cluster::roster::Roster;
use crate::cluster::store::{LogStore, PromiseFile, StateMachine};
use crate::cluster::transport::MESSAGE_BYTES_MAX;
use crate::cluster::wire::proto::raft_server::RaftServer;
use crate::cluster::wire::{Entry, LogId, Membership, Node, TypeConfig};
use crate::core::Event;
use crate::core::agreed::members::Members;
use crate::core::agreed::replicated::{Applied, Command};
use crate::core_handle::SharedCore;

#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    #[error("openraft refuses its configuration: {0}")]
    Config(#[from] openraft::ConfigError),
    #[error("raft does not start on this store: {0}")]
    Start(String),
}

/// What Raft needs of this host.
pub struct Start {
    pub cluster: String,
    pub identity: Arc<Identity>,
    pub origin: Origin,
    /// Whether this store joined at an earlier start.
    pub joined: bool,
    pub roster: Arc<Roster>,
    pub timing: Timing,
    pub log: LogStore,
    pub state_machine: StateMachine,
    pub core: Arc<SharedCore>,
    /// The promises of the same store.
    pub promises: PromiseFile,
    /// Applied entries between two snapshots.
    pub snapshot_every: u64,
}

/// What a store that never voted or logged anything begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The first membership, with every founder in it.
    Found(BTreeMap<NodeId, Node>),
    /// Nothing: the leader brings the log. The others count this member among the founders.
    Follow,
    /// Nothing: it waits until an operator has added it, and has no vote before it knows that.
    Join,
}

#[derive(Clone)]
pub struct Consensus {
    raft: Raft<TypeConfig, StateMachine>,
    core: Arc<SharedCore>,
    identity: Arc<Identity>,
    members: watch::Receiver<Arc<Members>>,
    promises: Arc<Mutex<PromiseFile>>,
    /// Read by appends and snapshots, written by votes and candidacies.
    turn: Arc<RwLock<()>>,
    /// For whom a vote is on its way to the own disk.
    voting: watch::Receiver<Option<NodeId>>,
    late: LateCalls,
}

impl Consensus {
    /// Raft runs and reports to the core; peers are answered once [`Consensus::service`] is served.
    pub async fn start(start: Start) -> Result<Consensus, ConsensusError> {
        let config = raft_config(&start.cluster, &start.timing, start.snapshot_every);
        let config = Arc::new(config.validate()?);
        let identity = start.identity;
        let mut log = start.log;
        let fresh = is_fresh(&mut log).await?;
        let joined = start.joined || fresh && start.origin == Origin::Join;
        tell_core(&log, start.core.clone(), identity.clone(), start.roster.clone(), joined);
        match start.origin {
            Origin::Found(founders) if fresh => write_first_membership(&mut log, founders).await?,
            Origin::Join if fresh => log.mark_joined().await.map_err(unwritten)?,
            Origin::Found(_) | Origin::Join | Origin::Follow => {}
        }
        let (members, voting, late) = (log.members(), log.voting(), LateCalls::new(Patience::of(&start.timing)));
        let peers = client::Peers {
            identity: identity.clone(),
            core: start.core.clone(),
            roster: start.roster,
            lease: start.timing.span(),
            late: late.clone(),
        };
        let raft = Raft::new(identity.member().clone(), config, peers, log, start.state_machine)
            .await
            .map_err(|error| ConsensusError::Start(error.to_string()))?;
        tokio::spawn(lead::follow(raft.clone(), start.core.clone()));
        tokio::spawn(lead::beat(raft.clone(), start.timing.heartbeat()));
        let promises = Arc::new(Mutex::new(start.promises));
        Ok(Consensus { raft, core: start.core, identity, members, promises, turn: Arc::default(), voting, late })
    }

    /// What answers the requests of peers.
    pub fn service(&self) -> RaftServer<service::RaftService> {
        let Consensus { raft, core, identity, promises, turn, late, .. } = self.clone();
        let service = service::RaftService::new(raft, core, identity, promises, turn, late);
        RaftServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Proposes `command` and returns what it did. That it was applied is reported by the store as well.
    ///
    /// # Errors
    /// The command was not committed, or its fate is unknown.
    pub async fn propose(&self, command: Command) -> Result<Applied, String> {
        type Failed = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;
        let text = command.to_string();
        let done = self.raft.client_write(command).await;
        done.map(|done| done.data).map_err(|error: Failed| match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
                format!("{text} was not committed: {} does not lead any more", self.identity.member())
            }
            error => format!("{text} was not committed: {error}"),
        })
    }

    /// Asks for pre-votes and, if a quorum would grant, for votes.
    ///
    /// Invariant (fence 2): the core has asked the gate before, but what was promised since counts too. An
    /// append that is accepted from here on ends the candidacy in openraft, which takes one after the other.
    pub async fn campaign(&self) {
        let _turn = self.turn.write().await;
        if let Err(refusal) = self.core.may_campaign() {
            tracing::debug!("no campaign: {refusal}");
            return;
        }
        // Raft stands still meanwhile, and would ask for the next term before the votes of this one can have come.
        if self.voting.borrow().as_ref() == Some(self.identity.member()) {
            tracing::debug!("no campaign: this member's vote for itself is on its way to its disk");
            return;
        }
        if let Err(error) = self.raft.trigger().elect(true).await {
            tracing::error!("campaign: {error}");
        }
    }

    /// Asks `to` to campaign at once. Only after a committed `Release` of the own term.
    pub async fn transfer_lead(&self, to: NodeId) {
        if let Err(error) = self.raft.trigger().transfer_leader(to).await {
            tracing::error!("transfer of the lead: {error}");
        }
    }

    /// Who leads as far as this member knows, and the term.
    pub fn leader(&self) -> (Option<NodeId>, u64) {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.current_leader.clone(), metrics.current_term)
    }

    /// Ends when Raft has stopped for good, with the reason.
    pub async fn failed(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                return "it ended".to_string();
            }
        }
    }

    pub async fn shutdown(&self) {
        self.late.end();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!("raft did not end in good order: {error}");
        }
    }
}

async fn is_fresh(log: &mut LogStore) -> Result<bool, ConsensusError> {
    let voted = log.read_vote().await.map_err(unwritten)?.is_some();
    let logged = log.get_log_state().await.map_err(unwritten)?.last_log_id.is_some();
    Ok(!voted && !logged)
}

/// The core hears of every membership before the entry that brings it leaves this host.
///
/// Invariant (fence 2): a store that joined replays the log from the start, memberships included in which an
/// earlier store of its name had a vote. Until it comes to the one that added this very store, it has none.
fn tell_core(log: &LogStore, core: Arc<SharedCore>, identity: Arc<Identity>, roster: Arc<Roster>, joined: bool) {
    log.on_members(move |members| {
        core.step(Event::Voters(members.voters.clone()));
        if members.all.is_empty() && !joined {
            return;
        }
        let mut configured: BTreeMap<NodeId, u32> =
            roster.resolved(members).into_iter().map(|member| (member.id, member.priority)).collect();
        let me = members.all.get(identity.member());
        if joined && me.and_then(|me| me.incarnation) != Some(identity.incarnation()) {
            configured.remove(identity.member());
        }
        core.step(Event::Members(configured));
    });
}

/// Writes the first membership into a store that never voted or logged anything. Every founder writes the
/// same one, as openraft's `initialize` would; but that one also campaigns at once, without pre-votes and
/// past our gate.
async fn write_first_membership(log: &mut LogStore, nodes: BTreeMap<NodeId, Node>) -> Result<(), ConsensusError> {
    let log_id = LogId { leader_id: CommittedLeaderId::new(0), index: 0 };
    let first = Entry { log_id, payload: EntryPayload::Membership(Membership::from(nodes)) };
    log.blocking_append([first]).await.map_err(unwritten)
}

fn unwritten(error: impl std::fmt::Display) -> ConsensusError {
    ConsensusError::Start(format!("first membership: {error}"))
}

/// openraft's configuration for `timing`. Its leader lease (`election_timeout_max`) ends before any
/// promise of ours, so that it never refuses a vote that our gate allows, and it is long enough that a
/// lost heartbeat does not make openraft refuse a `Release`. It must be longer than the time for a vote.
pub fn raft_config(cluster: &str, timing: &Timing, snapshot_every: u64) -> Config {
    let heartbeat = timing.heartbeat().as_millis() as u64;
    Config {
        cluster_name: cluster.to_string(),
        heartbeat_interval: heartbeat,
        election_timeout_min: timing.vote_max().as_millis() as u64,
        election_timeout_max: timing.lease().as_millis() as u64 - heartbeat,
        enable_elect: false,
        // Elections apart, it would do nothing but look whether a heartbeat is due: `lead::beat` knows.
        enable_tick: false,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        removed_leader_step_down: StepDownPolicy::Never,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        max_in_snapshot_log_to_keep: snapshot_every / 5,
        ..Config::default()
    }
}
