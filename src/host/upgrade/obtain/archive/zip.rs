//! Zip, by the directory at its end; entries are stored or deflated.

use std::fs::File;
use std::io::{self, BufReader};

use zip::ZipArchive;

use super::meter::{Meter, Stop};
use super::pick::{Kind, Pick};

/// What a Unix mode says of an entry's kind.
const KIND_BITS: u32 = 0o170_000;

pub(super) fn unpack(file: File, mut pick: Pick, meter: &Meter<'_, '_>) -> Result<(), Stop> {
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    for index in 0..archive.len() {
        let (name, kind) = {
            let entry = archive.by_index_raw(index).map_err(broken)?;
            (entry.name_raw().to_owned(), entry.unix_mode().unwrap_or_default() & KIND_BITS)
        };
        let mut link = Vec::new();
        let kind = match kind {
            0o120_000 => {
                let entry = archive.by_index(index).map_err(broken)?;
                io::Read::read_to_end(&mut io::Read::take(meter.reading(entry), 4096), &mut link)?;
                Kind::Symlink(&link)
            }
            0o040_000 => Kind::Directory,
            0 | 0o100_000 if name.ends_with(b"/") => Kind::Directory,
            0 | 0o100_000 => Kind::File,
            _ => Kind::Other,
        };
        if let Some(rank) = pick.look(&name, kind)? {
            let entry = archive.by_index(index).map_err(broken)?;
            pick.take(rank, &mut meter.reading(entry))?;
        }
    }
    pick.end()
}

fn broken(error: zip::result::ZipError) -> Stop {
    Stop::Io(io::Error::other(error))
}
