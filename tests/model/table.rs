//! Every state that a member was ever found in, once; and what each event makes of it. There are far fewer of them than
//! states of the whole cluster, which so become three pointers, and the core is asked each question only once.
//!
//! Two members that differ only by a shift of their clocks are one entry. Hence moments are told to an entry as ages.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use baton::core::Event;
use baton::core::tenure::Reason;

use crate::host::{Host, NAMES, Wants};
use crate::members::Change;
use crate::raft::{Append, Appended, Ballot, Id};
use crate::rules::Rules;

/// What may happen to one member.
#[derive(Clone, Debug, Hash)]
pub enum Op {
    Tick,
    Campaign,
    Replicate {
        to: Id,
    },
    OnAppend {
        from: Id,
        append: Arc<Append>,
        age: u64,
    },
    /// Its report comes later.
    BeginAppend {
        from: Id,
        append: Arc<Append>,
    },
    Report {
        from: Id,
        term: u64,
        age: u64,
    },
    OnAppended {
        from: Id,
        term: u64,
        age: u64,
        answer: Appended,
    },
    OnVote {
        from: Id,
        ballot: Ballot,
    },
    Consider,
    OnVoted {
        from: Id,
        round: u64,
        granted: bool,
        vote: (u64, Option<Id>),
    },
    NoticeLoss,
    Work,
    Kill,
    Handover,
    Upgrade {
        fails: bool,
    },
    Change(Change),
    Restart,
    LosePower,
    /// Nothing but time, as the core is told it.
    Wake,
    TakeUpCampaigns,
    PreCampaign,
    OnPreVoted {
        from: Id,
        round: u64,
        granted: bool,
        vote: (u64, Option<Id>),
    },
}

/// What it answers.
#[derive(Clone, Debug)]
pub enum Answer {
    Nothing,
    Append(Arc<Append>),
    Appended(Appended),
    /// A quorum would vote for it.
    Electable,
    /// The vote is being considered.
    Later,
    Voted {
        from: Id,
        round: u64,
        granted: bool,
        vote: (u64, Option<Id>),
    },
}

/// A state of one member.
#[derive(Debug)]
pub struct Known {
    pub id: u32,
    pub host: Host,
    /// For each candidate, whether the vote gate lets it pass.
    pub gate: [bool; 3],
    pub changes: Vec<Change>,
    pub may_sign: bool,
}

/// What came of an event.
#[derive(Clone)]
pub struct Done {
    pub after: Arc<Known>,
    pub answer: Answer,
    pub wants: Wants,
}

#[derive(Default)]
pub struct Table {
    known: RwLock<HashMap<u64, Arc<Known>, Mixing>>,
    done: RwLock<HashMap<(u32, u64), Done, Mixing>>,
}

type Mixing = BuildHasherDefault<Mixed>;

/// Keys are hashes already, and asked for in every transition: the standard hasher costs a quarter of the run.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers");
    }
}

impl Table {
    pub fn len(&self) -> usize {
        self.known.read().unwrap().len()
    }

    pub fn know(&self, rules: &Rules, host: Host) -> Arc<Known> {
        let hash = hash_of(&host);
        if let Some(known) = self.known.read().unwrap().get(&hash) {
            return known.clone();
        }
        let gate = [0, 1, 2].map(|candidate| candidate < NAMES.len() && host.gate(rules, candidate));
        let (changes, may_sign) = (host.changes(rules), host.machine.may_sign());
        let mut known = self.known.write().unwrap();
        let id = known.len() as u32;
        known.entry(hash).or_insert_with(|| Arc::new(Known { id, host, gate, changes, may_sign })).clone()
    }

    pub fn after(&self, rules: &Rules, before: &Arc<Known>, op: Op) -> Done {
        let key = (before.id, op.key());
        if let Some(done) = self.done.read().unwrap().get(&key) {
            return done.clone();
        }
        let mut host = before.host.clone();
        host.wants = Wants::default();
        let answer = perform(rules, &mut host, before, op);
        let wants = host.wants;
        let done = Done { after: self.know(rules, host), answer, wants };
        self.done.write().unwrap().insert(key, done.clone());
        done
    }
}

fn perform(rules: &Rules, host: &mut Host, before: &Known, op: Op) -> Answer {
    match op {
        Op::Tick => {
            host.clock += rules.rates[host.me];
            host.time_passed(rules);
        }
        Op::Campaign => host.elect(rules),
        Op::Replicate { to } => return Answer::Append(Arc::new(host.raft.replicate(to).expect("a leader"))),
        Op::OnAppend { from, append, age } => {
            let arrived_at = host.now() - Duration::from_nanos(age);
            return Answer::Appended(host.on_append(rules, from, &append, arrived_at));
        }
        Op::BeginAppend { from, append } => {
            return host.begin_append(rules, from, &append).map_or(Answer::Nothing, Answer::Appended);
        }
        Op::Report { from, term, age } => {
            host.report_late(rules, from, term, host.now() - Duration::from_nanos(age));
        }
        Op::OnAppended { from, term, age, answer } => {
            let sent_at = host.now() - Duration::from_nanos(age);
            host.on_appended(rules, from, term, sent_at, answer);
        }
        Op::OnVote { from, ballot } => return on_vote(rules, host, before, from, &ballot),
        Op::Consider => return consider(rules, host),
        Op::OnVoted { from, round, granted, vote } => {
            if host.raft.on_vote_answer(from, round, granted, vote) {
                host.wrote();
            }
            host.raft_changed(rules);
        }
        Op::NoticeLoss => host.report(rules),
        Op::Work => host.work(rules),
        Op::Kill => host.kill(rules),
        Op::Handover => host.step(
            rules,
            Event::HandoverWanted { to: None, timeout: Duration::from_secs(60), reason: Reason::Operator },
        ),
        Op::Upgrade { fails } => host.upgrade(rules, fails),
        Op::Change(change) => host.change(rules, change),
        Op::Restart => host.restart(rules),
        Op::LosePower => host.lose_power(rules),
        Op::Wake => host.step(rules, Event::Tick),
        Op::PreCampaign => drop(host.raft.pre_elect()),
        Op::OnPreVoted { from, round, granted, vote } => {
            if host.raft.on_pre_vote_answer(from, round, granted, vote) {
                return Answer::Electable;
            }
            host.raft_changed(rules);
        }
        Op::TakeUpCampaigns => host.take_up_campaigns(rules),
    }
    Answer::Nothing
}

fn on_vote(rules: &Rules, host: &mut Host, before: &Known, from: Id, ballot: &Ballot) -> Answer {
    if !before.gate[from] {
        let vote = (host.raft.term, host.raft.voted_for);
        return Answer::Voted { from, round: ballot.term, granted: false, vote };
    }
    let led = host.core.leads().is_some();
    host.voting(rules, from, ballot);
    // Only at a member that led could anything come between that matters.
    if led { Answer::Later } else { consider(rules, host) }
}

fn consider(rules: &Rules, host: &mut Host) -> Answer {
    let (considered, granted) = host.consider(rules).expect("a vote to consider");
    let vote = (host.raft.term, host.raft.voted_for);
    Answer::Voted { from: considered.from, round: considered.ballot.term, granted, vote }
}

impl Op {
    fn key(&self) -> u64 {
        match self {
            Op::Tick => 0,
            Op::Wake => 1,
            Op::Work => 2,
            Op::Kill => 3,
            Op::Campaign => 4,
            Op::NoticeLoss => 5,
            Op::Replicate { .. }
            | Op::OnAppend { .. }
            | Op::BeginAppend { .. }
            | Op::Report { .. }
            | Op::OnAppended { .. }
            | Op::OnVote { .. }
            | Op::Consider
            | Op::OnVoted { .. }
            | Op::Handover
            | Op::Upgrade { .. }
            | Op::Change(_)
            | Op::Restart
            | Op::LosePower
            | Op::TakeUpCampaigns
            | Op::PreCampaign
            | Op::OnPreVoted { .. } => hash_of(self),
        }
    }
}

fn hash_of<T: Hash>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
