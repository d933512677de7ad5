//! The disk below a member's Raft: one writer, one flush after the other, each of all that waits by then. What depends on
//! a write waits for its flush. A crash keeps what was flushed, and as much of the rest, in order, as it happens to.

use std::collections::VecDeque;

use crate::coordinator::Stage;
use crate::raft::{Entry, Id, Raft};
use crate::random::Random;
use crate::schedule::What;
use crate::tally::Kind;
use crate::world::{MS, World};

type Vote = (u64, Option<Id>);

#[derive(Default)]
pub struct Disk {
    vote: Vote,
    log: Vec<Entry>,
    applied: usize,
    /// Not flushed; oldest first.
    queue: VecDeque<Write>,
    /// How many of these the flush under way is for.
    flushing: usize,
    queued: Queued,
    /// Until then a flush takes long.
    pub slow_until: u64,
    /// A crash ends one.
    run: u32,
}

/// What the disk will hold once all that is queued is flushed.
#[derive(Default)]
struct Queued {
    vote: Vote,
    /// Of each entry: by index and term, all logs agree on the rest.
    terms: Vec<u64>,
    applied: usize,
}

struct Write {
    vote: Vote,
    /// So many of the entries before stay.
    keeps: usize,
    entries: Vec<Entry>,
    applied: usize,
    then: Option<Stage>,
}

/// What a crash left.
pub struct Kept {
    pub vote: Vote,
    pub log: Vec<Entry>,
    pub applied: usize,
    pub lost: usize,
}

impl Disk {
    /// `None` when all of it is on disk already.
    fn write(&mut self, raft: &Raft, then: &mut Option<Stage>) -> Option<()> {
        let (vote, terms) = ((raft.term, raft.voted_for), &mut self.queued.terms);
        let mut keeps = terms.len().min(raft.log.len());
        while keeps > 0 && terms[keeps - 1] != raft.log[keeps - 1].term {
            keeps -= 1;
        }
        let changes =
            vote != self.queued.vote || keeps < terms.len().max(raft.log.len()) || raft.applied != self.queued.applied;
        if !changes && (self.queue.is_empty() || then.is_none()) {
            return None;
        }
        let entries = raft.log[keeps..].to_vec();
        terms.truncate(keeps);
        terms.extend(entries.iter().map(|entry| entry.term));
        (self.queued.vote, self.queued.applied) = (vote, raft.applied);
        self.queue.push_back(Write { vote, keeps, entries, applied: raft.applied, then: then.take() });
        Some(())
    }

    /// The oldest write is on disk; what waited for it.
    fn take(&mut self) -> Option<Stage> {
        let write = self.queue.pop_front()?;
        self.vote = write.vote;
        self.log.truncate(write.keeps);
        self.log.extend(write.entries);
        self.applied = write.applied;
        write.then
    }

    pub fn crash(&mut self, random: &mut Random) -> Kept {
        let waiting = self.queue.len() as u64;
        let survive = if random.chance(50) { 0 } else { random.between(0, waiting + 1) };
        for _ in 0..survive {
            self.take();
        }
        let lost = std::mem::take(&mut self.queue).len();
        let terms = self.log.iter().map(|entry| entry.term).collect();
        self.queued = Queued { vote: self.vote, terms, applied: self.applied };
        self.flushing = 0;
        self.run += 1;
        Kept { vote: self.vote, log: self.log.clone(), applied: self.applied, lost }
    }
}

impl World {
    /// Whatever is new in the Raft of `host` goes to its disk; `then` follows once that and all before is there.
    pub fn write(&mut self, host: Id, mut then: Option<Stage>) {
        let me = &mut self.hosts[host];
        if me.disk.write(&me.raft, &mut then).is_some() {
            if me.disk.flushing == 0 {
                self.flush(host);
            }
        } else if let Some(stage) = then {
            let after = self.moment();
            self.own(host, after, stage);
        }
    }

    fn flush(&mut self, host: Id) {
        let takes = if self.at < self.hosts[host].disk.slow_until {
            self.tally.note(Kind::SlowDisk);
            self.random.between(20, 500) * MS
        } else if self.random.chance(3) {
            self.random.between(0, 60 * MS)
        } else {
            self.random.between(MS / 10, 3 * MS)
        };
        let disk = &mut self.hosts[host].disk;
        disk.flushing = disk.queue.len();
        let run = disk.run;
        self.later(takes, What::Flushed { host, run });
    }

    pub fn flushed(&mut self, host: Id, run: u32) {
        if self.hosts[host].disk.run != run {
            return;
        }
        for _ in 0..std::mem::take(&mut self.hosts[host].disk.flushing) {
            if let Some(stage) = self.hosts[host].disk.take() {
                let after = self.random.between(0, MS);
                self.own(host, after, stage);
            }
        }
        if !self.hosts[host].disk.queue.is_empty() {
            self.flush(host);
        }
    }
}
