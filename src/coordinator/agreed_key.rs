//! Whether this host would sign with the key on which its cluster has agreed. A start that would not is refused, by `baton
//! check` in the same words. A coordinator that learns it later signs nothing and says so (`signing`).

use anyhow::{Result, bail};

use super::key_reader;
use crate::base::public_key::TypedKey;
use crate::base::signing::KeyKind;
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
pub(super) async fn check_agreed_key(config: &Config, agreed: &str) -> Result<()> {
    let signer = config.chain.as_ref().and_then(|chain| chain.signer.as_ref());
    let Some(Signer { key, .. }) = signer else { return Ok(()) };
    let Ok(found) = key_reader()?.cometbft(key).await else { return Ok(()) };
    match in_words(&found.pub_key) {
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

/// As a signer names its key; `None` of a kind that none has.
fn in_words(key: &TypedKey) -> Option<String> {
    let kind = key.kind.strip_prefix("tendermint/PubKey")?;
    let known = [KeyKind::Ed25519, KeyKind::Secp256k1];
    let kind = known.into_iter().find(|known| kind.eq_ignore_ascii_case(known.as_str()))?;
    Some(format!("{}:{}", kind.as_str(), key.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_file_is_named_as_its_signer_names_it() {
        let words = |kind: &str| in_words(&TypedKey { kind: kind.into(), value: "P".into() });
        assert_eq!(words("tendermint/PubKeyEd25519").as_deref(), Some("ed25519:P"));
        assert_eq!(words("tendermint/PubKeySecp256k1").as_deref(), Some("secp256k1:P"));
        assert_eq!(words("tendermint/PubKeyBls12_381"), None);
    }
}
