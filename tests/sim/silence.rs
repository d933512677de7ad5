//! A leader that hears nothing falls silent, by the rule of `cluster/raft/silence.rs` itself: what `late.rs` and
//! `client.rs` do around it is done here with the clocks of the simulation. A request is given up after a lease, at
//! once where the network says that it was lost, or with the process that it was sent to.

use std::time::Duration;

use baton::base::time::BootTime;
use baton::cluster::raft::silence::{Owed, Patience};

use crate::network::Message;
use crate::raft::{Append, Id};
use crate::tally::Kind;
use crate::world::{Without, World};

/// How soon a caller hears that its connection broke.
const BROKEN: Duration = Duration::from_millis(5);

/// What one peer owes a coordinator.
#[derive(Default)]
pub struct Owes {
    owed: Owed,
    under_way: Vec<UnderWay>,
    /// A heartbeat of this term leaves when the peer is heard by then.
    heartbeat: Option<(u64, BootTime)>,
    /// So do entries, or a snapshot.
    entries: Option<(u64, BootTime)>,
    /// For a mutation: it was silent once.
    was_silent: bool,
}

struct UnderWay {
    sent_at: BootTime,
    fails_at: BootTime,
}

impl Owes {
    fn settle(&mut self, now: BootTime, patience: &Patience) {
        self.under_way.sort_by_key(|request| request.fails_at);
        let over = self.under_way.partition_point(|request| request.fails_at <= now);
        for request in self.under_way.drain(..over) {
            self.owed.end(request.fails_at, false, patience);
        }
    }
}

impl World {
    fn owes(&mut self, host: Id, peer: Id) -> Option<(&mut Owes, Patience)> {
        let now = self.local(host);
        let patience = Patience::of(&self.hosts[host].timing);
        let owes = self.hosts[host].coordinator.as_mut()?.owes.entry(peer).or_default();
        owes.settle(now, &patience);
        Some((owes, patience))
    }

    /// Entries or a heartbeat leave.
    pub fn owe(&mut self, host: Id, peer: Id, sent_at: BootTime) {
        let fails_at = sent_at + self.hosts[host].timing.lease();
        if let Some((owes, patience)) = self.owes(host, peer) {
            owes.owed.begin(sent_at, &patience);
            owes.under_way.push(UnderWay { sent_at, fails_at });
        }
    }

    /// Now, or when the peer is heard before Raft gives this heartbeat up; else not at all.
    pub fn send_heartbeat(&mut self, host: Id, peer: Id, append: Append) {
        let until = self.local(host) + self.soft_ttl(host);
        let kept_back = self.is_silent(host, peer, false);
        let Some((owes, _)) = self.owes(host, peer) else { return };
        owes.heartbeat = kept_back.then_some((append.term, until));
        if !kept_back {
            self.send_append(host, peer, append, false);
        }
    }

    /// As a heartbeat, entries or a snapshot.
    pub fn keeps_entries(&mut self, host: Id, peer: Id) -> bool {
        let until = self.local(host) + self.entries_ttl(host);
        let (kept_back, term) = (self.is_silent(host, peer, true), self.hosts[host].raft.term);
        if let Some((owes, _)) = self.owes(host, peer) {
            owes.entries = kept_back.then_some((term, until));
        }
        kept_back
    }

    fn is_silent(&mut self, host: Id, peer: Id, entries: bool) -> bool {
        let (now, without) = (self.local(host), self.without);
        let Some((owes, patience)) = self.owes(host, peer) else { return false };
        let silent = !owes.owed.may_send(now, &patience);
        owes.was_silent |= silent;
        let kept_back = match without {
            Without::Silence => false,
            Without::SilentEntries => silent && !entries,
            Without::HeardAgain => owes.was_silent && (silent || !entries),
            _ => silent,
        };
        if kept_back {
            self.tally.note(Kind::KeptSilent);
        }
        kept_back
    }

    pub fn has_lease(&self, host: Id) -> bool {
        let now = self.local(host);
        let core = self.hosts[host].coordinator.as_ref().map(|coordinator| &coordinator.core);
        core.is_some_and(|core| core.lease_remaining(now).is_some())
    }

    /// An answer has arrived, in time for Raft or not; to what was sent then, or to something else.
    pub fn heard(&mut self, host: Id, peer: Id, sent_at: Option<BootTime>) {
        let now = self.local(host);
        let Some((owes, patience)) = self.owes(host, peer) else { return };
        match owes.under_way.iter().position(|request| Some(request.sent_at) == sent_at) {
            Some(place) => {
                owes.under_way.remove(place);
                owes.owed.end(now, true, &patience);
            }
            None => owes.owed.heard(now),
        }
        let [heartbeat, entries] = [owes.heartbeat.take(), owes.entries.take()]
            .map(|waits| waits.filter(|(_, until)| now <= *until).map(|(term, _)| term));
        if let Some(append) = heartbeat.and_then(|term| self.heartbeat_of(host, term)) {
            self.send_heartbeat(host, peer, append);
        }
        if entries == Some(self.hosts[host].raft.term) {
            self.replicate(host, peer);
        }
    }

    /// `message` is lost, and its connection with it.
    pub fn lost(&mut self, from: Id, to: Id, message: &Message) {
        match message {
            Message::Append { sent_at, .. } => self.broken(from, to, Some(*sent_at)),
            Message::Appended { sent_at, .. } => self.broken(to, from, Some(*sent_at)),
            Message::PreVote(_)
            | Message::PreVoted { .. }
            | Message::Vote(_)
            | Message::Voted { .. }
            | Message::Transfer { .. }
            | Message::Gossip(_) => {}
        }
    }

    /// What runs at `peer` has ended, on a host that lives: who waits for its answers hears of it.
    pub fn hang_up(&mut self, peer: Id) {
        for host in self.others(peer) {
            self.broken(host, peer, None);
        }
    }

    /// The request that left at `sent_at`, or all.
    fn broken(&mut self, host: Id, peer: Id, sent_at: Option<BootTime>) {
        let fails_at = self.local(host) + BROKEN;
        let Some((owes, _)) = self.owes(host, peer) else { return };
        for request in &mut owes.under_way {
            if sent_at.is_none_or(|sent_at| sent_at == request.sent_at) {
                request.fails_at = request.fails_at.min(fails_at);
            }
        }
    }
}
