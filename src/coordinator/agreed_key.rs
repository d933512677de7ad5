//! Whether this host would sign with the key on which its cluster has agreed. A start that would not is refused, by `baton
//! check` in the same words. A coordinator that learns it later signs nothing and says so (`signing`).

use anyhow::{Result, bail};

use super::key_reader;
use crate::config::{Config, Signer};
use crate::core::agreed::sign_log::SignLog;

/// The key of which the log decides; `None` where it decides of none.
pub(super) fn agreed_key(log: Option<&SignLog>) -> Option<&str> {
    log.filter(|log| !log.closed).map(|log| log.key.as_str())
}

/// What is no `priv_validator_key.json` passes here: `baton-signer` reads tmkms' keys as well, and tells the key later.
///
/// # Errors
/// `signer.key` holds another key than `agreed`.
pub async fn check_agreed_key(config: &Config, agreed: &str) -> Result<()> {
    let signer = config.chain.as_ref().and_then(|chain| chain.signer.as_ref());
    let Some(Signer { key, .. }) = signer else { return Ok(()) };
    let Ok(found) = key_reader()?.cometbft(key).await else { return Ok(()) };
    match found.pub_key.in_words() {
        Some(found) if found != agreed => {
            bail!("signer.key {} is the key {found}, {}", key.display(), against(agreed))
        }
        Some(_) | None => Ok(()),
    }
}

/// The rest of the sentence.
pub(super) fn against(agreed: &str) -> String {
    format!("and the cluster has agreed on {agreed}; put the file of that key there")
}
