//! What the contract suite has to know of a chain to try its driver: a host's files, what the chain's
//! node answers, and what it leaves on disk when it has signed. A new chain adds one page here.

use std::fs;

use baton::config::LastSigned;
use serde_json::{Value, json};

use super::*;

/// What the fake node is to say of itself.
#[derive(Clone, Copy, Debug)]
pub struct Says {
    pub syncing: bool,
    pub height: u64,
    /// Seconds since 1970.
    pub head_time: u64,
    pub key: KeyState,
}

pub trait Subject: Sync {
    fn name(&self) -> &'static str;
    /// Where the driver asks for its health.
    fn path(&self) -> &'static str {
        "/status"
    }
    /// Makes in `home` what the node's own set-up would have made.
    fn lay(&self, _home: &Path) {}
    fn chain(&self, home: &Path, url: String) -> Chain;
    fn answer(&self, says: Says) -> Value;
    /// Whether its answers tell of the validator key.
    fn tells_key(&self) -> bool;
    /// Whether the node itself refuses to sign at or below what the driver wrote.
    fn enforces_floor(&self) -> bool {
        false
    }
    /// The file in which its node records what it signed, if it records anything.
    fn record(&self) -> Option<&'static str> {
        None
    }
    fn signed(&self, _mark: SignMark) -> Value {
        Value::Null
    }
}

pub const ALL: [&dyn Subject; 4] = [&Near, &CometBft, &GenericHttp, &GenericRpc];

fn rfc3339(seconds_since_1970: u64) -> String {
    seconds(seconds_since_1970).to_string()
}

struct Near;

impl Subject for Near {
    fn name(&self) -> &'static str {
        "near"
    }
    fn lay(&self, home: &Path) {
        fs::write(home.join("config.json"), r#"{"tracked_shards_config": "AllShards"}"#).expect("config.json");
        fs::write(home.join("shared_key.json"), r#"{"account_id": "node3"}"#).expect("shared_key.json");
    }
    fn chain(&self, home: &Path, url: String) -> Chain {
        near::near_chain(home, url)
    }
    fn answer(&self, says: Says) -> Value {
        let mut status: Value = serde_json::from_str(include_str!("../../data/near-status.json")).expect("status");
        status["sync_info"]["syncing"] = says.syncing.into();
        status["sync_info"]["latest_block_height"] = says.height.into();
        status["sync_info"]["latest_block_time"] = rfc3339(says.head_time).into();
        let fields = status.as_object_mut().expect("an object");
        for name in ["validator_public_key", "validator_account_id"] {
            match says.key {
                KeyState::Loaded => {}
                KeyState::Absent => drop(fields.insert(name.into(), Value::Null)),
                KeyState::Untold => drop(fields.remove(name)),
            }
        }
        status
    }
    fn tells_key(&self) -> bool {
        true
    }
}

struct CometBft;

impl Subject for CometBft {
    fn name(&self) -> &'static str {
        "cometbft"
    }
    fn lay(&self, home: &Path) {
        for folder in ["config", "data", "keys"] {
            fs::create_dir(home.join(folder)).expect(folder);
        }
        fs::write(home.join("config/config.toml"), "").expect("config.toml");
        for (file, public) in [("keys/validator.json", cometbft::LOADED), ("keys/standby.json", cometbft::OTHER)] {
            fs::write(home.join(file), cometbft::key_file(public)).expect(file);
        }
    }
    fn chain(&self, home: &Path, url: String) -> Chain {
        cometbft::cometbft_chain(home, url)
    }
    fn answer(&self, says: Says) -> Value {
        let mut status: Value = serde_json::from_str(cometbft::STATUS).expect("status");
        status["result"]["sync_info"]["catching_up"] = says.syncing.into();
        status["result"]["sync_info"]["latest_block_height"] = says.height.to_string().into();
        status["result"]["sync_info"]["latest_block_time"] = rfc3339(says.head_time).into();
        let (key, power) = match says.key {
            KeyState::Loaded => (cometbft::LOADED, "10"),
            KeyState::Absent => (cometbft::OTHER, "0"),
            KeyState::Untold => ("of somebody else", "0"),
        };
        status["result"]["validator_info"]["pub_key"]["value"] = key.into();
        status["result"]["validator_info"]["voting_power"] = power.into();
        status
    }
    fn tells_key(&self) -> bool {
        true
    }
    fn enforces_floor(&self) -> bool {
        true
    }
    fn record(&self) -> Option<&'static str> {
        Some("data/priv_validator_state.json")
    }
    fn signed(&self, SignMark { height, round, step, .. }: SignMark) -> Value {
        json!({"height": height.to_string(), "round": round, "step": step, "signature": "s", "signbytes": "AB"})
    }
}

/// A status page that tells of the key, and a file of what was signed.
struct GenericHttp;

impl Subject for GenericHttp {
    fn name(&self) -> &'static str {
        "generic over http"
    }
    fn chain(&self, home: &Path, url: String) -> Chain {
        let pointers = Pointers {
            syncing: at("/syncing"),
            height: at("/head/height"),
            head_time: at("/head/time"),
            key: at("/key"),
            ..Pointers::default()
        };
        let mut chain = chain(DriverKind::Generic, home, http(url, pointers));
        chain.links = vec![link(home.join("key"), home.join("validator.key"), None)];
        chain.last_signed = Some(LastSigned {
            file: home.join("signed.json"),
            height: "/height".into(),
            round: at("/round"),
            step: at("/step"),
        });
        chain
    }
    fn answer(&self, says: Says) -> Value {
        let mut answer =
            json!({"syncing": says.syncing, "head": {"height": says.height, "time": rfc3339(says.head_time)}});
        match says.key {
            KeyState::Loaded => answer["key"] = "0xab".into(),
            KeyState::Absent => answer["key"] = Value::Null,
            KeyState::Untold => {}
        }
        answer
    }
    fn tells_key(&self) -> bool {
        true
    }
    fn record(&self) -> Option<&'static str> {
        Some("signed.json")
    }
    fn signed(&self, SignMark { height, round, step, .. }: SignMark) -> Value {
        json!({"height": height, "round": round, "step": step})
    }
}

/// A JSON-RPC node that says nothing of its key and records nothing.
struct GenericRpc;

impl Subject for GenericRpc {
    fn name(&self) -> &'static str {
        "generic over JSON-RPC"
    }
    fn path(&self) -> &'static str {
        "/rpc"
    }
    fn chain(&self, home: &Path, url: String) -> Chain {
        let mut chain = chain(DriverKind::Generic, home, generic::geth_like(url));
        chain.links = vec![link(home.join("key"), home.join("validator.key"), None)];
        chain
    }
    fn answer(&self, says: Says) -> Value {
        let syncing = if says.syncing { json!({"currentBlock": "0x1", "highestBlock": "0x2"}) } else { json!(false) };
        let (number, timestamp) = (format!("{:#x}", says.height), format!("{:#x}", says.head_time));
        json!([
            {"jsonrpc": "2.0", "id": 0, "result": syncing},
            {"jsonrpc": "2.0", "id": 1, "result": {"number": number, "timestamp": timestamp}},
        ])
    }
    fn tells_key(&self) -> bool {
        false
    }
}
