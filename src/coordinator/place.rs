//! What one coordinator alone may use on a machine: the chain node's home, and the validator's key unless the other one
//! is of the same cluster. And who is there already: looked at by `baton check` and before a start, when nothing runs
//! yet.
//!
//! The home is locked as a folder, which holds across containers; the key, which no coordinator opens, is named
//! (`key_name.rs`). The kernel takes both back when the process ends.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use tokio::time::{Instant, sleep};

use super::key_name::KeyName;
use crate::base::processes;
use crate::config::{Chain, Config};
use crate::host::chain::{Endpoint, Owner, foreign_user};
use crate::host::effects::guard_socket;
use crate::operator::admin;

/// For a coordinator that is ending to be gone.
const GONE_MAX: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Taken until it is dropped.
pub(super) struct Place {
    _home: Option<OwnedFd>,
    _key: Vec<UnixListener>,
}

impl Place {
    /// # Errors
    /// Who has it, and what to do. Nothing is taken then.
    pub(super) async fn take(config: &Config, chain: &Chain) -> Result<Place> {
        let key = KeyName::of(config, chain).await;
        let taken = key.as_ref().map(KeyName::take).unwrap_or_default();
        if let Some(other) = key.as_ref().and_then(KeyName::other_cluster) {
            bail!(other);
        }
        Ok(Place { _home: lock_home(&chain.home, GONE_MAX).await?, _key: taken })
    }
}

/// `None` where folders cannot be locked.
async fn lock_home(home: &Path, gone_max: Duration) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // That it is there is checked with the rest of the chain's settings.
    let Ok(folder) = rustix::fs::open(home, flags, Mode::empty()) else { return Ok(None) };
    let since = Instant::now();
    loop {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(folder)),
            Err(Errno::WOULDBLOCK) if since.elapsed() < gone_max => sleep(LOOK_AGAIN).await,
            Err(Errno::WOULDBLOCK) => bail!(home_taken(home, home_locker(home))),
            Err(_) => return Ok(None),
        }
    }
}

fn home_locker(home: &Path) -> Option<u32> {
    let folder = fs::metadata(home).ok()?;
    let locks = processes::locks().ok()?;
    locks.into_iter().find(|lock| lock.is_on(&folder)).and_then(|lock| lock.pid)
}

fn home_taken(home: &Path, pid: Option<u32>) -> String {
    let who = pid.map_or_else(|| "a process that is not shown here".to_owned(), processes::named);
    format!(
        "chain.home {} is in use by {who}, another coordinator: two of them would run two nodes on one database; stop that \
         one, or give each its own chain.home",
        home.display()
    )
}

/// What of somebody else's is found on this host, before anything of ours runs or while it does; a start waits for it to
/// be gone. What it returns are warnings, one a line. Blocks for as long as /proc and the names of members take.
///
/// # Errors
/// Who it is, and what to do.
pub async fn check_host(config: &Config) -> Result<Vec<String>> {
    let Some(chain) = &config.chain else { return Ok(Vec::new()) };
    let socket = config.run_dir.canonicalize().map(|dir| guard_socket(&dir)).ok();
    let guard = socket.and_then(|socket| processes::guard_on(&socket, &processes::all().unwrap_or_default()));
    let mut warnings = Vec::new();
    if let Some(endpoint) = Endpoint::of(&chain.probe.target) {
        match endpoint.owner(guard, &BTreeSet::new()) {
            Owner::Foreign(who) => bail!("chain.probe: {who}"),
            Owner::Unknown(reason) => {
                let at = endpoint.shown();
                warnings.push(format!(
                    "chain.probe: it cannot be proven that our own node answers at {at}: {reason}; whoever answers there is \
                     believed, so make sure that nothing else can listen there"
                ));
            }
            // `check_probe` tells of the last one.
            Owner::Ours(_) | Owner::Nobody | Owner::Elsewhere(_) => {}
        }
    }
    if let Some(who) = foreign_user(&chain.home, &chain.command, guard) {
        bail!("chain.home: {who}");
    }
    if let Some(other) = KeyName::of(config, chain).await.as_ref().and_then(KeyName::other_cluster) {
        bail!(other);
    }
    match home_locker(&chain.home) {
        Some(pid) if !is_own_coordinator(config, pid) => bail!(home_taken(&chain.home, Some(pid))),
        Some(_) | None => Ok(warnings),
    }
}

/// On the way of a start: only what a start cannot get right later by itself. A node that is not ours may be gone in a moment.
pub(super) fn check_probe(config: &Config, chain: &Chain) -> Result<Option<String>> {
    let Some(endpoint) = Endpoint::of(&chain.probe.target) else { return Ok(None) };
    match endpoint.owner(None, &BTreeSet::new()) {
        Owner::Elsewhere(addr) => elsewhere(config, &endpoint, addr).map(Some),
        Owner::Ours(_) | Owner::Nobody | Owner::Foreign(_) | Owner::Unknown(_) => Ok(None),
    }
}

/// A member's address is certainly another host's. Any other could be that of a node in a network namespace of its own,
/// which only its start shows.
fn elsewhere(config: &Config, endpoint: &Endpoint, addr: IpAddr) -> Result<String> {
    let told = endpoint.elsewhere(addr);
    let is_at = |member: &&crate::config::Member| {
        let found = member.addr.to_socket_addrs();
        found.is_ok_and(|mut found| found.any(|member| member.ip() == addr))
    };
    match config.cluster.members.iter().filter(|member| member.id != config.id).find(is_at) {
        Some(member) => bail!("chain.probe: {told}; it is the address of member {}", member.id),
        None => Ok(format!("chain.probe: {told}")),
    }
}

/// Whoever answers on our admin socket; a coordinator that we may not ask may be ours.
fn is_own_coordinator(config: &Config, pid: u32) -> bool {
    match UnixStream::connect(config.run_dir.join(admin::SOCKET_NAME)) {
        Ok(connection) => {
            socket_peercred(&connection).is_ok_and(|peer| peer.pid.as_raw_nonzero().get().cast_unsigned() == pid)
        }
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_home_is_had_by_one_at_a_time_and_named_with_its_pid() {
        let home = tempfile::tempdir().expect("a directory");
        let first = lock_home(home.path(), Duration::ZERO).await.expect("free").expect("locked");
        assert_eq!(home_locker(home.path()), Some(std::process::id()));
        let refused = lock_home(home.path(), Duration::ZERO).await.expect_err("it is taken").to_string();
        assert!(refused.contains(&format!("(pid {})", std::process::id())), "{refused}");
        drop(first);
        lock_home(home.path(), Duration::ZERO).await.expect("free again").expect("locked");
    }
}
