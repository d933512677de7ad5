//! The nemesis sees a violation when there is one: without this, a clean run would prove little.

use crate::common::Ground;
use clap::ValueEnum;
use localnet::runs::nemesis::{Kind, NOISE};

/// What a run with this sabotage printed, on standard output and on standard error. It failed.
fn sabotaged(how: &str, rounds: &str) -> [String; 2] {
    // One mild kind of fault is enough beside it.
    let others: Vec<String> = Kind::value_variants().iter().filter(|k| **k != Kind::Delay).map(|k| k.flag()).collect();
    let ground = Ground::new();
    let without = others.join(",");
    let run = ground.run(&["nemesis", "--rounds", rounds, "--seed", "1", "--sabotage", how, "--without", &without]);
    let said = [run.stdout, run.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert_eq!(run.status.code(), Some(1), "{}", said.join("\n"));
    said
}

#[test]
fn a_node_that_somebody_runs_with_the_key_by_hand_fails_the_run_and_is_named() {
    let [out, err] = sabotaged("key-by-hand", "2");
    let verdict = out.lines().last().unwrap_or_default();
    let heights = verdict.strip_prefix("FAILED: host-a and host-b signed against each other at ");
    let heights = heights.unwrap_or_else(|| panic!("no verdict: {out}\n{err}"));
    assert!(heights.contains(" heights, ") && heights.contains(" to "), "{verdict}");
    for round in ["round 1 VIOLATED", "round 2 VIOLATED"] {
        assert!(err.contains(round), "{round}: {out}\n{err}");
    }
}

#[test]
fn a_silence_while_somebody_would_have_to_sign_fails_the_run_and_is_told_with_its_limit() {
    let [out, err] = sabotaged("silence", "1");
    assert_eq!(out.lines().last(), Some("FAILED: in rounds [1] somebody had to sign"), "{out}\n{err}");
    let told = err.lines().find(|line| line.starts_with("nemesis: round 1 SILENT: delay at host-"));
    let told = told.and_then(|told| told.split_once("nobody signed for ")?.1.split_once(" s of 3."));
    let lasted: f64 = told.and_then(|(lasted, _)| lasted.parse().ok()).unwrap_or_else(|| panic!("no limit: {err}"));
    assert!(lasted > 3.0 + NOISE.as_secs_f64(), "{lasted} s: {err}");
}
