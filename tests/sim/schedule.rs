//! What is going to happen and when, and the clocks by which hosts see it. All times are nanoseconds; `at` is real
//! time, which no host sees.

use std::cmp::Reverse;

use baton::base::time::BootTime;

use crate::coordinator::Stage;
use crate::faults::Fault;
use crate::machine::{FromMachine, ToMachine};
use crate::network::Message;
use crate::raft::Id;
use crate::random::Random;
use crate::world::{MS, TIMING, World};

#[derive(Clone, Debug)]
pub enum What {
    Deliver {
        from: Id,
        to: Id,
        generation: u32,
        message: Message,
    },
    Own {
        host: Id,
        generation: u32,
        stage: Stage,
    },
    Heard {
        host: Id,
        generation: u32,
        news: FromMachine,
    },
    Ask {
        host: Id,
        generation: u32,
        asked: ToMachine,
    },
    Deadline {
        host: Id,
    },
    Killed {
        host: Id,
        pid: u32,
    },
    /// The kernel's timer for a guard that was stopped for the `stop`th time.
    Backstop {
        host: Id,
        stop: u32,
    },
    GuardGoesOn {
        host: Id,
        stop: u32,
    },
    Flushed {
        host: Id,
        run: u32,
    },
    Resume {
        host: Id,
    },
    Block {
        host: Id,
    },
    Lag {
        host: Id,
        lag: u64,
    },
    Approve {
        host: Id,
    },
    /// A chain node without key looks what it wants signed next.
    Wants {
        host: Id,
    },
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
    pub wall_offset: i64,
}

impl Clock {
    /// Within what is assumed of clocks, and often at the very limit.
    pub fn skewed(random: &mut Random) -> Clock {
        let ppm = Clock::rate(random, TIMING.drift_ppm());
        Clock { offset: random.between(0, 1_000_000 * MS), ppm, wall_offset: random.between(0, 8 * MS) as i64 }
    }

    fn rate(random: &mut Random, drift_ppm: u32) -> i64 {
        let drift = i64::from(drift_ppm);
        match random.between(0, 3) {
            0 => drift,
            1 => -drift,
            _ => random.between(0, 2 * drift as u64) as i64 - drift,
        }
    }

    /// Before the history begins: it runs within what is assumed of it, and that may be much.
    pub fn skew(&mut self, random: &mut Random, drift_ppm: u32) {
        self.ppm = Clock::rate(random, drift_ppm);
    }

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

/// The coordinator that `what` would wake.
pub fn for_coordinator(what: &What) -> Option<Id> {
    match what {
        What::Deliver { to, .. } => Some(*to),
        What::Own { host, .. } | What::Heard { host, .. } => Some(*host),
        What::Ask { .. } | What::Deadline { .. } | What::Killed { .. } | What::Resume { .. } | What::Fault(_) => None,
        What::Backstop { .. } | What::GuardGoesOn { .. } | What::Flushed { .. } => None,
        What::Block { .. } | What::Lag { .. } | What::Approve { .. } | What::Wants { .. } => None,
    }
}

impl World {
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
}
