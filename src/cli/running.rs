//! What `baton check` asks the coordinator that runs beside the file: whether the members are configured as the file
//! says where they are meant to be alike. A coordinator that does not run, or not yet, is nothing to complain about.

use super::client::Client;
use super::reach::Place;
use super::{Failure, runtime};
use crate::cluster::wire::proto::SettlingRules;
use crate::config::Config;
use crate::operator::admin::SOCKET_NAME;
use crate::operator::explain::differences_to;

/// A line for each member that is configured otherwise.
pub(super) fn warnings(config: &Config) -> Result<Vec<String>, Failure> {
    let socket = config.run_dir.join(SOCKET_NAME);
    if !socket.exists() {
        return Ok(Vec::new());
    }
    let asked = runtime()?.block_on(async { Client::connect(Place::Socket(socket)).await?.status().await });
    // The own coordinator counts as well: it runs with what its file said when it was started.
    let (timing, settling) = (config.timing.into(), config.chain.as_ref().and_then(SettlingRules::of));
    Ok(asked.map(|status| differences_to(&timing, settling.as_ref(), "this file", &status.members)).unwrap_or_default())
}
