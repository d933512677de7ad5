//! Watches for the first work with the shared key on the chain after an activation. "The key is loaded" is
//! what the node says of itself; this is what the network has seen. It is for people alone: a validator may
//! have nothing to sign for minutes, so that nothing is decided by it and nothing waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::Hands;
use crate::chain_node::OnChain;
use crate::ids::Epoch;

/// Between two questions at first, and once it takes longer than it should.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOK_RARELY: Duration = Duration::from_secs(5);
/// neard took up to 5 s on a small network. A holder's node whose peers keep the old connection never comes.
const LATE: Duration = Duration::from_secs(30);
const GIVE_UP: Duration = Duration::from_secs(600);

/// Ends when it has seen something, when it has waited long enough, or when it is dropped.
pub(super) async fn watch(hands: Arc<Hands>, epoch: Epoch) {
    let began_at = Instant::now();
    let mut watched = Watched { before: None, trouble: String::new() };
    let mut told_late = false;
    while began_at.elapsed() < GIVE_UP {
        let late = began_at.elapsed() >= LATE;
        match watched.look(&hands).await {
            Look::NotCounted => return,
            Look::New(what) => {
                let took = began_at.elapsed().as_secs_f64();
                info!(%epoch, "first {what} on chain {took:.1} s after activation began");
                hands.note(format!("first {what} on chain {took:.1} s after activation began"));
                return;
            }
            Look::Nothing if late && !told_late => {
                told_late = true;
                let trouble = &watched.trouble;
                warn!(%epoch, "nothing signed by this validator is on chain yet, {} s after activation{trouble}", LATE.as_secs());
                hands.note(format!("nothing signed here is on chain since activation{trouble}"));
            }
            Look::Nothing => {}
        }
        sleep(if late { LOOK_RARELY } else { LOOK_EVERY }).await;
    }
}

struct Watched {
    before: Option<OnChain>,
    /// Why it cannot be told, as the end of a sentence.
    trouble: String,
}

enum Look {
    NotCounted,
    Nothing,
    New(&'static str),
}

impl Watched {
    /// What is there at the first look was signed before: no other host signs above the floor, and the node
    /// had passed that when it was activated.
    async fn look(&mut self, hands: &Hands) -> Look {
        match hands.chain.on_chain().await {
            Ok(None) => Look::NotCounted,
            Ok(Some(seen)) => {
                self.trouble = if seen.validates { String::new() } else { "; it is no validator in this epoch".into() };
                let before = self.before.get_or_insert(seen);
                seen.new_since(before).map_or(Look::Nothing, Look::New)
            }
            Err(error) => {
                debug!("{error}");
                self.trouble = format!("; {error}");
                Look::Nothing
            }
        }
    }
}
