//! Members with different `[timing]`, and coordinators that start with another one than before: how long they promise,
//! and what they remember of that.

use std::time::Duration;

use baton::base::timing::Timing;
use baton::cluster::store::LongestPromise;
use baton::core::Event;

use crate::coordinator::{Request, Stage};
use crate::raft::{Appended, Id};
use crate::random::Random;
use crate::tally::Kind;
use crate::world::{MS, Without, World};

/// By these a clock may be wrong, and is.
const DRIFTS: [u32; 3] = [1_000, 5_000, 20_000];

impl World {
    /// Half of the histories have members with different timings, two in five have snapshots.
    pub fn vary(&mut self) {
        self.mixed = self.odd.chance(50);
        for host in self.hosts.iter_mut().filter(|_| self.mixed) {
            host.drift_ppm = DRIFTS[self.odd.between(0, 3) as usize];
            host.clock.skew(&mut self.odd, host.drift_ppm);
        }
        let every = self.odd.between(1, 6) as usize;
        self.snapshots.every = self.odd.chance(40).then_some(every);
    }

    /// A coordinator starts: with which timing, and for how long an earlier one may have promised.
    pub fn begin_timing(&mut self, host: Id) -> Duration {
        let now = self.local(host);
        let again = self.hosts[host].started_before;
        if self.mixed && (!again || self.odd.chance(40)) {
            let timing = timing(&mut self.odd, self.hosts[host].drift_ppm);
            self.hosts[host].timing = timing;
            self.longest_lease = self.longest_lease.max(timing.lease().as_nanos() as u64);
            self.note(|| format!("{host} has {timing:?}"));
            if again {
                self.tally.note(Kind::Retimed);
            }
        }
        let me = &mut self.hosts[host];
        let (kept, own) = (me.promises.kept(), me.timing.promise());
        me.promises = LongestPromise::new(kept, now);
        me.promises.note(own, now);
        if kept > own {
            self.tally.note(Kind::RememberedPromise);
        }
        if self.without == Without::Remembered { Duration::ZERO } else { kept }
    }

    /// A request was accepted. Before anybody hears of the promise, its file says so.
    pub fn promise(&mut self, host: Id, request: Request, appended: Appended) {
        let Request::Append { lease, arrived_at, .. } = &request else { return };
        let Some(coordinator) = &self.hosts[host].coordinator else { return };
        let asked = (self.without != Without::Comparison).then_some(*lease);
        let promise = coordinator.core.promise_to(asked);
        if self.hosts[host].promises.covers(promise, *arrived_at) {
            self.promises(host, request, appended, promise);
        } else {
            let takes = self.odd.between(MS / 10, 30 * MS);
            let after = self.stuck_for(host, takes);
            self.own(host, after, Stage::Promises { request, appended, promise });
        }
    }

    pub fn promises(&mut self, host: Id, request: Request, appended: Appended, promise: Duration) {
        let Request::Append { from, append, arrived_at, .. } = &request else { return };
        let newest = self.hosts[host].raft.term;
        if append.term < newest {
            self.tally.note(Kind::LateAcceptance);
        }
        if promise > self.hosts[host].timing.promise() {
            self.tally.note(Kind::LongerLease);
        }
        let term = if self.without == Without::PromiseTerm { newest } else { append.term };
        let (leader, arrived_at) = (self.name(*from), *arrived_at);
        self.hosts[host].promises.note(promise, arrived_at);
        self.step(host, Event::Accepted { leader, term, arrived_at, promise });
        self.answer(host, request, appended, Some(promise));
    }

    /// What the leader `host` takes for promised.
    pub fn counted(&self, host: Id, promised: Duration) -> Duration {
        if self.without == Without::Comparison { self.hosts[host].timing.promise() } else { promised }
    }
}

/// A lease of 1 to 3 s, often the shortest or the longest of these, and what goes with it.
fn timing(random: &mut Random, drift_ppm: u32) -> Timing {
    let lease = [1000, random.between(1000, 3001), 3000][random.between(0, 3) as usize];
    let heartbeat = if random.chance(50) { 150 } else { lease / 7 };
    let kill_max = random.between(120, 300);
    let ms = Duration::from_millis;
    Timing::new(ms(heartbeat), ms(lease), ms(kill_max), drift_ppm).expect("the inequalities hold")
}
