//! What surrounds a core in its coordinator, in the manner of `consensus/` and `driver/`: the vote gate before
//! Raft, the turn between votes and appends, the reports. Every `await` of the real one is a stage of its own here,
//! so that pauses and other events fall in between.

use std::collections::{BTreeMap, VecDeque};

use baton::core::replicated::Command;
use baton::core::votes::{Refusal, VoteGate};
use baton::core::{Core, Event, Memory, Peer};
use baton::guard_frame::Armed;
use baton::ids::NodeId;
use baton::time::{BootTime, Now};
use baton::timing::Timing;

use crate::raft::{Append, Appended, Ballot, Id};
use crate::worker::{Doing, Job};
use crate::world::{MS, Message, TIMING, Without, World};

const OVERTAKEN_MAX: u64 = 100 * MS;
const PROPOSE_AGAIN: u64 = 20 * MS;

#[derive(Clone, Debug)]
pub enum Request {
    Append { from: Id, peer: u32, append: Append, sent_at: BootTime, arrived_at: BootTime },
    Vote { from: Id, peer: u32, ballot: Ballot },
}

#[derive(Clone, Debug)]
pub enum Stage {
    Tick(u64),
    Heartbeat { term: u64 },
    Probe,
    Gossip,
    Attach,
    Campaign,
    AskVotes(Ballot),
    Transfer { to: Id },
    Propose(Command),
    ProposalFailed,
    Replicate { to: Id },
    Apply,
    Metrics,
    AwaitRelease { from: Id, peer: u32, ballot: Ballot, until: u64 },
    AwaitTransfer { from: Id, vote: (u64, Option<Id>), last: (u64, usize), until: u64 },
    Elect { vote: (u64, Option<Id>), last: (u64, usize) },
    Considers(Request),
    Answers { request: Request, appended: Appended },
    Considered { from: Id, peer: u32, ballot: Ballot, granted: bool, vote: (u64, Option<Id>) },
    Worker(u64),
    Finish { stop_node: bool },
}

pub struct Coordinator {
    pub core: Core,
    /// Follows the same events as the core's own gate, for the mutations that drop one rule of it.
    shadow: VoteGate,
    me: NodeId,
    readers: u32,
    writer: bool,
    queue: VecDeque<Request>,
    told: Option<(u64, bool)>,
    metrics: (u64, bool),
    /// Index and term of what was proposed and is not applied.
    pub pending: Vec<(usize, u64)>,
    pub jobs: VecDeque<Job>,
    pub doing: Option<Doing>,
    pub work_id: u64,
    pub let_go: u64,
    pub done: u64,
    pub armed: Option<Armed>,
    pub node_seen: Option<u32>,
    /// The node is proven gone as far as the guard told.
    pub gone: bool,
    pub closely: bool,
    pub tick: u64,
    pub heard: BTreeMap<Id, (u64, Peer)>,
    pub told_peers: BTreeMap<NodeId, Peer>,
}

impl Coordinator {
    pub fn new(core: Core, me: NodeId, memory: Memory, timing: Timing, now: BootTime) -> Coordinator {
        Coordinator {
            core,
            shadow: VoteGate::new(timing.promise(), now, memory.fresh, memory.vote_term, memory.released_term),
            me,
            readers: 0,
            writer: false,
            queue: VecDeque::new(),
            told: None,
            metrics: (0, false),
            pending: Vec::new(),
            jobs: VecDeque::new(),
            doing: None,
            work_id: 0,
            let_go: 0,
            done: 0,
            armed: None,
            node_seen: None,
            gone: false,
            closely: false,
            tick: 0,
            heard: BTreeMap::new(),
            told_peers: BTreeMap::new(),
        }
    }

    pub fn before_step(&mut self, event: &Event) {
        match event {
            Event::Accepted { leader, term, arrived_at } => self.shadow.note_accepted(leader, *term, *arrived_at),
            Event::ReleaseLogged { term } => self.shadow.note_release(*term),
            Event::Voted { term } | Event::Considered { term } | Event::Led { term } => self.shadow.note_vote(*term),
            Event::Applied { term, command: Command::Release { .. }, .. } => self.shadow.note_release(*term),
            _ => {}
        }
    }

    pub fn after_step(&mut self, now: Now) {
        if let Some(left) = self.core.lease_remaining(now.boot) {
            let acked_at = now.boot + left - (TIMING.lease_min() - TIMING.kill_max());
            self.shadow.note_own_lease(&self.me, acked_at);
        }
    }
}

/// Raft, as `consensus/` calls it.
impl World {
    fn gate(&self, host: Id, candidate: Id) -> bool {
        let now = self.local(host);
        let Some(coordinator) = &self.hosts[host].coordinator else { return false };
        let name = self.name(candidate);
        match (self.without, coordinator.core.may_vote(now, &name)) {
            (_, Ok(())) => true,
            (Without::Promise, Err(Refusal::Promised { .. })) => true,
            (Without::NodeProof, Err(Refusal::NodeNotProven)) => coordinator.shadow.check(now, &name, true).is_ok(),
            (Without::ReleaseOfTheTerm, Err(Refusal::Promised { .. } | Refusal::Quarantine { .. })) => {
                self.hosts[host].raft.ends_released()
            }
            (_, Err(_)) => false,
        }
    }

    fn vote_of(&self, host: Id) -> (u64, Option<Id>) {
        (self.hosts[host].raft.term, self.hosts[host].raft.voted_for)
    }

    /// After anything that may have changed term or role.
    fn raft_changed(&mut self, host: Id, led_before: bool) {
        let now_leads = self.hosts[host].raft.leads();
        if led_before && !now_leads {
            let failed = self.hosts[host].coordinator.as_mut().map_or(0, |c| std::mem::take(&mut c.pending).len());
            for _ in 0..failed {
                let after = PROPOSE_AGAIN + self.moment();
                self.own(host, after, Stage::ProposalFailed);
            }
        }
        if now_leads && !led_before {
            let term = self.hosts[host].raft.term;
            self.note(|| format!("{host} leads term {term}"));
            self.own(host, 0, Stage::Heartbeat { term });
            self.replicate_to_all(host);
        }
        let after = self.moment();
        self.own(host, after, Stage::Metrics);
        if self.hosts[host].raft.applied < self.hosts[host].raft.commit {
            let after = self.moment();
            self.own(host, after, Stage::Apply);
        }
    }

    fn replicate_to_all(&mut self, host: Id) {
        for to in self.others(host) {
            self.replicate(host, to);
        }
    }

    fn replicate(&mut self, host: Id, to: Id) {
        let sent_at = self.local(host);
        let generation = self.hosts[host].generation;
        if let Some(append) = self.hosts[host].raft.replicate(to) {
            self.send(host, to, generation, Message::Append { append, sent_at });
        }
    }

    pub fn report_lead(&mut self, host: Id) {
        let Some(coordinator) = &self.hosts[host].coordinator else { return };
        let (term, leads) = coordinator.metrics;
        self.step(host, if leads { Event::Led { term } } else { Event::LeadLost });
    }

    fn metrics(&mut self, host: Id) {
        let seen = (self.hosts[host].raft.term, self.hosts[host].raft.leads());
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        coordinator.metrics = seen;
        if coordinator.told != Some(seen) {
            coordinator.told = Some(seen);
            self.step(host, Event::Voted { term: seen.0 });
            self.report_lead(host);
        }
    }

    pub fn deliver(&mut self, from: Id, host: Id, peer: u32, message: Message) {
        let generation = self.hosts[host].generation;
        match message {
            Message::Append { append, sent_at } => {
                let arrived_at = self.local(host);
                self.enter(host, Request::Append { from, peer, append, sent_at, arrived_at });
            }
            Message::Vote(ballot) if ballot.transfer => {
                let until = self.at + OVERTAKEN_MAX;
                self.proceed(host, Stage::AwaitRelease { from, peer, ballot, until });
            }
            Message::Vote(ballot) => self.enter(host, Request::Vote { from, peer, ballot }),
            Message::PreVote(ballot) => {
                let granted = self.gate(host, from) && self.hosts[host].raft.on_pre_vote(from, &ballot);
                let vote = self.vote_of(host);
                self.send(host, from, peer, Message::PreVoted { round: ballot.term, granted, vote });
            }
            Message::Transfer { to, vote, last } => {
                if to == host {
                    let until = self.at + OVERTAKEN_MAX;
                    self.proceed(host, Stage::AwaitTransfer { from, vote, last, until });
                }
            }
            Message::Gossip(peer) => {
                let at = self.at;
                if let Some(coordinator) = &mut self.hosts[host].coordinator {
                    coordinator.heard.insert(from, (at, peer));
                }
                self.tell_peers(host);
            }
            // Answers; those to an earlier run of this coordinator find nobody.
            _ if peer != generation => {}
            Message::Appended { term, sent_at, answer } => {
                if !matches!(answer, Appended::HigherVote(..)) {
                    let from = self.name(from);
                    self.step(host, Event::Acked { from, term, sent_at });
                }
                let led = self.hosts[host].raft.leads();
                let moved = self.hosts[host].raft.on_append_answer(from, term, answer);
                self.raft_changed(host, led);
                if moved {
                    self.replicate_to_all(host);
                } else if matches!(answer, Appended::Conflict) {
                    self.replicate(host, from);
                }
            }
            Message::PreVoted { round, granted, vote } => {
                let led = self.hosts[host].raft.leads();
                if self.hosts[host].raft.on_pre_vote_answer(from, round, granted, vote) {
                    self.elect(host, false);
                } else {
                    self.raft_changed(host, led);
                }
            }
            Message::Voted { round, granted, vote } => {
                let led = self.hosts[host].raft.leads();
                self.hosts[host].raft.on_vote_answer(from, round, granted, vote);
                self.raft_changed(host, led);
            }
        }
    }

    /// The turn: appends together, a vote alone, in the order of their arrival.
    fn enter(&mut self, host: Id, request: Request) {
        if let Some(coordinator) = &mut self.hosts[host].coordinator {
            coordinator.queue.push_back(request);
        }
        self.take_turns(host);
    }

    fn take_turns(&mut self, host: Id) {
        loop {
            let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
            let vote = match coordinator.queue.front() {
                None => return,
                Some(Request::Append { .. }) => false,
                Some(Request::Vote { .. }) => true,
            };
            if coordinator.writer || vote && coordinator.readers > 0 {
                return;
            }
            let Some(request) = coordinator.queue.pop_front() else { return };
            match &request {
                Request::Append { .. } => coordinator.readers += 1,
                Request::Vote { .. } => coordinator.writer = true,
            }
            self.begin(host, request);
        }
    }

    fn leave_turn(&mut self, host: Id, vote: bool) {
        if let Some(coordinator) = &mut self.hosts[host].coordinator {
            if vote {
                coordinator.writer = false;
            } else {
                coordinator.readers -= 1;
            }
        }
        self.take_turns(host);
    }

    fn begin(&mut self, host: Id, request: Request) {
        if let Request::Vote { from, peer, ballot } = &request {
            if !self.gate(host, *from) {
                let vote = self.vote_of(host);
                self.note(|| format!("{host} refuses {from} the vote in {}", ballot.term));
                self.send(host, *from, *peer, Message::Voted { round: ballot.term, granted: false, vote });
                // The queue is served by whoever called.
                if let Some(coordinator) = &mut self.hosts[host].coordinator {
                    coordinator.writer = false;
                }
                return;
            }
            self.step(host, Event::Voting { term: ballot.term });
        }
        let after = self.moment();
        self.own(host, after, Stage::Considers(request));
    }

    /// Raft takes the request, and has it on disk.
    fn considers(&mut self, host: Id, request: Request) {
        let led = self.hosts[host].raft.leads();
        match request {
            Request::Append { from, ref append, .. } => {
                let appended = self.hosts[host].raft.on_append(from, append);
                self.raft_changed(host, led);
                let after = self.moment();
                self.own(host, after, Stage::Answers { request, appended });
            }
            Request::Vote { from, peer, ballot } => {
                let granted = self.hosts[host].raft.on_vote(from, &ballot);
                self.raft_changed(host, led);
                let vote = self.vote_of(host);
                let after = self.moment();
                self.own(host, after, Stage::Considered { from, peer, ballot, granted, vote });
            }
        }
    }

    fn answers(&mut self, host: Id, request: Request, appended: Appended) {
        let Request::Append { from, peer, append, sent_at, arrived_at } = request else { return };
        if !matches!(appended, Appended::HigherVote(..)) {
            let leader = self.name(from);
            self.step(host, Event::Accepted { leader, term: append.term, arrived_at });
        }
        if matches!(appended, Appended::Matched(_)) {
            let released = |entry: &&crate::raft::Entry| matches!(entry.command, Some(Command::Release { .. }));
            for entry in append.entries.iter().filter(released) {
                self.step(host, Event::ReleaseLogged { term: entry.term });
            }
        }
        self.send(host, from, peer, Message::Appended { term: append.term, sent_at, answer: appended });
        self.leave_turn(host, false);
    }

    fn elect(&mut self, host: Id, transfer: bool) {
        let led = self.hosts[host].raft.leads();
        if let Some(ballot) = self.hosts[host].raft.elect(transfer) {
            self.raft_changed(host, led);
            let after = self.moment();
            self.own(host, after, Stage::AskVotes(ballot));
        }
    }

    fn campaign(&mut self, host: Id) {
        if !self.pre_vote {
            return self.elect(host, false);
        }
        let generation = self.hosts[host].generation;
        if let Some(ballot) = self.hosts[host].raft.pre_elect() {
            for to in self.others(host) {
                self.send(host, to, generation, Message::PreVote(ballot.clone()));
            }
        }
    }

    fn transfer(&mut self, host: Id, to: Id) {
        let generation = self.hosts[host].generation;
        let (vote, last) = (self.vote_of(host), self.hosts[host].raft.last());
        let Some(leading) = self.hosts[host].raft.leading() else { return };
        leading.transfer_to = Some(to);
        for other in self.others(host) {
            self.send(host, other, generation, Message::Transfer { to, vote, last });
        }
    }

    fn propose(&mut self, host: Id, command: Command) {
        let term = self.hosts[host].raft.term;
        match self.hosts[host].raft.propose(command) {
            Some(index) => {
                if let Some(coordinator) = &mut self.hosts[host].coordinator {
                    coordinator.pending.push((index, term));
                }
                self.replicate_to_all(host);
            }
            None => self.own(host, PROPOSE_AGAIN, Stage::ProposalFailed),
        }
    }

    /// On behalf of an operator: the core hears of it only when it is applied.
    pub fn propose_order(&mut self, leader: Id, command: Command) {
        self.hosts[leader].raft.propose(command);
        self.replicate_to_all(leader);
    }

    pub fn proceed(&mut self, host: Id, stage: Stage) {
        match stage {
            Stage::Tick(tick) => {
                if self.hosts[host].coordinator.as_ref().is_some_and(|c| c.tick == tick) {
                    self.step(host, Event::Tick);
                }
            }
            Stage::Heartbeat { term } => self.heartbeat(host, term),
            Stage::Probe => self.probe(host),
            Stage::Gossip => self.gossip(host),
            Stage::Attach => self.attach(host),
            Stage::Campaign => self.campaign(host),
            Stage::AskVotes(ballot) => {
                let generation = self.hosts[host].generation;
                self.step(host, Event::Voted { term: ballot.term });
                for to in self.others(host) {
                    self.send(host, to, generation, Message::Vote(ballot.clone()));
                }
            }
            Stage::Transfer { to } => self.transfer(host, to),
            Stage::Propose(command) => self.propose(host, command),
            Stage::ProposalFailed => self.step(host, Event::ProposalFailed { reason: "not committed".into() }),
            Stage::Replicate { to } => self.replicate(host, to),
            Stage::Apply => {
                self.apply(host);
                if self.hosts[host].raft.applied < self.hosts[host].raft.commit {
                    let after = self.random.between(0, MS);
                    self.own(host, after, Stage::Apply);
                }
            }
            Stage::Metrics => self.metrics(host),
            Stage::AwaitRelease { from, peer, ballot, until } => {
                if self.gate(host, from) || self.at >= until {
                    self.enter(host, Request::Vote { from, peer, ballot });
                } else {
                    self.own(host, 4 * MS, Stage::AwaitRelease { from, peer, ballot, until });
                }
            }
            Stage::AwaitTransfer { from, vote, last, until } => {
                if self.gate(host, host) {
                    let after = self.moment();
                    self.own(host, after, Stage::Elect { vote, last });
                } else if self.at < until {
                    self.own(host, 4 * MS, Stage::AwaitTransfer { from, vote, last, until });
                }
            }
            Stage::Elect { vote, last } => {
                if self.vote_of(host) == vote && self.hosts[host].raft.last() >= last {
                    self.elect(host, true);
                }
            }
            Stage::Considers(request) => self.considers(host, request),
            Stage::Answers { request, appended } => self.answers(host, request, appended),
            Stage::Considered { from, peer, ballot, granted, vote } => {
                self.step(host, Event::Considered { term: vote.0 });
                self.report_lead(host);
                self.send(host, from, peer, Message::Voted { round: ballot.term, granted, vote });
                self.leave_turn(host, true);
            }
            Stage::Worker(id) => self.worker_wakes(host, id),
            Stage::Finish { stop_node } => {
                self.note(|| format!("{host} coordinator ends"));
                if stop_node {
                    self.hosts[host].machine.crash();
                    self.hosts[host].machine.links = false;
                }
                self.lose_coordinator(host);
            }
        }
    }

    fn heartbeat(&mut self, host: Id, term: u64) {
        let (sent_at, generation) = (self.local(host), self.hosts[host].generation);
        if self.hosts[host].raft.term != term {
            return;
        }
        let commit = self.hosts[host].raft.commit;
        let last = self.hosts[host].raft.log.len();
        let Some(leading) = self.hosts[host].raft.leading() else { return };
        let quiet = leading.transfer_to.is_some();
        let behind: Vec<bool> = leading.matched.iter().map(|matched| *matched < last).collect();
        for to in self.others(host) {
            if !quiet {
                let append = Append { term, prev: None, entries: Vec::new(), commit };
                self.send(host, to, generation, Message::Append { append, sent_at });
            }
            if behind[to] {
                let after = self.moment();
                self.own(host, after, Stage::Replicate { to });
            }
        }
        self.own(host, TIMING.heartbeat().as_nanos() as u64, Stage::Heartbeat { term });
    }
}
