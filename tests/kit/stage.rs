//! A folder for one coordinator: its configuration, its log, and what it leaves, which ends with the test.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::program::fence;

/// Long enough for a busy machine under ptrace.
const BOUND: Duration = Duration::from_secs(90);

pub struct Stage(tempfile::TempDir);

impl Drop for Stage {
    fn drop(&mut self) {
        fence(self);
    }
}

impl Deref for Stage {
    type Target = Path;

    fn deref(&self) -> &Path {
        self.0.path()
    }
}

impl Stage {
    /// With a home and `config` as `baton.toml`.
    pub fn new(config: &str) -> Stage {
        let stage = Stage(tempfile::tempdir().expect("a directory"));
        std::fs::create_dir(stage.path("home")).expect("a home");
        std::fs::write(stage.path("baton.toml"), config).expect("a configuration");
        stage
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.join(name)
    }

    /// In the configuration.
    pub fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("baton.toml")).expect("readable");
        assert!(text.contains(from), "the configuration has no {from:?}");
        std::fs::write(self.path("baton.toml"), text.replacen(from, to, 1)).expect("writable");
    }

    /// What the coordinator has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let began_at = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(began_at.elapsed() < BOUND, "not {what}:\n{}", self.log());
            sleep(Duration::from_millis(20));
        }
    }
}
