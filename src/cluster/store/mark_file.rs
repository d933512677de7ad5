//! The highest mark of the shared key that gossip has told of, kept over restarts for `on_halt =
//! "replica"`. Soft state beside the store: nothing in Raft depends on it, so it has a file of its own,
//! off the path of Raft's writes. `coordinator` reads it at start and raises it at a bounded rate.

use std::path::Path;

use prost::Message;

use super::StoreError;
use super::sealed_file::SealedFile;
use crate::base::ids::SignMark;
use crate::cluster::wire::{decode, proto};

const MAGIC: &[u8; 8] = b"BTNMARK1";
const APPROVALS_MAGIC: &[u8; 8] = b"BTNAPPR1";

/// Their directory is the store's; nobody else writes the files.
pub struct MarkFile {
    file: SealedFile,
    /// For a mark with approvals. A file of its own: a version that does not know of them would read the height alone.
    approvals: SealedFile,
    kept: Option<SignMark>,
}

impl MarkFile {
    /// The files of `state_dir`, and what is wrong with them. A file that cannot be read counts as no
    /// mark, never as a lower one than it held: a holder without a mark waits.
    pub fn open(state_dir: &Path) -> (MarkFile, Option<StoreError>) {
        let file = SealedFile::new(state_dir.join("mark"), MAGIC);
        let approvals = SealedFile::new(state_dir.join("approvals"), APPROVALS_MAGIC);
        let (kept, error) = match read(&file).and_then(|kept| Ok(SignMark::of_both(kept, read(&approvals)?))) {
            Ok(kept) => (kept, None),
            Err(error) => (None, Some(error)),
        };
        (MarkFile { file, approvals, kept }, error)
    }

    /// The mark in the file.
    pub fn kept(&self) -> Option<SignMark> {
        self.kept
    }

    /// What is kept covers `mark`, for good.
    ///
    /// # Errors
    /// It holds what it held before; try again later.
    pub fn raise(&mut self, mark: SignMark) -> Result<(), StoreError> {
        if !SignMark::is_news(Some(mark), self.kept) {
            return Ok(());
        }
        let mark = self.kept.map_or(mark, |kept| kept.with(mark));
        let file = if mark.approved == 0 { &self.file } else { &self.approvals };
        let body = proto::SignMark::from(mark).encode_to_vec();
        file.write(&body).map_err(|error| StoreError::io("replace", file.path(), error))?;
        self.kept = Some(mark);
        Ok(())
    }
}

fn read(file: &SealedFile) -> Result<Option<SignMark>, StoreError> {
    let failed = |error: String| StoreError::io("read", file.path(), error);
    let Some(body) = file.read().map_err(|error| failed(error.to_string()))? else { return Ok(None) };
    let mark = decode::<proto::SignMark>("SignMark", &body).map_err(|error| failed(error.to_string()))?;
    Ok(Some(mark.into()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn mark(height: u64, round: u32) -> SignMark {
        SignMark::at_step(height, round, 1)
    }

    #[test]
    fn approvals_are_kept_where_no_version_that_does_not_know_of_them_looks() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, _) = MarkFile::open(dir.path());
        for (head, approved) in [(10, 11), (9, 14), (8, 8)] {
            file.raise(SignMark::of_approvals(head, approved)).unwrap();
        }
        let both = Some(SignMark::of_approvals(10, 14));
        assert_eq!((file.kept(), MarkFile::open(dir.path()).0.kept()), (both, both));
        assert!(!dir.path().join("mark").exists());
    }

    #[test]
    fn the_highest_mark_outlives_a_restart_and_is_never_lowered() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, error) = MarkFile::open(dir.path());
        assert!(file.kept().is_none() && error.is_none(), "{error:?}");
        for raised in [mark(7, 0), mark(9, 2), mark(9, 1), mark(8, 5)] {
            file.raise(raised).unwrap();
        }
        assert_eq!(file.kept(), Some(mark(9, 2)));
        let (file, error) = MarkFile::open(dir.path());
        assert!(error.is_none(), "{error:?}");
        assert_eq!(file.kept(), Some(mark(9, 2)));
    }

    #[test]
    fn a_torn_file_is_named_and_counts_as_no_mark_wherever_it_was_cut_or_changed() {
        let dir = tempfile::tempdir().unwrap();
        MarkFile::open(dir.path()).0.raise(mark(300, 2)).unwrap();
        let path = dir.path().join("mark");
        let whole = fs::read(&path).unwrap();
        let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
        let changed = (0..whole.len()).map(|at| whole.iter().enumerate().map(|(i, b)| b ^ u8::from(i == at)).collect());
        for torn in cut.chain(changed) {
            fs::write(&path, &torn).unwrap();
            let (file, error) = MarkFile::open(dir.path());
            let error = error.unwrap_or_else(|| panic!("{torn:?} was read as {:?}", file.kept())).to_string();
            assert!(error.contains("checksum") && error.contains("mark"), "{error}");
            assert_eq!(file.kept(), None, "{torn:?}");
        }
        let (mut file, _) = MarkFile::open(dir.path());
        file.raise(mark(301, 0)).unwrap();
        assert_eq!(MarkFile::open(dir.path()).0.kept(), Some(mark(301, 0)), "a whole file takes its place");
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_mark_that_was_there() {
        let dir = tempfile::tempdir().unwrap();
        MarkFile::open(dir.path()).0.raise(mark(5, 0)).unwrap();
        fs::write(dir.path().join("mark.new"), b"BTNM").unwrap();
        let (mut file, error) = MarkFile::open(dir.path());
        assert!(error.is_none(), "{error:?}");
        assert_eq!(file.kept(), Some(mark(5, 0)));
        file.raise(mark(6, 0)).unwrap();
    }
}
