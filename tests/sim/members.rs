//! Who votes and who only follows, as Raft has it: one set of voters, or two during a change (joint consensus).
//! Sets are bits, since members are numbers here.

use crate::raft::Id;

pub type Set = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Members {
    /// During a change, the voters from before it: they must agree too.
    pub leaving: Option<Set>,
    pub voters: Set,
    pub learners: Set,
}

/// Of one member at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    Add(Id),
    Promote(Id),
    Remove(Id),
    /// The end of a change: its second step, also when its leader was lost in the midst of it.
    Settle,
    /// The other end, by a leader that would lose its vote by the change.
    TakeBack,
}

impl Members {
    /// The first `voters` hosts.
    pub fn first(voters: usize) -> Members {
        Members { leaving: None, voters: (1 << voters) - 1, learners: 0 }
    }

    pub fn sets(&self) -> impl Iterator<Item = Set> + use<> {
        self.leaving.into_iter().chain([self.voters])
    }

    pub fn is_voter(&self, id: Id) -> bool {
        self.sets().any(|set| set & 1 << id != 0)
    }

    pub fn is_learner(&self, id: Id) -> bool {
        self.learners & 1 << id != 0
    }

    pub fn contains(&self, id: Id) -> bool {
        self.is_voter(id) || self.is_learner(id)
    }

    /// What a leader ends the change with that another one has begun.
    pub fn end_by(&self, leader: Id) -> Change {
        if self.voters & 1 << leader != 0 { Change::Settle } else { Change::TakeBack }
    }

    pub fn is_quorum(&self, granted: Set) -> bool {
        self.sets().all(|set| (granted & set).count_ones() > set.count_ones() / 2)
    }

    /// The highest index that a quorum of every set has.
    pub fn agreed(&self, matched: &[usize]) -> usize {
        let by = |set: Set| {
            let reached = |upto: usize| ids(set).filter(|id| matched[*id] >= upto).count();
            let needed = set.count_ones() as usize / 2 + 1;
            ids(set).map(|id| matched[id]).filter(|upto| reached(*upto) >= needed).max().unwrap_or(0)
        };
        self.sets().map(by).min().unwrap_or(0)
    }

    /// `None` for a change that makes no sense, or that must wait for the end of another.
    pub fn changed(&self, change: Change) -> Option<Members> {
        match (change, self.leaving) {
            (Change::Settle, Some(_)) => Some(Members { leaving: None, ..*self }),
            (Change::TakeBack, Some(before)) => Some(Members { leaving: None, voters: before, ..*self }),
            (Change::Settle | Change::TakeBack, None) => None,
            (Change::Add(_) | Change::Promote(_) | Change::Remove(_), Some(_)) => None,
            (Change::Add(id), None) => {
                (!self.contains(id)).then(|| Members { learners: self.learners | 1 << id, ..*self })
            }
            (Change::Promote(id), None) => self.is_learner(id).then(|| Members {
                leaving: Some(self.voters),
                voters: self.voters | 1 << id,
                learners: self.learners & !(1 << id),
            }),
            (Change::Remove(id), None) => self.is_voter(id).then(|| Members {
                leaving: Some(self.voters),
                voters: self.voters & !(1 << id),
                ..*self
            }),
        }
    }
}

pub fn ids(set: Set) -> impl Iterator<Item = Id> {
    (0..Set::BITS as Id).filter(move |id| set & 1 << id != 0)
}
