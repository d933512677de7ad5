//! What this member knows of its own host: guard, chain node, links and health.
//!
//! Invariant (rule (c)): `is_proven` is true only while the chain node was proven stopped or was
//! started keyless and never given the key since, nor has said that it has one (`host/key_seen.rs`).

mod behind;
mod descendant;
mod disks;
mod foreign;
mod guard_answers;
mod key_seen;
mod not_ready;
mod upgrade;

use std::time::Duration;

use crate::base::chain_node::Health;
use crate::base::guard_frame::{Armed, ExitCause, NodeProcess};
use crate::base::ids::Epoch;
use crate::base::time::BootTime;
use crate::core::Action;
use behind::Behind;
pub use descendant::Descendant;
use disks::Disks;
use guard_answers::GuardAnswers;
use key_seen::KeySeen;
pub use not_ready::NotReady;
use serde::{Deserialize, Serialize};
use upgrade::Upgrade;

/// First wait before a crashed node is started again; doubled for every further crash.
const RESTART_MIN: Duration = Duration::from_secs(1);
const RESTART_MAX: Duration = Duration::from_secs(60);
/// For how long a node that failed as a holder's is not trusted with the baton; doubled each time in a row.
const DISTRUST_MIN: Duration = Duration::from_secs(8);
const DISTRUST_MAX: Duration = Duration::from_secs(600);
/// For every such time that a node ran, one of its earlier crashes is forgotten.
const CRASH_FORGOTTEN_AFTER: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Host {
    runs_node: bool,
    guard: bool,
    guard_answers: GuardAnswers,
    node: Node,
    proven: bool,
    crashes: u32,
    /// The node is not started before.
    start_at: BootTime,
    /// The node is not trusted with the baton before.
    steady_at: BootTime,
    /// So often in a row it did not do what a holder's must.
    distrusted: u32,
    health: Option<Health>,
    head_moved_at: BootTime,
    /// When the node was last in sync, or started.
    synced_at: BootTime,
    /// When the node was last seen without a lack of peers, or started.
    enough_peers_at: BootTime,
    min_peers: Option<u32>,
    probe_failures: u32,
    probe_failures_max: u32,
    probe_error: String,
    links_error: Option<String>,
    /// See [`crate::core::Event::KeyDefect`].
    key_defect: Option<String>,
    /// Under which the guard was found armed; that lease is not ours.
    foreign_epoch: Option<Epoch>,
    upgrade: Option<Upgrade>,
    /// Who it is; ours is not started beside it.
    foreign_node: Option<String>,
    key_seen: Option<KeySeen>,
    /// A process below the running node, where the kernel would end the node alone.
    below: Option<Descendant>,
    disks: Disks,
    behind: Behind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Node {
    Unknown,
    Stopped,
    Starting,
    Running { since: BootTime },
    Stopping,
}

impl Host {
    pub fn new(runs_node: bool, probe_failures_max: u32, min_peers: Option<u32>, started_at: BootTime) -> Self {
        Host {
            runs_node,
            guard: false,
            guard_answers: GuardAnswers::default(),
            node: if runs_node { Node::Unknown } else { Node::Stopped },
            proven: !runs_node,
            crashes: 0,
            start_at: started_at,
            steady_at: started_at,
            distrusted: 0,
            health: None,
            head_moved_at: started_at,
            synced_at: started_at,
            enough_peers_at: started_at,
            min_peers,
            probe_failures: 0,
            probe_failures_max,
            probe_error: String::new(),
            links_error: None,
            key_defect: None,
            foreign_epoch: None,
            upgrade: None,
            foreign_node: None,
            key_seen: None,
            below: None,
            disks: Disks::default(),
            behind: Behind::default(),
        }
    }

    pub fn is_proven(&self) -> bool {
        self.proven
    }

    pub fn runs_node(&self) -> bool {
        self.runs_node
    }

    pub fn has_guard(&self) -> bool {
        self.guard
    }

    pub fn is_node_running(&self) -> bool {
        matches!(self.node, Node::Running { .. })
    }

    /// Nothing is under way with the node, and it has no key if it runs. A node of which no guard tells
    /// counts as well: nothing can be done about it from here.
    pub fn is_at_rest(&self) -> bool {
        match self.node {
            Node::Unknown | Node::Stopped => true,
            Node::Running { .. } => self.proven,
            Node::Starting | Node::Stopping => false,
        }
    }

    pub fn is_node_stopped(&self) -> bool {
        self.node == Node::Stopped
    }

    pub fn health(&self) -> Option<&Health> {
        self.health.as_ref()
    }

    pub fn height(&self) -> u64 {
        self.health.as_ref().map_or(0, |health| health.height)
    }

    pub fn links_error(&self) -> Option<&str> {
        self.links_error.as_deref()
    }

    pub fn crashes(&self) -> u32 {
        self.crashes
    }

    pub fn start_at(&self) -> BootTime {
        self.start_at
    }

    pub fn steady_at(&self) -> BootTime {
        self.steady_at
    }

    pub fn head_moved_at(&self) -> BootTime {
        self.head_moved_at
    }

    /// Since when the node has said that it is not in sync; a node that was just started says so for a while.
    pub fn out_of_sync_since(&self) -> Option<BootTime> {
        self.health.as_ref().filter(|health| !health.synced).map(|_| self.synced_at)
    }

    /// Since when the node has had fewer peers than it must.
    pub fn few_peers_since(&self) -> Option<BootTime> {
        self.few_peers().map(|_| self.enough_peers_at)
    }

    /// How many peers there are and how many there must be, when they are too few. A node that does not
    /// tell lacks none.
    fn few_peers(&self) -> Option<(u32, u32)> {
        let (peers, min) = self.health.as_ref()?.peers.zip(self.min_peers)?;
        (peers < min).then_some((peers, min))
    }

    /// From here on the node may sign: the links are about to be validating.
    pub fn give_key(&mut self) {
        self.proven = false;
    }

    /// The node never has the key, and goes on as it is.
    pub fn key_was_never_here(&mut self) {
        self.proven = true;
    }

    /// The node was proven stopped, or keyless with the links in standby.
    pub fn key_is_gone(&mut self) {
        self.proven = true;
        self.links_error = None;
        if self.is_node_running() {
            // Keyless, and about to be stopped: the next start makes a standby of it.
            self.node = Node::Stopping;
        }
    }

    /// What the guard found. A node that was or may be a validator is stopped: its lease is not ours.
    pub fn guard_attached(
        &mut self,
        now: BootTime,
        node: Option<&NodeProcess>,
        armed: Option<&Armed>,
        out: &mut Vec<Action>,
    ) {
        self.guard = true;
        self.guard_answers = GuardAnswers::default();
        match node {
            None => {
                self.node = Node::Stopped;
                self.proven = true;
                if let Some(armed) = armed {
                    out.push(Action::Disarm { epoch: armed.epoch() });
                }
            }
            // Told to end by an earlier coordinator; it has no key, and can take none.
            Some(process) if process.validator_epoch.is_none() && armed.is_none() && process.stopping => {
                self.node = Node::Stopping;
                self.proven = true;
            }
            Some(process) if process.validator_epoch.is_none() && armed.is_none() => {
                self.node = Node::Running { since: now };
                self.proven = true;
            }
            Some(_) => {
                self.node = Node::Stopping;
                self.proven = false;
                self.foreign_epoch = armed.map(Armed::epoch);
                out.push(Action::Deactivate { kill: true });
            }
        }
    }

    /// The epoch to disarm once the node found under it is gone.
    pub fn take_foreign_epoch(&mut self) -> Option<Epoch> {
        self.foreign_epoch.take()
    }

    pub fn guard_gone(&mut self, node_proven_dead: bool) {
        self.guard = false;
        self.health = None;
        if node_proven_dead {
            self.node = Node::Stopped;
            self.proven = true;
        } else {
            self.node = Node::Unknown;
            self.proven = false;
        }
    }

    pub fn starting(&mut self) {
        self.node = Node::Starting;
    }

    pub fn started(&mut self, now: BootTime, validator_epoch: Option<Epoch>) {
        self.node = Node::Running { since: now };
        self.below = None;
        self.proven &= validator_epoch.is_none();
        self.head_moved_at = now;
        self.synced_at = now;
        self.enough_peers_at = now;
    }

    pub fn start_failed(&mut self, now: BootTime, reason: String) {
        self.node = Node::Stopped;
        self.probe_error = reason;
        self.crashed(now);
    }

    pub fn exited(&mut self, now: BootTime, cause: ExitCause) {
        if let Node::Running { since } = self.node {
            self.forget_crashes(now.since(since));
        }
        let struck = self.end_strike();
        self.node = Node::Stopped;
        self.proven = true;
        self.health = None;
        self.probe_failures = 0;
        match cause {
            ExitCause::ByItself => self.crashed(now),
            ExitCause::Stopped { .. } | ExitCause::Fenced if struck => self.crashed(now),
            ExitCause::Stopped { .. } | ExitCause::Fenced => self.start_at = now,
        }
    }

    /// Nobody else can take over from a node that crashed once: it does not wait for its next start.
    pub fn restart_at_once(&mut self, now: BootTime) {
        if self.crashes == 1 {
            self.start_at = now;
        }
    }

    /// The node did not do what a holder's must: it gets some time before it is trusted again, and more each time, so
    /// that a preferred host that cannot hold does not take the baton from the others for ever.
    pub fn distrust(&mut self, now: BootTime) {
        let pause = (DISTRUST_MIN * 2_u32.pow(self.distrusted.min(10))).min(DISTRUST_MAX);
        self.steady_at = self.steady_at.max(now + pause);
        self.distrusted += 1;
    }

    /// It has done well for long enough.
    pub fn trust_again(&mut self) {
        self.distrusted = 0;
    }

    pub fn links_failed(&mut self, reason: String) {
        self.links_error = Some(reason);
    }

    pub fn links_put_away(&mut self) {
        self.links_error = None;
    }

    pub fn note_key_defect(&mut self, reason: Option<String>) {
        self.key_defect = reason;
    }

    pub fn probed(&mut self, now: BootTime, health: Health) {
        if self.health.as_ref().is_none_or(|before| before.height != health.height) {
            self.head_moved_at = now;
        }
        if health.synced {
            self.synced_at = now;
        }
        self.probe_failures = 0;
        self.compare_with_log(health.height);
        self.health = Some(health);
        if self.few_peers().is_none() {
            self.enough_peers_at = now;
        }
    }

    pub fn probe_failed(&mut self, reason: String) {
        self.probe_failures += 1;
        self.probe_error = reason;
        if self.is_unhealthy() {
            self.health = None;
        }
    }

    pub fn node_hides(&mut self, below: Option<Descendant>) {
        self.below = below;
    }

    /// As many probes in a row have failed as the configuration allows.
    pub fn is_unhealthy(&self) -> bool {
        self.probe_failures >= self.probe_failures_max
    }

    pub fn probe_error(&self) -> &str {
        &self.probe_error
    }

    /// Why the running standby could not become the holder now; `None` when it could.
    pub fn not_ready(&self, now: BootTime) -> Option<NotReady> {
        if let Some(dirs) = self.hung_disks() {
            return Some(NotReady::DiskHung { dirs });
        }
        if !self.runs_node {
            return Some(self.disk_full().unwrap_or(NotReady::Arbiter));
        }
        if let Some(name) = self.upgrading() {
            return Some(NotReady::Upgrading { name: name.clone() });
        }
        if let Some(found) = &self.foreign_node {
            return Some(NotReady::ForeignNode { found: found.clone() });
        }
        if let Some(reason) = self.key_defect.as_ref().or(self.links_error.as_ref()) {
            return Some(NotReady::Links { reason: reason.clone() });
        }
        if let Some(reason) = self.keys_unusable() {
            return Some(NotReady::Keys { reason: reason.clone() });
        }
        if let Some(full) = self.disk_full() {
            return Some(full);
        }
        if !self.guard || self.guard_answers != GuardAnswers::Promptly {
            return Some(NotReady::NoGuard);
        }
        if !self.is_node_running() {
            return Some(NotReady::NodeDown);
        }
        if now < self.steady_at {
            return Some(NotReady::Unsteady { left: self.steady_at.since(now), times: self.distrusted });
        }
        if let Some(below) = &self.below {
            return Some(NotReady::Hidden { below: below.clone() });
        }
        match &self.health {
            // One is enough here: whoever gives the baton away does not give it to a node that may hang.
            Some(_) if self.probe_failures > 0 => Some(NotReady::NoAnswer { reason: self.probe_error.clone() }),
            None => Some(NotReady::NoAnswer { reason: self.probe_error.clone() }),
            Some(health) if !health.synced => Some(NotReady::Syncing { lag: None }),
            Some(_) => {
                let few_peers = || self.few_peers().map(|(peers, min)| NotReady::FewPeers { peers, min });
                self.behind_log().map(|blocks| NotReady::BehindLog { blocks }).or_else(few_peers)
            }
        }
    }

    fn crashed(&mut self, now: BootTime) {
        self.start_at = now + backoff(self.crashes);
        self.crashes += 1;
        self.steady_at = self.start_at + backoff(self.crashes);
    }
}

fn backoff(crashes: u32) -> Duration {
    (RESTART_MIN * 2_u32.pow(crashes.min(6))).min(RESTART_MAX)
}

#[cfg(test)]
mod tests;
