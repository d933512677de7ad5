//! The last mark that this host knows of, out of gossip and onto the disk. A task of its own: what it
//! waits for never holds up Raft.
//!
//! A chain node's record is read on its host whenever it was written (`host::effects::mark`); gossip carries the mark.
//! A neard has no such record: `host::effects::approvals` asks the node, and what it tells is kept in
//! `state_dir/approvals`. The mark is kept in `state_dir/mark`, at most every ten seconds and at the coordinator's end.
//! It is a file of its own, because a write to the store would wait in Raft's queue, and a damaged mark must not take
//! the store with it. A holder writes none of its own marks, and nobody writes while nothing is signed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::base::ids::SignMark;
use crate::cluster::gossip::Table;
use crate::cluster::store::MarkFile;
use crate::cluster::wire::from_parts;
use crate::cluster::wire::proto::Record;
use crate::core::Event;
use crate::core_handle::SharedCore;
use crate::host::effects::Effects;

/// Between two writes, as long as the coordinator runs: the chain may sign many times a second.
const KEEP_EVERY: Duration = Duration::from_secs(10);
/// For the last one, when the coordinator ends.
const LAST_MAX: Duration = Duration::from_millis(500);

/// The tasks that follow the marks.
pub(super) struct Marks {
    follow: JoinHandle<()>,
    keep: JoinHandle<()>,
}

impl Marks {
    pub(super) fn follow(
        core: Arc<SharedCore>,
        table: watch::Receiver<Arc<Table>>,
        effects: Option<Effects>,
        file: MarkFile,
    ) -> Marks {
        let (to_keep, kept) = watch::channel(file.kept());
        let follow = tokio::spawn(follow(core, table, effects, to_keep));
        Marks { follow, keep: tokio::spawn(keep(kept, file, KEEP_EVERY)) }
    }

    /// What was heard by now is on disk, unless the disk is late.
    pub(super) async fn end(self) {
        // With it goes what gives `keep` anything to write.
        self.follow.abort();
        if timeout(LAST_MAX, self.keep).await.is_err() {
            warn!("the last mark is not kept after {LAST_MAX:?}; see to the disk of member.state_dir");
        }
    }
}

/// The highest mark in the records of other members, theirs or one that they heard of themselves.
fn highest<'a>(records: impl Iterator<Item = &'a Record>) -> Option<SignMark> {
    records.flat_map(marks_of).fold(None, SignMark::of_both)
}

fn marks_of(record: &Record) -> [Option<SignMark>; 2] {
    [(record.last_signed, record.approvals), (record.mark_seen, record.approvals_seen)].map(from_parts)
}

/// Tells the core of every higher mark, and keeps it in `file` unless this host signed as much itself,
/// which the chain node's own record shows: a holder writes nothing.
async fn follow(
    core: Arc<SharedCore>,
    mut table: watch::Receiver<Arc<Table>>,
    effects: Option<Effects>,
    to_keep: watch::Sender<Option<SignMark>>,
) {
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

/// Writes what is to be kept, the last of it too when nothing more can come, and ends then.
async fn keep(mut to_keep: watch::Receiver<Option<SignMark>>, mut file: MarkFile, every: Duration) {
    let mut failed = false;
    // What came before the end is a change that comes before it.
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
        tokio::select! {
            () = sleep(every) => {}
            () = ended(to_keep.clone()) => {}
        }
    }
}

/// Nothing more can come.
async fn ended(mut to_keep: watch::Receiver<Option<SignMark>>) {
    while to_keep.changed().await.is_ok() {}
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
    async fn the_last_mark_is_kept_at_the_end_however_short_before_it_came() {
        const NEVER: Duration = Duration::from_secs(100_000);
        let dir = tempfile::tempdir().unwrap();
        let (to_keep, kept) = watch::channel(None);
        let keeps = tokio::spawn(keep(kept, MarkFile::open(dir.path()).0, NEVER));
        let on_disk = || MarkFile::open(dir.path()).0.kept().map_or(0, |mark| mark.height);
        to_keep.send_replace(Some(SignMark::at_height(7)));
        let began = Instant::now();
        while on_disk() != 7 {
            assert!(began.elapsed() < Duration::from_secs(60), "the first mark is not written: {}", on_disk());
            sleep(Duration::from_millis(2)).await;
        }
        to_keep.send_replace(Some(SignMark::at_height(8)));
        to_keep.send_replace(Some(SignMark::at_height(9)));
        drop(to_keep);
        timeout(Duration::from_secs(60), keeps).await.expect("it ends").expect("without a panic");
        assert_eq!(on_disk(), 9);
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
