//! Tries to get two signers, or none: round after round of random faults, some at once, some with a handover in the
//! midst. The signature log is the only judge. A network that does not recover is a failure too, and so is a silence
//! while the faults leave somebody who could sign (`liveness.rs`). A seed gives the same faults at the same moments for
//! the same holders, though not the same interleaving. What a fault does is in `fault.rs` and `disk.rs`.

pub mod disk;
mod fault;
mod hung_guard;
mod liveness;
mod report;
mod retimed;
mod sabotage;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::hosts::clock;
use crate::hosts::disks;
use crate::hosts::faults::{self, What};
use crate::judge::check::check;
use crate::judge::measure::Watch;
use crate::judge::records::{self, Since};
use crate::judge::signers;
use crate::net::namespaces;
use crate::net::wires::{self, Request};
use crate::net::{ChainKind, Custody, Ground, Host, Net, Shape, Usage, write_file};
use crate::process::launch::{self, with_diagnosis};
use crate::process::procs;
use crate::runs::bench::await_steady;
use crate::runs::demo::{Pair, ask_baton_within, await_pair, await_pair_within};
use crate::runs::timing::Timing;
pub use fault::Kind;
use fault::{Fault, Struck};
pub use liveness::NOISE;
use liveness::{Limit, Mute, Silence};
use report::Tallies;
pub use report::{HANDOVER, Results};
use rustix::process::Signal;
pub use sabotage::Sabotage;

/// Between two strikes of a round. Less would let the baton go there and back within the checker's window.
const APART_MS: std::ops::Range<u64> = 400..1_800;
const HELD_MS: std::ops::Range<u64> = 300..3_000;
/// A holder at peace signs by then.
const SIGN_BOUND: Duration = Duration::from_secs(40);
/// On a machine so busy that leases run out by themselves, getting and keeping one takes many attempts.
const RECOVER_BOUND: Duration = Duration::from_secs(240);
/// An operator who has no answer by then leaves it at that.
const HANDOVER_BOUND: Duration = Duration::from_secs(5);

pub struct Plan {
    pub shape: Shape,
    pub rounds: usize,
    pub seed: u64,
    /// What may strike.
    pub kinds: Vec<Kind>,
    /// Committed in every round.
    pub sabotage: Option<Sabotage>,
}

impl Plan {
    /// # Errors
    /// A kind that is asked for cannot be done on this ground, or the sabotage not on this chain.
    pub fn check(&self) -> Result<()> {
        self.sabotage.map_or(Ok(()), |sabotage| sabotage.check(self.shape.chain))?;
        if let Some(kind) = self.kinds.iter().find(|kind| !kind.is_possible_with(self.shape.custody)) {
            bail!(Usage(format!("{} needs --chain cometbft --custody signer", kind.name())));
        }
        let impossible = |kind: &&Kind| !kind.is_possible_on(self.shape.ground);
        match self.kinds.iter().find(impossible) {
            None => Ok(()),
            Some(kind) => bail!(Usage(format!(
                "{} needs hosts in namespaces of their own; run as root, or leave it out: --without {}",
                kind.name(),
                kind.flag()
            ))),
        }
    }
}

/// Where the hosts can stand, and why not in namespaces if not there. With namespaces the caller is in one
/// afterwards, so there must be no other thread yet.
pub fn find_ground() -> (Ground, Option<anyhow::Error>) {
    match namespaces::enter() {
        Ok(()) => (Ground::Namespaces, None),
        Err(error) => (Ground::Loopback, Some(error)),
    }
}

/// Brings a network up under `dir` and attacks it. Progress goes to standard error. A round in which something was
/// signed twice or by two is told there at once; the hosts' logs of it are kept in `dir`, and the run goes on.
///
/// # Errors
/// The first round after which the network did not recover, with its seed.
pub fn run(dir: &Path, plan: &Plan) -> Result<Results> {
    let ground = match plan.shape.ground {
        Ground::Namespaces => "a network namespace for each host",
        Ground::Loopback => "loopback proxies between the hosts",
        Ground::Containers => "a container for each host",
    };
    eprintln!("nemesis: {} rounds, seed {}; {ground}", plan.rounds, plan.seed);
    // A record has to hold one round, on a disk that is small.
    let net = launch::prepare(dir, Shape { record_mib: Some(4), ..plan.shape })?;
    // Also where custody has done it.
    clock::install(&net)?;
    configure(&net)?;
    launch::start(&net, |_| ())?;
    eprintln!("nemesis: the network is up");
    let kinds = possible_kinds(&net, &plan.kinds);
    let mut attack = Attack::new(&net, plan, &kinds);
    let (mut violated, mut silent, mut broken) = (Vec::new(), Vec::new(), Vec::new());
    for n in 1..=plan.rounds {
        let pair = with_diagnosis(&net, attack.settle().with_context(|| format!("before round {n}")))?;
        let faults = attack.choose(&pair.holder);
        let names = faults.iter().map(Fault::to_string).collect::<Vec<_>>().join(", ");
        let began = Instant::now();
        let what = || format!("round {n} of {} (seed {}): {names}", plan.rounds, plan.seed);
        let verdict = match attack.round(&pair, &faults) {
            Ok(verdict) => verdict,
            Err(error) => {
                eprint!("until then:\n{}", attack.tallies.table());
                return with_diagnosis(&net, Err(error).with_context(what));
            }
        };
        eprintln!("nemesis: round {n}/{}, {:.1} s: {names}", plan.rounds, began.elapsed().as_secs_f64());
        if !verdict.is_clean() {
            keep_logs(&net, n)?;
        }
        if let Some(violation) = verdict.signed {
            eprintln!("nemesis: round {n} VIOLATED: {violation}");
            violated.push(n);
        }
        if let Some(silence) = verdict.silent {
            eprintln!("nemesis: round {n} SILENT: {names}: {silence}");
            silent.push(n);
        }
        if let Some(finding) = verdict.recorded {
            eprintln!("nemesis: round {n} BROKEN by the records: {names}: {finding}");
            broken.push((n, finding));
        }
    }
    with_diagnosis(&net, await_pair(&net, |_| ()))?;
    let made_by_signers = match net.custody {
        Custody::Signer => Some(signers::read(&net)?.len()),
        Custody::Links | Custody::Single => None,
    };
    Ok(Results { tallies: attack.tallies, violated, silent, broken, made_by_signers, verdict: check(&net)? })
}

/// Without those of disks that cannot be frozen here; why not was said when they were made.
fn possible_kinds(net: &Net, kinds: &[Kind]) -> Vec<Kind> {
    let can_freeze = disks::of_host(net, &net.hosts[0]).iter().all(|dir| disks::is_own(dir));
    let (possible, left_out): (Vec<Kind>, Vec<Kind>) = kinds.iter().partition(|kind| can_freeze || !kind.needs_disks());
    for kind in left_out {
        eprintln!("nemesis: left out, since no disk of a host can be frozen here: {}", kind.name());
    }
    possible
}

/// Faults last for a second or three, and a round commits some entries: a disk that hangs is noticed in that time, and
/// whoever was away for a round or two gets a snapshot.
fn configure(net: &Net) -> Result<()> {
    const SHARP: &str = "[member]\ndisk_timeout = \"1s\"\nsnapshot_every = 10\n";
    for file in net.hosts.iter().map(|host| net.config_file(&host.id)) {
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        write_file(&file, &text.replacen("[member]\n", SHARP, 1))?;
    }
    Ok(())
}

/// What the hosts had said when round `n` was over, and their records.
fn keep_logs(net: &Net, n: usize) -> Result<()> {
    for host in &net.hosts {
        let kept = net.dir.join(format!("violated-{n}")).join(&host.id);
        fs::create_dir_all(&kept).with_context(|| format!("create {}", kept.display()))?;
        for log in [net.host_dir(&host.id).join("coordinator.log"), net.node_log(&host.id)] {
            let name = log.file_name().context("a log without a name")?;
            if log.exists() {
                fs::copy(&log, kept.join(name)).with_context(|| format!("keep {}", log.display()))?;
            }
        }
        records::keep(net, &host.id, &kept.join("record"))?;
    }
    Ok(())
}

/// What was wrong in a round, in words.
#[derive(Default)]
struct Verdict {
    /// Twice, or by two.
    signed: Option<String>,
    /// Nobody signed for too long, or a host was chosen that could not.
    silent: Option<String>,
    /// A decision that comes out otherwise, or a rule that was broken, by the members' own records.
    recorded: Option<String>,
}

impl Verdict {
    fn is_clean(&self) -> bool {
        self.signed.is_none() && self.silent.is_none() && self.recorded.is_none()
    }
}

struct Attack<'a> {
    net: &'a Net,
    rng: StdRng,
    kinds: &'a [Kind],
    sabotage: Option<Sabotage>,
    /// The kinds still to come before any comes again.
    deck: Vec<Kind>,
    tallies: Tallies,
    mute: Mute,
}

impl<'a> Attack<'a> {
    fn new(net: &'a Net, plan: &'a Plan, kinds: &'a [Kind]) -> Self {
        let faults = kinds.iter().map(|kind| (*kind, Default::default())).collect();
        let tallies = Tallies { faults, ..Tallies::default() };
        let rng = StdRng::seed_from_u64(plan.seed);
        Attack { net, rng, kinds, sabotage: plan.sabotage, deck: Vec::new(), tallies, mute: Mute::default() }
    }

    /// One fault or two, of different kinds; more would leave no quorum for most of the time.
    fn choose(&mut self, holder: &str) -> Vec<Fault> {
        let first = self.next_fault(holder);
        if self.rng.random_bool(0.5) {
            return vec![first];
        }
        let second = self.next_fault(holder);
        let both_end_it = first.kind.ends_the_coordinator() && second.kind.ends_the_coordinator();
        let alone = first.kind.freezes() || second.kind.freezes();
        let of_all = first.kind.is_of_all() || second.kind.is_of_all();
        let in_the_way = of_all || first.kind == second.kind || first.host == second.host && (both_end_it || alone);
        if in_the_way { vec![first] } else { vec![first, second] }
    }

    /// The holder is what a second signer could stand beside: every other fault strikes there if it can.
    fn next_fault(&mut self, holder: &str) -> Fault {
        if self.deck.is_empty() {
            self.deck = self.kinds.to_vec();
            self.deck.shuffle(&mut self.rng);
        }
        let kind = self.deck.pop().expect("a full deck");
        let can_strike = |host: &&Host| kind.can_strike(host.role) && !(kind.is_of_followers() && host.id == holder);
        let hosts: Vec<&str> = self.net.hosts.iter().filter(can_strike).map(|host| host.id.as_str()).collect();
        let (by_chance, at_holder) = (hosts[self.rng.random_range(0..hosts.len())], self.rng.random_bool(0.5));
        let host = if at_holder && hosts.contains(&holder) { holder } else { by_chance };
        Fault { kind, host: host.into() }
    }

    fn pause(&mut self, ms: std::ops::Range<u64>) {
        std::thread::sleep(Duration::from_millis(self.rng.random_range(ms)));
    }

    /// Strikes, perhaps asks for a handover, sees somebody sign, puts everything right, and sees the network recover.
    fn round(&mut self, pair: &Pair, faults: &[Fault]) -> Result<Verdict> {
        let since = Since::now();
        let mut watch = Watch::begin(self.net)?;
        watch.await_by(&pair.holder, 1, SIGN_BOUND)?;
        if let Some(sabotage) = self.sabotage {
            sabotage.commit(self.net, pair, &mut watch)?;
        }
        let mut verdict = Verdict::default();
        let mut struck: Vec<(&Fault, Struck)> = Vec::new();
        let mut struck_ns = None;
        for fault in faults {
            self.pause(APART_MS);
            struck_ns.get_or_insert_with(|| watch.now_ns());
            let began = fault.strike(self.net, &mut self.rng).with_context(|| format!("strike with {fault}"))?;
            struck.push((fault, began));
        }
        // A full disk is noticed within ten seconds, or when somebody has to write; and a hung guard is one thing before
        // it is noticed and another after.
        let mut has_to_move = faults.iter().any(|fault| fault.kind == Kind::DiskFull);
        if let [(Fault { kind: Kind::HungIdleGuard, host }, Struck::Stopped(guards))] = &struck[..] {
            if self.rng.random_bool(0.5) {
                verdict.silent = hung_guard::chosen(self.net, &pair.holder, host, guards)?;
            } else {
                has_to_move = true;
            }
        }
        if self.rng.random_bool(0.4) || has_to_move {
            self.pause(APART_MS);
            self.hand_over(&pair.holder);
        }
        // Where leases are longer, somebody else comes to sign later.
        let leases = retimed::leases(self.net)?;
        let longest = leases.iter().copied().max().unwrap_or_default();
        let leases_differed = leases.iter().any(|lease| *lease < longest);
        let longer = longest.saturating_sub(Timing::Lan.lease());
        self.pause(HELD_MS.start..HELD_MS.end + longer.as_millis() as u64);
        self.mute.look(self.net)?;
        let limit = Limit::of(self.net, pair, faults, longest, &self.mute);
        if let (Some(limit), Some(struck_ns)) = (limit, struck_ns) {
            let moves_from = faults.iter().any(|fault| fault.kind.freezes() && fault.host == pair.holder);
            let moves_from = moves_from.then_some(pair.holder.as_str());
            let silence = liveness::judge(self.net, &mut watch, struck_ns, limit, moves_from)?;
            if silence.is_too_long() {
                verdict.silent = Some(format!("nobody signed for {silence}\n{}", liveness::statuses(self.net)));
            }
            for fault in faults {
                self.tallies.faults.entry(fault.kind).or_default().judge(silence);
            }
            if let [fault] = faults
                && (fault.host == pair.holder || fault.kind.is_of_followers())
            {
                self.tallies.faults.entry(fault.kind).or_default().alone.push(silence.lasted);
            }
        }
        struck.shuffle(&mut self.rng);
        for (fault, began) in struck {
            let in_force = fault.heal(self.net, began).with_context(|| format!("heal {fault}"))?;
            let tally = self.tallies.faults.entry(fault.kind).or_default();
            tally.tried += 1;
            tally.in_force += usize::from(in_force);
        }
        let ended_ns = watch.now_ns();
        self.recover()?;
        watch.poll()?;
        self.mute.look(self.net)?;
        if let Some(limit) = Limit::after(self.net, pair, faults, longest, &self.mute) {
            let silence = Silence { lasted: watch.silences_since(ended_ns).longest, limit };
            if silence.is_too_long() {
                let words =
                    || format!("after the faults, nobody signed for {silence}\n{}", liveness::statuses(self.net));
                verdict.silent.get_or_insert_with(words);
            }
            for fault in faults {
                self.tallies.faults.entry(fault.kind).or_default().judge_after(silence);
            }
        }
        verdict.recorded = self.judge_records(since, &watch, faults)?;
        let report = watch.report().context("a round without signatures")?;
        let wrong: Vec<String> = signers::wrongs(&signers::read(self.net)?).iter().map(ToString::to_string).collect();
        if report.is_clean() && wrong.is_empty() {
            return Ok(verdict);
        }
        let mut kinds: Vec<Kind> = faults.iter().map(|fault| fault.kind).collect();
        if leases_differed && !kinds.contains(&Kind::ChangedTiming) {
            kinds.push(Kind::ChangedTiming);
        }
        for kind in kinds {
            self.tallies.faults.entry(kind).or_default().violated += 1;
        }
        Ok(Verdict { signed: Some(format!("{report:?} {}", wrong.join("; "))), ..verdict })
    }

    /// What the records of all members say of the round.
    fn judge_records(&mut self, since: Since, watch: &Watch, faults: &[Fault]) -> Result<Option<String>> {
        // By whose record nothing is missing, of what was signed by whom and when.
        let whole = self.net.chain == ChainKind::Sim && faults.iter().all(|fault| !fault.kind.keeps_from_writing());
        let signed = if whole { watch.signatures() } else { &[] };
        let findings = records::judge(self.net, since, signed)?;
        self.tallies.replayed += findings.replayed;
        Ok(findings.failure())
    }

    /// A holder that has signed for a while, and a ready standby.
    fn settle(&self) -> Result<Pair> {
        let began = Instant::now();
        loop {
            match await_steady(self.net) {
                Err(_) if began.elapsed() < RECOVER_BOUND => {}
                settled => return settled.context("begin with a holder that keeps the baton"),
            }
        }
    }

    /// Refused or not, and answered or not: what counts is what is signed.
    fn hand_over(&mut self, host: &str) {
        self.tallies.handovers.tried += 1;
        let answer = ask_baton_within(HANDOVER_BOUND, self.net, host, &["handover"]);
        self.tallies.handovers.in_force += usize::from(answer.is_ok_and(|answer| answer.code == Some(0)));
    }

    /// Nothing is held back, nothing stopped, every coordinator runs, and there is a holder and a ready standby.
    fn recover(&self) -> Result<()> {
        for host in &self.net.hosts {
            wires::ask(&self.net.wires_socket(), &Request::Heal { host: host.id.clone() })?;
            procs::signal(&faults::of_host(self.net, &host.id, What::Host), Signal::CONT)?;
        }
        let mut restarted = self.restart();
        // One that noticed late what the fault had done to it may end only now.
        await_pair_within(RECOVER_BOUND, self.net, |_| {
            if restarted.is_ok() {
                restarted = self.restart();
            }
        })
        .context("recover")?;
        restarted
    }

    /// As a service manager does with a coordinator that has ended.
    fn restart(&self) -> Result<()> {
        for host in &self.net.hosts {
            if faults::of_host(self.net, &host.id, What::Coordinator).is_empty() {
                launch::start_coordinator(self.net, &host.id)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Programs;

    fn laid_out() -> (tempfile::TempDir, Net) {
        let dir = tempfile::tempdir().unwrap();
        let net = Net::lay_out(dir.path(), Shape::usual(ChainKind::Sim), Programs::nowhere()).unwrap();
        (dir, net)
    }

    fn plan(seed: u64) -> Plan {
        // On which every kind is possible.
        let usual = Shape::usual(ChainKind::Cometbft);
        let shape = Shape { ground: Ground::Namespaces, custody: Custody::Signer, ..usual };
        Plan { shape, rounds: 1, seed, kinds: Kind::ALL.to_vec(), sabotage: None }
    }

    #[test]
    fn a_seed_gives_the_same_faults_and_every_kind_comes_within_a_deck() {
        let (_dir, net) = laid_out();
        let sequence = |seed| {
            let plan = plan(seed);
            let mut attack = Attack::new(&net, &plan, &plan.kinds);
            (0..Kind::ALL.len()).map(|_| attack.next_fault("host-a").to_string()).collect::<Vec<_>>()
        };
        assert_eq!(sequence(7), sequence(7));
        assert_ne!(sequence(7), sequence(8));
        for kind in Kind::ALL {
            assert!(sequence(7).iter().any(|text| text.starts_with(kind.name())), "{kind:?} is missing");
        }
    }

    #[test]
    fn what_is_put_right_after_a_full_or_torn_disk_was_not_killed_besides() {
        let (_dir, net) = laid_out();
        let plan = plan(11);
        let mut attack = Attack::new(&net, &plan, &plan.kinds);
        let mut pairs = 0;
        for _ in 0..5_000 {
            let [first, second] = &attack.choose("host-a")[..] else { continue };
            pairs += 1;
            let both_end_it = first.kind.ends_the_coordinator() && second.kind.ends_the_coordinator();
            assert!(first.kind != second.kind && !(first.host == second.host && both_end_it), "{first}, {second}");
        }
        assert!(pairs > 1_000, "{pairs} pairs of faults");
    }

    #[test]
    fn a_full_disk_without_a_disk_of_its_own_is_refused_and_the_flag_that_leaves_it_out_is_named() {
        let mut plan = plan(7);
        assert!(plan.check().is_ok());
        plan.shape.ground = Ground::Loopback;
        let error = plan.check().unwrap_err().to_string();
        assert!(error.contains("--without disk-full"), "{error}");
        plan.shape.custody = Custody::Links;
        let error = plan.check().unwrap_err().to_string();
        assert!(error.contains("--custody signer"), "{error}");
    }
}
