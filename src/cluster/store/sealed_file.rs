//! A small file with a checksum, replaced as a whole and never changed in place: temp, fsync, rename, fsync
//! of the directory. Vote and mark are kept in one each; what stands in them is their business.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::BeforeSync;

const MAGIC_BYTES: usize = 8;

pub(super) struct SealedFile {
    path: PathBuf,
    magic: &'static [u8; MAGIC_BYTES],
    before_sync: Option<BeforeSync>,
}

impl SealedFile {
    pub(super) fn new(path: PathBuf, magic: &'static [u8; MAGIC_BYTES]) -> Self {
        SealedFile { path, magic, before_sync: None }
    }

    /// The same, where `before_sync` is told of every sync first.
    pub(super) fn observed(self, before_sync: BeforeSync) -> Self {
        SealedFile { before_sync: Some(before_sync), ..self }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What was written last; `None` when there is no file.
    ///
    /// # Errors
    /// `InvalidData` when its form or its checksum is wrong.
    pub(super) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match self.unseal(&bytes) {
            Some(body) => Ok(Some(body.to_vec())),
            None => {
                let reason = format!("{} ({} bytes) fails its checksum", self.path.display(), bytes.len());
                Err(io::Error::new(io::ErrorKind::InvalidData, reason))
            }
        }
    }

    /// `body` is in the file for good when this returns; before, and on an error, what was there is.
    pub(super) fn write(&self, body: &[u8]) -> io::Result<()> {
        let mut bytes = self.magic.to_vec();
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        let temp = self.path.with_extension("new");
        let mut file = File::create(&temp)?;
        file.write_all(&bytes)?;
        self.tell_of_sync()?;
        file.sync_all()?;
        fs::rename(&temp, &self.path)?;
        self.tell_of_sync()?;
        sync_parent(&self.path)
    }

    fn tell_of_sync(&self) -> io::Result<()> {
        self.before_sync.as_ref().map_or(Ok(()), |before_sync| before_sync(&self.path))
    }

    /// What stands between magic and checksum, if both are right.
    fn unseal<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (body, checksum) = bytes.split_last_chunk::<4>()?;
        let right = crc32fast::hash(body) == u32::from_le_bytes(*checksum);
        body.strip_prefix(self.magic).filter(|_| right)
    }
}

/// Makes the directory entry of `path` durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
