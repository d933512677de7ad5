//! Sees to it that a network ends with the command that needs it, however that command ends. The
//! keeper is a process of its own in a process group of its own; it reads a pipe whose other end the
//! command alone holds, and when the pipe closes it sweeps the network away. A network that shall stay
//! is released by one byte.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::compose;
use crate::hosts::disks;
use crate::net::{Ground, Net};
use crate::process::limits;
use crate::process::procs;

const RELEASE: u8 = b'r';

/// While this lives, and its process does, the network may run.
pub struct Keeper {
    child: Child,
}

impl Keeper {
    /// Starts the keeper of `dir`, which need not exist yet but must be absolute.
    pub fn start(localnet: &Path, dir: &Path) -> Result<Keeper> {
        let mut command = Command::new(localnet);
        command.arg("--dir").arg(dir).arg("keeper").process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("start {} keeper", localnet.display()))?;
        Ok(Keeper { child })
    }

    /// The network stays when the keeper goes.
    pub fn release(mut self) -> Result<()> {
        let pipe = self.child.stdin.as_mut().context("the keeper's pipe is closed")?;
        pipe.write_all(&[RELEASE]).context("release the network from its keeper")?;
        self.end().map(|_| ())
    }

    /// Nothing of the network runs any more.
    pub fn sweep(mut self) -> Result<()> {
        let status = self.end()?;
        if !status.success() {
            bail!("the keeper could not end every process of the network: see its message above");
        }
        Ok(())
    }

    fn end(&mut self) -> Result<ExitStatus> {
        drop(self.child.stdin.take());
        self.child.wait().context("await the keeper")
    }
}

/// An early return sweeps too, and waits for it.
impl Drop for Keeper {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("localnet: {error:#}");
        }
    }
}

/// The keeper's own life: from its start until the pipe closes and all is swept.
pub fn keep(dir: &Path) -> Result<()> {
    let mut byte = [0];
    let read = std::io::stdin().read(&mut byte).context("read the keeper's pipe")?;
    if read == 1 && byte[0] == RELEASE {
        return Ok(());
    }
    take_down(dir).map(|_| ())
}

/// Nothing of the network under `dir` runs and its sockets are gone; logs and records stay. Returns how
/// many processes or containers were ended.
pub fn take_down(dir: &Path) -> Result<usize> {
    let net = Net::load(dir).ok();
    let containers = match &net {
        Some(net) if net.ground == Ground::Containers => compose::take_down(net),
        Some(_) | None => Ok(0),
    };
    // What waits for a frozen disk cannot be ended.
    net.iter().for_each(disks::thaw_all);
    // Whatever became of the containers.
    let ended = procs::sweep(dir)?;
    net.iter().for_each(disks::unmount_all);
    limits::remove_groups(dir)?;
    // The run folders of containers are in the containers.
    if let Some(net) = net.filter(|net| net.ground != Ground::Containers) {
        remove_sockets(&net)?;
    }
    Ok(ended + containers?)
}

fn remove_sockets(net: &Net) -> Result<()> {
    let run_dirs = net.hosts.iter().map(|host| host.run_dir.clone());
    let folders: Vec<PathBuf> = run_dirs.chain(net.short_dir.clone()).collect();
    for folder in folders {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
    }
    let socket = net.wires_socket();
    if socket.exists() {
        fs::remove_file(&socket).with_context(|| format!("remove {}", socket.display()))?;
    }
    Ok(())
}
