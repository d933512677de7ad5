//! Tries to get two signers: round after round of random faults, some at once, some with a handover in the
//! midst. The signature log is the only judge of safety; a network that does not recover is a failure too. A
//! seed gives the same faults at the same moments, though not the same interleaving. What a fault does is in
//! `fault.rs`.

mod fault;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::bench::await_steady;
use crate::check::{Verdict, check};
use crate::demo::{await_pair, request_handover};
use crate::faults::{self, What};
use crate::launch::{self, with_diagnosis};
use crate::measure::Watch;
use crate::net::{Net, Shape};
use crate::procs;
use crate::proxy::{self, Request};
use crate::table::table;
use fault::{Fault, Kind, Struck};
use rustix::process::Signal;

/// Between two strikes of a round. Less would let the baton go there and back within the checker's window.
const APART_MS: std::ops::Range<u64> = 400..2_500;
const HELD_MS: std::ops::Range<u64> = 300..4_000;
/// A holder at peace signs by then.
const SIGN_BOUND: Duration = Duration::from_secs(40);

pub struct Plan {
    pub shape: Shape,
    pub rounds: usize,
    pub seed: u64,
}

/// How often a kind of fault was tried, and how often it was really in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    tried: usize,
    in_force: usize,
}

pub struct Results {
    tallies: BTreeMap<Kind, Tally>,
    handovers: Tally,
    /// By the checker, over everything that was signed.
    pub verdict: Verdict,
}

impl Results {
    /// Kinds of faults that were never in force: of these the run says nothing.
    pub fn missed(&self) -> Vec<&'static str> {
        let faults = Kind::ALL.iter().filter(|kind| self.tallies.get(kind).is_none_or(|tally| tally.in_force == 0));
        let mut missed: Vec<_> = faults.map(|kind| kind.name()).collect();
        if self.handovers.in_force == 0 {
            missed.push(HANDOVER);
        }
        missed
    }

    pub fn table(&self) -> String {
        let row = |name: &str, tally: Tally| vec![name.into(), tally.tried.to_string(), tally.in_force.to_string()];
        let mut rows = vec![["fault", "tried", "in force"].map(String::from).to_vec()];
        rows.extend(self.tallies.iter().map(|(kind, tally)| row(kind.name(), *tally)));
        rows.push(row(HANDOVER, self.handovers));
        table(&rows)
    }
}

const HANDOVER: &str = "handover under a fault";

/// Brings a network up under `dir` and attacks it. Progress goes to standard error.
///
/// # Errors
/// The first round after which the network did not recover or something was signed twice, with its seed.
pub fn run(dir: &Path, plan: &Plan) -> Result<Results> {
    eprintln!("nemesis: {} rounds, seed {}; faults strike through loopback proxies", plan.rounds, plan.seed);
    let net = launch::up(dir, plan.shape, |_| ())?;
    let mut attack = Attack::new(&net, plan.seed);
    for n in 1..=plan.rounds {
        let faults = attack.choose();
        let names: Vec<String> = faults.iter().map(Fault::to_string).collect();
        eprintln!("nemesis: round {n}/{}: {}", plan.rounds, names.join(", "));
        let what = || format!("round {n} of {} (seed {}): {}", plan.rounds, plan.seed, names.join(", "));
        with_diagnosis(&net, attack.round(&faults).with_context(what))?;
    }
    with_diagnosis(&net, await_pair(&net, |_| ()))?;
    Ok(Results { tallies: attack.tallies, handovers: attack.handovers, verdict: check(&net)? })
}

struct Attack<'a> {
    net: &'a Net,
    rng: StdRng,
    /// The kinds still to come before any comes again.
    deck: Vec<Kind>,
    tallies: BTreeMap<Kind, Tally>,
    handovers: Tally,
}

impl<'a> Attack<'a> {
    fn new(net: &'a Net, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Attack { net, rng, deck: Vec::new(), tallies: BTreeMap::new(), handovers: Tally::default() }
    }

    /// One fault or two, of different kinds; more would leave no quorum for most of the time.
    fn choose(&mut self) -> Vec<Fault> {
        let many = self.rng.random_range(1..=2);
        let mut faults: Vec<Fault> = Vec::new();
        while faults.len() < many {
            let fault = self.next_fault();
            if faults.iter().all(|other| other.kind != fault.kind) {
                faults.push(fault);
            }
        }
        faults
    }

    fn next_fault(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck = Kind::ALL.to_vec();
            self.deck.shuffle(&mut self.rng);
        }
        let kind = self.deck.pop().expect("a full deck");
        let hosts: Vec<&str> =
            self.net.hosts.iter().filter(|host| kind.can_strike(host.role)).map(|host| host.id.as_str()).collect();
        Fault { kind, host: hosts[self.rng.random_range(0..hosts.len())].into() }
    }

    fn pause(&mut self, ms: std::ops::Range<u64>) {
        std::thread::sleep(Duration::from_millis(self.rng.random_range(ms)));
    }

    /// Strikes, perhaps asks for a handover, puts everything right, and sees the network recover.
    fn round(&mut self, faults: &[Fault]) -> Result<()> {
        let pair = await_steady(self.net)?;
        let mut watch = Watch::begin(self.net)?;
        watch.await_by(&pair.holder, 1, SIGN_BOUND)?;
        let mut struck: Vec<(&Fault, Struck)> = Vec::new();
        for fault in faults {
            self.pause(APART_MS);
            let began = fault.strike(self.net, &mut self.rng).with_context(|| format!("strike with {fault}"))?;
            struck.push((fault, began));
        }
        if self.rng.random_bool(0.4) {
            self.pause(APART_MS);
            self.hand_over(&pair.holder);
        }
        self.pause(HELD_MS);
        struck.shuffle(&mut self.rng);
        for (fault, began) in struck {
            let in_force = fault.heal(self.net, began).with_context(|| format!("heal {fault}"))?;
            let tally = self.tallies.entry(fault.kind).or_default();
            tally.tried += 1;
            tally.in_force += usize::from(in_force);
        }
        self.put_right()?;
        await_pair(self.net, |_| ()).context("recover")?;
        watch.poll()?;
        match watch.report() {
            Some(report) if report.is_clean() => Ok(()),
            Some(report) => bail!("VIOLATED: {report:?}"),
            None => bail!("a round without signatures"),
        }
    }

    /// Refused or not, and answered or not: what counts is what is signed.
    fn hand_over(&mut self, host: &str) {
        self.handovers.tried += 1;
        let answer = request_handover(self.net, host, None);
        self.handovers.in_force += usize::from(answer.is_ok_and(|answer| answer.code == Some(0)));
    }

    /// Nothing is held back, nothing stopped, and every coordinator runs.
    fn put_right(&self) -> Result<()> {
        for host in &self.net.hosts {
            proxy::ask(&self.net.proxy_socket(), &Request::Heal { host: host.id.clone() })?;
            procs::signal(&faults::of_host(self.net, &host.id, What::Host), Signal::CONT)?;
            let began = Instant::now();
            while faults::of_host(self.net, &host.id, What::Coordinator).is_empty() {
                if began.elapsed() > START_BOUND {
                    bail!("{}: its coordinator does not stay up", host.id);
                }
                launch::start_coordinator(self.net, &host.id)?;
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    }
}

const START_BOUND: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{ChainKind, Programs};

    fn laid_out() -> (tempfile::TempDir, Net) {
        let dir = tempfile::tempdir().unwrap();
        let programs = Programs { localnet: "/b/l".into(), baton: "/b/b".into(), chain_node: "/b/simchain".into() };
        let net = Net::lay_out(dir.path(), Shape::usual(ChainKind::Sim), programs).unwrap();
        (dir, net)
    }

    #[test]
    fn a_seed_gives_the_same_faults_and_every_kind_comes_within_a_deck() {
        let (_dir, net) = laid_out();
        let sequence = |seed| {
            let mut attack = Attack::new(&net, seed);
            (0..Kind::ALL.len()).map(|_| attack.next_fault().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(sequence(7), sequence(7));
        assert_ne!(sequence(7), sequence(8));
        for kind in Kind::ALL {
            assert!(sequence(7).iter().any(|text| text.starts_with(kind.name())), "{kind:?} is missing");
        }
    }

    #[test]
    fn a_kind_that_was_never_in_force_is_named() {
        let (mut tallies, once) = (BTreeMap::new(), Tally { tried: 1, in_force: 1 });
        tallies.extend(Kind::ALL.map(|kind| (kind, once)));
        tallies.insert(Kind::TornStore, Tally { tried: 3, in_force: 0 });
        let results = Results { tallies, handovers: once, verdict: Verdict::default() };
        assert_eq!(results.missed(), ["torn store"]);
    }
}
