//! SIGKILL at random moments, one life after the other on the same files.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rand::RngExt;
use tempfile::TempDir;

use super::script::{Heard, Model, Script};
use super::{seeded, victim_command};
use crate::kit::storage::open;

const KILLS: u32 = 40;
const TIME_MAX: Duration = Duration::from_secs(10);
/// Fewer prove nothing; a slow machine takes its time for them.
const KILLS_MIN: u32 = 20;
const ACKNOWLEDGEMENTS_MIN: usize = 100;
const OPEN_MAX: Duration = Duration::from_secs(20);

/// From when a life counts.
#[derive(Clone, Copy)]
enum From {
    Start,
    Opened,
}

/// Starts a victim, kills it after `life`, and returns what it said.
fn run_and_kill(dir: &Path, seed: u64, from: From, life: Duration) -> Heard {
    let mut command = victim_command(dir, &Script { seed, ops: u64::MAX, too_early: false });
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start a victim");
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    child.stdin.take().expect("a pipe").write_all(b"go\n").expect("let the victim go");
    let (opened, is_open) = channel();
    let reader = std::thread::spawn(move || {
        let mut heard = Heard::default();
        for line in output.lines().map_while(Result::ok) {
            heard.hear(&line);
            if heard.incarnation.is_some() {
                // Only the first time somebody may wait for it.
                let _ = opened.send(());
            }
        }
        heard
    });
    if let From::Opened = from {
        is_open.recv_timeout(OPEN_MAX).expect("the victim opens its store");
    }
    std::thread::sleep(life);
    let ended_by_itself = child.try_wait().expect("wait");
    child.kill().expect("kill the victim");
    child.wait().expect("wait for the victim");
    let heard = reader.join().expect("what the victim said");
    assert!(ended_by_itself.is_none(), "the victim ended before it was killed: {ended_by_itself:?}");
    heard
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let (mut rng, replay) = seeded("a_killed_process");
    let dir = TempDir::new().unwrap();
    let (mut before, began) = (Model::default(), Instant::now());
    let (mut kills, mut acknowledgements, mut operations) = (0, 0, 0);
    let is_enough = |kills, acknowledgements| kills >= KILLS_MIN && acknowledgements > ACKNOWLEDGEMENTS_MIN;
    while kills < KILLS
        && (began.elapsed() < TIME_MAX || began.elapsed() < 4 * TIME_MAX && !is_enough(kills, acknowledgements))
    {
        let (from, life_ms_max) = if rng.random_range(0..3) == 0 { (From::Start, 150) } else { (From::Opened, 40) };
        let life = Duration::from_micros(rng.random_range(1_000..life_ms_max * 1_000));
        let heard = run_and_kill(dir.path(), rng.random(), from, life);
        kills += 1;
        acknowledgements += heard.acknowledged;
        operations += heard.ops.len();
        let found = heard.check(&before, &mut open(dir.path())).await;
        before = found.unwrap_or_else(|lost| panic!("kill {kills}: {lost}\nreplay (times differ): {replay}"));
    }
    println!("{kills} kills, {operations} operations, {acknowledgements} acknowledged, {:?}", began.elapsed());
    assert!(is_enough(kills, acknowledgements), "too slow to prove anything: {kills} kills, {acknowledgements}");
}
