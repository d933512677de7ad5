//! The world of the simulation: clocks, network, hosts, and the order in which things happen. One seed makes one
//! history. All times are nanoseconds; `at` is real time, which no host sees.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use baton::core::replicated::{Applied, Command};
use baton::core::{Action, Core, Event, Memory, Peer, Settings};
use baton::ids::{NodeId, Role};
use baton::time::{BootTime, Now, WallTime};
use baton::timing::Timing;

use crate::chain::Chain;
use crate::coordinator::{Coordinator, Stage};
use crate::faults::Fault;
use crate::machine::{FromMachine, Machine, ToMachine};
use crate::raft::{Append, Appended, Ballot, Id, Raft};
use crate::signlog::{self, Report};

pub const MS: u64 = 1_000_000;
pub const TIMING: Timing = Timing::LAN;
const BLOCK: u64 = 400 * MS;
const PROBE: u64 = 250 * MS;
const PROBE_CLOSELY: u64 = 60 * MS;
const GOSSIP: u64 = 400 * MS;
const SILENT: u64 = 1200 * MS;
/// After the faults have stopped, somebody must be active within this time.
pub const LIVE_WITHIN: u64 = 40_000 * MS;

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
}

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` up to and without `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low).max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

#[derive(Clone, Debug)]
pub enum Message {
    Append { append: Append, sent_at: BootTime },
    Appended { term: u64, sent_at: BootTime, answer: Appended },
    PreVote(Ballot),
    PreVoted { round: u64, granted: bool, vote: (u64, Option<Id>) },
    Vote(Ballot),
    Voted { round: u64, granted: bool, vote: (u64, Option<Id>) },
    Transfer { to: Id, vote: (u64, Option<Id>), last: (u64, usize) },
    Gossip(Peer),
}

#[derive(Clone, Debug)]
pub enum What {
    Deliver { from: Id, to: Id, generation: u32, message: Message },
    Own { host: Id, generation: u32, stage: Stage },
    Heard { host: Id, generation: u32, news: FromMachine },
    Ask { host: Id, generation: u32, asked: ToMachine },
    Deadline { host: Id },
    Killed { host: Id, pid: u32 },
    Resume { host: Id },
    Block { host: Id },
    Lag { host: Id, lag: u64 },
    Fault(Fault),
}

pub struct Due {
    pub at: u64,
    pub order: u64,
    pub what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub struct Clock {
    offset: u64,
    /// Parts per million faster than real time.
    ppm: i64,
    wall_offset: u64,
}

impl Clock {
    pub fn read(&self, at: u64) -> BootTime {
        let drift = (at as i128 * i128::from(self.ppm)) / 1_000_000;
        BootTime::from_nanos((self.offset as i128 + at as i128 + drift) as u64)
    }

    /// The first real time at which the clock shows `local` or later.
    pub fn when(&self, local: BootTime) -> u64 {
        let elapsed = local.as_nanos().saturating_sub(self.offset) as i128;
        (elapsed * 1_000_000 / (1_000_000 + i128::from(self.ppm))) as u64 + 1
    }
}

pub struct Host {
    pub clock: Clock,
    pub role: Role,
    /// The machine's processes: guard and chain node. They outlive the coordinator.
    pub machine: Machine,
    pub raft: Raft,
    pub coordinator: Option<Coordinator>,
    pub generation: u32,
    pub paused: bool,
    deferred: VecDeque<What>,
    pub syncing_until: u64,
    started_before: bool,
}

pub struct World {
    pub at: u64,
    pub order: u64,
    pub due: BinaryHeap<Reverse<Due>>,
    pub random: Random,
    pub hosts: Vec<Host>,
    names: Vec<NodeId>,
    pub cuts: Vec<Vec<bool>>,
    pub loss: u64,
    pub delay: u64,
    pub pre_vote: bool,
    pub hot: bool,
    failback: bool,
    pub without: Without,
    trace: Option<Vec<String>>,
    pub events: u64,
    pub overlap: Option<String>,
    pub faults_end: u64,
    /// Of operators, proposed by a leader.
    pub orders: u64,
    /// The history ends by then, however it goes.
    pub patience: u64,
    pub chain: Chain,
}

/// How one history ended.
pub struct End {
    pub overlap: Option<String>,
    /// From the end of the faults until somebody was active.
    pub live_after: Option<u64>,
    pub pre_vote: bool,
    pub events: u64,
    pub claims: u64,
    pub handovers: u64,
    pub orders: u64,
    /// Of all that was signed.
    pub verdict: Report,
    pub signatures: usize,
    /// How often the holder was struck as it signed.
    pub struck: u32,
    pub trace: Vec<String>,
}

pub fn run(seed: u64, without: Without, traced: bool) -> End {
    let mut world = World::new(seed, without, traced);
    world.plan_faults();
    world.run_to_end()
}

impl World {
    pub fn run_to_end(mut self) -> End {
        let live_after = self.play();
        let world = self;
        let state = world.hosts.iter().map(|host| &host.raft.state).max_by_key(|state| state.epoch);
        let moves = state.map(|state| state.moves.iter().map(|row| row.kind.as_str()).collect::<Vec<_>>());
        let moves = moves.unwrap_or_default();
        End {
            overlap: world.overlap,
            live_after,
            pre_vote: world.pre_vote,
            events: world.events,
            claims: moves.len() as u64,
            orders: world.orders,
            handovers: moves.iter().filter(|kind| **kind == "handover").count() as u64,
            verdict: signlog::check(&world.chain.log),
            signatures: world.chain.log.len(),
            struck: world.chain.struck(),
            trace: world.trace.unwrap_or_default(),
        }
    }

    pub fn new(seed: u64, without: Without, traced: bool) -> World {
        let mut random = Random::new(seed);
        let members = if random.chance(70) { 3 } else { 5 };
        let arbiters = random.between(0, (members as u64) / 2 + 1) as usize;
        let drift = i64::from(TIMING.drift_ppm());
        let hosts = (0..members).map(|me| {
            let ppm = match random.between(0, 3) {
                0 => drift,
                1 => -drift,
                _ => random.between(0, 2 * drift as u64) as i64 - drift,
            };
            Host {
                clock: Clock { offset: random.between(0, 1_000_000 * MS), ppm, wall_offset: random.between(0, 8 * MS) },
                role: if me + arbiters >= members { Role::Arbiter } else { Role::Validator },
                machine: Machine::default(),
                raft: Raft::new(me, members),
                coordinator: None,
                generation: 0,
                paused: false,
                deferred: VecDeque::new(),
                syncing_until: 0,
                started_before: false,
            }
        });
        let hosts = hosts.collect();
        World {
            at: 0,
            order: 0,
            due: BinaryHeap::new(),
            hosts,
            names: ["a", "b", "c", "d", "e"][..members].iter().map(|name| NodeId::from(*name)).collect(),
            cuts: vec![vec![false; members]; members],
            loss: random.between(0, 4),
            delay: random.between(1, 30) * MS,
            pre_vote: random.chance(80),
            hot: random.chance(70),
            failback: random.chance(20),
            without,
            trace: traced.then(Vec::new),
            events: 0,
            overlap: None,
            faults_end: 0,
            orders: 0,
            patience: u64::MAX,
            chain: Chain::new(BLOCK, members),
            random,
        }
    }

    pub fn later(&mut self, after: u64, what: What) {
        self.order += 1;
        self.due.push(Reverse(Due { at: self.at + after, order: self.order, what }));
    }

    pub fn own(&mut self, host: Id, after: u64, stage: Stage) {
        let generation = self.hosts[host].generation;
        self.later(after, What::Own { host, generation, stage });
    }

    /// A short delay within one host; now and then a long one.
    pub fn moment(&mut self) -> u64 {
        match self.random.between(0, 100) {
            0..97 => self.random.between(0, 2 * MS),
            97..99 => self.random.between(0, 30 * MS),
            _ => self.random.between(0, 200 * MS),
        }
    }

    pub fn name(&self, host: Id) -> NodeId {
        self.names[host].clone()
    }

    pub fn id(&self, name: &NodeId) -> Id {
        self.names.iter().position(|known| known == name).expect("a member")
    }

    pub fn members(&self) -> usize {
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
        Now { boot: clock.read(self.at), wall: WallTime::from_nanos(self.at + clock.wall_offset) }
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:10.3} ms  {}", self.at as f64 / MS as f64, text()));
        }
    }

    pub fn send(&mut self, from: Id, to: Id, generation: u32, message: Message) {
        let copies = 1 + u64::from(self.random.chance(2));
        for _ in 0..copies {
            if self.cuts[from][to] || self.random.chance(self.loss) {
                continue;
            }
            let slow = if self.random.chance(3) { 20 } else { 1 };
            let after = self.random.between(100_000, self.delay * slow);
            self.later(after, What::Deliver { from, to, generation, message: message.clone() });
        }
    }

    /// Whether somebody was active within the bound once the faults had ended, and after which time.
    fn play(&mut self) -> Option<u64> {
        for host in 0..self.members() {
            let after = self.random.between(0, 300 * MS);
            self.later(after, What::Fault(Fault::Restart(host)));
            self.later(0, What::Block { host });
        }
        while let Some(Reverse(due)) = self.due.pop() {
            self.at = due.at;
            if self.at > self.patience {
                return None;
            }
            if self.at > self.faults_end {
                if self.somebody_is_active() {
                    return Some(self.at - self.faults_end);
                }
                if self.at > self.faults_end + LIVE_WITHIN {
                    return None;
                }
            }
            self.events += 1;
            self.happen(due.what);
            self.check_overlap();
            if self.overlap.is_some() {
                return None;
            }
        }
        None
    }

    fn somebody_is_active(&self) -> bool {
        let active =
            |host: &Host| host.machine.may_sign() && host.coordinator.as_ref().is_some_and(|c| c.core.is_active());
        self.hosts.iter().any(active)
    }

    fn check_overlap(&mut self) {
        let signing: Vec<String> = (0..self.members())
            .filter(|host| self.hosts[*host].machine.may_sign())
            .map(|host| self.names[host].to_string())
            .collect();
        if signing.len() > 1 {
            let text =
                format!("at {:.3} ms the nodes of {} may all sign", self.at as f64 / MS as f64, signing.join(" and "));
            self.note(|| text.clone());
            self.overlap = Some(text);
        }
    }

    fn happen(&mut self, what: What) {
        if let Some(host) = for_coordinator(&what)
            && self.hosts[host].paused
        {
            self.hosts[host].deferred.push_back(what);
            return;
        }
        match what {
            What::Deliver { from, to, generation, message } => {
                if self.hosts[to].coordinator.is_some() {
                    self.deliver(from, to, generation, message);
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
            What::Resume { host } => {
                self.hosts[host].paused = false;
                let deferred = std::mem::take(&mut self.hosts[host].deferred);
                for what in deferred {
                    let after = if self.random.chance(70) { 0 } else { self.random.between(0, 3 * MS) };
                    self.later(after, what);
                }
            }
            What::Block { host } => self.block(host),
            What::Lag { host, lag } => self.set_lag(host, lag),
            What::Fault(fault) => self.strike(fault),
        }
    }

    fn lives(&self, host: Id, generation: u32) -> bool {
        self.hosts[host].generation == generation && self.hosts[host].coordinator.is_some()
    }

    pub fn step(&mut self, host: Id, event: Event) {
        let now = self.now(host);
        self.note(|| format!("{host} <- {event:?}"));
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        coordinator.before_step(&event);
        let actions = coordinator.core.step(now, event);
        coordinator.after_step(now);
        for action in actions {
            self.perform(host, action);
        }
        self.plan_tick(host);
    }

    fn plan_tick(&mut self, host: Id) {
        let now = self.local(host);
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        let longest = if coordinator.core.leads().is_some() { TIMING.heartbeat() } else { Duration::from_secs(1) };
        let wakeup = coordinator.core.next_wakeup(now).map_or(now + longest, |wakeup| wakeup.min(now + longest));
        coordinator.tick += 1;
        let tick = coordinator.tick;
        let after = self.hosts[host].clock.when(wakeup).saturating_sub(self.at) + 1000;
        self.own(host, after, Stage::Tick(tick));
    }

    fn perform(&mut self, host: Id, action: Action) {
        self.note(|| format!("{host} -> {action:?}"));
        let (after, wall) = (self.moment(), self.now(host).wall);
        let name = self.name(host);
        match action {
            Action::ProposeClaim { epoch, reason } => {
                let claim = Command::Claim { epoch, member: name, reason, at: wall };
                self.own(host, after, Stage::Propose(claim));
            }
            Action::ProposeRelease { epoch, last_signed, reason, to } => {
                let release = Command::Release { epoch, last_signed, reason, at: wall, to };
                self.own(host, after, Stage::Propose(release));
            }
            Action::ProposeActivated { epoch, floor, began_at } => {
                let took = self.local(host).since(began_at);
                self.own(host, after, Stage::Propose(Command::Activated { epoch, at: wall, floor, took }));
            }
            Action::Campaign => self.own(host, after, Stage::Campaign),
            Action::TransferLead { to } => {
                let to = self.id(&to);
                self.own(host, after, Stage::Transfer { to });
            }
            Action::AnswerHandover(_) => {}
            Action::Finish { stop_node } => self.own(host, after, Stage::Finish { stop_node }),
            Action::StartStandby
            | Action::Arm { .. }
            | Action::Disarm { .. }
            | Action::LinkValidating { .. }
            | Action::Activate { .. }
            | Action::Deactivate { .. }
            | Action::WatchChain { .. } => self.perform_here(host, action),
        }
    }

    pub fn start(&mut self, host: Id) {
        if self.hosts[host].coordinator.is_some() {
            return;
        }
        let now = self.local(host);
        let fresh = !self.hosts[host].started_before || self.without == Without::Quarantine;
        let raft = &mut self.hosts[host].raft;
        raft.restart();
        let memory = Memory {
            fresh,
            vote_term: raft.term,
            released_term: raft.released_term(),
            view: raft.state.view(),
            mark_seen: None,
        };
        let (settings, name) = (self.settings(host), self.name(host));
        let me = &mut self.hosts[host];
        me.generation += 1;
        me.started_before = true;
        me.coordinator = Some(Coordinator::new(Core::new(settings, memory.clone(), now), name, memory, TIMING, now));
        self.note(|| format!("{host} coordinator starts"));
        if self.hosts[host].role == Role::Validator {
            let after = self.random.between(MS, 30 * MS);
            self.own(host, after, Stage::Attach);
            let after = self.random.between(0, PROBE);
            self.own(host, after, Stage::Probe);
        }
        let after = self.random.between(0, GOSSIP);
        self.own(host, after, Stage::Gossip);
        self.plan_tick(host);
    }

    fn settings(&mut self, host: Id) -> Settings {
        Settings {
            me: self.name(host),
            role: self.hosts[host].role,
            priorities: self.names.iter().enumerate().map(|(i, name)| (name.clone(), 100 - 10 * i as u32)).collect(),
            timing: TIMING,
            failback: self.failback,
            clock_skew: Duration::from_millis(10),
            node_refuses: false,
            probe_failures_max: 3,
            min_peers: None,
            head_still_max: Duration::from_secs(10),
            activation_max: Duration::from_secs(2),
            settle_max: None,
        }
    }

    pub fn probe(&mut self, host: Id) {
        let closely = self.hosts[host].coordinator.as_ref().is_some_and(|c| c.closely);
        if self.hosts[host].machine.answers(self.at) {
            let health = self.health(host);
            self.step(host, Event::Probed(health));
        }
        self.own(host, if closely { PROBE_CLOSELY } else { PROBE }, Stage::Probe);
    }

    pub fn gossip(&mut self, host: Id) {
        let now = self.local(host);
        let generation = self.hosts[host].generation;
        let Some(coordinator) = &self.hosts[host].coordinator else { return };
        let record = Peer {
            ready: coordinator.core.not_ready(now).is_none(),
            reachable: true,
            height: coordinator.core.host().height(),
        };
        for other in self.others(host) {
            self.send(host, other, generation, Message::Gossip(record.clone()));
        }
        self.own(host, GOSSIP, Stage::Gossip);
        self.tell_peers(host);
    }

    pub fn tell_peers(&mut self, host: Id) {
        let at = self.at;
        let names = self.names.clone();
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        let peers: BTreeMap<NodeId, Peer> = coordinator
            .heard
            .iter()
            .map(|(id, (heard_at, peer))| {
                (names[*id].clone(), Peer { reachable: at - heard_at < SILENT, ..peer.clone() })
            })
            .collect();
        if peers != coordinator.told_peers {
            coordinator.told_peers.clone_from(&peers);
            self.step(host, Event::Peers(peers));
        }
    }

    /// Applies the next committed entry, to the state and then to the core.
    pub fn apply(&mut self, host: Id) {
        let raft = &mut self.hosts[host].raft;
        if raft.applied >= raft.commit {
            return;
        }
        let index = raft.applied;
        raft.applied += 1;
        let entry = raft.log[index].clone();
        let Some(command) = entry.command else { return };
        if self.without == Without::NoSecondClaim && matches!(command, Command::Claim { .. }) {
            raft.state.last_release = None;
        }
        let outcome = raft.state.apply(entry.term, &command);
        let view = raft.state.view();
        let leads = raft.leads();
        if let (Command::Claim { .. }, Applied::Claimed { .. }) = (&command, &outcome) {
            self.note(|| format!("{host} applies {command}"));
        }
        if let Some(coordinator) = &mut self.hosts[host].coordinator {
            coordinator.pending.retain(|(pending, _)| *pending != index + 1);
        }
        let released = matches!(command, Command::Release { .. });
        let event = Event::Applied { term: entry.term, command, outcome, view };
        if self.without == Without::NoSecondClaim && released && leads {
            // The core is kept from hearing that it released, and takes up the lead as if it were new.
            self.step(host, Event::LeadLost);
            self.step(host, Event::Led { term: entry.term });
            return;
        }
        self.step(host, event);
    }

    pub fn lose_coordinator(&mut self, host: Id) {
        let me = &mut self.hosts[host];
        me.coordinator = None;
        me.generation += 1;
        me.paused = false;
        me.deferred.clear();
    }
}

/// The coordinator that `what` would wake.
fn for_coordinator(what: &What) -> Option<Id> {
    match what {
        What::Deliver { to, .. } => Some(*to),
        What::Own { host, .. } | What::Heard { host, .. } => Some(*host),
        What::Ask { .. } | What::Deadline { .. } | What::Killed { .. } | What::Resume { .. } | What::Fault(_) => None,
        What::Block { .. } | What::Lag { .. } => None,
    }
}
