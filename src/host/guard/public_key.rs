//! `baton-guard public-key`: a process that reads a validator's key file so that the coordinator never does, answers
//! with the public half and is gone.
//!
//! Invariant: before the first byte is read nothing can be dumped, traced or paged out, and no byte of the file is left
//! in memory when the answer is.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read as _};
use std::path::Path;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::base::public_key::KeyFormat;

/// Key files have some hundred bytes.
pub(super) const FILE_MAX: usize = 64 << 10;

/// The content of a key file for as long as it is needed. It never moves, so that no copy stays behind.
pub(super) struct Secret(Box<[u8]>);

impl Secret {
    pub(super) fn new(length: usize) -> Secret {
        Secret(vec![0; length].into())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Nobody reads the zeros: without this they need not be written.
        black_box(&self.0);
    }
}

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
    let length = read(file, &mut secret.0).map_err(|error| error.to_string())?;
    if length > FILE_MAX {
        return Err(format!("longer than {FILE_MAX} bytes; this is no key file"));
    }
    format.public_half(&secret.0[..length])
}

/// Neither a core dump nor another process of this user shows this one's memory from here on.
pub(super) fn close_memory() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Where the limit of locked memory is too small, it could be paged out in the milliseconds that this takes.
    let _ = mlockall(MlockAllFlags::CURRENT);
    Ok(())
}

/// As many bytes as there are, or as fit.
pub(super) fn read(file: &Path, into: &mut [u8]) -> io::Result<usize> {
    let mut file = File::open(file)?;
    let mut length = 0;
    while length < into.len() {
        match file.read(&mut into[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
