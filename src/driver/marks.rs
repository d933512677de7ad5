//! The last mark that this host knows of, out of gossip and onto the disk. A task of its own: what it
//! waits for never holds up Raft.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

use crate::core::Event;
use crate::effects::Effects;
use crate::gossip::Table;
use crate::ids::SignMark;
use crate::shared_core::SharedCore;
use crate::store::MarkFile;

/// Between two writes: the chain may sign many times a second.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// The highest mark that the other members tell of, theirs or one that they heard of themselves.
fn heard(table: &Table) -> Option<SignMark> {
    let records = table.others().filter_map(|(_, heard)| heard.record.as_deref());
    let marks = records.flat_map(|record| [record.last_signed, record.mark_seen]);
    marks.flatten().map(SignMark::from).max()
}

/// Tells the core of every higher mark, and keeps it in `file` unless this host signed as much itself,
/// which the chain node's own record shows: a holder writes nothing.
pub(super) async fn follow(
    core: Arc<SharedCore>,
    mut table: watch::Receiver<Arc<Table>>,
    effects: Option<Effects>,
    file: MarkFile,
) {
    let (to_keep, kept) = watch::channel(file.kept());
    tokio::spawn(keep(kept, file));
    let mut known = *to_keep.borrow();
    loop {
        let told = heard(&table.borrow_and_update());
        if let Some(mark) = told.filter(|_| told > known) {
            known = told;
            core.step(Event::MarkSeen(mark));
            if told > effects.as_ref().and_then(|effects| effects.seen().borrow().last_signed) {
                to_keep.send_replace(told);
            }
        }
        if table.changed().await.is_err() {
            return;
        }
    }
}

async fn keep(mut to_keep: watch::Receiver<Option<SignMark>>, mut file: MarkFile) {
    let mut failed = false;
    while to_keep.changed().await.is_ok() {
        let Some(mark) = *to_keep.borrow_and_update() else { continue };
        let written = spawn_blocking(move || {
            let written = file.raise(mark);
            (file, written)
        });
        // The thread can only be lost with the runtime.
        let Ok((back, written)) = written.await else { return };
        file = back;
        match written {
            Ok(()) => failed = false,
            Err(error) if !std::mem::replace(&mut failed, true) => {
                warn!("the last mark is not kept over a restart: {error}");
            }
            Err(_) => {}
        }
        sleep(KEEP_EVERY).await;
    }
}
