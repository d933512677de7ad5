//! Work that is done one piece after the other, each to its end, whoever stops waiting for it.

use std::panic::resume_unwind;
use std::sync::Arc;

use tokio::sync::Mutex;

#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<()>>);

impl Turns {
    /// What `work` comes to, which begins once all before it has ended. A caller that gives up before that takes its
    /// work back; after it, the work goes on and keeps its turn.
    pub(super) async fn take<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let turn = Arc::clone(&self.0).lock_owned().await;
        let working = tokio::spawn(async move {
            let done = work.await;
            drop(turn);
            done
        });
        match working.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime ends, and the caller with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};
    use tokio::task::yield_now;

    use super::*;

    /// Everybody has had their say, a few times.
    async fn all_got_on() {
        for _ in 0..10 {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_keeps_its_turn() {
        let turns = Turns::default();
        let (told, mut order) = mpsc::unbounded_channel();
        let (end_first, first_ends) = oneshot::channel::<()>();
        let first = {
            let told = told.clone();
            async move {
                let _ = first_ends.await;
                told.send("first").expect("heard");
            }
        };
        tokio::select! {
            () = turns.take(first) => unreachable!("nobody has ended it"),
            () = all_got_on() => {}
        }
        let second = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(async move { told.send("second").expect("heard") }).await }
        });
        all_got_on().await;
        assert!(order.try_recv().is_err(), "the first has not ended");
        end_first.send(()).expect("it waits");
        second.await.expect("it ends");
        assert_eq!((order.recv().await, order.recv().await), (Some("first"), Some("second")));
    }

    #[tokio::test]
    async fn work_that_was_given_up_before_its_turn_is_not_done() {
        let turns = Turns::default();
        let (end_first, first_ends) = oneshot::channel::<()>();
        let first = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(async move { drop(first_ends.await) }).await }
        });
        all_got_on().await;
        tokio::select! {
            () = turns.take(async { unreachable!("it was given up") }) => {}
            () = all_got_on() => {}
        }
        end_first.send(()).expect("it waits");
        first.await.expect("it ends");
        assert_eq!(turns.take(async { 3 }).await, 3);
    }
}
