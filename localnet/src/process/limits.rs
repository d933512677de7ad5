//! Makes a host as small as its operator's machine: so many processors and so much memory for everything that runs on
//! it, by a control group of its own (version 2 or 1), or at least one processor where there are none. Called by
//! the soak; the keeper removes what is left.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::net::Net;

const ROOT: &str = "/sys/fs/cgroup";
const PERIOD_US: u64 = 100_000;
const MIB: u64 = 1 << 20;
/// For the kernel to let go of the last process of a group.
const EMPTY_BOUND: Duration = Duration::from_secs(5);
/// Of every processor's second for threads at a real-time priority, where groups share that out (version 1): all of
/// the hosts together, and less than the kernel's own limit of 950 000.
const REALTIME_US: u64 = 900_000;

/// What one host has of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    pub cpus: f64,
    pub memory_mib: u64,
}

/// How hosts are kept to their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Confine {
    /// Control groups: processors and memory. Takes root
    Cgroup,
    /// Each host on one processor of this machine, by `taskset`; memory is not limited
    Pin,
    /// Not at all
    No,
}

/// The hosts of a network, each with its limits.
pub enum Confined {
    Groups(Vec<(String, Group)>),
    Pinned(Vec<(String, usize)>),
    Free,
}

impl Confined {
    /// Nothing runs yet in what is made here.
    ///
    /// # Errors
    /// This machine does not allow it; the message says what else can be asked for.
    pub fn make(net: &Net, confine: Confine, size: Size) -> Result<Confined> {
        match confine {
            Confine::No => Ok(Confined::Free),
            Confine::Pin => {
                let cores = std::thread::available_parallelism().context("count the processors")?.get();
                Ok(Confined::Pinned(
                    net.hosts.iter().enumerate().map(|(i, host)| (host.id.clone(), i % cores)).collect(),
                ))
            }
            Confine::Cgroup => {
                let what = "control groups for the hosts; --confine pin does without root, and without a memory limit";
                groups(net, size).with_context(|| format!("make {what}"))
            }
        }
    }

    /// `command` as it is started on `host`: the process is within the limits from its first instruction.
    pub fn wrap(&self, host: &str, command: Command) -> Command {
        let mut outer = match self {
            Confined::Free => return command,
            Confined::Groups(groups) => {
                let Some((_, group)) = groups.iter().find(|(id, _)| id == host) else { return command };
                let enter = "while [ \"$1\" != -- ]; do echo $$ > \"$1/cgroup.procs\" || exit 1; shift; done\n\
                             shift; exec \"$@\"";
                let mut outer = Command::new("sh");
                outer.args(["-c", enter, "enter"]).args(group.folders()).arg("--");
                outer
            }
            Confined::Pinned(cores) => {
                let Some((_, core)) = cores.iter().find(|(id, _)| id == host) else { return command };
                let mut outer = Command::new("taskset");
                outer.args(["-c", &core.to_string()]);
                outer
            }
        };
        outer.arg(command.get_program()).args(command.get_args());
        outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        outer
    }

    pub fn group(&self, host: &str) -> Option<&Group> {
        match self {
            Confined::Groups(groups) => groups.iter().find(|(id, _)| id == host).map(|(_, group)| group),
            Confined::Pinned(_) | Confined::Free => None,
        }
    }

    /// In words, for the report.
    pub fn describe(&self, size: Size) -> String {
        let Size { cpus, memory_mib } = size;
        match self {
            Confined::Free => "no limits".into(),
            Confined::Pinned(_) => "each host on one processor of this machine, memory not limited".into(),
            Confined::Groups(groups) => {
                let version = groups.first().map_or(0, |(_, group)| group.version());
                format!("each host within {cpus} CPU and {memory_mib} MiB, by control groups (version {version})")
            }
        }
    }
}

/// The control group of one host.
pub enum Group {
    /// With everything in one hierarchy.
    V2(PathBuf),
    V1 {
        cpu: PathBuf,
        memory: PathBuf,
    },
}

fn groups(net: &Net, size: Size) -> Result<Confined> {
    let name = format!("baton-localnet-{:08x}", rand::random::<u32>());
    let mut groups = Vec::new();
    for host in &net.hosts {
        let group = Group::make(Path::new(ROOT), &format!("{name}-{}", host.id), net, size)?;
        groups.push((host.id.clone(), group));
    }
    Ok(Confined::Groups(groups))
}

impl Group {
    fn make(root: &Path, name: &str, net: &Net, size: Size) -> Result<Group> {
        let listed = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let has = |controller: &str| listed.split_whitespace().any(|word| word == controller);
        let group = if has("cpu") && has("memory") {
            Group::V2(root.join(name))
        } else if root.join("cpu/cpu.cfs_quota_us").exists() || root.join("cpu/cgroup.procs").exists() {
            Group::V1 { cpu: root.join("cpu").join(name), memory: root.join("memory").join(name) }
        } else {
            bail!("{} has no controllers for cpu and memory", root.display());
        };
        // Written first: whoever sweeps the network removes what was made by then.
        remember(net, &group)?;
        for folder in group.folders() {
            fs::create_dir(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        group.limit(root, net.hosts.len() as u64, size)?;
        Ok(group)
    }

    fn limit(&self, root: &Path, hosts: u64, size: Size) -> Result<()> {
        let (quota, bytes) = ((size.cpus * PERIOD_US as f64) as u64, size.memory_mib * MIB);
        match self {
            Group::V2(folder) => {
                put(&root.join("cgroup.subtree_control"), "+cpu +memory")?;
                put(&folder.join("cpu.max"), &format!("{quota} {PERIOD_US}"))?;
                put(&folder.join("memory.max"), &bytes.to_string())
            }
            Group::V1 { cpu, memory } => {
                put(&cpu.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
                put(&cpu.join("cpu.cfs_quota_us"), &quota.to_string())?;
                let realtime = cpu.join("cpu.rt_runtime_us");
                if realtime.exists() {
                    put(&realtime, &(REALTIME_US / hosts).to_string())?;
                }
                put(&memory.join("memory.limit_in_bytes"), &bytes.to_string())
            }
        }
    }

    fn folders(&self) -> Vec<&Path> {
        match self {
            Group::V2(folder) => vec![folder],
            Group::V1 { cpu, memory } => vec![cpu, memory],
        }
    }

    fn version(&self) -> u8 {
        match self {
            Group::V2(_) => 2,
            Group::V1 { .. } => 1,
        }
    }

    /// What the kernel counts against the limit now: pages of the processes, and of the files that they touch.
    pub fn memory_bytes(&self) -> Result<u64> {
        let file = match self {
            Group::V2(folder) => folder.join("memory.current"),
            Group::V1 { memory, .. } => memory.join("memory.usage_in_bytes"),
        };
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        text.trim().parse().with_context(|| format!("read {}: {text:?}", file.display()))
    }

    /// Processes that were killed for want of memory.
    pub fn killed_for_memory(&self) -> Result<u64> {
        match self {
            Group::V2(folder) => counter(&folder.join("memory.events"), "oom_kill"),
            Group::V1 { memory, .. } => counter(&memory.join("memory.oom_control"), "oom_kill"),
        }
    }

    /// Periods of a tenth of a second in which the host used up its share and had to wait.
    pub fn throttled_periods(&self) -> Result<u64> {
        match self {
            Group::V2(folder) => counter(&folder.join("cpu.stat"), "nr_throttled"),
            Group::V1 { cpu, .. } => counter(&cpu.join("cpu.stat"), "nr_throttled"),
        }
    }
}

/// The number after `name` in a file of such lines.
fn counter(file: &Path, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.with_context(|| format!("{} counts no {name}: {text:?}", file.display()))
}

fn put(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {text:?} to {}", file.display()))
}

fn list_of(dir: &Path) -> PathBuf {
    dir.join("cgroups")
}

fn remember(net: &Net, group: &Group) -> Result<()> {
    group.folders().into_iter().try_for_each(|folder| remove_at_end(&net.dir, folder))
}

/// Whoever sweeps the network under `dir` removes this control group then, and those below it.
pub fn remove_at_end(dir: &Path, group: &Path) -> Result<()> {
    let list = list_of(dir);
    let known = fs::read_to_string(&list).unwrap_or_default();
    fs::write(&list, format!("{known}{}\n", group.display())).with_context(|| format!("write {}", list.display()))
}

/// The groups that the network under `dir` had are gone; nothing may run in them any more.
///
/// # Errors
/// One of them stays; it is named.
pub fn remove_groups(dir: &Path) -> Result<()> {
    let list = list_of(dir);
    let Ok(text) = fs::read_to_string(&list) else { return Ok(()) };
    for folder in text.lines().map(Path::new).filter(|folder| folder.starts_with(ROOT)) {
        remove_empty(folder).with_context(|| format!("remove the control group {}", folder.display()))?;
    }
    fs::remove_file(&list).with_context(|| format!("remove {}", list.display()))
}

/// A process leaves its group a moment after it is seen to have ended.
fn remove_empty(folder: &Path) -> io::Result<()> {
    for below in fs::read_dir(folder).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&below.path())?;
        }
    }
    let deadline = Instant::now() + EMPTY_BOUND;
    loop {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}
