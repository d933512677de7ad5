//! Every rule of the safety argument that is left out is found missing: two nodes sign at once, or a height twice. The
//! histories are random ones, or of a kind that brings about the very moment for which the rule is there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::oracle::End;
use crate::tally::Kind;
use crate::trial::{failover, trial};
use crate::trouble::Trouble;
use crate::world::Without;
use crate::{
    DEATH_SEEDS, Story, approvals, chain, complaint, faults, left_out, lively, number, plot, run_all, scene, signing,
};

/// What makes a history of a seed, if it makes the cluster that is needed.
type SomeStory = fn(u64, Without, bool) -> Option<End>;

/// By its name in `STORY`; the name of a `Trouble` is one.
pub fn story(name: &str) -> Story {
    if let Some(trouble) = Trouble::ALL.into_iter().find(|trouble| format!("{trouble:?}") == name) {
        return found(move |seed, without, traced| trial(trouble, seed, without, traced));
    }
    match name {
        "approvals" => Box::new(approvals::handovers),
        "grown" => found(faults::grown),
        "overtaken" => found(scene::overtaken),
        "start_under_way" => found(plot::start_under_way),
        "released_and_claimed" => found(plot::released_and_claimed),
        "release_of_an_earlier_term" => found(plot::release_of_an_earlier_term),
        "shorter_lease_after_a_restart" => found(plot::shorter_lease_after_a_restart),
        "guard_that_is_late" => found(plot::guard_that_is_late),
        "late_clock" => Box::new(chain::deaths_beside_a_late_clock),
        "signers" => Box::new(signing::signers),
        "set_back" => found(signing::set_back),
        "series" => found(lively::series),
        "failover" => found(failover),
        name => panic!("STORY={name} is not known; see tests/sim/left_out.rs"),
    }
}

fn found(story: impl Fn(u64, Without, bool) -> Option<End> + 'static) -> Story {
    Box::new(move |seed, without, traced| {
        story(seed, without, traced).unwrap_or_else(|| panic!("seed {seed} makes another cluster than it needs"))
    })
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

#[test]
fn without_a_look_at_its_clock_a_host_that_is_late_signs_a_height_again() {
    let story = chain::deaths_beside_a_late_clock;
    let doubles = |seed: &u64| story(*seed, Without::Clock, false).verdict.keys.values().any(|key| key.doubles > 0);
    let found = || (1..=400).filter(doubles).collect::<Vec<u64>>();
    assert!(doubles(&37), "not in the history of 37, and in those of {:?}", found());
    for seed in 1..=60 {
        let complaint = complaint(&story(seed, Without::Nothing, false));
        assert!(complaint.is_none(), "SEED={seed}: {complaint:?}");
    }
}

#[test]
fn with_both_halves_of_the_mark_nothing_is_approved_that_one_node_would_not_approve() {
    let (mut handovers, mut marks) = (0, 0);
    let seeds = number("SEEDS").unwrap_or(DEATH_SEEDS);
    for seed in 1..=seeds {
        let end = approvals::handovers(seed, Without::Nothing, false);
        let complaint = complaint(&end);
        assert!(complaint.is_none() && end.live.is_some() && end.struck == 3, "SEED={seed}: {complaint:?}");
        (handovers, marks) = (handovers + end.handovers, marks + u64::from(end.marks));
    }
    eprintln!("{handovers} handovers, {marks} marks in {seeds} histories");
    assert!(handovers > seeds && marks > seeds, "{handovers} handovers, {marks} marks");
}

/// Something is approved in the history of `seed` that one node would not approve.
fn assert_conflict(seed: u64, without: Without) {
    let conflicts = |seed: &u64| approvals::handovers(*seed, without, false).conflict.is_some();
    let found = || (1..=DEATH_SEEDS).filter(conflicts).collect::<Vec<u64>>();
    assert!(conflicts(&seed), "without {without:?} not in the history of {seed}, and in those of {:?}", found());
}

#[test]
fn with_a_mark_without_the_old_holders_head_a_height_is_signed_anew() {
    assert_conflict(6, Without::MarkHead);
}

#[test]
fn with_a_mark_without_the_old_holders_approvals_a_height_is_endorsed_that_was_skipped() {
    assert_conflict(92, Without::MarkApprovals);
}

/// A search that finds nothing in this time has failed.
const WITHIN: Duration = Duration::from_secs(600);

/// How many histories it takes from the `first` seed on until an overlap is found; `None` when none is found in time.
fn schedules_to_overlap(without: Without, first: u64, within: Duration) -> Option<u64> {
    let began = Instant::now();
    let found = AtomicU64::new(0);
    let ran = run_all(without, u64::MAX / 2, first, |seed, end| {
        if end.overlap.is_some() {
            found.store(seed, Ordering::Relaxed);
        }
        end.overlap.is_some() || began.elapsed() > within
    });
    let found = found.into_inner();
    eprintln!("without {without:?}: {ran} schedules in {:?}, overlap with seed {found}", began.elapsed());
    (found > 0).then_some(ran)
}

/// `MUTATION=NoSecondClaim WITHIN_S=600`; with FIRST=… it begins elsewhere.
#[test]
#[ignore = "a search of minutes"]
fn a_rule_that_is_left_out_on_request_is_found_missing() {
    let without = left_out().expect("MUTATION=…");
    let within = Duration::from_secs(number("WITHIN_S").unwrap_or(60));
    let first = number("FIRST").unwrap_or(1);
    assert!(schedules_to_overlap(without, first, within).is_some(), "no overlap within {within:?}");
}

/// Of some histories of one kind.
struct Overlaps {
    /// The seeds of those in which two nodes sign.
    found: Vec<u64>,
    ends: Vec<End>,
}

fn overlaps(story: SomeStory, seeds: u64, without: Without) -> Overlaps {
    let ends: Vec<(u64, End)> =
        (1..=seeds).filter_map(|seed| story(seed, without, false).map(|end| (seed, end))).collect();
    let found: Vec<u64> = ends.iter().filter(|(_, end)| end.overlap.is_some()).map(|(seed, _)| *seed).collect();
    eprintln!(
        "without {without:?}: two nodes sign in {} of {} histories, the first with seed {}",
        found.len(),
        ends.len(),
        found.first().unwrap_or(&0)
    );
    Overlaps { found, ends: ends.into_iter().map(|(_, end)| end).collect() }
}

#[test]
fn a_leader_of_the_smaller_cluster_does_not_hold_against_the_grown_one() {
    let grown = overlaps(faults::grown, 300, Without::Nothing);
    assert!(grown.found.is_empty() && grown.ends.len() > 20);
}

#[test]
fn with_a_leader_that_hears_of_no_new_voters_two_nodes_sign() {
    assert!(!overlaps(faults::grown, 300, Without::Voters).found.is_empty());
}

#[test]
fn without_the_guards_deadline_two_nodes_sign() {
    assert!(schedules_to_overlap(Without::Deadline, 1, WITHIN).is_some());
}

#[test]
fn without_quarantine_after_a_restart_two_nodes_sign() {
    assert!(schedules_to_overlap(Without::Quarantine, 1, WITHIN).is_some());
}

#[test]
fn without_promises_two_nodes_sign() {
    assert!(schedules_to_overlap(Without::Promise, 1, WITHIN).is_some());
}

#[test]
fn with_a_stopped_guard_that_nobody_kills_two_nodes_sign() {
    assert!(schedules_to_overlap(Without::Backstop, 1, WITHIN).is_some());
}

#[test]
fn without_the_comparison_of_their_leases_two_nodes_sign() {
    assert!(schedules_to_overlap(Without::Comparison, 1, WITHIN).is_some());
}

#[test]
fn without_promises_that_outlive_a_restart_two_nodes_sign() {
    assert_needed(plot::shorter_lease_after_a_restart, 3, Without::Remembered);
}

#[test]
fn a_snapshot_of_an_earlier_leader_that_is_installed_late_takes_no_promise_over() {
    let overtaken = overlaps(scene::overtaken, 400, Without::Nothing);
    let late = overtaken.ends.iter().filter(|end| end.tally.of(Kind::LateAcceptance) > 0).count();
    assert!(overtaken.found.is_empty() && late > 20, "{:?}, {late} with a late report", overtaken.found);
}

#[test]
fn with_a_promise_that_has_no_term_two_nodes_sign() {
    assert!(!overlaps(scene::overtaken, 400, Without::PromiseTerm).found.is_empty());
}

/// Two nodes sign in the history of `seed` without a rule; with it they do in none of the first seeds, and somebody is
/// active in the end.
fn assert_needed(story: SomeStory, seed: u64, without: Without) {
    let history = |seed, without| story(seed, without, false);
    let end = history(seed, without).expect("a cluster of three");
    if end.overlap.is_none() {
        overlaps(story, 200, without);
    }
    assert!(end.overlap.is_some(), "without {without:?}, seed {seed}: {:?}", complaint(&end));
    for seed in (1..=60).chain([seed]) {
        let complaint = history(seed, Without::Nothing).and_then(|end| complaint(&end));
        assert!(complaint.is_none(), "with {without:?} in force, seed {seed}: {complaint:?}");
    }
}

#[test]
fn without_proof_of_its_node_a_member_whose_guard_is_late_helps_its_successor() {
    assert_needed(plot::guard_that_is_late, 1, Without::NodeProof);
}

#[test]
fn with_a_release_of_any_term_as_waiver_two_nodes_sign() {
    assert_needed(plot::release_of_an_earlier_term, 1, Without::ReleaseOfTheTerm);
}

#[test]
fn with_a_second_claim_in_a_released_term_two_nodes_sign() {
    assert_needed(plot::released_and_claimed, 1, Without::NoSecondClaim);
}

#[test]
fn with_a_start_under_way_that_nobody_waits_for_two_nodes_sign() {
    assert_needed(plot::start_under_way, 1, Without::AwaitedStart);
}
