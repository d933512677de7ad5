//! What messages are made of: ballots, log ids, entries, memberships, commands, marks and floors.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::EntryPayload;
use openraft::vote::leader_id_std::CommittedLeaderId;

use super::proto;
use super::upgrades::upgrade_name;
use super::{Entry, LeaderId, LogId, Membership, Node, SnapshotMeta, StoredMembership, Vote, WireError};
use super::{asked_by, member, name_or_empty, nanos, requester, required, some_name};
use crate::base::chain_node::{FloorBasis, MetFloor, SignFloor};
use crate::base::ids::{Epoch, NodeId, Role, SignMark};
use crate::base::signing::{Hrs, SignDigest, SignTime};
use crate::base::time::WallTime;
use crate::core::agreed::members::Members;
use crate::core::agreed::replicated::{Baton, Command, Set, Signing, Upgrade};
use crate::core::agreed::sign_log::{Grant, SignRequest};

impl From<&Vote> for proto::Ballot {
    fn from(vote: &Vote) -> Self {
        let LeaderId { term, voted_for } = &vote.leader_id;
        proto::Ballot { term: *term, candidate: voted_for.to_string(), committed: vote.committed }
    }
}

impl TryFrom<proto::Ballot> for Vote {
    type Error = WireError;

    fn try_from(ballot: proto::Ballot) -> Result<Self, WireError> {
        let candidate = member(ballot.candidate, "Ballot", "candidate")?;
        Ok(Vote { leader_id: LeaderId { term: ballot.term, voted_for: candidate }, committed: ballot.committed })
    }
}

impl From<&LogId> for proto::LogId {
    fn from(id: &LogId) -> Self {
        proto::LogId { term: id.leader_id.term, index: id.index }
    }
}

impl From<proto::LogId> for LogId {
    fn from(id: proto::LogId) -> Self {
        LogId { leader_id: CommittedLeaderId::new(id.term), index: id.index }
    }
}

impl From<&Entry> for proto::Entry {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => proto::entry::Payload::Blank(proto::Blank {}),
            EntryPayload::Normal(command) => proto::entry::Payload::Command(command.into()),
            EntryPayload::Membership(membership) => proto::entry::Payload::Membership(membership.into()),
        };
        proto::Entry { id: Some((&entry.log_id).into()), payload: Some(payload) }
    }
}

/// Not a `TryFrom`: openraft's entry leaves no room for one.
pub fn read_entry(entry: proto::Entry) -> Result<Entry, WireError> {
    let payload = match required(entry.payload, "Entry", "payload")? {
        proto::entry::Payload::Blank(proto::Blank {}) => EntryPayload::Blank,
        proto::entry::Payload::Command(command) => EntryPayload::Normal(command.try_into()?),
        proto::entry::Payload::Membership(membership) => EntryPayload::Membership(membership.try_into()?),
    };
    Ok(Entry { log_id: required(entry.id, "Entry", "id")?.into(), payload })
}

/// The command of an entry that has one.
pub fn command(entry: &Entry) -> Option<&Command> {
    match &entry.payload {
        EntryPayload::Normal(command) => Some(command),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    }
}

impl From<&Node> for proto::MemberInfo {
    fn from(node: &Node) -> Self {
        proto::MemberInfo {
            arbiter: node.role == Role::Arbiter,
            priority: node.priority,
            incarnation: node.incarnation.unwrap_or(0),
        }
    }
}

/// What a membership says, without openraft.
pub fn members(membership: &Membership) -> Members {
    Members {
        voters: membership.get_joint_config().clone(),
        all: membership.nodes().map(|(id, node)| (id.clone(), node.clone())).collect(),
    }
}

impl From<&Membership> for proto::Membership {
    fn from(membership: &Membership) -> Self {
        let voters = |set: &BTreeSet<NodeId>| proto::VoterSet { members: set.iter().map(NodeId::to_string).collect() };
        proto::Membership {
            configs: membership.get_joint_config().iter().map(voters).collect(),
            addresses: membership.nodes().map(|(id, node)| (id.to_string(), node.addr.clone())).collect(),
            members: membership.nodes().map(|(id, node)| (id.to_string(), node.into())).collect(),
        }
    }
}

impl TryFrom<proto::Membership> for Membership {
    type Error = WireError;

    /// No voters and no addresses is the membership of a cluster that was not formed yet.
    fn try_from(membership: proto::Membership) -> Result<Self, WireError> {
        let mut configs = Vec::with_capacity(membership.configs.len());
        for set in membership.configs {
            let voters = set.members.into_iter().map(|name| member(name, "Membership", "configs"));
            configs.push(voters.collect::<Result<BTreeSet<NodeId>, WireError>>()?);
        }
        let mut nodes = BTreeMap::new();
        for (name, addr) in membership.addresses {
            let proto::MemberInfo { arbiter, priority, incarnation } =
                membership.members.get(&name).cloned().unwrap_or_default();
            let role = if arbiter { Role::Arbiter } else { Role::Validator };
            let node = Node { addr, role, priority, incarnation: Some(incarnation).filter(|number| *number != 0) };
            nodes.insert(member(name, "Membership", "addresses")?, node);
        }
        if configs.is_empty() && nodes.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(configs, nodes).map_err(|error| WireError::Invalid {
            message: "Membership",
            field: "configs",
            reason: error.to_string(),
        })
    }
}

impl From<&SnapshotMeta> for proto::SnapshotMeta {
    fn from(meta: &SnapshotMeta) -> Self {
        proto::SnapshotMeta {
            last_log: meta.last_log_id.as_ref().map(Into::into),
            membership_id: meta.last_membership.log_id().as_ref().map(Into::into),
            membership: Some(meta.last_membership.membership().into()),
        }
    }
}

impl TryFrom<proto::SnapshotMeta> for SnapshotMeta {
    type Error = WireError;

    fn try_from(meta: proto::SnapshotMeta) -> Result<Self, WireError> {
        let membership = required(meta.membership, "SnapshotMeta", "membership")?.try_into()?;
        Ok(SnapshotMeta {
            last_log_id: meta.last_log.map(Into::into),
            last_membership: StoredMembership::new(meta.membership_id.map(Into::into), membership),
        })
    }
}

impl From<&Command> for proto::Command {
    fn from(command: &Command) -> Self {
        use proto::command::Command as Kind;
        let kind = match command {
            Command::Baton(Baton::Claim { epoch, member, reason, at }) => Kind::Claim(proto::Claim {
                epoch: epoch.0,
                member: member.to_string(),
                reason: reason.clone(),
                at_ns: at.as_nanos(),
            }),
            Command::Baton(Baton::Release { epoch, last_signed, reason, at, to }) => Kind::Release(proto::Release {
                epoch: epoch.0,
                last_signed: signed_part(*last_signed),
                approvals: approvals_part(*last_signed),
                reason: reason.clone(),
                at_ns: at.as_nanos(),
                to: name_or_empty(to),
            }),
            Command::Baton(Baton::Activated { epoch, at, floor, took }) => Kind::Activated(proto::Activated {
                epoch: epoch.0,
                at_ns: at.as_nanos(),
                floor: Some(floor.floor.into()),
                took_ns: nanos(*took),
                basis: proto::FloorBasis::from(floor.basis).into(),
                met_at_height: floor.height,
                settled_in_ns: nanos(floor.settled_in),
            }),
            Command::Join { member, incarnation } => {
                Kind::Join(proto::Join { member: member.to_string(), incarnation: *incarnation })
            }
            Command::Set(Set::Maintenance { member, on, at }) => Kind::SetMaintenance(proto::SetMaintenance {
                member: member.to_string(),
                on: *on,
                at_ns: at.as_nanos(),
            }),
            Command::Set(Set::Pause { on, at }) => Kind::SetPause(proto::SetPause { on: *on, at_ns: at.as_nanos() }),
            Command::Set(Set::Priority { member, priority }) => {
                Kind::SetPriority(proto::SetPriority { member: member.to_string(), priority: *priority })
            }
            Command::LayFloor { epoch, above, because, at } => Kind::LayFloor(proto::LayFloor {
                epoch: epoch.0,
                above: *above,
                because: because.clone(),
                at_ns: at.as_nanos(),
            }),
            Command::Upgrade(Upgrade::Plan { name, height, source, back, at }) => {
                Kind::PlanUpgrade(proto::PlanUpgrade {
                    name: name.to_string(),
                    height: *height,
                    source: source.clone().unwrap_or_default(),
                    back: *back,
                    at_ns: at.as_nanos(),
                })
            }
            Command::Upgrade(Upgrade::Cancel { name, at }) => {
                Kind::CancelUpgrade(proto::CancelUpgrade { name: name.to_string(), at_ns: at.as_nanos() })
            }
            Command::Upgrade(Upgrade::Turn { name, member, at }) => Kind::UpgradeTurn(proto::UpgradeTurn {
                name: name.to_string(),
                member: member.to_string(),
                at_ns: at.as_nanos(),
            }),
            Command::Upgrade(Upgrade::End { name, failed, at }) => {
                let (failed_at, reason) = failed.clone().unzip();
                Kind::EndUpgrade(proto::EndUpgrade {
                    name: name.to_string(),
                    at_ns: at.as_nanos(),
                    failed_at: name_or_empty(&failed_at),
                    reason: reason.unwrap_or_default(),
                })
            }
            Command::Signing(Signing::Open { chain, key, last, at }) => Kind::OpenSignLog(proto::OpenSignLog {
                chain: chain.clone(),
                key: key.clone(),
                last: Some(last.into()),
                at_ns: at.as_nanos(),
            }),
            Command::Signing(Signing::Close { at }) => Kind::CloseSignLog(proto::CloseSignLog { at_ns: at.as_nanos() }),
            Command::Signing(Signing::Sign(request)) => {
                let (by, sentry) = asked_by(&request.by);
                let wanted = Some((&request.wanted()).into());
                Kind::Sign(proto::Sign { chain: request.chain.clone(), wanted, by, sentry })
            }
        };
        proto::Command { command: Some(kind) }
    }
}

impl TryFrom<proto::Command> for Command {
    type Error = WireError;

    fn try_from(command: proto::Command) -> Result<Self, WireError> {
        use proto::command::Command as Kind;
        Ok(match required(command.command, "Command", "command")? {
            Kind::Claim(claim) => Command::Baton(Baton::Claim {
                epoch: Epoch(claim.epoch),
                member: member(claim.member, "Claim", "member")?,
                reason: claim.reason,
                at: WallTime::from_nanos(claim.at_ns),
            }),
            Kind::Release(release) => Command::Baton(Baton::Release {
                epoch: Epoch(release.epoch),
                last_signed: from_parts((release.last_signed, release.approvals)),
                reason: release.reason,
                at: WallTime::from_nanos(release.at_ns),
                to: some_name(release.to),
            }),
            Kind::Activated(activated) => Command::Baton(Baton::Activated {
                epoch: Epoch(activated.epoch),
                at: WallTime::from_nanos(activated.at_ns),
                floor: MetFloor {
                    basis: activated.basis().into(),
                    floor: required(activated.floor, "Activated", "floor")?.try_into()?,
                    height: activated.met_at_height,
                    settled_in: Duration::from_nanos(activated.settled_in_ns),
                },
                took: Duration::from_nanos(activated.took_ns),
            }),
            Kind::Join(join) => {
                Command::Join { member: member(join.member, "Join", "member")?, incarnation: join.incarnation }
            }
            Kind::SetMaintenance(set) => Command::Set(Set::Maintenance {
                member: member(set.member, "SetMaintenance", "member")?,
                on: set.on,
                at: WallTime::from_nanos(set.at_ns),
            }),
            Kind::SetPause(set) => Command::Set(Set::Pause { on: set.on, at: WallTime::from_nanos(set.at_ns) }),
            Kind::SetPriority(set) => Command::Set(Set::Priority {
                member: member(set.member, "SetPriority", "member")?,
                priority: set.priority,
            }),
            Kind::LayFloor(laid) => Command::LayFloor {
                epoch: Epoch(laid.epoch),
                above: laid.above,
                because: laid.because,
                at: WallTime::from_nanos(laid.at_ns),
            },
            Kind::PlanUpgrade(plan) => Command::Upgrade(Upgrade::Plan {
                name: upgrade_name(&plan.name, "PlanUpgrade")?,
                height: plan.height,
                source: Some(plan.source).filter(|source| !source.is_empty()),
                back: plan.back,
                at: WallTime::from_nanos(plan.at_ns),
            }),
            Kind::CancelUpgrade(cancel) => Command::Upgrade(Upgrade::Cancel {
                name: upgrade_name(&cancel.name, "CancelUpgrade")?,
                at: WallTime::from_nanos(cancel.at_ns),
            }),
            Kind::UpgradeTurn(turn) => Command::Upgrade(Upgrade::Turn {
                name: upgrade_name(&turn.name, "UpgradeTurn")?,
                member: member(turn.member, "UpgradeTurn", "member")?,
                at: WallTime::from_nanos(turn.at_ns),
            }),
            Kind::EndUpgrade(end) => Command::Upgrade(Upgrade::End {
                name: upgrade_name(&end.name, "EndUpgrade")?,
                failed: some_name(end.failed_at).map(|member| (member, end.reason)),
                at: WallTime::from_nanos(end.at_ns),
            }),
            Kind::OpenSignLog(open) => Command::Signing(Signing::Open {
                chain: open.chain,
                key: open.key,
                last: required(open.last, "OpenSignLog", "last")?.try_into()?,
                at: WallTime::from_nanos(open.at_ns),
            }),
            Kind::CloseSignLog(close) => Command::Signing(Signing::Close { at: WallTime::from_nanos(close.at_ns) }),
            Kind::Sign(sign) => {
                let Grant { place, digest, time } = required(sign.wanted, "Sign", "wanted")?.try_into()?;
                let digest = required(digest, "Grant", "digest")?;
                let by = requester(sign.by, sign.sentry);
                Command::Signing(Signing::Sign(SignRequest { chain: sign.chain, place, digest, time, by }))
            }
        })
    }
}

impl From<&Grant> for proto::Grant {
    fn from(grant: &Grant) -> Self {
        let Grant { place: Hrs { height, round, step }, digest, time: SignTime { seconds, nanos } } = *grant;
        let digest = digest.map(|SignDigest(bytes)| bytes.to_vec()).unwrap_or_default();
        proto::Grant { height, round, step, digest, seconds, nanos }
    }
}

impl TryFrom<proto::Grant> for Grant {
    type Error = WireError;

    fn try_from(grant: proto::Grant) -> Result<Self, WireError> {
        let proto::Grant { height, round, step, digest, seconds, nanos } = grant;
        let whole = |bytes: Vec<u8>| {
            let length = bytes.len();
            bytes.try_into().map(SignDigest).map_err(|_| WireError::Invalid {
                message: "Grant",
                field: "digest",
                reason: format!("{length} bytes; 32 are a digest"),
            })
        };
        let digest = Some(digest).filter(|bytes| !bytes.is_empty()).map(whole).transpose()?;
        Ok(Grant { place: Hrs { height, round, step }, digest, time: SignTime { seconds, nanos } })
    }
}

impl From<SignMark> for proto::SignMark {
    fn from(mark: SignMark) -> Self {
        proto::SignMark { height: mark.height, round: mark.round, step: mark.step, approved: mark.approved }
    }
}

impl From<proto::SignMark> for SignMark {
    fn from(mark: proto::SignMark) -> Self {
        SignMark { height: mark.height, round: mark.round, step: mark.step, approved: mark.approved }
    }
}

/// A mark where it is acted on. One with approvals does not stand where a version that does not know of them would take
/// its height for all of it, and sign what was approved.
pub fn signed_part(mark: Option<SignMark>) -> Option<proto::SignMark> {
    mark.filter(|mark| mark.approved == 0).map(Into::into)
}

/// The mark for which there is no [`signed_part`].
pub fn approvals_part(mark: Option<SignMark>) -> Option<proto::Approvals> {
    let mark = mark.filter(|mark| mark.approved > 0)?;
    Some(proto::Approvals { head: mark.height, approved: mark.approved })
}

/// What [`signed_part`] and [`approvals_part`] were made from.
pub fn from_parts((signed, approvals): (Option<proto::SignMark>, Option<proto::Approvals>)) -> Option<SignMark> {
    let approvals = approvals.map(|part| SignMark::of_approvals(part.head, part.approved));
    SignMark::of_both(signed.map(Into::into), approvals)
}

/// Unspecified is what a message of an earlier version says.
impl From<Option<FloorBasis>> for proto::FloorBasis {
    fn from(basis: Option<FloorBasis>) -> Self {
        match basis {
            None => proto::FloorBasis::Unspecified,
            Some(FloorBasis::NeverSigned) => proto::FloorBasis::NeverSigned,
            Some(FloorBasis::Release) => proto::FloorBasis::Release,
            Some(FloorBasis::Settled) => proto::FloorBasis::Settled,
            Some(FloorBasis::Replica) => proto::FloorBasis::Replica,
            Some(FloorBasis::Operator) => proto::FloorBasis::Operator,
            Some(FloorBasis::Log) => proto::FloorBasis::Log,
        }
    }
}

impl From<proto::FloorBasis> for Option<FloorBasis> {
    fn from(basis: proto::FloorBasis) -> Self {
        match basis {
            proto::FloorBasis::Unspecified => None,
            proto::FloorBasis::NeverSigned => Some(FloorBasis::NeverSigned),
            proto::FloorBasis::Release => Some(FloorBasis::Release),
            proto::FloorBasis::Settled => Some(FloorBasis::Settled),
            proto::FloorBasis::Replica => Some(FloorBasis::Replica),
            proto::FloorBasis::Operator => Some(FloorBasis::Operator),
            proto::FloorBasis::Log => Some(FloorBasis::Log),
        }
    }
}

impl From<SignFloor> for proto::SignFloor {
    fn from(floor: SignFloor) -> Self {
        use proto::sign_floor::Floor;
        proto::SignFloor {
            floor: Some(match floor {
                SignFloor::None => Floor::None(proto::Blank {}),
                SignFloor::Mark(mark) => Floor::Mark(mark.into()),
                SignFloor::BlockAfter(time) => Floor::BlockAfterNs(time.as_nanos()),
            }),
        }
    }
}

impl TryFrom<proto::SignFloor> for SignFloor {
    type Error = WireError;

    fn try_from(floor: proto::SignFloor) -> Result<Self, WireError> {
        use proto::sign_floor::Floor;
        Ok(match required(floor.floor, "SignFloor", "floor")? {
            Floor::None(proto::Blank {}) => SignFloor::None,
            Floor::Mark(mark) => SignFloor::Mark(mark.into()),
            Floor::BlockAfterNs(time) => SignFloor::BlockAfter(WallTime::from_nanos(time)),
        })
    }
}
