//! Faults of the disk that a host's store lies on: full, torn, empty, frozen. A member that refuses its store must not
//! run, and one that cannot write must say so.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::hosts::disks;
use crate::hosts::faults::{self, What};
use crate::hosts::folders::{copy_dir, empty, entries, take_for_original};
use crate::judge::status;
use crate::net::Net;
use crate::process::launch;

/// What a coordinator gives up for its vote on a full disk is 2 MiB.
const FULL_BELOW: u64 = 3 << 20;
/// A coordinator answers by then, or has refused to run.
const START_BOUND: Duration = Duration::from_secs(20);

/// What was done to a disk, and what it takes to put that right.
pub enum Disk {
    /// Up to `filler`; the coordinator's log was so long then.
    Full { filler: PathBuf, log_bytes: usize },
    /// One that ran on with the torn store keeps that: it may have voted since.
    Torn { kept: PathBuf },
    /// The member gets the store that it is known by.
    Wiped { kept: PathBuf },
    /// These file systems.
    Frozen { dirs: Vec<PathBuf> },
}

impl Disk {
    /// The host has a disk to write to and a store that is its own; true when the fault was in force until now.
    pub fn put_right(self, net: &Net, host: &str) -> Result<bool> {
        let runs = !faults::of_host(net, host, What::Coordinator).is_empty();
        match self {
            Disk::Full { filler, log_bytes } => {
                let was_full = is_full(&net.state_dir(host))?;
                fs::remove_file(&filler).with_context(|| format!("remove {}", filler.display()))?;
                if !runs {
                    names_the_full_disk(&log(net, host), log_bytes)?;
                }
                Ok(was_full)
            }
            Disk::Torn { kept } => bring_back(net, host, &kept, runs),
            Disk::Wiped { kept } => bring_back(net, host, &kept, false),
            Disk::Frozen { dirs } => {
                let mut frozen = true;
                for dir in &dirs {
                    frozen &= disks::is_frozen(dir)?;
                    disks::thaw(dir)?;
                }
                Ok(frozen)
            }
        }
    }
}

fn log(net: &Net, host: &str) -> PathBuf {
    net.host_dir(host).join("coordinator.log")
}

/// Nothing is written to `dirs` any more; none of them is frozen after an error.
pub fn freeze(dirs: Vec<PathBuf>) -> Result<Disk> {
    if let Err(error) = dirs.iter().try_for_each(|dir| disks::freeze(dir)) {
        dirs.iter().try_for_each(|dir| disks::thaw(dir))?;
        return Err(error);
    }
    Ok(Disk::Frozen { dirs })
}

/// Nothing more fits on the disk of the store, but what its member has in reserve.
pub fn fill(net: &Net, host: &str) -> Result<Disk> {
    let filler = net.state_dir(host).join("filler");
    let what = || format!("fill {}", filler.display());
    let log_bytes = fs::metadata(log(net, host)).map_or(0, |log| log.len() as usize);
    let mut file = fs::File::create(&filler).with_context(what)?;
    // Down to the last block: a smaller piece may fit where a larger one does not.
    for piece in [1 << 20, 1 << 12, 1] {
        loop {
            match file.write(&vec![0; piece]) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error).with_context(what),
            }
        }
    }
    Ok(Disk::Full { filler, log_bytes })
}

fn is_full(dir: &Path) -> Result<bool> {
    let stat = rustix::fs::statvfs(dir).with_context(|| format!("look at the disk of {}", dir.display()))?;
    Ok(stat.f_bavail * stat.f_frsize < FULL_BELOW)
}

/// A coordinator that ended on a full disk has said so.
fn names_the_full_disk(log: &Path, since: usize) -> Result<()> {
    let text = fs::read(log).with_context(|| format!("read {}", log.display()))?;
    let said = String::from_utf8_lossy(&text[since..]).into_owned();
    if !said.contains("No space left on device") {
        bail!("a coordinator ended on a full disk without a word about it; {} has: {said}", log.display());
    }
    Ok(())
}

/// The host is down, and the store as it was lies beside it.
fn take_store(net: &Net, host: &str) -> Result<PathBuf> {
    faults::kill_host(net, host, &faults::of_host(net, host, What::Host))?;
    let kept = net.host_dir(host).join("state.kept");
    copy_dir(&net.state_dir(host), &kept)?;
    Ok(kept)
}

/// A byte of the store is another one, or its end is missing, and the host has been started on that.
pub fn tear(net: &Net, host: &str, rng: &mut StdRng) -> Result<Disk> {
    let kept = take_store(net, host)?;
    let files = files_with_content(&net.state_dir(host))?;
    let file = files.get(rng.random_range(0..files.len().max(1))).context("a store without files")?;
    let mut bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let at = rng.random_range(0..bytes.len());
    if rng.random_bool(0.5) {
        bytes.truncate(at);
    } else {
        bytes[at] ^= 1 << rng.random_range(0..8);
    }
    fs::write(file, &bytes).with_context(|| format!("tear {}", file.display()))?;
    start_to_an_end(net, host)?;
    Ok(Disk::Torn { kept })
}

/// The host has been started without a store.
pub fn wipe(net: &Net, host: &str) -> Result<Disk> {
    let kept = take_store(net, host)?;
    empty(&net.state_dir(host))?;
    launch::start_coordinator(net, host)?;
    Ok(Disk::Wiped { kept })
}

fn bring_back(net: &Net, host: &str, kept: &Path, keeps_the_present: bool) -> Result<bool> {
    if !keeps_the_present {
        faults::kill_host(net, host, &faults::of_host(net, host, What::Host))?;
        let state = net.state_dir(host);
        empty(&state)?;
        copy_dir(kept, &state)?;
        // Nothing was written since it was copied, or nothing that it promised to anybody.
        take_for_original(&state)?;
    }
    fs::remove_dir_all(kept).with_context(|| format!("remove {}", kept.display()))?;
    Ok(true)
}

/// The host's coordinator serves, or has ended.
fn start_to_an_end(net: &Net, host: &str) -> Result<()> {
    launch::start_coordinator(net, host)?;
    let began = Instant::now();
    while status::query_host(net, host).is_err() {
        if faults::of_host(net, host, What::Coordinator).is_empty() {
            return Ok(());
        }
        if began.elapsed() > START_BOUND {
            bail!("{host}: its coordinator neither serves nor ends");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Every file under `dir` that is not empty, in order.
fn files_with_content(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in entries(dir)? {
        if path.is_dir() {
            files.extend(files_with_content(&path)?);
        } else if path.metadata().is_ok_and(|metadata| metadata.len() > 0) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_that_ended_must_have_named_the_full_disk_since_it_was_full() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("coordinator.log");
        fs::write(&log, "before: No space left on device\nnothing of it").unwrap();
        assert!(names_the_full_disk(&log, 0).is_ok());
        let error = names_the_full_disk(&log, 32).unwrap_err().to_string();
        assert!(error.ends_with("has: nothing of it"), "{error}");
    }
}
