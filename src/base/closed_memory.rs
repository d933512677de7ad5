//! Memory for the content of a key file: closed to other processes and to core dumps, and zero again afterwards. For
//! the processes that read key files so that the coordinator never does; what is in the files is not known here.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read};

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Key files have some hundred bytes.
pub const FILE_MAX: usize = 64 << 10;

/// With less locked memory than this allowed, only what is mapped now is locked: under `MCL_FUTURE` an allocation over
/// the limit would fail, and its process with it.
const MEMLOCK_FOR_FUTURE: u64 = 32 << 20;

/// The content of a key file for as long as it is needed. It never moves, so that no copy stays behind.
pub struct Secret(Box<[u8]>);

impl Secret {
    pub fn new(length: usize) -> Secret {
        Secret(vec![0; length].into())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
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

/// Neither a core dump nor another process of this user shows this one's memory from here on.
///
/// # Errors
/// It may do so: read no key.
pub fn close_memory() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// What is mapped now is not paged out; for a process that lives for some milliseconds.
///
/// # Errors
/// The limit of locked memory is too small; nothing is locked.
pub fn lock_memory_now() -> io::Result<()> {
    Ok(mlockall(MlockAllFlags::CURRENT)?)
}

/// Nothing that is touched once is paged out any more, now or later, as far as the limit of locked memory allows.
///
/// # Errors
/// The limit is too small; nothing is locked.
pub fn lock_memory() -> io::Result<()> {
    let limit = getrlimit(Resource::Memlock).maximum;
    let _ = setrlimit(Resource::Memlock, Rlimit { current: limit, maximum: limit });
    let future = limit.is_none_or(|bytes| bytes >= MEMLOCK_FOR_FUTURE);
    // What was touched once stays, and what never was costs no memory: without ONFAULT the guard takes 3.2 MiB instead
    // of 2.4.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT;
    Ok(mlockall(if future { flags | MlockAllFlags::FUTURE } else { flags })?)
}

/// As many bytes as there are, or as fit.
///
/// # Errors
/// Nothing is known of the file.
pub fn read(mut file: &File, into: &mut [u8]) -> io::Result<usize> {
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
