//! `baton status --watch` on a pseudo terminal of its own, in front of a real coordinator: an arbiter whose peers are
//! not there. What a screen says is tested beside the code that draws it, in `src/cli/watch`.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::kit::program::{Running, baton, end_with_us, free_addresses};
use rustix::process::{Pid, Signal, ioctl_tiocsctty, kill_process, setsid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{ControlModes, InputModes, LocalModes, OutputModes, Winsize, tcgetattr, tcsetwinsize};

/// Far more than anything here needs.
const GENEROUS: Duration = Duration::from_secs(60);

const ARBITER: &str = r#"
[member]
id = "host-c"
state_dir = "state"
run_dir = "run"
[cluster]
name = "one"
listen = "PEERS"
members = [
  { id = "host-a", addr = "127.0.0.1:7" },
  { id = "host-b", addr = "127.0.0.1:8" },
  { id = "host-c", addr = "PEERS", role = "arbiter" },
]
"#;

/// A coordinator that answers at the socket.
fn arbiter(dir: &Path) -> (Running, PathBuf) {
    let [peers] = free_addresses();
    let config = dir.join("baton.toml");
    fs::write(&config, ARBITER.replace("PEERS", &peers)).expect("a configuration");
    let mut command = baton(&["run", "--config", config.to_str().expect("UTF-8")]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    end_with_us(&mut command);
    let mut coordinator = Running(command.spawn().expect("it starts"));
    let socket = dir.join("run/admin.sock");
    let began = Instant::now();
    // The socket is there before the store is open, and nobody is answered before that.
    let asks = ["status", "--socket", socket.to_str().expect("UTF-8")];
    while baton(&asks).output().expect("baton starts").status.code() == Some(2) {
        assert_eq!(coordinator.0.try_wait().expect("ours"), None, "it ended");
        assert!(began.elapsed() < GENEROUS, "no coordinator at {}", socket.display());
        sleep(Duration::from_millis(10));
    }
    (coordinator, socket)
}

/// What `stty` would show of it.
type Modes = (InputModes, OutputModes, ControlModes, LocalModes);

/// A pseudo terminal, with all that was ever written to it.
struct Terminal {
    master: OwnedFd,
    slave: File,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn new(columns: u16, rows: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pseudo terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("UTF-8");
        // Not the terminal of this process: that has one, or wants none.
        let slave = OpenOptions::new().read(true).write(true).custom_flags(NOCTTY).open(name).expect("its other end");
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, log) = (File::from(master.try_clone().expect("a copy")), written.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                log.lock().expect("not poisoned").extend_from_slice(&bytes[..count]);
            }
        });
        let terminal = Terminal { master, slave, written };
        terminal.resize(columns, rows);
        terminal
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("a size");
    }

    fn modes(&self) -> Modes {
        let now = tcgetattr(&self.slave).expect("its modes");
        (now.input_modes, now.output_modes, now.control_modes, now.local_modes)
    }

    fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().expect("not poisoned")).into_owned()
    }

    /// Waits until `words` were written after the first `from` bytes; how many there are by then.
    fn shows(&self, words: &str, from: usize) -> usize {
        let began = Instant::now();
        loop {
            let written = self.written();
            let new = written.get(from..).unwrap_or_default();
            if new.contains(words) {
                return written.len();
            }
            assert!(began.elapsed() < GENEROUS, "{words:?} is not in {new:?}");
            sleep(Duration::from_millis(5));
        }
    }

    /// `baton status --watch` in a session of its own, whose terminal this is.
    #[allow(unsafe_code)]
    fn watch(&self, socket: &Path, env: &[(&str, &str)]) -> Running {
        let socket = socket.to_str().expect("UTF-8");
        let mut command = baton(&["status", "--watch", "--every", "200ms", "--socket", socket]);
        let end = || Stdio::from(self.slave.try_clone().expect("a copy"));
        command.env("TERM", "xterm").env_remove("NO_COLOR").envs(env.iter().copied());
        command.stdin(end()).stdout(end()).stderr(end());
        end_with_us(&mut command);
        // SAFETY: two system calls, no allocation and no lock.
        unsafe {
            command.pre_exec(|| {
                setsid()?;
                Ok(ioctl_tiocsctty(std::io::stdin())?)
            })
        };
        Running(command.spawn().expect("it starts"))
    }

    fn press(&self, keys: &[u8]) {
        File::from(self.master.try_clone().expect("a copy")).write_all(keys).expect("pressed");
    }
}

/// O_NOCTTY of Linux.
const NOCTTY: i32 = 0o400;

fn end(running: &mut Running) -> ExitStatus {
    let began = Instant::now();
    loop {
        match running.0.try_wait().expect("ours") {
            Some(status) => return status,
            None => assert!(began.elapsed() < GENEROUS, "it goes on"),
        }
        sleep(Duration::from_millis(5));
    }
}

/// The other page left, the cursor shown.
fn assert_put_back(terminal: &Terminal, modes: &Modes) {
    assert_eq!(terminal.modes(), *modes);
    let began = Instant::now();
    loop {
        let written = terminal.written();
        let (left, cursor) = (written.rfind("\u{1b}[?1049l"), written.rfind("\u{1b}[?25h"));
        if left > written.rfind("\u{1b}[?1049h") && cursor > written.rfind("\u{1b}[?25l") {
            return;
        }
        assert!(began.elapsed() < GENEROUS, "{written:?}");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_view_shows_a_real_cluster_survives_its_coordinator_and_puts_the_terminal_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (coordinator, socket) = arbiter(dir.path());
    let terminal = Terminal::new(80, 24);
    let modes = terminal.modes();
    assert!(modes.3.contains(LocalModes::ICANON | LocalModes::ECHO));

    let mut watch = terminal.watch(&socket, &[]);
    let seen = terminal.shows("seen by host-c", 0);
    let seen = terminal.shows("holder NONE", seen.saturating_sub(4096));
    assert!(!terminal.modes().3.intersects(LocalModes::ICANON | LocalModes::ECHO), "keys come one by one");
    terminal.resize(60, 20);
    let seen = terminal.shows("host-c", seen);
    drop(coordinator);
    let seen = terminal.shows("NO ANSWER", seen);
    let (_coordinator, _) = arbiter(dir.path());
    terminal.shows("quorum", seen);
    assert_eq!(watch.0.try_wait().expect("ours"), None, "it goes on");
    terminal.press(b"q");
    assert_eq!(end(&mut watch).code(), Some(0), "{:?}", terminal.written());
    assert_put_back(&terminal, &modes);
}

#[test]
fn ctrl_c_and_escape_leave_too_and_a_signal_ends_it_with_the_terminal_put_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_coordinator, socket) = arbiter(dir.path());
    for keys in [&b"\x03"[..], b"\x1b"] {
        let terminal = Terminal::new(80, 24);
        let modes = terminal.modes();
        let mut watch = terminal.watch(&socket, &[]);
        terminal.shows("host-c", 0);
        terminal.press(keys);
        assert_eq!(end(&mut watch).code(), Some(0), "{keys:?}: {:?}", terminal.written());
        assert_put_back(&terminal, &modes);
    }
    let terminal = Terminal::new(80, 24);
    let modes = terminal.modes();
    let mut watch = terminal.watch(&socket, &[]);
    terminal.shows("host-c", 0);
    kill_process(Pid::from_child(&watch.0), Signal::TERM).expect("ours");
    assert_eq!(end(&mut watch).signal(), Some(Signal::TERM.as_raw()));
    assert_put_back(&terminal, &modes);
}

#[test]
fn no_color_is_heeded() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_coordinator, socket) = arbiter(dir.path());
    // Red, by its number among 256: there are members that cannot be reached.
    for (env, colours) in [(&[("NO_COLOR", "1")][..], false), (&[], true)] {
        let terminal = Terminal::new(80, 24);
        let mut watch = terminal.watch(&socket, env);
        terminal.shows("WARNINGS", 0);
        terminal.press(b"q");
        assert_eq!(end(&mut watch).code(), Some(0));
        assert_eq!(terminal.written().contains("[38;5;1"), colours, "{env:?}: {:?}", terminal.written());
    }
}

#[test]
fn without_a_terminal_it_says_what_to_use_instead() {
    let output = baton(&["status", "--watch"]).env("TERM", "xterm").output().expect("baton starts");
    let line = "baton: status --watch: standard output is no terminal; use baton status without --watch\n";
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(2), line));
    for (args, line) in [
        (&["status", "--every", "1s"][..], "the following required arguments were not provided: --watch"),
        (&["status", "--watch", "--json"], "the argument '--watch' cannot be used with '--json'"),
        (&["status", "--watch", "--every", "50ms"], "50ms is not from 200ms to 1m"),
    ] {
        let output = baton(args).output().expect("baton starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(line), "{said}");
    }
}
