//! Small files that a chain node or a driver reads again after a crash: replaced as a whole and
//! durable when the call returns. Blocking; the drivers call it on a thread for that.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::DriverError;

/// The content of a regular file; `None` when there is no file.
pub fn read_if_present(path: &Path) -> Result<Option<Vec<u8>>, DriverError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DriverError::file("read", path, error)),
    }
}

/// After it, and after a power loss, `path` holds all of `content` and only its owner may read it; on
/// an error it holds what it held before.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), DriverError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".baton-tmp");
    let temporary = Path::new(&temporary);
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(temporary, path)?;
        let folder = path.parent().ok_or_else(|| std::io::Error::other("the path has no folder"))?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| DriverError::file("replace", path, error))
}
