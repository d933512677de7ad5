//! Where cosmovisor has its files, and where its links lead: names are lower-cased and URI-encoded, `current` and
//! `previous` are relative links to `genesis` or `upgrades/NAME`. Reads; who changes links is in `steps.rs`.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::UpgradeError;
use crate::base::ids::UpgradeName;

pub(super) const CURRENT: &str = "current";
pub(super) const PREVIOUS: &str = "previous";
const UPGRADES: &str = "upgrades";
pub(super) const INFO_FILE: &str = "upgrade-info.json";

#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
    /// The binary's file name.
    name: String,
}

/// Where `current` or `previous` leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Missing,
    /// To something that is not there.
    Dangling {
        to: PathBuf,
    },
    To {
        /// `genesis` or `upgrades/NAME` as it is written there.
        folder: PathBuf,
        /// It is not written as it should be.
        untidy: bool,
    },
}

impl Layout {
    pub(super) fn new(root: &Path, name: &str) -> Layout {
        Layout { root: root.to_owned(), name: name.to_owned() }
    }

    pub(super) fn cosmovisor(&self) -> PathBuf {
        self.root.join("cosmovisor")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// What the chain node writes as it halts.
    pub(super) fn info_file(&self) -> PathBuf {
        self.data().join(INFO_FILE)
    }

    /// `genesis` or `upgrades/NAME`, below `cosmovisor/`. A folder whose name differs in case alone, as
    /// COSMOVISOR_DISABLE_RECASE wants it, is taken when there is none in lower case.
    pub(super) fn folder(&self, name: &UpgradeName) -> PathBuf {
        if name.as_str() == UpgradeName::GENESIS {
            return PathBuf::from(UpgradeName::GENESIS);
        }
        let name = recased(name);
        let usual = Path::new(UPGRADES).join(escaped(name.as_str()));
        if self.cosmovisor().join(&usual).exists() {
            return usual;
        }
        let others = fs::read_dir(self.cosmovisor().join(UPGRADES)).into_iter().flatten().flatten();
        let mut others: Vec<PathBuf> = others
            .map(|entry| Path::new(UPGRADES).join(entry.file_name()))
            .filter(|folder| name_of(folder).is_ok_and(|other| other == name))
            .collect();
        others.sort();
        others.into_iter().next().unwrap_or(usual)
    }

    pub(super) fn binary_in(&self, folder: &Path) -> PathBuf {
        self.cosmovisor().join(folder).join("bin").join(&self.name)
    }

    /// Where the binary of an upgrade lies, or is to lie.
    pub(super) fn binary(&self, name: &UpgradeName) -> PathBuf {
        self.binary_in(&self.folder(name))
    }

    /// What `link`, which is `current` or `previous`, leads to.
    ///
    /// # Errors
    /// Something else stands in its place, or it leads to what is no folder of the layout.
    pub(super) fn read_link(&self, link: &str) -> Result<Link, UpgradeError> {
        let path = self.cosmovisor().join(link);
        let written = match fs::read_link(&path) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Link::Missing),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let shown = path.display();
                return Err(UpgradeError(format!("{shown} is no link; move it away, and it is made anew")));
            }
            Err(error) => return Err(UpgradeError(format!("read {}: {error}", path.display()))),
        };
        let Some(folder) = self.inside(&written) else {
            if !path.exists() {
                return Ok(Link::Dangling { to: written });
            }
            let (shown, to) = (path.display(), written.display());
            return Err(UpgradeError(format!(
                "{shown} leads to {to}, which is neither genesis nor upgrades/NAME; run: ln -sfn genesis {shown}, or the \
                 upgrade that is to run"
            )));
        };
        if !self.cosmovisor().join(&folder).is_dir() {
            return Ok(Link::Dangling { to: written });
        }
        let untidy = folder != written;
        Ok(Link::To { folder, untidy })
    }

    /// The folder of the layout that a link's target names, which may be absolute or have other names for the same
    /// folders.
    fn inside(&self, target: &Path) -> Option<PathBuf> {
        let whole = self.cosmovisor();
        let tidy = |path: &Path| -> Option<PathBuf> {
            let parts: Vec<Component<'_>> = path.components().filter(|part| *part != Component::CurDir).collect();
            let folder: PathBuf = parts.iter().collect();
            let normal = parts.iter().all(|part| matches!(part, Component::Normal(_)));
            (normal && name_of(&folder).is_ok()).then_some(folder)
        };
        let relative = if target.is_absolute() { target.strip_prefix(&whole).ok() } else { Some(target) };
        relative.and_then(tidy).or_else(|| {
            let (target, whole) = (fs::canonicalize(whole.join(target)).ok()?, fs::canonicalize(&whole).ok()?);
            tidy(target.strip_prefix(whole).ok()?)
        })
    }
}

/// The upgrade that a folder of the layout belongs to.
///
/// # Errors
/// It is none.
pub(super) fn name_of(folder: &Path) -> Result<UpgradeName, String> {
    let bad = || format!("{} is neither genesis nor upgrades/NAME", folder.display());
    let mut parts = folder.components().map(|part| part.as_os_str().to_str());
    match (parts.next().flatten(), parts.next().map(Option::unwrap_or_default), parts.next()) {
        (Some(UpgradeName::GENESIS), None, None) => UpgradeName::new(UpgradeName::GENESIS),
        (Some(UPGRADES), Some(name), None) => {
            UpgradeName::new(&unescaped(name).ok_or_else(bad)?).map(|name| recased(&name))
        }
        _ => Err(bad()),
    }
}

/// As cosmovisor writes and compares it.
pub(super) fn recased(name: &UpgradeName) -> UpgradeName {
    // A lower-cased name can be longer than it may be; then it stays.
    UpgradeName::new(&name.as_str().to_lowercase()).unwrap_or_else(|_| name.clone())
}

/// As Go's `url.PathEscape`, but that a name of dots alone is escaped too: it would lead out of its folder.
pub(super) fn escaped(name: &str) -> String {
    let dots = name.bytes().all(|byte| byte == b'.');
    let plain = |byte: u8| match byte {
        b'.' => !dots,
        byte => byte.is_ascii_alphanumeric() || b"-_~$&+:=@".contains(&byte),
    };
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let digit = |byte: u8| char::from(byte).to_digit(16);
            bytes.push(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?);
            rest = after;
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_go_does_it_and_come_back() {
        for (name, expected) in [
            ("v2", "v2"),
            ("v1.0.0-rc_1~x", "v1.0.0-rc_1~x"),
            ("$&+:=@", "$&+:=@"),
            ("a b/c;d,e?f", "a%20b%2Fc%3Bd%2Ce%3Ff"),
            ("!*'()#%[]", "%21%2A%27%28%29%23%25%5B%5D"),
            ("ü", "%C3%BC"),
            ("..", "%2E%2E"),
            (".", "%2E"),
        ] {
            assert_eq!(escaped(name), expected);
            assert_eq!(unescaped(expected).as_deref(), Some(name));
        }
        for bad in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(unescaped(bad), None, "{bad}");
        }
    }
}
