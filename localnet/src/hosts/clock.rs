//! The wall clock of a host, which can be stepped while the host runs, and its syncs, which can be made slow.
//! `stepped-clock/` is preloaded into the coordinator and what it starts, and reads both from a file; this writes it.
//! No other clock is touched.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::net::Net;

fn file(net: &Net, host: &str) -> PathBuf {
    net.host_dir(host).join("wall-clock")
}

/// Where the words of the file stand.
const STEP: u64 = 0;
const READS: usize = 8;
const SYNC: u64 = 16;
const SYNCS: usize = 24;
const FILE_BYTES: usize = 32;

/// From its next start on, the clock of every host can be stepped, and its syncs can be made slow.
pub fn install(net: &Net) -> Result<()> {
    for host in &net.hosts {
        let file = file(net, &host.id);
        fs::write(&file, [0; FILE_BYTES]).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

pub fn is_installed(net: &Net) -> bool {
    net.hosts.iter().all(|host| file(net, &host.id).exists())
}

/// What `command` starts on `host` reads that host's clock, where it has one of its own.
pub fn give_to(net: &Net, host: &str, command: &mut Command) {
    let file = file(net, host);
    if file.exists() {
        command.env("LD_PRELOAD", &net.programs.stepped_clock).env("STEPPED_CLOCK", file);
        command.env("RECORDED_STREAM", signer_stream(net, host));
    }
}

/// What the signers of `host` were asked and answered, as `stepped-clock/` records it.
pub fn signer_stream(net: &Net, host: &str) -> PathBuf {
    net.host_dir(host).join("signer-stream")
}

/// The clock of `host` is `step_ns` off from now on.
pub fn step(net: &Net, host: &str, step_ns: i64) -> Result<()> {
    write(net, host, STEP, step_ns.to_ne_bytes())
}

/// Every fsync and fdatasync of `host`'s coordinator and guard takes `longer` from now on.
pub fn slow_syncs(net: &Net, host: &str, longer: Duration) -> Result<()> {
    write(net, host, SYNC, (longer.as_nanos() as u64).to_ne_bytes())
}

fn write(net: &Net, host: &str, at: u64, word: [u8; 8]) -> Result<()> {
    let file = file(net, host);
    let open = fs::OpenOptions::new().write(true).open(&file);
    let what = || format!("write to {}", file.display());
    open.with_context(what)?.write_all_at(&word, at).with_context(what)
}

/// How often a process of `host` has read a clock that was stepped.
pub fn reads(net: &Net, host: &str) -> Result<u64> {
    read(net, host, READS)
}

/// How many syncs of `host` have been slow.
pub fn slowed_syncs(net: &Net, host: &str) -> Result<u64> {
    read(net, host, SYNCS)
}

fn read(net: &Net, host: &str, at: usize) -> Result<u64> {
    let file = file(net, host);
    let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
    word.map(u64::from_ne_bytes).with_context(|| format!("{}: {} bytes", file.display(), bytes.len()))
}
