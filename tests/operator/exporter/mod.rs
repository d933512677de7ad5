//! The exporter as a monitor meets it: over a real socket, with clients that are slow, many or gone.

mod page;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton::base::time::BootTime;
use baton::cluster::wire::proto::{MemberStatus, StatusResponse};
use baton::operator::exporter::{self, Overview, Place, Published, Vitals};
use baton::operator::metrics::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Far more than any answer here needs.
const GENEROUS: Duration = Duration::from_secs(30);

/// A running exporter; it stops when this is dropped.
struct Exporter {
    addr: SocketAddr,
    vitals: watch::Sender<Vitals>,
    overview: watch::Sender<Arc<Overview>>,
    _task: JoinSet<()>,
}

fn healthy() -> Vitals {
    Vitals { beat: BootTime::now(), ready: Ok(()), place: Place::Holder, node_pid: Some(4242) }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn exporter(vitals: Vitals) -> Exporter {
    let listener = exporter::bind(loopback()).await.expect("a free port");
    let addr = listener.local_addr().expect("its address");
    let (vitals, overview) = (watch::Sender::new(vitals), watch::Sender::default());
    let metrics = Metrics::new(BootTime::now());
    let published = Published { metrics, vitals: vitals.subscribe(), overview: overview.subscribe() };
    let mut task = JoinSet::new();
    task.spawn(exporter::serve(listener, published));
    Exporter { addr, vitals, overview, _task: task }
}

/// All that the server sends until it closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    timeout(GENEROUS, stream.read_to_string(&mut text)).await.expect("an end in time").expect("readable");
    text
}

/// Status code, head in lower case, body.
async fn get(addr: SocketAddr, path: &str) -> (u16, String, String) {
    let (code, head, body) = request(addr, "GET", path).await;
    (code, head.to_lowercase(), body)
}

/// Status code, head, body.
async fn request(addr: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(addr).await.expect("connected");
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let answer = rest(&mut stream).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.unwrap_or_else(|| panic!("no code in {head:?}")), head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let exporter = exporter(healthy()).await;
    let (code, head, body) = get(exporter.addr, "/metrics").await;
    assert_eq!(code, 200, "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("baton_state{type=\"Startup\"} 1\n"), "{body}");
}

#[tokio::test]
async fn health_turns_503_when_the_beat_stops_and_200_when_it_comes_back() {
    let exporter = exporter(healthy()).await;
    assert_eq!(get(exporter.addr, "/health").await.0, 200);
    let beat = BootTime::now() - Duration::from_secs(5);
    exporter.vitals.send_modify(|vitals| vitals.beat = beat);
    let (code, _, body) = get(exporter.addr, "/health").await;
    assert_eq!(code, 503, "{body}");
    assert!(body.contains("the coordinator hangs: its last beat was"), "{body}");
    exporter.vitals.send_modify(|vitals| vitals.beat = BootTime::now());
    assert_eq!(get(exporter.addr, "/health").await.0, 200);
}

#[tokio::test]
async fn a_driver_that_hangs_is_not_ready_whatever_it_said_last() {
    let exporter = exporter(healthy()).await;
    assert_eq!(get(exporter.addr, "/ready").await.0, 200);
    exporter.vitals.send_modify(|vitals| vitals.beat = BootTime::now() - Duration::from_secs(5));
    let (code, _, body) = get(exporter.addr, "/ready").await;
    assert_eq!(code, 503, "{body}");
    assert!(body.contains("the coordinator hangs: its last beat was"), "{body}");
    exporter.vitals.send_modify(|vitals| vitals.beat = BootTime::now());
    assert_eq!(get(exporter.addr, "/ready").await.0, 200);
}

#[tokio::test]
async fn ready_says_why_not() {
    let exporter = exporter(healthy()).await;
    assert_eq!(get(exporter.addr, "/ready").await.0, 200);
    exporter.vitals.send_modify(|vitals| vitals.ready = Err("the chain node is syncing".to_owned()));
    let (code, _, body) = get(exporter.addr, "/ready").await;
    assert_eq!((code, body.as_str()), (503, "the chain node is syncing\n"));
}

#[tokio::test]
async fn a_member_that_is_not_ready_is_healthy() {
    let exporter = exporter(Vitals { ready: Err("starting".to_owned()), ..healthy() }).await;
    exporter.vitals.send_modify(|vitals| vitals.beat = BootTime::now() + GENEROUS);
    assert_eq!(get(exporter.addr, "/ready").await.0, 503);
    assert_eq!(get(exporter.addr, "/health").await.0, 200);
}

#[tokio::test]
async fn each_role_has_an_address_that_is_200_on_its_hosts_alone() {
    let roles = ["/holder", "/standby", "/arbiter"];
    let exporter = exporter(healthy()).await;
    let holder = (Place::Holder, [200, 503, 503]);
    let standby = (Place::Beside { behind: 0 }, [503, 200, 503]);
    for (place, expected) in [holder, standby, (Place::Arbiter, [503, 503, 200])] {
        exporter.vitals.send_modify(|vitals| vitals.place = place);
        for (path, expected) in roles.into_iter().zip(expected) {
            for method in ["GET", "HEAD", "OPTIONS"] {
                let (code, _, body) = request(exporter.addr, method, path).await;
                assert_eq!(code, expected, "{method} {path} of {place:?}: {body}");
                assert_eq!(body.is_empty(), method == "HEAD", "{method} {path}: {body:?}");
            }
        }
    }
    exporter.vitals.send_modify(|vitals| vitals.beat = BootTime::now() - Duration::from_secs(5));
    for path in roles {
        let (code, _, body) = get(exporter.addr, path).await;
        assert!(code == 503 && body.contains("the coordinator hangs"), "{path}: {body}");
    }
}

#[tokio::test]
async fn a_standby_counts_as_one_while_it_is_ready_and_near_enough() {
    let exporter = exporter(Vitals { place: Place::Beside { behind: 3 }, ..healthy() }).await;
    let standby = async |query: &str| {
        let (code, _, body) = get(exporter.addr, &format!("/standby{query}")).await;
        (code, body)
    };
    assert_eq!(standby("").await, (200, "standby\n".to_owned()));
    assert_eq!(standby("?lag=3").await, (200, "standby\n".to_owned()));
    assert_eq!(standby("?lag=2").await, (503, "3 blocks behind another host, more than 2\n".to_owned()));
    for wrong in ["?lag=two", "?lags=2"] {
        assert_eq!(standby(wrong).await.0, 400, "{wrong}");
    }
    exporter.vitals.send_modify(|vitals| vitals.ready = Err("the chain node is syncing".to_owned()));
    assert_eq!(standby("?lag=3").await, (503, "the chain node is syncing\n".to_owned()));
}

#[test]
fn the_place_of_a_host_is_read_from_its_status() {
    let member = |id: &str, role: &str, height| MemberStatus {
        id: id.to_owned(),
        role: role.to_owned(),
        reachable: true,
        height,
        ..MemberStatus::default()
    };
    let mut active = member("a", "validator", 40);
    active.phase = "Active".to_owned();
    let mut lost = member("lost", "validator", 90);
    lost.reachable = false;
    let members = vec![active, member("b", "validator", 38), member("c", "arbiter", 0), lost];
    let seen_at = |id: &str| {
        let status = StatusResponse { member: id.to_owned(), members: members.clone(), ..StatusResponse::default() };
        Place::of(&status)
    };
    assert_eq!(["a", "b", "c"].map(seen_at), [Place::Holder, Place::Beside { behind: 2 }, Place::Arbiter]);
}

#[tokio::test]
async fn the_uptime_grows_from_one_scrape_to_the_next() {
    let exporter = exporter(healthy()).await;
    let mut uptimes = Vec::new();
    for _ in 0..2 {
        let (_, _, body) = get(exporter.addr, "/metrics").await;
        let shown = body.lines().find_map(|line| line.strip_prefix("baton_uptime_seconds "));
        uptimes.push(shown.and_then(|shown| shown.parse::<f64>().ok()).unwrap_or_else(|| panic!("{body}")));
    }
    assert!(0.0 < uptimes[0] && uptimes[0] < uptimes[1] && uptimes[1] < 60.0, "{uptimes:?}");
}

#[tokio::test]
async fn the_node_pid_is_a_bare_number_or_404() {
    let exporter = exporter(healthy()).await;
    let (code, _, body) = get(exporter.addr, "/node-pid").await;
    assert_eq!((code, body.as_str()), (200, "4242\n"));
    exporter.vitals.send_modify(|vitals| vitals.node_pid = None);
    assert_eq!(get(exporter.addr, "/node-pid").await.0, 404);
    assert_eq!(get(exporter.addr, "/other").await.0, 404);
}

#[tokio::test]
async fn the_last_vitals_are_still_told_when_the_driver_is_gone() {
    let exporter = exporter(healthy()).await;
    let Exporter { addr, vitals, overview: _, _task } = exporter;
    vitals.send_modify(|vitals| vitals.beat = BootTime::from_nanos(0));
    drop(vitals);
    assert_eq!(get(addr, "/health").await.0, 503);
    assert_eq!(get(addr, "/metrics").await.0, 200);
}

#[tokio::test]
async fn slow_clients_take_no_place_from_others_for_longer_than_their_time() {
    let exporter = exporter(healthy()).await;
    let started = Instant::now();
    let mut slow = Vec::new();
    // One place is left: with it a monitor is served at once.
    for _ in 0..63 {
        let mut stream = TcpStream::connect(exporter.addr).await.expect("connected");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.expect("written");
        slow.push(stream);
    }
    assert_eq!(get(exporter.addr, "/health").await.0, 200);
    let at_once = started.elapsed();
    assert!(at_once < Duration::from_secs(4), "a monitor waited {at_once:?} beside slow clients");
    // None is left: it is served when the slow ones have had their five seconds.
    let mut last = TcpStream::connect(exporter.addr).await.expect("connected");
    last.write_all(b"GET").await.expect("written");
    slow.push(last);
    exporter.vitals.send_modify(|vitals| vitals.beat = BootTime::now() + Duration::from_secs(60));
    assert_eq!(get(exporter.addr, "/health").await.0, 200);
    let waited = started.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(9)).contains(&waited), "served after {waited:?}");
    for stream in &mut slow {
        let answer = rest(stream).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
}

#[tokio::test]
async fn a_head_without_an_end_is_refused() {
    let exporter = exporter(healthy()).await;
    let mut stream = TcpStream::connect(exporter.addr).await.expect("connected");
    stream.write_all(b"GET /metrics HTTP/1.1\r\n").await.expect("written");
    let mut sent = 0;
    // It closes in the midst of it.
    while sent < 4 << 20
        && stream.write_all(b"X-Padding: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n").await.is_ok()
    {
        sent += 55;
    }
    assert!(sent < 4 << 20, "it took {sent} bytes of a head");
    assert_eq!(get(exporter.addr, "/health").await.0, 200);
}

#[tokio::test]
async fn an_address_in_use_is_one_line_that_names_the_key() {
    let first = exporter::bind(loopback()).await.expect("a free port");
    let addr = first.local_addr().expect("its address");
    let error = exporter::bind(addr).await.expect_err("in use").to_string();
    assert_eq!(
        error,
        format!("metrics.listen {addr} is in use by another program; stop that or choose another address")
    );
}

#[tokio::test]
async fn an_address_of_another_host_is_one_line_that_names_the_key() {
    // TEST-NET-1, which no host has.
    let addr = SocketAddr::from(([192, 0, 2, 1], 2233));
    let error = exporter::bind(addr).await.expect_err("not ours").to_string();
    assert!(error.starts_with("metrics.listen 192.0.2.1:2233 cannot be listened on: "), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}
