//! `baton history`: the moves of the baton that the cluster remembers, the oldest first.

use serde::Serialize;

use crate::time::WallTime;
use crate::wire::proto::Move;

use super::table::{or_dash, render};

const HEADS: [&str; 7] = ["FROM", "TO", "EPOCH", "KIND", "CLAIMED", "GAP", "FLOOR"];

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
    floor: &'a str,
}

/// `from` is null for the first move; `active_at_ns` and `gap_ns` while a move is not finished.
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
        floor: &m.floor,
    });
    let object = HistoryObject { moves: moves.collect() };
    let text = serde_json::to_string_pretty(&object).expect("strings and numbers have a JSON form");
    format!("{text}\n")
}

/// The reason stands below each move.
pub(super) fn table(moves: &[Move]) -> String {
    if moves.is_empty() {
        return "the baton was never claimed\n".to_owned();
    }
    let rows: Vec<_> = moves.iter().map(|m| (cells(m), (!m.reason.is_empty()).then(|| m.reason.clone()))).collect();
    render(&HEADS, &rows)
}

fn cells(m: &Move) -> Vec<String> {
    let claimed = WallTime::from_nanos(m.claimed_at_ns).to_string();
    let gap = if finished(m) { format!("{}ms", m.gap_ns / 1_000_000) } else { "unfinished".to_owned() };
    vec![or_dash(&m.from), m.to.clone(), m.epoch.to_string(), m.kind.clone(), claimed, gap, or_dash(&m.floor)]
}

fn finished(m: &Move) -> bool {
    m.active_at_ns != 0
}
