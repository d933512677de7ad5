//! Guard and chain node of a simulated host. They keep the guard's contract (`base/guard_frame.rs`): it fires at its
//! deadline by its own clock and needs up to `kill_max` to kill; a coordinator that comes and goes does not touch
//! them. Here is what the oracle watches: from when until when a chain node may sign.

use std::time::Duration;

use baton::base::guard_frame::{Armed, Containment, ExitCause, NodeProcess};
use baton::base::ids::Epoch;
use baton::base::time::BootTime;
use baton::core::Event;
use baton::host::guard::fence::Fence;

use crate::raft::Id;
use crate::schedule::What;
use crate::tally::Kind;
use crate::world::{MS, Without, World};

/// How long after a deadline the kernel kills a guard that did not keep it.
const BACKSTOP_AFTER: u64 = 50 * MS;

#[derive(Debug, Default)]
pub struct Machine {
    fence: Fence,
    firing: Option<Epoch>,
    /// What it was armed with; zero before that.
    kill_max: Duration,
    /// The kernel's timer runs for it: until it is disarmed, or kept.
    deadline: Option<BootTime>,
    node: Option<Process>,
    pids: u32,
    /// The links are validating.
    pub links: bool,
    /// Generation of the coordinator that is connected.
    connection: u32,
    /// When the last frame of either direction arrives: frames keep their order.
    asked_until: u64,
    told_until: u64,
    /// The guard's process does not run.
    stopped: Option<Stopped>,
    /// How often the guard was stopped.
    stops: u32,
    /// The file system with the links and the chain node's home is stuck until then.
    pub home_stuck_until: u64,
    /// No signal ends guard or node before then, and neither runs.
    frozen_until: u64,
}

#[derive(Debug, Default)]
struct Stopped {
    /// What waits for it: frames with the generation that sent them, and kills that it was about to do.
    asked: Vec<(u32, ToMachine)>,
    kills: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Process {
    pid: u32,
    started_at: BootTime,
    validator_epoch: Option<Epoch>,
    has_key: bool,
    dies_of: Option<ExitCause>,
    /// It answers probes from then on.
    answers_from: u64,
    /// It does nothing, and a SIGTERM does nothing to it.
    hung_until: u64,
    /// A SIGKILL waits for the end of a freeze: it is delivered before the node's next instruction.
    doomed: bool,
}

#[derive(Clone, Debug)]
pub enum ToMachine {
    Start { validator_epoch: Option<Epoch> },
    Arm { epoch: Epoch, deadline: BootTime },
    Disarm { epoch: Epoch },
    Signal { validator_epoch: Option<Epoch> },
    Stop { timeout: Duration },
}

#[derive(Clone, Debug)]
pub enum FromMachine {
    Armed(Armed),
    Started { pid: u32, validator_epoch: Option<Epoch> },
    Exited { cause: ExitCause },
    Fenced { epoch: Epoch },
    StartRefused,
    Gone,
}

impl Machine {
    /// Conservative: a running node may read the key as soon as it is linked.
    pub fn may_sign(&self) -> bool {
        self.node.as_ref().is_some_and(|node| (node.has_key || self.links) && !node.doomed)
    }

    pub fn answers(&self, at: u64) -> bool {
        let runs = |node: &Process| at >= node.answers_from && at >= node.hung_until && !node.doomed;
        at >= self.frozen_until && self.node.as_ref().is_some_and(runs)
    }

    /// It was started and hangs.
    pub fn hangs(&self, at: u64) -> bool {
        self.node.as_ref().is_some_and(|node| at < node.hung_until || at < self.frozen_until)
    }

    pub fn is_running(&self) -> bool {
        self.node.is_some()
    }

    pub fn is_stuck(&self, at: u64) -> bool {
        at < self.home_stuck_until
    }

    pub fn hang_node(&mut self, until: u64) {
        self.node.iter_mut().for_each(|node| node.hung_until = until);
    }

    pub fn is_frozen(&self, at: u64) -> bool {
        at < self.frozen_until
    }

    pub fn freeze(&mut self, until: u64) {
        self.frozen_until = until;
    }

    /// Whether the node answers that it runs with the key.
    pub fn proves_key(&self, at: u64) -> bool {
        self.answers(at) && self.node.as_ref().is_some_and(|node| node.has_key)
    }

    /// No process is left, and none is frozen. The links stay as they are.
    pub fn power_off(&mut self) {
        self.crash();
        self.frozen_until = 0;
    }

    /// Guard and chain node are gone.
    pub fn crash(&mut self) {
        *self = Machine {
            links: self.links,
            pids: self.pids,
            asked_until: self.asked_until,
            told_until: self.told_until,
            stops: self.stops,
            home_stuck_until: self.home_stuck_until,
            frozen_until: self.frozen_until,
            ..Machine::default()
        };
    }

    pub fn has_key(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.has_key)
    }

    /// No word of the guard arrives before.
    pub fn hold_back_news(&mut self, until: u64) {
        self.told_until = self.told_until.max(until);
    }

    /// A guard that is stopped answers nobody.
    pub fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    pub fn attach(&mut self, generation: u32) -> (Option<NodeProcess>, Option<Armed>) {
        self.connection = generation;
        let process = self.node.as_ref().map(|node| NodeProcess {
            pid: node.pid,
            started_at: node.started_at,
            validator_epoch: node.validator_epoch,
            containment: Containment::default(),
            stopping: node.dies_of.is_some(),
        });
        (process, self.fence.armed())
    }
}

impl World {
    pub fn ask(&mut self, host: Id, asked: ToMachine) {
        let generation = self.hosts[host].generation;
        if let (ToMachine::Start { .. }, Some(coordinator)) = (&asked, &mut self.hosts[host].coordinator) {
            // From now on only the guard's answer tells whether a node runs.
            (coordinator.node_seen, coordinator.gone) = (None, false);
        }
        // To start a process takes longer than to note a deadline.
        let takes = if matches!(asked, ToMachine::Start { .. }) { self.random.between(0, 25 * MS) } else { 0 };
        let arrives = (self.at + takes + self.moment()).max(self.hosts[host].machine.asked_until);
        self.hosts[host].machine.asked_until = arrives;
        self.later(arrives - self.at, What::Ask { host, generation, asked });
    }

    fn tell(&mut self, host: Id, news: FromMachine) {
        let generation = self.hosts[host].machine.connection;
        let arrives = (self.at + self.moment()).max(self.hosts[host].machine.told_until);
        self.hosts[host].machine.told_until = arrives;
        self.later(arrives - self.at, What::Heard { host, generation, news });
    }

    pub fn ask_machine(&mut self, host: Id, generation: u32, asked: ToMachine) {
        if let Some(stopped) = &mut self.hosts[host].machine.stopped {
            stopped.asked.push((generation, asked));
            return self.tally.note(Kind::GuardStop);
        }
        if self.hosts[host].machine.connection != generation {
            return;
        }
        if matches!(asked, ToMachine::Start { validator_epoch: None }) && self.hosts[host].machine.is_stuck(self.at) {
            // The links are put into standby first.
            let after = self.hosts[host].machine.home_stuck_until - self.at;
            return self.later(after, What::Ask { host, generation, asked });
        }
        let now = self.local(host);
        self.note(|| format!("{host} guard <- {asked:?}"));
        let at = self.at;
        let starts = self.random.between(5, 150) * MS;
        let kill_max = self.hosts[host].timing.kill_max();
        let machine = &mut self.hosts[host].machine;
        match asked {
            ToMachine::Start { validator_epoch } => {
                let refused =
                    machine.node.is_some() || validator_epoch.is_some_and(|epoch| machine.fence.permit(epoch).is_err());
                if refused {
                    return self.tell(host, FromMachine::StartRefused);
                }
                if validator_epoch.is_none() {
                    machine.links = false;
                }
                machine.pids += 1;
                let pid = machine.pids;
                machine.node = Some(Process {
                    pid,
                    started_at: now,
                    validator_epoch,
                    has_key: machine.links,
                    dies_of: None,
                    answers_from: at + starts,
                    hung_until: 0,
                    doomed: false,
                });
                self.tell(host, FromMachine::Started { pid, validator_epoch });
            }
            ToMachine::Arm { epoch, deadline } => {
                if let Ok(armed) = machine.fence.arm(epoch, deadline, now) {
                    machine.deadline = Some(armed.deadline());
                    machine.kill_max = kill_max;
                    let fires = self.hosts[host].clock.when(armed.deadline()).saturating_sub(self.at);
                    self.later(fires, What::Deadline { host });
                    self.tell(host, FromMachine::Armed(armed));
                }
            }
            ToMachine::Disarm { epoch } => {
                if machine.fence.disarm(epoch).is_ok() {
                    machine.deadline = None;
                    machine.node.iter_mut().for_each(|node| node.validator_epoch = None);
                }
            }
            ToMachine::Signal { validator_epoch } => {
                let permitted = validator_epoch.is_none_or(|epoch| machine.fence.permit(epoch).is_ok());
                if let Some(node) = machine.node.as_mut().filter(|_| permitted) {
                    node.has_key = machine.links;
                    node.validator_epoch = validator_epoch.or(node.validator_epoch);
                }
            }
            ToMachine::Stop { timeout } => {
                let kill = timeout.is_zero();
                if let Some(node) = machine.node.as_mut().filter(|node| node.dies_of.is_none() || kill) {
                    node.dies_of = node.dies_of.or(Some(ExitCause::Stopped { killed: kill }));
                    let (pid, ignores) = (node.pid, at < node.hung_until);
                    let mut after = self.random.between(1, if kill { 30 } else { 400 }) * MS;
                    if ignores && !kill {
                        after = timeout.as_nanos() as u64;
                    }
                    self.later(after, What::Killed { host, pid });
                }
            }
        }
    }

    /// The guard's timer. It looks at its own clock, so that an earlier timer of a moved deadline does nothing.
    pub fn deadline(&mut self, host: Id) {
        let now = self.local(host);
        let machine = &mut self.hosts[host].machine;
        if self.without == Without::Deadline || machine.stopped.is_some() {
            return;
        }
        let Some(epoch) = machine.fence.expire(now) else { return };
        machine.firing = Some(epoch);
        // Of one that was stopped for a while, some of its time to kill is over.
        let dead_by = machine.deadline.map_or(now, |deadline| deadline + machine.kill_max);
        self.note(|| format!("{host} guard fires"));
        let left = dead_by.since(now).as_nanos() as u64;
        let local_delay = match self.random.between(0, 3) {
            0 => left.saturating_sub(1000),
            1 => self.random.between(0, left + 1),
            _ => self.random.between(0, left.min(10 * MS) + 1),
        };
        let done = self.hosts[host].clock.when(now + Duration::from_nanos(local_delay)).saturating_sub(self.at);
        match &mut self.hosts[host].machine.node {
            Some(node) => {
                node.dies_of = Some(ExitCause::Fenced);
                let pid = node.pid;
                self.tally.note(Kind::Fenced);
                self.later(done, What::Killed { host, pid });
            }
            None => self.finish_fence(host),
        }
    }

    pub fn killed(&mut self, host: Id, pid: u32) {
        let machine = &mut self.hosts[host].machine;
        if let Some(stopped) = &mut machine.stopped {
            return stopped.kills.push(pid);
        }
        if self.at < machine.frozen_until {
            machine.node.iter_mut().filter(|node| node.pid == pid).for_each(|node| node.doomed = true);
            let after = machine.frozen_until - self.at;
            return self.later(after, What::Killed { host, pid });
        }
        let Some(node) = machine.node.take_if(|node| node.pid == pid) else { return };
        self.note(|| format!("{host} node {pid} is gone"));
        self.tell(host, FromMachine::Exited { cause: node.dies_of.unwrap_or(ExitCause::ByItself) });
        self.finish_fence(host);
    }

    fn finish_fence(&mut self, host: Id) {
        let machine = &mut self.hosts[host].machine;
        if let Some(epoch) = machine.firing.take() {
            machine.deadline = None;
            self.standby_links(host);
            self.tell(host, FromMachine::Fenced { epoch });
        }
    }

    pub fn crash_node(&mut self, host: Id) {
        let machine = &mut self.hosts[host].machine;
        if let Some(node) = machine.node.as_mut() {
            let pid = node.pid;
            self.tally.note(Kind::NodeCrash);
            self.killed(host, pid);
        }
    }

    /// The guard's process is stopped: it takes no frame, keeps no deadline, kills nothing, and the node runs on.
    pub fn stop_guard(&mut self, host: Id, last: u64) {
        let machine = &mut self.hosts[host].machine;
        if machine.stopped.is_some() {
            return;
        }
        machine.stopped = Some(Stopped::default());
        machine.stops += 1;
        let stop = machine.stops;
        self.later(last, What::GuardGoesOn { host, stop });
        self.plan_backstop(host);
    }

    /// The kernel's timer is set with the guard's own, before the guard's word leaves; it acts on a guard that is
    /// stopped, and the node dies with it. From the timer until it is dead may pass what is left of `kill_max`.
    fn plan_backstop(&mut self, host: Id) {
        let machine = &self.hosts[host].machine;
        let kept = self.without == Without::Backstop || self.late_backstops;
        let Some(deadline) = machine.deadline.filter(|_| !kept) else { return };
        let stop = machine.stops;
        let kill_max = machine.kill_max.as_nanos() as u64;
        let late = match self.random.between(0, 3) {
            0 => kill_max - BACKSTOP_AFTER - 1000,
            1 => self.random.between(0, kill_max - BACKSTOP_AFTER - 1000),
            _ => self.random.between(0, 5 * MS),
        };
        let dead = deadline + Duration::from_nanos(BACKSTOP_AFTER + late);
        let after = self.hosts[host].clock.when(dead).saturating_sub(self.at);
        self.later(after, What::Backstop { host, stop });
    }

    pub fn backstop(&mut self, host: Id, stop: u32) {
        let machine = &mut self.hosts[host].machine;
        if machine.stops == stop && machine.stopped.is_some() && self.at < machine.frozen_until {
            // The guard's end is the node's.
            machine.node.iter_mut().for_each(|node| node.doomed = true);
            let after = machine.frozen_until - self.at;
            return self.later(after, What::Backstop { host, stop });
        }
        if machine.stops == stop && machine.stopped.is_some() {
            self.note(|| format!("{host} guard is killed by its backstop"));
            self.tally.note(Kind::Backstop);
            self.lose_guard(host);
        }
    }

    pub fn let_guard_go_on(&mut self, host: Id) {
        let stop = self.hosts[host].machine.stops;
        self.guard_goes_on(host, stop);
    }

    pub fn guard_goes_on(&mut self, host: Id, stop: u32) {
        let machine = &mut self.hosts[host].machine;
        let Some(stopped) = machine.stopped.take_if(|_| machine.stops == stop) else { return };
        if machine.node.as_ref().is_some_and(|node| node.doomed) {
            // Its own SIGKILL has waited as well.
            return self.lose_guard(host);
        }
        self.note(|| format!("{host} guard goes on"));
        self.deadline(host);
        for pid in stopped.kills {
            self.killed(host, pid);
        }
        for (generation, asked) in stopped.asked {
            self.ask_machine(host, generation, asked);
        }
    }

    /// The coordinator kills its guard; a frozen one dies when it thaws.
    pub fn end_guard(&mut self, host: Id) {
        let machine = &mut self.hosts[host].machine;
        if self.at < machine.frozen_until {
            machine.node.iter_mut().for_each(|node| node.doomed = true);
        } else {
            self.lose_guard(host);
        }
    }

    /// The guard dies, and the node with it. The coordinator sees both.
    pub fn lose_guard(&mut self, host: Id) {
        let connection = self.hosts[host].machine.connection;
        self.hosts[host].machine.crash();
        let after = self.random.between(MS, 20 * MS);
        self.later(after, What::Heard { host, generation: connection, news: FromMachine::Gone });
    }

    pub fn hear(&mut self, host: Id, news: FromMachine) {
        let now = self.local(host);
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        match news {
            FromMachine::Armed(armed) => {
                if now < armed.deadline() {
                    coordinator.armed = Some(armed);
                    self.step(host, Event::GuardArmed { epoch: armed.epoch(), deadline: armed.deadline() });
                }
            }
            FromMachine::Started { pid, validator_epoch } => {
                coordinator.node_seen = Some(pid);
                coordinator.gone = false;
                self.step(host, Event::NodeStarted { validator_epoch });
            }
            FromMachine::Exited { cause } => {
                coordinator.gone = true;
                coordinator.node_seen = None;
                self.step(host, Event::NodeExited { cause });
            }
            FromMachine::Fenced { epoch } => {
                coordinator.armed = None;
                self.step(host, Event::Fenced { epoch });
            }
            FromMachine::StartRefused => self.start_refused(host),
            FromMachine::Gone => {
                coordinator.gone = true;
                coordinator.node_seen = None;
                coordinator.armed = None;
                self.step(host, Event::GuardGone { node_proven_dead: true });
                let after = self.random.between(20, 700) * MS;
                self.own(host, after, crate::coordinator::Stage::Attach);
            }
        }
        self.work(host);
    }
}
