//! `baton run`, and `baton check`, which says what that would be refused for.

use std::process::ExitCode;

use anyhow::Context;

use super::config_file::ConfigFile;
use super::log::{self, LogFormat};
use super::{Failure, bad_input, containment, print, running, runtime, threads};
use crate::config::{Config, check_keys};
use crate::coordinator::{self, Beside, KeyUse};

pub(super) fn run(
    config: Config,
    stop_node: bool,
    key_use: KeyUse,
    log_format: Option<LogFormat>,
) -> Result<ExitCode, Failure> {
    #[cfg(feature = "left-out-rules")]
    leave_out_a_rule()?;
    check_keys(&config).map_err(bad_input)?;
    let filter = log::filter().map_err(Failure::BadInput)?;
    let log_format = LogFormat::chosen(log_format).map_err(Failure::BadInput)?;
    let member = config.id.clone();
    let mixed = mixed_log(&config, log_format);
    let runtime = threads::runtime().context("start the runtime").map_err(Failure::Failed)?;
    runtime.block_on(async {
        let prepared = coordinator::prepare(config, key_use).await.map_err(Failure::BadInput)?;
        // Not earlier: a start that is refused says why in one line, and nothing before it.
        let _log = log::start(log_format, filter, &member).map_err(Failure::BadInput)?;
        // Not earlier either: the store's threads begin where they are started from.
        threads::carry_the_lease();
        for warning in prepared.warnings() {
            tracing::warn!("{warning}");
        }
        if let Some(warning) = mixed {
            tracing::warn!("{warning}");
        }
        prepared.run(stop_node, log_format.of_guard()).await.map_err(Failure::Failed)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// By `BATON_WITHOUT`: for tests of what the records of such a coordinator show.
#[cfg(feature = "left-out-rules")]
fn leave_out_a_rule() -> Result<(), Failure> {
    use crate::core::left_out::{LeftOut, leave_out};
    let Ok(name) = std::env::var("BATON_WITHOUT") else { return Ok(()) };
    let rule = LeftOut::ALL.into_iter().find(|rule| format!("{rule:?}") == name);
    let unknown = || Failure::BadInput(anyhow::anyhow!("BATON_WITHOUT={name} is none of {:?}", LeftOut::ALL));
    leave_out(rule.ok_or_else(unknown)?);
    eprintln!("baton: runs without {name}, and is not safe");
    Ok(())
}

fn mixed_log(config: &Config, format: LogFormat) -> Option<String> {
    let mixed = format == LogFormat::Json && config.chain.as_ref().is_some_and(|chain| chain.log.is_none());
    mixed
        .then(|| "chain.log is not set: what the chain node says stands between these lines, and is no JSON".to_owned())
}

pub(super) fn check(file: &ConfigFile) -> Result<ExitCode, Failure> {
    let config = file.load()?;
    check_keys(&config).map_err(bad_input)?;
    log::filter().map_err(Failure::BadInput)?;
    let mixed = mixed_log(&config, LogFormat::chosen(None).map_err(Failure::BadInput)?);
    let own = running::ask(&config)?;
    let beside = match &own {
        Some(status) => Beside::OwnCoordinator {
            agreed_key: status.sign_log.as_ref().filter(|log| !log.closed).map(|log| log.key.clone()),
        },
        None => Beside::Nothing,
    };
    let of_start = runtime()?.block_on(coordinator::rehearse(&config, beside)).map_err(Failure::BadInput)?;
    let on_host = runtime()?.block_on(coordinator::check_host(&config)).map_err(Failure::BadInput)?;
    let contained = config.chain.as_ref().map(containment::check).transpose();
    let contained = contained.map_err(|error| Failure::BadInput(anyhow::anyhow!(error)))?;
    let of_members = own.map(|status| running::differing(&config, &status)).unwrap_or_default();
    let by_log = config.chain.as_ref().is_some_and(|chain| chain.signer.is_some());
    let priority = threads::priority_warning(&config.timing, by_log);
    let found = of_start.iter().chain(&on_host).chain(&of_members).chain(&priority).chain(&mixed);
    let mut text = String::new();
    for warning in config.warnings.iter().chain(found) {
        text.push_str(&format!("warning: {warning}\n"));
    }
    contained.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    let (path, members) = (file.path(), config.cluster.members.len());
    text.push_str(&format!("{}: ok; {} of {members} members\n", path.display(), config.id));
    print(&text);
    Ok(ExitCode::SUCCESS)
}
