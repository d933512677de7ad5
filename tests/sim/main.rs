//! Deterministic simulation of several cores with all that surrounds them: Raft, disks that lose what was not flushed,
//! guards, chain nodes, clocks that run apart, a network that loses, delays, doubles and reorders, crashes, pauses,
//! changes of membership, members with different timings, and snapshots. The oracle lives in real time, which no host
//! can see: never may the chain nodes of two hosts sign at the same moment, nor any height twice; and once the faults
//! have stopped, some member that can hold the baton is active within four leases, of whoever has the longest. Liveness
//! while a fault lasts is judged in `sim/lively.rs`.
//!
//! A seed makes one history:
//!
//!     SEED=n cargo test --test sim replay -- --nocapture                                    tells it; with STORY=… another kind
//!     SCHEDULES=1000000 cargo test --release --test sim never_do -- --nocapture              a million of them
//!
//! An ordinary run has 2,000 histories, `.ci/run` has 10,000.

mod approvals;
mod broken;
mod calls;
mod chain;
mod consensus;
mod coordinator;
mod disk;
mod faults;
mod host;
mod left_out;
mod lively;
mod machine;
mod members;
mod network;
mod oracle;
mod plot;
mod raft;
mod random;
mod scene;
mod schedule;
mod signing;
#[allow(dead_code)] // The judge of the localnet; the simulation writes no log.
#[path = "../../localnet/src/judge/signlog.rs"]
mod signlog;
mod silence;
#[allow(dead_code)] // The facts of a NEAR node; the blocks of this chain make themselves.
#[path = "../host/near_node/slots.rs"]
mod slots;
mod snapshots;
mod tally;
mod timings;
mod trial;
mod trouble;
mod waking;
mod worker;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use oracle::{End, Live};
use tally::{Kind, Tally};
use world::{MS, Without, run};

/// In these many, every kind of fault is in force.
const SCHEDULES: u64 = 2_000;

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
    if let Some(breach) = end.broken.first() {
        return Some(breach.to_string());
    }
    if let Some(missigned) = &end.missigned {
        return Some(missigned.clone());
    }
    if let Some(conflict) = &end.conflict {
        return Some(format!("no single node signs {conflict}"));
    }
    if let Some(forgotten) = &end.forgotten {
        return Some(forgotten.clone());
    }
    match (&end.overlap, end.live) {
        (Some(overlap), _) => Some(overlap.clone()),
        (None, None) => Some("nobody is active long after the last fault".into()),
        (None, Some(live)) => (live.active > Live::leases_max(end) * end.lease)
            .then(|| format!("nobody is active {} ms after somebody could have been", live.active / MS)),
    }
}

/// What makes a history of a seed.
type Story = Box<dyn Fn(u64, Without, bool) -> End>;

fn tell(story: &dyn Fn(u64, Without, bool) -> End, seed: u64, without: Without) {
    let end = story(seed, without, true);
    let lines = number("LINES").unwrap_or(60) as usize;
    for line in end.trace.iter().skip(end.trace.len().saturating_sub(lines)) {
        eprintln!("{line}");
    }
    eprintln!("SEED={seed}: {}", complaint(&end).unwrap_or_else(|| "no complaint".into()));
    eprintln!("replay: SEED={seed} LINES=400 cargo test --test sim replay -- --nocapture");
}

/// Of all histories of a run.
#[derive(Default)]
struct Totals {
    events: u64,
    claims: u64,
    handovers: u64,
    /// By the number of hosts.
    clusters: BTreeMap<usize, u64>,
    tally: Tally,
    /// Milliseconds, and whose they were.
    eligible: Vec<(u64, u64)>,
    active: Vec<(u64, u64)>,
    /// As `active`, in percent of the longest lease of the history.
    of_lease: Vec<(u64, u64)>,
}

impl Totals {
    fn add(&mut self, seed: u64, end: &End) {
        self.events += end.events;
        self.claims += end.claims;
        self.handovers += end.handovers;
        *self.clusters.entry(end.hosts).or_default() += 1;
        self.tally.add(&end.tally);
        if let Some(live) = end.live {
            self.eligible.push((live.eligible / MS, seed));
            self.active.push((live.active / MS, seed));
            self.of_lease.push((live.active * 100 / end.lease, seed));
        }
    }

    fn text(&mut self) -> String {
        let faults: Vec<String> = Kind::ALL.iter().map(|kind| format!("{kind:?} {}", self.tally.of(*kind))).collect();
        format!(
            "{} events, {} claims, {} handovers, hosts {:?}\nin force: {}\nms after the faults until somebody could be \
             active: {}\nfrom then on until somebody was: {}\nin percent of the longest lease: {}",
            self.events,
            self.claims,
            self.handovers,
            self.clusters,
            faults.join(", "),
            quantiles(&mut self.eligible),
            quantiles(&mut self.active),
            quantiles(&mut self.of_lease),
        )
    }
}

fn quantiles(times: &mut [(u64, u64)]) -> String {
    times.sort_unstable();
    let at = |permille: usize| times.get(times.len() * permille / 1000).map_or(0, |(ms, _)| *ms);
    let (median, most, nearly_all) = (at(500), at(900), at(990));
    let last: Vec<String> = times.iter().rev().take(5).map(|(ms, seed)| format!("{ms} (seed {seed})")).collect();
    format!("median {median}, 90 % {most}, 99 % {nearly_all}, last {}", last.join(", "))
}

#[test]
fn never_do_two_nodes_sign_and_somebody_does_once_the_faults_end() {
    let began = Instant::now();
    let (schedules, first) = (number("SCHEDULES").unwrap_or(SCHEDULES), number("FIRST").unwrap_or(1));
    let failed = Mutex::new(Vec::new());
    let totals = Mutex::new(Totals::default());
    run_all(Without::Nothing, schedules, first, |seed, end| {
        totals.lock().unwrap().add(seed, end);
        let complaint = complaint(end);
        failed.lock().unwrap().extend(complaint.map(|text| (seed, text)));
        failed.lock().unwrap().len() >= 10
    });
    let mut totals = totals.into_inner().unwrap();
    eprintln!("{schedules} schedules in {:.1?}\n{}", began.elapsed(), totals.text());
    let failed = failed.into_inner().unwrap();
    if let Some((seed, _)) = failed.first() {
        tell(&run, *seed, Without::Nothing);
    }
    assert!(failed.is_empty(), "{failed:#?}");
    let never: Vec<&Kind> = Kind::ALL.iter().filter(|kind| totals.tally.of(**kind) == 0).collect();
    assert!(never.is_empty() || schedules < SCHEDULES, "{never:?} never was in force");
}

#[test]
fn replay_tells_the_very_history_that_a_seed_makes() {
    let seed = number("SEED").unwrap_or(17);
    let story = story();
    let without = left_out().unwrap_or(Without::Nothing);
    tell(&story, seed, without);
    let [told, again] = [(); 2].map(|()| story(seed, without, true));
    assert!(
        told.trace == again.trace && told.trace.len() > 100,
        "{} and {} lines",
        told.trace.len(),
        again.trace.len()
    );
    let complaint = complaint(&told).filter(|_| without == Without::Nothing);
    assert!(complaint.is_none(), "SEED={seed}: {complaint:?}");
}

/// By `STORY`.
fn story() -> Story {
    match std::env::var("STORY").as_deref() {
        Err(_) => Box::new(run),
        Ok("deaths") => Box::new(chain::deaths),
        Ok(name) => left_out::story(name),
    }
}

/// By `MUTATION`.
fn left_out() -> Option<Without> {
    let name = std::env::var("MUTATION").ok()?;
    let without = Without::ALL.into_iter().find(|rule| format!("{rule:?}") == name);
    Some(without.unwrap_or_else(|| panic!("MUTATION={name} is none of {:?}", Without::ALL)))
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
            None if end.live.is_none() => Some("nobody signs any more".into()),
            None if end.struck < 3 => Some(format!("the holder was struck {} times", end.struck)),
            complaint => complaint,
        };
        failed.extend(complaint.map(|text| (seed, text)));
    }
    eprintln!("{seeds} seeds, {signatures} signatures, {moves} claims in {:?}", began.elapsed());
    if let Some((seed, _)) = failed.first() {
        tell(&chain::deaths, *seed, Without::Nothing);
        eprintln!("with STORY=deaths before SEED");
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
