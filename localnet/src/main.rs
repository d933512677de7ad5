//! `localnet`: three hosts with baton and a chain on this machine, and everything to break and judge
//! them. Parses flags, and ends what a foreground command started, whatever ends the command; the work
//! is in the library. Exit codes: 0 good, 1 failed or violated, 2 bad input, 130 interrupted.

mod cli;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use localnet::chains::stand_in;
use localnet::judge::check::check;
use localnet::net::wires::{Request, Way};
use localnet::net::{ChainKind, Net, Shape, Usage};
use localnet::process::foreground::{Afterwards, Interrupted, foreground};
use localnet::process::keeper;
use localnet::runs::demo;
use rustix::process::Signal;

use crate::cli::args::{
    BenchArgs, ChainArgs, IdleArgs, LoadArgs, NemesisArgs, RequestsArgs, Slot, SoakArgs, Target, UpArgs, UpgradeArgs,
};
use crate::cli::code;
use crate::cli::runs::{run_bench, run_idle, run_load, run_nemesis, run_requests, run_soak, serve_wires, up};
use crate::cli::slips::{self, SlipArgs};
use crate::cli::verbs::{down, exec, hand_over, reset, show_logs, show_status, start, strike, tell_wires, upgrade};

/// As a shell tells of SIGINT.
const INTERRUPTED: u8 = 130;

#[derive(Parser)]
#[command(name = "localnet", version, about = "Some hosts, one validator identity and a small chain on one machine")]
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
    Up(UpArgs),
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
    /// Give the hosts a new binary of the chain node, and have the chain want it at a height
    Upgrade(UpgradeArgs),
    /// Make an operator's slip on a host, print the sentence of baton's that names it, and undo it
    Slip(SlipArgs),
    /// Judge all signatures so far
    Check,
    /// Measure how long nobody signs after a fault
    Bench(BenchArgs),
    /// Measure how long a chain node waits for its signatures: `requests --chain cometbft --custody signer`
    Requests(RequestsArgs),
    /// Measure what every process costs while nothing happens: memory, CPU, wake-ups, bytes written and sent
    Idle(IdleArgs),
    /// Put the holder under load on a starved machine and count the leases that it loses
    Load(LoadArgs),
    /// Watch memory, processor, store and logs of small hosts for an hour, and fail when something grows
    Soak(SoakArgs),
    /// Random faults, round after round, under the eyes of the checker
    Nemesis(NemesisArgs),
    /// Show what coordinators and chain nodes say
    Logs {
        /// Of this host alone
        host: Option<String>,
        #[arg(long, default_value_t = 40)]
        lines: usize,
        /// Go on with what comes
        #[arg(long, short)]
        follow: bool,
    },
    /// Run a command at a host: in its network or container, with its BATON_CONFIG, so that `baton status` does
    Exec {
        host: String,
        #[arg(last = true, required = true, value_name = "COMMAND")]
        argv: Vec<String>,
    },
    /// End everything; files stay
    Down,
    /// End everything and remove the network's files
    Reset,
    #[command(hide = true)]
    Keeper,
    #[command(hide = true)]
    Wires,
    #[command(hide = true, name = stand_in::COMMAND)]
    StandIn {
        #[arg(long)]
        rpc: SocketAddr,
        /// By which baton knows its chain node
        #[arg(long)]
        home: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) if usage.use_stderr() => return bad_input(&one_line(&usage.to_string())),
        Err(help) => help.exit(),
    };
    match perform(cli) {
        Ok(code) => code,
        Err(error) if error.is::<Usage>() => bad_input(&format!("error: {error:#}")),
        Err(error) if error.is::<Interrupted>() => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
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
    let usual = Shape::usual(ChainKind::Sim);
    let (slot, hosts) = (Slot { slot_ms: usual.slot_ms }, usual.hosts);
    let (profile, custody) = (usual.profile, usual.custody);
    let default = Command::Demo(ChainArgs { chain: usual.chain, slot, hosts, profile, custody });
    let dir = cli.dir;
    match cli.command.unwrap_or(default) {
        Command::Demo(args) => foreground(&dir, Afterwards::Sweep, move |dir| demo::run(dir, args.shape())).map(code),
        Command::Up(args) => foreground(&dir, Afterwards::Leave, move |dir| up(dir, args)).map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => run_bench(&dir, args),
        Command::Idle(args) => run_idle(&dir, args),
        Command::Load(args) => run_load(&dir, args),
        Command::Soak(args) => run_soak(&dir, args),
        Command::Nemesis(args) => run_nemesis(&dir, args),
        Command::Keeper => keeper::keep(&dir).map(|()| ExitCode::SUCCESS),
        Command::Wires => serve_wires(&dir),
        Command::StandIn { rpc, home: _ } => stand_in::serve(rpc).map(|()| ExitCode::SUCCESS),
        Command::Requests(args) => run_requests(&dir, args),
        Command::Down => down(&dir),
        Command::Status => show_status(&Net::load(&dir)?),
        Command::Kill(target) => strike(&Net::load(&dir)?, &target, Signal::KILL),
        Command::Stop(target) => strike(&Net::load(&dir)?, &target, Signal::STOP),
        Command::Cont(target) => strike(&Net::load(&dir)?, &target, Signal::CONT),
        Command::Start { host } => start(&Net::load(&dir)?, &host),
        Command::Cut { host, one_way } => {
            let ways = one_way.map_or_else(|| vec![Way::In, Way::Out], |way| vec![way]);
            tell_wires(&Net::load(&dir)?, &host, Request::Cut { host: host.clone(), ways })
        }
        Command::Heal { host } => tell_wires(&Net::load(&dir)?, &host, Request::Heal { host: host.clone() }),
        Command::Handover { to } => hand_over(&Net::load(&dir)?, to.as_deref()),
        Command::Upgrade(args) => upgrade(&Net::load(&dir)?, &args),
        Command::Slip(args) => slips::make(&Net::load(&dir)?, &args),
        Command::Check => {
            let verdict = check(&Net::load(&dir)?)?;
            print!("{verdict}");
            Ok(code(verdict.is_clean()))
        }
        Command::Logs { host, lines, follow } => show_logs(&Net::load(&dir)?, host.as_deref(), lines, follow),
        Command::Exec { host, argv } => exec(&Net::load(&dir)?, &host, &argv),
        Command::Reset => reset(&dir),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use localnet::runs::bench::Fault;

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
