//! A guard that runs and does not answer: its host is not chosen, and an idle one is replaced.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Host;
use crate::base::time::BootTime;
use crate::core::Action;

/// For a guard that is only stopped for a moment.
const REPLACED_AFTER: Duration = Duration::from_secs(5);

/// What is known of an attached guard's silence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum GuardAnswers {
    #[default]
    Promptly,
    SilentSince(BootTime),
    /// It was told to end, or killed.
    Ending,
}

impl Host {
    pub fn guard_answers(&mut self, now: BootTime, answers: bool) {
        if self.guard_answers != GuardAnswers::Ending {
            self.guard_answers = if answers { GuardAnswers::Promptly } else { GuardAnswers::SilentSince(now) };
        }
    }

    /// Invariant (fence 1): the node ends with its guard, by the kernel, and the next guard finds none.
    pub fn end_guard(&mut self, out: &mut Vec<Action>) {
        if self.guard && self.guard_answers != GuardAnswers::Ending {
            self.guard_answers = GuardAnswers::Ending;
            out.push(Action::EndGuard);
        }
    }

    pub fn replace_guard_at(&self) -> Option<BootTime> {
        match self.guard_answers {
            GuardAnswers::SilentSince(since) => Some(since + REPLACED_AFTER),
            GuardAnswers::Promptly | GuardAnswers::Ending => None,
        }
    }
}
