//! `baton why`: asks the coordinator now or, with `--at`, the record for a moment in the past.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use serde::Serialize;

use super::moment::Moment;
use super::reach::Reach;
use super::record::read_dir;
use super::{Failure, ask, print, status};
use crate::base::time::{Now, WallTime};
use crate::coordinator::then;
use crate::operator::explain::Why;
use crate::record::{self, Past, Pieces, past};

/// A coordinator that runs takes something down more often: what is older says nothing of a moment.
const QUIET_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// What the coordinator of this host would have said then, by its record: RFC 3339 with a zone, HH:MM[:SS] of the last
    /// 24 hours in UTC, or a DURATION ago
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    at: Option<Moment>,
    /// With --at, a file of `baton record export`, or state_dir/record of a host [default: the record of this host]
    #[arg(long, value_name = "FILE", requires = "at")]
    record: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(WhyArgs { json, at, record, reach }: &WhyArgs) -> Result<ExitCode, Failure> {
    if let Some(at) = at {
        let place = match record {
            Some(place) => place.clone(),
            None => reach.own_config("--at reads the record")?.state_dir.join(record::DIRECTORY),
        };
        return look_back(at.before(WallTime::now()), place, *json);
    }
    ask(reach, async |client| {
        let (status, moves) = (client.status().await?, client.history().await?);
        let why = Why::of(&status, &moves, WallTime::now());
        print(&if *json { why.json() } else { why.text() });
        Ok(status::exit_code(&status))
    })
}

#[derive(Serialize)]
struct ThenObject<'a> {
    /// The moment that it was so.
    at_ns: u64,
    /// The baton that recorded it.
    recorded_by: &'a str,
    /// Decisions of this version that are not the recorded ones.
    differ: u64,
    #[serde(flatten)]
    why: &'a Why,
}

fn look_back(at: WallTime, place: PathBuf, json: bool) -> Result<ExitCode, Failure> {
    let bytes = if place.is_dir() { read_dir(&place) } else { fs::read(&place).context("read") };
    let bytes = bytes.with_context(|| place.display().to_string()).map_err(Failure::BadInput)?;
    let pieces = Pieces::read(&bytes).with_context(|| place.display().to_string()).map_err(Failure::BadInput)?;
    let past = past(pieces, at);
    let Some((core, now)) = past.core().filter(|(_, now)| at.since(now.wall) <= QUIET_MAX) else {
        return Err(Failure::BadInput(anyhow!("{}: {}", place.display(), nothing_then(at, &past))));
    };
    // Some time may have passed since the last thing that happened, and time alone changes what is so.
    let now = Now { boot: now.boot + at.since(now.wall), wall: at };
    let (status, moves) = then(core, now, &past.timelines);
    let why = Why::of(&status, &moves, at);
    let version = past.head.as_ref().map_or("", |head| head.version.as_str());
    if json {
        let object = ThenObject { at_ns: at.as_nanos(), recorded_by: version, differ: past.differ, why: &why };
        let text = serde_json::to_string_pretty(&object).expect("strings, numbers and booleans have a JSON form");
        print(&format!("{text}\n"));
    } else {
        print(&format!("{}{}", heading(&status.member, at, version, past.differ), why.text()));
    }
    Ok(status::exit_code(&status))
}

fn heading(member: &str, at: WallTime, version: &str, differ: u64) -> String {
    let own = env!("CARGO_PKG_VERSION");
    let by = if version == own { String::new() } else { format!(" of baton {version}, read by {own}") };
    let mut text = format!(
        "As {member} knew it at {at}, by its record{by}. What only a coordinator that runs knows is missing: guard, links, \
         processes, disk space, certificates.\n"
    );
    if differ > 0 {
        text.push_str(&format!(
            "warning: {differ} decisions before that differ from the recorded ones; see baton replay\n"
        ));
    }
    text
}

fn nothing_then(at: WallTime, past: &Past) -> String {
    match (past.core(), past.since, past.next) {
        (None, Some(since), Some(_)) if at < since => {
            format!("nothing is recorded of {at}: the record begins at {since}")
        }
        (Some((_, last)), _, None) => format!("nothing is recorded of {at}: the record ends at {}", last.wall),
        (Some((_, last)), _, Some(next)) => format!(
            "nothing is recorded of {at}: between {} and {next} the coordinator did not run, or could not write",
            last.wall
        ),
        (None, _, Some(next)) => format!("nothing that can be replayed is recorded of {at}; it goes on at {next}"),
        (None, _, None) => format!("nothing that can be replayed is recorded of {at}"),
    }
}
