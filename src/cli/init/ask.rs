//! The questions of `baton init`: on standard error, one a line, for what the command line leaves open. An answer is
//! judged at once, and asked for again when it will not do.

use std::io::{self, BufRead, Write};

use anyhow::{Result, anyhow};
use clap::ValueEnum;

use super::member::Named;
use super::plan::{USUAL_KEYS, health, listens};
use super::{ChainKind, Init};

/// Fills in what is missing, and what goes with it.
///
/// # Errors
/// The input ended before all was said.
pub(super) fn missing(init: &mut Init) -> Result<()> {
    eprintln!("Enter takes what stands in brackets; Ctrl-C leaves, and nothing is written.\n");
    identity(init)?;
    if init.peers.is_empty() {
        peers(init)?;
    }
    if let Some(kind) = init.chain.filter(|kind| *kind != ChainKind::None) {
        chain_node(init, kind)?;
    }
    if init.metrics.is_none() {
        let about = "IP:PORT for /metrics and /health, such as 127.0.0.1:2233";
        init.metrics = perhaps(about, |text| listens(text).map(|_| ()))?;
    }
    eprintln!();
    Ok(())
}

fn identity(init: &mut Init) -> Result<()> {
    if init.member.is_none() {
        let host = hostname().filter(|name| Named::parse(name).is_ok());
        init.member =
            Some(ask("Name of this host in the cluster", host.as_deref(), |text| Named::parse(text).map(|_| ()))?);
    }
    if init.cluster.is_none() {
        init.cluster = Some(ask("Name of the cluster, the same on every host", None, |_| Ok(()))?);
    }
    if init.chain.is_none() {
        let about = "Chain node: near, cometbft, generic for any other, none for an arbiter";
        let answer = ask(about, Some("near"), |text| chain_kind(text).map(|_| ()))?;
        init.chain = chain_kind(&answer).ok();
    }
    if init.listen.is_none() {
        let about = "IP:PORT where this host waits for the others, such as 10.0.0.1:7401";
        init.listen = Some(ask(about, None, |text| listens(text).map(|_| ()))?);
    }
    own_address(init)
}

/// Whoever listens everywhere has to say where he is.
fn own_address(init: &mut Init) -> Result<()> {
    let everywhere =
        init.listen.as_deref().and_then(|text| listens(text).ok()).is_some_and(|a| a.ip().is_unspecified());
    let Some(member) = init.member.clone().filter(|_| everywhere) else { return Ok(()) };
    if Named::parse(&member).is_ok_and(|named| named.addr.is_some()) {
        return Ok(());
    }
    let (id, rest) = member.split_once(',').map_or((member.as_str(), ""), |(id, rest)| (id, rest));
    let with = |addr: &str| match rest {
        "" => format!("{id}={addr}"),
        rest => format!("{id}={addr},{rest}"),
    };
    let about = format!("HOST:PORT where the others reach {id}");
    let addr = ask(&about, None, |addr| Named::parse(&with(addr)).map(|_| ()))?;
    init.member = Some(with(&addr));
    Ok(())
}

fn peers(init: &mut Init) -> Result<()> {
    eprintln!("The other members, one a line, as host-b=10.0.0.2:7401 or host-c=10.0.0.3:7401,arbiter");
    let check = |text: &str| Named::parse_peer(text).map(|_| ());
    init.peers.push(ask("Another member", None, check)?);
    loop {
        if init.peers.len() == 1 {
            eprintln!("  with these two, the loss of EITHER stops signing; an arbiter is enough as the third");
        }
        match perhaps("Another member", check)? {
            Some(peer) => init.peers.push(peer),
            None => return Ok(()),
        }
    }
}

fn chain_node(init: &mut Init, kind: ChainKind) -> Result<()> {
    let usual = kind.usual();
    let fine = |_: &str| Ok(());
    if init.home.is_none() {
        init.home = Some(ask("Home of the chain node", usual.as_ref().map(|usual| usual.home), fine)?);
    }
    if init.link.is_none() && kind == ChainKind::Generic {
        init.link = Some(ask("File in the home that the node reads its validator key from", None, fine)?);
    }
    if init.keys.is_none() {
        init.keys = Some(ask("Directory of the key files", Some(USUAL_KEYS), fine)?);
    }
    if let (None, Some(driver)) = (&init.probe, kind.driver()) {
        let about = "Where the node is asked for its health";
        let check = |text: &str| health(driver, text).map(|_| ());
        init.probe = Some(ask(about, usual.as_ref().map(|usual| usual.probe), check)?);
    }
    if init.command.is_empty() {
        let default = usual.map(|usual| usual.command(init.home.as_deref().unwrap_or_default()).join(" "));
        let answer = ask("Command line of the chain node", default.as_deref(), is_plain)?;
        init.command = answer.split_whitespace().map(str::to_owned).collect();
    }
    Ok(())
}

fn chain_kind(text: &str) -> Result<ChainKind, String> {
    ChainKind::from_str(text, false).map_err(|_| format!("{text:?} is not known; use near, cometbft, generic or none"))
}

/// Words are told apart by spaces and by nothing else.
fn is_plain(text: &str) -> Result<(), String> {
    match text.contains(['"', '\'', '\\', '|', '&', ';', '$']) {
        true => Err("quotes and the like mean nothing here; start anew with the command behind --".to_owned()),
        false => Ok(()),
    }
}

fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    name.trim().split('.').next().map(str::to_owned).filter(|name| !name.is_empty())
}

/// An answer that `check` takes.
fn ask(about: &str, default: Option<&str>, check: impl Fn(&str) -> Result<(), String>) -> Result<String> {
    loop {
        match default {
            Some(default) => eprint!("{about} [{default}]: "),
            None => eprint!("{about}: "),
        }
        let line = line()?;
        let answer = if line.is_empty() { default.unwrap_or_default() } else { &line };
        match check(answer) {
            Ok(()) if !answer.is_empty() => return Ok(answer.to_owned()),
            Ok(()) => eprintln!("  this one has to be answered"),
            Err(_) if answer.is_empty() => eprintln!("  this one has to be answered"),
            Err(problem) => eprintln!("  {problem}"),
        }
    }
}

/// The same, of something that may be left out.
fn perhaps(about: &str, check: impl Fn(&str) -> Result<(), String>) -> Result<Option<String>> {
    loop {
        eprint!("{about} [none]: ");
        let answer = line()?;
        if answer.is_empty() || answer == "none" {
            return Ok(None);
        }
        match check(&answer) {
            Ok(()) => return Ok(Some(answer)),
            Err(problem) => eprintln!("  {problem}"),
        }
    }
}

fn line() -> Result<String> {
    io::stderr().flush()?;
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line)? == 0 {
        eprintln!();
        return Err(anyhow!("init: the input ended before all was said; nothing was written"));
    }
    Ok(line.trim().to_owned())
}
