//! The wall clock of a host, which can be stepped while the host runs. `stepped-clock/` is preloaded into
//! the coordinator and what it starts, and reads the step from a file; this writes it. No other clock is touched.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::net::Net;

fn file(net: &Net, host: &str) -> PathBuf {
    net.host_dir(host).join("wall-clock")
}

/// From its next start on, the clock of every host can be stepped.
pub fn install(net: &Net) -> Result<()> {
    for host in &net.hosts {
        let file = file(net, &host.id);
        fs::write(&file, [0; 16]).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

/// What `command` starts on `host` reads that host's clock, where it has one of its own.
pub fn give_to(net: &Net, host: &str, command: &mut Command) {
    let file = file(net, host);
    if file.exists() {
        command.env("LD_PRELOAD", &net.programs.stepped_clock).env("STEPPED_CLOCK", file);
    }
}

/// The clock of `host` is `step_ns` off from now on.
pub fn step(net: &Net, host: &str, step_ns: i64) -> Result<()> {
    let file = file(net, host);
    let open = fs::OpenOptions::new().write(true).open(&file);
    let what = || format!("step the clock in {}", file.display());
    open.with_context(what)?.write_all_at(&step_ns.to_ne_bytes(), 0).with_context(what)
}

/// How often a process of `host` has read a clock that was stepped.
pub fn reads(net: &Net, host: &str) -> Result<u64> {
    let file = file(net, host);
    let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    let reads = bytes[8..].try_into().with_context(|| format!("{}: {} bytes", file.display(), bytes.len()))?;
    Ok(u64::from_ne_bytes(reads))
}
