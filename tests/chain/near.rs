//! near: a real neard's status, its key states, and what is checked before a start.

use super::*;

const STATUS: &str = include_str!("../data/near-status.json");

pub fn near_chain(home: &Path, url: String) -> Chain {
    let mut chain = chain(DriverKind::Near, home, http(url, Pointers::default()));
    chain.links = vec![link(home.join("validator_key.json"), "/etc/baton/keys/validator_key.json".into(), None)];
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

#[tokio::test]
async fn the_check_warns_of_a_standby_that_tracks_no_shard() {
    let home = tempfile::tempdir().expect("home");
    let chain = near_chain(home.path(), "http://127.0.0.1:1/status".into());
    let config = home.path().join("config.json");
    let near = driver(&chain, home.path());
    let missing = near.check().await.expect_err("no config.json").to_string();
    assert!(missing.contains("config.json"), "{missing}");
    let table = [
        (r#"{}"#, true),
        (r#"{"tracked_shards_config": "NoShards"}"#, true),
        (r#"{"tracked_shards": []}"#, true),
        (r#"{"tracked_shards": [0]}"#, false),
        (r#"{"tracked_shards_config": "AllShards"}"#, false),
        (r#"{"tracked_shards_config": {"ShadowValidator": "node0"}}"#, false),
    ];
    for (content, warned) in table {
        std::fs::write(&config, content).expect("config");
        let warnings = near.check().await.expect(content);
        assert_eq!(warnings.iter().any(|line| line.contains("tracks no shard")), warned, "{content}: {warnings:?}");
    }
    let mut unlinked = chain.clone();
    unlinked.links.clear();
    let error = driver(&unlinked, home.path()).check().await.expect_err("no link").to_string();
    assert!(error.contains("validator_key.json"), "{error}");
}
