//! A cut at every boundary of the writes: the victim runs under ptrace, and from what it did the files are put
//! together as a kill and as a power cut at that moment leave them. Each is opened as a member that starts would.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use baton::cluster::store::Store;
use rand::RngExt;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::script::{Heard, Model, Script};
use super::{seeded, victim_command};
use crate::kit::crash::disk::{Cut, Disk, Image, Syncs};
use crate::kit::crash::may_trace;
use crate::kit::crash::trace::{Change, Recording, Step, TraceError, record};

/// Victims one after the other, each on what a cut has left of the one before: as many as it takes for `CUTS_MIN`,
/// which depends on what they happen to write.
const LIVES_MAX: usize = 10;
const OPS: u64 = 40;
const CUTS_MIN: usize = 1000;
const WORKERS: usize = 2;
/// Of the states of the disk that a power cut may leave at one moment, how many are tried.
const POWER_CUTS: usize = 2;
/// Of how many power cuts one is kept for a next victim to go on from; the last of these is.
const NEXT_EVERY: usize = 10;

/// Files in memory where there is such a file system: no test needs their fsync.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    TempDir::new_in(memory).or_else(|_| TempDir::new()).expect("a directory")
}

/// What must be there when a victim has not opened its store yet: what `heard` says of a store that held `model`.
#[derive(Clone, Default)]
struct Past {
    model: Model,
    heard: Arc<Heard>,
}

/// What a victim begins with.
struct Start {
    disk: Disk,
    past: Past,
    /// What it finds when it opens the store. From then on that is durable.
    finds: Model,
}

/// What was on disk when a victim began, and what it then did.
struct Life {
    start: Start,
    recording: Recording,
}

/// Runs one victim to its end. The image that its calls lead to is the directory that it left, byte for byte: no
/// change has escaped the recorder.
fn live(start: Start, script: &Script) -> Result<Life, TraceError> {
    let scratch = scratch();
    let dir = scratch.path().join("state");
    start.disk.after(Cut::Kill).put(&dir).expect("put the files there");
    let recording = record(&dir, &mut victim_command(&dir, script), |_| false)?;
    assert!(recording.ended, "the victim failed; its last words: {:?}", recording.steps.iter().rev().take(3));
    let mut disk = start.disk.clone();
    recording.steps.iter().for_each(|step| disk.take(&recording, step));
    let real = Image::of(&dir).expect("read the directory");
    assert_eq!(disk.after(Cut::Kill).difference(&real), None, "the recorder has missed something");
    Ok(Life { start, recording })
}

/// One state of the files in which a member may find them.
struct Found {
    /// For a report.
    cut: String,
    image: Image,
    heard: Arc<Heard>,
    power: bool,
    /// The disk on which a next victim may go on.
    next: Option<Disk>,
}

/// How a life went on after each cut.
struct Trial {
    /// What the next victim goes on with.
    next: Option<Start>,
    kills: usize,
    power_cuts: usize,
    losses: Vec<String>,
}

/// Every state that one life can be cut short in, one after the other, with those that a random power cut leaves.
/// With `next_after_kill`, a next victim may find what a kill has left while the database was not on disk;
/// otherwise what a power cut has left.
fn each_cut(life: &Life, next_after_kill: bool, rng: &mut StdRng, mut found: impl FnMut(Found)) {
    let mut disk = life.start.disk.clone();
    let mut number = rng.random_range(0..NEXT_EVERY);
    let mut heard = Arc::new(Heard::default());
    for (at, step) in life.recording.steps.iter().enumerate() {
        disk.take(&life.recording, step);
        if let Step::Said(line) = step {
            Arc::make_mut(&mut heard).hear(line);
        }
        let mut tell = |image, what: &str, power| {
            let cut = format!("step {at}, after {}, {what}", shown(step, &life.recording));
            number += 1;
            let next = match power {
                true if !next_after_kill && number % NEXT_EVERY == 0 => Some(Disk::new(&image, Syncs::All)),
                false if next_after_kill && heard.incarnation.is_some() && writes_database(step, &life.recording) => {
                    Some(disk.killed())
                }
                true | false => None,
            };
            found(Found { cut, image, heard: Arc::clone(&heard), power, next });
        };
        match step {
            // A kill shows what the kernel has; other steps do not change that.
            Step::Ends(call) if !matches!(life.recording.calls[*call], Change::Sync { .. }) => {
                tell(disk.after(Cut::Kill), "killed", false);
            }
            Step::Begins(call) => {
                if let Some(image) = disk.after_kill_within(*call, rng) {
                    tell(image, "killed within", false);
                }
            }
            Step::Said(line) if line.starts_with("ack ") => {
                tell(disk.after(Cut::Kill), "killed", false);
                tell(disk.after(Cut::Power), "power cut", true);
            }
            Step::Ends(_) | Step::Said(_) => {}
        }
        if matches!(step, Step::Ends(_)) {
            tell(disk.after(Cut::Power), "power cut", true);
            for _ in 1..POWER_CUTS {
                let (cut, what) = match rng.random() {
                    true => (Cut::PowerSome(rng), "power cut, some writes kept"),
                    false => (Cut::PowerTorn(rng), "power cut, some sectors kept"),
                };
                tell(disk.after(cut), what, true);
            }
        }
    }
}

fn writes_database(step: &Step, recording: &Recording) -> bool {
    let Step::Ends(call) = step else { return false };
    matches!(&recording.calls[*call], Change::Write { path, .. } if path == Path::new("store/db"))
}

fn shown(step: &Step, recording: &Recording) -> String {
    let call = |call: &usize| match &recording.calls[*call] {
        Change::Write { path, offset, bytes } => {
            format!("write of {} bytes at {offset} of {}", bytes.len(), path.display())
        }
        change => format!("{change:?}"),
    };
    match step {
        Step::Begins(index) => format!("the begin of {}", call(index)),
        Step::Ends(index) => format!("the end of {}", call(index)),
        Step::Said(line) => format!("\"{line}\""),
    }
}

/// Opens a store on every cut of `life`, on some threads.
fn try_all(life: &Life, next_after_kill: bool, rng: &mut StdRng) -> Trial {
    let dir = scratch();
    let (queue, cuts) = sync_channel::<Found>(2 * WORKERS);
    let (cuts, number) = (Mutex::new(cuts), AtomicUsize::new(0));
    let trial = Mutex::new(Trial { next: None, kills: 0, power_cuts: 0, losses: Vec::new() });
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                loop {
                    let Ok(found) = cuts.lock().unwrap().recv() else { break };
                    let place = dir.path().join(number.fetch_add(1, Ordering::Relaxed).to_string());
                    let result = runtime.block_on(try_one(&place, &life.start, &found));
                    trial.lock().unwrap().note(&life.start, found, result);
                }
            });
        }
        each_cut(life, next_after_kill, rng, |found| queue.send(found).expect("somebody opens it"));
        drop(queue);
    });
    trial.into_inner().unwrap()
}

impl Trial {
    fn note(&mut self, start: &Start, found: Found, result: Result<Model, String>) {
        self.power_cuts += usize::from(found.power);
        self.kills += usize::from(!found.power);
        match result {
            Ok(finds) => {
                let Some(disk) = found.next else { return };
                // What a kill leaves may still be lost until somebody has opened it.
                let past = match found.power {
                    true => Past { model: finds.clone(), ..Past::default() },
                    false => Past { model: start.finds.clone(), heard: found.heard },
                };
                self.next = Some(Start { disk, past, finds });
            }
            Err(loss) => self.losses.push(format!("{}: {loss}", found.cut)),
        }
    }

    /// Some of the losses, in full.
    fn shown(&self) -> String {
        let (losses, kills, power_cuts) = (&self.losses, self.kills, self.power_cuts);
        let some = losses.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("\n");
        format!("{} of {kills} kills and {power_cuts} power cuts lost something:\n{some}", losses.len())
    }
}

async fn try_one(place: &Path, start: &Start, found: &Found) -> Result<Model, String> {
    found.image.put(place).expect("put the files there");
    let opened = Store::open(place, "test", &"a".into());
    let result = match opened {
        // No cut damages what was acknowledged, so none is a reason to refuse.
        Err(refusal) => Err(refusal.to_string()),
        Ok(mut opened) if found.heard.incarnation.is_some() => found.heard.check(&start.finds, &mut opened).await,
        Ok(mut opened) => start.past.heard.check(&start.past.model, &mut opened).await,
    };
    let _ = std::fs::remove_dir_all(place);
    result
}

#[test]
fn no_cut_between_two_writes_loses_what_was_acknowledged() {
    let (mut rng, replay) = seeded("no_cut_between");
    let (mut next, mut acknowledged, mut kills, mut power_cuts) = (nothing(Syncs::All), 0, 0, 0);
    for number in 0..LIVES_MAX {
        if kills >= CUTS_MIN && power_cuts >= CUTS_MIN {
            break;
        }
        let script = Script { seed: rng.random(), ops: OPS, too_early: false };
        let life = live(next, &script);
        if !may_trace(&life) {
            return;
        }
        let life = life.expect("trace a victim");
        let said_ack = |step: &&Step| matches!(step, Step::Said(line) if line.starts_with("ack "));
        acknowledged += life.recording.steps.iter().filter(said_ack).count();
        let trial = try_all(&life, number % 2 == 0, &mut rng);
        assert!(trial.losses.is_empty(), "life {number}: {}\n{replay}", trial.shown());
        kills += trial.kills;
        power_cuts += trial.power_cuts;
        next = trial.next.expect("some cut can be gone on from");
    }
    println!("{kills} kills, {power_cuts} power cuts, {acknowledged} acknowledgements");
    assert!(kills >= CUTS_MIN && power_cuts >= CUTS_MIN, "too few cuts: {kills} kills, {power_cuts} power cuts");
    assert!(acknowledged >= 100, "only {acknowledged} acknowledgements");
}

/// What the same cuts find in one life of a victim that is wrong, or on a disk that is.
fn losses_of(test: &str, too_early: bool, syncs: Syncs) -> Option<(Trial, String)> {
    let (mut rng, replay) = seeded(test);
    let script = Script { seed: rng.random(), ops: OPS, too_early };
    let life = live(nothing(syncs), &script);
    may_trace(&life).then(|| (try_all(&life.expect("trace a victim"), true, &mut rng), replay))
}

#[test]
fn a_writer_that_acknowledges_before_the_flush_is_found_out() {
    let Some((trial, replay)) = losses_of("a_writer_that_acknowledges", true, Syncs::All) else { return };
    assert!(trial.losses.iter().any(|loss| loss.contains("which is no state after")), "{}\n{replay}", trial.shown());
}

#[test]
fn a_disk_that_ignores_fdatasync_is_found_out() {
    let Some((trial, replay)) = losses_of("a_disk_that_ignores_fdatasync", false, Syncs::NotOfData) else { return };
    assert!(!trial.losses.is_empty(), "{}\n{replay}", trial.shown());
    let kill = trial.losses.iter().find(|loss| loss.contains("killed"));
    assert_eq!(kill, None, "a kill takes nothing from the kernel");
}

#[test]
fn a_disk_that_ignores_the_fsync_of_directories_is_found_out() {
    let Some((trial, replay)) = losses_of("a_disk_that_ignores_the_fsync", false, Syncs::NotOfDirs) else { return };
    assert!(!trial.losses.is_empty(), "{}\n{replay}", trial.shown());
}

/// An empty directory.
fn nothing(syncs: Syncs) -> Start {
    Start { disk: Disk::new(&Image::default(), syncs), past: Past::default(), finds: Model::default() }
}
