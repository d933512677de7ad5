//! What `baton check` says of a chain node that hides below a script: whether this host has a PID namespace for it,
//! tried by the guard's own program, and whether the script in `chain.command` ends in `exec`.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::Mode;
use rustix::process::geteuid;

use crate::base::guard_frame::Containment;
use crate::config::Chain;
use crate::host::guard::TRY_NAMESPACE;
use crate::host::guard_client::default_binary;

/// A start script that is longer is not read to its end.
const SCRIPT_MAX: u64 = 256 << 10;
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "zsh", "ksh"];

/// Lines for people.
///
/// # Errors
/// The node would be a grandchild of its guard, or the kernel would forget that it is to die with it, and nothing would
/// end it with the guard.
pub(super) fn check(chain: &Chain) -> Result<String, String> {
    let namespace = try_namespace();
    let program = chain.command.first().and_then(|program| find(&chain.home, program));
    let warning = match program.and_then(|program| Some((raised_by(&program)?, program.display().to_string()))) {
        None => String::new(),
        Some((Raised::Capabilities, program)) if namespace.is_err() && !geteuid().is_root() => {
            return Err(format!(
                "chain.command: {program} has file capabilities, for which the kernel forgets that it is to die with its \
                 guard, and this host gives it no PID namespace; take them away (setcap -r {program}) and let the service \
                 have them (AmbientCapabilities)"
            ));
        }
        Some((raised, program)) => format!(
            "\nwarning: chain.command: {program} {}: a chain node gets no new privileges, so it runs without what that gives",
            raised.words()
        ),
    };
    let script = script_without_exec(&chain.home, &chain.command);
    Ok(contained(namespace, script)? + &warning)
}

fn contained(namespace: Result<(), String>, script: Option<String>) -> Result<String, String> {
    match (namespace, script) {
        (Ok(()), None) => Ok("chain node: a PID namespace ends all of it with its guard".into()),
        (Ok(()), Some(script)) => Ok(format!(
            "chain node: a PID namespace ends all of it with its guard, also what {script} starts without exec"
        )),
        (Err(reason), None) => Ok(format!(
            "warning: no PID namespace for the chain node here ({reason}): a guard that is killed takes along the process \
             of chain.command, and nothing that it starts"
        )),
        (Err(reason), Some(script)) => Err(format!(
            "chain.command: the last command of {script} does not begin with exec, and this host gives the node no PID \
             namespace ({reason}): a guard that is killed would leave the node running with the key; put exec before \
             the command that starts the node"
        )),
    }
}

/// By what a file gives whoever executes it more rights than he has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raised {
    User,
    Group,
    Capabilities,
}

impl Raised {
    fn words(self) -> &'static str {
        match self {
            Raised::User => "is set-user-ID",
            Raised::Group => "is set-group-ID",
            Raised::Capabilities => "has file capabilities",
        }
    }
}

fn raised_by(program: &Path) -> Option<Raised> {
    let mode = program.metadata().ok()?.permissions().mode();
    let capabilities = rustix::fs::getxattr(program, "security.capability", &mut [0_u8; 64][..]);
    if capabilities.is_ok_and(|length| length > 0) {
        return Some(Raised::Capabilities);
    }
    // Without the group's right to execute, its bit means something else.
    let group = Mode::SGID | Mode::XGRP;
    if mode & Mode::SUID.bits() != 0 {
        Some(Raised::User)
    } else {
        (mode & group.bits() == group.bits()).then_some(Raised::Group)
    }
}

/// # Errors
/// Why there is none, as far as this user is concerned.
fn try_namespace() -> Result<(), String> {
    let guard = default_binary().map_err(|error| error.to_string())?;
    let output = Command::new(&guard).arg(TRY_NAMESPACE).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run {}: {error}", guard.display()))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if said == Containment::PidNamespace.word() {
        return Ok(());
    }
    Err(if said.is_empty() { format!("{} does not tell", guard.display()) } else { said })
}

/// The script that `command` runs, when its last command starts the node as a child. `None` as well for what is no
/// script of a shell.
fn script_without_exec(home: &Path, command: &[String]) -> Option<String> {
    let program = find(home, command.first()?)?;
    if let Some(shell) = SHELLS.into_iter().find(|shell| program.file_name().is_some_and(|name| name == *shell)) {
        return match command.get(1)?.as_str() {
            "-c" => (!ends_in_exec(command.get(2)?)).then(|| format!("{shell} -c")),
            option if option.starts_with('-') => None,
            file => of_file(&home.join(file)),
        };
    }
    of_file(&program)
}

fn of_file(file: &Path) -> Option<String> {
    let mut text = Vec::new();
    File::open(file).ok()?.take(SCRIPT_MAX).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let interpreter = text.strip_prefix("#!")?.lines().next()?;
    let is_shell = interpreter.split([' ', '/', '\t']).any(|word| SHELLS.contains(&word));
    (is_shell && !ends_in_exec(&text)).then(|| file.display().to_string())
}

/// By PATH or from the home, as the guard finds it.
fn find(home: &Path, program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(home.join(program));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Whether the last command of a shell's text begins with `exec`; lines that go on with `\` are one, and neither
/// comments nor closing words of a compound command count.
fn ends_in_exec(script: &str) -> bool {
    let joined = script.replace("\\\n", " ");
    let commands = joined.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let mut commands = commands.flat_map(|line| line.split([';', '&', '|'])).map(str::trim);
    let last = commands.rfind(|command| !matches!(*command, "" | "fi" | "done" | "esac" | "}"));
    last.is_some_and(|command| command.trim_start_matches("then ").trim_start_matches("else ").starts_with("exec "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_ends_in_exec_or_it_does_not() {
        for text in [
            "#!/bin/sh\nset -e\nexec neard --home /var/lib/near run\n",
            "exec neard \\\n  --home /x \\\n  run\n# the end\n\n",
            "cd /x && exec neard run",
            "if true; then\n  exec a\nelse\n  exec b\nfi\n",
            "echo $$ > pid; exec sleep 1000",
        ] {
            assert!(ends_in_exec(text), "{text}");
        }
        for text in ["#!/bin/sh\nneard run\n", "exec > log\nneard run", "neard run &\nwait\n", "# exec neard run\n", ""]
        {
            assert!(!ends_in_exec(text), "{text}");
        }
    }

    #[test]
    fn a_program_that_raises_privileges_is_told_by_what() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("neard");
        std::fs::write(&program, "").unwrap();
        let with = |mode| {
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
            raised_by(&program)
        };
        assert_eq!([0o755, 0o4755, 0o2755, 0o2644].map(with), [None, Some(Raised::User), Some(Raised::Group), None]);
        let capabilities = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let flags = rustix::fs::XattrFlags::empty();
        if rustix::fs::setxattr(&program, "security.capability", &capabilities, flags).is_ok() {
            assert_eq!(raised_by(&program), Some(Raised::Capabilities));
        }
    }

    #[test]
    fn a_script_is_found_behind_its_interpreter_and_a_program_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("start");
        std::fs::write(&script, "#!/usr/bin/env bash\nneard run\n").unwrap();
        let path = script.display().to_string();
        let of = |words: &[&str]| {
            script_without_exec(dir.path(), &words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&[&path, "--flag"]), Some(path.clone()));
        assert_eq!(of(&["./start"]).map(|script| script.ends_with("/start")), Some(true), "from the home");
        assert_eq!(of(&["sh", &path]), Some(path.clone()));
        assert_eq!(of(&["sh", "-c", "sleep 1; sleep 2"]), Some("sh -c".into()));
        assert_eq!(of(&["sh", "-c", "exec sleep 2"]), None);
        assert_eq!(of(&["sleep", "1"]), None);
        std::fs::write(&script, "#!/usr/bin/python3\nrun()\n").unwrap();
        assert_eq!(of(&[&path]), None);
    }
}
