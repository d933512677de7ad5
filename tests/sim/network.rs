//! What hosts tell each other, and the network that loses, delays, doubles and reorders it. Gossip goes the same way.

use std::collections::BTreeMap;
use std::time::Duration;

use baton::base::ids::NodeId;
use baton::base::time::BootTime;
use baton::base::timing::LeaseSpan;
use baton::core::{ClockOffset, Event, NotReady, Peer};

use crate::coordinator::Stage;
use crate::raft::{Append, Appended, Ballot, Id};
use crate::schedule::What;
use crate::tally::Kind;
use crate::world::{MS, Without, World};

pub const GOSSIP: u64 = 400 * MS;
const SILENT: u64 = 1200 * MS;

#[derive(Clone, Debug)]
pub enum Message {
    /// With the leader's lease; as a snapshot, of all that its state holds.
    Append {
        append: Append,
        snapshot: bool,
        sent_at: BootTime,
        lease: LeaseSpan,
    },
    Appended {
        term: u64,
        sent_at: BootTime,
        answer: Appended,
        promised: Option<Duration>,
    },
    PreVote(Ballot),
    PreVoted {
        round: u64,
        granted: bool,
        vote: (u64, Option<Id>),
    },
    Vote(Ballot),
    Voted {
        round: u64,
        granted: bool,
        vote: (u64, Option<Id>),
    },
    Transfer {
        to: Id,
        vote: (u64, Option<Id>),
        last: (u64, usize),
    },
    Gossip(Peer),
}

impl World {
    pub fn send(&mut self, from: Id, to: Id, generation: u32, message: Message) {
        let copies = 1 + u64::from(self.random.chance(2));
        if copies > 1 {
            self.tally.note(Kind::Doubling);
        }
        for _ in 0..copies {
            if self.cuts[from][to] {
                let both_ways = self.cuts[to][from];
                self.tally.note(if both_ways { Kind::Cut } else { Kind::OneWayCut });
                continue;
            }
            let is_large = matches!(&message, Message::Append { append, .. } if !append.entries.is_empty());
            if is_large && self.no_entries == Some((from, to)) {
                self.tally.note(Kind::Loss);
                continue;
            }
            if self.random.chance(self.loss) {
                self.tally.note(Kind::Loss);
                self.lost(from, to, &message);
                continue;
            }
            let slow = if self.random.chance(3) { 20 } else { 1 };
            if slow > 1 {
                self.tally.note(Kind::Delay);
            }
            let late = self.late_from.filter(|(late, _, until)| *late == from && self.at < *until);
            let after = self.random.between(100_000, self.delay * slow) + late.map_or(0, |(_, late, _)| late);
            self.later(after, What::Deliver { from, to, generation, message: message.clone() });
        }
    }

    pub fn gossip(&mut self, host: Id) {
        let now = self.local(host);
        let generation = self.hosts[host].generation;
        let Some(coordinator) = &self.hosts[host].coordinator else { return };
        let record = Peer {
            ready: coordinator.core.not_ready(now).is_none(),
            reachable: true,
            height: coordinator.core.host().height(),
            ..Peer::default()
        };
        for other in self.others(host) {
            self.send(host, other, generation, Message::Gossip(record.clone()));
        }
        self.own(host, GOSSIP, Stage::Gossip);
        self.tell_peers(host);
    }

    pub fn tell_peers(&mut self, host: Id) {
        let at = self.at;
        let names = self.names.clone();
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        let peers: BTreeMap<NodeId, Peer> = coordinator
            .heard
            .iter()
            .map(|(id, (heard_at, peer))| {
                (names[*id].clone(), Peer { reachable: at - heard_at < SILENT, ..peer.clone() })
            })
            .collect();
        if peers != coordinator.told_peers {
            coordinator.told_peers.clone_from(&peers);
            self.step(host, Event::Peers(peers));
        }
        if self.without != Without::Clock {
            self.tell_clocks(host);
        }
    }

    /// What gossip measured of the clocks of those in reach, to the length of a way.
    fn tell_clocks(&mut self, host: Id) {
        let (at, mine) = (self.at, self.hosts[host].clock.wall_offset);
        let error = Duration::from_nanos(self.delay);
        let Some(coordinator) = &self.hosts[host].coordinator else { return };
        let reached = coordinator.heard.iter().filter(|(_, (heard_at, _))| at - heard_at < SILENT).map(|(id, _)| *id);
        let offset = |id: Id| ClockOffset { nanos: self.hosts[id].clock.wall_offset - mine, error };
        let offsets: BTreeMap<NodeId, ClockOffset> = reached.map(|id| (self.name(id), offset(id))).collect();
        if offsets != coordinator.told_clocks {
            if let Some(coordinator) = &mut self.hosts[host].coordinator {
                coordinator.told_clocks.clone_from(&offsets);
            }
            self.step(host, Event::ClockOffsets(offsets));
            let now = self.local(host);
            let core = self.hosts[host].coordinator.as_ref().map(|coordinator| &coordinator.core);
            if core.is_some_and(|core| matches!(core.not_ready(now), Some(NotReady::Clock { .. }))) {
                self.tally.note(Kind::ClockOff);
            }
        }
    }
}
