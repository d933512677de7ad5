//! The wires of a network on loopback: one process with a TCP listener for every ordered pair of neighbours,
//! which copies bytes or, where a host is cut, holds them back without closing anything. Bytes that
//! were held arrive after the heal, as TCP would retransmit them; a new connection gets no further
//! than the proxy while one of its directions is cut. Bytes of a slow host arrive late, as over a long
//! way, or now and then very late, as where packets get lost. Started by the launcher.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::net::wires::{self, Board, Request, Wires};

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

/// What one host has sent to another since the proxies started, without the headers of TCP and IP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    pub from: String,
    pub to: String,
    pub plane: Plane,
    pub bytes: u64,
}

/// One entry for each direction of each wire, from the proxies that listen on `socket`.
pub fn carried(socket: &Path) -> Result<Vec<Carried>> {
    wires::converse(socket, &Request::Count)
}

/// Serves until the process is killed. The socket appears once every route listens.
/// Every piece takes `way` at least.
pub async fn serve(routes: Vec<Route>, way: Duration, socket: &Path) -> Result<()> {
    let board = Arc::new(Board::new(Default::default()));
    let mut counts = Vec::new();
    for route in routes {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, route.listen))
            .await
            .with_context(|| format!("listen on 127.0.0.1:{} for {} to {}", route.listen, route.from, route.to))?;
        let count = Arc::new(Count::default());
        counts.push((route.clone(), count.clone()));
        tokio::spawn(accept(listener, route, way, board.clone(), count));
    }
    board.serve(socket, || Ok(count(&counts))).await
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

async fn accept(listener: TcpListener, route: Route, way: Duration, board: Arc<Board>, count: Arc<Count>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(carry(client, route.clone(), way, board.clone(), count.clone()));
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
async fn carry(client: TcpStream, route: Route, way: Duration, board: Arc<Board>, count: Arc<Count>) {
    let [there, back] = [(&route.from, &route.to), (&route.to, &route.from)].map(|(from, to)| Flow { from, to, way });
    if !there.opens(&board).await || !back.opens(&board).await {
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
        there.copy(client_read, server_write, &board, &count.there),
        back.copy(server_read, client_write, &board, &count.back)
    );
}

/// Pieces of one flow between its ends.
const UNDER_WAY_MAX: usize = 256;

/// Empty at the end of the stream.
struct Piece {
    due: Instant,
    bytes: Vec<u8>,
}

/// Bytes on their way from one host to another.
struct Flow<'a> {
    from: &'a str,
    to: &'a str,
    /// What everything takes, slow hosts or not.
    way: Duration,
}

impl Flow<'_> {
    fn is_open(&self, wires: &Wires) -> bool {
        wires.cutters(self.from, self.to).next().is_none()
    }

    /// Waits until nothing is cut; false when the process ends.
    async fn opens(&self, board: &Board) -> bool {
        let mut wires = board.watch();
        wires.borrow().cutters(self.from, self.to).for_each(|host| board.strike(host));
        wires.wait_for(|wires| self.is_open(wires)).await.is_ok()
    }

    /// How long the next piece waits.
    fn wait(&self, board: &Board) -> Duration {
        let slow = board.watch().borrow().slow_ends(self.from, self.to);
        let wait = |(host, slow): (&str, crate::net::wires::Slow)| {
            board.strike(host);
            slow.delay() + Duration::from_millis(if slow.loses() { slow.retransmit_ms } else { 0 })
        };
        slow.into_iter().map(wait).sum()
    }

    /// The end of the stream is held back by a cut like its bytes. What comes while something is on its way is not held
    /// up by that, and arrives after it.
    async fn copy(&self, from: OwnedReadHalf, to: OwnedWriteHalf, board: &Board, count: &AtomicU64) {
        let (send, queue) = mpsc::channel(UNDER_WAY_MAX);
        tokio::join!(self.depart(from, send, board), self.arrive(queue, to, board, count));
    }

    async fn depart(&self, mut from: OwnedReadHalf, send: mpsc::Sender<Piece>, board: &Board) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read.unwrap_or(0),
                // The other end takes no more.
                () = send.closed() => return,
            };
            let due = Instant::now() + self.way + self.wait(board);
            if send.send(Piece { due, bytes: buffer[..read].to_vec() }).await.is_err() || read == 0 {
                return;
            }
        }
    }

    async fn arrive(&self, mut queue: mpsc::Receiver<Piece>, mut to: OwnedWriteHalf, board: &Board, count: &AtomicU64) {
        while let Some(Piece { due, bytes }) = queue.recv().await {
            if due > Instant::now() {
                sleep_until(due).await;
            }
            if !self.opens(board).await || bytes.is_empty() || to.write_all(&bytes).await.is_err() {
                break;
            }
            count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        queue.close();
        // Fails only when the other end is gone already.
        let _ = to.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAY: Duration = Duration::from_millis(20);
    const PIECES: u64 = 20;

    /// The pieces leave 2 ms apart, and would take `PIECES` ways if each waited for the one before.
    #[tokio::test]
    async fn each_piece_takes_its_way_and_none_waits_for_the_one_before() {
        let there = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = there.local_addr().unwrap().port();
        let route = Route { from: "a".into(), to: "b".into(), plane: Plane::Raft, listen: 0, target };
        let board = Arc::new(Board::new(Default::default()));
        let address = here.local_addr().unwrap();
        tokio::spawn(accept(here, route, WAY, board, Arc::default()));
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut server, _) = there.accept().await.unwrap();
        let began = Instant::now();
        let sent = tokio::spawn(async move {
            let mut at = Vec::new();
            for n in 0..PIECES {
                at.push(Instant::now());
                client.write_all(&[n as u8]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            (client, at)
        });
        let mut byte = [0];
        let mut came = Vec::new();
        for n in 0..PIECES {
            server.read_exact(&mut byte).await.unwrap();
            assert_eq!(u64::from(byte[0]), n, "in order");
            came.push(Instant::now());
        }
        let took = began.elapsed();
        let (_client, at) = sent.await.unwrap();
        assert!(at.iter().zip(&came).all(|(sent, came)| *came - *sent >= WAY), "{at:?} {came:?}");
        assert!(took < WAY * PIECES as u32, "{took:?}");
    }
}
