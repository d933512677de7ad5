//! Asks the chain node for its health, at the configured pace or, while a block is awaited, as fast as
//! blocks can come.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::debug;

use super::{Hands, NodeSeen};
use crate::core::Event;

/// Between two probes while a block or a change of key is awaited.
pub(super) const CLOSELY: Duration = Duration::from_millis(4);

pub(super) async fn watch(hands: Arc<Hands>) {
    let mut node = hands.node.subscribe();
    let mut closely = hands.closely.subscribe();
    loop {
        if node.wait_for(|seen| matches!(seen, NodeSeen::Running(_))).await.is_err() {
            return;
        }
        once(&hands).await;
        let pause = if *closely.borrow_and_update() { CLOSELY } else { hands.probe_every };
        tokio::select! {
            () = sleep(pause) => {}
            _ = closely.changed() => {}
        }
    }
}

/// One probe, reported to the core.
pub(super) async fn once(hands: &Hands) {
    match hands.chain.probe().await {
        Ok(health) => {
            let last_signed = hands.chain.last_signed().await.unwrap_or_default();
            hands.seen.send_replace(super::Seen { health: Some(health.clone()), last_signed });
            hands.core.step(Event::Probed(health));
        }
        Err(error) => {
            debug!("{error}");
            hands.seen.send_modify(|seen| seen.health = None);
            hands.core.step(Event::ProbeFailed { reason: error.to_string() });
        }
    }
}
