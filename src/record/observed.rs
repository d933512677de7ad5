//! What a replay learns of a member that others can be compared with: its leases, what it exchanged with whom and when,
//! and the rules that it broke by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::ids::{Epoch, NodeId, Term};
use crate::base::time::{BootTime, Now};
use crate::core::agreed::replicated::{Baton, Command};
use crate::core::{Action, ClockOffset, Core, Event};
use crate::rules::cluster::Leases;
use crate::rules::{ArmedSpan, Breach, Witness};

/// A coordinator that was killed had written all but the last moments; so much later nothing of it is missing.
const UNWRITTEN_MAX: Duration = Duration::from_millis(1500);

/// The offset of the wall clock from the boot clock of a host, at some moment: added to a time of the latter, it makes
/// one of the former.
type WallMinusBoot = i128;

/// A request of a leader that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub by: NodeId,
    pub term: Term,
    /// By the leader's wall clock: when it was sent, and when the answer was taken note of.
    pub sent_at: i128,
    pub noted_at: i128,
}

/// A leader's request that was accepted, by the follower's wall clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub leader: NodeId,
    pub term: Term,
    pub arrived_at: i128,
}

/// Of all runs of one member that a record has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub(super) member: Option<NodeId>,
    pub(super) kill_max: Duration,
    lease: Duration,
    breaches: Vec<Breach>,
    /// With the offset of its wall clock at the time.
    spans: Vec<(ArmedSpan, WallMinusBoot)>,
    unknown: Vec<(BootTime, BootTime, WallMinusBoot)>,
    /// Of every `Release` that it applied.
    released: Vec<(Epoch, BootTime, WallMinusBoot)>,
    /// As gossip measured the others last.
    pub(super) offsets: BTreeMap<NodeId, ClockOffset>,
    pub(super) answered: Vec<Answered>,
    pub(super) accepted: Vec<Accepted>,
    /// Of all runs since the host was booted.
    witness: Option<Witness>,
    /// Of the last decision.
    last: Option<Now>,
    stands: Stands,
}

/// What is known of the time since the last decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stands {
    /// The next one follows it.
    Whole,
    /// The run was over then, or the record is yet to begin.
    #[default]
    Over,
    /// Entries are missing.
    Lost,
}

impl Observed {
    /// Rules that this member broke, whatever the others did.
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }

    /// When the last decision was made that the record has.
    pub fn last(&self) -> Option<Now> {
        self.last
    }

    /// By the clock of the host's kernel, which members on one machine share.
    pub fn leases_by_boot(&self) -> Option<Leases> {
        self.leases(|at, _| at)
    }

    /// By the host's wall clock, moved by `offset` nanoseconds.
    pub(super) fn leases_by_wall(&self, offset: i128) -> Option<Leases> {
        self.leases(|at, wall| BootTime::from_nanos((i128::from(at.as_nanos()) + wall - offset).max(0) as u64))
    }

    fn leases(&self, clock: impl Fn(BootTime, WallMinusBoot) -> BootTime) -> Option<Leases> {
        Some(Leases {
            member: self.member.clone()?,
            spans: self.spans.iter().map(|(span, wall)| span.by(|at| clock(at, *wall))).collect(),
            kill_max: self.kill_max,
            unknown: self.unknown.iter().map(|(from, to, wall)| (clock(*from, *wall), clock(*to, *wall))).collect(),
            released: self.released.iter().map(|(epoch, at, wall)| (*epoch, clock(*at, *wall))).collect(),
        })
    }

    /// `core` is about to be told something, or asked.
    pub(super) fn reach(&mut self, core: &Core, now: Now) {
        if self.stands != Stands::Whole {
            self.begin(core, now);
        }
        self.last = Some(now);
    }

    fn begin(&mut self, core: &Core, now: Now) {
        self.member = Some(core.me().clone());
        self.lease = self.lease.max(core.settings().timing.lease());
        self.kill_max = self.kill_max.max(core.settings().timing.kill_max());
        let from = match self.last {
            None => BootTime::default(),
            Some(last) if self.stands == Stands::Lost => last.boot,
            // What is not known of the end of the run before was noted then.
            Some(_) => now.boot,
        };
        self.unknown.push((from, now.boot + self.lease, wall_minus_boot(now)));
        self.stands = Stands::Whole;
        if self.last.is_some_and(|last| now.boot < last.boot) {
            self.close();
        }
        self.witness = Some(match self.witness.take() {
            None => Witness::new(core, now.boot),
            Some(earlier) => Witness::again(core, now.boot, earlier),
        });
    }

    pub(super) fn step(&mut self, core: &Core, now: Now, event: &Event, actions: &[Action]) {
        let Some(witness) = &mut self.witness else { return };
        witness.step(core, now.boot, event, actions);
        let wall = |at: BootTime| i128::from(at.as_nanos()) + wall_minus_boot(now);
        match event {
            Event::Applied { command: Command::Baton(Baton::Release { epoch, .. }), .. } => {
                self.released.push((*epoch, now.boot, wall_minus_boot(now)));
            }
            Event::ClockOffsets(offsets) => {
                self.offsets.extend(offsets.iter().map(|(id, offset)| (id.clone(), *offset)))
            }
            Event::Acked { from, term, sent_at, .. } => {
                let (sent_at, noted_at) = (wall(*sent_at), wall(now.boot));
                self.answered.push(Answered { by: from.clone(), term: *term, sent_at, noted_at });
            }
            Event::Accepted { leader, term, arrived_at, .. } => {
                let arrived_at = wall(*arrived_at);
                self.accepted.push(Accepted { leader: leader.clone(), term: *term, arrived_at });
            }
            _ => {}
        }
    }

    pub(super) fn vote_granted(&mut self, now: Now, candidate: &NodeId) {
        if let Some(witness) = &mut self.witness {
            witness.vote_granted(now.boot, candidate);
        }
    }

    /// Entries are missing here.
    pub(super) fn lose(&mut self) {
        if self.stands == Stands::Whole {
            self.stands = Stands::Lost;
        }
    }

    /// A run is over.
    pub(super) fn end_run(&mut self) {
        // Whoever comes back after entries were lost is known from then on.
        if let Some(last) = self.last.filter(|_| self.stands == Stands::Whole) {
            self.unknown.push((last.boot, last.boot + UNWRITTEN_MAX + self.lease, wall_minus_boot(last)));
            self.stands = Stands::Over;
        }
    }

    /// The record is over.
    pub(super) fn end(&mut self) {
        self.end_run();
        self.close();
    }

    /// What was seen since the host was booted.
    fn close(&mut self) {
        let (Some(witness), Some(last)) = (self.witness.take(), self.last) else { return };
        self.breaches.extend_from_slice(witness.breaches());
        self.spans.extend(witness.spans().iter().map(|span| (*span, wall_minus_boot(last))));
    }
}

#[cfg(test)]
impl Observed {
    pub(super) fn of(member: &str) -> Observed {
        Observed { member: Some(member.into()), ..Observed::default() }
    }
}

fn wall_minus_boot(now: Now) -> WallMinusBoot {
    i128::from(now.wall.as_nanos()) - i128::from(now.boot.as_nanos())
}
