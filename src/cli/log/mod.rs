//! Where the log of `baton run` goes: standard error, for people or as JSON. BATON_LOG says how much, BATON_LOG_FORMAT
//! how, unless `--log-format` does.
//!
//! No step of the core waits for standard error. `core_handle` compares what operators are shown before and after
//! every step and tells a change through a channel; a task makes the line; a thread writes it (`lines`), and what it
//! cannot take in time is dropped and counted. The guard's lines are made by `host::guard::say`. The chain node
//! writes its log itself, and `host::effects::node_log` keeps that within bounds.

mod json;
mod lines;

use std::io::IsTerminal;

use anyhow::{Context, bail};
use clap::ValueEnum;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

use crate::base::guard_frame::LinesAs;
use crate::base::ids::NodeId;
use json::JsonLines;
use lines::Lines;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Human,
    Json,
}

impl LogFormat {
    /// What was asked for by `option` or else by the variable; for people when neither says anything.
    pub(super) fn chosen(option: Option<LogFormat>) -> anyhow::Result<LogFormat> {
        let variable = std::env::var("BATON_LOG_FORMAT").unwrap_or_default();
        match (option, variable.as_str()) {
            (Some(format), _) => Ok(format),
            (None, "" | "human") => Ok(LogFormat::Human),
            (None, "json") => Ok(LogFormat::Json),
            (None, other) => bail!("BATON_LOG_FORMAT={other:?}: write human or json"),
        }
    }

    /// The same for the guard.
    pub(super) fn of_guard(self) -> LinesAs {
        match self {
            LogFormat::Human => LinesAs::Text,
            LogFormat::Json => LinesAs::Json,
        }
    }
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

/// The log of this process. Whoever holds it says at the end that it is the end.
pub(super) struct Log(Lines);

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Starts the log of this process, which is that of `member`.
pub(super) fn start(format: LogFormat, filter: Targets, member: &NodeId) -> anyhow::Result<Log> {
    let log = Lines::to(std::io::stderr()).context("start the thread of the log")?;
    let lines = fmt::layer().with_writer(log.clone()).with_target(false);
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.event_format(JsonLines { member: member.to_string() }).boxed(),
    };
    registry().with(lines.with_filter(filter)).try_init().context("start the log")?;
    Ok(Log(log))
}
