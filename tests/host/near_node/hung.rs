//! A node that hangs as the holder's: it takes connections and answers nothing, and no signal that it could handle
//! changes that. With somebody ready to take over it is killed; `chain.stop_timeout` is longer than any of these tests.
//! And one that answers and loses the signal to end: it is asked again.

use baton::config::Chain;

use super::*;

fn impatient(chain: &mut Chain) {
    chain.probe.timeout = Duration::from_secs(1);
}

/// As many probes as host_kit allows fail, without their time.
async fn fail_probes(host: &Host, until: usize) {
    host.until("released", |host| {
        (0..1000).for_each(|_| host.core.step(Event::ProbeFailed { reason: "no answer in time".into() }));
        host.event_after(until, "raft Release").is_some()
    })
    .await;
}

/// What runs there stands still until it is killed.
fn freeze(host: &host_kit::Host) -> u32 {
    let pid = host.effects.node_pid().expect("a node");
    let node = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    kill_process(node, Signal::STOP).expect("stopped");
    pid
}

async fn released(host: &Host, old: u32, from: usize) {
    let released = host.event(from, "raft Release").await;
    assert!(!std::path::Path::new(&format!("/proc/{old}/exe")).exists(), "released while {old} lives");
    host.event(released, "start key=-").await;
    assert_eq!(host.event_after(from, " term"), None, "it was asked: {:?}", host.events());
}

/// Nobody has noticed yet that it hangs: the handover does.
async fn hands_over_from_hung_node(activation: Activation) {
    let host = Host::holding_with(activation, impatient).await;
    let before = host.events().len();
    let old = freeze(&host);
    host.hand_over();
    released(&host, old, before).await;
    assert_eq!(host.effects.link_state(), LinkState::Standby);
}

#[tokio::test]
async fn a_handover_kills_a_node_that_hangs_instead_of_its_reload() {
    hands_over_from_hung_node(HOT).await;
}

#[tokio::test]
async fn a_handover_kills_a_node_that_hangs_instead_of_its_stop() {
    hands_over_from_hung_node(Activation::Restart).await;
}

#[tokio::test]
async fn a_node_that_begins_to_hang_while_it_is_stopped_is_killed() {
    let host = Host::holding_with(Activation::Restart, impatient).await;
    std::fs::write(host.home("stubborn"), "").expect("a flag");
    let before = host.events().len();
    host.hand_over();
    host.event(before, " term").await;
    let old = freeze(&host);
    let released = host.event(before, "raft Release").await;
    assert!(!std::path::Path::new(&format!("/proc/{old}/exe")).exists(), "released while {old} lives");
    host.event(released, "start key=-").await;
}

#[tokio::test]
async fn a_holder_whose_node_hangs_is_killed_once_its_probes_have_failed() {
    let host = Host::holding(HOT).await;
    let before = host.events().len();
    let old = freeze(&host);
    fail_probes(&host, before).await;
    released(&host, old, before).await;
}

#[tokio::test]
async fn a_node_that_hangs_when_it_is_told_to_load_the_key_is_killed_once_its_probes_have_failed() {
    let mut host = Host::new(HOT).await;
    // SIGHUP changes nothing: it stays to be activated.
    std::fs::write(host.home("deaf"), "").expect("a flag");
    host.obey(true);
    let ignored = host.event(0, "hup ignored").await;
    assert_eq!(host.stage(), Some(Stage::Activating));
    let old = freeze(&host);
    fail_probes(&host, ignored).await;
    released(&host, old, ignored).await;
}

#[tokio::test]
async fn one_probe_without_an_answer_ends_the_readiness_of_a_standby() {
    let mut host = Host::new(HOT).await;
    host.obey(false);
    host.until("ready", is_ready).await;
    let old = freeze(&host);
    host.until("not ready", |host| !is_ready(host)).await;
    let why = host.core.read(|core, now| core.not_ready(now.boot));
    assert!(matches!(why, Some(NotReady::NoAnswer { .. })), "{why:?}");
    assert_eq!(host.effects.node_pid(), Some(old), "a standby is not ended for that");
}

#[tokio::test]
async fn a_sigterm_that_a_reload_loses_is_followed_by_another() {
    let host = Host::holding(HOT).await;
    std::fs::write(host.home("slow-handlers"), "").expect("a flag");
    let before = host.events().len();
    host.hand_over();
    let lost = host.event(before, "SIGTERM lost").await;
    let heard = host.event(lost, " term").await;
    let ended = host.event(heard, " end").await;
    host.event(ended, "start key=-").await;
}
