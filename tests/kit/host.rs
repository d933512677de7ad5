//! One host as a stage for tests: a real core, its effects and a real guard. Nobody else votes, so that the core leads
//! at will; what Raft would do with proposals is done on the spot.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use baton::base::guard_frame::LinesAs;
use baton::base::ids::Role;
use baton::base::signing::Custody;
use baton::base::time::{BootTime, WallTime};
use baton::base::timing::Timing;
use baton::config::{Chain, OnHalt};
use baton::core::agreed::replicated::{Baton, Command as Entry, Replicated};
use baton::core::upgrades::UpgradeReport;
use baton::core::{Action, Core, Event, Memory, Peer, Settings, Stage};
use baton::core_handle::SharedCore;
use baton::host::chain::{Driver, KeyReader};
use baton::host::effects::{Effects, Setup};
use baton::host::guard_client::GuardSettings;
use baton::host::key_links::KeyLinks;
use baton::host::upgrade::Upgrades;
use baton::record::Recorder;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::program::guard_in;

const GUARD: &str = env!("CARGO_BIN_EXE_baton-guard");
/// Bound of everything that is awaited.
pub const SOON: Duration = Duration::from_secs(50);

pub struct Host {
    // Dropped in this order: first nobody acts any more, then the guard ends its node.
    tasks: JoinSet<()>,
    _guard: GuardProcess,
    pub effects: Effects,
    pub core: Arc<SharedCore>,
    actions: Option<mpsc::UnboundedReceiver<Action>>,
    finished: Arc<Mutex<Option<Action>>>,
    home: PathBuf,
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
    /// Nothing runs but the guard, below `dir`; what the core asks for is not done. The node writes its events and its
    /// log in the home of `chain`.
    pub async fn start(dir: &Path, chain: &Chain, upgrades: Option<Upgrades>) -> Host {
        let guard = GuardProcess(start_guard(dir));
        let view = Replicated::default().view();
        let memory = Memory { view, ..Memory::fresh() };
        let (core, actions) = SharedCore::new(Core::new(settings(chain), memory, BootTime::now()), Recorder::off());
        let core = Arc::new(core);
        let setup = Setup {
            custody: Custody::Links,
            chain: Driver::new(chain, dir, KeyReader::new(GUARD)).expect("a driver"),
            links: KeyLinks::new(chain.links.clone()).expect("links"),
            guard: GuardSettings {
                binary: guard_in(dir),
                socket: dir.join("guard.sock"),
                member: "a".into(),
                links: chain.links.clone(),
                log: None,
                lines_as: LinesAs::Text,
                kill_max: timing().kill_max(),
                watchdog: None,
            },
            stop_timeout: chain.stop_timeout,
            probe_every: chain.probe.every,
            node_log: None,
            upgrades,
            core: core.clone(),
        };
        let effects = Effects::start(setup).await.expect("effects");
        let (tasks, finished, home) = (JoinSet::new(), Arc::default(), chain.home.clone());
        Host { tasks, _guard: guard, effects, core, actions: Some(actions), finished, home }
    }

    /// The core is obeyed, with `b` ready to take over; when it `leads`, its lease is kept alive.
    pub fn obey(&mut self, leads: bool) {
        let (_, term) = watch::channel(leads.then_some(1));
        self.obey_in(Arc::default(), term);
    }

    /// As `obey`, with a log that other hosts of the test may share: its terms are led by one host each, this one in
    /// those of `term`.
    pub fn obey_in(&mut self, log: Arc<Mutex<Replicated>>, mut term: watch::Receiver<Option<u64>>) {
        let (core, effects) = (self.core.clone(), self.effects.clone());
        let mut actions = self.actions.take().expect("obeyed once");
        let (events, finished) = (self.events_file(), self.finished.clone());
        let (of_log, of_term) = (log.clone(), term.clone());
        self.tasks.spawn(async move {
            while let Some(action) = actions.recv().await {
                let Some(left) = effects.perform(action) else { continue };
                if let Some(command) = entry(&left) {
                    note(&events, &command);
                    let Some(term) = *of_term.borrow() else { continue };
                    let (outcome, view) = {
                        let mut log = of_log.lock().expect("no panic");
                        (log.apply(term, &command), log.view())
                    };
                    core.step(Event::Applied { term, command, outcome, view });
                } else if matches!(left, Action::Finish { .. }) {
                    *finished.lock().expect("no panic") = Some(left);
                }
            }
        });
        let core = self.core.clone();
        self.tasks.spawn(async move {
            let ready = Peer { ready: true, reachable: true, ..Peer::default() };
            core.step(Event::Peers(BTreeMap::from([("b".into(), ready)])));
            let mut led = None;
            loop {
                let leads = *term.borrow_and_update();
                if leads != led {
                    let (view, last) = {
                        let log = log.lock().expect("no panic");
                        (log.view(), log.last_release)
                    };
                    core.step(Event::Restored { view, released_term: last.map(|release| release.term) });
                    core.step(leads.map_or(Event::LeadLost, |term| Event::Led { term }));
                    led = leads;
                }
                core.step(match leads {
                    Some(term) => Event::Acked {
                        from: "b".into(),
                        term,
                        sent_at: BootTime::now(),
                        promised: Some(timing().promise()),
                    },
                    None => Event::Accepted {
                        leader: "b".into(),
                        term: 1,
                        arrived_at: BootTime::now(),
                        promise: timing().promise(),
                    },
                });
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(50)) => {}
                    // Nothing changes once the test has dropped the other end.
                    Ok(()) = term.changed() => {}
                }
            }
        });
    }

    pub fn stage(&self) -> Option<Stage> {
        self.core.read(|core, _| core.stage())
    }

    pub fn finished(&self) -> Option<Action> {
        self.finished.lock().expect("no panic").clone()
    }

    /// What operators are told of the chain node.
    pub fn note(&self) -> String {
        self.effects.seen().borrow().note.clone()
    }

    pub fn report(&self) -> Option<UpgradeReport> {
        self.effects.upgrade_report().borrow().clone()
    }

    fn events_file(&self) -> PathBuf {
        self.home.join("events")
    }

    /// What the chain node and the Raft of this stage have written, in order.
    pub fn events(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.events_file()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Place of the first event after `from` that holds `what`.
    pub fn event_after(&self, from: usize, what: &str) -> Option<usize> {
        (from..).zip(self.events().iter().skip(from)).find(|(_, line)| line.contains(what)).map(|(at, _)| at)
    }

    pub async fn until(&self, what: &str, is: impl Fn(&Host) -> bool) {
        let since = Instant::now();
        while !is(self) {
            assert!(since.elapsed() < SOON, "not {what} within {SOON:?}: {}", self.shown());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn shown(&self) -> String {
        let log = std::fs::read_to_string(self.home.join("node.log")).unwrap_or_default();
        let why = self.core.read(|core, now| core.not_ready(now.boot).map(|reason| reason.to_string()));
        let (stage, note, report, events) = (self.stage(), self.note(), self.report(), self.events().join("\n"));
        format!("{stage:?}, {why:?}, note {note:?}, {report:?}\n{events}\n{log}")
    }
}

/// A key file as a chain wants it, for its owner's eyes.
pub fn write_key(path: &Path, key: &str) {
    std::fs::write(path, key).expect("a key");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("chmod");
}

/// What a proposal becomes once it is committed.
fn entry(action: &Action) -> Option<Entry> {
    let at = WallTime::now();
    match action.clone() {
        Action::ProposeClaim { epoch, reason } => {
            Some(Entry::Baton(Baton::Claim { epoch, member: "a".into(), reason, at }))
        }
        Action::ProposeRelease { epoch, last_signed, reason, to } => {
            Some(Entry::Baton(Baton::Release { epoch, last_signed, reason, at, to }))
        }
        Action::ProposeActivated { epoch, floor, began_at: _ } => {
            Some(Entry::Baton(Baton::Activated { epoch, at, floor, took: Duration::ZERO }))
        }
        Action::Campaign | Action::TransferLead { .. } | Action::AnswerHandover(_) | Action::Finish { .. } => None,
        Action::StartStandby
        | Action::Arm { .. }
        | Action::Disarm { .. }
        | Action::LinkValidating { .. }
        | Action::Activate { .. }
        | Action::Deactivate { .. }
        | Action::Upgrade { .. }
        | Action::EndGuard
        | Action::WatchChain { .. } => None,
    }
}

fn note(events: &Path, command: &Entry) {
    let file = std::fs::OpenOptions::new().append(true).create(true).open(events);
    let line = format!("raft {command}\n");
    std::io::Write::write_all(&mut file.expect("events"), line.as_bytes()).expect("written");
}

fn start_guard(dir: &Path) -> Child {
    let log = std::fs::File::create(dir.join("guard.log")).expect("a log");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", GUARD, "--socket"]).arg(dir.join("guard.sock"));
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

fn settings(chain: &Chain) -> Settings {
    Settings {
        me: "a".into(),
        role: Role::Validator,
        priorities: [("a", 100), ("b", 90)].map(|(id, priority)| (id.into(), priority)).into(),
        timing: timing(),
        unstated_lease: None,
        failback: false,
        clock_skew: Duration::from_millis(10),
        node_refuses: false,
        probe_failures_max: 1000,
        min_peers: None,
        head_still_max: SOON,
        activation_max: SOON,
        stop_timeout: SOON,
        settle_max: (chain.on_halt == OnHalt::Replica).then_some(chain.halt_after),
        sees_key_on_chain: false,
        custody: Custody::Links,
    }
}
