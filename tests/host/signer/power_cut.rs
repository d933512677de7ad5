//! The signer's mark on a disk that loses what was not synced: after a cut at any moment, the mark covers all that was
//! reserved or signed before. The victim is this test binary, started again with `BATON_SIGNER_CUT_DIR` set.

use std::fs;
use std::path::Path;
use std::process::Command;

use baton::base::signing::Hrs;
use baton::host::sign_bytes::SignBytes;
use baton::host::signer::frames::proto::{Request, answer::Answer};
use baton::host::signer::{MarkFile, Signer, SigningKey};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::kit::*;
use crate::kit::crash::disk::{Cut, Disk, Image, Syncs};
use crate::kit::crash::may_trace;
use crate::kit::crash::trace::{Step, record, say, wait_for_tracer};

const DIR: &str = "BATON_SIGNER_CUT_DIR";
/// Random states of the disk at each moment.
const CUTS: u64 = 4;

/// Files in memory where there is such a file system: no test needs their fsync.
fn scratch() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a directory")
}

/// What the victim asks for, in this order. Some are reserved first.
fn script() -> Vec<(SignBytes, bool)> {
    (1..=4)
        .flat_map(|height| {
            let votes =
                [Hrs::PREVOTE, Hrs::PRECOMMIT].map(|step| (vote(step, height, 0, Some(height as u8)), step == 2));
            [(proposal(height, 0, 1), true)].into_iter().chain(votes)
        })
        .collect()
}

/// The victim. Without the environment of one, there is nothing to do.
#[test]
fn victim() {
    let Ok(dir) = std::env::var(DIR) else { return };
    wait_for_tracer();
    let mark = MarkFile::open(&Path::new(&dir).join("mark")).unwrap();
    let mut signer = Signer::new(SigningKey::parse(ED25519_FILE.as_bytes()).unwrap(), mark);
    let mut ask = |ask| signer.answer(Request { id: 1, ask: Some(ask) }).answer.unwrap();
    assert!(matches!(ask(raise(0, 0, 0)), Answer::Raised(_)));
    for (at, (bytes, reserved)) in script().iter().enumerate() {
        if *reserved {
            assert!(matches!(ask(reserve(bytes)), Answer::Reserved(_)));
            say(&format!("cut:{at}"));
        }
        assert!(matches!(ask(sign(bytes)), Answer::Signatures(_)));
        say(&format!("cut:{at}"));
    }
}

/// What `image` has instead of a mark that covers everything up to `heard`.
fn fault(image: &Image, script: &[(SignBytes, bool)], heard: Option<usize>) -> Option<String> {
    let dir = scratch();
    let root = dir.path().join("state");
    image.put(&root).unwrap();
    let mark = match MarkFile::open(&root.join("mark")) {
        Ok(mark) => mark,
        Err(error) => return Some(error.to_string()),
    };
    let last = &script[heard?].0;
    match mark.kept() {
        None => Some("no mark".into()),
        Some(mark) if mark.place < last.place => Some(format!("a mark at {}, below {}", mark.place, last.place)),
        Some(mark) if mark.place == last.place && mark.digest != Some(last.digest) => Some("other content".into()),
        Some(_) => None,
    }
}

/// The first fault at any cut of one life on a disk with these `syncs`; `None` also where nothing may be traced.
fn first_fault(syncs: Syncs) -> Option<Result<(), String>> {
    let dir = scratch();
    let root = dir.path().join("state");
    fs::create_dir(&root).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "signer::power_cut::victim", "--nocapture"]).env(DIR, &root);
    let start = Image::of(&root).unwrap();
    let recording = record(&root, &mut command, |_| false);
    if !may_trace(&recording) {
        return None;
    }
    let recording = recording.unwrap();
    assert!(recording.ended, "the victim failed");
    let (script, mut heard, mut disk) = (script(), None, Disk::new(&start, syncs));
    let mut rng = StdRng::seed_from_u64(7);
    let mut moments = 0;
    for step in &recording.steps {
        disk.take(&recording, step);
        if let Step::Said(line) = step {
            heard = line.trim().strip_prefix("cut:").map_or(heard, |at| Some(at.parse().expect("a number")));
        }
        moments += 1;
        let mut images = vec![disk.after(Cut::Kill), disk.after(Cut::Power)];
        for _ in 0..CUTS {
            images.extend([disk.after(Cut::PowerSome(&mut rng)), disk.after(Cut::PowerTorn(&mut rng))]);
        }
        if let Some(fault) = images.iter().find_map(|image| fault(image, &script, heard)) {
            return Some(Err(format!("after step {moments}, {step:?}: {fault}")));
        }
    }
    assert_eq!(heard, Some(script.len() - 1), "what the victim said was not heard");
    let real = Image::of(&root).unwrap();
    assert_eq!(disk.after(Cut::Kill).difference(&real), None, "the recorder has missed something");
    println!("{moments} moments");
    Some(Ok(()))
}

#[test]
fn after_a_cut_at_any_moment_the_mark_covers_all_that_was_answered() {
    if let Some(Err(fault)) = first_fault(Syncs::All) {
        panic!("{fault}");
    }
}

#[test]
fn without_the_sync_of_the_directory_it_would_not() {
    assert!(!matches!(first_fault(Syncs::NotOfDirs), Some(Ok(()))), "a cut without that sync found nothing");
}
