//! What a bench hands out: a row for each fault, as a table for people or as JSON. Knows nothing of networks.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::{Fault, Round};
use crate::judge::table::table;
use crate::runs::cost::{self, Cost};

/// What all rounds of one fault gave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub rounds: usize,
    pub min_ms: f64,
    pub median_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Signatures of one host between those of another.
    pub overlap: usize,
    /// Messages signed at a height that the key had signed before; of CometBFT, at a height, round and step.
    pub double: usize,
    /// On a chain whose blocks tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<Missed>,
    /// Of every round, sorted.
    #[serde(skip)]
    pub gaps_ms: Vec<f64>,
}

/// Blocks without the shared validator's signature, in a round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Missed {
    pub min: usize,
    pub median: usize,
    pub max: usize,
}

impl Row {
    pub(super) fn of(rounds: &[Round]) -> Option<Row> {
        let mut gaps: Vec<Duration> = rounds.iter().map(|r| r.gap).collect();
        gaps.sort_unstable();
        Some(Row {
            rounds: rounds.len(),
            min_ms: ms(*gaps.first()?),
            median_ms: ms(percentile(&gaps, 50)?),
            p99_ms: ms(percentile(&gaps, 99)?),
            max_ms: ms(*gaps.last()?),
            overlap: rounds.iter().map(|r| r.overlap).sum(),
            double: rounds.iter().map(|r| r.double).sum(),
            missed: Missed::of(rounds),
            gaps_ms: gaps.into_iter().map(ms).collect(),
        })
    }

    fn cells(&self) -> Vec<String> {
        let times = [self.min_ms, self.median_ms, self.p99_ms, self.max_ms].map(|ms| format!("{ms:.1}"));
        let mut cells = vec![self.rounds.to_string()];
        cells.extend(times);
        cells.extend([self.overlap.to_string(), self.double.to_string()]);
        cells.extend(self.missed.as_ref().map(|missed| format!("{}, {}, {}", missed.min, missed.median, missed.max)));
        cells
    }
}

impl Missed {
    fn of(rounds: &[Round]) -> Option<Missed> {
        let mut missed: Vec<usize> = rounds.iter().filter_map(|r| r.missed).collect();
        missed.sort_unstable();
        Some(Missed { min: *missed.first()?, median: percentile(&missed, 50)?, max: *missed.last()? })
    }
}

/// The heads of [`Row::cells`].
const HEADS: [&str; 7] = ["rounds", "min ms", "median ms", "p99 ms", "max ms", "overlap", "heights signed twice"];

/// A table whose lines begin with `labels`, and then tell of a row.
pub fn rows_table<'a, const N: usize>(
    label_heads: [&str; N],
    lines: impl Iterator<Item = ([String; N], &'a Row)> + Clone,
) -> String {
    let mut head: Vec<String> = label_heads.into_iter().chain(HEADS).map(String::from).collect();
    if lines.clone().any(|(_, row)| row.missed.is_some()) {
        head.push("missed blocks (min, median, max)".into());
    }
    let line = |(labels, row): ([String; N], &Row)| labels.into_iter().chain(row.cells()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(lines.map(line)).collect();
    table(&rows)
}

#[derive(Clone, Debug)]
pub struct Results {
    /// In the order of the plan.
    pub rows: Vec<(Fault, Row)>,
    /// By the checker over the whole log.
    pub clean: bool,
}

impl Results {
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string(&self.by_name())?)
    }

    fn by_name(&self) -> BTreeMap<&str, &Row> {
        self.rows.iter().map(|(fault, row)| (fault.name(), row)).collect()
    }

    pub fn table(&self) -> String {
        rows_table(["fault"], self.rows.iter().map(|(fault, row)| ([fault.name().into()], row)))
    }
}

/// One contender of a comparison.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: &'static str,
    pub results: Results,
    /// While nothing happens.
    pub idle: Vec<Cost>,
}

/// Two contenders, struck by the same faults.
#[derive(Clone, Debug)]
pub struct Comparison(pub [Entry; 2]);

impl Comparison {
    /// By contender: the object of [`Results::json`] as `faults`, and what it costs as `idle`.
    pub fn json(&self) -> Result<String> {
        let entry = |e: &Entry| (e.name.to_string(), json!({ "faults": e.results.by_name(), "idle": e.idle }));
        Ok(serde_json::to_string(&self.0.iter().map(entry).collect::<serde_json::Map<_, _>>())?)
    }

    /// The two lines of a fault stand one below the other.
    pub fn table(&self) -> String {
        let faults = self.0[0].results.rows.iter().map(|(fault, _)| *fault);
        let of = |fault: Fault| {
            let rows = self.0.iter().flat_map(|entry| entry.results.rows.iter().map(move |row| (entry.name, row)));
            rows.filter(move |(_, (of, _))| *of == fault)
                .map(move |(name, (_, row))| ([fault.name().to_string(), name.to_string()], row))
        };
        let gaps = rows_table(["fault", "system"], faults.flat_map(of));
        let idle = cost::table(self.0.iter().flat_map(|e| e.idle.iter().map(|cost| (e.name.to_string(), cost))));
        format!("{gaps}\nidle, each process:\n{idle}")
    }
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Nearest rank: the smallest value that at least `percent` of the sorted values do not exceed.
pub(crate) fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(gaps: impl Iterator<Item = u64>) -> Vec<Round> {
        gaps.map(|ms| Round { gap: Duration::from_millis(ms), overlap: 0, double: 1, missed: None }).collect()
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let row = Row::of(&rounds((1..=200).rev())).unwrap();
        assert_eq!((row.min_ms, row.median_ms, row.p99_ms, row.max_ms), (1.0, 100.0, 198.0, 200.0));
        let row = Row::of(&rounds([7].into_iter())).unwrap();
        assert_eq!((row.min_ms, row.median_ms, row.p99_ms, row.max_ms, row.double), (7.0, 7.0, 7.0, 7.0, 1));
        assert_eq!(Row::of(&[]), None);
    }

    #[test]
    fn missed_blocks_stand_in_the_table_of_a_chain_that_tells() {
        let missed = |blocks| Round { gap: Duration::from_millis(9), overlap: 0, double: 0, missed: Some(blocks) };
        let row = Row::of(&[missed(5), missed(1), missed(2)]).unwrap();
        assert_eq!(row.missed, Some(Missed { min: 1, median: 2, max: 5 }));
        let table = Results { rows: vec![(Fault::Cut, row)], clean: true }.table();
        assert!(table.contains("missed blocks") && table.contains("1, 2, 5"), "{table}");
    }

    #[test]
    fn the_json_has_a_row_by_the_name_of_each_fault() {
        let row = Row::of(&rounds([3, 5].into_iter())).unwrap();
        let results = Results { rows: vec![(Fault::Host, row.clone()), (Fault::CoordinatorStop, row)], clean: true };
        let json: serde_json::Value = serde_json::from_str(&results.json().unwrap()).unwrap();
        let keys: Vec<&str> = json["coordinator-stop"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys.len(), 7, "{json}");
        assert_eq!(json["host"]["median_ms"], 3.0);
    }

    #[test]
    fn a_comparison_has_both_systems_side_by_side() {
        let results = |gap| {
            let row = Row::of(&rounds([gap].into_iter())).unwrap();
            Results { rows: vec![(Fault::Host, row.clone()), (Fault::Node, row)], clean: true }
        };
        let entry = |name, gap| Entry { name, results: results(gap), idle: Vec::new() };
        let comparison = Comparison([entry("baton", 900), entry("etcd-lock", 10_000)]);
        let table = comparison.table();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!((lines[1][..2].join(" "), lines[1][3]), ("host baton".into(), "900.0"), "{table}");
        assert_eq!((lines[2][..2].join(" "), lines[2][3]), ("host etcd-lock".into(), "10000.0"), "{table}");
        let json: serde_json::Value = serde_json::from_str(&comparison.json().unwrap()).unwrap();
        assert_eq!(json["etcd-lock"]["faults"]["node"]["max_ms"], 10_000.0, "{json}");
    }
}
