//! A host that could sign while another one would rather: a holder that is long at work on an upgrade loses the baton
//! to whoever has it behind them, at once or when an operator says so; and a preferred host that cannot be activated
//! gets the baton after growing pauses only.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::upgrades::{
    UPGRADE_BOUND, assert_sound, give_all, pair_runs, plan_on_chain, runs, tenure, until, up,
};
use crate::common::{TestNet, long_leases, said};
use localnet::chains::cosmovisor;
use localnet::judge::measure::Watch;
use localnet::judge::status::{POLL_EVERY, Status, await_status, not_ready};
use localnet::process::launch::{self, diagnosis};
use localnet::runs::demo::{Pair, ask_baton};
use localnet::simchain::pre_upgrade;
use serde_json::Value;

const ARBITER: &str = "host-c";
/// Slots until the chain halts.
const SOON: u64 = 30;
/// For two attempts and the pause between them.
const PATIENCE: Duration = Duration::from_secs(90);

/// The chain halts for `name`, and the upgrade of `host` does not end before the file that is returned says `0`.
fn halt_with_a_slow(t: &TestNet, host: &str, name: &str) -> PathBuf {
    give_all(t, name);
    let script = cosmovisor::pre_upgrade_script(&cosmovisor::place(&t.net, host, name));
    fs::write(&script, "wait").unwrap();
    plan_on_chain(t, name, SOON);
    let began = Instant::now();
    while !pre_upgrade::calls(&script).exists() {
        assert!(began.elapsed() < UPGRADE_BOUND, "the upgrade of {host} never begins\n{}", diagnosis(&t.net));
        std::thread::sleep(POLL_EVERY);
    }
    script
}

fn why(t: &TestNet, host: &str) -> String {
    let answer = t.or_logs(ask_baton(&t.net, host, &["why"]));
    format!("{}{}", answer.stdout, answer.stderr)
}

#[test]
fn a_holder_that_copies_data_for_long_loses_the_baton_to_the_host_that_is_done() {
    let t = up();
    let Pair { holder, standby } = t.pair();
    let script = halt_with_a_slow(&t, &holder, "test1");
    let mut watch = t.or_logs(Watch::begin(&t.net));
    let begun_ns = watch.now_ns();
    let next = t.or_logs(watch.await_next(begun_ns, &holder, PATIENCE));
    println!("{} signs {} ms after the upgrade of {holder} began", next.host, (next.at_ns - begun_ns) / 1_000_000);
    let last = t.active(&standby);
    assert_eq!((&last["from"], &last["reason"]), (&Value::from(holder.as_str()), &Value::from("upgrade")), "{last}");
    runs(&t, &standby, "test1");
    assert_eq!(fs::read_to_string(&script).unwrap(), "wait", "{holder} is still at it");
    fs::write(&script, "0").unwrap();
    assert_eq!(pair_runs(&t, "test1"), Pair { holder: standby, standby: holder });
    assert_sound(&t);
}

#[test]
fn an_operator_hands_the_baton_on_from_a_holder_that_copies_data_for_long() {
    let t = up();
    let Pair { holder, standby } = t.pair();
    // So that it goes nowhere by itself.
    said(&t, ARBITER, &["pause"], 0);
    let before = tenure(&t);
    let script = halt_with_a_slow(&t, &holder, "test1");
    runs(&t, &standby, "test1");
    assert_eq!(tenure(&t), before, "in a pause, the holder keeps the baton");
    // What the holder has heard of the standby may be of before its node ran again.
    let done = until(&t, &format!("{holder} hands on to {standby}"), || {
        let answer = ask_baton(&t.net, &holder, &["handover", "--to", &standby]).map_err(|e| format!("{e:#}"))?;
        if answer.code == Some(0) { Ok(answer.stdout) } else { Err(answer.stderr) }
    });
    assert!(done.starts_with(&format!("{holder} -> {standby} under epoch ")), "{done}");
    assert_eq!(fs::read_to_string(&script).unwrap(), "wait", "{holder} is still at it");
    said(&t, ARBITER, &["resume"], 0);
    fs::write(&script, "0").unwrap();
    assert_eq!(pair_runs(&t, "test1"), Pair { holder: standby, standby: holder });
    assert_sound(&t);
}

/// Hands on the signals that it gets. While there is a file `broken`, its chain node does not live with the key: it
/// ends when it is told to look for one, and does not start where one is.
fn start_script(dir: &Path, broken: &Path) -> PathBuf {
    let script = dir.join("start");
    let text = format!(
        "#!/bin/sh\n\
         for word; do [ \"$last\" = --home ] && home=$word; last=$word; done\n\
         is_broken() {{ [ -e {broken:?} ] && [ -e \"$home/validator_key.json\" ]; }}\n\
         is_broken && {{ echo 'no node here has the key' >&2; exit 3; }}\n\
         \"$@\" &\n\
         node=$!\n\
         trap 'if is_broken; then kill -KILL $node; else kill -HUP $node; fi' HUP\n\
         trap 'kill -TERM $node' TERM\n\
         while kill -0 $node 2>/dev/null; do wait $node; done\n"
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

/// Waits until `at` says of `host` that it is not ready because of this.
fn await_unready(t: &TestNet, at: &str, host: &str, because: &str) {
    let began = Instant::now();
    loop {
        let told = not_ready(&t.net, at, host);
        if matches!(&told, Ok(Some(reason)) if reason.starts_with(because)) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{at} says of {host}: {told:?}\n{}", diagnosis(&t.net));
        std::thread::sleep(POLL_EVERY);
    }
}

/// Who claimed the baton and why, oldest first, as `host` has it.
fn claims(t: &TestNet, host: &str) -> Vec<(String, String)> {
    let history: Value = serde_json::from_str(&said(t, host, &["history", "--json"], 0)).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    history["moves"].as_array().unwrap().iter().map(|row| (text(&row["to"]), text(&row["reason"]))).collect()
}

#[test]
fn a_preferred_host_that_cannot_be_activated_is_tried_after_growing_pauses() {
    let (preferred, other) = ("host-a", "host-b");
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken");
    let script = start_script(dir.path(), &broken);
    let t = TestNet::up_with(|config| {
        let config = long_leases(config).replace("name = \"localnet\"\n", "name = \"localnet\"\nfailback = true\n");
        assert!(config.contains("failback = true"), "{config}");
        match config.contains(&format!("[member]\nid = {preferred:?}")) {
            true => config.replace("\ncommand = [", &format!("\ncommand = [{script:?}, ")),
            false => config,
        }
    });
    let holds = |id: &'static str| move |status: &Status| status.active().is_some_and(|member| member.id == id);
    let await_holder = |id| t.or_logs(await_status(&t.net, &format!("{id} is Active"), PATIENCE, |_| (), holds(id)));
    await_holder(preferred);
    t.pair();
    t.kill_host(preferred);
    await_holder(other);
    fs::write(&broken, "").unwrap();
    launch::start_coordinator(&t.net, preferred).unwrap();
    assert_eq!(t.pair(), Pair { holder: other.into(), standby: preferred.into() });
    let before = claims(&t, other).len();

    // An operator is the first who tries, `failback` the second.
    let mut watch = t.or_logs(Watch::begin(&t.net));
    t.or_logs(watch.await_more_by(other, 1, PATIENCE));
    let refused = said(&t, other, &["handover", "--to", preferred], 1);
    assert!(refused.contains(&format!("{preferred} took the baton and did not become active")), "{refused}");
    await_unready(&t, other, preferred, "the chain node failed recently, ");
    await_unready(&t, other, preferred, "the chain node failed recently 2 times in a row, ");
    await_holder(other);
    let told = claims(&t, other).split_off(before);
    t.or_logs(watch.await_more_by(other, 1, PATIENCE));
    println!("{told:?}, the longest pause {:?}", watch.longest_pause());
    let back: Vec<&str> = told.iter().filter(|(to, _)| to == preferred).map(|(_, reason)| reason.as_str()).collect();
    assert_eq!((back, told.len()), (vec!["operator", "failback"], 4), "{told:?}");
    let words = why(&t, other);
    println!("{words}");
    assert!(words.contains("the chain node failed recently 2 times in a row"), "{words}");
    t.assert_nothing_signed_twice();
}
