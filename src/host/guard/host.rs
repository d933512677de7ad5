//! What the guard asks of its host before it serves: memory that stays, processor time that comes, and to
//! be the parent of every orphan below it. What is refused is told and done without; all of it but the
//! orphans is only a matter of speed. The chain node gets the old values back.

use std::ffi::CStr;
use std::io;

use rustix::fs::{Mode, OFlags};
use rustix::process::{self, Resource, Rlimit};

use super::say;
use crate::base::closed_memory::lock_memory;
use crate::base::realtime::{self, Priority};

const OOM_SCORE: &CStr = c"/proc/self/oom_score_adj";
/// Unlikely to be chosen, yet not exempt.
const GUARD_OOM_SCORE: &str = "-900";
const GUARD_NICE: i32 = -10;

/// The values to restore in the chain node.
#[derive(Clone, Debug)]
pub(super) struct Before {
    nice: i32,
    memlock: Rlimit,
    oom_score: Option<String>,
}

/// # Errors
/// When the guard cannot become the parent of orphans: then it could not prove what it kills.
pub(super) fn prepare() -> io::Result<Before> {
    // Fails in a process that leads its group already, as one started from a shell does; then it may stay.
    let _ = process::setsid();
    process::set_child_subreaper(Some(process::getpid()))?;
    let before = Before::now();
    if let Err(e) = realtime::take(Priority::Guard) {
        say(&format!(
            "no real-time priority: {e}; going on, on a starved host the kernel's timer may kill in its place"
        ));
        // With one, the nice value counts while the guard does without: then it is not to be ahead of others.
        if let Err(e) = process::setpriority_process(None, GUARD_NICE.min(before.nice)) {
            say(&format!("no higher priority (nice {GUARD_NICE}): {e}; going on"));
        }
    }
    if let Err(e) = std::fs::write("/proc/self/oom_score_adj", GUARD_OOM_SCORE) {
        say(&format!("no protection from the OOM killer ({GUARD_OOM_SCORE}): {e}; going on"));
    }
    // `family::rehearse` touches what a kill needs.
    if let Err(e) = lock_memory() {
        say(&format!("memory is not locked: {e}; going on, a loaded host may page the guard out"));
    }
    Ok(before)
}

impl Before {
    pub(super) fn now() -> Before {
        Before {
            nice: process::getpriority_process(None).unwrap_or(0),
            memlock: process::getrlimit(Resource::Memlock),
            oom_score: std::fs::read_to_string("/proc/self/oom_score_adj").ok(),
        }
    }

    /// Gives the calling process the values from before. Runs between fork and exec: system calls alone,
    /// no allocation. What the kernel refuses stays as it is.
    pub(super) fn restore(&self) {
        self.restore_limits();
        if let Some(score) = &self.oom_score
            && let Ok(file) = rustix::fs::open(OOM_SCORE, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        {
            let _ = rustix::io::write(file, score.as_bytes());
        }
    }

    /// Those of them that take a privilege to raise.
    pub(super) fn restore_limits(&self) {
        let _ = process::setpriority_process(None, self.nice);
        let _ = process::setrlimit(Resource::Memlock, Rlimit { ..self.memlock });
    }
}
