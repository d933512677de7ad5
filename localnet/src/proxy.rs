//! The wires of a network: one process with a TCP listener for every ordered pair of neighbours,
//! which copies bytes or, where a host is cut, holds them back without closing anything. Bytes that
//! were held arrive after the heal, as TCP would retransmit them; a new connection gets no further
//! than the proxy while one of its directions is cut. Bytes of a slow host arrive late, as over a long
//! way, or now and then very late, as where packets get lost. Started by the launcher, told what to do
//! over a unix socket with one JSON line a request.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

/// One wire: who dials `listen` is connected to `target`, both on 127.0.0.1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    pub from: String,
    pub to: String,
    pub plane: Plane,
    pub listen: u16,
    pub target: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    /// Between coordinators.
    Raft,
    /// Between chain nodes.
    Chain,
}

/// A direction as the cut host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    In,
    Out,
}

/// What becomes of the bytes of a slow host, either way. A stream stays in order, so what follows waits too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    /// Each piece waits for up to this long.
    pub delay_ms_max: u64,
    /// Of so many pieces in a hundred the first transmission is lost,
    pub lost_percent: u8,
    /// and so long passes until the second.
    pub retransmit_ms: u64,
}

impl Slow {
    fn wait(self) -> Duration {
        let lost = rand::random_range(0..100) < self.lost_percent;
        let retransmit = if lost { self.retransmit_ms } else { 0 };
        Duration::from_millis(rand::random_range(0..=self.delay_ms_max) + retransmit)
    }
}

/// How the wires are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wires {
    /// Every direction that is cut.
    pub cuts: BTreeSet<(String, Way)>,
    pub slow: BTreeMap<String, Slow>,
}

/// Answered with the [`Wires`] that are true afterwards.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    Cut {
        host: String,
        ways: Vec<Way>,
    },
    Slow {
        host: String,
        slow: Slow,
    },
    /// Nothing of the host is cut or slow.
    Heal {
        host: String,
    },
    List,
    /// Answered with a list of [`Carried`].
    Count,
}

/// What one host has sent to another since the proxies started, without the headers of TCP and IP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    pub from: String,
    pub to: String,
    pub plane: Plane,
    pub bytes: u64,
}

/// Asks the proxy that listens on `socket`.
pub fn ask(socket: &Path, request: &Request) -> Result<Wires> {
    converse(socket, request)
}

/// One entry for each direction of each wire.
pub fn carried(socket: &Path) -> Result<Vec<Carried>> {
    converse(socket, &Request::Count)
}

fn converse<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T> {
    let what = || format!("ask the proxies over {}", socket.display());
    let mut stream = StdUnixStream::connect(socket).with_context(what)?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).with_context(what)?;
    writeln!(stream, "{}", serde_json::to_string(request)?).with_context(what)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).with_context(what)?;
    serde_json::from_str(&line).with_context(|| format!("{}: answered {line:?}", what()))
}

/// Serves until the process is killed. The socket appears once every route listens.
pub async fn serve(routes: Vec<Route>, socket: &Path) -> Result<()> {
    let (tell, wires) = watch::channel(Wires::default());
    let mut counts = Vec::new();
    for route in routes {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, route.listen))
            .await
            .with_context(|| format!("listen on 127.0.0.1:{} for {} to {}", route.listen, route.from, route.to))?;
        let count = Arc::new(Count::default());
        counts.push((route.clone(), count.clone()));
        tokio::spawn(accept(listener, route, wires.clone(), count));
    }
    let control = UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))?;
    loop {
        let (stream, _) = control.accept().await.context("accept a control connection")?;
        if let Err(error) = answer(stream, &tell, &counts).await {
            eprintln!("control request: {error:#}");
        }
    }
}

/// Bytes carried by a wire.
#[derive(Default)]
struct Count {
    there: AtomicU64,
    back: AtomicU64,
}

fn count(counts: &[(Route, Arc<Count>)]) -> Vec<Carried> {
    let both = |(route, count): &(Route, Arc<Count>)| {
        let carried = |from: &str, to: &str, bytes: &AtomicU64| Carried {
            from: from.into(),
            to: to.into(),
            plane: route.plane,
            bytes: bytes.load(Ordering::Relaxed),
        };
        [carried(&route.from, &route.to, &count.there), carried(&route.to, &route.from, &count.back)]
    };
    counts.iter().flat_map(both).collect()
}

async fn answer(stream: UnixStream, tell: &watch::Sender<Wires>, counts: &[(Route, Arc<Count>)]) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let Some(line) = tokio::io::BufReader::new(read).lines().next_line().await? else { bail!("empty request") };
    let request = serde_json::from_str(&line).with_context(|| format!("request {line:?}"))?;
    let counted = matches!(request, Request::Count).then(|| count(counts));
    tell.send_modify(|wires| match request {
        Request::Cut { host, ways } => wires.cuts.extend(ways.into_iter().map(|way| (host.clone(), way))),
        Request::Slow { host, slow } => drop(wires.slow.insert(host, slow)),
        Request::Heal { host } => {
            wires.cuts.retain(|(cut, _)| *cut != host);
            wires.slow.remove(&host);
        }
        Request::List | Request::Count => {}
    });
    let text = match counted {
        Some(carried) => serde_json::to_string(&carried)?,
        None => serde_json::to_string(&*tell.borrow())?,
    };
    write.write_all((text + "\n").as_bytes()).await?;
    Ok(())
}

async fn accept(listener: TcpListener, route: Route, wires: watch::Receiver<Wires>, count: Arc<Count>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(carry(client, route.clone(), wires.clone(), count.clone()));
            }
            Err(error) => {
                // Out of descriptors, for one: others may be freed.
                eprintln!("accept for {} to {}: {error}", route.from, route.to);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Connects one client with the target, once both directions are open, and copies until both ended.
async fn carry(client: TcpStream, route: Route, mut wires: watch::Receiver<Wires>, count: Arc<Count>) {
    let (there, back) = (Flow::new(&route.from, &route.to), Flow::new(&route.to, &route.from));
    if wires.wait_for(|wires| there.open(wires) && back.open(wires)).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, route.target))).await else {
        return; // refused there, so closed here
    };
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return; // reset already
    }
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::join!(
        there.copy(client_read, server_write, wires.clone(), &count.there),
        back.copy(server_read, client_write, wires.clone(), &count.back)
    );
}

/// Bytes on their way from one host to another.
struct Flow {
    out_of: (String, Way),
    into: (String, Way),
}

impl Flow {
    fn new(from: &str, to: &str) -> Self {
        Flow { out_of: (from.into(), Way::Out), into: (to.into(), Way::In) }
    }

    fn open(&self, wires: &Wires) -> bool {
        !wires.cuts.contains(&self.out_of) && !wires.cuts.contains(&self.into)
    }

    fn wait(&self, wires: &Wires) -> Duration {
        [&self.out_of.0, &self.into.0].into_iter().filter_map(|host| wires.slow.get(host)).map(|slow| slow.wait()).sum()
    }

    /// The end of the stream is held back by a cut like its bytes.
    async fn copy(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        mut wires: watch::Receiver<Wires>,
        count: &AtomicU64,
    ) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer).await.unwrap_or(0);
            let wait = self.wait(&wires.borrow());
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            if wires.wait_for(|wires| self.open(wires)).await.is_err() || read == 0 {
                break;
            }
            if to.write_all(&buffer[..read]).await.is_err() {
                break;
            }
            count.fetch_add(read as u64, Ordering::Relaxed);
        }
        // Fails only when the other end is gone already.
        let _ = to.shutdown().await;
    }
}
