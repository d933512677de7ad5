//! Which process speaks for a member.
//!
//! Invariant (fence 2, one member, one promise): at any time one process speaks for a member here. What another one
//! says under the same name is neither a vote nor an acknowledgement, and one that was displaced never speaks for it
//! again: its start is the lower one. A store that was copied together with its certificate passes every other check.
//!
//! It is each peer's own judgement: two peers that do not hear each other can take different processes. Nobody who
//! hears only one of two can tell a copy from a restart.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Stranger;
use crate::base::ids::NodeId;
use crate::base::time::BootTime;
use crate::base::timing::Timing;
use crate::cluster::wire::{Sender, Session};

/// Every member that lives is heard of once a second, by gossip; see `gossip::EXCHANGE_EVERY`.
const UNHEARD_MAX: Duration = Duration::from_millis(2500);
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How long `baton status` shows a second process after it was refused last.
const SHOWN_FOR: Duration = Duration::from_secs(60);

/// How somebody comes to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It asks this member.
    Asking,
    /// It answers at the address of the member.
    Answering,
}

/// Who speaks for each of the other members.
pub struct Sessions {
    /// For a process that answers in an earlier one's place: one that lives there answers every heartbeat.
    answering_after: Duration,
    /// For a process that only asks.
    asking_after: Duration,
    speakers: Mutex<BTreeMap<NodeId, Speaking>>,
}

struct Speaking {
    incarnation: u64,
    session: Session,
    heard_at: BootTime,
    refused: Option<Refused>,
}

/// The last process that was not listened to.
struct Refused {
    at: BootTime,
    why: String,
    /// Both were heard since: it is no restart of which the address has not told yet.
    two_live: bool,
    told_at: Option<BootTime>,
}

impl Sessions {
    pub fn new(timing: &Timing) -> Sessions {
        // A lost message or two displace nobody, nor does a start that is as quick as can be cost the leader its lease.
        let answering_after = 3 * timing.heartbeat();
        let asking_after = UNHEARD_MAX.max(2 * timing.promise());
        Sessions { answering_after, asking_after, speakers: Mutex::default() }
    }

    /// # Errors
    /// Another process speaks for this member.
    pub fn admit(&self, sender: &Sender, heard: Heard, now: BootTime) -> Result<(), Stranger> {
        let (id, session, incarnation) = (&sender.member, sender.session, sender.incarnation);
        let mut speakers = self.speakers();
        if let Some(speaking) = speakers.get_mut(id).filter(|speaking| speaking.incarnation == incarnation) {
            match self.judge(id, speaking, session, heard, now) {
                Ok(()) if speaking.session == session => {
                    speaking.heard(now);
                    return Ok(());
                }
                Ok(()) => tracing::info!(peer = %id, start = session.start, "a later process speaks for the member"),
                Err(stranger) => {
                    speaking.refuse(&stranger, session, now);
                    return Err(stranger);
                }
            }
        }
        speakers.insert(id.clone(), Speaking { incarnation, session, heard_at: now, refused: None });
        Ok(())
    }

    fn judge(
        &self,
        id: &NodeId,
        speaking: &Speaking,
        session: Session,
        heard: Heard,
        now: BootTime,
    ) -> Result<(), Stranger> {
        let known = speaking.session;
        let wait = match heard {
            Heard::Answering if session.start > known.start => self.answering_after,
            Heard::Answering | Heard::Asking => self.asking_after,
        };
        // A version that draws no session is told by its silence alone.
        let earlier = session.start < known.start && session.number != 0;
        if session == known || !earlier && now.since(speaking.heard_at) >= wait {
            Ok(())
        } else {
            Err(Stranger::SecondProcess { start: session.start, known: known.start, member: id.clone() })
        }
    }

    /// What an operator should know, one a line.
    pub fn warnings(&self, now: BootTime) -> Vec<String> {
        let speakers = self.speakers();
        let recent = speakers.values().filter_map(|speaking| speaking.refused.as_ref());
        recent.filter(|one| one.two_live && now.since(one.at) < SHOWN_FOR).map(|one| one.why.clone()).collect()
    }

    /// Why another process that speaks as `member` is not listened to.
    pub fn refused(&self, member: &NodeId, now: BootTime) -> Option<String> {
        let speakers = self.speakers();
        let refused = speakers.get(member)?.refused.as_ref()?;
        (now.since(refused.at) < SHOWN_FOR).then(|| refused.why.clone())
    }

    fn speakers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Speaking>> {
        self.speakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Speaking {
    fn heard(&mut self, now: BootTime) {
        self.heard_at = self.heard_at.max(now);
        if let Some(refused) = &mut self.refused {
            refused.two_live = true;
            refused.tell(now);
        }
    }

    fn refuse(&mut self, why: &Stranger, session: Session, now: BootTime) {
        let before = self.refused.take();
        let displaced = session.start < self.session.start;
        let two_live = displaced || before.as_ref().is_some_and(|before| before.two_live);
        let told_at = before.and_then(|before| before.told_at);
        let refused = self.refused.insert(Refused { at: now, why: why.to_string(), two_live, told_at });
        if two_live {
            refused.tell(now);
        }
    }
}

impl Refused {
    fn tell(&mut self, now: BootTime) {
        if self.told_at.is_none_or(|told_at| now.since(told_at) >= TELL_EVERY && self.at > told_at) {
            tracing::warn!("{}", self.why);
            self.told_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire::PROTOCOL;

    const T0: BootTime = BootTime::from_nanos(1_000_000_000_000);

    fn ms(millis: u64) -> BootTime {
        T0 + Duration::from_millis(millis)
    }

    /// b, as the process with this number and start.
    fn b(number: u64, start: u64) -> Sender {
        let session = Session { number, start };
        Sender {
            cluster: "net".into(),
            member: "b".into(),
            incarnation: 4,
            protocol: PROTOCOL,
            founders: 0,
            session,
            knows: 0,
        }
    }

    /// On which b's start 5 was heard at `T0`.
    fn heard() -> Sessions {
        let sessions = Sessions::new(&Timing::LAN);
        assert_eq!(sessions.admit(&b(50, 5), Heard::Asking, T0), Ok(()));
        sessions
    }

    fn refused(start: u64, known: u64) -> Result<(), Stranger> {
        Err(Stranger::SecondProcess { member: "b".into(), start, known })
    }

    #[test]
    fn a_second_process_is_known_by_its_member_for_a_while() {
        let sessions = Sessions::new(&Timing::LAN);
        sessions.admit(&b(1, 1), Heard::Asking, ms(0)).unwrap();
        assert_eq!(sessions.refused(&"b".into(), ms(0)), None);
        sessions.admit(&b(2, 1), Heard::Asking, ms(10)).unwrap_err();
        assert!(sessions.refused(&"b".into(), ms(20)).is_some_and(|why| why.contains("another process speaks for b")));
        assert_eq!(sessions.refused(&"b".into(), ms(10) + SHOWN_FOR), None);
    }

    #[test]
    fn a_copy_is_refused_for_as_long_as_the_original_is_heard() {
        let sessions = heard();
        for second in 0..10 {
            let now = ms(second * 1000);
            assert_eq!(sessions.admit(&b(50, 5), Heard::Answering, now), Ok(()));
            for (number, start) in [(51, 5), (61, 6), (41, 4)] {
                assert_eq!(
                    sessions.admit(&b(number, start), Heard::Asking, ms(second * 1000 + 900)),
                    refused(start, 5)
                );
            }
        }
        assert_eq!(sessions.warnings(ms(10_000)).len(), 1, "of the last one");
        assert_eq!(sessions.warnings(ms(9_900) + SHOWN_FOR), Vec::<String>::new());
    }

    #[test]
    fn a_restart_is_known_by_its_address_within_three_heartbeats_and_its_earlier_process_is_refused_for_good() {
        let sessions = heard();
        assert_eq!(sessions.admit(&b(60, 6), Heard::Answering, ms(449)), refused(6, 5));
        assert_eq!(sessions.admit(&b(60, 6), Heard::Asking, ms(450)), refused(6, 5), "only its address tells so soon");
        assert_eq!(sessions.warnings(ms(450)), Vec::<String>::new(), "nothing to tell an operator of a restart");
        assert_eq!(sessions.admit(&b(60, 6), Heard::Answering, ms(450)), Ok(()));
        assert_eq!(sessions.admit(&b(60, 6), Heard::Asking, ms(450)), Ok(()));
        for later in [451, 60_000, 6_000_000] {
            assert_eq!(sessions.admit(&b(50, 5), Heard::Answering, ms(later)), refused(5, 6));
        }
        assert_eq!(sessions.warnings(ms(6_000_000)).len(), 1, "it lives");
    }

    #[test]
    fn whoever_starts_next_speaks_once_the_last_one_was_silent() {
        let sessions = heard();
        let silent = UNHEARD_MAX.as_millis() as u64;
        assert_eq!(sessions.admit(&b(51, 5), Heard::Answering, ms(silent - 1)), refused(5, 5), "as old as the other");
        assert_eq!(sessions.admit(&b(51, 5), Heard::Asking, ms(silent)), Ok(()), "nobody knows which of them is right");
        assert_eq!(sessions.admit(&b(60, 6), Heard::Asking, ms(2 * silent)), Ok(()));
        assert_eq!(
            sessions.admit(&b(0, 0), Heard::Asking, ms(3 * silent)),
            Ok(()),
            "back to a version without sessions"
        );
    }

    #[test]
    fn with_a_long_lease_a_promise_outlives_every_silence() {
        let timing = Timing::new(Duration::from_secs(1), Duration::from_secs(60), Duration::from_millis(50), 1000);
        let sessions = Sessions::new(&timing.expect("safe"));
        assert_eq!(sessions.admit(&b(50, 5), Heard::Asking, T0), Ok(()));
        assert_eq!(sessions.admit(&b(60, 6), Heard::Asking, ms(120_000)), refused(6, 5));
        assert_eq!(sessions.admit(&b(60, 6), Heard::Asking, ms(120_120)), Ok(()));
    }

    #[test]
    fn another_store_is_another_matter() {
        let sessions = heard();
        let added_again = Sender { incarnation: 9, ..b(1, 1) };
        assert_eq!(sessions.admit(&added_again, Heard::Asking, ms(1)), Ok(()), "the log says which store counts");
    }
}
