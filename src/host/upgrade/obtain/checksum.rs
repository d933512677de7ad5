//! The checksum that a source has to have, as go-getter writes it: `sha256:HEX`, `sha512:HEX`, or the digits alone.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use ring::digest::{Algorithm, SHA256, SHA512};

use crate::host::upgrade::digest::read_blocks;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checksum {
    kind: Kind,
    /// Lower case.
    digits: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sha256,
    Sha512,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Sha256, Kind::Sha512];

    fn name(self) -> &'static str {
        match self {
            Kind::Sha256 => "sha256",
            Kind::Sha512 => "sha512",
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Kind::Sha256 => &SHA256,
            Kind::Sha512 => &SHA512,
        }
    }

    fn digits(self) -> usize {
        2 * self.algorithm().output_len()
    }
}

impl Checksum {
    /// # Errors
    /// What is wrong with `text`, and how to write it.
    pub(super) fn parse(text: &str) -> Result<Checksum, String> {
        let (kind, digits) = match text.split_once(':') {
            Some(("file", _)) => {
                return Err(
                    "checksum=file: is not followed, since the file would come over the network as well; write the \
                            checksum itself, as in checksum=sha256:HEX"
                        .to_owned(),
                );
            }
            Some((name, digits)) => match Kind::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name)) {
                Some(kind) => (kind, digits),
                None => {
                    return Err(format!(
                        "a checksum of the kind {name:?} is not taken; write checksum=sha256:HEX or sha512:HEX"
                    ));
                }
            },
            None => match Kind::ALL.into_iter().find(|kind| kind.digits() == text.len()) {
                Some(kind) => (kind, text),
                None => {
                    return Err(format!(
                        "the checksum has {} digits, where sha256 has 64 and sha512 has 128; write checksum=sha256:HEX",
                        text.chars().count()
                    ));
                }
            },
        };
        if digits.len() != kind.digits() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(format!(
                "the checksum after {}: is to be {} hexadecimal digits and is {digits:?}; write what `{}sum FILE` prints",
                kind.name(),
                kind.digits(),
                kind.name()
            ));
        }
        Ok(Checksum { kind, digits: digits.to_ascii_lowercase() })
    }

    /// What a file at `path` has in the place of this one.
    pub(super) fn found_at(&self, path: &Path) -> io::Result<Checksum> {
        let digits = read_blocks(&mut File::open(path)?, self.kind.algorithm(), |_| Ok(()))?;
        Ok(Checksum { kind: self.kind, digits })
    }

    /// Part of a file name.
    pub(super) fn stem(&self) -> String {
        format!("{}-{}", self.kind.name(), &self.digits[..16])
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.name(), self.digits)
    }
}
