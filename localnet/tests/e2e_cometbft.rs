//! baton with a real chain: CometBFT, three validators alone and a fourth shared by two hosts. Needs the
//! `cometbft` program; without it the test says SKIPPED, or fails where BATON_REQUIRE_COMETBFT is set.

mod common;

use std::os::unix::fs::symlink;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Ground, TestNet};
use localnet::chain_cometbft;
use localnet::demo::{Pair, hand_over};
use localnet::faults::{self, What};
use localnet::http;
use localnet::launch;
use localnet::measure::Watch;
use localnet::net::ChainKind;
use localnet::procs::MARKER;
use serde_json::Value;

/// A start of the node as validator is part of the move.
const MOVE_BOUND: Duration = Duration::from_secs(40);

/// Whether the chain's program is there; says so when it is not.
fn cometbft_is_here() -> bool {
    let Err(missing) = chain_cometbft::find() else { return true };
    assert!(std::env::var_os("BATON_REQUIRE_COMETBFT").is_none(), "{missing:#}");
    println!("SKIPPED: {missing:#}");
    false
}

/// A chain node without baton, which ends with the test.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_host_with_its_throwaway_key_follows_the_chain_through_the_wires() {
    if !cometbft_is_here() {
        return;
    }
    let ground = Ground::new();
    let net = launch::prepare(&ground.dir, ChainKind::Cometbft, 50).unwrap();
    launch::start_wires(&net).unwrap();
    launch::start_validators(&net).unwrap();
    let host = net.host("host-b").unwrap();
    let home = net.chain_home(&host.id);
    let config = home.join("config");
    symlink(config.join("standby_priv_validator_key.json"), config.join("priv_validator_key.json")).unwrap();
    let mut command = chain_cometbft::node_command(&net, &home);
    // Marked, so that it ends with the network even when the test is killed.
    command.env(MARKER, &net.dir).stdout(Stdio::null()).stderr(Stdio::null());
    let _node = Node(command.spawn().unwrap());
    let start = Instant::now();
    loop {
        let status = http::get_json(host.rpc_port, "/status");
        let synced = |s: &Value| s["result"]["sync_info"]["catching_up"] == false;
        let high = |s: &Value| s["result"]["sync_info"]["latest_block_height"] != "0";
        if status.as_ref().is_ok_and(|s| synced(s) && high(s)) {
            return;
        }
        assert!(start.elapsed() < MOVE_BOUND, "host-b does not follow the chain: {status:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_shared_validator_moves_by_handover_and_by_host_loss_without_evidence_on_chain() {
    if !cometbft_is_here() {
        return;
    }
    let t = TestNet::up(&["--chain", "cometbft"]);
    let first = t.pair();
    t.or_logs(hand_over(&t.net, &first));
    let second = t.pair();
    assert_eq!(second, Pair { holder: first.standby, standby: first.holder });

    let mut watch = t.or_logs(Watch::begin(&t.net));
    let targets = faults::find(&t.net, &second.holder, What::Host).unwrap();
    let killed_at = watch.now_ns();
    faults::kill_host(&t.net, &second.holder, &targets).unwrap();
    t.or_logs(watch.await_next(killed_at, &second.holder, MOVE_BOUND));
    launch::start_coordinator(&t.net, &second.holder).unwrap();
    assert_eq!(t.pair(), Pair { holder: second.standby, standby: second.holder });
    t.assert_nothing_signed_twice();
}
