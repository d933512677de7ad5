//! The threads of `baton run`. The one that carries the lease runs at a real-time priority where the host allows it.
//!
//! The guard runs at priority 2. At 1 runs the main thread, which carries Raft, gossip and the transport and performs
//! the core's actions. It is one thread, since two would wake each other for every message. It waits for no disk and
//! never spins for a thread without a priority; what it shares with one is locked for the copy of a value, and children
//! are reaped without the priority (`base/realtime.rs`). Whatever
//! waits for disks runs on the runtime's other threads, in `store-writer`, and in sled's own. Those of sled spin for
//! one another and stay ordinary for that reason; no renewal passes through them.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tracing::info;

use crate::base::realtime::{self, Priority};
use crate::base::timing::Timing;

/// Runs all that carries the lease on the thread that blocks on it. Its other threads, which wait for disks, keep the
/// ordinary priority.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().thread_name("baton-disk").enable_all().build()
}

/// What an operator should know of a lease that only a real-time priority keeps on a busy host, where the user who asks
/// may not take one. Where the log decides what is signed, a lease that is lost and won again costs no signature.
pub(super) fn priority_warning(timing: &Timing, by_log: bool) -> Option<String> {
    if timing.lease() >= Timing::LAN.lease() || by_log {
        return None;
    }
    // On a thread that ends: nothing else is to have it.
    let taken = std::thread::spawn(|| realtime::take(Priority::Guard)).join().ok()?;
    let reason = taken.err()?;
    Some(format!(
        "timing.lease = {:?} needs the real-time priority {}, which this user may not take here ({reason}): a busy host \
         loses its lease; {}",
        timing.lease(),
        Priority::Guard.number(),
        how_to_allow()
    ))
}

/// The calling thread becomes the one that carries the lease.
pub(super) fn carry_the_lease() {
    match realtime::take(Priority::Coordinator) {
        Ok(()) => {
            info!(
                priority = Priority::Coordinator.number(),
                "the thread that carries the lease has a real-time priority"
            );
        }
        Err(error) => info!(
            %error,
            "no real-time priority, going on without: a starved host may lose its lease; {}",
            how_to_allow()
        ),
    }
}

fn how_to_allow() -> String {
    format!("allow it with LimitRTPRIO={} in the systemd unit, or CAP_SYS_NICE", Priority::Guard.number())
}
