//! `baton completions` and `baton man`: what shells and `man` are to know of the command line, made from the same
//! description that parses it. Packages take both from the program that they ship.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Arg, ArgAction, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Cli, Failure, print};

const SEE_ALSO: [&str; 3] = ["baton", "baton-guard", "baton-signer"];

/// What `baton --help` has no room for.
const EXIT_STATUS: [(&str, &str); 3] = [
    ("0", "Done; of status, why and active-validator: a holder is active."),
    ("1", "Not done, or refused; of status, why and active-validator: no holder is active."),
    ("2", "The input is wrong, or no coordinator answers; nothing was touched."),
];
const ENVIRONMENT: [(&str, &str); 6] = [
    ("BATON_CONFIG", "The configuration, when --config is absent."),
    ("BATON_SECTION_KEY", "Replaces what the configuration says: BATON_TIMING_LEASE=2s."),
    ("BATON_ADDR", "A member, HOST:PORT, to be asked over TLS, when --addr is absent."),
    ("BATON_CA, BATON_CERT, BATON_KEY", "The files for that, when --ca, --cert and --key are absent."),
    ("BATON_LOG", "What baton run logs: a level, or level,module=level."),
    ("CREDENTIALS_DIRECTORY", "Set by systemd; paths of key files may begin with $CREDENTIALS_DIRECTORY/."),
];
const FILES: [(&str, &str); 1] = [("/etc/baton/baton.toml", "The configuration, when none is named.")];

/// The script that makes `shell` complete the words of a command line.
pub(super) fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "baton", &mut script);
    print(&String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}

/// The page of one command, or all pages as files in `dir`.
pub(super) fn man(dir: Option<&Path>, words: &[String]) -> Result<ExitCode, Failure> {
    let pages = pages().map_err(|error| Failure::Failed(anyhow!("man: {error}")))?;
    let Some(dir) = dir else {
        let name = std::iter::once("baton").chain(words.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
        let page = pages.iter().find(|page| page.name == name).ok_or_else(|| {
            Failure::BadInput(anyhow!("man: baton has no command {:?}; baton --help lists them", words.join(" ")))
        })?;
        print(&page.text);
        return Ok(ExitCode::SUCCESS);
    };
    let failed = |path: &Path, error: io::Error| Failure::BadInput(anyhow!("man: write {}: {error}", path.display()));
    fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
    for page in &pages {
        let path: PathBuf = dir.join(format!("{}.{}", page.name, page.section));
        fs::write(&path, &page.text).map_err(|error| failed(&path, error))?;
    }
    print(&format!("wrote {} pages to {}\n", pages.len(), dir.display()));
    Ok(ExitCode::SUCCESS)
}

struct Page {
    /// As `baton-cert-issue`.
    name: String,
    section: &'static str,
    text: String,
}

fn pages() -> io::Result<Vec<Page>> {
    let mut baton = Cli::command().disable_help_subcommand(true);
    baton.build();
    let mut pages = vec![page(&guard(), "8")?, page(&signer(), "8")?];
    let mut open = vec![baton];
    while let Some(command) = open.pop() {
        open.extend(command.get_subcommands().cloned());
        pages.push(page(&command, "1")?);
    }
    pages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(pages)
}

fn page(command: &Command, section: &'static str) -> io::Result<Page> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    // The program's version, also of a subcommand; a date would make two builds differ.
    let source = concat!("baton ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).title(&name).section(section).source(source).manual("baton");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    synopsis(command, &mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    more(&name, &mut text)?;
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    Ok(Page { name, section, text })
}

/// As `--help` has it, with what has to be said and in which order.
fn synopsis(command: &Command, text: &mut Vec<u8>) -> io::Result<()> {
    let usage = command.clone().render_usage().to_string();
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]).text([roman(usage.trim_start_matches("Usage: "))]);
    roff.to_writer(text as &mut dyn Write)
}

fn more(name: &str, text: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    if name == "baton" {
        for (heading, items) in [("EXIT STATUS", &EXIT_STATUS[..]), ("ENVIRONMENT", &ENVIRONMENT), ("FILES", &FILES)] {
            roff.control("SH", [heading]);
            for (item, says) in items {
                roff.control("TP", []).text([bold(*item)]).text([roman(*says)]);
            }
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    let others: Vec<&str> = SEE_ALSO.into_iter().filter(|other| *other != name).collect();
    let mut words = Vec::new();
    for (index, other) in others.iter().enumerate() {
        let end = if index + 1 == others.len() { "" } else { ", " };
        words.extend([bold(*other), roman(format!("({}){end}", if *other == "baton" { 1 } else { 8 }))]);
    }
    roff.text(words);
    roff.to_writer(text as &mut dyn Write)
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn help() -> Arg {
    Arg::new("help").short('h').long("help").action(ArgAction::Help).help("Print how it is called")
}

/// The guard's command line, which it reads without clap to stay small.
fn guard() -> Command {
    let mut guard = Command::new("baton-guard")
        .about("Parent of a chain node, which kills it when the lease of its host ends")
        .long_about(
            "The small process between baton run and the chain node. It is started by baton run, outlives it, and kills the \
             chain node when the deadline passes that a quorum has promised, whatever became of the coordinator. \
             Nobody starts it by hand.\n\nbaton-guard public-key --format near|cometbft FILE is a smaller process yet: it \
             reads the validator's key for the coordinator, which never does, prints the public half and ends.",
        )
        .disable_help_flag(true)
        .arg(option("socket", "PATH", "The socket on which the coordinator talks to it; an absolute path").required(true))
        .arg(help());
    guard.build();
    guard
}

/// The signer's, for the same reason.
fn signer() -> Command {
    let mut signer = Command::new("baton-signer")
        .about("The only process that opens the validator's key where chain.custody is \"signer\"")
        .long_about(
            "The small process between baton run and the validator's key. It is started by baton run, ends with it, and is \
             started again when it ends by itself. It signs what its coordinator has had admitted by the Raft log, unless \
             its own mark says that something else was signed there or above. It has no network; its memory is closed to \
             debuggers and locked where the limits allow it. Nobody starts it by hand.",
        )
        .disable_help_flag(true)
        .arg(option("key", "FILE", "signer.key: CometBFT's priv_validator_key.json or tmkms' softsign key, mode 0600").required(true))
        .arg(option("mark", "FILE", "What was signed last; synced before a signature leaves").required(true))
        .arg(Arg::new("json-lines").long("json-lines").action(ArgAction::SetTrue).help("Log in JSON, a line each"))
        .arg(help());
    signer.build();
    signer
}
