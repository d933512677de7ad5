//! Every kind of fault: how it strikes one host, how it is healed, and whether it was really in force.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use baton::base::ids::Role;
use clap::ValueEnum;
use rand::RngExt;
use rand::rngs::StdRng;
use rustix::process::Signal;

use super::disk::{self, Disk};
use super::retimed::{self, Retimed};
use crate::hosts::clock;
use crate::hosts::disks;
use crate::hosts::faults::{self, What};
use crate::hosts::power;
use crate::hosts::{make_dir, quoted};
use crate::net::ports;
use crate::net::wires::{self, Request, Slow, Way};
use crate::net::{Custody, Ground, Net, write_file};
use crate::process::launch;
use crate::process::procs::{self, Proc};
use crate::runs::flood::Flood;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    Cut,
    CutIn,
    CutOut,
    Delay,
    Loss,
    KillCoordinator,
    KillGuard,
    KillNode,
    KillHost,
    StopCoordinator,
    StopGuard,
    StopNode,
    StopHost,
    /// The host's wall clock jumps, and the clocks of leases do not.
    ClockStep,
    /// Nothing can be written to the disk of the store.
    DiskFull,
    /// A byte of the store is another one when the host comes back.
    TornStore,
    /// The host comes back with an empty store.
    WipedMember,
    /// A second coordinator with the same id, and a store of its own, joins in.
    DuplicateMember,
    /// The host runs with another `[timing]` than before, and perhaps than the others.
    ChangedTiming,
    /// Every fsync of the host, or of all hosts, takes longer.
    SlowSyncs,
    /// What a host that does not hold the baton answers comes later than Raft waits for it.
    SlowFollower,
    /// Nothing is written any more to any file system of the host.
    FrozenDisk,
    /// To that of its store alone.
    FrozenState,
    /// To that of its chain node's home alone.
    FrozenHome,
    /// The guard of a host that does not hold the baton answers nobody.
    HungIdleGuard,
    /// Strangers begin TLS handshakes at the host, or at all hosts, and finish none.
    HandshakeFlood,
    /// Every process that signs for the host ends, and a new one is started.
    KillSigner,
    StopSigner,
    /// All hosts lose their power at once, and with it what they had not synced; they start at once.
    PowerCut,
}

impl Kind {
    pub const ALL: [Kind; 29] = [
        Kind::Cut,
        Kind::CutIn,
        Kind::CutOut,
        Kind::Delay,
        Kind::Loss,
        Kind::KillCoordinator,
        Kind::KillGuard,
        Kind::KillNode,
        Kind::KillHost,
        Kind::StopCoordinator,
        Kind::StopGuard,
        Kind::StopNode,
        Kind::StopHost,
        Kind::ClockStep,
        Kind::DiskFull,
        Kind::TornStore,
        Kind::WipedMember,
        Kind::DuplicateMember,
        Kind::ChangedTiming,
        Kind::SlowSyncs,
        Kind::SlowFollower,
        Kind::FrozenDisk,
        Kind::FrozenState,
        Kind::FrozenHome,
        Kind::HungIdleGuard,
        Kind::HandshakeFlood,
        Kind::KillSigner,
        Kind::StopSigner,
        Kind::PowerCut,
    ];

    /// Where no chain node has the key, somebody else signs; and only there the record of what was signed is synced.
    pub fn is_possible_with(self, custody: Custody) -> bool {
        custody == Custody::Signer || !matches!(self, Kind::KillSigner | Kind::StopSigner | Kind::PowerCut)
    }

    /// Of all hosts: no other fault strikes beside it.
    pub fn is_of_all(self) -> bool {
        self == Kind::PowerCut
    }

    /// It needs file systems of the hosts' own.
    pub fn needs_disks(self) -> bool {
        self.freezes() || self == Kind::PowerCut
    }

    /// A record of what happens may end before the coordinator does.
    pub fn keeps_from_writing(self) -> bool {
        self.needs_disks() || matches!(self, Kind::DiskFull | Kind::TornStore | Kind::WipedMember)
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Cut => "cut both ways",
            Kind::CutIn => "cut inwards",
            Kind::CutOut => "cut outwards",
            Kind::Delay => "delay",
            Kind::Loss => "loss",
            Kind::KillCoordinator => "SIGKILL coordinator",
            Kind::KillGuard => "SIGKILL guard",
            Kind::KillNode => "SIGKILL node",
            Kind::KillHost => "SIGKILL host",
            Kind::StopCoordinator => "SIGSTOP coordinator",
            Kind::StopGuard => "SIGSTOP guard",
            Kind::StopNode => "SIGSTOP node",
            Kind::StopHost => "SIGSTOP host",
            Kind::ClockStep => "clock step",
            Kind::DiskFull => "disk full",
            Kind::TornStore => "torn store",
            Kind::WipedMember => "wiped member",
            Kind::DuplicateMember => "duplicate member id",
            Kind::ChangedTiming => "changed timing",
            Kind::SlowSyncs => "slow syncs",
            Kind::SlowFollower => "slow follower",
            Kind::FrozenDisk => "frozen disk",
            Kind::FrozenState => "frozen disk of the store",
            Kind::FrozenHome => "frozen disk of the node",
            Kind::HungIdleGuard => "hung idle guard",
            Kind::HandshakeFlood => "flood of handshakes",
            Kind::KillSigner => "SIGKILL signer",
            Kind::StopSigner => "SIGSTOP signer",
            Kind::PowerCut => "power cut",
        }
    }

    /// As the command line has it.
    pub fn flag(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
    }

    pub fn can_strike(self, role: Role) -> bool {
        match self {
            Kind::KillGuard | Kind::KillNode | Kind::StopGuard | Kind::StopNode => role == Role::Validator,
            Kind::KillSigner | Kind::StopSigner => role == Role::Validator,
            Kind::PowerCut => true,
            Kind::FrozenHome | Kind::HungIdleGuard => role == Role::Validator,
            Kind::FrozenDisk | Kind::FrozenState => true,
            // The second coordinator would run the same chain node.
            Kind::DuplicateMember => role == Role::Arbiter,
            Kind::Cut | Kind::CutIn | Kind::CutOut | Kind::Delay | Kind::Loss => true,
            Kind::KillCoordinator | Kind::KillHost | Kind::StopCoordinator | Kind::StopHost => true,
            Kind::ClockStep | Kind::DiskFull | Kind::TornStore | Kind::WipedMember => true,
            Kind::ChangedTiming => true,
            Kind::SlowSyncs | Kind::SlowFollower | Kind::HandshakeFlood => true,
        }
    }

    /// It makes a difference at a host that follows, and none at one that leads.
    pub fn is_of_followers(self) -> bool {
        matches!(self, Kind::SlowFollower | Kind::HungIdleGuard)
    }

    pub fn is_possible_on(self, ground: Ground) -> bool {
        // Elsewhere the store lies on this machine's disk.
        !matches!(self, Kind::DiskFull | Kind::PowerCut) || ground == Ground::Namespaces
    }

    /// Nothing else strikes the same host: what waits for its disk cannot be killed.
    pub fn freezes(self) -> bool {
        matches!(self, Kind::FrozenDisk | Kind::FrozenState | Kind::FrozenHome)
    }

    /// Two of these at one host would be in each other's way: what is put right after a fault of the disk depends on
    /// whether the coordinator ended by it.
    pub fn ends_the_coordinator(self) -> bool {
        match self {
            Kind::DiskFull | Kind::TornStore | Kind::WipedMember | Kind::KillCoordinator | Kind::KillHost => true,
            Kind::ChangedTiming | Kind::PowerCut => true,
            Kind::KillSigner | Kind::StopSigner => false,
            Kind::Cut | Kind::CutIn | Kind::CutOut | Kind::Delay | Kind::Loss | Kind::ClockStep => false,
            Kind::KillGuard | Kind::KillNode | Kind::DuplicateMember => false,
            Kind::StopCoordinator | Kind::StopGuard | Kind::StopNode | Kind::StopHost => false,
            Kind::SlowSyncs | Kind::SlowFollower => false,
            Kind::FrozenDisk | Kind::FrozenState | Kind::FrozenHome => false,
            Kind::HungIdleGuard | Kind::HandshakeFlood => false,
        }
    }
}

pub struct Fault {
    pub kind: Kind,
    pub host: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.kind.name(), self.host)
    }
}

/// What a strike leaves to be put right.
pub enum Struck {
    /// There was nothing to strike.
    Nothing,
    Wires,
    Killed,
    Stopped(Vec<Proc>),
    Clock {
        reads_before: u64,
    },
    Disk(Disk),
    Twin {
        host: String,
    },
    Retimed(Retimed),
    /// With the slow syncs of each of these hosts before.
    Syncs(Vec<(String, u64)>),
    Flood(Flood),
    Power {
        lost: bool,
    },
}

/// Of what the wall clock is put off by, either way.
const STEP_MS: std::ops::Range<i64> = 20..5_000;
/// What a sync takes longer.
const SYNC_MS: std::ops::Range<u64> = 20..300;
/// How late answers are. Raft waits for 112 ms.
const ANSWER_MS: std::ops::Range<u64> = 120..300;
/// Handshakes that strangers begin, at all hosts together.
const FLOOD_PER_S: std::ops::Range<u64> = 60..400;

impl Fault {
    pub fn strike(&self, net: &Net, rng: &mut StdRng) -> Result<Struck> {
        match self.kind {
            Kind::Cut => self.cut(net, &[Way::In, Way::Out]),
            Kind::CutIn => self.cut(net, &[Way::In]),
            Kind::CutOut => self.cut(net, &[Way::Out]),
            Kind::Delay => self.slow(net, Slow { delay_ms_max: rng.random_range(20..250), ..Slow::default() }),
            Kind::Loss => {
                let slow = Slow {
                    delay_ms_max: 2,
                    lost_percent: rng.random_range(5..40),
                    retransmit_ms: 220,
                    ..Slow::default()
                };
                self.slow(net, slow)
            }
            Kind::KillCoordinator => self.kill(net, What::Coordinator),
            Kind::KillGuard => self.kill(net, What::Guard),
            Kind::KillNode => self.kill(net, What::Node),
            Kind::KillHost => self.kill(net, What::Host),
            Kind::KillSigner => self.kill(net, What::Signer),
            Kind::StopSigner => self.stop(net, What::Signer),
            Kind::PowerCut => {
                let lost = power::cut(net)?;
                net.hosts.iter().try_for_each(|host| launch::start_coordinator(net, &host.id))?;
                Ok(Struck::Power { lost })
            }
            Kind::StopCoordinator => self.stop(net, What::Coordinator),
            Kind::StopGuard | Kind::HungIdleGuard => self.stop(net, What::Guard),
            Kind::StopNode => self.stop(net, What::Node),
            Kind::StopHost => self.stop(net, What::Host),
            Kind::ClockStep => {
                let step_ms = rng.random_range(STEP_MS) * if rng.random_bool(0.5) { 1 } else { -1 };
                let reads_before = clock::reads(net, &self.host)?;
                clock::step(net, &self.host, step_ms * 1_000_000)?;
                Ok(Struck::Clock { reads_before })
            }
            Kind::DiskFull => disk::fill(net, &self.host).map(Struck::Disk),
            Kind::TornStore => disk::tear(net, &self.host, rng).map(Struck::Disk),
            Kind::WipedMember => disk::wipe(net, &self.host).map(Struck::Disk),
            Kind::FrozenDisk => self.freeze(disks::of_host(net, net.host(&self.host)?).to_vec()),
            Kind::FrozenState => self.freeze(vec![net.state_dir(&self.host)]),
            Kind::FrozenHome => self.freeze(vec![net.chain_home(&self.host)]),
            Kind::DuplicateMember => self.duplicate(net),
            Kind::ChangedTiming => retimed::retime(net, &self.host, rng).map(Struck::Retimed),
            Kind::SlowSyncs => self.slow_syncs(net, rng),
            Kind::HandshakeFlood => self.flood(net, rng),
            Kind::SlowFollower => {
                let late = rng.random_range(ANSWER_MS);
                let slow = Slow { delay_ms_min: late, delay_ms_max: late, only: Some(Way::Out), ..Slow::default() };
                self.slow(net, slow)
            }
        }
    }

    /// The host can recover; true when the fault was in force until now.
    pub fn heal(&self, net: &Net, struck: Struck) -> Result<bool> {
        match struck {
            Struck::Nothing => Ok(false),
            Struck::Killed => Ok(true),
            Struck::Power { lost } => Ok(lost),
            Struck::Wires => {
                let wires = wires::ask(&net.wires_socket(), &Request::List)?;
                wires::ask(&net.wires_socket(), &Request::Heal { host: self.host.clone() })?;
                Ok(wires.struck.contains_key(&self.host))
            }
            Struck::Stopped(targets) => {
                procs::signal(&targets, Signal::CONT)?;
                Ok(true)
            }
            Struck::Clock { reads_before } => {
                let in_force = clock::reads(net, &self.host)? > reads_before;
                clock::step(net, &self.host, 0)?;
                Ok(in_force)
            }
            Struck::Disk(disk) => disk.put_right(net, &self.host),
            Struck::Twin { host } => {
                let said = fs::read_to_string(net.host_dir(&host).join("coordinator.log")).unwrap_or_default();
                faults::kill(&faults::of_host(net, &host, What::Host))?;
                let dir = net.host_dir(&host);
                fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
                Ok(!said.is_empty())
            }
            Struck::Retimed(retimed) => retimed.put_right(net, &self.host),
            Struck::Syncs(hosts) => {
                let mut in_force = false;
                for (host, before) in hosts {
                    in_force |= clock::slowed_syncs(net, &host)? > before;
                    clock::slow_syncs(net, &host, Duration::ZERO)?;
                }
                Ok(in_force)
            }
            // A member that has ended a handshake had begun it.
            Struck::Flood(flood) => Ok(flood.counts().ended > 0),
        }
    }

    /// Of this host, or of all.
    fn flood(&self, net: &Net, rng: &mut StdRng) -> Result<Struck> {
        let (all, per_s) = (rng.random_bool(0.5), rng.random_range(FLOOD_PER_S));
        let hosts: Vec<_> = net.hosts.iter().filter(|host| all || host.id == self.host).collect();
        let at_each = per_s / hosts.len().max(1) as u64;
        Flood::begin(net, hosts, at_each).map(Struck::Flood)
    }

    /// Of this host, or of all.
    fn slow_syncs(&self, net: &Net, rng: &mut StdRng) -> Result<Struck> {
        let (all, longer) = (rng.random_bool(0.5), Duration::from_millis(rng.random_range(SYNC_MS)));
        let mut slowed = Vec::new();
        for host in net.hosts.iter().filter(|host| all || host.id == self.host) {
            slowed.push((host.id.clone(), clock::slowed_syncs(net, &host.id)?));
            clock::slow_syncs(net, &host.id, longer)?;
        }
        Ok(Struck::Syncs(slowed))
    }

    fn cut(&self, net: &Net, ways: &[Way]) -> Result<Struck> {
        wires::ask(&net.wires_socket(), &Request::Cut { host: self.host.clone(), ways: ways.to_vec() })?;
        Ok(Struck::Wires)
    }

    fn slow(&self, net: &Net, slow: Slow) -> Result<Struck> {
        wires::ask(&net.wires_socket(), &Request::Slow { host: self.host.clone(), slow })?;
        Ok(Struck::Wires)
    }

    fn kill(&self, net: &Net, what: What) -> Result<Struck> {
        let targets = faults::of_host(net, &self.host, what);
        if targets.is_empty() {
            return Ok(Struck::Nothing);
        }
        match what {
            What::Host => faults::kill_host(net, &self.host, &targets)?,
            What::Coordinator | What::Guard | What::Node | What::Signer => faults::kill(&targets)?,
        }
        Ok(Struck::Killed)
    }

    fn stop(&self, net: &Net, what: What) -> Result<Struck> {
        let targets = faults::of_host(net, &self.host, what);
        if targets.is_empty() {
            return Ok(Struck::Nothing);
        }
        procs::signal(&targets, Signal::STOP)?;
        Ok(Struck::Stopped(targets))
    }

    fn freeze(&self, dirs: Vec<PathBuf>) -> Result<Struck> {
        if !dirs.iter().all(|dir| disks::is_own(dir)) {
            // Why not was said at the start.
            return Ok(Struck::Nothing);
        }
        disk::freeze(dirs).map(Struck::Disk)
    }

    fn duplicate(&self, net: &Net) -> Result<Struck> {
        let twin = format!("{}-twin", self.host);
        let (dir, original) = (net.host_dir(&twin), net.host(&self.host)?);
        let [listen, metrics] = ports::pick(&net.dir, 2)?[..] else { bail!("two ports were asked for") };
        let run_dir = original.run_dir.with_file_name(format!("{twin}-run"));
        for folder in [&dir, &net.state_dir(&twin), &run_dir] {
            make_dir(folder)?;
        }
        let text = fs::read_to_string(net.config_file(&self.host)).context("read the configuration to duplicate")?;
        let text = text
            .replace(&quoted(net.state_dir(&self.host)), &quoted(net.state_dir(&twin)))
            .replace(&quoted(&original.run_dir), &quoted(&run_dir))
            .replace(&original.raft().to_string(), &SocketAddr::from((original.addr, listen)).to_string())
            .replace(&original.metrics().to_string(), &SocketAddr::from((original.addr, metrics)).to_string());
        write_file(&net.config_file(&twin), &text)?;
        launch::start_coordinator_on(net, &self.host, &twin)?;
        Ok(Struck::Twin { host: twin })
    }
}
