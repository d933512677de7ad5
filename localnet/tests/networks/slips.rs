//! What an operator does wrong by hand at one host, one slip after the other on one network: each is named in a
//! sentence of baton's, nothing of it outlives its undoing, and but for a node that somebody else runs nobody signs
//! twice.

use crate::common::TestNet;
use clap::ValueEnum;
use localnet::runs::slip::Slip;

fn flag(slip: Slip) -> String {
    slip.to_possible_value().unwrap().get_name().to_string()
}

/// Every slip but the one of somebody else's node, which signs whatever baton does.
fn assert_named_and_harmless(t: &TestNet) {
    let mut failures = Vec::new();
    for slip in Slip::ALL.into_iter().filter(|slip| *slip != Slip::ForeignNode) {
        let made = t.ground.run(&["slip", &flag(slip)]);
        if !made.status.success() {
            let (out, err) = (String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
            failures.push(format!("--- {slip:?}: {}\n{out}{err}", made.status));
        }
        t.pair();
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    t.assert_nothing_signed_twice();
}

#[test]
fn every_slip_of_an_operator_is_named_by_a_sentence_undone_and_signs_nothing_twice() {
    assert_named_and_harmless(&TestNet::up(&[]));
}

#[test]
#[ignore = "needs cometbft; see docs/localnet.md"]
fn every_slip_is_named_and_harmless_on_cometbft_too() {
    assert_named_and_harmless(&TestNet::up(&["--chain", "cometbft"]));
}

/// Its end is enough: whose child it was is for somebody else to bury.
fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn a_node_that_is_not_batons_is_named_with_its_pid_and_a_slip_that_is_kept_is_undone_by_hand() {
    let t = TestNet::up(&[]);
    let standby = t.pair().standby;
    let made = t.ground.succeed(&["slip", "foreign-node", &standby, "--keep"]);
    let pid = made.split("pid ").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    let named = made.lines().find(|line| line.starts_with("baton ")).unwrap_or_else(|| panic!("{made}"));
    assert!(named.contains(pid), "{made}");
    let second = t.ground.run(&["slip", "timings", &standby]);
    assert_eq!(second.status.code(), Some(2), "{second:?}");
    let undone = t.ground.succeed(&["slip", "--undo", &standby]);
    assert_eq!(undone, format!("{standby}: foreign-node is undone\n"));
    assert!(!is_running(pid), "{pid} runs on");
    t.pair();
    let none = t.ground.run(&["slip", "--undo", &standby]);
    assert_eq!(none.status.code(), Some(2), "{none:?}");
}
