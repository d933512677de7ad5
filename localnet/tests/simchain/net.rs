//! Nodes of the stand-in chain as real processes, each of which dies with its test's thread.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use localnet::judge::signlog::{self, Signature};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde_json::Value;

/// For everything that should take a few slots, on a machine that is busy with other things.
pub const SOON: Duration = Duration::from_secs(30);

const SIMCHAIN: &str = env!("CARGO_BIN_EXE_simchain");

pub fn simchain(args: &[&str]) -> Output {
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
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > SOON => panic!("{what}: not within {SOON:?}; last seen: {seen}"),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

pub struct Net {
    pub dir: tempfile::TempDir,
}

pub struct Host {
    pub name: String,
    pub home: PathBuf,
    pub rpc: SocketAddr,
    pub p2p: SocketAddr,
    /// Of its command line, besides what every node needs.
    pub flags: Vec<String>,
    pub child: Option<Child>,
}

impl Net {
    pub fn new(validators: &str) -> Net {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().to_str().expect("utf-8").to_string();
        let made = simchain(&["init", "--dir", &path, "--validators", validators]);
        assert!(made.status.success(), "{made:?}");
        Net { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn key_file(&self, account: &str) -> PathBuf {
        self.path(&format!("keys/{account}.json"))
    }

    pub fn public_key(&self, account: &str) -> String {
        let text = std::fs::read(self.key_file(account)).expect("key file");
        let file: Value = serde_json::from_slice(&text).expect("key JSON");
        file["public_key"].as_str().expect("public_key").into()
    }

    /// A host that does not run yet.
    pub fn host(&self, name: &str, key_of: Option<&str>) -> Host {
        let home = self.path(name);
        std::fs::create_dir(&home).expect("home");
        let host = Host { name: name.into(), home, rpc: free_port(), p2p: free_port(), flags: Vec::new(), child: None };
        if let Some(account) = key_of {
            std::os::unix::fs::symlink(self.key_file(account), host.key_link()).expect("link");
        }
        host
    }

    #[allow(unsafe_code)]
    pub fn start(&self, host: &mut Host, peers: &[SocketAddr]) {
        let peers: Vec<String> = peers.iter().map(SocketAddr::to_string).collect();
        let stderr = std::fs::File::create(host.home.join("stderr")).expect("stderr");
        let mut command = Command::new(SIMCHAIN);
        command.arg("run").arg("--home").arg(&host.home).arg("--genesis").arg(self.path("genesis.json"));
        command.args(["--host", &host.name, "--rpc", &host.rpc.to_string(), "--p2p", &host.p2p.to_string()]);
        command.args(&host.flags);
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
    pub fn start_mesh(&self, hosts: &mut [Host]) {
        let addrs: Vec<SocketAddr> = hosts.iter().map(|h| h.p2p).collect();
        for host in hosts {
            self.start(host, &addrs);
        }
    }

    /// One host for each of the validators, running.
    pub fn mesh(&self, accounts: &[&str]) -> Vec<Host> {
        let mut hosts: Vec<Host> = accounts.iter().map(|a| self.host(&format!("host-{a}"), Some(a))).collect();
        self.start_mesh(&mut hosts);
        hosts
    }

    pub fn sign_log(&self) -> Vec<Signature> {
        signlog::read(&self.path("sign.log")).expect("signature log")
    }
}

impl Host {
    pub fn key_link(&self) -> PathBuf {
        self.home.join("validator_key.json")
    }

    pub fn try_get(&self, path: &str) -> Result<String, String> {
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

    pub fn json(&self, path: &str) -> Result<Value, String> {
        serde_json::from_str(&self.try_get(path)?).map_err(|e| e.to_string())
    }

    pub fn height(&self) -> u64 {
        let status = self.json("/status");
        status.ok().and_then(|s| s["sync_info"]["latest_block_height"].as_u64()).unwrap_or(0)
    }

    pub fn metric(&self, name: &str) -> u64 {
        let text = self.try_get("/metrics").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no metric {name} in {text}"))
    }

    /// Waits for a head `by` above the present one.
    #[track_caller]
    pub fn advance(&self, by: u64) -> u64 {
        let from = self.height();
        until(&format!("{} advances {by} blocks from {from}", self.name), || {
            let height = self.height();
            if height >= from + by { Ok(height) } else { Err(format!("{height}\n{}", self.stderr())) }
        })
    }

    #[track_caller]
    pub fn synced(&self) {
        until(&format!("{} is in sync", self.name), || {
            let status = self.json("/status")?;
            if status["sync_info"]["syncing"] == false { Ok(()) } else { Err(status.to_string()) }
        });
    }

    #[track_caller]
    pub fn shows_key(&self, key: Option<&str>) {
        until(&format!("{} shows key {key:?}", self.name), || {
            let shown = self.json("/status")?["validator_public_key"].clone();
            if shown.as_str() == key { Ok(()) } else { Err(shown.to_string()) }
        });
    }

    /// The exit code of a node that ends by itself.
    #[track_caller]
    pub fn ended(&mut self) -> Option<i32> {
        let child = self.child.as_mut().expect("running");
        let status = until("it ends by itself", || match child.try_wait().expect("wait") {
            Some(status) => Ok(status),
            None => Err("it runs".to_owned()),
        });
        self.child = None;
        status.code()
    }

    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("running");
        kill_process(Pid::from_child(child), signal).expect("signal");
    }

    /// The exit code, `None` after a signal.
    pub fn end(&mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        self.child.take().expect("running").wait().expect("wait").code()
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.home.join("stderr")).unwrap_or_default()
    }

    /// Height and hash of the kept blocks of its chain.
    pub fn blocks(&self) -> Vec<(u64, String)> {
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

pub fn signed_by(log: &[Signature], host: &str) -> usize {
    log.iter().filter(|s| s.host == host).count()
}

/// All chains are the same where they are older than the last few slots.
#[track_caller]
pub fn assert_one_chain(hosts: &[Host]) {
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
