//! Looks for processes below a chain node that the kernel would not end with the guard, and tells the core. Only where
//! the host gave the node no PID namespace: there, a start script that does not end in `exec` hides the real node.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Hands;
use crate::base::guard_frame::{Containment, NodeProcess};
use crate::core::{Descendant, Event};
use crate::host::guard_client::{GuardClient, beside_node};

/// A look reads the state of every process of the host.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// After something was found, which may have been a passing helper.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Lookout {
    node: Option<u32>,
    next: Option<Instant>,
    found: Option<Descendant>,
}

impl Lookout {
    /// Whoever is about to tell the core that the node is healthy looks first.
    pub(super) async fn look(&mut self, hands: &Hands, node: &NodeProcess) {
        match node.containment {
            Containment::PidNamespace => return,
            Containment::DirectChild => {}
        }
        let now = Instant::now();
        let is_new = self.node != Some(node.pid);
        if !is_new && self.next.is_some_and(|next| now < next) {
            return;
        }
        let Some(guard) = hands.guard().client.as_ref().map(GuardClient::guard_pid) else { return };
        let pid = node.pid;
        let found = match spawn_blocking(move || beside_node(guard, pid)).await {
            Ok(Ok(found)) => found.map(|(pid, name)| Descendant { pid, name }),
            Ok(Err(error)) => {
                warn!(pid, "what runs below the chain node is not known: {error}");
                return;
            }
            // The runtime ends.
            Err(_) => return,
        };
        self.next = Some(now + if found.is_some() { LOOK_AGAIN } else { LOOK_EVERY });
        if is_new || found != self.found {
            match &found {
                Some(below) => warn!(pid, "{below}"),
                None if !is_new => info!(pid, "nothing runs below the chain node any more"),
                None => {}
            }
            (self.node, self.found) = (Some(pid), found.clone());
            hands.core.step(Event::NodeHides { below: found });
        }
    }
}
