//! A request on its way through a coordinator, as in `coordinator/signing.rs`, and through its signer. What the log says
//! and what a mark admits is the product's own code.

use baton::base::signing::{SignDigest, SignTime};
use baton::core::Event;
use baton::core::agreed::replicated::{Applied, Command, Signing as Change};
use baton::core::agreed::sign_log::{Requester, SignRequest, Verdict};
use baton::host::signer::{Mark, has_to_move};

use super::{Wanted, World};
use crate::coordinator::Stage;
use crate::raft::Id;
use crate::world::{MS, Without};

/// Requests that wait are looked at again after so long; the product is told of news.
const AGAIN: u64 = 5 * MS;

#[derive(Clone, Debug)]
pub enum Step {
    Asked(Wanted),
    /// Is there news of the `id`th request?
    Look(u64),
    /// The signer may write its mark for it.
    Reserve(u64),
    /// What was admitted is signed with this time.
    Sign {
        id: u64,
        time: SignTime,
    },
    /// The signer has written its mark.
    Marked {
        id: u64,
        mark: Mark,
        then: Option<Wanted>,
    },
}

/// What a coordinator has in hand. Lost with it.
#[derive(Default)]
pub struct Desk {
    asked: Vec<Asked>,
    last: u64,
    /// The highest height that the core has heard of.
    told: u64,
}

pub struct Asked {
    id: u64,
    wanted: Wanted,
    until: u64,
    /// Index and term of its entry.
    entry: Option<(usize, u64)>,
}

/// A host's signer. The mark outlives everything.
#[derive(Default)]
pub struct Signer {
    mark: Option<Mark>,
    /// Of the write under way, which ends then.
    writing: Option<Mark>,
    free_at: u64,
}

impl World {
    pub fn sign(&mut self, host: Id, step: Step) {
        match step {
            Step::Asked(wanted) => {
                let until = self.at + 2 * self.hosts[host].timing.lease().as_nanos() as u64;
                let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
                let desk = &mut coordinator.desk;
                desk.last += 1;
                let id = desk.last;
                desk.asked.push(Asked { id, wanted, until, entry: None });
                self.look(host, id);
            }
            Step::Look(id) => self.look(host, id),
            Step::Reserve(id) => {
                if let Some(wanted) = self.in_hand(host, id) {
                    self.mark(host, id, wanted, None);
                }
            }
            Step::Sign { id, time } => {
                if let Some(wanted) = self.in_hand(host, id) {
                    self.mark(host, id, wanted, Some(Wanted { time, ..wanted }));
                }
            }
            Step::Marked { id, mark, then } => self.marked(host, id, mark, then),
        }
    }

    fn in_hand(&self, host: Id, id: u64) -> Option<Wanted> {
        let desk = &self.hosts[host].coordinator.as_ref()?.desk;
        desk.asked.iter().find(|asked| asked.id == id).map(|asked| asked.wanted)
    }

    fn request(&self, host: Id, wanted: &Wanted) -> SignRequest {
        SignRequest {
            chain: "c".into(),
            place: wanted.place,
            digest: wanted.digest(self.without),
            time: wanted.time,
            by: Some(Requester { host: self.name(host), sentry: None }),
        }
    }

    fn look(&mut self, host: Id, id: u64) {
        let Some(wanted) = self.in_hand(host, id) else { return };
        let request = self.request(host, &wanted);
        let known = self.hosts[host].raft.state.sign_log.as_ref();
        let verdict = known.map_or(Verdict::NotHere { chain: None }, |log| log.weigh(&request));
        let Some(coordinator) = &self.hosts[host].coordinator else { return };
        let desk = &coordinator.desk;
        let Some(asked) = desk.asked.iter().find(|asked| asked.id == id) else { return };
        if asked.entry.is_none() && verdict != Verdict::Granted {
            return self.decided(host, id, verdict);
        }
        let is_free = desk.asked.iter().all(|other| other.entry.is_none());
        // What is proposed keeps its turn to its end, whoever has stopped to wait for it.
        let is_late = asked.entry.is_none() && self.at >= asked.until;
        if is_late {
            return self.refused(host, id);
        }
        if asked.entry.is_none() && is_free && coordinator.core.is_active() {
            self.propose_to_sign(host, id, request);
        }
        self.own(host, AGAIN, Stage::Sign(Step::Look(id)));
    }

    fn propose_to_sign(&mut self, host: Id, id: u64, request: SignRequest) {
        let time = request.time;
        let term = self.hosts[host].raft.term;
        let before = self.hosts[host].raft.log.len();
        self.propose_order(host, Command::Signing(Change::Sign(request)));
        if self.hosts[host].raft.log.len() == before {
            return;
        }
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        if let Some(asked) = coordinator.desk.asked.iter_mut().find(|asked| asked.id == id) {
            asked.entry = Some((before + 1, term));
        }
        let after = self.moment_of_signing();
        self.own(host, after, Stage::Sign(Step::Reserve(id)));
        if self.without == Without::Commit {
            self.own(host, after, Stage::Sign(Step::Sign { id, time }));
        }
    }

    /// The entry at `index` is committed and applied here.
    pub fn weighed(&mut self, host: Id, index: usize, term: u64, outcome: &Applied) {
        let Some(signing) = &mut self.signing else { return };
        let Some(log) = &self.hosts[host].raft.state.sign_log else { return };
        if let Some(digest) = log.last.digest {
            signing.admitted.entry(log.last.place).or_insert(digest.0[31]);
        }
        let height = log.last.place.height;
        let Some(coordinator) = &mut self.hosts[host].coordinator else { return };
        let desk = &mut coordinator.desk;
        let rises = height > desk.told;
        desk.told = desk.told.max(height);
        let mine = desk.asked.iter_mut().find(|asked| asked.entry.is_some_and(|(at, _)| at == index));
        let decided = mine.and_then(|asked| match (asked.entry, outcome) {
            (Some((_, of)), Applied::Weighed(verdict)) if of == term => Some((asked.id, verdict.clone())),
            _ => {
                asked.entry = None;
                None
            }
        });
        if rises {
            self.step(host, Event::Admitted { height });
        }
        if let Some((id, verdict)) = decided {
            self.decided(host, id, verdict);
        }
    }

    /// The lead is lost: whether the entries are committed, nobody here is told.
    pub fn sign_proposals_fail(&mut self, host: Id) {
        if let Some(coordinator) = &mut self.hosts[host].coordinator {
            coordinator.desk.asked.iter_mut().for_each(|asked| asked.entry = None);
        }
    }

    fn decided(&mut self, host: Id, id: u64, verdict: Verdict) {
        let Some(wanted) = self.in_hand(host, id) else { return };
        self.note(|| format!("{host} says {verdict:?} to {wanted:?}"));
        let admits = match &verdict {
            Verdict::Repeated { .. } if self.without == Without::FirstTime => Some(wanted.time),
            Verdict::Stale { .. } if self.without == Without::LowerPlaces => Some(wanted.time),
            verdict => verdict.admits(wanted.time),
        };
        if let Some(time) = admits {
            let after = self.moment_of_signing();
            return self.own(host, after, Stage::Sign(Step::Sign { id, time }));
        }
        if let (Verdict::Conflict { place }, Some(signing)) = (&verdict, &mut self.signing)
            && signing.admitted.get(place) == Some(&wanted.content)
        {
            signing.complain(format!("{host} refuses what was admitted at {place}: {wanted:?}"));
        }
        self.refused(host, id);
    }

    fn refused(&mut self, host: Id, id: u64) {
        let Some(wanted) = self.in_hand(host, id) else { return };
        self.forget(host, id);
        self.node_is_answered(host, wanted);
    }

    fn forget(&mut self, host: Id, id: u64) {
        if let Some(coordinator) = &mut self.hosts[host].coordinator {
            coordinator.desk.asked.retain(|asked| asked.id != id);
        }
    }

    /// The signer is asked to be at `wanted`, and to sign `then`. It does one thing after the other.
    fn mark(&mut self, host: Id, id: u64, wanted: Wanted, then: Option<Wanted>) {
        let (at, without) = (self.at, self.without);
        let digest: SignDigest = wanted.digest(without);
        let Some(signing) = &mut self.signing else { return };
        let signer = &mut signing.signers[host];
        let moves = signer.mark.as_ref().map_or(Ok(true), |mark| has_to_move(mark, wanted.place, digest));
        let at_once = without == Without::MarkFirst && moves.is_ok();
        if let Some(wanted) = then.filter(|_| at_once) {
            return self.signed(host, id, wanted);
        }
        if at < signer.free_at {
            let after = signer.free_at - at + 1;
            let step = match then {
                Some(Wanted { time, .. }) => Step::Sign { id, time },
                None => Step::Reserve(id),
            };
            return self.own(host, after, Stage::Sign(step));
        }
        let mark = Mark { chain: Some("c".into()), place: wanted.place, digest: Some(digest) };
        match moves {
            Ok(true) => {
                let takes = signing.random.between(MS / 10, signing.mark_takes);
                signer.free_at = at + takes;
                signer.writing = Some(mark.clone());
                self.own(host, takes, Stage::Sign(Step::Marked { id, mark, then }));
            }
            Ok(false) => {
                if let Some(wanted) = then {
                    self.signed(host, id, wanted);
                }
            }
            // A place above was reserved for an entry that never came to be, or the asker has gone on since.
            Err(refusal) => {
                self.note(|| format!("{host} signer refuses {wanted:?}: {}", refusal.text));
                if then.is_some() {
                    self.refused(host, id);
                }
            }
        }
    }

    fn marked(&mut self, host: Id, id: u64, mark: Mark, then: Option<Wanted>) {
        let Some(signing) = &mut self.signing else { return };
        let signer = &mut signing.signers[host];
        signer.writing = None;
        signer.mark = Some(mark);
        if let Some(wanted) = then {
            self.signed(host, id, wanted);
        }
    }

    fn signed(&mut self, host: Id, id: u64, wanted: Wanted) {
        let at = self.at;
        self.note(|| format!("{host} signs {wanted:?}"));
        if let Some(signing) = &mut self.signing {
            signing.leaves(host, at, wanted);
        }
        if let Some(asked) = self.in_hand(host, id) {
            self.forget(host, id);
            self.node_is_answered(host, asked);
        }
    }

    /// It ends with its coordinator. What it was writing is on the disk, or not.
    pub fn lose_signer(&mut self, host: Id) {
        let Some(signing) = &mut self.signing else { return };
        let signer = &mut signing.signers[host];
        if let Some(mark) = signer.writing.take().filter(|_| signing.random.chance(50)) {
            signer.mark = Some(mark);
        }
        signer.free_at = 0;
    }
}
