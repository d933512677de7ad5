//! Finds, signals and awaits the processes of a network by what /proc says about them: every one
//! carries the marker variable with the network's folder. No pid file is trusted, so a process that
//! lost its parent is found too. Called by the faults, by `down` and by the keeper.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// Holds the absolute folder of the network; inherited by everything that a marked process starts.
pub const MARKER: &str = "BATON_LOCALNET";
/// Holds the host or genesis validator that a process belongs to.
pub const HOST_MARKER: &str = "LOCALNET_HOST";

const TERM_GRACE: Duration = Duration::from_millis(1000);
const KILL_BOUND: Duration = Duration::from_secs(10);

/// A running process of the network. Zombies have no environment and are not listed.
#[derive(Clone, Debug, PartialEq)]
pub struct Proc {
    pub pid: i32,
    /// Value of [`HOST_MARKER`], empty when there is none.
    pub host: String,
    pub argv: Vec<String>,
}

impl Proc {
    /// Last component of the program's path.
    pub fn program(&self) -> &str {
        let first = self.argv.first().map(String::as_str).unwrap_or_default();
        first.rsplit('/').next().unwrap_or_default()
    }
}

/// Every process that carries the marker of `dir`, but not the caller itself.
pub fn marked(dir: &Path) -> Vec<Proc> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id() as i32;
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own).filter_map(|pid| read_marked(pid, dir)).collect()
}

fn read_marked(pid: i32, dir: &Path) -> Option<Proc> {
    let environment = read_strings(pid, "environ")?;
    let env: BTreeMap<&[u8], &[u8]> = environment.iter().filter_map(|line| split_once(line, b'=')).collect();
    if env.get(MARKER.as_bytes()).map(|value| OsStr::from_bytes(value)) != Some(dir.as_os_str()) {
        return None;
    }
    let host = env.get(HOST_MARKER.as_bytes()).map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default();
    let argv = read_strings(pid, "cmdline")?;
    Some(Proc { pid, host, argv: argv.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect() })
}

/// The zero-terminated strings of /proc/PID/FILE; `None` when the process is gone.
fn read_strings(pid: i32, file: &str) -> Option<Vec<Vec<u8>>> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).ok()?;
    Some(bytes.split(|b| *b == 0).filter(|s| !s.is_empty()).map(<[u8]>::to_vec).collect())
}

fn split_once(line: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let i = line.iter().position(|b| *b == at)?;
    Some((&line[..i], &line[i + 1..]))
}

/// Signals every one of `procs`, in order, before it returns; one that is gone already counts as done.
///
/// # Errors
/// The signal is not permitted; those before it have been signalled.
pub fn signal(procs: &[Proc], signal: Signal) -> Result<()> {
    for proc in procs {
        let Some(pid) = Pid::from_raw(proc.pid) else { continue };
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(e) => bail!("send {signal:?} to {} (pid {}): {e}", proc.program(), proc.pid),
        }
    }
    Ok(())
}

/// Pins processes, so that their end can be awaited without a race with pid reuse.
pub struct Awaited(Vec<OwnedFd>);

impl Awaited {
    pub fn new(procs: &[Proc]) -> Self {
        let open = |proc: &Proc| pidfd_open(Pid::from_raw(proc.pid)?, PidfdFlags::empty()).ok();
        Awaited(procs.iter().filter_map(open).collect())
    }

    /// True when all have ended within `bound`.
    pub fn ended_within(mut self, bound: Duration) -> bool {
        let deadline = Instant::now() + bound;
        while !self.0.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let mut fds: Vec<PollFd> = self.0.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            if poll(&mut fds, Some(&timeout)).is_err() {
                continue; // interrupted by a signal; the deadline still holds
            }
            let ended: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            let mut ended = ended.into_iter();
            self.0.retain(|_| !ended.next().unwrap_or(false));
        }
        true
    }
}

/// Nothing that carries the marker of `dir` runs any more. SIGTERM first, SIGKILL after a second;
/// what starts meanwhile is caught by the next look.
///
/// # Errors
/// Something survived SIGKILL; it is named.
pub fn sweep(dir: &Path) -> Result<usize> {
    let first = marked(dir);
    if first.is_empty() {
        return Ok(0);
    }
    let awaited = Awaited::new(&first);
    signal(&first, Signal::TERM)?;
    signal(&first, Signal::CONT)?;
    awaited.ended_within(TERM_GRACE);
    let deadline = Instant::now() + KILL_BOUND;
    loop {
        let left = marked(dir);
        if left.is_empty() {
            return Ok(first.len());
        }
        if Instant::now() > deadline {
            bail!("these processes survived SIGKILL for {KILL_BOUND:?}: {}", describe(&left));
        }
        let awaited = Awaited::new(&left);
        signal(&left, Signal::KILL)?;
        awaited.ended_within(Duration::from_secs(1));
    }
}

/// `pid program` of each, for messages.
pub fn describe(procs: &[Proc]) -> String {
    procs.iter().map(|p| format!("{} {}", p.pid, p.program())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// A shell that starts a grandchild, prints a line when both are there, and ignores SIGTERM.
    fn stubborn(dir: &Path, host: &str) -> std::process::Child {
        use std::io::Read;
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; sleep 300 & echo ready; wait; wait"])
            .env(MARKER, dir)
            .env(HOST_MARKER, host)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        child
    }

    #[test]
    fn a_sweep_ends_processes_that_ignore_sigterm_and_their_children_and_no_others() {
        let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut child, mut bystander) = (stubborn(ours.path(), "host-a"), stubborn(other.path(), "host-a"));
        let seen = marked(ours.path());
        assert!(seen.len() >= 2 && seen.iter().all(|p| p.host == "host-a"), "{seen:?}");
        sweep(ours.path()).unwrap();
        child.wait().unwrap();
        assert_eq!(marked(ours.path()), []);
        assert!(bystander.try_wait().unwrap().is_none(), "the sweep ended a process of another network");
        sweep(other.path()).unwrap();
        bystander.wait().unwrap();
    }

    #[test]
    fn a_stopped_process_is_swept_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = stubborn(dir.path(), "host-b");
        signal(&marked(dir.path()), Signal::STOP).unwrap();
        sweep(dir.path()).unwrap();
        child.wait().unwrap();
        assert_eq!(marked(dir.path()), []);
    }
}
