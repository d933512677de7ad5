//! Performs what the core decided about this host: guard, links and chain node. It decides nothing;
//! every outcome goes back to the core as an event. `coordinator` hands it the actions.
//!
//! Arming never waits. What touches links and node (`node.rs`) is done one after the other, so that a
//! link is never put to validating by something older than the order to let go.
//!
//! What waits for a disk is in a queue beside the jobs (`file_queue`), so that a hung disk keeps no node from being
//! ended. A node counts as stopped only when the guard, or the sweep after a guard's death, has seen it gone. A hot
//! activation signals a process only after it has answered a probe. A node that was proven keyless is stopped beside
//! the `Release`, and counts as down until it runs again as standby. `key_places` looks whether the links still
//! decide who signs, before a standby starts and while a node runs. `first_signature` and `last_words` serve people
//! alone.

mod approvals;
mod descendants;
mod file_queue;
mod file_watch;
mod first_signature;
mod guard;
mod key_places;
mod key_watch;
mod last_words;
mod letting_go;
mod links;
mod mark;
mod node;
mod node_log;
mod owner;
mod probe;
mod upgrade;
mod without_key;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::base::chain_node::Health;
use crate::base::guard_frame::LinkState;
use crate::base::guard_frame::{ArmedGuard, Containment, NodeProcess, ToGuard};
use crate::base::ids::{Epoch, SignMark};
use crate::base::signing::Custody;
use crate::config::ChainLog;
use crate::core::Action;
use crate::core::upgrades::UpgradeReport;
use crate::core_handle::SharedCore;
use crate::host::chain::near::windows::{Pace, Window};
use crate::host::chain::{Driver, ProbeError};
use crate::host::guard_client::{GuardClient, GuardError, GuardSettings};
use crate::host::key_links::KeyLinks;
use crate::host::upgrade::Upgrades;
use key_places::KeyPlaces;
use links::LinksSeen;
use node::Job;
use node_log::NodeLog;
use owner::OwnerWatch;
pub use upgrade::Planned;
use upgrade::Upgrader;

/// For the guard to take note of the last that is said to it.
const LAST_WORDS_MAX: Duration = Duration::from_secs(2);

/// What the effects of one host work with.
pub struct Setup {
    pub chain: Driver,
    pub links: KeyLinks,
    pub guard: GuardSettings,
    /// From SIGTERM to SIGKILL.
    pub stop_timeout: Duration,
    pub probe_every: Duration,
    /// With `[upgrade]`.
    pub upgrades: Option<Upgrades>,
    /// To be kept within its bounds.
    pub node_log: Option<ChainLog>,
    pub core: Arc<SharedCore>,
    pub custody: Custody,
}

/// The hands of a coordinator with a chain node. Cheap to clone.
#[derive(Clone)]
pub struct Effects {
    hands: Arc<Hands>,
    jobs: mpsc::UnboundedSender<Job>,
}

/// What the tasks of this module share.
struct Hands {
    chain: Driver,
    links: KeyLinks,
    guard_settings: GuardSettings,
    stop_timeout: Duration,
    probe_every: Duration,
    core: Arc<SharedCore>,
    guard: Mutex<GuardLink>,
    /// What the guard last said of the chain node.
    node: watch::Sender<NodeSeen>,
    /// Whether this coordinator has known a chain node to run: the next start is a restart.
    node_ran: AtomicBool,
    node_restarts: AtomicU64,
    /// How often the guard killed the chain node at its deadline.
    fences: AtomicU64,
    /// How long the node's log was before its newest start.
    log_before_start: AtomicU64,
    /// The coordinator is ending: a guard that goes is not replaced.
    leaving: AtomicBool,
    /// Whether a guard answers.
    attached: watch::Sender<bool>,
    /// Raised by every order to let go: what works towards signing gives up.
    let_go: watch::Sender<u64>,
    closely: watch::Sender<bool>,
    /// The process that has answered a probe. One that has not may not even know its signals yet.
    answered: watch::Sender<Option<u32>>,
    /// Why the guard refused the newest signal to the chain node, if it did.
    signal_refused: watch::Sender<Option<String>>,
    /// The chain node was proven to run with the key since it was last given.
    showed_key: AtomicBool,
    /// The chain node has the key, or may have.
    has_key: watch::Sender<bool>,
    seen: watch::Sender<Seen>,
    /// Whose node answers at the probe's address.
    owner: OwnerWatch,
    /// What is wrong at the probe's address, and in the node's home, in words.
    foreign_listener: watch::Sender<Option<String>>,
    foreign_in_home: watch::Sender<Option<String>>,
    /// With `[upgrade]`.
    upgrader: Option<Upgrader>,
    upgrade_report: watch::Sender<Option<UpgradeReport>>,
    key_places: KeyPlaces,
    links_seen: LinksSeen,
    custody: Custody,
}

#[derive(Default)]
struct GuardLink {
    client: Option<GuardClient>,
    /// The guard's latest word.
    armed: Option<ArmedGuard>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum NodeSeen {
    /// No guard tells.
    Unknown,
    Stopped,
    Running(NodeProcess),
    /// The guard did not start it.
    Refused(String),
}

/// What the chain node has shown last, for gossip and metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub health: Option<Health>,
    /// On this host; never goes back.
    pub last_signed: Option<SignMark>,
    /// What an operator should know of the node's key and signatures; empty when there is nothing.
    pub note: String,
    /// A node on this host that is not ours, in words; nothing of what it answers is in `health`.
    pub foreign: Option<String>,
}

/// What operators see of the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardState {
    Idle,
    Armed,
    Unreachable,
}

impl GuardState {
    pub fn as_str(self) -> &'static str {
        match self {
            GuardState::Idle => "idle",
            GuardState::Armed => "armed",
            GuardState::Unreachable => "unreachable",
        }
    }
}

impl Effects {
    /// Attaches to the guard, or starts one, and begins to probe.
    ///
    /// # Errors
    /// Nothing runs then that did not run before.
    pub async fn start(setup: Setup) -> Result<Effects, GuardError> {
        let (upgrader, news) = setup.upgrades.map(Upgrader::new).unzip();
        let spec = setup.chain.node_spec();
        let hands = Arc::new(Hands {
            links_seen: LinksSeen::new(setup.links.state()),
            owner: OwnerWatch::new(setup.chain.endpoint(), spec.cwd, spec.argv),
            foreign_listener: watch::Sender::new(None),
            foreign_in_home: watch::Sender::new(None),
            chain: setup.chain,
            links: setup.links,
            guard_settings: setup.guard,
            stop_timeout: setup.stop_timeout,
            probe_every: setup.probe_every,
            core: setup.core,
            guard: Mutex::default(),
            node: watch::Sender::new(NodeSeen::Unknown),
            node_ran: AtomicBool::new(false),
            node_restarts: AtomicU64::new(0),
            fences: AtomicU64::new(0),
            log_before_start: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            attached: watch::Sender::new(false),
            let_go: watch::Sender::new(0),
            closely: watch::Sender::new(false),
            answered: watch::Sender::new(None),
            signal_refused: watch::Sender::new(None),
            showed_key: AtomicBool::new(false),
            has_key: watch::Sender::new(false),
            seen: watch::Sender::default(),
            upgrader,
            upgrade_report: watch::Sender::new(None),
            key_places: KeyPlaces::default(),
            custody: setup.custody,
        });
        let events = guard::attach(&hands).await?;
        let (jobs, queue) = mpsc::unbounded_channel();
        tokio::spawn(guard::follow(hands.clone(), events));
        tokio::spawn(node::work(hands.clone(), queue));
        tokio::spawn(probe::watch(hands.clone()));
        tokio::spawn(mark::watch(hands.clone()));
        tokio::spawn(key_watch::watch(hands.clone()));
        tokio::spawn(links::watch(hands.clone()));
        if setup.custody == Custody::Links {
            tokio::spawn(key_places::watch_targets(hands.clone()));
        }
        tokio::spawn(key_places::watch_node(hands.clone()));
        if let Some(news) = news {
            tokio::spawn(upgrade::watch(hands.clone(), news));
        }
        if let Some(Err(error)) = setup.node_log.map(|log| NodeLog(log).keep_bounded()) {
            tracing::warn!("the chain node's log is not kept within its bounds: {error}");
        }
        Ok(Effects { hands, jobs })
    }

    /// Starts `action` if it is one about guard, links or chain node, and gives it back otherwise.
    pub fn perform(&self, action: Action) -> Option<Action> {
        let action = match self.hands.custody {
            Custody::Links => action,
            Custody::Signer => self.perform_without_key(action)?,
        };
        match action {
            Action::Arm { epoch, deadline } => self.hands.send(ToGuard::Arm { epoch, deadline }),
            Action::Disarm { epoch } => self.hands.disarm(epoch),
            Action::WatchChain { closely } => {
                self.hands.closely.send_replace(closely);
            }
            Action::StartStandby => self.queue(Job::StartStandby),
            Action::LinkValidating { epoch, floor } => self.queue(Job::Link { epoch, floor }),
            Action::Upgrade { name, back } => self.queue(Job::Upgrade { name, back }),
            Action::Activate { epoch } => self.queue(Job::Activate { epoch }),
            Action::Deactivate { kill } => {
                self.hands.let_go.send_modify(|orders| *orders += 1);
                if kill {
                    // Whatever is under way with the node waits for no gentler end.
                    self.hands.send(ToGuard::Stop { timeout: Duration::ZERO });
                }
                self.queue(Job::Deactivate { kill });
            }
            Action::ProposeClaim { .. }
            | Action::ProposeRelease { .. }
            | Action::ProposeActivated { .. }
            | Action::Campaign
            | Action::TransferLead { .. }
            | Action::AnswerHandover(_)
            | Action::Finish { .. } => return Some(action),
            Action::EndGuard => self.hands.end_guard(),
        }
        None
    }

    /// Guard and chain node stay, for the next coordinator to adopt. A node that may have the key does not:
    /// then both are stopped.
    pub async fn leave_standby(&self) {
        if self.hands.is_node_keyless() {
            self.hands.leaving.store(true, Ordering::Relaxed);
            let flushed = self.hands.guard().client.as_ref().map(GuardClient::flushed);
            if let Some(flushed) = flushed
                && tokio::time::timeout(LAST_WORDS_MAX, flushed).await.is_err()
            {
                tracing::warn!("the guard takes no frames");
            }
        } else {
            tracing::warn!("the chain node is stopped, since it is not known to be a standby");
            self.stop(false).await;
        }
    }

    /// Stops chain node and guard. Returns when both are gone, or when the guard is out of reach.
    pub async fn stop(&self, at_once: bool) {
        self.hands.leaving.store(true, Ordering::Relaxed);
        self.hands.let_go.send_modify(|orders| *orders += 1);
        if self.hands.has_guard() {
            let timeout = if at_once { Duration::ZERO } else { self.hands.stop_timeout };
            self.hands.stop_node(timeout).await;
            self.hands.send(ToGuard::Quit);
            let mut attached = self.hands.attached.subscribe();
            let quit = attached.wait_for(|attached| !attached);
            if tokio::time::timeout(LAST_WORDS_MAX, quit).await.is_err() {
                tracing::warn!("the guard did not end");
            }
        }
    }

    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.hands.seen.subscribe()
    }

    /// Starts of the chain node after the first that this coordinator knows of.
    pub fn node_restarts(&self) -> u64 {
        self.hands.node_restarts.load(Ordering::Relaxed)
    }

    /// How often the guard killed the chain node because its deadline had passed, since this coordinator started.
    pub fn fences(&self) -> u64 {
        self.hands.fences.load(Ordering::Relaxed)
    }

    /// Asks the chain; see [`Driver::maintenance_window`].
    pub async fn maintenance_window(&self, length: Duration) -> Option<Result<(Pace, Option<Window>), ProbeError>> {
        self.hands.chain.maintenance_window(length).await
    }

    pub fn node_pid(&self) -> Option<u32> {
        self.hands.running_pid()
    }

    /// `None` while no chain node runs.
    pub fn containment(&self) -> Option<Containment> {
        match &*self.hands.node.borrow() {
            NodeSeen::Running(process) => Some(process.containment),
            NodeSeen::Unknown | NodeSeen::Stopped | NodeSeen::Refused(_) => None,
        }
    }

    pub fn guard_state(&self) -> GuardState {
        let guard = self.hands.guard();
        match (&guard.client, &guard.armed) {
            (None, _) => GuardState::Unreachable,
            (Some(_), Some(_)) => GuardState::Armed,
            (Some(_), None) => GuardState::Idle,
        }
    }

    /// Reads the links, which may wait for a disk.
    pub fn link_state(&self) -> LinkState {
        self.hands.links.state()
    }

    /// The links as they were read at most a second ago, or as long as the disk hangs.
    pub fn links_seen(&self) -> watch::Receiver<LinkState> {
        self.hands.links_seen.seen()
    }

    fn queue(&self, job: Job) {
        // The worker ends with the coordinator only.
        let _ = self.jobs.send(job);
    }
}

impl Hands {
    fn guard(&self) -> MutexGuard<'_, GuardLink> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest that is known here, for the log.
    fn epoch(&self) -> u64 {
        self.core.read(|core, _| core.epoch().0)
    }

    /// The epoch under which the running node became a validator.
    fn validator_epoch(&self) -> Option<Epoch> {
        match &*self.node.borrow() {
            NodeSeen::Running(process) => process.validator_epoch,
            NodeSeen::Unknown | NodeSeen::Stopped | NodeSeen::Refused(_) => None,
        }
    }

    fn running_pid(&self) -> Option<u32> {
        match &*self.node.borrow() {
            NodeSeen::Running(process) => Some(process.pid),
            NodeSeen::Unknown | NodeSeen::Stopped | NodeSeen::Refused(_) => None,
        }
    }

    fn runs_node(&self, pid: u32) -> bool {
        self.running_pid() == Some(pid)
    }

    /// The process that runs, once it has answered a probe.
    fn answered_pid(&self) -> Option<u32> {
        (*self.answered.borrow()).filter(|pid| self.runs_node(*pid))
    }

    /// As far as is known here. Of a node about which no guard tells nothing has to be feared: it was proven gone, or
    /// the guard still keeps its deadline.
    fn is_node_keyless(&self) -> bool {
        let started_keyless = match &*self.node.borrow() {
            NodeSeen::Running(process) => process.validator_epoch.is_none(),
            NodeSeen::Unknown | NodeSeen::Stopped | NodeSeen::Refused(_) => true,
        };
        started_keyless && !*self.has_key.borrow()
    }

    fn note(&self, note: String) {
        self.seen.send_modify(|seen| seen.note = note);
    }

    /// The process has answered a probe. At its first answer, whatever there was to say is of a process that is gone.
    fn note_answer(&self, pid: u32) {
        self.answered.send_if_modified(|answered| {
            let first = *answered != Some(pid);
            if first {
                self.note(String::new());
                *answered = Some(pid);
            }
            first
        });
    }

    fn has_guard(&self) -> bool {
        self.guard().client.is_some()
    }

    fn guard_pid(&self) -> Option<u32> {
        self.guard().client.as_ref().map(GuardClient::guard_pid)
    }

    /// A node that is not ours was found, and is not known to be gone.
    fn is_foreign_known(&self) -> bool {
        self.foreign_listener.borrow().is_some() || self.foreign_in_home.borrow().is_some()
    }

    /// To a guard that is gone nothing is said: `GuardGone` tells the core what became of the node.
    fn send(&self, frame: ToGuard) {
        if let Some(client) = &self.guard().client {
            client.send(frame);
        }
    }

    /// The kernel ends the chain node with it; another guard is started.
    fn end_guard(&self) {
        if let Some(client) = &self.guard().client {
            tracing::warn!(guard = client.guard_pid(), "the guard is ended, and another one is started");
            client.kill();
        }
    }

    fn disarm(&self, epoch: Epoch) {
        self.guard().armed = None;
        self.send(ToGuard::Disarm { epoch });
    }

    /// Asks the guard to end the chain node within `timeout`. Returns when it was proven gone, and not
    /// before: while no guard tells, this waits for one that does.
    async fn stop_node(&self, timeout: Duration) {
        let mut node = self.node.subscribe();
        loop {
            let seen = node.borrow_and_update().clone();
            match seen {
                NodeSeen::Stopped => return,
                // After a refused start the guard's answer to this tells whether anything runs. One that was ordered
                // and not answered is taken back, or ends as soon as it runs.
                NodeSeen::Running(_) | NodeSeen::Refused(_) | NodeSeen::Unknown => self.send(ToGuard::Stop { timeout }),
            }
            if node.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Where the admin and guard sockets of a member are.
pub fn guard_socket(run_dir: &std::path::Path) -> PathBuf {
    run_dir.join("guard.sock")
}
