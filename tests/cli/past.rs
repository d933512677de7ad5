//! What a record says of a time that is over, and one move step by step.

use std::fs;

use baton::cluster::wire::proto::{Moment, Timeline};

use crate::fake_coordinator::{Host, assert_refused, baton, serve, text, two_members};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sample.rec");

/// Of a host whose record is the sample's, host-b's, where no coordinator runs.
fn host_with_record() -> Host {
    let host = Host::new();
    let file = host.config();
    let config = fs::read_to_string(&file).expect("the configuration").replace("\"/var/lib/baton\"", "\"state\"");
    fs::write(&file, config).expect("the configuration");
    fs::create_dir_all(host.path("state/record")).expect("a directory");
    fs::copy(SAMPLE, host.path("state/record/00000001.rec")).expect("a record");
    host
}

fn why(at: &str) -> (Option<i32>, String) {
    let output = baton(&["why", "--at", at, "--record", SAMPLE], &[]);
    (output.status.code(), text(&output.stdout).to_owned())
}

#[test]
fn why_at_a_time_says_what_it_would_have_said_then() {
    let missing = "What only a coordinator that runs knows is missing";
    for (at, code, said) in [
        ("2026-11-24T11:49:38Z", 1, "Nobody holds the baton, and nobody ever did."),
        ("2026-11-24T11:50:00Z", 0, "host-b holds the baton under epoch 1 and signs. It was the first, 19 s ago."),
        ("2026-11-24T11:50:33.914Z", 1, "host-b (this host) is letting the baton go."),
        (
            "2026-11-24T11:50:33.940Z",
            1,
            "host-a has the baton under epoch 2 and does not sign: its activation is not in the log.",
        ),
        (
            "2026-11-24T12:50:40+01:00",
            0,
            "host-a holds the baton under epoch 2 and signs. host-b handed it over 6 s ago",
        ),
        ("2026-11-24T11:50:52.9Z", 1, "host-a cannot be reached from here."),
        ("2026-11-24T11:50:53.100Z", 1, "host-b (this host) is taking the baton: Settling."),
        ("2026-11-24T11:50:59Z", 0, "It took it 5 s ago, after host-a was lost: its lease ran out."),
    ] {
        let (told, output) = why(at);
        assert!(output.starts_with("As host-b knew it at 2026-11-24T11:") && output.contains(missing), "{output}");
        assert!(output.contains(said) && told == Some(code), "{at}: {said:?} and {code} are not in {told:?}\n{output}");
    }
}

#[test]
fn why_at_a_time_reads_the_record_of_this_host_and_has_json() {
    let host = host_with_record();
    let output = baton(&["why", "--at", "2026-11-24T11:50:59Z", "--json", "--config", &host.config()], &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&seen["member"], &seen["holder"], &seen["active"]), (&"host-b".into(), &"host-b".into(), &true.into()));
    assert_eq!((&seen["at_ns"], &seen["differ"]), (&1_795_521_059_000_000_000_u64.into(), &0.into()), "{seen}");
    assert_eq!((&seen["failover"]["to"], &seen["failover"]["last_gap_ms"]), (&"host-a".into(), &24.into()), "{seen}");
}

#[test]
fn a_time_that_is_not_recorded_is_told_with_what_is() {
    for (at, part) in [
        ("2026-11-24T10:00:00Z", "the record begins at 2026-11-24T11:49:37.486Z"),
        ("2026-11-24T13:00:00Z", "the record ends at 2026-11-24T11:51:05.043Z"),
    ] {
        let output = baton(&["why", "--at", at, "--record", SAMPLE], &[]);
        let at = at.replace('Z', ".000Z");
        assert_refused(&output, 2, &format!("baton: {SAMPLE}: nothing is recorded of {at}: {part}"));
    }
    let output = baton(&["why", "--at", "noon", "--record", SAMPLE], &[]);
    assert_eq!(output.status.code(), Some(2));
    let output = baton(&["why", "--record", SAMPLE], &[]);
    assert_eq!((output.status.code(), text(&output.stderr).contains("--at")), (Some(2), true), "{output:?}");
}

fn timeline(epoch: u64) -> Timeline {
    let moment = |step: &str, after_ns, because: &str| Moment {
        step: step.to_owned(),
        at_ns: 1_709_208_000_123_000_000 + after_ns,
        after_ns,
        because: because.to_owned(),
    };
    let moments = vec![
        moment("detected", 0, "no leader is heard"),
        moment("claimed", 20_000_000, ""),
        moment("active", 1_020_500_000, ""),
    ];
    let (from, to, reason) = ("host-b".to_owned(), "host-a".to_owned(), "lease-lost".to_owned());
    Timeline { epoch, from, to, reason, moments }
}

#[test]
fn a_move_is_told_step_by_step_by_the_coordinator_that_saw_it() {
    let host = Host::new();
    let mut cluster = two_members();
    cluster.timelines = vec![timeline(2)];
    let _server = serve(cluster, &host.path("run/admin.sock"));
    let output = baton(&["history", "--detail", "2", "--config", &host.config()], &[]);
    assert_eq!(
        text(&output.stdout),
        "epoch 2, host-b -> host-a, 2024-02-29, as host-a saw it: its lease ran out\n\
         STEP      AT (UTC)      TOOK     TOTAL    WHAT\n\
         detected  12:00:00.123  0.0 ms   0.0 ms   the baton has to move\n  no leader is heard\n\
         claimed   12:00:00.143  20 ms    20 ms    the claim is in the log\n\
         active    12:00:01.143  1000 ms  1020 ms  the chain node runs with the key\n"
    );
    let output = baton(&["history", "--detail", "2", "--json", "--config", &host.config()], &[]);
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let step = |step: &str, took_ns: u64, after_ns: u64, because: Option<&str>| {
        let at_ns = 1_709_208_000_123_000_000 + after_ns;
        serde_json::json!({"step": step, "at_ns": at_ns, "took_ns": took_ns, "after_ns": after_ns, "because": because})
    };
    let expected = serde_json::json!({
        "epoch": 2, "from": "host-b", "to": "host-a", "reason": "lease-lost", "member": "host-a", "source": "coordinator",
        "steps": [
            step("detected", 0, 0, Some("no leader is heard")),
            step("claimed", 20_000_000, 20_000_000, None),
            step("active", 1_000_500_000, 1_020_500_000, None),
        ],
    });
    assert_eq!(seen, expected);
}

#[test]
fn an_older_move_is_found_in_the_record_of_this_host_with_and_without_a_coordinator() {
    let host = host_with_record();
    let shown = |epoch: &str| baton(&["history", "--detail", epoch, "--config", &host.config()], &[]);
    let alone = shown("3");
    let table = text(&alone.stdout);
    let head = "epoch 3, host-a -> host-b, 2026-11-24, as host-b saw it, by its record: its lease ran out\n";
    assert!(table.starts_with(head) && alone.status.success(), "{alone:?}");
    for step in ["last-word", "detected", "elected", "claimed", "armed", "settled", "linked", "active", "recorded"] {
        assert!(table.lines().any(|line| line.starts_with(step)), "{table}");
    }
    let unreachable = shown("9");
    let line = text(&unreachable.stderr);
    assert!(unreachable.status.code() == Some(2) && line.contains("cannot reach the coordinator"), "{line}");
    let mut cluster = two_members();
    cluster.timelines = vec![timeline(7)];
    let _server = serve(cluster, &host.path("run/admin.sock"));
    assert_eq!(shown("3").stdout, alone.stdout, "its coordinator does not know it any more");
}

#[test]
fn a_move_that_nobody_here_has_seen_is_told_with_whom_to_ask() {
    let host = Host::new();
    let mut cluster = two_members();
    cluster.timelines = vec![timeline(4), timeline(5)];
    let _server = serve(cluster, &host.path("run/admin.sock"));
    let socket = host.path("run/admin.sock").display().to_string();
    for (epoch, line) in [
        ("1", "and not of 1; ask host-b, which took the baton then"),
        ("2", "and has no record of 2 any more"),
        ("9", "and the history has no epoch 9; baton history shows all"),
    ] {
        for place in [["--socket", &socket], ["--config", &host.config()]] {
            let output = baton(&[&["history", "--detail", epoch][..], &place].concat(), &[]);
            assert_refused(&output, 1, &format!("baton: host-a knows the steps of epochs 4 to 5, {line}"));
        }
    }
}
