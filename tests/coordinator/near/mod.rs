//! Three coordinators, two of them with a fake neard that follows a chain of this test: what operators are told of
//! handovers and of reloads.

mod moment;
mod refused_reload;

#[allow(dead_code)] // The tests of the host use all of it.
#[path = "../../host/near_node/fake_neard.rs"]
mod fake_neard;
#[allow(dead_code)]
#[path = "../../host/near_node/slots.rs"]
mod slots;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use baton::base::time::WallTime;
use serde_json::Value;

use crate::kit::host::write_key;
use crate::kit::program::{Running, baton, coordinator_in, free_addresses};
use crate::kit::stage::Stage;

const BOUND: Duration = Duration::from_secs(90);
/// Blocks are nobody's to wait for: none comes sooner because somebody signs.
const BLOCK_EVERY: Duration = Duration::from_millis(100);

const CONFIG: &str = r#"
[member]
id = "ID"
state_dir = "state"
run_dir = "run"
[cluster]
name = "near"
listen = "LISTEN"
members = [
  { id = "a", addr = "ADDR-A" },
  { id = "b", addr = "ADDR-B" },
  { id = "c", addr = "ADDR-C", role = "arbiter" },
]
[timing]
profile = "wan"
"#;

const WITH_NODE: &str = r#"
[chain]
driver = "near"
home = "home"
command = ["ME", "--ignored", "--exact", "near::neard_process", "--nocapture"]
env = { FAKE_NEARD_ADDR = "NODE", FAKE_NEARD_CHAIN = "CHAIN" }
log = "node.log"
[[chain.links]]
link = "validator_key.json"
validating = "shared.json"
[chain.probe]
url = "http://NODE/status"
every = "50ms"
timeout = "2s"
"#;

/// Not a test: the coordinators start it as their chain node.
#[tokio::test]
#[ignore = "the fake neard that the other tests start"]
async fn neard_process() {
    if let Ok(addr) = std::env::var(fake_neard::ADDR) {
        fake_neard::run(&addr).await;
    }
}

/// Ended in this order: first the coordinator, then what it leaves.
struct Host {
    _coordinator: Running,
    stage: Stage,
}

impl Host {
    fn start(config: &str) -> Host {
        let stage = Stage::new(config);
        fs::write(stage.path("home/config.json"), r#"{"tracked_shards_config": "AllShards"}"#).expect("a config.json");
        write_key(&stage.path("shared.json"), r#"{"account_id": "node3"}"#);
        Host { _coordinator: Running(coordinator_in(&stage).spawn().expect("it starts")), stage }
    }

    fn home(&self, name: &str) -> PathBuf {
        self.stage.path("home").join(name)
    }

    /// As a whole: its node reads some of these at any moment.
    fn set(&self, name: &str, text: &str) {
        let new = self.home("new");
        fs::write(&new, text).expect("written");
        fs::rename(new, self.home(name)).expect("renamed");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = baton(args);
        command.args(["--config", "baton.toml"]).current_dir(&*self.stage).stdin(Stdio::null());
        command
    }

    fn ask(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("it runs")
    }

    /// In one line.
    fn told(&self, verb: &str) -> String {
        let output = self.ask(&[verb]);
        String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&self.ask(&["status", "--json"]).stdout).unwrap_or_default()
    }

    fn events(&self) -> Vec<String> {
        let text = fs::read_to_string(self.home("events")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for an event at or after `from` that holds `what`; its place.
    fn event(&self, from: usize, what: &str) -> usize {
        let found = || self.events().iter().skip(from).position(|event| event.contains(what)).map(|at| from + at);
        self.until(what, found)
    }

    fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let began_at = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            let (events, log) = (self.events(), self.stage.log());
            assert!(began_at.elapsed() < BOUND, "not {what}:\n{:#}\n{events:#?}\n{log}", self.status());
            sleep(Duration::from_millis(20));
        }
    }
}

/// What has not ended when it is dropped is killed.
struct Handover(Option<Child>);

impl Handover {
    fn is_under_way(&mut self) -> bool {
        self.0.as_mut().is_some_and(|child| child.try_wait().expect("ours").is_none())
    }

    /// What it said at its end.
    fn ends(mut self) -> Output {
        self.0.take().expect("once").wait_with_output().expect("ours")
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        drop(self.0.take().map(Running));
    }
}

struct Cluster {
    /// a and b, then the arbiter.
    hosts: [Host; 3],
    chain: Chain,
    /// Last: the chain's file is in it.
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// Blocks come. Returns once one of a and b is active and the other one is ready.
    fn start() -> Cluster {
        let dir = tempfile::tempdir().expect("a directory");
        let chain = Chain::start(&dir.path().join("chain"));
        let addrs: [String; 3] = free_addresses();
        let me = std::env::current_exe().expect("this program");
        let start = |id: &str, listen: &str| {
            let text = CONFIG.replace("\"ID\"", &format!("{id:?}")).replace("LISTEN", listen);
            let text = text.replace("ADDR-A", &addrs[0]).replace("ADDR-B", &addrs[1]).replace("ADDR-C", &addrs[2]);
            let with_node = WITH_NODE
                .replace("ME\"", &format!("{}\"", me.display()))
                .replace("NODE", &free_addresses::<1>().concat());
            let with_node = with_node.replace("\"CHAIN\"", &format!("{:?}", chain.file));
            Host::start(&if id == "c" { text } else { text + &with_node })
        };
        let hosts = [start("a", &addrs[0]), start("b", &addrs[1]), start("c", &addrs[2])];
        let cluster = Cluster { hosts, chain, _dir: dir };
        let holder = cluster.holder();
        cluster.is_ready(1 - holder);
        cluster
    }

    /// 0 for a, 1 for b, once one of them is active.
    fn holder(&self) -> usize {
        self.hosts[0].until("a holder", || {
            let status = self.hosts[0].status();
            let active = |at: usize| status["members"][at]["phase"] == "Active";
            (0..2).find(|at| active(*at) && status["holder"] == status["members"][*at]["id"])
        })
    }

    /// As both hosts know it.
    fn is_ready(&self, at: usize) {
        for host in &self.hosts[..2] {
            host.until(&format!("host {at} is ready"), || {
                let member = &host.status()["members"][at];
                let ready = member["state"] == "Voting" && member.get("not_ready_because").is_none();
                (ready && member["reachable"] == true).then_some(())
            });
        }
    }

    fn hand_over(&self, from: usize, args: &[&str]) -> Handover {
        let mut command = self.hosts[from].command(&[&["handover"], args].concat());
        Handover(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")))
    }
}

/// A block comes every [`BLOCK_EVERY`] unless it stands still.
struct Chain {
    file: PathBuf,
    pace: Arc<Mutex<Pace>>,
    blocks: Option<JoinHandle<()>>,
}

struct Pace {
    head: u64,
    runs: bool,
    ended: bool,
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.pace().ended = true;
        drop(self.blocks.take().map(JoinHandle::join));
    }
}

impl Chain {
    fn start(file: &Path) -> Chain {
        append_block(file, 10);
        let pace = Arc::new(Mutex::new(Pace { head: 10, runs: true, ended: false }));
        let mut chain = Chain { file: file.to_owned(), pace, blocks: None };
        let theirs = Chain { file: file.to_owned(), pace: chain.pace.clone(), blocks: None };
        chain.blocks = Some(spawn(move || {
            loop {
                let mut pace = theirs.pace();
                if pace.ended {
                    return;
                }
                if pace.runs {
                    theirs.bring(&mut pace);
                }
                drop(pace);
                sleep(BLOCK_EVERY);
            }
        }));
        chain
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bring(&self, pace: &mut Pace) {
        pace.head += 1;
        append_block(&self.file, pace.head);
    }

    /// At `short` heights before a multiple of `turn`; from then on blocks come by [`Chain::block`] only.
    fn stops_before(&self, turn: u64, short: u64) -> u64 {
        let mut pace = self.pace();
        pace.runs = false;
        let goal = (pace.head + short + 1).next_multiple_of(turn) - short;
        while pace.head < goal {
            self.bring(&mut pace);
        }
        goal
    }

    fn block(&self) {
        self.bring(&mut self.pace());
    }

    fn runs_on(&self) {
        self.pace().runs = true;
    }
}

fn append_block(file: &Path, height: u64) {
    let mut file = fs::OpenOptions::new().append(true).create(true).open(file).expect("the chain");
    writeln!(file, "block {height} {}", WallTime::now().as_nanos()).expect("written");
}
