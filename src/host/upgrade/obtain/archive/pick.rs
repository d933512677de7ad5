//! Which entry of an archive is the binary, as cosmovisor has it: `bin/NAME`, else `NAME`, else the only file, whatever
//! it is called. And which archives are refused for what they name.

use std::fs::File;
use std::io::{self, Read, Seek};

use super::meter::Stop;
use crate::host::upgrade::obtain::source::short;

const ENTRIES_MAX: u64 = 10_000;
/// That an error names.
const NAMES_MAX: usize = 8;

pub(super) struct Pick {
    name: String,
    into: File,
    held: Option<Rank>,
    entries: u64,
    files: u64,
    names: Vec<String>,
}

/// The later, the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    OnlyFile,
    AtTop,
    InBin,
}

pub(super) enum Kind<'a> {
    File,
    Directory,
    /// To a place seen from the entry's own directory.
    Symlink(&'a [u8]),
    /// To another entry.
    HardLink(&'a [u8]),
    Other,
}

impl Pick {
    pub(super) fn new(name: &str, into: File) -> Pick {
        Pick { name: name.to_owned(), into, held: None, entries: 0, files: 0, names: Vec::new() }
    }

    /// What is not in an archive is the binary itself.
    pub(super) fn all(mut self, mut content: impl Read) -> Result<(), Stop> {
        io::copy(&mut content, &mut self.into)?;
        Ok(())
    }

    /// Some when the entry is the best so far; then its content is to be taken.
    pub(super) fn look(&mut self, entry: &[u8], kind: Kind<'_>) -> Result<Option<Rank>, Stop> {
        let refuse = |why: &'static str| Stop::Entry { entry: short(&String::from_utf8_lossy(entry)), why };
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(Stop::TooMany { max: ENTRIES_MAX });
        }
        let parts = parts_of(entry).map_err(refuse)?;
        let rank = self.rank(&parts);
        match kind {
            Kind::Directory => Ok(None),
            Kind::Symlink(to) => self.link(rank, &parts[..parts.len().saturating_sub(1)], to).map_err(refuse),
            Kind::HardLink(to) => self.link(rank, &[], to).map_err(refuse),
            Kind::Other => Err(refuse("is neither a file nor a directory")),
            Kind::File => {
                self.files += 1;
                if self.names.len() < NAMES_MAX {
                    self.names.push(short(&parts.join("/")));
                }
                let rank = rank.or((self.files == 1).then_some(Rank::OnlyFile));
                if rank.is_some() && rank == self.held {
                    return Err(refuse("is there twice"));
                }
                Ok(rank.filter(|rank| self.held.is_none_or(|held| *rank > held)))
            }
        }
    }

    pub(super) fn take(&mut self, rank: Rank, content: &mut dyn Read) -> io::Result<()> {
        self.into.set_len(0)?;
        self.into.rewind()?;
        io::copy(content, &mut self.into)?;
        self.held = Some(rank);
        Ok(())
    }

    pub(super) fn end(self) -> Result<(), Stop> {
        match self.held {
            Some(Rank::InBin | Rank::AtTop) => Ok(()),
            Some(Rank::OnlyFile) if self.files == 1 => Ok(()),
            Some(Rank::OnlyFile) | None => {
                let more = if self.files > NAMES_MAX as u64 { ", …" } else { "" };
                let has = if self.names.is_empty() { "nothing".to_owned() } else { format!("{:?}{more}", self.names) };
                Err(Stop::NoBinary { has })
            }
        }
    }

    fn rank(&self, parts: &[&str]) -> Option<Rank> {
        match parts {
            ["bin", name] if *name == self.name => Some(Rank::InBin),
            [name] if *name == self.name => Some(Rank::AtTop),
            _ => None,
        }
    }

    /// A link within the archive is left out, unless it stands where the binary is looked for.
    fn link(&self, rank: Option<Rank>, from: &[&str], to: &[u8]) -> Result<Option<Rank>, &'static str> {
        if leads_out(from.len(), to) {
            return Err("is a link that leads out of the archive");
        }
        match rank {
            Some(_) => Err("is a link, where the binary itself is expected"),
            None => Ok(None),
        }
    }
}

/// `./bin//gaiad` is `["bin", "gaiad"]`.
fn parts_of(entry: &[u8]) -> Result<Vec<&str>, &'static str> {
    let text = std::str::from_utf8(entry).map_err(|_| "has a name that is no UTF-8")?;
    if text.starts_with('/') {
        return Err("has an absolute path");
    }
    if text.contains('\0') {
        return Err("has a zero byte in its name");
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") { Err("leads out of the archive with ..") } else { Ok(parts) }
}

/// Whether a link `depth` directories below the top leads above it.
fn leads_out(mut depth: usize, to: &[u8]) -> bool {
    if to.starts_with(b"/") {
        return true;
    }
    for part in to.split(|byte| *byte == b'/') {
        depth = match part {
            b"" | b"." => depth,
            b".." => match depth.checked_sub(1) {
                Some(above) => above,
                None => return true,
            },
            _ => depth + 1,
        };
    }
    false
}
