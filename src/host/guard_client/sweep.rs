//! Proof that no process of a dead guard is left: finds what carries the guard's marker, the members of the
//! chain node's session and all their children, kills them and waits for their end.
//!
//! It cannot see a process that was started by setuid to another user or that cleared its own environment,
//! left the session and lost its parent; such a chain node is not to be run under baton.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::base::guard_frame::GUARD_MARKER;
use crate::base::processes::{self, Environment};
use crate::base::time::BootTime;

/// A process that stays the same one although its number may be used again.
#[derive(Debug)]
pub(super) struct Held {
    pid: u32,
    pidfd: OwnedFd,
}

impl Held {
    /// `None` when no such process exists.
    pub(super) fn open(pid: u32) -> io::Result<Option<Held>> {
        let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Some(Held { pid, pidfd })),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn kill(&self) {
        // It may be dead already; `is_dead_within` tells.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Blocks until the process has ended, all its threads included.
    pub(super) fn is_dead_within(&self, bound: Duration) -> bool {
        let until = BootTime::now() + bound;
        loop {
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            let left = Timespec::try_from(until.since(BootTime::now())).unwrap_or_default();
            match poll(&mut fds, Some(&left)) {
                Ok(ready) => return ready > 0,
                Err(rustix::io::Errno::INTR) => (),
                Err(_) => return false,
            }
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.is_dead_within(Duration::ZERO)
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error("processes {pids:?} of an earlier guard on {socket} did not end within {bound:?} of SIGKILL; end them")]
    StillThere { pids: Vec<u32>, socket: String, bound: Duration },
    #[error(
        "processes {pids:?} have been about to run another program for {bound:?}, and may be of an earlier guard on \
         {socket}; end them, or see to the disk of their programs"
    )]
    Unclear { pids: Vec<u32>, socket: String, bound: Duration },
    #[error("read /proc: {0}")]
    Proc(io::Error),
}

/// Between two looks at processes of which it cannot be told whose they are.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Kills everything that a guard on `socket` left behind, and `node` with its session. Afterwards no
/// chain node of that guard runs. The result is the processes that it had to kill.
///
/// Invariant (the proof of a node's end, rule (c)): a process that is about to run another program shows no marker, and
/// is waited for.
pub(super) fn sweep(socket: &Path, node: Option<&Held>, bound: Duration) -> Result<Vec<u32>, SweepError> {
    let until = BootTime::now() + bound;
    let mut killed = BTreeSet::new();
    // A scan is no snapshot: what it finds nothing in, it looks at once more.
    let mut clean_scans = 0;
    while clean_scans < 2 {
        let Strays { found, unclear } = strays(socket, node)?;
        clean_scans = if found.is_empty() && unclear.is_empty() { clean_scans + 1 } else { 0 };
        found.iter().for_each(Held::kill);
        killed.extend(found.iter().map(Held::pid));
        let left: Vec<u32> =
            found.iter().filter(|held| !held.is_dead_within(until.since(BootTime::now()))).map(Held::pid).collect();
        if !left.is_empty() {
            return Err(SweepError::StillThere { pids: left, socket: socket.display().to_string(), bound });
        }
        if !unclear.is_empty() {
            if BootTime::now() >= until {
                return Err(SweepError::Unclear { pids: unclear, socket: socket.display().to_string(), bound });
            }
            sleep(LOOK_AGAIN);
        }
    }
    Ok(killed.into_iter().collect())
}

/// Kills without waiting: what the guard on `socket` should have done when its deadline passed.
pub(super) fn strike(socket: &Path, node: Option<&Held>) -> Result<usize, SweepError> {
    let found = strays(socket, node)?.found;
    found.iter().for_each(Held::kill);
    Ok(found.len())
}

struct Strays {
    found: Vec<Held>,
    /// They show no environment at this moment.
    unclear: Vec<u32>,
}

/// The living processes that belong to the guard on `socket`, held open.
fn strays(socket: &Path, node: Option<&Held>) -> Result<Strays, SweepError> {
    let all = processes::all().map_err(SweepError::Proc)?;
    let own = std::process::id();
    // As long as anything is left of the session, the kernel gives its number to nobody else.
    let session = node.map(Held::pid);
    let (mut roots, mut unclear) = (BTreeSet::new(), BTreeSet::new());
    for process in all.iter().filter(|process| process.pid != own) {
        let is_of_node = Some(process.session) == session || Some(process.pid) == session;
        match if is_of_node { Some(true) } else { carries_marker(process.pid, socket) } {
            Some(true) => drop(roots.insert(process.pid)),
            Some(false) => {}
            None => drop(unclear.insert(process.pid)),
        }
    }
    let ours = processes::family(roots, &all, own);
    let mut found = Vec::new();
    for process in all.iter().filter(|p| ours.contains(&p.pid)) {
        let Some(open) = Held::open(process.pid).map_err(SweepError::Proc)? else { continue };
        // The same number and the same start: it is still the process that was looked at.
        let same = processes::stat(process.pid).is_some_and(|again| again.started == process.started);
        if same && !open.is_dead() {
            found.push(open);
        }
    }
    Ok(Strays { found, unclear: unclear.difference(&ours).copied().collect() })
}

/// Whether the process was started under the guard on `socket`; `None` when that does not show at this moment.
pub(super) fn carries_marker(pid: u32, socket: &Path) -> Option<bool> {
    let wanted = [GUARD_MARKER.as_bytes(), b"=", socket.as_os_str().as_encoded_bytes()].concat();
    match processes::environment(pid) {
        Environment::Of(environment) => Some(environment.split(|byte| *byte == 0).any(|variable| variable == wanted)),
        Environment::None => Some(false),
        Environment::Unclear => None,
    }
}
