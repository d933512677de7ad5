//! A chain node that ends right after its start, and one that runs and never answers: what is wrong stands in the log and
//! in `baton why`.

use std::process::Stdio;

use crate::kit::host::write_key;
use crate::kit::program::{ONE_MEMBER, Running, baton, coordinator_in, free_addresses};
use crate::kit::stage::Stage;

const CHAIN: &str = r#"
[chain]
driver = "generic"
home = "home"
command = ["sh", "-c", "for n in $(seq 12); do echo words $n; done; exit 3"]
log = "node.log"
[[chain.links]]
link = "key.json"
validating = "key.json"
[chain.activate]
how = "restart"
[chain.probe]
tcp = "127.0.0.1:9"
"#;

#[test]
fn a_node_that_ends_right_after_its_start_has_its_last_ten_lines_in_the_log_and_the_last_one_in_why() {
    let [peers] = free_addresses();
    let stage = Stage::new(&[ONE_MEMBER, CHAIN].concat().replace("PEERS", &peers));
    write_key(&stage.path("key.json"), "{}");
    let _run = Running(coordinator_in(&stage).spawn().expect("it starts"));
    stage.until("ended", || stage.log().contains("ended with exit code 3").then_some(()));
    let log = stage.log();
    let told: Vec<&str> =
        log.lines().filter_map(|line| line.split_once("the chain node's last lines: words ")).map(|(_, n)| n).collect();
    assert_eq!(told[..10], ["3", "4", "5", "6", "7", "8", "9", "10", "11", "12"], "{log}");
    await_why(&stage, &["exit code 3", "its last line: words 12"]);
}

#[test]
fn a_node_that_runs_and_is_asked_at_the_wrong_address_is_told_with_the_address() {
    let [peers] = free_addresses();
    let node = CHAIN.replace("for n in $(seq 12); do echo words $n; done; exit 3", "exec sleep 600");
    let stage = Stage::new(&[ONE_MEMBER, &node].concat().replace("PEERS", &peers));
    write_key(&stage.path("key.json"), "{}");
    let _run = Running(coordinator_in(&stage).spawn().expect("it starts"));
    await_why(&stage, &["the chain node has run for", "without a good answer: probe 127.0.0.1:9: "]);
}

fn await_why(stage: &Stage, words: &[&str]) {
    let mut said = String::new();
    stage.until(&format!("{words:?} said by why"), || {
        let mut why = baton(&["why", "--config", "baton.toml"]);
        let why = why.current_dir(&**stage).stdin(Stdio::null()).output().expect("it runs");
        said = String::from_utf8(why.stdout).expect("UTF-8").split_whitespace().collect::<Vec<_>>().join(" ");
        words.iter().all(|words| said.contains(words)).then_some(())
    });
}
