//! `localnet`: three hosts with baton and a chain on this machine, and everything to break and judge
//! them. Parses flags, and ends what a foreground command started, whatever ends the command; the work
//! is in the library. Exit codes: 0 good, 1 failed or violated, 2 bad input, 130 interrupted.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use localnet::bench::{self, Fault, Plan};
use localnet::check::check;
use localnet::demo;
use localnet::faults::{self, What};
use localnet::keeper::{self, Keeper};
use localnet::launch;
use localnet::nemesis::{self, Kind};
use localnet::net::{ChainKind, Ground, Net, Usage};
use localnet::procs::{self, describe, marked};
use localnet::proxy;
use localnet::status;
use localnet::switch;
use localnet::table::status_table;
use localnet::wires::{self, Request, Way};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(name = "localnet", version, about = "Three hosts, one validator identity and a small chain on one machine")]
struct Cli {
    /// Where everything is kept
    #[arg(long, default_value = ".localnet", global = true)]
    dir: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Bring a network up, kill the holder's host, hand the baton back, judge, take all down (the default)
    Demo(ChainArgs),
    /// Start a network and leave it running
    Up(ChainArgs),
    /// Show every host
    Status,
    /// SIGKILL
    Kill(Target),
    /// SIGSTOP
    Stop(Target),
    /// SIGCONT
    Cont(Target),
    /// Start a host's coordinator again
    Start { host: String },
    /// Hold back all traffic of a host without closing a connection
    Cut {
        host: String,
        /// Only what comes in, or only what goes out
        #[arg(long, value_name = "in|out")]
        one_way: Option<Way>,
    },
    /// Let the traffic of a host flow again
    Heal { host: String },
    /// Move the baton to another host
    Handover {
        #[arg(long)]
        to: Option<String>,
    },
    /// Judge all signatures so far
    Check,
    /// Measure how long nobody signs after a fault
    Bench(BenchArgs),
    /// Random faults, round after round, under the eyes of the checker
    Nemesis(NemesisArgs),
    /// Show the ends of a host's logs
    Logs {
        host: String,
        #[arg(long, default_value_t = 40)]
        lines: usize,
    },
    /// End everything
    Down,
    #[command(hide = true)]
    Keeper,
    #[command(hide = true)]
    Wires,
}

#[derive(Args, Clone, Copy)]
struct ChainArgs {
    #[arg(long, value_enum, default_value = "sim")]
    chain: ChainKind,
    #[command(flatten)]
    slot: Slot,
}

#[derive(Args, Clone, Copy)]
struct Slot {
    /// Time between two blocks of the sim chain
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    slot_ms: u64,
}

#[derive(Args)]
struct Target {
    host: String,
    #[arg(value_enum)]
    what: What,
}

#[derive(Args)]
struct BenchArgs {
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rounds: u64,
    /// One JSON object on standard output, and nothing else there
    #[arg(long)]
    json: bool,
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Of the moments at which faults strike
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    chain: ChainArgs,
}

#[derive(Args)]
struct NemesisArgs {
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rounds: u64,
    /// Of the faults and of their moments; a random one unless given
    #[arg(long)]
    seed: Option<u64>,
    /// Kinds of faults that shall not strike
    #[arg(long, value_enum, value_delimiter = ',')]
    without: Vec<Kind>,
    /// Fail where hosts cannot have network namespaces of their own, instead of using loopback proxies
    #[arg(long)]
    require_namespaces: bool,
    #[command(flatten)]
    chain: ChainArgs,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) if usage.use_stderr() => return bad_input(&one_line(&usage.to_string())),
        Err(help) => help.exit(),
    };
    match perform(cli) {
        Ok(code) => code,
        Err(error) => match error.downcast_ref::<Usage>() {
            Some(_) => bad_input(&format!("error: {error:#}")),
            None => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn bad_input(line: &str) -> ExitCode {
    eprintln!("{line}");
    ExitCode::from(2)
}

/// The first paragraph of a usage error, without the usage text.
fn one_line(text: &str) -> String {
    text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ")
}

fn perform(cli: Cli) -> Result<ExitCode> {
    let default = Command::Demo(ChainArgs { chain: ChainKind::Sim, slot: Slot { slot_ms: 50 } });
    let dir = cli.dir;
    match cli.command.unwrap_or(default) {
        Command::Demo(args) => {
            foreground(&dir, Afterwards::Sweep, move |dir| demo::run(dir, args.chain, args.slot.slot_ms).map(code))
        }
        Command::Up(args) => foreground(&dir, Afterwards::Leave, move |dir| up(dir, args)),
        Command::Bench(args) => run_bench(&dir, args),
        Command::Nemesis(args) => run_nemesis(&dir, args),
        Command::Keeper => keeper::keep(&dir).map(|()| ExitCode::SUCCESS),
        Command::Wires => serve_wires(&dir),
        Command::Down => down(&dir),
        Command::Status => show_status(&network(&dir)?),
        Command::Kill(target) => strike(&network(&dir)?, &target, Signal::KILL),
        Command::Stop(target) => strike(&network(&dir)?, &target, Signal::STOP),
        Command::Cont(target) => strike(&network(&dir)?, &target, Signal::CONT),
        Command::Start { host } => start(&network(&dir)?, &host),
        Command::Cut { host, one_way } => {
            let ways = one_way.map_or_else(|| vec![Way::In, Way::Out], |way| vec![way]);
            tell_wires(&network(&dir)?, &host, Request::Cut { host: host.clone(), ways })
        }
        Command::Heal { host } => tell_wires(&network(&dir)?, &host, Request::Heal { host: host.clone() }),
        Command::Handover { to } => hand_over(&network(&dir)?, to.as_deref()),
        Command::Check => {
            let verdict = check(&network(&dir)?)?;
            print!("{verdict}");
            Ok(code(verdict.is_clean()))
        }
        Command::Logs { host, lines } => logs(&network(&dir)?, &host, lines),
    }
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn network(dir: &Path) -> Result<Net> {
    Net::load(dir)
}

/// What becomes of the network when a foreground command has done its work.
#[derive(Clone, Copy, PartialEq)]
enum Afterwards {
    Sweep,
    Leave,
}

/// Does `work` with a fresh network folder under a keeper. A failure, Ctrl-C, SIGTERM or SIGHUP ends
/// all that was started before this returns; SIGKILL leaves that to the keeper.
fn foreground(
    dir: &Path,
    afterwards: Afterwards,
    work: impl FnOnce(&Path) -> Result<ExitCode> + Send + 'static,
) -> Result<ExitCode> {
    let dir = launch::fresh_dir(dir)?;
    let keeper = Keeper::start(&std::env::current_exe().context("find the own executable")?, &dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let outcome = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let work = tokio::task::spawn_blocking(move || work(&dir));
        tokio::select! {
            done = work => done.context("the command panicked")?.map(Some),
            _ = interrupt.recv() => Ok(None),
            _ = terminate.recv() => Ok(None),
            _ = hangup.recv() => Ok(None),
        }
    });
    // An interrupted command may still be at work in its thread: it can start nothing any more.
    runtime.shutdown_background();
    match outcome {
        Ok(Some(code)) if afterwards == Afterwards::Leave => keeper.release().map(|()| code),
        outcome => {
            launch::close();
            keeper.sweep()?;
            outcome.map(|finished| finished.unwrap_or(ExitCode::from(130)))
        }
    }
}

fn up(dir: &Path, args: ChainArgs) -> Result<ExitCode> {
    let mut last = String::new();
    let net = launch::up(dir, args.chain, args.slot.slot_ms, |status| {
        if status.summary() != last {
            last = status.summary();
            println!("{last}");
        }
    })?;
    println!("running under {}; `localnet status`, `localnet check`, `localnet down`", net.dir.display());
    Ok(ExitCode::SUCCESS)
}

fn run_bench(dir: &Path, args: BenchArgs) -> Result<ExitCode> {
    let ChainArgs { chain, slot } = args.chain;
    let plan = Plan {
        chain,
        rounds: usize::try_from(args.rounds)?,
        faults: bench::distinct(args.faults, chain)?,
        seed: args.seed.unwrap_or_else(rand::random),
        slot_ms: slot.slot_ms,
    };
    foreground(dir, Afterwards::Sweep, move |dir| {
        let results = bench::run(dir, &plan)?;
        if args.json {
            println!("{}", results.json()?);
        } else {
            print!("{}", results.table());
        }
        Ok(code(results.clean))
    })
}

fn run_nemesis(dir: &Path, args: NemesisArgs) -> Result<ExitCode> {
    let ChainArgs { chain, slot } = args.chain;
    // Cargo may want the machine's own network.
    launch::find_programs(chain)?;
    let (ground, why_not) = nemesis::find_ground();
    if let Some(error) = why_not {
        if args.require_namespaces {
            return Err(error.context("hosts cannot have network namespaces of their own"));
        }
        eprintln!("nemesis: no network namespaces, loopback proxies instead: {error:#}");
    }
    let (rounds, seed) = (usize::try_from(args.rounds)?, args.seed.unwrap_or_else(rand::random));
    let kinds = Kind::ALL.into_iter().filter(|kind| !args.without.contains(kind)).collect();
    let plan = nemesis::Plan { ground, chain, rounds, seed, slot_ms: slot.slot_ms, kinds };
    plan.check()?;
    foreground(dir, Afterwards::Sweep, move |dir| {
        let began = Instant::now();
        let results = nemesis::run(dir, &plan)?;
        let a_round = began.elapsed().as_secs_f64() / rounds as f64;
        print!("{}\n{}", results.tallies.table(), results.verdict);
        println!("{rounds} rounds, {a_round:.1} s each, seed {seed}; violated: {}", results.violated.len());
        let missed = results.missed();
        if !missed.is_empty() {
            bail!("never in force: {}; give it more --rounds", missed.join(", "));
        }
        Ok(code(results.is_clean()))
    })
}

fn serve_wires(dir: &Path) -> Result<ExitCode> {
    let net = network(dir)?;
    let socket = net.wires_socket();
    if net.ground == Ground::Namespaces {
        switch::serve(&net)?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(proxy::serve(net.routes, &socket))?;
    Ok(ExitCode::SUCCESS)
}

fn down(dir: &Path) -> Result<ExitCode> {
    // The folder may have been removed under a network that still runs.
    let dir = match dir.canonicalize() {
        Ok(dir) => dir,
        Err(_) => std::path::absolute(dir).with_context(|| format!("resolve {}", dir.display()))?,
    };
    let ended = keeper::take_down(&dir)?;
    let left = marked(&dir);
    if !left.is_empty() {
        bail!("still running: {}", describe(&left));
    }
    match ended {
        0 => println!("nothing ran under {}", dir.display()),
        ended => println!("ended {ended} processes; logs stay under {}", dir.display()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Exit codes as `baton status` has them.
fn show_status(net: &Net) -> Result<ExitCode> {
    match status::query(net) {
        Ok(status) => {
            print!("{}", status_table(&status));
            Ok(code(status.active().is_some()))
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            Ok(ExitCode::from(2))
        }
    }
}

fn strike(net: &Net, target: &Target, signal: Signal) -> Result<ExitCode> {
    let targets = faults::find(net, &target.host, target.what)?;
    match (signal, target.what) {
        (Signal::KILL, What::Host) => faults::kill_host(net, &target.host, &targets)?,
        (Signal::KILL, What::Coordinator | What::Guard | What::Node) => faults::kill(&targets)?,
        (other, What::Coordinator | What::Guard | What::Node | What::Host) => procs::signal(&targets, other)?,
    }
    println!("{}: {}", target.host, describe(&targets));
    Ok(ExitCode::SUCCESS)
}

fn start(net: &Net, host: &str) -> Result<ExitCode> {
    net.host(host)?;
    let running = faults::of_host(net, host, What::Coordinator);
    if !running.is_empty() {
        bail!("{host}: its coordinator runs already ({})", describe(&running));
    }
    launch::start_coordinator(net, host)?;
    println!("{host}: coordinator started");
    Ok(ExitCode::SUCCESS)
}

fn tell_wires(net: &Net, host: &str, request: Request) -> Result<ExitCode> {
    net.host(host)?;
    let wires = wires::ask(&net.wires_socket(), &request)?;
    let list: Vec<String> = wires.cuts.iter().map(|(host, way)| format!("{host} {way:?}").to_lowercase()).collect();
    println!("cut: {}", if list.is_empty() { "nothing".into() } else { list.join(", ") });
    Ok(ExitCode::SUCCESS)
}

fn hand_over(net: &Net, to: Option<&str>) -> Result<ExitCode> {
    to.map(|to| net.host(to)).transpose()?;
    let status = status::query(net)?;
    let host = status.active().map_or(status.member.as_str(), |holder| holder.id.as_str());
    let answer = demo::request_handover(net, host, to)?;
    print!("{}", answer.stdout);
    eprint!("{}", answer.stderr);
    Ok(answer.code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn logs(net: &Net, host: &str, lines: usize) -> Result<ExitCode> {
    net.host(host)?;
    for name in ["coordinator.log", "node.log"] {
        let file = net.host_dir(host).join(name);
        if file.exists() {
            println!("--- {}\n{}", file.display(), launch::tail(&file, lines)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_a_mistake_is_one_line() {
        Cli::command().debug_assert();
        let Err(error) = Cli::try_parse_from(["localnet", "kill", "host-a", "nothing"]) else {
            panic!("an unknown WHAT was taken");
        };
        let line = one_line(&error.to_string());
        assert!(line.contains("nothing") && line.contains("coordinator") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn a_bench_takes_its_faults_as_a_list() {
        let cli =
            Cli::try_parse_from(["localnet", "bench", "--faults", "host,coordinator-stop", "--dir", "x"]).unwrap();
        let Some(Command::Bench(args)) = cli.command else { panic!("not a bench") };
        assert_eq!(args.faults, [Fault::Host, Fault::CoordinatorStop]);
    }
}
