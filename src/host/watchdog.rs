//! A device that resets the host unless it is fed in time (Linux's watchdog API: Documentation/watchdog/watchdog-api.rst).
//! The guard feeds it, `baton check` tries it. What it is opened for begins to run at once, and ends with [`Device::stop`]
//! alone: closed in any other way, as by the end of its process, most devices run on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libc::c_int;
use nix::errno::Errno;
use rustix::fs::{major, minor};

/// The last byte before the device is closed for good.
const STOP: &[u8] = b"V";
/// Any other byte.
const FEED: &[u8] = b"\0";
/// `/dev/watchdog` is another name of the first one, of which sysfs does not tell at this number.
const FIRST: (u32, u32) = (10, 130);

#[allow(unsafe_code)] // The macros make the bodies of functions that take a pointer.
mod ioctl {
    nix::ioctl_readwrite!(set_timeout, b'W', 6, libc::c_int);
    nix::ioctl_read!(timeout, b'W', 7, libc::c_int);
}

/// One that runs.
pub struct Device {
    file: File,
}

impl Device {
    /// It resets the host `timeout` from now, or from when it is fed last. `timeout` is one that [`fit`] has found.
    ///
    /// # Errors
    /// In words, with what to do. It does not run.
    pub fn start(path: &Path, timeout: Duration) -> Result<Device, String> {
        let mut device = Device::open(path)?;
        let trouble = match device.set_timeout(timeout.as_secs()) {
            Ok(set) if set == timeout => return Ok(device),
            Ok(set) => format!("{}: its time-out is {set:?}, and was to be {timeout:?}", path.display()),
            Err(error) => format!("{}: {error}", path.display()),
        };
        // Whatever that says, the first trouble is the one to be told.
        let _ = device.stop();
        Err(trouble)
    }

    fn open(path: &Path) -> Result<Device, String> {
        let at = path.display();
        let file = OpenOptions::new().write(true).open(path).map_err(|error| match error.kind() {
            ErrorKind::ResourceBusy => format!(
                "{at} is in use, and has room for one: by systemd (RuntimeWatchdogSec=), a watchdog daemon, or the guard of \
                 another coordinator"
            ),
            ErrorKind::PermissionDenied => {
                format!("{at}: {error}; let the coordinator's user write to it, and see to PrivateDevices= of its unit")
            }
            _ => format!("{at}: {error}; load the driver of the watchdog (softdog is one without hardware)"),
        })?;
        Ok(Device { file })
    }

    /// What the driver has made of it.
    #[allow(unsafe_code)]
    fn set_timeout(&mut self, seconds: u64) -> io::Result<Duration> {
        let mut value = c_int::try_from(seconds).map_err(io::Error::other)?;
        let fd = self.file.as_raw_fd();
        // SAFETY: each call takes a pointer to an int that outlives it, and the descriptor is open.
        unsafe {
            ioctl::set_timeout(fd, &raw mut value)?;
            ioctl::timeout(fd, &raw mut value)?;
        }
        Ok(Duration::from_secs(value.try_into().unwrap_or_default()))
    }

    /// # Errors
    /// It was not fed, and runs.
    pub fn feed(&mut self) -> io::Result<()> {
        self.file.write_all(FEED)
    }

    /// It runs no more.
    ///
    /// # Errors
    /// It runs on, and resets the host.
    pub fn stop(mut self) -> io::Result<()> {
        self.file.write_all(STOP)
    }
}

/// The shortest time-out of the device at `path`, in whole seconds, that is no longer than `max`. The device ran for a
/// moment, and does no more.
///
/// # Errors
/// In words, with what to do.
pub fn fit(path: &Path, max: Duration) -> Result<Duration, String> {
    if let Some(nowayout) = nowayout(path) {
        check_stops(path, &nowayout)?;
    }
    let mut device = Device::open(path)?;
    let fitting = shortest(path, &mut device);
    device.stop().map_err(|error| format!("stop {}: {error}; it runs, and resets this host", path.display()))?;
    let shortest = fitting?;
    if shortest <= max {
        return Ok(shortest);
    }
    Err(format!(
        "{} resets after {shortest:?} at the earliest, and [timing] has room for {max:?}: lease less drift, kill_max and a \
         heartbeat; set timing.profile = \"wan\", or a lease that is {:?} longer",
        path.display(),
        shortest - max
    ))
}

fn shortest(path: &Path, device: &mut Device) -> Result<Duration, String> {
    // A driver refuses what is too short for it, or takes the shortest that it can.
    let mut refused = None;
    for seconds in 1..=LONGEST_SHORTEST {
        match device.set_timeout(seconds) {
            Ok(set) if !set.is_zero() => return Ok(set),
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(Errno::ENOTTY as i32) => {
                return Err(format!("{} is no watchdog, or one whose time-out cannot be set", path.display()));
            }
            Err(error) => refused = Some(error),
        }
    }
    let error = refused.map_or_else(String::new, |error| error.to_string());
    Err(format!("{} takes no time-out of up to {LONGEST_SHORTEST} s: {error}", path.display()))
}

/// In seconds; no lease is longer.
const LONGEST_SHORTEST: u64 = 120;

/// Where sysfs tells of the device at `path` whether it goes on for ever once it runs. Older kernels do not tell.
fn nowayout(path: &Path) -> Option<PathBuf> {
    let number = fs::metadata(path).ok()?.rdev();
    Some(match (major(number), minor(number)) {
        FIRST => "/sys/class/watchdog/watchdog0/nowayout".into(),
        (major, minor) => format!("/sys/dev/char/{major}:{minor}/nowayout").into(),
    })
}

/// A device that nobody can stop would reset a host whose guard has nothing to watch any more.
fn check_stops(path: &Path, nowayout: &Path) -> Result<(), String> {
    if fs::read_to_string(nowayout).is_ok_and(|told| told.trim() == "1") {
        let at = path.display();
        return Err(format!("{at} cannot be stopped once it runs (nowayout): load its driver with nowayout=0"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_watchdog_is_refused_and_so_is_one_that_nobody_can_stop() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let missing = fit(&at("missing"), Duration::from_secs(2)).expect_err("nothing there");
        assert!(missing.contains("No such file") && missing.contains("load the driver"), "{missing}");
        fs::write(at("file"), "").expect("a file");
        let file = fit(&at("file"), Duration::from_secs(2)).expect_err("a file");
        assert!(file.ends_with("/file is no watchdog, or one whose time-out cannot be set"), "{file}");
        for (told, refused) in [("0\n", false), ("1\n", true)] {
            fs::write(at("nowayout"), told).expect("a file");
            let said = check_stops(&at("file"), &at("nowayout"));
            assert_eq!(said.is_err(), refused, "{said:?}");
        }
    }
}
