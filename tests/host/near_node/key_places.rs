//! What an operator changes while the cluster runs, so that the links decide nothing any more: the standby does not
//! run, and the host says why.

use std::fs;
use std::path::Path;

use baton::core::Stage;

use super::*;
use crate::kit::program::write_program;

/// Why this host could not take the baton now; empty when it could.
fn why(host: &host_kit::Host) -> String {
    host.core.read(|core, now| core.not_ready(now.boot)).map_or_else(String::new, |reason| reason.to_string())
}

const STANDBY: &str = "standby.json";

/// With another key for the standby, as the one of a validator that has left.
async fn with_standby_key() -> Host {
    let mut host = Host::with(HOT, |chain| {
        let standby = chain.links[0].validating.with_file_name(STANDBY);
        host_kit::write_key(
            &standby,
            r#"{"account_id": "gone", "public_key": "ed25519:G", "secret_key": "ed25519:H"}"#,
        );
        host_kit::write_key(&chain.links[0].validating, SHARED);
        chain.links[0].standby = Some(standby);
    })
    .await;
    host.obey(false);
    host.event(0, "start key=gone").await;
    host
}

const SHARED: &str = r#"{"account_id": "node3", "public_key": "ed25519:P", "secret_key": "ed25519:S"}"#;
/// The same key, as somebody's editor has written it.
const COPY: &str =
    "{\n\t\"secret_key\": \"ed25519:S\",\n\t\"public_key\": \"ed25519:P\",\n\t\"account_id\": \"node3\"\n}\n";

#[tokio::test]
async fn a_copy_of_the_key_that_comes_while_the_node_runs_is_named_and_starts_no_standby_until_it_is_gone() {
    let host = with_standby_key().await;
    host.until("ready", |host| why(host).is_empty()).await;
    fs::write(host.path(STANDBY), COPY).expect("a copy");
    host.until("told", |host| why(host).contains("once more")).await;
    let reason = why(&host);
    let (standby, shared) = (host.path(STANDBY), host.path("shared.json"));
    let link = host.home("validator_key.json");
    let (standby, link, shared) = (standby.display(), link.display(), shared.display());
    let expected = format!("target {standby} of link {link} is the validator key {shared} once more: every standby");
    assert!(reason.contains(&expected), "{reason} instead of {expected}");

    let before = host.events().len();
    kill(&host);
    host.until("down", |host| host.effects.node_pid().is_none()).await;
    host.until("refused", |host| host.core.read(|core, _| core.host().crashes() >= 2)).await;
    assert_eq!(host.event_after(before, " start "), None, "{:?}", host.events());
    assert_eq!(why(&host), reason);

    fs::write(host.path(STANDBY), r#"{"account_id": "gone", "public_key": "ed25519:G"}"#).expect("another key");
    host.event(before, "start key=gone").await;
    host.until("ready again", |host| !why(host).contains("once more")).await;
}

#[tokio::test]
async fn a_copy_of_the_key_takes_nothing_from_the_holder() {
    let mut host = Host::with(HOT, |chain| {
        let standby = chain.links[0].validating.with_file_name(STANDBY);
        host_kit::write_key(&standby, r#"{"account_id": "gone"}"#);
        host_kit::write_key(&chain.links[0].validating, SHARED);
        chain.links[0].standby = Some(standby);
    })
    .await;
    host.obey(true);
    host.until("active", |host| host.stage() == Some(Stage::Active)).await;
    fs::write(host.path(STANDBY), COPY).expect("a copy");
    host.until("told", |host| why(host).contains("once more")).await;
    assert_eq!(host.stage(), Some(Stage::Active), "it is the one that signs");
    let before = host.events().len();
    host.hand_over();
    host.event(before, "raft Release").await;
    host.until("down", |host| host.effects.node_pid().is_none()).await;
    assert_eq!(host.event_after(before, " start "), None, "{:?}", host.events());
}

fn kill(host: &Host) {
    let pid = host.effects.node_pid().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a node"), rustix::process::Signal::KILL).expect("it runs");
}

/// A start script that comes to a node with this home, beside the one that answers probes.
fn wrapper(home: &Path, file: &Path) {
    let node = "while :; do sleep 0.05; done";
    let text = format!("#!/bin/sh\n\"$@\" &\nhome={}\nsh -c '{node}' neard --home \"$home\" run\n", home.display());
    write_program(file, &text);
}

#[tokio::test]
async fn a_script_that_comes_to_a_node_with_another_home_is_found_and_ended_and_not_started_again() {
    let other = tempfile::tempdir().expect("a directory");
    let mut host = Host::with(HOT, |chain| {
        let script = chain.home.with_file_name("start.sh");
        wrapper(other.path(), &script);
        // Another thread may have the script open for writing in a child that it is about to start.
        chain.command.splice(0..0, ["sh".to_owned(), script.display().to_string()]);
    })
    .await;
    host.obey(false);
    host.until("found", |host| why(host).contains("--home")).await;
    let reason = why(&host);
    let home = host.home("").canonicalize().expect("a home");
    let expected = format!("--home {} is not chain.home = {}", other.path().display(), home.display());
    assert!(reason.contains(&expected), "{reason} instead of {expected}");
    assert!(reason.contains("of the chain node") && reason.contains("restart baton"), "{reason}");
    host.until("ended", |host| host.effects.node_pid().is_none()).await;
    host.until("refused", |host| host.core.read(|core, _| core.host().crashes() >= 2)).await;
    assert_eq!(host.effects.node_pid(), None);
    assert_eq!(why(&host), reason);
}

#[tokio::test]
async fn a_holder_whose_node_starts_with_another_home_lets_go_and_starts_no_standby() {
    let other = tempfile::tempdir().expect("a directory");
    let mut host = Host::with(Activation::Restart, |chain| {
        let script = chain.home.with_file_name("start.sh");
        // As if somebody had edited it in between.
        let home = format!("$(if [ -e ran ]; then echo {}; else touch ran; pwd; fi)", other.path().display());
        wrapper(Path::new(&home), &script);
        chain.command.splice(0..0, ["sh".to_owned(), script.display().to_string()]);
    })
    .await;
    host.obey(true);
    let released = host.event(0, "raft Release").await;
    let claimed = host.event_after(0, "raft Claim").expect("it was ready before");
    assert!(claimed < released, "{:?}", host.events());
    host.until("down", |host| host.effects.node_pid().is_none()).await;
    assert!(why(&host).contains(&format!("--home {} is not chain.home", other.path().display())), "{}", why(&host));
    assert_eq!(host.effects.link_state(), LinkState::Standby);
    assert_eq!(host.event_after(released, " start "), None, "{:?}", host.events());
}

#[tokio::test]
async fn a_script_that_comes_to_a_node_with_the_configured_home_is_left_alone() {
    let mut host = Host::with(Activation::Restart, |chain| {
        let script = chain.home.with_file_name("start.sh");
        let by_another_path = chain.home.with_file_name("linked-home");
        std::os::unix::fs::symlink(&chain.home, &by_another_path).expect("a link");
        wrapper(&by_another_path, &script);
        chain.command.splice(0..0, ["sh".to_owned(), script.display().to_string()]);
        // What a process hands down and neither uses is no fault of its own.
        chain.env.insert("NEAR_HOME".into(), chain.home.display().to_string());
    })
    .await;
    host.obey(true);
    // The whole of a tenure's beginning, and some twenty looks at the processes.
    host.until("told of a chunk", |host| host.note().starts_with("first chunk on chain")).await;
    assert_eq!((host.stage(), why(&host)), (Some(Stage::Active), String::new()));
}

#[tokio::test]
async fn a_key_file_that_is_gone_is_named_and_the_standby_runs_on() {
    let host = with_standby_key().await;
    host.until("ready", |host| why(host).is_empty()).await;
    let (key, aside, pid) = (host.path("shared.json"), host.path("aside.json"), host.effects.node_pid());
    fs::rename(&key, &aside).expect("moved");
    host.until("told", |host| why(host).contains("does not exist")).await;
    assert!(why(&host).contains(&format!("key {} ", key.display())), "{}", why(&host));
    assert_eq!(host.effects.node_pid(), pid, "the standby needs no key of a validator");
    fs::rename(&aside, &key).expect("moved");
    host.until("ready again", |host| why(host).is_empty()).await;
}
