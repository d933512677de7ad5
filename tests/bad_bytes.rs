//! The fuzz targets on the stored corpora and, for a few seconds, on random changes of them. `cargo fuzz` goes on
//! where this ends; what it found stands in the corpora under the name that it gave.

#[allow(dead_code)]
#[path = "kit/archives.rs"]
mod making;
#[path = "fuzz/targets.rs"]
mod targets;

use std::borrow::Cow;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use baton::base::guard_frame::{Armed, FromGuard, LinkSpec, NodeSpec, ToGuard, WatchdogSpec, encode};
use baton::base::ids::Epoch;
use baton::base::signing::Hrs;
use baton::base::time::{BootTime, WallTime};
use baton::cluster::wire::proto;
use baton::cluster::wire::{
    Message, OfLeader, PROTOCOL, Sender, Session, SnapshotMeta, SnapshotRequest, TypeConfig, Vote,
};
use baton::core::Event;
use baton::host::privval;
use baton::host::privval::proto::message::Sum;
use baton::host::sign_bytes::{SignBytes, proto as chain};
use baton::host::signer::frames::{self, proto as signing};
use baton::host::signer::{Mark, MarkFile};
use baton::record::{Entry, Piece, Pieces, encode as encode_record, past};
use making::{Tar, Zip};
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use prost::Message as _;

/// Unless BAD_BYTES_S says otherwise.
const SECONDS_A_TARGET: u64 = 1;
/// However slow the machine is.
const TRIED_MIN: u32 = 20;
const WRITE: &str = "BATON_WRITE_CORPUS";

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

fn stored(target: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(corpus(target)).unwrap_or_else(|error| panic!("corpus of {target}: {error}"));
    let read = |file: fs::DirEntry| (file.file_name().to_string_lossy().into_owned(), fs::read(file.path()).unwrap());
    let mut inputs: Vec<_> = files.flatten().map(read).collect();
    inputs.sort();
    inputs
}

/// Inputs such as baton gets when all is well: what the fuzzer and this test start from.
fn real_inputs() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = |name: &str| fs::read(manifest.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let sender = Sender {
        cluster: "test".into(),
        member: "b".into(),
        incarnation: 7,
        protocol: PROTOCOL,
        founders: 0,
        knows: 1,
        session: Session { number: 9, start: 2 },
    };
    let with = |kind: u8, bytes: Vec<u8>| [vec![kind], bytes].concat();
    let link = LinkSpec { link: "/home/key".into(), validating: "/keys/key".into(), standby: Some("/keys/own".into()) };
    let node = NodeSpec {
        argv: vec!["node".into(), "run".into()],
        env: [("HOME".to_owned(), "/home".to_owned())].into(),
        cwd: "/home".into(),
        log: None,
    };
    let to_guard = [
        ToGuard::Hello {
            protocol: 2,
            member: "a".into(),
            links: vec![link],
            kill_max: Duration::from_millis(150),
            watchdog: Some(WatchdogSpec { device: "/dev/watchdog".into(), timeout_max: Duration::from_secs(2) }),
        },
        ToGuard::Start { node, validator_epoch: Some(Epoch(3)) },
        ToGuard::Arm { epoch: Epoch(3), deadline: BootTime::from_nanos(1_000_000_000) },
        ToGuard::Stop { timeout: Duration::from_millis(1500) },
        ToGuard::Quit,
    ];
    let from_guard = [
        FromGuard::Armed(Armed::by_guard(Epoch(3), BootTime::from_nanos(1_000_000_000))),
        FromGuard::Disarmed { epoch: Epoch(3) },
        FromGuard::Refused { request: "Arm".into(), reason: "the deadline has passed".into(), superseded_by: None },
    ];
    let stream = |frames: Vec<Vec<u8>>| with(16, frames.concat());
    let vote = Vote::new_committed(3, "b".into());
    let request = AppendEntriesRequest::<TypeConfig> {
        vote: vote.clone(),
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    let append = OfLeader { lease: None, request };
    let request = SnapshotRequest { vote: vote.clone(), meta: SnapshotMeta::default(), data: vec![1, 2, 3] };
    let snapshot = OfLeader { lease: None, request };
    let claim = proto::Entry::from(&baton::cluster::wire::Entry {
        log_id: baton::cluster::wire::LogId {
            leader_id: openraft::vote::leader_id_std::CommittedLeaderId::new(3),
            index: 5,
        },
        payload: openraft::EntryPayload::Normal(baton::core::agreed::replicated::Command::Baton(
            baton::core::agreed::replicated::Baton::Claim {
                epoch: Epoch(4),
                member: "b".into(),
                reason: "first claim".into(),
                at: baton::base::time::WallTime::from_nanos(1_000),
            },
        )),
    });
    let record = |member: &str, incarnation| proto::Record {
        member: member.into(),
        generation: 2,
        version: 9,
        incarnation,
        state: "Voting".into(),
        mark_seen: Some(proto::SignMark { height: 7, round: 1, step: 2, approved: 0 }),
        ..Default::default()
    };
    let exchange = proto::ExchangeRequest {
        sender: Some((&sender).into()),
        records: vec![record("a", 1), record("b", 7), record("c", 4)],
        full: true,
        sent_at_ns: 1_000,
    };
    let handover = proto::HandoverRequest { to: "host-b".into(), timeout_ms: 5_000, ..Default::default() };
    let pause = proto::order_request::Order::Pause(proto::SetPause { on: true, at_ns: 5 });
    let order = proto::OrderRequest { order: Some(pause) };
    let ping = Sum::PingRequest(Default::default());
    let program = b"#!/bin/sh\nexit 0\n";
    let tar = || {
        let path = making::pax(&[("path", "bin/node")]);
        let tar = Tar::default().file("README", b"read me").link(making::SYMLINK, "lib/x", "y");
        let tar = tar.entry(making::LONG_NAME, "long", "", b"a/long/name\0", 12).file("short", b"x");
        tar.entry(making::PAX, "pax", "", &path, path.len() as u64).file("other", program)
    };
    let zip = Zip::default().entry("bin/", 0o040_755, b"", false).entry("lib/x", 0o120_777, b"y", false);
    let zip = zip.file("README", b"read me").entry("bin/node", 0o100_755, program, true);
    let state = br#"{"height": "7", "round": 1, "step": 3, "signature": "c2ln", "signbytes": "AB"}"#.to_vec();
    let asked = chain::Vote {
        r#type: chain::SignedMsgType::Precommit.into(),
        height: 7,
        round: 1,
        block_id: Some(chain::BlockId {
            hash: vec![9; 32],
            part_set_header: Some(chain::PartSetHeader { total: 1, hash: vec![7; 32] }),
        }),
        timestamp: Some(chain::Timestamp { seconds: 1_700_000_000, nanos: 5 }),
        chain_id: "c-1".into(),
    };
    let asked = SignBytes::of_vote(asked).expect("a vote");
    let sign_bytes = asked.bytes();
    let extension = chain::VoteExtension { extension: vec![1], height: 7, round: 1, chain_id: "c-1".into() };
    let extension = Some(extension.encode_length_delimited_to_vec());
    let asks = [
        signing::request::Ask::Raise(signing::Raise { place: Some(Hrs::new(6, 0, 3).into()) }),
        signing::request::Ask::Reserve(signing::Reserve { sign_bytes: sign_bytes.clone() }),
        signing::request::Ask::Sign(signing::Sign { sign_bytes: sign_bytes.clone(), extension }),
        signing::request::Ask::PublicKey(signing::PublicKeyRequest {}),
    ];
    let requests: Vec<u8> = (1..)
        .zip(asks)
        .flat_map(|(id, ask)| frames::encode(&signing::Request { id, ask: Some(ask) }).expect("it is short"))
        .collect();
    let answers: Vec<u8> = [
        signing::answer::Answer::Signatures(signing::Signatures { vote: vec![1; 64], extension: Some(vec![2; 64]) }),
        signing::answer::Answer::Refused(signing::Refused {
            kind: signing::RefusedKind::Stale.into(),
            text: "7/1/3 is below the mark".into(),
        }),
    ]
    .into_iter()
    .flat_map(|answer| frames::encode(&signing::Answer { id: 3, answer: Some(answer) }).expect("it is short"))
    .collect();
    let signer_key = br#"{"priv_key": {"type": "tendermint/PrivKeySecp256k1",
        "value": "Lfa2uW//4KGvzLXhtoHGfI5Yd2DA2gC7pOfHSkFheGg="}}"#;
    let signer_mark = {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("mark");
        let mark = Mark { chain: Some("c-1".into()), place: asked.place, digest: Some(asked.digest) };
        MarkFile::open(&path).and_then(|mut file| file.advance(mark)).expect("a mark");
        fs::read(path).expect("a mark")
    };
    let recorded: Vec<Piece> = Pieces::read(&file("tests/data/sample.rec")).expect("a record").collect();
    let failover = last_election(&recorded);
    vec![
        ("signer", "requests", with(0, requests)),
        ("signer", "answers", with(1, answers)),
        ("signer", "vote", with(2, sign_bytes)),
        ("signer", "secp256k1-key", with(3, signer_key.to_vec())),
        ("signer", "ed25519-key", with(3, b"TM0ImyjyljnbtsUNGyjs9rtTQ1DfoD6xL2BXTh6fqfU=\n".to_vec())),
        ("signer", "cometbft-state", with(4, file("tests/data/cometbft-sign-state.json"))),
        ("signer", "tmkms-state", with(4, file("tests/data/tmkms-sign-state.json"))),
        ("signer", "horcrux-state", with(4, file("tests/data/horcrux-sign-state.json"))),
        ("signer", "mark", with(5, signer_mark)),
        ("config", "cometbft", file("docs/examples/cometbft.toml")),
        ("config", "geth-like", file("docs/examples/geth-like.toml")),
        (
            "config",
            "with-environment",
            [file("docs/examples/solana.toml"), b"\0BATON_TIMING_LEASE=2s\n".to_vec()].concat(),
        ),
        ("guard_frames", "to-guard", stream(to_guard.iter().map(|frame| encode(frame).unwrap()).collect())),
        ("guard_frames", "from-guard", stream(from_guard.iter().map(|frame| encode(frame).unwrap()).collect())),
        ("gossip", "full-exchange", exchange.encode_to_vec()),
        ("raft", "append", with(0, append.to_proto(&sender).encode_to_vec())),
        ("raft", "vote", with(2, VoteRequest::<TypeConfig>::new(vote.clone(), None).to_proto(&sender).encode_to_vec())),
        ("raft", "snapshot", with(4, snapshot.to_proto(&sender).encode_to_vec())),
        ("raft", "stored-claim", with(7, claim.encode_to_vec())),
        ("raft", "stored-vote", with(9, proto::Ballot::from(&vote).encode_to_vec())),
        ("admin", "handover", with(0, handover.encode_to_vec())),
        ("admin", "pause", with(1, order.encode_to_vec())),
        (
            "chain_files",
            "cometbft-key",
            with(0, br#"{"address": "00", "pub_key": {"type": "t", "value": "u0X"}}"#.to_vec()),
        ),
        ("chain_files", "cometbft-standby-key", with(1, br#"{"pub_key": {"type": "t", "value": "vbz"}}"#.to_vec())),
        ("chain_files", "cometbft-sign-state", with(2, state.clone())),
        (
            "chain_files",
            "cometbft-genesis",
            with(3, br#"{"validators": [{"pub_key": {"type": "t", "value": "v"}}]}"#.to_vec()),
        ),
        (
            "chain_files",
            "cometbft-config",
            with(4, b"priv_validator_laddr = \"\"\n[p2p]\nladdr = \"tcp://0.0.0.0:1\"\n".to_vec()),
        ),
        ("chain_files", "near-key", with(5, br#"{"account_id": "node3", "public_key": "ed25519:x"}"#.to_vec())),
        ("chain_files", "near-config", with(6, br#"{"network": {"addr": "0.0.0.0:1"}, // note"#.to_vec())),
        ("chain_files", "own-record", with(7, br#"{"height": 12, "round": 1}"#.to_vec())),
        ("chain_files", "mark", with(8, b"BTNMARK1\x08\x07".to_vec())),
        ("archives", "tar", tar().end()),
        ("archives", "tar-gz", tar().gz()),
        ("archives", "zip", zip.end()),
        ("privval", "precommit", with(16, asked_of_signer(sign_vote()))),
        ("privval", "proposal", with(16, asked_of_signer(sign_proposal()))),
        ("record", "beginning", with(0, encode_record(&recorded[..recorded.len().min(40)]))),
        ("record", "failover", with(0, failover.clone())),
        ("record", "failover-without-sums", with(1, failover)),
        (
            "privval",
            "public-key-and-ping",
            with(16, [Sum::PubKeyRequest(Default::default()), ping].map(asked_of_signer).concat()),
        ),
    ]
}

/// Around it, with the head and the core that it needs.
fn last_election(recorded: &[Piece]) -> Vec<u8> {
    let led = |piece: &Piece| matches!(piece, Piece::Entry(Entry::Step { event, .. }) if matches!(event.as_ref().as_ref(), Event::Led { .. }));
    let from = recorded.iter().rposition(led).expect("an election").saturating_sub(10);
    let before = past(recorded[..from].to_vec(), WallTime::from_nanos(u64::MAX));
    let (core, _) = before.core().expect("a core");
    let core = Piece::Entry(Entry::Core(Box::new(Cow::Owned(core.clone()))));
    let to = recorded.len().min(from + 60);
    encode_record([&recorded[0], &core].into_iter().chain(&recorded[from..to]))
}

fn asked_of_signer(sum: Sum) -> Vec<u8> {
    privval::encode(&privval::proto::Message { sum: Some(sum) })
}

fn block() -> Option<chain::BlockId> {
    let part_set_header = Some(chain::PartSetHeader { total: 1, hash: vec![7; 32] });
    Some(chain::BlockId { hash: vec![9; 32], part_set_header })
}

fn sign_vote() -> Sum {
    let vote = privval::proto::Vote {
        r#type: chain::SignedMsgType::Precommit.into(),
        height: 12,
        round: 1,
        block_id: block(),
        timestamp: Some(chain::Timestamp { seconds: 1_700_000_000, nanos: 5 }),
        validator_address: vec![3; 20],
        extension: b"ext".to_vec(),
        ..Default::default()
    };
    let request = privval::proto::SignVoteRequest { vote: Some(vote), chain_id: "c-1".into(), ..Default::default() };
    Sum::SignVoteRequest(request)
}

fn sign_proposal() -> Sum {
    let proposal = privval::proto::Proposal {
        r#type: chain::SignedMsgType::Proposal.into(),
        height: 12,
        pol_round: -1,
        block_id: block(),
        timestamp: Some(chain::Timestamp { seconds: 1_700_000_000, nanos: 5 }),
        ..Default::default()
    };
    let request = privval::proto::SignProposalRequest { proposal: Some(proposal), chain_id: "c-1".into() };
    Sum::SignProposalRequest(request)
}

#[test]
fn the_corpora_hold_the_real_inputs() {
    for (target, name, bytes) in real_inputs() {
        let path = corpus(target).join(name);
        if std::env::var_os(WRITE).is_some() {
            fs::create_dir_all(corpus(target)).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let stored = fs::read(&path).unwrap_or_default();
        assert!(stored == bytes, "{}: no longer what is really said; {WRITE}=1 writes it anew", path.display());
    }
}

/// One step away from an input.
#[derive(Clone, Debug)]
enum Change {
    Set { at: prop::sample::Index, to: u8 },
    Flip { at: prop::sample::Index, bit: u8 },
    Remove { at: prop::sample::Index, count: usize },
    Insert { at: prop::sample::Index, bytes: Vec<u8> },
    Repeat { at: prop::sample::Index, count: usize, times: usize },
}

impl Change {
    fn any() -> impl Strategy<Value = Change> {
        let at = || any::<prop::sample::Index>();
        prop_oneof![
            (at(), any::<u8>()).prop_map(|(at, to)| Change::Set { at, to }),
            (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip { at, bit }),
            (at(), 1..40_usize).prop_map(|(at, count)| Change::Remove { at, count }),
            (at(), prop::collection::vec(any::<u8>(), 1..12)).prop_map(|(at, bytes)| Change::Insert { at, bytes }),
            (at(), 1..30_usize, 1..200_usize).prop_map(|(at, count, times)| Change::Repeat { at, count, times }),
        ]
    }

    fn apply(&self, input: &mut Vec<u8>) {
        let length = input.len();
        let place = |at: &prop::sample::Index| at.index(length + 1);
        match self {
            Change::Set { at, to } if length > 0 => input[at.index(length)] = *to,
            Change::Flip { at, bit } if length > 0 => input[at.index(length)] ^= 1 << bit,
            Change::Set { .. } | Change::Flip { .. } => {}
            Change::Remove { at, count } => {
                let from = place(at);
                let to = (from + count).min(input.len());
                input.drain(from..to);
            }
            Change::Insert { at, bytes } => {
                let from = place(at);
                input.splice(from..from, bytes.iter().copied());
            }
            Change::Repeat { at, count, times } => {
                let from = place(at);
                let piece = input[from..(from + count).min(input.len())].repeat(*times);
                input.splice(from..from, piece);
            }
        }
    }
}

/// Panics with the input, which `cargo fuzz` and the corpus take as it is.
fn try_one(name: &str, target: targets::Target, what: &str, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        let kept = std::env::temp_dir().join(format!("baton-bad-bytes-{name}"));
        fs::write(&kept, input).unwrap();
        panic!("{name}, {what}: {:?}\nkept in {}", String::from_utf8_lossy(input), kept.display());
    }
}

#[test]
fn no_stored_input_and_no_random_change_of_one_breaks_a_reader() {
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().expect("SEED is a number"),
        Err(_) => rand::random::<u64>(),
    };
    println!("SEED={seed} cargo test --test bad_bytes");
    let seconds =
        std::env::var("BAD_BYTES_S").map_or(SECONDS_A_TARGET, |s| s.parse().expect("BAD_BYTES_S is a number"));
    let time = Duration::from_secs(seconds);
    for (name, target) in targets::ALL {
        let inputs = stored(name);
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for (file, input) in &inputs {
            try_one(name, target, file, input);
        }
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed.to_le_bytes(); 4].concat());
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let strategy = (any::<prop::sample::Index>(), prop::collection::vec(Change::any(), 1..6));
        let (began, mut tried) = (Instant::now(), 0);
        while began.elapsed() < time || tried < TRIED_MIN {
            let (which, changes) = strategy.new_tree(&mut runner).expect("a value").current();
            let (file, input) = which.get(&inputs);
            let mut input = input.clone();
            changes.iter().for_each(|change| change.apply(&mut input));
            try_one(name, target, file, &input);
            tried += 1;
        }
        println!("{name}: {} stored, {tried} changed", inputs.len());
    }
}
