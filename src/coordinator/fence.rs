//! `baton fence`: a host on which no coordinator runs, and of which it shall be certain that it does not sign. It
//! stands in the coordinator's place meanwhile: none can start, and none that runs is disturbed.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use tokio::net::UnixListener;

use super::links::HostLinks;
use super::start::not_created;
use super::{Driver, guard_settings, key_reader};
use crate::config::Config;
use crate::host::guard_client::{self, Ended};
use crate::host::key_links::KeyLinks;
use crate::operator::admin::{self, AdminError};

/// The links of this host are in standby, and neither chain node nor guard runs; what was ended for that. `None` on an
/// arbiter, which has none of them.
///
/// # Errors
/// Not proven. What could be done was done, unless a coordinator runs: then nothing was.
pub async fn fence(config: Config) -> Result<Option<Ended>> {
    let Some(chain) = &config.chain else { return Ok(None) };
    may_see_processes(&config)?;
    let run_dir = &config.run_dir;
    std::fs::create_dir_all(run_dir).map_err(|error| not_created("member.run_dir", run_dir, &error))?;
    let _in_its_place = match admin::bind(&config.run_dir) {
        Ok(listener) => InItsPlace { socket: config.run_dir.join(admin::SOCKET_NAME), _listener: listener },
        Err(AdminError::Live { path }) => bail!(
            "a coordinator runs on this host ({}) and would start the chain node again; stop it first, with SIGKILL if \
             it hangs",
            path.display()
        ),
        Err(other) => return Err(other.into()),
    };
    let driver = Driver::new(chain, &config.state_dir, key_reader()?)?;
    let links = HostLinks::of(&config.run_dir, chain, driver.links());
    let switched = KeyLinks::new(links.switched.clone())?;
    // A node that is started meanwhile, by whomever, finds no key; but it is the proof below that counts.
    let links_first = links.lay_routes().and_then(|()| Ok(switched.to_standby()?));
    let ended = guard_client::end_all(&guard_settings(&config, &links)?, chain.stop_timeout).await?;
    // Once more: a guard of another configuration may have held other links.
    links_first
        .and_then(|()| Ok(switched.to_standby()?))
        .context("no chain node runs, but the links are not in standby")?;
    Ok(Some(ended))
}

/// Keeps any coordinator from starting while it is there. Its socket goes with it: one of root's would keep out a
/// coordinator of another user for good, who may not even ask whether somebody listens.
struct InItsPlace {
    socket: PathBuf,
    _listener: UnixListener,
}

impl Drop for InItsPlace {
    fn drop(&mut self) {
        // It still listens, so that this is its own. What stays is in the way of another user alone, who is told so.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// To a stranger, the processes of this member show no marker: he would find nothing and take it for proof.
fn may_see_processes(config: &Config) -> Result<()> {
    let me = rustix::process::geteuid().as_raw();
    let Ok(owner) = std::fs::metadata(&config.state_dir).map(|dir| dir.uid()) else { return Ok(()) };
    if me != 0 && me != owner {
        let dir = config.state_dir.display();
        bail!("{dir} belongs to user {owner}, and this is user {me}; fence as that user, or as root");
    }
    Ok(())
}
