//! The lease of a leader, counted by a witness: what its peers have promised, and what follows for the guard.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::ids::{NodeId, Term};
use crate::base::time::BootTime;
use crate::base::timing::Timing;

/// What the peers of a leader have acknowledged in its term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LeadSeen {
    pub(super) term: Term,
    /// From when on each promises for a whole lease of this leader.
    promised_from: BTreeMap<NodeId, BootTime>,
    /// Its beginning was seen, and so every acknowledgement.
    pub(super) whole: bool,
}

impl LeadSeen {
    pub(super) fn new(term: Term, whole: bool) -> LeadSeen {
        LeadSeen { term, promised_from: BTreeMap::new(), whole }
    }

    /// `from` has accepted what was sent at `sent_at`, and promises for `promised` from then on; this leader needs
    /// `needed`.
    pub(super) fn acked(&mut self, from: &NodeId, sent_at: BootTime, promised: Duration, needed: Duration) {
        let short = needed.saturating_sub(promised);
        if sent_at.as_nanos() < short.as_nanos() as u64 {
            return;
        }
        let newest = self.promised_from.entry(from.clone()).or_default();
        *newest = (*newest).max(sent_at - short);
    }

    /// Nothing that was promised before counts.
    pub(super) fn forget(&mut self) {
        self.promised_from.clear();
    }

    /// The latest moment from which on more than half of every set promise. `me` promises itself now.
    pub(super) fn acked_at(&self, me: &NodeId, now: BootTime, voters: &[BTreeSet<NodeId>]) -> Option<BootTime> {
        let of_set = |set: &BTreeSet<NodeId>| {
            let of = |id: &NodeId| if id == me { Some(now) } else { self.promised_from.get(id).copied() };
            let promises: Vec<BootTime> = set.iter().filter_map(of).collect();
            let kept = |from: &BootTime| promises.iter().filter(|other| *other >= from).count() > set.len() / 2;
            promises.iter().copied().filter(kept).max()
        };
        let sets: Option<Vec<BootTime>> = voters.iter().map(of_set).collect();
        sets?.into_iter().min()
    }
}

/// The latest deadline that a guard may be given: `acked_at + lease·(1−ρ) − kill_max`.
pub(super) fn deadline_max(timing: &Timing, acked_at: BootTime) -> BootTime {
    acked_at + timing.lease() - drift(timing) - timing.kill_max()
}

/// How long a member keeps a promise of such a lease: `lease·(1+ρ)`.
pub(super) fn promise(timing: &Timing) -> Duration {
    timing.lease() + drift(timing)
}

/// `lease·ρ`, rounded up.
fn drift(timing: &Timing) -> Duration {
    let nanos = timing.lease().as_nanos() * u128::from(timing.drift_ppm());
    Duration::from_nanos(nanos.div_ceil(1_000_000) as u64)
}
