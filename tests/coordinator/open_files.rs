//! A coordinator whose file descriptors run out: it neither ends nor keeps a processor busy, its lease is renewed, its
//! chain node runs on as the only one, and when there are some again it answers as before.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::kit::host::write_key;
use crate::kit::program::{baton, coordinator_in, free_addresses};
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

const BOUND: Duration = Duration::from_secs(60);

const CONFIG: &str = r#"
[member]
id = "ID"
state_dir = "state"
run_dir = "run"
[cluster]
name = "one"
listen = "LISTEN"
members = [
  { id = "a", addr = "ADDR_A" },
  { id = "b", addr = "ADDR_B", role = "arbiter" },
  { id = "c", addr = "ADDR_C", role = "arbiter" },
]
[timing]
heartbeat = "400ms"
lease = "6s"
kill_max = "500ms"
"#;

const CHAIN: &str = r#"
[chain]
driver = "generic"
home = "home"
command = ["sh", "-c", "echo $$ >> ../starts; exec sleep 1000"]
[[chain.links]]
link = "key"
validating = "key"
[chain.activate]
how = "restart"
[chain.probe]
exec = ["sh", "-c", "echo '{\"height\": '$(date +%s)', \"head_time\": \"'$(date -u +%FT%TZ)'\"}'"]
every = "500ms"
[metrics]
listen = "METRICS"
"#;

/// a, which validates, with two arbiters.
struct Cluster {
    dir: tempfile::TempDir,
    peers: String,
    metrics: String,
    coordinators: Vec<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Each takes its guard and chain node with it.
        for coordinator in &self.coordinators {
            let _ = kill_process(Pid::from_child(coordinator), Signal::INT);
        }
        for mut coordinator in self.coordinators.drain(..) {
            let began_at = Instant::now();
            while matches!(coordinator.try_wait(), Ok(None)) && began_at.elapsed() < BOUND {
                sleep(Duration::from_millis(10));
            }
            let _ = coordinator.kill();
            let _ = coordinator.wait();
        }
    }
}

impl Cluster {
    fn start() -> Cluster {
        let free: [String; 4] = free_addresses();
        let dir = tempfile::tempdir().expect("a directory");
        let (peers, metrics) = (free[0].clone(), free[3].clone());
        let mut cluster = Cluster { dir, peers, metrics, coordinators: Vec::new() };
        for (id, listen) in ["a", "b", "c"].iter().zip(&free) {
            fs::create_dir_all(cluster.dir.path().join(id).join("home")).expect("a directory");
            let text = CONFIG.replace("ID", id).replace("LISTEN", listen);
            let text = text.replace("ADDR_A", &free[0]).replace("ADDR_B", &free[1]).replace("ADDR_C", &free[2]);
            let chain = if *id == "a" { CHAIN.replace("METRICS", &cluster.metrics) } else { String::new() };
            fs::write(cluster.dir.path().join(id).join("baton.toml"), text + &chain).expect("a configuration");
        }
        write_key(&cluster.path("key"), "{}");
        cluster.coordinators = ["a", "b", "c"]
            .iter()
            .map(|id| coordinator_in(&cluster.dir.path().join(id)).spawn().expect("it starts"))
            .collect();
        cluster
    }

    /// Of a.
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("a").join(name)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.coordinators[0])
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).expect("a log")
    }

    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began_at = Instant::now();
        while !is_so() {
            assert!(began_at.elapsed() < BOUND, "not {what}:\n{}", self.log());
            sleep(Duration::from_millis(20));
        }
    }

    fn is_active(&self) -> bool {
        let mut status = baton(&["status", "--config", "baton.toml"]);
        status.current_dir(self.dir.path().join("a"));
        status.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it runs").success()
    }

    /// The lowest file descriptor that is free: under a limit of it, no file can be opened any more.
    fn files_in_use(&self) -> u64 {
        let open = |fd: &u64| fs::symlink_metadata(format!("/proc/{}/fd/{fd}", self.pid().as_raw_nonzero())).is_ok();
        (0..).take_while(open).count() as u64
    }

    /// Sets the soft limit of open files; what it was.
    fn allow_files(&self, files: Option<u64>) -> Option<u64> {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.pid().as_raw_nonzero())).expect("it runs");
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit");
        // "unlimited" is none.
        let maximum = line.split_whitespace().nth(1).expect("the hard limit").parse().ok();
        let limit = Rlimit { current: files, maximum };
        prlimit(Some(self.pid()), Resource::Nofile, limit).expect("a process of ours").current
    }

    fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid().as_raw_nonzero())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        // proc(5): utime and stime are the 14th and 15th field, of which the name was the second.
        let ticks: u64 = [11, 12].iter().map(|at| fields[*at].parse::<u64>().expect("a number")).sum();
        Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64)
    }
}

#[test]
fn a_coordinator_without_a_file_descriptor_left_lives_idles_and_answers_again() {
    let host = Cluster::start();
    host.until("active", || host.is_active());
    let starts = fs::read_to_string(host.path("starts")).expect("started once");

    let before = host.allow_files(Some(host.files_in_use()));
    let knock = |addr: &str| TcpStream::connect(addr).expect("the kernel lets it wait");
    let knocks: Vec<TcpStream> = (0..20).flat_map(|_| [knock(&host.peers), knock(&host.metrics)]).collect();
    for listener in ["cannot accept a connection of a peer", "the exporter cannot accept a connection"] {
        host.until("out of file descriptors", || host.log().contains(listener));
    }
    let (busy, began_at) = (host.cpu_time(), Instant::now());
    // Longer than the lease, and than it takes probes to fail more often than is forgiven.
    sleep(Duration::from_secs(7));
    let (busy, took) = (host.cpu_time() - busy, began_at.elapsed());
    assert!(busy < took / 2, "{busy:?} of {took:?} with nothing to do");
    assert!(!host.is_active(), "the limit holds: nobody can ask");

    host.allow_files(before);
    drop(knocks);
    host.until("active again", || host.is_active());
    assert_eq!(fs::read_to_string(host.path("starts")).expect("started once"), starts, "the one chain node ran on");
    let log = host.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(log.matches("cannot accept").count() < 500, "the log is flooded:\n{log}");
}
