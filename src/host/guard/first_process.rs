//! `baton-guard first-process`: the first process of the namespace in which a chain node runs. The kernel ends
//! everything in the namespace when it dies, and it dies with the guard. It does nothing else, and is never started by
//! hand.
//!
//! Invariant: from the byte that says it is ready, it does not outlive the guard, stopped or not.

use std::io;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{self, Signal, set_parent_process_death_signal};
use rustix::stdio::{dup2_stdout, stdin, stdout};
use rustix::thread::set_name;

use super::namespace::has_ended;
use crate::base::realtime::{self, Priority};

/// Standard input is a pidfd of the guard; standard output gets one byte when the guard can count on us. Returns when
/// the guard is dead, which the kernel's signal mostly makes superfluous.
///
/// # Errors
/// It was not started by a guard.
pub fn first_process() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if process::getpid() != process::Pid::INIT {
        return Err(io::Error::other("first-process is started by a guard, in a namespace of its own"));
    }
    let _ = process::setsid();
    let _ = set_name(c"baton-guard");
    // It must not keep a mount busy.
    let _ = process::chdir("/");
    reap_by_itself()?;
    // It has to run in order to die. What is refused is done without, as by the guard.
    let _ = realtime::take(Priority::Guard);
    if has_ended(&stdin()) {
        // Before our first line.
        return Ok(());
    }
    rustix::io::write(stdout(), b"r")?;
    dup2_stdout(stdin())?;
    loop {
        let (guard, mut fds) = (stdin(), Vec::with_capacity(1));
        fds.push(PollFd::from_borrowed_fd(guard, PollFlags::IN));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) if has_ended(&guard) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => (),
            Err(e) => return Err(e.into()),
        }
    }
}

/// The orphans that the kernel gives us are reaped by the kernel too.
fn reap_by_itself() -> io::Result<()> {
    // SAFETY: ignoring a signal installs no handler.
    #[allow(unsafe_code)]
    let before = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}
