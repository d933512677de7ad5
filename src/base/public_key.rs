//! The public half of a validator's key file: what `baton-guard public-key` prints and the chain drivers read.
//! The private half is not even parsed, and no error quotes the file.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How a key file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    Near,
    CometBft,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearKey {
    pub account_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CometBftKey {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub pub_key: TypedKey,
}

/// As CometBFT writes it, in a key file, in a genesis file and in `/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypedKey {
    #[serde(rename = "type")]
    pub kind: String,
    pub value: String,
}

impl KeyFormat {
    pub fn as_str(self) -> &'static str {
        match self {
            KeyFormat::Near => "near",
            KeyFormat::CometBft => "cometbft",
        }
    }

    pub fn named(name: &str) -> Option<KeyFormat> {
        [KeyFormat::Near, KeyFormat::CometBft].into_iter().find(|format| format.as_str() == name)
    }

    /// One JSON object, a [`NearKey`] or a [`CometBftKey`], of a whole key file.
    ///
    /// # Errors
    /// What the file lacks and in which line that showed.
    pub fn public_half(self, content: &[u8]) -> Result<String, String> {
        match self {
            KeyFormat::Near => half::<NearKey>(content, "no key with `account_id`"),
            KeyFormat::CometBft => half::<CometBftKey>(content, "no `pub_key` with `type` and `value`"),
        }
    }
}

fn half<T: DeserializeOwned + Serialize>(content: &[u8], lacks: &str) -> Result<String, String> {
    // serde's own text could quote the file: say where, not what.
    let key: T = serde_json::from_slice(content).map_err(|error| format!("{lacks} (line {})", error.line()))?;
    serde_json::to_string(&key).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_half_has_nothing_else_of_the_file() {
        let near = br#"{"account_id": "a.near", "public_key": "ed25519:P", "secret_key": "ed25519:S"}"#;
        let half = KeyFormat::Near.public_half(near);
        assert_eq!(half.as_deref(), Ok(r#"{"account_id":"a.near","public_key":"ed25519:P"}"#));
        let cometbft = br#"{"address": "00FF", "pub_key": {"type": "t", "value": "P"},
                            "priv_key": {"type": "t", "value": "S"}}"#;
        let half = KeyFormat::CometBft.public_half(cometbft);
        assert_eq!(half.as_deref(), Ok(r#"{"address":"00FF","pub_key":{"type":"t","value":"P"}}"#));
    }

    #[test]
    fn an_error_says_where_and_quotes_nothing() {
        for (format, content, expected) in [
            (KeyFormat::Near, "{}", "no key with `account_id` (line 1)"),
            (KeyFormat::Near, "{\n\"account_id\": {\"hidden\": 1}}", "no key with `account_id` (line 2)"),
            (KeyFormat::CometBft, r#"{"pub_key": "hidden"}"#, "no `pub_key` with `type` and `value` (line 1)"),
        ] {
            assert_eq!(format.public_half(content.as_bytes()), Err(expected.to_owned()));
        }
    }
}
