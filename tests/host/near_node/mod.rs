//! What was measured of a real neard, played by a fake one, and what baton makes of it: a real core, its
//! effects and a real guard on one host.

mod elsewhere;
mod fake_neard;
mod foreign;
mod halves;
mod handovers;
mod hung;
mod hung_disk;
mod key_places;
mod short_life;
mod slots;
mod stage;

use std::time::{Duration, Instant};

use baton::base::chain_node::{Activation, SignFloor};
use baton::base::guard_frame::LinkState;
use baton::base::ids::Epoch;
use baton::base::time::{BootTime, WallTime};
use baton::core::{Action, Event, NotReady, Stage, Unheld};
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};

use crate::kit::host::{self as host_kit, SOON};
use stage::{CONFIG, Host};

const HOT: Activation = Activation::Signal(1);

/// Not a test: the other tests start it as their chain node.
#[tokio::test]
#[ignore = "the fake neard that the other tests start"]
async fn fake_neard_process() {
    if let Ok(addr) = std::env::var(fake_neard::ADDR) {
        fake_neard::run(&addr).await;
    }
}

fn pid(event: &str) -> &str {
    event.split(' ').next().unwrap_or_default()
}

#[tokio::test]
async fn a_node_is_signalled_only_after_it_has_answered_a_probe() {
    let host = Host::new(HOT).await;
    let epoch = Epoch(1);
    host.effects.perform(Action::StartStandby);
    host.event(0, "start key=-").await;
    // SIGHUP would kill it now. All that an activation takes is asked for at once.
    host.effects.perform(Action::Arm { epoch, deadline: BootTime::now() + SOON });
    host.until("armed", |host| host.effects.guard_state().as_str() == "armed").await;
    host.effects.perform(Action::LinkValidating { epoch, floor: SignFloor::None });
    host.effects.perform(Action::Activate { epoch });
    let loaded = host.event(0, "hup key=node3").await;
    let events = host.events();
    assert_eq!(pid(&events[loaded]), pid(&events[0]), "{events:?}");
    assert_eq!(host.effects.node_pid().map(|pid| pid.to_string()).as_deref(), Some(pid(&events[0])));
}

#[tokio::test]
async fn a_hot_activation_is_proven_by_the_status_and_the_first_chunk_is_told_when_it_comes() {
    let mut host = Host::new(HOT).await;
    std::fs::write(host.home("idle"), "").expect("a flag");
    host.obey(true);
    // Active is not put off until something was signed.
    host.until("active", |host| host.stage() == Some(Stage::Active)).await;
    let events = host.events();
    assert_eq!(events.iter().filter(|event| event.contains(" start ")).count(), 1, "it was restarted: {events:?}");
    assert!(events.iter().any(|event| event.contains("hup key=node3")), "{events:?}");
    host.event(0, "asked for validators").await;
    assert_eq!(host.note(), "");
    std::fs::remove_file(host.home("idle")).expect("removed");
    host.until("told of a chunk", |host| host.note().starts_with("first chunk on chain")).await;
    assert_eq!(host.stage(), Some(Stage::Active));
}

#[tokio::test]
async fn a_handover_stops_the_keyless_node_beside_the_release_and_brings_it_back_as_standby() {
    let host = Host::holding(HOT).await;
    host.until("seen validating", |host| *host.effects.links_seen().borrow() == LinkState::Validating).await;
    let before = host.events().len();
    host.hand_over();
    let keyless = host.event(before, "hup key=-").await;
    let released = host.event(keyless, "raft Release").await;
    let told_to_end = host.event(keyless, " term").await;
    let ended = host.event(told_to_end, " end").await;
    assert!(released < ended, "the release waited for the old process: {:?}", host.events());
    assert_eq!(host.effects.link_state(), LinkState::Standby);
    host.until("seen in standby", |host| *host.effects.links_seen().borrow() == LinkState::Standby).await;
    let back = host.event(ended, "start key=-").await;
    host.until("ready again", |host| host.core.read(|core, now| core.not_ready(now.boot).is_none())).await;
    let events = host.events();
    assert_ne!(pid(&events[back]), pid(&events[keyless]));
    assert!(host.note().is_empty(), "the note of the old process: {:?}", host.note());
}

#[tokio::test]
async fn a_node_that_is_being_stopped_is_not_ready_for_the_baton() {
    let host = Host::holding(HOT).await;
    let before = host.events().len();
    host.hand_over();
    host.event(before, "raft Release").await;
    let not_ready = host.core.read(|core, now| core.not_ready(now.boot));
    let events = host.events();
    // It takes its time to end, and answers probes meanwhile.
    assert!(host.event_after(before, " end").is_some() || not_ready.is_some(), "{events:?}");
}

#[tokio::test]
async fn a_key_that_is_not_given_up_in_time_is_stopped_by_sigterm() {
    let host = Host::holding(HOT).await;
    std::fs::write(host.home("deaf"), "").expect("a flag");
    let before = host.events().len();
    host.hand_over();
    let ignored = host.event(before, "hup ignored").await;
    let told_to_end = host.event(ignored, " term").await;
    let ended = host.event(told_to_end, " end").await;
    let released = host.event(before, "raft Release").await;
    assert!(ended < released, "released without proof: {:?}", host.events());
}

#[tokio::test]
async fn a_node_that_ignores_sigterm_too_is_killed_before_the_release() {
    let host = Host::holding_with(HOT, |chain| chain.stop_timeout = Duration::from_secs(2)).await;
    for flag in ["deaf", "stubborn"] {
        std::fs::write(host.home(flag), "").expect("a flag");
    }
    let before = host.events().len();
    let old = host.effects.node_pid().expect("a node");
    host.hand_over();
    host.event(before, " term").await;
    let released = host.event(before, "raft Release").await;
    assert!(!std::path::Path::new(&format!("/proc/{old}/exe")).exists(), "released while {old} lives");
    assert_eq!(host.event_after(before, " end"), None, "{:?}", host.events());
    host.event(released, "start key=-").await;
}

#[tokio::test]
async fn a_refused_reload_fails_the_activation_and_the_file_and_its_line_are_named() {
    let mut host = Host::new(HOT).await;
    host.obey(true);
    host.event(0, "start key=-").await;
    std::fs::write(host.home("config.json"), "{\n  \"a\": 1").expect("a broken config");
    let refused = host.event(0, "hup refused").await;
    let since = Instant::now();
    host.until("told", |host| host.note().contains("refused to reload")).await;
    assert!(
        since.elapsed() < Duration::from_secs(10),
        "it waited for the bound of an activation: {:?}",
        since.elapsed()
    );
    let note = host.note();
    assert!(note.contains("home/config.json, line 2: EOF while parsing"), "{note}");
    assert!(!note.contains("2026"), "neard's own time: {note}");
    host.event(refused, "raft Release").await;
    assert_eq!(host.effects.link_state(), LinkState::Standby);
    assert_eq!(host.event_after(0, "key=node3"), None, "{:?}", host.events());
}

#[tokio::test]
async fn a_refused_reload_keeps_the_old_key_so_the_node_is_stopped_before_the_release() {
    let host = Host::holding(HOT).await;
    std::fs::write(host.home("config.json"), "{\n  \"a\": 1").expect("a broken config");
    let before = host.events().len();
    host.hand_over();
    let refused = host.event(before, "hup refused").await;
    host.until("told", |host| host.note().contains("home/config.json, line 2: EOF")).await;
    let ended = host.event(refused, " end").await;
    let released = host.event(before, "raft Release").await;
    assert!(ended < released, "released while the old key was loaded: {:?}", host.events());
}

#[tokio::test]
async fn a_node_that_may_still_be_loading_the_key_is_stopped_whatever_it_says() {
    let mut host = Host::new(HOT).await;
    std::fs::write(host.home("loads-late"), "").expect("a flag");
    host.obey(true);
    let read = host.event(0, "hup reads node3").await;
    // It says that it has no key, and that is so, for a while.
    host.core.step(Event::ShutdownWanted { stop_node: false });
    let released = host.event(read, "raft Release").await;
    let ended = host.event_after(read, " end").unwrap_or(usize::MAX);
    assert!(ended < released, "released while it may still load the key: {:?}", host.events());
    assert_eq!(host.event_after(read, "key=node3"), None, "{:?}", host.events());
}

#[tokio::test]
async fn a_restart_switches_node_key_and_network_address_together_and_back() {
    let host = Host::holding(Activation::Restart).await;
    let events = host.events();
    let starts: Vec<&String> = events.iter().filter(|event| event.contains(" start ")).collect();
    assert_eq!(starts.len(), 2, "{events:?}");
    assert!(starts[0].contains("key=- addr=0.0.0.0:24568 node=voter"), "{events:?}");
    assert!(starts[1].contains("key=node3 addr=0.0.0.0:24567 node=validator"), "{events:?}");
    let before = events.len();
    host.hand_over();
    let ended = host.event(before, " end").await;
    let released = host.event(before, "raft Release").await;
    assert!(ended < released, "{:?}", host.events());
    host.event(ended, "start key=- addr=0.0.0.0:24568 node=voter").await;
    let config = std::fs::read_to_string(host.home("config.json")).expect("config");
    assert_eq!(config, CONFIG.replace("24567", "24568"));
    host.until("told nothing", |host| host.note().is_empty()).await;
}

#[tokio::test]
async fn the_node_has_the_limit_of_open_files_that_the_coordinator_has() {
    let host = Host::new(HOT).await;
    host.effects.perform(Action::StartStandby);
    host.event(0, "start").await;
    let own = getrlimit(Resource::Nofile);
    let expected = format!("files={:?}/{:?}", own.current, own.maximum);
    assert!(host.events()[0].ends_with(&expected), "{:?} instead of {expected}", host.events());
}

fn alarm(host: &host_kit::Host) -> Option<NotReady> {
    host.core.read(|core, _| core.key_alarm())
}

fn is_ready(host: &host_kit::Host) -> bool {
    host.core.read(|core, now| core.not_ready(now.boot).is_none())
}

#[tokio::test]
async fn a_standby_that_says_that_it_validates_is_killed_each_time_until_it_does_not() {
    let mut host = Host::new(HOT).await;
    host.obey(false);
    host.until("ready", is_ready).await;
    assert_eq!(alarm(&host), None);
    let old = host.effects.node_pid().expect("a node");
    std::fs::write(host.home("lent"), r#"{"account_id": "node3"}"#).expect("a key");
    let node = Pid::from_raw(i32::try_from(old).expect("a pid")).expect("a pid");
    kill_process(node, Signal::HUP).expect("signalled");
    let loaded = host.event(0, "hup key=node3").await;
    host.until("alarmed", |host| matches!(alarm(host), Some(NotReady::KeyLoaded { .. }))).await;
    let again = host.event(loaded, "start key=node3").await;
    let events = host.events();
    assert!(!events[loaded..again].iter().any(|event| event.contains(" term") || event.contains(" end")), "{events:?}");
    assert_ne!(pid(&events[again]), old.to_string(), "{events:?}");
    assert!(!is_ready(&host));
    std::fs::remove_file(host.home("lent")).expect("removed");
    host.event(again, "start key=-").await;
    host.until("over", |host| alarm(host).is_none()).await;
    assert!(host.core.read(|core, _| core.is_node_proven()));
}

#[tokio::test]
async fn a_chunk_that_nobody_of_the_cluster_can_have_made_keeps_a_standby_from_the_baton() {
    let mut host = Host::new(HOT).await;
    host.obey(false);
    host.until("ready", is_ready).await;
    let since = WallTime::now();
    let tell = |host: &host_kit::Host, until| host.core.step(Event::UnheldTold(Unheld { since, until }));
    tell(&host, since);
    // The chain is asked now: what it counts from here on can be told from what it had counted.
    host.event(0, "asked for validators").await;
    std::fs::write(host.home("foreign"), "").expect("a flag");
    let node = host.effects.node_pid();
    host.until("alarmed", |host| {
        tell(host, WallTime::now());
        matches!(alarm(host), Some(NotReady::KeyElsewhere { .. }))
    })
    .await;
    assert!(!is_ready(&host));
    assert_eq!(host.effects.node_pid(), node, "the own node has no part in it");
}
