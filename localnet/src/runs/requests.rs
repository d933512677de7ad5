//! How long a chain node waits for a signature where the log decides what is signed: from request to answer, at the
//! holder and at the host that could take over, whose node asks at the same moment, as those of one chain do. The
//! coordinators are real; a stand-in (`chains/stand_in.rs`) runs in place of each chain node, and its requests are
//! made here, one after the other.

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use baton::host::privval::proto::message::Sum;
use baton::host::privval::proto::{Message, PingRequest, PubKeyRequest, SignVoteRequest, Vote};
use baton::host::privval::{FrameBuffer, encode};
use baton::host::sign_bytes::proto::{BlockId, PartSetHeader, SignedMsgType, Timestamp};
use rustix::process::Signal;
use serde::Serialize;

use crate::chains::stand_in;
use crate::hosts::faults::{self, What};
use crate::judge::table::table;
use crate::net::http;
use crate::net::{Host, Net, Shape};
use crate::process::launch;
use crate::process::limits::Confined;
use crate::process::procs;
use crate::runs::bench::percentile;
use crate::runs::demo::await_pair;

/// Of a coordinator that starts, and of one answer: it refuses by itself after 4 s.
const BOUND: Duration = Duration::from_secs(60);
/// A node pings its signer at least every 3.3 s.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Without a quorum.
const REFUSED: u64 = 3;
/// Before the first request that counts.
const WARM_UP: u64 = 20;

pub struct Plan {
    pub shape: Shape,
    /// At each of the two hosts.
    pub requests: u64,
}

/// Of one host's requests.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Took {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Answered by an error in place of a signature; their times count too.
    pub refused: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub requests: u64,
    pub delay_ms: u64,
    pub holder: Took,
    pub standby: Took,
    /// Places at which the two hosts gave different signatures.
    pub double: usize,
    /// While no other member answers.
    pub without_quorum: NoQuorum,
}

/// Of some requests at the holder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct NoQuorum {
    /// The longest until a refusal.
    pub refused_after_ms: f64,
    /// By what no other member had.
    pub signed: usize,
}

impl Report {
    /// With a quorum nothing was refused, without one nothing signed, and nothing signed twice.
    pub fn is_good(&self) -> bool {
        self.double == 0 && self.holder.refused + self.standby.refused == 0 && self.without_quorum.signed == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["from request to answer", "requests", "p50 ms", "p99 ms", "max ms", "refused"].map(String::from);
        let row = |name: &str, took: &Took| {
            let times = [took.p50_ms, took.p99_ms, took.max_ms].map(|ms| format!("{ms:.1}"));
            let mut cells = vec![name.to_string(), self.requests.to_string()];
            cells.extend(times);
            cells.push(took.refused.to_string());
            cells
        };
        f.write_str(&table(&[head.to_vec(), row("holder", &self.holder), row("standby", &self.standby)]))?;
        let NoQuorum { refused_after_ms, signed } = self.without_quorum;
        writeln!(f, "without a quorum: refused after at most {refused_after_ms:.1} ms, {signed} signed")?;
        writeln!(f, "places signed twice: {}", self.double)
    }
}

/// Brings coordinators up under `dir` and asks them.
pub fn run(dir: &Path, plan: &Plan) -> Result<Report> {
    let net = launch::prepare(dir, plan.shape)?;
    stand_in::take_the_place_of_nodes(&net)?;
    launch::start_wires(&net)?;
    let asked: Vec<Asker> = net.signers().map(|host| Asker::start(&net, host)).collect::<Result<_>>()?;
    launch::start_hosts(&net, &Confined::Free, |_| ())?;
    launch::with_diagnosis(&net, ask_all(&net, plan, &asked))
}

fn ask_all(net: &Net, plan: &Plan, askers: &[Asker]) -> Result<Report> {
    let pair = await_pair(net, |_| ())?;
    let of = |id: &str| askers.iter().find(|asker| asker.host == id).with_context(|| format!("nobody asks for {id}"));
    let both = [of(&pair.holder)?, of(&pair.standby)?];
    let (mut times, mut refused, mut double) = ([Vec::new(), Vec::new()], [0, 0], 0);
    for n in 0..WARM_UP + plan.requests {
        both.iter().try_for_each(|asker| asker.ask.send(n).context("an asker is gone"))?;
        let mut signatures = Vec::new();
        for (i, asker) in both.iter().enumerate() {
            let answer = asker.answers.recv_timeout(BOUND).with_context(|| format!("ask {}", asker.host))??;
            if n >= WARM_UP {
                times[i].push(answer.took);
                refused[i] += usize::from(answer.signature.is_none());
            }
            signatures.extend(answer.signature);
        }
        double += usize::from(signatures.windows(2).any(|pair| pair[0] != pair[1]));
    }
    if await_pair(net, |_| ())?.holder != pair.holder {
        bail!("the baton has moved meanwhile: these are no times of a holder");
    }
    let without_quorum = ask_without_quorum(net, both[0], WARM_UP + plan.requests)?;
    // It signs again by itself.
    await_pair(net, |_| ())?;
    let [holder, standby] = times;
    Ok(Report {
        requests: plan.requests,
        delay_ms: plan.shape.delay_ms,
        holder: Took::of(holder, refused[0])?,
        standby: Took::of(standby, refused[1])?,
        double,
        without_quorum,
    })
}

/// Every other coordinator is stopped meanwhile. The requests are numbered from `next` on.
fn ask_without_quorum(net: &Net, holder: &Asker, next: u64) -> Result<NoQuorum> {
    let others = net.hosts.iter().filter(|host| host.id != holder.host);
    let found = others.map(|host| faults::find(net, &host.id, What::Coordinator)).collect::<Result<Vec<_>>>()?;
    let others = found.concat();
    procs::signal(&others, Signal::STOP)?;
    let asked = (next..next + REFUSED).try_fold(NoQuorum::default(), |seen, n| {
        holder.ask.send(n).context("an asker is gone")?;
        let answer = holder.answers.recv_timeout(BOUND).context("ask without a quorum")??;
        let refused_after_ms = seen.refused_after_ms.max(answer.took.as_secs_f64() * 1000.0);
        Ok(NoQuorum { refused_after_ms, signed: seen.signed + usize::from(answer.signature.is_some()) })
    });
    procs::signal(&others, Signal::CONT)?;
    asked
}

impl Took {
    fn of(mut times: Vec<Duration>, refused: usize) -> Result<Took> {
        times.sort_unstable();
        let at = |percent| {
            let time = percentile(&times, percent).context("no request was made")?;
            Ok::<f64, anyhow::Error>((time.as_secs_f64() * 10_000.0).round() / 10.0)
        };
        Ok(Took { p50_ms: at(50)?, p99_ms: at(99)?, max_ms: at(100)?, refused })
    }
}

/// What the two hosts must agree on: the time that was signed, and the signature.
type SignedAt = (Option<Timestamp>, Vec<u8>);

struct Answer {
    took: Duration,
    /// `None`: refused.
    signature: Option<SignedAt>,
}

/// The signing half of a chain node, on a thread of its own.
struct Asker {
    host: String,
    ask: Sender<u64>,
    answers: Receiver<Result<Answer>>,
}

impl Asker {
    /// Listens once the stand-in runs: what was there before its start is removed.
    fn start(net: &Net, host: &Host) -> Result<Asker> {
        let chain = stand_in::chain_id(net, host)?;
        let (rpc, socket) = (host.rpc(), host.run_dir.join("privval.sock"));
        let (ask, asked) = channel();
        let (tell, answers) = channel();
        thread::spawn(move || {
            let began = Instant::now();
            while http::get_json(rpc, "/status").is_err() && began.elapsed() < BOUND {
                thread::sleep(Duration::from_millis(20));
            }
            let served = Node::await_signer(&socket, chain).and_then(|mut node| node.serve(&asked, &tell));
            if let Err(error) = served {
                let _ = tell.send(Err(error));
            }
        });
        Ok(Asker { host: host.id.clone(), ask, answers })
    }
}

struct Node {
    stream: UnixStream,
    unread: FrameBuffer,
    chain: String,
}

impl Node {
    fn await_signer(socket: &PathBuf, chain: String) -> Result<Node> {
        let what = || format!("listen at {}", socket.display());
        let listener = UnixListener::bind(socket).with_context(what)?;
        let (stream, _) = listener.accept().with_context(what)?;
        stream.set_read_timeout(Some(BOUND)).with_context(what)?;
        let mut node = Node { stream, unread: FrameBuffer::default(), chain };
        node.ask(Sum::PubKeyRequest(PubKeyRequest { chain_id: node.chain.clone() }))?;
        Ok(node)
    }

    /// Until nobody wants anything asked any more.
    fn serve(&mut self, asked: &Receiver<u64>, tell: &Sender<Result<Answer>>) -> Result<()> {
        loop {
            match asked.recv_timeout(PING_EVERY) {
                Ok(n) => {
                    let answer = self.sign(n)?;
                    if tell.send(Ok(answer)).is_err() {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => drop(self.ask(Sum::PingRequest(PingRequest {}))?),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn sign(&mut self, n: u64) -> Result<Answer> {
        let request =
            SignVoteRequest { vote: Some(vote(n)?), chain_id: self.chain.clone(), skip_extension_signing: false };
        let began = Instant::now();
        let answer = self.ask(Sum::SignVoteRequest(request))?;
        let took = began.elapsed();
        let Sum::SignedVoteResponse(response) = answer else { bail!("a request to sign was answered by {answer:?}") };
        let signature = match (response.vote, response.error) {
            (Some(vote), None) => Some((vote.timestamp, vote.signature)),
            (_, Some(_)) | (None, None) => None,
        };
        Ok(Answer { took, signature })
    }

    fn ask(&mut self, sum: Sum) -> Result<Sum> {
        self.stream.write_all(&encode(&Message { sum: Some(sum) })).context("ask the coordinator")?;
        let mut chunk = [0; 4096];
        loop {
            if let Some(message) = self.unread.take().context("the coordinator's answer")? {
                return message.sum.context("an empty answer");
            }
            match self.stream.read(&mut chunk).context("await an answer")? {
                0 => return Err(anyhow!("the coordinator has closed its connection")),
                read => self.unread.push(&chunk[..read]),
            }
        }
    }
}

/// The prevotes and precommits of one height after the other, for a block, at the present time.
fn vote(n: u64) -> Result<Vote> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?;
    let kind = if n.is_multiple_of(2) { SignedMsgType::Prevote } else { SignedMsgType::Precommit };
    let height = 1 + i64::try_from(n / 2)?;
    let mut hash = vec![7; 24];
    hash.extend(height.to_be_bytes());
    Ok(Vote {
        r#type: kind.into(),
        height,
        block_id: Some(BlockId { part_set_header: Some(PartSetHeader { total: 1, hash: hash.clone() }), hash }),
        timestamp: Some(Timestamp { seconds: now.as_secs() as i64, nanos: now.subsec_nanos() as i32 }),
        validator_address: vec![1; 20],
        ..Vote::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_for_a_place_above_the_one_before() {
        let places: Vec<(i64, i32)> = (0..4).map(|n| vote(n).map(|v| (v.height, v.r#type)).unwrap()).collect();
        assert_eq!(places, [(1, 1), (1, 2), (2, 1), (2, 2)]);
    }

    #[test]
    fn a_refusal_or_two_signatures_of_one_place_make_a_bad_report() {
        let took = |refused| Took::of((1..=200).map(Duration::from_millis).collect(), refused).unwrap();
        let report = |refused, double| {
            let (holder, standby, without_quorum) = (took(0), took(refused), NoQuorum::default());
            Report { requests: 200, delay_ms: 0, holder, standby, double, without_quorum }
        };
        let signed = NoQuorum { refused_after_ms: 900.0, signed: 1 };
        assert!(!Report { without_quorum: signed, ..report(0, 0) }.is_good());
        assert_eq!((took(0).p50_ms, took(0).p99_ms, took(0).max_ms), (100.0, 198.0, 200.0));
        assert!(report(0, 0).is_good() && !report(1, 0).is_good() && !report(0, 1).is_good());
        assert!(report(0, 0).to_string().contains("198.0"), "{}", report(0, 0));
    }
}
