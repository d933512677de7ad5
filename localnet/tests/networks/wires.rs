//! The network without baton: wires that are cut, and a stand-in chain across them.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Ground, LOCALNET};
use localnet::chains::sim;
use localnet::judge::check::check;
use localnet::judge::measure::Watch;
use localnet::net::http;
use localnet::net::proxy::Plane;
use localnet::net::wires::{Request, Slow, Way, Wires, ask};
use localnet::net::{ChainKind, Net, Shape};
use localnet::process::launch;
use localnet::process::procs::{MARKER, marked};

const SILENCE: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(10);

/// Wires alone, laid out for a network of which nothing else runs.
fn wired(ground: &Ground) -> Net {
    let net = launch::prepare(&ground.dir, Shape::usual(ChainKind::Sim)).unwrap();
    launch::start_wires(&net).unwrap();
    net
}

/// What host-c has when host-a dials it, and host-a's end.
fn connect(net: &Net, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let wire = net.route("host-a", "host-c", Plane::Raft).unwrap().listen;
    let client = TcpStream::connect(("127.0.0.1", wire)).unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    (client, server)
}

fn listen(net: &Net) -> TcpListener {
    TcpListener::bind(("127.0.0.1", net.host("host-c").unwrap().raft_port)).unwrap()
}

fn assert_silent(stream: &mut TcpStream, what: &str) {
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let got = stream.read(&mut [0; 64]);
    let silent = matches!(&got, Err(e) if e.kind() == ErrorKind::WouldBlock);
    assert!(silent, "{what}: expected silence, got {got:?}");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
}

fn assert_receives(stream: &mut TcpStream, text: &str) {
    let mut got = vec![0; text.len()];
    stream.read_exact(&mut got).unwrap_or_else(|e| panic!("expected {text:?}, got {e}"));
    assert_eq!(String::from_utf8_lossy(&got), text);
}

#[test]
fn a_one_way_cut_holds_back_one_direction_and_the_heal_delivers_what_was_held() {
    let ground = Ground::new();
    let net = wired(&ground);
    let listener = listen(&net);
    let (mut client, mut server) = connect(&net, &listener);
    client.write_all(b"before").unwrap();
    assert_receives(&mut server, "before");

    ask(&net.wires_socket(), &Request::Cut { host: "host-a".into(), ways: vec![Way::Out] }).unwrap();
    client.write_all(b"held").unwrap();
    assert_silent(&mut server, "out of host-a is cut");
    server.write_all(b"answer").unwrap();
    assert_receives(&mut client, "answer");

    let wires = ask(&net.wires_socket(), &Request::Heal { host: "host-a".into() }).unwrap();
    assert_eq!(wires, Wires::default());
    assert_receives(&mut server, "held");
}

#[test]
fn a_slow_wire_delivers_late_and_in_order_until_it_is_healed() {
    let ground = Ground::new();
    let net = wired(&ground);
    let (mut client, mut server) = connect(&net, &listen(&net));
    let slow =
        Slow { delay_ms_max: 0, lost_percent: 100, retransmit_ms: 2 * SILENCE.as_millis() as u64, ..Slow::default() };
    ask(&net.wires_socket(), &Request::Slow { host: "host-c".into(), slow }).unwrap();
    client.write_all(b"one").unwrap();
    assert_silent(&mut server, "the first transmission was lost");
    client.write_all(b"two").unwrap();
    ask(&net.wires_socket(), &Request::Heal { host: "host-c".into() }).unwrap();
    assert_receives(&mut server, "onetwo");
}

#[test]
fn a_cut_hides_the_end_of_a_connection_and_keeps_new_ones_from_getting_through() {
    let ground = Ground::new();
    let net = wired(&ground);
    let listener = listen(&net);
    let (client, mut server) = connect(&net, &listener);
    ask(&net.wires_socket(), &Request::Cut { host: "host-c".into(), ways: vec![Way::In] }).unwrap();
    drop(client);
    assert_silent(&mut server, "the other end died behind a cut");

    let wire = net.route("host-b", "host-c", Plane::Raft).unwrap().listen;
    let mut fresh = TcpStream::connect(("127.0.0.1", wire)).unwrap();
    fresh.write_all(b"hello").unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_silent(&mut fresh, "a new connection across a cut");
    let reached = listener.accept();
    assert!(matches!(&reached, Err(e) if e.kind() == ErrorKind::WouldBlock), "{reached:?}");

    ask(&net.wires_socket(), &Request::Heal { host: "host-c".into() }).unwrap();
    assert_eq!(server.read(&mut [0; 8]).unwrap(), 0, "the end arrives after the heal");
}

/// A chain node of host-a, which is no validator, run by the test itself.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn height(net: &Net, id: &str) -> u64 {
    let node = net.chain_nodes().into_iter().find(|node| node.name == id).unwrap();
    let status = http::get_json(node.rpc, "/status");
    status.ok().and_then(|s| s["sync_info"]["latest_block_height"].as_u64()).unwrap_or(0)
}

fn await_true(what: &str, check: impl Fn() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The chain node of a host, which signs with the shared key when `validating`.
fn start_node(net: &Net, id: &str, validating: bool) -> Node {
    let host = net.host(id).unwrap();
    let home = net.chain_home(id);
    if validating {
        symlink(net.keys_dir().join("shared.json"), home.join("validator_key.json")).unwrap();
    }
    let mut command = sim::node_command(net, id, &home, host.rpc(), host.p2p());
    // Marked, so that it ends with the network even when the test is killed.
    command.env(MARKER, &net.dir).stdout(Stdio::null());
    Node(command.spawn().unwrap())
}

#[test]
fn a_host_behind_a_cut_falls_behind_the_chain_and_catches_up_after_the_heal() {
    let ground = Ground::new();
    let net = wired(&ground);
    launch::start_validators(&net).unwrap();
    let _node = start_node(&net, "host-a", false);
    await_true("host-a follows the chain", || height(&net, "host-a") > 5);

    ask(&net.wires_socket(), &Request::Cut { host: "host-a".into(), ways: vec![Way::In, Way::Out] }).unwrap();
    let cut_at = height(&net, "val-1");
    await_true("the others go on", || height(&net, "val-1") > cut_at + 20);
    let behind = height(&net, "host-a");
    assert!(behind < cut_at + 10, "host-a at {behind}, cut at {cut_at}");

    ask(&net.wires_socket(), &Request::Heal { host: "host-a".into() }).unwrap();
    await_true("host-a catches up", || height(&net, "host-a") > cut_at + 20);
}

#[test]
fn one_host_with_the_shared_key_is_judged_clean_and_a_second_one_is_caught() {
    let ground = Ground::new();
    let net = wired(&ground);
    launch::start_validators(&net).unwrap();
    let error = check(&net).unwrap_err().to_string();
    assert!(error.contains("nothing to judge"), "{error}");

    let mut watch = Watch::begin(&net).unwrap();
    let _first = start_node(&net, "host-a", true);
    let signed = watch.await_next(0, "host-b", PATIENCE).unwrap();
    assert_eq!(signed.host, "host-a", "{signed:?}");
    let verdict = check(&net).unwrap();
    assert!(verdict.is_clean(), "{verdict}");

    let _second = start_node(&net, "host-b", true);
    let next = watch.await_next(signed.at_ns, "host-a", PATIENCE).unwrap();
    assert_eq!(next.host, "host-b", "{next:?}");
    await_true("the checker sees two signers", || {
        let verdict = check(&net).unwrap();
        verdict.overlap > 0 && verdict.doubles > 0 && verdict.evidence > 0
    });
}

#[test]
fn a_network_dies_with_the_process_that_keeps_it_even_by_sigkill() {
    let ground = Ground::new();
    let net = wired(&ground);
    assert_eq!(marked(&net.dir).len(), 1, "{:?}", marked(&net.dir));
    // A shell holds the keeper's pipe; the network is the same one.
    let script = format!("sleep 600 | '{LOCALNET}' --dir '{}' keeper & echo started; wait", net.dir.display());
    let mut shell = Command::new("setsid")
        .args(["sh", "-c", &script])
        .env("BATON_LOCALNET_TEST", &net.dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut started = [0; 8];
    shell.stdout.as_mut().unwrap().read_exact(&mut started).unwrap();
    kill_sleepers(&net);
    await_true("the keeper swept the network", || marked(&net.dir).is_empty());
    shell.kill().unwrap();
    shell.wait().unwrap();
}

/// SIGKILL to the process that holds the pipe, found by the variable that the test gave it.
fn kill_sleepers(net: &Net) {
    let wanted = format!("BATON_LOCALNET_TEST={}", net.dir.display());
    let is_sleeper = |pid: &i32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        String::from_utf8_lossy(&environ).split('\0').any(|line| line == wanted) && comm.trim() == "sleep"
    };
    await_true("a sleeper was found", || {
        let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        let sleepers: Vec<i32> = pids.filter(is_sleeper).collect();
        for pid in &sleepers {
            let pid = rustix::process::Pid::from_raw(*pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        !sleepers.is_empty()
    });
}
