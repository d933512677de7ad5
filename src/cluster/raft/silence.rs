//! When a follower that owes answers is sent nothing more. Pure: `late` keeps what each peer owes and says when it is,
//! and the simulation does the same with clocks of its own.
//!
//! A heartbeat that arrives lengthens a promise, also when its answer cannot come back, and so do entries and a
//! snapshot. A leader that hears nothing then keeps everybody loyal to a lease that it loses. So it says no more until
//! it hears something: what is not sent is promised by nobody, and no other rule changes.

use std::time::Duration;

use crate::base::time::BootTime;
use crate::base::timing::Timing;

/// How long a follower may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    heartbeat: Duration,
    /// From the last answer on, or from one heartbeat before the first request that is owed an answer, where that is
    /// later.
    max: Duration,
    /// Whoever might be elected has been by then, and a connection that broke is no reason to wait any longer. It is
    /// asked again, for no longer than before.
    mute_until: Duration,
}

/// What one peer owes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owed {
    under_way: usize,
    heard_at: Option<BootTime>,
    /// `None` while nothing is owed.
    silent_since: Option<BootTime>,
}

impl Patience {
    /// One and a half heartbeats: a follower that answers, however late, is heard once a heartbeat.
    pub fn of(timing: &Timing) -> Patience {
        let heartbeat = timing.heartbeat();
        Patience { heartbeat, max: heartbeat * 3 / 2, mute_until: timing.lease() * 2 }
    }
}

impl Owed {
    /// A request leaves at `now`. Each is to `end` once.
    pub fn begin(&mut self, now: BootTime, patience: &Patience) {
        let earliest = now - patience.heartbeat;
        let since = self.silent_since.get_or_insert(self.heard_at.map_or(earliest, |heard| heard.max(earliest)));
        if now.since(*since) > patience.mute_until {
            // It is tried again; were it asked for ever from now on, it would be loyal for ever.
            *since = now;
        }
        self.under_way += 1;
    }

    /// One request was answered at `now`, or has failed.
    pub fn end(&mut self, now: BootTime, answered: bool, patience: &Patience) {
        self.under_way -= 1;
        if answered {
            self.heard(now);
        } else if self.under_way == 0 && self.may_send(now, patience) {
            // It failed at once: nobody listens there now, and nobody promises.
            self.silent_since = None;
        }
    }

    /// It was heard at `now` otherwise: by its answer to a candidate or to a snapshot, or by its own question for a vote.
    pub fn heard(&mut self, now: BootTime) {
        self.heard_at = Some(now);
        self.silent_since = (self.under_way > 0).then_some(now);
    }

    /// Whether a heartbeat, entries or a snapshot may leave at `now`.
    pub fn may_send(&self, now: BootTime, patience: &Patience) -> bool {
        let silent_for = self.silent_since.map(|since| now.since(since));
        silent_for.is_none_or(|silent_for| silent_for <= patience.max || silent_for > patience.mute_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a follower of a leader with [`Timing::LAN`], told in milliseconds.
    struct Follower {
        owed: Owed,
    }

    impl Follower {
        fn new() -> Follower {
            Follower { owed: Owed::default() }
        }

        fn at(ms: u64) -> BootTime {
            BootTime::default() + Duration::from_secs(60) + Duration::from_millis(ms)
        }

        fn asked(&mut self, ms: u64) {
            assert!(self.may_be_asked(ms), "at {ms} ms");
            self.owed.begin(Self::at(ms), &Patience::of(&Timing::LAN));
        }

        fn ended(&mut self, ms: u64, answered: bool) {
            self.owed.end(Self::at(ms), answered, &Patience::of(&Timing::LAN));
        }

        fn may_be_asked(&self, ms: u64) -> bool {
            self.owed.may_send(Self::at(ms), &Patience::of(&Timing::LAN))
        }
    }

    #[test]
    fn a_follower_that_falls_silent_gets_one_more_heartbeat_until_it_is_heard_again() {
        let mut b = Follower::new();
        b.asked(0);
        b.ended(2, true);
        b.asked(150);
        assert!(!b.may_be_asked(300), "it owes an answer, and was heard last at 2 ms");
        assert!(!b.may_be_asked(1990));
        b.ended(1991, true);
        assert!(b.may_be_asked(1991));
    }

    #[test]
    fn a_connection_that_breaks_in_the_silence_does_not_end_it_before_two_leases() {
        let mut b = Follower::new();
        b.asked(0);
        b.ended(2, true);
        b.asked(150);
        b.ended(1000, false);
        assert!(!b.may_be_asked(1010), "the promise of 150 ms is still alive");
        assert!(b.may_be_asked(2010), "nobody was elected: it is asked as before");
    }

    #[test]
    fn a_follower_that_answers_nothing_is_asked_anew_every_two_leases_and_no_more() {
        let mut b = Follower::new();
        let mut asked = Vec::new();
        for ms in 0..8000 {
            if b.may_be_asked(ms) {
                b.asked(ms);
                asked.push(ms);
            }
        }
        let pauses = asked.windows(2).filter(|two| two[1] > two[0] + 1).map(|two| (two[0], two[1]));
        let expected = [(75, 1851), (2076, 3852), (4077, 5853), (6078, 7854)];
        assert_eq!(pauses.collect::<Vec<(u64, u64)>>(), expected, "last before a pause, and first after it");
    }

    #[test]
    fn a_voter_of_a_leader_is_heard_though_it_owes_answers_to_an_earlier_one() {
        let mut b = Follower::new();
        b.asked(0);
        b.ended(1000, false);
        assert!(!b.may_be_asked(1100));
        b.owed.heard(Follower::at(1100));
        b.asked(1100);
        assert!(b.may_be_asked(1101));
    }

    #[test]
    fn answers_that_come_late_once_a_heartbeat_are_no_silence() {
        let mut b = Follower::new();
        b.asked(0);
        b.ended(500, true);
        // Each half a second late.
        b.asked(500);
        b.asked(650);
        b.asked(700);
        for ms in (1000..5000).step_by(150) {
            b.ended(ms, true);
            b.asked(ms + 140);
        }
    }

    #[test]
    fn a_follower_that_refuses_at_once_is_asked_at_every_heartbeat() {
        let mut b = Follower::new();
        b.asked(0);
        b.ended(1, true);
        for ms in (150..3000).step_by(150) {
            b.asked(ms);
            b.ended(ms + 1, false);
        }
    }

    #[test]
    fn a_leader_that_was_paused_asks_once_it_has_read_what_came_meanwhile() {
        let mut b = Follower::new();
        b.asked(0);
        assert!(!b.may_be_asked(700));
        b.ended(701, true);
        assert!(b.may_be_asked(701));
    }
}
