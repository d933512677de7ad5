//! `baton record` and `baton replay`: what a coordinator kept of itself, taken along and looked at again. Neither needs a
//! coordinator that runs.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};

use super::config_file::ConfigFile;
use super::moment::Moment;
use super::{Failure, print};
use crate::base::time::{BootTime, WallTime};
use crate::record::{self, Clocks, Head, Observed, Offset, Piece, Pieces, Replay};
use crate::rules::Breach;
use crate::rules::cluster::Signed;

#[derive(Debug, Subcommand)]
pub(super) enum Record {
    /// Write what this host's coordinator was told and decided to one file, for `baton replay` or a report
    Export {
        /// Where to; it must not exist yet
        file: PathBuf,
        #[command(flatten)]
        span: Span,
        /// Name the members by numbers, and leave out addresses, paths and keys
        #[arg(long)]
        anonymous: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
}

/// A part of a record. It begins with the whole state of the coordinator, so it may begin some minutes before what is
/// asked for.
#[derive(Debug, Args)]
pub(super) struct Span {
    /// What happened from then on: RFC 3339 with a zone, HH:MM[:SS] of the last 24 hours in UTC, or a DURATION ago
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    since: Option<Moment>,
    /// What happened up to then, in the same forms
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    until: Option<Moment>,
}

pub(super) fn run(command: Record) -> Result<ExitCode, Failure> {
    let Record::Export { file, span, anonymous, config } = command;
    let dir = config.load_without_keys()?.state_dir.join(record::DIRECTORY);
    let now = WallTime::now();
    let since = span.since.map_or(WallTime::default(), |since| since.before(now));
    let until = span.until.map_or(WallTime::from_nanos(u64::MAX), |until| until.before(now));
    let bytes = read_dir(&dir).map_err(Failure::Failed)?;
    let pieces = Pieces::read(&bytes).with_context(|| dir.display().to_string()).map_err(Failure::Failed)?;
    let pieces: Vec<Piece> = record::within(pieces, since, until).collect();
    let kept = pieces.iter().filter_map(Piece::at);
    let (Some(first), Some(last)) = (kept.clone().min(), kept.max()) else {
        return Err(Failure::Failed(anyhow!("{} has nothing of that time", dir.display())));
    };
    let pieces = if anonymous { record::anonymous(pieces).map_err(|e| Failure::Failed(anyhow!(e)))? } else { pieces };
    let bytes = record::encode(&pieces);
    write_new(&file, &bytes).with_context(|| format!("write {}", file.display())).map_err(Failure::Failed)?;
    print(&format!("{}: {} bytes, from {first} to {last}\n", file.display(), bytes.len()));
    Ok(ExitCode::SUCCESS)
}

/// What `baton replay` goes through.
#[derive(Debug, Args)]
pub(super) struct Replayed {
    /// Files of `baton record export`, or state_dir/record of a host; those of several members are compared
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Say only what differs, what is missing and which rule was broken
    #[arg(long)]
    quiet: bool,
    /// The members ran on one machine: compare them by the clock of its kernel
    #[arg(long)]
    one_machine: bool,
    /// What the chain nodes signed, one line each: HOST KEY HEIGHT KIND NANOSECONDS, by that clock
    #[arg(long, value_name = "FILE", requires = "one_machine")]
    signatures: Option<PathBuf>,
}

/// Exit code 1 when a decision of the record is not the one that this version makes, or a rule was broken.
pub(super) fn replay(replayed: Replayed) -> Result<ExitCode, Failure> {
    let Replayed { files, quiet, one_machine, signatures } = replayed;
    let signed = signatures.map_or(Ok(Vec::new()), |file| read_signatures(&file)).map_err(Failure::BadInput)?;
    let (mut differences, mut broken) = (0, 0);
    let mut members: Vec<Observed> = Vec::new();
    for file in &files {
        let bytes = if file.is_dir() { read_dir(file) } else { fs::read(file).context("read") };
        let bytes = bytes.with_context(|| file.display().to_string()).map_err(Failure::BadInput)?;
        let pieces = Pieces::read(&bytes).with_context(|| file.display().to_string()).map_err(Failure::BadInput)?;
        let replay = record::replay(pieces);
        differences += replay.differences.len();
        if !quiet {
            replay.story.iter().for_each(|told| print(&format!("{}  {}\n", told.at, told.text)));
        }
        print(&summary(file, &replay));
        broken += tell_breaches(replay.observed.breaches());
        members.push(replay.observed);
    }
    let clocks = if one_machine { Clocks::OneKernel } else { Clocks::Walls };
    let merged = record::merged(&members.iter().collect::<Vec<_>>(), clocks, &signed);
    merged.offsets.iter().for_each(|offset| print(&format!("{}\n", offset_told(offset))));
    broken += tell_breaches(&merged.breaches);
    if members.len() > 1 {
        print(&format!("{} members compared, {} signatures; {broken} rules broken\n", members.len(), signed.len()));
    }
    match (differences, broken) {
        (0, 0) => Ok(ExitCode::SUCCESS),
        (0, broken) => Err(Failure::Failed(anyhow!("rules were broken {broken} times"))),
        (differences, broken) => Err(Failure::Failed(anyhow!(
            "{differences} decisions differ from what was recorded, and rules were broken {broken} times"
        ))),
    }
}

fn tell_breaches(breaches: &[Breach]) -> usize {
    breaches.iter().for_each(|breach| print(&format!("BROKEN: {breach}\n")));
    breaches.len()
}

fn offset_told(Offset { member, nanos, error, exchanges }: &Offset) -> String {
    let (ms, error) = (*nanos as f64 / 1e6, error.as_secs_f64() * 1e3);
    let by = match exchanges {
        0 => "as gossip measured it".to_owned(),
        exchanges => format!("bounded by {exchanges} requests and their answers"),
    };
    format!("the clock of {member} is {ms:.1} ms ahead of the first one's, give or take {error:.1} ms, {by}")
}

/// Each line as the signature log of a local network has it.
fn read_signatures(file: &Path) -> Result<Vec<Signed>> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let signed = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [host, _, height, _, at] = fields[..] else { return None };
        let at = BootTime::from_nanos(at.parse().ok()?);
        Some(Signed { member: host.into(), height: height.parse().ok()?, at })
    };
    let lines = text.lines().enumerate();
    let parsed = lines.map(|(nth, line)| {
        signed(line).ok_or_else(|| anyhow!("{} line {}: not HOST KEY HEIGHT KIND NANOSECONDS", file.display(), nth + 1))
    });
    parsed.collect()
}

fn summary(file: &Path, replay: &Replay) -> String {
    let Replay { heads, replayed, passed_over, span, lost, unreadable, differences, story: _, observed: _ } = replay;
    let mut text = String::new();
    let mut line = |line: String| text.push_str(&format!("{line}\n"));
    for difference in differences {
        line(format!("{}  DIFFERENCE: {}", difference.at.wall, difference.text));
    }
    let own = env!("CARGO_PKG_VERSION");
    for Head { version, .. } in heads.iter().filter(|head| head.version != own) {
        line(format!(
            "warning: recorded by baton {version}, replayed by {own}: what was changed since may show as a difference"
        ));
    }
    if *lost > 0 {
        line(format!("{lost} entries were not kept: the disk was full or slow, or the coordinator was"));
    }
    if *passed_over > 0 {
        line(format!("{passed_over} entries before the first whole state cannot be replayed"));
    }
    for damage in unreadable {
        line(format!(
            "{} bytes cannot be read: the coordinator was killed there, or the file is damaged",
            damage.bytes
        ));
    }
    let span = span.map_or(String::new(), |(first, last)| format!(", {first} to {last}"));
    line(format!("{}: {replayed} decisions replayed{span}; {} differ", file.display(), differences.len()));
    text
}

pub(super) fn read_dir(dir: &Path) -> Result<Vec<u8>> {
    let bytes = record::read(dir, SystemTime::UNIX_EPOCH).with_context(|| format!("read {}", dir.display()))?;
    if bytes.is_empty() {
        return Err(anyhow!("there is no record in {}", dir.display()));
    }
    Ok(bytes)
}

fn write_new(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    new.write_all(bytes)?;
    new.sync_all()
}
