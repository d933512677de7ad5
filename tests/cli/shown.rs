//! What operators are shown: tables, sentences, and JSON for programs.

use std::fs;

use baton::cluster::wire::proto::{Grant, SignLog, StatusResponse, UpgradePlan, UpgradeReport, UpgradeStage};

use crate::fake_coordinator::{Host, assert_refused, baton, serve, text, two_members};

#[test]
fn status_is_found_by_config_socket_and_variable() {
    let host = Host::new();
    let socket = host.path("run/admin.sock");
    let _server = serve(two_members(), &socket);
    let (config, socket) = (host.config(), socket.display().to_string());
    for (args, env) in [
        (&["active-validator", "--config", &config][..], &[][..]),
        (&["active-validator", "--socket", &socket], &[]),
        (&["active-validator"], &[("BATON_CONFIG", config.as_str())]),
    ] {
        let output = baton(args, env);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "Name: host-a\n"), "{output:?}");
    }
}

#[test]
fn status_json_has_every_field_of_the_contract_by_name() {
    let host = Host::new();
    let _server = serve(two_members(), &host.path("run/admin.sock"));
    let output = baton(&["status", "--json", "--config", &host.config()], &[]);
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let member = |id: &str, state: &str, phase: &str, synced: bool, lease_ms: i64, guard: &str, links: &str| {
        serde_json::json!({
            "id": id, "addr": "127.0.0.1:7401", "role": "validator", "state": state, "phase": phase,
            "reachable": true, "synced": synced, "height": 1234, "priority": 100, "maintenance": false,
            "lease_remaining_ms": lease_ms, "guard": guard, "links": links, "node_pid": 77, "version": "0.1.0",
            "settling": null, "transport": "tls", "certificate_until": "2096-10-02T07:06:40.000Z", "vote": "voter",
            "containment": "pid-namespace",
        })
    };
    let mut standby = member("host-b", "Voting", "", false, 0, "idle", "standby");
    standby["not_ready_because"] = "the chain node is syncing".into();
    let expected = serde_json::json!({
        "cluster": "my-validator", "member": "host-a", "leader": "host-a", "term": 3, "epoch": 2,
        "holder": "host-a", "quorum": true, "paused": false,
        "floor": {
            "epoch": 2, "source": "settled", "floor": "a block after 2024-02-29T12:00:00.123Z",
            "met_at_height": 1_234_567_890, "settled_in_ms": 12345,
        },
        "members": [
            member("host-a", "Validating", "Active", true, 812, "armed", "validating"),
            standby,
        ],
        "warnings": [],
    });
    assert_eq!(seen, expected);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn what_a_settling_member_waits_for_stands_below_it_whole() {
    let host = Host::new();
    let mut coordinator = two_members();
    let settling = "a block after 2026-06-14T09:31:07.204Z: the chain stands still at height 1234567890 since \
                    2026-06-14T09:30:07.204Z, and may wait for this validator; nothing above 1234567891 is known to be \
                    signed: baton floor says how far it was";
    coordinator.status.members[0].settling = settling.to_owned();
    let _server = serve(coordinator, &host.path("run/admin.sock"));
    let output = baton(&["status", "--config", &host.config()], &[]);
    let shown = text(&output.stdout);
    let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(&format!("settling, waits for {settling} host-b ")), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
}

#[test]
fn status_says_what_the_log_has_admitted_when_and_at_whose_request() {
    let host = Host::new();
    let mut coordinator = two_members();
    let last = Grant { height: 41, round: 1, step: 3, digest: vec![1; 32], seconds: 1_709_208_000, nanos: 0 };
    let log = SignLog { chain: "c-1".into(), key: "ed25519:P".into(), last: Some(last), ..SignLog::default() };
    coordinator.status.sign_log = Some(SignLog { by: "host-b".into(), ..log });
    coordinator.status.signed_at_ns = 1_709_208_001_500_000_000;
    let _server = serve(coordinator, &host.path("run/admin.sock"));
    let output = baton(&["status", "--config", &host.config()], &[]);
    let told = text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    let up_to = "Signed by the log on c-1: up to height 41, round 1, precommit, asked by the node of host-b, ";
    let since = told.split_once(up_to).unwrap_or_else(|| panic!("{told}")).1;
    assert!(since.split_once(" ago").is_some_and(|(days, _)| days.contains(" d ")), "{told}");

    let output = baton(&["status", "--json", "--config", &host.config()], &[]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let expected = serde_json::json!({
        "chain": "c-1", "key": "ed25519:P", "height": 41, "round": 1, "step": 3, "by": "host-b", "sentry": null,
        "signed_for": "2024-02-29T12:00:00.000Z", "answered_at": "2024-02-29T12:00:01.500Z", "open": true,
        "sentries": [],
    });
    assert_eq!(value["signer"], expected);
}

#[test]
fn the_status_table_says_why_a_member_is_not_ready() {
    let host = Host::new();
    let _server = serve(two_members(), &host.path("run/admin.sock"));
    let output = baton(&["status", "--config", &host.config()], &[]);
    assert_eq!(
        text(&output.stdout),
        "cluster my-validator, seen by host-a\n\
         leader host-a (term 3), holder host-a (epoch 2), quorum yes\n\
         sign floor of epoch 2, settled:\n  \
         floor a block after 2024-02-29T12:00:00.123Z, met at 1234567890 in 12345 ms\n\
         \n\
         HOST    ROLE       STATE       PHASE   HEIGHT  LINKS       GUARD  LEASE\n\
         host-a  validator  Validating  Active  1234    validating  armed  812ms\n\
         host-b  validator  Voting      -       1234    standby     idle   -\n  \
         not ready: the chain node is syncing\n"
    );
}

#[test]
fn an_arbiter_is_not_blamed_for_running_no_chain_node() {
    let host = Host::new();
    let mut coordinator = two_members();
    let arbiter = &mut coordinator.status.members[1];
    (arbiter.role, arbiter.not_ready_because) = ("arbiter".to_owned(), "an arbiter runs no chain node".to_owned());
    let _server = serve(coordinator, &host.path("run/admin.sock"));
    let output = baton(&["status", "--config", &host.config()], &[]);
    assert!(!text(&output.stdout).contains("not ready"), "{}", text(&output.stdout));
}

#[test]
fn a_holder_that_settles_says_what_it_waits_for() {
    let host = Host::new();
    let mut coordinator = two_members();
    let holder = &mut coordinator.status.members[0];
    (holder.phase, holder.settling) =
        ("Settling".to_owned(), "release: its chain node to reach height 1240".to_owned());
    let _server = serve(coordinator, &host.path("run/admin.sock"));
    let output = baton(&["status", "--config", &host.config()], &[]);
    let said = "  settling, waits for release: its chain node to reach height 1240\n";
    assert!(text(&output.stdout).contains(said), "{}", text(&output.stdout));
    let output = baton(&["status", "--json", "--config", &host.config()], &[]);
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(seen["members"][0]["settling"], "release: its chain node to reach height 1240");
}

#[test]
fn without_an_active_holder_the_exit_code_is_1() {
    let no_holder = |change: fn(&mut StatusResponse)| {
        let mut coordinator = two_members();
        change(&mut coordinator.status);
        coordinator
    };
    for coordinator in [
        no_holder(|status| status.holder.clear()),
        no_holder(|status| status.members[0].phase = "Settling".to_owned()),
        no_holder(|status| status.members[0].reachable = false),
        no_holder(|status| status.holder = "host-b".to_owned()),
    ] {
        let host = Host::new();
        let (holder, leader) = (coordinator.status.holder.clone(), coordinator.status.leader.clone());
        let _server = serve(coordinator, &host.path("run/admin.sock"));
        let output = baton(&["status", "--json", "--config", &host.config()], &[]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(seen["holder"].as_str().unwrap_or_default(), holder);
        assert_eq!((seen["holder"].is_null(), seen["leader"].as_str()), (holder.is_empty(), Some(leader.as_str())));
        let output = baton(&["active-validator", "--config", &host.config()], &[]);
        assert_refused(&output, 1, "baton: no holder is active; see baton status");
    }
}

#[test]
fn history_shows_each_move_and_its_reason() {
    let host = Host::new();
    let _server = serve(two_members(), &host.path("run/admin.sock"));
    let output = baton(&["history", "--config", &host.config()], &[]);
    assert_eq!(
        text(&output.stdout),
        "FROM    TO      EPOCH  KIND      CLAIMED                   GAP         FLOOR\n\
         -       host-b  1      first     2024-02-29T12:00:00.123Z  0ms         settled\n  the first claim\n  \
         floor a block after 2024-02-29T12:00:00.123Z, met at 1234567890 in 12345 ms\n\
         host-b  host-a  2      failover  2024-02-29T12:00:00.123Z  unfinished  -\n  the first claim\n"
    );
    let output = baton(&["history", "--json", "--config", &host.config()], &[]);
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(seen["moves"][0]["from"], serde_json::Value::Null);
    assert_eq!(seen["moves"][0]["floor"], "a block after 2024-02-29T12:00:00.123Z");
    assert_eq!(seen["moves"][0]["floor_source"], "settled");
    assert_eq!(seen["moves"][0]["floor_met_at_height"], 1_234_567_890);
    assert_eq!(seen["moves"][0]["settled_in_ms"], 12345);
    assert_eq!(seen["moves"][1]["active_at_ns"], serde_json::Value::Null);
    assert_eq!(seen["moves"][1]["floor_source"], serde_json::Value::Null);
    assert_eq!(seen["moves"][1]["claimed_at_ns"], 1_709_208_000_123_000_000_u64);
}

#[test]
fn a_pause_and_maintenance_are_shown() {
    let host = Host::new();
    let mut coordinator = two_members();
    coordinator.status.paused_since_ns = Some(1_709_208_000_123_000_000);
    coordinator.status.floor = None;
    for member in &mut coordinator.status.members {
        member.maintenance = true;
        member.not_ready_because = "in maintenance".to_owned();
    }
    let _server = serve(coordinator, &host.path("run/admin.sock"));
    let output = baton(&["status", "--config", &host.config()], &[]);
    assert_eq!(
        text(&output.stdout),
        "cluster my-validator, seen by host-a\n\
         leader host-a (term 3), holder host-a (epoch 2), quorum yes\n\
         PAUSED since 2024-02-29T12:00:00.123Z: the baton does not move; baton resume\n\
         \n\
         HOST    ROLE       STATE       PHASE   HEIGHT  LINKS       GUARD  LEASE\n\
         host-a  validator  Validating  Active  1234    validating  armed  812ms\n  \
         in maintenance: keeps the baton while the cluster is paused\n\
         host-b  validator  Voting      -       1234    standby     idle   -\n  \
         in maintenance\n"
    );
    let output = baton(&["status", "--json", "--config", &host.config()], &[]);
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&seen["paused"], &seen["members"][1]["maintenance"]), (&true.into(), &true.into()), "{seen:#}");
}

#[test]
fn what_there_is_to_know_of_a_node_stands_below_its_member() {
    let host = Host::new();
    let mut coordinator = two_members();
    coordinator.status.members[1].node_note = "the chain node refused to reload".to_owned();
    let _runtime = serve(coordinator, &host.path("run/admin.sock"));
    let output = baton(&["status", "--config", &host.config()], &[]);
    let lines: Vec<&str> = text(&output.stdout).lines().rev().take(2).collect();
    assert_eq!(lines, ["  the chain node refused to reload", "  not ready: the chain node is syncing"]);
    let output = baton(&["status", "--json", "--config", &host.config()], &[]);
    assert!(text(&output.stdout).contains("\"node_note\": \"the chain node refused to reload\""), "{output:?}");
}

#[test]
fn members_are_listed_with_vote_and_store_and_warnings_stand_below() {
    let host = Host::new();
    let mut coordinator = two_members();
    coordinator.status.warnings = vec!["two voters: the loss of EITHER stops signing".to_owned()];
    coordinator.status.members[1].vote = "learner".to_owned();
    coordinator.status.members[1].incarnation = 0;
    let _server = serve(coordinator, &host.path("run/admin.sock"));
    let output = baton(&["member", "list", "--config", &host.config()], &[]);
    assert_eq!(
        text(&output.stdout),
        "cluster my-validator, seen by host-a: 1 voter\n\n\
         HOST    VOTE     ROLE       PRIORITY  ADDRESS         UP   STORE\n\
         host-a  voter    validator  100       127.0.0.1:7401  yes  0000000000000abc\n\
         host-b  learner  validator  100       127.0.0.1:7401  yes  -\n\n\
         WARNING: two voters: the loss of EITHER stops signing\n"
    );
    let output = baton(&["member", "list", "--json", "--config", &host.config()], &[]);
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let member = |id: &str, vote: &str, store: Option<&str>| {
        serde_json::json!({
            "id": id, "vote": vote, "role": "validator", "priority": 100, "addr": "127.0.0.1:7401",
            "reachable": true, "store": store,
        })
    };
    let expected = serde_json::json!({
        "cluster": "my-validator", "member": "host-a", "leader": "host-a",
        "members": [member("host-a", "voter", Some("0000000000000abc")), member("host-b", "learner", None)],
        "warnings": ["two voters: the loss of EITHER stops signing"],
    });
    assert_eq!(seen, expected);
    let status = baton(&["status", "--config", &host.config()], &[]);
    assert!(text(&status.stdout).contains("\nWARNING: two voters: the loss of EITHER"), "{status:?}");
    assert!(text(&status.stdout).contains("\n  a learner: it has no vote\n"), "{status:?}");
}

#[test]
fn upgrades_are_shown_with_what_they_wait_for() {
    let host = Host::new();
    let mut cluster = two_members();
    let mut plan =
        UpgradePlan { name: "v2".to_owned(), height: Some(2000), planned_at_ns: 7, ..UpgradePlan::default() };
    plan.set_stage(UpgradeStage::Preparing);
    cluster.plans = vec![plan.clone()];
    cluster.status.upgrade = Some(plan);
    cluster.status.upgrade_waits_for = "height 2000; the chain is at 1234".to_owned();
    cluster.status.members[0].upgrade = Some(UpgradeReport { current: "v1".to_owned(), ..UpgradeReport::default() });
    let _server = serve(cluster, &host.path("run/admin.sock"));
    let shown = |args: &[&str]| {
        let output = baton(&[&["upgrade"], args, &["--config", &host.config()]].concat(), &[]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        text(&output.stdout).to_owned()
    };
    let table = shown(&["status"]);
    assert!(
        table.starts_with("cluster my-validator, seen by host-a: upgrade v2 (height 2000) is planned\n"),
        "{table}"
    );
    assert_eq!(table.lines().last(), Some("waits for height 2000; the chain is at 1234"), "{table}");
    let object: serde_json::Value = serde_json::from_str(&shown(&["status", "--json"])).expect("JSON");
    assert_eq!((&object["plan"]["name"], &object["plan"]["state"]), (&"v2".into(), &"planned".into()), "{object}");
    assert_eq!((&object["hosts"][0]["current"], &object["stuck"]), (&"v1".into(), &false.into()), "{object}");
    assert!(shown(&["list"]).contains("height 2000"));
    let object: serde_json::Value = serde_json::from_str(&shown(&["list", "--json"])).expect("JSON");
    assert_eq!(object["plans"][0]["height"], 2000, "{object}");
}

#[test]
fn why_answers_in_sentences_and_for_programs_with_the_exit_code_of_status() {
    let host = Host::new();
    let mut cluster = two_members();
    let socket = host.path("run/admin.sock");
    let server = serve(cluster.clone(), &socket);
    let output = baton(&["why", "--config", &host.config()], &[]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(said.starts_with("host-a holds the baton under epoch 2 and signs."), "{said}");
    assert!(said.ends_with("- host-b could not take the baton: the chain node is syncing.\n"), "{said}");
    drop(server);

    cluster.status.members[0].phase = "Claiming".to_owned();
    fs::remove_file(&socket).expect("the old socket");
    let _server = serve(cluster, &socket);
    let output = baton(&["why", "--json", "--config", &host.config()], &[]);
    let why: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(1), "nobody signs: {why}");
    assert_eq!((&why["holder"], &why["active"], &why["member"]), (&"host-a".into(), &false.into(), &"host-a".into()));
    assert_eq!(why["failover"]["works"], false, "{why}");
    assert_eq!(why["wrong"].as_array().map(Vec::len), Some(2), "{why}");
}
