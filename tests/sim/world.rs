//! The world of the simulation: clocks, network, hosts, and the order in which things happen. One seed makes one
//! history. All times are nanoseconds; `at` is real time, which no host sees.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use baton::base::ids::{NodeId, Role};
use baton::base::time::{BootTime, Now, WallTime};
use baton::base::timing::Timing;
use baton::core::agreed::replicated::{Baton, Command};
use baton::core::{Action, Event};

use crate::approvals::Approvals;
use crate::chain::Chain;
use crate::coordinator::Stage;
use crate::host::Host;
use crate::members::Members;
use crate::oracle::End;
use crate::plot::Plot;
use crate::raft::Id;
use crate::random::Random;
use crate::schedule::{Due, What, for_coordinator};
use crate::signing::Signing;
use crate::snapshots::Snapshots;
use crate::tally::{Kind, Tally};
use crate::trial::Strikes;

pub const MS: u64 = 1_000_000;
pub const TIMING: Timing = Timing::LAN;
const BLOCK: u64 = 400 * MS;
const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

/// A rule of the safety argument that is left out, to see that the oracle notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    Nothing,
    Quarantine,
    Promise,
    NodeProof,
    ReleaseOfTheTerm,
    NoSecondClaim,
    Deadline,
    /// The shell takes a node that was just ordered to start for one that is stopped.
    AwaitedStart,
    /// Fence 3: every floor counts as met.
    Floor,
    /// The sign state that a `Release` reads was restored from a backup.
    FreshMark,
    /// The mark that a `Release` passes on says nothing of the old holder's head.
    MarkHead,
    /// It says nothing of its approvals.
    MarkApprovals,
    /// A stopped guard is killed by nobody.
    Backstop,
    /// The core of a leader hears of no change of the voters.
    Voters,
    /// A follower promises for its own lease alone, and the leader counts on its own.
    Comparison,
    /// A restarted member remembers no promise that is longer than its own lease asks for.
    Remembered,
    /// A promise has no term: whoever is reported last has it.
    PromiseTerm,
    /// Liveness: an acknowledgement that comes when Raft has given it up counts for nothing.
    LateAcknowledgements,
    /// Liveness: a vote is given up after what openraft makes of two heartbeats.
    LongVotes,
    /// Liveness: nobody looks whether the disks answer.
    Pulse,
    /// Liveness: who has given up the lead goes on to send requests of its term.
    Resigning,
    /// Liveness: a vote is on disk after three syncs, one after the other.
    OneSync,
    /// Liveness: a leader sends heartbeats to whoever is silent, too.
    Silence,
    /// Liveness: it sends them entries.
    SilentEntries,
    /// Liveness: a follower that was silent once gets no heartbeat any more, also when it is heard again.
    HeardAgain,
    /// A host whose wall clock is off does not take the baton.
    Clock,
    /// A signature waits until its entry is committed and applied.
    Commit,
    /// Nothing is signed below what the log has admitted.
    LowerPlaces,
    /// What is signed again keeps the time that was admitted.
    FirstTime,
    /// The signer's mark is on its disk before the signature leaves.
    MarkFirst,
    /// Liveness: the digest of a request leaves its time out.
    TimelessDigest,
}

impl Without {
    pub const ALL: [Without; 31] = [
        Without::Nothing,
        Without::Quarantine,
        Without::Promise,
        Without::NodeProof,
        Without::ReleaseOfTheTerm,
        Without::NoSecondClaim,
        Without::Deadline,
        Without::AwaitedStart,
        Without::Floor,
        Without::FreshMark,
        Without::MarkHead,
        Without::MarkApprovals,
        Without::Backstop,
        Without::Voters,
        Without::Comparison,
        Without::Remembered,
        Without::PromiseTerm,
        Without::LateAcknowledgements,
        Without::LongVotes,
        Without::Pulse,
        Without::Resigning,
        Without::OneSync,
        Without::Silence,
        Without::SilentEntries,
        Without::HeardAgain,
        Without::Clock,
        Without::Commit,
        Without::LowerPlaces,
        Without::FirstTime,
        Without::MarkFirst,
        Without::TimelessDigest,
    ];
}

pub struct World {
    pub at: u64,
    pub order: u64,
    pub due: BinaryHeap<Reverse<Due>>,
    pub random: Random,
    pub hosts: Vec<Host>,
    pub names: Vec<NodeId>,
    pub cuts: Vec<Vec<bool>>,
    pub loss: u64,
    pub delay: u64,
    /// baton never goes without; here it may, until the faults end.
    pub pre_vote: bool,
    pub hot: bool,
    pub failback: bool,
    pub without: Without,
    pub trace: Option<Vec<String>>,
    pub events: u64,
    pub overlap: Option<String>,
    /// A deadline that a core acts on and does not wake up for.
    pub forgotten: Option<String>,
    pub faults_end: u64,
    /// Since when, after the faults, there has been a member that could be active.
    pub eligible_since: Option<u64>,
    pub tally: Tally,
    /// The history ends by then, however it goes.
    pub patience: u64,
    pub chain: Chain,
    pub approvals: Option<Approvals>,
    /// Where no chain node has the key.
    pub signing: Option<Signing>,
    /// Apart from `random`, so that a history without what is drawn from it is what it was.
    pub odd: Random,
    /// Each coordinator starts with a timing of its own.
    pub mixed: bool,
    pub longest_lease: u64,
    pub snapshots: Snapshots,
    pub scene: Option<[Id; 3]>,
    pub plot: Option<Plot>,
    /// On this link, a message that carries entries is lost: packets of full length do not pass.
    pub no_entries: Option<(Id, Id)>,
    /// All that this host sends comes so much later, until then.
    pub late_from: Option<(Id, u64, u64)>,
    pub strikes: Strikes,
    /// From SIGTERM to SIGKILL.
    pub stop_timeout: u64,
    /// The kernel's timer for a stopped guard comes too late, against what the argument rests on.
    pub late_backstops: bool,
}

pub fn run(seed: u64, without: Without, traced: bool) -> End {
    let mut world = World::new(seed, without, traced);
    world.vary();
    world.plan_faults(seed);
    world.run_to_end()
}

impl World {
    pub fn new(seed: u64, without: Without, traced: bool) -> World {
        let mut random = Random::new(seed);
        let voters = [3, 5, 7][[0, 0, 0, 0, 0, 0, 1, 1, 1, 2][random.between(0, 10) as usize]];
        let spares = random.between(0, 3).min((NAMES.len() - voters) as u64) as usize;
        let arbiters = random.between(0, voters as u64 / 2 + 1) as usize;
        let first = Members::first(voters);
        let hosts = (0..voters + spares).map(|me| {
            let votes_only = if me < voters { me + arbiters >= voters } else { random.chance(20) };
            let role = if votes_only { Role::Arbiter } else { Role::Validator };
            Host::new(me, voters + spares, role, first, &mut random)
        });
        let hosts: Vec<Host> = hosts.collect();
        let count = hosts.len();
        World {
            at: 0,
            order: 0,
            due: BinaryHeap::new(),
            hosts,
            names: NAMES[..count].iter().map(|name| NodeId::from(*name)).collect(),
            cuts: vec![vec![false; count]; count],
            loss: random.between(0, 4),
            delay: random.between(1, 30) * MS,
            pre_vote: random.chance(80),
            hot: random.chance(70),
            failback: random.chance(20),
            without,
            trace: traced.then(Vec::new),
            events: 0,
            overlap: None,
            forgotten: None,
            faults_end: 0,
            eligible_since: None,
            tally: Tally::default(),
            patience: u64::MAX,
            chain: Chain::new(BLOCK, count),
            approvals: None,
            signing: None,
            odd: Random::new(seed.rotate_left(32) ^ 0x6f64_6473),
            mixed: false,
            longest_lease: TIMING.lease().as_nanos() as u64,
            snapshots: Snapshots::default(),
            scene: None,
            plot: None,
            no_entries: None,
            late_from: None,
            strikes: Strikes::default(),
            stop_timeout: 400 * MS,
            late_backstops: false,
            random,
        }
    }

    pub fn name(&self, host: Id) -> NodeId {
        self.names[host].clone()
    }

    pub fn id(&self, name: &NodeId) -> Id {
        self.names.iter().position(|known| known == name).expect("a member")
    }

    pub fn count(&self) -> usize {
        self.hosts.len()
    }

    pub fn others(&self, me: Id) -> impl Iterator<Item = Id> + use<> {
        (0..self.hosts.len()).filter(move |other| *other != me)
    }

    pub fn local(&self, host: Id) -> BootTime {
        self.hosts[host].clock.read(self.at)
    }

    pub fn now(&self, host: Id) -> Now {
        let clock = &self.hosts[host].clock;
        Now { boot: clock.read(self.at), wall: WallTime::from_nanos(self.at.saturating_add_signed(clock.wall_offset)) }
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:10.3} ms  {}", self.at as f64 / MS as f64, text()));
        }
    }

    pub fn happen(&mut self, what: What) {
        if let Some(host) = for_coordinator(&what)
            && self.hosts[host].paused
        {
            self.hosts[host].deferred.push_back(what);
            return self.tally.note(Kind::Pause);
        }
        match what {
            What::Deliver { from, to, generation, message } => {
                if self.hosts[to].coordinator.is_some() {
                    self.deliver(from, to, generation, message);
                } else if !self.hosts[to].is_off {
                    self.lost(from, to, &message);
                }
            }
            What::Own { host, generation, stage } => {
                if self.lives(host, generation) {
                    self.proceed(host, stage);
                }
            }
            What::Heard { host, generation, news } => {
                if self.lives(host, generation) {
                    self.note(|| format!("{host} guard says {news:?}"));
                    self.hear(host, news);
                }
            }
            What::Ask { host, generation, asked } => self.ask_machine(host, generation, asked),
            What::Deadline { host } => self.deadline(host),
            What::Killed { host, pid } => self.killed(host, pid),
            What::Backstop { host, stop } => self.backstop(host, stop),
            What::GuardGoesOn { host, stop } => self.guard_goes_on(host, stop),
            What::Flushed { host, run } => self.flushed(host, run),
            What::Resume { host } => self.resume(host),
            What::Block { host } => self.block(host),
            What::Lag { host, lag } => self.set_lag(host, lag),
            What::Approve { host } => self.approve(host),
            What::Wants { host } => self.wants(host),
            What::Fault(fault) => self.strike(fault),
        }
    }

    /// What waited for a stopped coordinator comes in any order, but for the guard's frames.
    fn resume(&mut self, host: Id) {
        self.hosts[host].paused = false;
        let mut told = 0;
        for what in std::mem::take(&mut self.hosts[host].deferred) {
            let mut after = if self.random.chance(70) { 0 } else { self.random.between(0, 3 * MS) };
            if matches!(what, What::Heard { .. }) {
                told = after.max(told);
                after = told;
            }
            self.later(after, what);
        }
        self.hosts[host].machine.hold_back_news(self.at + told);
    }

    fn lives(&self, host: Id, generation: u32) -> bool {
        self.hosts[host].generation == generation && self.hosts[host].coordinator.is_some()
    }

    pub fn step(&mut self, host: Id, event: Event) {
        let now = self.now(host);
        self.note(|| format!("{host} <- {event:?}"));
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        for action in coordinator.step(now, event) {
            self.perform(host, action);
        }
        self.plan_tick(host);
    }

    pub fn plan_tick(&mut self, host: Id) {
        let now = self.local(host);
        let heartbeat = self.hosts[host].timing.heartbeat();
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        let longest = if coordinator.core.leads().is_some() { heartbeat } else { Duration::from_secs(1) };
        let wakeup = coordinator.core.next_wakeup(now).map_or(now + longest, |wakeup| wakeup.min(now + longest));
        coordinator.tick += 1;
        let tick = coordinator.tick;
        let after = self.hosts[host].clock.when(wakeup).saturating_sub(self.at) + 1000;
        self.own(host, after, Stage::Tick(tick));
        self.look_for_forgotten_deadlines(host);
    }

    fn perform(&mut self, host: Id, action: Action) {
        self.note(|| format!("{host} -> {action:?}"));
        let (after, wall) = (self.moment(), self.now(host).wall);
        let name = self.name(host);
        match action {
            Action::ProposeClaim { epoch, reason } => {
                let claim = Command::Baton(Baton::Claim { epoch, member: name, reason, at: wall });
                self.own(host, after, Stage::Propose(claim));
            }
            Action::ProposeRelease { epoch, last_signed, reason, to } => {
                let release = Command::Baton(Baton::Release { epoch, last_signed, reason, at: wall, to });
                self.own(host, after, Stage::Propose(release));
            }
            Action::ProposeActivated { epoch, floor, began_at } => {
                let took = self.local(host).since(began_at);
                self.own(
                    host,
                    after,
                    Stage::Propose(Command::Baton(Baton::Activated { epoch, at: wall, floor, took })),
                );
            }
            Action::Campaign => self.own(host, after, Stage::Campaign),
            Action::TransferLead { to } => {
                let to = self.id(&to);
                self.own(host, after, Stage::Transfer { to });
            }
            Action::AnswerHandover(_) => {}
            Action::Finish { stop_node } => self.own(host, after, Stage::Finish { stop_node }),
            Action::StartStandby
            | Action::EndGuard
            | Action::Arm { .. }
            | Action::Disarm { .. }
            | Action::LinkValidating { .. }
            | Action::Activate { .. }
            | Action::Deactivate { .. }
            | Action::Upgrade { .. }
            | Action::WatchChain { .. } => self.perform_here(host, action),
        }
    }
}
