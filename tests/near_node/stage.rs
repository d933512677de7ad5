//! A host with a real core, effects and guard, and a fake neard. It is the only voter of its cluster, so
//! that its core leads at will; what Raft would do with proposals is done on the spot.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton::chain::{Driver, KeyReader};
use baton::chain_node::Activation;
use baton::config::{Chain, ChainLog, DriverKind, NearAddrs, OnHalt, Pointers, Probe, ProbeTarget};
use baton::core::replicated::{Command as Entry, Replicated};
use baton::core::{Action, Core, Event, Memory, Peer, Settings, Stage};
use baton::effects::{Effects, Setup};
use baton::guard_client::GuardSettings;
use baton::guard_frame::{LinesAs, LinkSpec};
use baton::ids::Role;
use baton::key_links::KeyLinks;
use baton::metrics::Metrics;
use baton::shared_core::SharedCore;
use baton::time::{BootTime, WallTime};
use baton::timing::Timing;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::fake_neard;

const GUARD: &str = env!("CARGO_BIN_EXE_baton-guard");
/// For anything that must happen at all.
pub const SOON: Duration = Duration::from_secs(30);
pub const CONFIG: &str =
    "{\n  \"tracked_shards_config\": \"AllShards\",\n  \"network\": { \"addr\": \"0.0.0.0:24567\" }\n}\n";

pub struct Host {
    // Dropped in this order: first nobody acts any more, then the guard ends its node, then the files go.
    tasks: JoinSet<()>,
    _guard: GuardProcess,
    pub effects: Effects,
    pub core: Arc<SharedCore>,
    actions: Option<mpsc::UnboundedReceiver<Action>>,
    dir: tempfile::TempDir,
}

struct GuardProcess(Child);

impl Drop for GuardProcess {
    fn drop(&mut self) {
        // A guard that is told to end takes its node with it; one that does not is killed, and PDEATHSIG does it.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let since = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && since.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Host {
    /// Nothing runs but the guard; what the core asks for is not done.
    pub async fn new(activation: Activation) -> Host {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().canonicalize().expect("a path");
        let home = path.join("home");
        std::fs::create_dir(&home).expect("home");
        let keys = [
            ("shared.json", r#"{"account_id": "node3"}"#),
            ("validator_node.json", "validator"),
            ("voter_node.json", "voter"),
        ];
        for (name, key) in keys {
            std::fs::write(path.join(name), key).expect("key");
            std::fs::set_permissions(path.join(name), PermissionsExt::from_mode(0o600)).expect("chmod");
        }
        std::fs::write(home.join("config.json"), CONFIG).expect("config");
        let chain = chain(&path, activation);
        let guard = GuardProcess(start_guard(&path));
        let memory = Memory {
            fresh: true,
            vote_term: 0,
            released_term: None,
            view: Replicated::default().view(),
            mark_seen: None,
        };
        let (core, actions) = SharedCore::new(Core::new(settings(), memory, BootTime::now()));
        let core = Arc::new(core);
        let setup = Setup {
            chain: Driver::new(&chain, &path, KeyReader::new(GUARD)).expect("a driver"),
            links: KeyLinks::new(chain.links.clone()).expect("links"),
            guard: GuardSettings {
                binary: GUARD.into(),
                socket: path.join("guard.sock"),
                member: "a".into(),
                links: chain.links.clone(),
                log: None,
                lines_as: LinesAs::Text,
                kill_max: timing().kill_max(),
            },
            stop_timeout: chain.stop_timeout,
            probe_every: chain.probe.every,
            node_log: None,
            core: core.clone(),
            metrics: Metrics::new(BootTime::now()),
        };
        let effects = Effects::start(setup).await.expect("effects");
        Host { tasks: JoinSet::new(), _guard: guard, effects, core, actions: Some(actions), dir }
    }

    /// The core is obeyed, and leads with `b` ready to take over. Returns once its node signs.
    pub async fn holding(activation: Activation) -> Host {
        let mut host = Host::new(activation).await;
        host.obey();
        host.until("active", |host| host.stage() == Some(Stage::Active)).await;
        host
    }

    /// Does what the core asks for, and keeps its lease alive.
    pub fn obey(&mut self) {
        let (core, effects) = (self.core.clone(), self.effects.clone());
        let mut actions = self.actions.take().expect("obeyed once");
        let events = self.events_file();
        self.tasks.spawn(async move {
            let mut replicated = Replicated::default();
            while let Some(action) = actions.recv().await {
                let Some(left) = effects.perform(action) else { continue };
                if let Some(command) = entry(left) {
                    note(&events, &command);
                    let outcome = replicated.apply(1, &command);
                    core.step(Event::Applied { term: 1, command, outcome, view: replicated.view() });
                }
            }
        });
        let core = self.core.clone();
        self.tasks.spawn(async move {
            let ready = Peer { ready: true, reachable: true, ..Peer::default() };
            core.step(Event::Peers(BTreeMap::from([("b".into(), ready)])));
            core.step(Event::Led { term: 1 });
            loop {
                core.step(Event::Acked { from: "b".into(), term: 1, sent_at: BootTime::now() });
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }

    pub fn stage(&self) -> Option<Stage> {
        self.core.read(|core, _| core.stage())
    }

    pub fn home(&self, name: &str) -> PathBuf {
        self.dir.path().join("home").join(name)
    }

    fn events_file(&self) -> PathBuf {
        self.home("events")
    }

    /// What neard and the Raft of this stage have written, in order.
    pub fn events(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.events_file()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Place of the first event after `from` that holds `what`.
    pub fn event_after(&self, from: usize, what: &str) -> Option<usize> {
        (from..).zip(self.events().iter().skip(from)).find(|(_, line)| line.contains(what)).map(|(at, _)| at)
    }

    /// Waits for an event that holds `what`; its place.
    pub async fn event(&self, from: usize, what: &str) -> usize {
        self.until(what, |host| host.event_after(from, what).is_some()).await;
        self.event_after(from, what).expect("just seen")
    }

    pub fn note(&self) -> String {
        self.effects.seen().borrow().note.clone()
    }

    pub fn hand_over(&self) {
        self.core.step(Event::HandoverWanted { to: Some("b".into()), timeout: Duration::from_secs(60) });
    }

    pub async fn until(&self, what: &str, is: impl Fn(&Host) -> bool) {
        let since = Instant::now();
        while !is(self) {
            let (events, note, stage) = (self.events(), self.note(), self.stage());
            let log = std::fs::read_to_string(self.home("node.log")).unwrap_or_default();
            let shown = format!("{stage:?}, note {note:?}\n{}\n{log}", events.join("\n"));
            assert!(since.elapsed() < SOON, "not {what} within {SOON:?}: {shown}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// What a proposal becomes once it is committed.
fn entry(action: Action) -> Option<Entry> {
    let at = WallTime::now();
    match action {
        Action::ProposeClaim { epoch, reason } => Some(Entry::Claim { epoch, member: "a".into(), reason, at }),
        Action::ProposeRelease { epoch, last_signed, reason, to } => {
            Some(Entry::Release { epoch, last_signed, reason, at, to })
        }
        Action::ProposeActivated { epoch, floor, began_at: _ } => {
            Some(Entry::Activated { epoch, at, floor, took: Duration::ZERO })
        }
        Action::Campaign | Action::TransferLead { .. } | Action::AnswerHandover(_) | Action::Finish { .. } => None,
        Action::StartStandby
        | Action::Arm { .. }
        | Action::Disarm { .. }
        | Action::LinkValidating { .. }
        | Action::Activate { .. }
        | Action::Deactivate { .. }
        | Action::WatchChain { .. } => None,
    }
}

fn note(events: &Path, command: &Entry) {
    let file = std::fs::OpenOptions::new().append(true).create(true).open(events);
    let line = format!("raft {command}\n");
    std::io::Write::write_all(&mut file.expect("events"), line.as_bytes()).expect("written");
}

fn start_guard(path: &Path) -> Child {
    let log = std::fs::File::create(path.join("guard.log")).expect("a log");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", GUARD, "--socket"]).arg(path.join("guard.sock"));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().expect("a guard");
    let mut said = String::new();
    let mut out = child.stdout.take().expect("its output");
    std::io::Read::read_to_string(&mut out, &mut said).expect("its word");
    assert_eq!(said, "ready\n");
    child
}

/// So long a lease that no busy machine lets it run out.
fn timing() -> Timing {
    Timing::new(Duration::from_millis(500), Duration::from_secs(60), Duration::from_millis(500), 1000).expect("sound")
}

fn settings() -> Settings {
    Settings {
        me: "a".into(),
        role: Role::Validator,
        priorities: [("a", 100), ("b", 90)].map(|(id, priority)| (id.into(), priority)).into(),
        timing: timing(),
        failback: false,
        clock_skew: Duration::from_millis(10),
        node_refuses: false,
        probe_failures_max: 1000,
        min_peers: None,
        head_still_max: SOON,
        activation_max: SOON,
        settle_max: None,
    }
}

fn chain(path: &Path, activation: Activation) -> Chain {
    let home = path.join("home");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address").to_string();
    let me = std::env::current_exe().expect("this program").to_str().expect("UTF-8").to_owned();
    let link = |link: &str, validating: &str, standby: Option<&str>| LinkSpec {
        link: home.join(link),
        validating: path.join(validating),
        standby: standby.map(|standby| path.join(standby)),
    };
    let restarts = activation == Activation::Restart;
    Chain {
        driver: DriverKind::Near,
        command: [&me, "--ignored", "--exact", "fake_neard_process", "--nocapture"].map(String::from).to_vec(),
        env: BTreeMap::from([(fake_neard::ADDR.to_owned(), addr.clone())]),
        log: Some(ChainLog::at(home.join("node.log"))),
        stop_timeout: Duration::from_secs(2),
        clock_skew: Duration::from_millis(10),
        on_halt: OnHalt::Wait,
        halt_after: Duration::from_secs(30),
        keys_on_tmpfs: false,
        links: vec![
            link("validator_key.json", "shared.json", None),
            link("node_key.json", "validator_node.json", Some("voter_node.json")),
        ],
        activation,
        probe: Probe {
            target: ProbeTarget::Http { url: format!("http://{addr}/status"), pointers: Pointers::default() },
            every: Duration::from_millis(50),
            timeout: Duration::from_secs(2),
            failures: 1000,
            min_peers: None,
        },
        last_signed: None,
        near_addrs: restarts.then(|| NearAddrs {
            validating: "0.0.0.0:24567".parse().expect("an address"),
            standby: "0.0.0.0:24568".parse().expect("an address"),
        }),
        home,
    }
}
