//! CometBFT and the nodes built on it. Its file signer keeps the last signed height, round and step in
//! `data/priv_validator_state.json` and refuses to sign at or below it: the sign floor is written there
//! before a start as validator. `/status` tells which key the process has loaded.
//!
//! The floor in `data/` only ever rises, also while the throwaway standby key runs: that key is in no
//! validator set and signs nothing. A copy in `state_dir` outlives a `data/` wiped for a resync.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::Deserialize;
use serde_json::{Value, json};

use super::cometbft_state::{SignState, whole_height};
use super::http::HttpClient;
use super::{Activation, DriverError, Health, KeyState, ProbeError, SignFloor, answer, files};
use crate::config::{Chain, Pointers, ProbeTarget};
use crate::core::floor;
use crate::guard_frame::LinkSpec;
use crate::ids::SignMark;

const KEY_FILE: &str = "config/priv_validator_key.json";
const STATE_FILE: &str = "data/priv_validator_state.json";
const KEPT_STATE_FILE: &str = "priv_validator_state.validating.json";

/// `/net_info` describes every peer at length only to be counted here.
const PEERS_EVERY: Duration = Duration::from_secs(10);
const PEERS_TIMEOUT: Duration = Duration::from_millis(100);

pub struct CometBft {
    chain: Chain,
    client: HttpClient,
    pointers: Pointers,
    files: Arc<StateFiles>,
    key_files: KeyFiles,
    keys: OnceLock<Keys>,
    peers: Mutex<Option<(Instant, Option<u32>)>>,
}

struct StateFiles {
    /// The node's own.
    live: PathBuf,
    /// Ours.
    kept: PathBuf,
    /// Held through a read and the writes that follow from it: a call that was dropped goes on beside
    /// the next one.
    changing: Mutex<()>,
}

#[derive(Clone)]
struct KeyFiles {
    validating: PathBuf,
    standby: PathBuf,
}

/// The public halves of the two keys that the link can name.
struct Keys {
    validating: PublicKey,
    standby: PublicKey,
}

/// Of a key file: the private half is not even parsed.
#[derive(Deserialize)]
struct KeyFile {
    pub_key: PublicKey,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct PublicKey {
    #[serde(rename = "type")]
    kind: String,
    value: String,
}

impl CometBft {
    pub fn new(chain: &Chain, state_dir: &Path) -> Result<CometBft, DriverError> {
        let ProbeTarget::Http { url, .. } = &chain.probe.target else {
            return Err(DriverError::setting("chain.probe", "cometbft is probed by `url`, http://RPC_ADDRESS/status"));
        };
        if chain.activation != Activation::Restart {
            let reason = "cometbft reads its key only when it starts: use how = \"restart\"";
            return Err(DriverError::setting("chain.activate", reason));
        }
        let at = |pointer: &str| Some(pointer.to_owned());
        Ok(CometBft {
            client: HttpClient::new("chain.probe.url", url, chain.probe.timeout)?,
            pointers: Pointers {
                syncing: at("/result/sync_info/catching_up"),
                height: at("/result/sync_info/latest_block_height"),
                head_time: at("/result/sync_info/latest_block_time"),
                peers: None,
                key: None,
                version: at("/result/node_info/version"),
            },
            files: Arc::new(StateFiles {
                live: chain.home.join(STATE_FILE),
                kept: state_dir.join(KEPT_STATE_FILE),
                changing: Mutex::new(()),
            }),
            key_files: key_files(chain)?,
            keys: OnceLock::new(),
            peers: Mutex::new(None),
            chain: chain.clone(),
        })
    }

    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Makes a throwaway standby key where there is none yet, and an empty sign state for a new node.
    pub async fn check(&self) -> Result<Vec<String>, DriverError> {
        let (chain, files, key_files) = (self.chain.clone(), Arc::clone(&self.files), self.key_files.clone());
        let (keys, warnings) = blocking(move || {
            let warnings = check_node_config(&chain)?;
            if read_key(&key_files.validating)?.is_none() {
                let reason = "no such file; put the shared validator key there";
                return Err(DriverError::file("read the validator key", &key_files.validating, reason));
            }
            if read_key(&key_files.standby)?.is_none() {
                make_throwaway_key(&key_files.standby)?;
            }
            if SignState::read(&files.live)?.is_none() {
                let _changing = lock(&files.changing);
                files.highest()?.write(&files.live)?;
            }
            let keys = Keys::read(&key_files)?;
            if keys.validating == keys.standby {
                let (standby, validating) = (key_files.standby.display(), key_files.validating.display());
                let reason = format!(
                    "the standby key {standby} is the validator key {validating} itself: every standby would sign; \
                     remove the standby file, and a throwaway key is made in its place"
                );
                return Err(DriverError::setting("chain.links", reason));
            }
            Ok((keys, warnings))
        })
        .await?;
        // A second check finds the same files; the first answer stays.
        let _ = self.keys.set(keys);
        Ok(warnings)
    }

    pub async fn probe(&self) -> Result<Health, ProbeError> {
        let asked_at = Instant::now();
        let status = self.client.get().await?;
        let latency = asked_at.elapsed();
        let health = answer::health(&status, &self.pointers)
            .map_err(|reason| ProbeError::BadAnswer { target: self.client.target(), reason })?;
        let peers = self.peers(self.chain.probe.timeout.saturating_sub(latency)).await;
        Ok(Health { key: self.key_state(&status), peers, latency, ..health })
    }

    /// See [`super::Driver::prepare_validator`]. An exact mark is written as it is: CometBFT may go on in
    /// the same height after it, which a chain that waits for this very validator needs. A settled
    /// block's height is done, and all of it counts as signed.
    pub async fn prepare_validator(&self, floor: &SignFloor, settled: Option<&Health>) -> Result<(), DriverError> {
        let mark = match (floor, settled) {
            (SignFloor::None, _) => SignMark::default(),
            (SignFloor::Mark(mark), _) => *mark,
            (SignFloor::BlockAfter(_), Some(health)) if floor::is_met(floor, health, true) => {
                whole_height(health.height)
            }
            (SignFloor::BlockAfter(_), _) => return Err(DriverError::floor_not_met(floor, settled)),
        };
        let files = Arc::clone(&self.files);
        blocking(move || {
            let _changing = lock(&files.changing);
            let highest = files.highest()?.max(SignState::at(mark));
            // First the copy: whatever a crash leaves here, the next call finds no less than before.
            highest.write(&files.kept)?;
            highest.write(&files.live)
        })
        .await
    }

    pub async fn after_stop(&self) -> Result<(), DriverError> {
        let files = Arc::clone(&self.files);
        blocking(move || {
            let _changing = lock(&files.changing);
            let highest = files.highest()?;
            if SignState::read(&files.kept)?.as_ref() != Some(&highest) {
                highest.write(&files.kept)?;
            }
            Ok(())
        })
        .await
    }

    pub async fn last_signed(&self) -> Result<Option<SignMark>, DriverError> {
        let files = Arc::clone(&self.files);
        let highest = blocking(move || files.highest()).await?;
        Ok((highest.mark > SignMark::default()).then_some(highest.mark))
    }

    /// `Absent` needs the standby key by name: with any third key nothing is proven.
    fn key_state(&self, status: &Value) -> KeyState {
        let loaded = status.pointer("/result/validator_info/pub_key");
        let loaded = loaded.and_then(|key| PublicKey::deserialize(key).ok());
        let (Some(keys), Some(loaded)) = (self.keys(), loaded) else { return KeyState::Untold };
        if loaded == keys.validating {
            KeyState::Loaded
        } else if loaded == keys.standby {
            KeyState::Absent
        } else {
            KeyState::Untold
        }
    }

    /// Read once, by `check` or by the first probe that finds both files.
    fn keys(&self) -> Option<&Keys> {
        if self.keys.get().is_none()
            && let Ok(keys) = Keys::read(&self.key_files)
        {
            // Another probe may have been first, with the same files.
            let _ = self.keys.set(keys);
        }
        self.keys.get()
    }

    /// Asked for now and then; the last answer in between, and no matter when it fails.
    async fn peers(&self, time_left: Duration) -> Option<u32> {
        let last = *lock(&self.peers);
        if let Some((asked_at, peers)) = last
            && asked_at.elapsed() < PEERS_EVERY
        {
            return peers;
        }
        let path = self.client.path().strip_suffix("status").map(|base| format!("{base}net_info"))?;
        let answer = self.client.get_path(&path, time_left.min(PEERS_TIMEOUT)).await.ok();
        let peers = answer.and_then(|answer| answer::as_number(answer.pointer("/result/n_peers")?));
        let peers = peers.and_then(|peers| u32::try_from(peers).ok());
        *lock(&self.peers) = Some((Instant::now(), peers));
        peers
    }
}

impl StateFiles {
    fn highest(&self) -> Result<SignState, DriverError> {
        let (live, kept) = (SignState::read(&self.live)?, SignState::read(&self.kept)?);
        Ok(live.unwrap_or_default().max(kept.unwrap_or_default()))
    }
}

impl Keys {
    fn read(files: &KeyFiles) -> Result<Keys, DriverError> {
        let read = |path: &Path| {
            read_key(path)?.ok_or_else(|| DriverError::file("read the public key from", path, "no such file"))
        };
        Ok(Keys { validating: read(&files.validating)?, standby: read(&files.standby)? })
    }
}

fn key_files(chain: &Chain) -> Result<KeyFiles, DriverError> {
    let link = chain.home.join(KEY_FILE);
    let Some(LinkSpec { validating, standby, .. }) = chain.links.iter().find(|spec| spec.link == link) else {
        let reason = format!("{} is not among them; without it no host can become validator", link.display());
        return Err(DriverError::setting("chain.links", reason));
    };
    let Some(standby) = standby else {
        let reason = format!(
            "{} needs a `standby` target: without a key file CometBFT makes one and puts it in the link's place; \
             name a file that does not exist yet, and a throwaway key is made there",
            link.display()
        );
        return Err(DriverError::setting("chain.links", reason));
    };
    Ok(KeyFiles { validating: validating.clone(), standby: standby.clone() })
}

fn read_key(path: &Path) -> Result<Option<PublicKey>, DriverError> {
    let Some(content) = files::read_if_present(path)? else { return Ok(None) };
    match serde_json::from_slice::<KeyFile>(&content) {
        Ok(file) => Ok(Some(file.pub_key)),
        // serde's own text could quote the file: say where, not what.
        Err(error) => {
            let reason = format!("no `pub_key` with `type` and `value` (line {})", error.line());
            Err(DriverError::file("read the public key from", path, reason))
        }
    }
}

/// An Ed25519 key that is in no validator set, in the form of `cometbft gen-validator`; nodes built on
/// CometBFT need not have that command.
fn make_throwaway_key(path: &Path) -> Result<(), DriverError> {
    let failed = |what: &str| DriverError::file("make a throwaway standby key in", path, what);
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| failed("the system gives no random bytes"))?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|error| failed(&error.to_string()))?;
    let public = pair.public_key().as_ref();
    let digest = ring::digest::digest(&ring::digest::SHA256, public);
    let address: String = digest.as_ref()[..20].iter().map(|byte| format!("{byte:02X}")).collect();
    let key = json!({
        "address": address,
        "pub_key": { "type": "tendermint/PubKeyEd25519", "value": BASE64.encode(public) },
        "priv_key": {
            "type": "tendermint/PrivKeyEd25519",
            "value": BASE64.encode([seed.as_slice(), public].concat()),
        },
    });
    files::replace(path, format!("{key:#}\n").as_bytes())
}

/// The settings of CometBFT's own `config.toml` that would make the links or the sign state idle.
fn check_node_config(chain: &Chain) -> Result<Vec<String>, DriverError> {
    let path = chain.home.join("config/config.toml");
    let text = std::fs::read_to_string(&path).map_err(|error| DriverError::file("read", &path, error))?;
    let config: toml::Table =
        toml::from_str(&text).map_err(|error| DriverError::file("read", &path, error.message()))?;
    let setting = |name: &str| config.get(name).and_then(toml::Value::as_str).map(str::to_owned);
    let refuse = |reason: String| Err(DriverError::file("check", &path, reason));
    let in_argv = chain.command.iter().any(|word| word.contains("priv_validator_laddr"));
    match setting("priv_validator_laddr") {
        Some(address) if !address.is_empty() => {
            return refuse(format!(
                "priv_validator_laddr = \"{address}\": a remote signer signs past the key link; set it to \"\""
            ));
        }
        Some(_) | None if in_argv => {
            return refuse(
                "chain.command sets priv_validator_laddr: a remote signer signs past the key link".to_owned(),
            );
        }
        Some(_) | None => {}
    }
    for (name, needed) in [("priv_validator_key_file", KEY_FILE), ("priv_validator_state_file", STATE_FILE)] {
        match setting(name) {
            Some(file) if chain.home.join(&file) != chain.home.join(needed) => {
                return refuse(format!("{name} = \"{file}\" must be \"{needed}\": only that file is looked after"));
            }
            Some(_) | None => {}
        }
    }
    let double_sign_check = config.get("consensus").and_then(|section| section.get("double_sign_check_height"));
    Ok(match double_sign_check.and_then(toml::Value::as_integer) {
        Some(blocks) if blocks > 0 => vec![format!(
            "{}: double_sign_check_height = {blocks}: CometBFT will not start as validator while the old holder's \
             signatures are among the last {blocks} blocks, so no failover is shorter than that; set it to 0",
            path.display()
        )],
        Some(_) | None => Vec::new(),
    })
}

/// Nothing that these locks guard is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs file work off the async threads. It goes on to its end when the caller is dropped.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DriverError> + Send + 'static,
) -> Result<T, DriverError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(DriverError::setting("baton", format!("is shutting down: {error}"))),
        },
    }
}
