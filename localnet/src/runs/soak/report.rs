//! What a soak gave, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::series::{Rule, Summary};
use crate::judge::table::table;

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub seconds: f64,
    pub limits: String,
    pub handovers: u64,
    /// Epochs that began without a handover that was asked for.
    pub leases_lost: u64,
    pub killed_for_memory: u64,
    /// By host, where hosts have control groups: tenths of seconds in which it had used up its processor.
    pub throttled_periods: BTreeMap<String, u64>,
    pub figures: Vec<Summary>,
    /// By the checker over the whole log.
    pub clean: bool,
}

impl Report {
    pub fn is_good(&self) -> bool {
        let bounded = self.figures.iter().all(|figure| figure.verdict.is_good());
        bounded && self.leases_lost == 0 && self.killed_for_memory == 0 && self.clean
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { seconds, limits, handovers, .. } = self;
        writeln!(f, "{seconds:.0} s, {limits}, {handovers} handovers\n")?;
        let head = ["host", "figure", "least", "median", "most", "an hour", "rise", "may grow", ""];
        let rows: Vec<Vec<String>> =
            std::iter::once(head.map(String::from).to_vec()).chain(self.figures.iter().map(row)).collect();
        writeln!(f, "{}", table(&rows))?;
        writeln!(
            f,
            "\"an hour\" is the median slope after the first quarter, \"rise\" the last quarter's median less the"
        )?;
        writeln!(f, "second's; a figure GROWS when both are above what it may.")?;
        let throttled: Vec<String> = self.throttled_periods.iter().map(|(host, n)| format!("{host} {n}")).collect();
        if !throttled.is_empty() {
            writeln!(f, "tenths of seconds without processor time left: {}", throttled.join(", "))?;
        }
        writeln!(f, "killed for want of memory: {}", self.killed_for_memory)?;
        writeln!(f, "leases lost: {}", self.leases_lost)?;
        writeln!(f, "{}", if self.clean { "clean" } else { "VIOLATED" })
    }
}

fn row(of: &Summary) -> Vec<String> {
    let number = |value: f64| format!("{value:.2}");
    let may = match of.rule {
        Rule::Free => String::new(),
        Rule::Grows { per_hour, grain } => format!("{per_hour} an hour, {grain}"),
        Rule::GrowsBelow { per_hour, grain, most } => format!("{per_hour} an hour, {grain}, to {most}"),
    };
    let numbers = [of.min, of.median, of.max, of.slope_per_hour, of.rise].map(number);
    let ends = [may, of.verdict.word().into()];
    [of.host.clone(), of.figure.into()].into_iter().chain(numbers).chain(ends).collect()
}
