//! How much room the file system of the state directory has left: looked at rarely, for people and monitors alone, and
//! by a thread that may wait for a disk. No lease does.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

use crate::metrics::DiskSpace;

const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The space below `dir`, at most a few seconds old; `None` until it was looked at, and while the file system does not
/// tell, which the log says once. Must be called inside a tokio runtime; ends when the last receiver is dropped.
pub(super) fn watch(dir: PathBuf) -> watch::Receiver<Option<DiskSpace>> {
    let (space, seen) = watch::channel(None);
    tokio::spawn(async move {
        let mut told = false;
        while !space.is_closed() {
            let asked = dir.clone();
            match spawn_blocking(move || look(&asked)).await {
                Ok(Ok(now)) => {
                    told = false;
                    space.send_replace(Some(now));
                }
                Ok(Err(error)) => {
                    if !std::mem::replace(&mut told, true) {
                        warn!("member.state_dir {}: its file system does not tell its space: {error}", dir.display());
                    }
                    space.send_replace(None);
                }
                // The runtime ends.
                Err(_) => return,
            }
            sleep(LOOK_EVERY).await;
        }
    });
    seen
}

fn look(dir: &Path) -> io::Result<DiskSpace> {
    let fs = rustix::fs::statvfs(dir)?;
    let bytes = |blocks: u64| blocks.saturating_mul(fs.f_frsize);
    Ok(DiskSpace { free: bytes(fs.f_bavail), size: bytes(fs.f_blocks) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_space_of_a_directory_is_seen_and_one_that_is_gone_has_none() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut seen = watch(dir.path().into());
        seen.changed().await.expect("looked at");
        let space = seen.borrow_and_update().expect("a file system that tells");
        assert!(0 < space.free && space.free <= space.size, "{space:?}");

        let mut seen = watch(dir.path().join("gone"));
        seen.changed().await.expect("looked at");
        assert_eq!(*seen.borrow(), None);
    }
}
