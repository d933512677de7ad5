//! `BINARY pre-upgrade`: what the new binary wants to do before it is started, in the chain node's home and
//! environment, with a bound in time. Its exit code says what comes next, as cosmovisor's documentation has it.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, kill_process_group, pidfd_open, set_parent_process_death_signal,
};

use crate::base::service_manager::VARIABLES;
use crate::base::time::BootTime;
use crate::config;

/// After that it is killed.
pub(super) const TIME_MAX: Duration = Duration::from_secs(600);
/// For the last of what it said, once it is gone.
const DRAIN_MAX: Duration = Duration::from_secs(1);
const LINES_KEPT: usize = 20;
const LINE_BYTES_MAX: u64 = 4096;

struct Ended {
    status: ExitStatus,
    in_time: bool,
    /// The last of it.
    said: Vec<String>,
}

/// Runs it until it does not ask to be run again.
///
/// # Errors
/// In words: the upgrade is not to go on.
pub(super) fn run(settings: &config::Upgrade, binary: &Path, time_max: Duration) -> Result<(), String> {
    let shown = binary.display();
    for attempt in 0..=settings.preupgrade_retries {
        let ended = run_once(settings, binary, time_max)
            .map_err(|error| format!("run {shown} pre-upgrade: {error}; replace it"))?;
        ended.said.iter().for_each(|line| tracing::info!(line, "pre-upgrade"));
        if !ended.in_time {
            return Err(format!("{shown} pre-upgrade did not end within {time_max:?} and was killed; see the log"));
        }
        let last = ended.said.last().map_or(String::new(), |line| format!(" ({line})"));
        match (ended.status.code(), ended.status.signal()) {
            (Some(0), _) => return Ok(()),
            (Some(1), _) => {
                tracing::info!("{shown} has no command pre-upgrade, which is well");
                return Ok(());
            }
            (Some(31), _) => tracing::warn!(attempt, "{shown} pre-upgrade asks to be run again{last}"),
            (Some(30), _) => {
                return Err(format!(
                    "{shown} pre-upgrade has failed with code 30{last}; see the log, mend what it says"
                ));
            }
            (Some(code), _) => {
                return Err(format!(
                    "{shown} pre-upgrade ended with code {code}{last}; see the log, mend what it says"
                ));
            }
            (None, signal) => {
                let signal = signal.unwrap_or_default();
                return Err(format!("{shown} pre-upgrade was ended by signal {signal}{last}; see the log"));
            }
        }
    }
    let times = settings.preupgrade_retries + 1;
    Err(format!(
        "{shown} pre-upgrade asked {times} times to be run again; see the log, or raise upgrade.preupgrade_retries"
    ))
}

fn run_once(settings: &config::Upgrade, binary: &Path, time_max: Duration) -> io::Result<Ended> {
    let mut command = Command::new(binary);
    VARIABLES.iter().for_each(|name| _ = command.env_remove(name));
    command
        .arg("pre-upgrade")
        .env("DAEMON_HOME", &settings.root)
        .env("DAEMON_NAME", &settings.name)
        .envs(&settings.env)
        .current_dir(&settings.home)
        .stdin(Stdio::null())
        .process_group(0);
    // One for both, so that the last line is the last.
    let (reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let us = getpid();
    let in_child = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(us) {
            // This process died before the line above.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only; it takes no lock and allocates nothing.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(in_child)
    };
    let mut child = command.spawn()?;
    // It has our end for writing.
    drop(command);
    let (lines, said) = mpsc::channel();
    thread::spawn(move || read_lines(reader, &lines));
    let in_time = ends_within(&child, time_max);
    // What it has left running goes too, while the group's number still belongs to the unreaped child.
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let status = child.wait()?;
    Ok(Ended { status, in_time: in_time?, said: last_of(&said) })
}

fn ends_within(child: &Child, time_max: Duration) -> io::Result<bool> {
    let pid = Pid::from_raw(child.id().cast_signed()).ok_or_else(|| io::Error::other("its process id is zero"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let until = BootTime::now() + time_max;
    loop {
        let left = until.since(BootTime::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Until nobody has the other end any more, so that it never stands still for want of a reader.
fn read_lines(pipe: PipeReader, lines: &mpsc::Sender<String>) {
    let mut pipe = BufReader::new(pipe);
    loop {
        let mut line = Vec::new();
        match (&mut pipe).take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line).trim_end().replace(char::is_control, " ");
        if !line.is_empty() && lines.send(line).is_err() {
            return;
        }
    }
}

fn last_of(said: &mpsc::Receiver<String>) -> Vec<String> {
    let until = BootTime::now() + DRAIN_MAX;
    let mut last = VecDeque::new();
    while let Ok(line) = said.recv_timeout(until.since(BootTime::now())) {
        last.push_back(line);
        if last.len() > LINES_KEPT {
            last.pop_front();
        }
    }
    last.into()
}
