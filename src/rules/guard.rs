//! What a witness knows of the guard of its member, and of the key.

use crate::base::ids::Epoch;
use crate::base::time::BootTime;

/// The guard was armed under `epoch` from `from` until `until`, both by the clock of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArmedSpan {
    pub epoch: Epoch,
    pub from: BootTime,
    /// Its last deadline that was asked for or confirmed, or when it was disarmed before that.
    pub until: BootTime,
}

impl ArmedSpan {
    /// By another clock.
    pub fn by(self, clock: impl Fn(BootTime) -> BootTime) -> ArmedSpan {
        ArmedSpan { from: clock(self.from), until: clock(self.until), ..self }
    }
}

/// When one guard was armed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ArmedSpans {
    /// The newest last.
    pub(super) spans: Vec<ArmedSpan>,
    /// The newest epoch whose lease is over. What was on its way by then arms nothing.
    over: Option<Epoch>,
}

impl ArmedSpans {
    /// It has said so.
    pub(super) fn armed(&mut self, now: BootTime, epoch: Epoch, deadline: BootTime) {
        if self.over < Some(epoch) {
            self.found(now, epoch, deadline);
        }
    }

    /// It is found like that, whatever was ordered before.
    pub(super) fn found(&mut self, now: BootTime, epoch: Epoch, deadline: BootTime) {
        match self.spans.last_mut() {
            Some(span) if span.epoch > epoch => {}
            Some(span) if span.epoch == epoch && now <= span.until => span.until = span.until.max(deadline),
            Some(_) | None => self.spans.push(ArmedSpan { epoch, from: now, until: deadline }),
        }
    }

    /// It was asked for, also for an epoch of which a claim came to nothing before. The guard may keep this deadline
    /// though nobody hears of it any more.
    pub(super) fn asked(&mut self, now: BootTime, epoch: Epoch, deadline: BootTime) {
        self.over.take_if(|over| *over == epoch);
        if let Some(span) = self.spans.last_mut().filter(|span| span.epoch == epoch && now <= span.until) {
            span.until = span.until.max(deadline);
        }
    }

    pub(super) fn disarmed(&mut self, now: BootTime, epoch: Epoch) {
        if self.over >= Some(epoch) {
            return;
        }
        self.over = Some(epoch);
        if let Some(span) = self.spans.last_mut().filter(|span| span.epoch == epoch) {
            span.until = span.until.min(now);
        }
    }

    /// Its last word is of this epoch, and it was not told to let go since. Whether the deadline has come meanwhile is
    /// seen where a link is renamed.
    pub(super) fn is_armed(&self, epoch: Epoch) -> bool {
        self.over < Some(epoch) && self.spans.last().is_some_and(|span| span.epoch == epoch)
    }
}

/// Whether the chain node may have the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum KeyOut {
    No,
    /// A chain node was found of which it is not known.
    Unknown,
    /// It was ordered to be given. Only a proof that was asked for since says that it is gone.
    Given {
        taken_back: bool,
    },
}
