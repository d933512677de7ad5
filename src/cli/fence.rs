//! `baton fence`: says what was ended on this host, or that it is not certain.

use std::process::ExitCode;

use super::config_file::ConfigFile;
use super::{Failure, print, runtime};
use crate::host::guard_client::Ended;

/// 0 only when it is proven that nothing of this host signs.
pub(super) fn fence(file: &ConfigFile) -> Result<ExitCode, Failure> {
    let config = file.load_without_keys()?;
    let member = config.id.clone();
    let fenced = runtime()?.block_on(crate::coordinator::fence(config));
    let ended = fenced.map_err(|error| Failure::Failed(error.context("fence: not proven")))?;
    print(&match ended {
        Some(ended) => format!("{member} is fenced: links in standby, {}\n", what_ran(&ended)),
        None => format!("{member} is an arbiter: it has no key and no chain node\n"),
    });
    Ok(ExitCode::SUCCESS)
}

fn what_ran(ended: &Ended) -> String {
    let Ended { guard, node, strays } = ended;
    let mut ran: Vec<String> = node.iter().map(|pid| format!("chain node {pid}")).collect();
    ran.extend(guard.iter().map(|pid| format!("guard {pid}")));
    ran.extend(strays.iter().map(|pid| format!("left-over process {pid}")));
    if ran.is_empty() { "no chain node ran".to_owned() } else { format!("ended: {}", ran.join(", ")) }
}
