//! A process that uses the store dies again and again, by SIGKILL at random moments and at every boundary of its
//! writes, as a kill leaves the files and as a power cut does. What it was told is durable must be there
//! afterwards, and what is there must be what it wrote, in order.
//!
//! The victim is this test binary, started again with `BATON_CRASH_DIR` set.

mod cuts;
mod kills;
#[path = "../../kit/mod.rs"]
mod kit;
mod script;

use std::path::Path;
use std::process::Command;

use rand::SeedableRng;
use rand::rngs::StdRng;
use script::Script;

const DIR: &str = "BATON_CRASH_DIR";
const SEED: &str = "BATON_CRASH_SEED";
const OPS: &str = "BATON_CRASH_OPS";
const TOO_EARLY: &str = "BATON_CRASH_TOO_EARLY";

/// The victim. Without the environment of one, there is nothing to do.
#[tokio::test]
async fn victim() {
    let Ok(dir) = std::env::var(DIR) else { return };
    crate::kit::crash::trace::wait_for_tracer();
    let number = |name| std::env::var(name).expect("a number is set").parse().expect("a number");
    let too_early = std::env::var_os(TOO_EARLY).is_some();
    script::play(Path::new(&dir), Script { seed: number(SEED), ops: number(OPS), too_early }).await;
}

/// It waits for a line on its standard input.
fn victim_command(dir: &Path, script: &Script) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "victim", "--nocapture"]).env(DIR, dir);
    command.env(SEED, script.seed.to_string()).env(OPS, script.ops.to_string());
    if script.too_early {
        command.env(TOO_EARLY, "1");
    }
    command
}

/// Random numbers of one test, and the command that repeats them.
fn seeded(test: &str) -> (StdRng, String) {
    let seed: u64 = match std::env::var("SEED") {
        Ok(seed) => seed.parse().expect("SEED is a number"),
        Err(_) => rand::random_range(0..1_000_000),
    };
    let replay = format!("SEED={seed} cargo test --test store_crash {test}");
    println!("{replay}");
    (StdRng::seed_from_u64(seed), replay)
}
