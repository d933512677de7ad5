//! What the shared key signed last on this host, read again and again while the chain node has the key:
//! gossip carries it to the others, who may have nothing else to go by once this host is gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::debug;

use super::{Hands, approvals};
use crate::base::ids::SignMark;
use crate::core::Event;

/// Between two looks at the chain node's own record, which is also the pace of gossip.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) async fn watch(hands: Arc<Hands>) {
    let mut has_key = hands.has_key.subscribe();
    loop {
        // Read before the look, which so comes once more after the key was taken away.
        let signing = *has_key.borrow_and_update();
        look(&hands).await;
        if !signing && has_key.wait_for(|has_key| *has_key).await.is_err() {
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What cannot be read at the moment changes nothing: a mark only rises.
async fn look(hands: &Hands) {
    let recorded = if hands.chain.gossips_approvals() {
        approvals::of_holder(hands).await
    } else {
        match hands.chain.last_signed().await {
            Ok(recorded) => recorded,
            Err(error) => return debug!("{error}"),
        }
    };
    let rose = hands.seen.send_if_modified(|seen| {
        let rises = SignMark::is_news(recorded, seen.last_signed);
        if rises {
            seen.last_signed = SignMark::of_both(seen.last_signed, recorded);
        }
        rises
    });
    if let Some(mark) = recorded.filter(|_| rose) {
        hands.core.step(Event::MarkSeen(mark));
    }
}
