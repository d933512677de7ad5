//! `baton history --detail`: one move, step by step, as one member saw it. A coordinator keeps those that it has seen
//! since its start; older ones, and those of a coordinator that does not run, stand in the record of this host.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use super::client::Client;
use super::reach::Reach;
use super::table::render;
use super::{Failure, print, runtime};
use crate::base::ids::Epoch;
use crate::cluster::wire::proto::{HistoryResponse, Timeline};
use crate::operator::explain::{Part, in_ms, in_words, or_dash, parts};
use crate::record::{self, Piece, Pieces};

const HEADS: [&str; 5] = ["STEP", "AT (UTC)", "TOOK", "TOTAL", "WHAT"];

/// Where a timeline was found.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    Coordinator,
    Record,
}

struct Found {
    timeline: Timeline,
    /// Who saw it.
    member: String,
    source: Source,
}

pub(super) fn run(epoch: u64, json: bool, reach: &Reach) -> Result<ExitCode, Failure> {
    let asked = reach
        .place()
        .and_then(|place| runtime()?.block_on(async { Client::connect(place).await?.whole_history().await }));
    let told = match &asked {
        Ok(history) => history.timelines.iter().find(|timeline| timeline.epoch == epoch).map(|timeline| Found {
            timeline: timeline.clone(),
            member: history.member.clone(),
            source: Source::Coordinator,
        }),
        Err(_) => None,
    };
    let found = match told {
        Some(found) => Some(found),
        None => of_record(epoch, reach)?,
    };
    match (found, asked) {
        (Some(found), _) => {
            print(&if json { self::json(&found) } else { table(&found) });
            Ok(ExitCode::SUCCESS)
        }
        (None, Ok(history)) => Err(Failure::Failed(anyhow!("{}", unknown(epoch, &history)))),
        (None, Err(failure)) => Err(failure),
    }
}

/// `None` where there is no record of this host to look into, or none of that epoch.
fn of_record(epoch: u64, reach: &Reach) -> Result<Option<Found>, Failure> {
    if !reach.is_by_config()? {
        return Ok(None);
    }
    let config = reach.own_config("--detail reads the record")?;
    let dir = config.state_dir.join(record::DIRECTORY);
    let segments =
        record::segments(&dir).with_context(|| format!("read {}", dir.display())).map_err(Failure::BadInput)?;
    let newest_first = segments.iter().rev().map(|segment| read(&segment.path));
    let found = record::timeline_of(Epoch(epoch), newest_first).map_err(Failure::BadInput)?;
    Ok(found.map(|(member, timeline)| Found {
        timeline: (&timeline).into(),
        member: member.to_string(),
        source: Source::Record,
    }))
}

fn read(segment: &Path) -> Result<Vec<Piece>> {
    let bytes = match fs::read(segment) {
        // The oldest may be dropped at any moment.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.with_context(|| format!("read {}", segment.display()))?,
    };
    Ok(Pieces::read(&bytes).with_context(|| segment.display().to_string())?.collect())
}

/// What is known instead, and whom to ask.
fn unknown(epoch: u64, history: &HistoryResponse) -> String {
    let HistoryResponse { moves, member, timelines, .. } = history;
    let who = if member.is_empty() { "the member that was asked" } else { member };
    let known: Vec<String> = timelines.iter().map(|timeline| timeline.epoch.to_string()).collect();
    let known = match known.as_slice() {
        [] => "of no move since its start".to_owned(),
        [one] => format!("of epoch {one} alone"),
        [first, .., last] => format!("of epochs {first} to {last}"),
    };
    match moves.iter().find(|row| row.epoch == epoch) {
        Some(row) if row.to != *who => {
            format!("{who} knows the steps {known}, and not of {epoch}; ask {}, which took the baton then", row.to)
        }
        Some(_) => format!("{who} knows the steps {known}, and has no record of {epoch} any more"),
        None => format!("{who} knows the steps {known}, and the history has no epoch {epoch}; baton history shows all"),
    }
}

#[derive(Serialize)]
struct DetailObject<'a> {
    epoch: u64,
    from: Option<&'a str>,
    to: &'a str,
    reason: &'a str,
    /// Who saw it so.
    member: &'a str,
    source: Source,
    steps: Vec<StepObject<'a>>,
}

#[derive(Serialize)]
struct StepObject<'a> {
    step: &'a str,
    at_ns: u64,
    /// Since the step before, and since the first.
    took_ns: u64,
    after_ns: u64,
    because: Option<&'a str>,
}

fn json(Found { timeline, member, source }: &Found) -> String {
    let parts = parts(timeline);
    let object = DetailObject {
        epoch: timeline.epoch,
        from: Some(timeline.from.as_str()).filter(|from| !from.is_empty()),
        to: &timeline.to,
        reason: &timeline.reason,
        member,
        source: *source,
        steps: parts.iter().map(step).collect(),
    };
    let text = serde_json::to_string_pretty(&object).expect("strings and numbers have a JSON form");
    format!("{text}\n")
}

fn step<'a>(part: &Part<'a>) -> StepObject<'a> {
    StepObject {
        step: part.step,
        at_ns: part.at.as_nanos(),
        took_ns: part.took_ns(),
        after_ns: part.until_ns,
        because: Some(part.because).filter(|because| !because.is_empty()),
    }
}

fn table(Found { timeline, member, source }: &Found) -> String {
    let Timeline { epoch, from, to, reason, moments: _ } = timeline;
    let parts = parts(timeline);
    let day = parts.first().map_or(String::new(), |part| part.at.to_string()[..10].to_owned());
    let source = match source {
        Source::Coordinator => "",
        Source::Record => ", by its record",
    };
    let head =
        format!("epoch {epoch}, {} -> {to}, {day}, as {member} saw it{source}: {}\n", or_dash(from), in_words(reason));
    let rows: Vec<_> = parts.iter().map(|part| (cells(part), note(part))).collect();
    head + &render(&HEADS, &rows)
}

fn cells(part: &Part) -> Vec<String> {
    let at = part.at.to_string()[11..23].to_owned();
    vec![part.step.to_owned(), at, in_ms(part.took_ns()), in_ms(part.until_ns), part.what.to_owned()]
}

fn note(part: &Part) -> Option<String> {
    Some(part.because.to_owned()).filter(|because| !because.is_empty())
}
