//! What a coordinator tells the service manager that started it, here a socket of the test's: that it runs, how it is,
//! that it lives, that it ends. One that hangs says nothing, and nobody else can say anything.

use std::fs;
use std::io::ErrorKind;
use std::ops::Deref;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::kit::host::write_key;
use crate::kit::program::{ONE_MEMBER, Running, baton, coordinator_in, free_addresses};
use crate::kit::stage::Stage;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use rustix::process::{Pid as RustixPid, Signal, kill_process};

const BOUND: Duration = Duration::from_secs(60);
/// Some beats, of which there are two a second.
const SILENCE: Duration = Duration::from_secs(3);
const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

const CONFIG: &str = r#"
[timing]
profile = "wan"
[metrics]
listen = "METRICS"
[chain]
driver = "generic"
home = "home"
command = ["sh", "-c", "env > ../node.env; exec sleep 1000"]
[[chain.links]]
link = "key"
validating = "key"
[chain.activate]
how = "restart"
[chain.probe]
exec = ["sh", "-c", "env > ../probe.env; echo '{\"height\": '$(date +%s)', \"head_time\": \"'$(date -u +%FT%TZ)'\"}'"]
every = "500ms"
"#;

/// A coordinator that is alone in its cluster, and its service manager.
struct Host {
    // Dropped in this order: the coordinator ends before what it left is ended.
    coordinator: Option<Running>,
    stage: Stage,
    metrics: String,
    manager: UnixDatagram,
}

impl Deref for Host {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl Host {
    fn new() -> Host {
        let [listen, metrics] = free_addresses();
        let config = [ONE_MEMBER, CONFIG].concat().replace("PEERS", &listen).replace("METRICS", &metrics);
        let stage = Stage::new(&config);
        write_key(&stage.path("key"), "{}");
        let manager = UnixDatagram::bind(stage.path("notify")).expect("a socket");
        Host { coordinator: None, stage, metrics, manager }
    }

    /// With a watchdog of `watchdog`, as a unit would have it.
    fn start(&mut self, watchdog: Duration) {
        let mut command = coordinator_in(&self.stage);
        command.env("NOTIFY_SOCKET", self.path("notify")).env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        self.coordinator = Some(Running(command.spawn().expect("it starts")));
    }

    fn pid(&self) -> i32 {
        self.coordinator.as_ref().expect("started").0.id() as i32
    }

    fn signal(&self, signal: Signal) {
        kill_process(RustixPid::from_raw(self.pid()).expect("a process"), signal).expect("it runs");
    }

    /// The lines of the next message, `None` when there is none within `bound`.
    fn hear(&self, bound: Duration) -> Option<Vec<String>> {
        self.manager.set_read_timeout(Some(bound)).expect("a bound above zero");
        let mut message = [0; 4096];
        match self.manager.recv(&mut message) {
            Ok(len) => Some(String::from_utf8_lossy(&message[..len]).lines().map(str::to_owned).collect()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("the test's socket: {error}"),
        }
    }

    /// All lines up to one that begins with `words`.
    fn hear_until(&self, words: &str) -> Vec<String> {
        let (began_at, mut heard) = (Instant::now(), Vec::new());
        loop {
            heard.extend(self.hear(BOUND).unwrap_or_default());
            if heard.iter().any(|line| line.starts_with(words)) {
                return heard;
            }
            assert!(began_at.elapsed() < BOUND, "never {words:?}, but {heard:?}\n{}", self.log());
        }
    }

    /// What was said before this moment is of no interest.
    fn forget(&self) {
        while self.hear(Duration::from_millis(1)).is_some() {}
    }

    /// Exit code of `baton canary`.
    fn canary(&self) -> Option<i32> {
        baton(&["canary", &self.metrics]).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it runs").code()
    }
}

#[test]
fn a_coordinator_says_that_it_runs_how_it_is_that_it_lives_and_that_it_ends() {
    let mut host = Host::new();
    host.start(Duration::from_secs(30));
    let heard = host.hear_until("READY=1");
    assert!(heard[0] == "READY=1" || heard[0].starts_with("STATUS="), "{heard:?}");
    assert!(host.path("run/guard.sock").exists(), "ready without a guard:\n{}", host.log());
    let heard = [heard, host.hear_until("STATUS=Validating: Active, epoch 1")].concat();
    assert_eq!(heard.iter().filter(|line| *line == "READY=1").count(), 1, "once: {heard:?}");
    host.forget();
    assert_eq!(host.hear(BOUND), Some(vec!["WATCHDOG=1".to_owned()]), "nothing has changed, and it lives");

    for file in ["node.env", "probe.env"] {
        host.until(file, || fs::metadata(host.path(file)).ok().filter(|file| file.len() > 0));
        let text = fs::read_to_string(host.path(file)).expect("just seen");
        let inherited: Vec<&str> = VARIABLES.into_iter().filter(|name| text.contains(name)).collect();
        assert!(inherited.is_empty(), "{file} has {inherited:?}");
    }

    host.signal(Signal::TERM);
    let heard = host.hear_until("STOPPING=1");
    assert!(!heard.contains(&"READY=1".to_owned()), "{heard:?}");
    let ended = host.coordinator.as_mut().expect("started").0.wait().expect("waited for once");
    assert!(ended.success(), "{ended}:\n{}", host.log());
    host.forget();
    assert_eq!(host.hear(SILENCE), None, "guard and chain node, which it left, say nothing");
}

#[test]
fn the_next_coordinator_is_ready_with_what_the_last_one_left() {
    let mut host = Host::new();
    host.start(Duration::from_secs(30));
    host.hear_until("STATUS=Validating: Active");
    host.signal(Signal::TERM);
    host.coordinator.take().expect("started").0.wait().expect("waited for once");
    host.forget();
    host.start(Duration::from_secs(30));
    host.hear_until("READY=1");
    host.until("adopted", || host.log().contains("node=Some(").then_some(()));
    host.hear_until("STATUS=Validating: Active");
}

/// Holds every thread of `pid` that has `name`, as ptrace does; the others run on. `None` where that is forbidden.
fn hold(pid: i32, name: &str) -> Option<Vec<Pid>> {
    let mut held = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("it runs") {
        let task = task.expect("a thread").path();
        if fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name) {
            let thread =
                Pid::from_raw(task.file_name().expect("a number").to_string_lossy().parse().expect("a number"));
            match ptrace::seize(thread, ptrace::Options::empty()) {
                Err(Errno::EPERM) => {
                    assert!(
                        std::env::var_os("BATON_REQUIRE_PTRACE").is_none(),
                        "ptrace of an own child is forbidden here"
                    );
                    println!("SKIPPED: ptrace of an own child is forbidden here");
                    return None;
                }
                seized => seized.expect("a thread of ours"),
            }
            ptrace::interrupt(thread).expect("it was seized");
            waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
            held.push(thread);
        }
    }
    Some(held)
}

#[test]
fn nothing_is_heard_of_a_coordinator_that_hangs_although_the_rest_of_its_process_runs() {
    let mut host = Host::new();
    host.start(Duration::from_secs(30));
    host.hear_until("STATUS=Validating: Active");
    let Some(held) = hold(host.pid(), "baton") else { return };
    assert_eq!(held.len(), 1, "the thread that carries Raft, gossip and the core: {held:?}");
    host.forget();
    assert_eq!(host.hear(SILENCE), None, "a hung coordinator was reported as alive");
    assert_eq!(host.canary(), Some(4), "the thread that answers monitors runs, and says that the coordinator hangs");
    held.iter().for_each(|thread| ptrace::detach(*thread, None).expect("it is held"));
    host.hear_until("WATCHDOG=1");
}

#[test]
fn a_service_manager_that_hears_nothing_holds_up_nobody() {
    let mut host = Host::new();
    host.start(Duration::from_secs(30));
    // Its socket's queue is full after some seconds: at most net.unix.max_dgram_qlen messages, 10 to 512.
    host.hear_until("STATUS=Validating: Active");
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("a flag");
    while filler.send_to(b"STATUS=full", host.path("notify")).is_ok() {}
    host.until("refused", || host.log().contains("the service manager takes no message").then_some(()));
    assert_eq!(host.canary(), Some(0), "{}", host.log());
    host.forget();
    host.hear_until("WATCHDOG=1");
}

#[test]
fn a_socket_that_is_not_there_and_a_watchdog_too_short_are_refused_in_one_line() {
    let host = Host::new();
    let refused = |socket: &str, interval: &str| {
        let mut command = baton(&["run", "--config", "baton.toml"]);
        command.current_dir(&*host.stage).env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", interval);
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "bad input");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let said = refused("none", "30000000");
    assert!(said.starts_with(r#"baton: the service manager's socket "none" (NOTIFY_SOCKET): No such file"#), "{said}");
    assert_eq!(
        refused("notify", "1000000"),
        "baton: the watchdog's interval is 1s; set WatchdogSec= in the unit to 5s or more\n"
    );
    let said = refused("notify", "soon");
    assert!(said.starts_with(r#"baton: WATCHDOG_USEC is "soon", which is no number of microseconds"#), "{said}");
}
