//! For how long a caller waits for an answer, as openraft and `cluster/raft/client.rs` have it: three quarters of a
//! heartbeat for a heartbeat, longer for entries and votes. An answer that comes later is lost to Raft. What it says of
//! a promise is not.

use std::time::Duration;

use baton::base::time::BootTime;
use baton::cluster::raft::raft_config;
use baton::core::Event;

use crate::coordinator::Stage;
use crate::network::Message;
use crate::raft::{Appended, Ballot, Id};
use crate::tally::Kind;
use crate::world::{Without, World};

impl World {
    pub fn soft_ttl(&self, host: Id) -> Duration {
        self.hosts[host].timing.heartbeat() * 3 / 4
    }

    pub fn entries_ttl(&self, host: Id) -> Duration {
        self.soft_ttl(host).max(self.hosts[host].timing.lease() / 2)
    }

    fn vote_max(&self, host: Id) -> Duration {
        let timing = &self.hosts[host].timing;
        match self.without {
            Without::LongVotes => 2 * timing.heartbeat() * 3 / 4,
            _ => Duration::from_millis(raft_config("sim", timing, 1).election_timeout_min),
        }
    }

    /// This member's vote for itself is on its disk.
    pub fn ask_votes(&mut self, host: Id, ballot: &Ballot) {
        let (term, generation) = (ballot.term, self.hosts[host].generation);
        if let Some(coordinator) = &mut self.hosts[host].coordinator {
            coordinator.asked_votes = (term, self.at);
        }
        self.step(host, Event::Voted { term });
        self.step(host, Event::VotesAsked { term });
        for to in self.voters_but(host) {
            self.send(host, to, generation, Message::Vote(ballot.clone()));
        }
        let after = self.vote_max(host).as_nanos() as u64;
        self.own(host, after, Stage::VotesOver { term });
    }

    /// Whoever has not answered by now was asked in vain.
    pub fn votes_over(&mut self, host: Id, term: u64) {
        for by in self.voters_but(host) {
            self.step(host, Event::VoteDenied { by: self.name(by), term });
        }
    }

    /// Nothing leaves in a term whose lead the core has given up.
    pub fn is_kept_back(&mut self, host: Id, term: u64) -> bool {
        let core = self.hosts[host].coordinator.as_ref().map(|coordinator| &coordinator.core);
        let resigned = core.is_some_and(|core| core.has_resigned(term)) && self.without != Without::Resigning;
        if resigned {
            self.tally.note(Kind::Resigned);
        }
        resigned
    }

    /// Whether Raft still waits for this answer to what was sent then. A heartbeat that is answered late has an earlier
    /// one answered in its place, which says as much; entries are waited for as long as a disk may take.
    pub fn is_awaited(&self, host: Id, sent_at: BootTime, answer: Appended) -> bool {
        let soft = self.soft_ttl(host);
        let patient = self.without != Without::LateAcknowledgements;
        let longest = match answer {
            Appended::Matched(_) | Appended::Conflict if patient => self.entries_ttl(host),
            Appended::Matched(_) | Appended::Conflict | Appended::Alive | Appended::HigherVote(..) => soft,
        };
        self.local(host).since(sent_at) <= longest
    }

    /// Whether the votes, or pre-votes, of `round` are still waited for.
    pub fn are_votes_awaited(&self, host: Id, round: u64, pre: bool) -> bool {
        let Some(coordinator) = &self.hosts[host].coordinator else { return false };
        let (asked, at) = if pre { coordinator.asked_pre_votes } else { coordinator.asked_votes };
        asked == round && self.at - at <= self.vote_max(host).as_nanos() as u64
    }

    /// Of an answer that Raft does not hear, the promise counts all the same.
    pub fn count_late(&mut self, host: Id, from: Id, message: Message) {
        let Message::Appended { term, sent_at, promised: Some(promised), .. } = message else { return };
        if self.without != Without::LateAcknowledgements {
            let (from, promised) = (self.name(from), Some(self.counted(host, promised)));
            self.step(host, Event::Acked { from, term, sent_at, promised });
        }
    }
}
