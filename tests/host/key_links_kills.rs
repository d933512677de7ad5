//! The links of a process that is killed at every system call of a swap, one process a call, and of a power cut at
//! every one of them: what is left is standby or the old set, never a mix that signs, and the next start repairs it.
//!
//! The victim is this test binary, started again with `BATON_LINKS_DIR` set.

use std::path::Path;
use std::process::Command;

use crate::kit::crash::disk::{Cut, Disk, Image, Syncs};
use crate::kit::crash::may_trace;
use crate::kit::crash::trace::{Recording, Step, TraceError, record, say, wait_for_tracer};
use crate::kit::links::{BEFORE, Home, armed};
use baton::base::guard_frame::LinkState;
use rand::SeedableRng;
use rand::rngs::StdRng;

const DIR: &str = "BATON_LINKS_DIR";
const WAY: &str = "BATON_LINKS_WAY";
/// The key first, as no coordinator does it: to see that the tests find it.
const WRONG: &str = "wrong";
/// Of the states of the disk that a power cut may leave at one moment, how many are tried at random.
const POWER_CUTS: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToValidating,
    ToStandby,
    Wrong,
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Way::ToValidating => "validating",
            Way::ToStandby => "standby",
            Way::Wrong => WRONG,
        }
    }

    fn from(self) -> LinkState {
        match self {
            Way::ToValidating | Way::Wrong => LinkState::Standby,
            Way::ToStandby => LinkState::Validating,
        }
    }
}

/// The victim. Without the environment of one, there is nothing to do.
#[test]
fn victim() {
    let (Ok(dir), Ok(way)) = (std::env::var(DIR), std::env::var(WAY)) else { return };
    let home = Home::at(Path::new(&dir));
    wait_for_tracer();
    say("ready");
    match way.as_str() {
        "validating" => home.links().swap(&armed(), || BEFORE).expect("swap"),
        "standby" => home.links().to_standby().expect("to standby"),
        WRONG => home.specs().iter().for_each(|spec| {
            if spec.standby.is_some() {
                std::fs::remove_file(&spec.link).expect("unlink");
            }
            std::os::unix::fs::symlink(&spec.validating, &spec.link).expect("link");
        }),
        way => panic!("{WAY}={way}"),
    }
    say("done");
}

/// A home before the victim of `way`.
fn prepared(way: Way) -> Home {
    let home = Home::new();
    home.links().to_standby().expect("begin as standby");
    if way.from() == LinkState::Validating {
        home.links().swap(&armed(), || BEFORE).expect("begin as validator");
    }
    home
}

/// The victim at work, of which it makes `calls` system calls.
fn run(home: &Home, way: Way, calls: usize) -> Result<Recording, TraceError> {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "key_links_kills::victim", "--nocapture"]).env(DIR, home.root()).env(WAY, way.word());
    record(&home.path("home"), &mut command, |begun| begun > calls)
}

fn is_done(recording: &Recording) -> bool {
    recording.steps.iter().any(|step| matches!(step, Step::Said(line) if line == "done"))
}

/// What is wrong with the links that a crash has left, and with what the next start makes of them.
fn check(home: &Home, way: Way, done: bool) -> Result<LinkState, String> {
    let (state, left) = (home.links().state(), home.listing());
    if home.is_a_mix_that_signs() {
        return Err(format!("a mix that signs: {left:?}"));
    }
    let wanted = match way {
        Way::ToValidating | Way::Wrong => LinkState::Validating,
        Way::ToStandby => LinkState::Standby,
    };
    if done && state != wanted {
        return Err(format!("it said that it was done, and the links are {state:?}: {left:?}"));
    }
    home.links().to_standby().map_err(|error| format!("no start repairs {left:?}: {error}"))?;
    let repaired = home.listing();
    if home.links().state() != LinkState::Standby || repaired.len() != 2 {
        return Err(format!("a start made {repaired:?} of {left:?}"));
    }
    Ok(state)
}

#[test]
fn a_kill_at_any_system_call_of_a_swap_leaves_no_mix_that_signs() {
    for way in [Way::ToValidating, Way::ToStandby] {
        let (mut kills, mut seen) = (0, Vec::new());
        loop {
            let home = prepared(way);
            let recording = run(&home, way, kills);
            if !may_trace(&recording) {
                return;
            }
            let recording = recording.expect("trace a victim");
            let state = check(&home, way, is_done(&recording))
                .unwrap_or_else(|wrong| panic!("{way:?}, killed at its system call {kills}: {wrong}"));
            seen.push(state);
            if is_done(&recording) {
                break;
            }
            kills += 1;
        }
        println!("{way:?}: {kills} kills");
        let calls = run(&prepared(way), way, usize::MAX).expect("trace a victim").calls.len();
        assert!(calls >= 7 && kills > calls, "{way:?}: only {kills} kills, {calls} calls that change something");
        assert!(seen.contains(&LinkState::Standby) && seen.contains(&LinkState::Validating), "{way:?}: {seen:?}");
    }
}

/// Everything that a power cut at any call may leave; the first that is wrong.
fn power_cuts(way: Way) -> Option<Result<usize, String>> {
    let home = prepared(way);
    let dir = home.path("home");
    let start = Image::of(&dir).expect("read the directory");
    let recording = run(&home, way, usize::MAX);
    if !may_trace(&recording) {
        return None;
    }
    let recording = recording.expect("trace a victim");
    assert!(recording.ended, "the victim failed: {:?}", recording.steps);
    let mut disk = Disk::new(&start, Syncs::All);
    recording.steps.iter().for_each(|step| disk.take(&recording, step));
    let real = Image::of(&dir).expect("read the directory");
    assert_eq!(disk.after(Cut::Kill).difference(&real), None, "the recorder has missed something");

    let mut disk = Disk::new(&start, Syncs::All);
    let (mut cuts, mut done) = (0, false);
    for (at, step) in recording.steps.iter().enumerate() {
        disk.take(&recording, step);
        done |= matches!(step, Step::Said(line) if line == "done");
        for seed in 0..=POWER_CUTS {
            let mut rng = StdRng::seed_from_u64(seed);
            let image = disk.after(if seed == 0 { Cut::Power } else { Cut::PowerSome(&mut rng) });
            std::fs::remove_dir_all(&dir).expect("make room");
            image.put(&dir).expect("put the links there");
            cuts += 1;
            if let Err(wrong) = check(&home, way, done) {
                return Some(Err(format!("{way:?}, power cut {seed} at step {at}, after {step:?}: {wrong}")));
            }
        }
    }
    Some(Ok(cuts))
}

#[test]
fn a_power_cut_at_any_call_of_a_swap_leaves_no_mix_that_signs() {
    for way in [Way::ToValidating, Way::ToStandby] {
        let Some(tried) = power_cuts(way) else { return };
        let cuts = tried.unwrap_or_else(|wrong| panic!("{wrong}"));
        println!("{way:?}: {cuts} power cuts");
        assert!(cuts >= 100, "{way:?}: only {cuts} power cuts");
    }
}

#[test]
fn a_swap_that_links_the_key_first_is_found_out() {
    let Some(tried) = power_cuts(Way::Wrong) else { return };
    let wrong = tried.expect_err("a mix that signs went unseen");
    assert!(wrong.contains("a mix that signs"), "{wrong}");
}
