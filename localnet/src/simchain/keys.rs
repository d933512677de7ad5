//! Key files in neard's JSON form. A validator key that is absent, or whose link dangles, means "no key": that is
//! how a host becomes a standby. Who may sign what is `signer.rs`'s business.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer as _, SigningKey};
use serde::{Deserialize, Serialize};

use super::encode::{PublicKey, Sig, after_curve, with_curve};

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{action} key file {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("key file {}: {reason}; expected account_id, public_key and secret_key as neard writes them",
        path.display())]
    Garbled { path: PathBuf, reason: String },
}

/// The file as it is on disk.
#[derive(Serialize, Deserialize)]
struct KeyFile {
    /// A node key has none that matters.
    #[serde(default)]
    account_id: String,
    public_key: String,
    secret_key: String,
}

/// A key pair and the account that it signs for. It shows its secret to nobody but the file.
#[derive(Clone)]
pub struct KeyPair {
    pub account_id: String,
    pub public_key: PublicKey,
    secret: SigningKey,
}

impl KeyPair {
    pub fn generate(account_id: &str) -> KeyPair {
        let secret = SigningKey::from_bytes(&rand::random());
        KeyPair::new(account_id.into(), secret)
    }

    fn new(account_id: String, secret: SigningKey) -> KeyPair {
        KeyPair { account_id, public_key: PublicKey(secret.verifying_key().to_bytes()), secret }
    }

    pub fn sign(&self, message: &[u8]) -> Sig {
        Sig(self.secret.sign(message).to_bytes())
    }

    /// `None` when there is no file at the end of `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not a key file, or its two keys are not a pair.
    pub fn load(path: &Path) -> Result<Option<KeyPair>, KeyError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(KeyError::Io { action: "read", path: path.into(), source }),
        };
        let garbled = |reason| KeyError::Garbled { path: path.into(), reason };
        // The text of a JSON error could quote the secret: say where it is, not what it is.
        let file: KeyFile = serde_json::from_str(&text)
            .map_err(|e| garbled(format!("bad JSON at line {} column {}", e.line(), e.column())))?;
        let public: PublicKey = file.public_key.parse().map_err(|e| garbled(format!("public_key {e}")))?;
        let pair: [u8; 64] = after_curve(&file.secret_key).map_err(|e| garbled(format!("secret_key {e}")))?;
        let secret = SigningKey::from_keypair_bytes(&pair)
            .map_err(|_| garbled("the two halves of secret_key do not belong together".into()))?;
        let key = KeyPair::new(file.account_id, secret);
        if key.public_key != public {
            return Err(garbled(format!("secret_key belongs to {} and not to public_key {public}", key.public_key)));
        }
        Ok(Some(key))
    }

    /// Writes a new file, readable by its owner alone.
    ///
    /// # Errors
    /// Also when there is a file already: a key is never overwritten.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let failed = |source| KeyError::Io { action: "write", path: path.into(), source };
        let file = KeyFile {
            account_id: self.account_id.clone(),
            public_key: self.public_key.to_string(),
            secret_key: with_curve(&self.secret.to_keypair_bytes()),
        };
        let text = serde_json::to_string_pretty(&file).map_err(|e| failed(e.into()))?;
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        out.write_all(format!("{text}\n").as_bytes()).map_err(failed)
    }

    /// The key in `path`; a fresh one is written there first when there is none.
    pub fn load_or_generate(path: &Path, account_id: &str) -> Result<KeyPair, KeyError> {
        if let Some(key) = KeyPair::load(path)? {
            return Ok(key);
        }
        let key = KeyPair::generate(account_id);
        key.save(path)?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_key_loads_and_is_never_overwritten() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("key.json");
        let key = KeyPair::generate("node0");
        key.save(&path).expect("save");
        let loaded = KeyPair::load(&path).expect("load").expect("present");
        assert_eq!((loaded.public_key, loaded.account_id.as_str()), (key.public_key, "node0"));
        assert!(key.save(&path).is_err());
    }

    #[test]
    fn a_dangling_link_is_no_key_and_a_mismatched_pair_is_garbled() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("key.json");
        std::os::unix::fs::symlink("nowhere", &path).expect("link");
        assert!(KeyPair::load(&path).expect("dangling").is_none());

        let path = dir.path().join("mixed.json");
        let (a, b) = (KeyPair::generate("a"), KeyPair::generate("b"));
        let mixed = KeyPair { public_key: b.public_key, ..a };
        mixed.save(&path).expect("save");
        let error = KeyPair::load(&path).err().expect("mismatch").to_string();
        assert!(error.contains("not to public_key"), "{error}");
    }
}
