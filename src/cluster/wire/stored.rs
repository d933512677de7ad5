//! What a member keeps on disk beside the log, and what a snapshot carries.

use std::sync::Arc;
use std::time::Duration;

use super::proto;
use super::{LogId, StoredMembership, WireError};
use super::{
    approvals_part, asked_by, from_parts, member, name_or_empty, nanos, requester, required, signed_part, some_name,
};
use crate::base::chain_node::MetFloor;
use crate::base::ids::Epoch;
use crate::base::time::WallTime;
use crate::core::agreed::orders::Orders;
use crate::core::agreed::replicated::{LaidFloor, Move, MoveEnd, MoveKind, ReleaseInfo, Replicated};
use crate::core::agreed::sign_log::SignLog;
use crate::core::upgrades::Plans;

/// The applied state with its place in the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppliedState {
    pub last_applied: Option<LogId>,
    pub membership: StoredMembership,
    pub replicated: Arc<Replicated>,
    /// It came as another member's snapshot that ends at `last_applied`, so the log may end before.
    pub from_snapshot: bool,
}

impl From<&AppliedState> for proto::StoredState {
    fn from(image: &AppliedState) -> Self {
        proto::StoredState {
            last_applied: image.last_applied.as_ref().map(Into::into),
            membership_id: image.membership.log_id().as_ref().map(Into::into),
            membership: Some(image.membership.membership().into()),
            replicated: Some((&*image.replicated).into()),
            from_snapshot: image.from_snapshot,
        }
    }
}

impl TryFrom<proto::StoredState> for AppliedState {
    type Error = WireError;

    fn try_from(state: proto::StoredState) -> Result<Self, WireError> {
        let membership = required(state.membership, "StoredState", "membership")?.try_into()?;
        Ok(AppliedState {
            last_applied: state.last_applied.map(Into::into),
            membership: StoredMembership::new(state.membership_id.map(Into::into), membership),
            replicated: Arc::new(required(state.replicated, "StoredState", "replicated")?.try_into()?),
            from_snapshot: state.from_snapshot,
        })
    }
}

impl From<&Replicated> for proto::Replicated {
    fn from(state: &Replicated) -> Self {
        proto::Replicated {
            epoch: state.epoch.0,
            holder: name_or_empty(&state.holder),
            claimed_in_term: state.claimed_in_term,
            last_release: state.last_release.map(Into::into),
            let_go: state.let_go.map(Into::into),
            gap_from_ns: state.gap_from.as_nanos(),
            release_reason: state.release_reason.clone(),
            incarnations: state.incarnations.iter().map(|(id, incarnation)| (id.to_string(), *incarnation)).collect(),
            moves: state.moves.iter().map(Into::into).collect(),
            heir: name_or_empty(&state.heir),
            orders: Some((&state.orders).into()),
            founders: state.founders.iter().map(ToString::to_string).collect(),
            plans: state.plans.0.iter().map(Into::into).collect(),
            sign_log: state.sign_log.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::Replicated> for Replicated {
    type Error = WireError;

    fn try_from(state: proto::Replicated) -> Result<Self, WireError> {
        let incarnations = state.incarnations.into_iter();
        Ok(Replicated {
            epoch: Epoch(state.epoch),
            holder: some_name(state.holder),
            claimed_in_term: state.claimed_in_term,
            last_release: state.last_release.map(Into::into),
            let_go: state.let_go.map(Into::into),
            gap_from: WallTime::from_nanos(state.gap_from_ns),
            release_reason: state.release_reason,
            incarnations: incarnations
                .map(|(name, incarnation)| Ok((member(name, "Replicated", "incarnations")?, incarnation)))
                .collect::<Result<_, WireError>>()?,
            moves: state.moves.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            heir: some_name(state.heir),
            // A state that was written before there were any has none.
            orders: state.orders.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            founders: state
                .founders
                .into_iter()
                .map(|name| member(name, "Replicated", "founders"))
                .collect::<Result<_, WireError>>()?,
            // As above.
            plans: Plans(state.plans.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?),
            sign_log: state.sign_log.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&SignLog> for proto::SignLog {
    fn from(log: &SignLog) -> Self {
        let SignLog { chain, key, last, by, closed } = log;
        let (by, sentry) = asked_by(by);
        proto::SignLog { chain: chain.clone(), key: key.clone(), last: Some(last.into()), closed: *closed, by, sentry }
    }
}

impl TryFrom<proto::SignLog> for SignLog {
    type Error = WireError;

    fn try_from(log: proto::SignLog) -> Result<Self, WireError> {
        let proto::SignLog { chain, key, last, closed, by, sentry } = log;
        let last = required(last, "SignLog", "last")?.try_into()?;
        Ok(SignLog { chain, key, last, by: requester(by, sentry), closed })
    }
}

impl From<&Orders> for proto::Orders {
    fn from(orders: &Orders) -> Self {
        proto::Orders {
            maintenance: orders.maintenance.iter().map(|(id, since)| (id.to_string(), since.as_nanos())).collect(),
            paused_since_ns: orders.paused.map(WallTime::as_nanos),
            priorities: orders.priorities.iter().map(|(id, priority)| (id.to_string(), *priority)).collect(),
        }
    }
}

impl TryFrom<proto::Orders> for Orders {
    type Error = WireError;

    fn try_from(orders: proto::Orders) -> Result<Self, WireError> {
        let maintenance = orders.maintenance.into_iter();
        let priorities = orders.priorities.into_iter();
        Ok(Orders {
            maintenance: maintenance
                .map(|(name, since)| Ok((member(name, "Orders", "maintenance")?, WallTime::from_nanos(since))))
                .collect::<Result<_, WireError>>()?,
            paused: orders.paused_since_ns.map(WallTime::from_nanos),
            priorities: priorities
                .map(|(name, priority)| Ok((member(name, "Orders", "priorities")?, priority)))
                .collect::<Result<_, WireError>>()?,
        })
    }
}

impl From<ReleaseInfo> for proto::ReleaseInfo {
    fn from(release: ReleaseInfo) -> Self {
        proto::ReleaseInfo {
            epoch: release.epoch.0,
            term: release.term,
            last_signed: signed_part(release.last_signed),
            approvals: approvals_part(release.last_signed),
            at_ns: release.at.as_nanos(),
        }
    }
}

impl From<proto::ReleaseInfo> for ReleaseInfo {
    fn from(release: proto::ReleaseInfo) -> Self {
        ReleaseInfo {
            epoch: Epoch(release.epoch),
            term: release.term,
            last_signed: from_parts((release.last_signed, release.approvals)),
            at: WallTime::from_nanos(release.at_ns),
        }
    }
}

impl From<&Move> for proto::StoredMove {
    fn from(row: &Move) -> Self {
        let kind = match row.kind {
            MoveKind::First => proto::MoveKind::First,
            MoveKind::Failover => proto::MoveKind::Failover,
            MoveKind::Handover => proto::MoveKind::Handover,
        };
        let end = row.end.map(|end| proto::MoveEnd {
            active_at_ns: end.active_at.as_nanos(),
            gap_ns: nanos(end.gap),
            took_ns: nanos(end.took),
            floor: Some(end.floor.floor.into()),
            basis: proto::FloorBasis::from(end.floor.basis).into(),
            met_at_height: end.floor.height,
            settled_in_ns: nanos(end.floor.settled_in),
        });
        proto::StoredMove {
            epoch: row.epoch.0,
            from: name_or_empty(&row.from),
            to: row.to.to_string(),
            kind: kind.into(),
            reason: row.reason.clone(),
            claimed_at_ns: row.claimed_at.as_nanos(),
            end,
            laid: row.laid.as_ref().map(Into::into),
        }
    }
}

impl From<&LaidFloor> for proto::LaidFloor {
    fn from(laid: &LaidFloor) -> Self {
        proto::LaidFloor { above: laid.above, because: laid.because.clone(), at_ns: laid.at.as_nanos() }
    }
}

impl TryFrom<proto::StoredMove> for Move {
    type Error = WireError;

    fn try_from(row: proto::StoredMove) -> Result<Self, WireError> {
        let kind = match row.kind() {
            proto::MoveKind::First => MoveKind::First,
            proto::MoveKind::Failover => MoveKind::Failover,
            proto::MoveKind::Handover => MoveKind::Handover,
            proto::MoveKind::Unspecified => return Err(WireError::Missing { message: "StoredMove", field: "kind" }),
        };
        let end = match row.end {
            None => None,
            Some(end) => Some(MoveEnd {
                active_at: WallTime::from_nanos(end.active_at_ns),
                gap: Duration::from_nanos(end.gap_ns),
                took: Duration::from_nanos(end.took_ns),
                floor: MetFloor {
                    basis: end.basis().into(),
                    floor: required(end.floor, "MoveEnd", "floor")?.try_into()?,
                    height: end.met_at_height,
                    settled_in: Duration::from_nanos(end.settled_in_ns),
                },
            }),
        };
        Ok(Move {
            epoch: Epoch(row.epoch),
            from: some_name(row.from),
            to: member(row.to, "StoredMove", "to")?,
            kind,
            reason: row.reason,
            claimed_at: WallTime::from_nanos(row.claimed_at_ns),
            end,
            laid: row.laid.map(|laid| LaidFloor {
                above: laid.above,
                because: laid.because,
                at: WallTime::from_nanos(laid.at_ns),
            }),
        })
    }
}
