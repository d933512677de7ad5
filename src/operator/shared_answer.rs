//! One answer for everybody who asked the same thing meanwhile, so that what clients ask costs the same however
//! many they are. Knows neither questions nor answers; `admin` and `exporter` use it for what is asked often. What is
//! published anyway may be older than the question.

use std::future::Future;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

pub struct SharedAnswer<T> {
    every: Duration,
    last: Mutex<Option<Last<T>>>,
}

struct Last<T> {
    begun_at: Instant,
    answer: T,
}

impl<T: Clone> SharedAnswer<T> {
    /// An answer is found no more often than once in `every`.
    pub fn new(every: Duration) -> SharedAnswer<T> {
        SharedAnswer { every, last: Mutex::new(None) }
    }

    /// What was found after this was called, by `find` or for somebody else who asked. The first to ask after a
    /// while does not wait; others do so for up to `every`.
    ///
    /// # Errors
    /// Those of `find`. They are told to nobody else: the next one asks anew.
    pub async fn get<E>(&self, find: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let asked_at = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(last) = &*last {
            if last.begun_at >= asked_at {
                return Ok(last.answer.clone());
            }
            sleep_until(last.begun_at + self.every).await;
        }
        let begun_at = Instant::now();
        let answer = find.await?;
        *last = Some(Last { begun_at, answer: answer.clone() });
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;

    const EVERY: Duration = Duration::from_millis(50);

    #[derive(Default)]
    struct Counted {
        found: AtomicUsize,
    }

    impl Counted {
        async fn find(&self) -> Result<usize, Infallible> {
            let nth = self.found.fetch_add(1, Ordering::SeqCst);
            sleep(Duration::from_millis(1)).await;
            Ok(nth)
        }
    }

    #[tokio::test]
    async fn many_who_ask_at_once_share_an_answer_and_the_next_one_gets_a_newer_one() {
        let (shared, counted) = (Arc::new(SharedAnswer::new(EVERY)), Arc::new(Counted::default()));
        let begun = Instant::now();
        let mut askers = JoinSet::new();
        for _ in 0..1000 {
            let (shared, counted) = (shared.clone(), counted.clone());
            askers.spawn(async move { shared.get(counted.find()).await });
        }
        let seen = askers.join_all().await;
        let found = counted.found.load(Ordering::SeqCst);
        // However slow this machine is, the rate holds.
        let most = 1 + begun.elapsed().as_millis() / EVERY.as_millis();
        assert!((found as u128) <= most, "{found} answers in {:?}", begun.elapsed());
        assert!(seen.into_iter().all(|answer| matches!(answer, Ok(nth) if nth < found)));
        assert_eq!(shared.get(counted.find()).await, Ok(found), "an answer from before the question");
        assert!(begun.elapsed() >= EVERY * found as u32, "{found} answers in {:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn who_gives_up_and_what_fails_leave_the_next_one_a_chance() {
        let shared = SharedAnswer::new(EVERY);
        let never = shared.get(std::future::pending::<Result<u8, &str>>());
        assert!(tokio::time::timeout(EVERY, never).await.is_err());
        assert_eq!(shared.get(async { Err("no") }).await, Err("no"));
        assert_eq!(shared.get(async { Ok::<u8, &str>(7) }).await, Ok(7));
    }
}
