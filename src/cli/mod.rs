//! The command line of `baton`: what can be asked, and in which words it is answered. `bin/baton.rs`
//! calls `main` and nothing else does. A mistake of any kind is one line on standard error.
//!
//! Exit codes: 0 done, or a holder is active; 1 not done, or no holder is active; 2 the input is wrong
//! or the coordinator cannot be reached or does not listen, and nothing was touched. `canary` has more of them.

mod at;
mod canary;
mod cert;
mod client;
mod config_file;
mod containment;
mod ends;
mod fence;
mod history;
mod history_detail;
mod init;
mod log;
mod members;
mod moment;
mod pages;
mod reach;
mod record;
mod running;
mod signer;
mod start;
mod status;
mod table;
mod threads;
mod upgrade;
mod watch;
mod why;
mod window;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::base::ids::NodeId;
use crate::base::time::WallTime;
use crate::cluster::wire::proto::{HandoverResponse, LayFloor, SetMaintenance, SetPause, SetPriority};
use crate::config::units;
use crate::coordinator::KeyUse;
use crate::operator::explain::active_holder;
use crate::operator::order::{Order, WantedHandover};

use at::At;
use client::Client;
use config_file::ConfigFile;
use log::LogFormat;
use reach::Reach;
use start::{check, run};

/// Several hosts share one validator identity; exactly one of them signs at any time.
#[derive(Debug, Parser)]
#[command(name = "baton", version, subcommand_required = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run this host's coordinator
    Run {
        #[command(flatten)]
        file: ConfigFile,
        /// On SIGTERM, stop the chain node as well; without it, only SIGINT does, and SIGTERM leaves a standby node
        /// running for the next coordinator
        #[arg(long)]
        stop_node: bool,
        /// The validator key has signed outside of the cluster since that last let go of it: start all the same. The
        /// next holder waits for a later block
        #[arg(long)]
        key_signed_outside: bool,
        /// How log lines look; without it as BATON_LOG_FORMAT says, or else for people
        #[arg(long, value_enum)]
        log_format: Option<LogFormat>,
        /// What the chain node gets behind the arguments of chain.command
        #[arg(last = true, value_name = "ARGS")]
        node_arguments: Vec<String>,
    },
    /// Show every member, the leader and the holder (exit code 0: a holder is active, 1: none)
    Status {
        /// One JSON object
        #[arg(long)]
        json: bool,
        /// Show it on this terminal, with the last moves and what is wrong, until q, Esc or Ctrl-C
        #[arg(long, conflicts_with = "json")]
        watch: bool,
        /// With --watch, how often to ask, from 200ms to 1m
        #[arg(long, value_name = "DURATION", default_value = "1s", requires = "watch", value_parser = watch::every)]
        every: Duration,
        #[command(flatten)]
        reach: Reach,
    },
    /// Print the member whose chain node may sign (exit codes as status)
    ActiveValidator {
        #[command(flatten)]
        reach: Reach,
    },
    /// Show the moves of the baton, the oldest first, or one of them step by step
    History(history::History),
    /// Say in sentences who holds the baton and why, whether a failover would work now, and what is wrong (exit codes
    /// as status)
    Why(why::WhyArgs),
    /// Ask a host's metrics address whether its coordinator and chain node do as they should (exit codes: 0 yes, 3 no
    /// answer, 4 the coordinator hangs, 5 no quorum, 6 no chain node runs, 7 not ready)
    Canary {
        /// HOST:PORT, as in metrics.listen of that host
        addr: String,
        /// For all of it
        #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = units::duration)]
        timeout: Duration,
    },
    /// Make sure that this host does not sign: links to standby, chain node and guard ended; for a host whose
    /// coordinator does not run
    Fence {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Move the baton to another host and wait until it is active there
    Handover {
        /// The member to move it to; without it, the best ready standby
        #[arg(long, value_name = "ID")]
        to: Option<String>,
        /// How long to wait for the move to end, and for its window
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = units::duration)]
        timeout: Duration,
        /// Wait for a maintenance window of the validator of at least this length (near only) [default: 5s, or
        /// 60s with restart activation]
        #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, value_parser = units::duration)]
        window: Option<Option<Duration>>,
        /// Where the chain tells maintenance windows: wait this long for one as long as the last moves took, then go
        /// without
        #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = units::duration)]
        within: Duration,
        /// Wait for no window at all
        #[arg(long, conflicts_with_all = ["window", "within"])]
        now: bool,
        /// Only say what would happen (exit code 1: it would be refused)
        #[arg(long, conflicts_with = "window")]
        dry_run: bool,
        /// Ask for it then and not before: RFC 3339 with a zone, HH:MM[:SS] of the next 24 hours in UTC, or +DURATION.
        /// Ctrl-C until then cancels it
        #[arg(long, value_name = "TIME", conflicts_with = "window", value_parser = At::parse)]
        at: Option<At>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Keep a member from taking the baton; a holder hands it over first
    Maintenance {
        switch: Switch,
        /// The member; without it, the one that is asked
        #[arg(long, value_name = "ID")]
        member: Option<String>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Keep the baton where it is: no failover, no move for bad health, no failback
    Pause {
        #[command(flatten)]
        reach: Reach,
    },
    /// End a pause
    Resume {
        #[command(flatten)]
        reach: Reach,
    },
    /// Prefer a member more or less than its configuration says
    Priority {
        /// The member
        id: String,
        /// A number, or `configured`
        #[arg(value_name = "N|configured", value_parser = Preference::parse)]
        priority: Preference,
        #[command(flatten)]
        reach: Reach,
    },
    /// Say how far the key has signed, when a holder settles on a chain that stands still
    Floor {
        /// Nothing was signed with the key above this height
        #[arg(long, value_name = "HEIGHT")]
        above: u64,
        /// How that is known, for the history
        #[arg(long, value_name = "TEXT")]
        because: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Make the certificates by which members know each other
    Cert {
        #[command(subcommand)]
        command: cert::CertCommand,
    },
    /// Show the members of the cluster, or change them one at a time
    #[command(subcommand)]
    Member(members::Member),
    /// Upgrade the chain nodes of all hosts, the holder's last
    #[command(subcommand)]
    Upgrade(upgrade::Upgrade),
    /// Say how far the validator's key has signed, where no chain node has it, or give it back to chain nodes
    #[command(subcommand)]
    Signer(signer::Signer),
    /// Take along what this host's coordinator was told and decided
    #[command(subcommand)]
    Record(record::Record),
    /// Put recorded events to this version's core once more: tell what happened, what it would decide otherwise, and which
    /// rule was broken (exit code 1: something)
    Replay(record::Replayed),
    /// Write a configuration with a comment at every key, from flags or, at a terminal, by asking
    Init(Box<init::Init>),
    /// Read and check the configuration, the key files and the chain node's own files, and do nothing else
    Check {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print a script by which a shell completes baton's commands and options
    Completions { shell: clap_complete::Shell },
    /// Print the manual page of a command, or write all pages
    Man {
        /// Write baton.1, a page for every command, baton-guard.8 and baton-signer.8 to this directory, made when it is missing
        #[arg(long, value_name = "DIR", conflicts_with = "command")]
        dir: Option<PathBuf>,
        /// The command, as `cert issue`; without it, baton itself
        command: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// A priority that an operator sets; `None` takes it back.
#[derive(Clone, Copy, Debug)]
struct Preference(Option<u32>);

impl Preference {
    fn parse(text: &str) -> Result<Preference, String> {
        match text {
            "configured" => Ok(Preference(None)),
            number => number.parse().map(|n| Preference(Some(n))).map_err(|_| "a number, or \"configured\"".to_owned()),
        }
    }
}

/// Why a command did not do what it was asked, by exit code.
enum Failure {
    /// 2: the command line, the configuration or a key file.
    BadInput(anyhow::Error),
    /// 2: several things at once in the command line of `init`, a line each.
    Faults(Vec<String>),
    /// 2: the coordinator, which is not there or does not listen to us.
    Unreachable(anyhow::Error),
    /// 1: it was tried.
    Failed(anyhow::Error),
    /// A code of its own.
    Coded(anyhow::Error, u8),
}

impl Failure {
    /// In one line, or in as many as there are faults, with the exit code.
    fn told(self) -> (String, u8) {
        let (error, code) = match self {
            Failure::Faults(faults) => {
                let lines: Vec<String> = faults.iter().map(|fault| format!("init: {}", one_line(fault))).collect();
                return (lines.join("\nbaton: "), 2);
            }
            Failure::BadInput(error) | Failure::Unreachable(error) => (error, 2),
            Failure::Failed(error) => (error, 1),
            Failure::Coded(error, code) => (error, code),
        };
        (one_line(&format!("{error:#}")), code)
    }
}

/// Runs the command of this process and says how it ended.
pub fn main() -> ExitCode {
    match parse(std::env::args_os()).and_then(dispatch) {
        Ok(code) => code,
        Err(failure) => {
            let (line, code) = failure.told();
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "baton: {line}");
            ExitCode::from(code)
        }
    }
}

/// `None` when help or the version was asked for and shown.
fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<Cli>, Failure> {
    let error = match Cli::try_parse_from(args) {
        Ok(cli) => return Ok(Some(cli)),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            print(&error.to_string());
            Ok(None)
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let cli = Cli::command();
            let mut names: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
            let last = names.pop().unwrap_or_default();
            let names = format!("{} or {last}", names.join(", "));
            Err(Failure::BadInput(anyhow::anyhow!("no command is named; use {names} (baton --help)")))
        }
        _ => {
            let text = error.to_string();
            // What comes after the first words is usage, which --help shows.
            let text = text.split("\nUsage:").next().unwrap_or(&text);
            let text = text.split("\nFor more information").next().unwrap_or(text);
            let text = one_line(&text.trim_start_matches("error: ").replace("\n\n  tip: ", "; "));
            Err(Failure::BadInput(anyhow::anyhow!("{text} (baton --help)")))
        }
    }
}

fn dispatch(cli: Option<Cli>) -> Result<ExitCode, Failure> {
    let Some(Cli { command }) = cli else { return Ok(ExitCode::SUCCESS) };
    match command {
        Command::Run { file, stop_node, key_signed_outside, log_format, node_arguments } => {
            let key_use = if key_signed_outside { KeyUse::OutsideToo } else { KeyUse::InCluster };
            let mut config = file.load()?;
            let appended = config.append_to_command(node_arguments);
            appended.map_err(|problem| Failure::BadInput(anyhow::anyhow!("{problem}")))?;
            run(config, stop_node, key_use, log_format)
        }
        Command::Check { file } => check(&file),
        Command::Init(init) => init::run(*init),
        Command::Completions { shell } => Ok(pages::completions(shell)),
        Command::Man { dir, command } => pages::man(dir.as_deref(), &command),
        Command::Cert { command } => cert::run(command),
        Command::Status { watch: true, every, reach, json: _ } => watch::watch(&reach, every),
        Command::Status { json, reach, watch: false, every: _ } => ask(&reach, async |client| {
            let answer = client.status().await?;
            print(&if json { status::json(&answer) } else { status::table(&answer) });
            Ok(status::exit_code(&answer))
        }),
        Command::ActiveValidator { reach } => ask(&reach, async |client| {
            let answer = client.status().await?;
            match active_holder(&answer) {
                Some(holder) => print(&format!("Name: {}\n", holder.id)),
                None => return Err(Failure::Failed(anyhow::anyhow!("no holder is active; see baton status"))),
            }
            Ok(status::exit_code(&answer))
        }),
        Command::History(wanted) => history::run(&wanted),
        Command::Why(wanted) => why::run(&wanted),
        Command::Canary { addr, timeout } => canary::canary(&addr, timeout),
        Command::Fence { file } => fence::fence(&file),
        Command::Handover { to, timeout, window, within, now, dry_run, at, reach } => {
            let within = if now || window.is_some() { Duration::ZERO } else { within };
            let wanted = WantedHandover { to: to.map(NodeId::from), dry_run, timeout, within };
            handover(&reach, wanted, window, at)
        }
        Command::Maintenance { switch, member, reach } => {
            let (member, on) = (member.unwrap_or_default(), matches!(switch, Switch::On));
            order(&reach, "maintenance", Order::Maintenance(SetMaintenance { member, on, at_ns: 0 }))
        }
        Command::Pause { reach } => order(&reach, "pause", Order::Pause(SetPause { on: true, at_ns: 0 })),
        Command::Resume { reach } => order(&reach, "resume", Order::Pause(SetPause { on: false, at_ns: 0 })),
        Command::Priority { id, priority: Preference(priority), reach } => {
            order(&reach, "priority", Order::Priority(SetPriority { member: id, priority }))
        }
        Command::Floor { above, because, reach } => {
            order(&reach, "floor", Order::Floor(LayFloor { above, because, ..LayFloor::default() }))
        }
        Command::Member(member) => members::run(member),
        Command::Upgrade(upgrade) => upgrade::run(upgrade),
        Command::Signer(signer) => signer::run(signer),
        Command::Record(record) => record::run(record),
        Command::Replay(replayed) => record::replay(replayed),
    }
}

/// `window` and `at` say when to ask, and not both do.
fn handover(
    reach: &Reach,
    mut wanted: WantedHandover,
    window: Option<Option<Duration>>,
    at: Option<At>,
) -> Result<ExitCode, Failure> {
    let due = at.map(|at| at.after(WallTime::now())).transpose()?;
    let place = reach.place()?;
    runtime()?.block_on(async {
        let mut client = Client::connect(place.clone()).await?;
        if let Some(due) = due.filter(|_| !wanted.dry_run) {
            // Whoever waits for hours learned before that somebody is there to ask. It may be another coordinator by
            // then.
            drop(client);
            at::wait(due).await?;
            client = Client::connect(place).await?;
        }
        if let Some(length) = window {
            wanted.timeout = window::wait(&mut client, &reach.own_config("--window asks the chain node")?, length, wanted.timeout).await?;
        }
        let order = Order::Handover(wanted.request());
        let HandoverResponse { from, to, epoch, took_ns, moment } = client.order("handover", order).await?;
        if !moment.is_empty() {
            print(&format!("{moment}\n"));
        }
        print(&match due {
            Some(due) if wanted.dry_run => {
                let left = at::how_long(due, WallTime::now());
                format!(
                    "{from} -> {to} would be tried at {due}, {left}, if all is as it is now; {from} keeps the baton under epoch \
                     {epoch}\n"
                )
            }
            None if wanted.dry_run => {
                format!("{from} -> {to} would be tried now; {from} keeps the baton under epoch {epoch}\n")
            }
            Some(_) | None => format!("{from} -> {to} under epoch {epoch} in {} ms\n", took_ns / 1_000_000),
        });
        Ok(ExitCode::SUCCESS)
    })
}

/// Gives an order through the coordinator of this host and says what is so now.
fn order(reach: &Reach, what: &str, order: Order) -> Result<ExitCode, Failure> {
    ask(reach, async |client| {
        print(&format!("{}\n", client.order::<String>(what, order).await?));
        Ok(ExitCode::SUCCESS)
    })
}

/// Shows what is so after a change or, after a dry run, would be.
fn tell_change(what: &str, lines: &[String], refused: &str) -> Result<ExitCode, Failure> {
    lines.iter().for_each(|line| print(&format!("{line}\n")));
    if refused.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::Failed(anyhow::anyhow!("{what} would be refused: {refused}")))
}

/// Connects to the coordinator that is to be asked and does `work` with it.
fn ask(reach: &Reach, work: impl AsyncFnOnce(&mut Client) -> Result<ExitCode, Failure>) -> Result<ExitCode, Failure> {
    let place = reach.place()?;
    let runtime = runtime()?;
    runtime.block_on(async { work(&mut Client::connect(place).await?).await })
}

/// For a command that asks and ends.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.context("start the runtime").map_err(Failure::Failed)
}

fn bad_input(error: crate::config::ConfigError) -> Failure {
    Failure::BadInput(error.into())
}

/// To standard output; a reader that went away is no error of ours.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
