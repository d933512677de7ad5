//! All hosts lose their power at once: every process ends, and what was written and not synced is gone. The file
//! systems are real (`disks.rs`); the kernel is told to write nothing of them any more, and they are mounted anew from
//! what their disks have. Called by the nemesis.

use std::fs;

use anyhow::{Context, Result};

use crate::hosts::disks;
use crate::hosts::faults::{self, What};
use crate::net::Net;
use crate::process::procs::Proc;

/// Written just before the cut, in each file system, and never synced.
const PROBE: &str = "written-and-not-synced";

/// Nothing of any host runs, and each has what it had synced, and perhaps some of the rest. True when something that
/// was not synced was lost.
///
/// # Errors
/// A host has no disk of its own, or it cannot be mounted again.
pub fn cut(net: &Net) -> Result<bool> {
    loop {
        let running: Vec<Proc> = net.hosts.iter().flat_map(|host| faults::of_host(net, &host.id, What::Host)).collect();
        if running.is_empty() {
            break;
        }
        faults::kill(&running)?;
    }
    let dirs: Vec<_> = net.hosts.iter().flat_map(|host| disks::of_host(net, host).map(|dir| (host, dir))).collect();
    for (_, dir) in &dirs {
        let probe = dir.join(PROBE);
        fs::write(&probe, PROBE).with_context(|| format!("write {}", probe.display()))?;
    }
    for (_, dir) in &dirs {
        disks::cut_power(dir)?;
    }
    let mut lost = false;
    for (host, dir) in &dirs {
        disks::mount_again(net, host, dir)?;
        // The kernel may have written it by itself.
        lost |= fs::remove_file(dir.join(PROBE)).is_err();
    }
    Ok(lost)
}
