//! A leader that gives up the lead without a `Release`, because it waits for something that may never come: a disk, a
//! guard, a chain node.
//!
//! Invariant (fence 1): nothing that was promised is taken back. This member sends no more requests of the term, so the
//! promises of the others end a lease after the last one that they accepted, and the guard's deadline, which is renewed
//! no more, before the first of them. Rule W: what was proposed of a `Release` in the term stays known.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::Action;
use super::lead::Lead;
use super::{Core, tenure};
use crate::base::ids::Term;
use crate::base::time::{BootTime, Now};

/// In leases: for the promises to end, for an election, and for a second one. If nobody was elected by then, this
/// member may be needed for a majority and takes its lead up again; Raft would not let it campaign while it leads.
const STAYS_RESIGNED: u32 = 4;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Resigned {
    lead: Lead,
    reason: tenure::Reason,
    until: BootTime,
}

impl Core {
    /// Gives up the lead at once, and the tenure with it: without a `Release`, and without a word of guard, chain node
    /// or disk. A node that may have the key is killed when that is possible.
    pub(super) fn resign(&mut self, now: Now, reason: tenure::Reason, out: &mut Vec<Action>) {
        let Some(lead) = self.lead.take() else { return };
        let stays: Duration = STAYS_RESIGNED * self.settings.timing.lease();
        self.resigned = Some(Resigned { lead, reason, until: now.boot + stays });
        self.abandon_tenure(now, reason, out);
        if self.host.runs_node() {
            out.push(Action::WatchChain { closely: false });
        }
    }

    /// Whether this member sends nothing any more as leader of `term`.
    pub fn has_resigned(&self, term: Term) -> bool {
        self.resigned.as_ref().is_some_and(|resigned| resigned.lead.term == term)
    }

    /// Why it gave up the lead that Raft still says it has.
    pub fn resigned_for(&self) -> Option<tenure::Reason> {
        self.resigned.as_ref().map(|resigned| resigned.reason)
    }

    /// Another term has come, or Raft knows of the lost lead.
    pub(super) fn forget_resigned(&mut self, term: Term) {
        self.resigned.take_if(|resigned| resigned.lead.term < term);
    }

    /// Nobody was elected meanwhile: a lead with a lease that starts from nothing is better than none.
    pub(super) fn lead_again(&mut self, now: Now, out: &mut Vec<Action>) {
        if let Some(resigned) = self.resigned.take_if(|resigned| now.boot >= resigned.until) {
            let releasing = resigned.lead.releasing;
            self.note_led(now, resigned.lead.term, out);
            if let Some(lead) = &mut self.lead {
                lead.releasing |= releasing;
            }
        }
    }

    pub(super) fn resigned_until(&self) -> Option<BootTime> {
        self.resigned.as_ref().map(|resigned| resigned.until)
    }
}
