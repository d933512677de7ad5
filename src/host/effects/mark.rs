//! What the shared key signed last on this host, read whenever the chain node has written it while it has the key:
//! gossip carries it to the others, who may have nothing else to go by once this host is gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::file_watch::FileWatch;
use super::{Hands, approvals};
use crate::base::ids::SignMark;
use crate::core::Event;

/// Between two looks at the chain node's own record, which is also the pace of gossip.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The longest between two looks at a record that is watched: a watch may be lost without a word.
const WATCHED_LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn watch(hands: Arc<Hands>) {
    if hands.chain.last_signed_files().is_empty() && !hands.chain.gossips_approvals() {
        // It records nothing.
        return;
    }
    let mut has_key = hands.has_key.subscribe();
    let mut record = None;
    loop {
        // Read before the look, which so comes once more after the key was taken away.
        let signing = *has_key.borrow_and_update();
        if signing && record.is_none() {
            record = watch_record(&hands).await;
        }
        look(&hands).await;
        if !signing {
            record = None;
            if has_key.wait_for(|has_key| *has_key).await.is_err() {
                return;
            }
        }
        sleep(LOOK_EVERY).await;
        await_change(&mut record, &mut has_key).await;
    }
}

/// `None` where the node itself is asked, and while there is nothing to watch.
async fn watch_record(hands: &Arc<Hands>) -> Option<FileWatch> {
    if hands.chain.gossips_approvals() {
        return None;
    }
    let files = hands.chain.last_signed_files();
    let watch = spawn_blocking(move || FileWatch::on(files.iter().map(|file| file.as_path()))).await.ok()?;
    watch.inspect_err(|error| debug!("what the chain node signed is looked at all the time: {error}")).ok()
}

/// Returns at once without a watch.
async fn await_change(record: &mut Option<FileWatch>, has_key: &mut watch::Receiver<bool>) {
    let Some(changes) = record else { return };
    let told = tokio::select! {
        told = timeout(WATCHED_LOOK_EVERY - LOOK_EVERY, changes.changed()) => told,
        // It is taken away, or the coordinator ends.
        _ = has_key.changed() => return,
    };
    if let Ok(Err(error)) = told {
        debug!("{error}");
        *record = None;
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
