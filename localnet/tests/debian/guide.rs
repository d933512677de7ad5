//! The commands of docs/installing.md as they stand there, the desk at which some are given, and how long each part
//! took.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::host::{Host, run};

/// One command, with the lines in which it goes on after a `\`.
pub struct Step {
    pub section: String,
    pub prompt: String,
    pub command: String,
    /// Of its first line, counted from 1.
    pub line: usize,
}

/// All that stand in code blocks of `page`, in its order.
pub fn steps(page: &str) -> Vec<Step> {
    let (mut steps, mut section, mut in_block) = (Vec::<Step>::new(), String::new(), false);
    let mut goes_on = false;
    for (line, text) in (1..).zip(page.lines()) {
        if let (true, Some(step)) = (goes_on, steps.last_mut()) {
            step.command += &format!("\n{text}");
            goes_on = text.ends_with('\\');
        } else if text.starts_with("```") {
            in_block = !in_block;
        } else if let (false, Some(title)) = (in_block, text.strip_prefix("## ")) {
            title.clone_into(&mut section);
        } else if let Some((prompt, command)) =
            text.split_once(' ').filter(|(prompt, _)| in_block && prompt.ends_with(['#', '$']))
        {
            goes_on = command.ends_with('\\');
            steps.push(Step { section: section.clone(), prompt: prompt.into(), command: command.into(), line });
        }
    }
    steps
}

/// A machine with the programs and without a coordinator. Its `scp` copies into the hosts' roots, which have no SSH.
pub struct Desk {
    pub dir: PathBuf,
    path: String,
}

impl Desk {
    pub fn new(dir: PathBuf, hosts: &[Host], addresses: &[(&str, &str)]) -> Desk {
        let bin = dir.join("bin");
        fs::create_dir_all(&bin).expect("a directory");
        let mut script = "#!/bin/sh -e\nfor last; do :; done\ncase $last in\n".to_owned();
        for (host, (_, addr)) in hosts.iter().zip(addresses) {
            script += &format!("  root@{addr}:*) root={} ;;\n", host.root.display());
        }
        script += "esac\nwhile [ $# -gt 1 ]; do cp \"$1\" \"$root${last#*:}\"; shift; done\n";
        fs::write(bin.join("scp"), script).expect("a script");
        fs::set_permissions(bin.join("scp"), fs::Permissions::from_mode(0o755)).expect("chmod");
        let programs = PathBuf::from(env!("CARGO_BIN_EXE_localnet"));
        let path = format!("{}:{}:/usr/bin:/bin", bin.display(), programs.parent().expect("a folder").display());
        Desk { dir, path }
    }

    pub fn sh(&self, command: &str) {
        run(Command::new("bash").args(["-ec", command]).current_dir(&self.dir).env("PATH", &self.path));
    }
}

/// Commands and seconds of every section.
#[derive(Default)]
pub struct Table {
    sections: BTreeMap<String, (usize, Duration)>,
}

impl Table {
    pub fn add(&mut self, step: &Step, took: Duration) {
        let (commands, all) = self.sections.entry(step.section.clone()).or_default();
        (*commands, *all) = (*commands + 1, *all + took);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "| step | commands | time |\n| --- | --- | --- |")?;
        for (section, (commands, took)) in &self.sections {
            writeln!(f, "| {section} | {commands} | {:.1} s |", took.as_secs_f64())?;
        }
        let commands: usize = self.sections.values().map(|(commands, _)| commands).sum();
        let took: Duration = self.sections.values().map(|(_, took)| *took).sum();
        write!(f, "| from nothing to Active | {commands} | {:.1} s |", took.as_secs_f64())
    }
}

#[test]
fn a_line_that_goes_on_belongs_to_its_command_and_output_to_none() {
    let page = "## One\n```text\nhost-a# ls \\\n  a# \\\n  b\nshown\ndesk$ ls\n```\n```sh\n```\nhost-a# no block\n";
    let found: Vec<(String, String)> = steps(page).into_iter().map(|step| (step.prompt, step.command)).collect();
    let expected = [("host-a#", "ls \\\n  a# \\\n  b"), ("desk$", "ls")];
    assert_eq!(found, expected.map(|(prompt, command)| (prompt.to_owned(), command.to_owned())));
}
