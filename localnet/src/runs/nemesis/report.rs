//! What a run says at its end: how often each kind of fault was really in force, what was signed wrongly then, and how
//! long nobody signed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fault::Kind;
use super::liveness::Silence;
use crate::judge::check::Verdict;
use crate::judge::table::table;

pub const HANDOVER: &str = "handover under a fault";

/// Of one kind of fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub tried: usize,
    pub in_force: usize,
    /// Rounds with this fault in which something was signed twice or by two; two faults of a round share it.
    pub violated: usize,
    /// Rounds with this fault that left enough for somebody to have to sign.
    pub judged: usize,
    /// Silences that were too long, while the faults lasted or after.
    pub silent: usize,
    /// Of these, the one whose longest silence was the largest part of its limit.
    pub closest: Option<Silence>,
    /// Of all rounds, the silence after the faults that was the largest part of its limit.
    pub after: Option<Silence>,
    /// The longest silence of each round with this fault alone, at the holder where it can strike there.
    pub alone: Vec<Duration>,
}

impl Tally {
    pub fn judge(&mut self, silence: Silence) {
        self.judged += 1;
        self.silent += usize::from(silence.is_too_long());
        self.closest = self.closest.into_iter().chain([silence]).max_by_key(|silence| silence.permille());
    }

    pub fn judge_after(&mut self, silence: Silence) {
        self.silent += usize::from(silence.is_too_long());
        self.after = self.after.into_iter().chain([silence]).max_by_key(|silence| silence.permille());
    }

    /// Median, longest and number of rounds.
    fn alone(&self) -> String {
        let mut sorted = self.alone.clone();
        sorted.sort_unstable();
        let Some(longest) = sorted.last() else { return "-".into() };
        let median = sorted[sorted.len() / 2];
        format!("{:.2} s, {:.2} s of {}", median.as_secs_f64(), longest.as_secs_f64(), sorted.len())
    }
}

#[derive(Default)]
pub struct Tallies {
    /// Of every kind that is part of the run.
    pub faults: BTreeMap<Kind, Tally>,
    pub handovers: Tally,
    /// Decisions that were made once more from the members' records.
    pub replayed: u64,
}

impl Tallies {
    pub fn table(&self) -> String {
        let titles = [
            "fault",
            "tried",
            "in force",
            "rounds violated",
            "judged while it lasted",
            "silent",
            "closest",
            "closest after it",
            "alone, at the holder: median, longest",
        ];
        let mut rows = vec![titles.map(String::from).to_vec()];
        let mut row = |name: &str, tally: &Tally| {
            let numbers = [tally.tried, tally.in_force, tally.violated, tally.judged, tally.silent];
            let [closest, after] = [tally.closest, tally.after].map(|it| it.map_or("-".into(), |it| it.to_string()));
            let numbers = numbers.map(|number| number.to_string());
            rows.push([name.to_string()].into_iter().chain(numbers).chain([closest, after, tally.alone()]).collect());
        };
        self.faults.iter().for_each(|(kind, tally)| row(kind.name(), tally));
        row(HANDOVER, &self.handovers);
        format!("{}{} decisions were made once more from the records\n", table(&rows), self.replayed)
    }
}

pub struct Results {
    pub tallies: Tallies,
    /// Rounds in which something was signed twice or by two, by number.
    pub violated: Vec<usize>,
    /// Rounds in which nobody signed for too long, or the baton was given to a host with a hung guard, by number.
    pub silent: Vec<usize>,
    /// Rounds in which a member's record shows another decision or a broken rule, by number, and the first of it.
    pub broken: Vec<(usize, String)>,
    /// Where no chain node has the key: each round has judged them.
    pub made_by_signers: Option<usize>,
    /// By the checker, over everything that was signed.
    pub verdict: Verdict,
}

impl Results {
    /// In one line; `None` for a clean run.
    pub fn failure(&self) -> Option<String> {
        // A round is judged apart from the others, and may be seen to be violated where the whole log is not.
        let by_round = || (!self.violated.is_empty()).then(|| format!("rounds {:?} were violated", self.violated));
        let signed = self.verdict.failure().or_else(by_round);
        let silent = (!self.silent.is_empty()).then(|| format!("in rounds {:?} somebody had to sign", self.silent));
        let rounds: Vec<usize> = self.broken.iter().map(|(round, _)| *round).collect();
        let told =
            self.broken.first().map(|(_, first)| format!("in rounds {rounds:?} the records show a fault: {first}"));
        let failures: Vec<String> = signed.into_iter().chain(silent).chain(told).collect();
        (!failures.is_empty()).then(|| failures.join("; "))
    }

    /// Kinds of faults that were never in force: of these the run says nothing.
    pub fn missed(&self) -> Vec<&'static str> {
        let faults = self.tallies.faults.iter().map(|(kind, tally)| (kind.name(), tally));
        let all = faults.chain([(HANDOVER, &self.tallies.handovers)]);
        all.filter(|(_, tally)| tally.in_force == 0).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::liveness::Limit;
    use super::*;

    #[test]
    fn a_kind_that_was_never_in_force_is_named() {
        let once = Tally { tried: 1, in_force: 1, ..Tally::default() };
        let mut faults: BTreeMap<Kind, Tally> = Kind::ALL.map(|kind| (kind, once.clone())).into();
        let alone = [3, 1, 2].map(Duration::from_secs).to_vec();
        faults.insert(Kind::TornStore, Tally { tried: 3, violated: 2, alone, ..Tally::default() });
        let tallies = Tallies { faults, handovers: once, replayed: 0 };
        let results = Results {
            tallies,
            violated: vec![7],
            silent: vec![],
            broken: vec![],
            made_by_signers: None,
            verdict: Verdict::default(),
        };
        assert_eq!(results.missed(), ["torn store"]);
        assert_eq!(results.failure().as_deref(), Some("rounds [7] were violated"));
        let table = results.tallies.table();
        let row = table.lines().find(|line| line.starts_with("torn store")).expect("a row");
        let words = row.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words, "torn store 3 0 2 0 0 - - 2.00 s, 3.00 s of 3", "{table}");
    }

    #[test]
    fn a_round_that_was_too_silent_fails_the_run_and_the_closest_one_is_kept() {
        let limit = Limit { goal: Duration::from_secs(2) };
        let mut tally = Tally::default();
        for secs in [1, 8, 7] {
            tally.judge(Silence { lasted: Duration::from_secs(secs), limit });
        }
        assert_eq!((tally.judged, tally.silent), (3, 1), "7 s are within 2 s and 5 s for noise");
        assert_eq!(tally.closest.map(|silence| silence.to_string()).as_deref(), Some("8.0 s of 2.0 s"));
        tally.judge_after(Silence { lasted: Duration::from_secs(9), limit });
        assert_eq!((tally.judged, tally.silent), (3, 2), "also when the faults are over");
        let tallies = Tallies::default();
        let results = Results {
            tallies,
            violated: vec![],
            silent: vec![2, 5],
            broken: vec![(5, "1 of 9 decisions differ".into())],
            made_by_signers: None,
            verdict: Verdict::default(),
        };
        assert_eq!(
            results.failure().as_deref(),
            Some(
                "in rounds [2, 5] somebody had to sign; in rounds [5] the records show a fault: 1 of 9 decisions differ"
            )
        );
    }
}
