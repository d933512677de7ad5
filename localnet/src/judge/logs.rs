//! What the programs of a network say: coordinator (with its guard) and chain node apart, each line with a prefix.
//! Reads the files of processes, or asks the engine for what containers wrote. Called by the command line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use baton::base::ids::Role;

use crate::compose;
use crate::net::{Ground, Host, Net};
use crate::process::launch::tail;

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Writes the last `lines` of every log of these hosts to `out`, and with `follow` whatever comes after, until the
/// reader of `out` is gone.
///
/// # Errors
/// A log cannot be read, or the engine does not answer.
pub fn show(net: &Net, hosts: &[&Host], lines: usize, follow: bool, out: impl Write) -> Result<()> {
    match net.ground {
        Ground::Loopback | Ground::Namespaces => of_processes(net, hosts, lines, follow, out),
        Ground::Containers => of_containers(net, hosts, lines, follow, out),
    }
}

/// So that the lines of all begin in one column.
fn prefix(host: &str, program: &str) -> String {
    format!("{host} {program:<11} | ")
}

fn of_processes(net: &Net, hosts: &[&Host], lines: usize, follow: bool, mut out: impl Write) -> Result<()> {
    let mut logs = Vec::new();
    for host in hosts {
        let coordinator = net.host_dir(&host.id).join("coordinator.log");
        logs.push(Log::new(prefix(&host.id, "coordinator"), coordinator));
        if host.role == Role::Validator {
            logs.push(Log::new(prefix(&host.id, "node"), net.node_log(&host.id)));
        }
    }
    for log in logs.iter_mut().filter(|log| log.file.exists()) {
        log.read_to = log.file.metadata().with_context(|| format!("read {}", log.file.display()))?.len();
        for line in tail(&log.file, lines)?.lines() {
            if writeln!(out, "{}{line}", log.prefix).is_err() {
                return Ok(());
            }
        }
    }
    if !follow {
        return Ok(());
    }
    loop {
        for log in &mut logs {
            for line in log.new_lines()? {
                if writeln!(out, "{}{line}", log.prefix).and_then(|()| out.flush()).is_err() {
                    return Ok(());
                }
            }
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// A file that grows.
struct Log {
    prefix: String,
    file: PathBuf,
    read_to: u64,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl Log {
    fn new(prefix: String, file: PathBuf) -> Log {
        Log { prefix, file, read_to: 0, rest: Vec::new() }
    }

    fn new_lines(&mut self) -> Result<Vec<String>> {
        let what = || format!("read {}", self.file.display());
        let Ok(mut file) = File::open(&self.file) else { return Ok(Vec::new()) };
        let length = file.metadata().with_context(what)?.len();
        if length < self.read_to {
            // Somebody made it shorter: what is there now is new.
            (self.read_to, self.rest) = (0, Vec::new());
        }
        file.seek(SeekFrom::Start(self.read_to)).with_context(what)?;
        let read = file.take(length - self.read_to).read_to_end(&mut self.rest).with_context(what)?;
        self.read_to += read as u64;
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        Ok(String::from_utf8_lossy(&whole).lines().map(String::from).collect())
    }
}

fn of_containers(net: &Net, hosts: &[&Host], lines: usize, follow: bool, mut out: impl Write) -> Result<()> {
    let (sender, receiver): (Sender<String>, Receiver<String>) = channel();
    let mut asked = Vec::new();
    for host in hosts {
        let mut command = compose::docker(net)?;
        command.args(["logs", "--tail", &lines.to_string()]);
        if follow {
            command.arg("--follow");
        }
        command.arg(compose::container(net, &host.id)?);
        asked.push(ask(command, &host.id, &sender)?);
    }
    drop(sender);
    let mut ends = Ok(());
    for line in receiver {
        if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
            ends = Err(());
            break;
        }
    }
    for (host, mut child) in asked {
        if ends.is_err() {
            // Nobody reads any more; it may follow for ever.
            let _ = child.kill();
        }
        let status = child.wait().with_context(|| format!("await docker logs of {host}"))?;
        if ends.is_ok() && !status.success() {
            bail!("docker logs of {host}: {status}");
        }
    }
    Ok(())
}

/// The chain node of a container writes to its standard output, coordinator and guard to standard error.
fn ask(mut command: Command, host: &str, to: &Sender<String>) -> Result<(String, Child)> {
    let what = format!("run {command:?}");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context(what)?;
    let (node, coordinator) = (child.stdout.take().context("no stdout")?, child.stderr.take().context("no stderr")?);
    forward(node, prefix(host, "node"), to.clone());
    forward(coordinator, prefix(host, "coordinator"), to.clone());
    Ok((host.into(), child))
}

/// Ends with the pipe, or with whoever receives.
fn forward(from: impl Read + Send + 'static, prefix: String, to: Sender<String>) {
    thread::spawn(move || {
        let mut lines = BufReader::new(from).split(b'\n');
        while let Some(Ok(line)) = lines.next() {
            if to.send(format!("{prefix}{}\n", String::from_utf8_lossy(&line))).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_followed_by_whole_lines_and_from_its_start_when_it_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::new("p".into(), dir.path().join("x.log"));
        assert_eq!(log.new_lines().unwrap(), Vec::<String>::new(), "it is not there yet");
        std::fs::write(&log.file, "one\ntw").unwrap();
        assert_eq!(log.new_lines().unwrap(), ["one"]);
        std::fs::write(&log.file, "one\ntwo\nthree\n").unwrap();
        assert_eq!(log.new_lines().unwrap(), ["two", "three"]);
        std::fs::write(&log.file, "new\n").unwrap();
        assert_eq!(log.new_lines().unwrap(), ["new"]);
    }
}
