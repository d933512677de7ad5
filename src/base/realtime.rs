//! Real-time scheduling (SCHED_RR) for the threads that a lease waits for: on a starved host they run before everything
//! that has no such priority. The guard takes it, and in the coordinator the thread of Raft, gossip and the core.
//! The thread of operators and monitors, and the store's, which spin for one another, have none. And the opposite, for
//! hooks.

use std::future::poll_fn;
use std::io;
use std::os::unix::process::CommandExt;
use std::pin::pin;
use std::process::Command;

use libc::{
    SCHED_IDLE, SCHED_OTHER, SCHED_RESET_ON_FORK, SCHED_RR, SYS_sched_getparam, SYS_sched_getscheduler,
    SYS_sched_setscheduler, c_int,
};
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

/// Does `work` without the real-time priority of the calling thread, which has it again afterwards.
///
/// It is for what may spin in the kernel until another thread goes on, as the reaping of a child does: the kernel takes
/// the child out of /proc, again and again while somebody else is about to do the same. With a priority, the one that
/// spins keeps the other from its processor for as long as real-time threads may: most of a second, in which no signal
/// ends it.
///
/// Invariant (fence 1): the guard is ready for its deadline, and its backstop can kill it.
pub fn without_priority<T>(work: impl FnOnce() -> T) -> T {
    let before = current().filter(|(policy, _)| policy & !SCHED_RESET_ON_FORK == SCHED_RR);
    // Without a privilege the flag cannot be taken back, and need not be.
    let given_up = before.filter(|_| set(SCHED_OTHER | SCHED_RESET_ON_FORK, 0).is_ok());
    let done = work();
    if let Some((policy, priority)) = given_up {
        // What was allowed once is allowed again: neither limits nor privileges of this process change.
        let _ = set(policy, priority);
    }
    done
}

/// As [`without_priority`], each time that `future` is polled: for one that reaps a child.
pub async fn polled_without_priority<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| without_priority(|| future.as_mut().poll(context))).await
}

/// Policy with flags, and priority of the calling thread.
fn current() -> Option<(c_int, c_int)> {
    let mut priority: c_int = 0;
    // SAFETY: both take the calling thread for 0, and the second writes one int behind the pointer, which outlives it.
    #[allow(unsafe_code)]
    let (policy, got) = unsafe {
        (
            libc::syscall(SYS_sched_getscheduler, THIS_THREAD),
            libc::syscall(SYS_sched_getparam, THIS_THREAD, &raw mut priority),
        )
    };
    let policy = c_int::try_from(policy).ok().filter(|policy| *policy >= 0)?;
    (got == 0).then_some((policy, priority))
}

const THIS_THREAD: c_int = 0;

/// The calling thread, and all that it starts, runs only while nobody else wants the processor (SCHED_IDLE).
///
/// # Errors
/// Nothing has changed. The kernel refuses it to nobody.
pub fn wait_for_all() -> io::Result<()> {
    set(SCHED_IDLE, 0)
}

fn set(policy: c_int, priority: c_int) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    #[test]
    fn what_is_done_without_a_priority_has_none_and_then_the_thread_has_it_again() {
        let polled = || polled_without_priority(poll_fn(|_| Poll::Ready(current())));
        let look = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            (without_priority(current), runtime.block_on(polled()), current())
        };
        // Another thread: nothing else is to have the priority.
        let seen = std::thread::spawn(move || (look(), take(Priority::Guard).map(|()| look())));
        let (plain, taken) = seen.join().expect("no panic");
        let ordinary = Some((SCHED_OTHER, 0));
        assert_eq!(plain, (ordinary, ordinary, ordinary));
        match taken {
            Ok(with) => {
                let held = Some((SCHED_RR | SCHED_RESET_ON_FORK, Priority::Guard.number()));
                let given_up = Some((SCHED_OTHER | SCHED_RESET_ON_FORK, 0));
                assert_eq!(with, (given_up, given_up, held));
            }
            Err(error) => {
                assert!(std::env::var_os("BATON_REQUIRE_REALTIME").is_none(), "no real-time priority here: {error}");
                eprintln!("left out: no real-time priority here: {error}");
            }
        }
    }
}
