//! Everything below the guard in the process tree. Since the guard is a subreaper, an orphan becomes its
//! child, and "the guard has no child" means "nothing that the chain node ever started is left".

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, getpid, kill_process, wait, waitid,
};

use crate::base::realtime;
use crate::base::time::BootTime;

/// Between two rounds of killing what a failed start left.
const ROUND: Duration = Duration::from_millis(1);

/// Sends SIGKILL to every descendant found now. A child that is born meanwhile is found the next time. Without a
/// priority: who looks up a process in /proc that has just been reaped helps the kernel to forget it, and may spin.
pub(super) fn strike() {
    for pid in realtime::without_priority(|| descendants(getpid())) {
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

/// Looks with the priority of the guard, and reaps without it: that may spin for others (`realtime::without_priority`).
pub(super) fn reap() -> Reaped {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        match waitid(WaitId::All, look) {
            Ok(Some(_)) => (),
            Ok(None) => return Reaped::NoneEnded,
            Err(Errno::INTR) => continue,
            // ECHILD is the only other answer to these arguments.
            Err(_) => return Reaped::NoneLeft,
        }
        if let Ok(Some((pid, status))) = realtime::without_priority(|| wait(WaitOptions::NOHANG))
            && (status.exited() || status.signaled())
        {
            return Reaped::Child(pid, status);
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
