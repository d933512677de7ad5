//! The binary's place, and the workshop beside it where it is made ready. The one moment in which the binary appears is
//! a hard link of a file that is whole and on the disk.

use std::env::consts::ARCH;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::source::short;
use super::{Binary, ObtainError, at};
use crate::host::upgrade::digest::sha256_of;

pub(super) struct Target {
    upgrade_dir: PathBuf,
    path: PathBuf,
}

/// `.download` in the upgrade's directory; nobody else works there as long as this lives.
pub(super) struct Workshop {
    path: PathBuf,
    _lock: File,
}

#[derive(Debug, thiserror::Error)]
pub enum NoProgram {
    #[error(
        "{of} is no program: it begins with {begin:?}; a binary, a script, or an archive with one in it is expected"
    )]
    Other { of: String, begin: String },
    #[error("{of} is a program for {theirs}, and this host is {ARCH}; name the one for this host")]
    Foreign { of: String, theirs: String },
}

impl Target {
    pub(super) fn new(upgrade_dir: &Path, name: &str) -> Result<Target, ObtainError> {
        if matches!(name, "" | "." | "..") || name.contains('/') {
            return Err(ObtainError::Name { name: short(name) });
        }
        Ok(Target { upgrade_dir: upgrade_dir.to_owned(), path: upgrade_dir.join("bin").join(name) })
    }

    /// The binary, if something stands in its place.
    pub(super) fn find(&self) -> Result<Option<Binary>, ObtainError> {
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(_) | Err(_) => {}
        }
        let found = fs::metadata(&self.path).map_err(at("read", &self.path))?;
        if !found.is_file() {
            return Err(at("use", &self.path)(io::Error::other("it is no file; move it away")));
        }
        let sha256 = File::open(&self.path).and_then(|mut file| sha256_of(&mut file));
        let sha256 = sha256.map_err(at("read", &self.path))?;
        Ok(Some(Binary { path: self.path.clone(), sha256 }))
    }

    /// Puts the file `made`, of the same file system, in the binary's place, unless something stands there by now.
    pub(super) fn put(&self, made: &Path) -> Result<Binary, ObtainError> {
        let bin = self.upgrade_dir.join("bin");
        fs::create_dir_all(&bin).map_err(at("make", &bin))?;
        match fs::hard_link(made, &self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at("make", &self.path)(error)),
            Ok(()) | Err(_) => {}
        }
        let above = self.upgrade_dir.parent().unwrap_or(Path::new("/"));
        for directory in [&bin, &self.upgrade_dir, above] {
            File::open(directory).and_then(|open| open.sync_all()).map_err(at("write", directory))?;
        }
        self.find()?.ok_or_else(|| at("read", &self.path)(io::ErrorKind::NotFound.into()))
    }
}

impl Workshop {
    pub(super) fn open(upgrade_dir: &Path) -> Result<Workshop, ObtainError> {
        let path = upgrade_dir.join(".download");
        fs::create_dir_all(upgrade_dir).map_err(at("make", upgrade_dir))?;
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at("make", &path)(error)),
            Ok(()) | Err(_) => {}
        }
        // Not through a link to somewhere else.
        if !fs::symlink_metadata(&path).map_err(at("read", &path))?.is_dir() {
            return Err(at("use", &path)(io::Error::other("it is no directory; move it away")));
        }
        fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(at("close to others", &path))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(at("write", &lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Workshop { path, _lock: lock }),
            Err(Errno::WOULDBLOCK) => Err(ObtainError::Busy { path: upgrade_dir.to_owned() }),
            Err(error) => Err(at("lock", &lock_path)(error.into())),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A new file. One that a crash left may be the binary under a second name.
    pub(super) fn create(&self, name: &str) -> Result<File, ObtainError> {
        let path = self.file(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at("remove", &path)(error)),
            Ok(()) | Err(_) => {}
        }
        File::create_new(&path).map_err(at("write", &path))
    }

    /// What is left beside a binary that is in its place already.
    pub(super) fn clear_away(upgrade_dir: &Path) {
        if upgrade_dir.join(".download").exists()
            && let Ok(workshop) = Workshop::open(upgrade_dir)
        {
            workshop.clear();
        }
    }

    /// The binary is in its place; what is left here is of no use, and does no harm where it cannot be removed.
    pub(super) fn clear(self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!("cannot remove {}, which is not needed any more: {error}", self.path.display());
        }
    }
}

/// Makes the file at `path` one that everybody may run and nobody but its owner may change, on the disk as a whole.
///
/// # Errors
/// When it is nothing that this host can run. `of` says where it is from.
pub(super) fn make_program(path: &Path, of: &str) -> Result<(), ObtainError> {
    let file = File::open(path).map_err(at("read", path))?;
    let mut begin = Vec::new();
    Read::by_ref(&mut &file).take(20).read_to_end(&mut begin).map_err(at("read", path))?;
    runs_here(&begin, of)?;
    file.set_permissions(Permissions::from_mode(0o755)).and_then(|()| file.sync_all()).map_err(at("write", path))
}

fn runs_here(begin: &[u8], of: &str) -> Result<(), NoProgram> {
    if begin.starts_with(b"#!") {
        return Ok(());
    }
    let [0x7f, b'E', b'L', b'F', _, order, .., low, high] = begin else {
        return Err(NoProgram::Other { of: of.to_owned(), begin: String::from_utf8_lossy(begin).into_owned() });
    };
    let machine = if *order == 2 { u16::from_be_bytes([*low, *high]) } else { u16::from_le_bytes([*low, *high]) };
    let theirs = match machine {
        3 => "x86",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        other => return Err(NoProgram::Foreign { of: of.to_owned(), theirs: format!("machine {other}") }),
    };
    if theirs == ARCH { Ok(()) } else { Err(NoProgram::Foreign { of: of.to_owned(), theirs: theirs.to_owned() }) }
}
