//! Watches for the first work with the shared key on the chain after an activation. "The key is loaded" is
//! what the node says of itself; this is what the network has seen. It is for people alone: a validator may
//! have nothing to sign for minutes, so that nothing is decided by it and nothing waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::Hands;
use crate::base::chain_node::OnChain;
use crate::base::ids::Epoch;
use crate::host::chain::ProbeError;

#[derive(Clone, Copy)]
struct Pace {
    /// Between two questions at first, and once it takes longer than it should.
    look_every: Duration,
    look_rarely: Duration,
    late: Duration,
    give_up: Duration,
}

/// neard took up to 5 s on a small network; one whose peers keep their connection to the old holder never comes.
const PACE: Pace = Pace {
    look_every: Duration::from_millis(500),
    look_rarely: Duration::from_secs(5),
    late: Duration::from_secs(30),
    give_up: Duration::from_secs(600),
};

/// What is worth telling.
#[derive(Debug, PartialEq)]
enum News {
    First { what: &'static str, after: Duration },
    Late { trouble: String },
}

/// Ends when it has seen something, when it has waited long enough, or when it is dropped.
pub(super) async fn watch(hands: Arc<Hands>, epoch: Epoch) {
    let tell = |news: News| match news {
        News::First { what, after } => {
            let told = format!("first {what} on chain {:.1} s after activation began", after.as_secs_f64());
            info!(epoch = epoch.0, "{told}");
            hands.note(told);
        }
        News::Late { trouble } => {
            let told = format!("nothing signed here is on chain yet, long after activation{trouble}");
            warn!(epoch = epoch.0, "{told}");
            hands.note(told);
        }
    };
    follow(PACE, || hands.chain.on_chain(), tell).await;
}

/// What is there at the first look was signed before: no other host signs above the floor, and the node had
/// passed that when it was activated.
async fn follow<Answer>(pace: Pace, ask: impl Fn() -> Answer, mut tell: impl FnMut(News))
where
    Answer: Future<Output = Result<Option<OnChain>, ProbeError>>,
{
    let began_at = Instant::now();
    let mut before: Option<OnChain> = None;
    let mut told_late = false;
    while began_at.elapsed() < pace.give_up {
        let trouble = match ask().await {
            Ok(None) => return,
            Ok(Some(seen)) => {
                if let Some(what) = seen.new_since(before.get_or_insert(seen)) {
                    return tell(News::First { what, after: began_at.elapsed() });
                }
                if seen.validates { String::new() } else { "; it is no validator in this epoch".into() }
            }
            Err(error) => {
                debug!("{error}");
                format!("; {error}")
            }
        };
        let late = began_at.elapsed() >= pace.late;
        if late && !told_late {
            told_late = true;
            tell(News::Late { trouble });
        }
        sleep(if late { pace.look_rarely } else { pace.look_every }).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const QUICK: Pace = Pace {
        look_every: Duration::from_millis(1),
        look_rarely: Duration::from_millis(1),
        late: Duration::from_millis(20),
        give_up: Duration::from_secs(60),
    };
    const OLD: OnChain = OnChain { epoch: 1, validates: true, blocks: 7, chunks: 30, endorsements: 0 };

    /// What is told when the chain answers like this: `then` once it is late, `first` before.
    async fn told(pace: Pace, first: Result<OnChain, ProbeError>, then: OnChain) -> Vec<News> {
        let news = Mutex::new(Vec::new());
        let ask = || {
            let on_time = news.lock().expect("news").is_empty();
            std::future::ready(if on_time { first.clone().map(Some) } else { Ok(Some(then)) })
        };
        follow(pace, ask, |told| news.lock().expect("news").push(told)).await;
        news.into_inner().expect("news")
    }

    #[tokio::test]
    async fn a_holder_whose_work_does_not_reach_the_chain_is_told_once_and_the_first_chunk_after_all() {
        let chunk = OnChain { chunks: 31, ..OLD };
        let news = told(QUICK, Ok(OLD), chunk).await;
        assert_eq!(news[0], News::Late { trouble: String::new() });
        assert!(matches!(news[1], News::First { what: "chunk", after } if after >= QUICK.late), "{news:?}");
        assert_eq!(news.len(), 2, "{news:?}");
    }

    #[tokio::test]
    async fn what_was_there_before_is_not_taken_for_new() {
        let error = ProbeError::Unreachable { target: "rpc".into(), reason: "refused".into() };
        // Long after it is late, also on a busy machine.
        let pace = Pace { give_up: Duration::from_millis(800), ..QUICK };
        let news = told(pace, Err(error), OLD).await;
        assert_eq!(news, [News::Late { trouble: "; probe rpc: refused".into() }]);
        let outside = OnChain { validates: false, blocks: 0, chunks: 0, ..OLD };
        let news = told(pace, Ok(outside), outside).await;
        assert_eq!(news, [News::Late { trouble: "; it is no validator in this epoch".into() }]);
    }

    #[tokio::test]
    async fn a_chain_that_counts_nothing_is_asked_once() {
        let asked = Mutex::new(0);
        let ask = || {
            *asked.lock().expect("count") += 1;
            std::future::ready(Ok(None))
        };
        follow(QUICK, ask, |news| panic!("{news:?}")).await;
        assert_eq!(asked.into_inner().expect("count"), 1);
    }
}
