//! neard. It tells in `/status` whether a validator key is loaded, so a reload by signal can be proven
//! from outside; it does not protect a key that two hosts use, and writes no mark of what it signed. While it runs, its
//! `/metrics` tell up to which height it has approved blocks.
//! `docs/chains.md` lists what was measured and what follows from it.

mod config_json;
mod reload;
mod rpc;
pub mod windows;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tracing::info;

use super::files::blocking;
use super::http::HttpClient;
use super::key_reader::KeyReader;
use super::process::{self, Misplaced, Process};
use super::{ChainDriver, DriverError, Health, KeyState, KeyWork, MetFloor, OnChain, ProbeError, answer};
use crate::base::chain_node::Shown;
use crate::base::guard_frame::LinkSpec;
use crate::config::{Chain, Pointers, ProbeTarget};
pub use reload::Reload;
use rpc::Rpc;
use windows::{Pace, Window};

/// neard raises its own limit to this and refuses to start when it may not.
const OPEN_FILES_NEEDED: u64 = 65_535;
/// The pace of the chain is taken over so many blocks.
const PACE_BLOCKS: u64 = 100;
/// For the length of its log before a reload. Later than that, the log is left out: a disk that hangs delays no reload.
const LOG_LOOK_MAX: Duration = Duration::from_millis(50);

pub struct Near {
    chain: Chain,
    client: HttpClient,
    rpc: Rpc,
    pointers: Pointers,
    keys: KeyReader,
    /// The account of the shared key, once its file was read.
    account: OnceCell<String>,
}

impl Near {
    pub fn new(chain: &Chain, keys: KeyReader) -> Result<Near, DriverError> {
        let ProbeTarget::Http { url, .. } = &chain.probe.target else {
            return Err(DriverError::setting("chain.probe", "near is probed by `url`, neard's http://ADDRESS/status"));
        };
        let client = HttpClient::new("chain.probe.url", url, chain.probe.timeout)?;
        if client.path() == "/" {
            let reason = format!("neard tells its health at /status; write \"{}status\"", client.target());
            return Err(DriverError::setting("chain.probe.url", reason));
        }
        let at = |pointer: &str| Some(pointer.to_owned());
        let pointers = Pointers {
            syncing: at("/sync_info/syncing"),
            height: at("/sync_info/latest_block_height"),
            head_time: at("/sync_info/latest_block_time"),
            version: at("/version/version"),
            // No peers: /status tells of none.
            ..Pointers::default()
        };
        Ok(Near { chain: chain.clone(), client, rpc: Rpc::new(url)?, pointers, keys, account: OnceCell::new() })
    }
}

impl ChainDriver for Near {
    fn chain(&self) -> &Chain {
        &self.chain
    }

    async fn probe(&self) -> Result<Health, ProbeError> {
        let asked_at = Instant::now();
        let status = self.client.get().await?;
        let health = answer::health(&status, &self.pointers)
            .map_err(|reason| ProbeError::BadAnswer { target: self.client.target(), reason })?;
        let latency = asked_at.elapsed();
        let key = match key_state(&status) {
            KeyState::Loaded if self.is_for_another_account(&status).await => KeyState::Absent,
            told => told,
        };
        Ok(Health { key, latency, ..health })
    }

    fn tells_key(&self) -> bool {
        true
    }

    fn key_reader(&self) -> &KeyReader {
        &self.keys
    }

    /// neard takes its home from `--home`, else from NEAR_HOME, else `~/.near`.
    fn misplaced(&self, process: &Process) -> Option<Misplaced> {
        let is_neard = process.program().contains("neard");
        // The variable is handed down to processes that make nothing of it.
        let variables: &[&str] = if is_neard || !process.runs { &["NEAR_HOME"] } else { &[] };
        let habit = (process.program() == "neard").then_some(".near");
        let other = process.other_home(&self.chain.home, &["home"], variables, habit);
        other.or_else(|| process::past_links(&self.chain, process))
    }

    async fn inspect_outside(&self) -> Result<Vec<String>, DriverError> {
        let account = self.account().await?;
        let mut warnings = Vec::new();
        // One that is missing makes no key: the node validates as nobody.
        let standbys = self.validator_links().filter_map(|spec| spec.standby.as_ref());
        for standby in standbys.filter(|standby| standby.exists()) {
            let other = self.keys.near(standby).await?.account_id;
            if other != account {
                warnings.push(format!(
                    "the standby target {} is a key of account {other}, and the shared key is of {account}: a standby signs as \
                     {other} while that is a validator; put a key of {account} there, or leave `standby` out",
                    standby.display()
                ));
            }
        }
        warnings.extend(few_open_files(getrlimit(Resource::Nofile).maximum));
        Ok(warnings)
    }

    async fn inspect(&self) -> Result<Vec<String>, DriverError> {
        let account = self.account().await?;
        let file = self.config_file();
        let text = config_json::read(&file)?;
        let config = config_json::parse(&text).map_err(|reason| DriverError::file("read", &file, reason))?;
        config_json::check_key_files(&config, &self.chain).map_err(|reason| DriverError::file("use", &file, reason))?;
        if let Some(addrs) = &self.chain.near_addrs {
            for addr in [addrs.validating, addrs.standby] {
                config_json::with_network_addr(&text, addr)
                    .map_err(|reason| DriverError::file("edit", &file, reason))?;
            }
        }
        let tracking = config_json::tracking_problem(&config, account);
        Ok(tracking.map(|problem| format!("{}: {problem}", file.display())).into_iter().collect())
    }

    /// The node, stopped, will start next with the network address that goes with the validator's node key.
    async fn before_validating(&self, _: &MetFloor, _: Option<&Health>) -> Result<Vec<String>, DriverError> {
        if let Some(addrs) = self.chain.near_addrs {
            self.set_network_addr(addrs.validating).await?;
        }
        Ok(Vec::new())
    }

    /// The same for a standby.
    async fn after_stop(&self) -> Result<(), DriverError> {
        match self.chain.near_addrs {
            Some(addrs) => self.set_network_addr(addrs.standby).await,
            None => Ok(()),
        }
    }

    /// What the chain counts of the shared account in the present epoch.
    async fn on_chain(&self) -> Result<Option<OnChain>, ProbeError> {
        let account = self.account().await.map_err(|error| self.unanswerable(error))?;
        self.rpc.on_chain(account).await.map(Some)
    }

    /// A node that keeps a mark of its own, as the stand-in chain's does, needs no other.
    fn tells_approvals(&self) -> bool {
        self.chain.last_signed.is_none()
    }

    async fn approved(&self) -> Result<u64, ProbeError> {
        self.rpc.largest_target_height().await
    }

    fn sees_key_on_chain(&self) -> bool {
        true
    }

    /// The head is read before what is counted: what the next look counts on top is of a later block.
    async fn key_work(&self) -> Result<Option<KeyWork>, ProbeError> {
        let Health { height, head_time, .. } = self.probe().await?;
        let Some(counted) = self.on_chain().await? else { return Ok(None) };
        Ok(head_time.map(|time| KeyWork { height, time, shown: Shown::Counted(counted) }))
    }

    async fn maintenance_window(&self, length: Duration) -> Option<Result<(Pace, Option<Window>), ProbeError>> {
        Some(self.next_window(length).await)
    }

    /// To be called just before a reload is asked for.
    async fn begin_reload(&self) -> Reload {
        let log = self.chain.log.as_ref().map(|log| log.file.clone());
        let begun = timeout(LOG_LOOK_MAX, blocking(move || Ok(Reload::begin(log)))).await;
        begun.ok().and_then(Result::ok).unwrap_or_else(|| Reload::begin(None))
    }

    /// Why neard kept its old key and configuration when it was told to read them again; `None` when
    /// it does not say that it did. True only of a reload that has been going on for a while.
    async fn reload_refusal(&self, reload: &Reload) -> Option<String> {
        let (from_log, home) = (reload.clone(), self.chain.home.clone());
        if let Ok(Some(line)) = blocking(move || Ok(from_log.refusal(&home))).await {
            return Some(line);
        }
        match self.rpc.config_correct().await {
            Ok(Some(false)) => {
                let found = self.broken_file().await;
                Some(found.unwrap_or_else(|| "near_config_correct is 0; its log says which file is wrong".into()))
            }
            Ok(Some(true) | None) | Err(_) => None,
        }
    }

    async fn broken_file(&self) -> Option<String> {
        let home = self.chain.home.clone();
        blocking(move || Ok(reload::broken_config(&home))).await.ok().flatten()
    }
}

impl Near {
    async fn set_network_addr(&self, addr: SocketAddr) -> Result<(), DriverError> {
        let file = self.config_file();
        if blocking(move || config_json::set_network_addr(&file, addr)).await? {
            info!(%addr, "config.json: network.addr rewritten");
        }
        Ok(())
    }

    /// Where the chain is and the next maintenance window of the shared account that is long enough.
    pub async fn next_window(&self, length: Duration) -> Result<(Pace, Option<Window>), ProbeError> {
        let account = self.account().await.map_err(|error| self.unanswerable(error))?;
        let head = self.probe().await?;
        let (before, then) = self.rpc.block_time(head.height.saturating_sub(PACE_BLOCKS)).await?;
        let took = head.head_time.map(|now| now.since(then)).unwrap_or_default();
        let blocks = u32::try_from(head.height.saturating_sub(before)).unwrap_or(u32::MAX);
        if blocks == 0 || took.is_zero() {
            let reason = format!("block {before} and the head {} give no pace; wait for blocks", head.height);
            return Err(self.unanswerable(reason));
        }
        let pace = Pace { head: head.height, block_time: took / blocks };
        let windows = self.rpc.maintenance_windows(account).await?;
        let window = pace.choose(&windows, length);
        Ok((pace, window))
    }

    /// Whether the node validates, and as somebody else: what it signs is not signed in the name of the shared account.
    async fn is_for_another_account(&self, status: &Value) -> bool {
        let told =
            status.pointer("/validator_account_id").and_then(Value::as_str).filter(|account| !account.is_empty());
        let Some(told) = told else { return false };
        self.account().await.is_ok_and(|shared| shared != told)
    }

    fn validator_link(&self) -> PathBuf {
        self.chain.home.join("validator_key.json")
    }

    fn validator_links(&self) -> impl Iterator<Item = &LinkSpec> {
        let link = self.validator_link();
        self.chain.links.iter().filter(move |spec| spec.link == link)
    }

    /// The account that the hosts validate as.
    pub async fn account(&self) -> Result<&str, DriverError> {
        let Some(spec) = self.validator_links().next() else {
            let link = self.validator_link();
            return Err(DriverError::setting(
                "chain.links",
                format!("{} is not among them; without it no host can become validator", link.display()),
            ));
        };
        let read = async || self.keys.near(&spec.validating).await.map(|key| key.account_id);
        self.account.get_or_try_init(read).await.map(String::as_str)
    }

    fn config_file(&self) -> PathBuf {
        self.chain.home.join("config.json")
    }

    fn unanswerable(&self, reason: impl ToString) -> ProbeError {
        ProbeError::BadAnswer { target: self.client.target(), reason: reason.to_string() }
    }
}

fn few_open_files(limit: Option<u64>) -> Option<String> {
    let limit = limit.filter(|limit| *limit < OPEN_FILES_NEEDED)?;
    Some(format!(
        "the limit of open files is {limit}, and neard refuses to start with less than {OPEN_FILES_NEEDED}; \
         raise LimitNOFILE of the service (or `ulimit -Hn`)"
    ))
}

/// Both fields are null in a node without key. Neither being there proves nothing.
fn key_state(status: &Value) -> KeyState {
    let states = ["/validator_public_key", "/validator_account_id"].map(|field| answer::key_at(status, field));
    if states.contains(&KeyState::Loaded) {
        KeyState::Loaded
    } else if states.contains(&KeyState::Absent) {
        KeyState::Absent
    } else {
        KeyState::Untold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_open_files_that_neard_refuses_is_told_before_it_does() {
        assert_eq!(few_open_files(None), None);
        assert_eq!(few_open_files(Some(65_535)), None);
        let warning = few_open_files(Some(65_534)).expect("too few");
        assert!(warning.contains("65534") && warning.contains("LimitNOFILE"), "{warning}");
    }
}
