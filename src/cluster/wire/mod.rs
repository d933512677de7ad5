//! Protobuf messages ↔ the types that openraft and baton work with, both ways. Reading is total and
//! checked: a missing field is a [`WireError`] that names message and field, never a default. Pure:
//! nothing here sends, receives or stores. `raft` uses it for the network, `store` for the disk,
//! so the proto files specify both.

mod meaning;
mod messages;
mod parts;
mod stored;
mod timelines;
mod upgrades;

pub use crate::core::agreed::replicated::knows::KNOWS;
pub use messages::{Message, OfLeader, PROTOCOL, Promising, Sender, Session, SnapshotRequest, TransferAnswer};
pub use parts::{approvals_part, command, from_parts, members, read_entry, signed_part};
pub use stored::AppliedState;
pub use upgrades::upgrade_name;

use crate::base::ids::NodeId;
use crate::base::timing::Timing;
use crate::config::{Chain, OnHalt};
use crate::core::agreed::replicated::{Applied, Command};
use crate::core::agreed::sign_log::Requester;

/// The generated messages and services.
#[allow(clippy::all)]
pub mod proto {
    tonic::include_proto!("baton.v1");
}

openraft::declare_raft_types!(
    /// The types that openraft is used with. `LeaderId` is the standard one, which allows one leader
    /// a term, and not openraft's default, which allows several: rule W ("never claims again in term
    /// T") and `Replicated::claimed_in_term` both count on it.
    pub TypeConfig:
        D = Command,
        R = Applied,
        NodeId = NodeId,
        Node = Node,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>,
);

pub type Node = crate::core::agreed::members::Member;
pub type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>;
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub type Membership = openraft::Membership<NodeId, Node>;
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
/// One encoded `proto::Replicated`.
pub type SnapshotData = Vec<u8>;

/// A message that does not say what it must. Nothing was taken from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("{message} has no {field}")]
    Missing { message: &'static str, field: &'static str },
    #[error("{message}.{field}: {reason}")]
    Invalid { message: &'static str, field: &'static str, reason: String },
    #[error("{message} cannot be decoded: {reason}")]
    Undecodable { message: &'static str, reason: String },
}

/// Decodes the bytes of one protobuf message.
pub fn decode<M: prost::Message + Default>(message: &'static str, bytes: &[u8]) -> Result<M, WireError> {
    M::decode(bytes).map_err(|error| WireError::Undecodable { message, reason: error.to_string() })
}

/// The value of a field that must be there.
fn required<T>(value: Option<T>, message: &'static str, field: &'static str) -> Result<T, WireError> {
    value.ok_or(WireError::Missing { message, field })
}

/// A member's name, which must be there.
fn member(name: String, message: &'static str, field: &'static str) -> Result<NodeId, WireError> {
    if name.is_empty() { Err(WireError::Missing { message, field }) } else { Ok(NodeId::from(name)) }
}

/// The name, or nothing for nobody.
fn name_or_empty(name: &Option<NodeId>) -> String {
    name.as_ref().map(NodeId::to_string).unwrap_or_default()
}

fn some_name(name: String) -> Option<NodeId> {
    if name.is_empty() { None } else { Some(NodeId::from(name)) }
}

/// Host and sentry, each empty when there is none.
fn asked_by(by: &Option<Requester>) -> (String, String) {
    let sentry = by.as_ref().and_then(|by| by.sentry.clone()).unwrap_or_default();
    (by.as_ref().map(|by| by.host.to_string()).unwrap_or_default(), sentry)
}

fn requester(by: String, sentry: String) -> Option<Requester> {
    some_name(by).map(|host| Requester { host, sentry: Some(sentry).filter(|sentry| !sentry.is_empty()) })
}

impl From<Timing> for proto::Timing {
    fn from(timing: Timing) -> Self {
        proto::Timing {
            heartbeat_ns: nanos(timing.heartbeat()),
            lease_ns: nanos(timing.lease()),
            kill_max_ns: nanos(timing.kill_max()),
            drift_ppm: timing.drift_ppm(),
        }
    }
}

impl proto::SettlingRules {
    /// `None` where the log decides what is signed: nobody settles there.
    pub fn of(chain: &Chain) -> Option<proto::SettlingRules> {
        let replica_on_halt = chain.on_halt == OnHalt::Replica;
        let halt_after = if replica_on_halt { chain.halt_after } else { std::time::Duration::ZERO };
        chain.signer.is_none().then(|| proto::SettlingRules {
            clock_skew_ns: nanos(chain.clock_skew),
            replica_on_halt,
            halt_after_ns: nanos(halt_after),
        })
    }
}

/// Nanoseconds of a duration; one of more than 584 years counts as that.
fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
