//! The store against openraft's own suite, across restarts, and with members' mistakes. Damaged files
//! are in `store_damage.rs`, killed processes in `store_crash`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::kit::storage::{
    apply, blank, claim, entry, filled, id, observed, open, open_sign_log, release, reopened, sign, vote,
};
use baton::base::chain_node::{FloorBasis, MetFloor, SignFloor};
use baton::base::ids::{Epoch, NodeId, Role, SignMark, UpgradeName};
use baton::base::time::WallTime;
use baton::cluster::store::{AppliedEntry, Health, LogStore, News, StateMachine, Store, StoreError};
use baton::cluster::wire::{Entry, Node, TypeConfig, Vote};
use baton::core::agreed::replicated::{Baton, Command, Set, Upgrade};
use baton::core::fences::floor::FloorSource;
use baton::core::fences::lease::VoterSets;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, RaftLogReader, RaftSnapshotBuilder, StorageError};
use tempfile::TempDir;

struct InTempDir;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for InTempDir {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = TempDir::new().expect("a temporary directory");
        let opened = open(dir.path());
        Ok((dir, opened.log, opened.state_machine))
    }
}

#[tokio::test]
async fn the_storage_suite_of_openraft_passes() {
    Suite::test_all(InTempDir).await.expect("openraft's storage suite");
}

#[tokio::test]
async fn a_reopened_store_has_everything() {
    let dir = TempDir::new().unwrap();
    let first = filled(dir.path()).await;
    assert!(first.fresh, "a new store has never voted");
    let (incarnation, state) = (first.incarnation, first.store.applied().borrow().clone());
    drop(first);

    let mut again = open(dir.path());
    assert!(!again.fresh);
    assert_eq!(again.incarnation, incarnation);
    assert_eq!(again.store.vote(), Some(vote(2, "a")));
    let log = again.log.get_log_state().await.unwrap();
    assert_eq!((log.last_purged_log_id, log.last_log_id), (Some(id(2, 0)), Some(id(2, 10))));
    assert_eq!(again.log.try_get_log_entries(..).await.unwrap().len(), 10);
    assert_eq!(*again.store.applied().borrow(), state);
    assert_eq!(state.replicated.epoch, Epoch(1));
    assert_eq!(state.last_applied, Some(id(2, 1)));
}

#[tokio::test]
async fn two_stores_have_different_incarnations() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    assert_ne!(open(a.path()).incarnation, open(b.path()).incarnation);
}

#[tokio::test]
async fn a_truncated_log_stays_truncated_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let mut opened = filled(dir.path()).await;
    opened.log.truncate_after(Some(id(2, 4))).await.unwrap();
    opened.log.save_vote(&vote(3, "b")).await.unwrap();
    opened.log.blocking_append([blank(3, 5)]).await.unwrap();
    drop(opened);
    let log = open(dir.path()).log.get_log_state().await.unwrap();
    assert_eq!(log.last_log_id, Some(id(3, 5)));
}

#[tokio::test]
async fn entries_of_every_kind_come_back() {
    let dir = TempDir::new().unwrap();
    let mut opened = open(dir.path());
    let members = openraft::Membership::new_with_defaults(vec![["a".into(), "b".into()].into()], ["c".into()]);
    let entries = vec![
        Entry { log_id: id(1, 0), payload: EntryPayload::Membership(members) },
        blank(1, 1),
        entry(1, 2, claim(1, "a")),
        entry(1, 3, release(1, 12)),
        entry(1, 4, Command::Join { member: "b".into(), incarnation: 7 }),
    ];
    opened.log.save_vote(&vote(1, "a")).await.unwrap();
    opened.log.blocking_append(entries.clone()).await.unwrap();
    drop(opened);
    assert_eq!(open(dir.path()).log.try_get_log_entries(0..99).await.unwrap(), entries);
}

/// Invariant (fence 1): the voters of a lease are never those of before the newest entry.
#[tokio::test]
async fn a_membership_is_told_before_its_entry_is_durable_and_again_when_it_is_taken_back() {
    let dir = TempDir::new().unwrap();
    let mut opened = open(dir.path());
    let told = Arc::new(Mutex::new(Vec::new()));
    let hears = told.clone();
    opened.log.on_members(move |members| hears.lock().unwrap().push(members.voters.clone()));
    let sets = |names: &[&[&str]]| -> VoterSets {
        names.iter().map(|set| set.iter().map(|name| NodeId::from(*name)).collect()).collect()
    };
    let (first, joint) = (sets(&[&["a", "b"]]), sets(&[&["a", "b"], &["a", "b", "c"]]));
    let membership = |index, voters: &VoterSets| {
        let nodes: BTreeMap<NodeId, Node> = ["a", "b", "c"].map(|name| (name.into(), node(name))).into();
        let membership = openraft::Membership::new(voters.clone(), nodes).unwrap();
        Entry { log_id: id(1, index), payload: EntryPayload::Membership(membership) }
    };
    opened.log.save_vote(&vote(1, "a")).await.unwrap();
    opened.log.blocking_append([membership(0, &first), blank(1, 1)]).await.unwrap();
    // Nobody waits for the disk here, as openraft does not before it replicates.
    opened.log.append([membership(2, &joint)], IOFlushed::noop()).await.unwrap();
    assert_eq!(*told.lock().unwrap(), [VoterSets::new(), first.clone(), joint.clone()]);
    assert!(opened.store.members().borrow().is_joint());
    opened.log.truncate_after(Some(id(1, 1))).await.unwrap();
    assert_eq!(*told.lock().unwrap(), [VoterSets::new(), first.clone(), joint, first.clone()]);

    let entries = opened.log.try_get_log_entries(0..2).await.unwrap();
    apply(&mut opened.state_machine, entries).await;
    opened.log.purge(id(1, 1)).await.unwrap();
    drop(opened);
    let opened = open(dir.path());
    assert_eq!(opened.store.members().borrow().voters, first, "from the state, when the log has it no more");
    assert_eq!(opened.store.members().borrow().all[&"c".into()], node("c"));
}

#[tokio::test]
async fn a_member_that_goes_leaves_no_incarnation_and_no_order_behind() {
    let dir = TempDir::new().unwrap();
    let mut opened = open(dir.path());
    let membership = |index, names: &[&str]| {
        let nodes: BTreeMap<NodeId, Node> = names.iter().map(|name| ((*name).into(), node(name))).collect();
        Entry { log_id: id(1, index), payload: EntryPayload::Membership(nodes.into()) }
    };
    let priority = Command::Set(Set::Priority { member: "b".into(), priority: Some(7) });
    let entries = vec![
        membership(0, &["a", "b"]),
        entry(1, 1, Command::Join { member: "b".into(), incarnation: 4 }),
        entry(1, 2, priority),
        membership(3, &["a"]),
    ];
    apply(&mut opened.state_machine, entries).await;
    let state = opened.store.applied().borrow().replicated.clone();
    assert_eq!((state.incarnations.len(), state.orders.priorities.len()), (0, 0));
    assert_eq!(state.founders, ["a", "b"].map(NodeId::from).into());
    let mut news = Vec::new();
    while let Ok(one) = opened.news.try_recv() {
        news.push(one);
    }
    assert_eq!(news.last(), Some(&News::Forgotten(state.view())), "the core hears of it");
}

#[tokio::test]
async fn a_store_that_joins_says_so_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    assert!(!opened.joined);
    opened.log.mark_joined().await.unwrap();
    drop(opened);
    let opened = open(dir.path());
    assert!(opened.joined && opened.fresh, "it has neither voted nor logged");
}

fn node(name: &str) -> Node {
    Node { addr: format!("{name}:1"), role: Role::Arbiter, priority: 3, incarnation: Some(9) }
}

#[tokio::test]
async fn applied_commands_arrive_in_order_and_in_the_published_state() {
    let dir = TempDir::new().unwrap();
    let mut opened = open(dir.path());
    let commands = [claim(1, "a"), release(1, 41), claim(3, "a"), claim(2, "b")];
    let entries: Vec<Entry> = (0..).zip(commands.clone()).map(|(i, command)| entry(1 + i, i, command)).collect();
    apply(&mut opened.state_machine, entries).await;
    let mut seen: Vec<AppliedEntry> = Vec::new();
    while let Ok(News::Entry(applied)) = opened.news.try_recv() {
        seen.push(applied);
    }
    assert_eq!(seen.iter().map(|entry| entry.command.clone()).collect::<Vec<_>>(), commands);
    assert_eq!(
        seen.iter().map(|entry| (entry.term, entry.index)).collect::<Vec<_>>(),
        [(1, 0), (2, 1), (3, 2), (4, 3)]
    );
    assert_eq!(opened.store.applied().borrow().replicated.holder, Some(NodeId::from("b")));
}

#[tokio::test]
async fn the_term_of_the_newest_release_is_found_in_the_log_and_in_the_state() {
    let dir = TempDir::new().unwrap();
    let mut opened = open(dir.path());
    assert_eq!(opened.store.last_release_term(), None);
    opened.log.save_vote(&vote(5, "a")).await.unwrap();
    let entries = vec![entry(3, 0, claim(1, "a")), entry(3, 1, release(1, 7)), entry(5, 2, release(1, 7)), blank(5, 3)];
    opened.log.blocking_append(entries.clone()).await.unwrap();
    assert_eq!(opened.store.last_release_term(), Some(5), "in the log, not applied");
    drop(opened);
    let mut opened = open(dir.path());
    assert_eq!(opened.store.last_release_term(), Some(5), "in the log, after a restart");
    apply(&mut opened.state_machine, entries).await;
    opened.log.purge(id(5, 3)).await.unwrap();
    drop(opened);
    assert_eq!(open(dir.path()).store.last_release_term(), Some(5), "in the state, after the log was purged");
}

#[tokio::test]
async fn the_mark_of_a_release_stands_until_the_log_tells_of_another_move() {
    let dir = TempDir::new().unwrap();
    let mut opened = open(dir.path());
    assert_eq!(opened.store.released_mark(), None, "nothing was ever released");
    opened.log.save_vote(&vote(5, "a")).await.unwrap();
    let entries = [entry(3, 0, claim(1, "a")), entry(3, 1, release(1, 7)), blank(5, 2), entry(5, 3, claim(2, "b"))];
    opened.log.blocking_append(entries[..3].to_vec()).await.unwrap();
    assert_eq!(opened.store.released_mark(), None, "not applied");
    apply(&mut opened.state_machine, entries[..2].to_vec()).await;
    assert_eq!(opened.store.released_mark(), Some(SignMark::at_height(7)));
    opened.log.blocking_append(entries[3..].to_vec()).await.unwrap();
    drop(opened);
    let opened = open(dir.path());
    assert_eq!(opened.store.applied().borrow().replicated.floor_source(), FloorSource::Exact(SignMark::at_height(7)));
    assert_eq!(opened.store.released_mark(), None, "a claim is in the log, not applied");
}

#[tokio::test]
async fn an_installed_snapshot_survives_a_restart_that_comes_before_the_purge() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut leader = filled(from.path()).await;
    let snapshot = leader.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let mut follower = open(to.path());
    follower.log.save_vote(&vote(2, "a")).await.unwrap();
    follower.state_machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    let view = leader.store.applied().borrow().replicated.view();
    assert_eq!(follower.news.try_recv(), Ok(News::Snapshot(view, None)), "the core hears of it");
    drop(follower);
    let mut follower = open(to.path());
    assert_eq!(follower.state_machine.applied_state().await.unwrap().0, Some(id(2, 1)));
    assert_eq!(follower.store.applied().borrow().replicated, leader.store.applied().borrow().replicated);
    follower.log.purge(id(2, 1)).await.unwrap();
    follower.log.blocking_append([blank(2, 2)]).await.unwrap();
    drop(follower);
    assert_eq!(open(to.path()).log.get_log_state().await.unwrap().last_log_id, Some(id(2, 2)));
}

/// A log of eight requests to sign behind its opening, in a store that was closed before anything was applied.
async fn with_requests(dir: &Path) -> Vec<Entry> {
    let mut opened = open(dir);
    opened.log.save_vote(&vote(1, "a")).await.unwrap();
    let requests = (1..9).map(|index| entry(1, index, sign(7 + index)));
    let entries: Vec<Entry> = [entry(1, 0, open_sign_log())].into_iter().chain(requests).collect();
    opened.log.blocking_append(entries.clone()).await.unwrap();
    entries
}

/// Each costs the sync of its entry, and no other.
#[tokio::test]
async fn requests_to_sign_alone_write_no_state_and_are_applied_again_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let entries = with_requests(dir.path()).await;
    let syncs = Arc::new(AtomicUsize::new(0));
    let counted = syncs.clone();
    let mut opened = observed(dir.path(), move |file| {
        counted.fetch_add(usize::from(file.ends_with("db")), Ordering::SeqCst);
        Ok(())
    });
    apply(&mut opened.state_machine, entries[..1].to_vec()).await;
    for request in &entries[1..] {
        apply(&mut opened.state_machine, vec![request.clone()]).await;
    }
    let state = opened.store.applied().borrow().clone();
    assert_eq!(state.last_applied, Some(id(1, 8)));
    drop(opened);
    assert_eq!(syncs.load(Ordering::SeqCst), 1, "that of the opening");

    let mut again = open(dir.path());
    assert_eq!(again.state_machine.applied_state().await.unwrap().0, Some(id(1, 0)));
    apply(&mut again.state_machine, again.log.try_get_log_entries(1..9).await.unwrap()).await;
    assert_eq!(*again.store.applied().borrow(), state);
}

#[tokio::test]
async fn requests_to_sign_are_in_the_state_before_they_are_purged() {
    let dir = TempDir::new().unwrap();
    let entries = with_requests(dir.path()).await;
    let mut opened = open(dir.path());
    apply(&mut opened.state_machine, entries).await;
    let state = opened.store.applied().borrow().clone();
    let mut builder = opened.state_machine.get_snapshot_builder().await;
    builder.build_snapshot().await.unwrap();
    opened.log.purge(id(1, 8)).await.unwrap();
    drop(opened);
    assert_eq!(*open(dir.path()).store.applied().borrow(), state);
}

/// The next other entry brings them along.
#[tokio::test]
async fn requests_to_sign_are_in_the_state_that_another_entry_writes() {
    let dir = TempDir::new().unwrap();
    let entries = with_requests(dir.path()).await;
    let mut opened = open(dir.path());
    opened.log.blocking_append([blank(1, 9)]).await.unwrap();
    apply(&mut opened.state_machine, entries[..1].to_vec()).await;
    apply(&mut opened.state_machine, entries[1..].to_vec()).await;
    apply(&mut opened.state_machine, vec![blank(1, 9)]).await;
    let state = opened.store.applied().borrow().clone();
    drop(opened);
    assert_eq!(*open(dir.path()).store.applied().borrow(), state);
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_changes_nothing() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut leader = filled(from.path()).await;
    let snapshot = leader.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let mut follower = open(to.path());
    let before = follower.store.applied().borrow().clone();
    let result = follower.state_machine.install_snapshot(&snapshot.meta, vec![0xff; 9]).await;
    assert!(result.is_err(), "{result:?}");
    assert_eq!(*follower.store.applied().borrow(), before);
}

#[tokio::test]
async fn the_largest_history_fits_into_the_store_and_survives() {
    let dir = TempDir::new().unwrap();
    let mut opened = open(dir.path());
    let member = "m".repeat(64);
    let mut entries = Vec::new();
    for epoch in 1..=300_u64 {
        let claim = Command::Baton(Baton::Claim {
            epoch: Epoch(epoch),
            member: member.as_str().into(),
            reason: "r".repeat(1000),
            at: WallTime::from_nanos(u64::MAX),
        });
        let active = Command::Baton(Baton::Activated {
            epoch: Epoch(epoch),
            at: WallTime::from_nanos(u64::MAX),
            floor: MetFloor {
                floor: SignFloor::Mark(SignMark::at_step(u64::MAX, u32::MAX, u32::MAX)),
                basis: Some(FloorBasis::Replica),
                height: u64::MAX,
                settled_in: Duration::MAX,
            },
            took: Duration::MAX,
        });
        entries.push(entry(epoch, epoch * 2 - 2, claim));
        entries.push(entry(epoch, epoch * 2 - 1, active));
    }
    for number in 0..40_u64 {
        let (name, at) = (UpgradeName::new(&format!("{number:0128}")).unwrap(), WallTime::from_nanos(u64::MAX));
        let source = Some("/".repeat(1024));
        let plan =
            Command::Upgrade(Upgrade::Plan { name: name.clone(), height: Some(u64::MAX), source, back: true, at });
        let failed = Some((member.as_str().into(), "r".repeat(1000)));
        entries.push(entry(300, 600 + number * 2, plan));
        entries.push(entry(300, 601 + number * 2, Command::Upgrade(Upgrade::End { name, failed, at })));
    }
    opened.log.save_vote(&vote(300, "a")).await.unwrap();
    for chunk in entries.chunks(50) {
        opened.log.blocking_append(chunk.to_vec()).await.unwrap();
        apply(&mut opened.state_machine, chunk.to_vec()).await;
    }
    opened.log.purge(id(251, 500)).await.unwrap();
    opened.log.save_vote(&vote(301, "a")).await.unwrap();
    assert_eq!(*opened.store.health().borrow(), Health::Good);
    drop(opened);
    assert_eq!(fs::read_dir(dir.path().join("store/blobs")).unwrap().count(), 0, "nothing went into blobs/");
    let again = open(dir.path());
    assert_eq!(again.store.applied().borrow().replicated.moves.len(), 200);
    assert_eq!(again.store.applied().borrow().replicated.floor_source(), FloorSource::Unknown);
    assert_eq!(again.store.applied().borrow().replicated.plans.0.len(), 20);
}

#[tokio::test]
async fn a_hole_in_the_log_is_not_written() {
    let dir = TempDir::new().unwrap();
    let mut opened = filled(dir.path()).await;
    assert!(opened.log.blocking_append([blank(2, 12)]).await.is_err());
    assert_eq!(opened.log.get_log_state().await.unwrap().last_log_id, Some(id(2, 10)));
}

#[tokio::test]
async fn an_entry_that_is_too_large_is_not_written() {
    let dir = TempDir::new().unwrap();
    let mut opened = filled(dir.path()).await;
    let (reason, at) = ("x".repeat(200_000), WallTime::from_nanos(1));
    let large = Command::Baton(Baton::Release { epoch: Epoch(1), last_signed: None, reason, at, to: None });
    assert!(opened.log.blocking_append([entry(2, 11, large)]).await.is_err());
    assert_eq!(opened.log.get_log_state().await.unwrap().last_log_id, Some(id(2, 10)));
    assert_eq!(*opened.store.health().borrow(), Health::Good);
}

#[tokio::test]
async fn a_failed_write_is_reported_and_ends_all_writing() {
    let dir = TempDir::new().unwrap();
    drop(filled(dir.path()).await);
    let broken = Arc::new(AtomicBool::new(false));
    let fails = broken.clone();
    let mut opened = observed(dir.path(), move |file| {
        let fails = fails.load(Ordering::SeqCst) && file.ends_with("db");
        if fails { Err(std::io::Error::other("the disk is gone")) } else { Ok(()) }
    });
    let mut health = opened.store.health();
    broken.store(true, Ordering::SeqCst);
    let failed = opened.log.save_vote(&vote(3, "b")).await;
    assert!(failed.as_ref().is_err_and(|error| error.to_string().contains("the disk is gone")), "{failed:?}");
    health.wait_for(|health| matches!(health, Health::Failed(_))).await.unwrap();
    broken.store(false, Ordering::SeqCst);
    assert!(opened.log.save_vote(&vote(4, "b")).await.is_err(), "it must not write again");
    assert!(opened.log.blocking_append([blank(3, 11)]).await.is_err(), "it must not write again");
    assert_eq!(opened.store.vote(), Some(vote(2, "a")), "the vote that failed was not taken");
}

#[tokio::test]
async fn a_vote_whose_second_copy_cannot_be_written_holds_and_ends_all_writing() {
    let dir = TempDir::new().unwrap();
    let mut opened = reopened(dir.path()).await;
    let mut health = opened.store.health();
    fs::create_dir(dir.path().join("store/vote.new")).unwrap();
    opened.log.save_vote(&vote(3, "b")).await.unwrap();
    health.wait_for(|health| matches!(health, Health::Failed(_))).await.unwrap();
    assert!(opened.log.save_vote(&vote(4, "b")).await.is_err(), "it must not write again");
    drop(opened);
    fs::remove_dir(dir.path().join("store/vote.new")).unwrap();
    assert_eq!(open(dir.path()).store.vote(), Some(vote(3, "b")));
}

/// Lets nobody pass until its other half is dropped.
struct Gate(Mutex<Receiver<()>>);

fn closed_gate() -> (Sender<()>, Gate) {
    let (closed, gate) = channel();
    (closed, Gate(Mutex::new(gate)))
}

impl Gate {
    fn pass(&self) {
        let _ = self.0.lock().unwrap().recv();
    }
}

/// What a candidate waits for; on a disk whose syncs take 290 ms, three of them were too many.
#[tokio::test]
async fn a_vote_is_answered_after_one_sync_and_copied_behind_that() {
    let dir = TempDir::new().unwrap();
    drop(filled(dir.path()).await);
    let voted_before = fs::read(dir.path().join("store/vote")).unwrap();
    let syncs = Arc::new(Mutex::new(Vec::new()));
    let noted = syncs.clone();
    let (closed, gate) = closed_gate();
    let mut opened = observed(dir.path(), move |file| {
        // Opening writes the file as well, before anything else is synced.
        if file.ends_with("vote") && noted.lock().unwrap().contains(&OsString::from("db")) {
            gate.pass();
        }
        noted.lock().unwrap().push(file.file_name().unwrap().to_owned());
        Ok(())
    });
    let opening = std::mem::take(&mut *syncs.lock().unwrap());
    assert_eq!(opening, ["vote", "vote"], "what opening syncs");
    opened.log.save_vote(&vote(3, "b")).await.unwrap();
    opened.log.blocking_append([blank(3, 11)]).await.unwrap();
    assert_eq!(*syncs.lock().unwrap(), ["db", "db"], "one for the vote, one for the entry");
    assert_eq!(fs::read(dir.path().join("store/vote")).unwrap(), voted_before, "the copy is still to come");
    drop(closed);
    drop(opened);
    assert_eq!(*syncs.lock().unwrap(), ["db", "db", "vote", "vote"]);
    assert_ne!(fs::read(dir.path().join("store/vote")).unwrap(), voted_before);
    assert_eq!(open(dir.path()).store.vote(), Some(vote(3, "b")));
}

#[tokio::test]
async fn that_a_vote_was_won_is_not_waited_for_and_is_durable_before_the_winners_first_entry() {
    let dir = TempDir::new().unwrap();
    drop(filled(dir.path()).await);
    let (closed, gate) = closed_gate();
    let shut = Arc::new(AtomicBool::new(false));
    let is_shut = shut.clone();
    let mut opened = observed(dir.path(), move |_| {
        if is_shut.load(Ordering::SeqCst) {
            gate.pass();
        }
        Ok(())
    });
    opened.log.save_vote(&vote(3, "b")).await.unwrap();
    shut.store(true, Ordering::SeqCst);
    let won = Vote::new_committed(3, "b".into());
    opened.log.save_vote(&won).await.unwrap();
    assert_eq!(opened.store.vote(), Some(won.clone()));
    drop(closed);
    opened.log.blocking_append([blank(3, 11)]).await.unwrap();
    drop(opened);
    let mut again = open(dir.path());
    assert_eq!(again.store.vote(), Some(won));
    assert_eq!(again.log.get_log_state().await.unwrap().last_log_id, Some(id(3, 11)));

    // Somebody else's win is a vote that this member has not given yet.
    let syncs = Arc::new(AtomicUsize::new(0));
    let counted = syncs.clone();
    drop(again);
    let mut opened = observed(dir.path(), move |file| {
        counted.fetch_add(usize::from(file.ends_with("db")), Ordering::SeqCst);
        Ok(())
    });
    opened.log.save_vote(&Vote::new_committed(4, "c".into())).await.unwrap();
    assert_eq!(syncs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_second_open_is_refused() {
    let dir = TempDir::new().unwrap();
    let first = open(dir.path());
    let error = Store::open(dir.path(), "test", &"a".into()).err().expect("a refusal");
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(first);
    open(dir.path());
}

#[tokio::test]
async fn a_store_of_another_cluster_or_member_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(filled(dir.path()).await);
    for (cluster, member) in [("other", "a"), ("test", "b")] {
        let error = Store::open(dir.path(), cluster, &member.into()).err().expect("a refusal").to_string();
        assert!(error.contains("belongs to cluster \"test\", member \"a\""), "{error}");
    }
    open(dir.path());
}

/// Name, length and time of change of every file of a store.
fn files(dir: &Path) -> Vec<impl Ord + std::fmt::Debug> {
    let files = fs::read_dir(dir.join("store")).unwrap().map(|file| file.unwrap());
    let data = files.map(|file| (file.path(), file.metadata().unwrap()));
    let mut seen: Vec<_> = data.map(|(path, data)| (path, data.len(), data.modified().unwrap())).collect();
    seen.sort();
    seen
}

#[tokio::test]
async fn an_idle_store_writes_nothing() {
    let dir = TempDir::new().unwrap();
    let mut opened = reopened(dir.path()).await;
    // The queue is empty once a vote is durable.
    opened.log.save_vote(&vote(2, "a")).await.unwrap();
    let before = files(dir.path());
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(files(dir.path()), before);
}
