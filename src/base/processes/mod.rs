//! The other processes of this host, as /proc shows them: who descends from whom, who listens at a port, who has files
//! locked, and how to name a process to an operator. It reads and decides nothing. `guard_client`,
//! `chain` and `coordinator` ask.
//!
//! What the kernel does not show to this user is missing here, and each function says what that means.

mod files;
mod listeners;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use files::{Lock, OpenFile, is_unreadable, locks, open_files, parse_locks};
pub use listeners::{Listener, holders, listening, parse_listening, reaching};

/// What /proc/PID/stat says of a process.
pub struct Stat {
    pub pid: u32,
    pub parent: u32,
    pub session: u32,
    /// In clock ticks after boot.
    pub started: u64,
}

/// # Errors
/// When there is no /proc. A process that ends meanwhile is missing.
pub fn all() -> io::Result<Vec<Stat>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).filter_map(stat).collect())
}

pub fn stat(pid: u32) -> Option<Stat> {
    let line = StatLine::of(pid)?;
    Some(Stat { pid, parent: line.number(4)?, session: line.number(6)?, started: line.number(22)? })
}

/// Of /proc/PID/stat, from the third field on: "pid (comm) state ppid pgrp session …".
struct StatLine(String);

impl StatLine {
    fn of(pid: u32) -> Option<StatLine> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // comm may hold spaces and parentheses.
        Some(StatLine(text.rsplit_once(')')?.1.to_owned()))
    }

    /// The field that proc(5) gives this number.
    fn number<T: FromStr>(&self, field: usize) -> Option<T> {
        self.0.split_whitespace().nth(field - 3)?.parse().ok()
    }
}

/// What a process was started with, as far as this user may look.
#[derive(Debug, PartialEq, Eq)]
pub enum Environment {
    Of(Vec<u8>),
    /// It has none, or ends, or may not be looked at.
    None,
    /// It is about to run another program: it has the memory for that, and no environment yet. On a disk that is busy
    /// this may take long.
    Unclear,
}

/// In bytes; longer ones take one more reading.
const SHOWN_USUAL: usize = 128 << 10;

pub fn environment(pid: u32) -> Environment {
    // What was read may be of the program before, and what is looked at of the next one: then it is read once more.
    for _ in 0..3 {
        match read_at_once(format!("/proc/{pid}/environ")) {
            Ok(environment) if environment.is_empty() => {}
            Ok(environment) => return Environment::Of(environment),
            Err(_) => return Environment::None,
        }
        let Some(line) = StatLine::of(pid) else { return Environment::None };
        let [memory, end_code, env_start, env_end] = [23, 27, 50, 51].map(|field| line.number(field).unwrap_or(0_u64));
        // Without memory are those that end and the kernel's own threads. execve(2) gives the new memory its environment
        // first, and the bounds of the program's code after that.
        if memory == 0 || (end_code != 0 && env_start == env_end) {
            return Environment::None;
        }
    }
    Environment::Unclear
}

/// What /proc shows of a process's memory, as its arguments and its environment, in one call: a later one gives no more
/// once the process runs another program, as if the file ended there.
///
/// # Errors
/// There is no such process, or this user may not look.
pub fn read_at_once(file: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; SHOWN_USUAL];
    loop {
        let count = fs::File::open(&file)?.read(&mut bytes)?;
        if count < bytes.len() {
            bytes.truncate(count);
            return Ok(bytes);
        }
        bytes.resize(2 * bytes.len(), 0);
    }
}

/// Who was started by `pid` and lives, or was left to it as an orphan. One may be missing while another one ends; the
/// next look finds it.
pub fn children(pid: u32) -> Vec<u32> {
    // Missing in a kernel that was built without CONFIG_PROC_CHILDREN.
    if !Path::new("/proc/thread-self/children").exists() {
        return all().unwrap_or_default().iter().filter(|stat| stat.parent == pid).map(|stat| stat.pid).collect();
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// `roots` and all of `all` that descend from them. Nothing above or at `barrier` is taken up by way of a parent.
pub fn family(mut roots: BTreeSet<u32>, all: &[Stat], barrier: u32) -> BTreeSet<u32> {
    loop {
        let children: Vec<u32> =
            all.iter().filter(|p| roots.contains(&p.parent) && p.pid != barrier).map(|p| p.pid).collect();
        let before = roots.len();
        roots.extend(children);
        if roots.len() == before {
            return roots;
        }
    }
}

/// The guard that serves `socket`, by its command line, which every user may read; its node may not be looked for in
/// any other process.
pub fn guard_on(socket: &Path, all: &[Stat]) -> Option<u32> {
    let serves = |pid: u32| {
        let line = read_at_once(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let is_guard = words[0].ends_with(b"baton-guard");
        is_guard && words.windows(2).any(|two| two[0] == b"--socket" && two[1] == socket.as_os_str().as_encoded_bytes())
    };
    all.iter().map(|p| p.pid).find(|pid| serves(*pid))
}

/// The program that a process runs, without its folder.
pub fn program(pid: u32) -> Option<String> {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok();
    let name = exe.and_then(|exe| Some(exe.file_name()?.to_str()?.trim_end_matches(" (deleted)").to_owned()));
    name.or_else(|| Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned()))
}

/// Real user of a process.
pub fn user(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())
}

/// The network namespace of a process; `None` when it may not be looked at.
pub fn network(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}

/// `near (uid 1001)`, or only the number for a user without a name in /etc/passwd.
pub fn user_name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.map_or_else(|| format!("with uid {uid}"), |name| format!("{name} (uid {uid})"))
}

/// `neard (pid 4711) of user near (uid 1001)`, as far as it is shown.
pub fn named(pid: u32) -> String {
    let program = program(pid).unwrap_or_else(|| "a process".to_owned());
    match user(pid) {
        Some(uid) => format!("{program} (pid {pid}) of user {}", user_name(uid)),
        None => format!("{program} (pid {pid})"),
    }
}

/// The same without the user.
pub fn named_shortly(pid: u32) -> String {
    format!("{} (pid {pid})", program(pid).unwrap_or_else(|| "a process".to_owned()))
}

/// What an operator does to end these processes for good.
pub fn remedy(pids: &[u32]) -> String {
    let own = unit(std::process::id());
    let units: BTreeSet<String> =
        pids.iter().filter_map(|pid| unit(*pid)).filter(|unit| Some(unit) != own.as_ref()).collect();
    match units.into_iter().collect::<Vec<_>>().join(" ").as_str() {
        "" => "stop it, and whatever starts it".to_owned(),
        units => format!("stop it: systemctl disable --now {units}"),
    }
}

/// The systemd service that a process belongs to.
fn unit(pid: u32) -> Option<String> {
    unit_in(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

/// The last part of a path that names a service: a user's service lies below `user@1000.service`.
fn unit_in(cgroup: &str) -> Option<String> {
    let systemd = cgroup.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        matches!(controllers, "" | "name=systemd").then_some(path)
    });
    let services = systemd.filter_map(|path| path.rsplit('/').find(|part| part.ends_with(".service")));
    services.filter(|unit| !unit.starts_with("user@")).map(str::to_owned).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_a_process_is_read_from_its_control_group() {
        assert_eq!(unit_in("0::/system.slice/neard.service\n").as_deref(), Some("neard.service"));
        assert_eq!(unit_in("0::/system.slice/neard.service/payload\n").as_deref(), Some("neard.service"));
        let old = "12:pids:/system.slice/x.service\n1:name=systemd:/system.slice/neard@a.service\n";
        assert_eq!(unit_in(old).as_deref(), Some("neard@a.service"));
        assert_eq!(unit_in("0::/user.slice/user-1000.slice/user@1000.service/session.scope\n"), None);
        assert_eq!(unit_in("0::/\n"), None);
    }

    #[test]
    fn a_process_that_was_started_is_a_child_until_it_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        assert!(children(std::process::id()).contains(&child.id()));
        assert_eq!(children(child.id()), [0; 0]);
        child.kill().expect("killed");
        child.wait().expect("waited for");
        assert!(!children(std::process::id()).contains(&child.id()));
    }

    #[test]
    fn a_family_has_the_children_of_children_and_not_who_asks() {
        let stat = |pid, parent| Stat { pid, parent, session: 0, started: 0 };
        let all = [stat(9, 8), stat(2, 1), stat(3, 2), stat(4, 3), stat(5, 1), stat(6, 4)];
        assert_eq!(family([2].into(), &all, 0), [2, 3, 4, 6].into());
        assert_eq!(family([2].into(), &all, 4), [2, 3].into());
    }
}
