//! Upgrades of the chain node on whole hosts: at a height for which the chain halts, and one host after the other. The
//! signature log is the judge.

use crate::common::upgrades::{
    assert_sound, await_plan, backups, binary, count, give_all, leads_to, link, of_host, pair_runs, plan_on_chain,
    prepare, runs, said_any, show, tells, tenure, up, upgrade,
};
use crate::common::{Ground, TestNet};
use localnet::chains::cosmovisor;
use localnet::judge::measure::head;
use localnet::process::launch;
use localnet::runs::demo::Pair;
use rustix::process::Signal;

const ARBITER: &str = "host-c";
/// Slots until the chain halts: for a plan to be seen, and some signatures.
const SOON: u64 = 40;

/// The example of cosmovisor's documentation, to the letter: the chain halts while the cluster still settles for its
/// first holder, which waits for a block that only the new binary can make.
#[test]
fn the_example_of_the_documentation_goes_from_genesis_to_test1_at_height_20() {
    let ground = Ground::new();
    let net = prepare(&ground, |config| config);
    net.signers().for_each(|host| cosmovisor::give(&net, &host.id, "test1").unwrap());
    cosmovisor::plan_on_chain(&net, "test1", 20, "").unwrap();
    launch::start(&net, |_| ()).unwrap();
    let t = TestNet { ground, net };
    pair_runs(&t, "test1");
    for host in t.net.signers() {
        assert_eq!(link(&t, &host.id, "previous"), leads_to("genesis"), "{}", host.id);
        let node_log = std::fs::read_to_string(t.net.node_log(&host.id)).unwrap();
        assert!(node_log.contains("UPGRADE \"test1\" NEEDED at height: 20"), "{}: {node_log}", host.id);
    }
    assert_sound(&t);
}

/// The same with a holder that signs.
#[test]
fn upgrade_at_a_height() {
    let t = up();
    let before = t.pair();
    let tenure_before = tenure(&t);
    give_all(&t, "test1");
    show(&t, ARBITER, "before the height");
    let slots = count(&t);
    let height = plan_on_chain(&t, "test1", SOON);
    let after = pair_runs(&t, "test1");
    slots.missed("at a height");
    assert_eq!((after, tenure(&t)), (before.clone(), tenure_before), "the holder keeps the baton under the same epoch");
    for host in [&before.holder, &before.standby] {
        assert_eq!(link(&t, host, "previous"), leads_to("genesis"), "{host}");
        assert_eq!(backups(&t, host).len(), 1, "{host}");
        let node_log = std::fs::read_to_string(t.net.node_log(host)).unwrap();
        assert!(node_log.contains(&format!("UPGRADE \"test1\" NEEDED at height: {height}")), "{host}: {node_log}");
    }
    let mut watch = t.or_logs(localnet::judge::measure::Watch::begin(&t.net));
    t.or_logs(watch.await_by(&before.holder, 20, crate::common::upgrades::UPGRADE_BOUND));
    show(&t, ARBITER, "after the height");
    assert_sound(&t);
}

/// The cluster knows of the height too: it brings the binary to every host before, and says when all have it.
#[test]
fn a_plan_for_a_height_is_done_when_every_host_runs_it() {
    let t = up();
    let before = t.pair();
    let tenure_before = tenure(&t);
    let file = t.net.dir.join("binaries/test1");
    cosmovisor::make(&t.net, &file, "test1", &["test1"]).unwrap();
    let height = t.or_logs(head(&t.net)) + 4 * SOON;
    let args = ["plan", "test1", "--height", &height.to_string(), "--binary", file.to_str().unwrap()];
    upgrade(&t, ARBITER, &args, 0);
    for host in t.net.signers() {
        tells(&t, ARBITER, &format!("{} has the binary", host.id), |told| {
            of_host(told, &host.id)["binaries"][0]["sha256"].as_str().map(drop)
        });
    }
    cosmovisor::plan_on_chain(&t.net, "test1", height, "").unwrap();
    show(&t, ARBITER, "before the height");
    let slots = count(&t);
    assert_eq!(pair_runs(&t, "test1"), before);
    await_plan(&t, ARBITER, "test1", "done");
    slots.missed("at a planned height");
    assert_eq!(tenure(&t), tenure_before);
    show(&t, ARBITER, "after it");
    assert_sound(&t);
}

#[test]
fn a_height_that_came_while_a_coordinator_was_down_is_made_up_for() {
    let t = up();
    let Pair { holder, standby } = t.pair();
    let tenure_before = tenure(&t);
    give_all(&t, "test1");
    t.end_coordinator(&standby, Signal::KILL);
    plan_on_chain(&t, "test1", SOON);
    runs(&t, &holder, "test1");
    launch::start_coordinator(&t.net, &standby).unwrap();
    assert_eq!(pair_runs(&t, "test1"), Pair { holder, standby });
    assert_eq!(tenure(&t), tenure_before);
    assert_sound(&t);
}

#[test]
fn a_rolling_upgrade_goes_from_host_to_host_and_back_again() {
    let t = up();
    let Pair { holder, standby } = t.pair();
    let file = binary(&t, "v2");
    upgrade(&t, ARBITER, &["plan", "v2", "--binary", &file, "--dry-run"], 0);
    let slots = count(&t);
    upgrade(&t, ARBITER, &["plan", "v2", "--binary", &file], 0);
    runs(&t, &standby, "v2");
    show(&t, ARBITER, "once the standby has it");
    let moved = Pair { holder: standby.clone(), standby: holder.clone() };
    assert_eq!(pair_runs(&t, "v2"), moved);
    await_plan(&t, ARBITER, "v2", "done");
    slots.missed("rolling upgrade");
    println!("{}", said_any(&t, &holder, &["history"]));
    show(&t, ARBITER, "when it is done");

    upgrade(&t, ARBITER, &["rollback", "--dry-run"], 0);
    let slots = count(&t);
    upgrade(&t, ARBITER, &["rollback"], 0);
    assert_eq!(pair_runs(&t, "genesis"), Pair { holder, standby });
    await_plan(&t, ARBITER, "genesis", "done");
    slots.missed("rolling back");
    show(&t, ARBITER, "after the rollback");
    upgrade(&t, ARBITER, &["list"], 0);
    assert_sound(&t);
}

/// Whoever leads carries the plan on, and the host that was lost is upgraded when it is back.
#[test]
fn a_rolling_upgrade_goes_on_after_the_loss_of_the_holder() {
    let t = up();
    let Pair { holder, standby } = t.pair();
    upgrade(&t, ARBITER, &["plan", "v2", "--binary", &binary(&t, "v2")], 0);
    runs(&t, &standby, "v2");
    t.kill_host(&holder);
    t.active(&standby);
    let waits = tells(&t, &standby, "the plan waits for the lost host", |told| {
        let waits = told["waits_for"].as_str()?;
        waits.contains(&holder).then(|| waits.to_owned())
    });
    println!("{waits}");
    show(&t, ARBITER, "without the old holder");
    launch::start_coordinator(&t.net, &holder).unwrap();
    assert_eq!(pair_runs(&t, "v2"), Pair { holder: standby, standby: holder });
    await_plan(&t, ARBITER, "v2", "done");
    assert_sound(&t);
}
