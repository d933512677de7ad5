//! Liveness is judged like safety: faults strike the holder's host, or whoever would take over from it, one after the
//! other while all else does well. Somebody signs within the limit of each, also while it lasts.

use std::time::Duration;

use baton::base::ids::Role;

use crate::members::ids;
use crate::oracle::End;
use crate::plot::{Cast, Plot, has_settled};
use crate::raft::Id;
use crate::trouble::{Struck, Trouble};
use crate::world::{MS, Without, World};

/// A slot of the chain: signatures are no closer.
pub const SLOT: u64 = 100 * MS;
/// Longer than any limit.
const LASTS: u64 = 15_000 * MS;
/// Whoever was struck, and came back, is ready again by then.
const PATIENCE: u64 = 90_000 * MS;

#[derive(Clone, Copy, Debug)]
pub struct Strike {
    pub trouble: Trouble,
    pub at: u64,
    ends: u64,
}

#[derive(Debug, Default)]
pub struct Strikes {
    planned: Vec<(Trouble, u64)>,
    not_before: u64,
    pub made: Vec<Strike>,
}

/// One fault that lasts for longer than its limit. `None` for a seed that makes another cluster than it needs.
pub fn trial(trouble: Trouble, seed: u64, without: Without, traced: bool) -> Option<End> {
    trials(vec![(trouble, LASTS)], seed, without, traced)
}

/// The holder's host is lost, and members have timings of their own.
pub fn failover(seed: u64, without: Without, traced: bool) -> Option<End> {
    let mut world = World::new(seed, without, traced);
    world.vary();
    play(world, vec![(Trouble::HostLost, LASTS)])
}

/// Several faults, short or long.
pub fn trials(planned: Vec<(Trouble, u64)>, seed: u64, without: Without, traced: bool) -> Option<End> {
    play(World::new(seed, without, traced), planned)
}

fn play(mut world: World, planned: Vec<(Trouble, u64)>) -> Option<End> {
    if !planned.iter().all(|(trouble, _)| suits(*trouble, &world)) {
        return None;
    }
    (world.loss, world.delay) = (0, 5 * MS);
    (world.failback, world.pre_vote) = (false, true);
    (world.chain.slot, world.stop_timeout) = (SLOT, 30_000 * MS);
    (world.faults_end, world.patience) = (u64::MAX, PATIENCE);
    let not_before = world.odd.between(2_500, 4_500) * MS;
    world.strikes = Strikes { planned, not_before, made: Vec::new() };
    world.plot = Some(Plot::new(&[begin]));
    Some(world.run_to_end())
}

fn suits(trouble: Trouble, world: &World) -> bool {
    let voters: Vec<Id> = ids(world.newest_members().voters).collect();
    let validators = voters.iter().filter(|id| world.hosts[**id].role == Role::Validator).count();
    let (needed, of) = trouble.needs();
    world.count() == voters.len() && voters.len() <= 5 && validators >= needed && of.is_none_or(|of| of == voters.len())
}

fn begin(world: &mut World, cast: &mut Cast) -> bool {
    let is_due = world.at >= world.strikes.not_before && !world.strikes.planned.is_empty();
    let signed_at = world.chain.log.last().map_or(0, |signature| signature.at.as_nanos());
    if !is_due || world.at > signed_at + 2 * SLOT || !has_settled(world, cast) {
        return false;
    }
    let (trouble, lasts) = world.strikes.planned[0];
    if matches!(trouble, Trouble::IdleGuardHangs | Trouble::ClockAhead) && !world.could_hand_over(cast.old, cast.third)
    {
        return false;
    }
    world.strikes.planned.remove(0);
    world.note(|| format!("{trouble:?} strikes {cast:?} for {} ms", lasts / MS));
    let strike = Strike { trouble, at: world.at, ends: world.at + lasts };
    world.strikes.made.push(strike);
    world.trouble(trouble, Struck { holder: cast.old, next: cast.new, third: cast.third }, lasts);
    world.plan_end(lasts);
    let last = world.strikes.planned.is_empty();
    world.faults_end = if last { strike.ends } else { u64::MAX };
    world.patience = strike.ends + PATIENCE;
    world.strikes.not_before = strike.ends + world.odd.between(0, 2_000) * MS;
    last
}

impl End {
    /// For how long nobody signed while `strike` lasted.
    pub fn silence(&self, strike: &Strike) -> Duration {
        let during = self.signed_at.iter().copied().filter(|at| (strike.at..strike.ends).contains(at));
        let moments: Vec<u64> = [strike.at].into_iter().chain(during).chain([strike.ends]).collect();
        let longest = moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        Duration::from_nanos(longest)
    }
}
