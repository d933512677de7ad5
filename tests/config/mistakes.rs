//! Every mistake has its line: the exact text for each, and a property test that nothing written
//! anywhere makes a panic or a second line. Those of `[chain]` have a file of their own.

use std::path::Path;
use std::time::Duration;

use baton::base::timing::Timing;
use baton::config::Config;
use proptest::prelude::*;

use crate::{ARBITER, EXAMPLE, edited, load};

/// Checks the exact line for each edit of the example, all of them before it fails.
pub fn assert_lines(cases: &[(&str, &str, &str)]) {
    let mut wrong = Vec::new();
    for (from, to, expected) in cases {
        let seen = match load(&edited(from, to)) {
            Ok(_) => "(accepted)".to_owned(),
            Err(line) => line,
        };
        if seen != *expected {
            wrong.push(format!("{from:?} -> {to:?}\n  expected {expected}\n  saw      {seen}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unknown_keys_are_named_with_their_place_and_the_nearest_known_key() {
    assert_lines(&[
        (
            "every = \"1s\"",
            "evry = \"1s\"",
            "unknown key chain.probe.evry in baton.toml:46; did you mean chain.probe.every?",
        ),
        ("[timing]", "[timings]", "unknown key timings in baton.toml:15; did you mean timing?"),
        (
            "priority = 90",
            "prio = 90",
            "unknown key cluster.members[1].prio in baton.toml:11; did you mean cluster.members[1].priority?",
        ),
        (
            "stop_timeout = \"30s\"",
            "failures = 3",
            "unknown key chain.failures in baton.toml:27; did you mean chain.probe.failures?",
        ),
        ("[metrics]", "[metrics]\nzzz = 1", "unknown key metrics.zzz in baton.toml:50; metrics has listen"),
        (
            "[metrics]",
            "zzz.y = 1\n[metrics]",
            "unknown key chain.probe.zzz in baton.toml:49; chain.probe has url, calls, exec, tcp, every, timeout, failures, \
             min_peers, syncing, height, target_height, behind_max, head_time, peers, key, key_validating, key_standby, version",
        ),
        (
            "[member]",
            "\"a\\nb\" = 1\n[member]",
            "unknown key a\\nb in baton.toml:1; the sections are member, cluster, timing, tls, chain, upgrade, signer, metrics, watchdog, hooks",
        ),
    ]);
}

#[test]
fn missing_keys_are_named_with_an_example() {
    assert_lines(&[
        ("id = \"host-a\"\n", "", "missing key member.id in baton.toml; for example: [member] id = \"host-a\""),
        (
            "run_dir = \"/run/baton\"",
            "",
            "missing key member.run_dir in baton.toml; for example: [member] run_dir = \"/run/baton\"",
        ),
        (
            "state_dir = \"/var/lib/baton\"",
            "",
            "missing key member.state_dir in baton.toml; for example: [member] state_dir = \"/var/lib/baton\"",
        ),
        (
            "addr = \"127.0.0.1:7402\", ",
            "",
            "missing key cluster.members[1].addr in baton.toml; for example: addr = \"10.0.0.1:7401\"",
        ),
        ("ca = \"ca.pem\"", "", "missing key tls.ca in baton.toml; for example: [tls] ca = \"ca.pem\""),
        (
            "url = \"http://127.0.0.1:3030/status\"",
            "",
            "missing key chain.probe.url in baton.toml; for example: [chain.probe] url = \"http://127.0.0.1:3030/status\"",
        ),
        (
            "[chain.activate]",
            "[chain.last_signed]\nfile = \"/f\"\n[chain.activate]",
            "missing key chain.last_signed.height in baton.toml; for example: [chain.last_signed] height = \"/height\"",
        ),
    ]);
    let no_members = ARBITER.split("members").next().expect("a first part");
    assert_eq!(
        load(no_members).unwrap_err(),
        "missing key cluster.members in baton.toml; for example: [cluster] members = [{ id = \"host-a\", addr = \
         \"10.0.0.1:7401\" }]"
    );
    assert_eq!(load("").unwrap_err(), "missing key member.id in baton.toml; for example: [member] id = \"host-a\"");
}

#[test]
fn wrong_types_units_and_ranges_say_what_to_write() {
    assert_lines(&[
        ("profile = \"lan\"", "lease = 1", "timing.lease in baton.toml:16: 1 has no unit; write \"1ms\" or \"1s\""),
        (
            "profile = \"lan\"",
            "lease = \"soon\"",
            "timing.lease in baton.toml:16: \"soon\" is not a duration; write a whole number and a unit: \"150ms\", \"1s\" or \"2m\"",
        ),
        (
            "profile = \"lan\"",
            "lease = 1.5",
            "timing.lease in baton.toml:16: 1.5 is not a duration; for example: lease = \"1s\"",
        ),
        (
            "profile = \"lan\"",
            "profile = \"man\"",
            "timing.profile in baton.toml:16: \"man\" is not known; use fast or lan or signer or wan",
        ),
        (
            "profile = \"lan\"",
            "drift_ppm = 100001",
            "timing.drift_ppm in baton.toml:16: 100001 is out of range; use 0 to 100000",
        ),
        (
            "stop_timeout = \"30s\"",
            "stop_timeout = \"11m\"",
            "chain.stop_timeout in baton.toml:27: 11m is out of range; use 100ms to 10m",
        ),
        (
            "stop_timeout = \"30s\"",
            "log_kept = 2",
            "chain.log_kept in baton.toml:27: means nothing without chain.log; remove it or name a file in chain.log",
        ),
        (
            "stop_timeout = \"30s\"",
            "log = \"/var/log/near.log\"\nlog_max_mib = 0",
            "chain.log_max_mib in baton.toml:28: 0 is out of range; use 1 to 65536",
        ),
        (
            "clock_skew = \"200ms\"",
            "clock_skew = \"11s\"",
            "chain.clock_skew in baton.toml:28: 11s is out of range; use 1ms to 10s",
        ),
        ("every = \"1s\"", "every = \"2m\"", "chain.probe.every in baton.toml:46: 2m is out of range; use 10ms to 1m"),
        ("failures = 3", "failures = 0", "chain.probe.failures in baton.toml:47: 0 is out of range; use 1 to 100"),
        (
            "failures = 3",
            "failures = true",
            "chain.probe.failures in baton.toml:47: true is not a whole number; for example: failures = 3",
        ),
        ("id = \"host-a\"\n", "id = 7\n", "member.id in baton.toml:2: 7 is not a string; for example: id = \"host-a\""),
        ("id = \"host-a\"\n", "id = \"\"\n", "member.id in baton.toml:2: is empty; write a value or remove it"),
        (
            "id = \"host-a\"\n",
            "id = \"a b\"\n",
            "member.id in baton.toml:2: \"a b\" is not a member id; use up to 64 letters, digits, '-', '_' and '.'",
        ),
        (
            "name = \"my-validator\"",
            "name = \"x\"\nfailback = \"yes\"",
            "cluster.failback in baton.toml:8: \"yes\" is not true or false; for example: failback = false",
        ),
        (
            "on_halt = \"wait\"",
            "on_halt = \"go\"",
            "chain.on_halt in baton.toml:29: \"go\" is not known; use wait or replica",
        ),
        (
            "\"near\" ",
            "\"solana\"",
            "chain.driver in baton.toml:24: \"solana\" is not known; use near or cometbft or generic",
        ),
        (
            "[metrics]",
            "[[metrics]]",
            "metrics in baton.toml:49: a list where a table stands; write [metrics] and its keys below",
        ),
        (
            "id = \"host-a\"\n",
            "id = \n",
            "baton.toml:2 is not TOML: string values must be quoted, expected literal string",
        ),
    ]);
    let long = format!("run_dir = \"/{}\"", "r".repeat(100));
    let error = load(&edited("run_dir = \"/run/baton\"", &long)).unwrap_err();
    assert_eq!(
        error,
        "member.run_dir in baton.toml:4: 101 bytes are too long for a unix socket's path; use 90 at most"
    );
}

#[test]
fn timings_that_cannot_be_safe_are_refused_with_their_numbers() {
    assert_lines(&[
        (
            "profile = \"lan\"",
            "lease = \"600ms\"",
            "timing.lease = 600ms is too short: 3 × heartbeat (150ms) + kill_max (150ms) = 600ms must be less than \
             lease × (1 − 1000 ppm) = 599.4ms; raise lease or lower heartbeat",
        ),
        ("profile = \"lan\"", "heartbeat = \"1ms\"", "timing.heartbeat = 1ms is out of range; use 10ms to 10s"),
    ]);
    let wan = load(&edited("profile = \"lan\"", "profile = \"wan\"\nlease = \"4s\"")).expect("sound").timing;
    assert_eq!((wan.heartbeat(), wan.lease()), (Timing::WAN.heartbeat(), Duration::from_secs(4)));
    let signer = load(&edited("profile = \"lan\"", "profile = \"signer\"")).expect("sound").timing;
    assert_eq!(signer, Timing::SIGNER);
}

#[test]
fn members_that_contradict_each_other_are_refused() {
    assert_lines(&[
        (
            "{ id = \"host-b\"",
            "{ id = \"host-a\"",
            "cluster.members[1].id in baton.toml:11: host-a is the id of members[0] too; give each member its own",
        ),
        (
            "127.0.0.1:7402",
            "127.0.0.1:7401",
            "cluster.members[1].addr in baton.toml:11: 127.0.0.1:7401 is the address of members[0] too; give each \
             member its own",
        ),
        (
            "id = \"host-a\"\n",
            "id = \"host-x\"\n",
            "member.id in baton.toml:2: host-x is not in cluster.members (host-a, host-b, host-c); add it or correct the id",
        ),
        (
            "listen = \"127.0.0.1:7401\"",
            "listen = \"7401\"",
            "cluster.listen in baton.toml:8: \"7401\" is not IP:PORT; write \"127.0.0.1:7401\" or \"[::]:7401\"",
        ),
        (
            "listen = \"127.0.0.1:7401\"",
            "listen = \"127.0.0.1:0\"",
            "cluster.listen in baton.toml:8: \"127.0.0.1:0\" has port 0; name a port",
        ),
        (
            "127.0.0.1:7402",
            "host-b",
            "cluster.members[1].addr in baton.toml:11: \"host-b\" is not HOST:PORT; write \"10.0.0.1:7401\"",
        ),
        (
            "id = \"host-a\"\n",
            "id = \"host-c\"\n",
            "chain in baton.toml:23: host-c is an arbiter and runs no chain node; remove the section, or make it a validator",
        ),
    ]);
    assert_eq!(
        load(&ARBITER.replace("id = \"c\"\nstate", "id = \"a\"\nstate")).unwrap_err(),
        "member.id in baton.toml:3: a is a validator and has no [chain] section; add one, or make it an arbiter"
    );
    let arbiters =
        ARBITER.replace("7401\"", "7401\", role = \"arbiter\"").replace("priority = 7", "role = \"arbiter\"");
    assert_eq!(
        load(&arbiters).unwrap_err(),
        "cluster.members in baton.toml:1: no member is a validator, so nobody could sign; give one role = \"validator\""
    );
}

#[test]
fn tls_may_be_left_out_on_loopback_only() {
    let tls = "[tls]                             # required unless every address is loopback\n\
               ca = \"ca.pem\"\ncert = \"host-a.pem\"\nkey = \"host-a.key\"\n";
    let bare = edited(tls, "");
    assert_eq!(load(&bare).expect("all loopback").tls, None);
    assert_eq!(
        load(&bare.replace("127.0.0.1:7402", "10.0.0.2:7402")).unwrap_err(),
        "cluster.members[1].addr in baton.toml:11: 10.0.0.2:7402 is not a loopback address, so [tls] is required; add \
         its ca, cert and key"
    );
    assert_eq!(
        load(&bare.replace("listen = \"127.0.0.1:7401\"", "listen = \"0.0.0.0:7401\"")).unwrap_err(),
        "cluster.listen in baton.toml:8: 0.0.0.0:7401 is not a loopback address, so [tls] is required; add its ca, cert \
         and key"
    );
    assert!(load(&bare.replace("127.0.0.1:7402", "[::1]:7402")).is_ok());
    assert!(load(&bare.replace("127.0.0.1:7402", "localhost.example.org:7402")).is_err());
    assert!(load(&EXAMPLE.replace("127.0.0.1:7402", "10.0.0.2:7402")).is_ok());
}

#[test]
fn doing_without_tls_elsewhere_must_be_written_out_and_is_warned_of() {
    let tls = "ca = \"ca.pem\"\ncert = \"host-a.pem\"\nkey = \"host-a.key\"\n";
    let bare = edited(tls, "insecure = true\n").replace("127.0.0.1:7402", "10.0.0.2:7402");
    let config = load(&bare).expect("it is written out");
    assert_eq!((config.tls, config.insecure), (None, true));
    let warned = config.warnings.iter().any(|warning| warning.starts_with("tls.insecure is true: whoever reaches"));
    assert!(warned, "{:?}", config.warnings);
    assert!(!load(EXAMPLE).expect("the example").insecure);
    let unsaid = load(&bare.replace("insecure = true", "insecure = false")).unwrap_err();
    assert_eq!(unsaid, "missing key tls.ca in baton.toml; for example: [tls] ca = \"ca.pem\"");
    assert_eq!(
        load(&edited("ca = \"ca.pem\"", "ca = \"ca.pem\"\ninsecure = true")).unwrap_err(),
        "tls.insecure in baton.toml:20: is true, so tls.ca would not be used; remove one of them"
    );
}

#[test]
fn a_missing_file_names_the_ways_to_choose_another() {
    let error = Config::load(Path::new("/nowhere/baton.toml"), std::iter::empty()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read /nowhere/baton.toml: No such file or directory (os error 2); name the file with --config FILE or \
         BATON_CONFIG"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn unknown_keys_anywhere_are_one_line_and_never_a_panic(
        table in prop::sample::select(vec!["", "member", "cluster", "timing", "tls", "chain", "chain.probe",
            "chain.activate", "chain.last_signed", "metrics", "nothing", "chain.env.x"]),
        key in "\\PC{1,12}|[a-z_.]{1,12}|[\\[\\]0-9.]{1,6}",
        value in prop::sample::select(vec!["1", "\"x\"", "true", "[1]", "{ a = 1 }", "1.5", "1979-05-27", "nan"]),
    ) {
        let quoted = toml::Value::String(key.clone()).to_string();
        let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
        for written in [quoted.as_str(), key.as_str()] {
            if let Err(line) = load(&format!("{header}{written} = {value}\n")) {
                prop_assert!(!line.contains('\n'), "{line:?}");
            }
        }
    }

    #[test]
    fn any_value_of_a_known_key_is_one_line_and_never_a_panic(
        line in 0..EXAMPLE.lines().count(),
        value in "\\PC{0,20}|\"[^\"\\\\]{0,20}\"|-?[0-9]{1,25}|\\[\\[?\\{?[a-z\"]{0,9}",
    ) {
        let edited: Vec<String> = EXAMPLE.lines().enumerate().map(|(number, text)| match text.split_once(" = ") {
            Some((key, _)) if number == line => format!("{key} = {value}"),
            Some(_) | None => text.to_owned(),
        }).collect();
        if let Err(line) = load(&edited.join("\n")) {
            prop_assert!(!line.contains('\n'), "{line:?}");
        }
    }
}
