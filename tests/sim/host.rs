//! A host: its clock, its machine, its Raft, and the coordinator that comes and goes.

use std::collections::VecDeque;
use std::time::Duration;

use baton::base::ids::Role;
use baton::base::signing::Custody;
use baton::base::time::BootTime;
use baton::base::timing::Timing;
use baton::cluster::store::LongestPromise;
use baton::core::agreed::replicated::{Applied, Baton, Command};
use baton::core::{Core, Event, Memory, Settings};
use baton::rules::Witness;

use crate::coordinator::{Coordinator, Stage};
use crate::disk::Disk;
use crate::faults::Fault;
use crate::machine::Machine;
use crate::members::Members;
use crate::network::GOSSIP;
use crate::raft::{Id, Payload, Raft};
use crate::random::Random;
use crate::schedule::{Clock, What};
use crate::tally::Kind;
use crate::worker::Doing;
use crate::world::{MS, TIMING, Without, World};

const PROBE: u64 = 250 * MS;
const PROBE_CLOSELY: u64 = 60 * MS;

pub struct Host {
    pub clock: Clock,
    pub role: Role,
    /// The machine's processes: guard and chain node. They outlive the coordinator.
    pub machine: Machine,
    pub disk: Disk,
    pub raft: Raft,
    pub coordinator: Option<Coordinator>,
    /// Who followed the last run of one.
    pub witness: Option<Witness>,
    pub generation: u32,
    /// Nothing answers for the coordinator, and not that it has ended either.
    pub is_off: bool,
    pub paused: bool,
    pub deferred: VecDeque<What>,
    pub syncing_until: u64,
    /// When the upgrade under way is over.
    pub upgraded_at: u64,
    pub started_before: bool,
    /// Of the coordinator that runs, or ran last.
    pub timing: Timing,
    /// The assumed error of its clock.
    pub drift_ppm: u32,
    /// As its file says it.
    pub promises: LongestPromise,
    /// So many entries are in the state alone: whoever lacks one of them gets a snapshot.
    pub purged: usize,
    /// Snapshots that are being installed.
    pub installing: u32,
}

impl Host {
    pub fn new(me: Id, hosts: usize, role: Role, first: Members, random: &mut Random) -> Host {
        Host {
            clock: Clock::skewed(random),
            role,
            machine: Machine::default(),
            disk: Disk::default(),
            raft: Raft::new(me, hosts, first),
            coordinator: None,
            witness: None,
            generation: 0,
            is_off: false,
            paused: false,
            deferred: VecDeque::new(),
            syncing_until: 0,
            upgraded_at: 0,
            started_before: false,
            timing: TIMING,
            drift_ppm: TIMING.drift_ppm(),
            promises: LongestPromise::new(Duration::ZERO, BootTime::default()),
            purged: 0,
            installing: 0,
        }
    }
}

impl Host {
    /// Its disk is a copy from when the log had so many entries.
    pub fn set_back(&mut self, entries: usize) {
        let vote = (self.raft.term, self.raft.voted_for);
        let mut log = std::mem::take(&mut self.raft.log);
        log.truncate(entries);
        let applied = self.raft.applied.min(log.len());
        self.disk.set_back(log.clone(), applied);
        self.raft.crash(vote, log, applied);
        self.purged = self.purged.min(applied);
    }
}

impl World {
    pub fn start(&mut self, host: Id) {
        if self.hosts[host].coordinator.is_some() {
            return;
        }
        // A store is opened, and written to, before anything else.
        let stuck_for = self.stuck_for(host, 0);
        if stuck_for > 0 {
            return self.later(stuck_for, What::Fault(Fault::Restart(host)));
        }
        let promised = self.begin_timing(host);
        let now = self.local(host);
        let fresh = !self.hosts[host].started_before || self.without == Without::Quarantine;
        let raft = &self.hosts[host].raft;
        let memory = Memory {
            fresh,
            vote_term: raft.term,
            released_term: raft.released_term(),
            view: raft.state.view(),
            promised,
            promise_lost: false,
            mark_seen: None,
        };
        let (settings, name, timing) = (self.settings(host), self.name(host), self.hosts[host].timing);
        let me = &mut self.hosts[host];
        me.generation += 1;
        me.is_off = false;
        me.started_before = true;
        let core = Core::new(settings, memory.clone(), now);
        me.coordinator = Some(Coordinator::new(core, name, memory, timing, now, me.witness.take()));
        self.note(|| format!("{host} coordinator starts"));
        if self.hosts[host].role == Role::Validator {
            let after = self.random.between(MS, 30 * MS);
            self.own(host, after, Stage::Attach);
            let after = self.random.between(0, PROBE);
            self.own(host, after, Stage::Probe);
        }
        let after = self.random.between(0, GOSSIP);
        self.own(host, after, Stage::Gossip);
        let after = self.odd.between(0, 1_000) * MS;
        self.own(host, after, Stage::Pulse);
        self.plan_tick(host);
    }

    fn settings(&mut self, host: Id) -> Settings {
        Settings {
            me: self.name(host),
            role: self.hosts[host].role,
            priorities: self.names.iter().enumerate().map(|(i, name)| (name.clone(), 100 - 10 * i as u32)).collect(),
            timing: self.hosts[host].timing,
            unstated_lease: None,
            failback: self.failback,
            clock_skew: Duration::from_millis(10),
            node_refuses: false,
            probe_failures_max: 3,
            min_peers: None,
            head_still_max: Duration::from_secs(10),
            activation_max: Duration::from_secs(2),
            stop_timeout: Duration::from_nanos(self.stop_timeout),
            settle_max: None,
            sees_key_on_chain: false,
            custody: if self.signing.is_some() { Custody::Signer } else { Custody::Links },
        }
    }

    pub fn probe(&mut self, host: Id) {
        let closely = self.hosts[host].coordinator.as_ref().is_some_and(|c| c.closely);
        if self.hosts[host].machine.answers(self.at) {
            let health = self.health(host);
            self.step(host, Event::Probed(health));
        } else if self.hosts[host].machine.hangs(self.at) {
            self.tally.note(Kind::NodeHangs);
            self.step(host, Event::ProbeFailed { reason: "no answer in time".into() });
        }
        self.own(host, if closely { PROBE_CLOSELY } else { PROBE }, Stage::Probe);
    }

    /// Applies the next committed entry, to the state and then to the core.
    pub fn apply(&mut self, host: Id) {
        if !self.has_to_apply(host) {
            return;
        }
        let raft = &mut self.hosts[host].raft;
        let index = raft.applied;
        raft.applied += 1;
        let entry = raft.log[index].clone();
        let command = match entry.payload {
            Payload::Blank => return,
            Payload::Members(members) => return self.changed(host, index + 1, members),
            Payload::Command(command) => Command::clone(&command),
        };
        if self.without == Without::NoSecondClaim && command.is_claim() {
            self.hosts[host].raft.state.last_release = None;
        }
        let raft = &mut self.hosts[host].raft;
        let outcome = raft.state.apply(entry.term, &command);
        let view = raft.state.view();
        let leads = raft.leads();
        self.purge(host);
        self.write(host, None);
        if let (Command::Baton(Baton::Claim { .. }), Applied::Claimed { .. }) = (&command, &outcome) {
            self.note(|| format!("{host} applies {command}"));
        }
        if let Some(coordinator) = &mut self.hosts[host].coordinator {
            coordinator.pending.retain(|(pending, _)| *pending != index + 1);
        }
        self.weighed(host, index + 1, entry.term, &outcome);
        let released = command.is_release();
        let event = Event::Applied { term: entry.term, command, outcome, view };
        if self.without == Without::NoSecondClaim && released && leads {
            // The core is kept from hearing that it released, and takes up the lead as if it were new.
            self.step(host, Event::LeadLost);
            self.step(host, Event::Led { term: entry.term });
            return;
        }
        self.step(host, event);
    }

    /// What it had not flushed is lost.
    pub fn lose_coordinator(&mut self, host: Id) {
        let Some(coordinator) = self.hosts[host].coordinator.take() else { return };
        if matches!(coordinator.doing, Some(Doing::Upgrading { .. })) {
            self.tally.note(Kind::UpgradeCut);
        }
        self.lose_signer(host);
        if !self.hosts[host].is_off {
            self.hang_up(host);
        }
        self.hosts[host].witness = Some(coordinator.witness);
        let kept = self.hosts[host].disk.crash(&mut self.random);
        if kept.lost > 0 {
            self.note(|| format!("{host} loses {} writes", kept.lost));
            self.tally.note(Kind::LostWrites);
        }
        let me = &mut self.hosts[host];
        me.raft.crash(kept.vote, kept.log, kept.applied);
        me.purged = me.purged.min(me.raft.applied);
        me.installing = 0;
        me.generation += 1;
        me.paused = false;
        me.deferred.clear();
    }
}
