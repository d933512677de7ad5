//! A network for one test: brought up by the command line as an operator would, and gone with the test,
//! however the test ends. Few networks run at once, for they are judged on the same few cores.

#![allow(dead_code)] // Every test file uses a part of this.

pub mod upgrades;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use localnet::hosts::faults::{self, What};
use localnet::judge::check::check;
use localnet::judge::status::{Answer, POLL_EVERY, Status, await_status, baton_at, run_bounded};
use localnet::net::http;
use localnet::net::{ChainKind, Net, Shape, write_file};
use localnet::process::keeper::Keeper;
use localnet::process::launch::{self, diagnosis};
use localnet::process::procs::{self, Awaited};
use localnet::runs::demo::{Pair, ask_baton, await_pair};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

pub const LOCALNET: &str = env!("CARGO_BIN_EXE_localnet");

/// For a member to become Active by a move that was caused.
pub const ACTIVE_BOUND: Duration = Duration::from_secs(60);

/// Longer than a handover and the stop of a node together.
const END_BOUND: Duration = Duration::from_secs(30);

/// Networks run side by side up to this load. Most of the time they wait.
const LOAD_MAX: usize = 6;

/// The load of a network whose leases are a second long: two on two cores leave each of them what it has beside another
/// program that is busy.
const SHORT_LEASES: usize = 3;

/// The load of a network whose leases outlive seconds without a core.
const LONG_LEASES: usize = 2;

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

/// The part of the load that one network has.
struct Place {
    load: usize,
}

impl Place {
    /// Waits until there is room.
    fn take(load: usize) -> Place {
        let taken = FREED.wait_while(Place::taken(), |taken| *taken + load > LOAD_MAX);
        *taken.unwrap_or_else(|poisoned| poisoned.into_inner()) += load;
        Place { load }
    }

    fn shrink(&mut self, load: usize) {
        *Place::taken() -= self.load.saturating_sub(load);
        self.load = self.load.min(load);
        FREED.notify_all();
    }

    /// A test that fails takes no place along.
    fn taken() -> MutexGuard<'static, usize> {
        TAKEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// A folder in which at most this test's network runs.
pub struct Ground {
    // Dropped in this order: first the network ends, then its files go.
    keeper: Option<Keeper>,
    temp: TempDir,
    pub dir: PathBuf,
    place: Place,
}

impl Ground {
    pub fn new() -> Ground {
        let place = Place::take(SHORT_LEASES);
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap().join("net");
        std::fs::create_dir(&dir).unwrap();
        let keeper = Some(Keeper::start(Path::new(LOCALNET), &dir).unwrap());
        Ground { keeper, temp, dir, place }
    }

    /// The leases of its network are long: others may start beside it.
    pub fn has_long_leases(&mut self) {
        self.place.shrink(LONG_LEASES);
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(LOCALNET);
        command.arg("--dir").arg(&self.dir).args(args).stdin(Stdio::null());
        command
    }

    /// Runs to the end and takes any exit code.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs to the end; returns standard output.
    pub fn succeed(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "localnet {args:?}: {}\n{out}\n{err}", output.status);
        out.into_owned()
    }

    /// As `succeed`, of a command that fails until the member that it asks has heard of what another member told.
    pub fn succeeds_within(&self, bound: Duration, args: &[&str]) -> String {
        let start = Instant::now();
        loop {
            let output = self.run(args);
            if output.status.success() {
                return String::from_utf8_lossy(&output.stdout).into_owned();
            }
            assert!(start.elapsed() < bound, "localnet {args:?} fails for {bound:?}, at the end with {output:?}");
            std::thread::sleep(POLL_EVERY);
        }
    }

    pub fn net(&self) -> Net {
        Net::load(&self.dir).unwrap()
    }
}

/// A configuration with leases that a busy machine does not lose: for tests of why the baton moves.
pub fn long_leases(config: String) -> String {
    if std::env::var_os("BATON_SHORT_LEASES").is_some() {
        return config;
    }
    config.replace("profile = \"lan\"", "profile = \"wan\"")
}

/// Asks the coordinator of `host`; asserts the exit code and returns what it said.
pub fn said(t: &TestNet, host: &str, args: &[&str], code: i32) -> String {
    let Answer { code: ended, stdout, stderr } = t.or_logs(ask_baton(&t.net, host, args));
    assert_eq!(ended, Some(code), "baton {args:?} on {host}: {stdout}{stderr}");
    format!("{stdout}{stderr}").trim_end().to_owned()
}

/// A network that is up.
pub struct TestNet {
    pub ground: Ground,
    pub net: Net,
}

impl TestNet {
    pub fn up(args: &[&str]) -> TestNet {
        let ground = Ground::new();
        ground.succeed(&[&["up"], args].concat());
        let net = ground.net();
        TestNet { ground, net }
    }

    /// With every host's configuration edited before the start.
    pub fn up_with(edit: impl Fn(String) -> String) -> TestNet {
        let mut t = TestNet::prepared(Shape::usual(ChainKind::Sim), edit);
        let text = |host: &str| std::fs::read_to_string(t.net.config_file(host)).unwrap();
        if !t.net.hosts.iter().any(|host| text(&host.id).contains("profile = \"lan\"")) {
            t.ground.has_long_leases();
        }
        launch::start(&t.net, |_| ()).unwrap();
        t
    }

    /// With every host's configuration edited, and nothing started.
    pub fn prepared(shape: Shape, edit: impl Fn(String) -> String) -> TestNet {
        let ground = Ground::new();
        let net = launch::prepare(&ground.dir, shape).unwrap();
        for host in &net.hosts {
            let file = net.config_file(&host.id);
            let text = edit(std::fs::read_to_string(&file).unwrap());
            write_file(&file, &text).unwrap();
        }
        TestNet { ground, net }
    }

    /// Tells the chain node of `host` to pretend.
    pub fn pretend(&self, host: &str, words: &str) {
        let rpc = self.net.host(host).unwrap().rpc();
        self.or_logs(http::get_json(rpc, &format!("/pretend?{words}")));
    }

    /// Waits until `host` is Active; the newest row of the history, as `baton history --json` on that host
    /// shows it.
    pub fn active(&self, host: &str) -> Value {
        let active = |status: &Status| status.active().is_some_and(|member| member.id == host);
        self.or_logs(await_status(&self.net, &format!("{host} is Active"), ACTIVE_BOUND, |_| (), active));
        self.last_move(host)
    }

    /// Once it has ended.
    fn last_move(&self, host: &str) -> Value {
        let start = Instant::now();
        loop {
            let command = self.or_logs(baton_at(&self.net, host, &["history", "--json"]));
            let answer = self.or_logs(run_bounded(command, ACTIVE_BOUND));
            let history: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
            let last = history["moves"].as_array().and_then(|moves| moves.last()).cloned().unwrap_or_default();
            if last["to"] == host && last["active_at_ns"].is_u64() {
                return last;
            }
            let logs = || diagnosis(&self.net);
            assert!(start.elapsed() < ACTIVE_BOUND, "no end of a move to {host}: {last}\n{}", logs());
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// Once one host is Active and the other a ready standby.
    pub fn pair(&self) -> Pair {
        self.or_logs(await_pair(&self.net, |_| ()))
    }

    /// The value, or a failure that shows what runs and the ends of the logs.
    pub fn or_logs<T>(&self, result: anyhow::Result<T>) -> T {
        result.unwrap_or_else(|error| panic!("{error:#}\n{}", diagnosis(&self.net)))
    }

    /// Nothing of `host`, which runs, is left running.
    pub fn kill_host(&self, host: &str) {
        let targets = self.or_logs(faults::find(&self.net, host, What::Host));
        self.or_logs(faults::kill_host(&self.net, host, &targets));
    }

    /// Signals the coordinator of `host` and waits for its end.
    pub fn end_coordinator(&self, host: &str, signal: Signal) {
        let coordinator = self.or_logs(faults::find(&self.net, host, What::Coordinator));
        let awaited = Awaited::new(&coordinator);
        self.or_logs(procs::signal(&coordinator, signal));
        assert!(awaited.ended_within(END_BOUND), "{signal:?} did not end the coordinator of {host}");
    }

    /// Waits until the coordinators of `host` have said `words` so many times.
    pub fn await_log(&self, host: &str, words: &str, times: usize, bound: Duration) {
        self.await_words(&self.net.host_dir(host).join("coordinator.log"), words, times, bound);
    }

    /// Waits until they stand in `file` so many times.
    pub fn await_words(&self, file: &Path, words: &str, times: usize, bound: Duration) {
        let start = Instant::now();
        while !std::fs::read_to_string(file).is_ok_and(|text| text.matches(words).count() >= times) {
            assert!(start.elapsed() < bound, "{} never has {words:?}\n{}", file.display(), diagnosis(&self.net));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// By the checker, over everything signed since the start. A holder is Active some slots before its first
    /// signature: waits until there is one.
    pub fn assert_nothing_signed_twice(&self) {
        let start = Instant::now();
        let mut judged = check(&self.net);
        while judged.is_err() && start.elapsed() < ACTIVE_BOUND {
            std::thread::sleep(POLL_EVERY);
            judged = check(&self.net);
        }
        let verdict = self.or_logs(judged);
        assert!(verdict.is_clean(), "{verdict}\n{}", diagnosis(&self.net));
    }
}
