//! neard. It tells in `/status` whether a validator key is loaded, so a reload by signal can be proven
//! from outside; it does not protect a key that two hosts use, and writes no mark of what it signed.

use std::path::Path;
use std::time::Instant;

use rustix::process::{Resource, getrlimit};
use serde_json::Value;

use super::http::HttpClient;
use super::{ChainDriver, DriverError, Health, KeyState, ProbeError, answer};
use crate::config::{Chain, Pointers, ProbeTarget};

/// neard raises its own limit to this and refuses to start when it may not.
const OPEN_FILES_NEEDED: u64 = 65_535;

pub struct Near {
    chain: Chain,
    client: HttpClient,
    pointers: Pointers,
}

impl Near {
    pub fn new(chain: &Chain) -> Result<Near, DriverError> {
        let ProbeTarget::Http { url, .. } = &chain.probe.target else {
            return Err(DriverError::setting("chain.probe", "near is probed by `url`, neard's http://ADDRESS/status"));
        };
        let client = HttpClient::new("chain.probe.url", url, chain.probe.timeout)?;
        let at = |pointer: &str| Some(pointer.to_owned());
        let pointers = Pointers {
            syncing: at("/sync_info/syncing"),
            height: at("/sync_info/latest_block_height"),
            head_time: at("/sync_info/latest_block_time"),
            version: at("/version/version"),
            // No peers: /status tells of none.
            ..Pointers::default()
        };
        Ok(Near { chain: chain.clone(), client, pointers })
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
        Ok(Health { key: key_state(&status), latency: asked_at.elapsed(), ..health })
    }

    fn tells_key(&self) -> bool {
        true
    }

    async fn check(&self) -> Result<Vec<String>, DriverError> {
        let key_link = self.chain.home.join("validator_key.json");
        if !self.chain.links.iter().any(|spec| spec.link == key_link) {
            return Err(DriverError::setting(
                "chain.links",
                format!("{} is not among them; without it no host can become validator", key_link.display()),
            ));
        }
        let mut warnings = Vec::new();
        let config_file = self.chain.home.join("config.json");
        let content = std::fs::read(&config_file).map_err(|error| DriverError::file("read", &config_file, error))?;
        let config = serde_json::from_slice(&content)
            .map_err(|error| DriverError::file("read", &config_file, format!("it is not JSON: {error}")))?;
        warnings.extend(untracked_shards(&config, &config_file));
        let limit = getrlimit(Resource::Nofile).maximum;
        if let Some(limit) = limit.filter(|limit| *limit < OPEN_FILES_NEEDED) {
            warnings.push(format!(
                "the limit of open files is {limit}, and neard refuses to start with less than {OPEN_FILES_NEEDED}; \
                 raise LimitNOFILE of the service (or `ulimit -Hn`)"
            ));
        }
        Ok(warnings)
    }
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

/// A standby that tracks no shard has nothing to produce chunks from when it becomes validator.
fn untracked_shards(config: &Value, file: &Path) -> Option<String> {
    const OLDER_FIELDS: [&str; 4] =
        ["tracked_shards", "tracked_accounts", "tracked_shard_schedule", "tracked_shadow_validator"];
    let tracks = match &config["tracked_shards_config"] {
        Value::Null => OLDER_FIELDS.iter().any(|field| match &config[*field] {
            Value::Array(items) => !items.is_empty(),
            Value::String(account) => !account.is_empty(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
        }),
        Value::String(name) => name != "NoShards",
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => true,
    };
    if tracks {
        return None;
    }
    Some(format!(
        "{}: this node tracks no shard, so that it could not produce chunks as validator; set \
         `tracked_shards_config` to `{{\"ShadowValidator\": \"ACCOUNT\"}}` of the shared account, or to `\"AllShards\"`",
        file.display()
    ))
}
