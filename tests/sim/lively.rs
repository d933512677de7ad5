//! Whoever does not sign keeps nobody from signing: every kind of trouble, with its limit; and each rule that this
//! rests on, left out.

use std::time::Duration;

use crate::oracle::End;
use crate::random::Random;
use crate::trial::{SLOT, failover, trial, trials};
use crate::trouble::Trouble;
use crate::world::{MS, Without};
use crate::{complaint, number};

/// Seeds for each kind of trouble; three in ten make the cluster that it needs.
const TRIALS: u64 = 120;

/// Of all strikes in some histories.
#[derive(Default)]
struct Silences {
    silences: Vec<(Duration, u64)>,
    complaints: Vec<(u64, String)>,
}

impl Silences {
    fn add(&mut self, seed: u64, end: &End, strikes: usize) {
        self.complaints.extend(complaint(end).map(|text| (seed, text)));
        if end.strikes.len() < strikes {
            self.complaints.push((seed, format!("{} of {strikes} strikes: nobody to strike", end.strikes.len())));
        }
        for strike in &end.strikes {
            let (silence, limit) = (end.silence(strike), Duration::from_nanos(strike.trouble.limit()));
            self.silences.push((silence, seed));
            if silence > limit {
                let (trouble, at) = (strike.trouble, strike.at / MS);
                self.complaints
                    .push((seed, format!("{trouble:?} at {at} ms: nobody signs for {silence:?} of {limit:?}")));
            }
        }
    }

    fn text(&mut self) -> String {
        self.silences.sort_unstable();
        let last = self.silences.len().saturating_sub(1);
        let at = |percent: usize| self.silences.get(last * percent / 100).map_or(0, |(time, _)| time.as_millis());
        let seed = self.silences.last().map_or(0, |(_, seed)| *seed);
        format!(
            "{} strikes, nobody signs for {} ms (median), 90 % {}, 99 % {}, last {} (seed {seed})",
            self.silences.len(),
            at(50),
            at(90),
            at(99),
            at(100)
        )
    }
}

fn silences(trouble: Trouble, seeds: impl Iterator<Item = u64>, without: Without) -> Silences {
    let mut all = Silences::default();
    for seed in seeds {
        if let Some(end) = trial(trouble, seed, without, false) {
            all.add(seed, &end, 1);
        }
    }
    eprintln!("{trouble:?} without {without:?}: {}; limit {} ms", all.text(), trouble.limit() / MS);
    all
}

fn assert_lively(troubles: &[Trouble]) {
    let (first, seeds) = (number("FIRST").unwrap_or(1), number("SEEDS").unwrap_or(TRIALS));
    for trouble in troubles {
        let all = silences(*trouble, first..first + seeds, Without::Nothing);
        assert!(all.complaints.is_empty(), "{:#?}", all.complaints);
        let (median, _) = all.silences[all.silences.len() / 2];
        assert!(median.as_nanos() as u64 <= trouble.median(), "{trouble:?}: half take {median:?}");
        assert!(all.silences.len() as u64 > seeds / 10, "{} histories", all.silences.len());
    }
}

/// In percent of the longest lease of each history. Two slots are the chain's: the next holder awaits the block of one,
/// and signs in the other.
#[test]
fn of_all_failovers_99_in_100_are_over_within_1_8_leases() {
    let (first, seeds) = (number("FIRST").unwrap_or(1), number("SEEDS").unwrap_or(10 * TRIALS));
    let mut percents: Vec<(u64, u64)> = Vec::new();
    for seed in first..first + seeds {
        if let Some(end) = failover(seed, Without::Nothing, false) {
            assert!(complaint(&end).is_none() && end.strikes.len() == 1, "seed {seed}: {:?}", complaint(&end));
            let silence = end.silence(&end.strikes[0]).as_nanos() as u64;
            percents.push((silence.saturating_sub(2 * SLOT) * 100 / end.lease, seed));
        }
    }
    percents.sort_unstable();
    let last = percents.len() - 1;
    let at = |percent: usize| percents[last * percent / 100];
    eprintln!(
        "{} failovers, in percent of a lease: median {:?}, 90 % {:?}, 99 % {:?}, last {:?} (with seeds)",
        percents.len(),
        at(50).0,
        at(90).0,
        at(99).0,
        at(100)
    );
    assert!(at(99).0 <= 180, "99 % within {} % of a lease", at(99).0);
}

#[test]
fn a_lost_host_or_node_keeps_nobody_from_signing() {
    assert_lively(&[Trouble::HostLost, Trouble::NodeKilled, Trouble::InboundCut]);
}

#[test]
fn a_holder_that_hears_nobody_while_it_is_heard_keeps_nobody_from_signing() {
    assert_lively(&[false, true].map(|proposes| Trouble::Deaf { proposes }));
    // Nobody was elected within two leases.
    let unlucky = silences(Trouble::Deaf { proposes: true }, 443..=443, Without::Nothing);
    assert!(unlucky.complaints.is_empty(), "{:#?}", unlucky.complaints);
}

#[test]
fn a_guard_or_node_that_hangs_keeps_nobody_from_signing() {
    assert_lively(&[Trouble::NodeHangs, Trouble::NodeFrozen, Trouble::GuardAndNodeFrozen, Trouble::IdleGuardHangs]);
}

#[test]
fn disks_that_are_slow_or_stuck_keep_nobody_from_signing() {
    assert_lively(&[
        Trouble::SlowSyncs(90),
        Trouble::SlowSyncs(200),
        Trouble::SlowSyncs(300),
        Trouble::DiskStuck,
        Trouble::StateStuck,
        Trouble::HomeStuck,
    ]);
}

#[test]
fn a_clock_that_is_an_hour_ahead_keeps_nobody_from_signing() {
    assert_lively(&[Trouble::ClockAhead]);
}

#[test]
fn a_follower_that_answers_late_costs_no_lease() {
    assert_lively(&[Trouble::SlowFollower]);
}

#[test]
fn a_follower_that_is_heard_again_costs_no_lease() {
    assert_lively(&[Trouble::PausedFollower(400)]);
}

/// Three faults, one after the other, that last for 0.2 to 15 s.
pub fn series(seed: u64, without: Without, traced: bool) -> Option<End> {
    let mut random = Random::new(seed ^ 0x6c69_7665);
    let planned = [(); 3].map(|()| {
        let trouble = Trouble::ALL[random.between(0, Trouble::ALL.len() as u64) as usize];
        (trouble, random.between(200, 15_000) * MS)
    });
    trials(planned.to_vec(), seed, without, traced)
}

#[test]
fn faults_of_one_host_after_the_other_keep_nobody_from_signing() {
    let (first, seeds) = (number("FIRST").unwrap_or(1), number("SEEDS").unwrap_or(2 * TRIALS));
    let mut all = Silences::default();
    for seed in first..first + seeds {
        if let Some(end) = series(seed, Without::Nothing, false) {
            all.add(seed, &end, 3);
        }
    }
    eprintln!("{}", all.text());
    assert!(all.complaints.is_empty() && !all.silences.is_empty(), "{:#?}", all.complaints);
}

/// Nobody signs for too long in the history of `seed` without a rule.
fn assert_needed(trouble: Trouble, seed: u64, without: Without) {
    let all = silences(trouble, seed..=seed, without);
    assert!(all.silences.len() == 1 && !all.complaints.is_empty(), "without {without:?}: {:?}", all.silences);
}

#[test]
fn with_a_leader_that_does_not_resign_nobody_signs() {
    assert_needed(Trouble::NodeFrozen, 1, Without::Resigning);
    assert_needed(Trouble::GuardAndNodeFrozen, 1, Without::Resigning);
}

#[test]
fn without_late_acknowledgements_a_slow_follower_costs_the_lease() {
    assert_needed(Trouble::SlowFollower, 1, Without::LateAcknowledgements);
}

#[test]
fn with_three_syncs_for_a_vote_elections_on_slow_disks_take_too_long() {
    assert_needed(Trouble::SlowSyncs(200), 37, Without::OneSync);
}

#[test]
fn with_a_vote_that_is_waited_for_as_before_nobody_is_elected_on_slow_disks() {
    assert_needed(Trouble::SlowSyncs(300), 1, Without::LongVotes);
}

#[test]
fn with_disks_that_nobody_looks_at_a_stuck_one_keeps_everybody_from_signing() {
    assert_needed(Trouble::HomeStuck, 1, Without::Pulse);
}

#[test]
fn with_heartbeats_that_nobody_answers_a_holder_that_hears_nobody_is_followed_for_longer() {
    let median = |without| {
        let all = silences(Trouble::InboundCut, 1..=10 * TRIALS, without);
        all.silences[all.silences.len() / 2].0.as_millis()
    };
    let [with, without] = [Without::Nothing, Without::Silence].map(median);
    assert!(with < without, "half take {with} and {without} ms");
    assert_needed(Trouble::Deaf { proposes: false }, 1, Without::Silence);
}

#[test]
fn with_entries_that_nobody_answers_a_holder_that_hears_nobody_is_followed_for_ever() {
    assert_needed(Trouble::Deaf { proposes: false }, 1, Without::SilentEntries);
    assert_needed(Trouble::Deaf { proposes: true }, 1, Without::SilentEntries);
}

#[test]
fn with_no_heartbeats_for_whoever_was_silent_once_a_pause_costs_the_lease() {
    assert_needed(Trouble::PausedFollower(400), 1, Without::HeardAgain);
}
