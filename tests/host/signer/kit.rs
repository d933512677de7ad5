//! A signer with a key and a mark of its own, asked frame by frame, and votes for it to sign.

use std::fs::{self, File, Permissions};
use std::io::{BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use baton::base::guard_frame::LinesAs;
use baton::base::signing::Hrs;
use baton::host::sign_bytes::{SignBytes, proto as chain};
use baton::host::signer::frames::proto::{Answer, RefusedKind, Request, answer, request};
use baton::host::signer::frames::{self, proto};
use baton::host::signer_client::SignerSettings;
use prost::Message;

pub use crate::guard::harness::{await_death, await_that, lives, ms, signal};

pub const SIGNER: &str = env!("CARGO_BIN_EXE_baton-signer");

/// From CometBFT's documentation of `priv_validator_key.json`.
pub const ED25519_FILE: &str = r#"{
  "address": "E74FBE24164CFC4F88E311C3AC92E63D0DC310D8",
  "pub_key": {
    "type": "tendermint/PubKeyEd25519",
    "value": "UjxDQgVTlHJOZ7axpMl/iczMIJXiQpFxCFjwKGvzYqE="
  },
  "priv_key": {
    "type": "tendermint/PrivKeyEd25519",
    "value": "9giFjwnmAKCAI95l4Q32kXsau+itGrbsvz84CTLxGnJSPENCBVOUck5ntrGkyX+JzMwgleJCkXEIWPAoa/NioQ=="
  }
}"#;

/// From the same page.
pub const SECP256K1_FILE: &str = r#"{
  "address": "E5B4F106D46A46820308C49B5F92DC22D9F9ACFA",
  "pub_key": {
    "type": "tendermint/PubKeySecp256k1",
    "value": "AhRzbjoZaiyrbCE/yJ6gwIBXjwzl8+H7W8KMAphJVUzt"
  },
  "priv_key": {
    "type": "tendermint/PrivKeySecp256k1",
    "value": "Lfa2uW//4KGvzLXhtoHGfI5Yd2DA2gC7pOfHSkFheGg="
  }
}"#;

/// A directory with a key.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Place {
        Place::with_key(ED25519_FILE)
    }

    pub fn with_key(file: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        fs::write(place.key(), file).unwrap();
        fs::set_permissions(place.key(), Permissions::from_mode(0o600)).unwrap();
        place
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    pub fn key(&self) -> PathBuf {
        self.dir().join("key.json")
    }

    pub fn mark(&self) -> PathBuf {
        self.dir().join("mark")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("log")).unwrap_or_default()
    }

    pub fn settings(&self) -> SignerSettings {
        SignerSettings { binary: SIGNER.into(), key: self.key(), mark: self.mark(), lines_as: LinesAs::Text }
    }

    /// A signer that signs for `stdin`; with this thread it dies.
    pub fn command(&self, stdin: impl Into<Stdio>) -> Command {
        let log = File::options().append(true).create(true).open(self.dir().join("log")).unwrap();
        let mut command = Command::new(SIGNER);
        command.arg("--key").arg(self.key()).arg("--mark").arg(self.mark());
        command.stdin(stdin).stdout(Stdio::null()).stderr(log);
        command
    }

    /// One that has said its public key.
    pub fn signer(&self) -> Signer {
        let (mut signer, first) = self.start();
        match first {
            Some(Answer { id: 0, answer: Some(answer::Answer::PublicKey(_)) }) => signer,
            other => panic!("instead of a public key: {other:?}; it ended with {}, {}", signer.exit_code(), self.log()),
        }
    }

    /// One with a mark below all that is signed.
    pub fn imported(&self) -> Signer {
        let mut signer = self.signer();
        assert_eq!(signer.ask(raise(0, 0, 0)), raised(0, 0, 0));
        signer
    }

    /// One that was just started, and the first that it says.
    pub fn start(&self) -> (Signer, Option<Answer>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut signer = Signer::new(self.command(OwnedFd::from(theirs)).spawn().unwrap(), ours);
        let first = signer.next();
        (signer, first)
    }

    /// Why it does not sign; it has ended.
    pub fn refused_start(&self) -> (RefusedKind, String) {
        let (mut signer, first) = self.start();
        let Some(Answer { id: 0, answer: Some(answer::Answer::Refused(refused)) }) = first else {
            panic!("instead of a refusal: {first:?}");
        };
        assert_eq!(signer.exit_code(), 1);
        assert!(self.log().contains(&refused.text), "{} says nothing of {:?}", self.log(), refused.text);
        (refused.kind(), refused.text)
    }
}

/// Killed when it is dropped.
pub struct Signer {
    pub child: Child,
    pub stream: UnixStream,
    answers: BufReader<UnixStream>,
    last_id: u64,
}

impl Drop for Signer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Signer {
    pub fn new(child: Child, stream: UnixStream) -> Signer {
        stream.set_read_timeout(Some(crate::guard::harness::SOON)).unwrap();
        let answers = BufReader::new(stream.try_clone().unwrap());
        Signer { child, stream, answers, last_id: 0 }
    }

    /// Its next answer; `None` at its end.
    pub fn next(&mut self) -> Option<Answer> {
        frames::read(&mut self.answers).unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    pub fn send(&mut self, ask: request::Ask) {
        self.last_id += 1;
        let request = Request { id: self.last_id, ask: Some(ask) };
        self.stream.write_all(&frames::encode(&request).unwrap()).unwrap();
    }

    pub fn ask(&mut self, ask: request::Ask) -> answer::Answer {
        self.send(ask);
        let answer = self.next().expect("it has ended");
        assert_eq!(answer.id, self.last_id);
        answer.answer.expect("an answer")
    }

    pub fn refused(&mut self, ask: request::Ask) -> (RefusedKind, String) {
        match self.ask(ask) {
            answer::Answer::Refused(refused) => (refused.kind(), refused.text),
            other => panic!("instead of a refusal: {other:?}"),
        }
    }

    pub fn signed(&mut self, bytes: &SignBytes) -> Vec<u8> {
        match self.ask(sign(bytes)) {
            answer::Answer::Signatures(proto::Signatures { vote, extension: None }) => vote,
            other => panic!("instead of a signature of {}: {other:?}", bytes.place),
        }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn exit_code(&mut self) -> i32 {
        await_that("the end of the signer", || self.child.try_wait().unwrap()).code().expect("a code")
    }
}

pub fn reserve(bytes: &SignBytes) -> request::Ask {
    request::Ask::Reserve(proto::Reserve { sign_bytes: bytes.bytes() })
}

pub fn sign(bytes: &SignBytes) -> request::Ask {
    request::Ask::Sign(proto::Sign { sign_bytes: bytes.bytes(), extension: None })
}

pub fn sign_with(bytes: &SignBytes, extension: Vec<u8>) -> request::Ask {
    request::Ask::Sign(proto::Sign { sign_bytes: bytes.bytes(), extension: Some(extension) })
}

pub fn raise(height: u64, round: u32, step: u32) -> request::Ask {
    request::Ask::Raise(proto::Raise { place: Some(Hrs { height, round, step }.into()) })
}

pub fn raised(height: u64, round: u32, step: u32) -> answer::Answer {
    answer::Answer::Raised(proto::Raised { mark: Some(Hrs { height, round, step }.into()) })
}

pub fn reserved() -> answer::Answer {
    answer::Answer::Reserved(proto::Reserved {})
}

/// A vote on the chain `c-1`, for a block whose hash is `block`, or for none.
pub fn vote(step: u32, height: i64, round: i64, block: Option<u8>) -> SignBytes {
    vote_on("c-1", step, height, round, block)
}

pub fn vote_on(chain: &str, step: u32, height: i64, round: i64, block: Option<u8>) -> SignBytes {
    let kind = if step == Hrs::PREVOTE { chain::SignedMsgType::Prevote } else { chain::SignedMsgType::Precommit };
    let vote = chain::Vote {
        r#type: kind.into(),
        height,
        round,
        block_id: block.map(block_id),
        timestamp: Some(chain::Timestamp { seconds: 1_700_000_000, nanos: 5 }),
        chain_id: chain.into(),
    };
    SignBytes::of_vote(vote).unwrap()
}

pub fn proposal(height: i64, round: i64, block: u8) -> SignBytes {
    let proposal = chain::Proposal {
        r#type: chain::SignedMsgType::Proposal.into(),
        height,
        round,
        pol_round: -1,
        block_id: Some(block_id(block)),
        timestamp: Some(chain::Timestamp { seconds: 1_700_000_000, nanos: 5 }),
        chain_id: "c-1".into(),
    };
    SignBytes::of_proposal(proposal).unwrap()
}

fn block_id(hash: u8) -> chain::BlockId {
    let part_set_header = Some(chain::PartSetHeader { total: 1, hash: vec![hash; 32] });
    chain::BlockId { hash: vec![hash; 32], part_set_header }
}

/// Bytes of a vote extension on `c-1`.
pub fn extension(height: i64, round: i64, content: u8) -> Vec<u8> {
    let extension = chain::VoteExtension { extension: vec![content], height, round, chain_id: "c-1".into() };
    extension.encode_length_delimited_to_vec()
}
