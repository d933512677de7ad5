//! What every chain node needs, whichever its driver: settings that make sense, a home, a program.

use std::path::PathBuf;

use super::DriverError;
use crate::base::chain_node::Activation;
use crate::config::{Chain, DriverKind, OnHalt};

pub(super) fn check_settings(chain: &Chain) -> Result<(), DriverError> {
    if chain.command.first().is_none_or(String::is_empty) {
        return Err(DriverError::setting("chain.command", "is empty; give the chain node's argv"));
    }
    if chain.probe.timeout.is_zero() {
        return Err(DriverError::setting("chain.probe.timeout", "is zero; no answer can come in no time"));
    }
    let has_mark = match chain.driver {
        DriverKind::Near | DriverKind::CometBft => true,
        DriverKind::Generic => chain.last_signed.is_some(),
    };
    if chain.on_halt == OnHalt::Replica && !has_mark {
        return Err(DriverError::setting(
            "chain.on_halt",
            "\"replica\" goes by the last mark that gossip told of, and driver \"generic\" has none without \
             [chain.last_signed]; add that section, or set on_halt = \"wait\"",
        ));
    }
    match &chain.activation {
        Activation::Restart => Ok(()),
        Activation::Signal(1..=64) => Ok(()),
        Activation::Signal(signal) => {
            Err(DriverError::setting("chain.activate.signal", format!("{signal} is no signal number (1 to 64)")))
        }
        Activation::Exec { activate, deactivate } if activate.is_empty() || deactivate.is_empty() => {
            Err(DriverError::setting("chain.activate", "exec needs both `activate` and `deactivate`, each an argv"))
        }
        Activation::Exec { .. } => Ok(()),
    }
}

pub(super) fn check_home(chain: &Chain) -> Result<(), DriverError> {
    if chain.home.is_dir() {
        return Ok(());
    }
    let reason = format!("{} is not a directory; initialise the chain node there first", chain.home.display());
    Err(DriverError::setting("chain.home", reason))
}

/// The guard would find out too, but only after the lease was won.
pub(super) fn check_command(chain: &Chain) -> Result<(), DriverError> {
    if chain.upgrade.is_some() {
        // What runs is a binary of cosmovisor's layout, which is checked where that is known.
        return Ok(());
    }
    let program = &chain.command[0];
    let runs = |path: PathBuf| path.is_file() && rustix::fs::access(&path, rustix::fs::Access::EXEC_OK).is_ok();
    let found = if program.contains('/') {
        runs(chain.home.join(program))
    } else {
        let path = chain.env.get("PATH").map(Into::into).or_else(|| std::env::var_os("PATH")).unwrap_or_default();
        std::env::split_paths(&path).any(|folder| runs(folder.join(program)))
    };
    if found {
        Ok(())
    } else {
        let place = if program.contains('/') { "at that path" } else { "in PATH" };
        let reason = format!("{program} is no executable file {place}; install the chain node or correct the command");
        Err(DriverError::setting("chain.command", reason))
    }
}
