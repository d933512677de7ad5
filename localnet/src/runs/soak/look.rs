//! Looks once at everything that a host uses: its processes in /proc, its files, its control group. Called by the soak
//! every few seconds.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::series::Rule;
use crate::hosts::faults::{What, of_host};
use crate::net::Net;
use crate::process::limits::Confined;
use crate::process::procs::Proc;
use crate::runs::cost::{Spent, spent};

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * 1024.0;

/// A leak of less than this an hour fills 1 GiB in six weeks; less cannot be told from an allocator's noise in an hour.
const RSS: Rule = Rule::Grows { per_hour: 1.0, grain: 0.5 };
/// A file that is opened and not closed again: more than the connections of a handover that is under way.
const FILES: Rule = Rule::Grows { per_hour: 6.0, grain: 6.0 };
/// sled takes 512 KiB at a time; the log is cut after every 500 entries.
const STATE_DIR: Rule = Rule::GrowsBelow { per_hour: 1.0, grain: 1.5, most: 16.0 };
/// Lines come with events: so much for what comes by itself, and so much for each handover.
const LOG_KIB_PER_HOUR: f64 = 32.0;
const LOG_KIB_PER_HANDOVER: f64 = 2.0;
const LOG_GRAIN_KIB: f64 = 16.0;

/// What is measured, in the order in which it is shown. Names hold the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    CoordinatorRss,
    CoordinatorCpu,
    CoordinatorWritten,
    CoordinatorFiles,
    GuardRss,
    GuardCpu,
    GuardWritten,
    GuardFiles,
    NodeRss,
    NodeCpu,
    NodeWritten,
    StateDir,
    CoordinatorLog,
    NodeLog,
    NodeHome,
    HostMemory,
}

impl Figure {
    pub fn name(self) -> &'static str {
        match self {
            Figure::CoordinatorRss => "coordinator RSS, MiB",
            Figure::CoordinatorCpu => "coordinator CPU, % of a core",
            Figure::CoordinatorWritten => "coordinator to disk, KiB/s",
            Figure::CoordinatorFiles => "coordinator open files",
            Figure::GuardRss => "guard RSS, MiB",
            Figure::GuardCpu => "guard CPU, % of a core",
            Figure::GuardWritten => "guard to disk, KiB/s",
            Figure::GuardFiles => "guard open files",
            Figure::NodeRss => "chain node RSS, MiB",
            Figure::NodeCpu => "chain node CPU, % of a core",
            Figure::NodeWritten => "chain node to disk, KiB/s",
            Figure::StateDir => "state dir, MiB",
            Figure::CoordinatorLog => "coordinator and guard log, KiB",
            Figure::NodeLog => "chain node log, KiB",
            Figure::NodeHome => "chain node home, MiB",
            Figure::HostMemory => "host memory with file cache, MiB",
        }
    }

    /// Chain nodes are not baton's: what they use is shown.
    pub fn rule(self, handovers_per_hour: f64) -> Rule {
        match self {
            Figure::CoordinatorRss | Figure::GuardRss => RSS,
            Figure::CoordinatorFiles | Figure::GuardFiles => FILES,
            Figure::StateDir => STATE_DIR,
            Figure::CoordinatorLog => {
                let per_hour = LOG_KIB_PER_HOUR + LOG_KIB_PER_HANDOVER * handovers_per_hour;
                Rule::Grows { per_hour, grain: LOG_GRAIN_KIB }
            }
            Figure::CoordinatorCpu | Figure::CoordinatorWritten | Figure::GuardCpu | Figure::GuardWritten => Rule::Free,
            Figure::NodeRss | Figure::NodeCpu | Figure::NodeWritten => Rule::Free,
            Figure::NodeLog | Figure::NodeHome | Figure::HostMemory => Rule::Free,
        }
    }
}

/// The figures of a program's process.
struct Of {
    what: What,
    rss: Figure,
    cpu: Figure,
    written: Figure,
    files: Option<Figure>,
}

const PROGRAMS: [Of; 3] = [
    Of {
        what: What::Coordinator,
        rss: Figure::CoordinatorRss,
        cpu: Figure::CoordinatorCpu,
        written: Figure::CoordinatorWritten,
        files: Some(Figure::CoordinatorFiles),
    },
    Of {
        what: What::Guard,
        rss: Figure::GuardRss,
        cpu: Figure::GuardCpu,
        written: Figure::GuardWritten,
        files: Some(Figure::GuardFiles),
    },
    Of { what: What::Node, rss: Figure::NodeRss, cpu: Figure::NodeCpu, written: Figure::NodeWritten, files: None },
];

/// Remembers the last look at each process, for what is a difference of two.
#[derive(Default)]
pub struct Looker {
    last: BTreeMap<i32, (Duration, Spent)>,
}

impl Looker {
    /// Every figure of `host` at `now`, which is the time since the soak began. A process that is being replaced at
    /// this moment is left out.
    pub fn look(&mut self, net: &Net, host: &str, confined: &Confined, now: Duration) -> Result<Vec<(Figure, f64)>> {
        let mut seen = Vec::new();
        for of in &PROGRAMS {
            for proc in of_host(net, host, of.what).iter().filter(|proc| is_lasting(proc)) {
                seen.extend(self.process(of, proc, now));
            }
        }
        seen.push((Figure::StateDir, disk_bytes(&net.state_dir(host))? as f64 / MIB));
        for (figure, file) in [
            (Figure::CoordinatorLog, net.host_dir(host).join("coordinator.log")),
            (Figure::NodeLog, net.node_log(host)),
        ] {
            if let Ok(found) = fs::metadata(&file) {
                seen.push((figure, found.len() as f64 / KIB));
            }
        }
        if net.chain_home(host).is_dir() {
            seen.push((Figure::NodeHome, disk_bytes(&net.chain_home(host))? as f64 / MIB));
        }
        if let Some(group) = confined.group(host) {
            seen.push((Figure::HostMemory, group.memory_bytes()? as f64 / MIB));
        }
        Ok(seen)
    }

    fn process(&mut self, of: &Of, proc: &Proc, now: Duration) -> Vec<(Figure, f64)> {
        let Ok(after) = spent(proc) else { return Vec::new() };
        let mut seen = vec![(of.rss, after.rss as f64 / MIB)];
        if let (Some(figure), Ok(open)) = (of.files, fs::read_dir(format!("/proc/{}/fd", proc.pid))) {
            seen.push((figure, open.count() as f64));
        }
        if let Some((at, before)) = self.last.get(&proc.pid) {
            let seconds = now.saturating_sub(*at).as_secs_f64();
            if seconds > 0.0 && after.cpu >= before.cpu && after.written >= before.written {
                seen.push((of.cpu, (after.cpu - before.cpu).as_secs_f64() / seconds * 100.0));
                seen.push((of.written, (after.written - before.written) as f64 / KIB / seconds));
            }
        }
        self.last.insert(proc.pid, (now, after));
        seen
    }
}

/// `baton` is also what asks a coordinator, and `baton-guard` what reads a key file for one.
fn is_lasting(proc: &Proc) -> bool {
    match proc.program() {
        "baton" => proc.argv.get(1).is_some_and(|arg| arg == "run"),
        "baton-guard" => proc.argv.get(1).is_none_or(|arg| arg != "public-key"),
        _ => true,
    }
}

/// What the files below `dir` take on the disk. One that goes meanwhile counts as nothing.
pub fn disk_bytes(dir: &Path) -> Result<u64> {
    let entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    let mut bytes = 0;
    for entry in entries.flatten() {
        let Ok(found) = entry.metadata() else { continue };
        if found.is_dir() {
            bytes += disk_bytes(&entry.path()).unwrap_or(0);
        } else {
            bytes += found.blocks() * 512;
        }
    }
    Ok(bytes)
}
