//! What kills the chain node when the guard itself does not run: a timer of the kernel that sends SIGKILL to
//! the guard, stopped or not. The chain node dies with its parent (PR_SET_PDEATHSIG), stopped or not.

use std::io;
use std::time::Duration;

use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use crate::base::time::BootTime;

pub(super) struct Backstop {
    timer: Timer,
}

impl Backstop {
    /// One that is not set.
    pub(super) fn new() -> io::Result<Backstop> {
        let kill_us = SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 };
        Ok(Backstop { timer: Timer::new(ClockId::CLOCK_BOOTTIME, SigEvent::new(kill_us))? })
    }

    /// From now on the guard dies at `at`, in place of what was set before.
    pub(super) fn set(&mut self, at: BootTime) -> io::Result<()> {
        // Zero would switch the timer off; a moment at boot has passed in any case.
        let at = Duration::from_nanos(at.as_nanos().max(1));
        let once = Expiration::OneShot(TimeSpec::from_duration(at));
        Ok(self.timer.set(once, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
    }

    pub(super) fn unset(&mut self) -> io::Result<()> {
        let never = Expiration::OneShot(TimeSpec::from_duration(Duration::ZERO));
        Ok(self.timer.set(never, TimerSetTimeFlags::empty())?)
    }
}
