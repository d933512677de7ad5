//! Upgrades that this chain has planned, and those that a node's binary can carry out, as Cosmos' x/upgrade has them: a
//! binary without the handler of a planned upgrade halts before its height and says so in `data/upgrade-info.json`.
//! Reads files and decides nothing about blocks; `node.rs` asks at every height.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One line of the file of planned upgrades, which is a JSON array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    pub name: String,
    /// The first height of the new binary.
    pub height: u64,
    #[serde(default)]
    pub info: String,
}

/// The upgrades that a binary can carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handlers {
    All,
    These(BTreeSet<String>),
}

impl Handlers {
    pub fn has(&self, name: &str) -> bool {
        match self {
            Handlers::All => true,
            Handlers::These(names) => names.contains(name),
        }
    }
}

/// What a node does that may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Halt {
    /// It ends, as with most versions of the SDK.
    Exit,
    /// It stays up and answers, and neither signs nor takes a block.
    Stay,
}

/// The flags of `simchain run` about upgrades.
#[derive(Clone, Debug)]
pub struct UpgradeOptions {
    /// May be absent; read again whenever it has changed.
    pub planned: Option<PathBuf>,
    pub handlers: Handlers,
    /// Heights at which no upgrade is carried out.
    pub skip: BTreeSet<u64>,
    pub halt: Halt,
    /// Refuse to run before the height of an upgrade that this binary has.
    pub strict: bool,
}

pub struct Upgrades {
    pub options: UpgradeOptions,
    planned: Vec<Planned>,
    /// Inode and change time of the file that was read last.
    read: Option<(u64, i64, i64)>,
}

impl Upgrades {
    pub fn new(options: UpgradeOptions) -> Upgrades {
        Upgrades { options, planned: Vec::new(), read: None }
    }

    /// What is planned by now is known.
    ///
    /// # Errors
    /// In words; what was known before still is.
    pub fn look(&mut self) -> Result<(), String> {
        let Some(file) = &self.options.planned else { return Ok(()) };
        let failed = |error: io::Error| format!("read planned upgrades {}: {error}", file.display());
        let metadata = match fs::metadata(file) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let seen = Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()));
        if self.read != seen {
            self.read = seen;
            self.planned = read_planned(file).map_err(failed)?;
        }
        Ok(())
    }

    /// The first upgrade at or below `height` that this binary cannot carry out.
    pub fn needed_at(&self, height: u64) -> Option<&Planned> {
        let due = self.planned.iter().filter(|one| one.height <= height);
        let needed =
            due.filter(|one| !self.options.handlers.has(&one.name) && !self.options.skip.contains(&one.height));
        needed.min_by_key(|one| one.height)
    }

    /// An upgrade above `height` that this binary has already; only with `strict`.
    pub fn too_early_at(&self, height: u64) -> Option<&Planned> {
        let early = |one: &&Planned| one.height > height && self.options.handlers.has(&one.name);
        self.planned.iter().find(early).filter(|_| self.options.strict)
    }
}

/// An empty list when there is no such file.
pub fn read_planned(file: &Path) -> io::Result<Vec<Planned>> {
    match fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Byte for byte the file that x/upgrade leaves, with the time that it does not use; in place, as x/upgrade does, so
/// that whoever watches it may find half of it.
pub fn leave_info(data: &Path, planned: &Planned) -> io::Result<()> {
    #[derive(Serialize)]
    struct Info<'a> {
        name: &'a str,
        time: &'a str,
        height: u64,
        #[serde(skip_serializing_if = "str::is_empty")]
        info: &'a str,
    }
    let Planned { name, height, info } = planned;
    let info = Info { name, time: "0001-01-01T00:00:00Z", height: *height, info };
    fs::write(data.join("upgrade-info.json"), serde_json::to_string(&info)?)
}

/// As x/upgrade panics with.
pub fn needed(planned: &Planned) -> String {
    let Planned { name, height, info } = planned;
    format!("UPGRADE \"{name}\" NEEDED at height: {height}: {info}")
}

/// As x/upgrade panics with.
pub fn too_early(planned: &Planned) -> String {
    let name = &planned.name;
    format!(
        "BINARY UPDATED BEFORE TRIGGER! UPGRADE \"{name}\" - in binary but not executed on chain. Downgrade your binary"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upgrades(handlers: Handlers, strict: bool) -> Upgrades {
        let planned = |name: &str, height| Planned { name: name.into(), height, info: String::new() };
        let options = UpgradeOptions { planned: None, handlers, skip: [30].into(), halt: Halt::Exit, strict };
        Upgrades {
            planned: vec![planned("two", 40), planned("one", 20), planned("skipped", 30)],
            ..Upgrades::new(options)
        }
    }

    #[test]
    fn the_first_upgrade_without_a_handler_is_needed_from_its_height_on() {
        let genesis = upgrades(Handlers::These(BTreeSet::new()), false);
        let name = |planned: Option<&Planned>| planned.map(|one| one.name.clone());
        assert_eq!(name(genesis.needed_at(19)), None);
        assert_eq!(name(genesis.needed_at(100)).as_deref(), Some("one"));
        let with_one = upgrades(Handlers::These(["one".into()].into()), true);
        assert_eq!(name(with_one.needed_at(39)), None, "a skipped height halts nobody");
        assert_eq!(name(with_one.needed_at(40)).as_deref(), Some("two"));
        assert_eq!(name(with_one.too_early_at(19)).as_deref(), Some("one"));
        assert_eq!(name(with_one.too_early_at(20)), None);
        assert_eq!(name(upgrades(Handlers::All, false).needed_at(100)), None);
    }

    #[test]
    fn the_file_left_is_that_of_the_sdk() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut planned = Planned { name: "test1".into(), height: 20, info: "{}".into() };
        let left = || fs::read_to_string(dir.path().join("upgrade-info.json")).expect("upgrade-info.json");
        leave_info(dir.path(), &planned).expect("written");
        assert_eq!(left(), r#"{"name":"test1","time":"0001-01-01T00:00:00Z","height":20,"info":"{}"}"#);
        planned.info.clear();
        leave_info(dir.path(), &planned).expect("written");
        assert_eq!(left(), r#"{"name":"test1","time":"0001-01-01T00:00:00Z","height":20}"#);
    }

    #[test]
    fn planned_upgrades_are_read_again_when_their_file_was_replaced() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("upgrades.json");
        let none = Handlers::These(BTreeSet::new());
        let mut upgrades = upgrades(none, false);
        upgrades.planned.clear();
        upgrades.options.planned = Some(file.clone());
        upgrades.look().expect("no file is no plan");
        for (height, text) in [(7, r#"[{"name":"a","height":7}]"#), (9, r#"[{"name":"b","height":9,"info":"x"}]"#)] {
            let temp = dir.path().join("temp");
            fs::write(&temp, text).expect("write");
            fs::rename(&temp, &file).expect("rename");
            upgrades.look().expect("read");
            assert_eq!(upgrades.needed_at(100).map(|one| one.height), Some(height));
        }
    }
}
