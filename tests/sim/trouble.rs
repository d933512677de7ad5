//! Faults that end nothing: a disk, a guard, a chain node that is there and does not answer, or late.

use baton::base::ids::Role;
use baton::core::agreed::replicated::{Command, Set};

use crate::faults::Fault;
use crate::members::ids;
use crate::raft::Id;
use crate::random::Random;
use crate::tally::Kind;
use crate::world::{MS, TIMING, World};

/// For so long TCP sends what is new while nothing is confirmed.
const UNCONFIRMED: u64 = 300 * MS;
const HOUR: i64 = 3_600_000 * MS as i64;
/// Three probes that fail, one every 250 ms, and the one before them.
const PROBE_LIMIT: u64 = 1_000 * MS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    HostLost,
    NodeKilled,
    /// The holder is heard, and hears nobody.
    InboundCut,
    /// As before, and what it sends arrives all the time. It may have proposed something just then.
    Deaf {
        proposes: bool,
    },
    /// Every flush of all members takes so many milliseconds more; a second later the holder's host is lost.
    SlowSyncs(u64),
    /// The whole disk: no flush ends, no link is renamed, the chain node writes nothing.
    DiskStuck,
    StateStuck,
    HomeStuck,
    /// The chain node answers no probe and ignores SIGTERM.
    NodeHangs,
    /// Not even SIGKILL ends it.
    NodeFrozen,
    /// Both are frozen, the coordinator lives.
    GuardAndNodeFrozen,
    /// The guard of whoever comes next hangs while it is idle; then the holder's host is lost.
    IdleGuardHangs,
    /// The clock of whoever comes next is an hour ahead; two seconds later the holder's host is lost.
    ClockAhead,
    /// One member is lost, and of those that are left one answers 200 ms late.
    SlowFollower,
    /// One member is lost, and of those that are left one stands still for so many milliseconds.
    PausedFollower(u64),
}

/// Whom it strikes.
#[derive(Clone, Copy, Debug)]
pub struct Struck {
    pub holder: Id,
    pub next: Id,
    pub third: Id,
}

impl Trouble {
    pub const ALL: [Trouble; 18] = [
        Trouble::HostLost,
        Trouble::NodeKilled,
        Trouble::InboundCut,
        Trouble::Deaf { proposes: false },
        Trouble::Deaf { proposes: true },
        Trouble::SlowSyncs(90),
        Trouble::SlowSyncs(200),
        Trouble::SlowSyncs(300),
        Trouble::DiskStuck,
        Trouble::StateStuck,
        Trouble::HomeStuck,
        Trouble::NodeHangs,
        Trouble::NodeFrozen,
        Trouble::GuardAndNodeFrozen,
        Trouble::IdleGuardHangs,
        Trouble::ClockAhead,
        Trouble::SlowFollower,
        Trouble::PausedFollower(400),
    ];

    /// Nobody signs for no longer than that, while it lasts and somebody else is ready.
    pub fn limit(self) -> u64 {
        let lease = TIMING.lease().as_nanos() as u64;
        match self {
            // The slowest of all; most are judged by their share.
            Trouble::HostLost | Trouble::InboundCut => 3 * lease,
            // As long again where nobody is elected before it tries again.
            Trouble::Deaf { .. } => 6 * lease,
            Trouble::NodeKilled => 1_000 * MS,
            Trouble::SlowSyncs(more) if more > 200 => 9_000 * MS,
            // With a second round, as after a split vote.
            Trouble::SlowSyncs(_) => 5_000 * MS,
            Trouble::DiskStuck | Trouble::StateStuck | Trouble::HomeStuck => 10_000 * MS,
            Trouble::NodeHangs => PROBE_LIMIT + 3_000 * MS,
            Trouble::NodeFrozen => lease + 10_000 * MS,
            Trouble::GuardAndNodeFrozen => lease + 3_000 * MS,
            // A failover, a lease for the guard's word, and to hand on.
            Trouble::IdleGuardHangs => 4 * lease,
            Trouble::ClockAhead => 3 * lease,
            Trouble::SlowFollower | Trouble::PausedFollower(_) => 300 * MS,
        }
    }

    /// What half of the histories do not exceed.
    pub fn median(self) -> u64 {
        match self {
            Trouble::SlowSyncs(90 | 200) => 3_000 * MS,
            Trouble::HostLost => TIMING.lease().as_nanos() as u64 * 14 / 10,
            // The holder signs on for nearly a lease, and one heartbeat at most leaves meanwhile.
            Trouble::InboundCut | Trouble::Deaf { .. } => 700 * MS,
            Trouble::NodeKilled
            | Trouble::SlowSyncs(_)
            | Trouble::DiskStuck
            | Trouble::StateStuck
            | Trouble::HomeStuck
            | Trouble::NodeHangs
            | Trouble::NodeFrozen
            | Trouble::GuardAndNodeFrozen
            | Trouble::IdleGuardHangs
            | Trouble::ClockAhead
            | Trouble::SlowFollower
            | Trouble::PausedFollower(_) => self.limit(),
        }
    }

    /// Validators and voters that it needs in order to be one that the others can get over.
    pub fn needs(self) -> (usize, Option<usize>) {
        match self {
            Trouble::IdleGuardHangs | Trouble::ClockAhead => (3, None),
            // A majority of five would answer in time.
            Trouble::SlowFollower | Trouble::PausedFollower(_) => (2, Some(3)),
            Trouble::HostLost
            | Trouble::NodeKilled
            | Trouble::InboundCut
            | Trouble::Deaf { .. }
            | Trouble::SlowSyncs(_)
            | Trouble::DiskStuck
            | Trouble::StateStuck
            | Trouble::HomeStuck
            | Trouble::NodeHangs
            | Trouble::NodeFrozen
            | Trouble::GuardAndNodeFrozen => (2, None),
        }
    }
}

impl World {
    /// From now on, for as long as it lasts.
    pub fn trouble(&mut self, trouble: Trouble, struck: Struck, lasts: u64) {
        let (host, until) = (struck.holder, self.at + lasts);
        match trouble {
            Trouble::HostLost => self.strike(Fault::Host(host)),
            Trouble::NodeKilled => self.strike(Fault::Node(host)),
            Trouble::InboundCut => {
                self.deafen(host);
                // Nothing confirms what is sent on a connection, and it sends no more.
                for to in self.others(host).filter(|_| lasts > UNCONFIRMED) {
                    self.plan(UNCONFIRMED, Fault::Cut { from: host, to, cut: true });
                }
            }
            Trouble::Deaf { proposes } => {
                self.deafen(host);
                if proposes {
                    self.order(Command::Set(Set::Priority { member: self.name(host), priority: Some(7) }));
                }
            }
            Trouble::SlowSyncs(more) => {
                (0..self.count()).for_each(|host| self.slow_down(host, (more, more), until));
                self.plan((1_000 * MS).min(lasts / 2), Fault::Host(host));
            }
            Trouble::DiskStuck => {
                self.hosts[host].disk.stuck_until = until;
                self.hosts[host].machine.home_stuck_until = until;
            }
            Trouble::StateStuck => self.hosts[host].disk.stuck_until = until,
            Trouble::HomeStuck => self.hosts[host].machine.home_stuck_until = until,
            Trouble::NodeHangs => self.hosts[host].machine.hang_node(until),
            Trouble::NodeFrozen => self.hosts[host].machine.freeze(until),
            Trouble::GuardAndNodeFrozen => {
                self.hosts[host].machine.freeze(until);
                self.strike(Fault::GuardStop(host, lasts));
            }
            Trouble::IdleGuardHangs => {
                self.strike(Fault::GuardStop(struck.next, lasts));
                self.strike(Fault::Host(host));
            }
            Trouble::ClockAhead => {
                self.turn_clock(struck.next, HOUR);
                self.plan(lasts, Fault::Clock { host: struck.next, by: -HOUR });
                self.plan((2_000 * MS).min(lasts / 2), Fault::Host(host));
            }
            Trouble::SlowFollower => {
                self.late_from = Some((struck.next, 200 * MS, until));
                self.strike(Fault::Host(struck.third));
            }
            Trouble::PausedFollower(ms) => {
                self.strike(Fault::Pause(struck.next, ms * MS));
                self.strike(Fault::Host(struck.third));
            }
        }
    }

    fn deafen(&mut self, host: Id) {
        self.others(host).for_each(|from| self.cuts[from][host] = true);
    }

    pub fn turn_clock(&mut self, host: Id, by: i64) {
        self.hosts[host].clock.wall_offset += by;
    }

    fn slow_down(&mut self, host: Id, more: (u64, u64), until: u64) {
        (self.hosts[host].disk.slower, self.hosts[host].disk.slower_until) = (more, until);
    }

    /// In a random history: of any host, or of whoever holds the baton then.
    pub fn any_trouble(&mut self, kind: u64, host: Option<Id>, last: u64) {
        let Some(host) = host.or_else(|| self.holder()) else { return };
        let struck = Struck { holder: host, next: host, third: host };
        let trouble = match kind {
            0 => return (0..self.count()).for_each(|host| self.slow_down(host, (0, 300), self.at + last)),
            1 => return self.slow_down(host, (0, 300), self.at + last),
            2 => Trouble::DiskStuck,
            3 => Trouble::StateStuck,
            4 => Trouble::HomeStuck,
            5 => Trouble::NodeHangs,
            6 => Trouble::NodeFrozen,
            _ => Trouble::GuardAndNodeFrozen,
        };
        self.tally.note(Kind::Trouble);
        self.trouble(trouble, struck, last);
    }

    /// Drawn apart, so that a history without any is what it was.
    pub fn plan_troubles(&mut self, seed: u64, length: u64) {
        let mut random = Random::new(seed.rotate_left(17) ^ 0x7472_6f75);
        let troubles = if random.chance(40) { random.between(1, 5) } else { 0 };
        for _ in 0..troubles {
            let at = random.between(500, length / MS - 20) * MS;
            let host = random.chance(60).then(|| random.between(0, self.count() as u64) as Id);
            let last = (random.between(20, 3000) * MS).min(length - at);
            let kind = random.between(0, 8);
            self.plan(at, Fault::Trouble { kind, host, last });
        }
    }

    /// Wall clocks that are off by more than `clock_skew` for a while, and a guard that hangs for good, idle or not.
    /// Drawn apart, as troubles are.
    pub fn plan_clocks_and_guards(&mut self, seed: u64, length: u64) {
        let mut random = Random::new(seed.rotate_left(41) ^ 0x636c_6f63);
        let turns = if random.chance(30) { random.between(1, 4) } else { 0 };
        for _ in 0..turns {
            let at = random.between(500, length / MS - 20) * MS;
            let host = random.between(0, self.count() as u64) as Id;
            let most = [100, 3_000, HOUR as u64 / MS][random.between(0, 3) as usize];
            let off = (random.between(20, most) * MS) as i64;
            let by = if random.chance(50) { off } else { -off };
            let last = (random.between(20, 6_000) * MS).min(length - at);
            self.plan(at, Fault::Clock { host, by });
            self.plan(at + last, Fault::Clock { host, by: -by });
        }
        if random.chance(10) {
            let at = random.between(500, length / MS) * MS;
            let host = random.between(0, self.count() as u64) as Id;
            self.plan(at, Fault::GuardHangs(host));
        }
    }

    /// A guard that hangs for good is let go on where nobody else is left who could hold the baton.
    pub fn free_last_guard(&mut self) {
        let voters = self.newest_members().voters;
        let validators = ids(voters).filter(|id| self.hosts[*id].role == Role::Validator);
        let (hung, others): (Vec<Id>, Vec<Id>) = validators.partition(|id| self.hosts[*id].machine.is_stopped());
        if others.is_empty() {
            hung.into_iter().for_each(|host| self.let_guard_go_on(host));
        }
    }
}
