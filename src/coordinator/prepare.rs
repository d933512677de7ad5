//! What a coordinator checks and opens before it runs: keys, links, store, addresses. It touches no link and no
//! process, and refuses with one sentence. `cli` calls [`prepare`], then [`Prepared::run`].

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tokio::net::{TcpListener, UnixListener};

use super::agreed_key::{agreed_key, check_agreed_key};
use super::check;
use super::links::HostLinks;
use super::place::{self, Place};
use crate::base::ids::SignMark;
use crate::base::service_manager::ServiceManager;
use crate::base::time::BootTime;
use crate::cluster::store::{MarkFile, Opened, PromiseFile, Reserve, Store, StoreError, check_origin, count_start};
use crate::cluster::transport::Certificates;
use crate::config::Config;
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
    /// What the chain driver and the mark file warn of.
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
    create_dir("member.run_dir", &config.run_dir)?;
    create_dir("member.state_dir", &config.state_dir)?;
    let admin = admin::bind(&config.run_dir)?;
    let (chain, mut warnings) = match &config.chain {
        Some(chain) => {
            let (driver, links, warnings) = check::look(&config, chain).await?;
            driver.lay().await?;
            (Some((driver, links)), warnings)
        }
        None => (None, Vec::new()),
    };
    let place = match &config.chain {
        Some(chain) => {
            warnings.extend(place::check_probe(&config, chain)?);
            Some(Place::take(&config, chain).await?)
        }
        None => None,
    };
    let certificates = config.tls.as_ref().map(|tls| Certificates::read(tls, &config.id)).transpose();
    let certificates = certificates.map_err(|error| anyhow!("[tls] {error}"))?;
    warnings.extend(certificates.as_ref().and_then(Certificates::expiry_warning));
    let listener =
        TcpListener::bind(config.cluster.listen).await.map_err(|error| not_bound(config.cluster.listen, &error))?;
    let metrics = match config.metrics_listen {
        Some(addr) => Some(exporter::bind(addr).await?),
        None => None,
    };
    // Before anything is written there: on a full disk it makes room.
    let reserve = Arc::new(Reserve::open(&config.state_dir));
    let opened = Store::open(&config.state_dir, &config.cluster.name, &config.id)?;
    check_origin(&config.state_dir, opened.incarnation)?;
    let sign_log = opened.store.applied().borrow().replicated.sign_log.clone();
    if let Some(agreed) = agreed_key(sign_log.as_ref()) {
        check_agreed_key(&config, agreed).await?;
    }
    opened.store.keep(reserve.clone());
    let start = count_start(&config.state_dir)?;
    if let (Some((driver, _)), KeyUse::InCluster) = (&chain, key_use) {
        check_signed(driver, opened.store.released_mark()).await?;
    }
    let (mark_file, unreadable) = MarkFile::open(&config.state_dir);
    warnings.extend(unreadable.map(|error| mark_ignored(&error)));
    let (mut promises, unreadable) = PromiseFile::open(&config.state_dir, BootTime::now());
    let promise_lost = unreadable.is_some();
    warnings.extend(unreadable.map(|error| promise_lost_by(&error, &promises)));
    let remembered = promises.kept();
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

pub(super) fn create_dir(key: &str, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|error| not_created(key, dir, &error))
}

pub(super) fn not_created(key: &str, dir: &Path, error: &io::Error) -> anyhow::Error {
    anyhow!("create {key} {}: {error}; make it for this user, or correct {key}", dir.display())
}

pub(super) fn not_bound(listen: SocketAddr, error: &io::Error) -> anyhow::Error {
    anyhow!("cluster.listen {listen}: {error}; stop what listens there or choose another address of this host")
}

pub(super) fn mark_ignored(error: &StoreError) -> String {
    format!("{error}; it is ignored: with on_halt = \"replica\" this member waits until gossip tells of a mark")
}

pub(super) fn promise_lost_by(error: &StoreError, promises: &PromiseFile) -> String {
    let longest = promises.kept().as_secs();
    format!("{error}; this member votes for nobody for {longest} s, the longest promise that it may have made")
}

/// Invariant (fence 3): the mark of a `Release` is the highest that the key signed. What this host has on record tells
/// when that is not so any more.
pub(super) async fn check_signed(driver: &Driver, released: Option<SignMark>) -> Result<()> {
    let Some(released) = released else { return Ok(()) };
    let Some(signed) = driver.last_signed().await? else { return Ok(()) };
    if released.covers(&signed) {
        return Ok(());
    }
    bail!(
        "this host's record of what the validator key signed is at {signed}, above {released}, where the cluster let go of \
         the key: it was used outside of the cluster since; stop whatever else signs with it, then start baton once \
         with --key-signed-outside, and the next holder waits for a later block"
    )
}

impl Prepared {
    /// What an operator should know before it runs; one a line.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.config.warnings.iter().chain(&self.warnings).map(String::as_str)
    }
}
