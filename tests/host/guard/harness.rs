//! A guard process on its own socket, a raw connection to it, and chain nodes written in `sh`. All of it
//! dies with the thread that started it.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baton::base::guard_frame::LinkState;
use baton::base::guard_frame::{
    Armed, FrameBuffer, FromGuard, GUARD_PROTOCOL, LinkSpec, NodeProcess, NodeSpec, ToGuard, encode,
};
use baton::base::ids::Epoch;
use baton::base::time::BootTime;
use baton::host::key_links::KeyLinks;
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit, set_parent_process_death_signal};

pub const GUARD: &str = env!("CARGO_BIN_EXE_baton-guard");
/// For anything that must happen at all.
pub const SOON: Duration = Duration::from_secs(10);
/// Half of it is left to a guard on a busy machine before the kernel takes its place.
pub const KILL_MAX: Duration = Duration::from_secs(1);
pub const E1: Epoch = Epoch(1);
pub const E2: Epoch = Epoch(2);

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn in_time(d: Duration) -> BootTime {
    BootTime::now() + d
}

/// A directory with a chain node's home and keys.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("home")).unwrap();
        for name in ["validator.json", "validator_node.json", "voter_node.json"] {
            let key = dir.path().join(name);
            std::fs::write(&key, name).unwrap();
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        Place { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("guard.sock")
    }

    pub fn links(&self) -> Vec<LinkSpec> {
        vec![
            LinkSpec {
                link: self.path("home/validator_key.json"),
                validating: self.path("validator.json"),
                standby: None,
            },
            LinkSpec {
                link: self.path("home/node_key.json"),
                validating: self.path("validator_node.json"),
                standby: Some(self.path("voter_node.json")),
            },
        ]
    }

    pub fn key_links(&self) -> KeyLinks {
        KeyLinks::new(self.links()).unwrap()
    }

    /// The guard tells of a fence before it puts the links away.
    pub fn await_standby(&self) {
        await_that("links in standby", || (self.key_links().state() == LinkState::Standby).then_some(()));
    }

    /// A chain node that runs `script`, in which `$DIR` is this place.
    pub fn node(&self, script: &str) -> NodeSpec {
        NodeSpec {
            argv: ["sh", "-c", script].map(String::from).to_vec(),
            env: [("DIR".to_string(), self.path("").display().to_string())].into(),
            cwd: self.path("home"),
            log: Some(self.path("node.log")),
        }
    }

    /// The process id that a script has written into `name`.
    pub fn pid_in(&self, name: &str) -> u32 {
        await_that(&format!("a process id in {name}"), || {
            std::fs::read_to_string(self.path(name)).ok()?.strip_suffix('\n')?.parse().ok()
        })
    }

    pub fn guard_log(&self) -> String {
        std::fs::read_to_string(self.path("guard.log")).unwrap_or_default()
    }

    /// Starts a guard here and waits until it listens.
    pub fn guard(&self) -> GuardProcess {
        self.guard_with(|_| ())
    }

    pub fn guard_with(&self, change: impl FnOnce(&mut Command)) -> GuardProcess {
        self.guard_of(Path::new(GUARD), change)
    }

    pub fn guard_of(&self, program: &Path, change: impl FnOnce(&mut Command)) -> GuardProcess {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.path("guard.log")).unwrap();
        let mut command = Command::new(program);
        command.arg("--socket").arg(self.socket()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        die_with_us(&mut command);
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "ready\n", "{}", self.guard_log());
        GuardProcess { child }
    }

    pub fn hello(&self, member: &str, protocol: u32) -> ToGuard {
        ToGuard::Hello { protocol, member: member.into(), links: self.links(), kill_max: KILL_MAX, watchdog: None }
    }

    /// Connects and says Hello.
    pub fn coordinator(&self) -> Wire {
        let mut wire = Wire::connect(&self.socket());
        wire.send(&self.hello("host-a", GUARD_PROTOCOL));
        wire
    }

    /// A coordinator whose Welcome was read.
    pub fn welcomed(&self) -> Wire {
        let mut wire = self.coordinator();
        let welcome = wire.next();
        assert!(matches!(welcome, FromGuard::Welcome { .. }), "{welcome:?}");
        wire
    }
}

/// The child dies when the thread that starts it ends.
#[allow(unsafe_code)]
pub fn die_with_us(command: &mut Command) {
    // SAFETY: one system call, no allocation and no lock.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
}

pub struct GuardProcess {
    pub child: Child,
}

impl GuardProcess {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The lowest file descriptor that is free: under a limit of it, no file can be opened any more.
    pub fn files_in_use(&self) -> u64 {
        let open = |fd: &u64| std::fs::symlink_metadata(format!("/proc/{}/fd/{fd}", self.pid())).is_ok();
        (0..).take_while(open).count() as u64
    }

    /// Sets the soft limit of open files; what it was.
    pub fn allow_files(&self, files: Option<u64>) -> Option<u64> {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.pid())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        // "unlimited" is none.
        let maximum = line.split_whitespace().nth(1).unwrap().parse().ok();
        let limit = Rlimit { current: files, maximum };
        prlimit(Pid::from_raw(self.pid() as i32), Resource::Nofile, limit).unwrap().current
    }

    /// What it has used of a processor so far.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // proc(5): utime and stime are the 14th and 15th field, of which the name was the second.
        let ticks: u64 = [11, 12].iter().map(|at| fields[*at].parse::<u64>().unwrap()).sum();
        Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64)
    }

    pub fn exit_code(&mut self) -> Option<i32> {
        await_that("the end of the guard", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for GuardProcess {
    fn drop(&mut self) {
        // SIGTERM, so that it ends its chain node's whole family, then to be sure.
        signal(self.pid(), Signal::TERM);
        let since = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && since.elapsed() < SOON {
            std::thread::sleep(ms(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A coordinator's end of the socket, frame by frame.
pub struct Wire {
    pub stream: UnixStream,
    buffer: FrameBuffer,
}

impl Wire {
    pub fn connect(socket: &Path) -> Wire {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        Wire { stream, buffer: FrameBuffer::default() }
    }

    pub fn send(&mut self, frame: &ToGuard) {
        self.stream.write_all(&encode(frame).unwrap()).unwrap();
    }

    /// The next frame, or `None` at the end of the connection.
    pub fn try_next(&mut self) -> Option<FromGuard> {
        loop {
            if let Some(frame) = self.buffer.take().unwrap() {
                return Some(frame);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.buffer.push(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return None,
                // By the handler that tokio has for the ends of other tests' children.
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(e) => panic!("no frame from the guard: {e}"),
            }
        }
    }

    pub fn next(&mut self) -> FromGuard {
        self.try_next().expect("the guard closed the connection")
    }

    pub fn start(&mut self, node: NodeSpec, validator_epoch: Option<Epoch>) -> NodeProcess {
        self.send(&ToGuard::Start { node, validator_epoch });
        match self.next() {
            FromGuard::Started { node } => node,
            other => panic!("instead of Started: {other:?}"),
        }
    }

    pub fn arm(&mut self, epoch: Epoch, deadline: BootTime) -> Armed {
        self.send(&ToGuard::Arm { epoch, deadline });
        match self.next() {
            FromGuard::Armed(armed) => armed,
            other => panic!("instead of Armed: {other:?}"),
        }
    }

    /// `None` when it is refused.
    pub fn try_arm(&mut self, epoch: Epoch, deadline: BootTime) -> Option<Armed> {
        self.send(&ToGuard::Arm { epoch, deadline });
        match self.next() {
            FromGuard::Armed(armed) => Some(armed),
            FromGuard::Refused { .. } => None,
            other => panic!("instead of an answer to Arm: {other:?}"),
        }
    }

    pub fn refused(&mut self, frame: ToGuard) -> String {
        self.send(&frame);
        match self.next() {
            FromGuard::Refused { request, reason, .. } => {
                assert_eq!(request, frame.name());
                reason
            }
            other => panic!("instead of Refused: {other:?}"),
        }
    }
}

pub fn signal(pid: u32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), signal);
}

/// Whether the process can still do anything: a zombie cannot.
pub fn lives(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split_whitespace().collect();
    // On its way to `Z` a process has no memory any more (vsize, the 23rd field in proc(5)), and executes nothing.
    !matches!(fields[0], "Z" | "X") && fields[20] != "0"
}

pub fn await_death(pid: u32) {
    await_that(&format!("the end of process {pid}"), || (!lives(pid)).then_some(()));
}

/// Looks until there is something to see; panics with `what` after ten seconds.
pub fn await_that<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(since.elapsed() < SOON, "waited {SOON:?} in vain for {what}");
        std::thread::sleep(ms(2));
    }
}
