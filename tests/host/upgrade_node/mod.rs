//! Upgrades from the chain's word to the new binary: a real core, its effects and a real guard on one host, and a chain
//! node that is a script. It ends, as chains do, once it has written what it wants to be upgraded to.

mod stage;

use crate::kit::host as host_kit;
use baton::base::guard_frame::LinkState;
use baton::core::upgrades::BinaryReport;
use baton::core::{Action, Stage};
use baton::host::effects::Planned;
use stage::{Host, upgrade};

#[tokio::test]
async fn a_standby_that_halts_goes_on_with_the_new_binary_and_its_end_is_no_crash() {
    let mut host = Host::new(|_| {}).await;
    host.put("upgrades/v2");
    host.obey(false);
    host.event("start genesis").await;
    host.halt_for("v2");
    host.event("start upgrades/v2").await;
    assert_eq!(host.events(), ["start genesis", "start upgrades/v2"]);
    host.until("said", |host| host.report().is_some_and(|report| report.current == upgrade("v2"))).await;
    let report = host.report().expect("one");
    assert_eq!((report.under_way, report.failed), (None, None));
    assert_eq!(host.core.read(|core, _| core.host().crashes()), 0);
}

#[tokio::test]
async fn a_holder_that_halts_keeps_the_baton_and_has_the_key_again_with_the_new_binary() {
    let mut host = Host::new(|_| {}).await;
    host.put("upgrades/v2");
    host.obey(true);
    host.until("active", |host| host.stage() == Some(Stage::Active)).await;
    host.halt_for("v2");
    host.event("start upgrades/v2").await;
    host.until("active again", |host| host.stage() == Some(Stage::Active)).await;
    let events = host.events();
    let raft: Vec<&String> = events.iter().filter(|line| line.starts_with("raft")).collect();
    assert!(raft.len() == 2 && raft.iter().all(|line| !line.contains("Release")), "{events:#?}");
    assert_eq!(host.effects.link_state(), LinkState::Validating);
    assert!(events.iter().filter(|line| *line == "start upgrades/v2").count() == 1, "{events:#?}");
}

#[tokio::test]
async fn a_holder_whose_node_is_not_told_to_end_is_stopped_at_the_height() {
    let mut host = Host::new(|_| {}).await;
    host.put("upgrades/v2");
    host.obey(true);
    host.until("active", |host| host.stage() == Some(Stage::Active)).await;
    // Written long before, by an operator.
    host.ask("v2", 100);
    host.until("seen", |host| host.report().is_some_and(|report| !report.binaries.is_empty())).await;
    assert_eq!(host.stage(), Some(Stage::Active));
    host.show_height(99);
    host.event("start upgrades/v2").await;
    host.until("active again", |host| host.stage() == Some(Stage::Active)).await;
}

#[tokio::test]
async fn a_missing_binary_is_asked_for_and_taken_once_it_is_there() {
    let mut host = Host::new(|_| {}).await;
    host.obey(false);
    host.event("start genesis").await;
    host.show_height(10);
    host.ask("v2", 11);
    let missing = |host: &host_kit::Host| {
        let report = host.report()?;
        match report.binaries.get(&upgrade("v2"))? {
            BinaryReport::Missing { reason } => Some(reason.clone()),
            BinaryReport::Present { .. } | BinaryReport::Fetching { .. } => None,
        }
    };
    host.until("missed", |host| missing(host).is_some()).await;
    let reason = missing(&host).expect("a reason");
    assert!(reason.contains("put it at") && reason.ends_with("cosmovisor/upgrades/v2/bin/noded"), "{reason}");
    assert_eq!(host.events(), ["start genesis"]);
    host.put("upgrades/v2");
    host.event("start upgrades/v2").await;
}

#[tokio::test]
async fn a_failed_upgrade_starts_the_old_binary_and_is_repeated_once_the_new_one_has_changed() {
    let mut host = Host::new(|_| {}).await;
    host.put_with("upgrades/v2", r#"[ "$1" = pre-upgrade ] && exit 30"#);
    host.obey(false);
    host.event("start genesis").await;
    host.follow("v2");
    host.until("failed", |host| host.report().is_some_and(|report| report.failed.is_some())).await;
    host.until("started again", |host| host.events() == ["start genesis", "start genesis"]).await;
    host.put("upgrades/v2");
    host.event("start upgrades/v2").await;
    host.until("gone", |host| host.report().is_some_and(|report| report.failed.is_none())).await;
}

#[tokio::test]
async fn a_turn_of_a_plan_upgrades_a_standby_and_a_plan_alone_does_not() {
    let mut host = Host::new(|_| {}).await;
    host.put("upgrades/v2");
    host.obey(false);
    host.event("start genesis").await;
    let plan = Planned { name: upgrade("v2"), source: None, back: false, now: false };
    host.effects.follow_plan(Some(plan.clone()));
    let present = |host: &host_kit::Host| {
        let report = host.report()?;
        Some(matches!(report.binaries.get(&upgrade("v2"))?, BinaryReport::Present { .. }))
    };
    host.until("found", |host| present(host) == Some(true)).await;
    assert_eq!(host.events(), ["start genesis"]);
    host.effects.follow_plan(Some(Planned { now: true, ..plan }));
    host.event("start upgrades/v2").await;
}

#[tokio::test]
async fn without_restart_after_the_coordinator_ends_and_the_node_stays_stopped() {
    let mut host = Host::new(|upgrade| upgrade.restart_after = false).await;
    host.put("upgrades/v2");
    host.obey(false);
    host.event("start genesis").await;
    host.halt_for("v2");
    host.until("finished", |host| host.finished() == Some(Action::Finish { stop_node: true })).await;
    assert_eq!(host.events(), ["start genesis"]);
}

#[tokio::test]
async fn a_node_without_a_binary_is_not_started_and_the_core_knows_why() {
    let mut host = Host::new(|_| {}).await;
    std::fs::remove_dir_all(host.path("cosmovisor/genesis")).expect("removed");
    host.obey(false);
    host.until("told", |host| host.core.read(|core, _| core.host().probe_error().contains("put it there"))).await;
    host.put("genesis");
    host.event("start genesis").await;
}
