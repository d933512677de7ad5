//! near: a real neard's status, its key states, and what is checked before a start.

use super::*;

const STATUS: &str = include_str!("../../data/near-status.json");

pub fn near_chain(home: &Path, url: String) -> Chain {
    let mut chain = chain(DriverKind::Near, home, http(url, Pointers::default()));
    chain.links = vec![link(home.join("validator_key.json"), home.join("shared_key.json"), None)];
    chain.activation = Activation::Signal(1);
    chain
}

async fn near(answer: Answer) -> (Driver, FakeNode) {
    let node = FakeNode::start("/status", answer).await;
    (driver(&near_chain(Path::new("/"), node.url("/status")), Path::new("/")), node)
}

fn status(change: impl Fn(&mut serde_json::Value)) -> Answer {
    let mut status = serde_json::from_str(STATUS).expect("status");
    change(&mut status);
    Answer::Body(status.to_string())
}

#[tokio::test]
async fn a_real_status_is_read_to_exact_values() {
    let (near, _node) = near(Answer::Body(STATUS.into())).await;
    let health = near.probe().await.expect("health");
    let expected = Health {
        approved: 0,
        synced: true,
        height: 18,
        head_time: Some(WallTime::from_nanos(1_795_218_367_443_701_848)),
        peers: None,
        key: KeyState::Loaded,
        latency: health.latency,
        version: "trunk".into(),
    };
    assert_eq!(health, expected);
    assert!(health.latency > Duration::ZERO && health.latency < TIMEOUT, "{:?}", health.latency);
    assert!(near.proves_key_by_probe());
}

#[tokio::test]
async fn how_far_it_has_approved_is_read_from_its_metrics_or_not_known() {
    let (near, node) = near(Answer::Hang).await;
    assert!(near.tells_approvals());
    let metrics = |text: &str| node.answer("/metrics", Answer::Body(text.to_owned()));
    metrics(
        "# TYPE near_largest_target_height gauge\nnear_largest_target_height_x 1\nnear_largest_target_height 6890\n",
    );
    assert_eq!(near.approved().await, Ok(6890));
    for bad in
        ["", "near_largest_target_height_x 1\n", "near_largest_target_height -1\n", "near_largest_target_height\n"]
    {
        metrics(bad);
        let error = near.approved().await.expect_err(bad).to_string();
        assert!(error.contains("near_largest_target_height") && error.contains("/metrics"), "{bad}: {error}");
    }
    node.answer("/metrics", Answer::Hang);
    assert!(matches!(near.approved().await, Err(ProbeError::Timeout { .. })));
}

#[tokio::test]
async fn a_key_is_absent_only_when_the_status_says_so() {
    use serde_json::{Value, json};
    let (near, node) = near(Answer::Hang).await;
    let (null, key) = (Some(Value::Null), Some(json!("ed25519:x")));
    let table = [
        (key.clone(), key.clone(), KeyState::Loaded),
        (key.clone(), null.clone(), KeyState::Loaded),
        (null.clone(), key.clone(), KeyState::Loaded),
        (null.clone(), null.clone(), KeyState::Absent),
        (None, null, KeyState::Absent),
        (None, None, KeyState::Untold),
    ];
    for (public_key, account, expected) in table {
        node.answer(
            "/status",
            status(|status| {
                for (field, value) in [("validator_public_key", &public_key), ("validator_account_id", &account)] {
                    let fields = status.as_object_mut().expect("object");
                    fields.remove(field);
                    if let Some(value) = value {
                        fields.insert(field.into(), value.clone());
                    }
                }
            }),
        );
        let health = near.probe().await.expect("health");
        assert_eq!(health.key, expected, "{public_key:?} {account:?}");
    }
}

/// A home with the shared key of node3 and this `config.json`.
fn home(config: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("home");
    let key = r#"{"account_id": "node3", "public_key": "ed25519:x", "secret_key": "ed25519:y"}"#;
    std::fs::write(home.path().join("shared_key.json"), key).expect("key");
    std::fs::write(home.path().join("config.json"), config).expect("config");
    home
}

const UNUSED: &str = "http://127.0.0.1:1/status";

#[tokio::test]
async fn the_check_warns_of_a_standby_that_does_not_track_what_the_validator_needs() {
    let place = home("{}");
    let chain = near_chain(place.path(), UNUSED.into());
    let near = driver(&chain, place.path());
    let table = [
        (r#"{}"#, "tracks no shard"),
        (r#"{"tracked_shards_config": "NoShards"}"#, "tracks no shard"),
        (r#"{"tracked_shards_config": {"Shards": []}}"#, "tracks no shard"),
        (r#"{"tracked_shards_config": {"Accounts": ["a"]}}"#, "tracks its Accounts only"),
        (r#"{"tracked_shards_config": {"Schedule": [[0], [1]]}}"#, "tracks its Schedule only"),
        (
            r#"{"tracked_shards_config": {"ShadowValidator": "node0"}}"#,
            "node0 needs, and the shared validator is node3",
        ),
        (r#"{"tracked_shards": []}"#, "tracks no shard"),
        (r#"{"tracked_shadow_validator": "node0"}"#, "node0 needs"),
        (r#"{"tracked_shards": [0]}"#, ""),
        (r#"{"tracked_shards_config": "AllShards"} // as neard allows"#, ""),
        (r#"{"tracked_shards_config": {"ShadowValidator": "node3"}}"#, ""),
    ];
    for (content, expected) in table {
        std::fs::write(place.path().join("config.json"), content).expect("config");
        let warnings = near.check().await.expect(content);
        let of_shards: Vec<&String> = warnings.iter().filter(|line| line.contains("config.json")).collect();
        assert_eq!(of_shards.len(), usize::from(!expected.is_empty()), "{content}: {warnings:?}");
        assert!(
            of_shards.iter().all(|line| line.contains(expected) && !line.contains('\n')),
            "{content}: {of_shards:?}"
        );
    }
}

#[tokio::test]
async fn a_home_that_can_never_validate_is_refused_at_the_check() {
    let place = home("{");
    let chain = near_chain(place.path(), UNUSED.into());
    let refused = async |chain: &Chain| driver(chain, place.path()).check().await.expect_err("refused").to_string();
    let error = refused(&chain).await;
    assert!(error.contains("config.json") && error.contains("not JSON"), "{error}");
    std::fs::remove_file(place.path().join("config.json")).expect("removed");
    assert!(refused(&chain).await.contains("config.json"));
    std::fs::write(place.path().join("shared_key.json"), "{}").expect("key");
    let error = refused(&chain).await;
    assert!(error.contains("shared_key.json") && error.contains("account_id"), "{error}");
    let unlinked = Chain { links: Vec::new(), ..chain };
    assert!(refused(&unlinked).await.contains("validator_key.json"));
}

/// As `neard init` writes it, in the part that matters, with a comment of its owner's.
const CONFIG: &str = "{\n  \"tracked_shards_config\": \"AllShards\",\n  \"rpc\": { \"addr\": \"0.0.0.0:3030\" },\n                        \"network\": {\n    \"addr\": \"0.0.0.0:24567\", // mine\n    \"boot_nodes\": \"\"\n  }\n}\n";

fn switching(place: &Path) -> Chain {
    let (validating, standby) = ("0.0.0.0:24567".parse().expect("addr"), "0.0.0.0:24568".parse().expect("addr"));
    let near_addrs = Some(NearAddrs { validating, standby });
    Chain { activation: Activation::Restart, near_addrs, ..near_chain(place, UNUSED.into()) }
}

#[tokio::test]
async fn the_network_address_goes_with_the_role_and_nothing_else_in_the_file_changes() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let place = home(CONFIG);
    let config = place.path().join("config.json");
    std::fs::set_permissions(&config, PermissionsExt::from_mode(0o640)).expect("chmod");
    let near = driver(&switching(place.path()), place.path());
    let read = || std::fs::read_to_string(&config).expect("config");
    let inode = || std::fs::metadata(&config).expect("metadata").ino();

    near.after_stop().await.expect("standby");
    assert_eq!(read(), CONFIG.replace("24567", "24568"));
    assert_eq!(std::fs::metadata(&config).expect("metadata").mode() & 0o777, 0o640);
    let written = inode();
    near.after_stop().await.expect("standby");
    assert_eq!(inode(), written, "it was right, and was written again");

    near.prepare_validator(&SignFloor::None, None).await.expect("validating");
    assert_eq!(read(), CONFIG);
    assert_ne!(inode(), written, "it was written over in place: a crash could have torn it");
    let left: Vec<_> = std::fs::read_dir(place.path()).expect("home").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(left.len(), 2, "something was left behind: {left:?}");
}

#[tokio::test]
async fn a_symlinked_config_stays_a_symlink() {
    let place = home("");
    let (real, config) = (place.path().join("real.json"), place.path().join("config.json"));
    std::fs::write(&real, CONFIG).expect("config");
    std::fs::remove_file(&config).expect("removed");
    std::os::unix::fs::symlink(&real, &config).expect("symlink");
    driver(&switching(place.path()), place.path()).after_stop().await.expect("standby");
    assert_eq!(std::fs::read_link(&config).expect("a symlink"), real);
    assert_eq!(std::fs::read_to_string(&real).expect("config"), CONFIG.replace("24567", "24568"));
}

#[tokio::test]
async fn an_address_that_cannot_be_switched_is_refused_before_a_start_and_before_the_links_change() {
    let place = home(r#"{"tracked_shards_config": "AllShards", "network": {}}"#);
    let near = driver(&switching(place.path()), place.path());
    let checked = near.check().await.expect_err("refused").to_string();
    let linked = near.prepare_validator(&SignFloor::None, None).await.expect_err("refused").to_string();
    for error in [checked, linked] {
        assert!(error.contains("config.json") && error.contains("no `network.addr`"), "{error}");
    }
}

#[tokio::test]
async fn without_addresses_to_switch_the_config_is_never_touched() {
    let place = home("not even JSON");
    let near = driver(&near_chain(place.path(), UNUSED.into()), place.path());
    assert_eq!(near.after_stop().await, Ok(()));
    assert_eq!(near.prepare_validator(&SignFloor::None, None).await, Ok(Vec::new()));
}

fn rpc(result: serde_json::Value) -> Answer {
    Answer::Body(serde_json::json!({ "jsonrpc": "2.0", "id": "baton", "result": result }).to_string())
}

fn rpc_error(name: &str) -> Answer {
    let error = serde_json::json!({ "name": "REQUEST_VALIDATION_ERROR", "cause": { "name": name }, "code": -32601 });
    Answer::Body(serde_json::json!({ "jsonrpc": "2.0", "id": "baton", "error": error }).to_string())
}

fn validators(epoch_start: u64, blocks: u64, chunks: u64, endorsements: u64) -> Answer {
    rpc(serde_json::json!({
        "epoch_start_height": epoch_start,
        "current_validators": [
            { "account_id": "node0", "num_produced_blocks": 900, "num_produced_chunks": 900 },
            { "account_id": "node3", "num_produced_blocks": blocks, "num_produced_chunks": chunks,
              "num_produced_endorsements": endorsements, "stake": "5" },
        ],
    }))
}

#[tokio::test]
async fn the_first_block_chunk_or_endorsement_of_the_account_is_seen_on_the_chain() {
    let place = home("{}");
    let node = FakeNode::start("/", Answer::Hang).await;
    let near = driver(&near_chain(place.path(), node.url("/status")), place.path());
    let counted = async |answer| {
        node.answer("/#validators", answer);
        near.on_chain().await.expect("an answer").expect("near counts")
    };
    let before = counted(validators(100, 7, 30, 60)).await;
    assert_eq!(counted(validators(100, 7, 30, 60)).await.new_since(&before), None);
    assert_eq!(counted(validators(100, 8, 31, 61)).await.new_since(&before), Some("block"));
    assert_eq!(counted(validators(100, 7, 31, 60)).await.new_since(&before), Some("chunk"));
    assert_eq!(counted(validators(100, 7, 30, 61)).await.new_since(&before), Some("endorsement"));
    assert_eq!(counted(validators(600, 0, 0, 0)).await.new_since(&before), None, "nothing in a new epoch yet");
    assert_eq!(counted(validators(600, 1, 0, 0)).await.new_since(&before), Some("block"), "the first of a new epoch");
    let left = counted(rpc(serde_json::json!({ "epoch_start_height": 600, "current_validators": [] }))).await;
    assert!(!left.validates && left.new_since(&before).is_none(), "{left:?}");
    node.answer("/#validators", rpc_error("METHOD_NOT_FOUND"));
    let error = near.on_chain().await.expect_err("an error").to_string();
    assert!(error.contains("validators") && error.contains("METHOD_NOT_FOUND"), "{error}");
}

#[tokio::test]
async fn a_refused_reload_is_told_in_neards_own_words_or_by_its_metric() {
    let place = home("{}");
    let node =
        FakeNode::start("/metrics", Answer::Body("# HELP near_config_correct x\nnear_config_correct 1\n".into()));
    let node = node.await;
    let chain = near_chain(place.path(), node.url("/status"));
    let near = driver(&chain, place.path());
    let log = chain.log.as_ref().expect("a log");
    let reload = near.begin_reload().await;
    assert_eq!(near.reload_refusal(&reload).await, None);
    node.answer("/metrics", Answer::Hang);
    std::fs::write(
        &log.file,
        "WARN neard: Dynamically updatable configs are not valid. Please fix this before the restart: [E]\n",
    )
    .expect("log");
    let said = near.reload_refusal(&reload).await.expect("refused");
    assert_eq!(said, "E");
    // A later reload is not blamed for it.
    node.answer("/metrics", Answer::Body("near_config_correct 1\n".into()));
    let reload = near.begin_reload().await;
    assert_eq!(near.reload_refusal(&reload).await, None);
    node.answer("/metrics", Answer::Body("near_config_correct 0\n".into()));
    let said = near.reload_refusal(&reload).await.expect("refused");
    assert!(said.contains("near_config_correct is 0"), "{said}");
}

#[tokio::test]
async fn maintenance_windows_are_read_in_both_shapes_and_under_both_names() {
    use baton::host::chain::near::Near;
    let place = home("{}");
    let node = FakeNode::start("/status", Answer::Body(STATUS.into())).await;
    let near = Near::new(&near_chain(place.path(), node.url("/status")), keys()).expect("near");
    // The head of the status is 18, of 23:46:07.44; 18 blocks before it took 36 s.
    let genesis = 1_795_218_367_443_701_848_u64 - 36_000_000_000;
    node.answer(
        "/#block",
        rpc(serde_json::json!({ "author": "node0", "header": { "timestamp_nanosec": genesis.to_string() } })),
    );
    node.answer("/#EXPERIMENTAL_maintenance_windows", rpc(serde_json::json!([[10, 14], [20, 22], [30, 40]])));
    let (pace, window) = near.next_window(Duration::from_secs(5)).await.expect("an answer");
    assert_eq!((pace.head, pace.block_time), (18, Duration::from_secs(2)));
    let window = window.expect("a window");
    assert_eq!((window.heights, window.starts_in), (30..40, Duration::from_secs(22)));
    assert_eq!(window.lasts, Duration::from_secs(20));

    node.answer("/#EXPERIMENTAL_maintenance_windows", rpc_error("METHOD_NOT_FOUND"));
    node.answer("/#maintenance_windows", rpc(serde_json::json!([{ "start": 19, "end": 23 }])));
    let (_, window) = near.next_window(Duration::from_secs(5)).await.expect("an answer");
    assert_eq!(window.expect("a window").heights, 19..23);
    let asked = node.requests().into_iter().find(|request| request.contains("maintenance")).expect("asked");
    assert!(asked.contains(r#""params":{"account_id":"node3"}"#), "{asked}");

    node.answer("/#maintenance_windows", rpc(serde_json::json!([["a", "b"]])));
    let error = near.next_window(Duration::from_secs(5)).await.expect_err("neither works").to_string();
    assert!(error.contains("no list of height ranges"), "{error}");
}

#[tokio::test]
async fn the_work_of_the_shared_key_is_counted_after_the_head_is_read() {
    use baton::base::chain_node::{OnChain, Shown};
    let place = home("{}");
    let node = FakeNode::start("/status", Answer::Body(STATUS.into())).await;
    let near = driver(&near_chain(place.path(), node.url("/status")), place.path());
    assert!(near.sees_key_on_chain());
    node.answer("/#validators", validators(100, 7, 30, 60));
    let work = near.key_work().await.expect("an answer").expect("near counts");
    let counted = OnChain { epoch: 100, validates: true, blocks: 7, chunks: 30, endorsements: 60 };
    assert_eq!((work.height, work.time), (18, WallTime::from_nanos(1_795_218_367_443_701_848)));
    assert_eq!(work.shown, Shown::Counted(counted));
    let asked = node.requests();
    let place_of = |what: &str| asked.iter().position(|request| request.contains(what)).expect("asked");
    assert!(place_of("GET /status") < place_of("validators"), "{asked:?}");
    node.answer("/#validators", rpc_error("METHOD_NOT_FOUND"));
    near.key_work().await.expect_err("not counted");
}

/// With a key of its own, as of a validator that has left.
#[tokio::test]
async fn a_node_that_validates_as_another_account_has_not_the_shared_key() {
    let node = FakeNode::start("/status", Answer::Hang).await;
    let place = home("{}");
    let near = driver(&near_chain(place.path(), node.url("/status")), place.path());
    for (account, expected) in [("node3", KeyState::Loaded), ("gone", KeyState::Absent)] {
        node.answer("/status", status(|status| status["validator_account_id"] = account.into()));
        assert_eq!(near.probe().await.expect("health").key, expected, "{account}");
    }
}

#[test]
fn a_url_without_the_path_of_the_status_is_refused_with_the_one_to_write() {
    let chain = near_chain(Path::new("/"), "http://user:secret@127.0.0.1:3031".into());
    let error = Driver::new(&chain, Path::new("/"), keys()).err().expect("refused").to_string();
    assert_eq!(error, "chain.probe.url: neard tells its health at /status; write \"http://127.0.0.1:3031/status\"");
}
