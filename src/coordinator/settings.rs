//! What each part of a coordinator is started with, by the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::links::HostLinks;
use crate::base::chain_node::Activation;
use crate::base::guard_frame::{LinesAs, WatchdogSpec};
use crate::base::ids::Role;
use crate::base::signing::Custody;
use crate::config::{self, Config, OnHalt};
use crate::core::Settings;
use crate::host::chain::{Driver, KeyReader};
use crate::host::effects;
use crate::host::guard_client::{GuardSettings, default_binary};
use crate::host::signer_client::{self, SignerSettings};

/// A hot activation is proven within milliseconds, a restarted node may have to replay first.
const ACTIVATION_MAX_HOT: Duration = Duration::from_secs(10);
const ACTIVATION_MAX_RESTART: Duration = Duration::from_secs(120);
/// A holder's head stands still for longer than this only when something is wrong with it.
const HEAD_STILL_MIN: Duration = Duration::from_secs(10);
/// The signer's mark, in `state_dir`.
const SIGNER_MARK: &str = "signer_mark";

pub(super) fn own_member(config: &Config) -> Option<&config::Member> {
    config.cluster.members.iter().find(|member| member.id == config.id)
}

fn guard_binary() -> Result<PathBuf> {
    default_binary().context("find baton-guard beside baton")
}

/// What reads key files for this process, which does not.
pub fn key_reader() -> Result<KeyReader> {
    Ok(KeyReader::new(guard_binary()?))
}

pub(super) fn guard_settings(config: &Config, links: &HostLinks) -> Result<GuardSettings> {
    Ok(GuardSettings {
        binary: guard_binary()?,
        socket: effects::guard_socket(&config.run_dir),
        member: config.id.clone(),
        links: links.switched.clone(),
        log: None,
        lines_as: LinesAs::Text,
        kill_max: config.timing.kill_max(),
        watchdog: watchdog(config),
    })
}

pub(super) fn watchdog(config: &Config) -> Option<WatchdogSpec> {
    let device = config.watchdog.clone()?;
    Some(WatchdogSpec { device, timeout_max: config.timing.watchdog_max() })
}

pub(super) fn signer_settings(config: &Config, section: &config::Signer, lines_as: LinesAs) -> Result<SignerSettings> {
    Ok(SignerSettings {
        binary: signer_client::default_binary().context("find baton-signer beside baton")?,
        key: section.key.clone(),
        mark: config.state_dir.join(SIGNER_MARK),
        lines_as,
    })
}

pub(super) fn core_settings(config: &Config, driver: Option<&Driver>) -> Settings {
    let own = own_member(config);
    let chain = config.chain.as_ref();
    let restarts = chain.is_some_and(|chain| chain.activation == Activation::Restart);
    Settings {
        me: config.id.clone(),
        role: own.map_or(Role::Arbiter, |member| member.role),
        priorities: config.cluster.members.iter().map(|m| (m.id.clone(), m.priority)).collect::<BTreeMap<_, _>>(),
        timing: config.timing,
        unstated_lease: config.older_members_lease,
        failback: config.cluster.failback,
        clock_skew: chain.map_or(Duration::ZERO, |chain| chain.clock_skew),
        node_refuses: driver.is_some_and(Driver::enforces_floor),
        probe_failures_max: chain.map_or(1, |chain| chain.probe.failures),
        min_peers: chain.and_then(|chain| chain.probe.min_peers),
        head_still_max: chain.map_or(HEAD_STILL_MIN, |chain| HEAD_STILL_MIN.max(3 * chain.probe.every)),
        stop_timeout: chain.map_or(Duration::ZERO, |chain| chain.stop_timeout),
        activation_max: if restarts { ACTIVATION_MAX_RESTART } else { ACTIVATION_MAX_HOT },
        settle_max: chain.filter(|chain| chain.on_halt == OnHalt::Replica).map(|chain| chain.halt_after),
        sees_key_on_chain: driver.is_some_and(Driver::sees_key_on_chain),
        custody: chain.map_or(Custody::Links, |chain| chain.custody()),
    }
}
