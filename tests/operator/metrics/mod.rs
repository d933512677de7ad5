//! What `/metrics` shows: the names and labels of the contract, a help text with a unit for each, and
//! one-of-many gauges that are never two or none, not even while they change.

mod alerts;
mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use baton::base::hooks::{HookEvent, HookOutcome};
use baton::base::ids::NodeId;
use baton::base::signing::Hrs;
use baton::base::time::{BootTime, WallTime};
use baton::operator::metrics::{
    BinariesSeen, DiskSpace, Metrics, NodeSeen, PeerSeen, PlannedUpgrade, SignOutcome, SignTook, Snapshot,
};

/// Name, type and labels as in the contract with the outside.
const CONTRACT: [(&str, &str, &[&str]); 46] = [
    ("baton_state", "gauge", &["type"]),
    ("baton_node_restarts_total", "counter", &[]),
    ("baton_uptime_seconds", "gauge", &[]),
    ("baton_epoch", "gauge", &[]),
    ("baton_raft_term", "gauge", &[]),
    ("baton_is_leader", "gauge", &[]),
    ("baton_is_holder", "gauge", &[]),
    ("baton_holder_seen", "gauge", &[]),
    ("baton_lease_remaining_seconds", "gauge", &[]),
    ("baton_lease_max_seconds", "gauge", &[]),
    ("baton_timing_mismatches", "gauge", &[]),
    ("baton_moves_total", "counter", &["kind", "reason"]),
    ("baton_move_gap_seconds", "histogram", &[]),
    ("baton_fence_total", "counter", &["cause"]),
    ("baton_guard_armed", "gauge", &[]),
    ("baton_links", "gauge", &["state"]),
    ("baton_node_height", "gauge", &[]),
    ("baton_node_synced", "gauge", &[]),
    ("baton_node_peers", "gauge", &[]),
    ("baton_peer_up", "gauge", &["peer"]),
    ("baton_cluster_height", "gauge", &[]),
    ("baton_peer_rtt_seconds", "gauge", &["peer"]),
    ("baton_peer_clock_offset_seconds", "gauge", &["peer"]),
    ("baton_standbys_ready", "gauge", &[]),
    ("baton_paused", "gauge", &[]),
    ("baton_maintenance", "gauge", &[]),
    ("baton_disk_hung", "gauge", &["dir"]),
    ("baton_insecure", "gauge", &[]),
    ("baton_certificate_expiry_timestamp_seconds", "gauge", &[]),
    ("baton_connections_refused_total", "counter", &[]),
    ("baton_voters", "gauge", &[]),
    ("baton_learners", "gauge", &[]),
    ("baton_state_dir_free_bytes", "gauge", &[]),
    ("baton_state_dir_size_bytes", "gauge", &[]),
    ("baton_upgrade_planned", "gauge", &["height", "name"]),
    ("baton_upgrade_binary_missing", "gauge", &[]),
    ("baton_upgrade_failed", "gauge", &[]),
    ("baton_key_in_use_elsewhere", "gauge", &[]),
    ("baton_build_info", "gauge", &["version"]),
    ("baton_foreign_node", "gauge", &[]),
    ("baton_sign_requests_total", "counter", &["node", "outcome"]),
    ("baton_sign_seconds", "histogram", &["part"]),
    ("baton_sign_answered_timestamp_seconds", "gauge", &[]),
    ("baton_sentry_connected", "gauge", &["sentry"]),
    ("baton_signed_height", "gauge", &[]),
    ("baton_hook_runs_total", "counter", &["hook", "outcome"]),
];

const STATES: [&str; 6] = ["Startup", "Syncing", "Registering", "Voting", "Validating", "Shutdown"];

fn snapshot<'a>(state: &'a str, links: &'a str) -> Snapshot<'a> {
    Snapshot {
        state,
        epoch: 7,
        term: 12,
        is_leader: true,
        is_holder: true,
        holder_seen: true,
        lease_remaining: Duration::from_millis(750),
        lease_max: Duration::from_millis(849),
        timing_mismatches: 2,
        guard_armed: true,
        links,
        node: Some(NodeSeen { height: 4_000_000_000, synced: true, peers: 31 }),
        cluster_height: Some(4_000_000_002),
        standbys_ready: 2,
        paused: true,
        maintenance: true,
        insecure: true,
        certificate_until: Some(WallTime::from_nanos(1_800_000_000_500_000_000)),
        connections_refused: 5,
        node_restarts: 1,
        fences: 1,
        voters: 3,
        learners: 1,
        state_dir: Some(DiskSpace { free: 5_000_000_000, size: 20_000_000_000 }),
        planned: Some(PlannedUpgrade { name: "v2", height: Some(4_100_000_000) }),
        binaries: Some(BinariesSeen { missing: true, failed: true }),
        foreign_node: Some(true),
        key_elsewhere: true,
        signed: Some(Hrs::new(1_200, 0, 3)),
    }
}

fn peer(id: &str, up: bool, rtt_ms: Option<u64>) -> PeerSeen {
    let clock_offset = rtt_ms.map(|_| -0.0125);
    PeerSeen { id: NodeId::from(id), up, rtt: rtt_ms.map(Duration::from_millis), clock_offset }
}

/// Metrics in which everything has happened once.
fn lively() -> Metrics {
    let metrics = Metrics::new(BootTime::now());
    metrics.publish(&snapshot("Validating", "validating"));
    metrics.publish_peers(&[peer("host-b", true, Some(3)), peer("host-c", false, None)]);
    metrics.moved("failover", "lease-lost", Some(Duration::from_millis(900)));
    metrics.moved("first", "operator", None);
    metrics.disk_hangs("chain.home", true);
    metrics.disk_hangs("member.state_dir", false);
    metrics.sees_signing(std::iter::once("tcp://s:1".to_owned()));
    metrics.sees_sentry("tcp://10.0.0.5:26659", Some(true));
    let took = SignTook { commit: Duration::from_millis(3), sign: Duration::from_millis(1) };
    metrics.sign_ended(None, SignOutcome::Granted, Some(took));
    metrics.sees_hooks(std::iter::once(HookEvent::Holder));
    metrics.hook_ended(HookEvent::Holder, HookOutcome::TimedOut);
    metrics
}

/// Series with its labels → value.
fn samples(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' ')).collect()
}

fn value(metrics: &Metrics, series: &str) -> f64 {
    let text = metrics.encode();
    let found = samples(&text).get(series).unwrap_or_else(|| panic!("no {series} in\n{text}")).parse();
    found.expect("a number")
}

/// The label values of `name` that are at 1; all of its others are at 0.
fn ones(text: &str, name: &str) -> Vec<String> {
    let of_name = samples(text).into_iter().filter(|(series, _)| series.starts_with(&format!("{name}{{")));
    let mut ones = Vec::new();
    for (series, value) in of_name {
        match value {
            "1" => ones.push(series.split('"').nth(1).expect("a quoted label").to_owned()),
            "0" => {}
            other => panic!("{series} is {other}"),
        }
    }
    ones
}

#[test]
fn every_metric_of_the_contract_is_there_and_no_other() {
    let text = lively().encode();
    let types: BTreeSet<(&str, &str)> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    assert_eq!(types, CONTRACT.iter().map(|(name, kind, _)| (*name, *kind)).collect(), "\n{text}");
    for (name, kind, labels) in CONTRACT {
        let first = if kind == "histogram" { format!("{name}_sum") } else { name.to_owned() };
        let series: Vec<&str> =
            samples(&text).into_keys().filter(|series| series.split('{').next() == Some(first.as_str())).collect();
        assert!(!series.is_empty(), "{name} has no series in\n{text}");
        for series in series {
            let inside = series.split_once('{').map_or("", |(_, rest)| rest.trim_end_matches('}'));
            let found: Vec<&str> = inside.split(',').filter_map(|pair| Some(pair.split_once('=')?.0)).collect();
            assert_eq!(found, labels, "{series}");
        }
    }
}

#[test]
fn every_help_text_names_the_unit() {
    let text = lively().encode();
    for (name, kind, _) in CONTRACT {
        let help = text.lines().find_map(|line| line.strip_prefix("# HELP ")?.strip_prefix(name)?.strip_prefix(' '));
        let help = help.unwrap_or_else(|| panic!("{name} has no help in\n{text}"));
        let units: &[&str] = match kind {
            "counter" => &["count since start"],
            _ if name.ends_with("_timestamp_seconds") => &["seconds since 1970"],
            _ if name.ends_with("_seconds") => &["seconds"],
            _ if name.ends_with("_bytes") => &["bytes"],
            _ if name.ends_with("_info") => &["always 1"],
            _ => &["1 or 0", "else 0", "count", "blocks", "a number that only grows"],
        };
        assert!(units.iter().any(|unit| help.ends_with(unit)), "{name}: {help}");
    }
}

#[test]
fn exactly_one_state_of_six_and_one_of_three_is_1_at_every_moment() {
    let metrics = Metrics::new(BootTime::now());
    assert_eq!(ones(&metrics.encode(), "baton_state"), ["Startup"]);
    assert_eq!(ones(&metrics.encode(), "baton_links"), ["standby"]);
    for state in STATES {
        for links in ["standby", "validating", "broken"] {
            metrics.publish(&snapshot(state, links));
            let text = metrics.encode();
            assert_eq!(
                (ones(&text, "baton_state"), ones(&text, "baton_links")),
                (vec![state.into()], vec![links.into()])
            );
            assert_eq!(text.matches("\nbaton_state{").count(), 6, "{text}");
            assert_eq!(text.matches("\nbaton_links{").count(), 3, "{text}");
        }
    }
}

#[test]
fn a_reader_never_sees_two_states_while_the_writer_changes_them() {
    let metrics = Metrics::new(BootTime::now());
    let writer = metrics.clone();
    std::thread::scope(|scope| {
        let written = scope.spawn(move || {
            for round in 0..20_000 {
                writer.publish(&snapshot(STATES[round % STATES.len()], "standby"));
            }
        });
        while !written.is_finished() {
            let text = metrics.encode();
            assert_eq!(ones(&text, "baton_state").len(), 1, "{text}");
        }
    });
}

#[test]
fn numbers_are_shown_in_their_units() {
    let metrics = lively();
    for (series, expected) in [
        ("baton_epoch", 7.0),
        ("baton_raft_term", 12.0),
        ("baton_is_leader", 1.0),
        ("baton_is_holder", 1.0),
        ("baton_holder_seen", 1.0),
        ("baton_lease_remaining_seconds", 0.75),
        ("baton_lease_max_seconds", 0.849),
        ("baton_timing_mismatches", 2.0),
        ("baton_guard_armed", 1.0),
        ("baton_node_height", 4e9),
        ("baton_node_synced", 1.0),
        ("baton_node_peers", 31.0),
        ("baton_cluster_height", 4_000_000_002.0),
        ("baton_standbys_ready", 2.0),
        ("baton_paused", 1.0),
        ("baton_maintenance", 1.0),
        ("baton_key_in_use_elsewhere", 1.0),
        ("baton_insecure", 1.0),
        ("baton_disk_hung{dir=\"chain.home\"}", 1.0),
        ("baton_disk_hung{dir=\"member.state_dir\"}", 0.0),
        ("baton_certificate_expiry_timestamp_seconds", 1_800_000_000.0),
        ("baton_connections_refused_total", 5.0),
        ("baton_voters", 3.0),
        ("baton_learners", 1.0),
        ("baton_state_dir_free_bytes", 5e9),
        ("baton_state_dir_size_bytes", 2e10),
        ("baton_upgrade_planned{height=\"4100000000\",name=\"v2\"}", 1.0),
        ("baton_upgrade_binary_missing", 1.0),
        ("baton_upgrade_failed", 1.0),
        ("baton_node_restarts_total", 1.0),
        ("baton_foreign_node", 1.0),
        ("baton_fence_total{cause=\"deadline\"}", 1.0),
        ("baton_moves_total{kind=\"failover\",reason=\"lease-lost\"}", 1.0),
        ("baton_peer_up{peer=\"host-b\"}", 1.0),
        ("baton_peer_up{peer=\"host-c\"}", 0.0),
        ("baton_peer_rtt_seconds{peer=\"host-b\"}", 0.003),
        ("baton_peer_clock_offset_seconds{peer=\"host-b\"}", -0.0125),
    ] {
        assert_eq!(value(&metrics, series), expected, "{series}");
    }
}

#[test]
fn the_gap_histogram_reaches_from_50_ms_to_60_s_and_counts_known_gaps_only() {
    let metrics = lively();
    let text = metrics.encode();
    let bounds: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("baton_move_gap_seconds_bucket{le=\"")?.split('"').next())
        .collect();
    assert_eq!((bounds.first(), bounds.last()), (Some(&"0.05"), Some(&"+Inf")), "{bounds:?}");
    assert_eq!(bounds[bounds.len() - 2], "60", "{bounds:?}");
    assert_eq!(value(&metrics, "baton_move_gap_seconds_count"), 1.0);
    assert_eq!(value(&metrics, "baton_move_gap_seconds_sum"), 0.9);
}

#[test]
fn what_is_not_there_is_not_shown_as_a_number_that_an_alert_would_take_for_one() {
    let metrics = lively();
    let without = Snapshot {
        certificate_until: None,
        node: None,
        cluster_height: None,
        state_dir: None,
        planned: None,
        binaries: None,
        foreign_node: None,
        ..snapshot("Voting", "standby")
    };
    metrics.publish(&without);
    let text = metrics.encode();
    let absent = [
        "certificate_",
        "node_height",
        "node_synced",
        "node_peers",
        "cluster_height",
        "state_dir_",
        "upgrade_",
        "foreign_",
    ];
    for prefix in absent {
        assert!(!text.contains(&format!("\nbaton_{prefix}")), "{prefix}: {text}");
    }
    metrics.publish(&snapshot("Voting", "standby"));
    assert_eq!(value(&metrics, "baton_node_peers"), 31.0, "it is shown again");
}

#[test]
fn uptime_counts_from_the_start_on_the_boot_clock() {
    let metrics = Metrics::new(BootTime::now() - Duration::from_secs(1));
    let uptime = value(&metrics, "baton_uptime_seconds");
    assert!((1.0..60.0).contains(&uptime), "{uptime}");
    assert!(value(&metrics, "baton_uptime_seconds") > uptime, "it stands still at {uptime}");
}

#[test]
fn a_peer_that_left_and_measures_of_a_lost_one_are_no_longer_shown() {
    let metrics = lively();
    metrics.publish_peers(&[peer("host-b", false, None)]);
    let text = metrics.encode();
    assert!(text.contains("baton_peer_up{peer=\"host-b\"} 0\n"), "{text}");
    assert!(!text.contains("host-c") && !text.contains("baton_peer_rtt_seconds{"), "{text}");
    assert!(!text.contains("baton_peer_clock_offset_seconds{"), "{text}");
}

#[test]
fn a_fence_is_shown_as_zero_before_the_first() {
    let metrics = Metrics::new(BootTime::now());
    assert_eq!(value(&metrics, "baton_fence_total{cause=\"deadline\"}"), 0.0);
}

#[test]
fn every_outcome_of_a_hook_that_is_configured_has_a_number_from_the_start() {
    let metrics = Metrics::new(BootTime::now());
    metrics.sees_hooks(HookEvent::ALL.into_iter());
    metrics.hook_ended(HookEvent::Fenced, HookOutcome::Failed);
    let text = metrics.encode();
    for hook in HookEvent::ALL {
        for outcome in HookOutcome::ALL {
            let series =
                format!("baton_hook_runs_total{{hook=\"{}\",outcome=\"{}\"}}", hook.as_str(), outcome.as_str());
            let wanted = if (hook, outcome) == (HookEvent::Fenced, HookOutcome::Failed) { "1" } else { "0" };
            assert_eq!(samples(&text).get(series.as_str()), Some(&wanted), "{series}");
        }
    }
}
