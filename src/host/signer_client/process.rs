//! One signer process: how it is started, and its socket frame by frame. Starting has a thread of its own, reading and
//! writing a task each: nothing that carries a lease waits for a disk, and nothing that can be cut short for a socket.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::Stdio;
use std::sync::mpsc as std_mpsc;
use std::thread;

use prost::Message;
use rustix::process::{getpriority_process, setpriority_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::SignerSettings;
use crate::base::guard_frame::{GUARD_MARKER, JSON_LINES, LinesAs};
use crate::base::realtime::{keep_nice, polled_without_priority};
use crate::base::service_manager::VARIABLES;
use crate::host::signer::frames::proto::{Answer, Request};
use crate::host::signer::frames::{self, FrameError, LENGTH_BYTES};

/// Requests on their way to the socket.
const UNSENT_MAX: usize = 64;

/// What a process says.
pub(super) enum Heard {
    Answer(Answer),
    /// It says no more, and why. It was killed and ends.
    Silent(String),
    /// It has ended, and how; the last word.
    Ended(String),
}

/// Killed when it is dropped.
pub(super) struct Process {
    pub pid: u32,
    pub heard: mpsc::Receiver<Heard>,
    /// Full or closed: a process that does not read.
    pub requests: mpsc::Sender<Request>,
}

/// Starts processes on a thread of its own, since a disk that hangs holds up whoever executes a program from it. The
/// kernel ends a signer with the thread that started it, so the thread lives as long as this.
pub(super) struct Starter(std_mpsc::Sender<oneshot::Sender<io::Result<Process>>>);

impl Starter {
    /// To be called in the runtime that is to hear the processes.
    ///
    /// # Errors
    /// There is no thread.
    pub(super) fn new(settings: SignerSettings) -> io::Result<Starter> {
        let (wanted, orders) = std_mpsc::channel::<oneshot::Sender<io::Result<Process>>>();
        // A thread that one with real-time priority starts has neither that nor the nice value.
        let (runtime, nice) = (Handle::current(), getpriority_process(None).unwrap_or(0));
        thread::Builder::new().name("signer".into()).spawn(move || {
            let _ = setpriority_process(None, nice);
            let _entered = runtime.enter();
            for started in orders {
                // Nobody who waits any more: the process goes with the answer.
                let _ = started.send(Process::start(&settings));
            }
        })?;
        Ok(Starter(wanted))
    }

    /// # Errors
    /// There is no process.
    pub(super) async fn start(&self) -> io::Result<Process> {
        let over = || io::Error::other("the thread that starts it has ended");
        let (started, process) = oneshot::channel();
        self.0.send(started).map_err(|_| over())?;
        process.await.map_err(|_| over())?
    }
}

impl Process {
    fn start(settings: &SignerSettings) -> io::Result<Process> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(&settings.binary);
        match settings.lines_as {
            LinesAs::Text => {}
            LinesAs::Json => drop(command.arg(JSON_LINES)),
        }
        command.arg("--key").arg(&settings.key).arg("--mark").arg(&settings.mark);
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).kill_on_drop(true);
        // What was meant for us alone.
        VARIABLES.iter().chain([&GUARD_MARKER]).for_each(|name| _ = command.env_remove(name));
        // Our real-time priority is not handed down (SCHED_RESET_ON_FORK); the signer also gives up any other.
        keep_nice(command.as_std_mut());
        let child = command.spawn()?;
        // Our copy of its end: without this we would never see the end.
        drop(command);
        let pid = child.id().ok_or_else(|| io::Error::other("it has ended already"))?;
        let (reading, writing) = UnixStream::from_std(ours)?.into_split();
        let (tell, heard) = mpsc::channel(UNSENT_MAX);
        let (requests, queue) = mpsc::channel(UNSENT_MAX);
        tokio::spawn(listen(child, reading, tell));
        tokio::spawn(send(writing, queue));
        Ok(Process { pid, heard, requests })
    }
}

/// Ends the process when nobody listens any more.
async fn listen(mut child: Child, mut stream: OwnedReadHalf, tell: mpsc::Sender<Heard>) {
    let reason = loop {
        tokio::select! {
            // What is read by halves is of no more use to anybody.
            () = tell.closed() => return,
            answer = next(&mut stream) => match answer {
                Ok(Some(answer)) => {
                    if tell.send(Heard::Answer(answer)).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break "it closed its socket".to_owned(),
                Err(error) => break error.to_string(),
            },
        }
    };
    // Whoever waits for an answer hears of it before the process is gone, which may have to wait for a disk.
    let _ = tell.send(Heard::Silent(reason)).await;
    let _ = child.start_kill();
    let ended = match polled_without_priority(child.wait()).await {
        Ok(status) => format!("it ended with {status}; it says why in the log"),
        Err(error) => format!("how it ended is not known: {error}"),
    };
    let _ = tell.send(Heard::Ended(ended)).await;
}

/// `None` at the end of the connection.
async fn next(stream: &mut OwnedReadHalf) -> Result<Option<Answer>, FrameError> {
    let mut head = [0; LENGTH_BYTES];
    match stream.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut body = vec![0; frames::length(head)?];
    stream.read_exact(&mut body).await?;
    Ok(Some(Answer::decode(body.as_slice())?))
}

async fn send(mut stream: OwnedWriteHalf, mut queue: mpsc::Receiver<Request>) {
    while let Some(request) = queue.recv().await {
        let sent = match frames::encode(&request) {
            Ok(frame) => stream.write_all(&frame).await.map_err(FrameError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            // The listener sees the connection end; dropping our half ends it.
            tracing::warn!(%error, "a request could not be sent to the signer");
            return;
        }
    }
}
