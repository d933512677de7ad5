//! The vote in a file of its own, so that a vote survives even where sled's log was cut. Replaced,
//! never changed in place: temp, fsync, rename, fsync of the directory. It is written after the vote
//! is durable in sled and before the vote is acknowledged, so it may lag behind sled by one crash and
//! can never be ahead.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message;

use super::StoreError;
use crate::wire::{Vote, decode, proto};

const MAGIC: &[u8; 8] = b"BTNVOTE1";

pub(super) struct VoteFile {
    path: PathBuf,
}

impl VoteFile {
    pub(super) fn in_dir(dir: &Path) -> Self {
        VoteFile { path: dir.join("vote") }
    }

    /// `None` when there is no file; `Some(None)` when it says that there was no vote yet.
    ///
    /// # Errors
    /// `Damaged` when its form or its checksum is wrong.
    pub(super) fn read(&self) -> Result<Option<Option<Vote>>, StoreError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", &self.path, error)),
        };
        let ballot = unseal(&bytes).ok_or_else(|| {
            self.damaged(format!("{} ({} bytes) fails its checksum", self.path.display(), bytes.len()))
        })?;
        if ballot.is_empty() {
            return Ok(Some(None));
        }
        let vote = decode::<proto::Ballot>("Ballot", ballot).and_then(Vote::try_from);
        vote.map(|vote| Some(Some(vote))).map_err(|error| self.damaged(format!("{}: {error}", self.path.display())))
    }

    /// The new vote is in the file for good when this returns; before, the old one is.
    pub(super) fn write(&self, vote: Option<&Vote>) -> io::Result<()> {
        let ballot = vote.map(|vote| proto::Ballot::from(vote).encode_to_vec()).unwrap_or_default();
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&ballot);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        let temp = self.path.with_extension("new");
        let mut file = File::create(&temp)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temp, &self.path)?;
        sync_parent(&self.path)
    }

    /// The vote that holds, given the one in this file and the one in sled. They differ only when a
    /// crash came between the two writes, and then sled has the newer one: nobody was told of it, and
    /// to keep a vote that nobody counted is always safe.
    ///
    /// # Errors
    /// When this file is ahead: sled lost a vote, and with it maybe more.
    pub(super) fn reconcile(&self, file: Option<Vote>, sled: Option<Vote>) -> Result<Option<Vote>, StoreError> {
        match file.partial_cmp(&sled) {
            Some(Ordering::Equal | Ordering::Less) => Ok(sled),
            Some(Ordering::Greater) | None => Err(self.damaged(format!(
                "{} says that it voted {}, the database says {}",
                self.path.display(),
                shown(&file),
                shown(&sled)
            ))),
        }
    }

    fn damaged(&self, reason: String) -> StoreError {
        StoreError::Damaged { dir: self.path.parent().unwrap_or(&self.path).to_path_buf(), reason }
    }
}

fn shown(vote: &Option<Vote>) -> String {
    vote.as_ref().map_or("never".to_string(), Vote::to_string)
}

/// What stands between magic and checksum, if both are right.
fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    let right = crc32fast::hash(body) == u32::from_le_bytes(*checksum);
    body.strip_prefix(MAGIC).filter(|_| right)
}

/// Makes the directory entry of `path` durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
