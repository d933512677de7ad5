//! What `baton check` asks the coordinator that runs beside the file: whether the members have the `[timing]` of the
//! file. A coordinator that does not run, or not yet, is nothing to complain about.

use super::client::Client;
use super::reach::Place;
use super::{Failure, runtime};
use crate::cluster::wire::proto::{StatusResponse, Timing};
use crate::config::Config;
use crate::operator::admin::SOCKET_NAME;
use crate::operator::explain::differences_to;

/// A line for each member that runs with another `[timing]` than the file has.
pub(super) fn timing_warnings(config: &Config) -> Result<Vec<String>, Failure> {
    let socket = config.run_dir.join(SOCKET_NAME);
    if !socket.exists() {
        return Ok(Vec::new());
    }
    let asked = runtime()?.block_on(async { Client::connect(Place::Socket(socket)).await?.status().await });
    Ok(asked.map(|status| compared(config.timing.into(), &status)).unwrap_or_default())
}

/// The own coordinator counts as well: it runs with what its file said when it was started.
fn compared(timing: Timing, status: &StatusResponse) -> Vec<String> {
    differences_to(&timing, "this file", &status.members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire::proto::MemberStatus;

    #[test]
    fn every_member_that_runs_with_another_timing_is_named_the_own_coordinator_too() {
        let member = |id: &str, lease_ns| {
            let timing = Some(Timing { lease_ns, ..Timing::default() });
            MemberStatus { id: id.to_owned(), timing, ..MemberStatus::default() }
        };
        let members = vec![member("host-a", 1), member("host-b", 2), member("host-c", 2)];
        let status = StatusResponse { member: "host-a".to_owned(), members, ..StatusResponse::default() };
        let warned = compared(Timing { lease_ns: 2, ..Timing::default() }, &status);
        assert!(warned.len() == 1 && warned[0].starts_with("host-a has another [timing] than this file"), "{warned:?}");
    }
}
