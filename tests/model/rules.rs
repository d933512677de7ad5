//! What is explored: the bounds, the clocks, and the rule of the safety argument that is left out.

use std::time::Duration;

use baton::base::timing::Timing;

use crate::host::NAMES;
use crate::members::{Change, Members, Set};
use crate::raft::Id;

/// Nanoseconds that a clock advances in a tick of true time (100 ms).
pub const SLOW: u64 = 90_000_000;
pub const FAST: u64 = 110_000_000;
/// The error of those clocks, the largest that `Timing` admits.
const DRIFT_PPM: u32 = 100_000;

/// A rule that is left out, to see what it is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Without {
    Nothing,
    /// Rule (a).
    Quarantine,
    /// Rule (b).
    Promise,
    /// Rule (b) as far as a leader promises itself what its followers promised it.
    OwnPromise,
    /// Rule (c).
    NodeProof,
    NodeProofAndOwnPromise,
    /// Rule W without "of term T".
    ReleaseOfTheTerm,
    /// Rule W without "never again in T".
    NoSecondClaim,
    /// The guard never fires.
    Deadline,
    /// The timing is made for clocks without error.
    Drift,
    /// Rule (b) at a member that has no vote by its own log.
    LearnersPromise,
    /// A leader's core hears of no new voters.
    Voters,
    /// The core hears of voters when their entry is committed, not when it stands in the log.
    VotersAtAppend,
    /// A lease is counted over the newer set of a joint membership alone.
    OlderSet,
    /// A lease is counted over the older set of a joint membership alone.
    NewerSet,
    /// A lease is counted over all voters of a joint membership as if they were one set.
    TwoSets,
    /// A follower promises for its own lease alone, and the leader counts on its own.
    Comparison,
    /// A restarted member remembers no promise that is longer than its own lease asks for.
    Remembered,
    /// A promise has no term: whoever is reported last has it.
    PromiseTerm,
}

impl Without {
    /// What else is left out once rule (c) is.
    pub fn but_for_the_node(self) -> Without {
        if self == Without::NodeProofAndOwnPromise { Without::OwnPromise } else { Without::Nothing }
    }

    /// The sets of which a lease needs a quorum each.
    pub fn counted(self, members: &Members) -> Vec<Set> {
        let (older, newer) = (members.leaving.unwrap_or(members.voters), members.voters);
        if self == Without::OlderSet {
            vec![newer]
        } else if self == Without::NewerSet {
            vec![older]
        } else if self == Without::TwoSets {
            vec![older | newer]
        } else {
            members.sets().collect()
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub without: Without,
    pub timings: [Timing; 3],
    /// Nanoseconds a tick, of each host's clock.
    pub rates: [u64; 3],
    pub terms_max: u64,
    pub epochs_max: u64,
    /// Entries in a log.
    pub entries_max: usize,
    /// Restarts of coordinators in one history.
    pub restarts_max: u8,
    /// Whether a restart may also be one of the whole host.
    pub power: bool,
    /// Whether an answer may be lost, and not only a request.
    pub answers_lost: bool,
    /// Late messages at one time.
    pub late_max: usize,
    /// Whether an acceptance may be reported late by the follower itself, as when it installs a snapshot. One is a late
    /// message.
    pub late_reports: bool,
    pub handovers: bool,
    /// Whether a holder's chain node is upgraded in its place, at any moment.
    pub upgrades: bool,
    /// Whether `c` runs no chain node.
    pub arbiter: bool,
    /// Before the first change.
    pub members: Members,
    /// What a leader may begin, of others than itself.
    pub changes: &'static [Change],
    /// Of what it has begun and ended, in one log.
    pub changes_max: usize,
    /// Moments that lie further back than this are all the same. What decides who may sign needs none of them; when
    /// a member campaigns depends on the last ones.
    pub past: Duration,
}

impl Rules {
    pub fn new(without: Without) -> Rules {
        let drift_ppm = if without == Without::Drift { 0 } else { DRIFT_PPM };
        Rules {
            without,
            timings: [timing(drift_ppm, 300); 3],
            rates: [SLOW, FAST, FAST],
            terms_max: 2,
            epochs_max: 2,
            entries_max: usize::MAX,
            restarts_max: 0,
            power: false,
            answers_lost: true,
            late_max: 0,
            late_reports: false,
            handovers: false,
            upgrades: false,
            arbiter: false,
            members: Members::first(NAMES.len()),
            changes: &[],
            changes_max: 1,
            past: Duration::ZERO,
        }
    }
}

/// How members promise.
impl Rules {
    pub fn has_longer_lease(&mut self, member: Id) {
        self.timings[member] = timing(DRIFT_PPM, 400);
    }

    /// What `follower` promises when it accepts a request of `leader`.
    pub fn promise(&self, follower: Id, leader: Id) -> Duration {
        let [own, theirs] = [follower, leader].map(|member| self.timings[member].span());
        if self.without == Without::Comparison { own.promise() } else { own.joined(theirs).promise() }
    }

    /// What `leader` takes for promised by `follower`.
    pub fn counted(&self, leader: Id, follower: Id) -> Duration {
        let counts_own = self.without == Without::Comparison;
        if counts_own { self.timings[leader].promise() } else { self.promise(follower, leader) }
    }

    /// Nanoseconds after which the age of a late message does not matter any more: the longest promise.
    pub fn forgotten(&self) -> u64 {
        self.timings.iter().map(|timing| timing.promise().as_nanos() as u64).max().unwrap_or(0)
    }
}

/// A lease is three ticks, and at ρ = 10 % the worst clocks meet at a tick: what a slow leader was acknowledged at
/// `s`, its guard has killed for at 270 ms of its clock, and a fast follower keeps to for 330 ms of its own, which
/// both are three ticks after `s`. The longer lease is four ticks, and meets as closely.
fn timing(drift_ppm: u32, lease_ms: u64) -> Timing {
    let ms = Duration::from_millis;
    Timing::new(ms(50), ms(lease_ms), ms(100), drift_ppm).expect("the inequalities hold")
}
