//! Runs a process under ptrace and notes, in the order in which they begin and end, its system calls that
//! change or sync files below one directory, and what it says on its standard output.
//!
//! The process waits for a line on its standard input before it touches the directory. Only the calls that
//! Rust's standard library and sled make are known; whoever uses a recording holds the image that it leads
//! to against the real directory, so that a change by any other call is found out.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// One change of the directory, its paths relative to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    MakeFile {
        path: PathBuf,
    },
    MakeDir {
        path: PathBuf,
    },
    MakeLink {
        path: PathBuf,
        target: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    SetLength {
        path: PathBuf,
        length: u64,
    },
    Write {
        path: PathBuf,
        offset: u64,
        bytes: Vec<u8>,
    },
    /// fsync or fdatasync, of a file or a directory.
    Sync {
        path: PathBuf,
        data_only: bool,
    },
}

#[derive(Clone, Debug)]
pub enum Step {
    /// The call with this index begins.
    Begins(usize),
    /// It has returned.
    Ends(usize),
    Said(String),
}

/// An attempt to open a file below the directory, whatever came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    pub path: PathBuf,
    /// Whether the memory of the process could be dumped then.
    pub dumpable: bool,
}

#[derive(Debug, Default)]
pub struct Recording {
    pub calls: Vec<Change>,
    pub steps: Vec<Step>,
    pub opens: Vec<Open>,
    /// Every stop at the begin of a system call once the process was let go, whatever it does.
    pub entries: usize,
    /// The process ended by itself and well.
    pub ended: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("ptrace is forbidden: {0}")]
    Forbidden(Errno),
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> TraceError {
    move |source| TraceError::Io { what, source }
}

/// Runs `command` to its end, or kills it as it is about to make the system call of its own that `stop`, told how
/// many it has begun since it said `ready`, does not let pass. The thread that calls traces, so nobody else may
/// wait for `command`.
pub fn record(root: &Path, command: &mut Command, stop: impl FnMut(usize) -> bool) -> Result<Recording, TraceError> {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(io_error("start the process"))?;
    let mut tracee = Tracee { child };
    tracee.seize()?;
    let root = root.canonicalize().map_err(io_error("find the directory"))?;
    let mut tracer = Tracer::new(tracee.pid(), root)?;
    tracee.child.stdin.take().expect("a pipe").write_all(b"go\n").map_err(io_error("let the process go"))?;
    tracer.run(stop)?;
    Ok(tracer.recording)
}

/// What a traced process calls before it touches anything.
pub fn wait_for_tracer() {
    use rustix::process::{Signal, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL)).expect("prctl");
    let mut line = String::new();
    io::stdin().read_line(&mut line).expect("the tracer lets us go");
}

/// One line of its own in one call: a kill leaves no half of it to be taken for a whole one, and nothing that
/// others print stands before it.
pub fn say(line: &str) {
    let line = format!("\n{line}\n");
    let written = rustix::io::write(rustix::stdio::stdout(), line.as_bytes()).expect("somebody listens");
    assert_eq!(written, line.len(), "a pipe takes a line as a whole");
}

/// A process that does not outlive its owner.
struct Tracee {
    child: Child,
}

impl Drop for Tracee {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // Its end is told once that of each of its threads was.
        while let Ok(status) = waitpid(None, Some(OWN_CHILDREN)) {
            if matches!(status, WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) if pid == self.pid()) {
                break;
            }
        }
    }
}

/// Threads too, and none that another test started.
const OWN_CHILDREN: WaitPidFlag = WaitPidFlag::__WALL.union(WaitPidFlag::__WNOTHREAD);

impl Tracee {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Traces every thread. What a traced thread starts is traced, so two looks without a new one are enough.
    fn seize(&self) -> Result<(), TraceError> {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        let mut known = Vec::new();
        loop {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).map_err(io_error("list the threads"))?;
            let tids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
            let new: Vec<i32> = tids.filter(|tid| !known.contains(tid)).collect();
            if new.is_empty() {
                return Ok(());
            }
            for tid in new {
                let thread = Pid::from_raw(tid);
                match ptrace::seize(thread, options) {
                    // Ended, or traced already because a traced thread made it.
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(Errno::EPERM) if !known.is_empty() => {}
                    Err(errno) => return Err(TraceError::Forbidden(errno)),
                }
                match ptrace::interrupt(thread) {
                    Ok(()) | Err(Errno::ESRCH | Errno::EIO) => {}
                    Err(errno) => return Err(TraceError::Forbidden(errno)),
                }
                known.push(tid);
            }
        }
    }
}

/// Relative paths of calls that take no directory.
#[cfg(target_arch = "x86_64")]
const AT_CWD: u64 = libc::AT_FDCWD as u64;

/// What a thread is in the midst of.
enum Doing {
    Call(usize),
    /// An open that may make its file, and whether it cuts what is there.
    Open {
        path: PathBuf,
        was_there: bool,
        cuts: bool,
    },
    Other,
}

struct Tracer {
    leader: Pid,
    root: PathBuf,
    memory: File,
    doing: HashMap<Pid, Doing>,
    recording: Recording,
    ready: bool,
    dumpable: bool,
}

/// A system call, as far as it matters here.
struct Entry {
    number: c_long,
    args: [u64; 6],
}

enum Stop {
    Entry(Entry),
    Exit(i64),
    Neither,
}

/// The only place that reads the kernel's union: `op` says which of its members was written.
#[allow(unsafe_code)]
fn stop_of(thread: Pid) -> Result<Stop, Errno> {
    let info = ptrace::syscall_info(thread)?;
    Ok(match info.op {
        libc::PTRACE_SYSCALL_INFO_ENTRY => {
            // SAFETY: the kernel has written `entry`.
            let entry = unsafe { info.u.entry };
            Stop::Entry(Entry { number: entry.nr as c_long, args: entry.args })
        }
        // SAFETY: the kernel has written `exit`.
        libc::PTRACE_SYSCALL_INFO_EXIT => Stop::Exit(unsafe { info.u.exit }.sval),
        _ => Stop::Neither,
    })
}

/// That of the program that the process runs now.
fn open_memory(leader: Pid) -> Result<File, TraceError> {
    File::open(format!("/proc/{leader}/mem")).map_err(io_error("open the process's memory"))
}

impl Tracer {
    fn new(leader: Pid, root: PathBuf) -> Result<Tracer, TraceError> {
        let (memory, recording) = (open_memory(leader)?, Recording::default());
        Ok(Tracer { leader, root, memory, doing: HashMap::new(), recording, ready: false, dumpable: true })
    }

    fn run(&mut self, mut stop: impl FnMut(usize) -> bool) -> Result<(), TraceError> {
        loop {
            let status = waitpid(None, Some(OWN_CHILDREN)).map_err(|e| io_error("wait for the process")(e.into()))?;
            let (thread, signal) = match status {
                WaitStatus::PtraceSyscall(thread) => {
                    match stop_of(thread) {
                        Ok(Stop::Entry(entry)) => {
                            if self.ready {
                                self.recording.entries += 1;
                                if stop(self.recording.entries) {
                                    return Ok(());
                                }
                            }
                            self.begin(thread, &entry);
                        }
                        Ok(Stop::Exit(result)) => self.end(thread, result),
                        Ok(Stop::Neither) | Err(Errno::ESRCH) => {}
                        Err(errno) => return Err(io_error("read a system call")(errno.into())),
                    }
                    (thread, None)
                }
                WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
                WaitStatus::PtraceEvent(thread, _, event) => {
                    if event == libc::PTRACE_EVENT_EXEC {
                        (self.memory, self.dumpable) = (open_memory(self.leader)?, true);
                    }
                    (thread, None::<Signal>)
                }
                WaitStatus::Exited(thread, code) if thread == self.leader => {
                    self.recording.ended = code == 0;
                    return Ok(());
                }
                WaitStatus::Signaled(thread, _, _) if thread == self.leader => return Ok(()),
                WaitStatus::Exited(..)
                | WaitStatus::Signaled(..)
                | WaitStatus::Continued(_)
                | WaitStatus::StillAlive => continue,
            };
            match ptrace::syscall(thread, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(io_error("continue the process")(errno.into())),
            }
        }
    }

    fn begin(&mut self, thread: Pid, entry: &Entry) {
        let doing = self.what(entry).unwrap_or(Doing::Other);
        if let Doing::Call(call) = doing {
            self.recording.steps.push(Step::Begins(call));
        }
        self.doing.insert(thread, doing);
    }

    /// What the call does, or `None` when it is of no interest.
    fn what(&mut self, Entry { number, args }: &Entry) -> Option<Doing> {
        let change = match *number {
            libc::SYS_openat => {
                let path = self.path_at(args[0], args[1])?;
                self.recording.opens.push(Open { path: path.clone(), dumpable: self.dumpable });
                let flags = args[2] as i32;
                if flags & (libc::O_CREAT | libc::O_TRUNC) == 0 {
                    return None;
                }
                let was_there = fs::symlink_metadata(self.root.join(&path)).is_ok();
                return Some(Doing::Open { path, was_there, cuts: flags & libc::O_TRUNC != 0 });
            }
            libc::SYS_prctl if args[0] == libc::PR_SET_DUMPABLE as u64 => {
                self.dumpable = args[1] != 0;
                return None;
            }
            libc::SYS_write if args[0] == 1 => {
                let said = String::from_utf8_lossy(&self.bytes(args[1], args[2])).into_owned();
                for line in said.lines().filter(|line| !line.is_empty()) {
                    self.ready |= line == "ready";
                    self.recording.steps.push(Step::Said(line.to_owned()));
                }
                return None;
            }
            libc::SYS_write => {
                let path = self.path_of(args[0])?;
                Change::Write { path, offset: self.position(args[0])?, bytes: self.bytes(args[1], args[2]) }
            }
            libc::SYS_pwrite64 => {
                let path = self.path_of(args[0])?;
                Change::Write { path, offset: args[3], bytes: self.bytes(args[1], args[2]) }
            }
            libc::SYS_ftruncate => Change::SetLength { path: self.path_of(args[0])?, length: args[1] },
            libc::SYS_fsync => Change::Sync { path: self.path_of(args[0])?, data_only: false },
            libc::SYS_fdatasync => Change::Sync { path: self.path_of(args[0])?, data_only: true },
            libc::SYS_mkdirat => Change::MakeDir { path: self.path_at(args[0], args[1])? },
            libc::SYS_unlinkat => Change::Remove { path: self.path_at(args[0], args[1])? },
            libc::SYS_symlinkat => {
                Change::MakeLink { target: self.text(args[0]), path: self.path_at(args[1], args[2])? }
            }
            libc::SYS_renameat | libc::SYS_renameat2 => {
                Change::Rename { from: self.path_at(args[0], args[1])?, to: self.path_at(args[2], args[3])? }
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mkdir => Change::MakeDir { path: self.path_at(AT_CWD, args[0])? },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_unlink | libc::SYS_rmdir => Change::Remove { path: self.path_at(AT_CWD, args[0])? },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_symlink => Change::MakeLink { target: self.text(args[0]), path: self.path_at(AT_CWD, args[1])? },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_rename => {
                Change::Rename { from: self.path_at(AT_CWD, args[0])?, to: self.path_at(AT_CWD, args[1])? }
            }
            _ => return None,
        };
        self.recording.calls.push(change);
        Some(Doing::Call(self.recording.calls.len() - 1))
    }

    /// A call that failed has changed nothing and is taken back.
    fn end(&mut self, thread: Pid, result: i64) {
        match self.doing.remove(&thread) {
            Some(Doing::Call(call)) if result < 0 => {
                self.recording.steps.retain(|step| !matches!(step, Step::Begins(begun) if *begun == call));
            }
            Some(Doing::Call(call)) => {
                if let Change::Write { bytes, .. } = &mut self.recording.calls[call] {
                    bytes.truncate(result as usize);
                }
                self.recording.steps.push(Step::Ends(call));
            }
            Some(Doing::Open { path, was_there, cuts }) if result >= 0 => {
                if !was_there {
                    self.done(Change::MakeFile { path });
                } else if cuts {
                    self.done(Change::SetLength { path, length: 0 });
                }
            }
            Some(Doing::Open { .. } | Doing::Other) | None => {}
        }
    }

    fn done(&mut self, change: Change) {
        let call = self.recording.calls.len();
        self.recording.calls.push(change);
        self.recording.steps.extend([Step::Begins(call), Step::Ends(call)]);
    }

    fn bytes(&self, address: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        self.memory.read_exact_at(&mut bytes, address).expect("read what the process writes");
        bytes
    }

    /// A text that ends with a zero.
    fn text(&self, address: u64) -> PathBuf {
        let mut bytes = vec![0; libc::PATH_MAX as usize];
        let read = self.memory.read_at(&mut bytes, address).expect("read a path of the process");
        let end = bytes[..read].iter().position(|byte| *byte == 0).expect("a path ends");
        std::ffi::OsStr::from_bytes(&bytes[..end]).into()
    }

    fn path_at(&self, dir: u64, address: u64) -> Option<PathBuf> {
        let path = self.text(address);
        let whole = match dir as i32 {
            _ if path.is_absolute() => path,
            libc::AT_FDCWD => fs::read_link(format!("/proc/{}/cwd", self.leader)).ok()?.join(path),
            fd => fs::read_link(format!("/proc/{}/fd/{fd}", self.leader)).ok()?.join(path),
        };
        whole.strip_prefix(&self.root).ok().map(Path::to_path_buf)
    }

    fn path_of(&self, fd: u64) -> Option<PathBuf> {
        let path = fs::read_link(format!("/proc/{}/fd/{fd}", self.leader)).ok()?;
        path.strip_prefix(&self.root).ok().map(Path::to_path_buf)
    }

    fn position(&self, fd: u64) -> Option<u64> {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", self.leader)).ok()?;
        info.lines().find_map(|line| line.strip_prefix("pos:")?.trim().parse().ok())
    }
}
