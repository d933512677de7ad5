//! `baton history`: the moves of the baton that the cluster remembers, the oldest first.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::base::time::WallTime;
use crate::cluster::wire::proto::{LaidFloor, Move, MoveFloor};
use crate::operator::explain::{finished, gap, or_dash};

use super::reach::Reach;
use super::table::render;
use super::{Failure, ask, history_detail, print};

const HEADS: [&str; 7] = ["FROM", "TO", "EPOCH", "KIND", "CLAIMED", "GAP", "FLOOR"];

#[derive(Debug, Args)]
pub(super) struct History {
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// The move of this epoch, step by step, as the member that is asked saw it: from its coordinator, or of an older move
    /// from this host's record (exit code 1: neither has it)
    #[arg(long, value_name = "EPOCH")]
    detail: Option<u64>,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(History { json, detail, reach }: &History) -> Result<ExitCode, Failure> {
    if let Some(epoch) = detail {
        return history_detail::run(*epoch, *json, reach);
    }
    ask(reach, async |client| {
        let moves = client.history().await?;
        print(&if *json { self::json(&moves) } else { table(&moves) });
        Ok(ExitCode::SUCCESS)
    })
}

#[derive(Serialize)]
struct HistoryObject<'a> {
    moves: Vec<MoveObject<'a>>,
}

#[derive(Serialize)]
struct MoveObject<'a> {
    epoch: u64,
    from: Option<&'a str>,
    to: &'a str,
    kind: &'a str,
    reason: &'a str,
    claimed_at_ns: u64,
    active_at_ns: Option<u64>,
    gap_ns: Option<u64>,
    /// By an operator.
    laid_floor: Option<LaidObject<'a>>,
    floor: &'a str,
    floor_source: Option<&'a str>,
    floor_met_at_height: Option<u64>,
    settled_in_ms: Option<u64>,
}

#[derive(Serialize)]
struct LaidObject<'a> {
    above: u64,
    because: &'a str,
    at_ns: u64,
}

/// `from` is null for the first move; `active_at_ns`, `gap_ns` and all of the floor but its text while a
/// move is not finished. An earlier version may have recorded no more of the floor than its text.
pub(super) fn json(moves: &[Move]) -> String {
    let moves = moves.iter().map(|m| MoveObject {
        epoch: m.epoch,
        from: (!m.from.is_empty()).then_some(m.from.as_str()),
        to: &m.to,
        kind: &m.kind,
        reason: &m.reason,
        claimed_at_ns: m.claimed_at_ns,
        active_at_ns: finished(m).then_some(m.active_at_ns),
        gap_ns: finished(m).then_some(m.gap_ns),
        laid_floor: m.laid.as_ref().map(|LaidFloor { above, because, at_ns }| LaidObject {
            above: *above,
            because,
            at_ns: *at_ns,
        }),
        floor: m.floor.as_ref().map_or("", |floor| floor.floor.as_str()),
        floor_source: told(m).map(|floor| floor.source.as_str()),
        floor_met_at_height: told(m).map(|floor| floor.met_at_height),
        settled_in_ms: told(m).map(|floor| floor.settled_in_ns / 1_000_000),
    });
    let object = HistoryObject { moves: moves.collect() };
    let text = serde_json::to_string_pretty(&object).expect("strings and numbers have a JSON form");
    format!("{text}\n")
}

/// The reason and the sign floor stand below each move.
pub(super) fn table(moves: &[Move]) -> String {
    if moves.is_empty() {
        return "the baton was never claimed\n".to_owned();
    }
    let rows: Vec<_> = moves.iter().map(|m| (cells(m), note(m))).collect();
    render(&HEADS, &rows)
}

fn cells(m: &Move) -> Vec<String> {
    let claimed = WallTime::from_nanos(m.claimed_at_ns).to_string();
    let gap = gap(m);
    let source = or_dash(told(m).map_or("", |floor| floor.source.as_str()));
    vec![or_dash(&m.from), m.to.clone(), m.epoch.to_string(), m.kind.clone(), claimed, gap, source]
}

fn note(m: &Move) -> Option<String> {
    let floor = m.floor.as_ref().map(floor_line);
    let reason = Some(m.reason.clone()).filter(|reason| !reason.is_empty());
    let laid = m.laid.as_ref().map(|laid| format!("an operator laid the floor above {}: {}", laid.above, laid.because));
    let lines: Vec<String> = reason.into_iter().chain(laid).chain(floor).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// What the floor was, and where and how fast the chain node met it.
pub(super) fn floor_line(floor: &MoveFloor) -> String {
    let words = format!("floor {}", floor.floor);
    if floor.source.is_empty() {
        return words;
    }
    format!("{words}, met at {} in {} ms", floor.met_at_height, floor.settled_in_ns / 1_000_000)
}

/// The floor, when the version that recorded it told all of it.
fn told(m: &Move) -> Option<&MoveFloor> {
    m.floor.as_ref().filter(|floor| !floor.source.is_empty())
}
