//! How a forked child becomes the chain node: working directory, log, privileges, exec. All of it may wait for a disk,
//! so all of it happens in the child, and the guard waits for none of it longer than it says.
//!
//! What the child runs was made before the fork: system calls alone, no allocation and no lock. Called by `node.rs` and
//! `namespace.rs`.

use std::ffi::{CStr, CString, OsString, c_char};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::ptr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{chdir, geteuid};
use rustix::thread::set_no_new_privs;

use crate::base::guard_frame::{GUARD_MARKER, NodeSpec};

/// The mode of the log: as a shell's redirection makes it, but nobody else may write.
const LOG_MODE: u32 = 0o640;
/// The exit status of a child that could not become the program, as a shell has it.
const NOT_RUN: i32 = 127;
/// Where the child keeps what it tells failures by, while it closes all else.
const KEPT_FD: i32 = 3;
/// For kernels without `close_range`: more than a guard ever has open.
const FDS_MAX: i32 = 1024;

const CAPABILITIES: &CStr = c"security.capability";
/// In `struct vfs_cap_data` the first four bytes, little-endian, have this bit when the capabilities are in effect at
/// once.
const IN_EFFECT: u32 = 1;

/// A chain node's program, ready to be executed.
pub(super) struct Program {
    name: String,
    /// Where it may be, in the order of PATH.
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    cwd: CString,
    log: Option<CString>,
}

impl Program {
    /// # Errors
    /// What has a zero byte in it, or no program to run.
    pub(super) fn of(spec: &NodeSpec, socket: &Path) -> Result<Program, String> {
        let name = spec.argv.first().ok_or("its argv is empty")?.clone();
        let mut environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let own = spec.env.iter().map(|(key, value)| (key.into(), value.into()));
        for (key, value) in own.chain([(GUARD_MARKER.into(), socket.into())]) {
            environment.retain(|(known, _)| *known != key);
            environment.push((key, value));
        }
        let path = environment.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.clone());
        let candidates = if name.contains('/') {
            vec![text(name.as_bytes())?]
        } else {
            let path = path.unwrap_or_else(|| "/bin:/usr/bin".into());
            let dirs = std::env::split_paths(&path).map(|dir| text(dir.join(&name).as_os_str().as_bytes()));
            dirs.collect::<Result<_, _>>()?
        };
        let joined = environment.into_iter().map(|(mut key, value)| {
            key.push("=");
            key.push(value);
            text(&key.into_vec())
        });
        Ok(Program {
            candidates,
            arguments: spec.argv.iter().map(|argument| text(argument.as_bytes())).collect::<Result<_, _>>()?,
            environment: joined.collect::<Result<_, _>>()?,
            cwd: text(spec.cwd.as_os_str().as_bytes())?,
            log: spec.log.as_ref().map(|log| text(log.as_os_str().as_bytes())).transpose()?,
            name,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the standard library forks for it. Its program is never run: the closure that is to be set executes ours.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.name);
        command.stdin(Stdio::null());
        command
    }

    /// In words.
    pub(super) fn told(&self, failure: Failure) -> String {
        let Failure { step, errno } = failure;
        let shown = |path: &CString| path.to_string_lossy().into_owned();
        match step {
            Step::Cwd => format!("its working directory {} is not there: {errno}", shown(&self.cwd)),
            Step::Log => {
                let log = self.log.as_ref().map(shown).unwrap_or_default();
                format!("cannot open its log {log}: {errno}")
            }
            Step::Prepare => format!("cannot run {}: it cannot be made to die with the guard: {errno}", self.name),
            Step::Capabilities => format!(
                "{} has file capabilities, for which the kernel forgets that it is to die with the guard, and this host gives it \
                 no PID namespace; take them away (setcap -r) and let the service have them (AmbientCapabilities)",
                self.name
            ),
            Step::Execute => format!("cannot run {}: {errno}", self.name),
        }
    }

    /// Returns only in a child that could not become the program.
    fn execute(&self, dies_alone: bool) -> Failure {
        let failed = |step| move |errno| Failure { step, errno };
        let run = || {
            chdir(self.cwd.as_c_str()).map_err(failed(Step::Cwd))?;
            if let Some(log) = &self.log {
                open_log(log).map_err(failed(Step::Log))?;
            }
            set_no_new_privs(true).map_err(failed(Step::Prepare))?;
            let mut refused = Errno::NOENT;
            for candidate in &self.candidates {
                if dies_alone && gains_capabilities(candidate) {
                    return Err(Failure { step: Step::Capabilities, errno: Errno::PERM });
                }
                match execute(candidate, &self.arguments, &self.environment) {
                    Errno::NOENT | Errno::NOTDIR => (),
                    errno @ Errno::ACCESS => refused = errno,
                    errno => return Err(Failure { step: Step::Execute, errno }),
                }
            }
            Err::<(), _>(Failure { step: Step::Execute, errno: refused })
        };
        run().expect_err("exec does not return")
    }
}

fn text(bytes: &[u8]) -> Result<CString, String> {
    CString::new(bytes).map_err(|_| format!("{:?} has a zero byte in it", String::from_utf8_lossy(bytes)))
}

/// What a child could not do.
#[derive(Clone, Copy)]
pub(super) struct Failure {
    step: Step,
    errno: Errno,
}

#[derive(Clone, Copy)]
enum Step {
    Cwd,
    Log,
    Prepare,
    Capabilities,
    Execute,
}

impl Step {
    const ALL: [Step; 5] = [Step::Cwd, Step::Log, Step::Prepare, Step::Capabilities, Step::Execute];
}

/// The child's end of what tells whether it became the program.
pub(super) struct Teller(OwnedFd);

impl Teller {
    /// To be called in the child, once it is sure to die with the guard. `dies_alone`: by the kernel's signal at its
    /// parent's death and by nothing else.
    ///
    /// From here on the guard waits for nothing of it: its own end of the standard library's pipe is closed too.
    pub(super) fn become_program(&self, program: &Program, dies_alone: bool) -> ! {
        let kept = keep_only(&self.0);
        let failure = program.execute(dies_alone);
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&(failure.step as i32).to_ne_bytes());
        bytes[4..].copy_from_slice(&failure.errno.raw_os_error().to_ne_bytes());
        let _ = rustix::io::write(&kept, &bytes);
        exit(NOT_RUN)
    }
}

/// The guard's end. Its other ends are gone once the program runs.
pub(super) struct Outcome(OwnedFd);

pub(super) enum Became {
    /// Or it has ended without a word, which its exit tells.
    Running,
    Failed(Failure),
    /// It waits for a disk.
    Unknown,
}

impl Outcome {
    pub(super) fn pair() -> io::Result<(Outcome, Teller)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok((Outcome(reader), Teller(writer)))
    }

    /// No later than after `bound`.
    pub(super) fn within(&self, bound: Duration) -> Became {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let _ = poll(&mut fds, Timespec::try_from(bound).ok().as_ref());
        let mut bytes = [0; 8];
        match rustix::io::read(&self.0, &mut bytes) {
            Ok(8) => {
                let [s0, s1, s2, s3, errno @ ..] = bytes;
                let step = usize::try_from(i32::from_ne_bytes([s0, s1, s2, s3])).ok();
                let step = step.and_then(|step| Step::ALL.get(step).copied()).unwrap_or(Step::Execute);
                Became::Failed(Failure { step, errno: Errno::from_raw_os_error(i32::from_ne_bytes(errno)) })
            }
            Ok(_) => Became::Running,
            Err(_) => Became::Unknown,
        }
    }
}

/// Closes all but standard input, output, error and `fd`, which gets another number.
fn keep_only(fd: &OwnedFd) -> OwnedFd {
    // SAFETY: the calls take no pointers. Nothing of this child uses what is closed: it executes or ends. The number is
    // owned by nobody else after them.
    #[allow(unsafe_code)]
    unsafe {
        if fd.as_raw_fd() != KEPT_FD {
            libc::dup3(fd.as_raw_fd(), KEPT_FD, libc::O_CLOEXEC);
        }
        if libc::syscall(libc::SYS_close_range, KEPT_FD + 1, libc::c_uint::MAX, 0) != 0 {
            for other in KEPT_FD + 1..FDS_MAX {
                libc::close(other);
            }
        }
        OwnedFd::from_raw_fd(KEPT_FD)
    }
}

/// Standard output and error go to the end of it.
fn open_log(log: &CStr) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(log, flags, Mode::from_raw_mode(LOG_MODE))?;
    rustix::stdio::dup2_stdout(&file)?;
    rustix::stdio::dup2_stderr(&file)
}

/// Whether executing it gives capabilities to somebody who is not root: the kernel then clears the signal at the
/// parent's death, also for a process that gets no new privileges.
fn gains_capabilities(program: &CStr) -> bool {
    let mut data = [0_u8; 24];
    let read = rustix::fs::getxattr(program, CAPABILITIES, &mut data[..]);
    let first = data.first_chunk::<4>().map_or(0, |first| u32::from_le_bytes(*first));
    !geteuid().is_root() && read.is_ok_and(|length| length >= 4) && first & IN_EFFECT != 0
}

/// Why it did not.
fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    // One more than anybody has.
    const MANY: usize = 4096;
    let mut lists = [[ptr::null::<c_char>(); MANY]; 2];
    for (list, texts) in lists.iter_mut().zip([arguments, environment]) {
        if texts.len() >= MANY {
            return Errno::TOOBIG;
        }
        list.iter_mut().zip(texts).for_each(|(place, text)| *place = text.as_ptr());
    }
    // SAFETY: both lists end with null and outlive the call, as what they point to.
    #[allow(unsafe_code)]
    unsafe {
        libc::execve(program.as_ptr(), lists[0].as_ptr(), lists[1].as_ptr());
    }
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::NOEXEC)
}

fn exit(status: i32) -> ! {
    // SAFETY: it ends the process at once and runs nothing of ours.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(status)
    }
}
