//! Wakes whoever waits for a file to be written or replaced, by inotify on its directory. Where that cannot be had, or
//! tells nothing (a file system that somebody else writes), the caller looks from time to time all the same. Called by
//! `mark.rs`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// Room for some events with names.
const EVENTS_BYTES: usize = 4096;

/// Tells of the directories of some files.
pub(super) struct FileWatch {
    events: AsyncFd<OwnedFd>,
}

impl FileWatch {
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// A directory is not there, or the kernel gives no more watches.
    pub(super) fn on<'a>(files: impl IntoIterator<Item = &'a Path>) -> io::Result<FileWatch> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        for dir in files.into_iter().filter_map(Path::parent) {
            let written = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO;
            inotify::add_watch(&fd, dir, written | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR)?;
        }
        // SAFETY: an `OwnedFd` names one file descriptor for as long as it lives, and lives in the `AsyncFd`.
        #[allow(unsafe_code)]
        let events = unsafe { AsyncFd::register(fd) }?;
        Ok(FileWatch { events })
    }

    /// Returns when something in these directories has changed since the last call; once for what came together.
    ///
    /// # Errors
    /// The watch tells nothing any more: a directory is gone, or the kernel says why. Make another.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.events.readable().await?;
            match drain(self.events.get_ref()) {
                Ok(0) => ready.clear_ready(),
                Ok(_) => {
                    ready.clear_ready();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// How many events there were.
fn drain(fd: &OwnedFd) -> io::Result<usize> {
    let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
    let mut reader = Reader::new(fd, &mut buffer);
    let gone = ReadFlags::IGNORED | ReadFlags::MOVE_SELF;
    let mut count = 0;
    loop {
        match reader.next() {
            Ok(event) if event.events().intersects(gone) => {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the directory is gone"));
            }
            Ok(_) => count += 1,
            Err(Errno::AGAIN) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Nothing that is awaited takes as long.
    const SOON: Duration = Duration::from_secs(20);
    const MOMENT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_file_that_is_made_written_or_replaced_is_told_once_and_a_quiet_one_is_not() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("state.json");
        let mut watch = FileWatch::on([file.as_path()]).expect("a watch");
        let ways: [fn(&Path); 3] = [
            |file| fs::write(file, "1").expect("written"),
            |file| fs::write(file, "22").expect("written"),
            |file| {
                fs::write(file.with_extension("new"), "3").expect("written");
                fs::rename(file.with_extension("new"), file).expect("renamed");
            },
        ];
        for (number, change) in ways.iter().enumerate() {
            change(&file);
            timeout(SOON, watch.changed())
                .await
                .unwrap_or_else(|_| panic!("change {number} is not told"))
                .expect("told");
            assert!(timeout(MOMENT, watch.changed()).await.is_err(), "change {number} is told twice");
        }
    }

    #[tokio::test]
    async fn a_directory_that_goes_ends_its_watch_and_one_that_is_not_there_has_none() {
        let dir = tempfile::tempdir().expect("dir");
        let home = dir.path().join("data");
        let file = home.join("state.json");
        assert!(FileWatch::on([file.as_path()]).is_err());
        let ways: [fn(&Path); 2] = [
            |home| fs::rename(home, home.with_extension("old")).expect("moved"),
            |home| fs::remove_dir(home).expect("removed"),
        ];
        for go in ways {
            fs::create_dir(&home).expect("made");
            let mut watch = FileWatch::on([file.as_path()]).expect("a watch");
            go(&home);
            timeout(SOON, watch.changed()).await.expect("told").expect_err("gone");
        }
    }
}
