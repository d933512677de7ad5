//! What a sound configuration means: the design's example, defaults, drivers, variables, warnings.

use std::fs;
use std::path::Path;
use std::time::Duration;

use baton::base::chain_node::Activation;
use baton::base::guard_frame::LinkSpec;
use baton::base::ids::Role;
use baton::base::timing::Timing;
use baton::config::{Absent, Config, DriverKind, KEYS, OnHalt, Pointers, ProbeTarget, RpcCall};

use crate::{ARBITER, EXAMPLE, edited, load, load_with};

#[test]
fn the_example_of_the_design_is_read_in_full() {
    let config = load(EXAMPLE).expect("the example is sound");
    assert_eq!(config.id.as_str(), "host-a");
    assert_eq!(config.timing, Timing::LAN);
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.metrics_listen.map(|addr| addr.port()), Some(2233));
    let members: Vec<_> =
        config.cluster.members.iter().map(|m| (m.id.as_str(), m.addr.as_str(), m.role, m.priority)).collect();
    assert_eq!(
        members,
        [
            ("host-a", "127.0.0.1:7401", Role::Validator, 100),
            ("host-b", "127.0.0.1:7402", Role::Validator, 90),
            ("host-c", "127.0.0.1:7403", Role::Arbiter, 0),
        ]
    );
    assert!(!config.cluster.failback);
    let chain = config.chain.expect("host-a is a validator");
    assert_eq!(chain.driver, DriverKind::Near);
    assert_eq!(chain.command, ["neard", "--home", "/var/lib/near", "run"]);
    assert_eq!((chain.stop_timeout, chain.clock_skew), (Duration::from_secs(30), Duration::from_millis(200)));
    assert_eq!(chain.on_halt, OnHalt::Wait);
    assert_eq!(chain.activation, Activation::Signal(1));
    let url = "http://127.0.0.1:3030/status".to_owned();
    assert_eq!(chain.probe.target, ProbeTarget::Http { url, pointers: Pointers::default() });
    assert_eq!((chain.probe.every, chain.probe.timeout), (Duration::from_secs(1), Duration::from_secs(1)));
    assert_eq!(chain.probe.failures, 3);
    assert_eq!(
        chain.links,
        [
            LinkSpec {
                link: "/var/lib/near/validator_key.json".into(),
                validating: "/etc/baton/keys/validator_key.json".into(),
                standby: None,
            },
            LinkSpec {
                link: "/var/lib/near/node_key.json".into(),
                validating: "/etc/baton/keys/validator_node_key.json".into(),
                standby: Some("/etc/baton/keys/voter_node_key.json".into()),
            },
        ]
    );
}

#[test]
fn an_arbiter_needs_four_sections_fewer_and_relative_paths_start_at_the_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("baton.toml");
    fs::write(&file, ARBITER).expect("the configuration is written");
    let config = Config::load(&file, std::iter::empty()).expect("sound");
    assert_eq!((config.state_dir, config.run_dir), (dir.path().join("state"), dir.path().join("run")));
    assert_eq!((config.chain, config.tls, config.metrics_listen), (None, None, None));
    let priorities: Vec<u32> = config.cluster.members.iter().map(|member| member.priority).collect();
    assert_eq!(priorities, [100, 7, 0]);
}

#[test]
fn a_generic_node_is_asked_by_pointer_command_or_port() {
    let generic = edited(r#"driver = "near" "#, r#"driver = "generic""#);
    let url = "url = \"http://127.0.0.1:3030/status\"";
    let with_pointers = generic.replace(url, &format!("{url}\nsyncing = \"/s\"\nheight = \"/h\"\nkey = \"/k\""));
    let probe = load(&with_pointers).expect("sound").chain.expect("chain").probe;
    let (syncing, height, key) = (Some("/s".into()), Some("/h".into()), Some("/k".into()));
    let pointers = Pointers { syncing, height, key, ..Pointers::default() };
    assert_eq!(probe.target, ProbeTarget::Http { url: "http://127.0.0.1:3030/status".into(), pointers });

    let calls = "[[chain.probe.calls]]\nmethod = \"eth_syncing\"\n\
                 [[chain.probe.calls]]\nmethod = \"m\"\nparams = [\"latest\", { deep = [1, true] }]\n[metrics]";
    let probe = load(&generic.replace("[metrics]", calls)).expect("sound").chain.expect("chain").probe;
    let call = |method: &str, params| RpcCall { method: method.into(), params };
    let calls = vec![
        call("eth_syncing", serde_json::json!([])),
        call("m", serde_json::json!(["latest", { "deep": [1, true] }])),
    ];
    let pointers = Pointers::default();
    assert_eq!(probe.target, ProbeTarget::JsonRpc { url: "http://127.0.0.1:3030/status".into(), calls, pointers });

    let probe =
        load(&generic.replace(url, "exec = [\"is-synced\", \"-q\"]")).expect("sound").chain.expect("chain").probe;
    assert_eq!(probe.target, ProbeTarget::Exec { command: vec!["is-synced".into(), "-q".into()] });

    let probe = load(&generic.replace(url, "tcp = \"127.0.0.1:9\"")).expect("sound").chain.expect("chain").probe;
    assert_eq!(probe.target, ProbeTarget::Tcp { addr: "127.0.0.1:9".into() });
}

#[test]
fn optional_parts_of_chain_are_carried() {
    let text = edited(
        "stop_timeout = \"30s\"",
        "log = \"node.log\"\nenv = { RUST_LOG = \"info\" }\nkeys_on_tmpfs = true\nstop_timeout = \"2m\"\n\
         last_signed = { file = \"/s.json\", height = \"/height\", round = \"/round\" }",
    );
    let text = text.replace("every = \"1s\"", "every = \"200ms\"");
    let chain = load(&text).expect("sound").chain.expect("chain");
    let log = chain.log.expect("a log");
    assert!(log.file.is_absolute() && log.file.ends_with("node.log"), "{log:?}");
    assert_eq!((log.bytes_max, log.kept), (64 << 20, 4));
    assert_eq!(chain.env.get("RUST_LOG").map(String::as_str), Some("info"));
    assert!(chain.keys_on_tmpfs);
    assert_eq!(chain.stop_timeout, Duration::from_secs(120));
    let last_signed = chain.last_signed.expect("written");
    assert_eq!((last_signed.height.as_str(), last_signed.step), ("/height", None));
    assert_eq!(chain.probe.timeout, Duration::from_millis(200), "an answer is not awaited beyond the next probe");
}

#[test]
fn each_driver_has_its_own_activation() {
    let without = edited("how = \"signal\"                    # restart | signal | exec\nsignal = \"SIGHUP\"\n", "");
    let activation = |text: &str| load(text).expect("sound").chain.expect("chain").activation;
    assert_eq!(activation(&without), Activation::Signal(1));
    let generic = without.replacen("\"near\" ", "\"generic\"", 1);
    assert_eq!(activation(&generic), Activation::Restart);
    assert_eq!(activation(&without.replacen("\"near\" ", "\"cometbft\"", 1)), Activation::Restart);
    let number = edited("signal = \"SIGHUP\"", "signal = 12");
    assert_eq!(activation(&number), Activation::Signal(12));
    let exec = generic.replace(
        "[chain.activate]",
        "[chain.activate]\nhow = \"exec\"\nactivate = [\"/bin/on\"]\ndeactivate = [\"./off\"]",
    );
    let Activation::Exec { activate, deactivate } = activation(&exec) else { panic!("not exec") };
    assert_eq!(activate, ["/bin/on"]);
    assert!(Path::new(&deactivate[0]).is_absolute(), "{deactivate:?}");
}

#[test]
fn variables_override_the_file_and_are_held_to_the_same_rules() {
    let env = [
        ("BATON_TIMING_LEASE", "2s"),
        ("BATON_CLUSTER_LISTEN", "127.0.0.1:9999"),
        ("BATON_CLUSTER_FAILBACK", "true"),
        ("BATON_CHAIN_PROBE_FAILURES", "5"),
        ("BATON_CHAIN_STOP_TIMEOUT", "3s"),
        ("BATON_GUARD", "/usr/bin/baton-guard"),
        ("BATON_LOCALNET", "1"),
        ("BATON_LOG", "debug"),
        ("PATH", "/bin"),
    ];
    let config = load_with(EXAMPLE, &env).expect("sound");
    assert_eq!(config.timing.lease(), Duration::from_secs(2));
    assert_eq!(config.cluster.listen.port(), 9999);
    assert!(config.cluster.failback);
    let chain = config.chain.expect("chain");
    assert_eq!((chain.probe.failures, chain.stop_timeout), (5, Duration::from_secs(3)));
    let metrics = load_with(ARBITER, &[("BATON_METRICS_LISTEN", "127.0.0.1:1")]).expect("a section of its own");
    assert_eq!(metrics.metrics_listen.map(|addr| addr.port()), Some(1));

    for (name, value, expected) in [
        ("BATON_TIMING_LEASE", "2", "timing.lease in BATON_TIMING_LEASE: 2 has no unit; write \"2ms\" or \"2s\""),
        ("BATON_TIMING_LEESE", "2s", "unknown variable BATON_TIMING_LEESE; did you mean BATON_TIMING_LEASE?"),
        (
            "BATON_CHAIN_PROBE_FAILURES",
            "many",
            "chain.probe.failures in BATON_CHAIN_PROBE_FAILURES: \"many\" is not a whole number; for example: failures = 3",
        ),
        (
            "BATON_CHAIN_COMMAND",
            "neard run",
            "BATON_CHAIN_COMMAND cannot override chain.command, which is a list or a table; write it in baton.toml",
        ),
        (
            "BATON_CLUSTER_MEMBERS",
            "a,b",
            "BATON_CLUSTER_MEMBERS cannot override cluster.members, which is a list or a table; write it in baton.toml",
        ),
        (
            "BATON_CHAIN_ENV_RUST_LOG",
            "debug",
            "BATON_CHAIN_ENV_RUST_LOG cannot override chain.env, which is a list or a table; write it in baton.toml",
        ),
    ] {
        assert_eq!(load_with(EXAMPLE, &[(name, value)]).expect_err(name), expected);
    }
}

#[test]
fn one_member_or_an_even_number_is_accepted_with_a_warning() {
    let warnings = |text: &str| load(text).expect("sound").warnings;
    let two = ARBITER.replace("  { id = \"b\", addr = \"127.0.0.1:7402\", priority = 7 },\n", "");
    assert_eq!(
        warnings(&two),
        [
            "cluster.members has 2 members: the loss of EITHER stops signing; use 3 (an arbiter is enough)",
            "cluster.members has 1 validator: nobody takes over when it fails; use 2 or more",
        ]
    );
    let four =
        format!("{}  {{ id = \"d\", addr = \"127.0.0.1:7404\" }},\n]\n", ARBITER.trim_end().trim_end_matches(']'));
    assert_eq!(
        warnings(&four),
        ["cluster.members has 4 members and survives the loss of 1, as 3 would; use 5 (an arbiter is enough)"]
    );
    let from = EXAMPLE.find("  { id = \"host-b\"").expect("host-b");
    let to = EXAMPLE.find("]\n\n[timing]").expect("the end of the list");
    assert_eq!(
        warnings(&format!("{}{}", &EXAMPLE[..from], &EXAMPLE[to..])),
        ["cluster.members has 1 member: nobody takes over when it fails; use 3"]
    );
}

/// `docs/configuration.md` is complete: a key that the schema knows has a row.
#[test]
fn every_key_has_a_row_in_the_documentation_with_what_is_so_without_it() {
    let docs = include_str!("../../docs/configuration.md");
    let unlike: Vec<String> = KEYS
        .iter()
        .filter_map(|key| {
            let row = docs.lines().find_map(|line| line.strip_prefix(&format!("| `{}` | ", key.path)));
            let Some(row) = row else { return Some(format!("{} has no row", key.path)) };
            let said = row.split(" | ").nth(1).unwrap_or_default();
            let value = key.example_value();
            let fits = match key.absent {
                Absent::Refused => said.starts_with("required") || said == "none" || said.contains("above"),
                // A member's timing comes from its profile, whose row says what that is.
                Absent::AsExample => said.contains(value) || said == "profile",
                Absent::So(_) => !said.is_empty() && !said.starts_with("required"),
            };
            (!fits).then(|| format!("{}: {said} is not what is so without it", key.path))
        })
        .collect();
    assert_eq!(unlike, Vec::<String>::new());
}

#[test]
fn what_a_halted_chain_and_a_lonely_node_mean_is_carried_and_off_by_default() {
    let chain = load(EXAMPLE).expect("sound").chain.expect("chain");
    assert_eq!((chain.on_halt, chain.probe.min_peers), (OnHalt::Wait, None));
    let replica = edited("on_halt = \"wait\"", "on_halt = \"replica\"");
    let chain = load(&replica).expect("sound").chain.expect("chain");
    assert_eq!((chain.on_halt, chain.halt_after), (OnHalt::Replica, Duration::from_secs(30)));
    let patient = replica.replace("stop_timeout", "halt_after = \"5m\"\nstop_timeout");
    assert_eq!(load(&patient).expect("sound").chain.expect("chain").halt_after, Duration::from_secs(300));
    let generic =
        edited("\"near\" ", "\"generic\"").replace("failures = 3", "failures = 3\nmin_peers = 4\npeers = \"/p\"");
    assert_eq!(load(&generic).expect("sound").chain.expect("chain").probe.min_peers, Some(4));
}

#[test]
fn keys_that_would_do_nothing_are_refused() {
    let line = |text: &str| load(text).expect_err("refused");
    let generic = |probe: &str| edited("\"near\" ", "\"generic\"").replace("failures = 3", probe);
    for (text, expected) in [
        (
            edited("stop_timeout", "halt_after = \"5s\"\nstop_timeout"),
            "chain.halt_after in baton.toml:27: means nothing with on_halt = \"wait\"; remove it or set on_halt = \"replica\"",
        ),
        (
            edited("failures = 3", "min_peers = 4"),
            "chain.probe.min_peers in baton.toml:47: driver near is not told the number of peers; remove it",
        ),
        (
            generic("min_peers = 4"),
            "chain.probe.min_peers in baton.toml:47: needs chain.probe.peers, which points to the number; add it",
        ),
    ] {
        assert_eq!(line(&text), expected);
    }
}
