//! Room that is kept for votes: a file beside the store that takes up space as long as there is enough of it, and is
//! removed before a write that would find none. So a member whose disk is full goes on to vote; it takes no baton, and
//! says so. A write that fails all the same ends the store, as ever: what reached the disk is unknown then.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Display, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tokio::sync::watch;

/// Size of the reserve. The database grows by half a megabyte at a time, and the other files by a block or two.
const RESERVE_BYTES: u64 = 2 << 20;
/// With less room than this a write may fail.
const LOW_BYTES: u64 = 1 << 20;
/// With as much room as this, beside itself, the reserve is made again.
const ENOUGH_BYTES: u64 = 4 << 20;

pub struct Reserve {
    state_dir: PathBuf,
    file: PathBuf,
    kept: Mutex<bool>,
    /// What there is to say while the disk is full.
    full: watch::Sender<Option<String>>,
}

impl Reserve {
    /// That of `state_dir`, made if there is room for it.
    pub fn open(state_dir: &Path) -> Reserve {
        let file = state_dir.join("reserve");
        let kept = fs::metadata(&file).is_ok_and(|found| found.len() >= RESERVE_BYTES);
        let full = watch::Sender::new(None);
        let reserve = Reserve { state_dir: state_dir.to_path_buf(), file, kept: Mutex::new(kept), full };
        reserve.keep_beside(LOW_BYTES);
        reserve.before_write();
        reserve
    }

    /// `None` while there is the reserve and room beside it; else what is missing, in words.
    pub fn full(&self) -> watch::Receiver<Option<String>> {
        self.full.subscribe()
    }

    /// A write that follows finds room, if the reserve makes enough of it. Blocks for as long as a file system takes to
    /// say how full it is.
    pub fn before_write(&self) {
        let Some(free) = self.free().filter(|free| *free < LOW_BYTES) else { return };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let why = |dir: Display<'_>| {
            format!(
                "the disk of member.state_dir ({dir}) is full, {free} bytes were left; this host only votes as long as the \
                 {RESERVE_BYTES} bytes last that were kept for that: make room"
            )
        };
        if !std::mem::take(&mut *kept) {
            return self.says(why);
        }
        if let Err(error) = fs::remove_file(&self.file) {
            tracing::warn!("remove {}: {error}", self.file.display());
        }
        // It may have been said that the reserve is there.
        self.full.send_replace(Some(why(self.state_dir.display())));
    }

    /// Looks whether there is room, and makes the reserve again if need be. May block.
    pub fn look(&self) {
        self.keep_beside(ENOUGH_BYTES);
    }

    /// Makes the reserve, where that leaves as much as `rest`.
    fn keep_beside(&self, rest: u64) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !*kept {
            if let Some(free) = self.free().filter(|free| *free < RESERVE_BYTES + rest) {
                let least = RESERVE_BYTES + ENOUGH_BYTES;
                return self.says(|dir| {
                    format!(
                        "the disk of member.state_dir ({dir}) is full, {free} bytes are left, and none are kept for votes: make room \
                         for {least}"
                    )
                });
            }
            if let Err(error) = self.make() {
                let _ = fs::remove_file(&self.file);
                return self
                    .says(|dir| format!("no room could be kept for votes in member.state_dir ({dir}): {error}"));
            }
            *kept = true;
        }
        drop(kept);
        match self.free().filter(|free| *free < LOW_BYTES) {
            None => drop(self.full.send_if_modified(|full| full.take().is_some())),
            Some(free) => self.says(|dir| {
                format!(
                    "the disk of member.state_dir ({dir}) is full, {free} bytes are left beside the {RESERVE_BYTES} that are kept \
                     for votes: make room"
                )
            }),
        }
    }

    /// What was said first stands until there is the reserve and room again.
    fn says(&self, why: impl FnOnce(Display<'_>) -> String) {
        self.full.send_if_modified(|full| {
            let changed = full.is_none();
            if changed {
                *full = Some(why(self.state_dir.display()));
            }
            changed
        });
    }

    fn make(&self) -> io::Result<()> {
        let mut file = File::create(&self.file)?;
        if fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES).is_err() {
            let block = vec![0; 64 << 10];
            for _ in 0..RESERVE_BYTES / block.len() as u64 {
                file.write_all(&block)?;
            }
        }
        file.sync_all()
    }

    /// `None` when the file system does not tell.
    fn free(&self) -> Option<u64> {
        let found = statvfs(&self.state_dir).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_takes_room_and_is_made_once() {
        let dir = tempfile::tempdir().expect("dir");
        let reserve = Reserve::open(dir.path());
        let made = fs::metadata(dir.path().join("reserve")).expect("a reserve");
        assert_eq!(made.len(), RESERVE_BYTES);
        assert_eq!(*reserve.full().borrow(), None);
        reserve.before_write();
        assert!(dir.path().join("reserve").exists(), "there is room");
        drop(reserve);
        Reserve::open(dir.path());
        assert!(dir.path().join("reserve").exists());
    }

    #[test]
    fn a_reserve_that_cannot_be_made_is_missed_until_it_is_there() {
        let dir = tempfile::tempdir().expect("dir");
        let in_its_place = dir.path().join("reserve");
        fs::create_dir(&in_its_place).expect("a directory");
        let reserve = Reserve::open(dir.path());
        let said = reserve.full().borrow().clone().expect("said");
        assert!(said.starts_with("no room could be kept for votes in member.state_dir"), "{said}");
        fs::remove_dir(&in_its_place).expect("removed");
        reserve.look();
        assert_eq!(*reserve.full().borrow(), None);
    }
}
