//! A process that uses the store is killed again and again. What it was told is durable must be there
//! afterwards, and what is there must be what it wrote, in order: the state after some prefix of its
//! operations that holds every acknowledged one.
//!
//! The victim is this test binary, started again with `BATON_CRASH_DIR` set. It prints each operation
//! before it begins it and each acknowledgement after its callback.

mod storage_kit;

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use baton::store::Opened;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use storage_kit::{apply, blank, id, open, vote};
use tempfile::TempDir;

use baton::wire::TypeConfig;

const DIR: &str = "BATON_CRASH_DIR";
const SEED: &str = "BATON_CRASH_SEED";
const KILLS: u32 = 100;
const TIME_MAX: Duration = Duration::from_secs(20);

/// One write of the store, each durable as a whole or not at all.
#[derive(Clone, Copy, Debug)]
enum Op {
    Vote {
        term: u64,
    },
    Append {
        term: u64,
        first: u64,
        count: u64,
    },
    /// Removes this index and all behind it.
    Truncate {
        first: u64,
    },
    Apply {
        index: u64,
    },
    Purge {
        index: u64,
    },
}

/// What the files must hold. Indexes are stored as one more, so that zero is none.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    voted_term: u64,
    /// Term of each entry.
    log: BTreeMap<u64, u64>,
    purged: u64,
    applied: u64,
}

impl Model {
    fn next_index(&self) -> u64 {
        self.log.last_key_value().map_or(self.purged, |(last, _)| last + 1)
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Vote { term } => self.voted_term = term,
            Op::Append { term, first, count } => self.log.extend((first..first + count).map(|index| (index, term))),
            Op::Truncate { first } => drop(self.log.split_off(&first)),
            Op::Apply { index } => self.applied = index + 1,
            Op::Purge { index } => {
                self.log = self.log.split_off(&(index + 1));
                self.purged = index + 1;
            }
        }
    }

    async fn of(opened: &mut Opened) -> Model {
        let state = opened.log.get_log_state().await.expect("the log's state");
        let entries = openraft::RaftLogReader::try_get_log_entries(&mut opened.log, ..).await.expect("the log");
        let applied = opened.store.applied().borrow().last_applied;
        Model {
            voted_term: opened.store.vote().map_or(0, |vote| vote.leader_id.term),
            log: entries.iter().map(|entry| (entry.log_id.index, entry.log_id.leader_id.term)).collect(),
            purged: state.last_purged_log_id.map_or(0, |id| id.index + 1),
            applied: applied.map_or(0, |id| id.index + 1),
        }
    }

    /// Something that a Raft member could do next.
    fn choose(&self, rng: &mut StdRng) -> Op {
        let next = self.next_index();
        match rng.random_range(0..20) {
            0..4 => Op::Vote { term: self.voted_term + 1 },
            4..6 if self.applied < next => Op::Truncate { first: rng.random_range(self.applied..next) },
            6..9 if self.applied < next => Op::Apply { index: rng.random_range(self.applied..next) },
            9..11 if self.purged < self.applied => Op::Purge { index: rng.random_range(self.purged..self.applied) },
            _ => Op::Append { term: self.voted_term, first: next, count: rng.random_range(1..4) },
        }
    }
}

/// A line in one write: a kill leaves no half of it to be taken for a whole one.
fn say(line: String) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).expect("the parent reads");
    std::io::stdout().flush().expect("the parent reads");
}

/// The victim. Without the environment of one, there is nothing to do.
#[tokio::test]
async fn victim() {
    let Ok(dir) = std::env::var(DIR) else { return };
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).expect("prctl");
    let mut rng = StdRng::seed_from_u64(std::env::var(SEED).expect("a seed").parse().expect("a number"));
    let mut opened = open(Path::new(&dir));
    let mut model = Model::of(&mut opened).await;
    let mut waiting = VecDeque::new();
    for number in 0_u64.. {
        let op = model.choose(&mut rng);
        model.apply(op);
        say(format!("op {}", words(op)));
        match op {
            Op::Vote { term } => {
                opened.log.save_vote(&vote(term, "a")).await.expect("save the vote");
                say(format!("ack {number}"));
            }
            Op::Append { term, first, count } => {
                let (done, result) = TypeConfig::oneshot();
                let entries = (first..first + count).map(|index| blank(term, index));
                opened.log.append(entries, IOFlushed::signal(done)).await.expect("append");
                waiting.push_back((number, result));
            }
            Op::Truncate { first } => {
                let last = first.checked_sub(1).map(|last| id(term_at(&model, last), last));
                opened.log.truncate_after(last).await.expect("truncate");
            }
            Op::Apply { index } => {
                apply(&mut opened.state_machine, vec![blank(term_at(&model, index), index)]).await;
            }
            Op::Purge { index } => {
                let purged = opened.log.get_log_state().await.unwrap();
                let entries = openraft::RaftLogReader::try_get_log_entries(&mut opened.log, index..=index);
                let known = entries.await.unwrap().first().map(|entry| entry.log_id);
                opened.log.purge(known.or(purged.last_purged_log_id).unwrap()).await.expect("purge");
            }
        }
        let waiting_max = rng.random_range(0..8);
        while waiting.len() > waiting_max {
            let (number, result) = waiting.pop_front().expect("some wait");
            result.await.expect("a callback").expect("durable");
            say(format!("ack {number}"));
        }
    }
}

fn term_at(model: &Model, index: u64) -> u64 {
    model.log.get(&index).copied().unwrap_or_default()
}

fn words(op: Op) -> String {
    match op {
        Op::Vote { term } => format!("vote {term}"),
        Op::Append { term, first, count } => format!("append {term} {first} {count}"),
        Op::Truncate { first } => format!("truncate {first}"),
        Op::Apply { index } => format!("apply {index}"),
        Op::Purge { index } => format!("purge {index}"),
    }
}

fn read_op(words: &str) -> Op {
    let mut words = words.split(' ');
    let name = words.next().expect("a name");
    let numbers: Vec<u64> = words.map(|word| word.parse().expect("a number")).collect();
    match (name, &numbers[..]) {
        ("vote", &[term]) => Op::Vote { term },
        ("append", &[term, first, count]) => Op::Append { term, first, count },
        ("truncate", &[first]) => Op::Truncate { first },
        ("apply", &[index]) => Op::Apply { index },
        ("purge", &[index]) => Op::Purge { index },
        (name, numbers) => panic!("unknown operation {name} {numbers:?}"),
    }
}

/// Starts a victim, kills it after `life`, and returns what it began and how much was acknowledged.
fn run_and_kill(dir: &Path, seed: u64, life: Duration) -> (Vec<Op>, usize) {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "victim", "--nocapture"])
        .env(DIR, dir)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a victim");
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let reader = std::thread::spawn(move || {
        let (mut ops, mut acknowledged) = (Vec::new(), 0);
        for line in output.lines().map_while(Result::ok) {
            if let Some(words) = line.strip_prefix("op ") {
                ops.push(read_op(words));
            } else if let Some(number) = line.strip_prefix("ack ") {
                acknowledged = number.parse::<usize>().expect("a number") + 1;
            }
        }
        (ops, acknowledged)
    });
    std::thread::sleep(life);
    let ended_by_itself = child.try_wait().expect("wait");
    child.kill().expect("kill the victim");
    child.wait().expect("wait for the victim");
    let result = reader.join().expect("what the victim said");
    assert!(ended_by_itself.is_none(), "the victim ended before it was killed: {ended_by_itself:?}");
    result
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let seed: u64 = match std::env::var("SEED") {
        Ok(seed) => seed.parse().expect("SEED is a number"),
        Err(_) => rand::random_range(0..1_000_000),
    };
    let replay = format!("SEED={seed} cargo test --test store_crash");
    println!("{replay}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = TempDir::new().unwrap();
    let (mut before, began) = (Model::default(), Instant::now());
    let (mut kills, mut acknowledgements, mut operations) = (0, 0, 0);
    while kills < KILLS && began.elapsed() < TIME_MAX {
        let life = Duration::from_micros(rng.random_range(5_000..150_000));
        let (ops, acknowledged) = run_and_kill(dir.path(), rng.random(), life);
        kills += 1;
        acknowledgements += acknowledged;
        operations += ops.len();

        let found = Model::of(&mut open(dir.path())).await;
        let mut model = before.clone();
        ops[..acknowledged].iter().for_each(|op| model.apply(*op));
        let mut matches = model == found;
        for op in &ops[acknowledged..] {
            model.apply(*op);
            matches |= model == found;
        }
        assert!(
            matches,
            "kill {kills}: found {found:?}\nwhich is no state after at least {acknowledged} of these operations on \
             {before:?}\n{ops:?}\nreplay (times differ): {replay}"
        );
        before = found;
    }
    println!("{kills} kills, {operations} operations, {acknowledgements} acknowledged, {:?}", began.elapsed());
    assert!(kills >= 20 && acknowledgements > 100, "too slow to prove anything: {kills} kills, {acknowledgements}");
}
