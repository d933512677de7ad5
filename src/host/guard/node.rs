//! The chain node as the guard's child: its start, its signals, and its end with all that it started.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{
    self, Pid, PidfdFlags, Signal, WaitStatus, getpid, getppid, kill_process_group, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal,
};

use super::family::{self, Reaped};
use super::host::Before;
use super::namespace::{self, Contained};
use super::program::{Became, Outcome, Program};
use super::say;
use crate::base::guard_frame::{Containment, ExitCause, ExitStatus, NodeProcess, NodeSpec};
use crate::base::ids::Epoch;
use crate::base::time::BootTime;

/// Between two rounds of killing; they come sooner when a child ends.
const ROUND: Duration = Duration::from_millis(2);
const ROUND_MAX: Duration = Duration::from_millis(100);
/// Between two requests to end: a node that makes its signal handlers anew, as neard does after a SIGHUP, loses the one
/// that comes meanwhile.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// For what a failed start left, which is killed.
const LEFTOVER_BOUND: Duration = Duration::from_secs(1);

pub(super) struct Node {
    pub process: NodeProcess,
    pid: Pid,
    pidfd: OwnedFd,
    /// The first process of its namespace, where it has one of its own.
    first: Option<OwnedFd>,
    /// What its start still has to tell, where that waited for a disk.
    late: Option<(Outcome, Arc<Program>)>,
    /// Set once the chain node itself was reaped; descendants may be left.
    status: Option<ExitStatus>,
    phase: Phase,
}

enum Phase {
    Running,
    Stopping {
        ask_at: BootTime,
        kill_at: BootTime,
    },
    /// Everything is being killed.
    Dying {
        cause: ExitCause,
        round: Duration,
    },
}

impl Node {
    /// Starts the chain node in a session of its own; it dies when the guard does, and all that it ever started with it
    /// where the host allows that. Waits no longer than `bound` for its program to run: one that waits for a disk is
    /// started all the same, and what it cannot do then ends it.
    pub(super) fn start(
        spec: &NodeSpec,
        validator_epoch: Option<Epoch>,
        socket: &Path,
        before: &Before,
        bound: Duration,
    ) -> Result<Node, String> {
        let program = Arc::new(Program::of(spec, socket)?);
        let (pid, first, outcome) = start_contained(&program, before)?;
        let late = match outcome.within(bound) {
            Became::Running => None,
            Became::Unknown => Some((outcome, Arc::clone(&program))),
            Became::Failed(failure) => {
                if !family::end_within(LEFTOVER_BOUND) {
                    say(&format!("what an attempt to start {} left did not end", program.name()));
                }
                return Err(program.told(failure));
            }
        };
        // A child of ours that nobody has waited for keeps its number.
        let opened = pidfd_open(pid, PidfdFlags::empty())
            .and_then(|node| Ok((node, first.map(|first| pidfd_open(first, PidfdFlags::empty())).transpose()?)));
        let (pidfd, first) = opened.map_err(|e| {
            family::strike();
            format!("pidfd_open {pid:?}: {e}; it was killed")
        })?;
        let containment = if first.is_some() { Containment::PidNamespace } else { Containment::DirectChild };
        let pid_number = pid.as_raw_nonzero().get().unsigned_abs();
        let process =
            NodeProcess { pid: pid_number, started_at: BootTime::now(), validator_epoch, containment, stopping: false };
        Ok(Node { process, pid, pidfd, first, late, status: None, phase: Phase::Running })
    }

    pub(super) fn signal(&self, signal: i32) -> Result<(), String> {
        match self.phase {
            Phase::Running => {
                let known = Signal::from_named_raw(signal).ok_or_else(|| format!("there is no signal {signal}"))?;
                pidfd_send_signal(&self.pidfd, known).map_err(|e| format!("signal {signal}: {e}"))
            }
            Phase::Stopping { .. } | Phase::Dying { .. } => Err("the chain node is being stopped".into()),
        }
    }

    /// SIGTERM now and every second, and SIGKILL after `timeout`. Asked again, the earlier of the two ends holds.
    pub(super) fn stop(&mut self, timeout: Duration, now: BootTime) {
        let wanted = now + timeout;
        match &mut self.phase {
            Phase::Dying { .. } => return,
            Phase::Stopping { kill_at, .. } => *kill_at = wanted.min(*kill_at),
            Phase::Running => self.phase = Phase::Stopping { ask_at: now + ASK_AGAIN, kill_at: wanted },
        }
        self.process.stopping = true;
        if timeout.is_zero() {
            self.kill(ExitCause::Stopped { killed: true });
        } else {
            let _ = pidfd_send_signal(&self.pidfd, Signal::TERM);
        }
    }

    /// SIGKILL to the chain node and all of its family. A death that is under way keeps its cause.
    pub(super) fn kill(&mut self, cause: ExitCause) {
        self.process.stopping = true;
        if !matches!(self.phase, Phase::Dying { .. }) {
            self.phase = Phase::Dying { cause, round: ROUND };
        }
        self.strike();
    }

    /// Moves on what is under way; the result is there when nothing is left of the chain node.
    pub(super) fn advance(&mut self, now: BootTime) -> Option<(ExitStatus, ExitCause)> {
        let mut none_left = self.reap();
        match self.phase {
            Phase::Running if self.status.is_some() => self.kill(ExitCause::ByItself),
            Phase::Stopping { .. } if self.status.is_some() => self.kill(ExitCause::Stopped { killed: false }),
            Phase::Stopping { kill_at, .. } if kill_at <= now => self.kill(ExitCause::Stopped { killed: true }),
            Phase::Stopping { ask_at, kill_at } if ask_at <= now => {
                self.phase = Phase::Stopping { ask_at: now + ASK_AGAIN, kill_at };
                let _ = pidfd_send_signal(&self.pidfd, Signal::TERM);
            }
            Phase::Dying { .. } if !none_left => self.strike(),
            Phase::Running | Phase::Stopping { .. } | Phase::Dying { .. } => (),
        }
        if let Phase::Dying { cause, round } = &mut self.phase {
            let cause = *cause;
            *round = (*round * 2).min(ROUND_MAX);
            none_left = none_left || self.reap();
            return none_left.then(|| (self.status.unwrap_or(ExitStatus::Signal(Signal::KILL.as_raw())), cause));
        }
        None
    }

    /// When `advance` is to be called at the latest.
    pub(super) fn wake_at(&self, now: BootTime) -> Option<BootTime> {
        match self.phase {
            Phase::Running => None,
            Phase::Stopping { ask_at, kill_at } => Some(ask_at.min(kill_at)),
            Phase::Dying { round, .. } => Some(now + round),
        }
    }

    /// Becomes readable when the chain node ends; `None` once that is known.
    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.status.is_none().then(|| self.pidfd.as_fd())
    }

    fn strike(&self) {
        // Once it is reaped, its number may belong to another group.
        if self.status.is_none() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
        if let Some(first) = &self.first {
            // The kernel kills all that is in the namespace, also what is born at this moment.
            let _ = pidfd_send_signal(first, Signal::KILL);
        }
        family::strike();
    }

    /// Reaps what has ended. True when no descendant is left.
    fn reap(&mut self) -> bool {
        loop {
            match family::reap() {
                Reaped::Child(pid, status) if pid == self.pid => {
                    self.status = Some(exit_status(status));
                    if let Some((outcome, program)) = self.late.take()
                        && let Became::Failed(failure) = outcome.within(Duration::ZERO)
                    {
                        say(&format!("the chain node never ran: {}", program.told(failure)));
                    }
                }
                Reaped::Child(..) => (),
                Reaped::NoneEnded => return false,
                Reaped::NoneLeft => return true,
            }
        }
    }
}

/// Starts the chain node in a namespace of its own, or without one where the host gives us none, and says so. Its
/// process id, that of the namespace's first process, and whether it has become the program.
fn start_contained(program: &Arc<Program>, before: &Before) -> Result<(Pid, Option<Pid>, Outcome), String> {
    let reason = match namespace::spawn(program, before) {
        Ok(Contained { first, node, outcome }) => return Ok((node, Some(first), outcome)),
        Err(reason) => reason,
    };
    let name = program.name();
    if !family::end_within(LEFTOVER_BOUND) {
        return Err(format!("what an attempt to start {name} left did not end within {LEFTOVER_BOUND:?}"));
    }
    say(&format!(
        "no PID namespace for the chain node: {reason}; the kernel ends it with the guard, but nothing that it starts"
    ));
    let (node, outcome) = start_directly(program, before).map_err(|e| format!("cannot run {name}: {e}"))?;
    Ok((node, None, outcome))
}

fn start_directly(program: &Arc<Program>, before: &Before) -> io::Result<(Pid, Outcome)> {
    let (outcome, teller) = Outcome::pair()?;
    let (guard, before, mut command) = (getpid(), before.clone(), program.command());
    let program = Arc::clone(program);
    let in_child = move || {
        process::setsid()?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(guard) {
            // The guard died before the line above: nobody would ever kill this process.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        before.restore();
        teller.become_program(&program, true)
    };
    // SAFETY: the closure makes system calls only; it takes no lock and allocates nothing.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(in_child)
    };
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    Ok((pid.ok_or_else(|| io::Error::other("its process id is out of range"))?, outcome))
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    match status.terminating_signal() {
        Some(signal) => ExitStatus::Signal(signal),
        None => ExitStatus::Code(status.exit_status().unwrap_or_default()),
    }
}
