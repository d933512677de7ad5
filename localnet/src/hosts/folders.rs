//! Whole folders, copied and emptied. Called by the faults of disks and by slips.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use baton::cluster::store::ORIGIN_FILE;

use crate::hosts::make_dir;

/// Nothing is left in `dir`. `dir` itself stays: it may be where a disk is mounted.
pub fn empty(dir: &Path) -> Result<()> {
    for path in entries(dir)? {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

/// `to` has what `from` has, and keeps what it had besides. Links become what they lead to.
pub fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    make_dir(to)?;
    for path in entries(from)? {
        let name = path.file_name().context("an entry without a name")?;
        if path.is_dir() {
            copy_dir(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name)).with_context(|| format!("copy {}", path.display()))?;
        }
    }
    Ok(())
}

/// A copy of a state directory is started as if it were the original: what an operator may do who knows that the
/// original has written nothing since.
pub fn take_for_original(state_dir: &Path) -> Result<()> {
    let record = state_dir.join(ORIGIN_FILE);
    match fs::remove_file(&record) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", record.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Of `dir`, in any order.
pub fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    listed.with_context(|| format!("read {}", dir.display()))
}
