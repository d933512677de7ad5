//! cometbft: a real node's status, keys told apart by name, and a sign state that only ever rises.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use baton::base::chain_node::{KeyWork, Shown};

use super::*;

pub const STATUS: &str = include_str!("../../data/cometbft-status.json");
/// The key in `STATUS`.
pub const LOADED: &str = "u0XdMb1fJ/X7ji9ZQl2ODx4ZX6yUccOsv1A1ZG2xWtI=";
pub const OTHER: &str = "vbzTe1cv5xtO7ZU2Aks9NUypiQaATJhhluaX603CJ10=";

pub fn cometbft_chain(home: &Path, url: String) -> Chain {
    let mut chain = chain(DriverKind::CometBft, home, http(url, Pointers::default()));
    let standby = Some(home.join("keys/standby.json"));
    chain.links = vec![link(home.join("config/priv_validator_key.json"), home.join("keys/validator.json"), standby)];
    chain
}

pub fn key_file(public: &str) -> String {
    let private = json!({"type": "tendermint/PrivKeyEd25519", "value": format!("private half of {public}")});
    json!({"address": "00", "pub_key": pub_key(public), "priv_key": private}).to_string()
}

fn pub_key(public: &str) -> Value {
    json!({"type": "tendermint/PubKeyEd25519", "value": public})
}

/// A node's home with the shared key, and a state folder beside it.
struct Host {
    folder: tempfile::TempDir,
    chain: Chain,
}

impl Host {
    fn new() -> Host {
        let folder = tempfile::tempdir().expect("folder");
        for name in ["config", "data", "keys", "state"] {
            fs::create_dir(folder.path().join(name)).expect(name);
        }
        let chain = cometbft_chain(folder.path(), "http://127.0.0.1:1/status".into());
        let host = Host { folder, chain };
        host.put("config/config.toml", "priv_validator_laddr = \"\"\n");
        host.put_key("keys/validator.json", LOADED);
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect(name);
    }

    fn put_key(&self, name: &str, public: &str) {
        self.put(name, &key_file(public));
    }

    fn driver(&self) -> Driver {
        driver(&self.chain, &self.path("state"))
    }

    /// What CometBFT itself would have written.
    fn sign(&self, height: u64, round: u32, step: u32) {
        let state = json!({"height": height.to_string(), "round": round, "step": step,
            "signature": format!("signature of {height}/{round}/{step}"), "signbytes": "AB"});
        self.put(LIVE, &state.to_string());
    }

    fn state(&self, name: &str) -> Value {
        let content = fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        serde_json::from_slice(&content).expect("a state file")
    }

    fn mark(&self, name: &str) -> (String, u64, u64) {
        let state = self.state(name);
        let text = state["height"].as_str().expect("CometBFT writes heights as strings").to_owned();
        (text, state["round"].as_u64().expect("round"), state["step"].as_u64().expect("step"))
    }

    async fn check_refusal(&self) -> String {
        self.driver().check().await.expect_err("accepted").to_string()
    }
}

const LIVE: &str = "data/priv_validator_state.json";
const KEPT: &str = "state/priv_validator_state.validating.json";

fn mark(height: u64, round: u32, step: u32) -> SignFloor {
    SignFloor::Mark(SignMark::at_step(height, round, step))
}

fn is(height: u64, round: u64, step: u64) -> (String, u64, u64) {
    (height.to_string(), round, step)
}

#[tokio::test]
async fn a_real_status_is_read_to_exact_values() {
    let node = FakeNode::start("/status", Answer::Body(STATUS.into())).await;
    node.answer("/net_info", Answer::Body(r#"{"result": {"n_peers": "3", "peers": []}}"#.into()));
    let mut host = Host::new();
    host.chain = cometbft_chain(host.folder.path(), node.url("/status"));
    let cometbft = host.driver();
    assert_eq!(cometbft.check().await, Ok(Vec::new()));
    let health = cometbft.probe().await.expect("health");
    let expected = Health {
        approved: 0,
        synced: true,
        height: 2,
        head_time: Some(WallTime::from_nanos(1_795_245_835_987_177_382)),
        peers: Some(3),
        key: KeyState::Loaded,
        latency: health.latency,
        version: "0.38.19".into(),
    };
    assert_eq!(health, expected);
    for _ in 0..10 {
        assert_eq!(cometbft.probe().await.expect("health").peers, Some(3));
    }
    let asked = node.requests().iter().filter(|request| request.contains("/net_info")).count();
    assert_eq!((asked, node.connections()), (1, 1), "peers are counted now and then, on the same connection");
}

#[tokio::test]
async fn a_peer_count_that_does_not_come_harms_no_probe() {
    for answer in [Answer::Hang, Answer::Huge, Answer::CloseAtOnce, Answer::Body("[]".into())] {
        let node = FakeNode::start("/status", Answer::Body(STATUS.into())).await;
        node.answer("/net_info", answer);
        let mut host = Host::new();
        host.chain = cometbft_chain(host.folder.path(), node.url("/status"));
        let cometbft = host.driver();
        for _ in 0..3 {
            assert_eq!(cometbft.probe().await.expect("health").peers, None);
        }
    }
}

/// `STATUS` of a node whose key is in no validator set.
fn without_power() -> String {
    let with = "\"voting_power\":\"10\"";
    assert!(STATUS.contains(with));
    STATUS.replace(with, "\"voting_power\":\"0\"")
}

#[tokio::test]
async fn a_key_is_loaded_or_absent_by_its_name_alone() {
    let node = FakeNode::start("/status", Answer::Body(without_power())).await;
    // validating, standby, what a node that has loaded `LOADED` proves
    for (validating, standby, expected) in [
        (LOADED, Some(OTHER), KeyState::Loaded),
        (OTHER, Some(LOADED), KeyState::Absent),
        (OTHER, Some("a third one"), KeyState::Untold),
        (OTHER, None, KeyState::Untold),
    ] {
        let mut host = Host::new();
        host.chain = cometbft_chain(host.folder.path(), node.url("/status"));
        host.put_key("keys/validator.json", validating);
        if let Some(standby) = standby {
            host.put_key("keys/standby.json", standby);
        }
        let health = host.driver().probe().await.expect("health");
        assert_eq!(health.key, expected, "{validating} {standby:?}");
    }
}

#[tokio::test]
async fn an_exact_floor_is_written_as_it_is_and_without_a_signature() {
    let host = Host::new();
    let cometbft = host.driver();
    host.sign(7, 0, 3);
    cometbft.prepare_validator(&mark(10, 1, 2), None).await.expect("prepared");
    for file in [LIVE, KEPT] {
        assert_eq!(host.state(file), json!({"height": "10", "round": 1, "step": 2}), "{file}");
    }
    assert_eq!(cometbft.last_signed().await, Ok(Some(SignMark::at_step(10, 1, 2))));
    let mode = fs::metadata(host.path(LIVE)).expect("state").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn the_sign_state_is_never_lowered_and_keeps_its_signature() {
    let host = Host::new();
    let cometbft = host.driver();
    let settled = health(9, Some(seconds(100)));
    host.sign(10, 2, 3);
    let before = host.state(LIVE);
    let floors = [
        SignFloor::None,
        mark(9, 9, 3),
        mark(10, 1, 3),
        mark(10, 2, 2),
        mark(10, 2, 3),
        SignFloor::BlockAfter(seconds(99)),
    ];
    for floor in floors {
        cometbft.prepare_validator(&floor, Some(&settled)).await.expect("prepared");
        assert_eq!(host.state(LIVE), before, "{floor:?}");
    }
    cometbft.prepare_validator(&mark(10, 2, 3), None).await.expect("prepared");
    cometbft.prepare_validator(&mark(10, 3, 1), None).await.expect("prepared");
    assert_eq!(host.mark(LIVE), is(10, 3, 1));
}

#[tokio::test]
async fn after_a_failover_all_of_the_settled_height_counts_as_signed() {
    let host = Host::new();
    let cometbft = host.driver();
    let floor = SignFloor::BlockAfter(seconds(100));
    for early in [None, Some(health(12, Some(seconds(100)))), Some(health(12, None))] {
        let error = cometbft.prepare_validator(&floor, early.as_ref()).await.expect_err("not settled").to_string();
        assert!(error.contains("not met"), "{error}");
        assert!(!host.path(LIVE).exists() && !host.path(KEPT).exists(), "nothing is written before it settled");
    }
    cometbft.prepare_validator(&floor, Some(&health(12, Some(seconds(101))))).await.expect("prepared");
    assert_eq!(host.mark(LIVE), is(12, i32::MAX as u64, 3));
}

#[tokio::test]
async fn a_wiped_data_folder_does_not_lower_the_floor() {
    let host = Host::new();
    host.sign(50, 0, 3);
    host.driver().after_stop().await.expect("saved");
    assert_eq!(host.state(KEPT), host.state(LIVE));
    for wiped in [Some("{\"height\": \"0\", \"round\": 0, \"step\": 0}"), None] {
        match wiped {
            Some(reset) => host.put(LIVE, reset),
            None => fs::remove_file(host.path(LIVE)).expect("removed"),
        }
        assert_eq!(host.driver().last_signed().await, Ok(Some(SignMark::at_step(50, 0, 3))));
        host.driver().prepare_validator(&SignFloor::None, None).await.expect("prepared");
        assert_eq!(host.mark(LIVE), is(50, 0, 3));
        assert_eq!(host.state(LIVE)["signature"], "signature of 50/0/3");
    }
}

#[tokio::test]
async fn a_coordinator_that_died_before_after_stop_finds_the_state_all_the_same() {
    let host = Host::new();
    host.driver().prepare_validator(&mark(5, 0, 1), None).await.expect("prepared");
    host.sign(60, 1, 2);
    // No after_stop; a standby ran and stopped meanwhile.
    host.driver().prepare_validator(&mark(40, 0, 3), None).await.expect("prepared");
    assert_eq!(host.mark(LIVE), is(60, 1, 2));
    assert_eq!(host.state(KEPT), host.state(LIVE));
}

#[tokio::test]
async fn a_state_that_cannot_be_read_is_left_alone_and_stops_everything() {
    for bad in ["", "{\"height\": \"1", "{\"height\": \"-1\", \"round\": 0, \"step\": 0}", "{\"height\": \"9\"}"] {
        for file in [LIVE, KEPT] {
            let host = Host::new();
            let cometbft = host.driver();
            host.sign(3, 0, 3);
            host.put(file, bad);
            let errors = [
                cometbft.prepare_validator(&mark(10, 0, 3), None).await.expect_err(bad),
                cometbft.after_stop().await.expect_err(bad),
                cometbft.last_signed().await.expect_err(bad),
            ];
            for error in errors {
                let text = error.to_string();
                assert!(text.contains(&host.path(file).display().to_string()), "{text}");
            }
            assert_eq!(fs::read_to_string(host.path(file)).expect("file"), bad);
        }
    }
}

#[tokio::test]
async fn a_host_that_never_signed_has_no_mark() {
    let host = Host::new();
    let cometbft = host.driver();
    assert_eq!(cometbft.last_signed().await, Ok(None));
    cometbft.check().await.expect("checked");
    assert_eq!(host.mark(LIVE), is(0, 0, 0), "CometBFT does not start without the file");
    assert_eq!(cometbft.last_signed().await, Ok(None));
}

#[tokio::test]
async fn a_throwaway_standby_key_is_made_once() {
    let host = Host::new();
    let cometbft = host.driver();
    assert_eq!(cometbft.check().await, Ok(Vec::new()));
    let path = host.path("keys/standby.json");
    let made = fs::read_to_string(&path).expect("a key");
    assert_eq!(fs::metadata(&path).expect("a key").permissions().mode() & 0o777, 0o600);
    assert!(made.contains("tendermint/PrivKeyEd25519") && !made.contains(LOADED));
    assert_eq!(host.driver().check().await, Ok(Vec::new()));
    assert_eq!(fs::read_to_string(&path).expect("a key"), made);
    let other = Host::new();
    other.driver().check().await.expect("checked");
    assert_ne!(fs::read_to_string(other.path("keys/standby.json")).expect("a key"), made);
}

#[tokio::test]
async fn a_standby_with_the_validator_key_itself_is_refused() {
    let host = Host::new();
    host.put_key("keys/standby.json", LOADED);
    let error = host.check_refusal().await;
    assert!(error.contains("keys/standby.json") && error.contains("is the validator key"), "{error}");
}

#[tokio::test]
async fn key_files_are_checked_without_their_private_half() {
    let host = Host::new();
    fs::remove_file(host.path("keys/validator.json")).expect("removed");
    assert!(host.check_refusal().await.contains("keys/validator.json"));
    host.put("keys/validator.json", r#"{"priv_key": {"type": "x", "value": "hidden"}, "pub_key": "hidden"}"#);
    let error = host.check_refusal().await;
    assert!(error.contains("pub_key") && !error.contains("hidden"), "{error}");
}

#[tokio::test]
async fn node_settings_that_would_sign_past_the_links_are_refused() {
    let mut host = Host::new();
    for (config, expected) in [
        ("priv_validator_laddr = \"tcp://127.0.0.1:26659\"", "tcp://127.0.0.1:26659"),
        ("priv_validator_key_file = \"config/other.json\"", "config/other.json"),
        ("priv_validator_state_file = \"/tmp/state.json\"", "/tmp/state.json"),
        ("= nonsense", "config.toml"),
    ] {
        host.put("config/config.toml", config);
        let error = host.check_refusal().await;
        assert!(error.contains(expected) && error.contains("config/config.toml"), "{error}");
    }
    host.put("config/config.toml", "[consensus]\ndouble_sign_check_height = 10");
    let warnings = host.driver().check().await.expect("only warned");
    assert!(warnings.len() == 1 && warnings[0].contains("double_sign_check_height = 10"), "{warnings:?}");
    host.put("config/config.toml", "priv_validator_key_file = \"./config/priv_validator_key.json\"");
    assert_eq!(host.driver().check().await, Ok(Vec::new()), "the same file, written in another way");
    let plain = host.chain.clone();
    for (words, expected) in [
        (&["--priv_validator_laddr=tcp://0.0.0.0:1"][..], "chain.command: priv_validator_laddr = \"tcp://0.0.0.0:1\""),
        (&["--priv-validator-laddr", "unix://x"][..], "chain.command: priv_validator_laddr = \"unix://x\""),
        (
            &["-priv_validator_state_file", "x.json"][..],
            "chain.command: priv_validator_state_file = \"x.json\" must be",
        ),
        (&["exec node --priv_validator_laddr=tcp://0.0.0.0:1"][..], "mentions priv_validator_laddr"),
        (&["--home", "/srv/other"][..], "--home /srv/other is not chain.home"),
    ] {
        host.chain = plain.clone();
        host.chain.command.extend(words.iter().copied().map(str::to_owned));
        let error = host.check_refusal().await;
        assert!(error.contains(expected) && error.contains("chain.command"), "{error}");
    }
    host.chain = plain.clone();
    host.chain.command.extend(["--home".to_owned(), host.folder.path().display().to_string()]);
    assert_eq!(host.driver().check().await, Ok(Vec::new()), "its own home");
    host.chain = plain.clone();
    host.chain.env.insert("GAIAD_PRIV_VALIDATOR_LADDR".into(), "tcp://127.0.0.1:1".into());
    let error = host.check_refusal().await;
    assert!(error.contains("the variable GAIAD_PRIV_VALIDATOR_LADDR: priv_validator_laddr"), "{error}");
    for (variable, home, expected) in [
        ("SH_HOME", "/srv/other", Some("the environment: SH_HOME /srv/other is not chain.home")),
        ("CMTHOME", "/srv/other", Some("the environment: CMTHOME /srv/other is not chain.home")),
        ("JAVA_HOME", "/srv/other", None),
        ("CMT_HOME", ".", None),
    ] {
        host.chain = plain.clone();
        host.chain.env.insert(variable.into(), home.into());
        match expected {
            Some(expected) => assert!(host.check_refusal().await.contains(expected), "{variable}"),
            None => assert_eq!(host.driver().check().await, Ok(Vec::new()), "{variable}"),
        }
    }
    host.chain = plain;
    fs::remove_file(host.path("config/config.toml")).expect("removed");
    assert!(host.check_refusal().await.contains("config.toml"));
}

#[tokio::test]
async fn a_clock_skew_below_the_chains_own_precision_is_told() {
    let mut host = Host::new();
    host.chain.clock_skew = Duration::from_millis(200);
    let params = |precision: &str, at: serde_json::Value| json!({"synchrony": {"precision": precision, "message_delay": "1"}, "feature": {"pbts_enable_height": at}});
    let (own, sdk) = (|params| json!({"consensus_params": params}), |params| json!({"consensus": {"params": params}}));
    for (genesis, told) in [
        (own(params("505000000", json!("1"))), Some("505ms")),
        (sdk(params("0.505s", json!(1))), Some("505ms")),
        (own(params("200000001", json!("9"))), Some("201ms")),
        (own(params("200000000", json!("1"))), None),
        (own(params("505000000", json!("0"))), None),
        (own(json!({"synchrony": {"precision": "505000000"}})), None),
        (json!({"chain_id": "c"}), None),
    ] {
        host.put("config/genesis.json", &genesis.to_string());
        let warnings = host.driver().check().await.expect("sound");
        assert_eq!(warnings.len(), usize::from(told.is_some()), "{genesis}: {warnings:?}");
        for (warning, told) in warnings.iter().zip(told) {
            let words = ["chain.clock_skew = 200ms", "config/genesis.json", &format!("set it to {told} or more")];
            assert!(words.iter().all(|word| warning.contains(word)), "{warning}");
        }
    }
}

#[tokio::test]
async fn a_standby_key_of_a_genesis_validator_is_refused_before_the_start() {
    let host = Host::new();
    host.put_key("keys/standby.json", OTHER);
    let validator = |public: &str| json!({"address": "00", "pub_key": pub_key(public), "power": "10"});
    let of = |public: &str| json!({"chain_id": "c", "validators": [validator(LOADED), validator(public)]});
    let of_sdk = json!({"consensus": {"params": {}, "validators": [validator(OTHER)]}, "validators": null});
    for (genesis, in_set) in [
        (of(OTHER), true),
        (of_sdk, true),
        (of("of somebody else"), false),
        (json!({"chain_id": "c", "app_state": {"staking": {}}}), false),
    ] {
        host.put("config/genesis.json", &genesis.to_string());
        if in_set {
            let error = host.check_refusal().await;
            assert!(error.contains("keys/standby.json belongs to a validator of"), "{error}");
            assert!(error.contains("config/genesis.json") && error.contains("throwaway"), "{error}");
        } else {
            assert_eq!(host.driver().check().await, Ok(Vec::new()), "{genesis}");
        }
    }
    host.put("config/elsewhere.json", &of(OTHER).to_string());
    host.put("config/config.toml", "genesis_file = \"config/elsewhere.json\"");
    assert!(host.check_refusal().await.contains("config/elsewhere.json"));
    host.put("config/elsewhere.json", "{");
    assert!(host.check_refusal().await.contains("config/elsewhere.json"));
}

#[tokio::test]
async fn a_standby_key_with_voting_power_is_found_while_the_node_runs() {
    let node = FakeNode::start("/status", Answer::Body(STATUS.into())).await;
    let mut host = Host::new();
    host.chain = cometbft_chain(host.folder.path(), node.url("/status"));
    host.put_key("keys/validator.json", OTHER);
    host.put_key("keys/standby.json", LOADED);
    let error = host.driver().probe().await.expect_err("a standby that signs").to_string();
    assert!(error.contains("keys/standby.json is in the validator set, with voting power 10"), "{error}");
    node.answer("/status", Answer::Body(without_power()));
    assert_eq!(host.driver().probe().await.expect("health").key, KeyState::Absent);
}

#[tokio::test]
async fn a_handover_goes_on_at_the_very_mark_at_which_the_old_holder_stopped() {
    let (old, new) = (Host::new(), Host::new());
    // A failover made the old holder count a whole height as signed; what it signed since is exact.
    let settled = health(99, Some(seconds(101)));
    old.driver().prepare_validator(&SignFloor::BlockAfter(seconds(100)), Some(&settled)).await.expect("prepared");
    let driver = old.driver();
    assert_eq!(driver.last_signed().await, Ok(Some(SignMark::whole_height(99))));
    old.sign(104, 1, 2);
    driver.after_stop().await.expect("saved");
    let released = driver.last_signed().await.expect("read").expect("a mark");
    new.sign(90, 0, 3);
    let head = health(103, Some(seconds(200)));
    let prepared = new.driver().prepare_validator(&SignFloor::Mark(released), Some(&head)).await;
    assert_eq!(prepared, Ok(Vec::new()));
    assert_eq!(new.mark(LIVE), is(104, 1, 2), "the precommit of 104/1 is still to be signed");
}

#[tokio::test]
async fn a_state_that_is_newer_than_it_can_be_is_kept_and_warned_of() {
    let host = Host::new();
    host.sign(5000, 0, 3);
    let near_head = health(4999, Some(seconds(101)));
    let warnings = host.driver().prepare_validator(&mark(100, 0, 3), Some(&near_head)).await.expect("prepared");
    let expected =
        "is at 5000/0/3, above the mark 100/0/3 of the last release: the key has signed outside of this cluster";
    assert!(warnings.len() == 1 && warnings[0].contains(expected), "{warnings:?}");
    let far_head = health(20, Some(seconds(101)));
    let settled = SignFloor::BlockAfter(seconds(100));
    let warnings = host.driver().prepare_validator(&settled, Some(&far_head)).await.expect("prepared");
    assert!(warnings.len() == 1 && warnings[0].contains("4980 heights above the head 20"), "{warnings:?}");
    assert_eq!(host.mark(LIVE), is(5000, 0, 3));
    assert_eq!(host.driver().prepare_validator(&settled, Some(&near_head)).await, Ok(Vec::new()));
}

#[tokio::test]
async fn without_a_configured_standby_key_one_is_made_in_the_state_folder() {
    let mut host = Host::new();
    host.chain.links[0].standby = None;
    let cometbft = host.driver();
    let made = host.path("state/standby_priv_validator_key.json");
    assert_eq!(cometbft.links()[0].standby.as_ref(), Some(&made));
    assert_eq!(cometbft.links()[0].validating, host.chain.links[0].validating);
    assert!(!made.exists(), "nothing is written before the check");
    assert_eq!(cometbft.check().await, Ok(Vec::new()));
    let content = fs::read_to_string(&made).expect("a key");
    assert_eq!(fs::metadata(&made).expect("a key").permissions().mode() & 0o777, 0o600);
    assert!(content.contains("tendermint/PrivKeyEd25519") && !content.contains(LOADED));
    let left: Vec<_> = fs::read_dir(host.path("state")).expect("state").flatten().map(|f| f.file_name()).collect();
    assert_eq!(left, ["standby_priv_validator_key.json"], "no temporary file is left");
}

#[test]
fn a_host_without_its_links_or_with_a_hot_activation_is_refused() {
    let host = Host::new();
    let unlinked = Chain { links: Vec::new(), ..host.chain.clone() };
    assert!(refusal(&unlinked).contains("config/priv_validator_key.json"));
    let hot = Chain { activation: Activation::Signal(1), ..host.chain.clone() };
    assert!(refusal(&hot).contains("restart"));
}

/// Of the key in `STATUS`, as that node tells it.
const ADDRESS: &str = "2FFE0C2F2C88235DBA64305B67BE932383B82582";

fn commit(height: u64, signatures: &Value) -> Answer {
    let header = json!({"height": height.to_string(), "time": "2026-11-21T07:23:55.987177382Z"});
    let signed =
        json!({"header": header, "commit": {"height": height.to_string(), "round": 0, "signatures": signatures}});
    Answer::Body(
        json!({"jsonrpc": "2.0", "id": -1, "result": {"signed_header": signed, "canonical": false}}).to_string(),
    )
}

#[tokio::test]
async fn the_newest_commit_tells_whether_the_shared_key_signed_it() {
    let node = FakeNode::start("/status", Answer::Body(STATUS.into())).await;
    let mut host = Host::new();
    host.chain = cometbft_chain(host.folder.path(), node.url("/status"));
    let cometbft = host.driver();
    assert!(cometbft.sees_key_on_chain());
    let by =
        |flag: u64, address: &str| json!({"block_id_flag": flag, "validator_address": address, "signature": "AA=="});
    let absent = json!({"block_id_flag": 1, "validator_address": "", "signature": null});
    let other = by(2, "00FE0C2F2C88235DBA64305B67BE932383B82582");
    let table = [
        (json!([other, by(2, ADDRESS)]), true),
        (json!([absent, by(3, ADDRESS)]), true),
        (json!([by(2, &ADDRESS.to_lowercase())]), true),
        (json!([other, absent]), false),
        (json!([by(1, ADDRESS)]), false),
        (json!([]), false),
    ];
    for (signatures, expected) in table {
        node.answer("/commit", commit(77, &signatures));
        let work = cometbft.key_work().await.expect("an answer").expect("cometbft tells");
        let time = WallTime::from_nanos(1_795_245_835_987_177_382);
        assert_eq!(work, KeyWork { height: 77, time, shown: Shown::Signed(expected) }, "{signatures}");
    }
    for answer in [Answer::Body("{}".into()), Answer::CloseAtOnce, commit(77, &Value::Null)] {
        node.answer("/commit", answer);
        cometbft.key_work().await.expect_err("no commit");
    }
}
