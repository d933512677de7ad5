//! A Docker engine for one test, away from the machine's: its network, mounts and processes are in namespaces of
//! their own, its files in the test's folder. All of it ends with one process, which a keeper ends when the test is
//! killed.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use localnet::net::namespaces::in_network;
use localnet::process::keeper::Keeper;
use localnet::process::limits::remove_at_end;
use localnet::process::procs::{Awaited, MARKER, Proc, describe, marked, signal};
use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

const START_BOUND: Duration = Duration::from_secs(60);
const END_BOUND: Duration = Duration::from_secs(30);

pub struct Engine {
    child: Child,
    keeper: Option<Keeper>,
    pub socket: PathBuf,
    /// Its network, as a file: with the published ports, and the way to the containers.
    pub network: PathBuf,
    files: PathBuf,
    // Last: its files are read until the engine has ended.
    _temp: TempDir,
}

impl Engine {
    /// Answers.
    pub fn start(localnet: &Path) -> Engine {
        assert!(geteuid().is_root(), "a Docker engine of the test's own takes root");
        for (program, package) in [("dockerd", "docker.io"), ("docker", "docker.io"), ("iptables", "iptables")] {
            let found = Command::new(program).arg("--version").output();
            assert!(found.is_ok_and(|o| o.status.success()), "{program} is missing (Debian: {package})");
        }
        let temp = tempfile::tempdir().unwrap();
        let files = temp.path().canonicalize().unwrap();
        let name = format!("engine-{:08x}", rand::random::<u32>());
        // The engine makes the same folder in every hierarchy that there is.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()) {
            if hierarchy.is_dir() {
                remove_at_end(&files, &hierarchy.join(format!("baton-{name}"))).unwrap();
            }
        }
        remove_at_end(&files, &Path::new("/sys/fs/cgroup").join(format!("baton-{name}"))).unwrap();
        let (socket, log) = (files.join("docker.sock"), files.join("dockerd.log"));
        let keeper = Keeper::start(localnet, &files).unwrap();
        let out = fs::File::create(&log).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]);
        // The machine's own daemon.json is not for this engine, and no key of this one is for the machine.
        let enter =
            "ip link set lo up && mkdir -p /etc/docker && mount -t tmpfs tmpfs /etc/docker && exec dockerd \"$@\"";
        command.args(["sh", "-c", enter, "dockerd"]);
        command.arg("--host").arg(format!("unix://{}", socket.display()));
        for (flag, folder) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "dockerd.pid")] {
            command.arg(flag).arg(files.join(folder));
        }
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--bip", "10.9.0.1/24"]);
        command.arg(format!("--cgroup-parent=/baton-{name}"));
        command.env(MARKER, &files).process_group(0).stdin(Stdio::null());
        let child = command.stdout(out.try_clone().unwrap()).stderr(out).spawn().expect("run unshare (util-linux)");
        let network = PathBuf::new();
        let mut engine = Engine { child, keeper: Some(keeper), socket, network, files, _temp: temp };
        engine.await_answer();
        engine
    }

    fn await_answer(&mut self) {
        let start = Instant::now();
        loop {
            let answer = self.docker().args(["version", "--format", "{{.Server.Version}}"]).output().unwrap();
            if answer.status.success() {
                break;
            }
            let ended = self.child.try_wait().unwrap();
            let late = ended.is_some() || start.elapsed() > START_BOUND;
            assert!(
                !late,
                "no Docker engine ({ended:?}): {}",
                fs::read_to_string(self.files.join("dockerd.log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        let daemon = marked(&self.files).into_iter().find(|proc| proc.program() == "dockerd").expect("dockerd runs");
        self.network = format!("/proc/{}/ns/net", daemon.pid).into();
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", self.host());
        command
    }

    /// Runs `command` where the containers can be reached, with this engine as the user's.
    pub fn output(&self, mut command: Command) -> Output {
        command.env("DOCKER_HOST", self.host()).env_remove("DOCKER_CONTEXT");
        in_network(&self.network, move || Ok(command.output()?)).unwrap()
    }

    /// Standard output of `docker ARGS`.
    pub fn said(&self, args: &[&str]) -> String {
        let output = self.docker().args(args).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "docker {args:?}: {out}{err}");
        out.trim().to_string()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.files.join("dockerd.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            println!("--- the end of dockerd's log\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        // The engine is the first process of its namespace: with it ends all that is in there, and `unshare` after it.
        let daemon: Vec<Proc> = marked(&self.files).into_iter().filter(|proc| proc.program() == "dockerd").collect();
        let awaited = Awaited::new(&daemon);
        let ended = signal(&daemon, Signal::KILL).is_ok() && awaited.ended_within(END_BOUND);
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its control groups go with the keeper.
        let swept = self.keeper.take().map(Keeper::sweep).transpose();
        if !std::thread::panicking() {
            assert!(ended, "the engine did not end: {}", describe(&daemon));
            swept.unwrap();
        }
    }
}
