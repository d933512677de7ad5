//! What goes wrong in a simulated history: planned from the seed before it begins, healed before it is judged.

use std::cmp::Reverse;
use std::time::Duration;

use baton::core::Event;
use baton::core::orders::Orders;
use baton::core::replicated::Command;

use crate::raft::Id;
use crate::world::{Due, MS, Random, What, World};

#[derive(Clone, Debug)]
pub enum Fault {
    Host(Id),
    Coordinator(Id),
    Restart(Id),
    Pause(Id, u64),
    Guard(Id),
    Node(Id),
    Slept(Id),
    Handover(Id),
    Order(Command),
    /// Takes back what operators ordered, until it is committed everywhere.
    Calm,
    Shutdown {
        host: Id,
        stop_node: bool,
    },
    Syncing(Id, u64),
    Cut {
        from: Id,
        to: Id,
        cut: bool,
    },
    Weather {
        loss: u64,
        delay: u64,
    },
}

impl World {
    pub fn plan_faults(&mut self) {
        let length = self.random.between(3_000, 9_000) * MS;
        let mut at = self.random.between(500, 2_500) * MS;
        while at < length {
            let fault = self.invent_fault(at, length);
            self.order += 1;
            self.due.push(Reverse(Due { at, order: self.order, what: What::Fault(fault) }));
            at += self.random.between(20, 900) * MS;
        }
        for from in 0..self.members() {
            self.later(length, What::Fault(Fault::Restart(from)));
            for to in self.others(from) {
                self.later(length, What::Fault(Fault::Cut { from, to, cut: false }));
            }
        }
        self.later(length, What::Fault(Fault::Weather { loss: 0, delay: 5 * MS }));
        self.later(length, What::Fault(Fault::Calm));
        self.faults_end = length;
    }

    fn invent_fault(&mut self, at: u64, length: u64) -> Fault {
        let host = self.random.between(0, self.members() as u64) as Id;
        // It ends some time later, and not after all others have.
        let until = |random: &mut Random, max_ms: u64| random.between(20, max_ms) * MS;
        match self.random.between(0, 100) {
            0..9 => {
                let after = until(&mut self.random, 3000);
                self.plan(at + after, Fault::Restart(host));
                Fault::Coordinator(host)
            }
            9..18 => {
                let after = until(&mut self.random, 4000);
                self.plan(at + after, Fault::Restart(host));
                Fault::Host(host)
            }
            18..36 => {
                let last = until(&mut self.random, 2500).min(length.saturating_sub(at));
                Fault::Pause(host, last)
            }
            36..52 => {
                let to = (host + 1 + self.random.between(0, self.members() as u64 - 1) as usize) % self.members();
                let after = until(&mut self.random, 2500);
                self.plan(at + after, Fault::Cut { from: host, to, cut: false });
                Fault::Cut { from: host, to, cut: true }
            }
            52..66 => {
                let (out, into) = (self.random.chance(70), self.random.chance(70));
                let after = until(&mut self.random, 2500);
                for other in self.others(host) {
                    for (from, to, cut) in [(host, other, out), (other, host, into)] {
                        if cut {
                            self.plan(at, Fault::Cut { from, to, cut: true });
                            self.plan(at + after, Fault::Cut { from, to, cut: false });
                        }
                    }
                }
                Fault::Weather { loss: self.loss, delay: self.delay }
            }
            66..75 => Fault::Handover(host),
            75..80 => Fault::Order(self.invent_order(host)),
            80..85 => Fault::Node(host),
            85..88 => Fault::Guard(host),
            88..90 => Fault::Slept(host),
            90..93 => {
                let after = until(&mut self.random, 3000);
                self.plan(at + after, Fault::Restart(host));
                Fault::Shutdown { host, stop_node: self.random.chance(30) }
            }
            93..96 => Fault::Syncing(host, until(&mut self.random, 3000)),
            _ => Fault::Weather { loss: self.random.between(0, 40), delay: self.random.between(1, 120) * MS },
        }
    }

    fn invent_order(&mut self, host: Id) -> Command {
        let (member, on, at) = (self.name(host), self.random.chance(60), self.now(host).wall);
        match self.random.between(0, 3) {
            0 => Command::SetMaintenance { member, on, at },
            1 => Command::SetPause { on, at },
            _ => Command::SetPriority { member, priority: on.then(|| self.random.between(0, 120) as u32) },
        }
    }

    /// By whoever leads; an operator's command asks for it again when nobody does.
    fn order(&mut self, command: Command) {
        if let Some(leader) = (0..self.members()).find(|host| self.hosts[*host].raft.leads() && self.is_awake(*host)) {
            self.orders += 1;
            self.propose_order(leader, command);
        }
    }

    fn calm(&mut self) {
        let mut standing = self.hosts.iter().map(|host| &host.raft.state.orders);
        if standing.all(|orders| orders.paused.is_none() && orders.maintenance.is_empty()) {
            return;
        }
        let in_force: Vec<Orders> = self.hosts.iter().map(|host| host.raft.state.orders.clone()).collect();
        let at = self.now(0).wall;
        for member in in_force.iter().flat_map(|orders| orders.maintenance.keys()) {
            self.order(Command::SetMaintenance { member: member.clone(), on: false, at });
        }
        if in_force.iter().any(Orders::is_paused) {
            self.order(Command::SetPause { on: false, at });
        }
        self.later(500 * MS, What::Fault(Fault::Calm));
    }

    fn plan(&mut self, at: u64, fault: Fault) {
        self.later(at, What::Fault(fault));
    }

    pub fn strike(&mut self, fault: Fault) {
        self.note(|| format!("fault {fault:?}"));
        match fault {
            Fault::Host(host) => {
                self.lose_coordinator(host);
                self.hosts[host].machine.crash();
            }
            Fault::Coordinator(host) => self.lose_coordinator(host),
            Fault::Restart(host) => self.start(host),
            Fault::Pause(host, last) => {
                if !self.hosts[host].paused {
                    self.hosts[host].paused = true;
                    self.later(last, What::Resume { host });
                }
            }
            Fault::Guard(host) => self.lose_guard(host),
            Fault::Node(host) => self.crash_node(host),
            Fault::Slept(host) => self.if_awake(host, Event::Slept),
            Fault::Handover(host) => {
                let holder = (0..self.members())
                    .find(|host| self.hosts[*host].coordinator.as_ref().is_some_and(|c| c.core.is_active()));
                self.if_awake(
                    holder.unwrap_or(host),
                    Event::HandoverWanted { to: None, timeout: Duration::from_secs(60) },
                );
            }
            Fault::Order(command) => self.order(command),
            Fault::Calm => self.calm(),
            Fault::Shutdown { host, stop_node } => self.if_awake(host, Event::ShutdownWanted { stop_node }),
            Fault::Syncing(host, last) => self.hosts[host].syncing_until = self.at + last,
            Fault::Cut { from, to, cut } => self.cuts[from][to] = cut,
            Fault::Weather { loss, delay } => (self.loss, self.delay) = (loss, delay),
        }
    }

    fn if_awake(&mut self, host: Id, event: Event) {
        if !self.hosts[host].paused {
            self.step(host, event);
        }
    }

    fn is_awake(&self, host: Id) -> bool {
        !self.hosts[host].paused && self.hosts[host].coordinator.is_some()
    }
}
