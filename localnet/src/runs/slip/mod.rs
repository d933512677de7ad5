//! What one person does wrong by hand at one host of a network that runs, one slip at a time: made, asked about as an
//! operator would, and undone. A slip counts as named when a sentence of baton's names it; which sentence that is
//! stands in `words.rs`. Called by `localnet slip` and by its tests.

mod ask;
mod elsewhere;
mod make;
mod words;

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use baton::base::ids::Role;
use serde::{Deserialize, Serialize};

use crate::hosts::faults::{self, What};
use crate::judge::status::{POLL_EVERY, query_host};
use crate::net::{Ground, Net, Usage, write_file};
use crate::process::launch;
use crate::runs::demo::{ask_baton_within, await_pair};
use crate::runs::timing;
use ask::sentences;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Slip {
    /// A copy of the validator's key file is the target of the link in standby
    CopiedKey,
    /// The node's command names another home than `chain.home`, and the key lies in it
    OtherHome,
    /// A node with the key that is not baton's runs where the host's own is probed
    ForeignNode,
    /// The node's command is a script that does not end in `exec`; then coordinator and guard are killed at once
    Wrapper,
    /// The host alone has `profile = "wan"`
    Timings,
    /// The host's file has the addresses of two others the wrong way round
    SwappedAddresses,
    /// The host is started with another host's file
    OtherFile,
    /// The host is started on a copy of its `state_dir` of before
    OldState,
    /// The host probes the other host's chain node in place of its own
    OtherProbe,
    /// The host is started as a cluster of another name, with a copy of the validator's key file
    SecondCluster,
    /// The host's file names it alone as a member, and its `state_dir` is empty
    SoleFounder,
    /// The host alone has another `clock_skew`
    ClockSkew,
    /// A node with the key that is not baton's runs where nobody probes it, while all hosts are in maintenance
    NodeElsewhere,
}

impl Slip {
    pub const ALL: [Slip; 13] = [
        Slip::CopiedKey,
        Slip::OtherHome,
        Slip::ForeignNode,
        Slip::Wrapper,
        Slip::Timings,
        Slip::SwappedAddresses,
        Slip::OtherFile,
        Slip::OldState,
        Slip::OtherProbe,
        Slip::SecondCluster,
        Slip::SoleFounder,
        Slip::ClockSkew,
        Slip::NodeElsewhere,
    ];
}

/// What was done, and by which words it would be known again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Made {
    pub slip: Slip,
    pub host: String,
    /// For people.
    pub done: String,
    /// The file, folder or process that the slip is about.
    traces: Traces,
    /// Length of the coordinator's log before.
    log_bytes: usize,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Traces {
    path: Option<PathBuf>,
    pid: Option<i32>,
    other: Option<String>,
}

/// What baton says of a slip.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// The command that said it, or the log.
    pub by: &'static str,
    pub sentence: String,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.by, self.sentence)
    }
}

const SERVE_BOUND: Duration = Duration::from_secs(20);
const END_BOUND: Duration = Duration::from_secs(10);

/// Of a slip that was made: what it needs to be undone.
fn folder(net: &Net, host: &str) -> PathBuf {
    net.host_dir(host).join("slip")
}

fn record(net: &Net, host: &str) -> PathBuf {
    folder(net, host).join("made.json")
}

/// The host at which a slip matters most: the holder for one that lengthens its lease, else the standby.
pub fn usual_host(net: &Net, slip: Slip) -> Result<String> {
    let pair = await_pair(net, |_| ())?;
    Ok(match slip {
        Slip::Timings => pair.holder,
        Slip::CopiedKey | Slip::OtherHome | Slip::ForeignNode | Slip::Wrapper => pair.standby,
        Slip::SwappedAddresses | Slip::OtherFile | Slip::OldState | Slip::OtherProbe => pair.standby,
        Slip::SecondCluster | Slip::SoleFounder | Slip::ClockSkew | Slip::NodeElsewhere => pair.standby,
    })
}

/// The slip has been made on `host`, whose coordinator has been started with it. It may have ended since.
///
/// # Errors
/// The host cannot have this slip or has one already (bad input); or it could not be made, and is undone.
pub fn make(net: &Net, slip: Slip, host: &str) -> Result<Made> {
    if net.ground == Ground::Containers {
        bail!(Usage("slips are for a network of processes, not of containers".into()));
    }
    if net.host(host)?.role == Role::Arbiter && slip.needs_a_node() {
        bail!(Usage(format!("{host} is an arbiter: this slip needs a host with a chain node")));
    }
    if record(net, host).exists() {
        bail!(Usage(format!("{host} has a slip already; `localnet slip --undo {host}` first")));
    }
    crate::hosts::make_dir(&folder(net, host))?;
    let config = net.config_file(host);
    fs::copy(&config, folder(net, host).join("baton.toml")).with_context(|| format!("keep {}", config.display()))?;
    let log_bytes = fs::metadata(ask::log(net, host)).map_or(0, |log| log.len() as usize);
    let (done, traces) = (String::new(), Traces::default());
    // Recorded before anything is done, so that half a slip can be undone too.
    let mut made = Made { slip, host: host.into(), done, traces, log_bytes };
    made.save(net)?;
    match make::make(net, slip, host) {
        Ok((done, traces)) => {
            made = Made { done, traces, ..made };
            made.save(net)?;
            Ok(made)
        }
        Err(error) => {
            let error = error.context(format!("make the slip on {host}"));
            Err(match undo(net, host) {
                Ok(_) => error,
                Err(left) => error.context(format!("half of it is left: {left:#}")),
            })
        }
    }
}

impl Slip {
    fn needs_a_node(self) -> bool {
        match self {
            Slip::CopiedKey | Slip::OtherHome | Slip::ForeignNode | Slip::Wrapper | Slip::OtherFile => true,
            Slip::OtherProbe | Slip::SecondCluster | Slip::ClockSkew | Slip::NodeElsewhere => true,
            Slip::Timings | Slip::SwappedAddresses | Slip::OldState | Slip::SoleFounder => false,
        }
    }
}

impl Made {
    fn save(&self, net: &Net) -> Result<()> {
        write_file(&record(net, &self.host), &serde_json::to_string_pretty(self)?)
    }
}

/// Asks as an operator would until a sentence names the slip; `None` when none did within `within`.
pub fn await_named(net: &Net, made: &Made, within: Duration) -> Result<Option<Named>> {
    let began = Instant::now();
    loop {
        let named = sentences(net, made)?.into_iter().find(|said| words::names(made, &said.sentence));
        if named.is_some() || began.elapsed() > within {
            return Ok(named);
        }
        std::thread::sleep(POLL_EVERY);
    }
}

/// Gives the host the baton, if it takes it, and kills its coordinator and guard at once, where the slip is about what
/// then lives on. The chain node, if it does.
pub fn left_behind(net: &Net, made: &Made) -> Result<Option<String>> {
    if made.slip != Slip::Wrapper {
        return Ok(None);
    }
    let host = &made.host;
    // Refused or not: with the key, what lives on signs beside the next holder.
    let _ = ask_baton_within(END_BOUND, net, host, &["handover", "--to", host]);
    let mut struck = faults::of_host(net, host, What::Coordinator);
    struck.extend(faults::of_host(net, host, What::Guard));
    faults::kill(&struck)?;
    let began = Instant::now();
    loop {
        let left = faults::of_host(net, host, What::Node);
        if left.is_empty() {
            return Ok(None);
        }
        if began.elapsed() > END_BOUND {
            return Ok(Some(crate::process::procs::describe(&left)));
        }
        std::thread::sleep(POLL_EVERY);
    }
}

/// The host is as before its slip, and its coordinator answers.
///
/// # Errors
/// It has no slip (bad input); or something could not be put back.
pub fn undo(net: &Net, host: &str) -> Result<Slip> {
    net.host(host)?;
    let file = record(net, host);
    let Ok(text) = fs::read(&file) else { bail!(Usage(format!("{host} has no slip to undo"))) };
    let made: Made = serde_json::from_slice(&text).with_context(|| format!("read {}", file.display()))?;
    stop(net, host)?;
    make::put_back(net, &made)?;
    let config = net.config_file(host);
    let before = folder(net, host).join("baton.toml");
    fs::copy(&before, &config).with_context(|| format!("put {} back", config.display()))?;
    fs::remove_dir_all(folder(net, host)).with_context(|| format!("remove {}", folder(net, host).display()))?;
    launch::start_coordinator(net, host)?;
    await_answer(net, host)?;
    Ok(made.slip)
}

/// Nothing of `host` runs. A holder handed over first, if it could.
fn stop(net: &Net, host: &str) -> Result<()> {
    timing::end(net, host, END_BOUND)?;
    faults::kill_host(net, host, &faults::of_host(net, host, What::Host))
}

/// The coordinator of `host` answers, or has ended.
fn await_start(net: &Net, host: &str) -> Result<()> {
    let began = Instant::now();
    while query_host(net, host).is_err() && !faults::of_host(net, host, What::Coordinator).is_empty() {
        if began.elapsed() > SERVE_BOUND {
            bail!("{host}: its coordinator neither answers nor ends within {SERVE_BOUND:?}");
        }
        std::thread::sleep(POLL_EVERY);
    }
    Ok(())
}

fn await_answer(net: &Net, host: &str) -> Result<()> {
    await_start(net, host)?;
    query_host(net, host).map(drop).with_context(|| format!("{host} does not serve after the slip was undone"))
}
