//! Whether the guard still answers while nothing else is asked of it: a ping a second, also to a guard that has nothing
//! to fence. Pure; the listener keeps the time and the connection.

use std::time::Duration;

use crate::base::time::BootTime;

const PING_EVERY: Duration = Duration::from_secs(1);
/// A guard answers within a turn of its loop, which takes milliseconds.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// What is to be done about the guard's silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Ping,
    /// It did not answer.
    TellSilent,
}

pub(super) struct Pulse {
    /// When a ping was sent that is not answered yet; `None` for a guard that knows no pings.
    asked_at: Option<BootTime>,
    ping_at: BootTime,
    silent: bool,
}

impl Pulse {
    pub(super) fn new(now: BootTime) -> Pulse {
        Pulse { asked_at: None, ping_at: now + PING_EVERY, silent: false }
    }

    /// A frame came; true when the guard had been silent.
    pub(super) fn heard(&mut self, now: BootTime) -> bool {
        *self = Pulse { silent: self.silent, ..Pulse::new(now) };
        std::mem::take(&mut self.silent)
    }

    /// When to ask [`Pulse::due`]; `None` while only the guard's own word is waited for.
    pub(super) fn wake_at(&self) -> Option<BootTime> {
        match self.asked_at {
            Some(asked_at) => (!self.silent).then_some(asked_at + SILENT_AFTER),
            None => Some(self.ping_at),
        }
    }

    pub(super) fn due(&mut self, now: BootTime) -> Option<Due> {
        if now < self.wake_at()? {
            None
        } else if self.asked_at.is_some() {
            self.silent = true;
            Some(Due::TellSilent)
        } else {
            self.asked_at = Some(now);
            Some(Due::Ping)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_guard_that_answers_no_ping_is_silent_once_and_until_its_next_word() {
        let mut pulse = Pulse::new(at(0));
        assert_eq!(pulse.due(at(999)), None);
        assert_eq!(pulse.due(at(1000)), Some(Due::Ping));
        assert_eq!((pulse.due(at(1999)), pulse.wake_at()), (None, Some(at(2000))));
        assert_eq!(pulse.due(at(2000)), Some(Due::TellSilent));
        assert_eq!((pulse.due(at(9000)), pulse.wake_at()), (None, None));
        assert!(pulse.heard(at(9000)));
        assert_eq!(pulse.due(at(10_000)), Some(Due::Ping));
    }

    #[test]
    fn any_word_is_an_answer() {
        let mut pulse = Pulse::new(at(0));
        pulse.due(at(1000));
        assert!(!pulse.heard(at(1900)));
        assert_eq!(pulse.due(at(2800)), None);
    }
}
