//! A real single-validator CometBFT without a key, whose votes this test signs: does the chain go on?
//! `cargo test --workspace --test host privval:: -- --ignored`, with `cometbft` 0.38 in PATH; the path of one of 1.0 in
//! BATON_COMETBFT_V1.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use baton::base::signing::{Hrs, SignDigest};
use baton::host::privval::remove_stale_socket;
use k256::ecdsa::signature::Signer;
use k256::ecdsa::{Signature, SigningKey};
use ring::signature::Ed25519KeyPair;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

use super::*;
use crate::kit::program::{Running, command, end_with_us, free_addresses};

enum PrivateKey {
    Ed25519(Ed25519KeyPair),
    Secp256k1(SigningKey),
}

impl PrivateKey {
    fn read(kind: KeyKind, bytes: &[u8]) -> PrivateKey {
        match kind {
            KeyKind::Ed25519 => PrivateKey::Ed25519(
                Ed25519KeyPair::from_seed_and_public_key(&bytes[..32], &bytes[32..]).expect("a key"),
            ),
            KeyKind::Secp256k1 => PrivateKey::Secp256k1(SigningKey::from_slice(bytes).expect("a key")),
        }
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        match self {
            PrivateKey::Ed25519(pair) => pair.sign(bytes).as_ref().to_vec(),
            PrivateKey::Secp256k1(key) => Signer::<Signature>::sign(key, bytes).normalize_s().to_bytes().to_vec(),
        }
    }
}

/// Signs what it is asked, with the time of the first request, and never another content at a place.
struct Validator {
    key: PrivateKey,
    given: Mutex<BTreeMap<Hrs, (SignDigest, SignTime)>>,
    newest: watch::Sender<Hrs>,
}

impl Validator {
    fn sign(&self, ask: Ask) {
        let place = ask.bytes.place;
        let time = {
            let mut given = self.given.lock().expect("no panic");
            let (digest, time) = *given.entry(place).or_insert((ask.bytes.digest, ask.bytes.time));
            assert_eq!(digest, ask.bytes.digest, "asked for another content at {place}");
            time
        };
        let extension = ask.extension.map(|bytes| self.key.sign(&bytes));
        let signature = self.key.sign(&ask.bytes.at(time).bytes());
        // The node may be gone.
        let _ = ask.answer.send(Ok(Signed { time, signature, extension }));
        self.newest.send_if_modified(|newest| std::mem::replace(newest, place.max(*newest)) < place);
    }
}

/// The home of a node whose key has left it.
struct Home {
    folder: tempfile::TempDir,
    binary: PathBuf,
    /// Where it waits for its signer.
    laddr: PrivvalAddress,
    key: PublicKey,
    validator: Arc<Validator>,
    asks: mpsc::Sender<Ask>,
}

impl Home {
    fn made_by(binary: &Path, kind: KeyKind, far: bool) -> Home {
        let folder = tempfile::tempdir().expect("folder");
        let laddr = if far {
            let [free] = free_addresses::<1>();
            PrivvalAddress::Tcp(free.to_string())
        } else {
            PrivvalAddress::Unix(folder.path().join("privval.sock"))
        };
        let mut init = Command::new(binary);
        init.args(["init", "--home"]).arg(folder.path());
        if kind != KeyKind::Ed25519 {
            init.args(["--key-type", kind.as_str()]);
        }
        let made = init.output();
        let made = made.unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        assert!(made.status.success(), "{made:?}");
        let key_file = folder.path().join("config/priv_validator_key.json");
        let text = std::fs::read(&key_file).expect("the key");
        std::fs::remove_file(&key_file).expect("the key leaves the home");
        let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let public = BASE64.decode(json["pub_key"]["value"].as_str().expect("a key")).expect("base64");
        let key = PublicKey { kind, bytes: public };
        let private = BASE64.decode(json["priv_key"]["value"].as_str().expect("a key")).expect("base64");
        let key_half = PrivateKey::read(kind, &private);
        let validator =
            Arc::new(Validator { key: key_half, given: Mutex::default(), newest: watch::channel(Hrs::default()).0 });
        let (asks, mut asked) = mpsc::channel(4);
        let signing = validator.clone();
        tokio::spawn(async move {
            while let Some(ask) = asked.recv().await {
                signing.sign(ask);
            }
        });
        let home = Home { folder, binary: binary.to_owned(), laddr, key, validator, asks };
        let config = home.path("config/config.toml");
        let text = std::fs::read_to_string(&config).expect("config.toml");
        let laddr = format!("priv_validator_laddr = \"{}\"", home.laddr);
        let written = text
            .replace("priv_validator_laddr = \"\"", &laddr)
            .replace("timeout_commit = \"1s\"", "timeout_commit = \"200ms\"");
        assert!(written.contains(&laddr) && written.contains("200ms"), "{text}");
        std::fs::write(&config, written).expect("config.toml");
        // From then on no block is made without signatures of extensions.
        let genesis = home.path("config/genesis.json");
        let text = std::fs::read_to_string(&genesis).expect("genesis.json");
        let enabled = |height: u64| format!("\"vote_extensions_enable_height\": \"{height}\"");
        // Before 0.38 there are none.
        assert!(text.contains(&enabled(0)) || !text.contains("vote_extensions"), "{text}");
        std::fs::write(&genesis, text.replace(&enabled(0), &enabled(2))).expect("genesis.json");
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a node that has ended leaves behind, where that keeps the next one from starting.
    fn leaves_socket(&self) -> bool {
        match &self.laddr {
            PrivvalAddress::Unix(path) => remove_stale_socket(path).expect("nobody listens"),
            PrivvalAddress::Tcp(_) => false,
        }
    }

    fn dial(&self) -> Privval {
        let settings = PrivvalSettings { address: self.laddr.clone(), node: "cometbft".into() };
        Privval::dial(settings, self.key.clone(), self.asks.clone())
    }

    fn start(&self) -> Running {
        let log = File::options().create(true).append(true).open(self.path("node.log")).expect("a log");
        let [rpc, p2p] = free_addresses::<2>();
        let mut node = command(self.binary.to_str().expect("text"));
        node.args(["start", "--proxy_app=kvstore", "--home"]).arg(self.folder.path());
        node.args([format!("--rpc.laddr=tcp://{rpc}"), format!("--p2p.laddr=tcp://{p2p}")]);
        end_with_us(&mut node);
        Running(node.stdin(Stdio::null()).stdout(log).stderr(Stdio::null()).spawn().expect("a node"))
    }

    /// A single validator is asked for a height when the block before it is committed.
    async fn blocks(&self, more: u64, what: &str) -> Duration {
        let began = Instant::now();
        let mut newest = self.validator.newest.subscribe();
        let from = newest.borrow().height;
        let reached = timeout(SOON, newest.wait_for(|place| place.height >= from + more)).await;
        if reached.is_err() {
            let log = std::fs::read_to_string(self.path("node.log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            panic!("{what}: no {more} blocks after {from}\n{}", last.join("\n"));
        }
        began.elapsed()
    }
}

async fn signs_through_baton(binary: &Path, kind: KeyKind, far: bool) {
    let home = Home::made_by(binary, kind, far);
    assert!(!home.leaves_socket(), "nothing is there yet");
    let dialled = home.dial();
    let node = home.start();
    home.blocks(4, "a start").await;
    let up = dialled.link().borrow().clone();
    assert!(matches!(up, Link::Up { .. }), "{up:?}");

    // As when the coordinator ends, and another one starts.
    for _ in 0..3 {
        drop(home.dial());
    }
    drop(dialled);
    let dialled = home.dial();
    let took = home.blocks(3, "another connection").await;
    println!("three blocks {took:?} after the connection was lost");

    let mut node = node;
    for signal in [Signal::TERM, Signal::KILL] {
        kill_process(Pid::from_child(&node.0), signal).expect("a signal");
        // Until it has ended it may ask for more.
        let ended = tokio::task::spawn_blocking(move || node.0.wait());
        timeout(SOON, ended).await.expect("the node ends").expect("no panic").expect("its status");
        let mut link = dialled.link();
        let lost = timeout(SOON, link.wait_for(|link| matches!(link, Link::Down { .. }))).await;
        lost.expect("noticed").expect("it dials");
        println!("{signal:?} leaves a socket: {}", home.leaves_socket());
        node = home.start();
        home.blocks(3, "another start").await;
    }
    let log = std::fs::read_to_string(home.path("node.log")).expect("a log");
    assert!(!log.contains("panic"), "{log}");
    drop(node);
}

#[tokio::test]
#[ignore = "needs cometbft in PATH and ten seconds"]
async fn a_real_node_without_a_key_makes_blocks_with_the_signatures_of_baton() {
    signs_through_baton(Path::new("cometbft"), KeyKind::Ed25519, false).await;
}

#[tokio::test]
#[ignore = "needs cometbft in PATH and ten seconds"]
async fn a_real_node_elsewhere_makes_blocks_with_the_signatures_of_baton() {
    signs_through_baton(Path::new("cometbft"), KeyKind::Ed25519, true).await;
}

#[tokio::test]
#[ignore = "needs a cometbft of 1.0, whose path is in BATON_COMETBFT_V1, and ten seconds"]
async fn a_real_node_of_version_1_does_so_too() {
    let Some(binary) = version_1() else { return };
    for far in [false, true] {
        signs_through_baton(&binary, KeyKind::Ed25519, far).await;
    }
}

/// Of the versions above, 1.0 alone makes such a key.
#[tokio::test]
#[ignore = "needs a cometbft of 1.0, whose path is in BATON_COMETBFT_V1, and five seconds"]
async fn a_real_node_with_a_secp256k1_key_does_so_too() {
    let Some(binary) = version_1() else { return };
    signs_through_baton(&binary, KeyKind::Secp256k1, false).await;
}

fn version_1() -> Option<PathBuf> {
    let named = std::env::var_os("BATON_COMETBFT_V1").map(PathBuf::from);
    if named.is_none() {
        println!("skipped: BATON_COMETBFT_V1 names no cometbft of 1.0");
    }
    named
}
