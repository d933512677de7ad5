//! Whether the own chain node still does what a holder's must. It decides about liveness only: a holder that does badly
//! lets go when somebody else is ready, and stays put otherwise. And how far a node that syncs is behind, which is for
//! people alone.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::signing::Custody;
use crate::base::time::{BootTime, Now};
use crate::core::Core;
use crate::core::event::Action;
use crate::core::tenure::Reason;

/// For so long a node's progress is watched before anybody is told when it ends.
const PACE_AFTER: Duration = Duration::from_secs(5);

/// How far a syncing node is behind the highest head that was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    pub blocks: u64,
    /// By the pace so far; `None` while it does not come closer.
    pub left: Option<Duration>,
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lag { blocks, left } = self;
        let (number, s) = (blocks, if *blocks == 1 { "" } else { "s" });
        write!(f, "{number} block{s} behind another host")?;
        match left.map(|left| left.as_secs()) {
            None => Ok(()),
            Some(secs) if secs < 120 => write!(f, ", for about {} s more", secs.max(1)),
            Some(secs) if secs < 7200 => write!(f, ", for about {} min more", secs / 60),
            Some(secs) => write!(f, ", for about {} h more", secs / 3600),
        }
    }
}

/// Where a syncing node was when it was farthest behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(in crate::core) struct CatchUp {
    since: BootTime,
    blocks: u64,
}

impl Core {
    /// To be called when a head has moved.
    pub(in crate::core) fn note_catch_up(&mut self, now: BootTime) {
        let blocks = self.blocks_behind().filter(|_| self.host.health().is_some_and(|health| !health.synced));
        self.catch_up = match (self.catch_up, blocks) {
            (_, None) => None,
            (Some(farthest), Some(blocks)) if blocks <= farthest.blocks => Some(farthest),
            (_, Some(blocks)) => Some(CatchUp { since: now, blocks }),
        };
    }

    /// `None` unless the node syncs and another host is ahead.
    pub(in crate::core) fn lag(&self, now: BootTime) -> Option<Lag> {
        let (farthest, blocks) = self.catch_up.zip(self.blocks_behind())?;
        let (took, gained) = (now.since(farthest.since), farthest.blocks.saturating_sub(blocks));
        let secs = took.as_secs_f64() * blocks as f64 / gained as f64;
        let left = Duration::try_from_secs_f64(secs).ok().filter(|_| took >= PACE_AFTER && gained > 0);
        Some(Lag { blocks, left })
    }

    fn blocks_behind(&self) -> Option<u64> {
        let heads = self.peers.values().filter(|peer| peer.reachable).map(|peer| peer.height);
        heads.max().map(|head| head.saturating_sub(self.host.height())).filter(|blocks| *blocks > 0)
    }

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

    /// A leader with a disk that hangs commits nothing, and proves nothing of its node; its heartbeats need no disk,
    /// and would keep everybody loyal. So it waits for none of these, when somebody is ready.
    pub(in crate::core) fn leave_hung_disk(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.lead.is_some() && self.host.has_hung_disk() && self.best_target().is_some() {
            self.resign(now, Reason::DiskHung, out);
        }
    }

    /// What makes a holder's node unfit once it lasts, with the moment from which it does.
    fn lasting_defects(&self) -> impl Iterator<Item = (BootTime, Reason)> {
        let since = [
            (self.host.out_of_sync_since(), Reason::OutOfSync),
            (self.host.few_peers_since(), Reason::FewPeers),
            (self.behind_since, Reason::HeadStuck),
        ];
        since.into_iter().filter_map(|(since, reason)| Some((since? + self.settings.head_still_max, reason)))
    }

    /// When time alone may make the node unfit.
    pub(in crate::core) fn degrades_at(&self) -> impl Iterator<Item = BootTime> {
        self.lasting_defects().map(|(at, _)| at)
    }

    /// Why a holder's node is unfit; `None` while it does well.
    pub(in crate::core) fn degraded(&self, now: BootTime) -> Option<Reason> {
        if self.host.is_unhealthy() {
            Some(Reason::ProbeFailed)
        } else if self.settings.custody == Custody::Signer && self.host.keys_unusable().is_some() {
            Some(Reason::SignerGone)
        } else {
            self.lasting_defects().find(|(at, _)| now >= *at).map(|(_, reason)| reason)
        }
    }
}
