//! Real-time scheduling (SCHED_RR) for the threads that a lease waits for: on a starved host they run before everything
//! that has no such priority. The guard takes it, and in the coordinator the thread of Raft, gossip and the core.
//! The thread of operators and monitors, and the store's, which spin for one another, have none.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{SCHED_OTHER, SCHED_RESET_ON_FORK, SCHED_RR, SYS_sched_setscheduler, c_int};
use rustix::process::{getpriority_process, setpriority_process};

/// The lowest two of the real-time priorities 1 to 99: whatever else on the host is real-time goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Priority {
    Coordinator = 1,
    /// Invariant (fence 1): a guard is not late because a coordinator is busy.
    Guard = 2,
}

impl Priority {
    pub const fn number(self) -> i32 {
        self as i32
    }
}

/// The calling thread is scheduled with `priority` from now on. Threads and processes that it starts are not, and have
/// the nice value 0.
///
/// # Errors
/// EPERM: neither CAP_SYS_NICE nor an RLIMIT_RTPRIO of `priority`, or a control group without real-time budget. Nothing
/// has changed then.
pub fn take(priority: Priority) -> io::Result<()> {
    set(SCHED_RR | SCHED_RESET_ON_FORK, priority.number())
}

/// The calling thread has no real-time priority any more, whoever gave it one: also one that was started with it, which
/// [`take`] never hands down.
///
/// # Errors
/// Nothing has changed. The kernel refuses it to nobody.
pub fn give_up() -> io::Result<()> {
    set(SCHED_OTHER, 0)
}

fn set(policy: c_int, priority: c_int) -> io::Result<()> {
    const THIS_THREAD: c_int = 0;
    // The kernel's `struct sched_param`; musl's function of this name always fails, hence the bare system call.
    let parameters: c_int = priority;
    // SAFETY: sched_setscheduler(2) reads one int behind the pointer, which outlives the call, and keeps nothing.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(SYS_sched_setscheduler, THIS_THREAD, policy, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What `command` starts gets the nice value that we were given: what a real-time thread starts would have none. As far
/// as the kernel lets us.
pub fn keep_nice(command: &mut Command) {
    let nice = getpriority_process(None).unwrap_or(0);
    if nice != 0 {
        // SAFETY: one system call, no allocation and no lock.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || {
                let _ = setpriority_process(None, nice);
                Ok(())
            })
        };
    }
}
