//! What the service manager that started this process is told, as sd_notify(3) has it: that it runs, in one line how it
//! is, that it is alive, that it ends. systemd is one, and whatever else sets NOTIFY_SOCKET. The coordinator calls it from
//! the thread that carries the lease: nothing here waits, and nothing is opened after the start. A service manager that
//! hangs costs a message, and a coordinator without a file descriptor left is still known to live. The crate for this opens
//! a socket for each message.

use std::env::VarError;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// They are for this process alone: whatever it starts is started without them.
pub const VARIABLES: [&str; 3] = [SOCKET, WATCHDOG_USEC, WATCHDOG_PID];

/// Shortest `WatchdogSec=`: the coordinator beats twice a second, and some beats may come late on a busy host.
pub const WATCHDOG_MIN: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ServiceManagerError {
    #[error("the service manager's socket {socket:?} (NOTIFY_SOCKET): {source}; correct the variable or unset it")]
    Socket { socket: OsString, source: io::Error },
    #[error("WATCHDOG_USEC is {value:?}, which is no number of microseconds; correct the variable or unset it")]
    NoInterval { value: OsString },
    #[error("the watchdog's interval is {interval:?}; set WatchdogSec= in the unit to {WATCHDOG_MIN:?} or more")]
    IntervalTooShort { interval: Duration },
}

/// Cheap to clone. Says nothing when nobody wants to hear it.
#[derive(Clone, Debug)]
pub struct ServiceManager(Option<Arc<Line>>);

#[derive(Debug)]
struct Line {
    socket: UnixDatagram,
    address: SocketAddr,
    /// Whether it wants to hear that this process is alive.
    watchdog: bool,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    ready: bool,
    stopping: bool,
    status: String,
    /// The last message did not get through, and the log says so.
    failed: bool,
}

impl ServiceManager {
    /// As the environment says; nobody is told anything yet.
    ///
    /// # Errors
    /// There is no such socket, or a watchdog that would take a busy coordinator for a hung one.
    pub fn from_environment() -> Result<ServiceManager, ServiceManagerError> {
        let Some(name) = std::env::var_os(SOCKET).filter(|name| !name.is_empty()) else {
            return Ok(ServiceManager(None));
        };
        let watchdog = watchdog_interval()?.is_some();
        let open = || {
            let address = address(&name)?;
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            socket.connect_addr(&address)?;
            Ok(Line { socket, address, watchdog, told: Mutex::default() })
        };
        let line = open().map_err(|source| ServiceManagerError::Socket { socket: name.clone(), source })?;
        Ok(ServiceManager(Some(Arc::new(line))))
    }

    /// The coordinator has come round: `status` is how it is, and from the first time on that `ready` is true it runs.
    pub fn beat(&self, ready: bool, status: &str) {
        self.tell(|told, watchdog| {
            let mut message = String::new();
            if ready && !told.ready && !told.stopping {
                message.push_str("READY=1\n");
                told.ready = true;
            }
            if told.status != status {
                message.push_str(&format!("STATUS={}\n", status.replace('\n', " ")));
                status.clone_into(&mut told.status);
            }
            if watchdog {
                message.push_str("WATCHDOG=1\n");
            }
            message
        });
    }

    /// The coordinator has begun to end.
    pub fn stopping(&self) {
        self.tell(
            |told, _| if std::mem::replace(&mut told.stopping, true) { "".into() } else { "STOPPING=1\n".into() },
        );
    }

    /// What a lost message has said is said again with the next.
    fn tell(&self, compose: impl FnOnce(&mut Told, bool) -> String) {
        let Some(line) = &self.0 else { return };
        let mut told = line.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Told { status: told.status.clone(), ..*told };
        let message = compose(&mut next, line.watchdog);
        if message.is_empty() {
            return;
        }
        match line.send(&message) {
            Ok(()) => *told = Told { failed: false, ..next },
            Err(error) if !told.failed => {
                told.failed = true;
                tracing::warn!(%error, "the service manager takes no message; it is told again");
            }
            Err(_) => {}
        }
    }
}

impl Line {
    fn send(&self, message: &str) -> io::Result<()> {
        match self.socket.send(message.as_bytes()) {
            // It may have made its socket anew.
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                self.socket.connect_addr(&self.address)?;
                self.socket.send(message.as_bytes()).map(drop)
            }
            sent => sent.map(drop),
        }
    }
}

/// A path, or `@` and a name in the kernel's own space of names.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

/// Within which this process has to say that it is alive, if anybody waits for that.
fn watchdog_interval() -> Result<Option<Duration>, ServiceManagerError> {
    let other = |pid: String| pid.parse() != Ok(std::process::id());
    if std::env::var(WATCHDOG_PID).is_ok_and(other) {
        return Ok(None);
    }
    let value = match std::env::var(WATCHDOG_USEC) {
        Err(VarError::NotPresent) => return Ok(None),
        Err(VarError::NotUnicode(value)) => return Err(ServiceManagerError::NoInterval { value }),
        Ok(value) => value,
    };
    let interval = value.parse().map(Duration::from_micros);
    let interval = interval.map_err(|_| ServiceManagerError::NoInterval { value: value.into() })?;
    if interval < WATCHDOG_MIN {
        return Err(ServiceManagerError::IntervalTooShort { interval });
    }
    Ok(Some(interval))
}
