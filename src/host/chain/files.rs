//! Small files that a chain node or a driver reads again after a crash: replaced as a whole and
//! durable when the call returns. Blocking; the drivers call it on a thread for that.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;

use serde_json::Value;

use super::{DriverError, answer};
use crate::base::ids::SignMark;
use crate::config::{Chain, LastSigned};

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
    write(path, content, None).map_err(|error| DriverError::file("replace", path, error))
}

/// As [`replace`], for a file that is not ours: it keeps its owner and its mode, and where `path` is a
/// symlink the file that it leads to is replaced.
pub fn replace_content(path: &Path, content: &[u8]) -> Result<(), DriverError> {
    let replaced = fs::canonicalize(path).and_then(|real| {
        let before = fs::metadata(&real)?;
        write(&real, content, Some(&before))
    });
    replaced.map_err(|error| DriverError::file("replace", path, error))
}

fn write(path: &Path, content: &[u8], like: Option<&Metadata>) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".baton-tmp");
    let temporary = Path::new(&temporary);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
    if let Some(like) = like {
        let now = file.metadata()?;
        if (now.uid(), now.gid()) != (like.uid(), like.gid()) {
            fchown(&file, Some(like.uid()), Some(like.gid()))?;
        }
        file.set_permissions(like.permissions())?;
    }
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    let folder = path.parent().ok_or_else(|| std::io::Error::other("the path has no folder"))?;
    File::open(folder)?.sync_all()
}

/// Runs file work off the async threads. It goes on to its end when the caller is dropped.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DriverError> + Send + 'static,
) -> Result<T, DriverError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(DriverError::setting("baton", format!("is shutting down: {error}"))),
        },
    }
}

/// The mark in the file of `chain.last_signed`; `None` without that setting or before the file exists. Read off the
/// async threads.
pub async fn last_signed(chain: &Chain) -> Result<Option<SignMark>, DriverError> {
    let Some(record) = chain.last_signed.clone() else { return Ok(None) };
    let path = chain.home.join(&record.file);
    blocking(move || read_last_signed(&path, &record)).await
}

fn read_last_signed(path: &Path, record: &LastSigned) -> Result<Option<SignMark>, DriverError> {
    let LastSigned { file: _, height, round, step } = record;
    let Some(content) = read_if_present(path)? else { return Ok(None) };
    let bad = |reason: String| DriverError::file("read the last-signed mark from", path, reason);
    let content: Value = serde_json::from_slice(&content).map_err(|error| bad(format!("it is not JSON: {error}")))?;
    let number = |pointer: &str| answer::read(&content, Some(pointer), "a whole number", answer::as_number);
    let small = |pointer: &Option<String>| -> Result<u32, DriverError> {
        let Some(pointer) = pointer else { return Ok(0) };
        let number = number(pointer).map_err(bad)?.unwrap_or(0);
        u32::try_from(number).map_err(|_| bad(format!("`{pointer}` is {number}, more than {}", u32::MAX)))
    };
    let height = number(height).map_err(bad)?.unwrap_or(0);
    Ok(Some(SignMark::at_step(height, small(round)?, small(step)?)))
}
