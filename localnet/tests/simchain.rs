//! The stand-in chain as real processes: what the end-to-end tests of baton rely on. Every process that a test
//! starts dies with the test's thread.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use baton::time::BootTime;
use localnet::signlog::{self, Signature};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde_json::Value;

/// For everything that should take a few slots, on a machine that is busy with other things.
const SOON: Duration = Duration::from_secs(30);

const SIMCHAIN: &str = env!("CARGO_BIN_EXE_simchain");

fn simchain(args: &[&str]) -> Output {
    Command::new(SIMCHAIN).args(args).output().expect("run simchain")
}

/// Outside of the range from which the kernel takes ports for outgoing connections.
fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 1000) as u16 * 16;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
}

/// Polls until `probe` says yes; its `Err` says what was seen instead.
#[track_caller]
fn until<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > SOON => panic!("{what}: not within {SOON:?}; last seen: {seen}"),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

struct Net {
    dir: tempfile::TempDir,
}

struct Host {
    name: String,
    home: PathBuf,
    rpc: SocketAddr,
    p2p: SocketAddr,
    child: Option<Child>,
}

impl Net {
    fn new(validators: &str) -> Net {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().to_str().expect("utf-8").to_string();
        let made = simchain(&["init", "--dir", &path, "--validators", validators]);
        assert!(made.status.success(), "{made:?}");
        Net { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn key_file(&self, account: &str) -> PathBuf {
        self.path(&format!("keys/{account}.json"))
    }

    fn public_key(&self, account: &str) -> String {
        let text = std::fs::read(self.key_file(account)).expect("key file");
        let file: Value = serde_json::from_slice(&text).expect("key JSON");
        file["public_key"].as_str().expect("public_key").into()
    }

    /// A host that does not run yet.
    fn host(&self, name: &str, key_of: Option<&str>) -> Host {
        let home = self.path(name);
        std::fs::create_dir(&home).expect("home");
        let host = Host { name: name.into(), home, rpc: free_port(), p2p: free_port(), child: None };
        if let Some(account) = key_of {
            std::os::unix::fs::symlink(self.key_file(account), host.key_link()).expect("link");
        }
        host
    }

    #[allow(unsafe_code)]
    fn start(&self, host: &mut Host, peers: &[SocketAddr]) {
        let peers: Vec<String> = peers.iter().map(SocketAddr::to_string).collect();
        let stderr = std::fs::File::create(host.home.join("stderr")).expect("stderr");
        let mut command = Command::new(SIMCHAIN);
        command.arg("run").arg("--home").arg(&host.home).arg("--genesis").arg(self.path("genesis.json"));
        command.args(["--host", &host.name, "--rpc", &host.rpc.to_string(), "--p2p", &host.p2p.to_string()]);
        command.arg("--sign-log").arg(self.path("sign.log")).stdout(Stdio::null()).stderr(stderr);
        if !peers.is_empty() {
            command.args(["--peers", &peers.join(",")]);
        }
        // SAFETY: prctl is async-signal-safe and touches nothing of the parent.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        host.child = Some(command.spawn().expect("start simchain"));
    }

    /// Starts all with each other as peers.
    fn start_mesh(&self, hosts: &mut [Host]) {
        let addrs: Vec<SocketAddr> = hosts.iter().map(|h| h.p2p).collect();
        for host in hosts {
            self.start(host, &addrs);
        }
    }

    /// One host for each of the validators, running.
    fn mesh(&self, accounts: &[&str]) -> Vec<Host> {
        let mut hosts: Vec<Host> = accounts.iter().map(|a| self.host(&format!("host-{a}"), Some(a))).collect();
        self.start_mesh(&mut hosts);
        hosts
    }

    fn sign_log(&self) -> Vec<Signature> {
        signlog::read(&self.path("sign.log")).expect("signature log")
    }
}

impl Host {
    fn key_link(&self) -> PathBuf {
        self.home.join("validator_key.json")
    }

    fn try_get(&self, path: &str) -> Result<String, String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.rpc)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|e| format!("{}{path}: {e}", self.name))?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_string());
        body.ok_or_else(|| format!("{}{path}: {answer}", self.name))
    }

    fn json(&self, path: &str) -> Result<Value, String> {
        serde_json::from_str(&self.try_get(path)?).map_err(|e| e.to_string())
    }

    fn height(&self) -> u64 {
        let status = self.json("/status");
        status.ok().and_then(|s| s["sync_info"]["latest_block_height"].as_u64()).unwrap_or(0)
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.try_get("/metrics").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no metric {name} in {text}"))
    }

    /// Waits for a head `by` above the present one.
    #[track_caller]
    fn advance(&self, by: u64) -> u64 {
        let from = self.height();
        until(&format!("{} advances {by} blocks from {from}", self.name), || {
            let height = self.height();
            if height >= from + by { Ok(height) } else { Err(format!("{height}\n{}", self.stderr())) }
        })
    }

    #[track_caller]
    fn synced(&self) {
        until(&format!("{} is in sync", self.name), || {
            let status = self.json("/status")?;
            if status["sync_info"]["syncing"] == false { Ok(()) } else { Err(status.to_string()) }
        });
    }

    #[track_caller]
    fn shows_key(&self, key: Option<&str>) {
        until(&format!("{} shows key {key:?}", self.name), || {
            let shown = self.json("/status")?["validator_public_key"].clone();
            if shown.as_str() == key { Ok(()) } else { Err(shown.to_string()) }
        });
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("running");
        kill_process(Pid::from_child(child), signal).expect("signal");
    }

    /// The exit code, `None` after a signal.
    fn end(&mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        self.child.take().expect("running").wait().expect("wait").code()
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.home.join("stderr")).unwrap_or_default()
    }

    /// Height and hash of the kept blocks of its chain.
    fn blocks(&self) -> Vec<(u64, String)> {
        let blocks = self.json("/blocks").expect("blocks");
        let one = |b: &Value| (b["height"].as_u64().expect("height"), b["hash"].as_str().expect("hash").to_string());
        blocks.as_array().expect("list").iter().map(one).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn signed_by(log: &[Signature], host: &str) -> usize {
    log.iter().filter(|s| s.host == host).count()
}

/// All chains are the same where they are older than the last few slots.
#[track_caller]
fn assert_one_chain(hosts: &[Host]) {
    const UNSETTLED: u64 = 4;
    let chains: Vec<Vec<(u64, String)>> = hosts.iter().map(Host::blocks).collect();
    let low = chains.iter().map(|c| c[0].0).max().expect("hosts");
    let high = chains.iter().map(|c| c[c.len() - 1].0).min().expect("hosts") - UNSETTLED;
    let settled = |chain: &[(u64, String)]| -> Vec<(u64, String)> {
        chain.iter().filter(|(height, _)| (low..=high).contains(height)).cloned().collect()
    };
    let first = settled(&chains[0]);
    assert!(first.len() >= 5, "only {} blocks in {low}..={high}", first.len());
    for (chain, host) in chains.iter().zip(hosts) {
        assert_eq!(settled(chain), first, "{} and {} differ", host.name, hosts[0].name);
    }
}

#[test]
fn four_nodes_make_one_chain_and_no_evidence() {
    let net = Net::new("a,b,c,d");
    let hosts = net.mesh(&["a", "b", "c", "d"]);
    hosts[0].advance(40);
    for host in &hosts {
        host.synced();
        assert_eq!(host.metric("simchain_evidence"), 0, "{}", host.stderr());
        assert_eq!(host.metric("simchain_bad_messages_total"), 0, "{}", host.stderr());
        assert_eq!(host.metric("simchain_peers"), 3);
    }
    assert_one_chain(&hosts);
    let report = signlog::check(&net.sign_log());
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.keys.len(), 4, "{report}");
    for (key, of_key) in &report.keys {
        let signatures: usize = of_key.signatures.values().sum();
        assert!(signatures >= 20, "{key} signed {signatures} of 40 heights\n{report}");
    }
}

#[test]
fn status_has_the_shape_of_neard_and_connections_stay_open() {
    let net = Net::new("a");
    let mut host = net.host("host-a", Some("a"));
    net.start(&mut host, &[]);
    host.advance(2);
    let status = host.json("/status").expect("status");
    let key = net.public_key("a");
    let expected = [("/validator_account_id", "a"), ("/validator_public_key", &key), ("/validators/0/account_id", "a")];
    for (pointer, value) in expected {
        assert_eq!(status.pointer(pointer).and_then(Value::as_str), Some(value), "{pointer} of {status}");
    }
    for pointer in ["/sync_info/latest_block_hash", "/sync_info/latest_state_root", "/node_public_key", "/rpc_addr"] {
        assert!(status.pointer(pointer).is_some_and(Value::is_string), "{pointer} of {status}");
    }
    let time = status["sync_info"]["latest_block_time"].as_str().expect("time");
    assert!(time.len() == 30 && time.ends_with('Z'), "{time}");

    let mut stream = TcpStream::connect(host.rpc).expect("connect");
    stream.set_read_timeout(Some(SOON)).expect("timeout");
    for _ in 0..3 {
        stream.write_all(b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n").expect("ask");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("answer");
        assert_eq!(&answer, b"HTTP/1.1 404");
        let mut rest = Vec::new();
        while !rest.ends_with(b"}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("body");
            rest.push(byte[0]);
        }
    }
}

#[test]
fn a_late_node_syncs_and_then_takes_its_turns() {
    let net = Net::new("a,b,c,d");
    let mut hosts: Vec<Host> = ["a", "b", "c", "d"].map(|a| net.host(&format!("host-{a}"), Some(a))).into();
    let addrs: Vec<SocketAddr> = hosts.iter().map(|h| h.p2p).collect();
    for host in &mut hosts[..3] {
        net.start(host, &addrs);
    }
    hosts[0].advance(60);
    net.start(&mut hosts[3], &addrs);
    hosts[3].synced();
    until("the late node produces", || match hosts[3].metric("simchain_blocks_produced_total") {
        0 => Err(hosts[3].stderr()),
        blocks => Ok(blocks),
    });
    hosts[0].advance(10);
    assert_one_chain(&hosts);
    assert!(hosts[3].blocks()[1].0 < 30, "it did not fetch the past: {:?}", hosts[3].blocks()[1]);
    let report = signlog::check(&net.sign_log());
    assert!(report.is_clean(), "{report}");
}

#[test]
fn two_hosts_with_one_key_are_caught_by_every_node_and_by_the_checker() {
    let net = Net::new("a,b,c,d");
    let mut hosts: Vec<Host> = ["a", "b", "c", "d"].map(|a| net.host(&format!("host-{a}"), Some(a))).into();
    hosts.push(net.host("twin-a", Some("a")));
    net.start_mesh(&mut hosts);
    let key = net.public_key("a");
    for host in &hosts {
        until(&format!("{} has evidence against a", host.name), || {
            let evidence = host.json("/evidence")?;
            let condemned = |e: &Value| e["public_key"] == key.as_str() && e["account_id"] == "a";
            let list = evidence["evidence"].as_array().ok_or("no list")?;
            if list.iter().any(condemned) { Ok(()) } else { Err(format!("{evidence}\n{}", host.stderr())) }
        });
        assert!(host.metric("simchain_evidence") > 0);
    }
    let report = signlog::check(&net.sign_log());
    let of_key = &report.keys[&key];
    assert!(of_key.doubles > 0 && of_key.overlap > 0, "{report}");
    let honest = report.keys.iter().filter(|(k, _)| **k != key);
    assert!(honest.clone().all(|(_, r)| r.is_clean()) && honest.count() == 3, "{report}");

    let log = net.path("sign.log").to_str().expect("utf-8").to_string();
    let checked = simchain(&["check", "--sign-log", &log, "--key", &key]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let from = hosts[2].rpc.to_string();
    let key_file = net.key_file("b").to_str().expect("utf-8").to_string();
    let checked = simchain(&["check", "--sign-log", &log, "--key", &key_file, "--evidence-from", &from]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
}

#[test]
fn sighup_loads_and_drops_the_key_and_status_shows_it() {
    let net = Net::new("a,b,c,d");
    let mut hosts: Vec<Host> = ["b", "c", "d"].map(|a| net.host(&format!("host-{a}"), Some(a))).into();
    hosts.push(net.host("standby-a", None));
    net.start_mesh(&mut hosts);
    let standby = &hosts[3];
    standby.synced();
    standby.shows_key(None);
    assert_eq!(signed_by(&net.sign_log(), "standby-a"), 0);

    std::os::unix::fs::symlink(net.key_file("a"), standby.key_link()).expect("link");
    standby.signal(Signal::HUP);
    standby.shows_key(Some(&net.public_key("a")));
    until("the new holder signs", || match signed_by(&net.sign_log(), "standby-a") {
        0 => Err(standby.stderr()),
        signatures => Ok(signatures),
    });

    // A dangling link counts as no key.
    std::fs::remove_file(standby.key_link()).expect("unlink");
    std::os::unix::fs::symlink("nowhere.json", standby.key_link()).expect("link");
    standby.signal(Signal::HUP);
    standby.shows_key(None);
    let dropped = BootTime::now();
    hosts[0].advance(10);
    let later: Vec<Signature> =
        net.sign_log().into_iter().filter(|s| s.host == "standby-a" && s.at > dropped).collect();
    assert!(later.is_empty(), "signed without a key: {later:?}");
}

#[test]
fn a_garbled_key_leaves_the_old_one_active() {
    let net = Net::new("a,b");
    let hosts = net.mesh(&["a", "b"]);
    hosts[0].advance(5);
    std::fs::remove_file(hosts[0].key_link()).expect("unlink");
    std::fs::write(hosts[0].key_link(), "{ \"account_id\": ").expect("garble");
    hosts[0].signal(Signal::HUP);
    until("the failed reload is noted", || match hosts[0].stderr() {
        text if text.contains("reload failed") && text.contains("stays active") => Ok(()),
        text => Err(text),
    });
    assert_eq!(hosts[0].metric("near_config_correct"), 0);
    hosts[0].shows_key(Some(&net.public_key("a")));
    let before = signed_by(&net.sign_log(), "host-a");
    hosts[1].advance(6);
    assert!(signed_by(&net.sign_log(), "host-a") > before, "{}", hosts[0].stderr());
}

#[test]
fn a_killed_validator_leaves_gaps_and_no_halt() {
    let net = Net::new("a,b,c,d");
    let mut hosts = net.mesh(&["a", "b", "c", "d"]);
    hosts[0].advance(12);
    assert_eq!(hosts[3].end(Signal::KILL), None);
    let mark: Value =
        serde_json::from_slice(&std::fs::read(hosts[3].home.join("data/last_signed.json")).expect("mark"))
            .expect("mark JSON");
    let logged = net.sign_log().iter().filter(|s| s.host == "host-d").map(|s| s.height).max();
    assert!(mark["height"].as_u64() >= logged, "mark {mark} below the signature at {logged:?}");

    let killed_at = hosts[0].height() + 2;
    hosts[0].advance(30);
    hosts.truncate(3);
    for host in &hosts {
        host.synced();
    }
    assert_one_chain(&hosts);
    let heights: Vec<u64> =
        hosts[0].blocks().into_iter().map(|(height, _)| height).filter(|h| *h > killed_at).collect();
    // Validator d is the fourth of the list: it proposes at heights 3, 7, 11 and so on.
    assert!(heights.iter().all(|h| h % 4 != 3), "{heights:?}");
    assert!(heights.len() >= 12, "{heights:?}");
}

#[test]
fn a_restarted_validator_signs_no_height_twice() {
    let net = Net::new("a,b,c");
    let mut hosts = net.mesh(&["a", "b", "c"]);
    let addrs: Vec<SocketAddr> = hosts.iter().map(|h| h.p2p).collect();
    for _ in 0..3 {
        hosts[0].advance(6);
        hosts[2].end(Signal::KILL);
        net.start(&mut hosts[2], &addrs);
        let before = signed_by(&net.sign_log(), "host-c");
        until("the restarted validator signs", || match signed_by(&net.sign_log(), "host-c") {
            now if now > before => Ok(()),
            now => Err(format!("{now} signatures\n{}", hosts[2].stderr())),
        });
    }
    let report = signlog::check(&net.sign_log());
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_paused_node_is_dropped_by_its_peers_and_follows_again_when_it_goes_on() {
    let net = Net::new("a,b,c,d");
    let hosts = net.mesh(&["a", "b", "c", "d"]);
    hosts[0].advance(10);
    hosts[3].signal(Signal::STOP);
    until("the paused node is dropped", || match hosts[0].metric("simchain_peers") {
        2 => Ok(()),
        peers => Err(format!("{peers} peers")),
    });
    hosts[0].synced();
    hosts[3].signal(Signal::CONT);
    let before = hosts[3].metric("simchain_blocks_produced_total");
    until("it produces again", || match hosts[3].metric("simchain_blocks_produced_total") {
        now if now > before => Ok(()),
        now => Err(format!("{now} blocks\n{}", hosts[3].stderr())),
    });
    hosts[0].advance(6);
    assert_one_chain(&hosts);
    let report = signlog::check(&net.sign_log());
    assert!(report.is_clean(), "{report}");
}

#[test]
fn nodes_without_a_link_between_them_hear_each_other_through_a_third() {
    let net = Net::new("a,b,c");
    let mut hosts: Vec<Host> = ["a", "b", "c"].map(|a| net.host(&format!("host-{a}"), Some(a))).into();
    let middle = hosts[2].p2p;
    net.start(&mut hosts[0], &[middle]);
    net.start(&mut hosts[1], &[middle]);
    net.start(&mut hosts[2], &[]);
    hosts[0].advance(30);
    assert_eq!((hosts[0].metric("simchain_peers"), hosts[2].metric("simchain_peers")), (1, 2));
    assert_one_chain(&hosts);
    let report = signlog::check(&net.sign_log());
    assert!(report.is_clean() && report.keys.len() == 3, "{report}");
}

#[test]
fn a_node_without_peers_is_out_of_sync() {
    let net = Net::new("a,b");
    let mut hosts = net.mesh(&["a", "b"]);
    hosts[0].advance(5);
    hosts[0].synced();
    hosts[1].end(Signal::TERM);
    until("the lonely node is out of sync", || {
        let status = hosts[0].json("/status")?;
        if status["sync_info"]["syncing"] == true { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(hosts[0].metric("simchain_peers"), 0);
}

#[test]
fn a_bad_message_closes_the_connection() {
    let net = Net::new("a");
    let mut host = net.host("host-a", Some("a"));
    net.start(&mut host, &[]);
    host.advance(1);
    let too_long = u32::MAX.to_be_bytes().to_vec();
    let no_json = [&3u32.to_be_bytes()[..], b"???"].concat();
    let before_hello = [&18u32.to_be_bytes()[..], br#"{"head":{"head":1}}"#.as_slice()].concat();
    for (i, bad) in [too_long, no_json, before_hello].iter().enumerate() {
        let mut stream = TcpStream::connect(host.p2p).expect("connect");
        stream.set_read_timeout(Some(SOON)).expect("timeout");
        stream.write_all(bad).expect("send");
        // The hello of the node, and then the end; a reset is an end, too.
        let _ = stream.read_to_end(&mut Vec::new());
        assert_eq!(host.metric("simchain_bad_messages_total"), i as u64 + 1, "{}", host.stderr());
    }
    host.advance(2);
}

#[test]
fn bad_input_is_one_line_and_exit_code_2_and_sigterm_is_0() {
    let net = Net::new("a");
    let dir = net.dir.path().to_str().expect("utf-8");
    let missing = net.path("missing.log").to_str().expect("utf-8").to_string();
    let bad: [&[&str]; 4] = [
        &["init", "--dir", dir, "--validators", "a"],
        &["init", "--dir", dir, "--validators", "a/b"],
        &["run", "--home", dir],
        &["check", "--sign-log", &missing, "--key", "ed25519:x"],
    ];
    for args in bad {
        let output = simchain(args);
        let stderr = String::from_utf8(output.stderr).expect("utf-8");
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{args:?}: {stderr}");
    }
    let mode = std::os::unix::fs::MetadataExt::mode(&Path::metadata(&net.key_file("a")).expect("key"));
    assert_eq!(mode & 0o777, 0o600);

    let mut host = net.host("host-a", Some("a"));
    net.start(&mut host, &[]);
    host.advance(1);
    assert_eq!(host.end(Signal::TERM), Some(0));
}
