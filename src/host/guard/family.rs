//! Everything below the guard in the process tree. Since the guard is a subreaper, an orphan becomes its
//! child, and "the guard has no child" means "nothing that the chain node ever started is left".

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, wait};

use crate::base::time::BootTime;

/// Between two rounds of killing what a failed start left.
const ROUND: Duration = Duration::from_millis(1);

/// Sends SIGKILL to every descendant found now. A child that is born meanwhile is found the next time.
pub(super) fn strike() {
    for pid in descendants(getpid()) {
        // It may have ended since; nothing else can have its number before we or its parent reap it.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Goes the way of a kill once while there is nobody to kill: locked memory keeps what it has touched, so
/// that the real one waits for no disk.
pub(super) fn rehearse() {
    strike();
    let _ = reap();
}

pub(super) enum Reaped {
    Child(Pid, WaitStatus),
    /// Children live, none has ended.
    NoneEnded,
    /// There is no child, and so no descendant.
    NoneLeft,
}

pub(super) fn reap() -> Reaped {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if status.exited() || status.signaled() => return Reaped::Child(pid, status),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => (),
            Ok(None) => return Reaped::NoneEnded,
            // ECHILD is the only other answer to these arguments.
            Err(_) => return Reaped::NoneLeft,
        }
    }
}

/// Kills everything below us and waits for its end. False when something is left after `bound`.
pub(super) fn end_within(bound: Duration) -> bool {
    let until = BootTime::now() + bound;
    loop {
        strike();
        loop {
            match reap() {
                Reaped::Child(..) => (),
                Reaped::NoneEnded => break,
                Reaped::NoneLeft => return true,
            }
        }
        if BootTime::now() >= until {
            return false;
        }
        std::thread::sleep(ROUND);
    }
}

/// Reads every /proc/PID/stat: `children` files exist only in kernels built with them.
fn descendants(root: Pid) -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            && let Some(parent) = parent_of(pid)
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root.as_raw_nonzero().get()];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc(5): "pid (comm) state ppid …"; comm may hold spaces and parentheses.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
