//! The guard's socket and its connections. Nothing here waits: a coordinator that hangs, floods or talks
//! nonsense loses its connection and costs the guard no time.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, flock};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{getuid, umask};

use super::GuardError;
use crate::base::guard_frame::{FrameBuffer, FromGuard, ToGuard, encode};

/// Bytes that wait for a coordinator that does not read, before its connection is closed.
const UNREAD_MAX: usize = 256 << 10;
/// Read in one turn of the loop, so that a flood cannot keep the guard from its deadline.
const READ_MAX: usize = 64 << 10;

/// The bound socket; its file goes when this does.
pub(super) struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Held as long as we live: two guards that find the same stale socket cannot both replace it.
    _lock: File,
}

impl Listener {
    /// Listens on `path`, for this user alone. A socket that nobody answers on is replaced.
    pub(super) fn bind(path: &Path) -> Result<Listener, GuardError> {
        let failed = |reason: String| GuardError::Socket { path: path.to_path_buf(), reason };
        let lock_path = path.with_added_extension("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.map_err(|e| failed(format!("open {}: {e}", lock_path.display())))?;
        let taken = match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            // A socket that answers without the lock is not ours to replace either.
            Ok(()) => UnixStream::connect(path).is_ok(),
            Err(rustix::io::Errno::WOULDBLOCK) => true,
            Err(e) => return Err(failed(format!("lock {}: {e}", lock_path.display()))),
        };
        if taken {
            return Err(GuardError::Taken { path: path.to_path_buf() });
        }
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(format!("remove the stale socket: {e}"))),
            Ok(()) | Err(_) => (),
        }
        let old = umask(Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        umask(old);
        let listener = bound.map_err(|e| failed(e.to_string()))?;
        listener.set_nonblocking(true).map_err(|e| failed(e.to_string()))?;
        Ok(Listener { listener, path: path.to_path_buf(), _lock: lock })
    }

    /// The next waiting connection, or why it was closed, which is that of another user; `None` when there is none.
    ///
    /// # Errors
    /// It goes on waiting, and the listener goes on being readable.
    pub(super) fn accept(&self) -> io::Result<Option<Result<Connection, String>>> {
        match self.listener.accept() {
            Ok((stream, _)) => Ok(Some(Connection::admit(stream))),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

pub(super) struct Connection {
    stream: UnixStream,
    incoming: FrameBuffer,
    /// Encoded, not yet taken by the kernel.
    outgoing: Vec<u8>,
    /// Its `Hello` was accepted.
    pub greeted: bool,
    /// Why it is to be closed.
    pub over: Option<String>,
}

impl Connection {
    fn admit(stream: UnixStream) -> Result<Connection, String> {
        let peer = socket_peercred(&stream).map_err(|e| format!("a connection without credentials: {e}"))?;
        if peer.uid != getuid() {
            return Err(format!("refused a connection of user {}", peer.uid.as_raw()));
        }
        stream.set_nonblocking(true).map_err(|e| e.to_string())?;
        let incoming = FrameBuffer::default();
        Ok(Connection { stream, incoming, outgoing: Vec::new(), greeted: false, over: None })
    }

    /// Takes in what has arrived.
    pub(super) fn fill(&mut self) {
        let mut chunk = [0; 8 << 10];
        let mut read = 0;
        while read < READ_MAX && self.over.is_none() {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.over = Some("it was closed by the coordinator".into()),
                Ok(n) => {
                    self.incoming.push(&chunk[..n]);
                    read += n;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(e) => self.over = Some(e.to_string()),
            }
        }
    }

    /// The next whole frame that has arrived. After a bad one the connection is over.
    pub(super) fn take(&mut self) -> Option<ToGuard> {
        self.incoming.take().unwrap_or_else(|e| {
            self.incoming = FrameBuffer::default();
            self.over = Some(e.to_string());
            None
        })
    }

    pub(super) fn send(&mut self, frame: &FromGuard) {
        match encode(frame) {
            Ok(bytes) if self.outgoing.len() + bytes.len() <= UNREAD_MAX => self.outgoing.extend(bytes),
            Ok(_) => self.over = Some(format!("it has {UNREAD_MAX} bytes unread")),
            Err(e) => self.over = Some(e.to_string()),
        }
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(written) => drop(self.outgoing.drain(..written)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(e) => {
                    self.over = Some(e.to_string());
                    return;
                }
            }
        }
        self.outgoing.shrink_to(4096);
    }

    pub(super) fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
