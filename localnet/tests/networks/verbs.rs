//! The verbs by which a network of processes is looked at and removed; those of containers are in compose.rs.

use crate::common::{ACTIVE_BOUND, Ground, TestNet};
use localnet::net::{ChainKind, Shape};
use localnet::process::launch;

#[test]
fn a_command_runs_at_a_host_logs_are_told_apart_and_a_reset_removes_a_network_and_nothing_else() {
    let t = TestNet::up(&[]);
    let holder = t.pair().holder;
    let status = t.ground.succeeds_within(ACTIVE_BOUND, &["exec", "host-c", "--", "baton", "status"]);
    assert!(status.contains("seen by host-c") && status.contains(&format!("holder {holder}")), "{status}");
    let ended = t.ground.run(&["exec", "host-a", "--", "sh", "-c", "exit 7"]);
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");

    let logs = t.ground.succeed(&["logs", "--lines", "1000"]);
    let has = |prefix: &str| logs.lines().any(|line| line.starts_with(prefix));
    assert!(has("host-a coordinator | ") && has("host-b coordinator | ") && has("host-c coordinator | "), "{logs}");
    assert!(has(&format!("{holder} node        | ")) && !has("host-c node"), "{logs}");
    let of_one = t.ground.succeed(&["logs", "host-c"]);
    assert!(of_one.lines().all(|line| line.starts_with("host-c coordinator | ")), "{of_one}");

    t.ground.succeed(&["reset"]);
    assert!(!t.ground.dir.exists());
}

#[test]
fn a_reset_refuses_a_folder_that_holds_no_network_or_tells_of_another() {
    let ground = Ground::new();
    let foreign = ground.dir.join("notes.txt");
    std::fs::write(&foreign, "mine").unwrap();
    let refused = ground.run(&["reset"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let other = tempfile::tempdir().unwrap();
    let net = launch::prepare(other.path(), Shape::usual(ChainKind::Sim)).unwrap();
    std::fs::copy(net.dir.join("net.json"), ground.dir.join("net.json")).unwrap();
    let refused = ground.run(&["reset"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && said.contains("nothing was removed"), "{refused:?}");
    assert!(foreign.exists());
}
