//! A stand-in for the device that resets a host: the plain file that STAND_IN_WATCHDOG names. It holds the shortest
//! time-out in whole seconds, or `busy`. What is done with it stands in a file beside it, `.log` behind its name, a line
//! each: the process, `open`, `timeout SECONDS`, `feed`, `stop` or `close`, and the nanoseconds since boot. Nothing is reset:
//! who reads that knows when it would have been.

use std::ffi::{CStr, OsString, c_char, c_int, c_ulong, c_void};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

use super::kernel_ns;

const FILE: &str = "STAND_IN_WATCHDOG";
/// As in linux/watchdog.h.
const SET_TIMEOUT: c_ulong = 0xc004_5706;
const TIMEOUT: c_ulong = 0x8004_5707;
const STOP: u8 = b'V';

/// The descriptor of the device in this process, which has it open once.
static DEVICE: AtomicI32 = AtomicI32::new(-1);
static SECONDS: AtomicI64 = AtomicI64::new(60);

fn path() -> Option<&'static OsString> {
    static PATH: OnceLock<Option<OsString>> = OnceLock::new();
    PATH.get_or_init(|| std::env::var_os(FILE)).as_ref()
}

fn says() -> String {
    path().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
}

fn is_device(file: c_int) -> bool {
    file >= 0 && file == DEVICE.load(Ordering::Acquire)
}

/// Nobody could judge a device without a log.
fn note(what: &str) {
    let Some(path) = path() else { return };
    let mut log = path.clone();
    log.push(".log");
    let line = format!("{} {what} {}\n", std::process::id(), kernel_ns(libc::CLOCK_BOOTTIME));
    let noted =
        OpenOptions::new().append(true).create(true).open(log).and_then(|mut log| log.write_all(line.as_bytes()));
    if noted.is_err() {
        std::process::abort();
    }
}

fn fails(errno: c_int) -> c_int {
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// # Safety
/// As of libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(name: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: The caller's.
    let is_ours = path().is_some_and(|path| unsafe { CStr::from_ptr(name) }.to_bytes() == path.as_bytes());
    let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
    if is_ours && writes && says().trim() == "busy" {
        return fails(libc::EBUSY);
    }
    // SAFETY: The kernel checks the arguments.
    let file = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, name, flags, mode) as c_int };
    if is_ours && writes && file >= 0 {
        DEVICE.store(file, Ordering::Release);
        note("open");
    }
    file
}

/// # Safety
/// As of libc's, with one argument, as all requests have that are made here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(file: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    if !is_device(file) {
        // SAFETY: The kernel checks the arguments.
        return unsafe { libc::syscall(libc::SYS_ioctl, file, request, argument) as c_int };
    }
    let value = argument.cast::<c_int>();
    match request {
        SET_TIMEOUT => {
            let shortest: i64 = says().trim().parse().unwrap_or(1);
            // SAFETY: The caller's: the request comes with an int.
            let wanted = i64::from(unsafe { value.read() });
            if wanted < shortest {
                return fails(libc::EINVAL);
            }
            SECONDS.store(wanted, Ordering::Release);
            note(&format!("timeout {wanted}"));
            0
        }
        TIMEOUT => {
            // SAFETY: As above.
            unsafe { value.write(SECONDS.load(Ordering::Acquire) as c_int) };
            0
        }
        _ => fails(libc::ENOTTY),
    }
}

/// # Safety
/// As of libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(file: c_int, bytes: *const c_void, count: usize) -> isize {
    if is_device(file) && count > 0 {
        // SAFETY: The caller's.
        let stops = unsafe { bytes.cast::<u8>().read() } == STOP;
        note(if stops { "stop" } else { "feed" });
        return count as isize;
    }
    // SAFETY: The kernel checks the arguments.
    unsafe { libc::syscall(libc::SYS_write, file, bytes, count) as isize }
}

/// # Safety
/// As of libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(file: c_int) -> c_int {
    if is_device(file) {
        DEVICE.store(-1, Ordering::Release);
        note("close");
    }
    // SAFETY: The kernel checks the descriptor.
    unsafe { libc::syscall(libc::SYS_close, file) as c_int }
}
