//! A member's store that somebody copied and brought back: its coordinator does not start on it, and says why and what
//! to do. One that was moved starts as before.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::kit::program::{Running, baton, coordinator_in, free_addresses};
use rustix::process::{Pid, Signal, kill_process};

const BOUND: Duration = Duration::from_secs(60);

const CONFIG: &str = r#"
[member]
id = "b"
state_dir = "state"
run_dir = "run"
[cluster]
name = "one"
listen = "LISTEN"
members = [
  { id = "a", addr = "ADDR_A" },
  { id = "b", addr = "LISTEN", role = "arbiter" },
]
"#;

/// b, an arbiter whose only peer is down.
struct Arbiter {
    dir: tempfile::TempDir,
}

impl Arbiter {
    fn new() -> Arbiter {
        let dir = tempfile::tempdir().expect("a directory");
        let [listen, other] = free_addresses();
        fs::write(dir.path().join("baton.toml"), CONFIG.replace("LISTEN", &listen).replace("ADDR_A", &other))
            .expect("a configuration");
        Arbiter { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Started, seen to serve and told to end.
    fn runs_once(&self) {
        let before = fs::read(self.path("state/starts")).ok();
        let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
        let runs = log().matches("coordinator runs").count();
        let mut running = Running(coordinator_in(self.dir.path()).spawn().expect("it runs"));
        let began_at = Instant::now();
        while log().matches("coordinator runs").count() == runs {
            assert!(matches!(running.0.try_wait(), Ok(None)), "the coordinator ended: {}", log());
            assert!(began_at.elapsed() < BOUND, "the coordinator does not run: {}", log());
            sleep(Duration::from_millis(20));
        }
        assert_ne!(fs::read(self.path("state/starts")).ok(), before, "this start was counted");
        kill_process(Pid::from_child(&running.0), Signal::TERM).expect("its end is asked for");
        running.0.wait().expect("it ended");
    }

    /// What a start says that is refused as bad input, and `baton check` before.
    fn refusal(&self) -> String {
        let check = baton(&["check", "--config"]).arg(self.path("baton.toml")).output().expect("it runs");
        let checked = String::from_utf8(check.stderr).expect("UTF-8");
        let mut running = Running(coordinator_in(self.dir.path()).spawn().expect("it runs"));
        let (began_at, log) = (Instant::now(), || fs::read_to_string(self.path("log")).unwrap_or_default());
        let status = loop {
            if let Some(status) = running.0.try_wait().expect("our child") {
                break status;
            }
            assert!(began_at.elapsed() < BOUND, "the coordinator runs on: {}", log());
            sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(2), "{}", log());
        let refusal = log().lines().last().expect("a line").to_string();
        assert_eq!((check.status.code(), checked.trim_end()), (Some(2), refusal.as_str()), "of baton check");
        refusal
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for file in fs::read_dir(from).expect("a directory").map(|file| file.expect("a file").path()) {
        let to = to.join(file.file_name().expect("a name"));
        if file.is_dir() {
            copy(&file, &to);
        } else {
            fs::copy(&file, to).expect("copied");
        }
    }
}

#[test]
fn a_state_dir_that_is_restored_from_the_last_run_is_refused_until_an_operator_vouches_for_it() {
    let arbiter = Arbiter::new();
    let (state, backup) = (arbiter.path("state"), arbiter.path("backup"));
    arbiter.runs_once();
    copy(&state, &backup);
    fs::remove_dir_all(&state).expect("removed");
    copy(&backup, &state);
    let starts = fs::read(state.join("starts")).expect("counted");
    let said = arbiter.refusal();
    let words =
        ["state is a copy: its database file", "add it anew with member.join = true", "/state/origin and start again"];
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert_eq!(fs::read(state.join("starts")).expect("counted"), starts, "a start that is refused is none");
    fs::remove_file(state.join("origin")).expect("removed");
    arbiter.runs_once();
}

#[test]
fn a_store_that_was_moved_or_is_of_before_there_were_records_starts() {
    let arbiter = Arbiter::new();
    arbiter.runs_once();
    fs::rename(arbiter.path("state"), arbiter.path("aside")).expect("moved");
    fs::create_dir(arbiter.path("state")).expect("a directory");
    for name in ["store", "starts", "origin"] {
        fs::rename(arbiter.path("aside").join(name), arbiter.path("state").join(name)).expect("moved");
    }
    arbiter.runs_once();
    fs::remove_file(arbiter.path("state/origin")).expect("removed");
    arbiter.runs_once();
    assert!(arbiter.path("state/origin").exists(), "its first start with this version records it");
}

#[test]
fn a_store_that_is_made_anew_beside_what_an_earlier_one_left_starts() {
    let arbiter = Arbiter::new();
    arbiter.runs_once();
    fs::remove_dir_all(arbiter.path("state/store")).expect("removed");
    arbiter.runs_once();
    arbiter.runs_once();
}
