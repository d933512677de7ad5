//! Hosts with Debian, each fresh from one `debootstrap`: an overlay of a base that is made once, with systemd as its
//! first process, in a network namespace of its own. All of it ends with the thread that made it: mounts and networks
//! are its own, and the kernel ends a host with the namespace of process ids around it (`systemd-nspawn` alone would
//! leave its container running).

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use localnet::net::namespaces;
use rustix::process::{Signal, set_parent_process_death_signal};
use tempfile::TempDir;

const BRIDGE: &str = "hosts0";
/// Of whoever is outside of the hosts.
pub const OUTSIDE: &str = "10.0.0.254";
const BOUND: Duration = Duration::from_secs(120);
/// Begins the names of control groups and folders; the test's process id follows.
const GROUP: &str = "baton-test-";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,procps";

/// Where hosts can be.
pub struct Ground {
    base: PathBuf,
    // On the disk of the target folder, which overlays need.
    pub dir: TempDir,
}

/// One that runs, until it is dropped.
pub struct Host {
    pub name: String,
    pub root: PathBuf,
    /// The `unshare` whose end is the end of all.
    outer: Child,
    first: u32,
    groups: Vec<PathBuf>,
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

/// One of the repository's scripts that build. Cargo describes this package to the test in variables that build scripts
/// (ring's) watch, and that would have all built again that depends on ring.
pub fn script(path: &str) -> Command {
    let mut command = Command::new(repository().join(path));
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
        command.env_remove(name);
    }
    command
}

/// Runs to the end and succeeds; returns standard output.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    success(&format!("{command:?}"), output)
}

pub fn success(what: &str, output: Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}{err}", output.status);
    out.into_owned()
}

fn sh(script: &str) -> String {
    run(Command::new("sh").args(["-ec", script]))
}

/// # Panics
/// One of `programs` is missing.
pub fn need(programs: &[(&str, &str)]) {
    for (program, package) in programs {
        let found = Command::new("sh").args(["-c", "command -v \"$0\"", program]).stdout(Stdio::null()).status();
        assert!(found.is_ok_and(|status| status.success()), "{program} is missing: {package}");
    }
}

#[allow(unsafe_code)]
pub fn end_with_us(command: &mut Command) {
    // SAFETY: one system call, no allocation and no lock.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
}

impl Ground {
    /// The calling thread, and what it starts, has a network with one bridge and mounts of its own from now on.
    pub fn new() -> Ground {
        need(&[
            ("debootstrap", "apt-get install debootstrap"),
            ("systemd-nspawn", "apt-get install systemd-container"),
            ("nsenter", "apt-get install util-linux"),
            ("ip", "apt-get install iproute2"),
        ]);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // The mirror is reached from here alone.
        let base = base(folder);
        namespaces::enter().expect("namespaces; root is needed");
        fs::create_dir_all("/run/netns").expect("/run/netns");
        namespaces::small_disk(Path::new("/run/netns"), 1 << 20).expect("/run/netns of our own");
        sh(&format!(
            "ip link add {BRIDGE} type bridge; ip addr add {OUTSIDE}/24 dev {BRIDGE}; ip link set {BRIDGE} up"
        ));
        sweep(folder);
        let prefix = format!("{GROUP}{}-", std::process::id());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir_in(folder).expect("a directory");
        Ground { base, dir }
    }

    /// A root that nobody has changed yet, with folders `bind` of this machine where the second path says.
    pub fn boot(&self, name: &str, addr: &str, bind: &[(&Path, &str)]) -> Host {
        let folder = self.dir.path().join(name);
        let root = folder.join("root");
        for part in ["root", "upper", "work"] {
            fs::create_dir_all(folder.join(part)).expect("a directory");
        }
        let (at, base) = (folder.display(), self.base.display());
        sh(&format!("mount -t overlay -o lowerdir={base},upperdir={at}/upper,workdir={at}/work overlay {at}/root"));
        sh(&format!(
            "ip netns add {name}; ip link add {name} type veth peer name net0 netns {name}; ip link set {name} master {BRIDGE} up
             ip -n {name} addr add {addr}/24 dev net0; ip -n {name} link set net0 up; ip -n {name} link set lo up"
        ));
        let groups = control_groups(name);
        let script = "for group; do [ \"$group\" = -- ] && break; echo $$ > \"$group/cgroup.procs\"; done
                      while [ \"$1\" != -- ]; do shift; done; shift; exec systemd-nspawn \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--kill-child=KILL", "--mount-proc", "sh", "-ec", script, "sh"])
            .args(&groups)
            .arg("--");
        command.args(["--boot", "--register=no", "--timezone=off", "--resolv-conf=off", "--link-journal=no"]);
        if !Path::new("/run/systemd/system").exists() {
            command.arg("--keep-unit");
        }
        command.arg(format!("--machine={name}")).arg("--directory").arg(&root);
        command.arg(format!("--network-namespace-path=/run/netns/{name}"));
        for (from, to) in bind {
            command.arg(format!("--bind={}:{to}", from.display()));
        }
        let console = File::create(folder.join("console.log")).expect("a log");
        command.stdin(Stdio::null()).stdout(console.try_clone().expect("a log")).stderr(console);
        end_with_us(&mut command);
        let outer = command.spawn().expect("unshare");
        let mut host = Host { name: name.into(), root, outer, first: 0, groups };
        host.await_boot(&folder.join("console.log"));
        host
    }
}

/// A fresh one below `folder`, made from where this machine's own packages come from, unless there is one.
fn base(folder: &Path) -> PathBuf {
    let base = folder.join("debian-base");
    if base.join("complete").exists() {
        return base;
    }
    let _ = fs::remove_dir_all(&base);
    let release = fs::read_to_string("/etc/os-release").expect("/etc/os-release");
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).expect("a release with a name");
    let targets = run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(CODENAME) $(COMPONENT)",
        "Created-By: Packages",
    ]));
    let place = |line: &str| line.strip_suffix(&format!(" {suite} main")).map(str::to_owned);
    let mirror =
        targets.lines().find_map(place).unwrap_or_else(|| panic!("no mirror of {suite} in /etc/apt: {targets}"));
    let root = base.display().to_string();
    let include = format!("--include={PACKAGES}");
    let began_at = Instant::now();
    // Its mounts and processes end with it.
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--pid",
        "--fork",
        "--kill-child=KILL",
        "--mount-proc",
        "debootstrap",
        "--variant=minbase",
    ]);
    command.args([&include, suite, &root, &mirror]);
    end_with_us(&mut command);
    run(&mut command);
    File::create(base.join("complete")).expect("a file");
    println!("debootstrap of {suite}: {:.1} s", began_at.elapsed().as_secs_f64());
    base
}

fn hierarchies() -> [PathBuf; 3] {
    ["systemd", "unified", ""].map(|part| Path::new("/sys/fs/cgroup").join(part))
}

/// Empty control groups and files of tests that were killed go.
fn sweep(folder: &Path) {
    for dir in hierarchies().iter().map(PathBuf::as_path).chain([folder]) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let owner = name.strip_prefix(GROUP).and_then(|rest| rest.split('-').next());
            if owner.is_none_or(|pid| Path::new("/proc").join(pid).exists()) {
                continue;
            }
            if dir == folder {
                let _ = fs::remove_dir_all(entry.path());
            } else {
                remove_group(&entry.path());
            }
        }
    }
}

/// With all below it, as far as nothing runs there.
fn remove_group(group: &Path) {
    let _ = Command::new("find").arg(group).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]).output();
}

/// Of the container's own, in every hierarchy that systemd uses.
fn control_groups(name: &str) -> Vec<PathBuf> {
    let own = format!("{GROUP}{}-{name}", std::process::id());
    let groups = hierarchies().into_iter().filter(|dir| dir.join("cgroup.procs").exists()).map(|dir| dir.join(&own));
    groups.inspect(|group| fs::create_dir_all(group).expect("a control group")).collect()
}

impl Host {
    fn await_boot(&mut self, console: &Path) {
        let began_at = Instant::now();
        loop {
            let state = self.find_first().map(|()| self.try_sh("systemctl is-system-running"));
            let said =
                state.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
            if ["running", "degraded"].contains(&said.as_str()) {
                return;
            }
            let log = || fs::read_to_string(console).unwrap_or_default();
            assert!(began_at.elapsed() < BOUND, "{} does not boot ({said:?}):\n{}", self.name, log());
            assert!(self.outer.try_wait().expect("ours").is_none(), "{} has ended:\n{}", self.name, log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The container's first process is the child of `systemd-nspawn`, which is that of `unshare`.
    fn find_first(&mut self) -> Option<()> {
        let nspawn = *children(self.outer.id()).first()?;
        let is_systemd = |pid: &u32| comm(*pid).is_some_and(|comm| comm == "systemd");
        self.first = children(nspawn).into_iter().find(is_systemd)?;
        Some(())
    }

    /// As root on the host, in its home.
    pub fn try_sh(&self, script: &str) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first.to_string(), "--mount", "--uts", "--ipc", "--net", "--pid", "--root"]);
        command.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"]);
        command.args(["DEBIAN_FRONTEND=noninteractive", "bash", "-ec"]);
        command.arg(format!("cd /root; {script}"));
        command.stdin(Stdio::null()).output().expect("nsenter")
    }

    pub fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        if !output.status.success() {
            let journal = self.try_sh("journalctl --no-pager -n 60 -u 'baton*'");
            eprintln!("{}: {script}\n{}", self.name, String::from_utf8_lossy(&journal.stdout));
        }
        success(&format!("{}: {script}", self.name), output).trim_end().to_owned()
    }

    /// Waits until `script` succeeds.
    pub fn until(&self, script: &str, bound: Duration) {
        let began_at = Instant::now();
        while !self.try_sh(script).status.success() {
            if began_at.elapsed() > bound {
                self.sh(script);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        let began_at = Instant::now();
        while comm(self.first).is_some() && began_at.elapsed() < BOUND {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.groups.iter().for_each(|group| remove_group(group));
        let _ = Command::new("umount").arg(&self.root).output();
    }
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// The name of a process that runs, and has not ended unseen.
fn comm(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
    (!rest.starts_with(['Z', 'X'])).then(|| name.to_owned())
}
