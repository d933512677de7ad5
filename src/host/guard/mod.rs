//! The guard's own loop: it is the chain node's parent and kills it when the lease deadline passes.
//!
//! One thread, no async runtime, and nothing in a turn that waits for a coordinator; links, whose disk may hang, are
//! put away by another (`tidy.rs`). It knows no cluster, no lease arithmetic and no chain: it gets a deadline and keeps
//! it. A guard whose coordinator is gone keeps a standby running and fences a validator. Called by `bin/baton-guard.rs`
//! alone.

mod backstop;
mod connection;
mod family;
pub mod fence;
mod first_process;
mod host;
mod namespace;
mod node;
mod program;
mod public_key;
mod same_key;
mod say;
mod state;
mod tidy;
mod wake;
mod watchdog;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::getppid;

use crate::base::guard_frame::{FromGuard, ToGuard};
use crate::base::time::BootTime;
use backstop::Backstop;
use connection::{Connection, Listener};
pub use first_process::first_process;
pub use namespace::{FIRST_PROCESS, TRY_NAMESPACE, try_namespace};
pub use public_key::public_key;
pub use same_key::same_key;
pub use say::{say, speak};
use state::{Answer, Guard};
use tidy::Tidier;
use wake::{Alarm, Signals};

/// News kept for a coordinator that is not there, the newest.
const UNHEARD_MAX: usize = 16;

/// After a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("another guard serves {path}; end that one first")]
    Taken { path: PathBuf },
    #[error("socket {path}: {reason}")]
    Socket { path: PathBuf, reason: String },
    #[error("{operation}: {source}")]
    Os { operation: &'static str, source: io::Error },
}

/// Serves on `socket` until `Quit` or a signal to end. `ready` is called once coordinators can connect.
pub fn run(socket: &Path, ready: impl FnOnce()) -> Result<(), GuardError> {
    let listener = Listener::bind(socket)?;
    let os = |operation| move |source| GuardError::Os { operation, source };
    let before = host::prepare().map_err(os("become the parent of orphans"))?;
    let signals = Signals::catch().map_err(os("catch signals"))?;
    let alarm = Alarm::new().map_err(os("make a timer on CLOCK_BOOTTIME"))?;
    let backstop = Backstop::new().map_err(os("make a timer that kills"))?;
    let tidier = Tidier::start().map_err(os("start the thread that puts links away"))?;
    let guard = Guard::new(socket.to_path_buf(), before, backstop, tidier);
    family::rehearse();
    ready();
    say(&format!("pid {} serves {}, started by {:?}", std::process::id(), socket.display(), getppid()));
    let (connections, unheard) = (Vec::new(), VecDeque::new());
    Loop { listener, accept_at: None, signals, alarm, guard, connections, unheard, told: false }.serve()
}

struct Loop {
    listener: Listener,
    /// Not before then, since it failed; what waits keeps the listener readable and would keep us busy.
    accept_at: Option<BootTime>,
    signals: Signals,
    alarm: Alarm,
    guard: Guard,
    /// The coordinator's, and at most one newer that has not been greeted yet. Oldest first.
    connections: Vec<Connection>,
    /// News since the coordinator last gave a sign of life; told again after the next `Welcome`.
    unheard: VecDeque<FromGuard>,
    /// News went out in this turn: what is read in it was sent before and proves nothing was heard.
    told: bool,
}

impl Loop {
    fn serve(mut self) -> Result<(), GuardError> {
        loop {
            self.told = false;
            self.guard.check_deadline(BootTime::now());
            self.tell();
            let deadline = self.guard.armed().map(|armed| armed.deadline());
            self.alarm.set(deadline).map_err(|source| GuardError::Os { operation: "set the timer", source })?;
            say::hold(self.guard.fences_a_node());
            self.wait(BootTime::now());
            // A fence comes before everything that has piled up meanwhile.
            let now = BootTime::now();
            self.guard.check_deadline(now);
            if self.signals.drain() {
                say("told to end by a signal");
                self.guard.leave(now);
            }
            self.guard.advance(now);
            self.guard.note_tidied();
            self.guard.note_watchdog();
            self.tell();
            self.admit(now);
            self.hear();
            if self.guard.has_left() {
                self.tell();
                say("ends");
                say::hold(false);
                return Ok(());
            }
        }
    }

    /// Until there is something to do. Interrupted or refused, it only comes back early.
    fn wait(&self, now: BootTime) {
        let mut fds = vec![PollFd::new(&self.alarm, PollFlags::IN), PollFd::new(self.guard.tidier(), PollFlags::IN)];
        if self.accept_at.is_none() {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        fds.extend(self.signals.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let node = self.guard.node();
        fds.extend(node.and_then(|n| n.pidfd()).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        for connection in &self.connections {
            let write = if connection.wants_write() { PollFlags::OUT } else { PollFlags::empty() };
            fds.push(PollFd::new(connection, PollFlags::IN | write));
        }
        let left = node.and_then(|n| n.wake_at(now)).into_iter().chain(self.accept_at).min().map(|at| at.since(now));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let _ = poll(&mut fds, timeout.as_ref());
    }

    /// Carries news to the coordinator, if there is one, and keeps them until it is heard of again.
    fn tell(&mut self) {
        for frame in self.guard.news.drain(..) {
            self.told = true;
            if let Some(active) = self.connections.iter_mut().find(|c| c.greeted) {
                active.send(&frame);
            }
            if !frame.is_kept_unheard() {
                continue;
            }
            if self.unheard.len() == UNHEARD_MAX {
                self.unheard.pop_front();
            }
            self.unheard.push_back(frame);
        }
    }

    fn admit(&mut self, now: BootTime) {
        if self.accept_at.is_some_and(|at| now < at) {
            return;
        }
        loop {
            let admitted = match self.listener.accept() {
                Ok(admitted) => admitted,
                Err(e) => {
                    if self.accept_at.is_none() {
                        say(&format!("cannot accept a connection: {e}; trying again every {ACCEPT_PAUSE:?}"));
                    }
                    self.accept_at = Some(now + ACCEPT_PAUSE);
                    return;
                }
            };
            self.accept_at = None;
            let Some(admitted) = admitted else { return };
            match admitted {
                Ok(connection) => {
                    // A newcomer replaces a newcomer; it replaces the coordinator only once it is greeted.
                    self.connections.retain(|c| c.greeted);
                    self.connections.push(connection);
                }
                Err(reason) => say(&reason),
            }
        }
    }

    fn hear(&mut self) {
        let mut index = 0;
        while index < self.connections.len() {
            let connection = &mut self.connections[index];
            connection.flush();
            connection.fill();
            while let Some(frame) = self.connections.get_mut(index).and_then(Connection::take) {
                let now = BootTime::now();
                self.guard.check_deadline(now);
                let is_hello = matches!(frame, ToGuard::Hello { .. });
                if !is_hello && !self.connections[index].greeted {
                    self.connections[index].over = Some(format!("it began with {}, not Hello", frame.name()));
                    break;
                }
                // What has happened is told before what this frame does.
                self.tell();
                if !is_hello && !self.told {
                    self.unheard.clear();
                }
                let answer = self.guard.handle(frame, now);
                say::hold(self.guard.fences_a_node());
                if let (true, Answer::Frame(_)) = (is_hello, &answer) {
                    index = self.greet(index);
                }
                let connection = &mut self.connections[index];
                match answer {
                    Answer::Frame(frame) => connection.send(&frame),
                    Answer::Later => (),
                    Answer::Close(frame) => {
                        if let FromGuard::Refused { request, reason, .. } = &frame {
                            connection.over = Some(format!("refused {request}: {reason}"));
                        }
                        connection.send(&frame);
                    }
                }
                if is_hello {
                    self.unheard.iter().for_each(|frame| connection.send(frame));
                }
                self.tell();
            }
            index += 1;
        }
        for closed in self.connections.extract_if(.., |c| c.over.is_some()) {
            say(&format!("closed a connection: {}", closed.over.unwrap_or_default()));
        }
    }

    /// Makes the connection at `index` the coordinator's, in place of an older one. Its new index.
    fn greet(&mut self, index: usize) -> usize {
        let mut at = 0;
        self.connections.retain(|c| {
            at += 1;
            let replaced = c.greeted && at - 1 != index;
            if replaced {
                say("a newer connection replaces the coordinator's");
            }
            !replaced
        });
        let index = self.connections.len().min(index + 1) - 1;
        self.connections[index].greeted = true;
        index
    }
}
