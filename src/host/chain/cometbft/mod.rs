//! CometBFT and the nodes built on it. Its file signer keeps the last signed height, round and step in
//! `data/priv_validator_state.json` and refuses to sign at or below it: the sign floor is written there
//! before a start as validator. `/status` tells which key the process has loaded.
//!
//! The floor in `data/` only ever rises, also while the throwaway standby key runs: that key is in no
//! validator set and signs nothing. A copy in `state_dir` outlives a `data/` wiped for a resync.

mod commit;
mod config;
mod genesis;
mod keys;
mod state;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::Deserialize as _;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::files::blocking;
use super::http::HttpClient;
use super::key_reader::KeyReader;
use super::process::{Misplaced, Process};
use super::{Activation, ChainDriver, DriverError, Health, KeyState, KeyWork, MetFloor, ProbeError, answer};
use crate::base::guard_frame::LinkSpec;
use crate::base::ids::SignMark;
use crate::base::public_key::TypedKey;
use crate::base::signing::Custody;
use crate::config::{Chain, Pointers, ProbeTarget};
use crate::host::privval::remove_stale_socket;
use commit::Commits;
pub use config::{NodeConfig, check_signer, misplaced_signer};
pub use keys::check_not_shared;
use keys::{KeyFiles, Keys};
use state::SignState;

const KEY_FILE: &str = "config/priv_validator_key.json";
const STATE_FILE: &str = "data/priv_validator_state.json";
const KEPT_STATE_FILE: &str = "priv_validator_state.validating.json";

/// A sign state further above the head than this is worth a warning: it is seconds to minutes of blocks.
const STATE_AHEAD_MAX: u64 = 100;

/// `/net_info` describes every peer at length only to be counted here.
const PEERS_EVERY: Duration = Duration::from_secs(10);
const PEERS_TIMEOUT: Duration = Duration::from_millis(100);

pub struct CometBft {
    chain: Chain,
    links: Vec<LinkSpec>,
    client: HttpClient,
    pointers: Pointers,
    files: Arc<StateFiles>,
    /// `None` where no chain node has the key.
    key_files: Option<KeyFiles>,
    key_reader: KeyReader,
    keys: OnceCell<Keys>,
    commits: Box<Commits>,
    /// By which commits name the shared key, once its file was read.
    address: OnceCell<Option<String>>,
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

impl CometBft {
    pub fn new(chain: &Chain, state_dir: &Path, key_reader: KeyReader) -> Result<CometBft, DriverError> {
        let ProbeTarget::Http { url, .. } = &chain.probe.target else {
            return Err(DriverError::setting("chain.probe", "cometbft is probed by `url`, http://RPC_ADDRESS/status"));
        };
        if chain.activation != Activation::Restart {
            let reason = "cometbft reads its key only when it starts: use how = \"restart\"";
            return Err(DriverError::setting("chain.activate", reason));
        }
        let at = |pointer: &str| Some(pointer.to_owned());
        let (links, key_files) = match chain.custody() {
            Custody::Links => links(chain, state_dir).map(|(links, files)| (links, Some(files)))?,
            Custody::Signer => (Vec::new(), None),
        };
        Ok(CometBft {
            client: HttpClient::new("chain.probe.url", url, chain.probe.timeout)?,
            pointers: Pointers {
                syncing: at("/result/sync_info/catching_up"),
                height: at("/result/sync_info/latest_block_height"),
                head_time: at("/result/sync_info/latest_block_time"),
                version: at("/result/node_info/version"),
                ..Pointers::default()
            },
            files: Arc::new(StateFiles {
                live: chain.home.join(STATE_FILE),
                kept: state_dir.join(KEPT_STATE_FILE),
                changing: Mutex::new(()),
            }),
            links,
            key_files,
            key_reader,
            keys: OnceCell::new(),
            commits: Box::new(Commits::new(url)?),
            address: OnceCell::new(),
            peers: Mutex::new(None),
            chain: chain.clone(),
        })
    }
}

impl ChainDriver for CometBft {
    fn chain(&self) -> &Chain {
        &self.chain
    }

    fn links(&self) -> &[LinkSpec] {
        &self.links
    }

    fn key_reader(&self) -> &KeyReader {
        &self.key_reader
    }

    fn misplaced(&self, process: &Process) -> Option<Misplaced> {
        match &self.chain.signer {
            Some(signer) => config::misplaced_signer(&self.chain, &signer.node, process),
            None => config::misplaced(&self.chain, process),
        }
    }

    async fn inspect(&self) -> Result<Vec<String>, DriverError> {
        let node = self.node_config().await?;
        if let Some(files) = &self.key_files {
            Keys::inspect(&self.key_reader, files, node.genesis.clone()).await?;
        }
        if let Some(signer) = &self.chain.signer {
            keys::check_not_shared(&self.key_reader, &self.chain.home, &signer.key).await?;
        }
        let (clock_skew, path) = (self.chain.clock_skew, node.genesis);
        let of_clock = blocking(move || genesis::clock_skew_warning(clock_skew, &path)).await?;
        let files = Arc::clone(&self.files);
        blocking(move || files.highest()).await?;
        let mut warnings = node.warnings;
        warnings.extend(of_clock);
        warnings.extend(config::untold_home(&self.chain));
        Ok(warnings)
    }

    /// Makes a throwaway standby key where there is none yet, and an empty sign state for a new node.
    async fn lay(&self) -> Result<(), DriverError> {
        let Some(key_files) = &self.key_files else { return Ok(()) };
        let files = Arc::clone(&self.files);
        let keys = Keys::prepare(&self.key_reader, key_files).await?;
        blocking(move || {
            if SignState::read(&files.live)?.is_none() {
                let _changing = lock(&files.changing);
                files.highest()?.write(&files.live)?;
            }
            Ok(())
        })
        .await?;
        // A second check finds the same files; the first answer stays.
        let _ = self.keys.set(keys);
        Ok(())
    }

    async fn probe(&self) -> Result<Health, ProbeError> {
        let asked_at = Instant::now();
        let status = self.client.get().await?;
        let latency = asked_at.elapsed();
        let bad = |reason: String| ProbeError::BadAnswer { target: self.client.target(), reason };
        let health = answer::health(&status, &self.pointers).map_err(bad)?;
        let key = self.key_state(&status).await;
        self.check_standby(key, &status).map_err(bad)?;
        let peers = self.peers(self.chain.probe.timeout.saturating_sub(latency)).await;
        Ok(Health { key, peers, latency, ..health })
    }

    fn tells_key(&self) -> bool {
        self.key_files.is_some()
    }

    fn enforces_floor(&self) -> bool {
        true
    }

    /// An exact mark is written as it is: CometBFT may go on in the same height after it, which a chain
    /// that waits for this very validator needs.
    async fn before_validating(&self, floor: &MetFloor, settled: Option<&Health>) -> Result<Vec<String>, DriverError> {
        let mark = match *floor {
            MetFloor::None => SignMark::default(),
            MetFloor::Mark(mark) => mark,
            MetFloor::Height(height) => SignMark::whole_height(height),
        };
        let files = Arc::clone(&self.files);
        let written = blocking(move || {
            let _changing = lock(&files.changing);
            let highest = files.highest()?.max(SignState::at(mark));
            // First the copy: whatever a crash leaves here, the next call finds no less than before.
            highest.write(&files.kept)?;
            highest.write(&files.live)?;
            Ok(highest.mark)
        });
        Ok(self.state_warnings(written.await?, floor, settled.map(|health| health.height)))
    }

    async fn after_stop(&self) -> Result<(), DriverError> {
        if let Some(signer) = &self.chain.signer {
            let socket = signer.node.clone();
            // With its file there the node cannot start.
            let removed = blocking(move || {
                remove_stale_socket(&socket).map_err(|error| DriverError::setting("signer.node", error.to_string()))
            });
            return removed.await.map(drop);
        }
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

    async fn last_signed(&self) -> Result<Option<SignMark>, DriverError> {
        if self.key_files.is_none() {
            return Ok(None);
        }
        let files = Arc::clone(&self.files);
        let highest = blocking(move || files.highest()).await?;
        Ok((highest.mark != SignMark::default()).then_some(highest.mark))
    }

    fn last_signed_files(&self) -> Vec<PathBuf> {
        match &self.key_files {
            Some(_) => vec![self.files.live.clone(), self.files.kept.clone()],
            None => Vec::new(),
        }
    }

    async fn chain_id(&self) -> Result<Option<String>, DriverError> {
        let genesis = self.node_config().await?.genesis;
        blocking(move || genesis::chain_id(&genesis).map(Some)).await
    }

    fn sees_key_on_chain(&self) -> bool {
        self.key_files.is_some()
    }

    async fn key_work(&self) -> Result<Option<KeyWork>, ProbeError> {
        let Some(files) = &self.key_files else { return Ok(None) };
        let read = async || self.key_reader.cometbft(&files.validating).await.map(|key| commit::address(&key));
        let address = self.address.get_or_try_init(read).await;
        let unread =
            |error: DriverError| ProbeError::BadAnswer { target: self.client.target(), reason: error.to_string() };
        match address.map_err(unread)? {
            Some(address) => self.commits.newest(address).await,
            None => Ok(None),
        }
    }
}

impl CometBft {
    /// What the node's own settings say, which lead to no other key than they should.
    async fn node_config(&self) -> Result<config::NodeConfig, DriverError> {
        let chain = self.chain.clone();
        blocking(move || match &chain.signer {
            Some(signer) => config::check_signer(&chain, &signer.node),
            None => config::check(&chain),
        })
        .await
    }

    /// A state that is newer than it can be says that the key was used outside of this cluster, or that
    /// the file is of another chain. It is kept all the same: it can only make the node sign less.
    fn state_warnings(&self, written: SignMark, floor: &MetFloor, head: Option<u64>) -> Vec<String> {
        let file = self.files.live.display();
        let mut warnings = Vec::new();
        if let MetFloor::Mark(mark) = floor
            && !mark.covers(&written)
        {
            warnings.push(format!(
                "{file} is at {written}, above the mark {mark} of the last release: the key has signed outside of this \
                 cluster; nothing at or below {written} is signed again"
            ));
        }
        if let Some(head) = head.filter(|head| written.height > head + STATE_AHEAD_MAX) {
            warnings.push(format!(
                "{file} is at {written}, {} heights above the head {head} of this node: it signs nothing before the \
                 chain is there; if the file is of another chain, restore the right one",
                written.height - head
            ));
        }
        warnings
    }

    /// `Absent` needs the standby key by name: with any third key nothing is proven.
    async fn key_state(&self, status: &Value) -> KeyState {
        let loaded = status.pointer("/result/validator_info/pub_key");
        let loaded = loaded.and_then(|key| TypedKey::deserialize(key).ok());
        let (Some(keys), Some(loaded)) = (self.keys().await, loaded) else { return KeyState::Untold };
        if loaded == keys.validating {
            KeyState::Loaded
        } else if loaded == keys.standby {
            KeyState::Absent
        } else {
            KeyState::Untold
        }
    }

    /// A standby whose throwaway key has voting power signs, and so does every other standby with it.
    fn check_standby(&self, key: KeyState, status: &Value) -> Result<(), String> {
        let power = status.pointer("/result/validator_info/voting_power").and_then(answer::as_number).unwrap_or(0);
        match (key, &self.key_files) {
            (KeyState::Absent, Some(files)) if power > 0 => Err(format!(
                "the standby key {} is in the validator set, with voting power {power}: every standby signs with it; \
                 stop baton on every host that has it, remove the file, and a throwaway key is made in its place",
                files.standby.display()
            )),
            (KeyState::Absent | KeyState::Loaded | KeyState::Untold, _) => Ok(()),
        }
    }

    /// Read once: by `check`, or at its first probe by a driver that was not checked.
    async fn keys(&self) -> Option<&Keys> {
        let files = self.key_files.as_ref()?;
        self.keys.get_or_try_init(|| Keys::read(&self.key_reader, files)).await.ok()
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

/// The configured links, with a standby target of our own for the key where none is configured, and the
/// two files that the key link can name.
fn links(chain: &Chain, state_dir: &Path) -> Result<(Vec<LinkSpec>, KeyFiles), DriverError> {
    let key_link = chain.home.join(KEY_FILE);
    let mut links = chain.links.clone();
    let Some(spec) = links.iter_mut().find(|spec| spec.link == key_link) else {
        let reason = format!("{} is not among them; without it no host can become validator", key_link.display());
        return Err(DriverError::setting("chain.links", reason));
    };
    // Without a key file CometBFT makes one and puts it in the link's place.
    let standby = spec.standby.get_or_insert_with(|| keys::own_standby_file(state_dir)).clone();
    let key_files = KeyFiles { validating: spec.validating.clone(), standby };
    Ok((links, key_files))
}

/// Nothing that these locks guard is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
