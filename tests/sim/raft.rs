//! A small Raft for the simulation: terms, votes, logs, commit by quorum, pre-vote, leadership transfer. It
//! follows openraft where the two differ in what they allow. It knows nothing of time but what `heard_at` says.

use baton::core::replicated::{Command, Replicated};

pub type Id = usize;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub term: u64,
    /// `None` is the blank entry that a new leader begins with.
    pub command: Option<Command>,
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
    pub members: usize,
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
    pub fn new(me: Id, members: usize) -> Raft {
        Raft {
            me,
            members,
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

    pub fn restart(&mut self) {
        self.commit = self.applied;
        self.role = Role::Follower;
        self.pre = None;
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

    fn is_quorum(&self, granted: u32) -> bool {
        granted.count_ones() as usize > self.members / 2
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
        if self.leads() {
            return None;
        }
        self.pre = Some((self.term + 1, 1 << self.me));
        Some(Ballot { term: self.term + 1, last: self.last(), transfer: false })
    }

    /// A vote for itself in a new term; what to ask the others.
    pub fn elect(&mut self, transfer: bool) -> Option<Ballot> {
        self.pre = None;
        if self.leads() {
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
            return self.is_quorum(votes);
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
            if self.is_quorum(granted) {
                self.lead();
                return true;
            }
        } else if !granted && theirs.0 > self.term {
            self.adopt(theirs.0, theirs.1);
        }
        false
    }

    fn lead(&mut self) {
        self.log.push(Entry { term: self.term, command: None });
        let mut matched = vec![0; self.members];
        matched[self.me] = self.log.len();
        let next = vec![self.log.len(); self.members];
        self.role = Role::Leader(Leading { matched, next, transfer_to: None });
    }

    /// Index of the new entry; `None` when this member may not propose.
    pub fn propose(&mut self, command: Command) -> Option<usize> {
        let (term, me) = (self.term, self.me);
        if self.leading()?.transfer_to.is_some() {
            return None;
        }
        self.log.push(Entry { term, command: Some(command) });
        let last = self.log.len();
        self.leading()?.matched[me] = last;
        Some(last)
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
            }
            if self.log.len() == at {
                self.log.push(entry.clone());
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
        let mut matched = leading.matched.clone();
        matched.sort_unstable_by(|a, b| b.cmp(a));
        let agreed = matched[self.members / 2];
        let moves = agreed > self.commit && self.log[agreed - 1].term == term;
        if moves {
            self.commit = agreed;
        }
        moves
    }

    /// Term of the newest `Release` in the log.
    pub fn released_term(&self) -> Option<u64> {
        let release = |entry: &&Entry| matches!(entry.command, Some(Command::Release { .. }));
        self.log.iter().rev().find(release).map(|entry| entry.term)
    }

    /// Whether the newest `Claim` or `Release` in the log is a `Release`.
    pub fn ends_released(&self) -> bool {
        let newest = self.log.iter().rev().find_map(|entry| match entry.command {
            Some(Command::Release { .. }) => Some(true),
            Some(Command::Claim { .. }) => Some(false),
            Some(
                Command::Activated { .. }
                | Command::Join { .. }
                | Command::SetMaintenance { .. }
                | Command::SetPause { .. }
                | Command::SetPriority { .. },
            )
            | None => None,
        });
        newest == Some(true)
    }
}
