//! What the victim of a crash does with its store, and what the store must hold afterwards: the state after some
//! prefix of its operations that has every acknowledged one.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use baton::base::ids::Epoch;
use baton::cluster::store::Opened;
use baton::cluster::wire::{Entry, TypeConfig};
use baton::core::agreed::replicated::{Baton, Command};
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::kit::crash::trace::say;
use crate::kit::storage::{apply, blank, claim_because, entry, id, open, vote};

/// One write of the store, each durable as a whole or not at all.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Vote {
        term: u64,
    },
    /// Blank entries.
    Append {
        term: u64,
        first: u64,
        count: u64,
    },
    /// One `Claim`, with a reason of this length.
    Claim {
        term: u64,
        index: u64,
        epoch: u64,
        reason_bytes: u64,
    },
    /// Removes this index and all behind it.
    Truncate {
        first: u64,
    },
    /// All up to this index.
    Apply {
        index: u64,
    },
    Purge {
        index: u64,
    },
}

impl Op {
    pub fn words(self) -> String {
        match self {
            Op::Vote { term } => format!("vote {term}"),
            Op::Append { term, first, count } => format!("append {term} {first} {count}"),
            Op::Claim { term, index, epoch, reason_bytes } => format!("claim {term} {index} {epoch} {reason_bytes}"),
            Op::Truncate { first } => format!("truncate {first}"),
            Op::Apply { index } => format!("apply {index}"),
            Op::Purge { index } => format!("purge {index}"),
        }
    }

    pub fn read(words: &str) -> Op {
        let mut words = words.split(' ');
        let name = words.next().expect("a name");
        let numbers: Vec<u64> = words.map(|word| word.parse().expect("a number")).collect();
        match (name, &numbers[..]) {
            ("vote", &[term]) => Op::Vote { term },
            ("append", &[term, first, count]) => Op::Append { term, first, count },
            ("claim", &[term, index, epoch, reason_bytes]) => Op::Claim { term, index, epoch, reason_bytes },
            ("truncate", &[first]) => Op::Truncate { first },
            ("apply", &[index]) => Op::Apply { index },
            ("purge", &[index]) => Op::Purge { index },
            (name, numbers) => panic!("unknown operation {name} {numbers:?}"),
        }
    }
}

/// An entry of the log: its term, and the epoch and the length of the reason of a `Claim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Logged {
    term: u64,
    claim: Option<(u64, u64)>,
}

impl Logged {
    fn of(entry: &Entry) -> Logged {
        let claim = match &entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(Command::Baton(Baton::Claim { epoch, reason, .. })) => {
                Some((epoch.0, reason.len() as u64))
            }
            payload => panic!("nobody wrote {payload:?}"),
        };
        Logged { term: entry.log_id.leader_id.term, claim }
    }

    fn entry(self, index: u64) -> Entry {
        match self.claim {
            None => blank(self.term, index),
            Some((epoch, length)) => entry(self.term, index, claim_because(epoch, "a", "x".repeat(length as usize))),
        }
    }
}

/// What the files must hold. Indexes are stored as one more, so that zero is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    voted_term: u64,
    log: BTreeMap<u64, Logged>,
    purged: u64,
    applied: u64,
    /// The epoch of the last `Claim` that was applied.
    epoch: u64,
}

impl Model {
    fn next_index(&self) -> u64 {
        self.log.last_key_value().map_or(self.purged, |(last, _)| last + 1)
    }

    fn next_epoch(&self) -> u64 {
        let logged = self.log.values().filter_map(|logged| Some(logged.claim?.0));
        logged.chain([self.epoch]).max().unwrap_or_default() + 1
    }

    pub fn apply(&mut self, op: Op) {
        match op {
            Op::Vote { term } => self.voted_term = term,
            Op::Append { term, first, count } => {
                self.log.extend((first..first + count).map(|index| (index, Logged { term, claim: None })));
            }
            Op::Claim { term, index, epoch, reason_bytes } => {
                self.log.insert(index, Logged { term, claim: Some((epoch, reason_bytes)) });
            }
            Op::Truncate { first } => drop(self.log.split_off(&first)),
            Op::Apply { index } => {
                let mut claims = self.log.range(self.applied..=index).filter_map(|(_, logged)| Some(logged.claim?.0));
                self.epoch = claims.next_back().unwrap_or(self.epoch);
                self.applied = index + 1;
            }
            Op::Purge { index } => {
                self.log = self.log.split_off(&(index + 1));
                self.purged = index + 1;
            }
        }
    }

    pub async fn of(opened: &mut Opened) -> Model {
        let state = opened.log.get_log_state().await.expect("the log's state");
        let entries = opened.log.try_get_log_entries(..).await.expect("the log");
        let applied = opened.store.applied().borrow().clone();
        Model {
            voted_term: opened.store.vote().map_or(0, |vote| vote.leader_id.term),
            log: entries.iter().map(|entry| (entry.log_id.index, Logged::of(entry))).collect(),
            purged: state.last_purged_log_id.map_or(0, |id| id.index + 1),
            applied: applied.last_applied.map_or(0, |id| id.index + 1),
            epoch: applied.replicated.epoch.0,
        }
    }

    /// Something that a Raft member could do next.
    fn choose(&self, rng: &mut StdRng) -> Op {
        let next = self.next_index();
        let term = self.voted_term;
        match rng.random_range(0..20) {
            0..4 => Op::Vote { term: term + 1 },
            4..6 if self.applied < next => Op::Truncate { first: rng.random_range(self.applied..next) },
            6..9 if self.applied < next => Op::Apply { index: rng.random_range(self.applied..next) },
            9..11 if self.purged < self.applied => Op::Purge { index: rng.random_range(self.purged..self.applied) },
            11..15 => {
                let reason_bytes = [4, 80, 900][rng.random_range(0..3)];
                Op::Claim { term, index: next, epoch: self.next_epoch(), reason_bytes }
            }
            _ => Op::Append { term, first: next, count: rng.random_range(1..4) },
        }
    }

    fn is_fresh(&self) -> bool {
        self.voted_term == 0 && self.next_index() == 0 && self.applied == 0
    }

    /// # Errors
    /// `found` is not what is there after at least the first `acknowledged` of `ops`.
    pub fn check(&self, ops: &[Op], acknowledged: usize, found: &Model) -> Result<(), String> {
        let mut model = self.clone();
        ops[..acknowledged].iter().for_each(|op| model.apply(*op));
        let mut matches = model == *found;
        for op in &ops[acknowledged..] {
            model.apply(*op);
            matches |= model == *found;
        }
        if matches {
            return Ok(());
        }
        Err(format!(
            "found {found:?}\nwhich is no state after at least {acknowledged} of these operations on {self:?}\n{ops:?}"
        ))
    }
}

/// What a victim has said until it died.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    pub incarnation: Option<u64>,
    pub ops: Vec<Op>,
    pub acknowledged: usize,
}

impl Heard {
    pub fn hear(&mut self, line: &str) {
        if let Some(words) = line.strip_prefix("op ") {
            self.ops.push(Op::read(words));
        } else if let Some(number) = line.strip_prefix("ack ") {
            self.acknowledged = number.parse::<usize>().expect("a number") + 1;
        } else if let Some(incarnation) = line.strip_prefix("opened ") {
            self.incarnation = Some(incarnation.parse().expect("a number"));
        }
    }

    /// Holds an opened store against what was said, and returns what it holds.
    ///
    /// # Errors
    /// Something that was acknowledged is not there, or something is that nobody wrote.
    pub async fn check(&self, before: &Model, opened: &mut Opened) -> Result<Model, String> {
        let found = Model::of(opened).await;
        before.check(&self.ops, self.acknowledged, &found)?;
        if self.incarnation.is_some_and(|known| known != opened.incarnation) {
            return Err(format!("a store of another incarnation: {} and {:?}", opened.incarnation, self.incarnation));
        }
        if opened.fresh != found.is_fresh() {
            return Err(format!("it says fresh: {}, and holds {found:?}", opened.fresh));
        }
        Ok(found)
    }
}

/// How a victim works.
pub struct Script {
    pub seed: u64,
    pub ops: u64,
    /// Acknowledges what was only queued: a wrong one, to see that the tests find it.
    pub too_early: bool,
}

/// Says each operation before it begins it and each acknowledgement after its callback. In the end it closes the
/// store.
pub async fn play(dir: &Path, script: Script) {
    let mut rng = StdRng::seed_from_u64(script.seed);
    let mut opened = open(dir);
    say(&format!("opened {}", opened.incarnation));
    let mut model = Model::of(&mut opened).await;
    let mut waiting = VecDeque::new();
    for number in 0..script.ops {
        let op = model.choose(&mut rng);
        say(&format!("op {}", op.words()));
        match op {
            Op::Vote { term } => {
                opened.log.save_vote(&vote(term, "a")).await.expect("save the vote");
                say(&format!("ack {number}"));
            }
            Op::Append { .. } | Op::Claim { .. } => {
                let (done, result) = TypeConfig::oneshot();
                let from = model.next_index();
                model.apply(op);
                let entries = model.log.range(from..).map(|(index, logged)| logged.entry(*index));
                opened.log.append(entries, IOFlushed::signal(done)).await.expect("append");
                if script.too_early {
                    say(&format!("ack {number}"));
                }
                waiting.push_back((number, result));
            }
            Op::Truncate { first } => {
                let last = first.checked_sub(1);
                let term = |last| model.log.get(&last).map_or(0, |logged| logged.term);
                opened.log.truncate_after(last.map(|last| id(term(last), last))).await.expect("truncate");
            }
            Op::Apply { index } => {
                let entries = model.log.range(model.applied..=index).map(|(index, logged)| logged.entry(*index));
                apply(&mut opened.state_machine, entries.collect()).await;
            }
            Op::Purge { index } => {
                opened.log.purge(id(model.log[&index].term, index)).await.expect("purge");
            }
        }
        model.apply(op);
        let waiting_max = rng.random_range(0..8);
        while waiting.len() > waiting_max {
            let (number, result) = waiting.pop_front().expect("some wait");
            result.await.expect("a callback").expect("durable");
            say(&format!("ack {number}"));
        }
    }
    assert_eq!(opened.store.applied().borrow().replicated.epoch, Epoch(model.epoch), "the victim's own model");
}
