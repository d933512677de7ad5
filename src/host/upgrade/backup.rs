//! A backup of the data directory before an upgrade: into a temporary folder beside its place, made durable, compared
//! with what was read, and renamed. It is there as a whole or not at all. Nothing here ever puts one back: the record
//! of what the validator key signed is in it, and an old one of that is a double signature waiting to happen.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ring::digest::SHA256;

use super::digest::{self, read_blocks};
use super::files::Files;
use super::layout::escaped;
use crate::base::ids::UpgradeName;
use crate::base::time::WallTime;
use crate::config::{self, Backup};

const PREFIX: &str = "data-backup-";
/// Left free for whatever else writes there.
const SPARE_BYTES: u64 = 64 << 20;
/// A file takes whole blocks of this many bytes, on the file systems that are usual.
const BLOCK_BYTES: u64 = 4096;

#[derive(Debug)]
enum What {
    Directory,
    Copied { bytes: u64 },
    Linked,
    Symlink { to: PathBuf },
}

#[derive(Debug)]
struct Entry {
    /// Below the data directory.
    path: PathBuf,
    what: What,
}

/// Backs up `data` for `upgrade`; `progress` hears of bytes that are done, and of how many. Returns where it is.
///
/// # Errors
/// In words. The data is as it was, and nothing of the attempt is left.
pub(super) fn take(
    files: &dyn Files,
    settings: &config::Upgrade,
    data: &Path,
    upgrade: &UpgradeName,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PathBuf, String> {
    let dir = &settings.backup_dir;
    let mark = format!(".partial-{}", of_root(&settings.root));
    remove_left_over(files, dir, &mark)
        .map_err(|error| format!("remove a left-over backup in {}: {error}", dir.display()))?;
    let entries = entries_of(settings, data)?;
    check_space(files, dir, &entries)?;
    let place = place(dir, upgrade);
    let mut partial = place.clone().into_os_string();
    partial.push(&mark);
    let work = Work { files, data, partial: PathBuf::from(partial), entries };
    let placed = work.copy(progress).and_then(|()| {
        files.rename(&work.partial, &place)?;
        files.sync_dir(dir)
    });
    placed.map(|()| place).map_err(|error| {
        // What cannot be removed now is at the next attempt.
        let _ = files.remove_tree(&work.partial);
        let hint = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "make room, or name another upgrade.backup_dir"
            }
            _ => "see to it, or name another upgrade.backup_dir",
        };
        format!("the backup in {}: {error}; the data is untouched; {hint}", dir.display())
    })
}

struct Work<'a> {
    files: &'a dyn Files,
    data: &'a Path,
    partial: PathBuf,
    entries: Vec<Entry>,
}

impl Work<'_> {
    fn copy(&self, progress: &mut dyn FnMut(u64, u64)) -> io::Result<()> {
        let total: u64 = self.entries.iter().map(Entry::bytes).sum();
        let (mut copied, mut sums) = (0, Vec::new());
        // Every byte is written once and read once: half of it is done when all is written.
        let mut on_bytes = |bytes: u64| {
            copied += bytes;
            progress((copied / 2).min(total), total);
        };
        on_bytes(0);
        self.files.create_dir(&self.partial)?;
        for entry in &self.entries {
            if let Some(sum) = self.copy_entry(entry, &mut on_bytes).map_err(|error| told(&entry.path, error))? {
                sums.push((&entry.path, sum));
            }
        }
        let folders = self.entries.iter().rev().filter(|entry| matches!(entry.what, What::Directory));
        for folder in folders.map(|entry| entry.path.as_path()).chain([Path::new("")]) {
            self.files.make_like(&self.partial.join(folder), &self.data.join(folder))?;
        }
        self.files.sync_all(&self.partial)?;
        for (path, sum) in sums {
            check(&self.partial.join(path), &sum, &mut on_bytes).map_err(|error| told(path, error))?;
        }
        Ok(())
    }

    fn copy_entry(&self, entry: &Entry, on_bytes: &mut dyn FnMut(u64)) -> io::Result<Option<String>> {
        let (from, to) = (self.data.join(&entry.path), self.partial.join(&entry.path));
        match &entry.what {
            What::Directory => self.files.create_dir(&to).map(|()| None),
            What::Symlink { to: target } => self.files.symlink(target, &to).map(|()| None),
            What::Linked => match self.files.hard_link(&from, &to) {
                // Another mount of the same file system.
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => self.copy_file(&from, &to, &mut |_| {}),
                linked => linked.map(|()| None),
            },
            What::Copied { .. } => self.copy_file(&from, &to, on_bytes),
        }
    }

    fn copy_file(&self, from: &Path, to: &Path, on_bytes: &mut dyn FnMut(u64)) -> io::Result<Option<String>> {
        let sum = self.files.copy(from, to, on_bytes)?;
        self.files.make_like(to, from)?;
        Ok(Some(sum))
    }
}

impl Entry {
    /// That are copied.
    fn bytes(&self) -> u64 {
        match self.what {
            What::Copied { bytes } => bytes,
            What::Directory | What::Linked | What::Symlink { .. } => 0,
        }
    }
}

/// Everything below the data directory, a folder before what is in it.
fn entries_of(settings: &config::Upgrade, data: &Path) -> Result<Vec<Entry>, String> {
    let found = fs::metadata(data).map_err(|error| {
        let shown = data.display();
        format!("{shown}, which is to be backed up: {error}; correct upgrade.root, or set upgrade.backup = \"none\"")
    })?;
    let same_device = fs::metadata(&settings.backup_dir).is_ok_and(|dir| dir.dev() == found.dev());
    let links = settings.backup == Backup::Links && same_device;
    let mut entries = Vec::new();
    list(data, Path::new(""), links, &mut entries).map_err(|error| format!("read {}: {error}", data.display()))?;
    Ok(entries)
}

fn list(data: &Path, folder: &Path, links: bool, entries: &mut Vec<Entry>) -> io::Result<()> {
    for found in fs::read_dir(data.join(folder))? {
        let found = found?;
        let (path, kind) = (folder.join(found.file_name()), found.file_type()?);
        let is_fixed = || path.extension().is_some_and(|extension| extension == "ldb" || extension == "sst");
        let what = if kind.is_dir() {
            What::Directory
        } else if kind.is_symlink() {
            What::Symlink { to: fs::read_link(data.join(&path))? }
        } else if !kind.is_file() {
            // A socket or a pipe means nothing without the process that made it.
            continue;
        } else if links && is_fixed() {
            What::Linked
        } else {
            What::Copied { bytes: found.metadata()?.len() }
        };
        let inner = matches!(what, What::Directory).then(|| path.clone());
        entries.push(Entry { path, what });
        if let Some(inner) = inner {
            list(data, &inner, links, entries)?;
        }
    }
    Ok(())
}

fn check_space(files: &dyn Files, dir: &Path, entries: &[Entry]) -> Result<(), String> {
    let shown = dir.display();
    let free =
        files.free(dir).map_err(|error| format!("upgrade.backup_dir {shown}: {error}; make it, or name another"))?;
    let blocks = entries.iter().map(|entry| entry.bytes().next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES));
    let needed = blocks.sum::<u64>() + SPARE_BYTES;
    if needed <= free {
        return Ok(());
    }
    let (needed, free) = (mib(needed), mib(free));
    Err(format!(
        "the backup needs {needed} MiB and {shown} has {free} MiB free; make room, name another upgrade.backup_dir, or set \
         upgrade.backup = \"links\" or \"none\""
    ))
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// Reads a copy again, from the disk if the kernel lets go of what it has in memory.
fn check(copy: &Path, sum: &str, on_bytes: &mut dyn FnMut(u64)) -> io::Result<()> {
    let mut file = File::open(copy)?;
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    let read = read_blocks(&mut file, &SHA256, |block| {
        on_bytes(block.len() as u64);
        Ok(())
    })?;
    if read == sum {
        return Ok(());
    }
    Err(io::Error::other(format!("the copy reads as {read} and not as {sum}: the disk is not to be trusted")))
}

fn told(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A name that nothing has: `data-backup-2026-11-22-before-v2`, or with a number behind it.
fn place(dir: &Path, upgrade: &UpgradeName) -> PathBuf {
    let now = WallTime::now().to_string();
    let date = now.get(..10).unwrap_or(&now);
    let name: String = escaped(upgrade.as_str()).chars().take(100).collect();
    let first = format!("{PREFIX}{date}-before-{name}");
    let others = (2..).map(|number| format!("{first}-{number}"));
    let mut places = std::iter::once(first.clone()).chain(others).map(|name| dir.join(name));
    places.find(|place| fs::symlink_metadata(place).is_err()).unwrap_or_else(|| dir.join(&first))
}

/// Tells the homes apart that share a directory for their backups.
fn of_root(root: &Path) -> String {
    digest::sha256(root.as_os_str().as_encoded_bytes()).chars().take(8).collect()
}

/// Removes what an attempt left that a crash ended.
fn remove_left_over(files: &dyn Files, dir: &Path, mark: &str) -> io::Result<()> {
    for found in fs::read_dir(dir)? {
        let name = found?.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(mark));
        if ours {
            files.remove_tree(&dir.join(name))?;
        }
    }
    Ok(())
}
