//! `unix://`: who listens there, and the file that a node leaves behind.

use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::getuid;
use tokio::net::UnixStream;

/// Why there is no connection.
pub(super) enum NotDialled {
    /// Nobody listens, as before each start of the node.
    Absent(String),
    /// Something that an operator has to look at.
    Problem(String),
}

/// A connection to whoever listens at `path`, when that is a process of this user or of root.
pub(super) async fn dial(path: &Path) -> Result<UnixStream, NotDialled> {
    let shown = path.display();
    let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            NotDialled::Absent(format!("no chain node listens at {shown}"))
        }
        _ => NotDialled::Problem(format!("{shown} cannot be dialled: {error}")),
    })?;
    let unknown = |error| NotDialled::Problem(format!("who listens at {shown} cannot be told: {error}"));
    let (peer, own) = (stream.peer_cred().map_err(unknown)?.uid(), getuid().as_raw());
    if is_served(peer, own) {
        return Ok(stream);
    }
    let who = format!("user {peer} listens at {shown}; only a chain node of user {own} or root is served");
    Err(NotDialled::Problem(who))
}

fn is_served(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

/// Why a socket's file may still be there.
#[derive(Debug, thiserror::Error)]
pub enum StaleSocketError {
    #[error("a process listens at {}; the chain node cannot start before that one ends", path.display())]
    InUse { path: PathBuf },
    #[error("{} is no socket; move it away, or change priv_validator_laddr", path.display())]
    NoSocket { path: PathBuf },
    #[error("look for a socket that an earlier chain node left at {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// Removes the file of a socket at which nobody listens, and says whether it did. With the file there a chain node
/// cannot start. Never blocks. For whoever is about to start the node: no other may start meanwhile.
///
/// # Errors
/// The file is as it was.
pub fn remove_stale_socket(path: &Path) -> Result<bool, StaleSocketError> {
    let failed = |error| StaleSocketError::Io { path: path.to_owned(), error };
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(StaleSocketError::NoSocket { path: path.to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    }
    // A socket of another type is refused by one that is in use, whose queue it never enters.
    match UnixDatagram::unbound().and_then(|socket| socket.connect(path)) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        Err(error) if error.raw_os_error() != Some(Errno::PROTOTYPE.raw_os_error()) => return Err(failed(error)),
        Ok(()) | Err(_) => return Err(StaleSocketError::InUse { path: path.to_owned() }),
    }
    std::fs::remove_file(path).map_err(failed)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_user_and_root_are_served() {
        assert!(is_served(1000, 1000) && is_served(0, 1000) && is_served(0, 0));
        assert!(!is_served(1001, 1000) && !is_served(1000, 0));
    }
}
