//! Three coordinators with real signers, two of them with a chain node that is half a script and half this test: a
//! process answers its probes, and the test asks for its signatures. No chain is there, so whatever is asked may be
//! signed, and each test says itself what comes next.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use baton::base::time::WallTime;
use baton::host::privval::proto::message::Sum;
use baton::host::privval::proto::{Message, PubKeyRequest, SignVoteRequest, Vote};
use baton::host::privval::{FrameBuffer, encode};
use baton::host::sign_bytes::proto::{BlockId, PartSetHeader, SignedMsgType, Timestamp};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::kit::host::write_key;
use crate::kit::program::{Running, baton, coordinator_in, free_addresses};
use crate::kit::stage::Stage;

const CHAIN: &str = "c-1";
/// tmkms' softsign: base64 of a seed of zeros, of no key that anybody uses.
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const SENTRY: &str = "sentry.sock";
const BOUND: Duration = Duration::from_secs(90);

const CONFIG: &str = r#"
[member]
id = "ID"
state_dir = "state"
run_dir = "run"
[cluster]
name = "signing"
listen = "LISTEN"
members = [
  { id = "a", addr = "ADDR-A", priority = 100 },
  { id = "b", addr = "ADDR-B", priority = 90 },
  { id = "c", addr = "ADDR-C", role = "arbiter" },
]
[timing]
profile = "signer"
"#;

const WITH_NODE: &str = r#"
[chain]
driver = "cometbft"
custody = "signer"
home = "home"
command = ["ME", "--ignored", "--exact", "signing::node_process"]
env = { SIGNING_NODE = "NODE" }
[chain.probe]
url = "http://NODE/status"
every = "100ms"
[signer]
key = "key"
sentries = ["unix://SENTRY"]
"#;

/// Two leases of profile `signer`: later, nothing is signed that was asked for.
const HOLD_MAX: Duration = Duration::from_millis(900);

/// How a request is refused that nobody has admitted.
pub const HELD: &str = "no quorum is there";

/// By a host that has not heard of the import.
const NOT_OPEN: &str = "no mark was imported";

/// What a chain node is answered.
pub type Answer = Result<(Timestamp, Vec<u8>), String>;

/// Ended in this order: whoever holds a socket of a coordinator goes first.
pub struct Host {
    node: Option<Node>,
    coordinator: Running,
    stage: Stage,
}

impl Host {
    fn start(id: &str, config: &str, rpc: Option<&str>) -> Host {
        let stage = Stage::new(config);
        if rpc.is_some() {
            fs::create_dir_all(stage.path("home/config")).expect("a folder");
            let laddr = format!("priv_validator_laddr = \"unix://{}\"", stage.path("run/privval.sock").display());
            fs::write(stage.path("home/config/config.toml"), laddr).expect("a file");
            let genesis = json!({ "chain_id": CHAIN }).to_string();
            fs::write(stage.path("home/config/genesis.json"), genesis).expect("a file");
            write_key(&stage.path("key"), KEY);
        }
        let coordinator = Running(coordinator_in(&stage).spawn().expect(id));
        let mut host = Host { node: None, coordinator, stage };
        if let Some(rpc) = rpc {
            // What was at the socket before the node's start is removed.
            host.stage.until("a node", || std::net::TcpStream::connect(rpc).ok());
            host.node = Some(Node::await_signer(&host.stage.path("run/privval.sock")));
        }
        host
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.stage.path(name)
    }

    pub fn baton(&self, args: &[&str]) -> Command {
        let mut command = baton(args);
        command.args(["--config", "baton.toml"]).current_dir(&*self.stage);
        command
    }

    fn status(&self) -> Value {
        let output = self.baton(&["status", "--json"]).output().expect("it runs");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// CometBFT's own example, which nobody uses.
    pub fn give_another_key(&self) {
        let half = |kind: &str, value: &str| json!({"type": format!("tendermint/{kind}Ed25519"), "value": value});
        let public = half("PubKey", "UjxDQgVTlHJOZ7axpMl/iczMIJXiQpFxCFjwKGvzYqE=");
        let key = json!({"address": "00", "pub_key": public, "priv_key": half("PrivKey", "of nobody")});
        write_key(&self.path("key"), &key.to_string());
    }

    pub fn kill(&mut self) {
        self.coordinator.0.kill().expect("it runs");
        self.coordinator.0.wait().expect("it ends");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.coordinator.0.id() as i32).expect("a process");
        kill_process(pid, signal).expect("it runs");
    }

    pub fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("a host with a chain node")
    }
}

/// Whose log has a mark below all that is asked for.
pub struct Cluster {
    /// Those with a chain node.
    hosts: [Host; 2],
    arbiter: Host,
    /// Which of them held the baton when it was last looked for. On a busy machine it moves.
    holder: usize,
    height: i64,
    folder: tempfile::TempDir,
}

impl Cluster {
    pub fn start() -> Cluster {
        let [a, b, c, rpc_a, rpc_b] = free_addresses();
        let me = std::env::current_exe().expect("this program");
        let folder = tempfile::tempdir().expect("a folder");
        let sentry = folder.path().join(SENTRY);
        let config = |id: &str, listen: &str, rpc: Option<&str>| {
            let node = rpc
                .map(|rpc| WITH_NODE.replace("NODE\"", &format!("{rpc}\"")).replace("//NODE/", &format!("//{rpc}/")));
            let text = format!("{CONFIG}{}", node.unwrap_or_default()).replace("ID", id).replace("LISTEN", listen);
            let text = text.replace("ADDR-A", &a).replace("ADDR-B", &b).replace("ADDR-C", &c);
            text.replace("ME", me.to_str().expect("UTF-8")).replace("SENTRY", sentry.to_str().expect("UTF-8"))
        };
        let arbiter = Host::start("c", &config("c", &c, None), None);
        let of_a = Host::start("a", &config("a", &a, Some(&rpc_a)), Some(&rpc_a));
        let of_b = Host::start("b", &config("b", &b, Some(&rpc_b)), Some(&rpc_b));
        let cluster = Cluster { hosts: [of_a, of_b], arbiter, holder: 0, height: 0, folder };
        let of_a = &cluster.hosts[0];
        fs::write(of_a.path("state.json"), r#"{"height": "0", "round": 0, "step": 0}"#).expect("a record");
        let import = ["signer", "import", "--state", "state.json"];
        of_a.stage.until("imported", || of_a.baton(&import).output().ok()?.status.success().then_some(()));
        cluster
    }

    /// A node that neither host runs. The holder dials it.
    pub fn sentry(&self) -> Node {
        Node::await_signer(&self.folder.path().join(SENTRY))
    }

    /// At a height that nobody has asked for.
    pub fn next_height(&mut self) -> i64 {
        self.height += 1;
        self.height
    }

    /// A node has just got a signature that nobody else has asked for: its host holds the baton.
    pub fn find_holder(&mut self) {
        let began_at = Instant::now();
        loop {
            let vote = prevote(self.next_height(), 1, 1);
            let Err(why) = self.holder().node().ask(&vote) else { return };
            let (status, log) = (self.holder().status(), self.holder().stage.log());
            assert!(began_at.elapsed() < BOUND, "{why}\n{status}\n{log}");
            self.holder = 1 - self.holder;
        }
    }

    pub fn holder(&mut self) -> &mut Host {
        &mut self.hosts[self.holder]
    }

    pub fn standby(&mut self) -> &mut Host {
        &mut self.hosts[1 - self.holder]
    }

    pub fn agreed_key(&self) -> String {
        self.hosts[self.holder].status()["signer"]["key"].as_str().expect("a key").to_owned()
    }

    pub fn hold_back_the_quorum(&self) {
        self.signal_others(Signal::STOP);
    }

    pub fn let_the_quorum_go_on(&self) {
        self.signal_others(Signal::CONT);
    }

    pub fn freeze_the_holder(&self) {
        self.hosts[self.holder].signal(Signal::STOP);
    }

    /// The other host signs above all that the last holder's node has asked for, until all of that is late.
    pub fn await_another_holder(&mut self) {
        let (began_at, mut signed) = (Instant::now(), false);
        self.holder = 1 - self.holder;
        while !signed || began_at.elapsed() < HOLD_MAX {
            let vote = prevote(self.next_height(), 3, 1);
            signed = match self.holder().node().ask(&vote) {
                Ok(_) => true,
                Err(why) => {
                    assert!(began_at.elapsed() < BOUND, "{why}\n{}", self.holder().stage.log());
                    signed
                }
            };
        }
    }

    pub fn thaw_the_last_holder(&self) {
        self.hosts[1 - self.holder].signal(Signal::CONT);
    }

    fn signal_others(&self, signal: Signal) {
        for host in [&self.hosts[1 - self.holder], &self.arbiter] {
            host.signal(signal);
        }
    }
}

/// The half of a chain node that asks.
pub struct Node {
    listener: UnixListener,
    stream: UnixStream,
    unread: FrameBuffer,
}

impl Node {
    fn await_signer(socket: &Path) -> Node {
        let listener = UnixListener::bind(socket).expect("a socket");
        let stream = accept(&listener);
        let mut node = Node { listener, stream, unread: FrameBuffer::default() };
        node.learn_key();
        node
    }

    fn learn_key(&mut self) {
        let asked = PubKeyRequest { chain_id: CHAIN.into() };
        self.write(Sum::PubKeyRequest(asked));
        assert!(matches!(self.read(), Some(Sum::PubKeyResponse(_))), "no public key");
    }

    pub fn ask(&mut self, vote: &Vote) -> Answer {
        self.send(vote);
        self.answer()
    }

    /// Of what was admitted before: asked again while its host has not heard of that.
    pub fn ask_along(&mut self, vote: &Vote) -> Answer {
        let began_at = Instant::now();
        loop {
            match self.ask(vote) {
                Err(why) if [HELD, NOT_OPEN].iter().any(|of| why.contains(of)) && began_at.elapsed() < BOUND => {}
                answer => return answer,
            }
        }
    }

    pub fn send(&mut self, vote: &Vote) {
        let request =
            SignVoteRequest { vote: Some(vote.clone()), chain_id: CHAIN.into(), skip_extension_signing: false };
        self.write(Sum::SignVoteRequest(request));
    }

    pub fn answer(&mut self) -> Answer {
        match self.read() {
            Some(Sum::SignedVoteResponse(response)) => match (response.vote, response.error) {
                (Some(vote), None) => Ok((vote.timestamp.expect("a time"), vote.signature)),
                (None, Some(error)) => Err(error.description),
                (vote, error) => panic!("{vote:?} and {error:?}"),
            },
            Some(other) => panic!("{other:?}"),
            // A sentry is let go when the baton moves, and dialled by the next holder.
            None => {
                (self.stream, self.unread) = (accept(&self.listener), FrameBuffer::default());
                Err("its signer has let it go".to_owned())
            }
        }
    }

    fn write(&mut self, sum: Sum) {
        // Of a connection that is lost no answer comes.
        let _ = self.stream.write_all(&encode(&Message { sum: Some(sum) }));
    }

    /// `None` once the connection is lost.
    fn read(&mut self) -> Option<Sum> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(message) = self.unread.take().expect("a message") {
                return Some(message.sum.expect("an answer"));
            }
            let read = self.stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
            self.unread.push(&chunk[..read]);
        }
    }
}

fn accept(listener: &UnixListener) -> UnixStream {
    let (stream, _) = listener.accept().expect("a signer");
    stream.set_read_timeout(Some(BOUND)).expect("a socket");
    stream
}

/// For the block whose hash is `block`, cast at the second `at`.
pub fn prevote(height: i64, block: u8, at: i64) -> Vote {
    let hash = vec![block; 32];
    Vote {
        r#type: SignedMsgType::Prevote.into(),
        height,
        block_id: Some(BlockId { part_set_header: Some(PartSetHeader { total: 1, hash: hash.clone() }), hash }),
        timestamp: Some(Timestamp { seconds: at, nanos: 0 }),
        validator_address: vec![1; 20],
        ..Vote::default()
    }
}

/// The half of a chain node that answers probes: a block a second, and in sync.
pub fn answer_probes(addr: &str) {
    for stream in TcpListener::bind(addr).expect("its address").incoming().flatten() {
        // Whoever asked may be gone.
        let _ = answer_probe(stream);
    }
}

fn answer_probe(mut stream: std::net::TcpStream) -> std::io::Result<()> {
    let mut request = [0; 4096];
    if stream.read(&mut request)? == 0 {
        return Ok(());
    }
    let head = WallTime::now().as_nanos() / 1_000_000_000;
    let made_at = WallTime::from_nanos(head * 1_000_000_000).to_string();
    let sync = json!({"latest_block_height": head.to_string(), "latest_block_time": made_at, "catching_up": false});
    let body = json!({"result": {"node_info": {"version": "1"}, "sync_info": sync}}).to_string();
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
