//! The threads of `baton run`. Those that carry the lease run at a real-time priority where the host allows it.
//!
//! The guard runs at priority 2. At 1 run the two workers of the runtime, which carry Raft, gossip and the transport,
//! and the main thread, which performs the core's actions. They never spin for a thread without a priority, and what
//! they share with one is locked for the copy of a value. Whatever waits for disks runs on the runtime's other
//! threads, in `store-writer`, and in sled's own. Those of sled spin for one another and stay ordinary for that
//! reason; no renewal passes through them.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Runtime};
use tracing::info;

use crate::base::realtime::{self, Priority};

const WORKERS: usize = 2;

/// Runs Raft, gossip and the driver. Its other threads, which wait for disks, keep the ordinary priority.
pub(super) fn runtime() -> io::Result<Runtime> {
    let started = AtomicUsize::new(0);
    let on_start = move || {
        // The workers are the first threads of a runtime.
        if started.fetch_add(1, Ordering::Relaxed) < WORKERS {
            // What is refused here is refused and told in `carry_the_lease`.
            let _ = realtime::take(Priority::Coordinator);
        }
    };
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("baton")
        .on_thread_start(on_start)
        .enable_all()
        .build()
}

/// The calling thread becomes one of those that carry the lease.
pub(super) fn carry_the_lease() {
    let (own, guard) = (Priority::Coordinator.number(), Priority::Guard.number());
    match realtime::take(Priority::Coordinator) {
        Ok(()) => info!(priority = own, "the threads that carry the lease have a real-time priority"),
        Err(error) => info!(
            %error,
            "no real-time priority, going on without: a starved host may lose its lease; allow it with \
             LimitRTPRIO={guard} in the systemd unit, or CAP_SYS_NICE"
        ),
    }
}
