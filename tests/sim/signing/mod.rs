//! Custody by a signer: no chain node has the key, each asks its coordinator, and the log decides what is signed. Here
//! are the chain nodes, worse than real ones: they ask anew after a lost connection, now and then with another content,
//! and each would have a block of its own. `desk` is the coordinator's side and the signer's. The judge knows every
//! signature that any signer made.

mod desk;
mod stories;

use std::collections::BTreeMap;

use baton::base::ids::{Epoch, Role};
use baton::base::signing::{Hrs, SignDigest, SignTime};
use baton::base::time::WallTime;
use baton::core::agreed::replicated::{Command, Signing as Change};
use baton::core::agreed::sign_log::Grant;
use baton::core::{Action, Event};

use crate::coordinator::Stage;
use crate::faults::Fault;
use crate::machine::ToMachine;
use crate::raft::Id;
use crate::random::Random;
use crate::schedule::What;
use crate::world::{MS, Without, World};

use desk::Signer;
pub use desk::{Desk, Step};
pub use stories::{set_back, signers};

/// Between two looks of a chain node.
const LOOK: u64 = 10 * MS;
/// An operator tries again for so long after.
const OPEN_AGAIN: u64 = 300 * MS;

/// What a chain node wants signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub place: Hrs,
    /// Zero is nil; of a proposal, whose block it is.
    pub content: u8,
    pub time: SignTime,
}

impl Wanted {
    fn digest(&self, without: Without) -> SignDigest {
        let mut digest = [self.content; 32];
        if without == Without::TimelessDigest {
            digest[..8].copy_from_slice(&self.time.seconds.to_le_bytes());
        }
        SignDigest(digest)
    }
}

#[derive(Default)]
struct Node {
    /// What it asked for last, and whether that was answered.
    last: Option<Wanted>,
    answered: bool,
}

pub struct Signing {
    nodes: Vec<Node>,
    signers: Vec<Signer>,
    /// Content and time of all that was signed.
    signed: BTreeMap<Hrs, (u8, SignTime)>,
    /// What the log admitted first, as whoever applies it first sees it.
    admitted: BTreeMap<Hrs, u8>,
    random: Random,
    asks: u64,
    answered: u64,
    /// When something was signed for the first time.
    new_at: u64,
    opened_at: u64,
    /// The log was set back. A mark knows what was signed, not with which time.
    log_was_lost: bool,
    /// A write of the mark takes up to so long.
    mark_takes: u64,
    complaint: Option<String>,
}

impl Signing {
    pub fn new(seed: u64, hosts: usize) -> Signing {
        Signing {
            nodes: (0..hosts).map(|_| Node::default()).collect(),
            signers: (0..hosts).map(|_| Signer::default()).collect(),
            signed: BTreeMap::new(),
            admitted: BTreeMap::new(),
            random: Random::new(seed ^ 0x7369_676e),
            asks: 0,
            answered: 0,
            new_at: 0,
            opened_at: 0,
            log_was_lost: false,
            mark_takes: 20 * MS,
            complaint: None,
        }
    }

    pub fn complaint(&self) -> Option<String> {
        self.complaint.clone()
    }

    /// Requests that came to a signature.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    fn complain(&mut self, complaint: String) {
        self.complaint.get_or_insert(complaint);
    }

    /// A signature has left a signer.
    fn leaves(&mut self, host: Id, at: u64, wanted: Wanted) {
        let Wanted { place, content, time } = wanted;
        self.answered += 1;
        let made = (content, time);
        match self.signed.get(&place) {
            None => {
                self.signed.insert(place, made);
                self.new_at = at;
            }
            Some(before) if *before == made || self.log_was_lost && before.0 == content => {}
            Some(before) => {
                self.complain(format!("{place} is signed as {before:?}, and by the signer of {host} as {made:?}"));
            }
        }
    }

    /// The next place in the order of a node that is at `height`.
    fn next_place(&mut self, height: u64, last: Option<Hrs>) -> Option<Hrs> {
        let first = if height.is_multiple_of(3) { Hrs::PROPOSAL } else { Hrs::PREVOTE };
        match last {
            Some(last) if last.height >= height => match last.step {
                Hrs::PRECOMMIT if last.round < 2 && self.random.chance(15) => {
                    Some(Hrs::new(last.height, last.round + 1, Hrs::PREVOTE))
                }
                Hrs::PRECOMMIT => None,
                step => Some(Hrs { step: step + 1, ..last }),
            },
            _ => Some(Hrs::new(height, 0, first)),
        }
    }

    /// Most nodes vote alike, and each proposes a block of its own.
    fn content(&mut self, host: Id, place: Hrs) -> u8 {
        match place.step {
            Hrs::PROPOSAL => host as u8 + 1,
            _ if self.random.chance(85) => 100 + place.round as u8,
            _ => 0,
        }
    }

    fn wants(&mut self, host: Id, height: u64) -> Option<Wanted> {
        let (last, answered) = (self.nodes[host].last, self.nodes[host].answered);
        let wanted = match last {
            // Its connection is lost, and it asks again; or it starts anew and remembers less than it said.
            Some(last) if self.random.chance(4) => {
                let content = if self.random.chance(70) { last.content } else { self.content(host, last.place) };
                let time = if content == last.content && self.random.chance(50) { last.time } else { self.time(host) };
                Wanted { content, time, ..last }
            }
            Some(_) if !answered => return None,
            last => {
                let place = self.next_place(height, last.map(|last| last.place))?;
                Wanted { place, content: self.content(host, place), time: self.time(host) }
            }
        };
        self.nodes[host] = Node { last: Some(wanted), answered: false };
        Some(wanted)
    }

    /// No two nodes ask with the same time.
    fn time(&mut self, host: Id) -> SignTime {
        self.asks += 1;
        SignTime { seconds: self.asks as i64, nanos: host as i32 }
    }
}

impl World {
    pub fn wants(&mut self, host: Id) {
        self.later(LOOK, What::Wants { host });
        self.open_sign_log(host);
        let runs = self.hosts[host].role == Role::Validator && self.hosts[host].machine.answers(self.at);
        let height = self.chain.head(host) + 1;
        let is_served = self.hosts[host].coordinator.is_some();
        let Some(signing) = &mut self.signing else { return };
        if !runs || !is_served {
            // Whatever it asked for is not answered any more.
            signing.nodes[host].answered |= !is_served;
            return;
        }
        let Some(wanted) = signing.wants(host, height) else { return };
        self.note(|| format!("{host} node asks for {wanted:?}"));
        let after = self.moment_of_signing();
        self.own(host, after, Stage::Sign(Step::Asked(wanted)));
    }

    /// `host`'s node has its answer to `wanted`, if it still waits for that.
    fn node_is_answered(&mut self, host: Id, wanted: Wanted) {
        let Some(signing) = &mut self.signing else { return };
        let node = &mut signing.nodes[host];
        node.answered |= node.last == Some(wanted);
    }

    /// An operator tells once what was signed before, and again until it is agreed.
    fn open_sign_log(&mut self, host: Id) {
        let at = self.at;
        let is_open = self.hosts.iter().any(|host| host.raft.state.sign_log.is_some());
        let Some(signing) = self.signing.as_mut().filter(|_| host == 0 && !is_open) else { return };
        if at >= signing.opened_at + OPEN_AGAIN {
            signing.opened_at = at;
            let last = Grant { place: Hrs::default(), digest: None, time: SignTime::default() };
            let at = WallTime::from_nanos(at);
            let open = Change::Open { chain: "c".into(), key: "k".into(), last, at };
            self.strike(Fault::Order(Command::Signing(open)));
        }
    }

    /// As `World::moment`, by a chance of its own: the other histories stay what they are.
    fn moment_of_signing(&mut self) -> u64 {
        let Some(signing) = &mut self.signing else { return 0 };
        match signing.random.between(0, 100) {
            0..97 => signing.random.between(0, 2 * MS),
            97..99 => signing.random.between(0, 30 * MS),
            _ => signing.random.between(0, 200 * MS),
        }
    }

    /// Where the log decides, somebody has signed something new since then.
    pub fn somebody_signs(&self, since: u64) -> bool {
        self.signing.as_ref().is_none_or(|signing| signing.new_at >= since)
    }

    /// As `effects/without_key.rs`. Gives back what is no order about the key.
    pub fn perform_without_key(&mut self, host: Id, action: Action) -> Option<Action> {
        if self.signing.is_none() {
            return Some(action);
        }
        let stage = match action {
            Action::Arm { epoch, deadline } => Stage::WithoutKey(Event::GuardArmed { epoch, deadline }),
            Action::Disarm { .. } => return None,
            Action::LinkValidating { epoch, .. } => Stage::WithoutKey(Event::Linked { epoch }),
            Action::Activate { epoch } => {
                if !self.hosts[host].machine.is_running() {
                    self.ask(host, ToMachine::Start { validator_epoch: None });
                }
                Stage::AwaitAnswer { epoch }
            }
            Action::Deactivate { .. } => Stage::WithoutKey(Event::Inactive { last_signed: None }),
            other => return Some(other),
        };
        self.own(host, 0, stage);
        None
    }

    pub fn await_answer(&mut self, host: Id, epoch: Epoch) {
        if self.hosts[host].machine.answers(self.at) {
            self.step(host, Event::Activated { epoch });
        } else {
            self.own(host, LOOK, Stage::AwaitAnswer { epoch });
        }
    }
}
