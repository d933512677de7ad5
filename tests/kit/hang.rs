//! A disk that hangs, for one process and all that it starts: every system call that changes or syncs names on a disk
//! is held for as long as a test likes, and then goes on as if nothing had been. It takes no privilege: a seccomp
//! filter hands these calls to the test (SECCOMP_RET_USER_NOTIF). Reads and writes of open files go on, as they do from
//! a page cache. What cannot be told apart here is one directory from another; `localnet/tests/networks/frozen_disk.rs`
//! freezes real file systems.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The calls that are held.
const HELD: &[libc::c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    libc::SYS_symlinkat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
];

/// `struct seccomp_notif` of linux/seccomp.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Call {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    arch: u32,
    instruction: u64,
    arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const GO_ON: u32 = 1;

#[derive(Default)]
struct State {
    hangs: bool,
    waiting: VecDeque<u64>,
    /// How many calls have been held so far.
    held: usize,
}

pub struct Disk {
    state: Arc<Mutex<State>>,
    listener: Arc<OwnedFd>,
}

impl Disk {
    /// Starts what `command` says with `start`, on a disk that does not hang yet.
    pub fn under<T>(command: &mut Command, start: impl FnOnce(&mut Command) -> T) -> (T, Disk) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let fd = theirs.as_raw_fd();
        // SAFETY: system calls alone.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || send_fd(fd, filter()?));
        }
        let receiver = thread::spawn(move || Disk::follow(receive_fd(&ours).expect("the filter's listener")));
        let started = start(command);
        drop(theirs);
        (started, receiver.join().expect("a listener"))
    }

    /// The disk of the calling thread, and of all threads and processes that it starts from now on.
    pub fn here() -> Disk {
        // What follows makes none of these calls.
        Disk::follow(filter().expect("a filter"))
    }

    fn follow(listener: OwnedFd) -> Disk {
        let disk = Disk { state: Arc::default(), listener: Arc::new(listener) };
        let (state, listener) = (disk.state.clone(), disk.listener.clone());
        // Ends when nobody is left under the filter.
        thread::spawn(move || {
            while let Some(call) = receive(&listener) {
                let mut state = lock(&state);
                if state.hangs {
                    state.waiting.push_back(call);
                    state.held += 1;
                } else {
                    go_on(&listener, call);
                }
            }
        });
        disk
    }

    pub fn hang(&self) {
        lock(&self.state).hangs = true;
    }

    pub fn thaw(&self) {
        let mut state = lock(&self.state);
        state.hangs = false;
        state.waiting.drain(..).for_each(|call| go_on(&self.listener, call));
    }

    /// How many calls have been held so far.
    pub fn held(&self) -> usize {
        lock(&self.state).held
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn filter() -> io::Result<OwnedFd> {
    const NUMBER_AT: u32 = 0;
    let op = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let (load, equals) = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    let give = libc::BPF_RET | libc::BPF_K;
    let mut program = [op(give, libc::SECCOMP_RET_ALLOW, 0, 0); 16];
    program[0] = op(load, NUMBER_AT, 0, 0);
    for (at, number) in HELD.iter().enumerate() {
        // To the last but one instruction, behind those that compare and one that allows.
        program[at + 1] = op(equals, *number as u32, (HELD.len() - at) as u8, 0);
    }
    program[HELD.len() + 2] = op(give, libc::SECCOMP_RET_USER_NOTIF, 0, 0);
    let program = libc::sock_fprog { len: HELD.len() as u16 + 3, filter: program.as_mut_ptr() };
    // SAFETY: seccomp(2) reads `program` and its instructions during the call, and keeps a copy.
    #[allow(unsafe_code)]
    let listener = unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us.
    #[allow(unsafe_code)]
    Ok(unsafe { OwnedFd::from_raw_fd(listener as RawFd) })
}

fn receive(listener: &OwnedFd) -> Option<u64> {
    loop {
        let mut call = Call::default();
        // SAFETY: the kernel writes one `struct seccomp_notif`, which is 80 bytes laid out as `Call`.
        #[allow(unsafe_code)]
        let result = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut call) };
        match (result, io::Error::last_os_error()) {
            (0, _) => return Some(call.id),
            // The caller was interrupted before the call was handed to us, or we were.
            (_, e) if e.kind() == ErrorKind::Interrupted => (),
            (_, e) if e.kind() == ErrorKind::NotFound && is_in_use(listener) => (),
            (_, _) => return None,
        }
    }
}

fn is_in_use(listener: &OwnedFd) -> bool {
    let mut fd = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one `pollfd`, which outlives the call.
    #[allow(unsafe_code)]
    let polled = unsafe { libc::poll(&raw mut fd, 1, 0) };
    polled >= 0 && fd.revents & libc::POLLHUP == 0
}

/// The call is carried out. A caller that is gone asks for nothing.
fn go_on(listener: &OwnedFd, id: u64) {
    let answer = Answer { id, value: 0, error: 0, flags: GO_ON };
    // SAFETY: the kernel reads one `struct seccomp_notif_resp`, which is 24 bytes laid out as `Answer`.
    #[allow(unsafe_code)]
    unsafe {
        libc::ioctl(listener.as_raw_fd(), SEND as _, &raw const answer);
    }
}

/// Room for one descriptor in a control message, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 24]);

fn message(byte: &mut [u8; 1], part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    *part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: a `msghdr` of zeros is one without name, parts and control message.
    #[allow(unsafe_code)]
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    message
}

const NO_PART: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// Called between fork and exec.
fn send_fd(socket: RawFd, fd: OwnedFd) -> io::Result<()> {
    let (mut byte, mut part, mut control) = ([0], NO_PART, Control([0; 24]));
    let message = message(&mut byte, &mut part, &mut control);
    // SAFETY: `control` has room for one header and one descriptor, and all of `message` outlives the call.
    #[allow(unsafe_code)]
    let sent = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd.as_raw_fd());
        libc::sendmsg(socket, &raw const message, 0)
    };
    if sent == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn receive_fd(socket: &UnixStream) -> io::Result<OwnedFd> {
    let (mut byte, mut part, mut control) = ([0], NO_PART, Control([0; 24]));
    let mut message = message(&mut byte, &mut part, &mut control);
    // SAFETY: as in `send_fd`; the descriptor in the message is a new one of ours.
    #[allow(unsafe_code)]
    unsafe {
        if libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) != 1 {
            return Err(io::Error::last_os_error());
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() {
            return Err(io::Error::other("no descriptor came"));
        }
        Ok(OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()))
    }
}
