//! Commands that bring up a network of their own, and most of them end it: what they are told, and what they print.
//! The work is in the library.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use baton::base::realtime::{self, Priority};
use localnet::compose;
use localnet::judge::status::Status;
use localnet::net::proxy;
use localnet::net::switch;
use localnet::net::{ChainKind, Ground, Net, Shape};
use localnet::process::foreground::{Afterwards, foreground};
use localnet::process::launch;
use localnet::process::limits::Size;
use localnet::process::programs;
use localnet::runs::bench::{self, Against, Comparison, Plan};
use localnet::runs::idle;
use localnet::runs::load;
use localnet::runs::nemesis::{self, Kind};
use localnet::runs::requests;
use localnet::runs::soak;

use super::args::{BenchArgs, IdleArgs, LoadArgs, NemesisArgs, On, RequestsArgs, SoakArgs, UpArgs};
use super::code;

pub(crate) fn up(dir: &Path, args: UpArgs) -> Result<()> {
    let mut last = String::new();
    let seen = |status: &Status| {
        if status.summary() != last {
            last = status.summary();
            println!("{last}");
        }
    };
    let shape = args.shape();
    let net = match args.on {
        On::Processes => launch::up(dir, shape, seen)?,
        On::Compose => compose::up(dir, compose::shape(shape)?, seen)?,
    };
    println!("running under {}; `localnet status`, `localnet check`, `localnet down`", net.dir.display());
    Ok(())
}

pub(crate) fn run_bench(dir: &Path, args: BenchArgs) -> Result<ExitCode> {
    let record_mib = args.recorded.record_mib;
    let shape = Shape { delay_ms: args.delay_ms, record_mib, hooks: args.hooks, ..args.chain.shape() };
    let plan = Arc::new(Plan {
        shape,
        rounds: usize::try_from(args.rounds)?,
        faults: bench::distinct(args.faults, shape)?,
        seed: args.seed.unwrap_or_else(rand::random),
    });
    let ours = plan.clone();
    let (text, clean, drawn) = match args.against {
        None => {
            let results = foreground(dir, Afterwards::Sweep, move |dir| bench::run(dir, &ours))?;
            let text = if args.json { results.json()? + "\n" } else { results.table() };
            (text, results.clean, vec![("baton", results)])
        }
        Some(against) => {
            bench::can_enter(against, &plan)?;
            let ours = foreground(dir, Afterwards::Sweep, move |dir| bench::enter_baton(dir, &ours))?;
            let theirs = match against {
                Against::EtcdLock => foreground(dir, Afterwards::Sweep, move |dir| bench::enter_etcd(dir, &plan))?,
            };
            let comparison = Comparison([ours, theirs]);
            let text = if args.json { comparison.json()? + "\n" } else { comparison.table() };
            let [ours, theirs] = comparison.0;
            (text, ours.results.clean, vec![(ours.name, ours.results), (theirs.name, theirs.results)])
        }
    };
    print!("{text}");
    if let Some(folder) = args.plot {
        bench::plot::write_all(&folder, &drawn)?;
    }
    Ok(code(clean))
}

pub(crate) fn run_requests(dir: &Path, args: RequestsArgs) -> Result<ExitCode> {
    let shape = Shape { delay_ms: args.delay_ms, ..args.chain.shape() };
    let plan = requests::Plan { shape, requests: args.requests };
    let report = foreground(dir, Afterwards::Sweep, move |dir| requests::run(dir, &plan))?;
    let text = if args.json { serde_json::to_string(&report)? + "\n" } else { report.to_string() };
    print!("{text}");
    Ok(code(report.is_good()))
}

pub(crate) fn run_idle(dir: &Path, args: IdleArgs) -> Result<ExitCode> {
    if let Some(rival) = args.against {
        rival.check_programs()?;
    }
    let (rounds, seed) = (usize::try_from(args.rounds)?, args.seed.unwrap_or_else(rand::random));
    let during = Duration::from_secs(args.seconds);
    let mut sizes = Vec::new();
    for hosts in args.members {
        let shape = Shape {
            slot_ms: args.slot_ms,
            hosts,
            tls: args.tls,
            profile: args.profile,
            record_mib: args.recorded.record_mib,
            ..Shape::usual(ChainKind::Sim)
        };
        let plan = idle::Plan { shape, during, rounds, seed };
        sizes.push(foreground(dir, Afterwards::Sweep, move |dir| idle::measure(dir, &plan))?);
        if let Some(rival) = args.against {
            sizes.push(foreground(dir, Afterwards::Sweep, move |dir| idle::measure_rival(dir, rival, shape, during))?);
        }
    }
    let text = if args.json { serde_json::to_string(&sizes)? + "\n" } else { idle::table(&sizes) };
    print!("{text}");
    Ok(code(sizes.iter().all(|size| size.clean)))
}

pub(crate) fn run_load(dir: &Path, args: LoadArgs) -> Result<ExitCode> {
    let during = Duration::from_secs_f64(args.minutes * 60.0);
    let plan = load::Plan {
        shape: Shape { record_mib: args.recorded.record_mib, ..args.chain.shape() },
        during,
        calls_per_s: args.calls,
        busy_per_core: args.busy,
        handshakes_per_s: args.handshakes,
    };
    let report = foreground(dir, Afterwards::Sweep, move |dir| load::run(dir, &plan))?;
    let text = if args.json { serde_json::to_string(&report)? + "\n" } else { report.to_string() };
    print!("{text}");
    Ok(code(report.is_good()))
}

pub(crate) fn run_soak(dir: &Path, args: SoakArgs) -> Result<ExitCode> {
    let plan = soak::Plan {
        shape: args.chain.shape(),
        during: Duration::from_secs_f64(args.minutes * 60.0),
        every: Duration::from_secs(args.every_s),
        handover_every: Duration::from_secs(args.handover_every_s),
        confine: args.confine,
        size: Size { cpus: args.cpus, memory_mib: args.memory_mib },
    };
    let report = foreground(dir, Afterwards::Sweep, move |dir| soak::run(dir, &plan))?;
    let text = if args.json { serde_json::to_string(&report)? + "\n" } else { report.to_string() };
    print!("{text}");
    Ok(code(report.is_good()))
}

pub(crate) fn run_nemesis(dir: &Path, args: NemesisArgs) -> Result<ExitCode> {
    // Cargo may want the machine's own network.
    programs::find_programs(args.chain.chain)?;
    let (ground, why_not) = nemesis::find_ground();
    if let Some(error) = why_not {
        if args.require_namespaces {
            return Err(error.context("hosts cannot have network namespaces of their own"));
        }
        eprintln!("nemesis: no network namespaces, loopback proxies instead: {error:#}");
    }
    let (rounds, seed) = (usize::try_from(args.rounds)?, args.seed.unwrap_or_else(rand::random));
    let shape = Shape { ground, tls: true, ..args.chain.shape() };
    let possible = |kind: &Kind| kind.is_possible_with(shape.custody) && !args.without.contains(kind);
    let chosen = !args.faults.is_empty();
    let kinds = if chosen { args.faults } else { Kind::ALL.into_iter().filter(possible).collect() };
    let plan = nemesis::Plan { shape, rounds, seed, kinds, sabotage: args.sabotage };
    plan.check()?;
    foreground(dir, Afterwards::Sweep, move |dir| {
        let began = Instant::now();
        let results = nemesis::run(dir, &plan)?;
        let a_round = began.elapsed().as_secs_f64() / rounds as f64;
        print!("{}\n{}", results.tallies.table(), results.verdict);
        if let Some(made) = results.made_by_signers {
            println!("signatures that signers made: {made}");
        }
        let (violated, silent) = (results.violated.len(), results.silent.len());
        println!("{rounds} rounds, {a_round:.1} s each, seed {seed}; violated: {violated}; silent: {silent}");
        if let Some(failure) = results.failure() {
            println!("FAILED: {failure}");
            return Ok(ExitCode::FAILURE);
        }
        let mut missed = results.missed();
        // In a few rounds of one kind there may be none.
        missed.retain(|name| !chosen || *name != nemesis::HANDOVER);
        if !missed.is_empty() {
            bail!("never in force: {}; give it more --rounds", missed.join(", "));
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub(crate) fn serve_wires(dir: &Path) -> Result<ExitCode> {
    let net = Net::load(dir)?;
    // A network does not wait for the processors of the hosts on it.
    let _ = realtime::take(Priority::Coordinator);
    let socket = net.wires_socket();
    if net.ground == Ground::Namespaces {
        switch::serve(&net)?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(proxy::serve(net.routes, Duration::from_millis(net.delay_ms), &socket))?;
    Ok(ExitCode::SUCCESS)
}
