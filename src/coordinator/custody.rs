//! The operator's orders on who has the validator's key: from when on the log decides what is signed, and until when.

use super::report::Reporter;
use super::signing::Signing;
use crate::base::time::WallTime;
use crate::cluster::wire::proto::sign_log_change::Change;
use crate::cluster::wire::proto::{OpenSignLog, SignLogChange};
use crate::core::agreed::replicated::{Command, Signing as Step};

/// The order with the chain and the key of this host, where it names none.
pub(super) fn addressed(reporter: &Reporter, change: SignLogChange) -> SignLogChange {
    let SignLogChange { change: Some(Change::Open(open)) } = change else { return change };
    let own = reporter.signing.as_ref().and_then(Signing::identity);
    let (chain, key) = own.map(|own| (own.chain, own.key)).unwrap_or_default();
    let or_own = |named: String, own: String| if named.is_empty() { own } else { named };
    let open = OpenSignLog { chain: or_own(open.chain, chain), key: or_own(open.key, key), ..open };
    SignLogChange { change: Some(Change::Open(open)) }
}

/// # Errors
/// It asks for nothing, nobody knows for which chain and key, or this host would sign for others.
pub(super) fn read(reporter: &Reporter, change: &SignLogChange) -> Result<Command, String> {
    let at = WallTime::now();
    Ok(Command::Signing(match &change.change {
        None => return Err("the order changes nothing".to_owned()),
        Some(Change::Close(_)) => Step::Close { at },
        Some(Change::Open(OpenSignLog { chain, key, .. })) if chain.is_empty() || key.is_empty() => {
            return Err("this host has no signer that runs: ask a host with chain.custody = \"signer\"".to_owned());
        }
        Some(Change::Open(OpenSignLog { chain, key, last, at_ns: _ })) => {
            let own = reporter.signing.as_ref().and_then(Signing::identity);
            if let Some(own) = own.filter(|own| (&own.chain, &own.key) != (chain, key)) {
                return Err(format!(
                    "the record is of chain {chain} and the key {key}, and {} signs for chain {} with {}",
                    reporter.config.id, own.chain, own.key
                ));
            }
            let last = last.clone().ok_or("the order names no mark")?;
            let last = last.try_into().map_err(|error| format!("the mark: {error}"))?;
            Step::Open { chain: chain.clone(), key: key.clone(), last, at }
        }
    }))
}

/// What is so once it is committed.
pub(super) fn sentence(step: &Step) -> String {
    match step {
        Step::Open { chain, last, .. } => {
            format!(
                "the log decides what is signed on chain {chain}: nothing up to {}, and each later step once",
                last.place
            )
        }
        Step::Close { .. } => "the chain node of the next holder has the key".to_owned(),
        Step::Sign(request) => format!("{} is signed", request.place),
    }
}
