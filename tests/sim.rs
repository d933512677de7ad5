//! Deterministic simulation of several cores with all that surrounds them: Raft, guards, chain nodes, clocks that
//! run apart, a network that loses, delays, doubles and reorders, crashes and pauses. The oracle lives in real time,
//! which no host can see: never may the chain nodes of two hosts sign at the same moment, nor any height twice. A seed
//! makes one history;
//! `SEED=n cargo test --test sim replay -- --nocapture` tells it. `SCHEDULES=n` runs more of them.

#[path = "sim/chain.rs"]
mod chain;
#[path = "sim/coordinator.rs"]
mod coordinator;
#[path = "sim/faults.rs"]
mod faults;
#[path = "sim/machine.rs"]
mod machine;
#[path = "sim/raft.rs"]
mod raft;
#[allow(dead_code)] // The judge of the localnet; the simulation writes no log.
#[path = "../localnet/src/signlog.rs"]
mod signlog;
#[path = "sim/worker.rs"]
mod worker;
#[path = "sim/world.rs"]
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use world::{End, LIVE_WITHIN, MS, Without, run};

const SCHEDULES: u64 = 2000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Runs `schedules` histories on two threads, or fewer when `stop` says so, and gives each end to `judge`.
fn run_all(without: Without, schedules: u64, first: u64, judge: impl Fn(u64, &End) -> bool + Sync) -> u64 {
    let next = AtomicU64::new(first);
    let stop = Mutex::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + schedules || *stop.lock().unwrap() {
                        return;
                    }
                    if judge(seed, &run(seed, without, false)) {
                        *stop.lock().unwrap() = true;
                    }
                }
            });
        }
    });
    next.load(Ordering::Relaxed).min(first + schedules) - first
}

fn complaint(end: &End) -> Option<String> {
    if !end.verdict.is_clean() {
        return Some(format!("{}", end.verdict));
    }
    match (&end.overlap, end.live_after) {
        (Some(overlap), _) => Some(overlap.clone()),
        // Without pre-vote, candidates with the shorter log outbid the others for ever; baton never goes without.
        (None, None) if !end.pre_vote => None,
        (None, None) => Some(format!("nobody is active {} s after the last fault", LIVE_WITHIN / MS / 1000)),
        (None, Some(_)) => None,
    }
}

/// What makes a history of a seed.
type Story = fn(u64, Without, bool) -> End;

fn tell(story: Story, seed: u64, without: Without) {
    let end = story(seed, without, true);
    let lines = number("LINES").unwrap_or(60) as usize;
    for line in end.trace.iter().skip(end.trace.len().saturating_sub(lines)) {
        eprintln!("{line}");
    }
    eprintln!("SEED={seed}: {}", complaint(&end).unwrap_or_else(|| "no complaint".into()));
    eprintln!("replay: SEED={seed} LINES=400 cargo test --test sim replay -- --nocapture");
}

#[test]
fn never_do_two_nodes_sign_and_somebody_does_once_the_faults_end() {
    let began = Instant::now();
    let (schedules, first) = (number("SCHEDULES").unwrap_or(SCHEDULES), number("FIRST").unwrap_or(1));
    let failed = Mutex::new(Vec::new());
    let totals = Mutex::new((0, 0, 0, 0, Vec::new()));
    run_all(Without::Nothing, schedules, first, |seed, end| {
        let mut totals = totals.lock().unwrap();
        totals.0 += end.events;
        totals.1 += end.claims;
        totals.2 += end.handovers;
        totals.3 += end.orders;
        if end.pre_vote {
            totals.4.extend(end.live_after.map(|after| (after / MS, seed)));
        }
        let complaint = complaint(end);
        failed.lock().unwrap().extend(complaint.map(|text| (seed, text)));
        failed.lock().unwrap().len() >= 10
    });
    let (events, claims, handovers, orders, mut live) = totals.into_inner().unwrap();
    live.sort_unstable();
    let at = |percent: usize| live.get((live.len() * percent / 100).min(live.len().saturating_sub(1)));
    eprintln!(
        "{schedules} schedules, {events} events, {claims} claims, {handovers} handovers, {orders} orders in {:?}; active again (ms, \
         seed): median {:?}, 90 % {:?}, 99 % {:?}, last {:?}",
        began.elapsed(),
        at(50),
        at(90),
        at(99),
        live.iter().rev().take(8).collect::<Vec<_>>(),
    );
    let failed = failed.into_inner().unwrap();
    if let Some((seed, _)) = failed.first() {
        tell(run, *seed, Without::Nothing);
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn replay() {
    if let Some(seed) = number("SEED") {
        let deaths = std::env::var_os("DEATHS").is_some();
        tell(if deaths { chain::deaths } else { run }, seed, Without::Nothing);
    }
}

/// Histories in which the holder is struck three times, each time as it signs.
const DEATH_SEEDS: u64 = 200;

#[test]
fn a_holder_that_dies_as_it_signs_has_no_height_signed_again() {
    let began = Instant::now();
    let (seeds, first) = (number("SEEDS").unwrap_or(DEATH_SEEDS), number("FIRST").unwrap_or(1));
    let (mut signatures, mut moves) = (0, 0);
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        let end = chain::deaths(seed, Without::Nothing, false);
        signatures += end.signatures;
        moves += end.claims;
        let complaint = match complaint(&end) {
            None if end.live_after.is_none() => Some("nobody signs any more".into()),
            None if end.struck < 3 => Some(format!("the holder was struck {} times", end.struck)),
            complaint => complaint,
        };
        failed.extend(complaint.map(|text| (seed, text)));
    }
    eprintln!("{seeds} seeds, {signatures} signatures, {moves} claims in {:?}", began.elapsed());
    if let Some((seed, _)) = failed.first() {
        tell(chain::deaths, *seed, Without::Nothing);
        eprintln!("with DEATHS=1 before SEED");
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// In how many of the histories the checker finds a height that was signed twice.
fn seeds_with_doubles(without: Without) -> usize {
    let doubles = |seed: &u64| {
        let verdict = chain::deaths(*seed, without, false).verdict;
        verdict.keys.values().any(|key| key.doubles > 0)
    };
    let found = (1..=DEATH_SEEDS).filter(doubles).count();
    eprintln!("without {without:?}: a height was signed twice in {found} of {DEATH_SEEDS} histories");
    found
}

#[test]
fn without_the_sign_floor_the_checker_finds_heights_signed_twice() {
    assert!(seeds_with_doubles(Without::Floor) > 0);
}

#[test]
fn with_a_stale_sign_state_restored_the_checker_finds_heights_signed_twice() {
    assert!(seeds_with_doubles(Without::FreshMark) > 0);
}

/// How many histories it takes until an overlap is found; `None` when none is found in time.
fn schedules_to_overlap(without: Without, within: Duration) -> Option<u64> {
    let began = Instant::now();
    let found = AtomicU64::new(0);
    let ran = run_all(without, u64::MAX / 2, 1, |seed, end| {
        if end.overlap.is_some() {
            found.store(seed, Ordering::Relaxed);
        }
        end.overlap.is_some() || began.elapsed() > within
    });
    let found = found.into_inner();
    eprintln!("without {without:?}: {ran} schedules in {:?}, overlap with seed {found}", began.elapsed());
    (found > 0).then_some(ran)
}

/// The rules whose loss shows only in long and rare histories: `MUTATION=NodeProof WITHIN_S=600`.
#[test]
fn a_rule_is_left_out_on_request() {
    const RARE: [Without; 5] = [
        Without::Quarantine,
        Without::NodeProof,
        Without::ReleaseOfTheTerm,
        Without::NoSecondClaim,
        Without::AwaitedStart,
    ];
    let Ok(name) = std::env::var("MUTATION") else { return };
    let without = RARE.into_iter().find(|rule| format!("{rule:?}") == name);
    let without = without.unwrap_or_else(|| panic!("MUTATION={name} is none of {RARE:?}"));
    let found = schedules_to_overlap(without, Duration::from_secs(number("WITHIN_S").unwrap_or(60)));
    eprintln!("{name}: overlap after {found:?} schedules");
}

#[test]
fn without_the_guards_deadline_two_nodes_sign() {
    assert!(schedules_to_overlap(Without::Deadline, Duration::from_secs(20)).is_some());
}

#[test]
fn without_promises_two_nodes_sign() {
    assert!(schedules_to_overlap(Without::Promise, Duration::from_secs(20)).is_some());
}

#[test]
fn with_a_second_claim_in_a_released_term_two_nodes_sign() {
    assert!(schedules_to_overlap(Without::NoSecondClaim, Duration::from_secs(120)).is_some());
}
