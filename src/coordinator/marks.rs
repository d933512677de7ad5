//! The last mark that this host knows of, out of gossip and onto the disk. A task of its own: what it
//! waits for never holds up Raft.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

use crate::base::ids::SignMark;
use crate::cluster::gossip::Table;
use crate::cluster::store::MarkFile;
use crate::cluster::wire::from_parts;
use crate::cluster::wire::proto::Record;
use crate::core::Event;
use crate::core_handle::SharedCore;
use crate::host::effects::Effects;

/// Between two writes: the chain may sign many times a second.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// The highest mark in the records of other members, theirs or one that they heard of themselves.
fn highest<'a>(records: impl Iterator<Item = &'a Record>) -> Option<SignMark> {
    records.flat_map(marks_of).fold(None, SignMark::of_both)
}

fn marks_of(record: &Record) -> [Option<SignMark>; 2] {
    [(record.last_signed, record.approvals), (record.mark_seen, record.approvals_seen)].map(from_parts)
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
    tokio::spawn(keep(kept, file, KEEP_EVERY));
    let mut known = *to_keep.borrow();
    loop {
        let told = highest(table.borrow_and_update().others().filter_map(|(_, heard)| heard.record.as_deref()));
        if let Some(mark) = told.filter(|_| SignMark::is_news(told, known)) {
            known = SignMark::of_both(known, told);
            core.step(Event::MarkSeen(mark));
            if SignMark::is_news(told, effects.as_ref().and_then(|effects| effects.seen().borrow().last_signed)) {
                to_keep.send_replace(told);
            }
        }
        if table.changed().await.is_err() {
            return;
        }
    }
}

async fn keep(mut to_keep: watch::Receiver<Option<SignMark>>, mut file: MarkFile, every: Duration) {
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
        sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn a_mark_of_a_member_that_is_gone_comes_from_whoever_heard_of_it() {
        let mark = |height| Some(SignMark::at_height(height).into());
        let arbiter = Record { mark_seen: mark(41), ..Record::default() };
        let standby = Record { last_signed: mark(12), mark_seen: mark(40), ..Record::default() };
        assert_eq!(highest([&arbiter, &standby].into_iter()), Some(SignMark::at_height(41)));
        assert_eq!(highest([&Record::default()].into_iter()), None);
        // Both halves of the approvals count, whoever told each.
        let part = |head, approved| Some(crate::cluster::wire::proto::Approvals { head, approved });
        let lost = Record { approvals_seen: part(9, 14), ..Record::default() };
        let holder = Record { approvals: part(10, 11), ..Record::default() };
        assert_eq!(highest([&lost, &holder].into_iter()), Some(SignMark::of_approvals(10, 14)));
    }

    #[tokio::test]
    async fn a_chain_that_signs_fast_is_kept_at_a_bounded_rate_and_its_last_mark_is_not_lost() {
        const EVERY: Duration = Duration::from_millis(50);
        let dir = tempfile::tempdir().unwrap();
        let (file, error) = MarkFile::open(dir.path());
        assert!(error.is_none(), "{error:?}");
        let (to_keep, kept) = watch::channel(None);
        let began = Instant::now();
        tokio::spawn(keep(kept, file, EVERY));
        let on_disk = || MarkFile::open(dir.path()).0.kept().map_or(0, |mark| mark.height);
        let mut seen = std::collections::BTreeSet::new();
        for height in 1..=200 {
            to_keep.send_replace(Some(SignMark::at_height(height)));
            sleep(Duration::from_millis(2)).await;
            seen.insert(on_disk());
        }
        while on_disk() < 200 {
            assert!(began.elapsed() < Duration::from_secs(60), "the last mark is lost: {seen:?}");
            sleep(Duration::from_millis(2)).await;
        }
        let (writes, pauses) = (seen.len() as u128, began.elapsed().as_millis() / EVERY.as_millis());
        assert!((2..=pauses + 2).contains(&writes), "{writes} writes in {pauses} pauses: {seen:?}");
    }
}
