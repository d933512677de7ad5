//! `baton run` before anything runs: the way of a start, with what it needs taken and opened. It touches no link and no
//! process, and refuses with one sentence. `cli` calls [`prepare`], then [`Prepared::run`].

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::net::{TcpListener, UnixListener};

use super::agreed_key::agreed_key;
use super::links::HostLinks;
use super::place::Place;
use super::start::{self, Means, OfChain, Ready, Stored, not_bound};
use crate::base::guard_frame::WatchdogSpec;
use crate::base::service_manager::ServiceManager;
use crate::base::time::BootTime;
use crate::cluster::store::{MarkFile, Opened, PromiseFile, Reserve, Store, check_origin, count_start};
use crate::cluster::transport::Certificates;
use crate::config::{Chain, Config};
use crate::host::chain::Driver;
use crate::operator::admin;
use crate::operator::exporter;

/// A coordinator that has checked and opened all it needs, and touched no link and no process.
pub struct Prepared {
    pub(super) config: Config,
    pub(super) chain: Option<(Driver, HostLinks)>,
    pub(super) certificates: Option<Certificates>,
    pub(super) opened: Opened,
    /// The number of this one, by the store.
    pub(super) start: u64,
    /// Room for votes on a full disk.
    pub(super) reserve: Arc<Reserve>,
    pub(super) mark_file: MarkFile,
    pub(super) promises: PromiseFile,
    /// The longest promise that an earlier run may have left.
    pub(super) remembered: Duration,
    /// It is a guess: the file that had it could not be read.
    pub(super) promise_lost: bool,
    pub(super) listener: TcpListener,
    pub(super) admin: UnixListener,
    pub(super) metrics: Option<TcpListener>,
    /// Of what was found on the way.
    warnings: Vec<String>,
    pub(super) manager: ServiceManager,
    /// Marks the chain node's home and the validator's key as taken.
    pub(super) place: Option<Place>,
}

/// What an operator says about the validator key at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// It signed under the cluster's eyes only.
    InCluster,
    /// It may have signed elsewhere since the cluster let go of it.
    OutsideToo,
}

/// # Errors
/// What is wrong with configuration, keys, links, store or addresses. Nothing runs then.
pub async fn prepare(config: Config, key_use: KeyUse) -> Result<Prepared> {
    let manager = ServiceManager::from_environment()?;
    let ready = start::go(&config, key_use, &Taking).await?;
    let Ready { admin, chain, certificates, listener, metrics, store: (opened, reserve), .. } = ready;
    let Ready { mark_file, mut promises, remembered, promise_lost, warnings, .. } = ready;
    let (chain, place) = match chain {
        Some(OfChain { driver, links, home }) => (Some((driver, links)), home),
        None => (None, None),
    };
    let start = count_start(&config.state_dir)?;
    promises.note(config.timing.promise(), BootTime::now())?;
    Ok(Prepared {
        config,
        chain,
        certificates,
        opened,
        start,
        reserve,
        mark_file,
        promises,
        remembered,
        promise_lost,
        listener,
        admin,
        metrics,
        warnings,
        manager,
        place,
    })
}

struct Taking;

impl Means for Taking {
    type Admin = UnixListener;
    type Home = Place;
    type Listener = TcpListener;
    type Store = (Opened, Arc<Reserve>);

    fn directory(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn admin(&self, run_dir: &Path) -> Result<UnixListener> {
        Ok(admin::bind(run_dir)?)
    }

    fn looks_into(&self, _: &Path) -> bool {
        true
    }

    async fn home(&self, config: &Config, chain: &Chain, driver: &Driver) -> Result<Place> {
        driver.lay().await?;
        Place::take(config, chain).await
    }

    async fn peers(&self, listen: SocketAddr, _: &mut Vec<String>) -> Result<TcpListener> {
        TcpListener::bind(listen).await.map_err(|error| not_bound(listen, &error))
    }

    async fn metrics(&self, listen: SocketAddr, _: &mut Vec<String>) -> Result<TcpListener> {
        Ok(exporter::bind(listen).await?)
    }

    /// The guard takes it, and tells whether it can.
    async fn watchdog(&self, _: WatchdogSpec) -> Result<()> {
        Ok(())
    }

    async fn store(&self, config: &Config) -> Result<((Opened, Arc<Reserve>), Stored)> {
        // Before anything is written there: on a full disk it makes room.
        let reserve = Arc::new(Reserve::open(&config.state_dir));
        let opened = Store::open(&config.state_dir, &config.cluster.name, &config.id)?;
        check_origin(&config.state_dir, opened.incarnation)?;
        opened.store.keep(reserve.clone());
        let agreed_key = agreed_key(opened.store.applied().borrow().replicated.sign_log.as_ref()).map(str::to_owned);
        let stored = Stored { released_mark: opened.store.released_mark(), agreed_key };
        Ok(((opened, reserve), stored))
    }
}

impl Prepared {
    /// What an operator should know before it runs; one a line.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.config.warnings.iter().chain(&self.warnings).map(String::as_str)
    }
}
