//! A dead host is replaced while the holder signs on: the walk-through of docs/operating.md, on whole hosts. The
//! signature log is the judge of both: that nothing was signed twice, and that the holder did not pause for it.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::{TestNet, said};
use baton::base::time::BootTime;
use localnet::hosts;
use localnet::judge::signlog::{self, Signature};
use localnet::judge::status::{Status, await_status, query, query_host};
use localnet::net::write_file;
use localnet::process::launch;
use localnet::runs::demo::Pair;

const ARBITER: &str = "host-c";
const NEW: &str = "host-d";
/// For a coordinator to be heard of, and for a chain node to sync.
const BOUND: Duration = Duration::from_secs(60);
/// Longer than every lease, promise and campaign.
const LONG_ENOUGH: Duration = Duration::from_secs(15);

/// Leases that no load of the machine ends: here a change of the membership alone may move the baton, and must not.
fn very_long_leases(config: String) -> String {
    config.replace("profile = \"lan\"", "heartbeat = \"500ms\"\nlease = \"8s\"\nkill_max = \"500ms\"")
}

/// Between two signatures of `host`.
fn longest_pause(log: &[Signature], host: &str) -> Duration {
    let mut times: Vec<u64> =
        log.iter().filter(|signed| signed.host == host).map(|signed| signed.at.as_nanos()).collect();
    times.sort_unstable();
    let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
    Duration::from_nanos(pauses.max().unwrap_or_else(|| panic!("{host} signed {} times", times.len())))
}

#[test]
fn a_dead_host_is_replaced_while_the_holder_signs_on() {
    let mut t = TestNet::up_with(very_long_leases);
    let Pair { holder, standby: dead } = t.pair();
    t.kill_host(&dead);
    let before = t.or_logs(query(&t.net));
    let began = BootTime::now().as_nanos();

    hosts::add_joiner(&mut t.net, NEW).unwrap();
    let config = t.net.config_file(NEW);
    write_file(&config, &very_long_leases(fs::read_to_string(&config).unwrap())).unwrap();
    let addr = t.net.host(NEW).unwrap().raft().to_string();
    let absent = said(&t, ARBITER, &["member", "add", NEW, "--addr", &addr], 1);
    assert!(absent.contains("start baton there first, with member.join = true"), "{absent}");
    t.or_logs(launch::start_coordinator(&t.net, NEW));
    t.await_log(NEW, "coordinator runs", 1, BOUND);

    let foreseen = said(&t, ARBITER, &["member", "add", NEW, "--addr", &addr, "--dry-run"], 0);
    assert!(foreseen.contains(&format!("add {NEW} (validator, priority 50, {addr}) as a learner")), "{foreseen}");
    let added = said(&t, ARBITER, &["member", "add", NEW, "--addr", &addr], 0);
    assert!(added.starts_with(&format!("{NEW} is a learner")), "{added}");
    let learner = said(&t, &holder, &["status"], 0);
    assert!(learner.contains("a learner: it has no vote"), "{learner}");
    let promoted = said(&t, ARBITER, &["member", "promote", NEW], 0);
    assert!(promoted.starts_with(&format!("{NEW} is a voter")), "{promoted}");

    let refused = said(&t, ARBITER, &["member", "remove", &holder], 1);
    assert!(refused.contains(&format!("{holder} holds the baton; move it away first: baton handover")), "{refused}");
    let foreseen = said(&t, NEW, &["member", "remove", &dead, "--dry-run"], 0);
    assert!(foreseen.contains("1 of them may fail; the loss of a second one stops signing"), "{foreseen}");
    assert_eq!(said(&t, NEW, &["member", "remove", &dead], 0), format!("{dead} is no member any more"));
    let ready = |status: &Status| status.is_ready_standby(NEW);
    t.or_logs(await_status(&t.net, "the new host is a ready standby", BOUND, |_| (), ready));
    let after = t.or_logs(query(&t.net));
    let history = said(&t, &holder, &["history"], 0);
    let log = fs::read_to_string(t.net.host_dir(&holder).join("coordinator.log")).unwrap();
    let unmoved = (before.epoch, before.term, &before.holder);
    assert_eq!((after.epoch, after.term, &after.holder), unmoved, "{history}\n{log}");

    // The dead host comes back with its old store, and once more with an empty one.
    t.or_logs(launch::start_coordinator(&t.net, &dead));
    let until = Instant::now() + LONG_ENOUGH;
    let mut looks = 0;
    while Instant::now() < until || looks < 10 {
        // A busy machine may be too slow for one answer.
        let Ok(status) = query_host(&t.net, &holder) else { continue };
        looks += 1;
        assert!(status.members.iter().all(|member| member.id != dead), "{status:#?}");
        assert_eq!((status.term, status.epoch), (before.term, before.epoch), "{status:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    t.await_log(&dead, "is not a member of this cluster", 1, BOUND);
    t.kill_host(&dead);
    let state = t.net.host_dir(&dead).join("state");
    fs::remove_dir_all(&state).unwrap();
    hosts::make_dir(&state).unwrap();
    t.or_logs(launch::start_coordinator(&t.net, &dead));
    t.await_log(&dead, "says that the cluster exists: this empty store does not form it once more", 1, BOUND);
    t.await_log(&dead, "coordinator runs", 3, BOUND);
    let addr = t.net.host(&dead).unwrap().raft().to_string();
    let refused = said(&t, &holder, &["member", "add", &dead, "--addr", &addr], 1);
    assert!(refused.contains("set member.join = true in its configuration"), "{refused}");

    let log: Vec<Signature> = t
        .or_logs(signlog::read(&t.net.sign_log()).map_err(Into::into))
        .into_iter()
        .filter(|signed| signed.at.as_nanos() > began)
        .collect();
    let shared = |signed: &&Signature| signed.key == t.net.shared_key;
    assert!(log.iter().filter(shared).all(|signed| signed.host == holder), "somebody else signed");
    // A busy machine lets every validator pause now and then; the holder has no reason of its own to.
    let (own, others) = (longest_pause(&log, &holder), t.net.validators.iter().map(|v| longest_pause(&log, &v.id)));
    let noise = others.max().expect("three genesis validators");
    assert!(own < noise + Duration::from_secs(1), "the holder paused for {own:?}, no other longer than {noise:?}");

    // The new host is worth what the old one was.
    let moved = said(&t, ARBITER, &["handover", "--to", NEW], 0);
    assert!(moved.starts_with(&format!("{holder} -> {NEW} under epoch ")), "{moved}");
    t.assert_nothing_signed_twice();
}
