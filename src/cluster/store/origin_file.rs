//! Which file on which disk a store is: a copy of it, restored later, has forgotten what the member promised, voted and
//! logged since, and Raft counts on that. Asked at every start, by who has opened the store.
//!
//! In `state_dir/origin`, beside the store: a copy of the whole directory brings the record of the original along, and
//! lies in another file. Not in `state_dir/starts`, so that an earlier version still reads that one.
//!
//! A file is told by when it was made: no program sets that, and it stays through a restart of the host, `mv` in one
//! file system, bind mounts, other device numbers and a volume that grows. Where a file system does not keep it, the
//! number of the inode is taken, unless that changes with every mount there. Where neither is known, nothing is found.
//!
//! Not found: what is set back below the file system (a snapshot of a volume or of a guest), and a copy that is written
//! into the very files that it was made of.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::StoreError;
use super::sealed_file::SealedFile;
use crate::base::time::WallTime;

const MAGIC: &[u8; 8] = b"BTNORIG1";
/// Removed by an operator who knows that the original has not run since it was copied.
pub const ORIGIN_FILE: &str = "origin";

/// File systems below FUSE and 9p may number their files anew with every mount.
const NUMBERS_ANEW: [i64; 2] = [0x6573_5546, 0x0102_1997];

/// How a file is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nanoseconds since 1970 at which it was made, as its file system says.
    Made(u64),
    Inode(u64),
}

impl Mark {
    /// `None` when the file system has neither.
    fn of(file: &Path) -> io::Result<Option<Mark>> {
        let metadata = fs::metadata(file)?;
        let made = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let made = made.and_then(|since| u64::try_from(since.as_nanos()).ok()).filter(|nanos| *nanos > 0);
        if let Some(nanos) = made {
            return Ok(Some(Mark::Made(nanos)));
        }
        let lasting = !NUMBERS_ANEW.contains(&(rustix::fs::statfs(file)?.f_type as i64));
        Ok(lasting.then(|| Mark::Inode(metadata.ino())))
    }

    /// Whether both may be of the same file, as far as two marks can tell.
    fn may_be(self, other: Mark) -> bool {
        match (self, other) {
            (Mark::Made(one), Mark::Made(other)) | (Mark::Inode(one), Mark::Inode(other)) => one == other,
            (Mark::Made(_), Mark::Inode(_)) | (Mark::Inode(_), Mark::Made(_)) => true,
        }
    }

    fn bytes(self) -> [u8; 9] {
        let (kind, number) = match self {
            Mark::Made(nanos) => (1, nanos),
            Mark::Inode(number) => (2, number),
        };
        let mut bytes = [kind; 9];
        bytes[1..].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    fn read(bytes: [u8; 9]) -> Option<Mark> {
        let [kind, number @ ..] = bytes;
        let number = u64::from_le_bytes(number);
        match kind {
            1 => Some(Mark::Made(number)),
            2 => Some(Mark::Inode(number)),
            _ => None,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mark::Made(nanos) => write!(f, "was made at {}", WallTime::from_nanos(*nanos)),
            Mark::Inode(number) => write!(f, "has inode {number}"),
        }
    }
}

/// The store of `incarnation` in `state_dir` is the file that it was, or has its first record. To be called by who has
/// opened it, before anything is promised.
///
/// # Errors
/// It is a copy, or the record cannot be read or written. Nothing has changed then; removing the record lets the next
/// start take the store as it is.
pub fn check_origin(state_dir: &Path, incarnation: u64) -> Result<(), StoreError> {
    let Some(mark) = compare_origin(state_dir, incarnation)? else { return Ok(()) };
    let body = [&incarnation.to_le_bytes()[..], &mark.bytes()].concat();
    let file = SealedFile::new(state_dir.join(ORIGIN_FILE), MAGIC);
    file.write(&body).map_err(|error| StoreError::io("replace", file.path(), error))
}

/// What is to be recorded of it; `None` when that stands there, or nothing is known of the file.
///
/// # Errors
/// As of [`check_origin`].
pub(super) fn compare_origin(state_dir: &Path, incarnation: u64) -> Result<Option<Mark>, StoreError> {
    let (file, data) = (SealedFile::new(state_dir.join(ORIGIN_FILE), MAGIC), state_dir.join("store/db"));
    let Some(mark) = Mark::of(&data).map_err(|error| StoreError::io("look at", &data, error))? else { return Ok(None) };
    let body = file.read().map_err(|error| unread(state_dir, &error.to_string()))?;
    let recorded = body.map(|body| read(&body).ok_or_else(|| unread(state_dir, "origin has another form")));
    match recorded.transpose()? {
        Some((of, recorded)) if of == incarnation && !recorded.may_be(mark) => {
            let (now, then) = (mark.to_string(), recorded.to_string());
            Err(StoreError::Copied { dir: state_dir.to_path_buf(), now, then })
        }
        Some(same) if same == (incarnation, mark) => Ok(None),
        // Another store, made since; another kind of mark; or a store of before there were records.
        Some(_) | None => Ok(Some(mark)),
    }
}

fn read(body: &[u8]) -> Option<(u64, Mark)> {
    let (incarnation, mark) = body.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*incarnation), Mark::read(mark.try_into().ok()?)?))
}

fn unread(state_dir: &Path, reason: &str) -> StoreError {
    StoreError::Damaged { dir: state_dir.join("store"), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: u64 = 7;

    /// A directory with a store's database file in it.
    fn state() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("store")).unwrap();
        fs::write(dir.path().join("store/db"), "entries").unwrap();
        dir
    }

    /// Made later than the original: the times of files are those of the kernel's last tick.
    fn copied(dir: &Path) {
        let (db, copy) = (dir.join("store/db"), dir.join("store/copy"));
        let made = |path: &Path| fs::metadata(path).unwrap().created().ok();
        loop {
            fs::copy(&db, &copy).unwrap();
            if made(&copy).is_none() || made(&copy) != made(&db) {
                return fs::rename(copy, db).unwrap();
            }
            fs::remove_file(&copy).unwrap();
        }
    }

    #[test]
    fn a_copy_is_refused_until_its_record_is_removed_and_is_the_original_then() {
        let dir = state();
        for _ in 0..2 {
            check_origin(dir.path(), STORE).unwrap();
        }
        let record = fs::read(dir.path().join(ORIGIN_FILE)).unwrap();
        copied(dir.path());
        for _ in 0..2 {
            let error = check_origin(dir.path(), STORE).unwrap_err().to_string();
            let words = ["is a copy", "add", "empty", "remove", "/origin"];
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
            assert_eq!(fs::read(dir.path().join(ORIGIN_FILE)).unwrap(), record, "left as it was found");
        }
        fs::remove_file(dir.path().join(ORIGIN_FILE)).unwrap();
        check_origin(dir.path(), STORE).unwrap();
        copied(dir.path());
        assert!(matches!(check_origin(dir.path(), STORE), Err(StoreError::Copied { .. })));
    }

    #[test]
    fn a_store_that_was_moved_written_or_made_anew_is_no_copy() {
        let dir = state();
        check_origin(dir.path(), STORE).unwrap();
        fs::write(dir.path().join("store/db"), "more entries").unwrap();
        let moved = tempfile::tempdir_in(dir.path().parent().unwrap()).unwrap();
        for name in ["store", ORIGIN_FILE] {
            fs::rename(dir.path().join(name), moved.path().join(name)).unwrap();
        }
        check_origin(moved.path(), STORE).unwrap();
        copied(moved.path());
        check_origin(moved.path(), STORE + 1).unwrap();
        check_origin(moved.path(), STORE + 1).unwrap();
    }

    #[test]
    fn marks_of_two_kinds_tell_nothing_and_the_newer_kind_is_recorded() {
        let dir = state();
        let file = SealedFile::new(dir.path().join(ORIGIN_FILE), MAGIC);
        let now = Mark::of(&dir.path().join("store/db")).unwrap().expect("this file system keeps one");
        let other = match now {
            Mark::Made(_) => Mark::Inode(1),
            Mark::Inode(_) => Mark::Made(1),
        };
        file.write(&[&STORE.to_le_bytes()[..], &other.bytes()].concat()).unwrap();
        check_origin(dir.path(), STORE).unwrap();
        assert_eq!(read(&file.read().unwrap().unwrap()), Some((STORE, now)));
    }

    #[test]
    fn a_damaged_record_is_no_start() {
        let dir = state();
        check_origin(dir.path(), STORE).unwrap();
        let path = dir.path().join(ORIGIN_FILE);
        let mut bytes = fs::read(&path).unwrap();
        bytes[9] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(check_origin(dir.path(), STORE), Err(StoreError::Damaged { .. })));
    }
}
