//! The binary out of what was downloaded: an archive, a compressed file, or the binary itself, told apart by content.
//! No path is ever made from a name in an archive: only the one entry that is the binary is written, to a file of our
//! own. An archive with names or links that lead out of it is refused all the same, since nobody makes such by mistake.

mod meter;
mod pick;
mod tar;
mod zip;

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::watch::Watch;
use super::{ObtainError, at};
use meter::{Meter, Stop};
use pick::Pick;

const BLOCK: usize = 512;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{of} cannot be unpacked: {reason}; check that it is a whole tar.gz or zip")]
    Broken { of: String, reason: String },
    #[error(
        "{of} is {what}, which is not unpacked here; make it a tar.gz or a zip, or put the binary in its place by hand"
    )]
    Unknown { of: String, what: &'static str },
    #[error("{of} unpacks to more than the {bytes_max} bytes that upgrade.download_max_mib allows")]
    TooLarge { of: String, bytes_max: u64 },
    #[error("{of} has more than {max} entries; that is no archive of a binary")]
    TooMany { of: String, max: u64 },
    #[error("{of} is refused: its entry {entry:?} {why}")]
    Refused { of: String, entry: String, why: &'static str },
    #[error("{of} has no bin/{name}, no {name} and not one file alone, but {has}; put the binary in its place by hand")]
    NoBinary { of: String, name: String, has: String },
}

/// Writes the binary in the file `from` to `into`. `of` says where it is from, for errors.
pub(super) fn unpack(
    from: &Path,
    into: File,
    name: &str,
    of: &str,
    bytes_max: u64,
    watch: &mut Watch<'_>,
) -> Result<(), ObtainError> {
    let meter = Meter::new(bytes_max, watch);
    let pick = Pick::new(name, into);
    let mut file = File::open(from).map_err(at("read", from))?;
    let head = head_of(&mut file).map_err(at("read", from))?;
    file.rewind().map_err(at("read", from))?;
    let unpacked = match Form::of(&head) {
        Form::Zip => zip::unpack(file, pick, &meter),
        Form::Gzip => gzip(file, pick, &meter),
        Form::Tar => tar::unpack(meter.reading(file), pick),
        Form::Bare => pick.all(meter.reading(file)),
        Form::Unknown(what) => return Err(ArchiveError::Unknown { of: of.to_owned(), what }.into()),
    };
    unpacked.map_err(|stop| stop.into_error(of, name, &meter))
}

enum Form {
    Zip,
    Gzip,
    Tar,
    Bare,
    Unknown(&'static str),
}

impl Form {
    fn of(head: &[u8]) -> Form {
        match head {
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Form::Zip,
            [0x1f, 0x8b, ..] => Form::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Form::Unknown("compressed with bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Form::Unknown("compressed with xz"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Form::Unknown("compressed with zstd"),
            head if is_tar(head) => Form::Tar,
            _ => Form::Bare,
        }
    }
}

fn gzip(file: File, pick: Pick, meter: &Meter<'_, '_>) -> Result<(), Stop> {
    let mut plain = meter.reading(MultiGzDecoder::new(BufReader::new(file)));
    let head = head_of(&mut plain)?;
    let is_tar = is_tar(&head);
    let plain = Cursor::new(head).chain(plain);
    if is_tar { tar::unpack(plain, pick) } else { pick.all(plain) }
}

fn head_of(file: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(BLOCK);
    file.take(BLOCK as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// By the sum over a tar's first header, which its oldest form has as well.
fn is_tar(head: &[u8]) -> bool {
    const SUM: std::ops::Range<usize> = 148..156;
    let Ok(block) = <&[u8; BLOCK]>::try_from(head) else { return false };
    let digits = String::from_utf8_lossy(&block[SUM]);
    let digits = digits.trim_matches(|c: char| c == ' ' || c == '\0');
    let sum: u32 =
        block.iter().enumerate().map(|(at, byte)| if SUM.contains(&at) { 32 } else { u32::from(*byte) }).sum();
    u32::from_str_radix(digits, 8) == Ok(sum)
}
