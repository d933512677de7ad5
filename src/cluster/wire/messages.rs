//! Whole messages between members. Each carries its sender, and none can be read without it.

use std::time::Duration;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use super::parts::read_entry;
use super::proto;
use super::{SnapshotData, SnapshotMeta, TypeConfig, Vote, WireError};
use super::{member, nanos, required};
use crate::base::ids::NodeId;
use crate::base::timing::{LeaseSpan, TimingError};

/// Version of the protocol between members that this build speaks.
pub const PROTOCOL: u32 = 1;

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    pub cluster: String,
    pub member: NodeId,
    /// The incarnation of the member's store.
    pub incarnation: u64,
    pub protocol: u32,
    /// See `proto::Sender`; zero while the sender does not know.
    pub founders: u64,
    pub session: Session,
    /// What it can read in a log; zero of a version that does not say.
    pub knows: u32,
}

/// One process of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Random, drawn at its start; zero of a version that draws none.
    pub number: u64,
    /// How often the member's coordinator was started with this store, this time included.
    pub start: u64,
}

impl From<&Sender> for proto::Sender {
    fn from(sender: &Sender) -> Self {
        proto::Sender {
            cluster: sender.cluster.clone(),
            member: sender.member.to_string(),
            incarnation: sender.incarnation,
            protocol: sender.protocol,
            founders: sender.founders,
            session: sender.session.number,
            start: sender.session.start,
            knows: sender.knows,
        }
    }
}

impl TryFrom<proto::Sender> for Sender {
    type Error = WireError;

    /// Only its form is checked: whether this sender may speak here is the receiver's to decide.
    fn try_from(sender: proto::Sender) -> Result<Self, WireError> {
        if sender.cluster.is_empty() {
            return Err(WireError::Missing { message: "Sender", field: "cluster" });
        }
        if sender.protocol == 0 {
            return Err(WireError::Missing { message: "Sender", field: "protocol" });
        }
        Ok(Sender {
            cluster: sender.cluster,
            member: member(sender.member, "Sender", "member")?,
            incarnation: sender.incarnation,
            protocol: sender.protocol,
            founders: sender.founders,
            session: Session { number: sender.session, start: sender.start },
            knows: sender.knows,
        })
    }
}

/// A whole snapshot in one message: the state is small.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotRequest {
    pub vote: Vote,
    pub meta: SnapshotMeta,
    pub data: SnapshotData,
}

/// A request of a leader, and by which lease it would hold.
#[derive(Clone, Debug, PartialEq)]
pub struct OfLeader<Request> {
    /// `None` of a version that does not say.
    pub lease: Option<LeaseSpan>,
    pub request: Request,
}

/// An answer to a leader, and for how long its sender elects nobody else.
#[derive(Clone, Debug, PartialEq)]
pub struct Promising<Answer> {
    /// By the sender's clock, from the arrival of the request on. `None` when it promises nothing, or is of a version
    /// that does not say.
    pub promised: Option<Duration>,
    pub answer: Answer,
}

/// Answer to a leader that asks this member to campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferAnswer {
    Accepted,
    /// Why, not empty.
    Refused(String),
}

/// A message that travels between members as `Proto`.
pub trait Message: Sized {
    type Proto;

    fn to_proto(&self, sender: &Sender) -> Self::Proto;

    /// # Errors
    /// Names the message and the field that is missing or wrong.
    fn from_proto(proto: Self::Proto) -> Result<(Sender, Self), WireError>;
}

fn sender(sender: Option<proto::Sender>, message: &'static str) -> Result<Sender, WireError> {
    required(sender, message, "sender")?.try_into()
}

fn ballot(ballot: Option<proto::Ballot>, message: &'static str, field: &'static str) -> Result<Vote, WireError> {
    required(ballot, message, field)?.try_into()
}

fn read_lease(lease: Option<proto::Lease>, message: &'static str) -> Result<Option<LeaseSpan>, WireError> {
    let read = |lease: proto::Lease| LeaseSpan::new(Duration::from_nanos(lease.lease_ns), lease.drift_ppm);
    let invalid = |error: TimingError| WireError::Invalid { message, field: "lease", reason: error.to_string() };
    lease.map(|lease| read(lease).map_err(invalid)).transpose()
}

impl From<LeaseSpan> for proto::Lease {
    fn from(span: LeaseSpan) -> Self {
        proto::Lease { lease_ns: nanos(span.lease()), drift_ppm: span.drift_ppm() }
    }
}

fn read_promise(promised_ns: u64) -> Option<Duration> {
    Some(Duration::from_nanos(promised_ns)).filter(|promised| !promised.is_zero())
}

impl Message for OfLeader<AppendEntriesRequest<TypeConfig>> {
    type Proto = proto::AppendEntriesRequest;

    fn to_proto(&self, sender: &Sender) -> Self::Proto {
        let OfLeader { lease, request } = self;
        proto::AppendEntriesRequest {
            sender: Some(sender.into()),
            ballot: Some((&request.vote).into()),
            prev: request.prev_log_id.as_ref().map(Into::into),
            entries: request.entries.iter().map(Into::into).collect(),
            leader_commit: request.leader_commit.as_ref().map(Into::into),
            lease: lease.map(Into::into),
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<(Sender, Self), WireError> {
        const NAME: &str = "AppendEntriesRequest";
        let request = AppendEntriesRequest {
            vote: ballot(proto.ballot, NAME, "ballot")?,
            prev_log_id: proto.prev.map(Into::into),
            entries: proto.entries.into_iter().map(read_entry).collect::<Result<_, _>>()?,
            leader_commit: proto.leader_commit.map(Into::into),
        };
        let lease = read_lease(proto.lease, NAME)?;
        Ok((sender(proto.sender, NAME)?, OfLeader { lease, request }))
    }
}

impl Message for Promising<AppendEntriesResponse<TypeConfig>> {
    type Proto = proto::AppendEntriesResponse;

    fn to_proto(&self, sender: &Sender) -> Self::Proto {
        use proto::append_entries_response::Result as Kind;
        let result = match &self.answer {
            AppendEntriesResponse::Success => Kind::Success(proto::Blank {}),
            AppendEntriesResponse::PartialSuccess(Some(id)) => Kind::Partial(id.into()),
            AppendEntriesResponse::PartialSuccess(None) => Kind::PartialNone(proto::Blank {}),
            AppendEntriesResponse::Conflict => Kind::Conflict(proto::Blank {}),
            AppendEntriesResponse::HigherVote(vote) => Kind::Higher(vote.into()),
        };
        let promised_ns = self.promised.map_or(0, nanos);
        proto::AppendEntriesResponse { sender: Some(sender.into()), result: Some(result), promised_ns }
    }

    fn from_proto(proto: Self::Proto) -> Result<(Sender, Self), WireError> {
        use proto::append_entries_response::Result as Kind;
        const NAME: &str = "AppendEntriesResponse";
        let promised = read_promise(proto.promised_ns);
        let answer = match required(proto.result, NAME, "result")? {
            Kind::Success(proto::Blank {}) => AppendEntriesResponse::Success,
            Kind::Partial(id) => AppendEntriesResponse::PartialSuccess(Some(id.into())),
            Kind::PartialNone(proto::Blank {}) => AppendEntriesResponse::PartialSuccess(None),
            Kind::Conflict(proto::Blank {}) => AppendEntriesResponse::Conflict,
            Kind::Higher(vote) => AppendEntriesResponse::HigherVote(vote.try_into()?),
        };
        Ok((sender(proto.sender, NAME)?, Promising { promised, answer }))
    }
}

/// Votes and pre-votes alike.
impl Message for VoteRequest<TypeConfig> {
    type Proto = proto::VoteRequest;

    fn to_proto(&self, sender: &Sender) -> Self::Proto {
        proto::VoteRequest {
            sender: Some(sender.into()),
            ballot: Some((&self.vote).into()),
            last_log: self.last_log_id.as_ref().map(Into::into),
            leadership_transfer: self.leadership_transfer,
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<(Sender, Self), WireError> {
        const NAME: &str = "VoteRequest";
        let request = VoteRequest {
            vote: ballot(proto.ballot, NAME, "ballot")?,
            last_log_id: proto.last_log.map(Into::into),
            leadership_transfer: proto.leadership_transfer,
        };
        Ok((sender(proto.sender, NAME)?, request))
    }
}

impl Message for VoteResponse<TypeConfig> {
    type Proto = proto::VoteResponse;

    fn to_proto(&self, sender: &Sender) -> Self::Proto {
        proto::VoteResponse {
            sender: Some(sender.into()),
            ballot: Some((&self.vote).into()),
            granted: self.vote_granted,
            last_log: self.last_log_id.as_ref().map(Into::into),
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<(Sender, Self), WireError> {
        const NAME: &str = "VoteResponse";
        let vote = ballot(proto.ballot, NAME, "ballot")?;
        let response = VoteResponse::new(vote, proto.last_log.map(Into::into), proto.granted);
        Ok((sender(proto.sender, NAME)?, response))
    }
}

impl Message for OfLeader<SnapshotRequest> {
    type Proto = proto::InstallSnapshotRequest;

    fn to_proto(&self, sender: &Sender) -> Self::Proto {
        let OfLeader { lease, request } = self;
        proto::InstallSnapshotRequest {
            sender: Some(sender.into()),
            ballot: Some((&request.vote).into()),
            meta: Some((&request.meta).into()),
            data: request.data.clone(),
            lease: lease.map(Into::into),
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<(Sender, Self), WireError> {
        const NAME: &str = "InstallSnapshotRequest";
        let request = SnapshotRequest {
            vote: ballot(proto.ballot, NAME, "ballot")?,
            meta: required(proto.meta, NAME, "meta")?.try_into()?,
            data: proto.data,
        };
        let lease = read_lease(proto.lease, NAME)?;
        Ok((sender(proto.sender, NAME)?, OfLeader { lease, request }))
    }
}

impl Message for Promising<SnapshotResponse<TypeConfig>> {
    type Proto = proto::InstallSnapshotResponse;

    fn to_proto(&self, sender: &Sender) -> Self::Proto {
        let promised_ns = self.promised.map_or(0, nanos);
        let ballot = Some((&self.answer.vote).into());
        proto::InstallSnapshotResponse { sender: Some(sender.into()), ballot, promised_ns }
    }

    fn from_proto(proto: Self::Proto) -> Result<(Sender, Self), WireError> {
        const NAME: &str = "InstallSnapshotResponse";
        let answer = SnapshotResponse::new(ballot(proto.ballot, NAME, "ballot")?);
        let promised = read_promise(proto.promised_ns);
        Ok((sender(proto.sender, NAME)?, Promising { promised, answer }))
    }
}

impl Message for TransferLeaderRequest<TypeConfig> {
    type Proto = proto::TransferLeaderRequest;

    fn to_proto(&self, sender: &Sender) -> Self::Proto {
        proto::TransferLeaderRequest {
            sender: Some(sender.into()),
            from: Some(self.from_leader().into()),
            to: self.to_node_id().to_string(),
            last_log: self.last_log_id().map(Into::into),
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<(Sender, Self), WireError> {
        const NAME: &str = "TransferLeaderRequest";
        let from = ballot(proto.from, NAME, "from")?;
        let to = member(proto.to, NAME, "to")?;
        let request = TransferLeaderRequest::new(from, to, proto.last_log.map(Into::into));
        Ok((sender(proto.sender, NAME)?, request))
    }
}

impl Message for TransferAnswer {
    type Proto = proto::TransferLeaderResponse;

    fn to_proto(&self, sender: &Sender) -> Self::Proto {
        let refused = match self {
            TransferAnswer::Accepted => String::new(),
            TransferAnswer::Refused(reason) if reason.is_empty() => "refused".to_string(),
            TransferAnswer::Refused(reason) => reason.clone(),
        };
        proto::TransferLeaderResponse { sender: Some(sender.into()), refused }
    }

    fn from_proto(proto: Self::Proto) -> Result<(Sender, Self), WireError> {
        let answer = match proto.refused {
            reason if reason.is_empty() => TransferAnswer::Accepted,
            reason => TransferAnswer::Refused(reason),
        };
        Ok((sender(proto.sender, "TransferLeaderResponse")?, answer))
    }
}
