//! Slow syncs. What the kernel does for `sync_file_range` is left alone: it waits for pages to be written, and not for
//! the disk to keep them, which is what a slow disk is slow at.

use std::ffi::c_int;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn wait() {
    let Some(shared) = super::shared() else { return };
    let longer = shared.sync_ns.load(Ordering::Relaxed);
    if longer != 0 {
        shared.syncs.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_nanos(longer));
    }
}

/// # Safety
/// As of libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(file: c_int) -> c_int {
    wait();
    // SAFETY: The kernel checks the descriptor.
    unsafe { libc::syscall(libc::SYS_fsync, file) as c_int }
}

/// # Safety
/// As of libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(file: c_int) -> c_int {
    wait();
    // SAFETY: The kernel checks the descriptor.
    unsafe { libc::syscall(libc::SYS_fdatasync, file) as c_int }
}
