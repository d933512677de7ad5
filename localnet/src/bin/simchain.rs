//! `simchain`: makes, runs and judges the stand-in chain. Parses flags and nothing else; the chain is
//! `localnet::simchain`, the judge is `localnet::judge::signlog`.
//! Exit codes: 0 good, 1 `check` found a violation, 2 bad input or a halt for an upgrade; `pre-upgrade` has its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use baton::base::time::WallTime;
use clap::{Parser, Subcommand};
use localnet::judge::signlog::{self, Report};
use localnet::simchain::genesis;
use localnet::simchain::pre_upgrade;
use localnet::simchain::run::{RunOptions, run};
use localnet::simchain::upgrades::{Halt, Handlers, UpgradeOptions};

#[derive(Parser)]
#[command(name = "simchain", version, about = "A small but honest chain that stands in for a real one")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write genesis.json and keys/ACCOUNT.json for every validator
    Init {
        #[arg(long)]
        dir: PathBuf,
        /// Accounts, in the order of their turns
        #[arg(long, value_delimiter = ',', required = true)]
        validators: Vec<String>,
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=60_000))]
        slot_ms: u64,
        /// Start of height 0, from now
        #[arg(long, default_value_t = 0)]
        genesis_in_ms: u64,
    },
    /// Run one node until SIGTERM; SIGHUP reads HOME/validator_key.json again
    Run {
        #[arg(long)]
        home: PathBuf,
        #[arg(long)]
        genesis: PathBuf,
        /// Name of this host in the signature log
        #[arg(long)]
        host: String,
        #[arg(long)]
        rpc: SocketAddr,
        #[arg(long)]
        p2p: SocketAddr,
        #[arg(long, value_delimiter = ',')]
        peers: Vec<SocketAddr>,
        #[arg(long)]
        sign_log: PathBuf,
        #[command(flatten)]
        binary: Box<Binary>,
    },
    /// What a new binary does before its first start; here it ends as a script says
    PreUpgrade {
        /// Exit codes, a line for each call, or `wait` until it says another word; without the file, 1
        #[arg(long)]
        script: PathBuf,
    },
    /// Judge one key by the signature log and by the evidence of nodes
    Check {
        #[arg(long)]
        sign_log: PathBuf,
        /// ed25519:..., or a key file
        #[arg(long)]
        key: String,
        /// Addresses of nodes, such as http://127.0.0.1:3030
        #[arg(long, value_delimiter = ',')]
        evidence_from: Vec<String>,
        #[arg(long, default_value_t = signlog::OVERLAP_WINDOW.as_millis() as u64)]
        overlap_window_ms: u64,
    },
}

/// Which binary of the chain node this is to be.
#[derive(clap::Args)]
struct Binary {
    /// As /status tells it
    #[arg(long, default_value = "simchain")]
    as_version: String,
    /// Upgrades that the chain has planned: a JSON array of name, height and info; read again when it has changed
    #[arg(long, value_name = "FILE")]
    planned: Option<PathBuf>,
    /// Upgrades that this binary can carry out, and no others; without the flag, all
    #[arg(long, value_delimiter = ',')]
    upgrades: Option<Vec<String>>,
    /// Heights at which no upgrade is carried out
    #[arg(long, value_delimiter = ',')]
    unsafe_skip_upgrades: Vec<u64>,
    /// What becomes of a node that may not go on
    #[arg(long, value_enum, default_value = "exit")]
    halt: Halt,
    /// Do not run before the height of an upgrade that this binary has
    #[arg(long)]
    strict: bool,
}

impl Binary {
    fn upgrades(self) -> UpgradeOptions {
        let named = |names: Vec<String>| Handlers::These(names.into_iter().filter(|name| !name.is_empty()).collect());
        UpgradeOptions {
            planned: self.planned,
            handlers: self.upgrades.map_or(Handlers::All, named),
            skip: self.unsafe_skip_upgrades.into_iter().collect(),
            halt: self.halt,
            strict: self.strict,
        }
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) if usage.use_stderr() => return refuse(&one_line(&usage.to_string())),
        Err(help) => help.exit(),
    };
    match perform(cli.command) {
        Ok(code) => code,
        Err(error) => refuse(&format!("error: {error:#}")),
    }
}

fn refuse(line: &str) -> ExitCode {
    eprintln!("{line}");
    ExitCode::from(2)
}

/// The first paragraph of a usage error: what is wrong, without the usage text.
fn one_line(text: &str) -> String {
    text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ")
}

fn perform(command: Command) -> Result<ExitCode> {
    match command {
        Command::Init { dir, validators, slot_ms, genesis_in_ms } => {
            let start = WallTime::now() + Duration::from_millis(genesis_in_ms);
            let made = genesis::init(&dir, &validators, Duration::from_millis(slot_ms), start)?;
            println!("{} with {} validators in {}", made.chain_id, made.validators.len(), dir.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Run { home, genesis, host, rpc, p2p, peers, sign_log, binary } => {
            let (version, upgrades) = (binary.as_version.clone(), binary.upgrades());
            run(RunOptions { home, genesis, host, rpc, p2p, peers, sign_log, version, upgrades })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::PreUpgrade { script } => Ok(ExitCode::from(pre_upgrade::run(&script)?)),
        Command::Check { sign_log, key, evidence_from, overlap_window_ms } => {
            check(&sign_log, &key, &evidence_from, Duration::from_millis(overlap_window_ms))
        }
    }
}

fn check(sign_log: &Path, key: &str, evidence_from: &[String], overlap_window: Duration) -> Result<ExitCode> {
    let key = public_key(key)?;
    let mut log = signlog::read(sign_log)?;
    log.retain(|signature| signature.key == key);
    if log.is_empty() {
        bail!("signature log {} has no signature of {key}: nothing to judge", sign_log.display());
    }
    let report: Report = signlog::check_with(&log, overlap_window);
    print!("{report}");
    let mut clean = report.is_clean();
    for url in evidence_from {
        let count = evidence_against(url, &key).with_context(|| format!("evidence from {url}"))?;
        println!("  evidence at {url}: {count}");
        clean &= count == 0;
    }
    println!("{}", if clean { "clean" } else { "VIOLATED" });
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `key` itself, or the public key in the key file of that name.
fn public_key(key: &str) -> Result<String> {
    if key.starts_with("ed25519:") {
        return Ok(key.into());
    }
    let text = std::fs::read(key).with_context(|| format!("'{key}' is neither ed25519:... nor a key file"))?;
    let file: serde_json::Value = serde_json::from_slice(&text).with_context(|| format!("key file {key}"))?;
    let public = file["public_key"].as_str().ok_or_else(|| anyhow!("key file {key} has no public_key"))?;
    Ok(public.into())
}

/// How many pieces of evidence against `key` the node has.
fn evidence_against(url: &str, key: &str) -> Result<usize> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let address = url.strip_prefix("http://").unwrap_or(url).split('/').next().unwrap_or_default();
    let address: SocketAddr = address.parse().with_context(|| format!("'{address}' is no IP:PORT"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /evidence HTTP/1.1\r\nhost: simchain\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{}", head.lines().next().unwrap_or_default());
    }
    let body: serde_json::Value = serde_json::from_str(body)?;
    let list = body["evidence"].as_array().context("no list of evidence in the answer")?;
    Ok(list.iter().filter(|e| e["public_key"] == key).count())
}
