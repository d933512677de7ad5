//! Where the log decides what is signed: all hosts lose their power at once, and how long signatures take.

use crate::common::Ground;

const SIGNER: [&str; 4] = ["--chain", "cometbft", "--custody", "signer"];

#[test]
fn a_fault_of_a_signer_that_nobody_has_is_refused_with_the_flags_that_give_one() {
    let ground = Ground::new();
    for fault in ["power-cut", "kill-signer", "stop-signer"] {
        let run = ground.run(&["nemesis", "--rounds", "1", "--faults", fault]);
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(2), "{said}");
        assert!(said.contains("--custody signer"), "{said}");
    }
}

/// The run fails when nothing that was not synced is lost, when anything is signed twice, and when nobody signs for too
/// long.
#[test]
#[ignore = "needs cometbft; see docs/localnet.md"]
fn hosts_that_all_lose_their_power_sign_on_and_nothing_twice() {
    let ground = Ground::new();
    let run = ["nemesis", "--rounds", "2", "--seed", "1", "--faults", "power-cut", "--require-namespaces"];
    let said = ground.succeed(&[&run[..], &SIGNER[..]].concat());
    let row = said.lines().find(|line| line.starts_with("power cut")).unwrap_or_else(|| panic!("{said}"));
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[2..6], ["2", "2", "0", "2"], "tried, in force, violated, judged: {said}");
    let made = said.lines().find_map(|line| line.strip_prefix("signatures that signers made: "));
    let made: usize = made.and_then(|made| made.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    assert!(made > 10, "{said}");
}

/// The run fails when anything is signed twice, and when nobody signs for too long.
#[test]
#[ignore = "needs cometbft; see docs/localnet.md"]
fn a_full_disk_of_one_host_and_a_hung_one_keep_nobody_from_signing() {
    let ground = Ground::new();
    let run = ["nemesis", "--rounds", "2", "--seed", "3", "--faults", "disk-full,frozen-disk", "--require-namespaces"];
    let said = ground.succeed(&[&run[..], &SIGNER[..]].concat());
    let in_force: usize = ["disk full", "frozen disk"]
        .iter()
        .filter_map(|kind| said.lines().find_map(|line| line.strip_prefix(kind)))
        .map(|row| row.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap())
        .sum();
    assert!(in_force >= 2, "{said}");
    assert!(said.contains("violated: 0; silent: 0"), "{said}");
}

#[test]
#[ignore = "needs cometbft; see docs/localnet.md"]
fn every_request_is_answered_and_a_way_between_the_hosts_takes_its_time() {
    let ground = Ground::new();
    let run = ["requests", "--requests", "100", "--delay-ms", "20", "--profile", "signer", "--json"];
    let said = ground.succeed(&[&run[..], &SIGNER[..]].concat());
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((report["double"].as_u64(), report["holder"]["refused"].as_u64()), (Some(0), Some(0)), "{said}");
    let without_quorum = &report["without_quorum"];
    assert_eq!(without_quorum["signed"].as_u64(), Some(0), "{said}");
    // A second is what is promised; a connection itself would refuse after four.
    assert!(without_quorum["refused_after_ms"].as_f64().unwrap() < 3000.0, "{said}");
    let p50 = report["holder"]["p50_ms"].as_f64().unwrap();
    assert!(p50 >= 40.0, "there and back are 40 ms: {said}");
}
