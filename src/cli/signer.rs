//! `baton signer`: who has the validator's key, and from which mark on the log decides what it signs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;

use super::reach::Reach;
use super::{Failure, order};
use crate::base::closed_memory::close_memory;
use crate::cluster::wire::proto::sign_log_change::Change;
use crate::cluster::wire::proto::{CloseSignLog, OpenSignLog, SignLogChange};
use crate::core::agreed::sign_log::Grant;
use crate::host::signer::SigningKey;
use crate::host::signer::import::{Imported, read_state};
use crate::operator::order::Order;

#[derive(Debug, Subcommand)]
pub(super) enum Signer {
    /// Tell the cluster how far the key has signed: from then on the log decides what is signed, above that
    Import {
        /// CometBFT's priv_validator_state.json, or the state file of tmkms or horcrux, of whoever signed last
        #[arg(long, value_name = "FILE")]
        state: PathBuf,
        /// The key that the record is of: CometBFT's priv_validator_key.json, or tmkms' softsign key. Refused unless the
        /// asked host signs with it; only its public half is sent
        #[arg(long, value_name = "FILE")]
        validator_key: Option<PathBuf>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Give the key back to chain nodes: from then on the log admits nothing, and the next holder starts above it
    Close {
        #[command(flatten)]
        reach: Reach,
    },
}

pub(super) fn run(command: Signer) -> Result<ExitCode, Failure> {
    let (change, reach) = match command {
        Signer::Import { state, validator_key, reach } => {
            let key = validator_key.as_deref().map(public_key).transpose().map_err(Failure::BadInput)?;
            let content = std::fs::read(&state).with_context(|| format!("read {}", state.display()));
            let imported = content.and_then(|content| {
                read_state(&content).with_context(|| format!("{} is no state of a signer", state.display()))
            });
            let Imported { place, digest, time, chain, origin: _ } = imported.map_err(Failure::BadInput)?;
            let last = Some((&Grant { place, digest, time }).into());
            let (chain, key) = (chain.unwrap_or_default(), key.unwrap_or_default());
            (Change::Open(OpenSignLog { last, chain, key, ..OpenSignLog::default() }), reach)
        }
        Signer::Close { reach } => (Change::Close(CloseSignLog::default()), reach),
    };
    order(&reach, "signer", Order::SignLog(SignLogChange { change: Some(change) }))
}

/// In the words of the log. The private half is read into memory that is closed to others, and forgotten.
fn public_key(path: &Path) -> anyhow::Result<String> {
    close_memory().context("close this process's memory to others, for the private key")?;
    Ok(SigningKey::read(path)?.public().to_string())
}
