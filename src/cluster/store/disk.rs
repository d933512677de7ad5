//! The files of the store: sled's, the vote file and the seal. Opens them, checks that they fit
//! together, and commits one group of writes with one sync. Used by `Store::open` and then by the writer alone.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use prost::Message;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sled::IVec;

use super::seal::Seal;
use super::sealed_file::sync_parent;
use super::vote_file::VoteFile;
use super::{AppliedState, BeforeSync, FORMAT, LogImage, StoreError, VALUE_BYTES_MAX};
use crate::base::ids::NodeId;
use crate::cluster::wire::{LogId, Vote, WireError, decode, proto, read_entry};

pub(super) type Key = IVec;

const IDENTITY: &[u8] = b"identity";
/// Number of groups committed, this one included.
const GROUPS: &[u8] = b"groups";
/// Stands in the store of a member that joined a cluster instead of forming it.
pub(super) const JOINED: &[u8] = b"joined";
const VOTE: &[u8] = b"vote";
pub(super) const PURGED: &[u8] = b"purged";
pub(super) const APPLIED: &[u8] = b"applied";
/// Before the index of a log entry, in big-endian bytes.
const ENTRY: &[u8] = b"log/";

/// sled's page cache. The whole store is smaller; the log is kept in memory by ourselves.
const CACHE_BYTES: u64 = 2 * 1024 * 1024;

pub(super) fn entry_key(index: u64) -> Key {
    [ENTRY, &index.to_be_bytes()].concat().into()
}

/// What was found.
pub(super) struct Contents {
    pub(super) incarnation: u64,
    pub(super) joined: bool,
    pub(super) log: LogImage,
    pub(super) applied: AppliedState,
    /// It has the vote of `log`.
    pub(super) vote_file: VoteFile,
}

pub(super) struct Disk {
    db: sled::Db,
    /// The file that holds all of sled's data, for `fdatasync`.
    data: File,
    before_sync: BeforeSync,
    data_path: PathBuf,
    seal: Seal,
    groups: u64,
    /// Held as long as the store is open. Last, so that it is let go of last.
    _lock: File,
}

impl Disk {
    pub(super) fn open(
        state_dir: &Path,
        cluster: &str,
        member: &NodeId,
        before_sync: BeforeSync,
    ) -> Result<(Disk, Contents), StoreError> {
        fs::create_dir_all(state_dir).map_err(|error| StoreError::io("create", state_dir, error))?;
        let dir = state_dir.join("store");
        let lock = take_lock(state_dir, &dir)?;
        let files = Files { dir, cluster, member, before_sync: &before_sync };
        // sled panics on some kinds of damage.
        match catch_unwind(AssertUnwindSafe(|| {
            files.make_if_missing()?;
            files.open(lock)
        })) {
            Ok(result) => result,
            Err(panic) => Err(files.damaged(format!("the database panicked: {}", panic_text(&*panic)))),
        }
    }

    /// Makes `changes` and the vote durable, all or none. After an error it is unknown whether they reached the disk,
    /// so nothing may be written any more.
    pub(super) fn commit<'a>(
        &mut self,
        changes: impl Iterator<Item = &'a (Key, Option<Vec<u8>>)>,
        vote: Option<&Vote>,
    ) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) if value.len() > VALUE_BYTES_MAX => {
                    return Err(io::Error::other(format!(
                        "a value of {} bytes; the store takes {VALUE_BYTES_MAX}",
                        value.len()
                    )));
                }
                Some(value) => batch.insert(key, value.as_slice()),
                None => batch.remove(key),
            }
        }
        if let Some(vote) = vote {
            batch.insert(VOTE, proto::Ballot::from(vote).encode_to_vec());
        }
        self.groups += 1;
        batch.insert(GROUPS, &self.groups.to_be_bytes());
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        (self.before_sync)(&self.data_path)?;
        self.data.sync_data()?;
        self.seal.write(self.groups)
    }
}

/// For sled to close a database that this process had open before.
const CLOSING_MAX: Duration = Duration::from_secs(5);
const CLOSING_LOOK_EVERY: Duration = Duration::from_millis(10);

/// Only one process may use a state directory.
fn take_lock(state_dir: &Path, dir: &Path) -> Result<File, StoreError> {
    let path = state_dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|error| StoreError::io("open", &path, error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(StoreError::InUse { dir: dir.to_path_buf(), lock: path }),
        Err(error) => Err(StoreError::io("lock", &path, error)),
    }
}

/// What a panic said, for a report.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_string())
}

/// A store that is being opened.
struct Files<'a> {
    dir: PathBuf,
    cluster: &'a str,
    member: &'a NodeId,
    before_sync: &'a BeforeSync,
}

impl Files<'_> {
    fn open(&self, lock: File) -> Result<(Disk, Contents), StoreError> {
        let cleaned = self.remove_unfinished_page_tables();
        cleaned.map_err(|error| StoreError::io("remove the unfinished page tables in", &self.dir, error))?;
        let db = self.open_sled()?;
        let vote_file = VoteFile::in_dir(&self.dir, self.before_sync.clone());
        let voted = vote_file.read()?;
        let seal = Seal::open(&self.dir).map_err(|error| self.damaged(format!("seal: {error}")))?;
        let data_path = self.dir.join("db");
        let data = File::open(&data_path).map_err(|error| StoreError::io("open", &data_path, error))?;

        let known = self.get(&db, IDENTITY)?;
        let known = known.ok_or_else(|| self.damaged("its database is empty or nameless".to_string()))?;
        let incarnation = self.check_identity(&known)?;
        let voted = voted.ok_or_else(|| self.damaged("its vote file is missing".to_string()))?;
        let (seal, sealed) = seal.ok_or_else(|| self.damaged("its seal is missing".to_string()))?;
        let groups = self.groups(&db)?;
        if sealed > groups {
            return Err(self.damaged(format!("{sealed} groups of writes were acknowledged, the database has {groups}")));
        }

        let stored_vote = match self.get(&db, VOTE)? {
            Some(bytes) => Some(self.read(decode::<proto::Ballot>("Ballot", &bytes).and_then(Vote::try_from))?),
            None => None,
        };
        let vote = vote_file.reconcile(voted, stored_vote)?;
        vote_file.write(vote.as_ref()).map_err(|error| StoreError::io("write", &self.dir.join("vote"), error))?;
        let log = self.read_log(&db, vote)?;
        let applied = self.read_applied(&db)?;
        self.check_applied(&log, &applied)?;
        let joined = self.get(&db, JOINED)?.is_some();
        let disk = Disk { db, data, before_sync: self.before_sync.clone(), data_path, seal, groups, _lock: lock };
        Ok((disk, Contents { incarnation, joined, log, applied, vote_file }))
    }

    /// What an earlier opening that was cut short has left: sled would take its half-written page table for a
    /// whole one, and refuse it. It is renamed only when it is whole and on disk.
    fn remove_unfinished_page_tables(&self) -> io::Result<()> {
        for file in fs::read_dir(&self.dir)? {
            let file = file?;
            let name = file.file_name();
            if name.as_encoded_bytes().starts_with(b"snap.") && name.as_encoded_bytes().ends_with(b".generating") {
                fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }

    /// Opens sled and makes durable what opening it has changed.
    fn open_sled(&self) -> Result<sled::Db, StoreError> {
        let db = self.open_unlocked().map_err(|error| match error {
            sled::Error::Corruption { .. } => self.damaged("its database fails a checksum".to_string()),
            sled::Error::ReportableBug(_) => self.damaged(error.to_string()),
            sled::Error::Io(_) | sled::Error::Unsupported(_) | sled::Error::CollectionNotFound(_) => {
                StoreError::io("open the database in", &self.dir, error)
            }
        })?;
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        for path in [self.dir.join("conf"), self.dir.join("db"), self.dir.join("blobs"), self.dir.clone()] {
            sync(&path).map_err(|error| StoreError::io("fsync", &path, error))?;
        }
        // The state directory's own entries, and its own entry in its parent.
        let state_dir = self.dir.parent().unwrap_or(&self.dir);
        for path in [self.dir.as_path(), state_dir] {
            sync_parent(path).map_err(|error| StoreError::io("fsync the directory of", path, error))?;
        }
        Ok(db)
    }

    /// The state directory is locked by us, so whoever still holds sled's own lock is a database of this process:
    /// threads of sled's close it some time after it was dropped.
    fn open_unlocked(&self) -> sled::Result<sled::Db> {
        let config = sled::Config::new().path(&self.dir).flush_every_ms(None).cache_capacity(CACHE_BYTES);
        let mut waited = Duration::ZERO;
        loop {
            match config.open() {
                Err(sled::Error::Io(error))
                    if waited < CLOSING_MAX && error.to_string().contains("could not acquire lock") =>
                {
                    thread::sleep(CLOSING_LOOK_EVERY);
                    waited += CLOSING_LOOK_EVERY;
                }
                result => return result,
            }
        }
    }

    /// Makes a store where there is none. It gets its name once it is whole: a crash in the midst leaves one
    /// that was never opened, and the next start makes another.
    fn make_if_missing(&self) -> Result<(), StoreError> {
        let failed = |operation, path: &Path| {
            let path = path.to_path_buf();
            move |error: io::Error| StoreError::io(operation, &path, error)
        };
        match fs::read_dir(&self.dir).map(|mut files| files.next()) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look into", &self.dir)(error)),
        }
        let making = Files { dir: self.dir.with_extension("new"), ..*self };
        match fs::remove_dir_all(&making.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &making.dir)(error)),
            Ok(()) | Err(_) => {}
        }
        making.fill()?;
        fs::rename(&making.dir, &self.dir).map_err(failed("put in place", &making.dir))?;
        sync_parent(&self.dir).map_err(failed("fsync the directory of", &self.dir))
    }

    /// Makes the files of a new store, durable. The identity is the first group.
    fn fill(&self) -> Result<(), StoreError> {
        let db = self.open_sled()?;
        let identity = proto::StoreIdentity {
            format: FORMAT,
            cluster: self.cluster.to_string(),
            member: self.member.to_string(),
            incarnation: rand::random_range(1..=u64::MAX),
        };
        let mut batch = sled::Batch::default();
        batch.insert(IDENTITY, identity.encode_to_vec());
        batch.insert(GROUPS, &1_u64.to_be_bytes());
        let written = db.apply_batch(batch).and_then(|()| db.flush());
        written.map_err(|error| StoreError::io("write", &self.dir, error))?;
        let data = self.dir.join("db");
        let synced = File::open(&data).and_then(|file| file.sync_all());
        synced.map_err(|error| StoreError::io("fsync", &data, error))?;
        let vote = VoteFile::in_dir(&self.dir, self.before_sync.clone());
        vote.write(None).map_err(|error| StoreError::io("write", &self.dir.join("vote"), error))?;
        let seal = Seal::create(&self.dir, 1);
        seal.map(drop).map_err(|error| StoreError::io("create", &Seal::path(&self.dir), error))
    }

    fn check_identity(&self, bytes: &[u8]) -> Result<u64, StoreError> {
        let identity = self.read(decode::<proto::StoreIdentity>("StoreIdentity", bytes))?;
        if identity.format != FORMAT {
            return Err(StoreError::Format { dir: self.dir.clone(), found: identity.format });
        }
        if identity.cluster != self.cluster || identity.member != self.member.as_str() {
            return Err(StoreError::Foreign {
                dir: self.dir.clone(),
                cluster: identity.cluster,
                member: identity.member,
                our_cluster: self.cluster.to_string(),
                our_member: self.member.to_string(),
            });
        }
        Ok(identity.incarnation)
    }

    fn groups(&self, db: &sled::Db) -> Result<u64, StoreError> {
        let bytes = self.get(db, GROUPS)?;
        let number = bytes.and_then(|bytes| Some(u64::from_be_bytes(*bytes.first_chunk::<8>()?)));
        number.ok_or_else(|| self.damaged("it does not know how many groups of writes it has".to_string()))
    }

    /// The log, without a hole, from just behind what was purged.
    fn read_log(&self, db: &sled::Db, vote: Option<Vote>) -> Result<LogImage, StoreError> {
        let purged: Option<LogId> = match self.get(db, PURGED)? {
            Some(bytes) => Some(self.read(decode::<proto::LogId>("LogId", &bytes))?.into()),
            None => None,
        };
        let mut log = LogImage { entries: BTreeMap::new(), purged, vote };
        for item in db.scan_prefix(ENTRY) {
            let (key, bytes) = item.map_err(|error| self.damaged(error.to_string()))?;
            let entry = self.read(decode::<proto::Entry>("Entry", &bytes).and_then(read_entry))?;
            let (id, before) = (entry.log_id, log.last_id());
            let expected = before.map_or(0, |id| id.index + 1);
            if key != entry_key(id.index) || id.index != expected {
                return Err(self.damaged(format!("its log has {id} where index {expected} must stand")));
            }
            if before.is_some_and(|before| before.leader_id > id.leader_id) {
                return Err(self.damaged(format!("its log has {id} behind an entry of a later term")));
            }
            log.entries.insert(id.index, entry);
        }
        let voted = log.vote.as_ref().map_or(0, |vote| vote.leader_id.term);
        match log.last_id() {
            Some(last) if last.leader_id.term > voted => {
                Err(self.damaged(format!("its log ends with {last}, but it voted in term {voted} last")))
            }
            Some(_) | None => Ok(log),
        }
    }

    fn read_applied(&self, db: &sled::Db) -> Result<AppliedState, StoreError> {
        match self.get(db, APPLIED)? {
            Some(bytes) => self.read(decode::<proto::StoredState>("StoredState", &bytes).and_then(TryInto::try_into)),
            None => Ok(AppliedState::default()),
        }
    }

    /// What was applied is in the log or was purged from it; only another member's snapshot may be
    /// ahead, until the log goes on behind it.
    fn check_applied(&self, log: &LogImage, applied: &AppliedState) -> Result<(), StoreError> {
        let shown = |id: Option<LogId>| id.map_or("nothing".to_string(), |id| id.to_string());
        if log.purged > applied.last_applied {
            return Err(self.damaged(format!(
                "its log was purged up to {}, but {} was applied",
                shown(log.purged),
                shown(applied.last_applied)
            )));
        }
        if applied.last_applied > log.last_id() && !applied.from_snapshot {
            return Err(self.damaged(format!(
                "{} was applied, but its log ends with {}",
                shown(applied.last_applied),
                shown(log.last_id())
            )));
        }
        let Some(last) = applied.last_applied else { return Ok(()) };
        match log.entries.get(&last.index) {
            Some(entry) if entry.log_id != last && !applied.from_snapshot => {
                Err(self.damaged(format!("{last} was applied, but its log has {} there", entry.log_id)))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn get(&self, db: &sled::Db, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        db.get(key).map_err(|error| self.damaged(error.to_string()))
    }

    fn read<T>(&self, value: Result<T, WireError>) -> Result<T, StoreError> {
        value.map_err(|error| self.damaged(error.to_string()))
    }

    fn damaged(&self, reason: String) -> StoreError {
        StoreError::Damaged { dir: self.dir.clone(), reason }
    }
}
