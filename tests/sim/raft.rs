//! A small Raft for simulation and model: terms, votes, logs, commit by quorum, pre-vote, leadership transfer, changes
//! of membership by joint consensus. It follows openraft where the two differ in what they allow. It knows nothing of
//! time, and of a disk only that an own entry counts once it was `written`.

use std::sync::Arc;

use baton::core::agreed::replicated::{Command, Replicated};

use crate::members::{Change, Members};

pub type Id = usize;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub term: u64,
    pub payload: Payload,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// What a new leader begins with.
    Blank,
    Command(Arc<Command>),
    /// In force as soon as it stands in a log.
    Members(Members),
}

impl Entry {
    pub fn command(&self) -> Option<&Command> {
        match &self.payload {
            Payload::Command(command) => Some(command),
            Payload::Blank | Payload::Members(_) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Follower,
    Candidate { granted: u32 },
    Leader(Leading),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leading {
    /// For each member, the entries that it is known to have.
    pub matched: Vec<usize>,
    pub next: Vec<usize>,
    /// From then on, as in openraft, nothing is proposed and no heartbeat is sent.
    pub transfer_to: Option<Id>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ballot {
    pub term: u64,
    pub last: (u64, usize),
    pub transfer: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Append {
    pub term: u64,
    /// Index and term before `entries`; `None` is a heartbeat that carries no log.
    pub prev: Option<(usize, u64)>,
    pub entries: Vec<Entry>,
    pub commit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Appended {
    Matched(usize),
    Alive,
    Conflict,
    HigherVote(u64, Option<Id>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Raft {
    pub me: Id,
    /// All that are or may become members.
    hosts: usize,
    /// Before the first change.
    first: Members,
    /// The newest in the log.
    pub members: Members,
    // Durable.
    pub term: u64,
    pub voted_for: Option<Id>,
    pub log: Vec<Entry>,
    pub applied: usize,
    pub state: Replicated,
    // Lost at a restart.
    pub commit: usize,
    pub role: Role,
    pub pre: Option<(u64, u32)>,
}

impl Raft {
    pub fn new(me: Id, hosts: usize, first: Members) -> Raft {
        Raft {
            me,
            hosts,
            first,
            members: first,
            term: 0,
            voted_for: None,
            log: Vec::new(),
            applied: 0,
            state: Replicated::default(),
            commit: 0,
            role: Role::Follower,
            pre: None,
        }
    }

    /// What is not on disk is forgotten.
    pub fn restart(&mut self) {
        self.members = self.members_before(self.log.len());
        self.commit = self.applied;
        self.role = Role::Follower;
        self.pre = None;
    }

    /// A restart from what a disk kept, in the place of the durable fields. The state follows from the log.
    pub fn crash(&mut self, (term, voted_for): (u64, Option<Id>), log: Vec<Entry>, applied: usize) {
        let mut state = Replicated::default();
        for entry in &log[..applied] {
            entry.command().map(|command| state.apply(entry.term, command));
        }
        (self.term, self.voted_for, self.log, self.applied, self.state) = (term, voted_for, log, applied, state);
        self.restart();
    }

    /// A snapshot of the first `upto` entries, which stand in the log, takes the place of the state; whether it is
    /// newer.
    pub fn install(&mut self, upto: usize) -> bool {
        let newer = upto > self.applied;
        for entry in &self.log[self.applied.min(upto)..upto] {
            entry.command().map(|command| self.state.apply(entry.term, command));
        }
        self.applied = self.applied.max(upto);
        newer
    }

    pub fn leads(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    pub fn leading(&mut self) -> Option<&mut Leading> {
        match &mut self.role {
            Role::Leader(leading) => Some(leading),
            Role::Follower | Role::Candidate { .. } => None,
        }
    }

    pub fn last(&self) -> (u64, usize) {
        (self.log.last().map_or(0, |entry| entry.term), self.log.len())
    }

    /// In force as of the first `entries` of the log.
    pub fn members_before(&self, entries: usize) -> Members {
        let newest = self.log[..entries].iter().rev().find_map(|entry| match &entry.payload {
            Payload::Members(members) => Some(*members),
            Payload::Blank | Payload::Command(_) => None,
        });
        newest.unwrap_or(self.first)
    }

    fn push(&mut self, payload: Payload) {
        if let Payload::Members(members) = &payload {
            self.members = *members;
        }
        self.log.push(Entry { term: self.term, payload });
    }

    /// Whether it may campaign: openraft asks for a voter, by its log or by what is committed of it.
    fn is_voter(&self) -> bool {
        self.members.is_voter(self.me) || self.members_before(self.commit).is_voter(self.me)
    }

    fn adopt(&mut self, term: u64, voted_for: Option<Id>) {
        self.term = term;
        self.voted_for = voted_for;
        self.role = Role::Follower;
        self.pre = None;
    }

    fn is_newer(&self, term: u64, candidate: Id) -> bool {
        term > self.term || term == self.term && self.voted_for == Some(candidate)
    }

    /// A new pre-vote round; what to ask the others.
    pub fn pre_elect(&mut self) -> Option<Ballot> {
        if self.leads() || !self.is_voter() {
            return None;
        }
        self.pre = Some((self.term + 1, 1 << self.me));
        Some(Ballot { term: self.term + 1, last: self.last(), transfer: false })
    }

    /// A vote for itself in a new term; what to ask the others. Whom the lead is offered to need not be a voter.
    pub fn elect(&mut self, transfer: bool) -> Option<Ballot> {
        self.pre = None;
        if self.leads() || !transfer && !self.is_voter() {
            return None;
        }
        self.adopt(self.term + 1, Some(self.me));
        self.role = Role::Candidate { granted: 1 << self.me };
        Some(Ballot { term: self.term, last: self.last(), transfer })
    }

    pub fn on_pre_vote(&self, from: Id, ballot: &Ballot) -> bool {
        ballot.last >= self.last() && self.is_newer(ballot.term, from)
    }

    pub fn on_vote(&mut self, from: Id, ballot: &Ballot) -> bool {
        if ballot.last < self.last() || !self.is_newer(ballot.term, from) {
            return false;
        }
        if ballot.term > self.term {
            self.adopt(ballot.term, Some(from));
        }
        true
    }

    /// Whether the real election is to begin.
    pub fn on_pre_vote_answer(&mut self, from: Id, round: u64, granted: bool, theirs: (u64, Option<Id>)) -> bool {
        let Some((term, votes)) = &mut self.pre else { return false };
        if *term != round {
            return false;
        }
        if granted {
            *votes |= 1 << from;
            let votes = *votes;
            return self.members.is_quorum(votes);
        }
        if theirs.0 > self.term {
            self.adopt(theirs.0, theirs.1);
        }
        false
    }

    /// Whether this member has just become the leader.
    pub fn on_vote_answer(&mut self, from: Id, round: u64, granted: bool, theirs: (u64, Option<Id>)) -> bool {
        if granted && round == self.term {
            let Role::Candidate { granted } = &mut self.role else { return false };
            *granted |= 1 << from;
            let granted = *granted;
            if self.members.is_quorum(granted) {
                self.lead();
                return true;
            }
        } else if !granted && theirs.0 > self.term {
            self.adopt(theirs.0, theirs.1);
        }
        false
    }

    fn lead(&mut self) {
        self.push(Payload::Blank);
        let next = vec![self.log.len(); self.hosts];
        self.role = Role::Leader(Leading { matched: vec![0; self.hosts], next, transfer_to: None });
    }

    /// Index of the new entry; `None` when this member may not propose.
    pub fn propose(&mut self, command: Command) -> Option<usize> {
        self.append(Payload::Command(Arc::new(command)))
    }

    /// As `propose`; `None` also while the change before is not committed.
    pub fn change(&mut self, change: Change) -> Option<usize> {
        if self.members_before(self.commit) != self.members {
            return None;
        }
        let members = self.members.changed(change)?;
        self.append(Payload::Members(members))
    }

    fn append(&mut self, payload: Payload) -> Option<usize> {
        if self.leading()?.transfer_to.is_some() {
            return None;
        }
        self.push(payload);
        Some(self.log.len())
    }

    /// What this member wrote as the leader of `term` is on its own disk; whether the commit index has moved.
    pub fn written(&mut self, term: u64, upto: usize) -> bool {
        let me = self.me;
        if term != self.term {
            return false;
        }
        let Some(leading) = self.leading() else { return false };
        leading.matched[me] = leading.matched[me].max(upto);
        self.advance()
    }

    fn advance(&mut self) -> bool {
        let Role::Leader(leading) = &self.role else { return false };
        let agreed = self.members.agreed(&leading.matched);
        let moves = agreed > self.commit && self.log[agreed - 1].term == self.term;
        if moves {
            self.commit = agreed;
        }
        moves
    }

    /// What `to` lacks.
    pub fn replicate(&mut self, to: Id) -> Option<Append> {
        let next = self.leading()?.next[to].max(1);
        let before = next - 1;
        let prev = (before, if before == 0 { 0 } else { self.log[before - 1].term });
        Some(Append { term: self.term, prev: Some(prev), entries: self.log[before..].to_vec(), commit: self.commit })
    }

    pub fn on_append(&mut self, from: Id, append: &Append) -> Appended {
        if append.term < self.term {
            return Appended::HigherVote(self.term, self.voted_for);
        }
        assert!(!(self.leads() && append.term == self.term), "two leaders in term {}", self.term);
        self.adopt(append.term, Some(from));
        let Some((before, term)) = append.prev else { return Appended::Alive };
        if before > 0 && self.log.get(before - 1).is_none_or(|entry| entry.term != term) {
            return Appended::Conflict;
        }
        for (offset, entry) in append.entries.iter().enumerate() {
            let at = before + offset;
            if self.log.get(at).is_some_and(|mine| mine.term != entry.term) {
                assert!(at >= self.commit, "a committed entry would be overwritten");
                self.log.truncate(at);
                self.members = self.members_before(at);
            }
            if self.log.len() == at {
                self.log.push(entry.clone());
                if let Payload::Members(members) = &entry.payload {
                    self.members = *members;
                }
            }
        }
        let matched = before + append.entries.len();
        self.commit = self.commit.max(append.commit.min(matched));
        Appended::Matched(matched)
    }

    /// Whether the commit index has moved.
    pub fn on_append_answer(&mut self, from: Id, term: u64, answer: Appended) -> bool {
        if let Appended::HigherVote(theirs, voted_for) = answer {
            if theirs > self.term {
                self.adopt(theirs, voted_for);
            }
            return false;
        }
        if term != self.term {
            return false;
        }
        let Some(leading) = self.leading() else { return false };
        match answer {
            Appended::Matched(upto) => {
                leading.matched[from] = leading.matched[from].max(upto);
                leading.next[from] = leading.matched[from] + 1;
            }
            Appended::Conflict => {
                leading.next[from] = leading.next[from].saturating_sub(1).max(leading.matched[from] + 1)
            }
            Appended::Alive | Appended::HigherVote(..) => {}
        }
        self.advance()
    }

    /// Term of the newest `Release` in the log.
    pub fn released_term(&self) -> Option<u64> {
        let release = |entry: &&Entry| entry.command().is_some_and(Command::is_release);
        self.log.iter().rev().find(release).map(|entry| entry.term)
    }

    /// Whether the newest `Claim` or `Release` in the log is a `Release`.
    pub fn ends_released(&self) -> bool {
        let moves = |command: &&Command| command.is_claim() || command.is_release();
        let newest = self.log.iter().rev().filter_map(Entry::command).find(moves);
        newest.is_some_and(Command::is_release)
    }
}
