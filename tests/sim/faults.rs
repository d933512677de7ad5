//! What goes wrong in a simulated history: planned from the seed before it begins, healed before it is judged.

use std::time::Duration;

use baton::base::ids::{Role, UpgradeName};
use baton::core::agreed::replicated::{self, Command};
use baton::core::tenure::Reason;
use baton::core::{Event, State};

use crate::members::{Change, Members, Set, ids};
use crate::oracle::End;
use crate::raft::Id;
use crate::random::Random;
use crate::scene::Scene;
use crate::schedule::What;
use crate::tally::Kind;
use crate::world::{MS, Without, World};

/// No history is longer.
const FOR_GOOD: u64 = 3_600_000 * MS;

#[derive(Clone, Debug)]
pub enum Fault {
    Host(Id),
    Coordinator(Id),
    Restart(Id),
    /// The last of all: a coordinator that is about to leave is made to, and any that is down starts.
    Recover(Id),
    Pause(Id, u64),
    Guard(Id),
    GuardStop(Id, u64),
    /// For good.
    GuardHangs(Id),
    /// All processes of a host are stopped. It is the worst of nodes: it signs on.
    Stop(Id, u64),
    SlowDisk(Id, u64),
    Node(Id),
    Slept(Id),
    Handover(Id),
    Order(Command),
    /// Whatever step comes next that makes this host a voter, or takes it out.
    Change(Id),
    /// One falls due: of this host, or of whoever holds the baton.
    Upgrade(Option<Id>),
    /// See `calm`.
    Calm,
    Shutdown {
        host: Id,
        stop_node: bool,
    },
    Syncing(Id, u64),
    /// Its wall clock jumps, by so many nanoseconds.
    Clock {
        host: Id,
        by: i64,
    },
    /// See `trouble`.
    Trouble {
        kind: u64,
        host: Option<Id>,
        last: u64,
    },
    /// The leader and one voter of the first hour are cut off from all that came later.
    Siege,
    /// A step of `scene`.
    Scene(Scene),
    /// See `signing`.
    SetBack,
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

/// A cluster of three grows to five, and then falls apart: the leader with a quorum of the three, and a quorum of the
/// five. `None` for a seed that makes another cluster.
pub fn grown(seed: u64, without: Without, traced: bool) -> Option<End> {
    let mut world = World::new(seed, without, traced);
    let first = ids(world.newest_members().voters).count();
    if (first, world.count()) != (3, 5) {
        return None;
    }
    world.plan_growth(first);
    world.plan(4_500 * MS, Fault::Siege);
    world.plan_end(8_000 * MS);
    Some(world.run_to_end())
}

impl World {
    pub fn plan_faults(&mut self, seed: u64) {
        let length = self.random.between(3_000, 9_000) * MS;
        let mut at = self.random.between(500, 2_500) * MS;
        while at < length {
            let fault = self.invent_fault(at, length);
            self.plan(at, fault);
            at += self.random.between(20, 900) * MS;
        }
        let first = ids(self.newest_members().voters).count();
        if self.random.chance(40) {
            self.plan_growth(first);
        }
        self.plan_upgrades(seed, length);
        self.plan_troubles(seed, length);
        self.plan_clocks_and_guards(seed, length);
        self.plan_end(length);
    }

    /// By then everything is healed.
    pub fn plan_end(&mut self, length: u64) {
        for from in 0..self.count() {
            self.later(length, What::Fault(Fault::Recover(from)));
            for to in self.others(from) {
                self.later(length, What::Fault(Fault::Cut { from, to, cut: false }));
            }
        }
        self.later(length, What::Fault(Fault::Weather { loss: 0, delay: 5 * MS }));
        self.later(length, What::Fault(Fault::Calm));
        self.faults_end = length;
    }

    fn invent_fault(&mut self, at: u64, length: u64) -> Fault {
        let host = self.random.between(0, self.count() as u64) as Id;
        // It ends some time later, and not after the last of all.
        let left = length.saturating_sub(at);
        let until = |random: &mut Random, max_ms: u64| random.between(20, max_ms) * MS;
        match self.random.between(0, 100) {
            0..8 => {
                let after = until(&mut self.random, 3000);
                self.plan(at + after, Fault::Restart(host));
                Fault::Coordinator(host)
            }
            8..16 => {
                let after = until(&mut self.random, 4000);
                self.plan(at + after, Fault::Restart(host));
                Fault::Host(host)
            }
            16..29 => Fault::Pause(host, until(&mut self.random, 2500).min(left)),
            29..43 => {
                let to = (host + 1 + self.random.between(0, self.count() as u64 - 1) as usize) % self.count();
                let after = until(&mut self.random, 2500);
                self.plan(at + after, Fault::Cut { from: host, to, cut: false });
                Fault::Cut { from: host, to, cut: true }
            }
            43..55 => self.invent_split(at, host),
            55..62 => Fault::Handover(host),
            62..66 => Fault::Order(self.invent_order(host)),
            66..70 => Fault::Node(host),
            70..72 => Fault::Guard(host),
            72..77 => Fault::GuardStop(host, until(&mut self.random, 2500).min(left)),
            77..80 => Fault::Stop(host, until(&mut self.random, 2500).min(left)),
            80..84 => Fault::SlowDisk(host, until(&mut self.random, 3000).min(left)),
            84..91 => {
                // A newcomer is promoted some time after it was added.
                let after = until(&mut self.random, 1500);
                self.plan(at + after, Fault::Change(host));
                Fault::Change(host)
            }
            91..92 => Fault::Slept(host),
            92..94 => {
                let after = until(&mut self.random, 3000);
                self.plan(at + after, Fault::Restart(host));
                Fault::Shutdown { host, stop_node: self.random.chance(30) }
            }
            94..96 => Fault::Syncing(host, until(&mut self.random, 3000).min(left)),
            _ => Fault::Weather { loss: self.random.between(0, 40), delay: self.random.between(1, 120) * MS },
        }
    }

    /// The network falls into two, perhaps in one direction alone, and perhaps one half loses its power for a moment.
    fn invent_split(&mut self, at: u64, host: Id) -> Fault {
        let everybody = (1u64 << self.count()) - 1;
        let others = if self.random.chance(50) { 0 } else { self.random.between(0, everybody) };
        let group: Vec<Id> = ids((1u64 << host | others) as Set).collect();
        let (out, into) = (self.random.chance(70), self.random.chance(70));
        let heals = at + self.random.between(20, 2500) * MS;
        for from in 0..self.count() {
            for to in self.others(from) {
                let (here, there) = (group.contains(&from), group.contains(&to));
                if here && !there && out || there && !here && into {
                    self.plan(at, Fault::Cut { from, to, cut: true });
                    self.plan(heals, Fault::Cut { from, to, cut: false });
                }
            }
        }
        let blackout = self.random.chance(25);
        for member in group.into_iter().filter(|_| blackout) {
            let back = at + self.random.between(10, 300) * MS;
            self.plan(at, Fault::Host(member));
            self.plan(back, Fault::Restart(member));
        }
        Fault::Weather { loss: self.loss, delay: self.delay }
    }

    /// All that came after the first members are made voters, one after the other.
    fn plan_growth(&mut self, first: usize) {
        let mut at = self.random.between(300, 1500) * MS;
        for newcomer in first..self.count() {
            for _step in ["learn", "vote"] {
                self.plan(at, Fault::Change(newcomer));
                at += self.random.between(50, 600) * MS;
            }
        }
    }

    /// Of one host, or of all at nearly the same time, as when the chain itself asks for it.
    /// Drawn apart, so that a history without any is what it was.
    fn plan_upgrades(&mut self, seed: u64, length: u64) {
        let mut random = Random::new(!seed);
        let upgrades = if random.chance(40) { random.between(1, 5) } else { 0 };
        for _ in 0..upgrades {
            let at = random.between(500, length / MS) * MS;
            let host = random.between(0, self.count() as u64) as Id;
            self.plan(at, Fault::Upgrade(random.chance(40).then_some(host)));
            // One that failed, or whose coordinator was lost, falls due again.
            self.plan(at + random.between(100, 3000) * MS, Fault::Upgrade(Some(host)));
            let all = random.chance(30);
            for other in self.others(host).filter(|_| all) {
                self.plan(at + random.between(0, 400) * MS, Fault::Upgrade(Some(other)));
            }
        }
    }

    /// Nothing is begun once the faults have ended.
    fn upgrade(&mut self, host: Option<Id>) {
        let Some(host) = host.or_else(|| self.holder()).filter(|host| self.is_awake(*host)) else { return };
        if self.at < self.faults_end && self.hosts[host].role == Role::Validator {
            // A coordinator that is to end while the key is being taken away releases as soon as that is proven.
            let is_back_in_time = self.at + 2_200 * MS < self.faults_end;
            if is_back_in_time && self.random.chance(25) {
                let after = self.random.between(0, 200) * MS;
                self.later(after, What::Fault(Fault::Shutdown { host, stop_node: false }));
                self.later(after + 2_000 * MS, What::Fault(Fault::Restart(host)));
            }
            let name = UpgradeName::new("v2").expect("a name");
            self.step(host, Event::UpgradeDue { name, back: false });
        }
    }

    pub fn holder(&self) -> Option<Id> {
        (0..self.count()).find(|host| self.hosts[*host].coordinator.as_ref().is_some_and(|c| c.core.is_active()))
    }

    fn invent_order(&mut self, host: Id) -> Command {
        let (member, on, at) = (self.name(host), self.random.chance(60), self.now(host).wall);
        match self.random.between(0, 3) {
            0 => Command::Set(replicated::Set::Maintenance { member, on, at }),
            1 => Command::Set(replicated::Set::Pause { on, at }),
            _ => Command::Set(replicated::Set::Priority {
                member,
                priority: on.then(|| self.random.between(0, 120) as u32),
            }),
        }
    }

    /// Whoever leads the newest term. An operator's command is given again when nobody does.
    fn leader(&self) -> Option<Id> {
        let leads = |host: &Id| self.hosts[*host].raft.leads() && self.is_awake(*host);
        (0..self.count()).filter(leads).max_by_key(|host| self.hosts[*host].raft.term)
    }

    pub fn order(&mut self, command: Command) {
        if let Some(leader) = self.leader() {
            self.tally.note(Kind::Order);
            self.propose_order(leader, command);
        }
    }

    /// Takes back what operators ordered and ends what they began, until that is committed everywhere.
    fn calm(&mut self) {
        // Of those with the newest log: who has lost the word that it is committed does not know of an order in it.
        let Some(newest) = self.hosts.iter().max_by_key(|host| (host.raft.last(), host.raft.applied)) else { return };
        let (last, orders, members) = (newest.raft.last(), newest.raft.state.orders.clone(), newest.raft.members);
        let told = |id: Id| self.hosts[id].raft.last() == last && self.hosts[id].raft.applied == last.1;
        let all_told = ids(members.voters | members.learners).all(told);
        let nothing = orders.paused.is_none() && orders.maintenance.is_empty();
        if all_told && nothing && members.leaving.is_none() {
            return self.free_last_guard();
        }
        let at = self.now(0).wall;
        for member in orders.maintenance.keys() {
            self.order(Command::Set(replicated::Set::Maintenance { member: member.clone(), on: false, at }));
        }
        if orders.is_paused() {
            self.order(Command::Set(replicated::Set::Pause { on: false, at }));
        }
        self.settle();
        self.later(500 * MS, What::Fault(Fault::Calm));
    }

    pub fn newest_members(&self) -> Members {
        let newest = self.hosts.iter().max_by_key(|host| host.raft.last());
        newest.map_or(Members::first(0), |host| host.raft.members)
    }

    /// Whether a change that lost its leader goes on by it.
    fn settle(&mut self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let end = self.hosts[leader].raft.members.end_by(leader);
        let settles = self.propose_change(leader, end);
        if settles {
            self.tally.note(Kind::ChangeTakenOver);
        }
        settles
    }

    /// As an operator would who looks at what the leader says.
    fn change(&mut self, host: Id) {
        if self.at > self.faults_end || self.settle() {
            return;
        }
        let Some(leader) = self.leader() else { return };
        let members = self.hosts[leader].raft.members;
        let (change, kind) = if members.is_learner(host) {
            (Change::Promote(host), Kind::Promoted)
        } else if !members.contains(host) {
            (Change::Add(host), Kind::LearnerAdded)
        } else if self.may_go(host, leader) {
            (Change::Remove(host), Kind::Removed)
        } else {
            return;
        };
        if self.propose_change(leader, change) {
            self.tally.note(kind);
        }
    }

    /// Two voters stay, one of them with a chain node; the leader itself goes now and then.
    fn may_go(&mut self, host: Id, leader: Id) -> bool {
        let voters = self.hosts[leader].raft.members.voters & !(1 << host);
        let validator = ids(voters).any(|id| self.hosts[id].role == Role::Validator);
        voters.count_ones() >= 2 && validator && (host != leader || self.random.chance(25))
    }

    pub fn plan(&mut self, at: u64, fault: Fault) {
        self.later(at, What::Fault(fault));
    }

    pub fn strike(&mut self, fault: Fault) {
        self.note(|| format!("fault {fault:?}"));
        match fault {
            Fault::Host(host) => {
                self.hosts[host].is_off = true;
                self.crash(host, Kind::HostCrash);
                self.hosts[host].machine.power_off();
            }
            Fault::Coordinator(host) => self.crash(host, Kind::Crash),
            Fault::Restart(host) => self.start(host),
            Fault::Recover(host) => {
                let now = self.local(host);
                if self.hosts[host].coordinator.as_ref().is_some_and(|c| c.core.state(now) == State::Shutdown) {
                    self.lose_coordinator(host);
                }
                self.start(host);
            }
            Fault::Pause(host, last) => self.pause(host, last),
            Fault::Guard(host) if self.hosts[host].machine.is_frozen(self.at) => {}
            Fault::Guard(host) => {
                self.tally.note(Kind::GuardCrash);
                self.lose_guard(host);
            }
            Fault::GuardStop(host, last) => self.stop_guard(host, last),
            Fault::GuardHangs(host) => {
                self.tally.note(Kind::GuardHangs);
                self.stop_guard(host, FOR_GOOD);
            }
            Fault::Stop(host, last) => {
                self.pause(host, last);
                self.stop_guard(host, last);
            }
            Fault::SlowDisk(host, last) => self.hosts[host].disk.slow_until = self.at + last,
            Fault::Node(host) => self.crash_node(host),
            Fault::Slept(host) => self.if_awake(host, Kind::Suspend, Event::Slept),
            Fault::Handover(host) => {
                let wanted =
                    Event::HandoverWanted { to: None, timeout: Duration::from_secs(60), reason: Reason::Operator };
                self.if_awake(self.holder().unwrap_or(host), Kind::Handover, wanted);
            }
            Fault::Order(command) => self.order(command),
            Fault::Change(host) => self.change(host),
            Fault::Upgrade(host) => self.upgrade(host),
            Fault::Calm => self.calm(),
            Fault::Shutdown { host, stop_node } => {
                self.if_awake(host, Kind::Shutdown, Event::ShutdownWanted { stop_node })
            }
            Fault::Syncing(host, last) => {
                self.tally.note(Kind::OutOfSync);
                self.hosts[host].syncing_until = self.at + last;
            }
            Fault::Clock { host, by } => {
                self.tally.note(Kind::ClockJump);
                self.turn_clock(host, by);
            }
            Fault::Trouble { kind, host, last } => self.any_trouble(kind, host, last),
            Fault::Siege => self.besiege(),
            Fault::Scene(scene) => self.play_scene(scene),
            Fault::SetBack => self.set_back(),
            Fault::Cut { from, to, cut } => self.cuts[from][to] = cut,
            Fault::Weather { loss, delay } => (self.loss, self.delay) = (loss, delay),
        }
    }

    fn crash(&mut self, host: Id, kind: Kind) {
        if self.hosts[host].coordinator.is_some() {
            self.tally.note(kind);
        }
        self.lose_coordinator(host);
    }

    fn pause(&mut self, host: Id, last: u64) {
        if !self.hosts[host].paused && self.hosts[host].coordinator.is_some() {
            self.hosts[host].paused = true;
            self.later(last, What::Resume { host });
        }
    }

    fn besiege(&mut self) {
        let Some(leader) = self.leader() else { return };
        let friend = if leader == 0 { 1 } else { 0 };
        for inside in [leader, friend] {
            for outside in (0..self.count()).filter(|host| ![leader, friend].contains(host)) {
                (self.cuts[inside][outside], self.cuts[outside][inside]) = (true, true);
            }
        }
    }

    fn if_awake(&mut self, host: Id, kind: Kind, event: Event) {
        if self.is_awake(host) {
            self.tally.note(kind);
            self.step(host, event);
        }
    }

    fn is_awake(&self, host: Id) -> bool {
        !self.hosts[host].paused && self.hosts[host].coordinator.is_some()
    }
}
