//! Measures how long nobody signs after each kind of fault, over many rounds on either chain, and on CometBFT how
//! many blocks are missed. A round that does not recover ends the bench with what was seen: it is a finding, not
//! an outlier.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use serde::Serialize;

use crate::check::{check, evidence_on_cometbft};
use crate::demo::{Pair, await_pair, measured_hand_over};
use crate::faults::{self, What};
use crate::launch::{self, with_diagnosis};
use crate::measure::{self, Watch};
use crate::net::{ChainKind, Net};
use crate::procs;
use crate::table::table;
use crate::wires::{self, Request, Way};

/// A start of the node as validator may be part of the move.
const SIGN_BOUND: Duration = Duration::from_secs(40);
const STOPPED_FOR: Duration = Duration::from_secs(10);
const JITTER_MAX_MS: u64 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    Host,
    Node,
    Handover,
    CoordinatorStop,
    CoordinatorKill,
    /// The holder's host loses all of its network.
    Cut,
}

impl Fault {
    /// What is measured unless told otherwise.
    pub fn usual(chain: ChainKind) -> [Fault; 5] {
        let last = match chain {
            ChainKind::Sim => Fault::CoordinatorKill,
            ChainKind::Cometbft => Fault::Cut,
        };
        [Fault::Host, Fault::Node, Fault::Handover, Fault::CoordinatorStop, last]
    }

    pub fn name(self) -> &'static str {
        match self {
            Fault::Host => "host",
            Fault::Node => "node",
            Fault::Handover => "handover",
            Fault::CoordinatorStop => "coordinator-stop",
            Fault::CoordinatorKill => "coordinator-kill",
            Fault::Cut => "cut",
        }
    }
}

pub struct Plan {
    pub chain: ChainKind,
    pub rounds: usize,
    pub faults: Vec<Fault>,
    pub seed: u64,
    pub slot_ms: u64,
}

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
}

/// Blocks without the shared validator's signature, in a round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Missed {
    pub min: usize,
    pub median: usize,
    pub max: usize,
}

/// What one round gave.
struct Round {
    gap: Duration,
    overlap: usize,
    double: usize,
    missed: Option<usize>,
}

pub struct Results {
    /// In the order of the plan.
    pub rows: Vec<(Fault, Row)>,
    /// By the checker over the whole log.
    pub clean: bool,
}

impl Results {
    pub fn json(&self) -> Result<String> {
        let by_name: BTreeMap<&str, &Row> = self.rows.iter().map(|(fault, row)| (fault.name(), row)).collect();
        Ok(serde_json::to_string(&by_name)?)
    }

    pub fn table(&self) -> String {
        let head = ["fault", "rounds", "min ms", "median ms", "p99 ms", "max ms", "overlap", "heights signed twice"];
        let mut head = head.map(String::from).to_vec();
        if self.rows.iter().any(|(_, row)| row.missed.is_some()) {
            head.push("missed blocks (min, median, max)".into());
        }
        let mut rows = vec![head];
        for (fault, r) in &self.rows {
            let times = [r.min_ms, r.median_ms, r.p99_ms, r.max_ms].map(|ms| format!("{ms:.1}"));
            let [min, median, p99, max] = times;
            let (overlap, double) = (r.overlap.to_string(), r.double.to_string());
            let mut row = vec![fault.name().into(), r.rounds.to_string(), min, median, p99, max, overlap, double];
            row.extend(r.missed.as_ref().map(|missed| format!("{}, {}, {}", missed.min, missed.median, missed.max)));
            rows.push(row);
        }
        table(&rows)
    }
}

/// Brings a network up under `dir` and runs the plan on it. Progress goes to standard error.
pub fn run(dir: &Path, plan: &Plan) -> Result<Results> {
    eprintln!("bench: {} rounds of each fault, seed {}", plan.rounds, plan.seed);
    let net = launch::up(dir, plan.chain, plan.slot_ms, |_| ())?;
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut rows = Vec::new();
    for fault in &plan.faults {
        let mut rounds = Vec::new();
        for n in 1..=plan.rounds {
            let what = || format!("{} round {n} of {} (seed {})", fault.name(), plan.rounds, plan.seed);
            let round = with_diagnosis(&net, one_round(&net, *fault, &mut rng).with_context(what))?;
            let missed = round.missed.map(|blocks| format!(", {blocks} blocks missed")).unwrap_or_default();
            eprintln!("bench: {} {n}/{}: {:.1} ms{missed}", fault.name(), plan.rounds, ms(round.gap));
            rounds.push(round);
        }
        rows.push((*fault, summarise(&rounds).context("a fault without rounds")?));
    }
    // The hosts must be there to be asked for evidence.
    with_diagnosis(&net, await_pair(&net, |_| ()))?;
    let verdict = check(&net)?;
    if !verdict.is_clean() {
        eprint!("{verdict}");
    }
    Ok(Results { rows, clean: verdict.is_clean() })
}

/// A holder that signed this often has been one for longer than the overlap window.
const STEADY_SIGNATURES: usize = 12;
const STEADY_BOUND: Duration = Duration::from_secs(20);
/// On a busy machine a holder may lose its lease by itself; one that never keeps it is no ground to measure on.
const STEADY_ATTEMPTS: usize = 3;

/// A holder that has been one for a while, and a ready standby. A move there and back within the overlap window
/// would look like two signers at once.
pub fn await_steady(net: &Net) -> Result<Pair> {
    let mut lost = None;
    for _ in 0..STEADY_ATTEMPTS {
        let pair = await_pair(net, |_| ())?;
        match Watch::begin(net)?.await_by(&pair.holder, STEADY_SIGNATURES, STEADY_BOUND) {
            Ok(()) => return Ok(pair),
            Err(error) => lost = Some(error),
        }
    }
    Err(lost.context("no attempt was made")?)
}

fn one_round(net: &Net, fault: Fault, rng: &mut StdRng) -> Result<Round> {
    let pair = await_steady(net)?;
    // At any point of a slot and of a heartbeat, not always just after a poll of the status.
    std::thread::sleep(Duration::from_micros(rng.random_range(0..JITTER_MAX_MS * 1000)));
    let mut watch = Watch::begin(net)?;
    let head_before = match net.chain {
        ChainKind::Sim => None,
        ChainKind::Cometbft => Some(measure::head(net)?),
    };
    let gap = strike(net, fault, &pair, &mut watch)?;
    await_pair(net, |_| ()).context("recover after the fault")?;
    let missed = match head_before {
        None => None,
        Some(before) => {
            // The commit of the newest block is still growing.
            await_steady(net)?;
            let heights = before..measure::head(net)?;
            let found = evidence_on_cometbft(net, heights.clone())?;
            if !found.is_empty() {
                bail!("VIOLATED: {}", found.join("; "));
            }
            Some(measure::missed_blocks(net, heights.start, heights.end)?)
        }
    };
    watch.poll()?;
    let report = watch.report().context("a round without signatures")?;
    Ok(Round { gap, overlap: report.overlap, double: report.doubles + report.out_of_order, missed })
}

/// Breaks the holder, awaits the next signature by another host, puts the broken thing right.
fn strike(net: &Net, fault: Fault, pair: &Pair, watch: &mut Watch) -> Result<Duration> {
    let holder = pair.holder.as_str();
    match fault {
        Fault::Handover => Ok(measured_hand_over(net, pair, watch)?.pause),
        Fault::Host => {
            let targets = faults::find(net, holder, What::Host)?;
            let at = watch.now_ns();
            faults::kill_host(net, holder, &targets)?;
            let gap = gap_since(watch, at, holder)?;
            launch::start_coordinator(net, holder)?;
            Ok(gap)
        }
        Fault::Node => {
            let targets = faults::find(net, holder, What::Node)?;
            let at = watch.now_ns();
            faults::kill(&targets)?;
            gap_since(watch, at, holder)
        }
        Fault::CoordinatorKill => {
            let targets = faults::find(net, holder, What::Coordinator)?;
            let at = watch.now_ns();
            faults::kill(&targets)?;
            let gap = gap_since(watch, at, holder)?;
            launch::start_coordinator(net, holder)?;
            Ok(gap)
        }
        Fault::CoordinatorStop => {
            let targets = faults::find(net, holder, What::Coordinator)?;
            let (at, stopped) = (watch.now_ns(), Instant::now());
            procs::signal(&targets, Signal::STOP)?;
            let gap = gap_since(watch, at, holder);
            std::thread::sleep(STOPPED_FOR.saturating_sub(stopped.elapsed()));
            procs::signal(&targets, Signal::CONT)?;
            gap
        }
        Fault::Cut => {
            let at = watch.now_ns();
            wires::ask(&net.wires_socket(), &Request::Cut { host: holder.into(), ways: vec![Way::In, Way::Out] })?;
            let gap = gap_since(watch, at, holder);
            wires::ask(&net.wires_socket(), &Request::Heal { host: holder.into() })?;
            gap
        }
    }
}

fn gap_since(watch: &mut Watch, at_ns: u64, old: &str) -> Result<Duration> {
    let next = watch.await_next(at_ns, old, SIGN_BOUND)?;
    Ok(Duration::from_nanos(next.at_ns - at_ns))
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

fn summarise(rounds: &[Round]) -> Option<Row> {
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
        missed: summarise_missed(rounds),
    })
}

fn summarise_missed(rounds: &[Round]) -> Option<Missed> {
    let mut missed: Vec<usize> = rounds.iter().filter_map(|r| r.missed).collect();
    missed.sort_unstable();
    Some(Missed { min: *missed.first()?, median: percentile(&missed, 50)?, max: *missed.last()? })
}

/// Nearest rank: the smallest value that at least `percent` of the sorted values do not exceed.
fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// # Errors
/// Says which faults there are; a fault that is named twice is refused, as it would have one row.
pub fn distinct(faults: Vec<Fault>, chain: ChainKind) -> Result<Vec<Fault>> {
    if faults.is_empty() {
        return Ok(Fault::usual(chain).to_vec());
    }
    for (i, fault) in faults.iter().enumerate() {
        if faults[..i].contains(fault) {
            bail!(crate::net::Usage(format!("--faults names {} twice", fault.name())));
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(gaps: impl Iterator<Item = u64>) -> Vec<Round> {
        gaps.map(|ms| Round { gap: Duration::from_millis(ms), overlap: 0, double: 1, missed: None }).collect()
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let row = summarise(&rounds((1..=200).rev())).unwrap();
        assert_eq!((row.min_ms, row.median_ms, row.p99_ms, row.max_ms), (1.0, 100.0, 198.0, 200.0));
        let row = summarise(&rounds([7].into_iter())).unwrap();
        assert_eq!((row.min_ms, row.median_ms, row.p99_ms, row.max_ms, row.double), (7.0, 7.0, 7.0, 7.0, 1));
        assert_eq!(summarise(&[]), None);
    }

    #[test]
    fn missed_blocks_stand_in_the_table_of_a_chain_that_tells() {
        let missed = |blocks| Round { gap: Duration::from_millis(9), overlap: 0, double: 0, missed: Some(blocks) };
        let row = summarise(&[missed(5), missed(1), missed(2)]).unwrap();
        assert_eq!(row.missed, Some(Missed { min: 1, median: 2, max: 5 }));
        let table = Results { rows: vec![(Fault::Cut, row)], clean: true }.table();
        assert!(table.contains("missed blocks") && table.contains("1, 2, 5"), "{table}");
    }

    #[test]
    fn the_json_has_a_row_by_the_name_of_each_fault() {
        let row = summarise(&rounds([3, 5].into_iter())).unwrap();
        let results = Results { rows: vec![(Fault::Host, row.clone()), (Fault::CoordinatorStop, row)], clean: true };
        let json: serde_json::Value = serde_json::from_str(&results.json().unwrap()).unwrap();
        let keys: Vec<&str> = json["coordinator-stop"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys.len(), 7, "{json}");
        assert_eq!(json["host"]["median_ms"], 3.0);
        assert!(distinct(vec![Fault::Host, Fault::Host], ChainKind::Sim).is_err());
    }
}
