//! The record of another signer, from which a first mark comes: CometBFT's `priv_validator_state.json`, tmkms' state
//! file, and those of horcrux, a cosigner's and the shared one. Pure. Only what is known for sure is read: a mark that
//! is too low would be a licence to sign twice.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::base::signing::{Hrs, SignDigest, SignTime};
use crate::host::sign_bytes::SignBytes;

/// Who wrote the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    CometBft,
    Tmkms,
    Horcrux,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    pub origin: Origin,
    /// Nothing above it was signed. Zeros: nothing at all was.
    pub place: Hrs,
    /// What was signed there, where the record has it.
    pub digest: Option<SignDigest>,
    /// When that was; zero where the record does not have it.
    pub time: SignTime,
    /// The chain on which it was signed, where the record has it.
    pub chain: Option<String>,
}

/// Why a file is no such record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no record of a signer: {0}")]
pub struct BadState(String);

/// The fields of `FilePVLastSignState` in CometBFT's privval/file.go.
const COMETBFT: [&str; 5] = ["height", "round", "step", "signature", "signbytes"];
/// The fields of `consensus::State` in tendermint-rs, which tmkms writes as they are.
const TMKMS: [&str; 4] = ["height", "round", "step", "block_id"];
/// The fields of `SignState` in horcrux' signer/sign_state.go, besides CometBFT's, in one version or another.
const HORCRUX: [&str; 4] = ["nonce_public", "ephemeral_public", "vote_ext_signature", "FilePath"];

/// The record in `content`.
///
/// # Errors
/// Its shape is none of the known ones, or it contradicts itself.
pub fn read_state(content: &[u8]) -> Result<Imported, BadState> {
    let fields: Map<String, Value> =
        serde_json::from_slice(content).map_err(|error| bad(format!("no JSON object: {error}")))?;
    let has = |name: &&str| fields.contains_key(*name);
    let origin = if fields.contains_key("block_id") {
        Origin::Tmkms
    } else if HORCRUX.iter().any(has) {
        Origin::Horcrux
    } else {
        Origin::CometBft
    };
    let is_known = |name: &str| match origin {
        Origin::CometBft => COMETBFT.contains(&name),
        Origin::Tmkms => TMKMS.contains(&name),
        Origin::Horcrux => COMETBFT.contains(&name) || HORCRUX.contains(&name),
    };
    if let Some(name) = fields.keys().find(|name| !is_known(name)) {
        return Err(bad(format!(
            "it has {name:?}, which neither CometBFT nor tmkms nor horcrux writes beside the rest"
        )));
    }
    let height = number(&fields, "height", i64::MAX as u64)?;
    let round = number(&fields, "round", i32::MAX as u64)? as u32;
    let written = number(&fields, "step", i8::MAX as u64)? as u32;
    let step = match origin {
        _ if height == 0 => 0,
        Origin::CometBft | Origin::Horcrux if written <= Hrs::PRECOMMIT => written,
        // It counts from zero.
        Origin::Tmkms if written < Hrs::PRECOMMIT => written + 1,
        // Before version 0.11 it wrote 3 for a proposal and 6 for either vote: all of the round counts as signed.
        Origin::Tmkms if written == 3 || written == 6 => Hrs::PRECOMMIT,
        Origin::CometBft | Origin::Horcrux | Origin::Tmkms => {
            return Err(bad(format!("step {written} is out of range")));
        }
    };
    let place = Hrs { height, round, step };
    let (digest, time, chain) = match signed(&fields)? {
        None => (None, SignTime::default(), None),
        Some(signed) if signed.place == place => (Some(signed.digest), signed.time, Some(signed.chain)),
        Some(signed) => {
            return Err(bad(format!("it is at {place}, and its `signbytes` are of {}; restore it", signed.place)));
        }
    };
    Ok(Imported { origin, place, digest, time, chain })
}

/// A number, or one in quotes, as each of the three writes some.
fn number(fields: &Map<String, Value>, name: &str, max: u64) -> Result<u64, BadState> {
    let found = match fields.get(name) {
        Some(Value::Number(number)) => number.as_u64(),
        // Rust's own parser takes a plus sign, which nobody writes.
        Some(Value::String(text)) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) | Value::String(_)) => None,
        None => return Err(bad(format!("it has no `{name}`"))),
    };
    found.filter(|found| *found <= max).ok_or_else(|| bad(format!("its `{name}` is no number from 0 to {max}")))
}

/// What its `signbytes` ask for: hex, or base64 in some versions of horcrux.
fn signed(fields: &Map<String, Value>) -> Result<Option<SignBytes>, BadState> {
    let text = match fields.get("signbytes") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text,
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(bad("its `signbytes` are no text"));
        }
    };
    let bytes = bytes_of(text).or_else(|| STANDARD.decode(text).ok());
    let bytes = bytes.ok_or_else(|| bad("its `signbytes` are neither hex nor base64"))?;
    SignBytes::read(&bytes).map(Some).map_err(|error| bad(format!("its `signbytes`: {error}")))
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()).collect()
}

fn bad(what: impl Into<String>) -> BadState {
    BadState(what.into())
}
