//! Why a host cannot take the baton, as a value for the core and in the words that operators read.

use std::fmt;
use std::time::Duration;

use super::Descendant;
use crate::base::ids::{NodeId, UpgradeName};
use crate::base::signing::Custody;
use crate::base::time::WallTime;
use crate::core::degraded::Lag;

/// Why this host cannot take the baton now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReady {
    Arbiter,
    Upgrading {
        name: UpgradeName,
    },
    NoGuard,
    NodeDown,
    Unsteady {
        left: Duration,
        /// In a row, as a holder's.
        times: u32,
    },
    NoAnswer {
        reason: String,
    },
    Syncing {
        /// `None` while no other host is known to be ahead.
        lag: Option<Lag>,
    },
    /// Of what the log has admitted.
    BehindLog {
        blocks: u64,
    },
    FewPeers {
        peers: u32,
        min: u32,
    },
    HeadStuck {
        behind_for: Duration,
    },
    Links {
        reason: String,
    },
    Leaving,
    /// By an operator's order.
    Maintenance,
    /// `state_dir/promise` could not be read at the start: rule (a) refuses every vote, the own candidacy included.
    PromiseLost {
        left: Duration,
    },
    /// A learner, or not a member at all.
    NoVoter,
    /// A chain node that is not ours.
    ForeignNode {
        found: String,
    },
    /// Without these there is no majority, and they do not state for how long they promise.
    SilentMembers {
        members: Vec<NodeId>,
    },
    /// The wall clock, against a majority of members, by more than `chain.clock_skew`.
    Clock {
        off_by: Duration,
    },
    /// One of another cluster of this name calls this host as its member.
    OtherCluster {
        member: NodeId,
    },
    /// The kernel would not end it with the guard.
    Hidden {
        below: Descendant,
    },
    /// The own chain node had the validator's key without the baton.
    KeyLoaded {
        height: u64,
    },
    /// The validator's key signed while no host of the cluster held the baton.
    KeyElsewhere {
        height: u64,
        /// Header time of that block.
        at: WallTime,
    },
    /// These directories do not answer.
    DiskHung {
        dirs: String,
    },
    /// The store has given up its reserve of room.
    DiskFull {
        room: String,
    },
    /// The links could not be put to validating, or the signer is not there.
    Keys {
        reason: String,
    },
    /// The cluster has agreed on another custody of the key than this host is configured with.
    Custody {
        agreed: Custody,
    },
}

impl NotReady {
    /// Whether it is to be mended, also at a host that is there for its vote alone.
    pub fn needs_mending(&self) -> bool {
        !matches!(self, NotReady::Arbiter | NotReady::NoVoter | NotReady::Maintenance | NotReady::Leaving)
    }

    /// Whether it also keeps the member from voting for anybody.
    pub fn gives_no_vote(&self) -> bool {
        matches!(self, NotReady::PromiseLost { .. })
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotReady::Arbiter => write!(f, "an arbiter runs no chain node"),
            NotReady::Upgrading { name } => write!(f, "the chain node is being upgraded to {name}"),
            NotReady::NoGuard => write!(f, "the guard does not answer"),
            NotReady::NodeDown => write!(f, "the chain node is not running"),
            NotReady::Unsteady { left, times } => {
                let row = if *times > 1 { format!(" {times} times in a row") } else { String::new() };
                write!(f, "the chain node failed recently{row}, {:.1} s to wait", left.as_secs_f64())
            }
            NotReady::NoAnswer { reason } if reason.is_empty() => write!(f, "the chain node has not answered yet"),
            NotReady::NoAnswer { reason } => write!(f, "the chain node does not answer: {reason}"),
            NotReady::Syncing { lag: None } => write!(f, "the chain node is syncing"),
            NotReady::Syncing { lag: Some(lag) } => write!(f, "the chain node is syncing, {lag}"),
            NotReady::BehindLog { blocks } => {
                write!(f, "the chain node is {blocks} blocks behind what the validator's key has signed")
            }
            NotReady::FewPeers { peers, min } => {
                write!(f, "the chain node has {peers} peers, and chain.probe.min_peers is {min}")
            }
            NotReady::HeadStuck { behind_for } => {
                let secs = behind_for.as_secs_f64();
                write!(f, "the chain node's head has stood still for {secs:.1} s while another host's is ahead")
            }
            NotReady::Links { reason } => write!(f, "{reason}"),
            NotReady::Leaving => write!(f, "the coordinator is shutting down"),
            NotReady::Maintenance => write!(f, "in maintenance"),
            NotReady::PromiseLost { left } => write!(
                f,
                "it votes for nobody for {} s more: state_dir/promise could not be read, and the longest promise that there can be is waited \
                 out; leave it running, since a restart begins that anew",
                left.as_secs_f64().ceil()
            ),
            NotReady::NoVoter => write!(f, "no voter of the cluster; see baton member list"),
            NotReady::ForeignNode { found } => write!(f, "{found}"),
            NotReady::Hidden { below } => write!(f, "{below}"),
            NotReady::KeyLoaded { height } => write!(
                f,
                "the chain node had the validator's key at height {height} without the baton, and was killed; look for a \
                 copy of the key in its home, and for another node at the probe's address"
            ),
            NotReady::KeyElsewhere { height, at } => write!(
                f,
                "the validator's key signed at height {height}, {at}, while no host of the cluster held the baton; find \
                 the node that has it and stop it"
            ),
            NotReady::Clock { off_by } => write!(
                f,
                "the wall clock is off by {:.3} s against a majority of the members, more than chain.clock_skew: set it right",
                off_by.as_secs_f64()
            ),
            NotReady::OtherCluster { member } => write!(
                f,
                "{member} calls, of a cluster of the same name that other members formed: make cluster.members the same on all \
                 hosts, and empty member.state_dir of those that were alone"
            ),
            NotReady::DiskHung { dirs } => write!(f, "the disk of {dirs} does not answer"),
            NotReady::DiskFull { room } => write!(f, "{room}"),
            NotReady::Keys { reason } => write!(f, "{reason}"),
            NotReady::Custody { agreed: Custody::Links } => write!(
                f,
                "chain.custody is \"signer\" here, and the log does not know yet what the key has signed; tell it with \
                 baton signer import"
            ),
            NotReady::Custody { agreed: Custody::Signer } => write!(
                f,
                "the log decides what is signed, and chain.custody is not \"signer\" here; set it, or end that with baton \
                 signer close"
            ),
            NotReady::SilentMembers { members } => {
                let names = members.iter().map(NodeId::as_str).collect::<Vec<_>>().join(" and ");
                write!(
                    f,
                    "{names} of an earlier version of baton: without its word on timing.lease its answers make no lease; \
                     upgrade it, or set timing.older_members_lease"
                )
            }
        }
    }
}
