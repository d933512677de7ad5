//! Guard, links and chain node as `effects/` works on them: arming never waits, what touches links and node is done
//! one after the other, and an order to let go cancels what works towards signing.

use std::time::Duration;

use baton::base::ids::{Epoch, UpgradeName};
use baton::core::{Action, Event, Stage as Phase};

use crate::coordinator::Stage;
use crate::machine::ToMachine;
use crate::raft::Id;
use crate::tally::Kind;
use crate::world::{MS, Without, World};

/// A guard that does not answer is asked again after so long.
const ATTACH_AGAIN: u64 = 50 * MS;
/// A guard that does not greet within that is killed, and another one started.
const GREETING_BOUND: u64 = 3_000 * MS;

#[derive(Clone, Debug)]
pub enum Job {
    StartStandby,
    Link { epoch: Epoch },
    Activate { epoch: Epoch },
    Deactivate { kill: bool },
    Upgrade { name: UpgradeName },
}

/// Where the worker is in its job.
#[derive(Clone, Debug)]
pub enum Doing {
    StopToLink { epoch: Epoch },
    Swap { epoch: Epoch },
    Activating { epoch: Epoch, seen: u64, asked: bool },
    TakeKey,
    StopToEnd { timeout: u64 },
    StopToUpgrade { name: UpgradeName },
    Upgrading { name: UpgradeName },
}

impl World {
    pub fn attach(&mut self, host: Id) {
        let (at, is_stopped) = (self.at, self.hosts[host].machine.is_stopped());
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        if is_stopped {
            if at >= *coordinator.greeted_at.get_or_insert(at) + GREETING_BOUND {
                self.end_guard(host);
            }
            return self.own(host, ATTACH_AGAIN, Stage::Attach);
        }
        coordinator.greeted_at = None;
        let generation = self.hosts[host].generation;
        let (node, armed) = self.hosts[host].machine.attach(generation);
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        coordinator.node_seen = node.as_ref().map(|node| node.pid);
        coordinator.gone = node.is_none();
        coordinator.guard_answers = true;
        self.step(host, Event::GuardAttached { node, armed });
        self.work(host);
    }

    /// A guard that was attached answers pings, or does not.
    pub fn ping_guard(&mut self, host: Id) {
        let answers = !self.hosts[host].machine.is_stopped();
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        if coordinator.core.host().has_guard() && coordinator.guard_answers != answers {
            coordinator.guard_answers = answers;
            self.step(host, Event::GuardAnswers(answers));
        }
    }

    pub fn start_refused(&mut self, host: Id) {
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        coordinator.gone = true;
        if let Some(Doing::Activating { epoch, .. }) = coordinator.doing {
            coordinator.doing = None;
            self.step(host, Event::NodeStartFailed { reason: "refused".into() });
            self.step(host, Event::ActivationFailed { epoch, reason: "refused".into() });
        } else {
            self.step(host, Event::NodeStartFailed { reason: "refused".into() });
        }
    }

    pub fn perform_here(&mut self, host: Id, action: Action) {
        let action = match self.perform_without_key(host, action) {
            Some(action) => action,
            None => return,
        };
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        match action {
            Action::Arm { epoch, deadline } => return self.ask(host, ToMachine::Arm { epoch, deadline }),
            Action::Disarm { epoch } => {
                coordinator.armed = None;
                return self.ask(host, ToMachine::Disarm { epoch });
            }
            Action::WatchChain { closely } => coordinator.closely = closely,
            Action::StartStandby => coordinator.jobs.push_back(Job::StartStandby),
            Action::LinkValidating { epoch, .. } => coordinator.jobs.push_back(Job::Link { epoch }),
            Action::Activate { epoch } => coordinator.jobs.push_back(Job::Activate { epoch }),
            Action::Deactivate { kill } => {
                coordinator.let_go += 1;
                coordinator.jobs.push_back(Job::Deactivate { kill });
                if matches!(coordinator.doing, Some(Doing::Activating { .. })) {
                    coordinator.doing = None;
                }
            }
            Action::Upgrade { name, .. } => {
                let holds = coordinator.core.stage() == Some(Phase::Upgrading);
                coordinator.jobs.push_back(Job::Upgrade { name });
                self.tally.note(if holds { Kind::UpgradeOfHolder } else { Kind::Upgrade });
            }
            Action::EndGuard => return self.end_guard(host),
            Action::ProposeClaim { .. }
            | Action::ProposeRelease { .. }
            | Action::ProposeActivated { .. }
            | Action::Campaign
            | Action::TransferLead { .. }
            | Action::AnswerHandover(_)
            | Action::Finish { .. } => {}
        }
        let after = self.random.between(0, MS);
        self.wake_worker(host, after);
    }

    fn wake_worker(&mut self, host: Id, after: u64) {
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        coordinator.work_id += 1;
        let id = coordinator.work_id;
        self.own(host, after, Stage::Worker(id));
    }

    pub fn worker_wakes(&mut self, host: Id, id: u64) {
        if self.hosts[host].coordinator.as_ref().is_some_and(|c| c.work_id == id) {
            self.work(host);
        }
    }

    /// Goes on with the job in hand as far as it can, or begins the next.
    pub fn work(&mut self, host: Id) {
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        match coordinator.doing.take() {
            Some(doing) => self.go_on(host, doing),
            None => self.begin_job(host),
        }
    }

    fn do_next(&mut self, host: Id, doing: Doing, after: u64) {
        if let Some(coordinator) = &mut self.hosts[host].coordinator {
            coordinator.doing = Some(doing);
        }
        self.wake_worker(host, after);
    }

    fn begin_job(&mut self, host: Id) {
        let hot = self.hot;
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        let Some(job) = coordinator.jobs.pop_front() else { return };
        let cancelled = coordinator.let_go > coordinator.done;
        let after = self.moment();
        match job {
            Job::StartStandby => {
                self.ask(host, ToMachine::Start { validator_epoch: None });
                self.wake_worker(host, after);
            }
            Job::Link { .. } | Job::Activate { .. } if cancelled => self.wake_worker(host, 0),
            Job::Link { epoch } if hot => self.do_next(host, Doing::Swap { epoch }, after),
            Job::Link { epoch } => self.stop_node(host, self.stop_timeout, Doing::StopToLink { epoch }),
            Job::Activate { epoch } => {
                let seen = self.hosts[host].coordinator.as_ref().map_or(0, |c| c.let_go);
                self.do_next(host, Doing::Activating { epoch, seen, asked: false }, after);
            }
            Job::Deactivate { kill } => self.deactivate(host, kill),
            Job::Upgrade { name } => self.stop_node(host, self.stop_timeout, Doing::StopToUpgrade { name }),
        }
    }

    fn deactivate(&mut self, host: Id, kill: bool) {
        self.standby_links(host);
        let gently = !kill && self.hot && self.random.chance(70);
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        coordinator.done += 1;
        if gently && coordinator.node_seen.is_some() {
            self.ask(host, ToMachine::Signal { validator_epoch: None });
            let after = 2 * MS + self.moment();
            self.do_next(host, Doing::TakeKey, after);
        } else {
            let timeout = if kill { 0 } else { self.stop_timeout };
            self.stop_node(host, timeout, Doing::StopToEnd { timeout });
        }
    }

    fn stop_node(&mut self, host: Id, timeout: u64, then: Doing) {
        if self.hosts[host].coordinator.as_ref().is_some_and(|c| c.node_seen.is_some()) {
            self.ask(host, ToMachine::Stop { timeout: Duration::from_nanos(timeout) });
        }
        self.do_next(host, then, 0);
    }

    /// The rename and its fsync wait for a file system that is stuck. Nothing else does.
    pub fn standby_links(&mut self, host: Id) {
        let machine = &mut self.hosts[host].machine;
        if !machine.is_stuck(self.at) {
            machine.links = false;
        }
    }

    /// The disk of the links answers again. A node that runs by then was started after they had been put away.
    pub fn put_links_away(&mut self, host: Id) {
        if !self.hosts[host].machine.is_running() {
            self.standby_links(host);
        }
        self.step(host, Event::LinksPutAway);
    }

    fn swap(&mut self, host: Id, epoch: Epoch) -> Result<(), String> {
        let now = self.local(host);
        let Some(coordinator) = &self.hosts[host].coordinator else { return Err(String::new()) };
        match coordinator.armed.filter(|armed| armed.epoch() == epoch) {
            None => Err("the guard is not armed".into()),
            Some(armed) if now >= armed.deadline() => Err("its deadline has passed".into()),
            Some(_) => {
                self.hosts[host].machine.links = true;
                Ok(())
            }
        }
    }

    fn go_on(&mut self, host: Id, doing: Doing) {
        let (at, upgraded_at) = (self.at, self.hosts[host].upgraded_at);
        let moment = self.moment();
        let stuck = self.hosts[host].machine.is_stuck(at);
        let awaits_start = self.without != Without::AwaitedStart;
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        let gone = coordinator.gone;
        let stopped = gone || !awaits_start && coordinator.node_seen.is_none();
        match doing {
            Doing::StopToLink { epoch } if stopped => self.do_next(host, Doing::Swap { epoch }, moment),
            Doing::StopToLink { .. } | Doing::StopToEnd { .. } | Doing::StopToUpgrade { .. } if !stopped => {
                // Asked again whenever the guard says something; it takes that for the same order.
                if coordinator.node_seen.is_some() {
                    let timeout = if let Doing::StopToEnd { timeout } = doing { timeout } else { self.stop_timeout };
                    self.ask(host, ToMachine::Stop { timeout: Duration::from_nanos(timeout) });
                }
                self.do_next(host, doing, 40 * MS);
            }
            Doing::Swap { .. } if stuck => {
                let after = self.hosts[host].machine.home_stuck_until - at;
                self.do_next(host, doing, after);
            }
            Doing::StopToLink { .. } => {}
            Doing::StopToUpgrade { name } => {
                let takes = self.random.between(1, 1500) * MS;
                self.do_next(host, Doing::Upgrading { name }, takes);
                self.hosts[host].upgraded_at = self.at + takes;
            }
            // Woken by news of the guard.
            Doing::Upgrading { .. } if at < upgraded_at => self.do_next(host, doing, upgraded_at - at),
            Doing::Upgrading { name } => {
                let failed = self.random.chance(25).then(|| "disk full".to_owned());
                if failed.is_some() {
                    self.tally.note(Kind::UpgradeFailed);
                }
                self.step(host, Event::UpgradeEnded { name, failed });
                self.wake_worker(host, 0);
            }
            Doing::Swap { epoch } => {
                let event = match self.swap(host, epoch) {
                    Ok(()) => Event::Linked { epoch },
                    Err(reason) => {
                        self.standby_links(host);
                        Event::LinksFailed { reason }
                    }
                };
                self.step(host, event);
                self.wake_worker(host, 0);
            }
            Doing::Activating { epoch, seen, asked } => {
                if coordinator.let_go > seen {
                    return self.wake_worker(host, 0);
                }
                if !asked {
                    let running = coordinator.node_seen.is_some();
                    let order = if self.hot && running {
                        ToMachine::Signal { validator_epoch: Some(epoch) }
                    } else {
                        ToMachine::Start { validator_epoch: Some(epoch) }
                    };
                    self.ask(host, order);
                    self.do_next(host, Doing::Activating { epoch, seen, asked: true }, 2 * MS + moment);
                } else if coordinator.node_seen.is_some() && self.hosts[host].machine.proves_key(at) {
                    self.step(host, Event::Activated { epoch });
                    self.wake_worker(host, 0);
                } else if gone {
                    self.step(host, Event::ActivationFailed { epoch, reason: "the chain node ended".into() });
                    self.wake_worker(host, 0);
                } else {
                    self.do_next(host, Doing::Activating { epoch, seen, asked }, 20 * MS);
                }
            }
            Doing::TakeKey => {
                let timeout = self.stop_timeout;
                if self.hosts[host].machine.may_sign() {
                    return self.stop_node(host, timeout, Doing::StopToEnd { timeout });
                }
                self.inactive(host);
                self.ask(host, ToMachine::Stop { timeout: Duration::from_nanos(timeout) });
                self.wake_worker(host, 0);
            }
            Doing::StopToEnd { .. } => {
                self.standby_links(host);
                self.inactive(host);
                if stuck {
                    self.step(host, Event::LinksFailed { reason: "they are late".into() });
                    let after = self.hosts[host].machine.home_stuck_until - at;
                    self.own(host, after, Stage::PutLinksAway);
                }
                self.wake_worker(host, 0);
            }
        }
    }
}
