//! A start script that does not end in `exec`, beside a real coordinator: both it and its guard are killed at once, and
//! either the kernel ends the node below the script, or the host never counts as ready and says why.

use std::fs;
use std::ops::Deref;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::kit::host::write_key;
use crate::kit::program::{Running, baton, coordinator_in, free_addresses, write_program};
use crate::kit::refuse_unshare::refuse_unshare;
use crate::kit::stage::Stage;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The script is the guard's child; what counts is below it, in a session of its own, and hears no signal.
const CONFIG: &str = r#"
[member]
id = "a"
state_dir = "state"
run_dir = "run"
[cluster]
name = "one"
listen = "LISTEN"
members = [{ id = "a", addr = "LISTEN" }, { id = "b", addr = "OTHER", role = "arbiter" }]
[chain]
driver = "generic"
home = "home"
command = ["./start"]
stop_timeout = "500ms"
[[chain.links]]
link = "key"
validating = "key"
[chain.activate]
how = "restart"
[chain.probe]
exec = ["sh", "-c", "test -s pid && echo '{\"height\": '$(date +%s)', \"head_time\": \"'$(date -u +%FT%TZ)'\"}'"]
every = "100ms"
"#;

const START: &str = "#!/bin/sh\nsetsid ./node &\nwait\n";
const NODE: &str =
    "#!/bin/sh\ntrap '' TERM HUP INT\nread me _ < /proc/self/stat\necho $me > pid\nwhile :; do sleep 1; done\n";

struct Host {
    // Dropped in this order: the coordinator ends before what it left is ended.
    coordinator: Running,
    stage: Stage,
}

impl Deref for Host {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl Host {
    fn start(prepare: impl FnOnce(&mut Command)) -> Host {
        let stage = stage();
        let mut command = coordinator_in(&stage);
        prepare(&mut command);
        Host { coordinator: Running(command.spawn().expect("it starts")), stage }
    }

    /// Of `baton status`, once there is what is looked for.
    fn await_status(&self, mut look: impl FnMut(&str, &Value) -> bool) {
        let told = |json: &[&str]| {
            let config = self.path("baton.toml").display().to_string();
            let output = baton(&["status", "--config", &config]).args(json).output().expect("status");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        self.until("a status", || {
            let (text, json) = (told(&[]), told(&["--json"]));
            let status: Value = serde_json::from_str(&json).ok()?;
            look(&text, &status["members"][0]).then_some(())
        });
    }

    /// The process that has the key when this host validates.
    fn node(&self) -> u32 {
        self.until("the node", || fs::read_to_string(self.path("home/pid")).ok()?.strip_suffix('\n')?.parse().ok())
    }

    fn guard(&self) -> u32 {
        let own = self.coordinator.0.id();
        let children = fs::read_dir(format!("/proc/{own}/task")).expect("tasks").flatten();
        let children = children.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
        let children: Vec<u32> = children.flat_map(|line| numbers(&line)).collect();
        let is_guard = |pid: &u32| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.windows(8).any(|part| part == b"--socket"))
        };
        children.into_iter().find(is_guard).expect("a guard")
    }
}

/// A host on which nothing runs yet.
fn stage() -> Stage {
    let [listen, other]: [String; 2] = free_addresses();
    let stage = Stage::new(&CONFIG.replace("LISTEN", &listen).replace("OTHER", &other));
    write_key(&stage.path("key"), "{}");
    write_program(&stage.path("start"), START);
    write_program(&stage.path("home/node"), NODE);
    stage
}

fn numbers(line: &str) -> Vec<u32> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("a process id");
    kill_process(pid, Signal::KILL).expect("kill");
}

/// As under Docker's seccomp profile.
#[allow(unsafe_code)]
fn without_namespaces(command: &mut Command) {
    // SAFETY: two system calls, no allocation and no lock.
    unsafe { command.pre_exec(refuse_unshare) };
}

#[test]
fn a_node_below_a_script_dies_with_coordinator_and_guard_that_are_killed_at_once() {
    let mut host = Host::start(|_| ());
    let node = host.node();
    let mut contained = false;
    host.await_status(|text, member| {
        contained = member["containment"] == "pid-namespace";
        member["containment"].is_string() && (!contained || !text.contains("no PID namespace"))
    });
    if !contained {
        assert!(std::env::var_os("BATON_REQUIRE_NAMESPACES").is_none(), "no PID namespace here");
        eprintln!("left out: no PID namespace here");
        return;
    }
    let guard = host.guard();
    kill(host.coordinator.0.id());
    kill(guard);
    host.coordinator.0.wait().expect("wait");
    host.until("the end of the node", || (!lives(node)).then_some(()));
}

#[test]
fn a_host_without_namespaces_is_not_ready_while_its_node_hides_below_a_script() {
    let host = Host::start(without_namespaces);
    let node = host.node();
    let below = "would outlive a killed guard";
    host.await_status(|text, member| {
        let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        member["containment"] == "direct-child"
            && text.contains(below)
            && text.contains("no PID namespace: only the process of chain.command")
    });
    assert!(lives(node));
    // The script is mended; the node's next start is one of the node itself.
    write_program(&host.path("start"), "#!/bin/sh\nexec ./node\n");
    kill(node);
    host.await_status(|text, member| {
        member["containment"] == "direct-child" && member["node_pid"] != 0 && !text.contains(below)
    });
}

#[test]
fn check_refuses_a_script_without_exec_only_where_nothing_else_ends_its_node() {
    let host = stage();
    let check = |prepare: fn(&mut Command)| {
        let config = host.path("baton.toml").display().to_string();
        let mut command = baton(&["check", "--config", &config]);
        prepare(&mut command);
        let output = command.output().expect("check");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, said) = check(without_namespaces);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("the last command of ") && said.contains("no PID namespace (unshare"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    write_program(&host.path("start"), "#!/bin/sh\nexec ./node\n");
    let (code, said) = check(without_namespaces);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("warning: no PID namespace for the chain node here"), "{said}");
    let (code, said) = check(|_| ());
    assert!(code == Some(0) && said.contains("chain node: ") || said.contains("warning: no PID"), "{said}");
}
