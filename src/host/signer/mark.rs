//! The signer's mark: the last place that was signed or reserved, and the content there. It stands in a small file with
//! a checksum, replaced as a whole and never changed in place: temp, fsync, rename, fsync of the directory.
//!
//! Invariant: a mark never goes back, and is on the disk before anybody hears of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use prost::Message;
use rustix::fs::{FlockOperation, flock};

use super::frames::proto;
use crate::base::signing::{Hrs, SignDigest};

const MAGIC: &[u8; 8] = b"BTNSIGN1";

/// Is told of every sync before it happens, with the file that is to be there afterwards; an error fails the sync.
pub type BeforeSync = Box<dyn Fn(&Path) -> io::Result<()>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// `None` until something on a chain was reserved.
    pub chain: Option<String>,
    pub place: Hrs,
    /// `None` when only the place is known: then nothing is signed there again.
    pub digest: Option<SignDigest>,
}

#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    #[error("another signer uses the mark in {path}; end that one first")]
    Taken { path: PathBuf },
    #[error("{operation} the mark in {path}: {source}")]
    Os { operation: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the mark in {path} ({bytes} bytes) fails its checksum; nothing is signed without it: move the file away and \
         import a mark above all that this validator has signed"
    )]
    Torn { path: PathBuf, bytes: usize },
}

/// One signer at a time uses it.
pub struct MarkFile {
    path: PathBuf,
    kept: Option<Mark>,
    before_sync: Option<BeforeSync>,
    /// Held as long as we live.
    _lock: File,
}

impl MarkFile {
    /// The mark in `path`, in a directory that is there; without a file there is none.
    ///
    /// # Errors
    /// Another signer has it, or it cannot be read as it was written. It is never taken for none then.
    pub fn open(path: &Path) -> Result<MarkFile, MarkError> {
        let failed = |operation| move |source| MarkError::Os { operation, path: path.to_owned(), source };
        let lock_path = path.with_added_extension("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock_path);
        let lock = lock.map_err(failed("lock"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(MarkError::Taken { path: path.to_owned() }),
            Err(error) => return Err(failed("lock")(error.into())),
        }
        let kept = match fs::read(path) {
            Ok(bytes) => {
                let torn = || MarkError::Torn { path: path.to_owned(), bytes: bytes.len() };
                Some(unseal(&bytes).ok_or_else(torn)?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read")(error)),
        };
        Ok(MarkFile { path: path.to_owned(), kept, before_sync: None, _lock: lock })
    }

    /// The same, where `before_sync` is told of every sync first.
    pub fn observed(self, before_sync: BeforeSync) -> MarkFile {
        MarkFile { before_sync: Some(before_sync), ..self }
    }

    /// The mark in the file.
    pub fn kept(&self) -> Option<&Mark> {
        self.kept.as_ref()
    }

    /// `mark`, which is above what is kept, is on the disk when this returns.
    ///
    /// # Errors
    /// What was kept still counts, and nobody may act on `mark`. The file has the one or the other.
    pub fn advance(&mut self, mark: Mark) -> Result<(), MarkError> {
        assert!(self.kept.as_ref().is_none_or(|kept| kept.place < mark.place), "the mark would not move up");
        let path = &self.path;
        let failed = |operation| move |source| MarkError::Os { operation, path: path.clone(), source };
        let temp = self.path.with_added_extension("new");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temp);
        let mut file = file.map_err(failed("write"))?;
        file.write_all(&seal(&mark)).map_err(failed("write"))?;
        self.tell_of_sync().and_then(|()| file.sync_all()).map_err(failed("sync"))?;
        fs::rename(&temp, &self.path).map_err(failed("replace"))?;
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = self.tell_of_sync().and_then(|()| File::open(directory)?.sync_all());
        synced.map_err(failed("sync the directory of"))?;
        self.kept = Some(mark);
        Ok(())
    }

    fn tell_of_sync(&self) -> io::Result<()> {
        self.before_sync.as_ref().map_or(Ok(()), |before_sync| before_sync(&self.path))
    }
}

fn seal(mark: &Mark) -> Vec<u8> {
    let stored = proto::StoredMark {
        chain: mark.chain.clone(),
        place: Some(mark.place.into()),
        digest: mark.digest.map(|digest| digest.0.to_vec()),
    };
    let mut bytes = MAGIC.to_vec();
    bytes.extend(stored.encode_to_vec());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// The mark, if all of it is as it was written.
fn unseal(bytes: &[u8]) -> Option<Mark> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let stored = proto::StoredMark::decode(body.strip_prefix(MAGIC)?).ok()?;
    let digest = match stored.digest {
        Some(digest) => Some(SignDigest(digest.try_into().ok()?)),
        None => None,
    };
    Some(Mark { chain: stored.chain, place: stored.place?.into(), digest })
}

impl From<Hrs> for proto::Place {
    fn from(Hrs { height, round, step }: Hrs) -> proto::Place {
        proto::Place { height, round, step }
    }
}

impl From<proto::Place> for Hrs {
    fn from(proto::Place { height, round, step }: proto::Place) -> Hrs {
        Hrs { height, round, step }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(height: u64) -> Mark {
        let place = Hrs::new(height, 1, Hrs::PREVOTE);
        Mark { chain: Some("c-1".into()), place, digest: Some(SignDigest([7; 32])) }
    }

    #[test]
    fn the_mark_outlives_its_signer_and_one_signer_has_it_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        let mut file = MarkFile::open(&path).unwrap();
        assert_eq!(file.kept(), None);
        file.advance(Mark { chain: None, place: Hrs::default(), digest: None }).unwrap();
        file.advance(mark(3)).unwrap();
        let taken = MarkFile::open(&path).map(|_| ()).unwrap_err();
        assert!(matches!(taken, MarkError::Taken { .. }), "{taken}");
        drop(file);
        assert_eq!(MarkFile::open(&path).unwrap().kept(), Some(&mark(3)));
    }

    #[test]
    fn a_torn_file_is_named_and_never_taken_for_none_wherever_it_was_cut_or_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        MarkFile::open(&path).unwrap().advance(mark(300)).unwrap();
        let whole = fs::read(&path).unwrap();
        let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
        let changed = (0..whole.len()).map(|at| whole.iter().enumerate().map(|(i, b)| b ^ u8::from(i == at)).collect());
        for torn in cut.chain(changed) {
            fs::write(&path, &torn).unwrap();
            let error = MarkFile::open(&path).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("checksum") && error.contains(&path.display().to_string()), "{error}");
        }
    }

    #[test]
    fn a_sync_that_fails_leaves_the_mark_where_it_was() {
        for failing in [0, 1] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("mark");
            MarkFile::open(&path).unwrap().advance(mark(3)).unwrap();
            let count = std::cell::Cell::new(0);
            let fail_one = move |_: &Path| {
                count.set(count.get() + 1);
                if count.get() == failing + 1 { Err(io::Error::other("no sync")) } else { Ok(()) }
            };
            let mut file = MarkFile::open(&path).unwrap().observed(Box::new(fail_one));
            let error = file.advance(mark(4)).unwrap_err().to_string();
            assert!(error.contains("no sync") && error.contains("mark"), "{error}");
            assert_eq!(file.kept(), Some(&mark(3)), "sync {failing}");
            file.advance(mark(4)).unwrap();
            drop(file);
            assert_eq!(MarkFile::open(&path).unwrap().kept(), Some(&mark(4)));
        }
    }
}
