//! Chain drivers: what baton has to know about one kind of chain node. A driver never starts, stops
//! or signals a process and never touches a link; `effects.rs` does that with what the driver says.

pub mod cometbft;
pub mod generic;
pub mod near;

use std::time::Duration;

pub use crate::chain_node::{Activation, Health, KeyState, SignFloor};

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProbeError {
    #[error("probe {target}: no answer within {timeout:?}")]
    Timeout { target: String, timeout: Duration },
    #[error("probe {target}: {reason}")]
    Unreachable { target: String, reason: String },
    #[error("probe {target}: {reason}")]
    BadAnswer { target: String, reason: String },
}
