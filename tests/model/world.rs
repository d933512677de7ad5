//! The model that is explored: three members, a network, clocks that run apart. A state is what the members and the
//! network hold; an action is one thing that may happen next. Bounds are part of the state or of the rules, so that
//! what is within them is explored to the end, in whatever order.
//!
//! Time passes in ticks. A request that is neither late nor lost is answered within the tick; a late one, or a late
//! answer, stays in the network for as long as it likes and may be delivered twice.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use stateright::{Model, Property};

use crate::host::{Host, NAMES, Wants};
use crate::members::Change;
use crate::raft::{Append, Appended, Ballot, Id};
use crate::rules::Rules;
use crate::table::{Answer, Known, Op, Table};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    Vote(Ballot),
    Voted {
        round: u64,
        granted: bool,
        vote: (u64, Option<Id>),
    },
    Append(Arc<Append>),
    Appended {
        term: u64,
        answer: Appended,
    },
    /// No message yet: what its receiver has accepted, and has still to report and to answer.
    Accepted {
        term: u64,
        answer: Appended,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Late {
    from: Id,
    to: Id,
    message: Message,
    /// How long ago, by the leader's clock, the request left to which this is an answer or which it is.
    sent: u64,
    /// How long ago, by the receiver's clock, a request can have arrived that is processed only now.
    arrived: u64,
}

/// What becomes of a request, or of the answer to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Answered,
    AnswerLost,
    AnswerLate,
    Late,
    /// The receiver itself is late with its report.
    ReportLate,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Tick,
    Heartbeat { from: Id, to: Id, fate: Fate },
    Replicate { from: Id, to: Id, fate: Fate },
    Campaign(Id),
    AskVote { from: Id, to: Id, fate: Fate },
    Consider { host: Id, fate: Fate },
    Deliver { late: usize, again: bool },
    NoticeLoss(Id),
    Wake(Id),
    Work(Id),
    Kill(Id),
    Handover(Id),
    Upgrade { host: Id, fails: bool },
    Change { leader: Id, change: Change },
    Restart(Id),
    LosePower(Id),
}

#[derive(Clone, Debug)]
pub struct State {
    pub hosts: [Arc<Known>; 3],
    late: Vec<Late>,
    restarts: u8,
    /// No part of the state, see [`Wants`].
    pub wants: [Wants; 3],
}

impl Hash for State {
    fn hash<H: Hasher>(&self, out: &mut H) {
        for host in &self.hosts {
            host.id.hash(out);
        }
        (self.restarts, &self.late).hash(out);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        let ids = |state: &State| [0, 1, 2].map(|me| state.hosts[me].id);
        (ids(self), self.restarts, &self.late) == (ids(other), other.restarts, &other.late)
    }
}

pub fn others(me: Id) -> impl Iterator<Item = Id> {
    (0..NAMES.len()).filter(move |other| *other != me)
}

impl State {
    pub fn host(&self, host: Id) -> &Host {
        &self.hosts[host].host
    }

    pub fn drop_late(&mut self) {
        self.late.clear();
    }

    /// It considers no vote, and does not campaign, before it has reported what it has accepted.
    pub fn has_to_report(&self, host: Id) -> bool {
        let reports = |late: &Late| late.to == host && matches!(late.message, Message::Accepted { .. });
        self.late.iter().any(reports)
    }

    pub fn signers(&self) -> usize {
        self.hosts.iter().filter(|known| known.may_sign).count()
    }
}

pub struct Cluster {
    pub rules: Rules,
    pub table: Table,
    pub init: Vec<State>,
    pub properties: fn() -> Vec<Property<Cluster>>,
}

/// What the hosts and the network do.
impl Cluster {
    pub fn new(rules: Rules) -> Cluster {
        Cluster { rules, table: Table::default(), init: Vec::new(), properties: Vec::new }
    }

    /// Three members that have just been started for the first time.
    pub fn fresh(&self) -> State {
        let hosts = [0, 1, 2].map(|me| self.table.know(&self.rules, Host::new(me, &self.rules)));
        State { hosts, late: Vec::new(), restarts: 0, wants: Default::default() }
    }

    pub fn own(&self, state: &mut State, host: Id, op: Op) -> Answer {
        let done = self.table.after(&self.rules, &state.hosts[host], op);
        state.hosts[host] = done.after;
        let wants = &mut state.wants[host];
        *wants = Wants { lead: wants.lead || done.wants.lead, to_offer: done.wants.to_offer.or(wants.to_offer) };
        done.answer
    }

    pub fn tick(&self, state: &mut State) {
        for me in 0..NAMES.len() {
            self.own(state, me, Op::Tick);
        }
        let forgotten = self.rules.forgotten();
        for late in &mut state.late {
            let older = |age: u64, host: Id| (age + self.rules.rates[host]).min(forgotten);
            match late.message {
                Message::Append(_) | Message::Accepted { .. } => {
                    (late.sent, late.arrived) = (older(late.sent, late.from), older(late.arrived, late.to));
                }
                Message::Appended { .. } => late.sent = older(late.sent, late.to),
                Message::Vote(_) | Message::Voted { .. } => {}
            }
        }
    }

    /// A request without entries, or with all that `to` lacks.
    /// One that was answered is followed by another which tells what has been committed by that.
    pub fn append(&self, state: &mut State, from: Id, to: Id, entries: bool, fate: Fate) {
        let logged = state.host(from).raft.log.len();
        self.append_once(state, from, to, entries, fate);
        let (leader, follower) = (&state.host(from).raft, &state.host(to).raft);
        let lags = leader.log.len() == logged && follower.log.len() == logged && follower.commit < leader.commit;
        if entries && fate == Fate::Answered && lags {
            self.append_once(state, from, to, entries, fate);
        }
    }

    fn append_once(&self, state: &mut State, from: Id, to: Id, entries: bool, fate: Fate) {
        let (term, commit) = (state.host(from).raft.term, state.host(from).raft.commit);
        while state.host(from).raft.leads() && state.host(from).raft.members.contains(to) {
            let append = if entries {
                let Answer::Append(append) = self.own(state, from, Op::Replicate { to }) else { unreachable!() };
                append
            } else {
                Arc::new(Append { term, prev: None, entries: Vec::new(), commit })
            };
            if fate == Fate::Late {
                return delay(state, Late { from, to, message: Message::Append(append), sent: 0, arrived: 0 });
            }
            if fate == Fate::ReportLate {
                if let Answer::Appended(answer) = self.own(state, to, Op::BeginAppend { from, append }) {
                    let message = Message::Accepted { term, answer };
                    delay(state, Late { from, to, message, sent: 0, arrived: 0 });
                }
                return;
            }
            let Answer::Appended(answer) = self.own(state, to, Op::OnAppend { from, append, age: 0 }) else {
                unreachable!()
            };
            let appended = Message::Appended { term, answer };
            self.send(state, Late { from: to, to: from, message: appended, sent: 0, arrived: 0 }, fate);
            if answer != Appended::Conflict || fate != Fate::Answered {
                return;
            }
        }
    }

    pub fn ask_vote(&self, state: &mut State, from: Id, to: Id, fate: Fate) {
        let Some(ballot) = state.host(from).ballot().filter(|_| state.host(from).raft.members.is_voter(to)) else {
            return;
        };
        if state.has_to_report(to) {
            return;
        }
        if fate == Fate::Late {
            return delay(state, Late { from, to, message: Message::Vote(ballot), sent: 0, arrived: 0 });
        }
        let answer = self.own(state, to, Op::OnVote { from, ballot });
        self.answer_vote(state, to, answer, fate);
    }

    /// A vote that passed the gate comes to Raft, if there is one.
    pub fn consider(&self, state: &mut State, voter: Id, fate: Fate) {
        if state.host(voter).considering.is_some() {
            let answer = self.own(state, voter, Op::Consider);
            self.answer_vote(state, voter, answer, fate);
        }
    }

    fn answer_vote(&self, state: &mut State, from: Id, answer: Answer, fate: Fate) {
        if let Answer::Voted { from: to, round, granted, vote } = answer {
            let message = Message::Voted { round, granted, vote };
            self.send(state, Late { from, to, message, sent: 0, arrived: 0 }, fate);
        }
    }

    fn send(&self, state: &mut State, message: Late, fate: Fate) {
        match fate {
            Fate::Answered => self.deliver(state, message),
            Fate::AnswerLate | Fate::Late | Fate::ReportLate => delay(state, message),
            Fate::AnswerLost => {}
        }
    }

    fn deliver(&self, state: &mut State, late: Late) {
        let Late { from, to, message, sent, arrived } = late;
        match message {
            Message::Vote(ballot) => {
                let answer = self.own(state, to, Op::OnVote { from, ballot });
                self.answer_vote(state, to, answer, Fate::Answered);
            }
            Message::Voted { round, granted, vote } => {
                self.own(state, to, Op::OnVoted { from, round, granted, vote });
            }
            Message::Append(append) => {
                let term = append.term;
                let answer = self.own(state, to, Op::OnAppend { from, append, age: arrived });
                if let Answer::Appended(answer) = answer {
                    self.own(state, from, Op::OnAppended { from: to, term, age: sent, answer });
                }
            }
            Message::Appended { term, answer } => {
                self.own(state, to, Op::OnAppended { from, term, age: sent, answer });
            }
            Message::Accepted { term, answer } => {
                self.own(state, to, Op::Report { from, term, age: arrived });
                self.own(state, from, Op::OnAppended { from: to, term, age: sent, answer });
            }
        }
    }

    /// A coordinator has started again: answers to the old one find nobody, and what had arrived for it is gone.
    fn restarted(&self, state: &mut State, host: Id) {
        state.restarts += 1;
        state.late.retain(|late| late.to != host || late.message.is_request());
        for late in state.late.iter_mut().filter(|late| late.to == host) {
            late.arrived = 0;
        }
    }

    /// Forgets what would change nothing any more, whenever it came.
    fn prune(&self, state: &mut State) {
        let hosts = &state.hosts;
        state.late.retain(|late| {
            let to = &hosts[late.to].host;
            match &late.message {
                Message::Vote(ballot) => ballot.term > to.raft.term,
                Message::Voted { round, granted, .. } => {
                    *granted && *round == to.raft.term && to.lacks_vote_of(late.from)
                }
                Message::Append(append) => append.term >= to.raft.term,
                Message::Appended { term, .. } => {
                    let counts = to.core.leads() == Some(*term) && late.sent < self.rules.forgotten();
                    counts || to.raft.leads() && to.raft.term == *term
                }
                Message::Accepted { .. } => true,
            }
        });
    }
}

impl Message {
    fn is_request(&self) -> bool {
        match self {
            Message::Vote(_) | Message::Append(_) => true,
            Message::Voted { .. } | Message::Appended { .. } | Message::Accepted { .. } => false,
        }
    }
}

fn delay(state: &mut State, late: Late) {
    if !state.late.contains(&late) {
        state.late.push(late);
    }
}

/// What may happen next.
impl Cluster {
    fn fates(&self, state: &State, request_too: bool) -> &'static [Fate] {
        match (state.late.len() < self.rules.late_max, request_too, self.rules.answers_lost) {
            (false, _, false) => &[Fate::Answered],
            (false, _, true) => &[Fate::Answered, Fate::AnswerLost],
            (true, false, _) => &[Fate::Answered, Fate::AnswerLost, Fate::AnswerLate],
            (true, true, _) => &[Fate::Answered, Fate::AnswerLost, Fate::AnswerLate, Fate::Late],
        }
    }

    fn requests(&self, state: &State, from: Id, actions: &mut Vec<Action>) {
        let host = state.host(from);
        for to in others(from) {
            let peer = state.host(to);
            if peer.considering.is_some() {
                continue;
            }
            if !host.raft.members.contains(to) {
                continue;
            }
            if host.raft.leads() {
                // A heartbeat whose answer is lost only makes a follower refuse for longer. One that is late says no
                // more than one that was answered late.
                let only_promises = peer.raft.term == host.raft.term;
                let fates = self.fates(state, false).iter();
                let fates = fates.filter(|fate| !only_promises || **fate != Fate::AnswerLost);
                actions.extend(fates.map(|fate| Action::Heartbeat { from, to, fate: *fate }));
                if peer.raft.commit < host.raft.commit || peer.raft.last() != host.raft.last() {
                    let fates = self.fates(state, true);
                    actions.extend(fates.iter().map(|fate| Action::Replicate { from, to, fate: *fate }));
                    if self.rules.late_reports && state.late.is_empty() {
                        actions.push(Action::Replicate { from, to, fate: Fate::ReportLate });
                    }
                }
            } else if host.lacks_vote_of(to) && host.raft.members.is_voter(to) && !state.has_to_report(to) {
                let fates = self.fates(state, true);
                actions.extend(fates.iter().map(|fate| Action::AskVote { from, to, fate: *fate }));
            }
        }
    }

    fn own_steps(&self, state: &State, me: Id, actions: &mut Vec<Action>) {
        let (rules, host) = (&self.rules, state.host(me));
        actions.push(Action::Wake(me));
        if host.has_work() {
            actions.push(Action::Work(me));
        }
        if host.machine.firing.is_some() {
            actions.push(Action::Kill(me));
        }
        if host.is_to_report() {
            actions.push(Action::NoticeLoss(me));
        }
        if host.considering.is_some() {
            actions.extend(self.fates(state, false).iter().map(|fate| Action::Consider { host: me, fate: *fate }));
        } else if !host.raft.leads()
            && host.raft.term < rules.terms_max
            && state.hosts[me].gate[me]
            && !state.has_to_report(me)
        {
            actions.push(Action::Campaign(me));
        }
        if rules.handovers && host.core.is_active() {
            actions.push(Action::Handover(me));
        }
        // What standbys do about theirs concerns no other host.
        if rules.upgrades && host.holds_key() {
            actions.extend([false, true].map(|fails| Action::Upgrade { host: me, fails }));
        }
        let changes = state.hosts[me].changes.iter();
        actions.extend(changes.map(|change| Action::Change { leader: me, change: *change }));
        if state.restarts < rules.restarts_max {
            actions.push(Action::Restart(me));
            if rules.power {
                actions.push(Action::LosePower(me));
            }
        }
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        self.init.clone()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for me in 0..NAMES.len() {
            self.own_steps(state, me, actions);
            self.requests(state, me, actions);
        }
        for (late, message) in state.late.iter().enumerate() {
            let is_vote = matches!(message.message, Message::Vote(_));
            let waits = message.message.is_request() && state.host(message.to).considering.is_some()
                || is_vote && state.has_to_report(message.to);
            let is_report = matches!(message.message, Message::Accepted { .. });
            if !waits {
                let again = [false, true].into_iter().filter(|again| !(*again && is_report));
                actions.extend(again.map(|again| Action::Deliver { late, again }));
            }
        }
        actions.push(Action::Tick);
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Tick => self.tick(&mut state),
            Action::Heartbeat { from, to, fate } => self.append(&mut state, from, to, false, fate),
            Action::Replicate { from, to, fate } => self.append(&mut state, from, to, true, fate),
            Action::AskVote { from, to, fate } => self.ask_vote(&mut state, from, to, fate),
            Action::Consider { host, fate } => self.consider(&mut state, host, fate),
            Action::Deliver { late, again } => {
                let message = if again { state.late[late].clone() } else { state.late.remove(late) };
                self.deliver(&mut state, message);
            }
            Action::Restart(host) | Action::LosePower(host) => {
                let whole = matches!(action, Action::LosePower(_));
                self.own(&mut state, host, if whole { Op::LosePower } else { Op::Restart });
                self.restarted(&mut state, host);
            }
            Action::Campaign(host) => drop(self.own(&mut state, host, Op::Campaign)),
            Action::NoticeLoss(host) => drop(self.own(&mut state, host, Op::NoticeLoss)),
            Action::Wake(host) => drop(self.own(&mut state, host, Op::Wake)),
            Action::Work(host) => drop(self.own(&mut state, host, Op::Work)),
            Action::Kill(host) => drop(self.own(&mut state, host, Op::Kill)),
            Action::Change { leader, change } => drop(self.own(&mut state, leader, Op::Change(change))),
            Action::Upgrade { host, fails } => drop(self.own(&mut state, host, Op::Upgrade { fails })),
            Action::Handover(host) => drop(self.own(&mut state, host, Op::Handover)),
        }
        self.prune(&mut state);
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Cluster>> {
        (self.properties)()
    }
}
