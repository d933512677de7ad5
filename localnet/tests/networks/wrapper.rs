//! A start script that does not end in `exec`: the chain node is its child, and nobody's once the script is dead.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::common::TestNet;
use localnet::hosts::faults::{self, What};
use localnet::judge::measure::Watch;

const MOVE_BOUND: Duration = Duration::from_secs(30);
/// Signatures of the new holder beside which the old one's would be seen.
const SIDE_BY_SIDE: usize = 40;

/// It hands on the signals that it gets, as careful ones do.
const SCRIPT: &str = "#!/bin/sh\n\"$@\" &\nnode=$!\ntrap 'kill -HUP $node' HUP\ntrap 'kill -TERM $node' TERM\n\
                      while kill -0 $node 2>/dev/null; do wait $node; done\n";

#[test]
fn a_node_below_a_script_signs_nothing_after_coordinator_and_guard_are_killed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("start");
    fs::write(&script, SCRIPT).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let t = TestNet::up_with(|config| config.replace("\ncommand = [", &format!("\ncommand = [{script:?}, ")));
    let pair = t.pair();
    let nodes = faults::find(&t.net, &pair.holder, What::Node).unwrap();
    assert!(nodes.len() >= 2, "a script and the node below it: {nodes:?}");
    let mut targets = faults::find(&t.net, &pair.holder, What::Coordinator).unwrap();
    targets.extend(faults::find(&t.net, &pair.holder, What::Guard).unwrap());
    let mut watch = t.or_logs(Watch::begin(&t.net));
    let struck_at = watch.now_ns();
    faults::kill(&targets).unwrap();
    let next = t.or_logs(watch.await_next(struck_at, &pair.holder, MOVE_BOUND));
    assert_eq!(next.host, pair.standby, "{next:?}");
    println!("nobody signed for {:?}", watch.pause_before(&pair.holder, &next));
    t.or_logs(watch.await_more_by(&pair.standby, SIDE_BY_SIDE, MOVE_BOUND));
    let left = faults::of_host(&t.net, &pair.holder, What::Node);
    assert!(left.is_empty(), "{left:?}");
    t.assert_nothing_signed_twice();
}
