//! The validator's key: read from its file into memory that is closed already, and signing. Both kinds of signature are
//! deterministic: the same bytes always get the same one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k256::ecdsa;
use k256::ecdsa::signature::Signer as _;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::Deserialize;

use super::frames::proto;
use crate::base::closed_memory::{FILE_MAX, Secret, read};
use crate::base::private_file::is_open_file_open_to_others;
use crate::base::signing::{KeyKind, PublicKey};

const ED25519_PRIVATE: &str = "tendermint/PrivKeyEd25519";
const ED25519_PUBLIC: &str = "tendermint/PubKeyEd25519";
const SECP256K1_PRIVATE: &str = "tendermint/PrivKeySecp256k1";
const SECP256K1_PUBLIC: &str = "tendermint/PubKeySecp256k1";

const SEED_BYTES: usize = 32;

impl From<PublicKey> for proto::PublicKey {
    fn from(key: PublicKey) -> proto::PublicKey {
        let kind = match key.kind {
            KeyKind::Ed25519 => proto::KeyType::Ed25519,
            KeyKind::Secp256k1 => proto::KeyType::Secp256k1,
        };
        proto::PublicKey { r#type: kind.into(), value: key.bytes }
    }
}

impl TryFrom<proto::PublicKey> for PublicKey {
    type Error = String;

    fn try_from(key: proto::PublicKey) -> Result<PublicKey, String> {
        let kind = match key.r#type() {
            proto::KeyType::Ed25519 => KeyKind::Ed25519,
            proto::KeyType::Secp256k1 => KeyKind::Secp256k1,
            proto::KeyType::Unknown => return Err(format!("a public key of the unknown type {}", key.r#type)),
        };
        Ok(PublicKey { kind, bytes: key.value })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("read the key file {path}: {source}")]
    Os { path: PathBuf, source: io::Error },
    #[error("the key file {path} has mode {mode:04o}: others than its owner may use it; chmod 600")]
    OpenToOthers { path: PathBuf, mode: u32 },
    /// Without anything of its content.
    #[error("the key file {path}: {reason}")]
    Unusable { path: PathBuf, reason: String },
}

/// A private key. It is never shown.
#[derive(Debug)]
pub struct SigningKey(Private);

#[derive(Debug)]
enum Private {
    Ed25519(Ed25519KeyPair),
    Secp256k1(ecdsa::SigningKey),
}

impl SigningKey {
    /// The key in `path`: CometBFT's `priv_validator_key.json`, or what tmkms' `softsign` has: base64 of an Ed25519
    /// seed, or of seed and public key. To be called once memory is closed; the content of the file is zeroed again.
    ///
    /// # Errors
    /// The file cannot be read, is open to others, or has no such key. Nothing of its content is told.
    pub fn read(path: &Path) -> Result<SigningKey, KeyError> {
        let failed = |source| KeyError::Os { path: path.to_owned(), source };
        let unusable = |reason: String| KeyError::Unusable { path: path.to_owned(), reason };
        // A pipe would wait for its writer.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(unusable("not a regular file; put the key there".into()));
        }
        let file = File::open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        if is_open_file_open_to_others(&file, &found) {
            let mode = found.permissions().mode() & 0o7777;
            return Err(KeyError::OpenToOthers { path: path.to_owned(), mode });
        }
        let mut content = Secret::new(FILE_MAX + 1);
        let length = read(&file, content.bytes_mut()).map_err(failed)?;
        if length > FILE_MAX {
            return Err(unusable(format!("longer than {FILE_MAX} bytes; this is no key file")));
        }
        SigningKey::parse(&content.bytes()[..length]).map_err(unusable)
    }

    /// The key in the content of such a file.
    ///
    /// # Errors
    /// What is wrong with it, without anything of it.
    pub fn parse(content: &[u8]) -> Result<SigningKey, String> {
        let content = content.trim_ascii();
        if content.starts_with(b"{") { of_cometbft(content) } else { of_tmkms(content) }
    }

    pub fn public(&self) -> PublicKey {
        match &self.0 {
            Private::Ed25519(pair) => PublicKey { kind: KeyKind::Ed25519, bytes: pair.public_key().as_ref().to_vec() },
            Private::Secp256k1(key) => {
                let point = key.verifying_key().to_sec1_point(true);
                PublicKey { kind: KeyKind::Secp256k1, bytes: point.as_bytes().to_vec() }
            }
        }
    }

    /// 64 bytes. secp256k1: R and S, S the lower one, over SHA-256 of `bytes` with the nonce of RFC 6979.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        match &self.0 {
            Private::Ed25519(pair) => pair.sign(bytes).as_ref().to_vec(),
            Private::Secp256k1(key) => {
                let signature: ecdsa::Signature = key.sign(bytes);
                signature.normalize_s().to_bytes().to_vec()
            }
        }
    }
}

/// As CometBFT writes it; every field borrows from the file's content, so that no copy is made.
#[derive(Deserialize)]
struct CometBftFile<'a> {
    #[serde(borrow)]
    pub_key: Option<Typed<'a>>,
    #[serde(borrow)]
    priv_key: Typed<'a>,
}

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    value: &'a str,
}

fn of_cometbft(content: &[u8]) -> Result<SigningKey, String> {
    // serde's own text could quote the file: say where, not what.
    let file: CometBftFile<'_> = serde_json::from_slice(content)
        .map_err(|error| format!("no `priv_key` with `type` and `value` (line {})", error.line()))?;
    let (secret, length) = decoded(file.priv_key.value)?;
    let secret = &secret.bytes()[..length];
    let (key, public_type) = match file.priv_key.kind {
        ED25519_PRIVATE if length == 2 * SEED_BYTES => (ed25519(secret)?, ED25519_PUBLIC),
        SECP256K1_PRIVATE if length == SEED_BYTES => (secp256k1(secret)?, SECP256K1_PUBLIC),
        ED25519_PRIVATE | SECP256K1_PRIVATE => return Err(format!("its private key has {length} bytes")),
        _ => return Err(format!("its private key is neither {ED25519_PRIVATE} nor {SECP256K1_PRIVATE}")),
    };
    if let Some(public) = file.pub_key {
        let same = STANDARD.decode(public.value).is_ok_and(|bytes| bytes == key.public().bytes);
        if public.kind != public_type || !same {
            return Err("`pub_key` is not that of `priv_key`; restore the file".into());
        }
    }
    Ok(key)
}

/// tmkms signs votes with Ed25519 alone; its secp256k1 keys are of accounts.
fn of_tmkms(content: &[u8]) -> Result<SigningKey, String> {
    let neither = || "neither a priv_validator_key.json nor base64 of an Ed25519 key".to_owned();
    let text = std::str::from_utf8(content).map_err(|_| neither())?;
    let (secret, length) = decoded(text).map_err(|_| neither())?;
    ed25519(&secret.bytes()[..length])
}

/// The bytes of `text`, and how many they are.
fn decoded(text: &str) -> Result<(Secret, usize), String> {
    let mut secret = Secret::new(text.len());
    let length =
        STANDARD.decode_slice(text, secret.bytes_mut()).map_err(|_| "its private key is no base64".to_owned())?;
    Ok((secret, length))
}

/// A seed, or a seed and the public key that goes with it.
fn ed25519(secret: &[u8]) -> Result<SigningKey, String> {
    let pair = match secret.split_at_checked(SEED_BYTES) {
        Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
        Some((seed, public)) if public.len() == SEED_BYTES => Ed25519KeyPair::from_seed_and_public_key(seed, public),
        Some(_) | None => return Err(format!("{} bytes; an Ed25519 key has 32 or 64", secret.len())),
    };
    // What ring says of it is a word such as `InconsistentComponents`.
    Ok(SigningKey(Private::Ed25519(pair.map_err(|error| format!("no Ed25519 key: {error}"))?)))
}

fn secp256k1(secret: &[u8]) -> Result<SigningKey, String> {
    let key = ecdsa::SigningKey::from_slice(secret).map_err(|_| "no secp256k1 key: zero, or too large".to_owned())?;
    Ok(SigningKey(Private::Secp256k1(key)))
}
