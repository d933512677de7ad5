//! baton with a real chain: CometBFT, three validators alone and a fourth shared by two hosts. Needs the
//! `cometbft` program; without it the test says SKIPPED, or fails where BATON_REQUIRE_COMETBFT is set.

mod common;

use std::time::Duration;

use common::TestNet;
use localnet::chain_cometbft;
use localnet::demo::{Pair, hand_over};
use localnet::faults::{self, What};
use localnet::launch;
use localnet::measure::Watch;

/// A start of the node as validator is part of the move.
const MOVE_BOUND: Duration = Duration::from_secs(40);

#[test]
fn a_shared_validator_moves_by_handover_and_by_host_loss_without_evidence_on_chain() {
    if let Err(missing) = chain_cometbft::find() {
        assert!(std::env::var_os("BATON_REQUIRE_COMETBFT").is_none(), "{missing:#}");
        println!("SKIPPED: {missing:#}");
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
