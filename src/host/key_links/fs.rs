//! The four system calls that change links, behind a trait, so that a test can crash between any two.
//! Reading is not in it: a read changes nothing that a crash could leave behind.

use std::fs::File;
use std::io;
use std::path::Path;

pub trait LinkFs {
    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// The names in `dir` are on disk afterwards.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The file system as it is.
#[derive(Clone, Copy, Debug)]
pub struct OsFs;

impl LinkFs for OsFs {
    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, link)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}
