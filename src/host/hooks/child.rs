//! The process of a hook, and what it does not get of the coordinator's: capabilities, new privileges, priorities, open
//! files, and variables but for a few.

use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_no_new_privs};

use super::HookOrder;
use crate::base::realtime;

/// What a hook gets of the coordinator's own environment.
const KEPT: [&str; 15] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];
/// The kernel takes a hook first when memory runs out.
const OOM_SCORE: &[u8] = b"1000";
/// For kernels without `close_range`: more than a coordinator usually has open.
const FDS_MAX: libc::c_int = 4096;

/// In a process group of its own, with standard input empty and both outputs at `output`. It dies with the calling thread.
///
/// # Errors
/// Nothing runs.
pub(super) fn start(order: &HookOrder, output: OwnedFd) -> io::Result<Child> {
    let (program, arguments) = order.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(KEPT.into_iter().filter_map(|name| Some((name, env::var_os(name)?))))
        .envs(order.facts.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0);
    let us = getpid();
    // SAFETY: the closure makes system calls only; it takes no lock and allocates nothing.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || give_up_all(us))
    };
    command.spawn()
}

/// In the child, between fork and exec.
fn give_up_all(coordinator: Pid) -> io::Result<()> {
    // A host without /proc does without.
    if let Ok(file) = rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::write(file, OOM_SCORE);
    }
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    close_at_exec();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(coordinator) {
        // It died before the line above.
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    // Invariant: whatever a hook does with the processor delays no move. Last, since until it executes this child has all
    // of the coordinator's files open.
    realtime::wait_for_all()
}

/// All but standard input, output and error: not every library marks what it opens.
fn close_at_exec() {
    const FIRST: libc::c_int = 3;
    // SAFETY: the calls take no pointers, and close nothing before this child executes or ends.
    #[allow(unsafe_code)]
    unsafe {
        if libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) != 0 {
            for fd in FIRST..FDS_MAX {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}
