//! Raft requests to one peer. What a lease counts on starts here: the time of sending is taken before
//! the request leaves, and an answer counts only from the store that joined under the peer's name. How long it
//! counts is for the lease to say, and not for Raft's patience: see `late`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::RaftNetworkV2;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use openraft::type_config::alias::CommittedLeaderIdOf;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::late::{LateCalls, PeerCalls};
use crate::base::ids::{NodeId, Term};
use crate::base::time::BootTime;
use crate::base::timing::LeaseSpan;
use crate::cluster::identity::Identity;
use crate::cluster::roster::Roster;
use crate::cluster::transport::MESSAGE_BYTES_MAX;
use crate::cluster::wire::proto::raft_client::RaftClient;
use crate::cluster::wire::{
    Message, Node, OfLeader, Promising, SnapshotData, SnapshotRequest, TransferAnswer, TypeConfig, Vote,
};
use crate::core::Event;
use crate::core_handle::SharedCore;

type Error = RPCError<TypeConfig>;

/// Pauses between attempts to reach a peer that is away.
const BACKOFF: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(50), Duration::from_millis(100)];

/// Makes a client for each peer. Addresses come from the roster of this host: a founder may have another
/// address as seen from elsewhere.
#[derive(Clone)]
pub struct Peers {
    pub identity: Arc<Identity>,
    pub core: Arc<SharedCore>,
    pub roster: Arc<Roster>,
    /// The lease of this host's configuration.
    pub lease: LeaseSpan,
    pub(super) late: LateCalls,
}

#[derive(Clone)]
pub struct Peer {
    id: NodeId,
    /// `None` for a member that went meanwhile.
    client: Option<RaftClient<Channel>>,
    identity: Arc<Identity>,
    core: Arc<SharedCore>,
    lease: LeaseSpan,
    calls: PeerCalls,
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, _node: &Node) -> Peer {
        let client = self
            .roster
            .channel(&target)
            .map(|channel| RaftClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX));
        let Peers { identity, core, lease, late, .. } = self;
        let calls = late.to(&target);
        Peer { id: target, client, identity: identity.clone(), core: core.clone(), lease: *lease, calls }
    }
}

impl Peer {
    fn client(&self) -> Result<RaftClient<Channel>, Error> {
        self.client
            .clone()
            .ok_or_else(|| unreachable(format!("{} is not a member of the cluster by the log of this host", self.id)))
    }

    /// Sends one request and reads the answer of the right peer, which is to come within `patience`.
    async fn call<Request, Answer, Call>(
        &self,
        request: &Request,
        patience: Duration,
        send: impl FnOnce(RaftClient<Channel>, tonic::Request<Request::Proto>) -> Call,
    ) -> Result<Answer, Error>
    where
        Request: Message,
        Answer: Message,
        Call: Future<Output = Result<Response<Answer::Proto>, Status>>,
    {
        let message = tonic::Request::new(request.to_proto(&self.identity.me()));
        let answered = timeout(patience, send(self.client()?, message));
        let response = match answered.await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(unreachable(format!("{}: {}", self.id, status.message()))),
            Err(_elapsed) => return Err(self.no_answer()),
        };
        let (sender, answer) = Answer::from_proto(response).map_err(|e| RPCError::Network(NetworkError::new(&e)))?;
        self.identity.check_from(&sender, &self.id).map_err(|e| unreachable(e.to_string()))?;
        self.calls.silence.heard();
        Ok(answer)
    }

    fn no_answer(&self) -> Error {
        unreachable(format!("{}: no answer in time", self.id))
    }

    /// Invariant (fence 1): called only for an answer that accepted a request sent at `sent_at` in `term`. It may come
    /// at any time, and late ones do: the lease counts from the sending, and the core knows which term it leads.
    fn note_acked(&self, term: Term, sent_at: BootTime, promised: Option<Duration>) {
        self.core.step(Event::Acked { from: self.id.clone(), term, sent_at, promised });
    }

    /// Invariant (fence 1): the time of sending is taken after this wait, and before the request leaves.
    async fn may_send(&self, patience: Duration) -> Result<(), Error> {
        timeout(patience, self.calls.silence.over()).await.map_err(|_elapsed| self.no_answer())
    }

    /// Invariant (fence 1): nothing leaves in a term whose lead the core has given up, or the promises of that term
    /// would go on for as long as Raft does.
    fn as_leader<Request>(&self, term: Term, request: Request) -> Result<OfLeader<Request>, Error> {
        if self.core.read(|core, _| core.has_resigned(term)) {
            return Err(unreachable(format!("this host has given up the lead of term {term}")));
        }
        Ok(OfLeader { lease: Some(self.lease), request })
    }

    /// Sends entries or a heartbeat, and reports what was accepted, whether anybody still waits for it or not.
    async fn append(
        self,
        request: AppendEntriesRequest<TypeConfig>,
        sent_at: BootTime,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Error> {
        let term = request.vote.leader_id.term;
        let is_heartbeat = request.entries.is_empty();
        let request = self.as_leader(term, request)?;
        let owed = self.calls.silence.begin();
        let Promising { promised, answer }: Promising<AppendEntriesResponse<TypeConfig>> =
            self.call(&request, self.lease.lease(), |mut client, message| async move {
                client.append_entries(message).await
            })
            .await?;
        owed.answered();
        if accepted(&answer) {
            self.note_acked(term, sent_at, promised);
        }
        if is_heartbeat && answer == AppendEntriesResponse::Success {
            self.calls.note_accepted(term);
        }
        Ok(answer)
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Error> {
        let (term, is_heartbeat) = (request.vote.leader_id.term, request.entries.is_empty());
        if is_heartbeat {
            self.may_send(option.soft_ttl()).await?;
            let call = self.clone().append(request, BootTime::now());
            // Raft learns from the answer that it is still followed, and any answer to one of these says so. Its own
            // time limit ends before answers come that take longer than a heartbeat, each time.
            let another = self.calls.another_accepted(term);
            return tokio::select! {
                biased;
                answered = self.calls.outlive(option.soft_ttl(), self.lease.lease(), call) => {
                    answered.unwrap_or_else(|| Err(self.no_answer()))
                }
                () = another => Ok(AppendEntriesResponse::Success),
            };
        }
        // As long as the peer's disk may take: asking again would not make that faster.
        let patience = option.soft_ttl().max(self.lease.lease() / 2);
        self.may_send(patience).await?;
        let call = self.clone().append(request, BootTime::now());
        let answered = self.calls.outlive(patience, self.lease.lease(), call).await;
        answered.unwrap_or_else(|| Err(self.no_answer()))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Error> {
        // This member has voted for itself before it asks anybody else.
        let term = request.vote.leader_id.term;
        self.core.step(Event::Voted { term });
        self.core.step(Event::VotesAsked { term });
        let vote = request.vote.clone();
        let answer = self
            .call(&request, option.hard_ttl(), |mut client, message| async move { client.vote(message).await })
            .await;
        let granted = |answer: &VoteResponse<TypeConfig>| answer.vote_granted && answer.vote == vote;
        if !answer.as_ref().is_ok_and(granted) {
            self.core.step(Event::VoteDenied { by: self.id.clone(), term });
        }
        answer
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Error> {
        let patience = option.hard_ttl();
        self.call(&request, patience, |mut client, message| async move { client.pre_vote(message).await }).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<CommittedLeaderIdOf<TypeConfig>, NodeId, Node, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        self.may_send(option.soft_ttl()).await?;
        let sent_at = BootTime::now();
        let request = SnapshotRequest { vote: vote.clone(), meta: snapshot.meta, data: snapshot.snapshot };
        let request = self.as_leader(vote.leader_id.term, request)?;
        let send = self.call(&request, option.soft_ttl(), |mut client, message| async move {
            client.install_snapshot(message).await
        });
        let Promising { promised, answer }: Promising<SnapshotResponse<TypeConfig>> = tokio::select! {
            answer = send => answer?,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        if answer.vote == vote {
            self.note_acked(vote.leader_id.term, sent_at, promised);
        }
        Ok(answer)
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Error> {
        let answer =
            self.call(&request, option.soft_ttl(), |mut client, message| async move {
                client.transfer_leader(message).await
            })
            .await?;
        match answer {
            TransferAnswer::Accepted => Ok(Ok(())),
            TransferAnswer::Refused(reason) => Err(unreachable(format!("{} refused the lead: {reason}", self.id))),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        let longest = BACKOFF[BACKOFF.len() - 1];
        Some(Backoff::new(BACKOFF.into_iter().chain(std::iter::repeat(longest))))
    }
}

/// Whether the peer took the sender for the leader, and promised it so.
pub fn accepted(answer: &AppendEntriesResponse<TypeConfig>) -> bool {
    match answer {
        AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_) | AppendEntriesResponse::Conflict => {
            true
        }
        AppendEntriesResponse::HigherVote(_) => false,
    }
}

fn unreachable(reason: String) -> Error {
    RPCError::Unreachable(Unreachable::from_string(reason))
}
