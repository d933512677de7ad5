//! Everything that an upgrade changes on disk, behind a trait, so that a test can stop between any two operations and
//! fill the disk. Reading is not in it: a read leaves nothing behind.

use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use ring::digest::SHA256;

use super::digest::read_blocks;

pub trait Files: Send + Sync {
    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes `file` with these bytes, and they are on disk.
    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()>;
    /// The names in `dir` are on disk afterwards.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn remove_tree(&self, dir: &Path) -> io::Result<()>;
    /// Open to its owner alone until `like` says otherwise.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Gives `path` the permissions, the times and, where this process may, the owner of `like`.
    fn make_like(&self, path: &Path, like: &Path) -> io::Result<()>;
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Copies the bytes of a file; `progress` hears of each block. Returns the SHA-256 of what was read.
    fn copy(&self, from: &Path, to: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<String>;
    /// Everything on the file system of `dir` is on disk afterwards.
    fn sync_all(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that this process may still write below `dir`.
    fn free(&self, dir: &Path) -> io::Result<u64>;
}

/// The file system as it is.
#[derive(Clone, Copy, Debug)]
pub struct OsFiles;

impl Files for OsFiles {
    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, link)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(file)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_tree(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(dir)
    }

    fn make_like(&self, path: &Path, like: &Path) -> io::Result<()> {
        let found = fs::metadata(like)?;
        let file = File::open(path)?;
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (found.uid(), found.gid()) {
            // Only root may give files away; whoever else takes a backup owns it.
            let _ = fchown(&file, Some(found.uid()), Some(found.gid()));
        }
        file.set_times(FileTimes::new().set_modified(found.modified()?).set_accessed(found.accessed()?))?;
        file.set_permissions(Permissions::clone(&found.permissions()))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn copy(&self, from: &Path, to: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<String> {
        let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        read_blocks(&mut File::open(from)?, &SHA256, |block| {
            copy.write_all(block)?;
            progress(block.len() as u64);
            Ok(())
        })
    }

    fn sync_all(&self, dir: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(dir)?)?)
    }

    fn free(&self, dir: &Path) -> io::Result<u64> {
        let fs = rustix::fs::statvfs(dir)?;
        Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
    }
}
