//! The vote in a file of its own, so that a vote survives even where sled's log was cut. Replaced,
//! never changed in place: temp, fsync, rename, fsync of the directory. It is written after the vote
//! is durable in sled, and nobody waits for it: so it may lag behind sled, and can never be ahead.
//! What that means for a crash is told in `mod.rs`.

use std::cmp::Ordering;
use std::io;
use std::path::Path;

use prost::Message;

use super::sealed_file::SealedFile;
use super::{BeforeSync, StoreError};
use crate::cluster::wire::{Vote, decode, proto};

const MAGIC: &[u8; 8] = b"BTNVOTE1";

pub(super) struct VoteFile {
    file: SealedFile,
}

impl VoteFile {
    pub(super) fn in_dir(dir: &Path, before_sync: BeforeSync) -> Self {
        VoteFile { file: SealedFile::new(dir.join("vote"), MAGIC).observed(before_sync) }
    }

    /// `None` when there is no file; `Some(None)` when it says that there was no vote yet.
    ///
    /// # Errors
    /// `Damaged` when its form or its checksum is wrong.
    pub(super) fn read(&self) -> Result<Option<Option<Vote>>, StoreError> {
        let ballot = match self.file.read() {
            Ok(Some(ballot)) => ballot,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(self.damaged(error.to_string())),
            Err(error) => return Err(StoreError::io("read", self.file.path(), error)),
        };
        if ballot.is_empty() {
            return Ok(Some(None));
        }
        let vote = decode::<proto::Ballot>("Ballot", &ballot).and_then(Vote::try_from);
        vote.map(|vote| Some(Some(vote)))
            .map_err(|error| self.damaged(format!("{}: {error}", self.file.path().display())))
    }

    /// The new vote is in the file for good when this returns; before, the old one is.
    pub(super) fn write(&self, vote: Option<&Vote>) -> io::Result<()> {
        let ballot = vote.map(|vote| proto::Ballot::from(vote).encode_to_vec()).unwrap_or_default();
        self.file.write(&ballot)
    }

    /// The vote that holds, given the one in this file and the one in sled. They differ when a crash came
    /// between the two writes, or when a vote was won, which this file is not told; then sled has the newer one.
    ///
    /// # Errors
    /// When this file is ahead: sled lost a vote, and with it maybe more.
    pub(super) fn reconcile(&self, file: Option<Vote>, sled: Option<Vote>) -> Result<Option<Vote>, StoreError> {
        match file.partial_cmp(&sled) {
            Some(Ordering::Equal | Ordering::Less) => Ok(sled),
            Some(Ordering::Greater) | None => Err(self.damaged(format!(
                "{} says that it voted {}, the database says {}",
                self.file.path().display(),
                shown(&file),
                shown(&sled)
            ))),
        }
    }

    fn damaged(&self, reason: String) -> StoreError {
        let path = self.file.path();
        StoreError::Damaged { dir: path.parent().unwrap_or(path).to_path_buf(), reason }
    }
}

fn shown(vote: &Option<Vote>) -> String {
    vote.as_ref().map_or("never".to_string(), Vote::to_string)
}
