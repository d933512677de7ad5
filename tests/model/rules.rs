//! What is explored: the bounds, the clocks, and the rule of the safety argument that is left out.

use std::time::Duration;

use baton::timing::Timing;

use crate::host::NAMES;
use crate::members::{Change, Members, Set};

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
    pub timing: Timing,
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
            timing: timing(drift_ppm),
            rates: [SLOW, FAST, FAST],
            terms_max: 2,
            epochs_max: 2,
            entries_max: usize::MAX,
            restarts_max: 0,
            power: false,
            answers_lost: true,
            late_max: 0,
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

/// A lease is three ticks, and at ρ = 10 % the worst clocks meet at a tick: what a slow leader was acknowledged at
/// `s`, its guard has killed for at 270 ms of its clock, and a fast follower keeps to for 330 ms of its own, which
/// both are three ticks after `s`.
fn timing(drift_ppm: u32) -> Timing {
    let ms = Duration::from_millis;
    Timing::new(ms(50), ms(300), ms(100), drift_ppm).expect("the inequalities hold")
}
