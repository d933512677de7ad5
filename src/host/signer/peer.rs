//! Who asks: the coordinator that started this process, and nobody else. With it this process ends.

use std::io::BufReader;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Signal, getppid, getuid, set_parent_process_death_signal, setsid};

pub(super) struct Coordinator {
    pub pid: i32,
    pub stream: UnixStream,
    /// The same socket.
    pub requests: BufReader<UnixStream>,
}

/// The coordinator at the other end of standard input.
///
/// # Errors
/// There is none, or not the parent of this process, or of another user.
pub(super) fn coordinator() -> Result<Coordinator, String> {
    let pid = check(rustix::stdio::stdin())?;
    // Ctrl-C is for the coordinator, which then ends us when it needs no signature any more.
    let _ = setsid();
    let failed = |error: &dyn std::fmt::Display| format!("standard input: {error}");
    let stream =
        fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map(UnixStream::from).map_err(|error| failed(&error))?;
    let requests = BufReader::new(stream.try_clone().map_err(|error| failed(&error))?);
    Ok(Coordinator { pid, stream, requests })
}

/// The kernel tells who made the socket pair, for as long as it lives. Asked after the kernel was told to end us with
/// our parent: a parent that died before is another one now.
fn check(given: BorrowedFd<'_>) -> Result<i32, String> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| format!("to end with its parent: {error}"))?;
    let peer = socket_peercred(given.as_fd()).map_err(|error| {
        format!("standard input is no socket of a coordinator ({error}); `baton run` starts it, nobody by hand")
    })?;
    if peer.uid != getuid() {
        return Err(format!("the coordinator is of user {}, this process of {}", peer.uid, getuid()));
    }
    match getppid() {
        Some(parent) if parent == peer.pid => Ok(peer.pid.as_raw_nonzero().get()),
        parent => {
            let parent = parent.map_or(0, |parent| parent.as_raw_nonzero().get());
            Err(format!("the socket is of process {}, the parent is {parent}", peer.pid.as_raw_nonzero()))
        }
    }
}
