//! Another cluster of the same name that other members formed: what an incomplete list of members on one host leads to.
//! Each of the two would have a lease of its own for the same key, and no fence of either knows of the other.
//!
//! Whoever is called by the other cluster lets go and takes no baton while the calls last. A sole founder, whom no
//! other member has to agree with, waits for such a call before the first claim of all.

use std::time::Duration;

use super::event::Action;
use super::{Core, NotReady, tenure};
use crate::base::ids::{Epoch, NodeId};
use crate::base::time::{BootTime, Now};

/// A call counts for as long. Whoever has this member in its list calls several times a second.
const CALL_COUNTS_FOR: Duration = Duration::from_secs(10);
/// Long enough for a member that is up to call a host that has just started, at its own pace and pauses.
const SOLE_FOUNDER_WAITS: Duration = Duration::from_secs(2);

impl Core {
    pub(super) fn note_rival(&mut self, now: Now, member: NodeId, out: &mut Vec<Action>) {
        self.rival = Some((member, now.boot));
        self.let_go(now, tenure::Reason::OtherCluster, None, out);
    }

    pub(super) fn rival(&self, now: BootTime) -> Option<NotReady> {
        let (member, heard_at) = self.rival.as_ref()?;
        let counts = now < *heard_at + CALL_COUNTS_FOR;
        counts.then(|| NotReady::OtherCluster { member: member.clone() })
    }

    pub(super) fn rival_forgotten_at(&self) -> Option<BootTime> {
        self.rival.as_ref().map(|(_, heard_at)| *heard_at + CALL_COUNTS_FOR)
    }

    /// Until when a leader that needs nobody's vote makes no first claim.
    pub(super) fn sole_founder_waits_until(&self) -> Option<BootTime> {
        let sole = self.voters.iter().all(|set| set.len() == 1);
        let lead = self.lead.as_ref().filter(|_| sole && self.view.epoch == Epoch::default())?;
        Some(lead.since + SOLE_FOUNDER_WAITS)
    }
}
