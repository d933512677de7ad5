//! What Docker's seccomp profile does to a guard that wants a namespace.

use std::io;

/// From here on `unshare` fails with EPERM, in this process and all that it starts.
#[allow(unsafe_code)]
pub fn refuse_unshare() -> io::Result<()> {
    const NUMBER_AT: u32 = 0;
    let op = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equals = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let give = libc::BPF_RET | libc::BPF_K;
    let mut filter = [
        op(load, NUMBER_AT, 0, 0),
        op(equals, libc::SYS_unshare as u32, 0, 1),
        op(give, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
        op(give, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: prctl(2) reads `program` and its instructions during the call, and keeps a copy.
    let result = unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        } else {
            -1
        }
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
