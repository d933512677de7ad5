//! How much room the file system of the state directory has left: looked at rarely, for people and monitors alone, and
//! by a thread that may wait for a disk. No lease does. Also what becomes of the room that the store keeps in reserve.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::base::time::BootTime;
use crate::cluster::store::Reserve;
use crate::core::Event;
use crate::core_handle::SharedCore;
use crate::operator::metrics::DiskSpace;

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
            sleep(BootTime::now().until_multiple_of(LOOK_EVERY)).await;
        }
    });
    seen
}

/// The core and the log hear when there is no room beside the store's reserve, and when there is again.
pub(super) async fn tell_full(core: Arc<SharedCore>, mut full: watch::Receiver<Option<String>>) {
    let mut told = None;
    loop {
        let room = full.borrow_and_update().clone();
        if room != told {
            match &room {
                Some(room) => error!("{room}"),
                None => info!("the disk of member.state_dir has room again, and a reserve is kept for votes"),
            }
            told.clone_from(&room);
            core.step(Event::DiskFull { room });
        }
        if full.changed().await.is_err() {
            return;
        }
    }
}

/// Looks whether there is room beside the reserve, which is made again once there is. Until the coordinator ends.
pub(super) async fn look_after(reserve: Arc<Reserve>) {
    loop {
        sleep(BootTime::now().until_multiple_of(LOOK_EVERY)).await;
        let reserve = reserve.clone();
        if spawn_blocking(move || reserve.look()).await.is_err() {
            // The runtime ends.
            return;
        }
    }
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
