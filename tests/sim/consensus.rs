//! Raft as `cluster/raft/` calls it: the vote gate before it, the turn between votes and appends, the reports to the
//! core, and the disk that every answer waits for.

use std::time::Duration;

use baton::base::ids::NodeId;
use baton::base::time::BootTime;
use baton::core::Event;
use baton::core::agreed::replicated::Command;
use baton::core::fences::votes::Refusal;

use crate::coordinator::{Request, Stage};
use crate::members::{Change, Members, ids};
use crate::network::Message;
use crate::raft::{Append, Appended, Id};
use crate::tally::Kind;
use crate::world::{MS, Without, World};

const OVERTAKEN_MAX: u64 = 100 * MS;
const PROPOSE_AGAIN: u64 = 20 * MS;

/// Raft, as `cluster/raft/` calls it.
impl World {
    pub fn gate(&mut self, host: Id, candidate: Id) -> bool {
        let (now, name) = (self.local(host), self.name(candidate));
        let granted = self.may_vote(host, now, &name);
        if let Some(coordinator) = self.hosts[host].coordinator.as_mut().filter(|_| granted) {
            coordinator.witness.vote_granted(now, &name);
        }
        granted
    }

    fn may_vote(&self, host: Id, now: BootTime, name: &NodeId) -> bool {
        let Some(coordinator) = &self.hosts[host].coordinator else { return false };
        match (self.without, coordinator.core.may_vote(now, name)) {
            (_, Ok(())) => true,
            (Without::Promise, Err(Refusal::Promised { .. })) => true,
            (Without::NodeProof, Err(Refusal::NodeNotProven)) => coordinator.shadow.check(now, name, true).is_ok(),
            (Without::ReleaseOfTheTerm, Err(Refusal::Promised { .. } | Refusal::Quarantine { .. })) => {
                self.hosts[host].raft.ends_released()
            }
            (_, Err(_)) => false,
        }
    }

    pub fn vote_of(&self, host: Id) -> (u64, Option<Id>) {
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
            self.sign_proposals_fail(host);
        }
        if now_leads && !led_before {
            let term = self.hosts[host].raft.term;
            self.note(|| format!("{host} leads term {term}"));
            self.own(host, 0, Stage::Heartbeat { term });
            self.write_as_leader(host);
            self.replicate_to_all(host);
        }
        let after = self.moment();
        self.own(host, after, Stage::Metrics);
        if self.has_to_apply(host) {
            let after = self.moment();
            self.own(host, after, Stage::Apply);
        }
    }

    fn replicate_to_all(&mut self, host: Id) {
        for to in self.followers(host) {
            self.replicate(host, to);
        }
    }

    pub fn replicate(&mut self, host: Id, to: Id) {
        let Some(append) = self.hosts[host].raft.replicate(to) else { return };
        if self.keeps_entries(host, to) {
            return;
        }
        let snapshot = self.is_purged(host, &append);
        if !snapshot {
            self.send_append(host, to, append, false);
        } else if let Some(append) = self.snapshot_for(host, to) {
            self.send_append(host, to, append, true);
        }
    }

    pub fn send_append(&mut self, host: Id, to: Id, append: Append, snapshot: bool) {
        if self.is_kept_back(host, append.term) {
            return;
        }
        let (sent_at, lease) = (self.local(host), self.hosts[host].timing.span());
        let generation = self.hosts[host].generation;
        // A snapshot takes a way of its own.
        if !snapshot {
            self.owe(host, to, sent_at);
        }
        self.send(host, to, generation, Message::Append { append, snapshot, sent_at, lease });
    }

    pub fn report_lead(&mut self, host: Id) {
        let Some(coordinator) = &self.hosts[host].coordinator else { return };
        let (term, leads) = coordinator.metrics;
        self.step(host, if leads { Event::Led { term } } else { Event::LeadLost });
    }

    pub fn metrics(&mut self, host: Id) {
        let seen = (self.hosts[host].raft.term, self.hosts[host].raft.leads());
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        coordinator.metrics = seen;
        if coordinator.told != Some(seen) {
            coordinator.told = Some(seen);
            self.step(host, Event::Voted { term: seen.0 });
            self.report_lead(host);
        }
        let members = self.hosts[host].raft.members;
        let Some(coordinator) = &self.hosts[host].coordinator else { return };
        let deaf = self.without == Without::Voters && self.hosts[host].raft.leads();
        let keeps_it = deaf && coordinator.told_voters.is_some();
        if coordinator.told_voters != Some(members) && !keeps_it {
            let after = self.moment();
            self.own(host, after, Stage::TellVoters);
        }
    }

    /// Acknowledgements may come in between: who votes now is told last.
    pub fn tell_voters(&mut self, host: Id) {
        let members = self.hosts[host].raft.members;
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        if coordinator.told_voters.replace(members) != Some(members) {
            let sets = members.sets().map(|set| ids(set).map(|id| self.name(id)).collect());
            let sets = sets.collect();
            self.step(host, Event::Voters(sets));
        }
    }

    /// Whom a leader sends its log.
    fn followers(&self, host: Id) -> impl Iterator<Item = Id> + use<> {
        let members = self.hosts[host].raft.members;
        self.others(host).filter(move |other| members.contains(*other))
    }

    pub fn voters_but(&self, host: Id) -> impl Iterator<Item = Id> + use<> {
        let members = self.hosts[host].raft.members;
        self.others(host).filter(move |other| members.is_voter(*other))
    }

    fn write_as_leader(&mut self, host: Id) {
        let raft = &self.hosts[host].raft;
        let (term, upto) = (raft.term, raft.log.len());
        self.write(host, Some(Stage::Written { term, upto }));
    }

    pub fn written(&mut self, host: Id, term: u64, upto: usize) {
        let led = self.hosts[host].raft.leads();
        if self.hosts[host].raft.written(term, upto) {
            self.raft_changed(host, led);
            self.replicate_to_all(host);
        }
    }

    pub fn deliver(&mut self, from: Id, host: Id, peer: u32, message: Message) {
        let generation = self.hosts[host].generation;
        match &message {
            Message::Appended { sent_at, .. } if peer == generation => self.heard(host, from, Some(*sent_at)),
            Message::PreVoted { .. } | Message::Voted { .. } if peer == generation => self.heard(host, from, None),
            Message::PreVote(_) | Message::Vote(_) if self.has_lease(host) => self.heard(host, from, None),
            Message::PreVote(_) | Message::Vote(_) => {}
            Message::Appended { .. } | Message::PreVoted { .. } | Message::Voted { .. } => {}
            Message::Append { .. } | Message::Transfer { .. } | Message::Gossip(_) => {}
        }
        match message {
            Message::Append { append, snapshot, sent_at, lease } => {
                let arrived_at = self.local(host);
                self.enter(host, Request::Append { from, peer, append, snapshot, sent_at, lease, arrived_at });
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
            Message::Appended { sent_at, answer, .. } if !self.is_awaited(host, sent_at, answer) => {
                self.tally.note(Kind::LateAnswer);
                self.count_late(host, from, message);
            }
            Message::PreVoted { round, .. } if !self.are_votes_awaited(host, round, true) => {
                self.tally.note(Kind::LateVote);
            }
            Message::Voted { round, .. } if !self.are_votes_awaited(host, round, false) => {
                self.tally.note(Kind::LateVote);
            }
            Message::Appended { term, sent_at, answer, promised } => {
                if let Some(promised) = promised {
                    let (from, promised) = (self.name(from), Some(self.counted(host, promised)));
                    self.step(host, Event::Acked { from, term, sent_at, promised });
                }
                let led = self.hosts[host].raft.leads();
                let moved = self.hosts[host].raft.on_append_answer(from, term, answer);
                self.raft_changed(host, led);
                self.write(host, None);
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
                    self.write(host, None);
                }
            }
            Message::Voted { round, granted, vote } => {
                let led = self.hosts[host].raft.leads();
                if !granted {
                    self.step(host, Event::VoteDenied { by: self.name(from), term: round });
                }
                self.hosts[host].raft.on_vote_answer(from, round, granted, vote);
                self.raft_changed(host, led);
                self.write(host, None);
            }
        }
    }

    /// The turn: appends together, a vote alone, in the order of their arrival.
    pub fn enter(&mut self, host: Id, request: Request) {
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

    pub fn leave_turn(&mut self, host: Id, vote: bool) {
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

    /// Raft takes the request; the answer waits for the disk.
    pub fn considers(&mut self, host: Id, request: Request) {
        let led = self.hosts[host].raft.leads();
        match request {
            Request::Append { from, ref append, snapshot, .. } => {
                let committed = self.hosts[host].raft.commit;
                let appended = self.hosts[host].raft.on_append(from, append);
                let installs = snapshot && self.hosts[host].raft.commit > committed;
                self.hosts[host].installing += u32::from(installs);
                self.raft_changed(host, led);
                if installs {
                    self.write(host, None);
                    self.install(host, request, appended);
                } else {
                    self.write(host, Some(Stage::Answers { request, appended }));
                }
            }
            Request::Vote { from, peer, ballot } => {
                let granted = self.hosts[host].raft.on_vote(from, &ballot);
                self.raft_changed(host, led);
                let vote = self.vote_of(host);
                self.write(host, Some(Stage::Considered { from, peer, ballot, granted, vote }));
            }
        }
    }

    pub fn answers(&mut self, host: Id, request: Request, appended: Appended) {
        match appended {
            Appended::HigherVote(..) => self.answer(host, request, appended, None),
            Appended::Matched(_) | Appended::Alive | Appended::Conflict => self.promise(host, request, appended),
        }
    }

    pub fn answer(&mut self, host: Id, request: Request, appended: Appended, promised: Option<Duration>) {
        let Request::Append { from, peer, append, snapshot, sent_at, .. } = request else { return };
        // Of what a snapshot holds, the core hears by itself.
        if matches!(appended, Appended::Matched(_)) && !snapshot {
            let released = |entry: &&crate::raft::Entry| entry.command().is_some_and(Command::is_release);
            for entry in append.entries.iter().filter(released) {
                self.step(host, Event::ReleaseLogged { term: entry.term });
            }
        }
        self.send(host, from, peer, Message::Appended { term: append.term, sent_at, answer: appended, promised });
        self.leave_turn(host, false);
    }

    pub fn elect(&mut self, host: Id, transfer: bool) {
        let led = self.hosts[host].raft.leads();
        if let Some(ballot) = self.hosts[host].raft.elect(transfer) {
            self.raft_changed(host, led);
            self.write(host, Some(Stage::AskVotes(ballot)));
        }
    }

    pub fn campaign(&mut self, host: Id) {
        if self.hosts[host].disk.is_voting() && self.without != Without::LongVotes {
            return;
        }
        if !self.pre_vote && self.at < self.faults_end {
            return self.elect(host, false);
        }
        let generation = self.hosts[host].generation;
        if let Some(ballot) = self.hosts[host].raft.pre_elect() {
            if let Some(coordinator) = &mut self.hosts[host].coordinator {
                coordinator.asked_pre_votes = (ballot.term, self.at);
            }
            for to in self.voters_but(host) {
                self.send(host, to, generation, Message::PreVote(ballot.clone()));
            }
        }
    }

    pub fn transfer(&mut self, host: Id, to: Id) {
        let generation = self.hosts[host].generation;
        let (vote, last) = (self.vote_of(host), self.hosts[host].raft.last());
        let Some(leading) = self.hosts[host].raft.leading() else { return };
        leading.transfer_to = Some(to);
        for other in self.followers(host) {
            self.send(host, other, generation, Message::Transfer { to, vote, last });
        }
    }

    pub fn propose(&mut self, host: Id, command: Command) {
        let term = self.hosts[host].raft.term;
        match self.hosts[host].raft.propose(command) {
            Some(index) => {
                if let Some(coordinator) = &mut self.hosts[host].coordinator {
                    coordinator.pending.push((index, term));
                }
                self.write_as_leader(host);
                self.replicate_to_all(host);
            }
            None => self.own(host, PROPOSE_AGAIN, Stage::ProposalFailed),
        }
    }

    /// On behalf of an operator: the core hears of it only when it is applied.
    pub fn propose_order(&mut self, leader: Id, command: Command) {
        if self.hosts[leader].raft.propose(command).is_some() {
            self.write_as_leader(leader);
            self.replicate_to_all(leader);
        }
    }

    /// On behalf of an operator; whether Raft takes it up. Joint consensus has two steps: this member makes the second
    /// one too, if it still leads then.
    pub fn propose_change(&mut self, leader: Id, change: Change) -> bool {
        let Some(index) = self.hosts[leader].raft.change(change) else { return false };
        self.note(|| format!("{leader} proposes {change:?}"));
        if let Some(coordinator) = &mut self.hosts[leader].coordinator {
            coordinator.changes = Some(index);
        }
        self.raft_changed(leader, true);
        self.write_as_leader(leader);
        self.replicate_to_all(leader);
        true
    }

    /// The entry at `index`, which changed the membership, is committed.
    pub fn changed(&mut self, host: Id, index: usize, members: Members) {
        self.note(|| format!("{host} applies {members:?}"));
        let begun_here = self.hosts[host].coordinator.as_mut().and_then(|c| c.changes.take_if(|at| *at == index));
        if begun_here.is_some() && members.leaving.is_some() {
            self.propose_change(host, Change::Settle);
        }
    }

    pub fn heartbeat(&mut self, host: Id, term: u64) {
        if self.hosts[host].raft.term != term {
            return;
        }
        let last = self.hosts[host].raft.log.len();
        let Some(leading) = self.hosts[host].raft.leading() else { return };
        let behind: Vec<bool> = leading.matched.iter().map(|matched| *matched < last).collect();
        for to in self.followers(host) {
            if let Some(append) = self.heartbeat_of(host, term) {
                self.send_heartbeat(host, to, append);
            }
            if behind[to] {
                let after = self.moment();
                self.own(host, after, Stage::Replicate { to });
            }
        }
        self.own(host, self.hosts[host].timing.heartbeat().as_nanos() as u64, Stage::Heartbeat { term });
    }

    /// What the leader of `term` says, unless it is giving up the lead.
    pub fn heartbeat_of(&mut self, host: Id, term: u64) -> Option<Append> {
        let raft = &mut self.hosts[host].raft;
        let commit = raft.commit;
        let says = raft.term == term && raft.leading()?.transfer_to.is_none();
        says.then(|| Append { term, prev: None, entries: Vec::new(), commit })
    }
}
