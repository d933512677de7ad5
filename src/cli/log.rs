//! Where the log of `baton run` goes: standard error, for people or as JSON. BATON_LOG says how much.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::filter::EnvFilter;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    Human,
    Json,
}

/// Said first, so that whatever BATON_LOG says of the same module wins.
const QUIET: &str = "info,openraft=error,sled=warn";

/// What BATON_LOG asks for. Nothing is logged yet.
pub(super) fn filter() -> anyhow::Result<EnvFilter> {
    let wanted = std::env::var("BATON_LOG").unwrap_or_default();
    EnvFilter::builder()
        .parse(format!("{QUIET},{wanted}").trim_end_matches(','))
        .with_context(|| format!("BATON_LOG={wanted:?}: write a level (error, warn, info, debug, trace)"))
}

/// Starts the log of this process.
pub(super) fn start(format: LogFormat, filter: EnvFilter) -> anyhow::Result<()> {
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Human => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("start the log: {error}"))
}
