//! Why a driver has no answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::chain_node::{Health, SignFloor};

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProbeError {
    #[error("probe {target}: no answer within {timeout:?}")]
    Timeout { target: String, timeout: Duration },
    #[error("probe {target}: {reason}")]
    Unreachable { target: String, reason: String },
    #[error("probe {target}: {reason}")]
    BadAnswer { target: String, reason: String },
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DriverError {
    #[error("{setting}: {reason}")]
    Setting { setting: String, reason: String },
    #[error("{operation} {}: {reason}", path.display())]
    File { operation: &'static str, path: PathBuf, reason: String },
    #[error("command `{command}`: {reason}")]
    Command { command: String, reason: String },
    #[error("sign floor {floor:?} is not met by {seen}; the chain node has to follow the chain further first")]
    FloorNotMet { floor: SignFloor, seen: String },
}

impl DriverError {
    pub(super) fn setting(setting: impl Into<String>, reason: impl Into<String>) -> DriverError {
        DriverError::Setting { setting: setting.into(), reason: reason.into() }
    }

    pub(super) fn file(operation: &'static str, path: &Path, reason: impl ToString) -> DriverError {
        DriverError::File { operation, path: path.to_owned(), reason: reason.to_string() }
    }

    pub(super) fn floor_not_met(floor: &SignFloor, settled: Option<&Health>) -> DriverError {
        let seen = match settled {
            Some(Health { height, head_time: Some(time), .. }) => format!("head {height} of {time}"),
            Some(Health { height, head_time: None, .. }) => format!("head {height} of unknown time"),
            None => "an unknown head".to_owned(),
        };
        DriverError::FloorNotMet { floor: *floor, seen }
    }
}
