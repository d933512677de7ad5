//! One clear line for what is wrong, and the exit code, before anything happens; and what goes to standard output.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::fake_coordinator::{Host, assert_refused, baton, text};

#[test]
fn a_wrong_command_line_is_one_line_and_exit_code_2() {
    for (args, line) in [
        (
            &[][..],
            "baton: no command is named; use run, status, active-validator, history, why, canary, fence, handover, maintenance, \
             pause, resume, priority, floor, cert, member, upgrade, signer, record, replay, init, check, completions or man \
             (baton --help)",
        ),
        (
            &["histroy"],
            "baton: unrecognized subcommand 'histroy'; a similar subcommand exists: 'history' (baton --help)",
        ),
        (&["run", "--config"], "baton: a value is required for '--config <FILE>' but none was supplied (baton --help)"),
        (
            &["run", "--log-format", "xml"],
            "baton: invalid value 'xml' for '--log-format <LOG_FORMAT>' [possible values: human, json] (baton --help)",
        ),
        (
            &["handover", "--timeout", "30"],
            "baton: invalid value '30' for '--timeout <DURATION>': 30 has no unit; write \"30ms\" or \"30s\" (baton --help)",
        ),
        (
            &["priority", "host-b", "high"],
            "baton: invalid value 'high' for '<N|configured>': a number, or \"configured\" (baton --help)",
        ),
        (
            &["status", "--socket", "a", "--config", "b"],
            "baton: the argument '--socket <PATH>' cannot be used with '--config <FILE>' (baton --help)",
        ),
    ] {
        assert_refused(&baton(args, &[]), 2, line);
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for args in [&["--help"][..], &["--version"], &["handover", "--help"]] {
        let output = baton(args, &[]);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{args:?}");
        assert!(text(&output.stdout).contains("baton"), "{args:?}");
    }
}

#[test]
fn a_bad_configuration_is_one_line_and_exit_code_2_for_every_command() {
    let host = Host::new();
    let bad = fs::read_to_string(host.path("baton.toml")).expect("readable").replace("every =", "evry =");
    fs::write(host.path("baton.toml"), bad).expect("writable");
    let config = host.config();
    let line = format!("baton: unknown key chain.probe.evry in {config}:46; did you mean chain.probe.every?");
    for command in ["run", "check", "status", "active-validator", "history", "handover", "pause", "resume"] {
        assert_refused(&baton(&[command, "--config", &config], &[]), 2, &line);
    }
    let nowhere = "cannot read /nowhere/baton.toml: No such file or directory (os error 2); name the file with --config \
                   FILE or BATON_CONFIG";
    let by_variable = baton(&["check"], &[("BATON_CONFIG", "/nowhere/baton.toml")]);
    assert_refused(&by_variable, 2, &format!("baton: {nowhere}"));
    let variable = baton(&["check", "--config", &config], &[("BATON_TIMING_LEESE", "2s")]);
    assert_eq!(variable.status.code(), Some(2));
}

#[test]
fn a_key_that_others_can_read_stops_run_and_check_before_anything_happens() {
    let host = Host::new();
    let key = host.path("validator_key.json");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("chmod");
    let key = key.display();
    let line = format!("baton: key {key} has mode 0644, open to group or others; run: chmod 600 {key}");
    for command in ["run", "check"] {
        assert_refused(&baton(&[command, "--config", &host.config()], &[]), 2, &line);
    }
    assert_eq!(fs::read_dir(host.path("run")).expect("run_dir").count(), 0, "nothing was made in run_dir");
}

#[test]
fn an_unreadable_log_level_or_format_stops_run() {
    let host = Host::new();
    let output = baton(&["run", "--config", &host.config()], &[("BATON_LOG", "info=loud")]);
    let line = text(&output.stderr);
    assert_eq!((output.status.code(), line.lines().count()), (Some(2), 1), "{line}");
    assert!(line.starts_with("baton: BATON_LOG=\"info=loud\": write a level"), "{line}");
    let output = baton(&["run", "--config", &host.config()], &[("BATON_LOG_FORMAT", "xml")]);
    assert_refused(&output, 2, "baton: BATON_LOG_FORMAT=\"xml\": write human or json");
}

#[test]
fn check_says_ok_with_the_warnings() {
    let host = Host::new();
    let missing = baton(&["check", "--config", &host.config()], &[]);
    let line =
        format!("baton: [tls] read {}: No such file or directory (os error 2)", host.path("host-a.pem").display());
    assert_refused(&missing, 2, &line);
    let dir = host.config().replace("baton.toml", "");
    assert!(baton(&["cert", "ca", "--dir", &dir], &[]).status.success());
    assert!(baton(&["cert", "issue", "host-a", "--addr", "127.0.0.1", "--dir", &dir], &[]).status.success());
    // Without a neard, and with whatever limit of open files there is.
    let output = baton(&["check", "--config", &host.config()], &[("PATH", "/nowhere")]);
    let said: String =
        text(&output.stdout).split_inclusive('\n').filter(|line| !line.contains("the limit of open files")).collect();
    let ok = format!(
        "warning: chain.home /var/lib/near is not there: what the chain node's files in it say is not checked, and baton run \
         needs it\nwarning: chain.command: neard is no executable file in PATH; install the chain node or correct the command\n\
         chain node: a PID namespace ends all of it with its guard\n{}: ok; host-a of 3 members\n",
        host.config()
    );
    assert_eq!((output.status.code(), said.as_str(), text(&output.stderr)), (Some(0), ok.as_str(), ""));
    let two = fs::read_to_string(host.path("baton.toml")).expect("readable");
    let two: String = two.lines().filter(|line| !line.contains("host-c")).map(|line| format!("{line}\n")).collect();
    fs::write(host.path("baton.toml"), two).expect("writable");
    let output = baton(&["check", "--config", &host.config()], &[]);
    assert!(text(&output.stdout).starts_with("warning: cluster.members has 2 members"), "{output:?}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn an_absent_coordinator_is_exit_code_2_with_its_socket() {
    let host = Host::new();
    let socket = host.path("run/admin.sock");
    let line = format!(
        "baton: cannot reach the coordinator at {}: No such file or directory (os error 2); is baton run up?",
        socket.display()
    );
    for command in ["status", "active-validator", "history", "handover", "pause", "resume"] {
        assert_refused(&baton(&[command, "--config", &host.config()], &[]), 2, &line);
    }
}

#[test]
fn a_coordinator_that_hangs_is_exit_code_2_after_seconds() {
    let host = Host::new();
    // Accepted by the kernel and never answered, as by a stopped process.
    let _listener = std::os::unix::net::UnixListener::bind(host.path("run/admin.sock")).expect("bound");
    let started = Instant::now();
    let output = baton(&["status", "--config", &host.config()], &[]);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    let line = text(&output.stderr);
    assert_eq!((output.status.code(), line.lines().count()), (Some(2), 1), "{line}");
    assert!(line.contains("no answer within 3s"), "{line}");
}

/// Those of docs/operating.md are carried out by a test of the localnet.
#[test]
fn every_command_that_the_readme_shows_can_be_given() {
    let commands = include_str!("../../README.md").lines().filter_map(|line| line.strip_prefix("$ baton "));
    let shown: Vec<Vec<&str>> = commands.map(|line| line.split_whitespace().collect()).collect();
    assert!(!shown.is_empty());
    for args in shown {
        // Understood, and then nothing is found at that address.
        let found = Host::new();
        let output = baton(&[&args[..], &["--socket", &found.path("none.sock").display().to_string()]].concat(), &[]);
        let line = text(&output.stderr);
        assert!(line.contains("none.sock") && output.status.code() == Some(2), "baton {args:?}: {line}");
    }
}
