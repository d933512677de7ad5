//! The coordinator's end of the guard's socket: finds or starts the guard, speaks with it, and when it is
//! gone proves that the chain node is gone too. It decides nothing about leases. Called by `effects.rs`.
//!
//! The guard is detached: it outlives the coordinator and every client. A second line of defence is here as
//! well: when a deadline has passed and the guard says nothing, the client kills the chain node, then the
//! guard.

mod below;
mod end;
mod pulse;
mod start;
mod sweep;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::sleep;

pub use below::beside_node;
pub use end::{Ended, end_all};
pub use sweep::SweepError;

use crate::base::guard_frame::{
    Armed, FrameBuffer, FrameError, FromGuard, LinesAs, LinkSpec, NodeProcess, ToGuard, WatchdogSpec, encode,
};
use crate::base::ids::NodeId;
use crate::base::processes;
use crate::base::time::BootTime;
use pulse::{Due, Pulse};
use sweep::Held;

/// How long after SIGKILL a process may still be there until we give up proving its end.
const DEATH_BOUND: Duration = Duration::from_secs(10);
/// How long after the chain node was killed in its place a silent guard is killed itself.
const SILENCE_BOUND: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct GuardSettings {
    /// `default_binary()` unless a test says otherwise.
    pub binary: PathBuf,
    pub socket: PathBuf,
    pub member: NodeId,
    pub links: Vec<LinkSpec>,
    /// What the guard itself says is appended here; `None` inherits our standard error.
    pub log: Option<PathBuf>,
    /// How a guard that is started writes its lines; one that runs already keeps its own way.
    pub lines_as: LinesAs,
    /// From `Timing`: a guard that is silent for half of it after its deadline is overdue.
    pub kill_max: Duration,
    pub watchdog: Option<WatchdogSpec>,
}

/// What the guard knew when we attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    pub guard_pid: u32,
    /// `None` is proof that no chain node of ours runs on this host.
    pub node: Option<NodeProcess>,
    pub armed: Option<Armed>,
    pub answers_pings: bool,
    /// The time-out of the watchdog that it feeds.
    pub watchdog: Option<Duration>,
}

#[derive(Debug)]
pub enum GuardEvent {
    /// A frame and when it was received.
    Frame(FromGuard, BootTime),
    /// Whether the guard answers pings, each time that this changes. It does at first.
    Answers(bool),
    /// The connection has ended; this client is of no more use, attach anew.
    Gone {
        reason: String,
        /// The guard process lives and only closed the connection: it goes on fencing, nothing was killed.
        guard_runs: bool,
        /// The chain node and all it started are gone, by our own observation.
        node_proven_dead: bool,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("guard socket {socket}: {reason}")]
    Socket { socket: PathBuf, reason: String },
    #[error("start guard {binary}: {reason}")]
    Start { binary: PathBuf, reason: String },
    #[error("the guard on {socket} is of another version ({reason}); `baton fence` ends it and its chain node")]
    OtherVersion { socket: PathBuf, reason: String },
    #[error("guard on {socket} refused us: {reason}")]
    Refused { socket: PathBuf, reason: String },
    #[error("guard on {socket} (pid {pid}) gives no answer and does not die of SIGKILL")]
    Undying { socket: PathBuf, pid: u32 },
    #[error(transparent)]
    Sweep(#[from] SweepError),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

enum Outgoing {
    Frame(ToGuard),
    /// Answered once everything before it was written.
    Mark(oneshot::Sender<()>),
}

/// One connection to the guard. Dropping it closes the connection and leaves guard and chain node alone.
#[derive(Debug)]
pub struct GuardClient {
    outgoing: mpsc::UnboundedSender<Outgoing>,
    guard: Arc<Held>,
    tasks: [AbortHandle; 2],
}

impl GuardClient {
    /// Connects to the guard on `settings.socket`, or starts one after everything that an earlier guard on
    /// that socket left behind was killed. A guard that runs but does not answer is killed first.
    ///
    /// # Errors
    /// No client exists then. After `Refused` or `OtherVersion` a guard of another member or version runs; the others
    /// may be tried again.
    pub async fn attach(
        settings: GuardSettings,
        events: mpsc::UnboundedSender<GuardEvent>,
    ) -> Result<(GuardClient, Attached), GuardError> {
        let start::Greeted { connection, buffer, guard, attached, socket } = start::attach(&settings).await?;
        let guard = Arc::new(guard);
        let (reading, writing) = connection.into_split();
        let (outgoing, queue) = mpsc::unbounded_channel();
        let mut listener = Listener {
            socket,
            kill_max: settings.kill_max,
            guard: guard.clone(),
            node: None,
            watch: Watch::default(),
            pulse: attached.answers_pings.then(|| Pulse::new(BootTime::now())),
            outgoing: outgoing.clone(),
            events,
        };
        listener.node = listener.hold(attached.node.as_ref());
        listener.watch.renewed(attached.armed);
        let listening = tokio::spawn(listener.run(reading, buffer)).abort_handle();
        let writing = tokio::spawn(write_all(writing, queue)).abort_handle();
        Ok((GuardClient { outgoing, guard, tasks: [listening, writing] }, attached))
    }

    /// Queues a frame, in order. Never blocks; after `Gone` it does nothing.
    pub fn send(&self, frame: ToGuard) {
        let _ = self.outgoing.send(Outgoing::Frame(frame));
    }

    /// Ends when the kernel has every frame that was queued so far, or the connection is lost. The guard
    /// reads them also when this process ends then.
    pub fn flushed(&self) -> impl Future<Output = ()> + use<> {
        let (mark, reached) = oneshot::channel();
        let _ = self.outgoing.send(Outgoing::Mark(mark));
        async move { drop(reached.await) }
    }

    /// Kills the guard; the kernel kills its chain node with it, and `Gone` follows with the proof.
    pub fn kill(&self) {
        self.guard.kill();
    }

    pub fn guard_pid(&self) -> u32 {
        self.guard.pid()
    }
}

impl Drop for GuardClient {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// `baton-guard` beside the running executable.
pub fn default_binary() -> std::io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("baton-guard"))
}

async fn write_all(mut connection: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Outgoing>) {
    while let Some(next) = queue.recv().await {
        let frame = match next {
            Outgoing::Frame(frame) => frame,
            Outgoing::Mark(reached) => {
                // Whoever waited may have given up.
                let _ = reached.send(());
                continue;
            }
        };
        let written = match encode(&frame) {
            Ok(bytes) => connection.write_all(&bytes).await.map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        if let Err(reason) = written {
            // The listener sees the connection end and tells; dropping our half ends it.
            tracing::warn!(frame = frame.name(), reason, "a frame could not be sent to the guard");
            return;
        }
    }
}

/// Hears the guard, and watches that it does its work.
struct Listener {
    socket: PathBuf,
    kill_max: Duration,
    guard: Arc<Held>,
    /// The chain node as far as the guard told us, held open at that moment.
    node: Option<Held>,
    watch: Watch,
    /// `None` of a guard of an earlier version.
    pulse: Option<Pulse>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    events: mpsc::UnboundedSender<GuardEvent>,
}

impl Listener {
    async fn run(mut self, mut connection: OwnedReadHalf, mut buffer: FrameBuffer) {
        let mut chunk = vec![0; 8 * 1024];
        let reason = loop {
            match buffer.take::<FromGuard>() {
                Ok(Some(frame)) => {
                    self.hear(frame);
                    continue;
                }
                Ok(None) => (),
                Err(e) => break e.to_string(),
            }
            let now = BootTime::now();
            let silence = self.watch.left(self.kill_max, now);
            let pulse = self.pulse.as_ref().and_then(Pulse::wake_at).map(|at| at.since(now));
            tokio::select! {
                // After a pause of our own, what the guard has said meanwhile comes before its silence.
                biased;
                // A read that is cancelled has read nothing.
                read = connection.read(&mut chunk) => match read {
                    Ok(0) => break "the guard closed the connection".into(),
                    Ok(n) => buffer.push(&chunk[..n]),
                    Err(e) => break format!("the connection to the guard failed: {e}"),
                },
                () = sleep(silence.unwrap_or_default()), if silence.is_some() => self.overdue().await,
                () = sleep(pulse.unwrap_or_default()), if pulse.is_some() => self.feel_pulse(),
            }
        };
        let events = self.events.clone();
        let gone = spawn_blocking(move || self.gone(reason)).await;
        let _ = events.send(gone.unwrap_or_else(|e| GuardEvent::Gone {
            reason: format!("the search for left-over processes failed: {e}"),
            guard_runs: false,
            node_proven_dead: false,
        }));
    }

    fn feel_pulse(&mut self) {
        match self.pulse.as_mut().and_then(|pulse| pulse.due(BootTime::now())) {
            Some(Due::Ping) => drop(self.outgoing.send(Outgoing::Frame(ToGuard::Ping))),
            Some(Due::TellSilent) => drop(self.events.send(GuardEvent::Answers(false))),
            None => {}
        }
    }

    fn hear(&mut self, frame: FromGuard) {
        let received = BootTime::now();
        if self.pulse.as_mut().is_some_and(|pulse| pulse.heard(received)) {
            let _ = self.events.send(GuardEvent::Answers(true));
        }
        match &frame {
            FromGuard::Welcome { node, armed, .. } => {
                self.node = self.hold(node.as_ref());
                self.watch.renewed(*armed);
            }
            FromGuard::Started { node } => self.node = self.hold(Some(node)),
            FromGuard::Exited { .. } => self.node = None,
            FromGuard::Armed(armed) => self.watch.renewed(Some(*armed)),
            FromGuard::Disarmed { .. } | FromGuard::Fenced { .. } => self.watch.renewed(None),
            FromGuard::Pong => return,
            FromGuard::Signalled { .. } | FromGuard::Refused { .. } => (),
        }
        let _ = self.events.send(GuardEvent::Frame(frame, received));
    }

    /// Holds the process open if it is the guard's: by its marker, or because the guard is its parent.
    fn hold(&self, node: Option<&NodeProcess>) -> Option<Held> {
        let pid = node?.pid;
        let held = Held::open(pid).ok()??;
        let is_child = processes::stat(pid).is_some_and(|stat| stat.parent == self.guard.pid());
        (is_child || sweep::carries_marker(pid, &self.socket) == Some(true)).then_some(held)
    }

    /// The deadline has passed and the guard is silent: first does its work for it, then ends it.
    async fn overdue(&mut self) {
        let guard_pid = self.guard.pid();
        if self.watch.struck {
            tracing::error!(guard_pid, "the guard is still silent after its deadline; killing it");
            self.guard.kill();
            // The connection ends now, and `gone` does the rest.
            self.watch.renewed(None);
            return;
        }
        let (socket, node) = (self.socket.clone(), self.node.take());
        let struck = spawn_blocking(move || (sweep::strike(&socket, node.as_ref()), node)).await;
        if let Ok((killed, node)) = struck {
            self.node = node;
            match killed {
                Ok(processes) => tracing::error!(guard_pid, processes, "the guard is overdue; killed its chain node"),
                Err(e) => tracing::error!(guard_pid, error = %e, "the guard is overdue"),
            }
        }
        self.watch.struck = true;
    }

    fn gone(self, reason: String) -> GuardEvent {
        // A dying guard closes its socket a moment before it counts as dead.
        if !self.guard.is_dead_within(Duration::from_millis(500)) {
            return GuardEvent::Gone { reason, guard_runs: true, node_proven_dead: false };
        }
        let (reason, node_proven_dead) = match sweep::sweep(&self.socket, self.node.as_ref(), DEATH_BOUND) {
            Ok(killed) if killed.is_empty() => (format!("{reason}; it is dead"), true),
            Ok(killed) => (format!("{reason}; it is dead, and what it left was killed: {killed:?}"), true),
            Err(e) => (format!("{reason}; it is dead; {e}"), false),
        };
        GuardEvent::Gone { reason, guard_runs: false, node_proven_dead }
    }
}

/// When the guard must have spoken.
#[derive(Default)]
struct Watch {
    armed: Option<Armed>,
    /// The chain node was killed in the guard's place.
    struck: bool,
}

impl Watch {
    fn renewed(&mut self, armed: Option<Armed>) {
        *self = Watch { armed, struck: false };
    }

    /// Until the guard is overdue; `None` when nothing is expected of it. The guard gets half of `kill_max`
    /// to say that it fired.
    fn left(&self, kill_max: Duration, now: BootTime) -> Option<Duration> {
        let grace = kill_max / 2 + if self.struck { SILENCE_BOUND } else { Duration::ZERO };
        self.armed.map(|armed| (armed.deadline() + grace).since(now))
    }
}

/// The path by which guard, marker and sweep know the socket: its directory without links.
fn canonical(socket: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(socket)?;
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => Ok(dir.canonicalize()?.join(name)),
        (None, _) | (_, None) => Ok(path),
    }
}
