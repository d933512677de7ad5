//! Tar, header by header. Long names are read here and not by the library, which would take one of any length into
//! memory.

use std::io::{self, Read};

use tar::{Archive, EntryType, PaxExtensions};

use super::meter::Stop;
use super::pick::{Kind, Pick};

/// Longest name, and longest extensions of a header.
const EXTENSION_BYTES_MAX: u64 = 64 << 10;

/// What extensions say of the entry that follows them.
#[derive(Default)]
struct Said {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

pub(super) fn unpack(plain: impl Read, mut pick: Pick) -> Result<(), Stop> {
    let mut archive = Archive::new(plain);
    let mut said = Said::default();
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => said.name = Some(text_of(&mut entry)?),
            EntryType::GNULongLink => said.link = Some(text_of(&mut entry)?),
            EntryType::XHeader => said.extend(&extension(&mut entry)?)?,
            EntryType::XGlobalHeader => {}
            _ => {
                let Said { name, link } = std::mem::take(&mut said);
                let name = name.unwrap_or_else(|| entry.path_bytes().into_owned());
                let link = link.or_else(|| entry.link_name_bytes().map(|link| link.into_owned())).unwrap_or_default();
                let kind = match kind {
                    // The oldest tars have no kind for a directory.
                    EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => Kind::Directory,
                    EntryType::Regular | EntryType::Continuous => Kind::File,
                    EntryType::Directory => Kind::Directory,
                    EntryType::Symlink => Kind::Symlink(&link),
                    EntryType::Link => Kind::HardLink(&link),
                    _ => Kind::Other,
                };
                if let Some(rank) = pick.look(&name, kind)? {
                    pick.take(rank, &mut entry)?;
                }
            }
        }
    }
    pick.end()
}

impl Said {
    fn extend(&mut self, extension: &[u8]) -> Result<(), Stop> {
        for said in PaxExtensions::new(extension) {
            let said = said?;
            match said.key_bytes() {
                b"path" => self.name = Some(said.value_bytes().to_owned()),
                b"linkpath" => self.link = Some(said.value_bytes().to_owned()),
                // Bytes would be read that are others than the header says.
                b"size" => return Err(Stop::Io(io::Error::other("an entry has its size in an extension"))),
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(Stop::Io(io::Error::other("an entry is sparse")));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn text_of(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut text = extension(entry)?;
    while text.last() == Some(&0) {
        text.pop();
    }
    Ok(text)
}

fn extension(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(EXTENSION_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > EXTENSION_BYTES_MAX {
        return Err(io::Error::other(format!("an entry has a name of more than {EXTENSION_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}
