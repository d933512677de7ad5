//! What [`super::prepare`] creates, takes and opens, looked at for `baton check`: a start that would be refused for it is
//! refused here, in the same words. Nothing is changed. To be asked where no coordinator runs with this configuration.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, anyhow};
use rustix::io::Errno;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

use super::agreed_key::{agreed_key, check_agreed_key};
use super::prepare::{check_signed, mark_ignored, not_bound, not_created, promise_lost_by};
use super::{Driver, key_reader};
use crate::base::time::BootTime;
use crate::cluster::store::{Look, MarkFile, PromiseFile, look};
use crate::config::Config;
use crate::operator::admin;
use crate::operator::exporter::{self, ExporterError};

/// What it returns are warnings, one a line.
///
/// # Errors
/// For which `baton run` would refuse to start.
pub async fn rehearse(config: &Config) -> Result<Vec<String>> {
    for (key, dir) in [("member.run_dir", &config.run_dir), ("member.state_dir", &config.state_dir)] {
        nothing_in_the_way(dir).map_err(|error| not_created(key, dir, &error))?;
    }
    admin::look(&config.run_dir)?;
    let mut warnings = Vec::new();
    warnings.extend(look_at_addresses(config).await?);
    let (state_dir, cluster, id) = (config.state_dir.clone(), config.cluster.name.clone(), config.id.clone());
    let found = spawn_blocking(move || look(&state_dir, &cluster, &id)).await??;
    if let (Some(chain), Look::Usable { released_mark, sign_log }) = (&config.chain, found) {
        if let Some(agreed) = agreed_key(sign_log.as_ref()) {
            check_agreed_key(config, agreed).await?;
        }
        if chain.home.exists() {
            check_signed(&Driver::new(chain, &config.state_dir, key_reader()?)?, released_mark).await?;
        }
    }
    warnings.extend(MarkFile::open(&config.state_dir).1.map(|error| mark_ignored(&error)));
    let (promises, unreadable) = PromiseFile::open(&config.state_dir, BootTime::now());
    warnings.extend(unreadable.map(|error| promise_lost_by(&error, &promises)));
    Ok(warnings)
}

/// Whether `dir` is there or could be made, as far as that does not depend on the user.
fn nothing_in_the_way(dir: &Path) -> io::Result<()> {
    let in_the_way = dir.ancestors().find_map(|place| Some((place, place.metadata().ok()?)));
    match in_the_way {
        Some((place, found)) if !found.is_dir() => Err(if place == dir { Errno::EXIST } else { Errno::NOTDIR }.into()),
        Some(_) | None => Ok(()),
    }
}

/// An address of another machine is a warning: the file may be looked at elsewhere, or before the network is there.
async fn look_at_addresses(config: &Config) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let listen = config.cluster.listen;
    match TcpListener::bind(listen).await {
        Ok(_) => {}
        Err(error) if is_elsewhere(&error) => warnings.push(not_here("cluster.listen", listen, &error)),
        Err(error) => return Err(not_bound(listen, &error)),
    }
    let Some(addr) = config.metrics_listen else { return Ok(warnings) };
    match exporter::bind(addr).await {
        Ok(_) => {}
        Err(ExporterError::Bind { source, .. }) if is_elsewhere(&source) => {
            warnings.push(not_here("metrics.listen", addr, &source));
        }
        Err(error) => return Err(anyhow!(error)),
    }
    Ok(warnings)
}

fn is_elsewhere(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
}

fn not_here(key: &str, addr: SocketAddr, error: &io::Error) -> String {
    format!("{key} {addr}: {error}; baton run needs it on this host")
}
