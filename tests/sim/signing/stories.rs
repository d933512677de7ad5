//! Histories in which the log decides what is signed, and the rules that are left out of them.

use std::sync::Mutex;
use std::time::Instant;

use baton::base::ids::Role;

use super::Signing;
use crate::faults::Fault;
use crate::members::ids;
use crate::oracle::End;
use crate::tally::Kind;
use crate::world::{MS, Without, World};
use crate::{complaint, number, tell};

const SLOT: u64 = 100 * MS;
/// Histories of an ordinary run. `SCHEDULES` makes them more, by one for each of so many.
const SEEDS: u64 = 100;
const SCHEDULES_EACH: u64 = 20;

/// Any faults, and now and then all hosts lose their power at once.
pub fn signers(seed: u64, without: Without, traced: bool) -> End {
    let mut world = World::new(seed, without, traced);
    world.vary();
    let mut signing = Signing::new(seed, world.count());
    let blackouts: Vec<u64> = (0..signing.random.between(0, 3)).map(|_| signing.random.between(1_500, 8_000)).collect();
    world.chain.slot = SLOT;
    world.signing = Some(signing);
    world.plan_faults(seed);
    let ends = world.faults_end;
    for at in blackouts.into_iter().filter(|at| at * MS + 700 * MS < ends) {
        world.plan_blackout(at * MS, 500 * MS);
    }
    world.run_to_end()
}

/// One host signs, and all logs are set back to an older copy when the power fails: against what the argument rests on.
/// The signer's own mark is what is left. `None` for a seed that makes another cluster than one of three.
pub fn set_back(seed: u64, without: Without, traced: bool) -> Option<End> {
    let mut world = World::new(seed, without, traced);
    if world.count() != 3 || ids(world.newest_members().voters).count() != 3 {
        return None;
    }
    for (host, role) in [Role::Validator, Role::Arbiter, Role::Arbiter].into_iter().enumerate() {
        world.hosts[host].role = role;
    }
    (world.loss, world.delay) = (0, 2 * MS);
    let mut signing = Signing::new(seed, 3);
    signing.mark_takes = 60 * MS;
    world.chain.slot = SLOT;
    world.signing = Some(signing);
    let mut at = 4_000 * MS;
    for _ in 0..4 {
        world.plan(at, Fault::SetBack);
        at += 3_500 * MS;
    }
    world.plan_end(at);
    Some(world.run_to_end())
}

impl World {
    fn plan_blackout(&mut self, at: u64, lasts: u64) {
        for host in 0..self.count() {
            self.plan(at, Fault::Host(host));
            self.plan(at + lasts, Fault::Restart(host));
        }
    }

    /// All hosts lose their power, and their logs what came in the last half second; what was opened stays.
    pub fn set_back(&mut self) {
        for host in 0..self.count() {
            self.strike(Fault::Host(host));
            self.later(300 * MS, crate::schedule::What::Fault(Fault::Restart(host)));
        }
        let longest = self.hosts.iter().map(|host| host.raft.log.len()).min().unwrap_or(0);
        let Some(signing) = &mut self.signing else { return };
        signing.log_was_lost = true;
        signing.admitted.clear();
        let lost = signing.random.between(1, 4) as usize;
        for host in &mut self.hosts {
            host.set_back(longest.saturating_sub(lost).max(8));
        }
        // The node starts anew too, and votes on the same height again.
        for node in &mut self.signing.as_mut().expect("it signs").nodes {
            if let Some(last) = &mut node.last {
                last.place.step = baton::base::signing::Hrs::PREVOTE - 1;
                node.answered = true;
            }
        }
    }
}

#[test]
fn whatever_fails_a_place_is_signed_with_one_content_and_one_time_and_somebody_signs_once_the_faults_end() {
    let began = Instant::now();
    let (seeds, first) = (number("SCHEDULES").map_or(SEEDS, |all| all / SCHEDULES_EACH), number("FIRST").unwrap_or(1));
    let failed = Mutex::new(Vec::new());
    let (answered, cuts) = (Mutex::new(0), Mutex::new(0));
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (failed, answered, cuts) = (&failed, &answered, &cuts);
            scope.spawn(move || {
                for seed in (first..first + seeds).filter(|seed| seed % 2 == thread) {
                    let end = signers(seed, Without::Nothing, false);
                    *answered.lock().unwrap() += end.answered;
                    *cuts.lock().unwrap() += end.tally.of(Kind::HostCrash);
                    failed.lock().unwrap().extend(complaint(&end).map(|text| (seed, text)));
                }
            });
        }
    });
    let (failed, answered, cuts) =
        (failed.into_inner().unwrap(), answered.into_inner().unwrap(), cuts.into_inner().unwrap());
    eprintln!("{seeds} histories in {:.1?}: {answered} signatures, {cuts} lost hosts", began.elapsed());
    if let Some((seed, _)) = failed.first() {
        tell(&signers, *seed, Without::Nothing);
        eprintln!("with STORY=signers before SEED");
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(answered > 20 * seeds && cuts > seeds, "{answered} signatures, {cuts} lost hosts");
}

/// The history of `seed` is missigned without the rule. Otherwise says which of the first ones are.
fn assert_needed(story: impl Fn(u64, Without) -> Option<End>, seed: u64, without: Without) {
    let missigned = |seed: &u64| story(*seed, without).is_some_and(|end| end.missigned.is_some());
    let found = || (1..=300).filter(missigned).take(5).collect::<Vec<u64>>();
    assert!(missigned(&seed), "without {without:?} not in the history of {seed}, and in those of {:?}", found());
    let complaint = story(seed, Without::Nothing).and_then(|end| complaint(&end));
    assert_eq!(complaint, None, "with {without:?} in force, seed {seed}");
}

#[test]
fn each_rule_about_signing_is_needed() {
    let of_signers = |seed, without| Some(signers(seed, without, false));
    for (without, seed) in
        [(Without::Commit, 1), (Without::LowerPlaces, 2), (Without::FirstTime, 1), (Without::TimelessDigest, 1)]
    {
        assert_needed(of_signers, seed, without);
    }
}

#[test]
fn a_log_that_was_set_back_has_nothing_signed_anew_that_the_signers_mark_knows() {
    for seed in (1..=60).filter_map(|seed| set_back(seed, Without::Nothing, false).map(|end| (seed, end))) {
        let (seed, end) = seed;
        assert_eq!(end.missigned, None, "seed {seed}");
    }
    assert_needed(|seed, without| set_back(seed, without, false), 103, Without::MarkFirst);
}
