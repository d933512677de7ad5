//! The logs of whole hosts as programs read them: every line of coordinators and guards is a JSON object, every change
//! of state is told once, and what one failover was is found on all hosts by its epoch. docs/logs.md promises what is
//! asked here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::common::{Ground, TestNet};
use localnet::process::launch::diagnosis;
use serde_json::Value;

const HOSTS: [&str; 3] = ["host-a", "host-b", "host-c"];

/// Coordinator and guard of one host write into the same file here.
fn lines(t: &TestNet, host: &str) -> Vec<Value> {
    let file = t.net.host_dir(host).join("coordinator.log");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    // The last line may still be under way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{host}: {error} in {line:?}"));
    whole.lines().map(line).collect()
}

fn changes(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line["message"] == "state changed").collect()
}

#[track_caller]
fn assert_sound(host: &str, lines: &[Value]) {
    assert!(!lines.is_empty(), "{host} says nothing");
    for line in lines {
        let timestamp = line["timestamp"].as_str().unwrap_or_default();
        assert!(timestamp.len() == 24 && timestamp.ends_with('Z') && timestamp.contains('T'), "{host}: {line}");
        let known = ["ERROR", "WARN", "INFO"].iter().any(|level| line["level"] == *level);
        assert!(known && line["message"].is_string(), "{host}: {line}");
        let of_guard = line["program"] == "baton-guard";
        assert!(line["member"] == host || of_guard && line.get("member").is_none(), "{host}: {line}");
        assert!(line.get("epoch").is_none_or(Value::is_u64), "{host}: {line}");
    }
    // Each change begins where the last one ended: none was left out, and none is told twice.
    for pair in changes(lines).windows(2) {
        assert_eq!(pair[0]["to"], pair[1]["from"], "{host}: {} and then {}", pair[0], pair[1]);
        assert_ne!(pair[1]["from"], pair[1]["to"], "{host}: {}", pair[1]);
    }
    for change in changes(lines) {
        let told = change["why"].as_str().is_some_and(|why| !why.is_empty());
        assert!(told && change["epoch"].is_u64() && change["term"].is_u64(), "{host}: {change}");
    }
}

/// What `host` says of the tenure of `epoch`, the messages and, of changes, where they led to.
fn told_of(lines: &[Value], epoch: u64) -> Vec<String> {
    let of_it = lines.iter().filter(|line| line["epoch"] == epoch);
    of_it.map(|line| line["to"].as_str().or(line["message"].as_str()).unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_lines_of_a_failover_are_json_and_meet_in_its_epoch() {
    let ground = Ground::new();
    let up = ground.command(&["up"]).env("BATON_LOG_FORMAT", "json").output().expect("localnet runs");
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let net = ground.net();
    let t = TestNet { ground, net };
    let pair = t.pair();
    t.kill_host(&pair.holder);
    let moved = t.active(&pair.standby);
    let epoch = moved["epoch"].as_u64().expect("an epoch");

    let begun = Instant::now();
    let arbiter = HOSTS.into_iter().find(|host| *host != pair.holder && *host != pair.standby).expect("three hosts");
    // The history is known to one host before another has applied it.
    while !told_of(&lines(&t, arbiter), epoch).iter().any(|line| line.starts_with("applied Activated")) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{arbiter} hears of no end\n{}", diagnosis(&t.net));
        std::thread::sleep(Duration::from_millis(100));
    }
    let logs: BTreeMap<&str, Vec<Value>> = HOSTS.into_iter().map(|host| (host, lines(&t, host))).collect();
    logs.iter().for_each(|(host, lines)| assert_sound(host, lines));

    let new_holder = told_of(&logs[pair.standby.as_str()], epoch);
    let told = |words: &str| new_holder.iter().position(|line| line.starts_with(words));
    let order = ["proposing Claim", "applied Claim", "links validating", "Validating/Active"].map(told);
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?} of {new_holder:#?}");
    assert!(told("Validating/Claiming").is_some(), "{new_holder:#?}");
    let arbiters = told_of(&logs[arbiter], epoch);
    assert!(arbiters.iter().any(|line| line.starts_with("applied Claim")), "{arbiters:?}");
    let lost = &logs[pair.holder.as_str()];
    assert_eq!(told_of(lost, epoch), Vec::<String>::new(), "a host that is dead says nothing");
    assert!(told_of(lost, epoch - 1).iter().any(|line| line == "Validating/Active"), "{lost:#?}");
}
