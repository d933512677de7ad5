//! Crashes between any two system calls: `trace` runs a process under ptrace and notes what it does to the
//! files of one directory, `disk` says what that directory may hold after a kill or a power cut in between.

pub mod disk;
pub mod trace;

/// Whether a process may be traced here; says so when not, and fails where BATON_REQUIRE_PTRACE is set.
pub fn may_trace<T>(traced: &Result<T, trace::TraceError>) -> bool {
    let Err(trace::TraceError::Forbidden(errno)) = traced else { return true };
    let missing = format!("ptrace of an own child is forbidden here: {errno}; see kernel.yama.ptrace_scope, seccomp");
    assert!(std::env::var_os("BATON_REQUIRE_PTRACE").is_none(), "{missing}");
    println!("SKIPPED: {missing}");
    false
}
