//! What wakes the guard apart from its socket: the deadline's timer, and signals as bytes in a pipe.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe::register;

use crate::base::time::BootTime;

/// Readable from the deadline on, also when the host slept across it.
pub(super) struct Alarm {
    timer: OwnedFd,
    set_to: Option<BootTime>,
}

impl Alarm {
    pub(super) fn new() -> io::Result<Alarm> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Alarm { timer, set_to: None })
    }

    pub(super) fn set(&mut self, deadline: Option<BootTime>) -> io::Result<()> {
        if self.set_to == deadline {
            return Ok(());
        }
        // Zero would switch the timer off; a deadline at boot has passed in any case.
        let nanos = deadline.map_or(0, |at| at.as_nanos().max(1));
        let at = Timespec { tv_sec: (nanos / 1_000_000_000) as _, tv_nsec: (nanos % 1_000_000_000) as _ };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval: never, it_value: at })?;
        self.set_to = deadline;
        Ok(())
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

pub(super) struct Signals {
    /// SIGCHLD: an orphan that we inherited has ended.
    child: UnixStream,
    /// SIGTERM, SIGINT, SIGHUP: kill the chain node and end.
    end: UnixStream,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Signals> {
        let (child, child_end) = UnixStream::pair()?;
        let (end, end_end) = UnixStream::pair()?;
        child.set_nonblocking(true)?;
        end.set_nonblocking(true)?;
        register(SIGCHLD, child_end)?;
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            register(signal, end_end.try_clone()?)?;
        }
        Ok(Signals { child, end })
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.child.as_fd(), self.end.as_fd()].into_iter()
    }

    /// Forgets what has come; true when a signal to end was among it.
    pub(super) fn drain(&mut self) -> bool {
        let mut bytes = [0; 64];
        while self.child.read(&mut bytes).is_ok_and(|n| n > 0) {}
        self.end.read(&mut bytes).is_ok_and(|n| n > 0)
    }
}
