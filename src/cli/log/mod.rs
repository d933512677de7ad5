//! Where the log of `baton run` goes: standard error, for people or as JSON. BATON_LOG says how much.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    Human,
    Json,
}

/// Said first, so that whatever BATON_LOG says of the same module wins.
const QUIET: &str = "info,openraft=error,sled=warn";

/// What BATON_LOG asks for. Nothing is logged yet.
pub(super) fn filter() -> anyhow::Result<Targets> {
    let wanted = std::env::var("BATON_LOG").unwrap_or_default();
    let all = format!("{QUIET},{wanted}");
    all.trim_end_matches(',')
        .parse()
        .with_context(|| format!("BATON_LOG={wanted:?}: write a level (error, warn, info, debug, trace)"))
}

/// Starts the log of this process.
pub(super) fn start(format: LogFormat, filter: Targets) -> anyhow::Result<()> {
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    registry().with(lines.with_filter(filter)).try_init().context("start the log")
}
