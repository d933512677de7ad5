//! The threads of `baton run`. Those that carry the lease run at a real-time priority where the host allows it.
//!
//! The guard runs at priority 2. At 1 runs the main thread, which carries Raft, gossip and the transport and performs
//! the core's actions. It is one thread, since two would wake each other for every message. It waits for no disk and
//! never spins for a thread without a priority; what it shares with one is locked for the copy of a value. Whatever
//! waits for disks runs on the runtime's other threads, in `store-writer`, and in sled's own. Those of sled spin for
//! one another and stay ordinary for that reason; no renewal passes through them.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tracing::info;

use crate::base::realtime::{self, Priority};

/// Runs all that carries the lease on the thread that blocks on it. Its other threads, which wait for disks, keep the
/// ordinary priority.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().thread_name("baton-disk").enable_all().build()
}

/// The calling thread becomes the one that carries the lease.
pub(super) fn carry_the_lease() {
    let (own, guard) = (Priority::Coordinator.number(), Priority::Guard.number());
    match realtime::take(Priority::Coordinator) {
        Ok(()) => info!(priority = own, "the thread that carries the lease has a real-time priority"),
        Err(error) => info!(
            %error,
            "no real-time priority, going on without: a starved host may lose its lease; allow it with \
             LimitRTPRIO={guard} in the systemd unit, or CAP_SYS_NICE"
        ),
    }
}
