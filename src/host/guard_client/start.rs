//! From a socket path to a guard that has answered: finds the one that runs, or starts one.

use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::sweep::{Held, sweep};
use super::{Attached, DEATH_BOUND, GuardError, GuardSettings, canonical};
use crate::base::guard_frame::{
    FrameBuffer, FromGuard, GUARD_MARKER, GUARD_PROTOCOL, JSON_LINES, LinesAs, OTHER_PROTOCOL, ToGuard, encode,
};
use crate::base::realtime::{keep_nice, polled_without_priority};
use crate::base::service_manager::VARIABLES;

/// For the answer to `Hello`, and for a new guard until it listens.
const ANSWER_BOUND: Duration = Duration::from_secs(3);

pub(super) struct Greeted {
    pub connection: UnixStream,
    /// What came after the `Welcome`.
    pub buffer: FrameBuffer,
    pub guard: Held,
    pub attached: Attached,
    pub socket: PathBuf,
}

pub(super) async fn attach(settings: &GuardSettings) -> Result<Greeted, GuardError> {
    let socket = canonical(&settings.socket).map_err(|e| socket_error(&settings.socket, e))?;
    if let Some(running) = connect(&socket).await? {
        let pid = peer(&running).map_err(|e| socket_error(&socket, e))?;
        match greet(settings, &socket, running).await? {
            Some(greeted) => {
                if greeted.attached.node.is_none() {
                    // The guard answers for its own descendants only.
                    end_strays(&socket).await?;
                }
                return Ok(greeted);
            }
            // A guard that hangs guards nothing.
            None => end(&socket, pid).await?,
        }
    }
    let swept = socket.clone();
    let killed =
        spawn_blocking(move || sweep(&swept, None, DEATH_BOUND)).await.map_err(|e| socket_error(&socket, e))??;
    if !killed.is_empty() {
        tracing::warn!(?killed, socket = %socket.display(), "killed what an earlier guard left behind");
    }
    spawn(settings, &socket).await?;
    let gave_up = |reason: &str| GuardError::Start { binary: settings.binary.clone(), reason: reason.into() };
    let connection = connect(&socket).await?.ok_or_else(|| gave_up("it was ready and then gone; see its log"))?;
    greet(settings, &socket, connection).await?.ok_or_else(|| gave_up("it listens but does not answer"))
}

async fn end_strays(socket: &Path) -> Result<(), GuardError> {
    let swept = socket.to_path_buf();
    let sweeping = spawn_blocking(move || sweep(&swept, None, DEATH_BOUND));
    let killed = sweeping.await.map_err(|e| socket_error(socket, e))??;
    if !killed.is_empty() {
        tracing::warn!(?killed, socket = %socket.display(), "killed what an earlier guard left behind");
    }
    Ok(())
}

/// `None` when nobody listens there.
pub(super) async fn connect(socket: &Path) -> Result<Option<UnixStream>, GuardError> {
    match timeout(ANSWER_BOUND, UnixStream::connect(socket)).await {
        Ok(Ok(connection)) => Ok(Some(connection)),
        Ok(Err(e)) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
        Ok(Err(e)) => Err(socket_error(socket, e)),
        Err(_) => Err(socket_error(socket, "cannot connect: its queue is full; end the guard there")),
    }
}

/// `None` when no whole answer comes.
pub(super) async fn greet(
    settings: &GuardSettings,
    socket: &Path,
    mut connection: UnixStream,
) -> Result<Option<Greeted>, GuardError> {
    let (member, links) = (settings.member.clone(), settings.links.clone());
    let (kill_max, watchdog) = (settings.kill_max, settings.watchdog.clone());
    let hello = ToGuard::Hello { protocol: GUARD_PROTOCOL, member, links, kill_max, watchdog };
    let hello = encode(&hello)?;
    let mut buffer = FrameBuffer::default();
    let answer = timeout(ANSWER_BOUND, async {
        connection.write_all(&hello).await?;
        let mut chunk = [0; 4096];
        loop {
            if let Some(frame) = buffer.take::<FromGuard>().map_err(std::io::Error::other)? {
                return Ok(frame);
            }
            match connection.read(&mut chunk).await? {
                0 => return Err(std::io::Error::other("the guard closed the connection unanswered; see its log")),
                n => buffer.push(&chunk[..n]),
            }
        }
    });
    let refused = |reason: String| GuardError::Refused { socket: socket.to_path_buf(), reason };
    let other_version = |reason: String| GuardError::OtherVersion { socket: socket.to_path_buf(), reason };
    match answer.await {
        Err(_) => Ok(None),
        Ok(Err(e)) => Err(socket_error(socket, e)),
        Ok(Ok(FromGuard::Welcome { protocol, .. })) if protocol != GUARD_PROTOCOL => {
            Err(other_version(format!("it speaks protocol {protocol}, we speak {GUARD_PROTOCOL}")))
        }
        Ok(Ok(FromGuard::Welcome { guard_pid, node, armed, answers_pings, watchdog, .. })) => {
            let held = Held::open(guard_pid).map_err(|e| socket_error(socket, e))?;
            let guard = held.ok_or_else(|| socket_error(socket, "the guard died while it greeted us"))?;
            let attached = Attached { guard_pid, node, armed, answers_pings, watchdog };
            Ok(Some(Greeted { connection, buffer, guard, attached, socket: socket.to_path_buf() }))
        }
        Ok(Ok(FromGuard::Refused { reason, .. })) if reason.starts_with(OTHER_PROTOCOL) => Err(other_version(reason)),
        Ok(Ok(FromGuard::Refused { reason, .. })) => Err(refused(reason)),
        Ok(Ok(
            other @ (FromGuard::Started { .. }
            | FromGuard::Armed(_)
            | FromGuard::Disarmed { .. }
            | FromGuard::Signalled { .. }
            | FromGuard::Pong
            | FromGuard::Exited { .. }
            | FromGuard::Fenced { .. }),
        )) => Err(refused(format!("it answered Hello with {other:?}"))),
    }
}

/// Kills the guard that listens on `socket` and waits for its end.
pub(super) async fn end(socket: &Path, pid: u32) -> Result<(), GuardError> {
    let held = Held::open(pid).map_err(|e| socket_error(socket, e))?;
    let Some(guard) = held else { return Ok(()) };
    tracing::error!(guard_pid = pid, "the guard gives no answer; killing it");
    guard.kill();
    match spawn_blocking(move || guard.is_dead_within(DEATH_BOUND)).await {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(GuardError::Undying { socket: socket.to_path_buf(), pid }),
    }
}

/// Starts a guard and waits until it listens. It makes itself the leader of its own session, so that
/// neither a Ctrl-C nor our own end reaches it.
async fn spawn(settings: &GuardSettings, socket: &Path) -> Result<(), GuardError> {
    let failed = |reason: String| GuardError::Start { binary: settings.binary.clone(), reason };
    let (says, log) = match &settings.log {
        None => (Stdio::inherit(), "standard error".into()),
        Some(path) => {
            let opened = std::fs::OpenOptions::new().append(true).create(true).mode(0o640).open(path);
            let file = opened.map_err(|e| failed(format!("open its log {}: {e}", path.display())))?;
            (file.into(), path.display().to_string())
        }
    };
    let mut command = Command::new(&settings.binary);
    match settings.lines_as {
        LinesAs::Text => {}
        LinesAs::Json => drop(command.arg(JSON_LINES)),
    }
    command.arg("--socket").arg(socket).stdin(our_stdout()).stdout(Stdio::piped()).stderr(says);
    // What was meant for us alone goes neither to the guard nor to the chain node.
    VARIABLES.iter().chain([&GUARD_MARKER]).for_each(|name| _ = command.env_remove(name));
    // The guard, and through it the chain node.
    keep_nice(command.as_std_mut());
    let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
    let mut line = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        // It says `ready` and closes its standard output, or dies and says why on standard error.
        match timeout(ANSWER_BOUND, stdout.read_to_string(&mut line)).await {
            Ok(Ok(_)) => (),
            Ok(Err(e)) => return Err(failed(e.to_string())),
            Err(_) => {
                let _ = child.start_kill();
                return Err(failed(format!("it was not ready within {ANSWER_BOUND:?} and was killed")));
            }
        }
    }
    if line.trim() != "ready" {
        let status =
            polled_without_priority(child.wait()).await.map_or_else(|e| e.to_string(), |status| status.to_string());
        return Err(failed(format!("it ended with {status} before it was ready; it says why on {log}")));
    }
    tokio::spawn(async move {
        if let Ok(status) = polled_without_priority(child.wait()).await {
            tracing::info!(%status, "the guard ended");
        }
    });
    Ok(())
}

/// Where our standard output goes, for that of a chain node without a log: the guard's own is for its one line to us.
fn our_stdout() -> Stdio {
    rustix::io::dup(rustix::stdio::stdout()).map_or_else(|_| Stdio::null(), Stdio::from)
}

pub(super) fn peer(connection: &UnixStream) -> Result<u32, String> {
    let pid = connection.peer_cred().map_err(|e| e.to_string())?.pid();
    pid.and_then(|pid| u32::try_from(pid).ok()).ok_or_else(|| "its owner is unknown".into())
}

pub(super) fn socket_error(socket: &Path, reason: impl std::fmt::Display) -> GuardError {
    GuardError::Socket { socket: socket.to_path_buf(), reason: reason.to_string() }
}
