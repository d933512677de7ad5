//! A host whose `[timing]` is another one than before, and so perhaps than the others': one step of a change host by
//! host. It is put back when the round is over, or stays until the next such fault, so that the leases of the hosts
//! differ while other faults strike.

use std::time::Duration;

use anyhow::Result;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::net::Net;
use crate::process::launch;
use crate::runs::timing::{self, Timing};

/// An operator's patience with a coordinator that is to end: one that is cut off cannot hand over.
const GRACE: Duration = Duration::from_secs(3);
/// A coordinator that finds its guard stopped serves late.
const SERVE_BOUND: Duration = Duration::from_secs(10);

pub struct Retimed {
    before: Timing,
    now: Timing,
    /// Its coordinator told that it runs with `now`.
    seen: bool,
    stays: bool,
    grace: Duration,
}

/// The coordinator of `host` is restarted, or crashes and is started, with another timing.
pub fn retime(net: &Net, host: &str, rng: &mut StdRng) -> Result<Retimed> {
    let before = timing::written(net, host)?;
    let others: Vec<Timing> = Timing::ALL.into_iter().filter(|timing| *timing != before).collect();
    let now = others[rng.random_range(0..others.len())];
    let grace = if rng.random_bool(0.5) { GRACE } else { Duration::ZERO };
    let stays = rng.random_bool(0.5);
    start_with(net, host, now, grace)?;
    let seen = timing::await_in_force(net, host, now, SERVE_BOUND).is_ok();
    Ok(Retimed { before, now, seen, stays, grace })
}

impl Retimed {
    /// True when the host ran with the other timing.
    pub fn put_right(self, net: &Net, host: &str) -> Result<bool> {
        let seen = self.seen || timing::in_force(net, host).is_ok_and(|timing| timing == self.now);
        if !self.stays {
            start_with(net, host, self.before, self.grace)?;
        }
        Ok(seen)
    }
}

fn start_with(net: &Net, host: &str, timing: Timing, grace: Duration) -> Result<()> {
    timing::write(net, host, timing)?;
    timing::end(net, host, grace)?;
    launch::start_coordinator(net, host)
}

/// What the hosts are to run with, by their files.
pub fn leases(net: &Net) -> Result<Vec<Duration>> {
    net.hosts.iter().map(|host| timing::written(net, &host.id).map(Timing::lease)).collect()
}
