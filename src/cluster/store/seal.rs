//! A small file that says how many groups of writes the store has acknowledged. sled counts the same
//! inside its batches; when it comes up with fewer, its log was cut where it must not have been.
//!
//! Two slots, written in turn and in place, so that one is always whole. Not fsynced: an old seal
//! only proves less (what the kernel had not written back when the power went), and a second fsync
//! for every group would double the time of a handover's commits. A killed process loses nothing of
//! it, and a file that was truncated, restored or overwritten is found out.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::sealed_file::sync_parent;

const MAGIC: &[u8; 8] = b"BTNSEAL1";
const SLOT_BYTES: usize = 20;
/// Slots lie in different blocks, so that a torn write touches one of them.
const SLOT_DISTANCE: u64 = 4096;

pub(super) struct Seal {
    file: File,
}

impl Seal {
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join("seal")
    }

    /// A new seal, durable, that vouches for `groups`.
    pub(super) fn create(dir: &Path, groups: u64) -> io::Result<Self> {
        let path = Seal::path(dir);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        let seal = Seal { file };
        seal.write_slot(0, groups)?;
        seal.write_slot(1, groups)?;
        seal.file.sync_all()?;
        sync_parent(&path)?;
        Ok(seal)
    }

    /// The seal with the highest number in it; `None` when there is no file.
    ///
    /// # Errors
    /// `InvalidData` when neither slot is whole.
    pub(super) fn open(dir: &Path) -> io::Result<Option<(Self, u64)>> {
        let file = match OpenOptions::new().read(true).write(true).open(Seal::path(dir)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let groups = (0..2).filter_map(|slot| read_slot(&file, slot)).max();
        match groups {
            Some(groups) => Ok(Some((Seal { file }, groups))),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "neither of its two slots is whole")),
        }
    }

    pub(super) fn write(&self, groups: u64) -> io::Result<()> {
        self.write_slot(groups, groups)
    }

    fn write_slot(&self, slot: u64, groups: u64) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&groups.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        self.file.write_all_at(&bytes, slot % 2 * SLOT_DISTANCE)
    }
}

fn read_slot(file: &File, slot: u64) -> Option<u64> {
    let mut bytes = [0; SLOT_BYTES];
    file.read_exact_at(&mut bytes, slot * SLOT_DISTANCE).ok()?;
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    let groups = body.strip_prefix(MAGIC)?.first_chunk::<8>()?;
    (crc32fast::hash(body) == u32::from_le_bytes(*checksum)).then(|| u64::from_le_bytes(*groups))
}
