//! The coordinator is killed in the middle of an upgrade of its host, at every step and on either host: the next one
//! ends what it began, the data is whole and nothing is signed twice.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::TestNet;
use crate::common::upgrades::{
    UPGRADE_BOUND, assert_sound, backups, give_all, in_backups, is_partial, link, of_host, pair_runs, plan_on_chain,
    told, up_with,
};
use localnet::chains::cosmovisor;
use localnet::hosts::faults::{self, What};
use localnet::process::launch;
use localnet::runs::demo::Pair;
use localnet::simchain::pre_upgrade;

/// Slots until the chain halts.
const SOON: u64 = 30;
/// So that a backup takes longer than a look.
const FILES: usize = 48;
const FILE_BYTES: usize = 1 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug)]
enum At {
    Stop,
    Backup,
    PreUpgrade,
    Swap,
}

/// Nodes that stay up when they halt, as those of newer SDKs do: they have to be stopped.
fn up() -> TestNet {
    let t = up_with(|config| config.replacen("\"run\",", "\"run\",\"--halt\",\"stay\",", 1));
    for host in t.net.signers() {
        let data = t.net.chain_home(&host.id).join("data");
        for number in 0..FILES {
            fs::write(data.join(format!("{number:03}.sst")), vec![number as u8; FILE_BYTES]).unwrap();
        }
    }
    t
}

/// Returns once `host` is at that step.
fn await_step(t: &TestNet, host: &str, name: &str, at: At, before: &str) {
    let began = Instant::now();
    let script = cosmovisor::pre_upgrade_script(&cosmovisor::place(&t.net, host, name));
    let is_there = || match at {
        // A holder's node is stopped before the upgrade takes its first step.
        At::Stop => told(t, host).is_ok_and(|told| {
            let host = of_host(&told, host);
            host["step"] == "stop" || host["phase"] == "Upgrading"
        }),
        At::Backup => in_backups(t, host).iter().any(|path| is_partial(path)),
        At::PreUpgrade => pre_upgrade::calls(&script).exists(),
        At::Swap => link(t, host, "previous").is_some_and(|previous| previous.ends_with(before)),
    };
    while !is_there() {
        assert!(began.elapsed() < UPGRADE_BOUND, "{host} is never at {at:?}\n{}", launch::diagnosis(&t.net));
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The name that is current afterwards.
fn kill_at(t: &TestNet, at: At, host: &str, number: usize, before: &str) -> String {
    let name = format!("u{number}");
    give_all(t, &name);
    let script = cosmovisor::pre_upgrade_script(&cosmovisor::place(&t.net, host, &name));
    match at {
        At::Stop => t.pretend(host, "ignores-term"),
        At::PreUpgrade => fs::write(&script, "wait").unwrap(),
        At::Backup | At::Swap => {}
    }
    plan_on_chain(t, &name, SOON);
    await_step(t, host, &name, at, before);
    let coordinator = t.or_logs(faults::find(&t.net, host, What::Coordinator));
    t.or_logs(faults::kill(&coordinator));
    println!("killed {host} at {at:?}: current {:?}, {:?}", link(t, host, "current"), in_backups(t, host));
    if script.exists() {
        let left = || {
            faults::of_host(&t.net, host, What::Node).into_iter().any(|node| node.argv.contains(&"pre-upgrade".into()))
        };
        let began = Instant::now();
        while left() {
            assert!(began.elapsed() < UPGRADE_BOUND, "pre-upgrade outlives the coordinator that called it");
            std::thread::sleep(LOOK_EVERY);
        }
        fs::write(&script, "0").unwrap();
    }
    launch::start_coordinator(&t.net, host).unwrap();
    let pair = pair_runs(t, &name);
    println!("{at:?} of {host}, and now {pair:?}");
    for host in [&pair.holder, &pair.standby] {
        let found = backups(t, host);
        assert_eq!((found.len(), in_backups(t, host).len()), (1, 1), "{host}: {:?}", in_backups(t, host));
        assert_eq!(fs::read_dir(&found[0]).unwrap().flatten().filter(is_sst).count(), FILES, "{host}");
        fs::remove_dir_all(&found[0]).unwrap();
    }
    assert_sound(t);
    name
}

fn is_sst(file: &fs::DirEntry) -> bool {
    file.path().extension().is_some_and(|extension| extension == "sst")
}

fn at_every_step(of: impl Fn(&Pair) -> String) {
    let t = up();
    let mut before = cosmovisor::GENESIS.to_owned();
    for (number, at) in [At::Stop, At::Backup, At::PreUpgrade, At::Swap].into_iter().enumerate() {
        let host = of(&t.pair());
        before = kill_at(&t, at, &host, number + 1, &before);
    }
}

#[test]
#[ignore = "a minute; see docs/localnet.md"]
fn a_standby_whose_coordinator_is_killed_at_any_step_ends_its_upgrade() {
    at_every_step(|pair| pair.standby.clone());
}

#[test]
#[ignore = "a minute; see docs/localnet.md"]
fn a_holder_whose_coordinator_is_killed_at_any_step_ends_its_upgrade() {
    at_every_step(|pair| pair.holder.clone());
}
