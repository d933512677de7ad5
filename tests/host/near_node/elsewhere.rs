//! The key signs on the chain while nobody holds the baton: from the chain node's answers to what an operator and a
//! monitor are told, by the programs as they are installed.

use std::fs;
use std::ops::Deref;

use super::fake_neard;
use super::stage::CONFIG;
use crate::kit::host::write_key;
use crate::kit::program::{ONE_MEMBER, Running, baton, coordinator_in, free_addresses, metric};
use crate::kit::stage::Stage;

const CHAIN: &str = r#"
[timing]
profile = "wan"
[metrics]
listen = "METRICS"
[chain]
driver = "near"
home = "home"
command = ["ME", "--ignored", "--exact", "near_node::fake_neard_process", "--nocapture"]
env = { ADDR = "NODE", NEAR_HOME = "HOME" }
log = "node.log"
clock_skew = "10ms"
[[chain.links]]
link = "validator_key.json"
validating = "shared.json"
[chain.probe]
url = "http://NODE/status"
every = "50ms"
"#;

/// A cluster of one member, which nobody has ever held the baton of.
struct Founder {
    stage: Stage,
    metrics: String,
}

impl Deref for Founder {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl Founder {
    fn new() -> Founder {
        let [listen, node, metrics] = free_addresses();
        let me = std::env::current_exe().expect("this program");
        let stage = Stage::new(&[ONE_MEMBER, CHAIN].concat());
        let home = stage.path("home").canonicalize().expect("a path");
        for (name, value) in [("PEERS", &listen), ("PEERS", &listen), ("METRICS", &metrics), ("NODE", &node)] {
            stage.edit(name, value);
        }
        stage.edit("NODE", &node);
        stage.edit("ME\"", &format!("{}\"", me.display()));
        stage.edit("HOME\"", &format!("{}\"", home.display()));
        stage.edit("ADDR", fake_neard::ADDR);
        fs::write(stage.path("home/config.json"), CONFIG).expect("a config.json");
        write_key(&stage.path("shared.json"), r#"{"account_id": "node3", "public_key": "ed25519:x"}"#);
        Founder { stage, metrics }
    }

    fn run(&self) -> Running {
        Running(coordinator_in(self).spawn().expect("it starts"))
    }

    fn told(&self, verb: &str) -> String {
        let output = baton(&[verb, "--config", "baton.toml"]).current_dir(&*self.stage).output().expect("it runs");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// Of the gauge with this name; `None` while nothing answers.
    fn gauge(&self, name: &str) -> Option<u64> {
        metric(&self.metrics, name)
    }
}

/// As one line, however wide it was made.
fn unbroken(told: &str) -> String {
    told.split_whitespace().collect::<Vec<_>>().join(" ")
}

const ALARM: &str = "The validator's key is in use elsewhere, as a sees: the validator's key signed at height ";
const GAUGE: &str = "baton_key_in_use_elsewhere";

#[test]
fn a_key_that_makes_chunks_before_the_first_claim_is_told_by_status_why_and_a_metric_and_nobody_claims() {
    let host = Founder::new();
    fs::write(host.path("home/foreign"), "").expect("a flag");
    let running = host.run();
    host.until("told by the metric", || (host.gauge(GAUGE)? == 1).then_some(()));
    for verb in ["status", "why"] {
        let told = unbroken(&host.told(verb));
        assert!(told.contains(ALARM) && told.contains("while no host of the cluster held the baton"), "{verb}: {told}");
    }
    assert_eq!((host.gauge("baton_epoch"), host.gauge("baton_is_holder")), (Some(0), Some(0)), "{}", host.log());
    drop(running);
}

#[test]
fn where_the_key_makes_nothing_before_the_first_claim_there_is_no_alarm_and_the_baton_is_taken() {
    let host = Founder::new();
    let running = host.run();
    host.until("active", || (host.gauge("baton_is_holder")? == 1).then_some(()));
    assert_eq!(host.gauge(GAUGE), Some(0), "{}", host.log());
    let told = unbroken(&host.told("status"));
    assert!(!told.contains("in use elsewhere"), "{told}");
    drop(running);
}
