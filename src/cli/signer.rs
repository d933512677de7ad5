//! `baton signer`: who has the validator's key, and from which mark on the log decides what it signs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;

use super::reach::Reach;
use super::{Failure, order};
use crate::cluster::wire::proto::sign_log_change::Change;
use crate::cluster::wire::proto::{CloseSignLog, OpenSignLog, SignLogChange};
use crate::core::agreed::sign_log::Grant;
use crate::host::signer::import::{Imported, read_state};
use crate::operator::order::Order;

#[derive(Debug, Subcommand)]
pub(super) enum Signer {
    /// Tell the cluster how far the key has signed: from then on the log decides what is signed, above that
    Import {
        /// CometBFT's priv_validator_state.json, or the state file of tmkms or horcrux, of whoever signed last
        #[arg(long, value_name = "FILE")]
        state: PathBuf,
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
        Signer::Import { state, reach } => {
            let content = std::fs::read(&state).with_context(|| format!("read {}", state.display()));
            let imported = content.and_then(|content| {
                read_state(&content).with_context(|| format!("{} is no state of a signer", state.display()))
            });
            let Imported { place, digest, time, chain, origin: _ } = imported.map_err(Failure::BadInput)?;
            let last = Some((&Grant { place, digest, time }).into());
            (Change::Open(OpenSignLog { last, chain: chain.unwrap_or_default(), ..OpenSignLog::default() }), reach)
        }
        Signer::Close { reach } => (Change::Close(CloseSignLog::default()), reach),
    };
    order(&reach, "signer", Order::SignLog(SignLogChange { change: Some(change) }))
}
