//! The programs as the tests run them: without this process's own BATON_ variables, and no longer than the test.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};

pub const BATON: &str = env!("CARGO_BIN_EXE_baton");
const GUARD: &str = env!("CARGO_BIN_EXE_baton-guard");

/// The host itself, which listens at PEERS, and nobody else.
pub const ONE_MEMBER: &str = r#"
[member]
id = "a"
state_dir = "state"
run_dir = "run"
[cluster]
name = "one"
listen = "PEERS"
members = [{ id = "a", addr = "PEERS" }]
"#;

/// The host itself, which listens at PEERS, and one that never runs.
pub const TWO_MEMBERS: &str = r#"
[member]
id = "host-a"
state_dir = "state"
run_dir = "run"
[cluster]
name = "one"
listen = "PEERS"
members = [
  { id = "host-a", addr = "PEERS" },
  { id = "host-b", addr = "127.0.0.1:7" },
]
"#;

/// Nothing of this process's own BATON_ variables reaches `program`.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BATON_")) {
        command.env_remove(name);
    }
    command
}

pub fn baton(args: &[&str]) -> Command {
    let mut command = command(BATON);
    command.args(args);
    command
}

/// `baton run` with `dir/baton.toml`, which says what it has to say in `dir/log` and dies with the thread that starts
/// it.
pub fn coordinator_in(dir: &Path) -> Command {
    let log = File::options().append(true).create(true).open(dir.join("log")).expect("a log");
    let mut command = baton(&["run", "--config", "baton.toml"]);
    command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    end_with_us(&mut command);
    command
}

/// What `command` starts dies with the thread that starts it.
#[allow(unsafe_code)]
pub fn end_with_us(command: &mut Command) {
    // SAFETY: one system call, no allocation and no lock.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
}

/// A script in `dir` that is a guard: one that a coordinator in this process starts dies with the thread that started
/// it, and does not begin once this process is gone.
pub fn guard_in(dir: &Path) -> PathBuf {
    let script = dir.join("baton-guard");
    let us = std::process::id();
    // The signal is for the death of a parent from then on: one that is dead already is asked for by its number.
    let text =
        format!("#!/bin/sh\nexec setpriv --pdeathsig KILL sh -c '[ $PPID = {us} ] && exec {GUARD} \"$@\"' sh \"$@\"\n");
    write_program(&script, &text);
    script
}

/// A file that can be executed.
pub fn write_program(file: &Path, text: &str) {
    std::fs::write(file, text).expect("a program");
    std::fs::set_permissions(file, Permissions::from_mode(0o755)).expect("chmod");
}

/// The value of a series with its labels, by an exporter at `addr`; `None` while it does not answer, or has none.
pub fn metric(addr: &str, series: &str) -> Option<u64> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: a\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Killed when it is dropped. It is ours and not waited for before, so it cannot be another process by then.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ends what the coordinator of `dir/baton.toml` has left, whose run directory is `dir/run`: a guard outlives its
/// coordinator, also that of a test that fails.
pub fn fence(dir: &Path) {
    if dir.join("run").exists() {
        let _ = baton(&["fence", "--config"]).arg(dir.join("baton.toml")).output();
    }
}

/// Below those that the kernel gives to outgoing connections, and to whoever binds port 0.
const PORTS: Range<u16> = 10_000..32_000;

/// Loopback addresses at which nobody listens. No test of this process gets one of them again.
pub fn free_addresses<const N: usize>() -> [String; N] {
    static TAKEN: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random_range(PORTS)));
    let next = || PORTS.start + TAKEN.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
    let free = || loop {
        let address = format!("127.0.0.1:{}", next());
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    };
    [(); N].map(|()| free())
}
