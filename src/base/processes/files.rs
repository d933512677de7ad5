//! Which files other processes have open, and which are locked.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::makedev;

/// A lock on a file, whatever its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// `None` for a lock that belongs to an open file and to no process.
    pub pid: Option<u32>,
    pub device: u64,
    pub inode: u64,
}

impl Lock {
    pub fn is_on(&self, file: &fs::Metadata) -> bool {
        (self.device, self.inode) == (file.dev(), file.ino())
    }
}

/// # Errors
/// When the kernel does not show them. Those of processes in other PID namespaces are missing.
pub fn locks() -> io::Result<Vec<Lock>> {
    Ok(parse_locks(&fs::read_to_string("/proc/locks")?))
}

/// proc_locks(5): `1: POSIX ADVISORY WRITE 1234 08:01:131 0 EOF`; one that is only waited for has `->`.
pub fn parse_locks(text: &str) -> Vec<Lock> {
    text.lines().filter_map(lock).collect()
}

fn lock(line: &str) -> Option<Lock> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    if !matches!(*fields.get(1)?, "POSIX" | "FLOCK" | "OFDLCK") {
        return None;
    }
    let mut place = fields.get(5)?.split(':');
    let mut hex = || u32::from_str_radix(place.next()?, 16).ok();
    let device = makedev(hex()?, hex()?);
    Some(Lock { pid: fields.get(4)?.parse().ok(), device, inode: place.next()?.parse().ok()? })
}

/// A file that a process has open.
pub struct OpenFile {
    pub path: PathBuf,
    pub is: fs::Metadata,
    pub for_writing: bool,
}

/// The files below `folder` that a process has open; none of a process that may not be looked at.
pub fn open_files(pid: u32, folder: &Path) -> Vec<OpenFile> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let open = entries.flatten().filter_map(|entry| {
        let link = entry.path();
        let path = fs::read_link(&link).ok().filter(|file| file.starts_with(folder) && file != folder)?;
        // The link's own mode says how the file was opened.
        let for_writing = fs::symlink_metadata(&link).is_ok_and(|link| link.mode() & 0o200 != 0);
        Some(OpenFile { path, is: fs::metadata(&link).ok()?, for_writing })
    });
    open.collect()
}

/// Whether it cannot be known what a process has open, also because it is not shown at all (`ProtectProc=invisible`).
pub fn is_unreadable(pid: u32) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd")).is_err()
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FlockOperation, flock};

    use super::*;

    #[test]
    fn locks_of_each_kind_are_read_and_those_that_are_waited_for_left_out() {
        let text = "1: POSIX  ADVISORY  WRITE 1234 08:01:131 0 EOF\n\
                    2: FLOCK  ADVISORY  WRITE 99 fd:1a:7 0 EOF\n\
                    2: -> FLOCK  ADVISORY  WRITE 98 fd:1a:7 0 EOF\n\
                    3: OFDLCK ADVISORY  READ -1 00:2b:12 0 EOF\n\
                    4: LEASE  ACTIVE    WRITE 5 08:01:2 0 EOF\nnonsense\n";
        let lock = |pid, major, minor, inode| Lock { pid, device: makedev(major, minor), inode };
        let expected = [lock(Some(1234), 8, 1, 131), lock(Some(99), 0xfd, 0x1a, 7), lock(None, 0, 0x2b, 12)];
        assert_eq!(parse_locks(text), expected);
    }

    #[test]
    fn files_that_this_process_has_open_are_found_and_how() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().canonicalize().expect("a path");
        let (written, read) = (path.join("data/LOCK"), path.join("read"));
        fs::create_dir(path.join("data")).expect("a folder");
        fs::write(&read, "").expect("a file");
        let _reads = fs::File::open(&read).expect("open");
        let _folder = fs::File::open(&path).expect("open");
        let writes = fs::File::create(&written).expect("a file");
        let me = std::process::id();
        let mut found = open_files(me, &path);
        found.sort_by_key(|open| open.for_writing);
        let shown: Vec<_> = found.iter().map(|open| (open.path.clone(), open.for_writing)).collect();
        assert_eq!(shown, [(read, false), (written, true)], "and not the folder itself");
        flock(&writes, FlockOperation::NonBlockingLockExclusive).expect("locked");
        let locks = locks().expect("the kernel shows them");
        assert!(locks.iter().any(|lock| lock.pid == Some(me) && lock.is_on(&found[1].is)), "{locks:?}");
    }
}
