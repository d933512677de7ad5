//! What `baton check` asks the coordinator that runs beside the file: whether the members are configured as the file
//! says where they are meant to be alike. A coordinator that does not run, or not yet, is nothing to complain about.

use super::client::Client;
use super::reach::Place;
use super::{Failure, runtime};
use crate::cluster::wire::proto::{SettlingRules, StatusResponse};
use crate::config::Config;
use crate::operator::admin::SOCKET_NAME;
use crate::operator::explain::differences_to;

/// What the coordinator that runs with this configuration answers; `None` when none does.
pub(super) fn ask(config: &Config) -> Result<Option<StatusResponse>, Failure> {
    let socket = config.run_dir.join(SOCKET_NAME);
    if !socket.exists() {
        return Ok(None);
    }
    let asked = runtime()?.block_on(async { Client::connect(Place::Socket(socket)).await?.status().await });
    Ok(asked.ok().filter(|status| status.member == config.id.as_str()))
}

/// A line for each member that is configured otherwise. The own coordinator counts as well: it runs with what its file
/// said when it was started.
pub(super) fn differing(config: &Config, status: &StatusResponse) -> Vec<String> {
    let (timing, settling) = (config.timing.into(), config.chain.as_ref().and_then(SettlingRules::of));
    differences_to(&timing, settling.as_ref(), "this file", &status.members)
}
