//! What an operator at the host reads: `baton check`, `baton why`, `baton status`, and at last what the
//! coordinator warned of in its log, or ended with.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::{Made, Named};
use crate::hosts::faults::{self, What};
use crate::judge::status::{baton_at, run_bounded};
use crate::net::Net;

/// `baton check` may look at a file that lies on a slow disk.
const ANSWER_BOUND: Duration = Duration::from_secs(10);

pub(super) fn log(net: &Net, host: &str) -> PathBuf {
    net.host_dir(host).join("coordinator.log")
}

/// Every sentence that somebody at the host gets to read now, and then those on the other hosts.
pub(super) fn sentences(net: &Net, made: &Made) -> Result<Vec<Named>> {
    let mut said = Vec::new();
    let mut ask = |host: &str, by: &'static str, args: &[&str]| -> Result<()> {
        let answer = run_bounded(baton_at(net, host, args)?, ANSWER_BOUND)?;
        let text = format!("{}\n{}", answer.stdout, answer.stderr);
        // A file that was found good tells of its host by name.
        let sentences = paragraphs(&text).into_iter().filter(|sentence| !sentence.contains(": ok; "));
        said.extend(sentences.map(|sentence| Named { by, sentence }));
        Ok(())
    };
    ask(&made.host, "baton check", &["check"])?;
    ask(&made.host, "baton why", &["why"])?;
    ask(&made.host, "baton status", &["status"])?;
    for other in net.hosts.iter().filter(|host| host.id != made.host) {
        ask(&other.id, "baton why, on another host", &["why"])?;
        ask(&other.id, "baton status, on another host", &["status"])?;
    }
    let text = fs::read(log(net, &made.host)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[made.log_bytes.min(text.len())..]).into_owned();
    let ended = faults::of_host(net, &made.host, What::Coordinator).is_empty();
    let by = if ended { "baton run, which ended" } else { "baton run, in its log" };
    // What it does, besides what it warns of, is no word about a slip.
    let said_there = text.lines().filter(|line| !line.contains(" INFO "));
    said.extend(said_there.map(|line| Named { by, sentence: line.into() }));
    Ok(said)
}

/// `baton status` breaks its sentences into lines of a terminal's width; those that go on are indented.
fn paragraphs(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match found.last_mut() {
            Some(last) if line.starts_with("  ") => *last = format!("{last} {}", line.trim()),
            Some(_) | None => found.push(line.trim().into()),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_that_was_broken_into_lines_is_one_again() {
        let text = "host-b  validator  Voting\n  not ready: pid 7\n  listens there\n\nWARNING: a\n  b\n- c\n";
        let found = paragraphs(text);
        assert_eq!(found, ["host-b  validator  Voting not ready: pid 7 listens there", "WARNING: a b", "- c"]);
    }
}
