//! What is wrong in the files beside `baton.toml` and in the variables of a start: `baton check` says all that `baton
//! run` refuses or warns of, in the same words. And what `baton check` says beside a coordinator that runs.

use std::fs;
use std::process::{Command, Output, Stdio};

use crate::kit::host::write_key;
use crate::kit::program::{Running, TWO_MEMBERS, baton, coordinator_in, end_with_us, free_addresses};
use crate::kit::stage::Stage;

const CHAIN: &str = r#"
[chain]
driver = "generic"
home = "home"
command = ["sleep", "60"]
[[chain.links]]
link = "config/priv_validator_key.json"
validating = "key.json"
[chain.activate]
how = "restart"
[chain.probe]
tcp = "127.0.0.1:9"
"#;
const TLS: &str = "[tls]\nca = \"ca.pem\"\ncert = \"own.pem\"\nkey = \"own.key\"\n";
const UPGRADE: &str = "[upgrade]\nname = \"sleep\"\n";
const NO_JSON: &str = "chain.log is not set: what the chain node says stands between these lines, and is no JSON";

/// A host on which nothing is wrong.
fn host() -> Stage {
    let [peers] = free_addresses();
    let stage = Stage::new(&[TWO_MEMBERS, CHAIN].concat().replace("PEERS", &peers));
    fs::create_dir(stage.path("home/config")).expect("a directory");
    write_key(&stage.path("key.json"), "{}");
    stage
}

/// With `text` at the end of the configuration.
fn with(stage: &Stage, text: &str) {
    stage.edit("[chain]", &format!("{text}[chain]"));
}

fn drives_cometbft(stage: &Stage) {
    stage.edit("\"generic\"", "\"cometbft\"");
    stage.edit("[chain.activate]\nhow = \"restart\"\n", "");
    stage.edit("tcp = \"127.0.0.1:9\"", "url = \"http://127.0.0.1:9/status\"");
}

fn verb(stage: &Stage, verb: &str, variable: Option<(&str, &str)>) -> Command {
    let mut command = baton(&[verb, "--config", "baton.toml"]);
    command.current_dir(&**stage).stdin(Stdio::null()).envs(variable);
    end_with_us(&mut command);
    command
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_run_refuses_of_other_files_and_of_variables_check_refuses_in_the_same_words() {
    type Mistake = (fn(&Stage), Option<(&'static str, &'static str)>, &'static str);
    let mistakes: [Mistake; 9] = [
        (|stage| with(stage, TLS), None, "own.pem: No such file or directory"),
        (
            |stage| {
                with(stage, TLS);
                ["ca.pem", "own.pem", "own.key"].iter().for_each(|name| write_key(&stage.path(name), "no certificate"));
            },
            None,
            "own.pem holds no certificate in PEM form",
        ),
        (|stage| with(stage, UPGRADE), None, "home/cosmovisor is no directory; put the node's binary at"),
        (
            |stage| {
                with(stage, UPGRADE);
                fs::create_dir_all(stage.path("home/cosmovisor/genesis/bin")).expect("a directory");
            },
            None,
            "there is no binary at",
        ),
        (drives_cometbft, None, "home/config/config.toml: No such file or directory"),
        (
            |stage| {
                drives_cometbft(stage);
                fs::write(stage.path("home/config/config.toml"), "moniker = ").expect("written");
            },
            None,
            "home/config/config.toml: string values must be quoted",
        ),
        (
            |stage| {
                drives_cometbft(stage);
                fs::write(stage.path("home/config/config.toml"), "").expect("written");
            },
            None,
            "key.json: no `pub_key` with `type` and `value`",
        ),
        (|_| (), Some(("BATON_LOG", "a=b=c")), "BATON_LOG=\"a=b=c\": write a level"),
        (|_| (), Some(("BATON_LOG_FORMAT", "xml")), "BATON_LOG_FORMAT=\"xml\": write human or json"),
    ];
    for (make, variable, words) in mistakes {
        let stage = host();
        make(&stage);
        let [check, run] = ["check", "run"].map(|name| verb(&stage, name, variable).output().expect("it runs"));
        let (code, line) = said(&run);
        assert!(line.contains(words) && line.lines().count() == 1, "{words}: {line}");
        assert_eq!(said(&check), (code, line));
        assert_eq!(code, Some(2));
    }
}

#[test]
fn lines_of_the_node_between_lines_of_json_are_a_warning_of_check_and_of_run() {
    let stage = host();
    let json = Some(("BATON_LOG_FORMAT", "json"));
    let check = verb(&stage, "check", json).output().expect("it runs");
    let told = String::from_utf8_lossy(&check.stdout);
    assert!(told.contains(&format!("warning: {NO_JSON}\n")), "{told}{}", said(&check).1);
    let for_people = verb(&stage, "check", None).output().expect("it runs");
    assert!(!String::from_utf8_lossy(&for_people.stdout).contains(NO_JSON), "{for_people:?}");

    let _run = Running(coordinator_in(&stage).envs(json).spawn().expect("it starts"));
    for words in [NO_JSON, "guard attached"] {
        stage.until(&format!("said: {words:?}"), || stage.log().contains(words).then_some(()));
    }
}

#[test]
fn beside_a_running_coordinator_check_names_the_timing_that_differs_from_the_file() {
    let [peers] = free_addresses();
    let text = TWO_MEMBERS.replace("addr = \"PEERS\"", "addr = \"PEERS\", role = \"arbiter\"");
    let stage = Stage::new(&text.replace("PEERS", &peers));
    let _run = Running(coordinator_in(&stage).spawn().expect("it starts"));
    let check = || {
        let output = verb(&stage, "check", None).output().expect("it runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    // Before that, it would try the addresses that the coordinator is to have.
    let status = || verb(&stage, "status", None).output().expect("it runs").stdout;
    stage.until("answered", || (!status().is_empty()).then_some(()));
    assert!(!check().contains("another [timing]"), "{}", check());
    stage.edit("[cluster]", "[timing]\nprofile = \"wan\"\n[cluster]");
    let differs = "warning: host-a has another [timing] than this file (heartbeat 150ms, lease 1s";
    stage.until("named", || check().contains(differs).then_some(()));
}
