//! The watchdog of a host that holds the baton, with a stand-in for the device: when it is fed, when it is stopped, and when
//! it would have reset the host.

use std::fs;
use std::process::Output;
use std::time::Duration;

use crate::common::upgrades::until;
use crate::common::{TestNet, long_leases, said};
use localnet::hosts::clock;
use localnet::hosts::faults::{self, What};
use localnet::hosts::watchdog::{self, Story};
use localnet::judge::measure::Watch;
use localnet::judge::status::baton_at;
use localnet::net::{ChainKind, Shape, write_file};
use localnet::process::launch;
use localnet::process::procs;
use rustix::process::Signal;

/// For whatever must come sooner or later, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(90);
/// For what has to show that it goes on.
const SOME: usize = 5;

/// Every host with a chain node has a watchdog, whose shortest time-out is a second. Nothing runs.
fn prepared(edit: impl Fn(String) -> String) -> TestNet {
    let t = TestNet::prepared(Shape::usual(ChainKind::Sim), edit);
    watchdog::install(&t.net, "1").unwrap();
    for host in t.net.signers() {
        let (file, device) = (t.net.config_file(&host.id), watchdog::device(&t.net, &host.id));
        let config = fs::read_to_string(&file).unwrap();
        write_file(&file, &format!("{config}\n[watchdog]\ndevice = \"{}\"\n", device.display())).unwrap();
    }
    t
}

fn up() -> TestNet {
    let mut t = prepared(long_leases);
    t.ground.has_long_leases();
    launch::start(&t.net, |_| ()).unwrap();
    t
}

/// Waits until the story of `host` is as it has to be.
fn story_when(t: &TestNet, host: &str, what: &str, is_so: impl Fn(&Story) -> bool) -> Story {
    until(t, &format!("{what}, of {host}"), || {
        let story = t.or_logs(watchdog::story(&t.net, host));
        if is_so(&story) { Ok(story) } else { Err(format!("{story:?}")) }
    })
}

fn signal_all(t: &TestNet, host: &str, what: What, signal: Signal) {
    let targets = t.or_logs(faults::find(&t.net, host, what));
    t.or_logs(procs::signal(&targets, signal));
}

#[test]
fn a_host_on_which_nothing_runs_any_more_is_reset_before_another_one_signs() {
    let t = up();
    let pair = t.pair();
    story_when(&t, &pair.holder, "a holder's watchdog is fed", |story| story.feedings >= SOME);
    let standby = t.or_logs(watchdog::story(&t.net, &pair.standby));
    assert_eq!((standby.feedings, standby.resets_at), (0, None), "a standby's watchdog was tried and stopped");

    let mut watch = t.or_logs(Watch::begin(&t.net));
    t.or_logs(watch.await_by(&pair.holder, 1, PATIENCE));
    let struck_ns = watch.now_ns();
    signal_all(&t, &pair.holder, What::Host, Signal::STOP);
    let next = t.or_logs(watch.await_next(struck_ns, &pair.holder, PATIENCE));
    let story = t.or_logs(watchdog::story(&t.net, &pair.holder));
    let reset = story.resets_at.expect("nobody has stopped it").as_nanos();
    assert!(struck_ns < reset && reset < next.at_ns, "struck at {struck_ns}, {story:?}, {next:?}");
    println!(
        "reset {} ms after the stop, next signature after {}",
        (reset - struck_ns) / 1_000_000,
        (next.at_ns - struck_ns) / 1_000_000
    );
}

#[test]
fn a_guard_that_has_kept_its_deadline_stops_the_watchdog() {
    let t = up();
    let pair = t.pair();
    let before = story_when(&t, &pair.holder, "a holder's watchdog is fed", |story| story.feedings >= SOME);
    let mut watch = t.or_logs(Watch::begin(&t.net));
    let struck_ns = watch.now_ns();
    signal_all(&t, &pair.holder, What::Coordinator, Signal::STOP);
    t.or_logs(watch.await_next(struck_ns, &pair.holder, PATIENCE));
    let after = story_when(&t, &pair.holder, "it is stopped", |story| story.stops > before.stops);
    assert_eq!(after.resets_at, None, "{after:?}");
    story_when(&t, &pair.standby, "the next holder's is fed", |story| story.feedings >= SOME);
    signal_all(&t, &pair.holder, What::Coordinator, Signal::CONT);
    t.pair();
    t.assert_nothing_signed_twice();
}

#[test]
fn a_handover_stops_one_watchdog_and_starts_the_other() {
    let t = up();
    let pair = t.pair();
    story_when(&t, &pair.holder, "a holder's watchdog is fed", |story| story.feedings >= SOME);
    said(&t, &pair.holder, &["handover"], 0);
    story_when(&t, &pair.holder, "it is stopped", |story| story.resets_at.is_none());
    story_when(&t, &pair.standby, "the next holder's is fed", |story| story.feedings >= SOME);
}

#[test]
fn a_watchdog_that_does_not_fit_the_lease_or_is_in_use_is_refused_with_the_numbers() {
    let t = prepared(long_leases);
    let host = t.net.signers().next().expect("a host with a chain node").id.clone();
    let (file, at) = (t.net.config_file(&host), watchdog::device(&t.net, &host));
    let refused = |says: &str, words: &[&str]| {
        write_file(&at, says).unwrap();
        let told = check(&t, &host);
        let line = String::from_utf8_lossy(&told.stderr).into_owned();
        assert_eq!(told.status.code(), Some(2), "{line}");
        let told = words.iter().all(|words| line.contains(words));
        assert!(told && line.starts_with("baton: watchdog.device: "), "{words:?}: {line}");
    };
    refused(
        "5",
        &[
            "watchdog resets after 5s at the earliest, and [timing] has room for 2.297s",
            "a lease that is 2.703s longer",
        ],
    );
    refused("busy", &["is in use", "RuntimeWatchdogSec="]);
    let short = fs::read_to_string(&file).unwrap().replace("profile = \"wan\"", "profile = \"lan\"");
    write_file(&file, &short).unwrap();
    refused("1", &["resets after 1s at the earliest, and [timing] has room for 699ms", "set timing.profile = \"wan\""]);

    t.or_logs(launch::start_coordinator(&t.net, &host));
    t.await_log(&host, "resets after 1s at the earliest, and [timing] has room for 699ms", 1, PATIENCE);
}

fn check(t: &TestNet, host: &str) -> Output {
    let mut command = t.or_logs(baton_at(&t.net, host, &["check"]));
    clock::give_to(&t.net, host, &mut command);
    watchdog::give_to(&t.net, host, &mut command);
    command.output().expect("baton runs")
}
