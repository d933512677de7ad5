//! What baton knows of a chain node, whatever chain it is of: how it becomes a validator, what it
//! answered last, and below what it must not sign. Plain values that `core`, `config`, `wire` and
//! the chain drivers tell one another; how they are found out is the business of `chain/`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::ids::SignMark;
use crate::base::time::WallTime;

/// One answer of the chain node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Health {
    /// The node says that it follows the head of the chain.
    pub synced: bool,
    pub height: u64,
    /// Header time of the block at `height`.
    pub head_time: Option<WallTime>,
    /// The highest height that the node has approved, or would have with a key. Zero when it was not asked or does not
    /// tell.
    pub approved: u64,
    pub peers: Option<u32>,
    pub key: KeyState,
    pub latency: Duration,
    /// The node's own version text, empty when it tells none.
    pub version: String,
}

/// Whether the node says that it holds the validator key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyState {
    Loaded,
    Absent,
    /// The node does not tell; then only a stopped process proves that the key is out of use.
    Untold,
}

/// Work with the shared key that stands on the chain, counted from the start of an epoch of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnChain {
    /// Names the chain's epoch.
    pub epoch: u64,
    /// Whether the key's account has anything to sign in it; else the rest is zero.
    pub validates: bool,
    pub blocks: u64,
    pub chunks: u64,
    pub endorsements: u64,
}

impl OnChain {
    /// What has come since `before`, if anything has. In a new epoch all of it has.
    pub fn new_since(&self, before: &OnChain) -> Option<&'static str> {
        let none = OnChain { blocks: 0, chunks: 0, endorsements: 0, ..*self };
        let before = if self.epoch == before.epoch { before } else { &none };
        [
            ("block", self.blocks > before.blocks),
            ("chunk", self.chunks > before.chunks),
            ("endorsement", self.endorsements > before.endorsements),
        ]
        .into_iter()
        .find_map(|(what, came)| came.then_some(what))
    }
}

/// What the newest block of a chain node shows of the shared key's work, whoever did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyWork {
    pub height: u64,
    /// Header time of the block at `height`.
    pub time: WallTime,
    pub shown: Shown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Whether the key signed that very block, which nobody can before its header time.
    Signed(bool),
    /// All of the chain's epoch up to that block.
    Counted(OnChain),
}

/// One look at what the shared key signed, as far as it stands on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyLook {
    /// The newest block that was looked at.
    pub height: u64,
    /// What it shows, or would show, was signed after this time, by the header of a block.
    pub after: WallTime,
    pub signed: bool,
    /// When the answer was there, by the wall clock of this host.
    pub looked_at: WallTime,
}

/// How a chain node becomes a validator and a standby again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Stop the node, change the links, start it.
    Restart,
    /// Change the links, send this signal to the running node.
    Signal(i32),
    /// Change the links, run a command. Each is an argv.
    Exec { activate: Vec<String>, deactivate: Vec<String> },
}

/// What everything signed so far with the shared key lies at or below (fence 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SignFloor {
    /// The cluster has never signed with this key.
    #[default]
    None,
    /// Exact, from the old holder's `Release`.
    Mark(SignMark),
    /// Everything signed lies at or below any block whose header time is after this one.
    BlockAfter(WallTime),
}

/// What a sign floor rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FloorBasis {
    /// Nobody had held the baton before. Settled all the same: the key may be older than the cluster.
    NeverSigned,
    /// Exact: the old holder's `Release` said what it signed last.
    Release,
    /// A block that was made after the lease was won.
    Settled,
    /// The chain stood still: the last mark that gossip told of.
    Replica,
    /// The chain stood still: an operator said how far the key had signed.
    Operator,
    /// The log decides what is signed, and no chain node.
    Log,
}

impl FloorBasis {
    pub fn as_str(self) -> &'static str {
        match self {
            FloorBasis::NeverSigned => "never-signed",
            FloorBasis::Release => "release",
            FloorBasis::Settled => "settled",
            FloorBasis::Replica => "replica",
            FloorBasis::Operator => "operator",
            FloorBasis::Log => "log",
        }
    }
}

/// The floor that a holder's chain node met before it got the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MetFloor {
    pub floor: SignFloor,
    /// `None` in what an earlier version recorded.
    #[serde(default)]
    pub basis: Option<FloorBasis>,
    /// Head of the chain node at that moment.
    #[serde(default)]
    pub height: u64,
    /// From the guard's first word for this holder until then.
    #[serde(default)]
    pub settled_in: Duration,
}

impl fmt::Display for MetFloor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MetFloor { floor, basis, height, settled_in } = self;
        match basis {
            None => write!(f, "{floor}"),
            Some(basis) => {
                let (basis, settle_ms) = (basis.as_str(), settled_in.as_millis());
                write!(f, "{basis}, {floor}, met at height {height} in {settle_ms} ms")
            }
        }
    }
}

impl fmt::Display for SignFloor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignFloor::None => write!(f, "none"),
            SignFloor::Mark(mark) => write!(f, "above {mark}"),
            SignFloor::BlockAfter(quiet) => write!(f, "a block after {quiet}"),
        }
    }
}
