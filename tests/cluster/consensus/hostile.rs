//! Peers that flood, stall and exaggerate on the port of every member, while a holder's lease must live.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use baton::base::time::BootTime;
use baton::base::timing::Timing;
use baton::cluster::transport::MESSAGE_BYTES_MAX;
use baton::cluster::wire::proto::raft_client::RaftClient;
use baton::cluster::wire::{Message, OfLeader, SnapshotData, SnapshotMeta, SnapshotRequest, Vote};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic::transport::Channel;

use super::kit::{Cluster, Shape, candidacy, eventually, release};

/// More than a member lets in.
const SILENT: usize = 200;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// For how long everybody attacks: some leases.
const SIEGE: Duration = Duration::from_secs(11);
/// Before an attacker begins again: the tests share a machine with it.
const PAUSE: Duration = Duration::from_millis(20);

/// What the attackers of one member have seen.
#[derive(Default)]
struct Seen {
    /// Connections that the member closed.
    closed: AtomicUsize,
    /// Requests that it refused because of their size.
    too_large: AtomicUsize,
    /// Streams that were opened without ever reading.
    streams: AtomicUsize,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header of HTTP/2 in full: no table, no compression.
fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

fn request_head() -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/baton.v1.Raft/AppendEntries"),
        (":authority", "member"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    headers.iter().flat_map(|(name, value)| header(name, value)).collect()
}

async fn greeted(addr: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(&[PREFACE, &EMPTY_SETTINGS].concat()).await?;
    Ok(stream)
}

/// Connects and says nothing, until it is sent away.
async fn be_silent(addr: SocketAddr, seen: Arc<Seen>) {
    if let Ok(mut stream) = TcpStream::connect(addr).await {
        // It is greeted first.
        let mut greeting = [0; 64];
        while matches!(stream.read(&mut greeting).await, Ok(1..)) {}
    }
    seen.closed.fetch_add(1, Ordering::Relaxed);
}

/// A byte now and then, so that it is never silent and never done.
async fn drip(addr: SocketAddr) {
    loop {
        let Ok(mut stream) = TcpStream::connect(addr).await else { return };
        for byte in PREFACE {
            sleep(Duration::from_millis(300)).await;
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    }
}

/// Opens streams for as long as anything fits into the connection, and reads nothing until it is cut off; then again.
async fn never_read(addr: SocketAddr, seen: Arc<Seen>) {
    loop {
        let Ok(mut stream) = greeted(addr).await else { return };
        for number in (1..).step_by(2) {
            // Of a request that never comes.
            let head = frame(HEADERS, END_HEADERS, number, &request_head());
            if !matches!(timeout(SIEGE, stream.write_all(&head)).await, Ok(Ok(()))) {
                break;
            }
            seen.streams.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// One head of a request without an end.
async fn endless_head(addr: SocketAddr) {
    loop {
        let Ok(mut stream) = greeted(addr).await else { return };
        let mut bytes = frame(HEADERS, 0, 1, &request_head());
        while stream.write_all(&bytes).await.is_ok() {
            bytes = frame(CONTINUATION, 0, 1, &header("x-padding", &"x".repeat(120)).repeat(100));
        }
        sleep(PAUSE).await;
    }
}

/// Asks what is twice too large, again and again.
async fn exaggerate(addr: SocketAddr, sender: baton::cluster::wire::Sender, seen: Arc<Seen>) {
    let channel = Channel::from_shared(format!("http://{addr}")).expect("an address").connect_lazy();
    let vote = Vote::new_committed(1, sender.member.clone());
    let data = SnapshotData::from(vec![7; 2 * MESSAGE_BYTES_MAX]);
    let request = SnapshotRequest { vote, meta: SnapshotMeta::default(), data };
    let request = OfLeader { lease: None, request }.to_proto(&sender);
    loop {
        sleep(PAUSE).await;
        match RaftClient::new(channel.clone()).install_snapshot(request.clone()).await {
            Ok(answer) => panic!("took {answer:?} for a snapshot"),
            Err(status) if status.code() == Code::OutOfRange => {
                seen.too_large.fetch_add(1, Ordering::Relaxed);
            }
            // Displaced, or cut off in the midst of its message.
            Err(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_flood_of_a_port_stalls_the_lease_or_keeps_a_member_out() {
    // Raft waits for an answer in heartbeats: these are long enough for a busy machine.
    let timing = Timing::new(Duration::from_millis(500), Duration::from_secs(5), Duration::from_millis(50), 1000);
    let cluster = Cluster::led_by_a(Shape::arbiters(timing.expect("safe"))).await;
    // Threads of their own: they are other hosts, and cost the members no more than what arrives.
    let outside =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (mut attackers, mut seen) = (JoinSet::new(), Vec::new());
    for name in ["a", "b", "c"] {
        let addr = cluster.at(name).addr;
        let here = Arc::new(Seen::default());
        seen.push((name, Arc::clone(&here)));
        (0..SILENT).for_each(|_| drop(attackers.spawn_on(be_silent(addr, Arc::clone(&here)), outside.handle())));
        (0..10).for_each(|_| drop(attackers.spawn_on(drip(addr), outside.handle())));
        (0..2).for_each(|_| drop(attackers.spawn_on(never_read(addr, Arc::clone(&here)), outside.handle())));
        attackers.spawn_on(endless_head(addr), outside.handle());
        let other = if name == "b" { "c" } else { "b" };
        attackers.spawn_on(exaggerate(addr, cluster.sender(other), Arc::clone(&here)), outside.handle());
    }
    let began_at = BootTime::now();
    let (mut shortest, mut newcomers) = (Duration::MAX, 0);
    while BootTime::now().since(began_at) < SIEGE {
        let lease = cluster.lease("a");
        let since = BootTime::now().since(began_at);
        shortest = shortest.min(lease.unwrap_or_else(|| panic!("the lease ran out {since:?} into the siege")));
        // A member that comes anew, as after a restart.
        let channel = Channel::from_shared(format!("http://{}", cluster.at("b").addr)).expect("an address");
        let question = candidacy("c", 1).to_proto(&cluster.sender("c"));
        let mut newcomer = RaftClient::new(channel.connect_lazy());
        if let Ok(Ok(_)) = timeout(Duration::from_secs(2), newcomer.pre_vote(question)).await {
            newcomers += 1;
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(cluster.leads("a"), Some(1));
    cluster.at("a").consensus.propose(release(0)).await.expect("committed under siege");
    assert!(newcomers > 0, "no member got in");
    for (name, seen) in &seen {
        let count = |what: &AtomicUsize| what.load(Ordering::Relaxed);
        let told = || format!("{name}: {} closed, {} too large", count(&seen.closed), count(&seen.too_large));
        eventually("every silent connection is closed", || count(&seen.closed) == SILENT).await;
        eventually("what is too large is refused", || count(&seen.too_large) > 0).await;
        assert!(count(&seen.streams) > 0, "{}", told());
        println!("{}, {} streams; shortest lease {shortest:?}, {newcomers} newcomers", told(), count(&seen.streams));
    }
    attackers.shutdown().await;
    outside.shutdown_background();
    assert!(cluster.lease("a").is_some(), "it outlives the siege");
}
