//! Guard, links and chain node of a member's host, and the worker of its coordinator that touches them.

use std::time::Duration;

use baton::base::chain_node::{Health, KeyState};
use baton::base::guard_frame::ExitCause;
use baton::base::ids::Epoch;
use baton::base::time::{BootTime, WallTime};
use baton::core::Event;
use baton::host::guard::fence::Fence;

use crate::host::Host;
use crate::rules::{Rules, Without};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    StartStandby,
    Link { epoch: Epoch },
    Activate { epoch: Epoch },
    Deactivate,
    Upgrade { fails: bool },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Machine {
    pub fence: Fence,
    /// The guard has fired for this epoch, and the node is dead by then.
    pub firing: Option<(Epoch, BootTime)>,
    pub node: Option<Node>,
    /// The links are validating.
    pub links: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    pub validator_epoch: Option<Epoch>,
    has_key: bool,
}

impl Machine {
    /// Conservative: a running node may read the key as soon as it is linked.
    pub fn may_sign(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.has_key || self.links)
    }
}

impl Host {
    /// Whether a node that may sign has a guard that is armed or already at work on it, and a tenure that is active a
    /// lease which lasts for at least as long as the guard waits.
    pub fn is_fenced(&self) -> bool {
        let now = self.now();
        let fires_at = self.machine.fence.armed().map(|armed| armed.deadline()).filter(|deadline| now < *deadline);
        let fires = self.machine.firing.is_some();
        let lease_covers = |deadline| self.core.lease_remaining(now).is_some_and(|left| deadline <= now + left);
        let guarded = !self.machine.may_sign() || fires || fires_at.is_some();
        let leased = !self.core.is_active() || fires || fires_at.is_some_and(lease_covers);
        guarded && leased
    }

    /// Time has passed: the guard fires when its deadline has come, and the node is dead `kill_max` later.
    pub fn time_passed(&mut self, rules: &Rules) {
        let now = self.now();
        if rules.without != Without::Deadline
            && let Some(armed) = self.machine.fence.armed()
            && let Some(epoch) = self.machine.fence.expire(now)
        {
            self.machine.firing = Some((epoch, armed.deadline() + rules.timings[self.me].kill_max()));
        }
        if self.machine.firing.is_some_and(|(_, dead_by)| dead_by <= now || self.machine.node.is_none()) {
            self.kill(rules);
        }
    }

    /// The guard has killed the node, and told the coordinator.
    pub fn kill(&mut self, rules: &Rules) {
        let Some((epoch, _)) = self.machine.firing.take() else { return };
        let ran = self.machine.node.take().is_some();
        self.machine.links = false;
        self.armed = None;
        if ran {
            self.step(rules, Event::NodeExited { cause: ExitCause::Fenced });
        }
        self.step(rules, Event::Fenced { epoch });
    }

    /// What works towards signing waits for nothing once an order to let go stands behind it. Without one, a job that
    /// the guard does not permit waits for the guard's news.
    pub fn has_work(&self) -> bool {
        self.jobs.front().is_some_and(|job| self.is_job_permitted(*job) || self.jobs.contains(&Job::Deactivate))
    }

    fn is_job_permitted(&self, job: Job) -> bool {
        match job {
            Job::StartStandby | Job::Deactivate | Job::Upgrade { .. } => true,
            Job::Link { epoch } => {
                self.armed.is_some_and(|armed| armed.epoch() == epoch && self.now() < armed.deadline())
            }
            Job::Activate { epoch } => self.machine.fence.permit(epoch).is_ok(),
        }
    }

    /// The worker does its next job.
    pub fn work(&mut self, rules: &Rules) {
        let Some(job) = self.jobs.pop_front() else { return };
        match job {
            Job::StartStandby => {
                self.machine.links = false;
                self.machine.node.get_or_insert_default();
                self.step(rules, Event::NodeStarted { validator_epoch: None });
                self.step(rules, Event::Probed(healthy(1)));
            }
            Job::Link { .. } | Job::Activate { .. } if !self.is_job_permitted(job) => {}
            Job::Link { epoch } => {
                self.machine.links = true;
                self.step(rules, Event::Linked { epoch });
            }
            Job::Activate { epoch } => {
                let started = self.machine.node.is_none();
                self.machine.node = Some(Node { validator_epoch: Some(epoch), has_key: self.machine.links });
                if started {
                    self.step(rules, Event::NodeStarted { validator_epoch: Some(epoch) });
                    self.step(rules, Event::Probed(healthy(1)));
                }
                self.step(rules, Event::Activated { epoch });
            }
            Job::Upgrade { fails } => {
                if self.machine.node.take().is_some() {
                    self.step(rules, Event::NodeExited { cause: ExitCause::Stopped { killed: false } });
                }
                let upgraded = self.core.host().upgrading().cloned().expect("what was asked for");
                let failed = fails.then(String::new);
                self.step(rules, Event::UpgradeEnded { name: upgraded, failed });
            }
            Job::Deactivate => {
                self.machine.links = false;
                if self.machine.node.take().is_some() {
                    self.step(rules, Event::NodeExited { cause: ExitCause::Stopped { killed: false } });
                }
                self.step(rules, Event::Inactive { last_signed: None });
            }
        }
    }
}

pub fn healthy(height: u64) -> Health {
    Health {
        approved: 0,
        synced: true,
        height,
        head_time: Some(WallTime::from_nanos(2_000)),
        peers: None,
        key: KeyState::Untold,
        latency: Duration::ZERO,
        version: String::new(),
    }
}
