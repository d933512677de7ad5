//! What one member knows of all members, and the rule by which records replace each other. Pure: times
//! and records come in as arguments. `cluster/gossip/mod.rs`, its server and its peer tasks are the callers;
//! everyone else reads it through `Gossip::table`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::clock::{ClockFilter, ClockSample};
use crate::base::ids::NodeId;
use crate::base::time::BootTime;
use crate::cluster::wire::Sender;
use crate::cluster::wire::proto::{Record, upgrade_binary};
use crate::core::State;

/// A member counts as reachable for this long after an exchange with it succeeded.
pub const REACHABLE_FOR: Duration = Duration::from_secs(3);
/// Failed exchanges in a row that make a member unreachable at once.
pub const FAILURES_MAX: u32 = 2;

/// Every member, this one included. Cheap to clone: records are shared.
#[derive(Clone, Debug)]
pub struct Table {
    me: NodeId,
    incarnation: u64,
    members: BTreeMap<NodeId, Heard>,
}

/// What was heard of one member.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Its own view of itself; `None` until the first one came in.
    pub record: Option<Arc<Record>>,
    /// When it last proved to be alive: it spoke to this member itself, or a newer record of it
    /// arrived through another one. For this member itself: when its record last changed.
    pub heard_at: Option<BootTime>,
    /// When it last started an exchange itself.
    pub called_at: Option<BootTime>,
    /// When an exchange started by this member last succeeded.
    pub exchanged_at: Option<BootTime>,
    /// Exchanges that failed since then.
    pub failures: u32,
    /// Why the last exchange failed; `None` after a success.
    pub error: Option<Arc<str>>,
    pub rtt: Option<Duration>,
    /// Its wall clock minus this host's, nanoseconds.
    pub clock_offset: Option<i64>,
    clock: ClockFilter,
}

impl Heard {
    /// Whether requests to this member are being answered: the last success is younger than
    /// [`REACHABLE_FOR`] and fewer than [`FAILURES_MAX`] exchanges failed since.
    pub fn is_reachable(&self, now: BootTime) -> bool {
        self.failures < FAILURES_MAX && self.exchanged_at.is_some_and(|at| now.since(at) < REACHABLE_FOR)
    }
}

/// What became of one incoming record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// It replaced an older one.
    Newer,
    /// It was known already, or older than what is known.
    Old,
    /// Another copy of this member's own record claimed to be newer; the own one was raised over it.
    Outbid,
    /// Its owner is not a member, or it was written with another store than the recorded one.
    Refused,
}

impl Table {
    /// A table in which nobody but this member has been heard of, which has only just started.
    pub fn new(me: &Sender, generation: u64, others: impl IntoIterator<Item = NodeId>) -> Table {
        let (me, incarnation) = (me.member.clone(), me.incarnation);
        let mut members: BTreeMap<NodeId, Heard> = others.into_iter().map(|id| (id, Heard::default())).collect();
        let state = State::Startup.as_str().into();
        let record = Record { member: me.to_string(), generation, incarnation, state, ..Record::default() };
        members.insert(me.clone(), Heard { record: Some(Arc::new(record)), ..Heard::default() });
        Table { me, incarnation, members }
    }

    /// From now on the table is about this member and `others`. Returns whether that is anything new.
    pub(super) fn set_others(&mut self, others: &[NodeId]) -> bool {
        let before = self.members.len();
        self.members.retain(|id, _| *id == self.me || others.contains(id));
        let gone = before - self.members.len();
        let kept = self.members.len();
        for id in others {
            self.members.entry(id.clone()).or_default();
        }
        gone > 0 || self.members.len() > kept
    }

    pub fn me(&self) -> &NodeId {
        &self.me
    }

    /// `None` for a name that is no member's.
    pub fn get(&self, id: &NodeId) -> Option<&Heard> {
        self.members.get(id)
    }

    /// All members by id, this one included.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Heard)> {
        self.members.iter()
    }

    /// All members but this one.
    pub fn others(&self) -> impl Iterator<Item = (&NodeId, &Heard)> {
        self.members.iter().filter(|(id, _)| **id != self.me)
    }

    /// This member's own record.
    pub fn mine(&self) -> &Arc<Record> {
        self.members[&self.me].record.as_ref().expect("a table starts with its owner's record")
    }

    /// Whether requests to `id` are being answered. This member always reaches itself.
    pub fn is_reachable(&self, id: &NodeId, now: BootTime) -> bool {
        *id == self.me || self.members.get(id).is_some_and(|heard| heard.is_reachable(now))
    }

    /// The largest offset of a reachable member's wall clock from this host's, sign kept, nanoseconds.
    pub fn largest_clock_offset(&self, now: BootTime) -> Option<i64> {
        let offsets = self.others().filter(|(_, heard)| heard.is_reachable(now)).filter_map(|(_, h)| h.clock_offset);
        offsets.max_by_key(|offset| offset.unsigned_abs())
    }

    pub(super) fn records(&self) -> Vec<Record> {
        self.members.values().filter_map(|heard| heard.record.as_deref().cloned()).collect()
    }

    /// Replaces this member's own record. Member, generation, version, incarnation and clock offset
    /// are filled in here. Returns what of it differs from the last one.
    pub(super) fn publish(&mut self, record: Record, now: BootTime) -> Change {
        let last = self.mine();
        let record = Record {
            member: last.member.clone(),
            generation: last.generation,
            version: last.version,
            incarnation: self.incarnation,
            clock_offset_ns: last.clock_offset_ns,
            ..record
        };
        if record == **last {
            return Change::Nothing;
        }
        let change = if without_measures(&record) == without_measures(last) { Change::Measures } else { Change::Facts };
        self.set_mine(record, now);
        change
    }

    /// Gives this member's record a new version, so that members who hear of it through others know
    /// that its owner is alive.
    pub(super) fn beat(&mut self, now: BootTime) {
        let clock_offset_ns = self.largest_clock_offset(now).unwrap_or(0);
        let record = Record { clock_offset_ns, ..(**self.mine()).clone() };
        self.set_mine(record, now);
    }

    /// The merge rule: a higher (generation, version) replaces a lower one, of a member's recorded
    /// store only; the own record is never replaced, but raised over any copy that would be.
    /// `recorded` is the recorded incarnation of the record's owner.
    pub(super) fn merge(&mut self, record: Record, recorded: Option<u64>, now: BootTime) -> Merged {
        if record.member == self.me.as_str() {
            return self.outbid(&record, now);
        }
        if recorded.is_some_and(|incarnation| incarnation != record.incarnation) {
            return Merged::Refused;
        }
        let Some(heard) = self.members.get_mut(&NodeId::from(record.member.as_str())) else {
            return Merged::Refused;
        };
        let replaces = match &heard.record {
            None => true,
            // The owner's store was replaced with the operator's consent: what the old one said is void.
            Some(known) if recorded.is_some_and(|incarnation| incarnation != known.incarnation) => true,
            Some(known) => order(&record) > order(known),
        };
        if !replaces {
            return Merged::Old;
        }
        heard.record = Some(Arc::new(record));
        heard.heard_at = Some(now);
        Merged::Newer
    }

    /// Notes that `id` itself started an exchange with this member.
    pub(super) fn called_by(&mut self, id: &NodeId, now: BootTime) {
        if let Some(heard) = self.members.get_mut(id) {
            heard.heard_at = Some(now);
            heard.called_at = Some(now);
        }
    }

    pub(super) fn exchange_succeeded(&mut self, id: &NodeId, sample: ClockSample, now: BootTime) {
        if let Some(heard) = self.members.get_mut(id) {
            heard.clock.add(sample);
            let best = heard.clock.best();
            heard.rtt = best.map(|sample| sample.rtt);
            heard.clock_offset = best.map(|sample| sample.offset);
            heard.exchanged_at = Some(now);
            heard.heard_at = Some(now);
            heard.failures = 0;
            heard.error = None;
        }
    }

    /// Returns whether this is the first failure after a success, or for a new reason.
    pub(super) fn exchange_failed(&mut self, id: &NodeId, error: &str) -> bool {
        let Some(heard) = self.members.get_mut(id) else { return false };
        let news = heard.error.as_deref() != Some(error);
        heard.failures = heard.failures.saturating_add(1);
        heard.error = Some(error.into());
        news
    }

    fn outbid(&mut self, copy: &Record, now: BootTime) -> Merged {
        let mine = self.mine();
        if order(copy) < order(mine) || *copy == **mine {
            return Merged::Old;
        }
        // Only a clock at the end of time can make this fail; then the copies stay as they are.
        let raised = match copy.version.checked_add(1) {
            Some(version) => (copy.generation, version),
            None => match copy.generation.checked_add(1) {
                Some(generation) => (generation, 0),
                None => return Merged::Refused,
            },
        };
        let record = Record { generation: raised.0, version: raised.1, ..(**mine).clone() };
        self.place_mine(record, now);
        Merged::Outbid
    }

    fn set_mine(&mut self, record: Record, now: BootTime) {
        let version = record.version.saturating_add(1);
        self.place_mine(Record { version, ..record }, now);
    }

    fn place_mine(&mut self, record: Record, now: BootTime) {
        let mine = self.members.get_mut(&self.me).expect("a table holds its owner");
        mine.record = Some(Arc::new(record));
        mine.heard_at = Some(now);
    }
}

/// What of an own record differs from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    /// Only numbers that move all the time; the next exchange carries them.
    Measures,
    /// Something that others act on; pushed at once.
    Facts,
}

fn order(record: &Record) -> (u64, u64) {
    (record.generation, record.version)
}

fn without_measures(record: &Record) -> Record {
    let mut record =
        Record { lease_remaining_ms: 0, disk_free_bytes: 0, clock_offset_ns: 0, version: 0, ..record.clone() };
    record.mark_seen = None;
    if let Some(chain) = &mut record.chain {
        chain.probe_latency_us = 0;
    }
    if let Some(upgrade) = &mut record.upgrade {
        upgrade.under_way.iter_mut().for_each(|work| work.done = 0);
        upgrade.binaries.values_mut().filter_map(|binary| binary.state.as_mut()).for_each(|state| {
            if let upgrade_binary::State::Fetching(fetch) = state {
                fetch.done = 0;
            }
        });
    }
    record
}
