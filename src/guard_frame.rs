//! What coordinator and guard say to each other, and the proof that the guard is armed.
//!
//! Frames are JSON with a four-byte big-endian length before them, on a unix stream socket in the
//! member's `run_dir`. Either side may be restarted: the guard answers every `Hello` with all it knows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, NodeId};
use crate::time::BootTime;

/// Version of this protocol; a guard of another version is refused, not guessed at.
pub const GUARD_PROTOCOL: u32 = 1;

/// From the coordinator to the guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuard {
    /// First frame of a connection. A newer connection replaces an older one.
    Hello { protocol: u32, member: NodeId, links: Vec<LinkSpec> },
    /// Starts the chain node. With `validator_epoch`, as a validator: refused unless the guard is
    /// armed under that epoch. Without it, as a standby: the guard puts the links into standby first.
    Start { node: NodeSpec, validator_epoch: Option<Epoch> },
    /// Arms the guard or moves its deadline. Refused when the deadline has passed or the epoch is
    /// lower than one seen before. A renewal never moves a deadline back.
    Arm { epoch: Epoch, deadline: BootTime },
    /// The chain node of this epoch was proven stopped or keyless: there is nothing left to fence.
    Disarm { epoch: Epoch },
    /// Sends a signal to the chain node. With `validator_epoch`, refused unless armed under it.
    Signal { signal: i32, validator_epoch: Option<Epoch> },
    /// SIGTERM to the chain node, SIGKILL to all of it after `timeout`; a zero timeout kills at once.
    Stop { timeout: Duration },
    /// The guard ends; refused while the chain node runs.
    Quit,
}

/// From the guard to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGuard {
    /// Answer to `Hello`.
    Welcome {
        protocol: u32,
        guard_pid: u32,
        node: Option<NodeProcess>,
        armed: Option<Armed>,
    },
    Started {
        node: NodeProcess,
    },
    /// Answer to every accepted `Arm`.
    Armed(Armed),
    Disarmed {
        epoch: Epoch,
    },
    Signalled {
        signal: i32,
    },
    /// The chain node and every descendant of it are gone.
    Exited {
        pid: u32,
        status: ExitStatus,
        cause: ExitCause,
    },
    /// The deadline passed: the chain node is dead and the links are in standby (or `links_error`
    /// says why they are not). `Exited` with `ExitCause::Fenced` comes first when a node was running.
    Fenced {
        epoch: Epoch,
        fired_at: BootTime,
        done_at: BootTime,
        links_error: Option<String>,
    },
    /// The guard did not do what was asked; nothing has changed.
    Refused {
        request: String,
        reason: String,
    },
}

/// The guard's word that it will kill the chain node at `deadline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Armed {
    epoch: Epoch,
    deadline: BootTime,
}

impl Armed {
    /// Only the guard says this of itself, and tests.
    pub fn by_guard(epoch: Epoch, deadline: BootTime) -> Self {
        Armed { epoch, deadline }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn deadline(&self) -> BootTime {
        self.deadline
    }
}

/// Proof that a guard acknowledged an `Arm` of this epoch. Whatever makes a chain node a validator
/// takes one; it is made from the guard's own frame and nothing else.
#[derive(Debug, PartialEq, Eq)]
pub struct ArmedGuard {
    armed: Armed,
}

impl ArmedGuard {
    /// The proof, when `frame` is the guard's acknowledgement and its deadline still lies ahead.
    pub fn from_frame(frame: &FromGuard, now: BootTime) -> Option<ArmedGuard> {
        match frame {
            FromGuard::Armed(armed) if now < armed.deadline => Some(ArmedGuard { armed: *armed }),
            FromGuard::Armed(_)
            | FromGuard::Welcome { .. }
            | FromGuard::Started { .. }
            | FromGuard::Disarmed { .. }
            | FromGuard::Signalled { .. }
            | FromGuard::Exited { .. }
            | FromGuard::Fenced { .. }
            | FromGuard::Refused { .. } => None,
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.armed.epoch
    }

    /// Whether the deadline acknowledged here still lies ahead.
    pub fn is_live(&self, now: BootTime) -> bool {
        now < self.armed.deadline
    }
}

/// The supervised process, as the guard sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProcess {
    pub pid: u32,
    pub started_at: BootTime,
    /// The epoch it was started or signalled under as a validator; `None` for a standby.
    pub validator_epoch: Option<Epoch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
}

/// Why the chain node is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitCause {
    /// It ended without being asked.
    ByItself,
    /// After `Stop`; `killed` when it had ignored SIGTERM.
    Stopped { killed: bool },
    /// The deadline passed.
    Fenced,
}

/// How to start the chain node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    pub argv: Vec<String>,
    /// Added to the guard's own environment.
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    /// Standard output and error are appended here; `None` inherits the guard's.
    pub log: Option<PathBuf>,
}

/// One link of the chain node's home and what it points to in each role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSpec {
    /// Absolute path of the link itself.
    pub link: PathBuf,
    pub validating: PathBuf,
    /// `None`: in standby the link is absent.
    pub standby: Option<PathBuf>,
}
