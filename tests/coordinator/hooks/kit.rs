//! A host whose coordinator has hooks, and what they left behind.

use std::fs;
use std::ops::Deref;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::kit::host::write_key;
use crate::kit::program::{ONE_MEMBER, Running, coordinator_in, free_addresses, metric, write_program};
use crate::kit::stage::Stage;

/// With a lease that a busy machine does not lose.
const CHAIN: &str = r#"
[timing]
profile = "wan"
[metrics]
listen = "METRICS"
[chain]
driver = "generic"
home = "home"
command = ["sleep", "1000"]
[[chain.links]]
link = "key"
validating = "key.json"
[chain.activate]
how = "restart"
[chain.probe]
exec = ["sh", "-c", "echo '{\"height\": '$(date +%s)', \"head_time\": \"'$(date -u +%FT%TZ)'\"}'"]
every = "100ms"
[hooks]
"#;

/// Appends a line of what it is told to `told`, which lies beside it.
pub const TELL: &str = r#"#!/bin/sh
echo "$BATON_EVENT|$BATON_CLUSTER|$BATON_MEMBER|$BATON_HOLDER|$BATON_EPOCH|$BATON_REASON" >> "${0%/*}/told"
"#;

pub struct Host {
    stage: Stage,
    metrics: String,
}

impl Deref for Host {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl Host {
    /// Alone in its cluster, with a program `tell` and `hooks` as the last lines of its configuration.
    pub fn new(hooks: &str) -> Host {
        let [peers] = free_addresses();
        Host::of(&ONE_MEMBER.replace("PEERS", &peers), hooks)
    }

    /// With these members.
    pub fn of(members: &str, hooks: &str) -> Host {
        let [metrics] = free_addresses();
        let stage = Stage::new(&[members, CHAIN, hooks].concat().replace("METRICS", &metrics));
        write_key(&stage.path("key.json"), "{}");
        let host = Host { stage, metrics };
        host.program("tell", TELL);
        host
    }

    pub fn program(&self, name: &str, text: &str) {
        write_program(&self.path(name), text);
    }

    pub fn run(&self) -> Running {
        Running(coordinator_in(self).spawn().expect("it starts"))
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A line each, of `TELL`.
    pub fn told(&self) -> Vec<String> {
        self.read("told").lines().map(str::to_owned).collect()
    }

    pub fn await_told(&self, event: &str, times: usize) -> Vec<String> {
        let prefix = format!("{event}|");
        self.until(&format!("{event} told {times} times"), || {
            let told = self.told();
            (told.iter().filter(|line| line.starts_with(&prefix)).count() >= times).then_some(told)
        })
    }

    /// Of a process, which a hook has written into a file.
    pub fn await_pid(&self, name: &str) -> Pid {
        self.until(name, || {
            let text = self.read(name);
            // The whole of it, with its end.
            text.strip_suffix('\n').and_then(|pid| Pid::from_raw(pid.parse().ok()?))
        })
    }

    pub fn await_gone(&self, pid: Pid) {
        self.until(&format!("{pid:?} gone"), || is_gone(pid).then_some(()));
    }

    pub fn await_active(&self) {
        self.until("the holder", || self.log().contains("to=Validating/Active").then_some(()));
    }

    pub fn runs(&self, hook: &str, outcome: &str) -> Option<u64> {
        metric(&self.metrics, &format!("baton_hook_runs_total{{hook=\"{hook}\",outcome=\"{outcome}\"}}"))
    }

    pub fn await_runs(&self, hook: &str, outcome: &str, times: u64) {
        self.until(&format!("{hook} {outcome} {times} times"), || {
            self.runs(hook, outcome).filter(|runs| *runs >= times)
        });
    }

    /// Lines that a hook said and that are in the log.
    pub fn said(&self) -> usize {
        self.log().matches("a hook says").count()
    }
}

/// Neither runs nor waits to be reaped by somebody who does not care.
pub fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    test_kill_process(pid).is_err() || stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

pub fn signal(running: &Running, signal: Signal) {
    kill_process(Pid::from_child(&running.0), signal).expect("it runs");
}

/// A process that would outlive its test, killed when this is dropped.
pub struct Leftover(pub Pid);

impl Drop for Leftover {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// What a program `name` that a hook runs in the place of another was called with, a line each.
pub fn stand_in(dir: &Path, name: &str, answer: &str) {
    let text = format!("#!/bin/sh\necho \"{name} $*\" >> '{}'\n{answer}\n", dir.join("calls").display());
    write_program(&dir.join(name), &text);
}
