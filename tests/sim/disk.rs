//! The disk below a member's Raft: one writer, one flush after the other, each of all that waits by then. What depends
//! on a write waits for its flush. A crash keeps what was flushed, and as much of the rest, in order, as it happens to.

use std::collections::VecDeque;

use baton::core::Event;

use crate::coordinator::Stage;
use crate::raft::{Entry, Id, Raft};
use crate::random::Random;
use crate::schedule::What;
use crate::tally::Kind;
use crate::world::{MS, Without, World};

type Vote = (u64, Option<Id>);

/// Between two looks at each directory.
const PULSE: u64 = 1_000 * MS;
/// A directory that does not answer for longer is known to hang.
const DISK_TIMEOUT: u64 = 5_000 * MS;

/// What hangs on a file system of its own, if it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dir {
    State,
    /// Chain node and links.
    Home,
}

impl Dir {
    pub fn name(self) -> &'static str {
        match self {
            Dir::State => "state_dir",
            Dir::Home => "the home",
        }
    }
}

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
    /// Until then a flush takes so many milliseconds more.
    pub slower: (u64, u64),
    pub slower_until: u64,
    /// Until then no flush ends.
    pub stuck_until: u64,
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
    then: Vec<Stage>,
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
        if !changes {
            // All of it is on its way: the flush that brings the last of it is waited for.
            self.queue.back_mut()?.then.extend(then.take());
            return Some(());
        }
        let entries = raft.log[keeps..].to_vec();
        terms.truncate(keeps);
        terms.extend(entries.iter().map(|entry| entry.term));
        (self.queued.vote, self.queued.applied) = (vote, raft.applied);
        self.queue.push_back(Write {
            vote,
            keeps,
            entries,
            applied: raft.applied,
            then: then.take().into_iter().collect(),
        });
        Some(())
    }

    /// The oldest write is on disk; what waited for it.
    fn take(&mut self) -> Vec<Stage> {
        let Some(write) = self.queue.pop_front() else { return Vec::new() };
        self.vote = write.vote;
        self.log.truncate(write.keeps);
        self.log.extend(write.entries);
        self.applied = write.applied;
        write.then
    }

    /// Nothing is on its way to it, and it has an older log.
    pub fn set_back(&mut self, log: Vec<Entry>, applied: usize) {
        self.queued.terms = log.iter().map(|entry| entry.term).collect();
        self.queued.applied = applied;
        (self.log, self.applied) = (log, applied);
    }

    /// A vote is on its way to it.
    pub fn is_voting(&self) -> bool {
        self.queued.vote != self.vote
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
        let mut takes = takes;
        if self.at < self.hosts[host].disk.slower_until {
            self.tally.note(Kind::SlowSync);
            let (least, most) = self.hosts[host].disk.slower;
            takes += self.odd.between(least * MS, most * MS + 1);
        }
        let disk = &self.hosts[host].disk;
        if self.without == Without::OneSync && disk.queue.iter().any(|write| write.vote != disk.vote) {
            takes *= 3;
        }
        let disk = &mut self.hosts[host].disk;
        disk.flushing = disk.queue.len();
        let run = disk.run;
        self.later(takes, What::Flushed { host, run });
    }

    /// How much longer something that is to be on the disk after `takes` has to wait.
    pub fn stuck_for(&self, host: Id, takes: u64) -> u64 {
        takes.max(self.hosts[host].disk.stuck_until.saturating_sub(self.at))
    }

    pub fn flushed(&mut self, host: Id, run: u32) {
        if self.hosts[host].disk.run != run {
            return;
        }
        if self.at < self.hosts[host].disk.stuck_until {
            self.tally.note(Kind::StuckDisk);
            let after = self.stuck_for(host, 0);
            return self.later(after, What::Flushed { host, run });
        }
        for _ in 0..std::mem::take(&mut self.hosts[host].disk.flushing) {
            for stage in self.hosts[host].disk.take() {
                let after = self.random.between(0, MS);
                self.own(host, after, stage);
            }
        }
        if !self.hosts[host].disk.queue.is_empty() {
            self.flush(host);
        }
    }

    fn stuck_until(&self, host: Id, dir: Dir) -> u64 {
        match dir {
            Dir::State => self.hosts[host].disk.stuck_until,
            Dir::Home => self.hosts[host].machine.home_stuck_until,
        }
    }

    pub fn pulse(&mut self, host: Id) {
        for dir in [Dir::State, Dir::Home] {
            let stuck_for = self.stuck_until(host, dir).saturating_sub(self.at);
            if stuck_for > DISK_TIMEOUT && self.without != Without::Pulse {
                self.own(host, DISK_TIMEOUT, Stage::PulseLate(dir));
            }
        }
        self.ping_guard(host);
        self.own(host, PULSE, Stage::Pulse);
    }

    /// Told again for every look that hangs, as if it were the first.
    pub fn pulse_late(&mut self, host: Id, dir: Dir) {
        self.step(host, Event::DiskHung { dir: dir.name().to_owned() });
        let after = self.stuck_until(host, dir).saturating_sub(self.at);
        self.own(host, after, Stage::PulseBack(dir));
    }
}
