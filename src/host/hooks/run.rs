//! One run of a hook, from its start to the end of all that it has started, with a bound in time.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::output::Output;
use super::{HookOrder, child};
use crate::base::hooks::HookOutcome;
use crate::base::time::BootTime;

/// Between two readings of what is not logged, so that a hook which says much costs little.
const DROP_EVERY: Duration = Duration::from_millis(20);

/// Says in the log what became of it.
pub(super) fn run(order: &HookOrder, timeout: Duration) -> HookOutcome {
    let (hook, program) = (order.event.as_str(), order.argv.first().map(String::as_str).unwrap_or_default());
    let began_at = BootTime::now();
    let started = Output::new(order.event).and_then(|(output, end)| Ok((child::start(order, end)?, output)));
    let (child, output) = match started {
        Ok(started) => started,
        Err(error) => {
            tracing::warn!(hook, "{program} was not started: {error}; correct hooks.{hook}, or the program");
            return HookOutcome::NotStarted;
        }
    };
    let ended = await_end(child, output, began_at + timeout);
    let took_ms = BootTime::now().since(began_at).as_millis() as u64;
    match ended {
        Ok(Ended { in_time: false, .. }) => {
            tracing::warn!(
                hook,
                took_ms,
                "{program} did not end within {timeout:?} and was killed with its process group; bound what it waits for, or \
                 raise hooks.timeout"
            );
            HookOutcome::TimedOut
        }
        Ok(Ended { status, .. }) if status.success() => {
            tracing::info!(hook, took_ms, "{program} ended");
            HookOutcome::Ok
        }
        Ok(Ended { status, .. }) => {
            let how = how(status);
            tracing::warn!(hook, took_ms, "{program} ended with {how}; what it said stands above, mend what that says");
            HookOutcome::Failed
        }
        Err(error) => {
            tracing::warn!(hook, took_ms, "{program} cannot be waited for: {error}; its process group was killed");
            HookOutcome::Failed
        }
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    }
}

struct Ended {
    status: ExitStatus,
    in_time: bool,
}

fn await_end(mut child: Child, mut output: Output, until: BootTime) -> io::Result<Ended> {
    let in_time = ends_before(&child, &mut output, until);
    // What it has left running goes too, while the group's number still belongs to the unreaped child.
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let status = child.wait()?;
    output.end();
    Ok(Ended { status, in_time: in_time? })
}

/// Reads what it says meanwhile. Who else has the other end of its output, and for how long, does not matter.
fn ends_before(child: &Child, output: &mut Output, until: BootTime) -> io::Result<bool> {
    let pid = Pid::from_raw(child.id().cast_signed()).ok_or_else(|| io::Error::other("its process id is zero"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        let left = until.since(BootTime::now());
        if left.is_zero() {
            return Ok(false);
        }
        let longest = if output.is_to_be_dropped() { left.min(DROP_EVERY) } else { left };
        let longest = Timespec::try_from(longest).map_err(io::Error::other)?;
        let has_ended = {
            let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
            fds.extend(output.wanted().map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::IN)));
            match poll(&mut fds, Some(&longest)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            !fds[0].revents().is_empty()
        };
        output.take();
        if has_ended {
            return Ok(true);
        }
    }
}
