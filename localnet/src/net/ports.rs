//! Free loopback ports for a network that has to find them free again after a host was down for a
//! while. So they lie below the range from which the kernel takes ports for outgoing connections
//! (binding port 0 would hand out one of those), and no other network of this user gets them as long as the folder of
//! this one is there. Called when a network is laid out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rand::RngExt;
use rustix::process::geteuid;

use crate::net::write_file;

const LOWEST: u16 = 10_000;
const DEFAULT_EPHEMERAL_START: u16 = 32_768;

/// `count` different ports of 127.0.0.1, each free at the moment of asking and in no other network's hands. They
/// belong to the network under `dir`, which exists, until that folder is gone.
pub fn pick(dir: &Path, count: usize) -> Result<Vec<u16>> {
    Register::open()?.give(dir, count)
}

/// As [`pick`]. What an earlier network in that folder had is free again.
pub fn pick_anew(dir: &Path, count: usize) -> Result<Vec<u16>> {
    let mut register = Register::open()?;
    register.of.remove(dir);
    register.give(dir, count)
}

/// Which network has which ports. Nobody else reads or writes it while this lives.
struct Register {
    file: PathBuf,
    of: BTreeMap<PathBuf, Vec<u16>>,
    _lock: File,
}

impl Register {
    /// Without networks whose folders are gone.
    fn open() -> Result<Register> {
        let user = geteuid().as_raw();
        let dir = std::env::temp_dir().join(format!("baton-localnet-ports-{user}"));
        let what = || format!("open {}, where networks note their ports", dir.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).with_context(what)?;
        if fs::symlink_metadata(&dir).with_context(what)?.uid() != user {
            bail!("{} belongs to another user; remove it, or set TMPDIR to a folder of your own", dir.display());
        }
        let lock = File::open(&dir).with_context(what)?;
        lock.lock().with_context(what)?;
        let file = dir.join("ports.json");
        let text = if file.exists() { fs::read_to_string(&file).with_context(what)? } else { "{}".into() };
        let read = serde_json::from_str(&text);
        let mut of: BTreeMap<PathBuf, Vec<u16>> =
            read.with_context(|| format!("read {}; remove it when no network runs", file.display()))?;
        of.retain(|dir, _| dir.exists());
        Ok(Register { file, of, _lock: lock })
    }

    fn give(mut self, dir: &Path, count: usize) -> Result<Vec<u16>> {
        let picked = self.pick(count)?;
        self.of.entry(dir.to_path_buf()).or_default().extend(&picked);
        write_file(&self.file, &serde_json::to_string(&self.of)?)?;
        Ok(picked)
    }

    fn pick(&self, count: usize) -> Result<Vec<u16>> {
        let end = ephemeral_start();
        let taken: BTreeSet<u16> = self.of.values().flatten().copied().collect();
        let mut rng = rand::rng();
        let mut picked = BTreeSet::new();
        let mut held = Vec::new();
        for _ in 0..count * 200 {
            let port = rng.random_range(LOWEST..end);
            if taken.contains(&port) {
                continue;
            }
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                picked.insert(port);
                held.push(listener);
            }
            if picked.len() == count {
                return Ok(picked.into_iter().collect());
            }
        }
        let (found, networks) = (picked.len(), self.of.len());
        bail!(
            "pick {count} free ports of 127.0.0.1 in {LOWEST}..{end}: found only {found}; {networks} networks have {} \
             (see {}; `localnet reset` removes a network)",
            taken.len(),
            self.file.display()
        )
    }
}

fn ephemeral_start() -> u16 {
    read_range().ok().filter(|start| *start > LOWEST + 2_000).unwrap_or(DEFAULT_EPHEMERAL_START)
}

fn read_range() -> Result<u16> {
    let file = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = std::fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    let low = text.split_whitespace().next().context("empty port range")?;
    low.parse().with_context(|| format!("read {file}: {low:?} is not a port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picked_ports_differ_are_free_and_never_serve_outgoing_connections() {
        let dir = tempfile::tempdir().unwrap();
        let ports = pick(dir.path(), 60).unwrap();
        let distinct: BTreeSet<u16> = ports.iter().copied().collect();
        assert_eq!(distinct.len(), 60, "{ports:?}");
        assert!(ports.iter().all(|p| *p < ephemeral_start()), "{ports:?}");
        // A test beside this one may just be starting a process, which holds our listeners up to its exec.
        let start = std::time::Instant::now();
        let busy = |port: &&u16| TcpListener::bind((Ipv4Addr::LOCALHOST, **port)).is_err();
        while let Some(port) = ports.iter().find(busy) {
            assert!(start.elapsed() < std::time::Duration::from_secs(5), "port {port} is not free");
        }
    }

    #[test]
    fn a_networks_ports_are_nobody_elses_until_its_folder_is_gone_or_it_is_laid_out_anew() {
        let has = |dir: &Path| Register::open().unwrap().of.get(dir).cloned().unwrap_or_default();
        let [one, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (first, more) = (pick(one.path(), 3).unwrap(), pick(one.path(), 2).unwrap());
        assert_eq!(has(one.path()), [first, more].concat());
        // Nothing listens at any of them. By chance alone some would be picked twice but once in a thousand runs.
        let all: Vec<u16> = [pick(other.path(), 400).unwrap(), pick(one.path(), 400).unwrap()].concat();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        let anew = pick_anew(one.path(), 1).unwrap();
        assert_eq!(has(one.path()), anew);
        let gone = other.path().to_path_buf();
        drop(other);
        assert!(has(&gone).is_empty());
    }
}
