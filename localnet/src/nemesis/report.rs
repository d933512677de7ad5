//! What a run says at its end: how often each kind of fault was really in force, and what was signed wrongly then.

use std::collections::BTreeMap;

use super::fault::Kind;
use crate::check::Verdict;
use crate::table::table;

const HANDOVER: &str = "handover under a fault";

/// Of one kind of fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub tried: usize,
    pub in_force: usize,
    /// Rounds with this fault in which something was signed twice or by two; two faults of a round share it.
    pub violated: usize,
}

#[derive(Default)]
pub struct Tallies {
    /// Of every kind that is part of the run.
    pub faults: BTreeMap<Kind, Tally>,
    pub handovers: Tally,
}

impl Tallies {
    pub fn table(&self) -> String {
        let mut rows = vec![["fault", "tried", "in force", "rounds violated"].map(String::from).to_vec()];
        let mut row = |name: &str, tally: Tally| {
            let numbers = [tally.tried, tally.in_force, tally.violated].map(|number| number.to_string());
            rows.push([name.to_string()].into_iter().chain(numbers).collect());
        };
        self.faults.iter().for_each(|(kind, tally)| row(kind.name(), *tally));
        row(HANDOVER, self.handovers);
        table(&rows)
    }
}

pub struct Results {
    pub tallies: Tallies,
    /// Rounds in which something was signed twice or by two, by number.
    pub violated: Vec<usize>,
    /// By the checker, over everything that was signed.
    pub verdict: Verdict,
}

impl Results {
    /// In one line; `None` for a clean run.
    pub fn failure(&self) -> Option<String> {
        // A round is judged apart from the others, and may be seen to be violated where the whole log is not.
        let by_round = || (!self.violated.is_empty()).then(|| format!("rounds {:?} were violated", self.violated));
        self.verdict.failure().or_else(by_round)
    }

    /// Kinds of faults that were never in force: of these the run says nothing.
    pub fn missed(&self) -> Vec<&'static str> {
        let faults = self.tallies.faults.iter().map(|(kind, tally)| (kind.name(), *tally));
        let all = faults.chain([(HANDOVER, self.tallies.handovers)]);
        all.filter(|(_, tally)| tally.in_force == 0).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_was_never_in_force_is_named() {
        let once = Tally { tried: 1, in_force: 1, violated: 0 };
        let mut faults: BTreeMap<Kind, Tally> = Kind::ALL.map(|kind| (kind, once)).into();
        faults.insert(Kind::TornStore, Tally { tried: 3, in_force: 0, violated: 2 });
        let tallies = Tallies { faults, handovers: once };
        let results = Results { tallies, violated: vec![7], verdict: Verdict::default() };
        assert_eq!(results.missed(), ["torn store"]);
        assert_eq!(results.failure().as_deref(), Some("rounds [7] were violated"));
        let table = results.tallies.table();
        let row = table.lines().find(|line| line.starts_with("torn store")).expect("a row");
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["torn", "store", "3", "0", "2"], "{table}");
    }
}
