//! The wall clock of one host of the localnet, which the nemesis steps. Preloaded (LD_PRELOAD) into the host's
//! processes, it stands before libc's `clock_gettime`, `gettimeofday` and `time`, and adds to CLOCK_REALTIME as
//! many nanoseconds as the file named by STEPPED_CLOCK says at that moment. Every other clock, and every timer,
//! is the kernel's: no time namespace covers CLOCK_REALTIME, and libfaketime moves timers on CLOCK_BOOTTIME too,
//! by which a guard kills.
//!
//! It stands before `fsync` and `fdatasync` as well (`syncs.rs`): each takes longer by as many nanoseconds as the same
//! file says, as on a slow disk.
//!
//! And before `recv` and `send`, for what is signed (`streams.rs`).
//!
//! And before `open`, `ioctl`, `write` and `close`, for a watchdog that resets nothing (`watchdog.rs`).
//!
//! The file is four little words, shared by all who map it: the step, how often anybody read a stepped clock, what a
//! sync takes longer, and how many did.

#![allow(unsafe_code)] // What it does is the C interface of a libc.

mod streams;
mod syncs;
mod watchdog;

use std::ffi::{c_int, c_void};
use std::fs::OpenOptions;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::time::{ClockId, Timespec, clock_gettime as kernel_time};

const FILE: &str = "STEPPED_CLOCK";
const NANOS: i64 = 1_000_000_000;

#[repr(C)]
struct Shared {
    step_ns: AtomicI64,
    reads: AtomicU64,
    sync_ns: AtomicU64,
    syncs: AtomicU64,
}

/// `None` in a process that was given no file.
fn shared() -> Option<&'static Shared> {
    static SHARED: OnceLock<Option<&'static Shared>> = OnceLock::new();
    *SHARED.get_or_init(map)
}

/// Nanoseconds by which the wall clock is off now.
fn step() -> i64 {
    let Some(shared) = shared() else { return 0 };
    let step = shared.step_ns.load(Ordering::Relaxed);
    if step != 0 {
        shared.reads.fetch_add(1, Ordering::Relaxed);
    }
    step
}

/// A process that was given no file, or one too short, keeps the kernel's time.
fn map() -> Option<&'static Shared> {
    let file = OpenOptions::new().read(true).write(true).open(std::env::var_os(FILE)?).ok()?;
    if file.metadata().ok()?.len() < size_of::<Shared>() as u64 {
        return None;
    }
    // SAFETY: A fresh mapping that is never unmapped, page-aligned and as long as `Shared`, of which every bit
    // pattern is a value; it is only ever accessed atomically.
    unsafe {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let at = mmap(ptr::null_mut(), size_of::<Shared>(), prot, MapFlags::SHARED, &file, 0).ok()?;
        Some(&*at.cast::<Shared>())
    }
}

/// Nanoseconds of a clock, as the kernel has it.
fn kernel_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: It is written to and not kept.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, &mut time) };
    time.tv_sec as u64 * NANOS as u64 + time.tv_nsec as u64
}

fn wall(clock: ClockId) -> Timespec {
    let true_time = kernel_time(clock);
    let nanos = true_time.tv_nsec + step();
    Timespec { tv_sec: true_time.tv_sec + nanos.div_euclid(NANOS), tv_nsec: nanos.rem_euclid(NANOS) }
}

/// # Safety
/// As of libc's: `to` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, to: *mut Timespec) -> c_int {
    let time = match ClockId::try_from(clock) {
        Ok(wall_clock @ (ClockId::Realtime | ClockId::RealtimeCoarse)) => wall(wall_clock),
        Ok(other) => kernel_time(other),
        // SAFETY: The kernel checks both arguments.
        Err(_) => return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, to) as c_int },
    };
    // SAFETY: The caller's.
    unsafe { to.write(time) };
    0
}

/// # Safety
/// As of libc's: `to` may be written to, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(to: *mut [i64; 2], _zone: *mut c_void) -> c_int {
    let time = wall(ClockId::Realtime);
    if !to.is_null() {
        // SAFETY: The caller's.
        unsafe { to.write([time.tv_sec, time.tv_nsec / 1000]) };
    }
    0
}

/// # Safety
/// As of libc's: `to` may be written to, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(to: *mut i64) -> i64 {
    let seconds = wall(ClockId::RealtimeCoarse).tv_sec;
    if !to.is_null() {
        // SAFETY: The caller's.
        unsafe { to.write(seconds) };
    }
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wall_clock_is_stepped_and_syncs_take_as_long_as_the_file_says() {
        let file = std::env::temp_dir().join(format!("stepped-clock-{}", std::process::id()));
        let step = 3600 * NANOS;
        let sync_ns: u64 = 30_000_000;
        std::fs::write(&file, [step.to_ne_bytes(), [0; 8], sync_ns.to_ne_bytes(), [0; 8]].concat()).unwrap();
        // SAFETY: The only test, and no other thread reads the environment meanwhile.
        unsafe { std::env::set_var(FILE, &file) };
        let seconds_ahead = |clock: ClockId| {
            let mut told = Timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: `told` is ours.
            assert_eq!(unsafe { clock_gettime(clock as c_int, &mut told) }, 0);
            told.tv_sec - kernel_time(clock).tv_sec
        };
        for clock in [ClockId::Realtime, ClockId::RealtimeCoarse] {
            assert!((3599..=3601).contains(&seconds_ahead(clock)), "{clock:?}");
        }
        for clock in [ClockId::Boottime, ClockId::Monotonic, ClockId::MonotonicCoarse, ClockId::ProcessCPUTime] {
            assert!((-1..=0).contains(&seconds_ahead(clock)), "{clock:?}");
        }
        let mut told = [0; 2];
        // SAFETY: Both are ours.
        let seconds = unsafe {
            gettimeofday(&mut told, ptr::null_mut());
            time(ptr::null_mut())
        };
        assert!((told[0] - seconds).abs() <= 1, "{told:?} and {seconds}");
        let read = std::fs::read(&file).unwrap();
        assert!(u64::from_ne_bytes(read[8..16].try_into().unwrap()) >= 4, "{read:?}");

        let began_at = kernel_time(ClockId::Monotonic);
        // SAFETY: The descriptor is open, and then it is not.
        let results = unsafe {
            let open = OpenOptions::new().write(true).open(&file).unwrap();
            let number = std::os::fd::AsRawFd::as_raw_fd(&open);
            [syncs::fsync(number), syncs::fdatasync(number), syncs::fsync(-1)]
        };
        let ended_at = kernel_time(ClockId::Monotonic);
        let took = (ended_at.tv_sec - began_at.tv_sec) * NANOS + ended_at.tv_nsec - began_at.tv_nsec;
        assert!(took >= 3 * sync_ns as i64, "three syncs took {took} ns");
        assert_eq!(results, [0, 0, -1]);
        let read = std::fs::read(&file).unwrap();
        assert_eq!(u64::from_ne_bytes(read[24..32].try_into().unwrap()), 3);
        std::fs::remove_file(&file).unwrap();
    }
}
