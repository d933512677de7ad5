//! A holder whose chain node runs and does badly, one way after the other, on the stand-in chain: the baton
//! moves to the standby that does well, and the history says why. A node restarted as standby is honest again.

use crate::common::{TestNet, long_leases};
use localnet::judge::status::await_status;
use localnet::runs::demo::Pair;
use std::time::Duration;

/// Makes the holder's node do badly; the standby takes over for `reason`, and then both are well.
fn degrade(t: &TestNet, words: &str, reason: &str) {
    let pair = t.pair();
    t.pretend(&pair.holder, words);
    let moved = t.active(&pair.standby);
    assert_eq!((moved["kind"].as_str(), moved["reason"].as_str()), (Some("handover"), Some(reason)), "{moved}");
    assert_eq!(moved["floor_source"], "release", "{moved}");
    assert_eq!(t.pair(), Pair { holder: pair.standby, standby: pair.holder });
}

#[test]
fn a_head_that_stands_still_moves_the_baton() {
    let t = TestNet::up_with(long_leases);
    degrade(&t, "stuck", "head-stuck");
    t.assert_nothing_signed_twice();
}

#[test]
fn a_node_that_falls_out_of_sync_moves_the_baton() {
    let t = TestNet::up_with(long_leases);
    degrade(&t, "syncing", "out-of-sync");
    t.assert_nothing_signed_twice();
}

#[test]
fn a_probe_that_hangs_moves_the_baton() {
    let t = TestNet::up_with(long_leases);
    degrade(&t, "hangs", "probe-failed");
    t.assert_nothing_signed_twice();
}

/// The near driver is not told the number of peers: here the generic one reads the same answers.
fn min_peers(config: String) -> String {
    let pointers = "failures = 3\nmin_peers = 2\nsyncing = \"/sync_info/syncing\"\n\
                    height = \"/sync_info/latest_block_height\"\nhead_time = \"/sync_info/latest_block_time\"\n\
                    key = \"/validator_public_key\"\npeers = \"/num_active_peers\"\n";
    long_leases(config).replace("driver = \"near\"", "driver = \"generic\"").replace("failures = 3\n", pointers)
}

#[test]
fn a_lack_of_peers_moves_the_baton_and_not_to_a_standby_that_lacks_them_too() {
    let t = TestNet::up_with(min_peers);
    let pair = t.pair();
    t.pretend(&pair.standby, "lonely");
    let unready = |status: &localnet::judge::status::Status| !status.is_ready_standby(&pair.standby);
    let awaited = "the standby without peers is not ready";
    let before = t.or_logs(await_status(&t.net, awaited, Duration::from_secs(20), |_| (), unready));
    t.pretend(&pair.holder, "lonely");
    // Longer than a holder in that state stays when somebody is ready: nobody is.
    let looks_from = std::time::Instant::now();
    while looks_from.elapsed() < Duration::from_secs(12) {
        let now = t.or_logs(localnet::judge::status::query_host(&t.net, &pair.holder));
        assert_eq!((now.epoch, now.active().map(|m| &m.id)), (before.epoch, Some(&pair.holder)), "{}", now.summary());
        std::thread::sleep(localnet::judge::status::POLL_EVERY);
    }
    t.pretend(&pair.standby, "");
    let moved = t.active(&pair.standby);
    assert_eq!((moved["reason"].as_str(), moved["epoch"].as_u64()), (Some("few-peers"), Some(before.epoch + 1)));
    t.assert_nothing_signed_twice();
}
