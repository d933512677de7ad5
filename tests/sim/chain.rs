//! The chain that the hosts' nodes follow, and all that they sign with the shared key. A height is a slot; every block
//! exists when its slot begins and reaches a host's node some time later, in order. A node with the key signs every
//! height that is new to it, however old, unless its own home has signed that far: more than a real one would. The
//! judge of the signatures is the localnet's own (`localnet/src/judge/signlog.rs`).
//!
//! `deaths` is a history in which the holder is struck at the very instant of a signature.

use std::time::Duration;

use baton::base::chain_node::{Health, KeyState};
use baton::base::ids::SignMark;
use baton::base::time::{BootTime, WallTime};
use baton::core::Event;

use crate::faults::Fault;
use crate::oracle::End;
use crate::raft::Id;
use crate::schedule::What;
use crate::signlog::{Kind, Signature};
use crate::world::{MS, Without, World};

const DEATHS: u32 = 3;
/// Signatures of whoever comes next that end a history well.
const SIGNED_AFTER: u32 = 3;
/// A history of deaths that takes longer has nobody who signs.
const PATIENCE: u64 = 120_000 * MS;
/// How many heights a restored backup is behind.
const STALE_BY: u64 = 40;

pub struct Chain {
    pub slot: u64,
    homes: Vec<Home>,
    pub log: Vec<Signature>,
    plan: Option<Deaths>,
}

/// A chain node's home: it outlives process and host.
#[derive(Default)]
struct Home {
    head: u64,
    /// The highest height signed here; on disk before the signature leaves.
    mark: u64,
    /// From the start of a slot until its block is here.
    lag: u64,
}

struct Deaths {
    left: u32,
    /// Signatures until the next one.
    signatures: u32,
}

pub fn deaths(seed: u64, without: Without, traced: bool) -> End {
    World::deaths(seed, without, traced).run_to_end()
}

/// As `deaths`, and the wall clock of one host is behind by much more than `clock_skew`.
pub fn deaths_beside_a_late_clock(seed: u64, without: Without, traced: bool) -> End {
    let mut world = World::deaths(seed, without, traced);
    let host = world.random.between(0, world.count() as u64) as Id;
    world.hosts[host].clock.wall_offset -= world.random.between(200, 3_000) as i64 * MS as i64;
    world.run_to_end()
}

impl Chain {
    pub fn new(slot: u64, hosts: usize) -> Chain {
        let homes = (0..hosts).map(|_| Home { lag: 10 * MS, ..Home::default() }).collect();
        Chain { slot, homes, log: Vec::new(), plan: None }
    }

    /// The highest block at `host`'s node.
    pub fn head(&self, host: Id) -> u64 {
        self.homes[host].head
    }

    /// Strikes that were made.
    pub fn struck(&self) -> u32 {
        self.plan.as_ref().map_or(0, |plan| DEATHS - plan.left)
    }
}

impl World {
    pub fn deaths(seed: u64, without: Without, traced: bool) -> World {
        let mut world = World::new(seed, without, traced);
        world.chain.slot = [50, 100, 200, 400][world.random.between(0, 4) as usize] * MS;
        world.chain.plan = Some(Deaths { left: DEATHS, signatures: 5 });
        (world.faults_end, world.patience) = (u64::MAX, PATIENCE);
        world
    }

    /// The next block arrives at `host`'s node, or all that it missed.
    pub fn block(&mut self, host: Id) {
        let (slot, lag) = (self.chain.slot, self.chain.homes[host].lag);
        let newest = self.at.saturating_sub(lag) / slot;
        let writes = !self.hosts[host].machine.is_stuck(self.at);
        while writes && self.hosts[host].machine.answers(self.at) && self.chain.homes[host].head < newest {
            self.chain.homes[host].head += 1;
            self.sign_head(host);
        }
        let arrives = (newest + 1) * slot + lag;
        self.later(arrives - self.at, What::Block { host });
    }

    fn sign_head(&mut self, host: Id) {
        if self.approvals.is_some() {
            return self.accept(host, self.chain.homes[host].head);
        }
        let home = &mut self.chain.homes[host];
        if !self.hosts[host].machine.proves_key(self.at) || home.head <= home.mark {
            return;
        }
        home.mark = home.head;
        let (height, name, at) = (home.head, self.name(host).to_string(), BootTime::from_nanos(self.at));
        self.note(|| format!("{host} signs {height}"));
        let signature = Signature { host: name, key: "shared".into(), height, kind: Kind::Approval, at };
        self.chain.log.push(signature);
        self.die_as_planned(host);
    }

    /// Somebody has signed.
    pub fn die_as_planned(&mut self, host: Id) {
        let Some(plan) = &mut self.chain.plan else { return };
        plan.signatures = plan.signatures.saturating_sub(1);
        if plan.signatures > 0 {
            return;
        }
        if plan.left == 0 {
            self.faults_end = self.faults_end.min(self.at);
            return;
        }
        plan.left -= 1;
        let last = plan.left == 0;
        let signatures = if last { SIGNED_AFTER } else { self.random.between(1, 60) as u32 };
        if let Some(plan) = &mut self.chain.plan {
            plan.signatures = signatures;
        }
        self.delay_blocks();
        let back = self.random.between(300, 3000) * MS;
        if self.approvals.is_some() {
            let (fault, after) = self.move_while_late(host);
            self.later(after + back, What::Fault(Fault::Restart(host)));
            return self.later(after, What::Fault(fault));
        }
        let fault = match self.random.between(0, 100) {
            0..35 => Fault::Host(host),
            35..70 => Fault::Node(host),
            70..80 => Fault::Coordinator(host),
            _ => Fault::Handover(host),
        };
        self.later(back, What::Fault(Fault::Restart(host)));
        self.strike(fault);
    }

    /// Some nodes hear of new blocks late, for a while: the very ones that the dead holder signed.
    fn delay_blocks(&mut self) {
        for host in 0..self.count() {
            let lag = match self.random.between(0, 100) {
                0..40 => self.random.between(1, 40),
                40..80 => self.random.between(40, 600),
                _ => self.random.between(600, 2500),
            };
            self.chain.homes[host].lag = lag * MS;
            let heals = self.random.between(50, 2000) * MS;
            self.later(heals, What::Lag { host, lag: 10 * MS });
        }
    }

    pub fn set_lag(&mut self, host: Id, lag: u64) {
        self.chain.homes[host].lag = lag;
    }

    /// What the node of `host` answers to a probe.
    pub fn health(&self, host: Id) -> Health {
        let told = match self.without {
            // A floor that is met by anything: a head that rises with every look, far in the future.
            Without::Floor => u64::MAX / 2 / self.chain.slot + self.at / MS,
            _ => self.chain.homes[host].head,
        };
        Health {
            approved: self.approvals.as_ref().map_or(0, |approvals| approvals.gauge(host)),
            synced: self.at >= self.hosts[host].syncing_until,
            height: told,
            head_time: Some(WallTime::from_nanos(told * self.chain.slot)),
            peers: None,
            key: KeyState::Untold,
            latency: Duration::from_millis(1),
            version: String::new(),
        }
    }

    /// The chain node of `host` was proven inactive.
    pub fn inactive(&mut self, host: Id) {
        if let Some(approvals) = &mut self.approvals {
            let runs = self.hosts[host].machine.answers(self.at);
            let last_signed = runs.then(|| approvals.mark(host, self.without));
            return self.step(host, Event::Inactive { last_signed });
        }
        let mark = self.chain.homes[host].mark;
        let recorded = match self.without {
            Without::FreshMark => mark.saturating_sub(STALE_BY),
            _ => mark,
        };
        let last_signed = (recorded > 0).then(|| SignMark::at_height(recorded));
        self.step(host, Event::Inactive { last_signed });
    }
}
