//! What the log says of proposals: a line when one is made first, one when it fails first, and one when that ends. A
//! holder without a quorum makes the same one again and again.

use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use crate::base::ids::Epoch;
use crate::base::time::BootTime;
use crate::core::agreed::replicated::Baton;

/// After a failure, for the core to ask for the same again.
pub(super) const GIVEN_UP_AFTER: Duration = Duration::from_secs(1);

/// One kind of command under one epoch.
type Subject = (Discriminant<Baton>, Epoch);

/// The proposal that fails, if one does.
#[derive(Default)]
pub(super) struct Proposals(Option<Failing>);

struct Failing {
    subject: Subject,
    what: String,
    since: BootTime,
    times: u64,
}

impl Failing {
    fn lasted(&self, now: BootTime) -> String {
        format!("after {} times in {:.1} s", self.times, now.since(self.since).as_secs_f64())
    }
}

fn subject(command: &Baton) -> Subject {
    (discriminant(command), command.epoch())
}

impl Proposals {
    /// Whether that `command` is proposed is to be told; not of one that has failed.
    pub(super) fn begins(&self, command: &Baton) -> bool {
        self.0.as_ref().is_none_or(|failing| failing.subject != subject(command))
    }

    /// How often it has failed by now. Whether to tell why: once.
    pub(super) fn failed(&mut self, command: &Baton, now: BootTime) -> (u64, bool) {
        let subject = subject(command);
        let known = self.0.take_if(|failing| failing.subject == subject);
        let is_new = known.is_none();
        let mut failing = known.unwrap_or_else(|| Failing { subject, what: command.to_string(), since: now, times: 0 });
        failing.times += 1;
        (self.0.insert(failing).times, is_new)
    }

    /// A line for the log, when it had failed before.
    pub(super) fn committed(&mut self, command: &Baton, now: BootTime) -> Option<String> {
        let failing = self.0.take_if(|failing| failing.subject == subject(command))?;
        Some(format!("proposed {}, {}", failing.what, failing.lasted(now)))
    }

    /// A line for the log, when it has not failed again since it had `times`: nobody asks for it any more.
    pub(super) fn given_up(&mut self, command: &Baton, times: u64, now: BootTime) -> Option<String> {
        let failing = self.0.take_if(|failing| failing.subject == subject(command) && failing.times == times)?;
        Some(format!("no longer proposing {}, {}", failing.what, failing.lasted(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::WallTime;

    const T0: BootTime = BootTime::from_nanos(1_000_000_000);

    fn release(epoch: u64, at: u64) -> Baton {
        let at = WallTime::from_nanos(at);
        Baton::Release { epoch: Epoch(epoch), last_signed: None, reason: "lease-lost".into(), at, to: None }
    }

    #[test]
    fn a_release_that_fails_ten_times_is_told_when_it_begins_and_when_it_ends() {
        let mut proposals = Proposals::default();
        let mut told = Vec::new();
        for round in 0..10 {
            // Each has a time of its own.
            let command = release(3, round);
            told.push(proposals.begins(&command));
            let (times, is_new) = proposals.failed(&command, T0 + Duration::from_millis(200 * round));
            assert_eq!((times, is_new), (round + 1, round == 0));
        }
        assert_eq!(told.iter().filter(|told| **told).count(), 1, "{told:?}");
        let end = T0 + Duration::from_secs(2);
        assert_eq!(proposals.given_up(&release(3, 0), 9, end), None, "it was asked for again");
        let line = proposals.committed(&release(3, 11), end).expect("a line");
        assert!(line.starts_with("proposed ") && line.ends_with(", after 10 times in 2.0 s"), "{line}");
        assert!(proposals.committed(&release(3, 12), end).is_none() && proposals.begins(&release(3, 13)));
    }

    #[test]
    fn one_that_nobody_asks_for_again_ends_too_and_another_one_is_told() {
        let mut proposals = Proposals::default();
        let (times, _) = proposals.failed(&release(3, 0), T0);
        assert!(proposals.begins(&release(4, 0)), "another tenure's");
        let line = proposals.given_up(&release(3, 0), times, T0 + GIVEN_UP_AFTER).expect("a line");
        assert!(line.starts_with("no longer proposing ") && line.ends_with(", after 1 times in 1.0 s"), "{line}");
        assert!(proposals.begins(&release(3, 1)));
    }
}
