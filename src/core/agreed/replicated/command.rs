//! The commands in the Raft log, in groups: a reader matches the one that it cares for. On disk and between members
//! they are flat (`proto::Command`), as before there were groups; `cluster::wire` turns one into the other.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::chain_node::MetFloor;
use crate::base::ids::{Epoch, NodeId, SignMark, UpgradeName};
use crate::base::time::WallTime;
use crate::core::agreed::sign_log::{Grant, SignRequest};

/// One entry of the Raft log, as the proposer wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    /// The leader's word on who has the baton.
    Baton(Baton),
    /// Records the incarnation of a member's store, once.
    Join { member: NodeId, incarnation: u64 },
    /// An operator's order that stands until it is taken back.
    Set(Set),
    /// An operator's word while the holder of `epoch` settles: nobody has signed above this height with the shared key.
    LayFloor { epoch: Epoch, above: u64, because: String, at: WallTime },
    /// A step of an upgrade of every chain node.
    Upgrade(Upgrade),
    /// What the validator's key signs, where no chain node has it.
    Signing(Signing),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Baton {
    /// The leader takes the baton under the next epoch.
    Claim { epoch: Epoch, member: NodeId, reason: String, at: WallTime },
    /// The leader of the entry's term lets go and never claims again in that term. `last_signed` is
    /// what it signed last or, when it signed nothing in this epoch, the mark that it started from. `to` is
    /// whom an operator chose, and nobody when the best member then shall have it.
    Release { epoch: Epoch, last_signed: Option<SignMark>, reason: String, at: WallTime, to: Option<NodeId> },
    /// The holder of the epoch was proven active, `took` after it began to act.
    Activated { epoch: Epoch, at: WallTime, floor: MetFloor, took: Duration },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Set {
    /// Whether the member takes the baton at all.
    Maintenance { member: NodeId, on: bool, at: WallTime },
    /// Whether the baton moves by itself.
    Pause { on: bool, at: WallTime },
    /// A priority in the place of the configured one; `None` ends that.
    Priority { member: NodeId, priority: Option<u32> },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Upgrade {
    /// An operator's order: see [`Plan`](crate::core::upgrades::Plan).
    Plan { name: UpgradeName, height: Option<u64>, source: Option<String>, back: bool, at: WallTime },
    /// An operator's order. Who is in the middle of it goes on to its end.
    Cancel { name: UpgradeName, at: WallTime },
    /// This standby's chain node is stopped and upgraded now; the member before it is done.
    Turn { name: UpgradeName, member: NodeId, at: WallTime },
    /// Everybody is upgraded, or it ended with this member, for this reason.
    End { name: UpgradeName, failed: Option<(NodeId, String)>, at: WallTime },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Signing {
    /// An operator's word while nobody holds the baton: from now on the log decides what is signed, for `chain` and with
    /// `key`, above `last`.
    Open {
        chain: String,
        key: String,
        last: Grant,
        at: WallTime,
    },
    /// An operator's word while nobody holds the baton: from now on the holder's chain node has the key.
    Close {
        at: WallTime,
    },
    Sign(SignRequest),
}

impl Command {
    /// The epoch of the tenure that it is about, if it is about one.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Command::Baton(step) => Some(step.epoch()),
            Command::LayFloor { epoch, .. } => Some(*epoch),
            Command::Join { .. } | Command::Set(_) | Command::Upgrade(_) | Command::Signing(_) => None,
        }
    }

    pub fn is_claim(&self) -> bool {
        matches!(self, Command::Baton(Baton::Claim { .. }))
    }

    pub fn is_release(&self) -> bool {
        matches!(self, Command::Baton(Baton::Release { .. }))
    }
}

impl Baton {
    pub fn epoch(&self) -> Epoch {
        match self {
            Baton::Claim { epoch, .. } | Baton::Release { epoch, .. } | Baton::Activated { epoch, .. } => *epoch,
        }
    }
}

/// As in the log for operators, under the names of the messages in `raft.proto`.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Baton(step) => step.fmt(f),
            Command::Join { member, incarnation } => write!(f, "Join{{{member}, {incarnation:016x}}}"),
            Command::Set(set) => set.fmt(f),
            Command::LayFloor { epoch, above, because, .. } => {
                write!(f, "LayFloor{{epoch {epoch}, above {above}: {because}}}")
            }
            Command::Upgrade(change) => change.fmt(f),
            Command::Signing(step) => step.fmt(f),
        }
    }
}

impl fmt::Display for Baton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Baton::Claim { epoch, member, .. } => write!(f, "Claim{{epoch {epoch}, {member}}}"),
            Baton::Release { epoch, last_signed: Some(mark), .. } => {
                write!(f, "Release{{epoch {epoch}, last signed {mark}}}")
            }
            Baton::Release { epoch, last_signed: None, .. } => write!(f, "Release{{epoch {epoch}, no mark}}"),
            Baton::Activated { epoch, floor, .. } => write!(f, "Activated{{epoch {epoch}, floor: {floor}}}"),
        }
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let switched = |on: &bool| if *on { "on" } else { "off" };
        match self {
            Set::Maintenance { member, on, .. } => write!(f, "SetMaintenance{{{member}, {}}}", switched(on)),
            Set::Pause { on, .. } => write!(f, "SetPause{{{}}}", switched(on)),
            Set::Priority { member, priority: Some(priority) } => write!(f, "SetPriority{{{member}, {priority}}}"),
            Set::Priority { member, priority: None } => write!(f, "SetPriority{{{member}, as configured}}"),
        }
    }
}

impl fmt::Display for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Upgrade::Plan { name, height: Some(height), .. } => write!(f, "PlanUpgrade{{{name}, {height}}}"),
            Upgrade::Plan { name, back: true, .. } => write!(f, "PlanUpgrade{{{name}, rolling back}}"),
            Upgrade::Plan { name, .. } => write!(f, "PlanUpgrade{{{name}, rolling}}"),
            Upgrade::Cancel { name, .. } => write!(f, "CancelUpgrade{{{name}}}"),
            Upgrade::Turn { name, member, .. } => write!(f, "UpgradeTurn{{{name}, {member}}}"),
            Upgrade::End { name, failed: None, .. } => write!(f, "EndUpgrade{{{name}, done}}"),
            Upgrade::End { name, failed: Some((member, reason)), .. } => {
                write!(f, "EndUpgrade{{{name}, failed at {member}: {reason}}}")
            }
        }
    }
}

impl fmt::Display for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Signing::Open { chain, last, .. } => write!(f, "OpenSignLog{{{chain}, above {}}}", last.place),
            Signing::Close { .. } => write!(f, "CloseSignLog"),
            Signing::Sign(request) => write!(f, "Sign{{{}, {}}}", request.place, request.digest),
        }
    }
}
