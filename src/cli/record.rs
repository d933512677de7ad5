//! `baton record` and `baton replay`: what a coordinator kept of itself, taken along and looked at again. Neither needs a
//! coordinator that runs.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};

use super::config_file::ConfigFile;
use super::moment::Moment;
use super::{Failure, print};
use crate::base::time::WallTime;
use crate::record::{self, Head, Piece, Pieces, Replay};

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

/// Exit code 1 when a decision of the record is not the one that this version makes.
pub(super) fn replay(files: &[PathBuf], quiet: bool) -> Result<ExitCode, Failure> {
    let mut differences = 0;
    for file in files {
        let bytes = if file.is_dir() { read_dir(file) } else { fs::read(file).context("read") };
        let bytes = bytes.with_context(|| file.display().to_string()).map_err(Failure::BadInput)?;
        let pieces = Pieces::read(&bytes).with_context(|| file.display().to_string()).map_err(Failure::BadInput)?;
        let replay = record::replay(pieces);
        differences += replay.differences.len();
        if !quiet {
            replay.story.iter().for_each(|told| print(&format!("{}  {}\n", told.at, told.text)));
        }
        print(&summary(file, &replay));
    }
    match differences {
        0 => Ok(ExitCode::SUCCESS),
        differences => Err(Failure::Failed(anyhow!("{differences} decisions differ from what was recorded"))),
    }
}

fn summary(file: &Path, replay: &Replay) -> String {
    let Replay { heads, replayed, passed_over, span, lost, unreadable, differences, story: _ } = replay;
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
    let segments = record::segments(dir).with_context(|| format!("read {}", dir.display()))?;
    let mut bytes = Vec::new();
    for segment in segments {
        match fs::read(&segment.path) {
            Ok(segment) => bytes.extend(segment),
            // The oldest may be dropped at any moment.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", segment.path.display())),
        }
    }
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
