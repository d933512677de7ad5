//! `baton-guard public-key`: a process that reads a validator's key file so that the coordinator never does, answers
//! with the public half and is gone.
//!
//! Invariant: before the first byte is read nothing can be dumped, traced or paged out, and no byte of the file is left
//! in memory when the answer is.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::base::closed_memory::{self, FILE_MAX, Secret, lock_memory_now, read};
use crate::base::public_key::KeyFormat;

/// One JSON object with the public half of `file`.
///
/// # Errors
/// What is wrong with the file or with this host, without the name of the file and without anything of its content.
pub fn public_key(format: KeyFormat, file: &Path) -> Result<String, String> {
    let mut secret = Secret::new(FILE_MAX + 1);
    close_memory()
        .map_err(|error| format!("not read, since the reader's memory cannot be closed to others: {error}"))?;
    let found = std::fs::metadata(file).map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("not a regular file; put the key there".into());
    }
    let opened = File::open(file).map_err(|error| error.to_string())?;
    let length = read(&opened, secret.bytes_mut()).map_err(|error| error.to_string())?;
    if length > FILE_MAX {
        return Err(format!("longer than {FILE_MAX} bytes; this is no key file"));
    }
    format.public_half(&secret.bytes()[..length])
}

/// Neither a core dump nor another process of this user shows this one's memory from here on.
pub(super) fn close_memory() -> io::Result<()> {
    closed_memory::close_memory()?;
    // Where the limit of locked memory is too small, it could be paged out in the milliseconds that this takes.
    let _ = lock_memory_now();
    Ok(())
}
