//! What the tests of the store have in common: a store named `test`/`a` and entries to put into it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use baton::base::ids::{Epoch, SignMark};
use baton::base::signing::{Hrs, SignDigest, SignTime};
use baton::base::time::WallTime;
use baton::cluster::store::{Opened, StateMachine, Store};
use baton::cluster::wire::{Entry, LogId, Vote};
use baton::core::agreed::replicated::{Baton, Command, Signing};
use baton::core::agreed::sign_log::{Grant, SignRequest};
use openraft::EntryPayload;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::vote::leader_id_std::CommittedLeaderId;

pub fn open(dir: &Path) -> Opened {
    Store::open(dir, "test", &"a".into()).unwrap_or_else(|error| panic!("open {}: {error}", dir.display()))
}

/// On a disk of which `before_sync` is told each sync first.
pub fn observed(dir: &Path, before_sync: impl Fn(&Path) -> io::Result<()> + Send + Sync + 'static) -> Opened {
    let opened = Store::open_observed(dir, "test", &"a".into(), Arc::new(before_sync));
    opened.unwrap_or_else(|error| panic!("open {}: {error}", dir.display()))
}

/// A filled store that was closed and opened again: nothing is under way in it.
pub async fn reopened(dir: &Path) -> Opened {
    drop(filled(dir).await);
    open(dir)
}

pub fn id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index }
}

pub fn blank(term: u64, index: u64) -> Entry {
    Entry { log_id: id(term, index), payload: EntryPayload::Blank }
}

pub fn entry(term: u64, index: u64, command: Command) -> Entry {
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(command) }
}

pub fn claim(epoch: u64, member: &str) -> Command {
    claim_because(epoch, member, "test".into())
}

pub fn claim_because(epoch: u64, member: &str, reason: String) -> Command {
    let at = WallTime::from_nanos(1_000);
    Command::Baton(Baton::Claim { epoch: Epoch(epoch), member: member.into(), reason, at })
}

pub fn release(epoch: u64, height: u64) -> Command {
    let (last_signed, at) = (Some(SignMark::at_height(height)), WallTime::from_nanos(2_000));
    Command::Baton(Baton::Release { epoch: Epoch(epoch), last_signed, reason: "test".into(), at, to: None })
}

/// The log begins to decide what is signed, above height 7.
pub fn open_sign_log() -> Command {
    let last = Grant { place: Hrs::new(7, 0, Hrs::PRECOMMIT), digest: None, time: SignTime::default() };
    let (chain, key, at) = ("c-1".into(), "k".into(), WallTime::from_nanos(3_000));
    Command::Signing(Signing::Open { chain, key, last, at })
}

/// A request for the precommit of `height`.
pub fn sign(height: u64) -> Command {
    let (place, digest, time) = (Hrs::new(height, 0, Hrs::PRECOMMIT), SignDigest([1; 32]), SignTime::default());
    Command::Signing(Signing::Sign(SignRequest { chain: "c-1".into(), place, digest, time, by: None }))
}

pub async fn apply(state_machine: &mut StateMachine, entries: Vec<Entry>) {
    let entries = entries.into_iter().map(|entry| Ok((entry, None)));
    state_machine.apply(tokio_stream::iter(entries)).await.expect("apply");
}

pub fn vote(term: u64, candidate: &str) -> Vote {
    Vote::new(term, candidate.into())
}

/// A store with a vote, eleven entries (the first one purged) and an applied claim.
pub async fn filled(dir: &Path) -> Opened {
    let mut opened = open(dir);
    opened.log.save_vote(&vote(2, "a")).await.expect("save the vote");
    let mut entries = vec![blank(2, 0), entry(2, 1, claim(1, "a"))];
    entries.extend((2..11).map(|index| blank(2, index)));
    opened.log.blocking_append(entries.clone()).await.expect("append");
    apply(&mut opened.state_machine, entries[..2].to_vec()).await;
    opened.log.purge(id(2, 0)).await.expect("purge");
    opened
}
