//! What a shared CometBFT validator signed, host by host: the nodes of the hosts log every proposal and vote
//! that they sign. With the checker that judges them, by height, round and step. Knows nothing of baton.
//!
//! A node logs a vote just after it was signed, so the last one before a SIGKILL can be missing here;
//! evidence on chain shows a double vote also then.

use std::collections::HashMap;
use std::{fmt, fs};

use anyhow::{Context, Result};
use baton::base::time::WallTime;
use serde_json::Value;

use crate::judge::signlog::KeyReport;
use crate::net::{Custody, Net};
use crate::simchain::genesis::parse_rfc3339;

/// Two hosts that sign in turn are further apart than a restart of a chain node.
const OVERLAP_WINDOW_NS: u64 = 500_000_000;
const EXAMPLES_MAX: usize = 10;

/// In CometBFT's order within a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    Proposal,
    Prevote,
    Precommit,
}

/// The order in which a validator signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub height: u64,
    pub round: u32,
    pub step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    pub host: String,
    pub place: Place,
    /// As the node stamped it, on the one wall clock of this machine.
    pub at: WallTime,
    /// The node's words for content, signature and, of a vote, time.
    pub text: String,
}

impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Vote { host, place: Place { height, round, step }, at, text: _ } = self;
        write!(f, "{host} {height}/{round}/{step:?} {at}")
    }
}

/// The vote or proposal that a line of a node's log tells of; most lines tell of none.
///
/// # Errors
/// The line tells of one and cannot be understood.
pub fn parse(host: &str, line: &str) -> std::result::Result<Option<Vote>, String> {
    // Most of the log is about other things: look before parsing it.
    if !line.contains(r#""_msg":"signed"#) {
        return Ok(None);
    }
    let entry: Value = serde_json::from_str(line).map_err(|e| format!("{e}: {line}"))?;
    let (text, step) = match entry["_msg"].as_str() {
        Some("signed proposal") => (&entry["proposal"], Step::Proposal),
        Some("signed and pushed vote") => match &entry["vote"] {
            vote if vote.as_str().is_some_and(|v| v.contains("(Prevote)")) => (vote, Step::Prevote),
            vote if vote.as_str().is_some_and(|v| v.contains("(Precommit)")) => (vote, Step::Precommit),
            vote => return Err(format!("neither a prevote nor a precommit: {vote}")),
        },
        Some(_) | None => return Ok(None),
    };
    let number = |name: &str| entry[name].as_u64().ok_or(format!("no {name}: {line}"));
    let round = u32::try_from(number("round")?).map_err(|e| format!("round: {e}: {line}"))?;
    let place = Place { height: number("height")?, round, step };
    let signed_at = text.as_str().and_then(|t| t.rsplit_once(" @ ")).map(|(_, time)| time.trim_end_matches('}'));
    let at = signed_at.and_then(parse_rfc3339).ok_or(format!("no time: {line}"))?;
    let text = text.as_str().unwrap_or_default();
    // Of a proposal a node logs its own time, whatever was signed; the signature stands before it.
    let text = if step == Step::Proposal { text.rsplit_once(" @ ").map_or(text, |(signed, _)| signed) } else { text };
    let text = text.to_owned();
    Ok(Some(Vote { host: host.into(), place, at, text }))
}

/// All votes of the network so far.
pub fn read(net: &Net) -> Result<Vec<Vote>> {
    let mut votes = Vec::new();
    for host in net.signers() {
        let file = net.node_log(&host.id);
        let text = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        for line in String::from_utf8_lossy(&text).split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            votes.extend(parse(&host.id, line).map_err(anyhow::Error::msg)?);
        }
    }
    Ok(votes)
}

/// Judges all votes of one key, over all hosts. Where the log decides what is signed, several hosts may give the same
/// vote, as long as it is the same to the last byte, and in whatever turns.
pub fn check(votes: &[Vote], custody: Custody) -> KeyReport {
    match custody {
        Custody::Links => check_turns(votes),
        // A node that starts again gives the last vote once more.
        Custody::Signer | Custody::Single => check_contents(votes),
    }
}

fn check_contents(votes: &[Vote]) -> KeyReport {
    let mut report = KeyReport::default();
    let mut first: HashMap<Place, &Vote> = HashMap::new();
    let mut last: HashMap<&str, &Vote> = HashMap::new();
    for vote in votes {
        *report.signatures.entry(vote.host.clone()).or_default() += 1;
        let earlier = *first.entry(vote.place).or_insert(vote);
        if earlier.text != vote.text {
            report.doubles += 1;
            report.breach.add([&vote.host, &earlier.host], vote.place.height);
            report.examples.push(format!("double: '{vote}' {} against '{earlier}' {}", vote.text, earlier.text));
        }
        // Each host's own log, in its own order.
        if let Some(before) = last.insert(&vote.host, vote).filter(|before| before.place > vote.place) {
            report.out_of_order += 1;
            report.breach.add([&vote.host, &before.host], vote.place.height);
            report.examples.push(format!("out of order: '{vote}' after '{before}'"));
        }
    }
    report.examples.truncate(EXAMPLES_MAX);
    report
}

fn check_turns(votes: &[Vote]) -> KeyReport {
    let mut votes: Vec<&Vote> = votes.iter().collect();
    votes.sort_by_key(|vote| vote.at);
    let mut report = KeyReport::default();
    let mut first: HashMap<Place, &Vote> = HashMap::new();
    let mut examples = Vec::new();
    for (i, vote) in votes.iter().enumerate() {
        *report.signatures.entry(vote.host.clone()).or_default() += 1;
        if let Some(earlier) = first.get(&vote.place) {
            report.doubles += 1;
            report.breach.add([&vote.host, &earlier.host], vote.place.height);
            examples.push(format!("double: '{vote}' against '{earlier}'"));
        } else {
            first.insert(vote.place, vote);
        }
        if let Some(before) = i.checked_sub(1).map(|i| votes[i]).filter(|before| before.place > vote.place) {
            report.out_of_order += 1;
            report.breach.add([&vote.host, &before.host], vote.place.height);
            examples.push(format!("out of order: '{vote}' after '{before}'"));
        }
        if let Some(others) = turned_back(&votes[..=i]) {
            report.overlap += 1;
            report.breach.add([&vote.host, &others.host], vote.place.height);
            examples.push(format!("overlap: '{vote}' after '{others}'"));
        }
    }
    examples.truncate(EXAMPLES_MAX);
    report.examples = examples;
    report
}

/// The last vote's host signed, another host signed, and it signed again, in less time than a move back takes.
fn turned_back<'a>(votes: &[&'a Vote]) -> Option<&'a Vote> {
    let (last, before) = votes.split_last()?;
    let other = before.last().filter(|vote| vote.host != last.host)?;
    let own = before.iter().rev().find(|vote| vote.host == last.host)?;
    (last.at.as_nanos() - own.at.as_nanos() < OVERLAP_WINDOW_NS).then_some(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(host: &str, height: u64, step: Step, ms: u64) -> Vote {
        let at = WallTime::from_nanos(ms * 1_000_000);
        Vote { host: host.into(), place: Place { height, round: 0, step }, at, text: ms.to_string() }
    }

    #[test]
    fn votes_and_proposals_are_read_as_cometbft_logs_them() {
        let line = r#"{"_msg":"signed and pushed vote","height":4,"level":"debug","module":"consensus","round":1,
            "vote":"Vote{1:11D6B36ED5B6 4/01/SIGNED_MSG_TYPE_PRECOMMIT(Precommit) 00 B8 00 @ 1970-01-01T00:00:01.5Z}"}"#;
        let place = Place { height: 4, round: 1, step: Step::Precommit };
        let read = parse("host-a", line).unwrap().unwrap();
        assert_eq!((read.place, read.at.as_nanos()), (place, 1_500_000_000));
        let line = r#"{"_msg":"signed proposal","height":6,"proposal":"Proposal{6/0 (00:1:B1, -1) FF @ 1970-01-01T00:00:02Z}","round":0}"#;
        assert_eq!(parse("host-a", line).unwrap().unwrap().place.step, Step::Proposal);
        assert_eq!(parse("host-a", r#"{"_msg":"setHasVote"}"#), Ok(None));
        assert_eq!(parse("host-a", "panic: no JSON"), Ok(None));
        assert!(parse("host-a", r#"{"_msg":"signed and pushed vote","vote":"?"}"#).is_err());
    }

    #[test]
    fn two_hosts_that_sign_one_after_the_other_are_clean() {
        let votes =
            [vote("a", 1, Step::Prevote, 0), vote("a", 1, Step::Precommit, 9), vote("b", 3, Step::Prevote, 2000)];
        assert!(check(&votes, Custody::Links).is_clean(), "{:?}", check(&votes, Custody::Links));
    }

    #[test]
    fn a_step_that_is_signed_twice_or_below_an_earlier_one_is_seen() {
        let first = vote("a", 3, Step::Precommit, 0);
        let report = check(&[first.clone(), vote("b", 3, Step::Precommit, 2000)], Custody::Links);
        assert_eq!((report.doubles, report.out_of_order), (1, 0), "{report:?}");
        let report = check(&[first, vote("b", 3, Step::Prevote, 2000)], Custody::Links);
        assert_eq!((report.doubles, report.out_of_order), (0, 1), "{report:?}");
    }

    #[test]
    fn hosts_that_sign_by_turns_are_seen() {
        let votes =
            [vote("a", 1, Step::Prevote, 0), vote("b", 2, Step::Prevote, 100), vote("a", 3, Step::Prevote, 200)];
        assert_eq!(check(&votes, Custody::Links).overlap, 1);
        assert_eq!(check(&votes[..2], Custody::Links).overlap, 0);
    }

    #[test]
    fn where_the_log_decides_the_same_vote_may_come_from_two_hosts_and_no_other() {
        let of_log = |votes: &[Vote]| check(votes, Custody::Signer);
        let first = vote("a", 1, Step::Prevote, 7);
        let along = Vote { host: "b".into(), ..first.clone() };
        let next = vote("a", 1, Step::Precommit, 9);
        assert!(of_log(&[first.clone(), along.clone(), next.clone(), along.clone()]).is_clean());
        let another = vote("b", 1, Step::Prevote, 8);
        assert_eq!(of_log(&[first.clone(), another]).doubles, 1);
        assert_eq!(of_log(&[next, first]).out_of_order, 1);
    }
}
