//! Hosts in network namespaces of their own: packets that a cut drops in one direction, a clock that is stepped for
//! one host, a disk that is full, and nothing left of it all when the nemesis is killed. Without root these tests
//! say so and pass, unless BATON_REQUIRE_NAMESPACES is set.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::Ground;
use localnet::hosts::clock;
use localnet::hosts::faults;
use localnet::judge::status::{for_people, query_host};
use localnet::net::namespaces;
use localnet::net::wires::{Request, Way, ask};
use localnet::net::{self, ChainKind, Net, Shape};
use localnet::process::launch::{self, with_diagnosis};
use localnet::process::procs::marked;
use localnet::runs::demo::{ask_baton, await_pair};

const PATIENCE: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_millis(600);

/// The calling thread has a network and a view of mounts of its own.
fn entered() -> bool {
    let Err(error) = namespaces::enter() else { return true };
    assert!(std::env::var_os("BATON_REQUIRE_NAMESPACES").is_none(), "{error:#}");
    eprintln!("left out: {error:#}");
    false
}

fn laid_out(ground: &Ground) -> Net {
    launch::prepare(&ground.dir, Shape { ground: net::Ground::Namespaces, ..Shape::usual(ChainKind::Sim) }).unwrap()
}

fn await_true(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A connection from host-a to host-c, with both ends here.
fn connect(net: &Net) -> (TcpStream, TcpStream) {
    let wires = ask(&net.wires_socket(), &Request::List).unwrap();
    let network = |host: &str| wires.namespaces[host].clone();
    let addr = net.host("host-c").unwrap().raft();
    let listener = namespaces::in_network(&network("host-c"), move || Ok(TcpListener::bind(addr)?)).unwrap();
    let client = namespaces::in_network(&network("host-a"), move || Ok(TcpStream::connect(addr)?)).unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    (client, server)
}

fn assert_receives(stream: &mut TcpStream, text: &str) {
    let mut got = vec![0; text.len()];
    stream.read_exact(&mut got).unwrap_or_else(|e| panic!("expected {text:?}, got {e}"));
    assert_eq!(String::from_utf8_lossy(&got), text);
}

#[test]
fn packets_out_of_a_cut_host_are_lost_and_come_again_after_the_heal() {
    let ground = Ground::new();
    if !entered() {
        return;
    }
    let net = laid_out(&ground);
    launch::start_wires(&net).unwrap();
    let (mut client, mut server) = connect(&net);
    client.write_all(b"before").unwrap();
    assert_receives(&mut server, "before");

    ask(&net.wires_socket(), &Request::Cut { host: "host-a".into(), ways: vec![Way::Out] }).unwrap();
    client.write_all(b"lost").unwrap();
    server.write_all(b"inwards").unwrap();
    assert_receives(&mut client, "inwards");
    server.set_read_timeout(Some(SILENCE)).unwrap();
    let got = server.read(&mut [0; 64]);
    assert!(matches!(&got, Err(e) if e.kind() == ErrorKind::WouldBlock), "expected silence, got {got:?}");
    let wires = ask(&net.wires_socket(), &Request::List).unwrap();
    assert_eq!(wires.struck.keys().collect::<Vec<_>>(), ["host-a"], "{wires:?}");

    ask(&net.wires_socket(), &Request::Heal { host: "host-a".into() }).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_receives(&mut server, "lost");
}

#[test]
fn a_step_of_one_hosts_wall_clock_leaves_the_other_hosts_alone() {
    let ground = Ground::new();
    let net = launch::prepare(&ground.dir, Shape::usual(ChainKind::Sim)).unwrap();
    clock::install(&net).unwrap();
    // Of the host's wall clock, in seconds.
    let told_by = |host: &str| {
        let mut date = Command::new("date");
        clock::give_to(&net, host, date.arg("+%s"));
        String::from_utf8(date.output().unwrap().stdout).unwrap().trim().parse::<i64>().unwrap()
    };
    let hour = 3600;
    clock::step(&net, "host-a", -hour * 1_000_000_000).unwrap();
    let apart = told_by("host-b") - told_by("host-a");
    assert!((hour - 2..hour + 30).contains(&apart), "{apart} s apart");
    assert!(clock::reads(&net, "host-a").unwrap() > 0, "a stepped clock was read");
    assert_eq!(clock::reads(&net, "host-b").unwrap(), 0);
    clock::step(&net, "host-a", 0).unwrap();
    assert!((0..30).contains(&(told_by("host-a") - told_by("host-b"))));
}

/// Names of the network devices of this machine, as the whole test process sees them.
fn devices() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/net/dev").unwrap();
    text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_string())).collect()
}

#[test]
fn hosts_in_namespaces_elect_a_holder_and_touch_no_device_of_the_machine() {
    let ground = Ground::new();
    if !entered() {
        return;
    }
    let before = devices();
    let net = laid_out(&ground);
    launch::start(&net, |_| ()).unwrap();
    let pair = with_diagnosis(&net, await_pair(&net, |_| ())).unwrap_or_else(|error| panic!("{error:#}"));
    assert_ne!(pair.holder, pair.standby);
    assert_eq!(devices(), before);
    let networks: BTreeSet<PathBuf> = faults::of_host(&net, &pair.holder, faults::What::Host)
        .iter()
        .map(|proc| fs::read_link(format!("/proc/{}/ns/net", proc.pid)).unwrap())
        .collect();
    assert_eq!(networks.len(), 1, "all of a host is in one network: {networks:?}");
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(!networks.contains(&own), "{own:?}");
}

#[test]
fn a_member_whose_disk_is_full_says_so_and_votes_and_is_ready_again_when_there_is_room() {
    let ground = Ground::new();
    if !entered() {
        return;
    }
    let net = laid_out(&ground);
    launch::start(&net, |_| ()).unwrap();
    let pair = with_diagnosis(&net, await_pair(&net, |_| ())).unwrap_or_else(|error| panic!("{error:#}"));

    // Nobody has to write anything: it is looked for.
    let disk = localnet::runs::nemesis::disk::fill(&net, &pair.standby).unwrap();
    let said = || with_diagnosis(&net, ask_baton(&net, &pair.holder, &["why"])).unwrap().stdout;
    await_true("the holder tells of the standby's disk", || said().contains("bytes are left beside the"));
    let why = said();
    assert!(disk.put_right(&net, &pair.standby).unwrap(), "the disk was not full");
    assert!(why.contains("A failover would NOT work now"), "{why}");
    let pair = with_diagnosis(&net, await_pair(&net, |_| ())).unwrap_or_else(|error| panic!("{error:#}"));

    let disk = localnet::runs::nemesis::disk::fill(&net, &pair.holder).unwrap();
    let coordinator = || faults::of_host(&net, &pair.holder, faults::What::Coordinator);
    let ran = coordinator();
    // To let go it has to write: its reserve makes room for that, and for its vote.
    let _ = localnet::runs::demo::request_handover(&net, &pair.holder, None);
    await_true("the full disk is named", || {
        let shown = for_people(&net, &pair.holder).unwrap_or_default();
        shown.contains("not ready: the disk of member.state_dir")
    });
    await_true("the reserve is told to be given up", || {
        let why = with_diagnosis(&net, ask_baton(&net, &pair.holder, &["why"])).unwrap().stdout;
        why.contains("this host only votes as long as")
    });
    await_true("the other host holds", || {
        query_host(&net, &pair.standby).is_ok_and(|status| status.active().is_some_and(|it| it.id == pair.standby))
    });
    assert_eq!(coordinator(), ran, "{}", launch::diagnosis(&net));
    assert!(disk.put_right(&net, &pair.holder).unwrap(), "the disk was not full");
    with_diagnosis(&net, await_pair(&net, |_| ())).unwrap_or_else(|error| panic!("{error:#}"));
    let verdict = localnet::judge::check::check(&net).unwrap();
    assert!(verdict.is_clean(), "{verdict}");
}

#[test]
fn a_nemesis_that_is_killed_leaves_nothing() {
    let ground = Ground::new();
    let before = devices();
    let mut command = ground.command(&["nemesis", "--without", "disk-full"]);
    let mut nemesis = command.process_group(0).stderr(Stdio::null()).spawn().unwrap();
    await_true("a coordinator runs on every host", || {
        let Ok(net) = Net::load(&ground.dir) else { return false };
        let running = marked(&net.dir);
        net.hosts.iter().all(|host| running.iter().any(|p| p.host == host.id && faults::What::Coordinator.matches(p)))
    });
    nemesis.kill().unwrap();
    nemesis.wait().unwrap();
    await_true("all of it ends", || marked(&ground.dir).is_empty());
    assert_eq!(devices(), before);
}
