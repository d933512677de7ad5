//! The connection to a chain node that asks for its signatures: against a fake node, which listens as a real one does,
//! and against a real one (`real_cometbft.rs`).

mod connection;
mod known;
mod real_cometbft;
mod requests;
mod sentry;
mod stale_socket;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use baton::base::privval_address::PrivvalAddress;
use baton::base::signing::{KeyKind, PublicKey, SignTime};
use baton::host::privval::proto::message::Sum;
use baton::host::privval::proto::{self, Message};
use baton::host::privval::{Ask, FrameBuffer, Link, Privval, PrivvalSettings, Refusal, Signed, encode};
use baton::host::sign_bytes::proto as canonical;
use canonical::SignedMsgType as Kind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Bound of everything that is awaited.
const SOON: Duration = Duration::from_secs(30);
const CHAIN: &str = "c-1";
const TIME: SignTime = SignTime { seconds: 1_700_000_000, nanos: 5 };
const OTHER_TIME: SignTime = SignTime { seconds: 1_699_999_999, nanos: 0 };

/// A chain node's side of the socket.
struct FakeNode {
    listener: UnixListener,
}

/// One signer's connection.
struct Signer {
    stream: UnixStream,
    unread: FrameBuffer,
}

impl FakeNode {
    fn at(path: &Path) -> FakeNode {
        FakeNode { listener: UnixListener::bind(path).expect("bind") }
    }

    async fn accept(&self) -> Signer {
        let (stream, _) = timeout(SOON, self.listener.accept()).await.expect("nobody dialled").expect("accept");
        Signer { stream, unread: FrameBuffer::default() }
    }
}

impl Signer {
    async fn say(&mut self, bytes: &[u8]) {
        timeout(SOON, self.stream.write_all(bytes)).await.expect("nobody reads").expect("write");
    }

    /// `None` when the connection is closed.
    async fn hear(&mut self) -> Option<Message> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(message) = self.unread.take().expect("a message") {
                return Some(message);
            }
            let read = timeout(SOON, self.stream.read(&mut chunk)).await.expect("no answer");
            match read {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.unread.push(&chunk[..read]),
            }
        }
    }

    async fn ask(&mut self, sum: Sum) {
        self.say(&encode(&Message { sum: Some(sum) })).await;
    }

    async fn answer_to(&mut self, sum: Sum) -> Sum {
        self.ask(sum).await;
        self.hear().await.expect("closed").sum.expect("an empty message")
    }

    async fn vote_answer(&mut self) -> proto::SignedVoteResponse {
        match self.hear().await.expect("closed").sum {
            Some(Sum::SignedVoteResponse(response)) => response,
            other => panic!("{other:?}"),
        }
    }
}

/// A dialler, the folder of its socket, and who decides what it signs.
struct Stage {
    folder: tempfile::TempDir,
    privval: Option<Privval>,
    asks: mpsc::Receiver<Ask>,
}

impl Stage {
    /// Nobody listens yet.
    fn new() -> Stage {
        Stage::with_key(PublicKey { kind: KeyKind::Ed25519, bytes: vec![5; 32] })
    }

    fn with_key(public_key: PublicKey) -> Stage {
        keep_logs();
        let folder = tempfile::tempdir().expect("folder");
        let address = PrivvalAddress::Unix(folder.path().join("privval.sock"));
        let (wanted, asks) = mpsc::channel(1);
        let privval = Privval::dial(PrivvalSettings { address, node: "gaiad".into() }, public_key, wanted);
        Stage { folder, privval: Some(privval), asks }
    }

    async fn connected() -> (Stage, FakeNode, Signer) {
        let stage = Stage::new();
        let node = FakeNode::at(&stage.socket());
        let signer = node.accept().await;
        (stage, node, signer)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("privval.sock")
    }

    async fn next_ask(&mut self) -> Ask {
        timeout(SOON, self.asks.recv()).await.expect("nothing was asked").expect("the dialler ended")
    }

    fn privval(&self) -> &Privval {
        self.privval.as_ref().expect("it dials")
    }

    async fn until(&self, what: &str, reached: impl Fn(&Link) -> bool) -> Link {
        let mut link = self.privval().link();
        let found = timeout(SOON, link.wait_for(|link| reached(link))).await;
        match found {
            Ok(found) => found.expect("the dialler ended").clone(),
            Err(_) => panic!("{what}: {:?}", self.privval().link().borrow()),
        }
    }
}

thread_local! {
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Into the memory of each thread, which is that of one test. One subscriber for all, before anything is logged: with
/// one a test, a line that another thread is about to log for the first time may be lost.
fn keep_logs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let lines = tracing_subscriber::fmt().with_ansi(false).without_time().with_target(false);
        let lines = lines.with_writer(|| Logged).finish();
        tracing::subscriber::set_global_default(lines).expect("the only one");
    });
}

/// What was logged in this thread.
fn logged() -> String {
    LOGGED.with_borrow(|logged| String::from_utf8_lossy(logged).into_owned())
}

struct Logged;

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn block() -> canonical::BlockId {
    let part_set_header = Some(canonical::PartSetHeader { total: 1, hash: vec![7; 32] });
    canonical::BlockId { hash: vec![9; 32], part_set_header }
}

fn timestamp(time: SignTime) -> canonical::Timestamp {
    canonical::Timestamp { seconds: time.seconds, nanos: time.nanos }
}

fn vote(kind: Kind, block_id: Option<canonical::BlockId>) -> proto::Vote {
    proto::Vote {
        r#type: kind.into(),
        height: 12,
        round: 1,
        // As the node writes a vote for nil.
        block_id: Some(
            block_id.unwrap_or(canonical::BlockId { hash: vec![], part_set_header: Some(Default::default()) }),
        ),
        timestamp: Some(timestamp(TIME)),
        validator_address: vec![3; 20],
        validator_index: 2,
        ..Default::default()
    }
}

fn precommit(extension: &[u8]) -> proto::Vote {
    proto::Vote { extension: extension.to_vec(), ..vote(Kind::Precommit, Some(block())) }
}

fn proposal() -> proto::Proposal {
    proto::Proposal {
        r#type: Kind::Proposal.into(),
        height: 12,
        round: 0,
        pol_round: -1,
        block_id: Some(block()),
        timestamp: Some(timestamp(TIME)),
        signature: Vec::new(),
    }
}

fn sign_vote(vote: proto::Vote) -> Sum {
    let request = proto::SignVoteRequest { vote: Some(vote), chain_id: CHAIN.into(), skip_extension_signing: false };
    Sum::SignVoteRequest(request)
}

fn sign_proposal(proposal: proto::Proposal) -> Sum {
    Sum::SignProposalRequest(proto::SignProposalRequest { proposal: Some(proposal), chain_id: CHAIN.into() })
}

fn ping() -> Sum {
    Sum::PingRequest(proto::PingRequest {})
}

fn signed(extension: Option<&[u8]>) -> Result<Signed, Refusal> {
    Ok(Signed { time: TIME, signature: b"signature".to_vec(), extension: extension.map(<[u8]>::to_vec) })
}

fn refused(why: &str) -> Option<proto::RemoteSignerError> {
    Some(proto::RemoteSignerError { code: 0, description: why.to_owned() })
}
