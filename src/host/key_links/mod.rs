//! The links of the chain node's home: one set of symlinks that makes it a validator or a standby.
//!
//! Order is safety here. By convention the first listed link is the validator key: on the way to
//! validating it is linked LAST, on the way to standby it is released FIRST, so that every state in between,
//! also after a crash, is a node without the validator key. Nothing here decides who may sign: `swap` wants
//! the guard's proof, `to_standby` wants none. Called by `effects.rs` and by the guard.

mod fs;

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub use fs::{LinkFs, OsFs};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::base::guard_frame::{ArmedGuard, LinkSpec, LinkState};
use crate::base::ids::Epoch;
use crate::base::private_file::is_open_to_others;
use crate::base::time::BootTime;

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("chain.links: {path} is not an absolute path of a file; write it in full")]
    NotAbsolute { path: PathBuf },
    #[error("chain.links: link {link} is listed twice; remove one")]
    Twice { link: PathBuf },
    #[error("chain.links: link {link} and its targets must be three different paths; {target} occurs twice")]
    SamePath { link: PathBuf, target: PathBuf },
    #[error("link {link} is a {kind}; move it away and restart")]
    Occupied { link: PathBuf, kind: &'static str },
    #[error("key {key} (validating target of link {link}) does not exist; put it there or correct chain.links")]
    KeyMissing { key: PathBuf, link: PathBuf },
    #[error("key {key} (validating target of link {link}) is not a regular file; put the key there")]
    KeyNotAFile { key: PathBuf, link: PathBuf },
    #[error("key {key} has mode {mode:04o}, so that others can use it; run: chmod 600 {key}")]
    KeyExposed { key: PathBuf, mode: u32 },
    #[error("key {key} (validating target of link {link}) cannot be read: {source}")]
    KeyUnreadable { key: PathBuf, link: PathBuf, source: io::Error },
    #[error("links were not put to validating: the guard's deadline for epoch {epoch} has passed")]
    DeadlinePassed { epoch: Epoch },
    #[error("{operation} {path}: {source}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

/// Where one link leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Validating,
    Standby,
    Elsewhere,
}

#[derive(Debug)]
pub struct KeyLinks<F = OsFs> {
    /// The validator key first.
    specs: Vec<LinkSpec>,
    fs: F,
}

impl KeyLinks {
    /// # Errors
    /// When a path is not absolute, a link is listed twice, or a link is its own target.
    pub fn new(specs: Vec<LinkSpec>) -> Result<KeyLinks, LinkError> {
        KeyLinks::on(OsFs, specs)
    }
}

impl<F: LinkFs> KeyLinks<F> {
    /// As `new`, with the system calls that change anything made by `fs`.
    pub fn on(fs: F, specs: Vec<LinkSpec>) -> Result<KeyLinks<F>, LinkError> {
        let mut seen = BTreeSet::new();
        for spec in &specs {
            for path in [&spec.link, &spec.validating].into_iter().chain(&spec.standby) {
                if !path.is_absolute() || path.file_name().is_none() {
                    return Err(LinkError::NotAbsolute { path: path.clone() });
                }
            }
            if !seen.insert(&spec.link) {
                return Err(LinkError::Twice { link: spec.link.clone() });
            }
            let mut own = BTreeSet::from([&spec.link]);
            if let Some(target) = [&spec.validating].into_iter().chain(&spec.standby).find(|path| !own.insert(path)) {
                return Err(LinkError::SamePath { link: spec.link.clone(), target: target.clone() });
            }
        }
        Ok(KeyLinks { specs, fs })
    }

    pub fn specs(&self) -> &[LinkSpec] {
        &self.specs
    }

    /// Every validating target exists, can be read by us and by nobody else. To be asked at start, before
    /// any process is touched.
    pub fn check_keys(&self) -> Result<(), LinkError> {
        for LinkSpec { link, validating: key, .. } in &self.specs {
            let unreadable = |source| LinkError::KeyUnreadable { key: key.clone(), link: link.clone(), source };
            let meta = match std::fs::metadata(key) {
                Ok(meta) => meta,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    return Err(LinkError::KeyMissing { key: key.clone(), link: link.clone() });
                }
                Err(e) => return Err(unreadable(e)),
            };
            if !meta.is_file() {
                return Err(LinkError::KeyNotAFile { key: key.clone(), link: link.clone() });
            }
            if is_open_to_others(key, &meta) {
                let mode = meta.permissions().mode() & 0o7777;
                return Err(LinkError::KeyExposed { key: key.clone(), mode });
            }
            // Asked for and not tried: neither coordinator nor guard opens a key.
            accessat(CWD, key, Access::READ_OK, AtFlags::EACCESS).map_err(|error| unreadable(error.into()))?;
        }
        Ok(())
    }

    /// Every place where a link belongs is free or holds a link.
    pub fn check_places(&self) -> Result<(), LinkError> {
        self.specs.iter().try_for_each(|spec| occupied(&spec.link))
    }

    /// Reads the links. An unreadable one counts as broken.
    pub fn state(&self) -> LinkState {
        let mut places = self.specs.iter().map(|spec| match place(spec) {
            Ok(Place::Validating) if spec.validating.exists() => Place::Validating,
            Ok(Place::Standby) if spec.standby.as_ref().is_none_or(|target| target.exists()) => Place::Standby,
            Ok(Place::Validating | Place::Standby | Place::Elsewhere) | Err(_) => Place::Elsewhere,
        });
        if places.clone().all(|place| place == Place::Standby) {
            LinkState::Standby
        } else if places.all(|place| place == Place::Validating) {
            LinkState::Validating
        } else {
            LinkState::Broken
        }
    }

    /// Puts every link to its validating target, the validator key last, each durable before the next.
    /// `now` reads the clock of the guard's deadline before every rename and after the last one.
    ///
    /// # Errors
    /// All places and keys are checked first, and then nothing has changed. When the deadline passes or a
    /// system call fails midway, the links have been put back to standby as far as that was possible.
    pub fn swap(&self, armed: &ArmedGuard, now: impl Fn() -> BootTime) -> Result<(), LinkError> {
        self.check_places()?;
        self.check_keys()?;
        let live = || match armed.is_live(now()) {
            true => Ok(()),
            false => Err(LinkError::DeadlinePassed { epoch: armed.epoch() }),
        };
        live()?;
        self.clean();
        let swapped = self.all_to_validating(&live);
        if swapped.is_err() {
            // The error that stopped the swap is the one to tell; `state` shows what is left of it.
            let _ = self.to_standby();
        }
        swapped
    }

    fn all_to_validating(&self, live: &impl Fn() -> Result<(), LinkError>) -> Result<(), LinkError> {
        let key_is_linked = |spec| matches!(place(spec), Ok(Place::Validating));
        if self.specs.first().is_some_and(key_is_linked) && self.state() != LinkState::Validating {
            // From a mix that has the validator key already: it goes first, so that it can come last.
            self.to_standby()?;
        }
        for spec in self.specs.iter().rev() {
            if !key_is_linked(spec) {
                self.point(&spec.link, &spec.validating, live)?;
            }
            self.sync(&spec.link)?;
        }
        live()
    }

    /// Puts every link to its standby target, or removes it where there is none; the validator key first.
    /// Needs no proof, and repairs dangling and foreign links.
    ///
    /// # Errors
    /// The first thing that failed, after everything else was put to standby all the same: letting go of a
    /// key never waits for another link. A file in a link's place is left as it is.
    pub fn to_standby(&self) -> Result<(), LinkError> {
        self.clean();
        let mut first_error = Ok(());
        for spec in &self.specs {
            first_error = first_error.and(self.one_to_standby(spec));
        }
        first_error
    }

    fn one_to_standby(&self, spec: &LinkSpec) -> Result<(), LinkError> {
        occupied(&spec.link)?;
        if place(spec)? != Place::Standby {
            match &spec.standby {
                Some(target) => self.point(&spec.link, target, &|| Ok(()))?,
                None => match self.fs.unlink(&spec.link) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove link", &spec.link, e)),
                    Ok(()) | Err(_) => (),
                },
            }
        }
        // Also when nothing changed: whoever changed it last may have died before this.
        self.sync(&spec.link)
    }

    /// Replaces `link` at once: whoever opens it meanwhile gets the old target or the new one.
    fn point(&self, link: &Path, target: &Path, allowed: &impl Fn() -> Result<(), LinkError>) -> Result<(), LinkError> {
        let temp = temp_name(link, std::process::id());
        for attempt in 0.. {
            match self.fs.symlink(target, &temp) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && attempt < TEMP_RETRIES => {
                    self.fs.unlink(&temp).map_err(|e| failed("remove left-over", &temp, e))?;
                    continue;
                }
                made => made.map_err(|e| failed("make link", &temp, e))?,
            }
            if let Err(refused) = allowed() {
                let _ = self.fs.unlink(&temp);
                return Err(refused);
            }
            match self.fs.rename(&temp, link) {
                // Guard and coordinator may clean each other's left-overs in the same moment.
                Err(e) if e.kind() == io::ErrorKind::NotFound && attempt < TEMP_RETRIES => continue,
                renamed => return renamed.map_err(|e| failed("replace link", link, e)),
            }
        }
        unreachable!("the last attempt returns")
    }

    fn sync(&self, link: &Path) -> Result<(), LinkError> {
        let dir = parent(link);
        self.fs.sync_dir(dir).map_err(|e| failed("make durable the directory", dir, e))
    }

    /// Removes temporary names that a crash left behind. What cannot be removed does no harm.
    fn clean(&self) {
        for link in self.specs.iter().map(|spec| &spec.link) {
            let prefix = temp_prefix(link);
            let entries = std::fs::read_dir(parent(link)).into_iter().flatten().flatten();
            for entry in entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes())) {
                if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                    let _ = self.fs.unlink(&entry.path());
                }
            }
        }
    }
}

const TEMP_RETRIES: u32 = 3;

fn place(spec: &LinkSpec) -> Result<Place, LinkError> {
    let target = match std::fs::read_link(&spec.link) {
        Ok(target) => Some(target),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        // It is no link at all.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => return Ok(Place::Elsewhere),
        Err(e) => return Err(failed("read link", &spec.link, e)),
    };
    Ok(match target {
        Some(target) if target == spec.validating => Place::Validating,
        target if target == spec.standby => Place::Standby,
        Some(_) | None => Place::Elsewhere,
    })
}

fn occupied(link: &Path) -> Result<(), LinkError> {
    let kind = match std::fs::symlink_metadata(link) {
        Ok(meta) if meta.is_symlink() => return Ok(()),
        Ok(meta) if meta.is_file() => "regular file",
        Ok(meta) if meta.is_dir() => "directory",
        Ok(_) => "special file",
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed("look at link", link, e)),
    };
    Err(LinkError::Occupied { link: link.to_path_buf(), kind })
}

fn parent(link: &Path) -> &Path {
    // `on` has refused every path without one.
    link.parent().unwrap_or(Path::new("/"))
}

fn temp_prefix(link: &Path) -> String {
    format!(".{}.baton-", link.file_name().unwrap_or_default().to_string_lossy())
}

/// The process id keeps guard and coordinator, which may both be at work, out of each other's way.
fn temp_name(link: &Path, pid: u32) -> PathBuf {
    link.with_file_name(format!("{}{pid}", temp_prefix(link)))
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> LinkError {
    LinkError::Io { operation, path: path.to_path_buf(), source }
}
