//! Chain drivers: what baton has to know about one kind of chain node. A driver never starts, stops
//! or signals a process and never touches a link; `effects.rs` does that with what the driver says.

pub mod cometbft;
pub mod generic;
pub mod near;

use std::time::Duration;

pub use crate::replicated::SignFloor;
use crate::time::WallTime;

/// One answer of the chain node.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// The node says that it follows the head of the chain.
    pub synced: bool,
    pub height: u64,
    /// Header time of the block at `height`.
    pub head_time: Option<WallTime>,
    pub peers: Option<u32>,
    pub key: KeyState,
    pub latency: Duration,
    /// The node's own version text, empty when it tells none.
    pub version: String,
}

/// Whether the node says that it holds the validator key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    Loaded,
    Absent,
    /// The node does not tell; then only a stopped process proves that the key is out of use.
    Untold,
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

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProbeError {
    #[error("probe {target}: no answer within {timeout:?}")]
    Timeout { target: String, timeout: Duration },
    #[error("probe {target}: {reason}")]
    Unreachable { target: String, reason: String },
    #[error("probe {target}: {reason}")]
    BadAnswer { target: String, reason: String },
}
