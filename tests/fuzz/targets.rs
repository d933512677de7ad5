//! What is done with bytes that nobody vouches for: each function takes some to where baton reads their kind, and
//! panics when that panics or when what was read breaks a promise. The fuzzer calls them with what it invents,
//! tests/bad_bytes.rs with the stored corpora and random changes of them.
#![allow(dead_code)]

use std::fmt::Debug;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use baton::base::guard_frame::{FRAME_MAX, FrameBuffer, FromGuard, ToGuard, encode};
use baton::base::ids::{NodeId, Role, SignMark};
use baton::base::public_key::KeyFormat;
use baton::base::signing::SignTime;
use baton::base::signing::{KeyKind, PublicKey};
use baton::base::timing::Timing;
use baton::cluster::gossip::Gossip;
use baton::cluster::identity::{Identity, Known};
use baton::cluster::roster::Roster;
use baton::cluster::store::MarkFile;
use baton::cluster::wire::proto::{self, ExchangeResponse};
use baton::cluster::wire::{
    AppliedState, Message, OfLeader, Promising, Sender, SnapshotRequest, TransferAnswer, TypeConfig, Vote, decode,
    read_entry,
};
use baton::config::{Cluster, Config, Member};
use baton::host::chain::{Driver, KeyReader, SignFloor};
use baton::host::privval::{self, Next, Signed};
use baton::host::sign_bytes::{SignBytes, check_extension};
use baton::host::signer::frames::{self, proto as signing};
use baton::host::signer::import::read_state;
use baton::host::signer::{MarkFile as SignerMark, Signer, SigningKey};
use baton::host::upgrade::obtain::{Patience, Request, Source, obtain};
use baton::operator::order::WantedHandover;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse};
use prost::Message as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tonic::codegen::{Bytes, Service as _, http};

pub type Target = fn(&[u8]);

#[path = "recorded.rs"]
mod recorded;
pub use recorded::record;

/// Every target by its name, which is that of its corpus.
pub const ALL: [(&str, Target); 10] = [
    ("config", config),
    ("guard_frames", guard_frames),
    ("gossip", gossip),
    ("raft", raft),
    ("admin", admin),
    ("chain_files", chain_files),
    ("archives", archives),
    ("signer", signer),
    ("privval", privval),
    ("record", record),
];

/// Each input has a directory of its own; in memory where there is such a file system.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

fn wait_for<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// An error is one line that says something.
fn one_line(error: impl ToString) {
    let text = error.to_string();
    assert!(!text.trim().is_empty() && !text.contains('\n'), "no line for a human: {text:?}");
}

/// The configuration file, and behind a zero byte the environment, one `NAME=value` a line.
pub fn config(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let dir = directory();
    let path = dir.path().join("baton.toml");
    fs::write(&path, parts.next().unwrap_or_default()).expect("write the file");
    let env = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let env = env.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into()));
    match Config::load(&path, env) {
        Ok(config) => assert!(config.cluster.members.iter().any(|member| member.id == config.id), "not a member"),
        Err(error) => one_line(error),
    }
}

/// A stream of frames as either end reads it, in pieces of the length that the first byte says.
pub fn guard_frames(bytes: &[u8]) {
    let Some((length, stream)) = bytes.split_first() else { return };
    frames::<ToGuard>(usize::from(*length), stream);
    frames::<FromGuard>(usize::from(*length), stream);
}

fn frames<T: DeserializeOwned + Serialize + PartialEq + Debug>(piece: usize, stream: &[u8]) {
    let mut reader = FrameBuffer::default();
    for piece in stream.chunks(piece.max(1)) {
        reader.push(piece);
        loop {
            match reader.take::<T>() {
                Ok(Some(frame)) => {
                    let mut again = FrameBuffer::default();
                    let bytes = encode(&frame).expect("what was read can be said");
                    assert!(bytes.len() <= FRAME_MAX + 4, "{} bytes", bytes.len());
                    again.push(&bytes);
                    assert_eq!(again.take::<T>().expect("and read"), Some(frame));
                }
                Ok(None) => break,
                Err(error) => return one_line(error),
            }
        }
    }
}

/// A request to exchange, through the service that peers reach, and an answer as it is decoded.
pub fn gossip(bytes: &[u8]) {
    let _ = ExchangeResponse::decode(bytes);
    wait_for(async {
        let names = ["a", "b", "c"];
        let mut recorded = AppliedState::default();
        Arc::make_mut(&mut recorded.replicated).incarnations.insert("b".into(), 7);
        let applied = watch::channel(recorded).1;
        let known = Known { applied, ..Known::listed(names.map(NodeId::from)) };
        let identity = Identity::new("test", "a".into(), 1, known);
        // Nobody listens there.
        let listed =
            |id: &str| Member { id: id.into(), addr: "127.0.0.1:1".into(), role: Role::Validator, priority: 1 };
        let members = names.map(listed).into();
        let cluster = Cluster { name: "test".into(), listen: ([127, 0, 0, 1], 1).into(), members, failback: false };
        let roster = Roster::new("a".into(), &cluster, watch::channel(Arc::default()).1, None, Timing::LAN);
        let gossip = Gossip::start(Arc::new(identity), roster);
        let message = [&[0][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat();
        let body = tonic::body::Body::new(http_body_util::Full::new(Bytes::from(message)));
        let request = http::Request::post("/baton.v1.Gossip/Exchange").header("content-type", "application/grpc");
        let answer = gossip.service().call(request.body(body).expect("a request")).await;
        assert_eq!(answer.expect("an answer").status(), 200);
        let table = gossip.table();
        let table = table.borrow();
        assert!(table.iter().map(|(id, _)| id.as_str()).eq(names), "members came or went");
        assert_eq!((table.me().as_str(), table.mine().member.as_str()), ("a", "a"));
        assert_eq!(table.mine().incarnation, 1, "it speaks for another store");
        let b = table.get(&"b".into()).and_then(|heard| heard.record.as_ref());
        assert!(b.is_none_or(|record| record.incarnation == 7), "a record of another store was taken");
    });
}

/// A message of Raft, of the kind that the first byte says, and what a store reads back.
pub fn raft(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 10 {
        0 => message::<OfLeader<AppendEntriesRequest<TypeConfig>>>(bytes),
        1 => message::<Promising<AppendEntriesResponse<TypeConfig>>>(bytes),
        2 => message::<VoteRequest<TypeConfig>>(bytes),
        3 => message::<VoteResponse<TypeConfig>>(bytes),
        4 => message::<OfLeader<SnapshotRequest>>(bytes),
        5 => message::<TransferLeaderRequest<TypeConfig>>(bytes),
        6 => message::<TransferAnswer>(bytes),
        7 => match decode::<proto::Entry>("Entry", bytes).and_then(read_entry) {
            Ok(entry) => {
                let stored = proto::Entry::from(&entry);
                assert_eq!(read_entry(stored).expect("what was read can be stored").log_id, entry.log_id);
            }
            Err(error) => one_line(error),
        },
        8 => match decode::<proto::StoredState>("StoredState", bytes).and_then(AppliedState::try_from) {
            Ok(state) => {
                let again = AppliedState::try_from(proto::StoredState::from(&state));
                assert_eq!(again.expect("what was read can be stored"), state);
            }
            Err(error) => one_line(error),
        },
        _ => match decode::<proto::Ballot>("Ballot", bytes).and_then(Vote::try_from) {
            Ok(vote) => assert_eq!(Vote::try_from(proto::Ballot::from(&vote)).expect("it can be stored"), vote),
            Err(error) => one_line(error),
        },
    }
}

fn message<M: Message>(bytes: &[u8])
where
    M::Proto: prost::Message + Default + PartialEq + Clone,
{
    let Ok(message) = M::Proto::decode(bytes) else { return };
    match M::from_proto(message) {
        Ok((sender, message)) => {
            let said = message.to_proto(&sender);
            let (again, message): (Sender, M) = M::from_proto(said.clone()).expect("what was read can be said");
            assert!(again == sender && message.to_proto(&again) == said, "it is said otherwise the second time");
        }
        Err(error) => one_line(error),
    }
}

/// What an operator asks, of the kind that the first byte says.
pub fn admin(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 5 {
        0 => {
            let Ok(request) = proto::HandoverRequest::decode(bytes) else { return };
            let wanted = WantedHandover::read(request);
            assert!(!wanted.timeout.is_zero() && wanted.to.as_ref().is_none_or(|to| !to.as_str().is_empty()));
            assert_eq!(WantedHandover::read(wanted.request()), wanted, "it is passed on otherwise");
        }
        1 => drop(proto::OrderRequest::decode(bytes)),
        2 => drop(proto::RelayedOrder::decode(bytes)),
        3 => drop(proto::RelayedHandover::decode(bytes)),
        _ => drop(proto::StatusResponse::decode(bytes)),
    }
}

const KEY: &str = r#"{"address": "00", "pub_key": {"type": "tendermint/PubKeyEd25519", "value": "u0XdMb1fJ/X7"}}"#;
const OTHER_KEY: &str =
    r#"{"address": "01", "pub_key": {"type": "tendermint/PubKeyEd25519", "value": "vbzTe1cv5xtO"}}"#;
const SIGNED: &str = r#"{"height": "7", "round": 0, "step": 3}"#;

/// Key and state files of the chains, and baton's own mark: the first byte says which file has the rest in it.
pub fn chain_files(bytes: &[u8]) {
    let Some((file, content)) = bytes.split_first() else { return };
    let dir = directory();
    let path = |name: &str| dir.path().join(name);
    match file % 9 {
        0 => {
            public_half(KeyFormat::CometBft, content);
            cometbft(dir.path(), "keys/validator.json", content);
        }
        1 => cometbft(dir.path(), "keys/standby.json", content),
        2 => cometbft(dir.path(), "data/priv_validator_state.json", content),
        3 => cometbft(dir.path(), "config/genesis.json", content),
        4 => cometbft(dir.path(), "config/config.toml", content),
        5 => {
            public_half(KeyFormat::Near, content);
            near(dir.path(), "shared_key.json", content);
        }
        6 => near(dir.path(), "config.json", content),
        7 => last_signed(dir.path(), content),
        _ => {
            fs::write(path("mark"), content).expect("write the mark");
            let (file, error) = MarkFile::open(dir.path());
            assert!(file.kept().is_none() || error.is_none());
            error.into_iter().for_each(one_line);
        }
    }
}

/// The driver of a configuration whose `[chain]` is `section`.
fn driver(dir: &Path, section: &str) -> Driver {
    let file = dir.join("baton.toml");
    let head = "[member]\nid = \"a\"\nstate_dir = \"state\"\nrun_dir = \"run\"\n\n[cluster]\nname = \"test\"\n\
                listen = \"127.0.0.1:7401\"\nmembers = [{ id = \"a\", addr = \"127.0.0.1:7401\" }]\n\n[chain]\n\
                home = \".\"\ncommand = [\"/bin/true\"]\n";
    fs::write(&file, format!("{head}{section}")).expect("write the configuration");
    let config = Config::load(&file, std::iter::empty()).unwrap_or_else(|error| panic!("{error}"));
    fs::create_dir_all(&config.state_dir).expect("the state directory");
    let keys = KeyReader::new(GUARD.unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/debug/baton-guard")));
    Driver::new(config.chain.as_ref().expect("a chain"), &config.state_dir, keys).expect("a driver")
}

/// What reads key files. The fuzzer, which is another package, takes the one that `cargo build` made.
const GUARD: Option<&str> = option_env!("CARGO_BIN_EXE_baton-guard");

/// What is answered in place of a key file is JSON of one line.
fn public_half(format: KeyFormat, content: &[u8]) {
    match format.public_half(content) {
        Ok(half) => assert!(!half.contains('\n') && half.starts_with('{'), "{half:?}"),
        Err(error) => one_line(error),
    }
}

fn put(dir: &Path, files: &[(&str, &str)], bad: &str, content: &[u8]) {
    for (name, content) in files.iter().map(|(name, text)| (*name, text.as_bytes())).chain([(bad, content)]) {
        let path: PathBuf = dir.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, content).expect("write a file");
    }
}

/// Whatever a file says, the mark that the node is handed is not below the floor, nor below what it had signed.
fn cometbft(dir: &Path, bad: &str, content: &[u8]) {
    let files = [
        ("keys/validator.json", KEY),
        ("keys/standby.json", OTHER_KEY),
        ("data/priv_validator_state.json", SIGNED),
        ("config/config.toml", ""),
    ];
    put(dir, &files, bad, content);
    let section = "driver = \"cometbft\"\n[[chain.links]]\nlink = \"config/priv_validator_key.json\"\n\
                   validating = \"keys/validator.json\"\nstandby = \"keys/standby.json\"\n[chain.probe]\n\
                   url = \"http://127.0.0.1:1/status\"\n";
    let driver = driver(dir, section);
    wait_for(async {
        if let Err(error) = driver.check().await {
            return one_line(error);
        }
        let before = driver.last_signed().await;
        let floor = SignMark::at_step(9, 1, 2);
        match driver.prepare_validator(&SignFloor::Mark(floor), None).await {
            Ok(_) => {
                let handed = driver.last_signed().await.expect("it can be read").expect("a mark");
                assert!(handed.covers(&floor), "handed {handed:?}, below the floor");
                // `before` may be unreadable in a standby's place, which is no key's record then.
                let before = before.ok().flatten();
                assert!(before.is_none_or(|before| handed.covers(&before)), "handed {handed:?} after {before:?}");
            }
            Err(error) => one_line(error),
        }
        if let Err(error) = driver.after_stop().await {
            one_line(error);
        }
    });
}

fn near(dir: &Path, bad: &str, content: &[u8]) {
    let files = [
        ("config.json", r#"{"tracked_shards_config": "AllShards"}"#),
        ("shared_key.json", r#"{"account_id": "node3", "public_key": "ed25519:x"}"#),
    ];
    put(dir, &files, bad, content);
    let section = "driver = \"near\"\n[[chain.links]]\nlink = \"validator_key.json\"\nvalidating = \"shared_key.json\"\n\
                   [chain.probe]\nurl = \"http://127.0.0.1:1/status\"\n";
    let driver = driver(dir, section);
    wait_for(async {
        match driver.check().await {
            Ok(warnings) => warnings.into_iter().for_each(one_line),
            Err(error) => one_line(error),
        }
        if let Driver::Near(near) = &driver {
            match near.account().await {
                Ok(_) => {}
                Err(error) => one_line(error),
            }
        }
    });
}

/// A generic node's own record.
fn last_signed(dir: &Path, content: &[u8]) {
    put(dir, &[("key", "k")], "signed.json", content);
    let section = "driver = \"generic\"\n[[chain.links]]\nlink = \"link\"\nvalidating = \"key\"\n[chain.activate]\n\
                   how = \"restart\"\n[chain.probe]\nurl = \"http://127.0.0.1:1/\"\nheight = \"/h\"\n[chain.last_signed]\n\
                   file = \"signed.json\"\nheight = \"/height\"\nround = \"/round\"\n";
    let driver = driver(dir, section);
    if let Err(error) = wait_for(driver.last_signed()) {
        one_line(error);
    }
}

/// What an upgrade's binary may come in: there is a program after it or no file at all, and nothing elsewhere.
pub fn archives(bytes: &[u8]) {
    let dir = directory();
    let (home, source) = (dir.path().join("home"), dir.path().join("source"));
    fs::write(&source, bytes).expect("write the file");
    let request = Request {
        upgrade_dir: &home,
        binary_name: "node",
        bytes_max: 1 << 20,
        source: Source::Operator(source.to_str().expect("text")),
        patience: Patience::USUAL,
    };
    match obtain(&request, &mut |_, _| true) {
        Ok(binary) => {
            let program = fs::read(&binary.path).expect("the program");
            assert!(program.starts_with(b"#!") || program.starts_with(b"\x7fELF"), "{:?}", &program[..4]);
            assert!(program.len() <= 1 << 20, "{} bytes", program.len());
        }
        Err(error) => {
            one_line(error);
            assert!(!home.join("bin/node").exists(), "a binary is there after an error");
        }
    }
    assert!(fs::read_dir(dir.path()).expect("a directory").count() <= 2, "something was written elsewhere");
}

/// The signer's own: of the kind that the first byte says.
pub fn signer(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 6 {
        0 => requests(bytes),
        1 => answers(bytes),
        2 => sign_bytes(bytes),
        3 => match SigningKey::parse(bytes) {
            Ok(key) => assert_eq!((key.sign(b"a").len(), key.sign(b"a")), (64, key.sign(b"a"))),
            Err(error) => one_line(error),
        },
        4 => match read_state(bytes) {
            Ok(read) => {
                assert!(i64::try_from(read.place.height).is_ok() && i32::try_from(read.place.round).is_ok());
                assert!(read.place.step <= 3 && (read.digest.is_none() || read.chain.is_some()), "{read:?}");
            }
            Err(error) => one_line(error),
        },
        _ => {
            let dir = directory();
            let path = dir.path().join("mark");
            fs::write(&path, bytes).expect("write the mark");
            match SignerMark::open(&path) {
                Ok(mark) => assert!(mark.kept().is_some(), "taken for none"),
                Err(error) => one_line(error),
            }
        }
    }
}

/// A mark only goes up, and what is signed is at it.
fn requests(mut stream: &[u8]) {
    let dir = directory();
    let key = SigningKey::parse("TM0ImyjyljnbtsUNGyjs9rtTQ1DfoD6xL2BXTh6fqfU=".as_bytes());
    let mark = SignerMark::open(&dir.path().join("mark")).expect("no mark");
    let mut signer = Signer::new(key.unwrap_or_else(|error| panic!("{error}")), mark);
    loop {
        let request = match frames::read::<signing::Request>(&mut stream) {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(error) => return one_line(error),
        };
        let before = signer.place();
        let asked = match &request.ask {
            Some(signing::request::Ask::Sign(sign)) => SignBytes::read(&sign.sign_bytes).ok(),
            Some(_) | None => None,
        };
        let id = request.id;
        let answer = signer.answer(request);
        assert!(answer.id == id && signer.place() >= before, "{answer:?}");
        match answer.answer.expect("there is an answer to everything") {
            signing::answer::Answer::Signatures(_) => {
                assert_eq!(signer.place(), asked.map(|asked| asked.place));
                assert!(before.is_some(), "signed without a mark");
            }
            signing::answer::Answer::Refused(refused) => {
                assert_eq!(signer.place(), before, "refused, and the mark moved");
                one_line(refused.text);
            }
            _ => {}
        }
    }
}

fn answers(mut stream: &[u8]) {
    loop {
        match frames::read::<signing::Answer>(&mut stream) {
            Ok(Some(answer)) => {
                let again = frames::encode(&answer).expect("what was read can be said");
                assert_eq!(frames::read::<signing::Answer>(&mut again.as_slice()).expect("and read"), Some(answer));
            }
            Ok(None) => return,
            Err(error) => return one_line(error),
        }
    }
}

fn sign_bytes(bytes: &[u8]) {
    match SignBytes::read(bytes) {
        Ok(read) => {
            assert_eq!(read.bytes(), bytes, "another encoding of the same");
            let later = read.at(SignTime { seconds: read.time.seconds.wrapping_add(1), nanos: 0 });
            assert_eq!((later.digest, later.place), (read.digest, read.place));
            assert_eq!(SignBytes::read(&later.bytes()), Ok(later));
            // No vote is an extension, of whatever vote.
            assert!(check_extension(bytes, &read).is_err());
        }
        Err(error) => one_line(error),
    }
}

/// What a chain node says to its signer, in pieces of the length that the first byte says.
pub fn privval(bytes: &[u8]) {
    let Some((length, stream)) = bytes.split_first() else { return };
    let public_key = PublicKey { kind: KeyKind::Ed25519, bytes: vec![5; 32] };
    let mut reader = privval::FrameBuffer::default();
    for piece in stream.chunks(usize::from(*length).max(1)) {
        reader.push(piece);
        loop {
            match reader.take() {
                Ok(Some(message)) => answered(privval::read(message, &public_key)),
                Ok(None) => break,
                Err(error) => return one_line(error),
            }
        }
    }
}

/// What is to be signed is one whole vote or proposal of the chain, and the node is told something in every case.
fn answered(next: Next) {
    let answer = match next {
        Next::Answer(answer) => answer,
        Next::Refuse(answer, why) => {
            one_line(why);
            answer
        }
        Next::Sign(wanted) => {
            assert_eq!(SignBytes::read(&wanted.bytes.bytes()).as_ref(), Ok(&wanted.bytes));
            if let Some(extension) = &wanted.extension {
                check_extension(extension, &wanted.bytes).expect("an extension of this vote");
            }
            let extension = wanted.extension.as_ref().map(|_| vec![2; 64]);
            let time = wanted.bytes.time;
            wanted.answer(Ok(Signed { time, signature: vec![1; 64], extension }))
        }
    };
    let mut reader = privval::FrameBuffer::default();
    reader.push(&privval::encode(&answer));
    assert_eq!(reader.take().expect("and read"), Some(answer));
}
