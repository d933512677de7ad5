//! The nemesis sees a violation when there is one: without this, a clean run would prove little.

mod common;

use clap::ValueEnum;
use common::Ground;
use localnet::nemesis::Kind;

#[test]
fn a_node_that_somebody_runs_with_the_key_by_hand_fails_the_run_and_is_named() {
    // One mild kind of fault is enough beside it.
    let others: Vec<String> = Kind::value_variants().iter().filter(|k| **k != Kind::Delay).map(|k| k.flag()).collect();
    let ground = Ground::new();
    let without = others.join(",");
    let run =
        ground.run(&["nemesis", "--rounds", "2", "--seed", "1", "--sabotage", "key-by-hand", "--without", &without]);
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    let said = format!("{out}\n{err}");
    assert_eq!(run.status.code(), Some(1), "{said}");
    let verdict = out.lines().last().unwrap_or_default();
    let heights = verdict.strip_prefix("FAILED: host-a and host-b signed against each other at ");
    let heights = heights.unwrap_or_else(|| panic!("no verdict: {said}"));
    assert!(heights.contains(" heights, ") && heights.contains(" to "), "{verdict}");
    for round in ["round 1 VIOLATED", "round 2 VIOLATED"] {
        assert!(err.contains(round), "{round}: {said}");
    }
}
