//! Whether the shared key is among the signatures of the newest commit. It has a connection of its own: a commit of a
//! large validator set takes longer than a probe may.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest::{SHA256, digest};
use serde_json::Value;

use crate::base::chain_node::Shown;
use crate::base::public_key::{CometBftKey, TypedKey};
use crate::host::chain::http::HttpClient;
use crate::host::chain::{DriverError, KeyWork, ProbeError, answer};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Signatures of some thousand validators.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// `BLOCK_ID_FLAG_ABSENT`: the one flag of an entry without a signature.
const ABSENT: u64 = 1;

pub struct Commits {
    client: HttpClient,
    /// `None` when the probe's path is not that of `/status`.
    path: Option<String>,
}

impl Commits {
    /// `url` is that of `/status`.
    pub fn new(url: &str) -> Result<Commits, DriverError> {
        let client = HttpClient::new("chain.probe.url", url, TIMEOUT)?.reading_up_to(ANSWER_BYTES_MAX);
        let path = client.path().strip_suffix("status").map(|base| format!("{base}commit"));
        Ok(Commits { client, path })
    }

    /// Whether the validator of `address` signed the newest block that the node has.
    pub async fn newest(&self, address: &str) -> Result<Option<KeyWork>, ProbeError> {
        let Some(path) = &self.path else { return Ok(None) };
        let answer = self.client.get_path(path, TIMEOUT).await?;
        let bad = |reason: String| ProbeError::BadAnswer { target: self.client.target_of(path), reason };
        work(&answer, address).map(Some).map_err(bad)
    }
}

fn work(answer: &Value, address: &str) -> Result<KeyWork, String> {
    const SIGNATURES: &str = "/result/signed_header/commit/signatures";
    let height = Some("/result/signed_header/header/height");
    let height = answer::read(answer, height, "a whole number", answer::as_number)?.unwrap_or_default();
    let time = Some("/result/signed_header/header/time");
    let time = answer::read(answer, time, "an RFC 3339 time", |time| answer::parse_rfc3339(time.as_str()?))?;
    let Some(signatures) = answer.pointer(SIGNATURES).and_then(Value::as_array) else {
        return Err(format!("`{SIGNATURES}` is no list in the answer {}", answer::brief(answer)));
    };
    let ours = |entry: &&Value| {
        entry["validator_address"].as_str().is_some_and(|theirs| theirs.eq_ignore_ascii_case(address))
            && answer::as_number(&entry["block_id_flag"]) != Some(ABSENT)
    };
    let shown = Shown::Signed(signatures.iter().find(ours).is_some());
    Ok(KeyWork { height, time: time.unwrap_or_default(), shown })
}

/// By which a commit names the key: of an Ed25519 key by its public half, of any other as the key file says.
pub fn address(key: &CometBftKey) -> Option<String> {
    let CometBftKey { address, pub_key: TypedKey { kind, value } } = key;
    if kind == "tendermint/PubKeyEd25519" {
        let public = BASE64.decode(value).ok()?;
        return Some(digest(&SHA256, &public).as_ref()[..20].iter().map(|byte| format!("{byte:02X}")).collect());
    }
    address.clone().filter(|address| !address.is_empty())
}
