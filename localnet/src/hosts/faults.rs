//! Breaks hosts on purpose: finds the processes of one host by their role and signals them. Says when
//! it was done, and leaves every judgement to the checker. Called by the commands, demo, bench, tests.

use std::time::Duration;

use anyhow::{Result, bail};
use baton::base::ids::Role;
use rustix::process::Signal;

use crate::net::{Net, Usage};
use crate::process::procs::{self, Awaited, Proc, describe, marked};

const END_BOUND: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    Coordinator,
    Guard,
    /// The chain node.
    Node,
    /// What has the key where no chain node has it.
    Signer,
    /// All of them at once.
    Host,
}

/// Everything of baton, and of what it is compared with, that runs beside a chain node.
const COORDINATORS: [&str; 2] = ["baton", "etcdctl"];
const SIGNER: &str = "baton-signer";
const OTHERS: [&str; 3] = ["baton-guard", SIGNER, "etcd"];

impl What {
    pub fn matches(self, proc: &Proc) -> bool {
        match self {
            What::Coordinator => COORDINATORS.contains(&proc.program()),
            What::Guard => proc.program() == "baton-guard",
            What::Signer => proc.program() == SIGNER,
            What::Node => !COORDINATORS.contains(&proc.program()) && !OTHERS.contains(&proc.program()),
            What::Host => true,
        }
    }
}

/// The running processes of `host` that are meant by `what`; at least one.
///
/// # Errors
/// The host does not exist or cannot have such a process (bad input), or none runs.
pub fn find(net: &Net, host: &str, what: What) -> Result<Vec<Proc>> {
    let role = net.host(host)?.role;
    if role == Role::Arbiter && matches!(what, What::Guard | What::Node | What::Signer) {
        return Err(Usage(format!("{host} is the arbiter: it has a coordinator and nothing else")).into());
    }
    let found = of_host(net, host, what);
    if found.is_empty() {
        bail!("{host}: nothing to signal, no {what:?} process runs there");
    }
    Ok(found)
}

/// Like [`find`], and empty when none runs.
pub fn of_host(net: &Net, host: &str, what: What) -> Vec<Proc> {
    marked(&net.dir).into_iter().filter(|p| p.host == host && what.matches(p)).collect()
}

/// All of `targets` have ended. Every one is signalled before the first is awaited.
pub fn kill(targets: &[Proc]) -> Result<()> {
    let awaited = Awaited::new(targets);
    procs::signal(targets, Signal::KILL)?;
    if !awaited.ended_within(END_BOUND) {
        bail!("SIGKILL: not all of {} ended within {END_BOUND:?}", describe(targets));
    }
    Ok(())
}

/// Nothing of `host` runs: `targets`, found before, and whatever they were starting just then.
pub fn kill_host(net: &Net, host: &str, targets: &[Proc]) -> Result<()> {
    kill(targets)?;
    loop {
        let rest = of_host(net, host, What::Host);
        if rest.is_empty() {
            return Ok(());
        }
        kill(&rest)?;
    }
}
