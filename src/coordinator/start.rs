//! The way of a start: what is asked for, in which order, for what it is refused and of what it warns. `baton run`
//! ([`super::prepare`]) and `baton check` ([`super::rehearse`]) both go this one way. They differ in their [`Means`]: the
//! one takes what it needs, the other looks whether it could be taken.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use super::agreed_key::check_agreed_key;
use super::links::HostLinks;
use super::{Driver, KeyUse, key_reader, place, settings};
use crate::base::guard_frame::WatchdogSpec;
use crate::base::ids::SignMark;
use crate::base::time::BootTime;
use crate::cluster::store::{MarkFile, PromiseFile};
use crate::cluster::transport::Certificates;
use crate::config::{Chain, Config, check_hooks};
use crate::host::upgrade::Upgrades;

/// How the steps of a start are done that take something of the host. Each error is one for which a start is refused.
pub(super) trait Means {
    type Admin;
    type Home;
    type Listener;
    type Store;

    /// `dir` is there, or could be.
    fn directory(&self, dir: &Path) -> io::Result<()>;

    /// The admin socket is no other coordinator's.
    fn admin(&self, run_dir: &Path) -> Result<Self::Admin>;

    /// Whether the chain node's home is looked into: a host may be checked before its chain node is initialised.
    fn looks_into(&self, home: &Path) -> bool;

    /// The chain node's home, found sound, is this coordinator's.
    async fn home(&self, config: &Config, chain: &Chain, driver: &Driver) -> Result<Self::Home>;

    /// Other members can reach `listen`, or a warning was given.
    async fn peers(&self, listen: SocketAddr, warnings: &mut Vec<String>) -> Result<Self::Listener>;

    /// The same of monitors.
    async fn metrics(&self, listen: SocketAddr, warnings: &mut Vec<String>) -> Result<Self::Listener>;

    /// The device that `spec` names resets this host in time for the lease.
    async fn watchdog(&self, spec: WatchdogSpec) -> Result<()>;

    /// The store can be used.
    async fn store(&self, config: &Config) -> Result<(Self::Store, Stored)>;
}

/// What the store says of the key.
#[derive(Default)]
pub(super) struct Stored {
    /// Where the last holder let go of it, exactly.
    pub(super) released_mark: Option<SignMark>,
    /// That of which the log decides; `None` where it decides of none.
    pub(super) agreed_key: Option<String>,
}

/// What a start that is not refused goes on with.
pub(super) struct Ready<M: Means> {
    pub(super) admin: M::Admin,
    pub(super) chain: Option<OfChain<M>>,
    pub(super) certificates: Option<Certificates>,
    pub(super) listener: M::Listener,
    pub(super) metrics: Option<M::Listener>,
    pub(super) store: M::Store,
    pub(super) mark_file: MarkFile,
    pub(super) promises: PromiseFile,
    /// The longest promise that an earlier run may have left.
    pub(super) remembered: Duration,
    /// It is a guess: the file that had it could not be read.
    pub(super) promise_lost: bool,
    /// One a line.
    pub(super) warnings: Vec<String>,
}

pub(super) struct OfChain<M: Means> {
    pub(super) driver: Driver,
    pub(super) links: HostLinks,
    /// `None` where the home was not looked into.
    pub(super) home: Option<M::Home>,
}

/// The whole way. Touches no link and no process.
///
/// # Errors
/// The first thing for which a start is refused, in one sentence.
pub(super) async fn go<M: Means>(config: &Config, key_use: KeyUse, means: &M) -> Result<Ready<M>> {
    check_hooks(&config.hooks)?;
    for (key, dir) in [("member.run_dir", &config.run_dir), ("member.state_dir", &config.state_dir)] {
        means.directory(dir).map_err(|error| not_created(key, dir, &error))?;
    }
    let admin = means.admin(&config.run_dir)?;
    let mut warnings = Vec::new();
    let chain = match &config.chain {
        Some(chain) => Some(go_to_chain(config, chain, means, &mut warnings).await?),
        None => None,
    };
    if let Some(spec) = settings::watchdog(config) {
        means.watchdog(spec).await?;
    }
    let certificates = config.tls.as_ref().map(|tls| Certificates::read(tls, &config.id)).transpose();
    let certificates = certificates.map_err(|error| anyhow!("[tls] {error}"))?;
    warnings.extend(certificates.as_ref().and_then(Certificates::expiry_warning));
    let listener = means.peers(config.cluster.listen, &mut warnings).await?;
    let metrics = match config.metrics_listen {
        Some(listen) => Some(means.metrics(listen, &mut warnings).await?),
        None => None,
    };
    let (store, Stored { released_mark, agreed_key }) = means.store(config).await?;
    if let Some(agreed) = agreed_key {
        check_agreed_key(config, &agreed).await?;
    }
    if let (Some(OfChain { driver, home: Some(_), .. }), KeyUse::InCluster) = (&chain, key_use) {
        check_signed(driver, released_mark).await?;
    }
    let (mark_file, unreadable) = MarkFile::open(&config.state_dir);
    warnings.extend(unreadable.map(|error| {
        format!("{error}; it is ignored: with on_halt = \"replica\" this member waits until gossip tells of a mark")
    }));
    let (promises, unreadable) = PromiseFile::open(&config.state_dir, BootTime::now());
    let (remembered, promise_lost) = (promises.kept(), unreadable.is_some());
    warnings.extend(unreadable.map(|error| {
        let longest = remembered.as_secs();
        format!("{error}; this member votes for nobody for {longest} s, the longest promise that it may have made")
    }));
    Ok(Ready {
        admin,
        chain,
        certificates,
        listener,
        metrics,
        store,
        mark_file,
        promises,
        remembered,
        promise_lost,
        warnings,
    })
}

/// What works with the chain node.
async fn go_to_chain<M: Means>(
    config: &Config,
    chain: &Chain,
    means: &M,
    warnings: &mut Vec<String>,
) -> Result<OfChain<M>> {
    if let Some(settings) = &chain.upgrade {
        Upgrades::new(settings.clone()).check().map_err(|error| anyhow!("[upgrade] {error}"))?;
    }
    let driver = Driver::new(chain, &config.state_dir, key_reader()?)?;
    let links = HostLinks::of(&config.run_dir, chain, driver.links());
    let looks_into = means.looks_into(&chain.home);
    if looks_into {
        links.check()?;
        warnings.extend(driver.inspect().await?);
    } else {
        warnings.extend(driver.inspect_without_home().await?);
    }
    warnings.extend(place::check_probe(config, chain)?);
    let home = if looks_into { Some(means.home(config, chain, &driver).await?) } else { None };
    Ok(OfChain { driver, links, home })
}

pub(super) fn not_created(key: &str, dir: &Path, error: &io::Error) -> anyhow::Error {
    anyhow!("create {key} {}: {error}; make it for this user, or correct {key}", dir.display())
}

pub(super) fn not_bound(listen: SocketAddr, error: &io::Error) -> anyhow::Error {
    anyhow!("cluster.listen {listen}: {error}; stop what listens there or choose another address of this host")
}

/// Invariant (fence 3): the mark of a `Release` is the highest that the key signed. What this host has on record tells
/// when that is not so any more.
async fn check_signed(driver: &Driver, released: Option<SignMark>) -> Result<()> {
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
