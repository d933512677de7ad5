//! A look at a store that nobody has open: whether a start would take it. Opening one changes some of its files, so a
//! copy is opened in its place, in the way of every start.

use std::fs;
use std::io;
use std::path::Path;

use super::origin_file::compare_origin;
use super::{Opened, Store, StoreError};
use crate::base::ids::{NodeId, SignMark};
use crate::base::processes;
use crate::core::agreed::sign_log::SignLog;

/// What a look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// A start would make a store.
    Nothing,
    /// As in [`Store::released_mark`], and what was applied.
    Usable { released_mark: Option<SignMark>, sign_log: Option<SignLog> },
}

/// What a start would find in `state_dir`. Blocks for as long as a copy of the store takes.
///
/// # Errors
/// Why a start would refuse the store, in the same words; or the copy could not be made.
pub fn look(state_dir: &Path, cluster: &str, member: &NodeId) -> Result<Look, StoreError> {
    let (dir, lock) = (state_dir.join("store"), state_dir.join("lock"));
    let is_there = fs::read_dir(&dir).is_ok_and(|mut files| files.next().is_some());
    if !is_there {
        return Ok(Look::Nothing);
    }
    if is_locked(&lock) {
        return Err(StoreError::InUse { dir, lock });
    }
    let copy = tempfile::tempdir().map_err(|error| StoreError::io("copy to a temporary directory", &dir, error))?;
    copy_all(&dir, &copy.path().join("store")).map_err(|error| StoreError::io("copy", &dir, error))?;
    let opened = Store::open(copy.path(), cluster, member).map_err(|error| error.seen_in(copy.path(), state_dir))?;
    let Opened { store, incarnation, .. } = opened;
    compare_origin(state_dir, incarnation)?;
    let sign_log = store.applied().borrow().replicated.sign_log.clone();
    Ok(Look::Usable { released_mark: store.released_mark(), sign_log })
}

/// Whoever has it open holds it. It is not taken to find out: a coordinator that is just starting would be refused.
fn is_locked(lock: &Path) -> bool {
    let (Ok(file), Ok(locks)) = (fs::metadata(lock), processes::locks()) else { return false };
    locks.iter().any(|lock| lock.is_on(&file))
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}
