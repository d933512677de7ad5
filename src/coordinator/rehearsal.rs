//! `baton check`: the way of a start with nothing taken. A start that would be refused is refused here, in the same words,
//! and what it would warn of is told. Nothing is changed.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, anyhow};
use rustix::io::Errno;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

use super::agreed_key::agreed_key;
use super::start::{self, Means, Stored, not_bound};
use super::{Driver, KeyUse};
use crate::base::guard_frame::WatchdogSpec;
use crate::cluster::store::{Look, look};
use crate::config::{Chain, Config};
use crate::host::watchdog;
use crate::operator::admin;
use crate::operator::exporter::{self, ExporterError};

/// What has taken the things that a start takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing of this configuration: they have to be free.
    Nothing,
    /// Its own coordinator, which has them and tells what its store says.
    OwnCoordinator { agreed_key: Option<String> },
}

/// What it returns are warnings, one a line.
///
/// # Errors
/// For which `baton run` would refuse to start.
pub async fn rehearse(config: &Config, beside: Beside) -> Result<Vec<String>> {
    Ok(start::go(config, KeyUse::InCluster, &Looking { beside }).await?.warnings)
}

struct Looking {
    beside: Beside,
}

impl Looking {
    fn has_to_be_free(&self) -> bool {
        self.beside == Beside::Nothing
    }
}

impl Means for Looking {
    type Admin = ();
    type Home = ();
    type Listener = ();
    type Store = ();

    /// As far as that does not depend on the user.
    fn directory(&self, dir: &Path) -> io::Result<()> {
        let in_the_way = dir.ancestors().find_map(|place| Some((place, place.metadata().ok()?)));
        match in_the_way {
            Some((place, found)) if !found.is_dir() => {
                Err(if place == dir { Errno::EXIST } else { Errno::NOTDIR }.into())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn admin(&self, run_dir: &Path) -> Result<()> {
        if self.has_to_be_free() {
            admin::look(run_dir)?;
        }
        Ok(())
    }

    fn looks_into(&self, home: &Path) -> bool {
        home.exists()
    }

    /// Who else has it is found by [`super::check_host`].
    async fn home(&self, _: &Config, _: &Chain, _: &Driver) -> Result<()> {
        Ok(())
    }

    async fn peers(&self, listen: SocketAddr, warnings: &mut Vec<String>) -> Result<()> {
        if !self.has_to_be_free() {
            return Ok(());
        }
        match TcpListener::bind(listen).await {
            Ok(_) => {}
            Err(error) if is_elsewhere(&error) => warnings.push(not_here("cluster.listen", listen, &error)),
            Err(error) => return Err(not_bound(listen, &error)),
        }
        Ok(())
    }

    async fn metrics(&self, listen: SocketAddr, warnings: &mut Vec<String>) -> Result<()> {
        if !self.has_to_be_free() {
            return Ok(());
        }
        match exporter::bind(listen).await {
            Ok(_) => {}
            Err(ExporterError::Bind { source, .. }) if is_elsewhere(&source) => {
                warnings.push(not_here("metrics.listen", listen, &source));
            }
            Err(error) => return Err(anyhow!(error)),
        }
        Ok(())
    }

    async fn watchdog(&self, spec: WatchdogSpec) -> Result<()> {
        if self.has_to_be_free() {
            spawn_blocking(move || watchdog::fit(&spec.device, spec.timeout_max))
                .await?
                .map_err(|reason| anyhow!("watchdog.device: {reason}"))?;
        }
        Ok(())
    }

    async fn store(&self, config: &Config) -> Result<((), Stored)> {
        if let Beside::OwnCoordinator { agreed_key } = &self.beside {
            return Ok(((), Stored { released_mark: None, agreed_key: agreed_key.clone() }));
        }
        let (state_dir, cluster, id) = (config.state_dir.clone(), config.cluster.name.clone(), config.id.clone());
        let stored = match spawn_blocking(move || look(&state_dir, &cluster, &id)).await?? {
            Look::Nothing => Stored::default(),
            Look::Usable { released_mark, sign_log } => {
                Stored { released_mark, agreed_key: agreed_key(sign_log.as_ref()).map(str::to_owned) }
            }
        };
        Ok(((), stored))
    }
}

/// An address of another machine is a warning: the file may be looked at elsewhere, or before the network is there.
fn is_elsewhere(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
}

fn not_here(key: &str, addr: SocketAddr, error: &io::Error) -> String {
    format!("{key} {addr}: {error}; baton run needs it on this host")
}
