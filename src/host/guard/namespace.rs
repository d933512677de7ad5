//! A PID namespace for the chain node: when its first process dies, the kernel kills all that is in it, whoever its
//! parent is. That process is ours (`first_process.rs`) and dies with the guard.
//!
//! Everything in `Entry` runs between fork and exec: system calls alone, no allocation and no lock. The child that the
//! standard library forks makes the namespace, starts the two processes in it as children of the GUARD and ends. So the
//! guard's `wait`, its process ids and its signals are what they are without a namespace.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    self, Pid, PidfdFlags, Signal, getpid, getppid, getuid, pidfd_open, set_parent_process_death_signal,
};
use rustix::thread::capabilities;

use super::family;
use super::host::Before;
use super::program::{Outcome, Program, Teller};
use crate::base::guard_frame::NodeSpec;
use crate::base::realtime;

/// The argument that makes `baton-guard` the first process of a namespace.
pub const FIRST_PROCESS: &CStr = c"first-process";

const OUR_PROGRAM: &CStr = c"/proc/self/exe";
const SHOWN_AS: &CStr = c"baton-guard";

/// The argument with which `baton-guard` tells whether this host gives a chain node a namespace.
pub const TRY_NAMESPACE: &str = "try-namespace";
/// For the end of what `try_namespace` has started.
const TRIAL_BOUND: Duration = Duration::from_secs(2);

/// Starts something in a namespace as a guard of this user would, and ends it. Changes nothing else.
///
/// # Errors
/// Why there is no namespace to be had.
pub fn try_namespace() -> Result<(), String> {
    let before = Before::now();
    let spec = NodeSpec {
        argv: [OUR_PROGRAM, c"--help"].map(|text| text.to_string_lossy().into_owned()).to_vec(),
        env: BTreeMap::new(),
        cwd: "/".into(),
        log: Some("/dev/null".into()),
    };
    let tried = spawn(&Arc::new(Program::of(&spec, Path::new("/"))?), &before).map(drop);
    if family::end_within(TRIAL_BOUND) { tried } else { Err("its processes do not end".into()) }
}

/// The two processes of a namespace, as the guard's own children.
pub(super) struct Contained {
    pub first: Pid,
    pub node: Pid,
    /// Whether the second one has become the program.
    pub outcome: Outcome,
}

/// Starts `program` in a namespace of its own.
///
/// # Errors
/// Why this host gives us no namespace. Nothing runs but what `family::strike` finds.
pub(super) fn spawn(program: &Arc<Program>, before: &Before) -> Result<Contained, String> {
    let (outcome, teller) = Outcome::pair().map_err(|e| format!("a pipe: {e}"))?;
    let made = Entry::new(before, Arc::clone(program), teller);
    let (entry, reader) = made.map_err(|e| format!("pipes and pidfd: {e}"))?;
    let mut command = program.command();
    let in_child = move || entry.enter();
    // SAFETY: the closure makes system calls only; it takes no lock and allocates nothing.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(in_child)
    };
    // To reap it may spin for others.
    let ended = command.spawn().and_then(|mut helper| realtime::without_priority(|| helper.wait()));
    // With it goes our own copy of the child's end.
    drop(command);
    match Report::read(&reader) {
        Some(Report { step: Step::Done, first, node, .. }) => match (Pid::from_raw(first), Pid::from_raw(node)) {
            (Some(first), Some(node)) => Ok(Contained { first, node, outcome }),
            (None, _) | (_, None) => Err("its processes have no ids".into()),
        },
        Some(Report { step, errno, .. }) => Err(format!("{}: {}", step.operation(), Errno::from_raw_os_error(errno))),
        None => {
            let ended = ended.map_or_else(|e| e.to_string(), |status| status.to_string());
            Err(format!("the process that makes it ended early ({ended})"))
        }
    }
}

/// How far the helper came.
#[derive(Clone, Copy)]
enum Step {
    Done,
    Unshare,
    MapUsers,
    FirstProcess,
    ChainNode,
    KeepCapabilities,
}

impl Step {
    const ALL: [Step; 6] =
        [Step::Done, Step::Unshare, Step::MapUsers, Step::FirstProcess, Step::ChainNode, Step::KeepCapabilities];

    fn operation(self) -> &'static str {
        match self {
            Step::Done => "all",
            Step::Unshare => "unshare",
            Step::MapUsers => "map its user",
            Step::FirstProcess => "start its first process",
            Step::ChainNode => "fork in it",
            Step::KeepCapabilities => "unshare, and a user namespace would take away the capabilities that it has",
        }
    }
}

struct Report {
    step: Step,
    errno: i32,
    first: i32,
    node: i32,
}

impl Report {
    const BYTES: usize = 16;

    fn write(&self, to: &OwnedFd) {
        let mut bytes = [0; Report::BYTES];
        for (at, value) in [self.step as i32, self.errno, self.first, self.node].into_iter().enumerate() {
            bytes[at * 4..at * 4 + 4].copy_from_slice(&value.to_ne_bytes());
        }
        // So few bytes go into a pipe at once or not at all; without them the guard takes the attempt as failed.
        let _ = rustix::io::write(to, &bytes);
    }

    /// `None` when the helper ended without one. Does not wait: whoever writes it has ended.
    fn read(from: &OwnedFd) -> Option<Report> {
        let mut bytes = [0; Report::BYTES];
        if rustix::io::read(from, &mut bytes).ok()? != Report::BYTES {
            return None;
        }
        let value = |at: usize| i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let step = *Step::ALL.get(usize::try_from(value(0)).ok()?)?;
        Some(Report { step, errno: value(4), first: value(8), node: value(12) })
    }
}

/// What the forked child needs, made before the fork.
struct Entry {
    guard: Pid,
    /// Readable once the guard is dead. Inside a namespace, `getppid` cannot tell.
    guard_fd: OwnedFd,
    report: OwnedFd,
    before: Before,
    uid_map: Vec<u8>,
    gid_map: Vec<u8>,
    /// The node may need them, and would have none outside of a user namespace.
    has_capabilities: bool,
    program: Arc<Program>,
    teller: Teller,
}

impl Entry {
    /// Also the end at which the report is read.
    fn new(before: &Before, program: Arc<Program>, teller: Teller) -> io::Result<(Entry, OwnedFd)> {
        let (reader, report) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let (uid, gid) = (getuid().as_raw(), process::getgid().as_raw());
        let entry = Entry {
            guard: getpid(),
            guard_fd: pidfd_open(getpid(), PidfdFlags::empty())?,
            report,
            before: before.clone(),
            uid_map: format!("{uid} {uid} 1").into_bytes(),
            gid_map: format!("{gid} {gid} 1").into_bytes(),
            has_capabilities: !capabilities(None)?.effective.is_empty(),
            program,
            teller,
        };
        Ok((entry, reader))
    }

    /// The chain node is executed in it, by the process that it forks. The calling process, the helper, ends here.
    fn enter(&self) -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(self.guard) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let report = match self.make() {
            Ok(Made::Here) => self.teller.become_program(&self.program, false),
            Ok(Made::Both { first, node }) => Report { step: Step::Done, errno: 0, first, node },
            Err((step, errno)) => Report { step, errno: errno.raw_os_error(), first: 0, node: 0 },
        };
        report.write(&self.report);
        exit()
    }

    fn make(&self) -> Result<Made, (Step, Errno)> {
        // In a user namespace these could not be raised again.
        self.before.restore_limits();
        if let Err(error) = unshare(libc::CLONE_NEWPID) {
            if error != Errno::PERM {
                return Err((Step::Unshare, error));
            }
            if self.has_capabilities {
                return Err((Step::KeepCapabilities, error));
            }
            unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID).map_err(|e| (Step::Unshare, e))?;
            self.map_user().map_err(|e| (Step::MapUsers, e))?;
        }
        let first = self.start_first().map_err(|e| (Step::FirstProcess, e))?;
        match clone_as_sibling().map_err(|e| (Step::ChainNode, e))? {
            None => self.become_node().map_err(|e| (Step::ChainNode, e)).map(|()| Made::Here),
            Some(node) => Ok(Made::Both { first, node }),
        }
    }

    /// The same user and group inside as outside, and no other.
    fn map_user(&self) -> Result<(), Errno> {
        for (file, content) in [
            (c"/proc/self/setgroups", &b"deny"[..]),
            (c"/proc/self/uid_map", &self.uid_map),
            (c"/proc/self/gid_map", &self.gid_map),
        ] {
            let file = rustix::fs::open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(file, content)?;
        }
        Ok(())
    }

    /// Its process id, once it is sure to die with the guard.
    fn start_first(&self) -> Result<i32, Errno> {
        let (ready, is_ready) = pipe_with(PipeFlags::CLOEXEC)?;
        let Some(pid) = clone_as_sibling()? else {
            drop(ready);
            execute_first(&self.guard_fd, &is_ready);
        };
        drop(is_ready);
        let mut byte = [0; 1];
        loop {
            match rustix::io::read(&ready, &mut byte) {
                Ok(1) => return Ok(pid),
                Err(Errno::INTR) => (),
                Ok(_) => return Err(Errno::CHILD),
                Err(e) => return Err(e),
            }
        }
    }

    fn become_node(&self) -> Result<(), Errno> {
        process::setsid()?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if has_ended(&self.guard_fd) {
            // It died before the line above. The namespace's first process dies too, and all of this with it.
            return Err(Errno::PIPE);
        }
        self.before.restore();
        Ok(())
    }
}

enum Made {
    /// This is the chain node.
    Here,
    Both {
        first: i32,
        node: i32,
    },
}

/// Whether the process behind the pidfd is dead.
pub(super) fn has_ended(pidfd: &impl std::os::fd::AsFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Becomes the first process: standard input is the guard's pidfd, standard output takes a byte when it is ready. It
/// keeps nothing of the chain node's: neither its log nor its working directory.
fn execute_first(guard: &OwnedFd, is_ready: &OwnedFd) -> ! {
    let arguments = [SHOWN_AS.as_ptr(), FIRST_PROCESS.as_ptr(), ptr::null()];
    let environment = [ptr::null()];
    // SAFETY: the arrays end with null and outlive the calls; `dup2` and `execve` touch no other memory of ours.
    #[allow(unsafe_code)]
    unsafe {
        let placed = libc::dup2(is_ready.as_raw_fd(), 1) >= 0
            && libc::dup2(guard.as_raw_fd(), 0) >= 0
            && libc::dup2(guard.as_raw_fd(), 2) >= 0;
        if placed {
            libc::execve(OUR_PROGRAM.as_ptr(), arguments.as_ptr(), environment.as_ptr());
        }
    }
    exit()
}

fn exit() -> ! {
    // SAFETY: it ends the process at once and runs nothing of ours.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(1)
    }
}

/// The next process that this one forks is in a namespace of its own; the calling process stays where it is.
fn unshare(flags: c_int) -> Result<(), Errno> {
    // SAFETY: it takes no pointer. The calling process has one thread, and shares nothing of what is parted here.
    #[allow(unsafe_code)]
    let result = unsafe { libc::unshare(flags) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// Forks a process that is a child of OUR parent, the guard. `None` in it, its process id here.
fn clone_as_sibling() -> Result<Option<i32>, Errno> {
    const NONE: c_long = 0;
    let flags = c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: without CLONE_VM this is fork(2): the child has memory of its own and goes on here. It is the bare system
    // call, so nothing of the C library runs; neither process uses more of it than system calls until it executes.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, NONE, NONE, NONE, NONE) };
    match result {
        0 => Ok(None),
        pid @ 1.. => Ok(i32::try_from(pid).ok()),
        _ => Err(last_error()),
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
