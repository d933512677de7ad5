//! Upgrades that fail: in each case nothing is signed twice, the data is whole, a line says what to do next, and the
//! cluster goes on once the operator has done it.

use std::fs;
use std::time::Instant;

use crate::common::upgrades::{
    assert_sound, await_plan, binary, give_all, leads_to, link, of_host, pair_runs, plan_on_chain, prepare, runs, show,
    tells, tenure, up, upgrade, version,
};
use crate::common::{Ground, TestNet};
use localnet::chains::cosmovisor;
use localnet::net::namespaces;
use localnet::process::launch;
use localnet::runs::demo::Pair;
use serde_json::Value;

const ARBITER: &str = "host-c";
/// Slots until the chain halts.
const SOON: u64 = 30;

/// Waits until the answer of `host` has all of these words in it.
#[track_caller]
fn tells_words(t: &TestNet, host: &str, words: &[&str]) {
    tells(t, host, &format!("{host} tells of {words:?}"), |told: &Value| {
        let text = told.to_string();
        words.iter().all(|word| text.contains(word)).then_some(())
    });
}

#[test]
#[ignore = "all of these take four minutes; see docs/localnet.md"]
fn a_binary_that_is_missing_on_the_standby_is_waited_for() {
    let t = up();
    let Pair { holder, standby } = t.pair();
    let before = tenure(&t);
    cosmovisor::give(&t.net, &holder, "test1").unwrap();
    plan_on_chain(&t, "test1", SOON);
    runs(&t, &holder, "test1");
    let place = cosmovisor::place(&t.net, &standby, "test1");
    tells(&t, ARBITER, "the binary is missing", |told| {
        let missing = of_host(told, &standby)["binaries"][0]["missing"].as_str()?;
        missing.contains(place.to_str().unwrap()).then_some(())
    });
    show(&t, ARBITER, "with a missing binary");
    assert_eq!(tenure(&t), before, "the holder has its own and keeps the baton");
    cosmovisor::give(&t.net, &standby, "test1").unwrap();
    assert_eq!(pair_runs(&t, "test1"), Pair { holder, standby });
    assert_sound(&t);
}

#[test]
#[ignore = "all of these take four minutes; see docs/localnet.md"]
fn a_holder_without_the_binary_loses_the_baton_to_the_host_that_has_it() {
    let t = up();
    let Pair { holder, standby } = t.pair();
    cosmovisor::give(&t.net, &standby, "test1").unwrap();
    plan_on_chain(&t, "test1", SOON);
    t.active(&standby);
    runs(&t, &standby, "test1");
    show(&t, ARBITER, "with a holder that lacked it");
    cosmovisor::give(&t.net, &holder, "test1").unwrap();
    assert_eq!(pair_runs(&t, "test1"), Pair { holder: standby, standby: holder });
    assert_sound(&t);
}

#[test]
#[ignore = "all of these take four minutes; see docs/localnet.md"]
fn a_wrong_checksum_touches_no_host_and_the_plan_is_cancelled() {
    let t = up();
    let pair = t.pair();
    let before = tenure(&t);
    let file = binary(&t, "v2");
    let wrong = format!("{file}?checksum=sha256:{}", "0".repeat(64));
    upgrade(&t, ARBITER, &["plan", "v2", "--binary", &wrong], 0);
    tells(&t, ARBITER, "both hosts tell what is wrong with the binary", |told| {
        let missing = |host: &str| Some(of_host(told, host)["binaries"][0]["missing"].as_str()?.contains("checksum"));
        (missing(&pair.holder)? && missing(&pair.standby)?).then_some(())
    });
    show(&t, ARBITER, "with a wrong checksum");
    for host in [&pair.holder, &pair.standby] {
        assert_eq!(version(&t, host).as_deref(), Ok("genesis"), "{host}");
    }
    upgrade(&t, ARBITER, &["cancel", "v2"], 0);
    assert_eq!((t.pair(), tenure(&t)), (pair, before));
    upgrade(&t, ARBITER, &["plan", "v2", "--binary", &file], 0);
    pair_runs(&t, "v2");
    assert_sound(&t);
}

#[test]
#[ignore = "all of these take four minutes; see docs/localnet.md"]
fn a_binary_that_crashes_ends_the_plan_at_the_first_standby() {
    let t = up();
    let pair = t.pair();
    let before = tenure(&t);
    let file = t.net.dir.join("binaries/bad");
    cosmovisor::write_binary(&file, "#!/bin/sh\n[ \"$1\" = run ] || exit 1\necho 'panic: nil map' >&2\nexit 3\n")
        .unwrap();
    upgrade(&t, ARBITER, &["plan", "bad", "--binary", file.to_str().unwrap()], 0);
    let plan = await_plan(&t, ARBITER, "bad", "failed");
    assert_eq!(plan["failed_at"], pair.standby.as_str(), "{plan}");
    let shown = show(&t, ARBITER, "with a binary that crashes");
    assert!(shown.contains("baton upgrade rollback"), "{shown}");
    assert_eq!(tenure(&t), before, "the holder is not touched");
    assert_eq!(version(&t, &pair.holder).as_deref(), Ok("genesis"));
    upgrade(&t, ARBITER, &["rollback"], 0);
    assert_eq!(pair_runs(&t, "genesis"), pair);
    assert_eq!(tenure(&t), before);
    assert_sound(&t);
}

#[test]
#[ignore = "all of these take four minutes; see docs/localnet.md"]
fn a_pre_upgrade_that_fails_leaves_the_old_binary_and_is_tried_again_with_another() {
    let t = up();
    let before = t.pair();
    give_all(&t, "test1");
    for host in t.net.signers() {
        let place = cosmovisor::place(&t.net, &host.id, "test1");
        fs::write(cosmovisor::pre_upgrade_script(&place), "30").unwrap();
    }
    plan_on_chain(&t, "test1", SOON);
    for host in t.net.signers() {
        tells(&t, ARBITER, &format!("{} fails", host.id), |told| {
            let failed = &of_host(told, &host.id)["failed"];
            (failed["step"] == "pre-upgrade" && failed["reason"].as_str()?.contains("code 30")).then_some(())
        });
        assert_eq!(link(&t, &host.id, "current"), leads_to(cosmovisor::GENESIS), "{}", host.id);
    }
    show(&t, ARBITER, "with a pre-upgrade that fails");
    let mended = Instant::now();
    for host in t.net.signers() {
        let place = cosmovisor::place(&t.net, &host.id, "test1");
        fs::remove_file(cosmovisor::pre_upgrade_script(&place)).unwrap();
        cosmovisor::make(&t.net, &place, "test1", &["test1", "mended"]).unwrap();
    }
    let after = pair_runs(&t, "test1");
    println!("{before:?} -> {after:?}, {:?} after the binary was replaced", mended.elapsed());
    assert_sound(&t);
}

#[test]
#[ignore = "all of these take four minutes; see docs/localnet.md"]
fn a_backup_that_does_not_fit_is_not_begun_and_room_lets_it_go_on() {
    let ground = Ground::new();
    if let Err(error) = namespaces::enter() {
        assert!(std::env::var_os("BATON_REQUIRE_NAMESPACES").is_none(), "{error:#}");
        return eprintln!("left out: {error:#}");
    }
    let net = prepare(&ground, |config| config);
    for host in net.signers() {
        namespaces::small_disk(&cosmovisor::backups(&net, &host.id), 1 << 20).unwrap();
    }
    launch::start(&net, |_| ()).unwrap();
    let t = TestNet { ground, net };
    let before = t.pair();
    give_all(&t, "test1");
    plan_on_chain(&t, "test1", SOON);
    tells_words(&t, ARBITER, &["MiB free", "backup"]);
    show(&t, ARBITER, "with a full disk");
    for host in t.net.signers() {
        // On top of the small one.
        namespaces::small_disk(&cosmovisor::backups(&t.net, &host.id), 256 << 20).unwrap();
    }
    let after = pair_runs(&t, "test1");
    println!("{before:?} -> {after:?}");
    assert_sound(&t);
}
