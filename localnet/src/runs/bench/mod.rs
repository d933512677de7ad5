//! Measures how long nobody signs after each kind of fault, over many rounds on either chain, and on CometBFT how
//! many blocks are missed; of baton alone or beside what a user would pick instead. A round that does not recover
//! ends the bench with what was seen: it is a finding, not an outlier.

pub mod plot;
mod single;
mod summary;
mod with_baton;
mod with_etcd;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::hosts::clock;
use crate::judge::check::{check, evidence_on_cometbft};
use crate::judge::measure::{self, Watch};
use crate::net::{ChainKind, Custody, Net, Shape, Usage};
use crate::process::launch::{self, with_diagnosis};
use crate::runs::cost::{self, Cost};
use crate::runs::demo::Pair;
use crate::runs::etcd::EtcdNet;
pub(crate) use summary::percentile;
pub use summary::{Comparison, Entry, Missed, Results, Row, rows_table};
pub use with_baton::await_steady;

/// A start of the node as validator may be part of the move.
const SIGN_BOUND: Duration = Duration::from_secs(40);
const JITTER_MAX_MS: u64 = 1_000;
/// For what a move left behind to come to rest, before the cost of doing nothing is measured.
const REST: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    Host,
    Node,
    Handover,
    CoordinatorStop,
    CoordinatorKill,
    /// The holder's host loses all of its network.
    Cut,
    /// Nothing reaches the holder's host any more; what it sends arrives.
    CutIn,
    /// As `host`, while every fsync of all hosts takes 90 ms longer.
    HostSyncs90,
    /// As `host`, while every fsync of all hosts takes 200 ms longer.
    HostSyncs200,
    /// The standby answers 200 ms late for ten seconds, and nobody else answers. The longest pause in signing.
    SlowFollower,
    /// SIGSTOP of the holder's chain node
    NodeStop,
    /// SIGSTOP of the holder's guard and chain node at once; the coordinator goes on
    GuardAndNodeStop,
    /// Of the holder, where the log decides what is signed. Until the next signature, by whichever host.
    SignerKill,
    /// All of the standby's processes are killed. Until the next signature of the holder.
    StandbyHost,
    /// All of an arbiter's processes are killed. Until the next signature, by whichever host.
    ArbiterHost,
    /// As `coordinator-stop`, for 20 s
    CoordinatorStop20,
    /// As `cut`, for 20 s
    Cut20,
    /// SIGSTOP of every process of the holder's host for 30 s, as of a frozen guest
    HostStop,
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
            Fault::CutIn => "cut-in",
            Fault::HostSyncs90 => "host-syncs90",
            Fault::HostSyncs200 => "host-syncs200",
            Fault::SlowFollower => "slow-follower",
            Fault::NodeStop => "node-stop",
            Fault::GuardAndNodeStop => "guard-and-node-stop",
            Fault::SignerKill => "signer-kill",
            Fault::StandbyHost => "standby-host",
            Fault::ArbiterHost => "arbiter-host",
            Fault::CoordinatorStop20 => "coordinator-stop20",
            Fault::Cut20 => "cut20",
            Fault::HostStop => "host-stop",
        }
    }

    /// What a sync takes longer meanwhile.
    fn syncs_take(self) -> Option<Duration> {
        match self {
            Fault::HostSyncs90 => Some(Duration::from_millis(90)),
            Fault::HostSyncs200 => Some(Duration::from_millis(200)),
            Fault::Host | Fault::Node | Fault::Handover | Fault::CoordinatorStop | Fault::CoordinatorKill => None,
            Fault::Cut | Fault::CutIn | Fault::Cut20 | Fault::SlowFollower => None,
            Fault::ArbiterHost | Fault::CoordinatorStop20 | Fault::HostStop => None,
            Fault::NodeStop | Fault::GuardAndNodeStop | Fault::SignerKill | Fault::StandbyHost => None,
        }
    }

    fn needs_proxies(self) -> bool {
        matches!(self, Fault::Cut | Fault::CutIn | Fault::Cut20 | Fault::SlowFollower)
    }
}

/// What a comparison is with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Against {
    /// Three members of etcd, and the chain node run by `etcdctl lock` with a lease of 10 s
    EtcdLock,
}

pub struct Plan {
    pub shape: Shape,
    pub rounds: usize,
    pub faults: Vec<Fault>,
    pub seed: u64,
}

/// What one round gave.
struct Round {
    gap: Duration,
    overlap: usize,
    double: usize,
    missed: Option<usize>,
}

/// What moves the key between hosts, as the bench sees it.
trait Contender {
    fn name(&self) -> &'static str;
    fn net(&self) -> &Net;
    /// A holder that has been one for a while, and a host that could take over. A move there and back within the
    /// overlap window would look like two signers at once.
    fn await_steady(&self) -> Result<Pair>;
    /// Breaks the holder, awaits the next signature by another host, puts the broken thing right.
    fn strike(&self, fault: Fault, pair: &Pair, watch: &mut Watch) -> Result<Duration>;
    /// There are a holder and a ready standby again.
    fn await_recovered(&self) -> Result<()>;
    /// Adds to an error what is needed to understand it.
    fn with_diagnosis(&self, result: Result<Round>) -> Result<Round>;
}

/// Brings a network up under `dir` and runs the plan on it. Progress goes to standard error.
pub fn run(dir: &Path, plan: &Plan) -> Result<Results> {
    if plan.shape.custody == Custody::Single {
        let single = single::Single::up(dir, plan.shape)?;
        let rows = rows(&single, plan)?;
        return Ok(Results { rows, clean: check(single.net())?.is_clean() });
    }
    let net = up(dir, plan)?;
    run_on(&net, plan)
}

/// A network on which the faults of the plan can be done.
fn up(dir: &Path, plan: &Plan) -> Result<Net> {
    let net = launch::prepare(dir, plan.shape)?;
    if plan.faults.iter().any(|fault| fault.syncs_take().is_some()) {
        clock::install(&net)?;
    }
    launch::start(&net, |_| ())?;
    Ok(net)
}

/// As [`run`], with what the coordination costs at idle.
pub fn enter_baton(dir: &Path, plan: &Plan) -> Result<Entry> {
    let net = up(dir, plan)?;
    let idle = with_diagnosis(&net, idle_cost(&with_baton::WithBaton(&net), IDLE))?;
    Ok(Entry { name: "baton", results: run_on(&net, plan)?, idle })
}

/// Runs the plan on a network of baton.
pub fn run_on(net: &Net, plan: &Plan) -> Result<Results> {
    let rows = rows(&with_baton::WithBaton(net), plan)?;
    // The hosts must be there to be asked for evidence.
    with_diagnosis(net, crate::runs::demo::await_pair(net, |_| ()))?;
    let verdict = check(net)?;
    if !verdict.is_clean() {
        eprint!("{verdict}");
    }
    Ok(Results { rows, clean: verdict.is_clean() })
}

/// The plan on a network in which etcd hands the key around, and what that costs at idle. That something is
/// signed twice there is a result and not an error.
pub fn enter_etcd(dir: &Path, plan: &Plan) -> Result<Entry> {
    let etcd = EtcdNet::up(dir, plan.shape)?;
    let idle = etcd.with_diagnosis(idle_cost(&etcd, IDLE))?;
    let rows = rows(&etcd, plan)?;
    Ok(Entry { name: etcd.name(), results: Results { rows, clean: check(&etcd.net)?.is_clean() }, idle })
}

/// What coordination costs while nothing happens.
fn idle_cost(contender: &dyn Contender, during: Duration) -> Result<Vec<Cost>> {
    let pair = contender.await_steady()?;
    std::thread::sleep(REST);
    eprintln!("{} at idle for {during:?}", contender.name());
    cost::watch(contender.net(), &pair.holder, during)
}

/// The cost of a network of baton at idle.
pub fn idle_cost_of_baton(net: &Net, during: Duration) -> Result<Vec<Cost>> {
    with_diagnosis(net, idle_cost(&with_baton::WithBaton(net), during))
}

/// The cost at idle of a network that is brought up under `dir`, in which etcd hands the key around.
pub fn idle_cost_of_etcd(dir: &Path, shape: Shape, during: Duration) -> Result<Vec<Cost>> {
    let etcd = EtcdNet::up(dir, shape)?;
    etcd.with_diagnosis(idle_cost(&etcd, during))
}

/// Every fault of the plan, one after the other.
fn rows(contender: &dyn Contender, plan: &Plan) -> Result<Vec<(Fault, Row)>> {
    let name = contender.name();
    eprintln!("bench: {name}, {} rounds of each fault, seed {}", plan.rounds, plan.seed);
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut rows = Vec::new();
    for fault in &plan.faults {
        let mut rounds = Vec::new();
        for n in 1..=plan.rounds {
            let what = || format!("{} round {n} of {} (seed {})", fault.name(), plan.rounds, plan.seed);
            let round = one_round(contender, *fault, &mut rng).with_context(what);
            let round = contender.with_diagnosis(round)?;
            let missed = round.missed.map(|blocks| format!(", {blocks} blocks missed")).unwrap_or_default();
            let overlap = if round.overlap > 0 { format!(", overlap {}", round.overlap) } else { String::new() };
            let gap = round.gap.as_secs_f64() * 1000.0;
            eprintln!("bench: {name}: {} {n}/{}: {gap:.1} ms{missed}{overlap}", fault.name(), plan.rounds);
            rounds.push(round);
        }
        rows.push((*fault, Row::of(&rounds).context("a fault without rounds")?));
    }
    Ok(rows)
}

fn one_round(contender: &dyn Contender, fault: Fault, rng: &mut StdRng) -> Result<Round> {
    let net = contender.net();
    let pair = contender.await_steady()?;
    // At any point of a slot and of a heartbeat, not always just after a poll of the status.
    std::thread::sleep(Duration::from_micros(rng.random_range(0..JITTER_MAX_MS * 1000)));
    let mut watch = Watch::begin(net)?;
    let head_before = match net.chain {
        ChainKind::Sim => None,
        ChainKind::Cometbft => Some(measure::head(net)?),
    };
    let gap = contender.strike(fault, &pair, &mut watch)?;
    contender.await_recovered().context("recover after the fault")?;
    let missed = match head_before {
        None => None,
        Some(before) => {
            // The commit of the newest block is still growing.
            contender.await_steady()?;
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

fn gap_since(watch: &mut Watch, at_ns: u64, old: &str) -> Result<Duration> {
    let next = watch.await_next(at_ns, old, SIGN_BOUND)?;
    Ok(Duration::from_nanos(next.at_ns - at_ns))
}

/// # Errors
/// A fault that is named twice is refused, as it would have one row; so is one that a single node cannot have.
pub fn distinct(faults: Vec<Fault>, shape: Shape) -> Result<Vec<Fault>> {
    if shape.custody == Custody::Single {
        return single::only(faults, shape.chain);
    }
    if faults.is_empty() {
        return Ok(Fault::usual(shape.chain).to_vec());
    }
    for (i, fault) in faults.iter().enumerate() {
        if faults[..i].contains(fault) {
            bail!(Usage(format!("--faults names {} twice", fault.name())));
        }
    }
    Ok(faults)
}

/// # Errors
/// What of the plan the other contender cannot be put through, or which of its programs is missing.
pub fn can_enter(against: Against, plan: &Plan) -> Result<()> {
    match against {
        Against::EtcdLock => {
            if plan.shape.chain != ChainKind::Sim {
                bail!(Usage("--against etcd-lock runs on the sim chain: leave out --chain".into()));
            }
            if plan.faults.iter().any(|fault| fault.needs_proxies()) {
                bail!(Usage("--against etcd-lock cannot cut: its members reach each other without the proxies".into()));
            }
            if plan.faults.iter().any(|fault| fault.syncs_take().is_some()) {
                bail!(Usage("--against etcd-lock has no slow syncs: etcd is written in Go, which asks no libc".into()));
            }
            EtcdNet::check_programs()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_named_once_and_etcd_is_asked_only_for_what_it_can_do() {
        assert!(distinct(vec![Fault::Host, Fault::Host], Shape::usual(ChainKind::Sim)).is_err());
        let plan = |shape, faults| Plan { shape, rounds: 1, faults, seed: 1 };
        let error = can_enter(Against::EtcdLock, &plan(Shape::usual(ChainKind::Cometbft), vec![Fault::Host]));
        assert!(error.unwrap_err().to_string().contains("sim chain"));
        let error = can_enter(Against::EtcdLock, &plan(Shape::usual(ChainKind::Sim), vec![Fault::Cut]));
        assert!(error.unwrap_err().to_string().contains("cannot cut"));
    }
}
