//! The only place where the validator key signs. Before a signature leaves: the mark `data/last_signed.json` is
//! replaced, then the signature log gets its line. So after a kill at any instant the mark is at or above
//! everything that was signed, and the log holds everything that a peer can have seen.
//!
//! Like neard's, this protection belongs to one home: the mark is read when the process starts, and never when a key
//! is loaded. Two hosts with one key, or a host whose key comes back, are stopped by nobody here.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use baton::base::time::BootTime;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};

use super::encode::{Hash, PublicKey};
use super::genesis::Genesis;
use super::keys::{KeyError, KeyPair};
use super::message::{Signed, statement};
use crate::judge::signlog::{Kind, LogError, SignLog};

#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("{action} sign mark {}: {source}", path.display())]
    Mark { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The validator key of a home as it should be now; `None` when there is none.
///
/// # Errors
/// Also when the key claims the account of a validator whose key it is not.
pub fn load_validator_key(path: &Path, genesis: &Genesis) -> Result<Option<KeyPair>, KeyError> {
    let Some(key) = KeyPair::load(path)? else { return Ok(None) };
    match genesis.validator(&key.account_id) {
        Some(validator) if validator.public_key != key.public_key => {
            let reason =
                format!("{} validates with {} and not with {}", key.account_id, validator.public_key, key.public_key);
            Err(KeyError::Garbled { path: path.into(), reason })
        }
        Some(_) | None => Ok(Some(key)),
    }
}

#[derive(Serialize, Deserialize)]
struct Mark {
    height: u64,
}

pub struct Signer {
    key: Option<KeyPair>,
    log: SignLog,
    mark: PathBuf,
    /// At or above every height that this home has signed.
    last_signed: u64,
    /// The next signature is not handed out: the process is killed as it stands in the log.
    pub dies_signing: bool,
}

impl Signer {
    /// Reads the mark in `data`; no mark means that nothing was signed.
    pub fn open(data: &Path, key: Option<KeyPair>, log: SignLog) -> Result<Signer, SignError> {
        let mark = data.join("last_signed.json");
        let failed = |source| SignError::Mark { action: "read", path: mark.clone(), source };
        let last_signed = match std::fs::read(&mark) {
            Ok(text) => serde_json::from_slice::<Mark>(&text).map_err(|e| failed(e.into()))?.height,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
            Err(e) => return Err(failed(e)),
        };
        Ok(Signer { key, log, mark, last_signed, dies_signing: false })
    }

    pub fn key(&self) -> Option<&KeyPair> {
        self.key.as_ref()
    }

    pub fn set_key(&mut self, key: Option<KeyPair>) {
        self.key = key;
    }

    /// Whether the loaded key is `public_key`, and `height` is above everything that this home has signed.
    pub fn can_sign(&self, public_key: PublicKey, height: u64) -> bool {
        height > self.last_signed && self.key.as_ref().is_some_and(|k| k.public_key == public_key)
    }

    /// # Errors
    /// Nothing was signed, but the mark may have moved: this height is lost.
    ///
    /// # Panics
    /// When `can_sign` does not hold for the loaded key.
    pub fn sign(&mut self, genesis: &Genesis, kind: Kind, height: u64, block: Hash) -> Result<Signed, SignError> {
        let key = self.key.as_ref().expect("the caller asked can_sign");
        assert!(height > self.last_signed, "signing {height} after {}", self.last_signed);
        self.last_signed = height;
        replace_mark(&self.mark, height).map_err(|source| SignError::Mark {
            action: "replace",
            path: self.mark.clone(),
            source,
        })?;
        let bytes = statement(genesis.hash, kind, height, block);
        let at = BootTime::now();
        let signature = key.sign(&bytes);
        self.log.append(&key.public_key.to_string(), height, kind, at)?;
        if self.dies_signing {
            // Nothing can be done about a kill that fails but to go on.
            let _ = kill_process(getpid(), Signal::KILL);
        }
        Ok(Signed { kind, block, signature })
    }
}

/// Temp and rename, so that a reader never finds half a mark; no fsync, for the mark has to outlive the process and
/// not the machine. The two files change places and are written over in turn: with a new inode for every signature
/// ext4 took half of the node's CPU time. Their length is always the same, so nothing is truncated.
fn replace_mark(path: &Path, height: u64) -> std::io::Result<()> {
    let temp = path.with_extension("json.tmp");
    let mark = serde_json::to_string(&Mark { height })?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&temp)?;
    file.write_all(format!("{mark:<40}\n").as_bytes())?;
    match renameat_with(CWD, &temp, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        // The first mark, or a file system that cannot exchange.
        Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => std::fs::rename(&temp, path),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use baton::base::time::WallTime;

    use super::super::genesis::init;
    use super::*;

    #[test]
    fn the_mark_and_the_log_stand_before_a_signature_is_handed_out() {
        let dir = tempfile::tempdir().expect("temp dir");
        let genesis = init(dir.path(), &["a".into()], Duration::from_millis(50), WallTime::now()).expect("init");
        let key = load_validator_key(&dir.path().join("keys/a.json"), &genesis).expect("key");
        let log_path = dir.path().join("sign.log");
        let open = || {
            let log = SignLog::open(&log_path, "host-a").expect("log");
            Signer::open(dir.path(), key.clone(), log).expect("signer")
        };
        let mut signer = open();
        let public = genesis.validators[0].public_key;
        assert!(signer.can_sign(public, 7));
        let signed = signer.sign(&genesis, Kind::Block, 7, genesis.hash).expect("sign");
        signed.verify(&genesis, &genesis.validators[0], 7, 7).expect("verifies");
        assert!(!signer.can_sign(public, 7));
        assert!(!open().can_sign(public, 7), "a restart in the same home forgot height 7");
        let mark = || std::fs::read_to_string(dir.path().join("last_signed.json")).expect("mark");
        assert_eq!(mark().trim_end(), r#"{"height":7}"#);
        let lines = crate::judge::signlog::read(&log_path).expect("log");
        assert_eq!((lines.len(), lines[0].height, lines[0].host.as_str()), (1, 7, "host-a"));
        for height in 8..=1000 {
            signer.sign(&genesis, Kind::Approval, height, genesis.hash).expect("sign");
            assert_eq!(mark().trim_end(), format!(r#"{{"height":{height}}}"#));
        }
    }

    #[test]
    fn a_key_that_is_not_the_accounts_own_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let genesis = init(dir.path(), &["a".into()], Duration::from_millis(50), WallTime::now()).expect("init");
        let path = dir.path().join("other.json");
        KeyPair::generate("a").save(&path).expect("save");
        let error = load_validator_key(&path, &genesis).err().expect("refused").to_string();
        assert!(error.contains("a validates with"), "{error}");
    }
}
