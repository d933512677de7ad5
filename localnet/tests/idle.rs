//! What a coordinator costs while nothing happens. Counts and no times, so that a busy machine changes little; of the
//! release build, which is what operators run:
//!
//!     cargo test --release -p localnet --test idle -- --ignored --nocapture

mod common;

use common::Ground;
use serde_json::Value;

/// A quarter above what docs/measurements.md has. The goal is 100 wake-ups: lower this as it comes near.
const RSS_MIB_MAX: f64 = 25.0;
const WAKEUPS_PER_S_MAX: f64 = 130.0;

#[test]
#[ignore = "needs the release build: cargo test --release -p localnet --test idle -- --ignored"]
fn a_coordinator_at_rest_is_small_and_seldom_awake() {
    if cfg!(debug_assertions) {
        panic!("the bounds are those of the release build: add --release");
    }
    let ground = Ground::new();
    let text = ground.succeed(&["idle", "--seconds", "20", "--json"]);
    let sizes: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let costs = sizes[0]["idle"].as_array().expect("costs");
    let coordinators: Vec<&Value> = costs.iter().filter(|cost| cost["program"] == "baton").collect();
    let parts: Vec<&str> = coordinators.iter().filter_map(|cost| cost["part"].as_str()).collect();
    assert_eq!(parts, ["arbiter", "holder", "standby"], "{text}");
    for cost in coordinators {
        let number = |key: &str| cost[key].as_f64().unwrap_or_else(|| panic!("no {key}: {cost}"));
        let (part, rss, wakeups) = (&cost["part"], number("rss_mib"), number("wakeups_per_s"));
        println!("{part}: {rss:.1} MiB, {wakeups:.1} wake-ups a second, {:.2} % of a core", number("cpu_percent"));
        assert!(wakeups > 1.0, "{part} did nothing at all: {cost:#}");
        assert!(rss <= RSS_MIB_MAX, "{part} takes {rss:.1} MiB, more than {RSS_MIB_MAX}");
        assert!(
            wakeups <= WAKEUPS_PER_S_MAX,
            "{part} wakes up {wakeups:.1} times a second, more than {WAKEUPS_PER_S_MAX}: {:#}",
            cost["threads"]
        );
    }
}
