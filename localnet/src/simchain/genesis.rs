//! What all nodes of one chain agree on from the start: its name, when height 0 was, how long a slot takes and who
//! the validators are. The schedule follows from it: height h belongs to the slot that starts at
//! genesis_time + h·slot and to validators[h % n]. Reads no clock.

use std::path::{Path, PathBuf};
use std::time::Duration;

use baton::base::time::WallTime;
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use super::encode::{Hash, PublicKey};
use super::keys::{KeyError, KeyPair};

#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    #[error("{action} genesis file {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("genesis file {}: {reason}", path.display())]
    Bad { path: PathBuf, reason: String },
    #[error(transparent)]
    Key(#[from] KeyError),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GenesisValidator {
    pub account_id: String,
    pub public_key: PublicKey,
}

/// `genesis.json` as it is on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GenesisFile {
    pub chain_id: String,
    /// RFC 3339 in UTC, nanoseconds.
    pub genesis_time: String,
    pub slot_ms: u64,
    pub validators: Vec<GenesisValidator>,
}

/// A validator with its key ready for verification.
pub struct Validator {
    pub account_id: String,
    pub public_key: PublicKey,
    pub verifying: VerifyingKey,
}

/// The checked form of [`GenesisFile`].
pub struct Genesis {
    pub chain_id: String,
    /// Start of height 0.
    pub time: WallTime,
    pub slot: Duration,
    /// Not empty; accounts are different from each other.
    pub validators: Vec<Validator>,
    /// The hash of block 0. It covers everything above.
    pub hash: Hash,
}

impl Genesis {
    pub fn load(path: &Path) -> Result<Genesis, GenesisError> {
        let text =
            std::fs::read(path).map_err(|source| GenesisError::Io { action: "read", path: path.into(), source })?;
        let bad = |reason: String| GenesisError::Bad { path: path.into(), reason };
        let file: GenesisFile = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        Genesis::new(&file).map_err(bad)
    }

    /// # Errors
    /// In words, without the name of the file.
    pub fn new(file: &GenesisFile) -> Result<Genesis, String> {
        let time = parse_rfc3339(&file.genesis_time)
            .ok_or_else(|| format!("genesis_time '{}' is not RFC 3339 in UTC", file.genesis_time))?;
        if file.slot_ms == 0 {
            return Err("slot_ms must be at least 1".into());
        }
        if file.validators.is_empty() {
            return Err("validators is empty".into());
        }
        let mut validators: Vec<Validator> = Vec::new();
        for GenesisValidator { account_id, public_key } in &file.validators {
            if validators.iter().any(|v| v.account_id == *account_id || v.public_key == *public_key) {
                return Err(format!("validator {account_id} or its key stands twice in the list"));
            }
            let verifying = VerifyingKey::from_bytes(&public_key.0)
                .map_err(|_| format!("public_key of {account_id} is not a point of the curve"))?;
            validators.push(Validator { account_id: account_id.clone(), public_key: *public_key, verifying });
        }
        let canonical = serde_json::to_vec(file).map_err(|e| e.to_string())?;
        let slot = Duration::from_millis(file.slot_ms);
        Ok(Genesis { chain_id: file.chain_id.clone(), time, slot, validators, hash: Hash::of(&canonical) })
    }

    /// Start of the slot of `height`, which is the header time of its block.
    pub fn time_of(&self, height: u64) -> WallTime {
        let offset = u128::from(height) * self.slot.as_nanos();
        self.time + Duration::from_nanos(u64::try_from(offset).unwrap_or(u64::MAX))
    }

    /// The slot that `now` lies in; 0 also before the genesis.
    pub fn slot_at(&self, now: WallTime) -> u64 {
        (now.since(self.time).as_nanos() / self.slot.as_nanos()) as u64
    }

    pub fn proposer(&self, height: u64) -> &Validator {
        &self.validators[(height % self.validators.len() as u64) as usize]
    }

    pub fn validator(&self, account_id: &str) -> Option<&Validator> {
        self.validators.iter().find(|v| v.account_id == account_id)
    }
}

/// Writes `genesis.json` and `keys/ACCOUNT.json` under `dir`.
///
/// # Errors
/// Nothing is overwritten: a directory that holds keys of an earlier call is refused.
pub fn init(dir: &Path, accounts: &[String], slot: Duration, genesis_time: WallTime) -> Result<Genesis, GenesisError> {
    let path = dir.join("genesis.json");
    let bad = |reason: String| GenesisError::Bad { path: path.clone(), reason };
    let io = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| GenesisError::Io { action, path, source }
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if let Some(account) = accounts.iter().find(|a| !a.starts_with(char::is_alphanumeric) || !a.chars().all(plain)) {
        return Err(bad(format!("account name '{account}': use letters, digits, '-', '_' and '.'")));
    }
    let pairs: Vec<KeyPair> = accounts.iter().map(|account| KeyPair::generate(account)).collect();
    let file = GenesisFile {
        chain_id: format!("simchain-{:06x}", rand::random::<u32>() >> 8),
        genesis_time: rfc3339(genesis_time),
        slot_ms: slot.as_millis() as u64,
        validators: pairs
            .iter()
            .map(|k| GenesisValidator { account_id: k.account_id.clone(), public_key: k.public_key })
            .collect(),
    };
    let genesis = Genesis::new(&file).map_err(bad)?;

    let keys = dir.join("keys");
    std::fs::create_dir_all(&keys).map_err(io("create the directory of", &path))?;
    for pair in &pairs {
        pair.save(&keys.join(format!("{}.json", pair.account_id)))?;
    }
    let text = serde_json::to_string_pretty(&file).map_err(|e| bad(e.to_string()))?;
    std::fs::write(&path, text + "\n").map_err(io("write", &path))?;
    Ok(genesis)
}

/// RFC 3339 in UTC with nanoseconds, as in neard's `latest_block_time`.
pub fn rfc3339(time: WallTime) -> String {
    let to_seconds = &time.to_string()[..19];
    format!("{to_seconds}.{:09}Z", time.as_nanos() % 1_000_000_000)
}

/// Reads what [`rfc3339`] writes, with 0 to 9 digits of fraction. `None` for anything else.
pub fn parse_rfc3339(text: &str) -> Option<WallTime> {
    let (seconds, fraction) = text.strip_suffix('Z')?.split_once('.').unwrap_or((text.strip_suffix('Z')?, "0"));
    if seconds.len() != 19 || !seconds.is_ascii() || fraction.len() > 9 {
        return None;
    }
    let field = |from: usize, to: usize| seconds[from..to].parse::<u64>().ok();
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970 of a Gregorian date, counting years from 1 March so that the leap day comes last.
    let march_year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = march_year * 365 + march_year / 4 - march_year / 100 + march_year / 400 + day_of_year - 719_468;
    let nanos = format!("{fraction:0<9}").parse::<u64>().ok()?;
    let since_1970 = ((days * 24 + hour) * 60 + minute) * 60 + second;
    since_1970.checked_mul(1_000_000_000)?.checked_add(nanos).map(WallTime::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_to_the_nanosecond() {
        for nanos in [0, 951_782_400_000_000_001, 1_709_208_000_123_456_789, 1_795_218_367_443_701_848] {
            let time = WallTime::from_nanos(nanos);
            assert_eq!(parse_rfc3339(&rfc3339(time)), Some(time), "{}", rfc3339(time));
        }
        assert_eq!(rfc3339(WallTime::from_nanos(1)), "1970-01-01T00:00:00.000000001Z");
        assert_eq!(parse_rfc3339("1970-01-01T00:00:01Z"), Some(WallTime::from_nanos(1_000_000_000)));
        assert_eq!(parse_rfc3339("1970-13-01T00:00:01Z"), None);
        assert_eq!(parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn every_height_has_one_slot_and_one_proposer() {
        let dir = tempfile::tempdir().expect("temp dir");
        let accounts: Vec<String> = ["a", "b", "c"].map(String::from).into();
        let start = WallTime::from_nanos(1_000_000_000_000);
        let genesis = init(dir.path(), &accounts, Duration::from_millis(50), start).expect("init");
        assert_eq!(genesis.proposer(4).account_id, "b");
        assert_eq!(genesis.slot_at(genesis.time_of(7)), 7);
        assert_eq!(genesis.slot_at(genesis.time_of(7) + Duration::from_millis(49)), 7);
        assert_eq!(genesis.slot_at(WallTime::from_nanos(0)), 0);
        let loaded = Genesis::load(&dir.path().join("genesis.json")).expect("load");
        assert_eq!(loaded.hash, genesis.hash);
        assert!(init(dir.path(), &accounts, Duration::from_millis(50), start).is_err(), "keys overwritten");
    }
}
