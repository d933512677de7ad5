//! Handovers that wait for a window in neard's maintenance.

use std::fs;
use std::time::{Duration, Instant};

use crate::fake_coordinator::{Host, assert_refused, baton, serve, text, two_members};
use crate::kit::fake_node::{Answer, FakeNode};

/// A host whose coordinator answers and whose neard tells these windows; its head is 18, 2 s a block.
fn near_host(windows: &str) -> (Host, tokio::runtime::Runtime, FakeNode) {
    let host = Host::new();
    let runtime = serve(two_members(), &host.path("run/admin.sock"));
    let status = Answer::Body(include_str!("../data/near-status.json").to_owned());
    let node = runtime.block_on(FakeNode::start("/status", status));
    let genesis = 1_795_218_367_443_701_848_u64 - 36_000_000_000;
    let block = format!("{{\"result\": {{\"header\": {{\"timestamp_nanosec\": \"{genesis}\"}}}}}}");
    node.answer("/#block", Answer::Body(block));
    let windows = Answer::Body(format!("{{\"result\": {windows}}}"));
    node.answer("/#EXPERIMENTAL_maintenance_windows", windows);
    fs::write(host.path("validator_key.json"), "{\"account_id\": \"node3\"}").expect("a key");
    let text = fs::read_to_string(host.path("baton.toml")).expect("the configuration");
    fs::write(host.path("baton.toml"), text.replace("127.0.0.1:3030", &node.addr)).expect("the configuration");
    (host, runtime, node)
}

const HANDED_OVER: &str = "host-a -> host-b under epoch 3 in 123 ms\n";

#[test]
fn a_handover_in_an_open_window_shows_the_window_and_begins_at_once() {
    let (host, _runtime, _node) = near_host("[[2, 4], [10, 40]]");
    let output = baton(&["handover", "--window", "--config", &host.config()], &[]);
    let window = "maintenance window: heights 19 to 39 (21 blocks), about 42.0 s; it is open\n";
    assert_eq!((text(&output.stdout), text(&output.stderr)), (format!("{window}{HANDED_OVER}").as_str(), ""));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_handover_waits_for_the_first_window_that_is_long_enough() {
    let (host, _runtime, node) = near_host("[[20, 22], [25, 40]]");
    let config = host.config();
    let args = ["handover", "--window=6s", "--timeout", "60s", "--config", &config];
    let output = std::thread::scope(|scope| {
        let running = scope.spawn(|| baton(&args, &[]));
        let since = Instant::now();
        while !node.requests().iter().any(|request| request.contains("maintenance")) {
            assert!(since.elapsed() < Duration::from_secs(30) && !running.is_finished(), "{:?}", node.requests());
            std::thread::sleep(Duration::from_millis(2));
        }
        // The next block to be produced is the first of the window.
        let status = include_str!("../data/near-status.json");
        let status = status.replace("\"latest_block_height\":18", "\"latest_block_height\":24");
        node.answer("/status", Answer::Body(status));
        running.join().expect("the end of baton")
    });
    let out = text(&output.stdout);
    let window = "maintenance window: heights 25 to 39 (15 blocks), about 30.0 s; it begins in about 12.0 s\n";
    assert_eq!((out, text(&output.stderr)), (format!("{window}{HANDED_OVER}").as_str(), ""));
}

#[test]
fn a_handover_whose_window_does_not_come_in_time_says_so_and_leaves_the_baton_where_it_is() {
    let advice = "raise --timeout, ask for a shorter --window=, or leave it out";
    for (windows, args, because) in [
        ("[]", ["--window=5s", "--timeout=1s"], "the node knows none of 4 blocks after height 18 in this epoch"),
        (
            "[[20, 22]]",
            ["--window=5s", "--timeout=1s"],
            "the node knows none of 4 blocks after height 18 in this epoch",
        ),
        (
            "[[318, 400]]",
            ["--window=5s", "--timeout=30s"],
            "the next one, heights 318 to 399 (82 blocks), begins in about 10 min",
        ),
    ] {
        let (host, _runtime, _node) = near_host(windows);
        let output = baton(&[&["handover", "--config", &host.config()], &args[..]].concat(), &[]);
        let within = args[1].trim_start_matches("--timeout=");
        let line =
            format!("baton: handover: not begun: no maintenance window of 5s within {within}: {because}; {advice}\n");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), line.as_str()), "{windows}");
        assert!(!text(&output.stdout).contains("->"), "{output:?}");
    }
}

#[test]
fn a_window_is_waited_for_only_where_it_can_be_told_and_used() {
    let (host, _runtime, _node) = near_host("[]");
    let near = fs::read_to_string(host.path("baton.toml")).expect("the configuration");
    fs::write(host.path("baton.toml"), near.replace("\"near\"", "\"generic\"")).expect("the configuration");
    let generic = baton(&["handover", "--window", "--config", &host.config()], &[]);
    assert_refused(&generic, 2, "baton: --window: only a near node tells maintenance windows; leave it out");

    let host = Host::new();
    let mut elsewhere = two_members();
    elsewhere.status.member = "host-b".to_owned();
    let _runtime = serve(elsewhere, &host.path("run/admin.sock"));
    let output = baton(&["handover", "--window", "--config", &host.config()], &[]);
    assert_refused(&output, 1, "baton: handover: host-b does not hold the baton; ask host-a, who does");
}

#[test]
fn without_a_window_the_holder_picks_the_moment_within_the_time_it_is_given() {
    let (host, _runtime, _node) = near_host("[]");
    for (args, ms) in [(&[][..], 10_000), (&["--within", "3s"][..], 3_000), (&["--now"][..], 0)] {
        let output = baton(&[&["handover", "--to", "host-near", "--config", &host.config()], args].concat(), &[]);
        let told = format!("it could wait {ms} ms\nhost-a -> host-near under epoch 3 in 123 ms\n");
        assert_eq!((text(&output.stdout), text(&output.stderr)), (told.as_str(), ""), "{args:?}");
    }
    for other in ["--window", "--within=3s"] {
        let output = baton(&["handover", "--now", other, "--config", &host.config()], &[]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}
