//! Commands that a driver runs: probes and the two ends of an `exec` activation. A command is a short
//! thing with a bound; the chain node itself is the guard's business.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::DriverError;
use crate::base::realtime::polled_without_priority;
use crate::base::service_manager::VARIABLES;
use crate::config::Chain;

/// Longest standard output, and longest standard error.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;

/// How long output may still come from what a finished command left running.
const DRAIN_MAX: Duration = Duration::from_millis(50);

pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

pub enum ExecError {
    Spawn(std::io::Error),
    Timeout,
}

/// A command that was started. Its process group is killed when this is dropped before its end is known.
struct Running(Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        // Not reaped yet, so the number is still that of its group.
        if let Some(group) = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // It may be gone already; then there is nothing to do.
            let _ = kill_process_group(group, Signal::KILL);
            // Left to the runtime, it would be reaped with the priority of whoever carries the lease.
            tokio::spawn(async move { polled_without_priority(child.wait()).await });
        }
    }
}

/// Runs `argv` in the chain node's home and environment.
pub async fn run(chain: &Chain, argv: &[String], timeout: Duration) -> Result<Output, ExecError> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(ExecError::Spawn(std::io::Error::other("the command is empty")));
    };
    let mut command = Command::new(program);
    VARIABLES.iter().for_each(|name| _ = command.env_remove(name));
    let child = command
        .args(arguments)
        .envs(&chain.env)
        .current_dir(&chain.home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(ExecError::Spawn)?;
    match tokio::time::timeout(timeout, finish(Running(Some(child)))).await {
        Ok(output) => output.map_err(ExecError::Spawn),
        Err(_) => Err(ExecError::Timeout),
    }
}

/// As [`run`], and the exit code must be 0.
pub async fn run_activation(chain: &Chain, argv: &[String], timeout: Duration) -> Result<(), DriverError> {
    let failed = |reason: String| DriverError::Command { command: argv.join(" "), reason };
    let output = run(chain, argv, timeout).await.map_err(|error| match error {
        ExecError::Spawn(error) => failed(format!("cannot be started: {error}")),
        ExecError::Timeout => failed(format!("did not end within {timeout:?} and was killed")),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    Err(failed(format!("{}: {}", output.status, super::http::excerpt(said))))
}

async fn finish(mut running: Running) -> std::io::Result<Output> {
    let Some(child) = &mut running.0 else { unreachable!("only the drop takes it") };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out_pipe, err_pipe) = (child.stdout.take(), child.stderr.take());
    let status = {
        let drained = async { tokio::join!(drain(out_pipe, &mut stdout), drain(err_pipe, &mut stderr)) };
        tokio::pin!(drained);
        let (status, all_read) = tokio::select! {
            status = polled_without_priority(child.wait()) => (status?, false),
            _ = &mut drained => (polled_without_priority(child.wait()).await?, true),
        };
        if !all_read {
            // Only what something else still holds open can make this run out.
            let _ = tokio::time::timeout(DRAIN_MAX, drained).await;
        }
        status
    };
    Ok(Output { status, stdout, stderr })
}

/// Closes the pipe when it has read enough, so that a command that says too much fails by itself.
async fn drain(pipe: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    if let Some(pipe) = pipe {
        // What could be read before an error is kept; the exit code decides.
        let _ = pipe.take(OUTPUT_BYTES_MAX).read_to_end(into).await;
    }
}
