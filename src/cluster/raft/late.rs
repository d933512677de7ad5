//! Requests that go on when Raft has given up waiting for their answers. Used by `client` alone.
//!
//! openraft waits for the answer to a heartbeat for less than a heartbeat. For a lease an answer counts as long as it
//! is younger than the lease, so the request goes on for that long in a task of its own.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::silence::{Owed, Patience};
use crate::base::ids::{NodeId, Term};
use crate::base::time::BootTime;

/// Requests to one peer that are under way at once, beyond which Raft's patience bounds them again. Twice what
/// heartbeats and entries make in a lease; a peer that hangs costs no more.
pub(super) const UNDER_WAY_MAX: usize = 16;

#[derive(Clone)]
pub(super) struct LateCalls {
    peers: Arc<Mutex<BTreeMap<NodeId, PeerCalls>>>,
    patience: Patience,
    /// The calls end when it is dropped or says so.
    ended: watch::Sender<bool>,
}

/// All late calls to one peer, whichever of Raft's clients made them.
#[derive(Clone)]
pub(super) struct PeerCalls {
    places: Arc<Semaphore>,
    /// What it owes.
    pub(super) silence: Silence,
    /// How many heartbeats it has accepted, and in which term the last one.
    accepted: watch::Sender<(u64, Term)>,
    ended: watch::Receiver<bool>,
}

/// What a peer owes, whichever of Raft's clients asks it.
#[derive(Clone)]
pub(super) struct Silence {
    patience: Patience,
    owed: watch::Sender<Owed>,
}

/// One request under way. Dropped without an answer, it has failed.
pub(super) struct Request {
    silence: Silence,
    answered: bool,
}

impl LateCalls {
    pub(super) fn new(patience: Patience) -> LateCalls {
        LateCalls { peers: Arc::default(), patience, ended: watch::Sender::new(false) }
    }

    pub(super) fn to(&self, peer: &NodeId) -> PeerCalls {
        let new = || PeerCalls {
            places: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
            silence: Silence::new(self.patience),
            accepted: watch::Sender::new((0, 0)),
            ended: self.ended.subscribe(),
        };
        lock(&self.peers).entry(peer.clone()).or_insert_with(new).clone()
    }

    /// `peer` has asked something itself.
    pub(super) fn heard(&self, peer: &NodeId) {
        if let Some(calls) = lock(&self.peers).get(peer) {
            calls.silence.heard();
        }
    }

    /// No request goes on after this.
    pub(super) fn end(&self) {
        self.ended.send_replace(true);
    }
}

impl PeerCalls {
    /// What `call` gives within `patience`; `None` when it has given nothing by then. It goes on, for `bound` in all,
    /// unless too many do already.
    pub(super) async fn outlive<T: Send + 'static>(
        &self,
        patience: Duration,
        bound: Duration,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let Ok(place) = self.places.clone().try_acquire_owned() else { return timeout(patience, call).await.ok() };
        let mut ended = self.ended.clone();
        let task = tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                given = timeout(bound, call) => given.ok(),
                // An error: Raft itself is gone.
                _ = ended.wait_for(|ended| *ended) => None,
            }
        });
        timeout(patience, task).await.ok()?.ok()?
    }

    /// The peer has accepted a heartbeat of the leader of `term`.
    pub(super) fn note_accepted(&self, term: Term) {
        self.accepted.send_modify(|(count, in_term)| (*count, *in_term) = (*count + 1, term));
    }

    /// Returns once the peer has accepted another heartbeat of the leader of `term`.
    pub(super) async fn another_accepted(&self, term: Term) {
        let mut accepted = self.accepted.subscribe();
        let (before, _) = *accepted.borrow_and_update();
        // This handle keeps the channel open.
        let _ = accepted.wait_for(|(count, in_term)| *count > before && *in_term == term).await;
    }

    /// Requests to this peer that are under way.
    #[cfg(test)]
    fn under_way(&self) -> usize {
        UNDER_WAY_MAX - self.places.available_permits()
    }
}

impl Silence {
    fn new(patience: Patience) -> Silence {
        Silence { patience, owed: watch::Sender::default() }
    }

    pub(super) fn begin(&self) -> Request {
        self.owed.send_modify(|owed| owed.begin(BootTime::now(), &self.patience));
        Request { silence: self.clone(), answered: false }
    }

    pub(super) fn heard(&self) {
        self.owed.send_modify(|owed| owed.heard(BootTime::now()));
    }

    /// Returns at once while the peer answers or owes nothing, and else once it is heard.
    pub(super) async fn over(&self) {
        let mut owed = self.owed.subscribe();
        // This handle keeps the channel open.
        let _ = owed.wait_for(|owed| owed.may_send(BootTime::now(), &self.patience)).await;
    }
}

impl Request {
    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let (answered, patience) = (self.answered, self.silence.patience);
        self.silence.owed.send_modify(|owed| owed.end(BootTime::now(), answered, &patience));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;
    use tokio::time::sleep;

    use super::*;
    use crate::base::timing::Timing;

    const PATIENCE: Duration = Duration::from_millis(10);
    /// Nothing that is awaited takes as long.
    const LONG: Duration = Duration::from_secs(20);

    fn late_calls() -> LateCalls {
        LateCalls::new(Patience::of(&Timing::LAN))
    }

    async fn eventually_under_way(calls: &PeerCalls, expected: usize) {
        let becomes = async {
            while calls.under_way() != expected {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let seen = timeout(LONG, becomes).await;
        assert!(seen.is_ok(), "{} calls are under way, not {expected}", calls.under_way());
    }

    #[tokio::test]
    async fn a_call_that_raft_gave_up_on_goes_on_until_its_answer_comes() {
        let late = late_calls();
        let (answer, answered) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let call = async move { tell.send(answered.await.unwrap()).unwrap() };
        assert_eq!(late.to(&"b".into()).outlive(PATIENCE, LONG, call).await, None);
        answer.send(7).unwrap();
        assert_eq!(told.await, Ok(7));
    }

    #[tokio::test]
    async fn calls_to_a_peer_that_hangs_do_not_pile_up_and_end_after_their_bound() {
        let late = late_calls();
        let calls = late.to(&"b".into());
        let begun = Arc::new(AtomicUsize::new(0));
        let hang = |patience, bound| {
            let (calls, begun) = (late.to(&"b".into()), begun.clone());
            let call = async move {
                begun.fetch_add(1, Ordering::SeqCst);
                pending::<()>().await;
            };
            async move { calls.outlive(patience, bound, call).await }
        };
        for _ in 0..UNDER_WAY_MAX + 5 {
            assert_eq!(hang(PATIENCE, LONG).await, None);
        }
        assert_eq!(begun.load(Ordering::SeqCst), UNDER_WAY_MAX + 5, "each is made all the same");
        assert_eq!(calls.under_way(), UNDER_WAY_MAX);
        late.end();
        eventually_under_way(&calls, 0).await;

        let late = late_calls();
        let calls = late.to(&"b".into());
        assert_eq!(calls.outlive(PATIENCE, 5 * PATIENCE, pending::<()>()).await, None);
        eventually_under_way(&calls, 0).await;
    }

    #[tokio::test]
    async fn no_call_outlives_raft() {
        let late = late_calls();
        let calls = late.to(&"b".into());
        assert_eq!(calls.outlive(PATIENCE, LONG, pending::<()>()).await, None);
        assert_eq!(calls.under_way(), 1);
        drop(late);
        eventually_under_way(&calls, 0).await;
    }

    #[tokio::test]
    async fn a_heartbeat_is_answered_by_a_later_acceptance_of_the_same_term_alone() {
        let late = late_calls();
        let (calls, elsewhere) = (late.to(&"b".into()), late.to(&"b".into()));
        elsewhere.note_accepted(4);
        assert!(timeout(PATIENCE, calls.another_accepted(4)).await.is_err(), "it came before");
        let waits = timeout(PATIENCE, calls.another_accepted(4));
        let tells = async { elsewhere.note_accepted(3) };
        assert!(tokio::join!(waits, tells).0.is_err(), "it is of another term");
        let waits = timeout(LONG, calls.another_accepted(4));
        let tells = async { elsewhere.note_accepted(4) };
        assert!(tokio::join!(waits, tells).0.is_ok());
    }
}
