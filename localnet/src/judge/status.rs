//! What `baton status --json` says, asked of whichever host answers. The harness learns everything about
//! the cluster this way, as an operator would; nothing here reads baton's files.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::compose;
use crate::net::{Ground, Net};
use crate::process::procs::Awaited;
use crate::process::procs::Proc;

const ANSWER_BOUND: Duration = Duration::from_millis(1500);
pub const POLL_EVERY: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Status {
    pub cluster: String,
    pub member: String,
    pub leader: Option<String>,
    pub term: u64,
    pub epoch: u64,
    pub holder: Option<String>,
    pub quorum: bool,
    pub paused: bool,
    pub members: Vec<Member>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Member {
    pub id: String,
    pub role: String,
    pub state: String,
    pub phase: Option<String>,
    pub reachable: bool,
    pub synced: Option<bool>,
    pub height: Option<u64>,
    pub priority: Option<u32>,
    pub maintenance: bool,
    pub lease_remaining_ms: Option<i64>,
    pub guard: Option<String>,
    pub links: Option<String>,
    pub node_pid: Option<u32>,
    pub node_note: String,
    pub not_ready_because: String,
}

impl Status {
    /// The member whose chain node signs, by its own word.
    pub fn active(&self) -> Option<&Member> {
        self.members.iter().find(|m| m.reachable && m.state == "Validating" && m.phase.as_deref() == Some("Active"))
    }

    /// Whether `id` could take the baton now.
    pub fn is_ready_standby(&self, id: &str) -> bool {
        let is_ready = |m: &Member| m.reachable && m.state == "Voting" && m.not_ready_because.is_empty();
        self.members.iter().any(|m| m.id == id && m.synced == Some(true) && is_ready(m))
    }

    /// One line that changes when a state does, and not with heights and times.
    pub fn summary(&self) -> String {
        let one = |m: &Member| {
            let phase = m.phase.as_deref().filter(|p| !p.is_empty()).map(|p| format!("/{p}")).unwrap_or_default();
            let synced = if m.synced == Some(false) && m.role == "validator" { " unsynced" } else { "" };
            let state = if m.reachable { m.state.as_str() } else { "unreachable" };
            format!("{} {state}{phase}{synced}", m.id)
        };
        let members = self.members.iter().map(one).collect::<Vec<_>>().join(", ");
        let name = |id: &Option<String>| id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| "none".into());
        format!("holder {} epoch {} leader {}: {members}", name(&self.holder), self.epoch, name(&self.leader))
    }
}

/// What the holder says of itself and the others, as it is the one that would hand over; else what a host
/// says that sees a quorum; else what any says. A coordinator that hangs costs its bound.
///
/// # Errors
/// None answered; says what each one said.
pub fn query(net: &Net) -> Result<Status> {
    let (mut answers, mut refusals) = (Vec::new(), Vec::new());
    for host in &net.hosts {
        match query_host(net, &host.id) {
            Ok(status) if status.quorum && status.holder.as_ref() == Some(&status.member) => return Ok(status),
            Ok(status) => answers.push(status),
            Err(error) => refusals.push(format!("{}: {error:#}", host.id)),
        }
    }
    let best = answers.into_iter().max_by_key(|status| status.quorum);
    best.with_context(|| format!("no coordinator answers: {}", refusals.join("; ")))
}

/// `baton ARGS` as an operator on `host` gives it.
pub fn baton_at(net: &Net, host: &str, args: &[&str]) -> Result<Command> {
    match net.ground {
        Ground::Loopback | Ground::Namespaces => {
            let mut command = Command::new(&net.programs.baton);
            command.args(args).arg("--config").arg(net.config_file(host));
            Ok(command)
        }
        Ground::Containers => {
            let mut command = compose::at_host(net, host, &[])?;
            command.arg("/bin/baton").args(args);
            Ok(command)
        }
    }
}

/// What the coordinator of `id` says.
pub fn query_host(net: &Net, id: &str) -> Result<Status> {
    let command = baton_at(net, id, &["status", "--json"])?;
    let answer = run_bounded(command, ANSWER_BOUND)?;
    if answer.stdout.trim().is_empty() {
        bail!("{}", answer.stderr.lines().last().unwrap_or("no answer").trim());
    }
    serde_json::from_str(&answer.stdout).with_context(|| format!("status of {id}: {:?}", answer.stdout))
}

/// The table that the coordinator of `id` shows to an operator, with why a member is not ready.
pub fn for_people(net: &Net, id: &str) -> Result<String> {
    let command = baton_at(net, id, &["status"])?;
    let answer = run_bounded(command, ANSWER_BOUND)?;
    Ok(if answer.stdout.trim().is_empty() { answer.stderr } else { answer.stdout })
}

/// Why `host` is not ready, as the coordinator of `id` shows it to an operator in a line that may be cut short; `None`
/// where it shows no reason.
pub fn not_ready(net: &Net, id: &str, host: &str) -> Result<Option<String>> {
    Ok(reason_in(&for_people(net, id)?, host))
}

/// Below the member's row, notes are indented.
fn reason_in(table: &str, host: &str) -> Option<String> {
    let from_row = table.lines().skip_while(|line| line.split_whitespace().next() != Some(host)).skip(1);
    let mut notes = from_row.take_while(|line| line.starts_with(' '));
    notes.find_map(|line| line.trim().strip_prefix("not ready: ")).map(String::from)
}

/// What a finished program left behind.
pub struct Answer {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program that prints little to its end, or kills it.
pub fn run_bounded(mut command: Command, bound: Duration) -> Result<Answer> {
    let what = format!("run {command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| what.clone())?;
    let pid = Proc { pid: child.id() as i32, host: String::new(), argv: Vec::new() };
    let in_time = Awaited::new(&[pid]).ended_within(bound);
    if !in_time {
        child.kill().with_context(|| what.clone())?;
    }
    let code = child.wait().with_context(|| what.clone())?.code();
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().map(|mut s| s.read_to_string(&mut stdout)).transpose().with_context(|| what.clone())?;
    child.stderr.take().map(|mut s| s.read_to_string(&mut stderr)).transpose().with_context(|| what.clone())?;
    if !in_time {
        bail!("{what}: no end within {bound:?}");
    }
    Ok(Answer { code, stdout, stderr })
}

/// Polls until `done` is true of the status; every status seen goes to `seen`.
///
/// # Errors
/// `bound` passed; says what was awaited and what was seen last.
pub fn await_status(
    net: &Net,
    awaited: &str,
    bound: Duration,
    mut seen: impl FnMut(&Status),
    done: impl Fn(&Status) -> bool,
) -> Result<Status> {
    let deadline = Instant::now() + bound;
    loop {
        let last = match query(net) {
            Ok(status) => {
                seen(&status);
                if done(&status) {
                    return Ok(status);
                }
                status.summary()
            }
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > deadline {
            bail!("{awaited}: not within {bound:?}; last seen: {last}");
        }
        std::thread::sleep(POLL_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_object_is_read_and_nulls_are_taken() {
        let text = r#"{"cluster":"c","member":"host-a","leader":null,"term":3,"epoch":2,"holder":"host-b","quorum":true,
            "members":[{"id":"host-b","addr":"127.0.0.1:1","role":"validator","state":"Validating","phase":"Active",
            "reachable":true,"synced":true,"height":9,"priority":90,"maintenance":false,"lease_remaining_ms":700,
            "guard":"armed","links":"validating","node_pid":12,"version":"x"},
            {"id":"host-a","role":"validator","state":"Voting","phase":null,"reachable":true,"synced":true,
            "lease_remaining_ms":null,"node_pid":null},
            {"id":"host-d","role":"validator","state":"Voting","reachable":true,"synced":true,
            "not_ready_because":"the chain node crashed"}]}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!(status.active().unwrap().id, "host-b");
        assert!(status.is_ready_standby("host-a") && !status.is_ready_standby("host-b"));
        assert!(!status.is_ready_standby("host-d"), "it says why it could not take the baton");
        assert!(status.summary().contains("host-b Validating/Active"), "{}", status.summary());
    }

    #[test]
    fn the_reason_below_a_members_row_is_its_own() {
        let table = "holder host-b (epoch 1)\n\nHOST    ROLE\nhost-a  validator\n  starting\n  not ready: one thing\n\
                     host-b  validator\n  first block\nhost-c  arbiter\n  not ready: another\n";
        assert_eq!(reason_in(table, "host-a").as_deref(), Some("one thing"));
        assert_eq!(reason_in(table, "host-b"), None);
        assert_eq!(reason_in(table, "host-d"), None);
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let mut sleep = Command::new("sleep");
        sleep.arg("100");
        let error = run_bounded(sleep, Duration::from_millis(200)).err().expect("it ended by itself").to_string();
        assert!(error.contains("no end within"), "{error}");
    }
}
