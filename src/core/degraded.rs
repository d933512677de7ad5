//! Whether the own chain node still does what a holder's must. It decides about liveness only: a holder
//! that does badly lets go when somebody else is ready, and stays put otherwise.

use std::time::Duration;

use crate::core::Core;
use crate::core::event::Action;
use crate::core::tenure::Reason;
use crate::time::{BootTime, Now};

impl Core {
    /// A node whose head moves is not stuck, however far it lags; nor is one on a chain of slow blocks
    /// that merely hears of the next one a little later.
    pub(in crate::core) fn compare_heads(&mut self, now: BootTime) {
        let height = self.host.height();
        let behind = self.peers.values().any(|peer| peer.reachable && peer.height > height);
        let moved_at = self.host.head_moved_at();
        self.behind_since = match self.behind_since {
            _ if !behind => None,
            Some(since) if since >= moved_at => Some(since),
            Some(_) | None => Some(now),
        };
    }

    /// For how long the head has stood still behind another host's, when that is too long.
    pub(in crate::core) fn stuck_for(&self, now: BootTime) -> Option<Duration> {
        let behind_for = now.since(self.behind_since?);
        (behind_for >= self.settings.head_still_max).then_some(behind_for)
    }

    /// A leader with a disk that hangs commits nothing, and proves nothing of its node; its heartbeats need no disk, and
    /// would keep everybody loyal. So it waits for none of these, when somebody is ready.
    pub(in crate::core) fn leave_hung_disk(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.lead.is_some() && self.host.has_hung_disk() && self.best_target().is_some() {
            self.resign(now, Reason::DiskHung, out);
        }
    }

    /// Why a holder's node is unfit; `None` while it does well.
    pub(in crate::core) fn degraded(&self, now: BootTime) -> Option<Reason> {
        if self.host.is_unhealthy() {
            Some(Reason::ProbeFailed)
        } else if self.host.out_of_sync_for(now) >= self.settings.head_still_max {
            Some(Reason::OutOfSync)
        } else if self.host.few_peers_for(now) >= self.settings.head_still_max {
            Some(Reason::FewPeers)
        } else {
            self.stuck_for(now).map(|_| Reason::HeadStuck)
        }
    }
}
