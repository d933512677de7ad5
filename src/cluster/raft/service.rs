//! Raft requests of peers. The vote gate (fence 2) stands here, before openraft sees a vote.
//!
//! Invariant: a vote is considered while no append is being processed, and the other way round, so that
//! a promise is in force before its acknowledgement leaves and before any later vote is weighed.

use std::sync::Arc;
use std::time::Duration;

use openraft::Raft;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use tokio::sync::{Mutex, RwLock};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use tracing::{debug, info};

use super::client::accepted;
use super::late::LateCalls;
use super::lead::report_lead;
use crate::base::ids::{NodeId, Term};
use crate::base::time::BootTime;
use crate::base::timing::LeaseSpan;
use crate::cluster::identity::Identity;
use crate::cluster::store::{PromiseFile, StateMachine};
use crate::cluster::transport::Visitor;
use crate::cluster::wire::proto::raft_server;
use crate::cluster::wire::{
    Entry, Message, OfLeader, Promising, Sender, SnapshotRequest, TransferAnswer, TypeConfig, Vote, command, proto,
};
use crate::core::Event;
use crate::core::agreed::replicated::Command;
use crate::core_handle::SharedCore;

/// How far a request may overtake the `Release` that was sent before it.
const RELEASE_OVERTAKEN_MAX: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub struct RaftService {
    raft: Raft<TypeConfig, StateMachine>,
    core: Arc<SharedCore>,
    identity: Arc<Identity>,
    promises: Arc<Mutex<PromiseFile>>,
    /// Read by appends and snapshots, written by votes and candidacies.
    turn: Arc<RwLock<()>>,
    late: LateCalls,
}

impl RaftService {
    pub(super) fn new(
        raft: Raft<TypeConfig, StateMachine>,
        core: Arc<SharedCore>,
        identity: Arc<Identity>,
        promises: Arc<Mutex<PromiseFile>>,
        turn: Arc<RwLock<()>>,
        late: LateCalls,
    ) -> Self {
        RaftService { raft, core, identity, promises, turn, late }
    }

    /// The request in a message of somebody who may speak here.
    fn open<M: Message>(&self, message: Request<M::Proto>) -> Result<(Sender, M), Status> {
        let visitor = Visitor::of(&message);
        let (sender, request) =
            M::from_proto(message.into_inner()).map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.identity
            .check_raft_request(&sender, &visitor)
            .map_err(|stranger| Status::permission_denied(stranger.to_string()))?;
        Ok((sender, request))
    }

    fn seal<M: Message>(&self, answer: &M) -> Response<M::Proto> {
        Response::new(answer.to_proto(&self.identity.me()))
    }

    /// A request of the leader of `term` was accepted: for how long this member promises to elect nobody else. That is
    /// noted, and outlives a restart, before the answer leaves.
    async fn promise(
        &self,
        leader: NodeId,
        term: Term,
        lease: Option<LeaseSpan>,
        arrived_at: BootTime,
    ) -> Result<Duration, Status> {
        let promise = self.core.read(|core, _| core.promise_to(lease));
        let mut promises = self.promises.clone().lock_owned().await;
        if promises.covers(promise, arrived_at) {
            promises.note(promise, arrived_at)
        } else {
            spawn_blocking(move || promises.note(promise, arrived_at)).await.map_err(fatal)?
        }
        .map_err(|error| {
            Status::unavailable(format!("no promise is given that would not outlive a restart: {error}"))
        })?;
        self.core.step(Event::Accepted { leader, term, arrived_at, promise });
        Ok(promise)
    }

    /// A refusal that tells the candidate this member's own vote and nothing else.
    fn refusal(&self) -> VoteResponse<TypeConfig> {
        VoteResponse::new(self.own_vote(), None, false)
    }

    /// Lets Raft consider a vote that the gate has nothing against.
    async fn consider(
        &self,
        candidate: &NodeId,
        request: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, Status> {
        let term = request.vote.leader_id.term;
        if request.leadership_transfer {
            // The turn is not taken yet: the `Release` arrives in an append.
            self.await_release(candidate).await;
        }
        // Asked before as well: a vote that is refused anyway waits for no append's disk, and no append waits for it.
        if let Err(refusal) = self.gate(candidate) {
            info!(%candidate, term, "no vote: {refusal}");
            return Ok(self.refusal());
        }
        let _turn = self.turn.write().await;
        // Invariant (fence 2): this is the answer that counts.
        if let Err(refusal) = self.gate(candidate) {
            info!(%candidate, term, "no vote: {refusal}");
            return Ok(self.refusal());
        }
        self.core.step(Event::Voting { term });
        let considered = self.raft.vote(request).await;
        let own_term = considered.as_ref().map_or_else(|_| self.own_vote().leader_id.term, |a| a.vote.leader_id.term);
        self.core.step(Event::Considered { term: own_term });
        report_lead(&self.raft, &self.core);
        considered.map_err(fatal)
    }

    /// Liveness: whoever hears no leader asks for votes, and is sent requests again by a leader that keeps silent to it. One
    /// without a lease would have everybody loyal to nothing.
    fn note_asked(&self, by: &NodeId) {
        if self.core.read(|core, now| core.lease_remaining(now.boot)).is_some() {
            self.late.heard(by);
        }
    }

    fn own_vote(&self) -> Vote {
        self.raft.metrics().borrow_watched().vote.clone()
    }

    fn gate(&self, candidate: &NodeId) -> Result<(), String> {
        self.core.may_vote(candidate).map_err(|refusal| refusal.to_string())
    }

    /// Waits a moment for the gate to open for a candidate to whom the leader let go: its requests may
    /// overtake the `Release` that opens it. Whether it did is for the gate to say.
    async fn await_release(&self, candidate: &NodeId) {
        let mut steps = self.core.steps();
        let opened = async { while self.gate(candidate).is_err() && steps.changed().await.is_ok() {} };
        let _ = timeout(RELEASE_OVERTAKEN_MAX, opened).await;
    }
}

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    async fn append_entries(
        &self,
        message: Request<proto::AppendEntriesRequest>,
    ) -> Result<Response<proto::AppendEntriesResponse>, Status> {
        let arrived_at = BootTime::now();
        let (sender, OfLeader { lease, request }) = self.open::<OfLeader<AppendEntriesRequest<TypeConfig>>>(message)?;
        let term = request.vote.leader_id.term;
        check_speaks_for_itself(&sender, &request.vote)?;
        let released = release_terms(&request.entries);

        let _turn = self.turn.read().await;
        let answer = self.raft.append_entries(request).await.map_err(fatal)?;
        let promised = match accepted(&answer) {
            true => Some(self.promise(sender.member, term, lease, arrived_at).await?),
            false => None,
        };
        if answer == AppendEntriesResponse::Success {
            for term in released {
                self.core.step(Event::ReleaseLogged { term });
            }
        }
        Ok(self.seal(&Promising { promised, answer }))
    }

    async fn vote(&self, message: Request<proto::VoteRequest>) -> Result<Response<proto::VoteResponse>, Status> {
        let (sender, request) = self.open::<VoteRequest<TypeConfig>>(message)?;
        check_speaks_for_itself(&sender, &request.vote)?;
        self.note_asked(&sender.member);

        // In a task of its own: a candidate that hangs up must not leave a vote half considered.
        let service = self.clone();
        let considered = tokio::spawn(async move { service.consider(&sender.member, request).await });
        Ok(self.seal(&considered.await.map_err(fatal)??))
    }

    async fn pre_vote(&self, message: Request<proto::VoteRequest>) -> Result<Response<proto::VoteResponse>, Status> {
        let (sender, request) = self.open::<VoteRequest<TypeConfig>>(message)?;
        check_speaks_for_itself(&sender, &request.vote)?;
        self.note_asked(&sender.member);
        if let Err(refusal) = self.gate(&sender.member) {
            debug!(candidate = %sender.member, "no pre-vote: {refusal}");
            return Ok(self.seal(&self.refusal()));
        }
        let answer = self.raft.pre_vote(request).await.map_err(fatal)?;
        Ok(self.seal(&answer))
    }

    async fn install_snapshot(
        &self,
        message: Request<proto::InstallSnapshotRequest>,
    ) -> Result<Response<proto::InstallSnapshotResponse>, Status> {
        let arrived_at = BootTime::now();
        let (sender, OfLeader { lease, request }) = self.open::<OfLeader<SnapshotRequest>>(message)?;
        check_speaks_for_itself(&sender, &request.vote)?;
        let vote = request.vote.clone();

        let _turn = self.turn.read().await;
        let snapshot = Snapshot { meta: request.meta, snapshot: request.data };
        let answer: SnapshotResponse<TypeConfig> =
            self.raft.install_full_snapshot(request.vote, snapshot).await.map_err(fatal)?;
        let promised = match answer.vote == vote {
            true => Some(self.promise(sender.member, vote.leader_id.term, lease, arrived_at).await?),
            false => None,
        };
        Ok(self.seal(&Promising { promised, answer }))
    }

    /// openraft takes this for a licence to campaign at once; here it is a candidacy like any other.
    async fn transfer_leader(
        &self,
        message: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderResponse>, Status> {
        let (sender, request) = self.open::<TransferLeaderRequest<TypeConfig>>(message)?;
        check_speaks_for_itself(&sender, request.from_leader())?;
        let me = self.identity.member();
        if request.to_node_id() != me {
            return Ok(self.seal(&TransferAnswer::Accepted));
        }
        // The turn is not taken yet: the `Release` arrives in an append.
        self.await_release(me).await;
        let may_campaign = || self.core.may_campaign().map_err(|refusal| refusal.to_string());
        if let Err(refusal) = may_campaign() {
            info!(from = %sender.member, refusal, "offered the lead");
            return Ok(self.seal(&TransferAnswer::Refused(refusal)));
        }
        let _turn = self.turn.write().await;
        // Invariant (fence 2): this is the answer that counts.
        let answer = match may_campaign() {
            Ok(()) => match self.raft.handle_transfer_leader(request).await.map_err(fatal)? {
                Ok(()) => TransferAnswer::Accepted,
                Err(error) => TransferAnswer::Refused(error.to_string()),
            },
            Err(refusal) => TransferAnswer::Refused(refusal),
        };
        info!(from = %sender.member, ?answer, "offered the lead");
        Ok(self.seal(&answer))
    }
}

/// Nobody asks for votes or sends entries in another member's name.
fn check_speaks_for_itself(sender: &Sender, vote: &Vote) -> Result<(), Status> {
    if vote.leader_id.voted_for == sender.member {
        Ok(())
    } else {
        let (member, named) = (&sender.member, &vote.leader_id.voted_for);
        Err(Status::permission_denied(format!("{member} speaks in the name of {named}")))
    }
}

/// Terms of the `Release` entries among `entries`.
fn release_terms(entries: &[Entry]) -> Vec<Term> {
    entries
        .iter()
        .filter(|entry| command(entry).is_some_and(Command::is_release))
        .map(|entry| entry.log_id.leader_id)
        .map(|leader| leader.term)
        .collect()
}

fn fatal(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("raft has stopped: {error}"))
}
