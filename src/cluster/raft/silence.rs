//! When a follower that owes answers is sent no more heartbeats. Used by `client` and `late`.
//!
//! A heartbeat that arrives lengthens a promise, also when its answer cannot come back. A leader that hears nothing
//! then keeps everybody loyal to a lease that it loses. So it says no more until it hears something: what is not sent
//! is promised by nobody, and no other rule changes.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::base::timing::Timing;

/// How long a follower may be silent.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    heartbeat: Duration,
    /// From the last answer on, or from one heartbeat before the first request that is owed an answer, where that is
    /// later.
    max: Duration,
    /// Whoever might be elected has been by then, and a connection that broke is no reason to wait any longer.
    mute_until: Duration,
}

/// What one peer owes, whichever of Raft's clients asks it.
#[derive(Clone)]
pub(super) struct Silence {
    patience: Patience,
    owed: watch::Sender<Owed>,
}

#[derive(Clone, Copy, Default)]
struct Owed {
    under_way: usize,
    heard_at: Option<Instant>,
    /// `None` while nothing is owed.
    silent_since: Option<Instant>,
}

/// One request under way. Dropped without an answer, it has failed.
pub(super) struct Request {
    silence: Silence,
    answered: bool,
}

impl Patience {
    /// One and a half heartbeats: a follower that answers, however late, is heard once a heartbeat.
    pub(super) fn of(timing: &Timing) -> Patience {
        let heartbeat = timing.heartbeat();
        Patience { heartbeat, max: heartbeat * 3 / 2, mute_until: timing.lease() * 2 }
    }
}

impl Silence {
    pub(super) fn new(patience: Patience) -> Silence {
        Silence { patience, owed: watch::Sender::default() }
    }

    pub(super) fn begin(&self) -> Request {
        let (now, heartbeat) = (Instant::now(), self.patience.heartbeat);
        self.owed.send_modify(|owed| owed.begin(now, heartbeat));
        Request { silence: self.clone(), answered: false }
    }

    /// Returns at once while the peer answers or owes nothing, and else once it is heard.
    pub(super) async fn over(&self) {
        let mut owed = self.owed.subscribe();
        // This handle keeps the channel open.
        let _ = owed.wait_for(|owed| owed.may_send(Instant::now(), &self.patience)).await;
    }
}

impl Owed {
    fn begin(&mut self, now: Instant, heartbeat: Duration) {
        let earliest = now.checked_sub(heartbeat).unwrap_or(now);
        self.silent_since.get_or_insert(self.heard_at.map_or(earliest, |heard| heard.max(earliest)));
        self.under_way += 1;
    }

    fn end(&mut self, now: Instant, answered: bool, patience: &Patience) {
        self.under_way -= 1;
        if answered {
            self.heard_at = Some(now);
            self.silent_since = (self.under_way > 0).then_some(now);
        } else if self.under_way == 0 && self.may_send(now, patience) {
            // It failed at once: nobody listens there now, and nobody promises.
            self.silent_since = None;
        }
    }

    fn may_send(&self, now: Instant, patience: &Patience) -> bool {
        let silent_for = self.silent_since.map(|since| now.saturating_duration_since(since));
        silent_for.is_none_or(|silent_for| silent_for <= patience.max || silent_for > patience.mute_until)
    }
}

impl Request {
    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let (now, answered, patience) = (Instant::now(), self.answered, self.silence.patience);
        self.silence.owed.send_modify(|owed| owed.end(now, answered, &patience));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_millis(150);

    /// Of a follower of a leader with [`Timing::LAN`], told in milliseconds.
    struct Follower {
        began: Instant,
        owed: Owed,
    }

    impl Follower {
        fn new() -> Follower {
            Follower { began: Instant::now(), owed: Owed::default() }
        }

        fn at(&self, ms: u64) -> Instant {
            self.began + Duration::from_secs(60) + Duration::from_millis(ms)
        }

        fn asked(&mut self, ms: u64) {
            assert!(self.may_be_asked(ms), "at {ms} ms");
            self.owed.begin(self.at(ms), HEARTBEAT);
        }

        fn ended(&mut self, ms: u64, answered: bool) {
            self.owed.end(self.at(ms), answered, &Patience::of(&Timing::LAN));
        }

        fn may_be_asked(&self, ms: u64) -> bool {
            self.owed.may_send(self.at(ms), &Patience::of(&Timing::LAN))
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
