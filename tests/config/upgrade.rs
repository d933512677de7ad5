//! `[upgrade]`, and cosmovisor's variables where it leaves something open.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use baton::config::{Backup, Config, Upgrade};

use crate::{ARBITER, EXAMPLE, load, load_with};

const COMMAND: &str = r#"command = ["neard", "--home", "/var/lib/near", "run"]"#;

/// The example with these lines in `[upgrade]`.
fn with(lines: &str) -> String {
    format!("{EXAMPLE}\n[upgrade]\n{lines}\n")
}

fn upgrade(text: &str, env: &[(&str, &str)]) -> Option<Upgrade> {
    load_with(text, env).expect("sound").chain.expect("a chain node").upgrade
}

fn refused(text: &str, env: &[(&str, &str)]) -> String {
    load_with(text, env).expect_err("refused")
}

fn upgrade_warnings(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    load_with(text, env).expect("sound").warnings
}

#[test]
fn without_a_name_the_command_is_run_as_it_stands() {
    assert_eq!(upgrade(EXAMPLE, &[]), None);
    assert_eq!(upgrade(&with(""), &[]), None);
    // Left over from cosmovisor, and no reason to begin with upgrades.
    let left_over = [("DAEMON_HOME", "not absolute"), ("DAEMON_POLL_INTERVAL", "never"), ("DAEMON_NAME", "")];
    assert_eq!(upgrade(EXAMPLE, &left_over), None);
    assert_eq!(upgrade_warnings(EXAMPLE, &left_over), Vec::<String>::new());
}

#[test]
fn a_name_alone_gives_what_cosmovisor_does_by_default() {
    let mut usual = Upgrade::at(Path::new("/var/lib/near"), "neard");
    usual.env = load(EXAMPLE).expect("sound").chain.expect("a chain node").env;
    let Upgrade { allow_download, restart_after, poll, backup, preupgrade_retries, .. } = &usual;
    assert_eq!((*allow_download, *restart_after, *poll), (false, true, Duration::from_millis(300)));
    assert_eq!((*backup, *preupgrade_retries), (Backup::Copy, 0));
    assert_eq!(usual.backup_dir, Path::new("/var/lib/near"));
    assert_eq!(upgrade(&with("name = \"neard\""), &[]).as_ref(), Some(&usual));
    assert_eq!(upgrade(EXAMPLE, &[("DAEMON_NAME", "neard")]).as_ref(), Some(&usual));
    assert_eq!(upgrade(EXAMPLE, &[("BATON_UPGRADE_NAME", "neard")]).as_ref(), Some(&usual));
}

#[test]
fn every_key_is_carried() {
    let lines = "name = \"neard\"\nroot = \"/r\"\nallow_download = true\nrestart_after = false\npoll = \"2s\"\nbackup = \"links\"\n\
                 backup_dir = \"/b\"\npreupgrade_retries = 3\ndownload_max_mib = 1";
    let found = upgrade(&with(lines), &[]).expect("upgrades");
    let expected = Upgrade {
        allow_download: true,
        restart_after: false,
        poll: Duration::from_secs(2),
        backup: Backup::Links,
        backup_dir: "/b".into(),
        preupgrade_retries: 3,
        download_bytes_max: 1 << 20,
        home: "/var/lib/near".into(),
        env: found.env.clone(),
        ..Upgrade::at(Path::new("/r"), "neard")
    };
    assert_eq!(found, expected);
}

#[test]
fn the_variables_of_cosmovisor_say_what_is_left_open() {
    let env = [
        ("DAEMON_NAME", "neard"),
        ("DAEMON_HOME", "/r"),
        ("DAEMON_ALLOW_DOWNLOAD_BINARIES", "TRUE"),
        ("DAEMON_RESTART_AFTER_UPGRADE", "false"),
        ("DAEMON_POLL_INTERVAL", "1.5s"),
        ("DAEMON_DATA_BACKUP_DIR", "/b"),
        ("DAEMON_PREUPGRADE_MAX_RETRIES", "4"),
        ("UNSAFE_SKIP_BACKUP", "true"),
    ];
    let found = upgrade(EXAMPLE, &env).expect("upgrades");
    let expected = Upgrade {
        allow_download: true,
        restart_after: false,
        poll: Duration::from_millis(1500),
        backup: Backup::None,
        backup_dir: "/b".into(),
        preupgrade_retries: 4,
        home: "/var/lib/near".into(),
        env: found.env.clone(),
        ..Upgrade::at(Path::new("/r"), "neard")
    };
    assert_eq!(found, expected);
    assert_eq!(upgrade_warnings(EXAMPLE, &env), Vec::<String>::new());
    // An empty one says nothing, and backups go to the root where nothing else is said.
    let env = [
        ("DAEMON_NAME", "neard"),
        ("DAEMON_HOME", "/r"),
        ("DAEMON_POLL_INTERVAL", ""),
        ("UNSAFE_SKIP_BACKUP", "false"),
    ];
    let found = upgrade(EXAMPLE, &env).expect("upgrades");
    assert_eq!((found.backup_dir.as_path(), found.backup), (Path::new("/r"), Backup::Copy));
    assert_eq!(found.poll, Duration::from_millis(300));
}

#[test]
fn an_interval_is_a_duration_of_go_or_a_number_of_milliseconds() {
    for (value, ms) in [("300ms", 300), ("5s", 5000), ("1m30s", 90_000), ("500", 500)] {
        let found = upgrade(EXAMPLE, &[("DAEMON_NAME", "neard"), ("DAEMON_POLL_INTERVAL", value)]).expect("upgrades");
        assert_eq!(found.poll, Duration::from_millis(ms), "{value}");
    }
}

#[test]
fn the_file_and_batons_variables_count_more_and_a_contradiction_is_told() {
    let lines = with("name = \"neard\"\nroot = \"/r\"\nrestart_after = true\nbackup = \"links\"\npoll = \"300ms\"");
    let agree = [
        ("DAEMON_NAME", "neard"),
        ("DAEMON_HOME", "/r"),
        ("DAEMON_RESTART_AFTER_UPGRADE", "true"),
        ("UNSAFE_SKIP_BACKUP", "false"),
        ("DAEMON_POLL_INTERVAL", "0.3s"),
    ];
    assert_eq!(upgrade_warnings(&lines, &agree), Vec::<String>::new());
    let contradict = [
        ("DAEMON_HOME", "/other"),
        ("DAEMON_POLL_INTERVAL", "never"),
        ("UNSAFE_SKIP_BACKUP", "true"),
        ("BATON_UPGRADE_POLL", "1s"),
    ];
    let found = upgrade(&lines, &contradict).expect("upgrades");
    assert_eq!((found.root.as_path(), found.backup), (Path::new("/r"), Backup::Links));
    assert_eq!(found.poll, Duration::from_secs(1));
    let warnings = upgrade_warnings(&lines, &contradict);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    for (warning, (begin, end)) in warnings.iter().zip([
        ("DAEMON_HOME is \"/other\", but upgrade.root in ", " is \"/r\", which counts"),
        ("DAEMON_POLL_INTERVAL is \"never\", but upgrade.poll in BATON_UPGRADE_POLL", " is \"1s\", which counts"),
        ("UNSAFE_SKIP_BACKUP is \"true\", but upgrade.backup in ", " is \"links\", which counts"),
    ]) {
        assert!(warning.starts_with(begin) && warning.ends_with(end), "{warning}");
    }
}

#[test]
fn what_cosmovisor_would_do_and_baton_does_not_is_told() {
    let env = [("DAEMON_NAME", "neard"), ("COSMOVISOR_CUSTOM_PREUPGRADE", "pre.sh"), ("COSMOVISOR_COLOR_LOGS", "true")];
    assert_eq!(
        upgrade_warnings(EXAMPLE, &env),
        [
            "COSMOVISOR_CUSTOM_PREUPGRADE is set and means nothing to baton: the script is not run; have the new binary's own \
          pre-upgrade do it"
        ]
    );
}

#[test]
fn variables_that_cannot_be_read_are_named() {
    for (variable, value, line) in [
        ("DAEMON_HOME", "r", "upgrade.root in DAEMON_HOME: \"r\" is no absolute path; write it in full"),
        (
            "DAEMON_POLL_INTERVAL",
            "5 days",
            "upgrade.poll in DAEMON_POLL_INTERVAL: \"5 days\" is not a duration; write one as Go has it: \"300ms\", \"5s\", \
             \"1m30s\"",
        ),
        (
            "DAEMON_POLL_INTERVAL",
            "0s",
            "upgrade.poll in DAEMON_POLL_INTERVAL: \"0s\" is no time at all; use 10ms or more",
        ),
        ("DAEMON_POLL_INTERVAL", "1ms", "upgrade.poll in DAEMON_POLL_INTERVAL: 1ms is out of range; use 10ms to 60m"),
        (
            "UNSAFE_SKIP_BACKUP",
            "yes",
            "upgrade.backup in UNSAFE_SKIP_BACKUP: \"yes\" is not true or false; write one of them",
        ),
        (
            "DAEMON_PREUPGRADE_MAX_RETRIES",
            "-1",
            "upgrade.preupgrade_retries in DAEMON_PREUPGRADE_MAX_RETRIES: -1 is out of range; use 0 to 1000",
        ),
    ] {
        assert_eq!(refused(EXAMPLE, &[("DAEMON_NAME", "neard"), (variable, value)]), line);
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let line = |lines: &str| refused(&with(lines), &[]);
    let without = line("poll = \"1s\"");
    assert!(
        without.ends_with(": means nothing without upgrade.name; name the binary, as \"gaiad\", or remove it"),
        "{without}"
    );
    for name in ["bin/neard", "..", "/neard"] {
        let told = line(&format!("name = {name:?}"));
        assert!(told.ends_with(&format!("{name:?} is no name of a file; write it as \"gaiad\"")), "{told}");
    }
    let inside = line("name = \"neard\"\nbackup_dir = \"/var/lib/near/data/backups\"");
    assert!(
        inside.ends_with("lies in /var/lib/near/data, which is backed up; use a directory outside of it"),
        "{inside}"
    );
    let other = line("name = \"gaiad\"");
    assert!(
        other.ends_with(
            "its program \"neard\" is not upgrade.name, \"gaiad\"; write command = [\"gaiad\", …]: what runs is that binary in \
             cosmovisor/current/bin, with the arguments as they are"
        ),
        "{other}"
    );
    let path = with("name = \"neard\"").replace("[\"neard\"", "[\"/usr/bin/neard\"");
    assert!(upgrade(&path, &[]).is_some(), "the program's file name counts");
    let arbiter = refused(&format!("{ARBITER}\n[upgrade]\nname = \"neard\"\n"), &[]);
    assert!(
        arbiter.ends_with("c is an arbiter and runs no chain node that could be upgraded; remove the section"),
        "{arbiter}"
    );
    assert_eq!(load_with(ARBITER, &[("DAEMON_NAME", "neard")]).expect("sound").chain, None);
}

#[test]
fn heights_to_skip_come_from_the_command_and_from_what_is_appended_to_it() {
    let text =
        with("name = \"neard\"").replace(COMMAND, r#"command = ["neard", "run", "--unsafe-skip-upgrades", "10"]"#);
    let mut config: Config = load(&text).expect("sound");
    let heights = |config: &Config| {
        let chain = config.chain.as_ref().expect("a chain node");
        chain.upgrade.as_ref().expect("upgrades").skip_heights.clone()
    };
    assert_eq!(heights(&config), BTreeSet::from([10]));
    let more = ["--x", "--unsafe-skip-upgrades", "20", "30"].map(str::to_owned).to_vec();
    config.append_to_command(more).expect("a chain node");
    assert_eq!(heights(&config), BTreeSet::from([10, 20, 30]));
    assert_eq!(config.chain.expect("a chain node").command[4..], ["--x", "--unsafe-skip-upgrades", "20", "30"]);

    let mut arbiter = load(ARBITER).expect("sound");
    assert_eq!(arbiter.append_to_command(Vec::new()), Ok(()));
    let told = arbiter.append_to_command(vec!["--x".to_owned()]).expect_err("no chain node");
    assert_eq!(told, "c is an arbiter and runs no chain node; leave out what follows --");
}
