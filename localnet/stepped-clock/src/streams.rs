//! What `baton-signer` is asked and what it answers, appended to the file named by RECORDED_STREAM: a record for each
//! piece, before it leaves. So a signature counts as soon as it was made, whoever is alive to take it.
//!
//! A record is one write: `R` for what was read or `W` for what is written, the process and the number of bytes (four
//! each, little-endian), the monotonic time in nanoseconds (eight), and the bytes. All hosts of a machine have that time in
//! common, also when their wall clocks are stepped. In every other process nothing is recorded.

use std::ffi::{c_int, c_void};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;

use super::kernel_ns;

const FILE: &str = "RECORDED_STREAM";
const PROGRAM: &str = "baton-signer\n";

fn file() -> Option<&'static File> {
    static KEPT: OnceLock<Option<File>> = OnceLock::new();
    KEPT.get_or_init(open).as_ref()
}

fn open() -> Option<File> {
    let path = std::env::var_os(FILE)?;
    if std::fs::read_to_string("/proc/self/comm").ok()? != PROGRAM {
        return None;
    }
    OpenOptions::new().append(true).create(true).open(path).ok()
}

/// # Safety
/// `bytes` may be read from for `count`.
unsafe fn note(kind: u8, bytes: *const c_void, count: usize) {
    let Some(mut file) = file() else { return };
    // SAFETY: The caller's.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), count) };
    let mut record = vec![kind];
    record.extend(std::process::id().to_le_bytes());
    record.extend((count as u32).to_le_bytes());
    record.extend(kernel_ns(libc::CLOCK_MONOTONIC).to_le_bytes());
    record.extend(bytes);
    // Without its record nobody could judge what is signed.
    if file.write_all(&record).is_err() {
        std::process::abort();
    }
}

/// # Safety
/// As of libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recv(socket: c_int, to: *mut c_void, count: usize, flags: c_int) -> isize {
    // SAFETY: The kernel checks the arguments; it has filled what it says that it has.
    unsafe {
        let none = std::ptr::null_mut::<c_void>();
        let read = libc::syscall(libc::SYS_recvfrom, socket, to, count, flags, none, none) as isize;
        if read > 0 && flags & libc::MSG_PEEK == 0 {
            note(b'R', to, read as usize);
        }
        read
    }
}

/// # Safety
/// As of libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn send(socket: c_int, from: *const c_void, count: usize, flags: c_int) -> isize {
    // SAFETY: The caller's; the kernel checks the arguments.
    unsafe {
        note(b'W', from, count);
        let none = std::ptr::null::<c_void>();
        libc::syscall(libc::SYS_sendto, socket, from, count, flags, none, 0) as isize
    }
}
