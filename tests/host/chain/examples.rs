//! The configurations in docs/examples: each is read as `baton run` would read it, and its probe is tried on
//! a fake node that answers in the words of the real one (tests/data).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use baton::config::Config;
use serde_json::{Value, json};

use super::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples")
}

/// The configuration of an example, asking `url` in place of the one that it names.
fn example(name: &str, url: Option<String>) -> Config {
    let variables = url.map(|url| ("BATON_CHAIN_PROBE_URL".into(), url));
    Config::load(&folder().join(name), variables.into_iter()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The driver of an example beside a node that answers its batch from `tests/data/ANSWERS`.
struct Node {
    fake: FakeNode,
    driver: Driver,
    answers: Value,
}

impl Node {
    async fn of(name: &str, answers: &str) -> Node {
        let answers: Value = serde_json::from_str(answers).unwrap_or_else(|error| panic!("{name}: {error}"));
        let fake = FakeNode::start("/", Answer::Rpc(answers.clone())).await;
        let config = example(name, Some(fake.url("/")));
        let driver = driver(&config.chain.expect("a validator"), Path::new("/"));
        Node { fake, driver, answers }
    }

    /// Probes with one result in place of the real one.
    async fn with(&self, place: &str, value: Value) -> Result<Health, ProbeError> {
        let mut answers = self.answers.clone();
        *answers.pointer_mut(place).unwrap_or_else(|| panic!("no {place} in the answers")) = value;
        self.fake.answer("/", Answer::Rpc(answers));
        self.driver.probe().await
    }
}

fn health_of(height: u64, head_time: u64, peers: Option<u32>, version: &str) -> Health {
    Health { peers, version: version.into(), ..health(height, Some(seconds(head_time))) }
}

fn without_latency(health: Health) -> Health {
    Health { latency: Duration::ZERO, ..health }
}

#[test]
fn every_example_is_a_sound_configuration() {
    let mut tried = Vec::new();
    for entry in fs::read_dir(folder()).expect("docs/examples").flatten() {
        let name = entry.file_name().into_string().expect("UTF-8");
        if !name.ends_with(".toml") {
            continue;
        }
        let config = example(&name, None);
        assert_eq!(config.warnings, Vec::<String>::new(), "{name}");
        let chain = config.chain.unwrap_or_else(|| panic!("{name} is of no validator"));
        driver(&chain, &config.state_dir);
        let documented = include_str!("../../../docs/chains.md").contains(&format!("examples/{name}"));
        assert!(documented, "docs/chains.md says nothing of examples/{name}");
        tried.push(name);
    }
    for name in ["bitcoin-like.toml", "cometbft.toml", "geth-like.toml", "solana.toml"] {
        assert!(tried.iter().any(|tried| tried == name), "no {name} among {tried:?}");
    }
}

#[tokio::test]
async fn a_geth_like_node_is_asked_for_its_head_its_peers_and_whether_it_syncs() {
    let geth = Node::of("geth-like.toml", include_str!("../../data/geth-rpc.json")).await;
    let seen = geth.driver.probe().await.expect("health");
    let version = "Geth/v1.13.14-stable/linux-amd64/go1.21.6";
    assert_eq!(without_latency(seen), health_of(20_244_522, 1_705_095_875, Some(2), version));
    assert!(!geth.driver.proves_key_by_probe(), "only the end of the process proves that the key is out of use");

    let syncing = json!({"currentBlock": "0x10", "healedBytecodeBytes": "0x0", "highestBlock": "0x134e82a",
        "startingBlock": "0x0", "syncedAccounts": "0x0"});
    let syncing = geth.with("/eth_syncing/result", syncing).await.expect("health");
    assert!(!syncing.synced, "{syncing:?}");
    assert_eq!(geth.with("/admin_peers/result", json!([])).await.expect("health").peers, Some(0));
    // The admin namespace is off by default.
    let off = json!({"error": {"code": -32601, "message": "the method admin_peers does not exist/is not available"}});
    let error = geth.with("/admin_peers", off).await.expect_err("no admin_peers").to_string();
    assert!(error.contains("`admin_peers` failed") && error.contains("does not exist"), "{error}");
    let error = geth.with("/eth_getBlockByNumber/result", Value::Null).await.expect_err("no block").to_string();
    assert!(error.contains("`/eth_getBlockByNumber/number` is missing"), "{error}");
}

#[tokio::test]
async fn a_bitcoin_like_node_is_synced_when_it_has_the_blocks_of_its_headers() {
    let bitcoin = Node::of("bitcoin-like.toml", include_str!("../../data/bitcoin-rpc.json")).await;
    let seen = bitcoin.driver.probe().await.expect("health");
    assert_eq!(without_latency(seen), health_of(933_586, 1_769_215_475, Some(10), "/Satoshi:27.0.0/"));
    for (headers, synced) in [(933_586, true), (933_587, true), (933_588, false), (0, true)] {
        let seen = bitcoin.with("/getblockchaininfo/result/headers", json!(headers)).await.expect("health");
        assert_eq!(seen.synced, synced, "{headers} headers");
    }
    let downloading = bitcoin.with("/getblockchaininfo/result/initialblockdownload", json!(true)).await;
    assert!(!downloading.expect("health").synced);
    let starting = json!({"result": null, "error": {"code": -28, "message": "Loading block index…"}});
    let error = bitcoin.with("/getblockchaininfo", starting).await.expect_err("a node that starts").to_string();
    assert!(error.contains("Loading block index"), "{error}");
}

#[tokio::test]
async fn a_solana_validator_tells_its_identity_and_how_far_it_is_behind() {
    let solana = Node::of("solana.toml", include_str!("../../data/solana-rpc.json")).await;
    let seen = solana.driver.probe().await.expect("health");
    let expected = Health { key: KeyState::Loaded, ..health_of(312_345_678, 1_769_215_475, None, "2.3.6") };
    assert_eq!(without_latency(seen), expected);
    let asked = solana.fake.requests().join("\n");
    let of_slot = r#""method":"getBlockTime","params":[312345678]"#;
    assert!(asked.contains(of_slot), "the time of the slot that getSlot has told is not asked for: {asked}");

    let identity = "/getIdentity/result/identity";
    for (name, active, keyless) in [
        ("STAKED111111111111111111111111111111111111", true, false),
        ("UNSTAKED1111111111111111111111111111111111", false, true),
        ("of another host", false, false),
    ] {
        let seen = solana.with(identity, json!(name)).await.expect("health");
        let proven = (solana.driver.proves_active(&seen), solana.driver.proves_keyless(&seen));
        assert_eq!(proven, (active, keyless), "{name}");
    }
    let slot = "/getMaxShredInsertSlot/result";
    assert!(solana.with(slot, json!(312_345_678 + 128)).await.expect("health").synced);
    assert!(!solana.with(slot, json!(312_345_678 + 129)).await.expect("health").synced);
    // The time of a slot that is not there yet.
    let error = solana.with("/getBlockTime/result", Value::Null).await.expect_err("no time").to_string();
    assert!(error.contains("`/getBlockTime` is null"), "{error}");
}

/// A host of the Solana example, with programs that write down how they are called.
struct SolanaHost {
    folder: tempfile::TempDir,
    chain: Chain,
}

impl SolanaHost {
    fn new() -> SolanaHost {
        let folder = tempfile::tempdir().expect("folder");
        let mut chain = example("solana.toml", None).chain.expect("a validator");
        chain.home = folder.path().to_owned();
        for name in ["bin", "ledger"] {
            fs::create_dir(folder.path().join(name)).expect(name);
        }
        for program in ["agave-validator", "scp", "ssh"] {
            let file = folder.path().join("bin").join(program);
            fs::write(&file, format!("#!/bin/sh\necho {program} \"$@\" >> {}/calls\n", folder.path().display()))
                .expect(program);
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect(program);
        }
        let path = format!("{}/bin:{}", folder.path().display(), std::env::var("PATH").expect("PATH"));
        chain.env.insert("PATH".into(), path);
        chain.env.insert("LEDGER".into(), folder.path().join("ledger").display().to_string());
        SolanaHost { folder, chain }
    }

    fn ledger(&self, name: &str) -> PathBuf {
        self.folder.path().join("ledger").join(name)
    }

    fn own_tower(&self) -> PathBuf {
        self.ledger("tower-1_9-STAKED111111111111111111111111111111111111.bin")
    }

    /// Runs one of the two commands as the effects do; what the programs were called with, without paths.
    async fn run(&self, command: impl Fn(&Activation) -> &Vec<String>) -> String {
        let calls = self.folder.path().join("calls");
        fs::write(&calls, "").expect("calls");
        let driver = driver(&self.chain, self.folder.path());
        driver.run_exec(command(&self.chain.activation), SLACK).await.unwrap_or_else(|error| panic!("{error}"));
        let ledger = self.ledger("").display().to_string();
        fs::read_to_string(calls).expect("calls").replace(&ledger, "").replace(ledger.trim_end_matches('/'), "LEDGER")
    }
}

fn on(activation: &Activation) -> &Vec<String> {
    match activation {
        Activation::Exec { activate, .. } => activate,
        Activation::Restart | Activation::Signal(_) => panic!("{activation:?}"),
    }
}

fn off(activation: &Activation) -> &Vec<String> {
    match activation {
        Activation::Exec { deactivate, .. } => deactivate,
        Activation::Restart | Activation::Signal(_) => panic!("{activation:?}"),
    }
}

#[tokio::test]
async fn a_solana_handover_takes_the_old_holders_tower_with_it_and_a_failover_no_old_one() {
    let host = SolanaHost::new();
    fs::write(host.own_tower(), "own, of long ago").expect("tower");
    fs::write(host.ledger("tower-handed-over.bin"), "handed over").expect("tower");
    let handover = host.run(on).await;
    assert_eq!(handover, "agave-validator --ledger LEDGER set-identity --require-tower identity.json\n");
    assert_eq!(fs::read_to_string(host.own_tower()).expect("tower"), "handed over");

    let failover = host.run(on).await;
    assert_eq!(failover, "agave-validator --ledger LEDGER set-identity identity.json\n");
    assert!(!host.own_tower().exists(), "a tower of an earlier tenure was left to start from");

    // One that was handed over for a handover that never came.
    let stale = host.ledger("tower-handed-over.bin");
    fs::write(&stale, "stale").expect("tower");
    let touched = Command::new("touch").args(["-d", "5 minutes ago"]).arg(&stale).status().expect("touch");
    assert!(touched.success());
    assert_eq!(host.run(on).await, failover);
    assert!(!stale.exists() && !host.own_tower().exists());
}

#[tokio::test]
async fn a_solana_holder_sends_its_tower_after_its_last_vote_and_whoever_is_away_holds_nothing_up() {
    let host = SolanaHost::new();
    let told = host.run(off).await;
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "agave-validator --ledger LEDGER set-identity identity.json", "{told}");
    assert!(lines[1].starts_with("scp ") && lines[1].ends_with("sol@10.0.0.2:tower-handed-over.part"), "{told}");
    assert!(lines[2].ends_with("sol@10.0.0.2 mv tower-handed-over.part tower-handed-over.bin"), "{told}");
    let program = |name: &str| host.folder.path().join("bin").join(name);
    fs::write(program("scp"), "#!/bin/sh\nexit 1\n").expect("scp");
    host.run(off).await;
    // A validator that does not take the identity back has to be stopped: the command must say so.
    fs::write(program("agave-validator"), "#!/bin/sh\necho 'no admin socket' >&2\nexit 1\n").expect("validator");
    let driver = driver(&host.chain, host.folder.path());
    let error = driver.run_exec(off(&host.chain.activation), SLACK).await.expect_err("it votes on").to_string();
    assert!(error.contains("no admin socket"), "{error}");
}
