//! What an operator does wrong by hand at one host, one slip after the other on one network: each is named in a
//! sentence of baton's, nothing of it outlives its undoing, and but for a node that somebody else runs nobody signs
//! twice.

use std::time::{Duration, Instant};

use crate::common::TestNet;
use clap::ValueEnum;
use localnet::judge::status::{POLL_EVERY, baton_at, query, run_bounded};
use localnet::net::http;
use localnet::runs::slip::Slip;

fn flag(slip: Slip) -> String {
    slip.to_possible_value().unwrap().get_name().to_string()
}

/// Every slip but those of somebody else's node, which signs whatever baton does.
fn assert_named_and_harmless(t: &TestNet) {
    let mut failures = Vec::new();
    let of_another_node = [Slip::ForeignNode, Slip::NodeElsewhere];
    for slip in Slip::ALL.into_iter().filter(|slip| !of_another_node.contains(slip)) {
        let made = t.ground.run(&["slip", &flag(slip)]);
        if !made.status.success() {
            let (out, err) = (String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
            failures.push(format!("--- {slip:?}: {}\n{out}{err}", made.status));
        }
        t.pair();
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    t.assert_nothing_signed_twice();
}

#[test]
fn every_slip_of_an_operator_is_named_by_a_sentence_undone_and_signs_nothing_twice() {
    assert_named_and_harmless(&TestNet::up(&[]));
}

#[test]
#[ignore = "needs cometbft; see docs/localnet.md"]
fn every_slip_is_named_and_harmless_on_cometbft_too() {
    assert_named_and_harmless(&TestNet::up(&["--chain", "cometbft"]));
}

/// Its end is enough: whose child it was is for somebody else to bury.
fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn a_node_that_is_not_batons_is_named_with_its_pid_and_a_slip_that_is_kept_is_undone_by_hand() {
    let t = TestNet::up(&[]);
    let standby = t.pair().standby;
    let made = t.ground.succeed(&["slip", "foreign-node", &standby, "--keep"]);
    let pid = made.split("pid ").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    let named = made.lines().find(|line| line.starts_with("baton ")).unwrap_or_else(|| panic!("{made}"));
    assert!(named.contains(pid), "{made}");
    let second = t.ground.run(&["slip", "timings", &standby]);
    assert_eq!(second.status.code(), Some(2), "{second:?}");
    let undone = t.ground.succeed(&["slip", "--undo", &standby]);
    assert_eq!(undone, format!("{standby}: foreign-node is undone\n"));
    assert!(!is_running(pid), "{pid} runs on");
    t.pair();
    let none = t.ground.run(&["slip", "--undo", &standby]);
    assert_eq!(none.status.code(), Some(2), "{none:?}");
}

const TOLD_BOUND: Duration = Duration::from_secs(60);
const ALARM: &str = "The validator's key is in use elsewhere, as ";
const GAUGE: &str = "baton_key_in_use_elsewhere ";

/// Every host with a chain node tells the alarm: `status` and `why` in a sentence, its metrics by a 1.
fn assert_alarm_is_told(t: &TestNet) {
    let hosts: Vec<String> = t.net.signers().map(|host| host.id.clone()).collect();
    let said = |host: &str, verb: &str| {
        let answer = run_bounded(baton_at(&t.net, host, &[verb]).unwrap(), TOLD_BOUND).unwrap();
        answer.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let gauge = |host: &str| {
        let metrics = http::get(t.net.host(host).unwrap().metrics(), "/metrics").unwrap_or_default();
        let metrics = String::from_utf8_lossy(&metrics).into_owned();
        metrics.lines().find_map(|line| line.strip_prefix(GAUGE).map(str::to_owned)).unwrap_or_default()
    };
    let start = Instant::now();
    loop {
        let mut missing = Vec::new();
        for host in &hosts {
            for verb in ["status", "why"] {
                let text = said(host, verb);
                let untold = hosts.iter().filter(|by| !text.contains(&format!("{ALARM}{by} sees: ")));
                missing.extend(untold.map(|by| format!("baton {verb} at {host} has no word of {by}: {text}")));
            }
            let shown = gauge(host);
            if shown != "1" {
                missing.push(format!("{GAUGE}of {host} is {shown:?}"));
            }
        }
        if missing.is_empty() {
            return;
        }
        assert!(start.elapsed() < TOLD_BOUND, "{}", missing.join("\n"));
        std::thread::sleep(POLL_EVERY);
    }
}

fn assert_a_key_elsewhere_is_told(t: &TestNet) {
    let standby = t.pair().standby;
    let made = t.ground.succeed(&["slip", &flag(Slip::NodeElsewhere), &standby, "--keep", "--within", "60"]);
    assert!(made.contains(ALARM), "{made}");
    assert_alarm_is_told(t);
    let status = query(&t.net).unwrap();
    assert!(status.active().is_none(), "{}", status.summary());
    t.ground.succeed(&["slip", "--undo", &standby]);
    t.assert_nothing_signed_twice();
}

#[test]
fn a_key_that_signs_while_nobody_holds_is_told_by_every_hosts_status_why_and_metrics() {
    assert_a_key_elsewhere_is_told(&TestNet::up(&[]));
}

#[test]
#[ignore = "needs cometbft; see docs/localnet.md"]
fn a_key_that_signs_while_nobody_holds_is_told_by_every_host_of_cometbft_too() {
    assert_a_key_elsewhere_is_told(&TestNet::up(&["--chain", "cometbft"]));
}
