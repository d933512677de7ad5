//! The same core, told the same once more, with a witness beside it that knows the rules.

use super::entry::{Entry, Head, Question, digest};
use super::format::{Piece, Unreadable};
use super::observed::Observed;
use super::story::{Story, Told};
use crate::base::time::{Now, WallTime};
use crate::core::fences::votes::Refusal;
use crate::core::{Action, Core};

/// What a replay comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Who wrote the record, each once, in this order.
    pub heads: Vec<Head>,
    /// What was replayed, steps and questions; and how many could not be, since no core stands before them.
    pub replayed: u64,
    pub passed_over: u64,
    /// Of the first and the last of them.
    pub span: Option<(WallTime, WallTime)>,
    /// Entries that were not kept, as the record says.
    pub lost: u64,
    /// Places with bytes that are no entry.
    pub unreadable: Vec<Unreadable>,
    pub differences: Vec<Difference>,
    pub story: Vec<Told>,
    /// What a comparison with other members needs, and the rules that this one has broken.
    pub observed: Observed,
}

/// The core of this version does not do what the recorded one did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub at: Now,
    /// What was recorded, and what this core makes of it.
    pub text: String,
}

/// Goes through `pieces` and tells what happened.
pub fn replay(pieces: impl IntoIterator<Item = Piece>) -> Replay {
    let mut replayer = Replayer::default();
    pieces.into_iter().for_each(|piece| replayer.take(piece));
    replayer.story.end();
    replayer.replay.observed.end();
    Replay { story: replayer.story.told, ..replayer.replay }
}

#[derive(Default)]
struct Replayer {
    replay: Replay,
    core: Option<Core>,
    /// Of the last step or question.
    now: Option<Now>,
    story: Story,
}

impl Replayer {
    fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Head(head) => {
                // The next segment of a run goes on where the last one ended.
                if self.replay.heads.last() != Some(&head) {
                    self.story.begin(&head);
                    self.replay.observed.end_run();
                    self.replay.heads.push(head);
                    self.core = None;
                }
            }
            Piece::Unreadable(unreadable) => {
                self.replay.unreadable.push(unreadable);
                self.replay.observed.lose();
                self.core = None;
            }
            Piece::Entry(Entry::Core(core)) => self.take_core(core.into_owned()),
            Piece::Entry(Entry::Gap { entries }) => {
                self.replay.lost += entries;
                self.replay.observed.lose();
                self.story.gap(self.now, entries);
                self.core = None;
            }
            Piece::Entry(Entry::Step { now, event, answer }) => {
                let Some(mut core) = self.reach(now) else { return };
                let event = event.into_owned();
                self.story.before(&core, now, &event);
                let actions = core.step(now, event.clone());
                self.replay.observed.step(&core, now, &event, &actions);
                self.story.after(&core, now, &actions);
                if digest(&actions) != answer {
                    self.differs(
                        now,
                        format!("on {event:?} the recorded core answered otherwise than {}", listed(&actions)),
                    );
                }
                self.core = Some(core);
            }
            Piece::Entry(Entry::Asked { now, question, refused }) => {
                let Some(core) = self.reach(now) else { return };
                let answer = match &question {
                    Question::Vote { candidate } => core.may_vote(now.boot, candidate),
                    Question::Campaign => core.may_campaign(now.boot),
                };
                if answer.clone().err() != refused {
                    let said =
                        |refused: &Option<Refusal>| refused.as_ref().map_or("yes".to_owned(), Refusal::to_string);
                    let (was, is) = (said(&refused), said(&answer.err()));
                    self.differs(
                        now,
                        format!("on {question:?} the recorded gate said \"{was}\" and this one says \"{is}\""),
                    );
                }
                if refused.is_none() {
                    let candidate = match &question {
                        Question::Vote { candidate } => candidate,
                        Question::Campaign => core.me(),
                    };
                    self.replay.observed.vote_granted(now, candidate);
                }
                self.story.asked(&core, now, &question, refused.as_ref());
                self.core = Some(core);
            }
        }
    }

    /// The core at `now`, if there is one.
    fn reach(&mut self, now: Now) -> Option<Core> {
        self.now = Some(now);
        if self.core.is_none() {
            self.replay.passed_over += 1;
            return None;
        }
        self.replay.replayed += 1;
        let first = self.replay.span.map_or(now.wall, |(first, _)| first);
        self.replay.span = Some((first, now.wall));
        let core = self.core.take()?;
        self.replay.observed.reach(&core, now);
        Some(core)
    }

    fn take_core(&mut self, core: Core) {
        if let (Some(own), Some(now)) = (&self.core, self.now)
            && *own != core
        {
            self.differs(now, "the recorded core is in another state than the one that replayed it".to_owned());
        }
        self.core = Some(core);
    }

    fn differs(&mut self, at: Now, text: String) {
        self.replay.differences.push(Difference { at, text });
    }
}

fn listed(actions: &[Action]) -> String {
    if actions.is_empty() { "with nothing".to_owned() } else { format!("{actions:?}") }
}
