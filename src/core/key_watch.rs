//! Whether the validator's key is in use elsewhere: the own chain node has it without the baton, or it signs on the
//! chain while no host of the cluster holds the baton. Either is an alarm, and keeps this host from the baton.
//!
//! Invariant: no alarm for a signature that a host of the cluster may have made. Only a leader can know that nobody
//! holds: from the moment in which its term began, or its own node was proven inactive, for as long as its lease lives
//! and it has released nothing. It says so with both ends of that time ([`Unheld`]), so that its word is as true when
//! it is old. What is not proven to have been signed within such a time is no evidence.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::Action;
use super::{Core, NotReady, Tenure};
use crate::base::chain_node::KeyLook;
use crate::base::ids::{Epoch, SignMark};
use crate::base::time::{BootTime, Now, WallTime};

/// The alarm ends once the key has signed nothing for so long, in so many looks at different heights.
const CLEAR_AFTER: Duration = Duration::from_secs(60);
const CLEAR_LOOKS: u32 = 10;
/// So many such looks come before the first claim of all, unless they do not come in that time.
const CLAIM_LOOKS: u32 = 3;
const CLAIM_LOOKS_MAX: Duration = Duration::from_secs(30);
/// A leader's word that nobody holds is repeated while it is so.
const TOLD_LATELY: Duration = Duration::from_secs(5);

/// No host of the cluster has signed after `since` and before `until`, by the wall clock of the leader that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Unheld {
    pub since: WallTime,
    pub until: WallTime,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct KeyWatch {
    /// The newest look that showed a signature, or an earlier one that the word of another member will prove; until it
    /// was weighed.
    found: Option<KeyLook>,
    /// By another member, and when that was heard.
    told: Option<(Unheld, BootTime)>,
    alarm: Option<Alarm>,
    clear: Clear,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Alarm {
    height: u64,
    at: WallTime,
    /// When the key was last seen to sign.
    seen_at: BootTime,
    /// The epoch of the newest claim then.
    epoch: Epoch,
    /// Since when a newer claim is known: what the key signs may be that holder's.
    held_since: Option<BootTime>,
}

/// Looks in a row, each at a height of its own, that showed no signature of after a certain time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Clear {
    after: WallTime,
    height: u64,
    looks: u32,
}

impl Clear {
    fn from(after: WallTime) -> Clear {
        Clear { after, height: 0, looks: 0 }
    }

    fn count(&mut self, look: &KeyLook) {
        if look.signed {
            *self = Clear::from(self.after.max(look.after));
        } else if look.after > self.after && look.height > self.height {
            (self.height, self.looks) = (look.height, self.looks + 1);
        }
    }
}

impl Core {
    /// The alarm "key in use elsewhere", in the words in which it keeps this host from the baton.
    pub fn key_alarm(&self) -> Option<NotReady> {
        let own = self.host.key_seen().map(|height| NotReady::KeyLoaded { height });
        own.or_else(|| self.key_watch.alarm.map(|Alarm { height, at, .. }| NotReady::KeyElsewhere { height, at }))
    }

    pub(super) fn is_key_elsewhere(&self) -> bool {
        self.key_watch.alarm.is_some()
    }

    /// As the leader: since when, and still now, no host of the cluster can have signed. `None` for whoever cannot
    /// tell.
    pub fn unheld(&self, now: Now) -> Option<Unheld> {
        let lead = self.lead.as_ref()?;
        let live = self.deadline(now.boot).is_some_and(|deadline| now.boot < deadline);
        let own_node = self.host.is_proven() && self.host.key_seen().is_none();
        let key_is_in = own_node && !self.tenure.as_ref().is_some_and(Tenure::may_key_come);
        // After a release of this term another member can be elected inside its lease (rule W).
        let released = lead.releasing || self.has_released();
        (live && key_is_in && !released).then_some(Unheld { since: lead.quiet_since, until: now.wall })
    }

    /// Whether a look at the chain could show that the key is in use elsewhere, or no more.
    pub fn wants_key_look(&self, now: Now) -> bool {
        let told = self.key_watch.told.is_some_and(|(_, heard_at)| now.boot.since(heard_at) < TOLD_LATELY);
        let synced = self.host.is_node_running() && self.host.health().is_some_and(|health| health.synced);
        synced && (told || self.is_key_elsewhere() || self.unheld(now).is_some())
    }

    pub(super) fn note_unheld_told(&mut self, now: Now, unheld: Unheld) {
        self.key_watch.told = Some((unheld, now.boot));
    }

    pub(super) fn note_key_looked(&mut self, now: Now, look: KeyLook) {
        self.key_watch.clear.count(&look);
        if look.signed {
            if !self.awaits_word(now, &look) {
                self.key_watch.found = Some(look);
            }
            if let Some(alarm) = &mut self.key_watch.alarm {
                alarm.seen_at = now.boot;
            }
        }
    }

    /// Whether the look of before is kept in the place of `look`. A follower hears every word late: where each look shows
    /// a signature, the newest is always ahead of the words. One that waits for too long waits for a clock that was set
    /// back.
    fn awaits_word(&self, now: Now, look: &KeyLook) -> bool {
        let KeyWatch { found: Some(found), told: Some((told, _)), .. } = &self.key_watch else { return false };
        let recent = found.looked_at <= look.looked_at && look.looked_at < found.looked_at + TOLD_LATELY;
        recent && found.after > told.since + self.settings.clock_skew && self.unheld(now).is_none()
    }

    /// A new leader knows nothing yet of the time before its term.
    pub(super) fn watch_key_anew(&mut self, quiet_since: WallTime) {
        if self.settings.sees_key_on_chain && !self.is_key_elsewhere() {
            self.key_watch.clear = Clear::from(quiet_since + self.settings.clock_skew);
        }
    }

    /// Raises the alarm for what is proven, and ends it when it is over.
    pub(super) fn weigh_sightings(&mut self, now: Now) {
        if let Some(found) = self.key_watch.found.filter(|found| self.is_foreign(now, found)) {
            self.key_watch.found = None;
            self.raise_alarm(now, &found);
        }
        let (clear, epoch) = (self.key_watch.clear, self.view.epoch);
        let over = self.key_watch.alarm.take_if(|alarm| {
            if epoch > alarm.epoch {
                alarm.held_since.get_or_insert(now.boot);
            }
            let silent = now.boot.since(alarm.seen_at) >= CLEAR_AFTER && clear.looks >= CLEAR_LOOKS;
            silent || alarm.held_since.is_some_and(|held_since| now.boot.since(held_since) >= CLEAR_AFTER)
        });
        // Invariant (fence 3): a claim settles by a block of after whatever the key was seen to sign elsewhere. Not before
        // the alarm is over, during which nothing is claimed: the word to the followers, that no host of the cluster has
        // signed, would begin anew with each signature, and never reach past one.
        if over.is_some() {
            self.quiet_from(now);
        }
    }

    /// Whether what was found was signed within a time in which no host of the cluster can have: after its begin by the
    /// header of a block, which is off by less than `clock_skew`, and before its end by the time of the look.
    fn is_foreign(&self, now: Now, found: &KeyLook) -> bool {
        let skew = self.settings.clock_skew;
        // The clock of the other member and this one are each off by that much.
        let told = self.key_watch.told.map(|(unheld, _)| (unheld, skew * 2));
        let own = self.unheld(now).map(|unheld| (unheld, Duration::ZERO));
        let within = |(unheld, between): (Unheld, Duration)| {
            found.after > unheld.since + skew && unheld.until >= found.looked_at + between
        };
        own.is_some_and(within) || told.is_some_and(within)
    }

    /// What a `Release` said of signatures is exact no more (fence 3).
    fn raise_alarm(&mut self, now: Now, found: &KeyLook) {
        let (height, at, epoch) = (found.height, found.after, self.view.epoch);
        self.key_watch.alarm = Some(Alarm { height, at, seen_at: now.boot, epoch, held_since: None });
        self.key_watch.clear = Clear::from(at);
        self.mark_seen = SignMark::of_both(self.mark_seen, Some(SignMark::whole_height(height)));
    }

    /// Nobody of the cluster ever held the baton: the node that had the key before it may still sign. Before the first
    /// claim some blocks have to show that it does not, where the chain node can be asked for that.
    pub(super) fn awaits_key_looks(&self, now: BootTime) -> bool {
        let first = self.view.epoch == Epoch::default() && self.settings.sees_key_on_chain;
        let waited = self.lead.as_ref().is_some_and(|lead| now.since(lead.since) >= CLAIM_LOOKS_MAX);
        first && !waited && self.key_watch.clear.looks < CLAIM_LOOKS
    }

    /// Weighs the newest answer of the own chain node.
    ///
    /// Invariant (rule (c)): a node that has a key which nobody gave it is killed, and is not proven keyless until that
    /// is done. A tenure that has not given it the key ends with nothing released: nobody knows what was signed. The
    /// guard stays armed until the kill is proven.
    pub(super) fn weigh_own_key(&mut self, now: Now, out: &mut Vec<Action>) {
        let armed = match &self.tenure {
            Some(tenure) if tenure.may_key_come() => return,
            Some(tenure) => Some(tenure.epoch()).filter(|_| !tenure.is_ending()),
            None => None,
        };
        if !self.host.weigh_key(now.boot, armed) {
            return;
        }
        if self.tenure.as_ref().is_some_and(|tenure| !tenure.is_ending()) {
            self.tenure = None;
        }
        out.push(Action::Deactivate { kill: true });
    }
}
