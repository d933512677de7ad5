//! How the last moves of the baton went, step by step, as one member saw them: the host that takes it sees all of its
//! steps, the others what the log and the leaders tell them. [`Timelines`] is told what the core is told. `core_handle`
//! tells it while a coordinator runs and `past` out of a record, so both tell the same. It decides nothing.

use std::collections::VecDeque;

use crate::base::ids::{Epoch, NodeId, Term};
use crate::base::time::Now;
use crate::core::agreed::replicated::{Applied, Baton, Command};
use crate::core::tenure::Reason;
use crate::core::{Action, Core, Event, Stage};

/// The oldest goes first.
pub const TIMELINES_MAX: usize = 16;

/// What can be seen of a move, in the order in which it usually happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The leader that held the baton was heard for the last time.
    LastWord,
    /// It was noticed that the baton has to move.
    Detected,
    /// Who takes the baton leads.
    Elected,
    /// The claim is in the log.
    Claimed,
    Armed,
    /// The sign floor is met.
    Settled,
    Linked,
    /// The chain node is proven to run with the key.
    Active,
    /// That is in the log.
    Recorded,
    /// It came to nothing: the baton is let go before the chain node was active.
    LetGo,
}

impl Step {
    pub fn as_str(self) -> &'static str {
        match self {
            Step::LastWord => "last-word",
            Step::Detected => "detected",
            Step::Elected => "elected",
            Step::Claimed => "claimed",
            Step::Armed => "armed",
            Step::Settled => "settled",
            Step::Linked => "linked",
            Step::Active => "active",
            Step::Recorded => "recorded",
            Step::LetGo => "let-go",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    pub step: Step,
    pub at: Now,
    /// In words; empty when the step says it all.
    pub because: String,
}

/// One move, as far as this member saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    pub epoch: Epoch,
    /// Who held the baton before; `None` when that is not known here.
    pub from: Option<NodeId>,
    pub to: NodeId,
    /// As the log has it: of the release that came before, else of the claim.
    pub reason: String,
    /// The old holder let go first.
    pub released: bool,
    /// In the order in which they were seen, each step once.
    pub moments: Vec<Moment>,
}

impl Timeline {
    pub fn at(&self, step: Step) -> Option<Now> {
        self.moments.iter().find(|moment| moment.step == step).map(|moment| moment.at)
    }

    /// Nothing that is to come belongs to it.
    pub fn is_over(&self) -> bool {
        [Step::Recorded, Step::LetGo].iter().any(|step| self.at(*step).is_some())
    }

    fn note(&mut self, step: Step, at: Now, because: &str) {
        if self.at(step).is_none() {
            self.moments.push(Moment { step, at, because: because.to_owned() });
        }
    }
}

/// Of the last moves. On a step that belongs to no move, nothing is allocated.
#[derive(Clone, Debug, Default)]
pub struct Timelines {
    /// The oldest first.
    moves: VecDeque<Timeline>,
    ahead: Ahead,
    /// Where the own tenure stood after the last step.
    tenure: Option<(Stage, Epoch)>,
}

/// What may become the beginning of the next move.
#[derive(Clone, Debug, Default)]
struct Ahead {
    /// The leader, since when it is followed or leads, and when it was heard last.
    leader: Option<Leader>,
    /// When the holder, which led, was heard last.
    last_word: Option<(NodeId, Now)>,
    detected: Option<Moment>,
    release: Option<Release>,
}

#[derive(Clone, Debug)]
struct Leader {
    id: NodeId,
    term: Term,
    since: Now,
}

#[derive(Clone, Debug)]
struct Release {
    of: NodeId,
    reason: String,
}

impl Timelines {
    /// The oldest first.
    pub fn moves(&self) -> impl DoubleEndedIterator<Item = &Timeline> {
        self.moves.iter()
    }

    /// `event` is about to be told to `core`.
    pub fn before(&mut self, core: &Core, now: Now, event: &Event) {
        match event {
            Event::Accepted { leader, term, .. } => self.heard(core, now, leader, *term),
            Event::Led { term } => self.led(core.me(), *term, now),
            Event::Applied { command: Command::Baton(step), outcome, view, .. } => {
                let holder = core
                    .view()
                    .holder
                    .as_ref()
                    .filter(|_| view.holder.is_none() || matches!(step, Baton::Claim { .. }));
                self.applied(holder, now, step, outcome);
            }
            _ => {}
        }
    }

    /// It was, and `actions` followed.
    pub fn after(&mut self, core: &Core, now: Now, actions: &[Action]) {
        if actions.contains(&Action::Campaign) {
            self.detect(now, || "no leader is heard".to_owned());
        }
        let tenure = core.stage().map(|stage| (stage, core.epoch()));
        let before = std::mem::replace(&mut self.tenure, tenure);
        if before == tenure {
            return;
        }
        if let Some((stage, epoch)) = tenure {
            self.passed(core, now, stage, epoch);
        }
        // A tenure that ends, or is let go, and never was active.
        let ended = before.filter(|(_, epoch)| tenure.is_none_or(|(_, other)| other != *epoch));
        let reason = core.ending().map_or("", Reason::as_str);
        match (ended, tenure) {
            (Some((_, epoch)), _) => self.let_go(now, epoch, ""),
            (None, Some((Stage::Stopping, epoch))) => {
                self.let_go(now, epoch, reason);
                // What this member orders itself: whoever takes the baton next does it for this.
                self.detect(now, || format!("{} lets go: {reason}", core.me()));
            }
            (None, _) => {}
        }
    }

    /// Something is missing, or another run of the coordinator begins: what was to be the beginning of a move is none.
    pub fn interrupt(&mut self) {
        (self.ahead, self.tenure) = (Ahead::default(), None);
    }

    fn heard(&mut self, core: &Core, now: Now, leader: &NodeId, term: Term) {
        if core.view().holder.as_ref() == Some(leader) {
            match &mut self.ahead.last_word {
                Some((of, at)) if of == leader => *at = now,
                last_word => *last_word = Some((leader.clone(), now)),
            }
            // It was there all the same.
            if self.ahead.release.is_none() {
                self.ahead.detected = None;
            }
        }
        self.led(leader, term, now);
    }

    fn led(&mut self, leader: &NodeId, term: Term, now: Now) {
        let known = self.ahead.leader.as_ref().is_some_and(|known| known.term == term && known.id == *leader);
        if !known {
            self.ahead.leader = Some(Leader { id: leader.clone(), term, since: now });
        }
    }

    fn detect(&mut self, at: Now, because: impl FnOnce() -> String) {
        self.ahead.detected.get_or_insert_with(|| Moment { step: Step::Detected, at, because: because() });
    }

    /// `holder` is whose baton it was, when `step` takes it away.
    fn applied(&mut self, holder: Option<&NodeId>, now: Now, step: &Baton, outcome: &Applied) {
        match (step, outcome) {
            (Baton::Claim { epoch, member, reason, .. }, Applied::Claimed { .. }) => {
                self.claimed(now, *epoch, member, holder, reason);
            }
            (Baton::Release { epoch, reason, .. }, Applied::Released { .. }) => {
                let Some(of) = holder else { return };
                self.detect(now, || format!("the release of epoch {epoch} is in the log: {reason}"));
                self.ahead.release = Some(Release { of: of.clone(), reason: reason.clone() });
            }
            (Baton::Activated { epoch, .. }, Applied::Recorded) => {
                if let Some(of) = self.of(*epoch) {
                    of.note(Step::Recorded, now, "");
                }
            }
            (Baton::Claim { .. } | Baton::Release { .. } | Baton::Activated { .. }, _) => {}
        }
    }

    fn claimed(&mut self, now: Now, epoch: Epoch, to: &NodeId, holder: Option<&NodeId>, reason: &str) {
        let Ahead { leader, last_word, detected, release } = std::mem::take(&mut self.ahead);
        // Who leads goes on to; what came before is of this move alone.
        let elected = leader.filter(|leader| leader.id == *to);
        // Another leader's release says only that it could not hold the baton either.
        let released = release.as_ref().is_some_and(|release| release.reason != Reason::CannotHold.as_str());
        let from = release.as_ref().map(|release| &release.of).or(holder).cloned();
        let reason = release.filter(|_| released).map_or_else(|| reason.to_owned(), |release| release.reason);
        let mut timeline = Timeline {
            epoch,
            from,
            to: to.clone(),
            reason,
            released,
            moments: Vec::with_capacity(Step::LetGo as usize),
        };
        let last_word = last_word.filter(|(of, _)| timeline.from.as_ref() == Some(of) && of != to);
        if let Some((_, at)) = last_word {
            timeline.note(Step::LastWord, at, "");
        }
        if let Some(Moment { step, at, because }) = detected {
            timeline.note(step, at, &because);
        }
        // A leader that takes the baton up again was elected for another move.
        let first_of_term = !self.moves.iter().any(|other| {
            let led = other.at(Step::Elected);
            led.is_some() && led == elected.as_ref().map(|elected| elected.since)
        });
        if let Some(Leader { term, since, .. }) = elected.as_ref().filter(|_| first_of_term) {
            timeline.note(Step::Elected, *since, &format!("leads term {term}"));
        }
        timeline.note(Step::Claimed, now, "");
        timeline.moments.sort_by_key(|moment| moment.at.boot);
        self.ahead.leader = elected;
        if self.moves.len() == TIMELINES_MAX {
            self.moves.pop_front();
        }
        self.moves.push_back(timeline);
    }

    /// One step of the core may go through several stages.
    fn passed(&mut self, core: &Core, now: Now, stage: Stage, epoch: Epoch) {
        let steps: &[Step] = match stage {
            Stage::Claiming | Stage::Arming | Stage::Upgrading | Stage::Stopping => return,
            Stage::Settling => &[Step::Armed],
            Stage::Linking => &[Step::Armed, Step::Settled],
            Stage::Activating => &[Step::Armed, Step::Settled, Step::Linked],
            Stage::Active => &[Step::Armed, Step::Settled, Step::Linked, Step::Active],
        };
        let Some(timeline) = self.of(epoch) else { return };
        if timeline.to != *core.me() || timeline.at(Step::Active).is_some() || timeline.is_over() {
            return;
        }
        steps.iter().for_each(|step| timeline.note(*step, now, ""));
    }

    fn let_go(&mut self, now: Now, epoch: Epoch, because: &str) {
        if let Some(timeline) = self.of(epoch).filter(|timeline| timeline.at(Step::Active).is_none()) {
            timeline.note(Step::LetGo, now, because);
        }
    }

    fn of(&mut self, epoch: Epoch) -> Option<&mut Timeline> {
        self.moves.iter_mut().rev().find(|timeline| timeline.epoch == epoch)
    }
}
