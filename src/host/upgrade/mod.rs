//! Upgrades of this host's chain node, in cosmovisor's layout: which binary runs, which upgrade the chain asks for, and
//! the steps from one binary to the next. Everything here blocks: it is called on threads that carry no lease. It never
//! stops or starts the chain node; `effects` does, and calls [`Upgrades::carry_out`] in between.
//!
//! `effects::upgrade` looks at what the chain (`upgrade-info.json`) and the cluster's plan ask for, every
//! `upgrade.poll`, and once more between the guard's word that the node ended by itself and the core's hearing of it.
//! So a node that asks for an upgrade and ends is not taken for one that crashed, which would move the baton to a
//! host whose node ends in the same way. The file may have been written long before. So the core hears `UpgradeDue`
//! once the binary is there and the node has told the height before the upgrade's, or has ended within ten seconds of
//! writing the file, or without having told any height, or is of a kind that tells none.
//!
//! Every end of the steps is one after which they can be repeated, so no process waits for them in order to end. A
//! failed attempt is repeated after 30 s, or at once when binary or request has changed. The first activation after
//! an upgrade has no time limit while nobody else is ready: the new binary may be changing its database.

mod backup;
mod digest;
mod files;
mod info;
mod layout;
pub mod obtain;
mod pre_upgrade;
mod record;
mod steps;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::Access;

use crate::base::guard_frame::NodeSpec;
use crate::base::ids::UpgradeName;
use crate::config::{self, Backup};
use crate::core::upgrades::{Failed, UnderWay};
pub use files::{Files, OsFiles};
use info::Info;
use layout::{CURRENT, INFO_FILE, Layout, Link, PREVIOUS, name_of};
pub use obtain::Source;
use obtain::{Patience, Request};
use record::Record;

/// Cheap to clone.
#[derive(Clone)]
pub struct Upgrades(Arc<Host>);

struct Host {
    settings: config::Upgrade,
    layout: Layout,
    files: Arc<dyn Files>,
    pre_upgrade_max: Duration,
    /// By path.
    sums: Mutex<BTreeMap<PathBuf, (Version, String)>>,
}

/// Tells a file from itself after it was written anew.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    mtime: (i64, i64),
    bytes: u64,
    inode: (u64, u64),
}

/// An upgrade that the chain asked for and this host has not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub name: UpgradeName,
    pub height: u64,
    /// As the chain's plan has it: JSON with `binaries`, a link to that, or anything else.
    pub info: String,
}

/// The binary of an upgrade, in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    pub path: PathBuf,
    /// In hexadecimal digits.
    pub sha256: String,
}

/// What to do while the chain node is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub name: UpgradeName,
    /// Back to a binary that ran before: no `pre-upgrade`.
    pub back: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UpgradeError(String);

impl Upgrades {
    pub fn new(settings: config::Upgrade) -> Upgrades {
        Upgrades::on(settings, Arc::new(OsFiles), pre_upgrade::TIME_MAX)
    }

    /// With other hands than the operating system's, and another bound of `pre-upgrade`.
    pub fn on(settings: config::Upgrade, files: Arc<dyn Files>, pre_upgrade_max: Duration) -> Upgrades {
        let layout = Layout::new(&settings.root, &settings.name);
        Upgrades(Arc::new(Host { settings, layout, files, pre_upgrade_max, sums: Mutex::default() }))
    }

    pub fn settings(&self) -> &config::Upgrade {
        &self.0.settings
    }

    fn layout(&self) -> &Layout {
        &self.0.layout
    }

    fn files(&self) -> &dyn Files {
        &*self.0.files
    }

    fn pre_upgrade_max(&self) -> Duration {
        self.0.pre_upgrade_max
    }

    /// The binary to start the chain node with; `current` is repaired, or made, when it has to be.
    pub fn program(&self) -> Result<PathBuf, UpgradeError> {
        let (folder, as_it_should_be) = self.standing()?;
        let binary = self.layout().binary_in(&folder);
        check_executable(&binary)?;
        if !as_it_should_be {
            let link = self.layout().cosmovisor().join(CURRENT);
            steps::point(self, CURRENT, &folder).map_err(|error| {
                UpgradeError(format!("make {}: {error}; let this user write there", link.display()))
            })?;
            tracing::warn!("{} was made anew: it leads to {}", link.display(), folder.display());
        }
        Ok(binary)
    }

    /// As the configuration says it, but with the binary that `current` leads to.
    pub fn started(&self, mut spec: NodeSpec) -> Result<NodeSpec, UpgradeError> {
        let program = self.program()?;
        let shown = program.display();
        let utf8 =
            program.to_str().ok_or_else(|| UpgradeError(format!("{shown} is not UTF-8; use another upgrade.root")))?;
        match spec.argv.first_mut() {
            Some(first) => utf8.clone_into(first),
            None => spec.argv.push(utf8.to_owned()),
        }
        Ok(spec)
    }

    /// Whether the chain node could be started and an upgrade begun as things are. Changes nothing.
    pub fn check(&self) -> Result<(), UpgradeError> {
        let cosmovisor = self.layout().cosmovisor();
        if !cosmovisor.is_dir() {
            let (shown, first) = (cosmovisor.display(), self.layout().binary_in(Path::new(UpgradeName::GENESIS)));
            return Err(UpgradeError(format!(
                "{shown} is no directory; put the node's binary at {}, or correct upgrade.root",
                first.display()
            )));
        }
        let (folder, _) = self.standing()?;
        check_executable(&self.layout().binary_in(&folder))?;
        Record::read(&cosmovisor)?;
        let dir = &self.settings().backup_dir;
        if self.settings().backup != Backup::None && !dir.is_dir() {
            return Err(UpgradeError(format!("upgrade.backup_dir {} is no directory; make it", dir.display())));
        }
        Ok(())
    }

    pub fn current(&self) -> Result<UpgradeName, UpgradeError> {
        let (folder, _) = self.standing()?;
        name_of(&folder).map_err(UpgradeError)
    }

    pub fn previous(&self) -> Option<UpgradeName> {
        match self.layout().read_link(PREVIOUS) {
            Ok(Link::To { folder, .. }) => name_of(&folder).ok(),
            Ok(Link::Missing | Link::Dangling { .. }) | Err(_) => None,
        }
    }

    /// The folder of the binary that runs next, and whether `current` says so as it should.
    fn standing(&self) -> Result<(PathBuf, bool), UpgradeError> {
        match self.layout().read_link(CURRENT)? {
            Link::To { folder, untidy } => Ok((folder, !untidy)),
            Link::Missing => Ok((self.likely("is not there")?, false)),
            Link::Dangling { to } => {
                Ok((self.likely(&format!("leads to {}, which is not there", to.display()))?, false))
            }
        }
    }

    /// Where `current` is to lead that `fault`: to what was carried out last, by this program's record or by
    /// cosmovisor's copy of what the data asks for; else to the first binary.
    fn likely(&self, fault: &str) -> Result<PathBuf, UpgradeError> {
        let layout = self.layout();
        if let Some(last) = Record::read(&layout.cosmovisor())?.last {
            let (folder, link) = (layout.folder(&last), layout.cosmovisor().join(CURRENT));
            let binary = layout.binary_in(&folder);
            return match binary.exists() {
                true => Ok(folder),
                false => Err(UpgradeError(format!(
                    "{} {fault}, and the binary of {last}, which ran last, is not at {}; put it there",
                    link.display(),
                    binary.display()
                ))),
            };
        }
        let asked = info::read(&layout.info_file()).ok().flatten().map(|info| layout.folder(&info.due.name));
        let carried_out = asked.filter(|folder| {
            info::is_there(&layout.cosmovisor().join(folder).join(INFO_FILE)) && layout.binary_in(folder).exists()
        });
        Ok(carried_out.unwrap_or_else(|| PathBuf::from(UpgradeName::GENESIS)))
    }

    /// What `upgrade-info.json` asks for. The same answer until it was carried out. Whether the chain has come to that
    /// height is not known here: cosmovisor's `add-upgrade --upgrade-height` writes the file long before.
    pub fn due(&self) -> Result<Option<Due>, UpgradeError> {
        let Some(Info { due, stamp, .. }) = info::read(&self.layout().info_file())? else { return Ok(None) };
        if self.settings().skip_heights.contains(&due.height) {
            return Ok(None);
        }
        let (folder, _) = self.standing()?;
        if name_of(&folder).map_err(UpgradeError)? == due.name {
            return Ok(None);
        }
        let cosmovisor = self.layout().cosmovisor();
        if Record::read(&cosmovisor)?.settled == Some(stamp) {
            return Ok(None);
        }
        // Data of long ago, as in a snapshot, is no reason to go back.
        let came_with = info::read(&cosmovisor.join(folder).join(INFO_FILE)).ok().flatten();
        Ok(came_with.is_none_or(|info| info.due.height <= due.height).then_some(due))
    }

    /// Whether `upgrade-info.json` was written so short a time ago.
    pub fn was_asked_within(&self, max: Duration) -> bool {
        let written = fs::metadata(self.layout().info_file()).and_then(|found| found.modified()).ok();
        // A time to come is that of a clock that was set back.
        written.is_some_and(|written| written.elapsed().is_ok_and(|since| since < max))
    }

    /// Where the binary of `name` is, or is to be put.
    pub fn path_of(&self, name: &UpgradeName) -> PathBuf {
        self.layout().binary(name)
    }

    /// `None` when it is not there. Reads the file anew only when it has changed.
    pub fn binary(&self, name: &UpgradeName) -> Result<Option<Binary>, UpgradeError> {
        let path = self.path_of(name);
        let unreadable = |error: io::Error| UpgradeError(format!("read {}: {error}", path.display()));
        let found = match fs::metadata(&path) {
            Ok(found) => found,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(unreadable(error)),
        };
        check_executable(&path)?;
        let version = Version {
            mtime: (found.mtime(), found.mtime_nsec()),
            bytes: found.len(),
            inode: (found.dev(), found.ino()),
        };
        let known = self.0.sums.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
        if let Some((_, sha256)) = known.filter(|(of, _)| *of == version) {
            return Ok(Some(Binary { path, sha256 }));
        }
        let mut file = File::open(&path).map_err(unreadable)?;
        let sha256 = digest::sha256_of(&mut file).map_err(unreadable)?;
        let mut sums = self.0.sums.lock().unwrap_or_else(PoisonError::into_inner);
        sums.insert(path.clone(), (version, sha256.clone()));
        Ok(Some(Binary { path, sha256 }))
    }

    /// Brings the binary of `name` into its place; one that is there already stays as it is. `progress` hears of bytes
    /// and may end it by returning false; then, as after any error, the next call goes on where this one ended.
    pub fn obtain(
        &self,
        name: &UpgradeName,
        source: Source<'_>,
        progress: &mut dyn FnMut(u64, Option<u64>) -> bool,
    ) -> Result<Binary, UpgradeError> {
        let request = Request {
            upgrade_dir: &self.layout().cosmovisor().join(self.layout().folder(name)),
            binary_name: &self.settings().name,
            bytes_max: self.settings().download_bytes_max,
            source,
            patience: Patience::USUAL,
        };
        obtain::obtain(&request, progress).map_err(|error| UpgradeError(error.to_string()))
    }

    /// Backup, `pre-upgrade` and swap, with the chain node stopped. Repeated after a crash at any point it ends the
    /// same.
    ///
    /// # Errors
    /// The binary that ran before is started next, as if nothing had been tried. To be tried again when what the reason
    /// says is mended.
    pub fn carry_out(&self, wanted: &Wanted, progress: &mut dyn FnMut(UnderWay)) -> Result<(), Failed> {
        steps::carry_out(self, wanted, progress)
    }
}

fn check_executable(binary: &Path) -> Result<(), UpgradeError> {
    let shown = binary.display();
    match fs::metadata(binary) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(UpgradeError(format!("there is no binary at {shown}; put it there with mode 755")))
        }
        Err(error) => Err(UpgradeError(format!("read {shown}: {error}"))),
        Ok(found) if !found.is_file() => Err(UpgradeError(format!("{shown} is not a file; put the binary there"))),
        Ok(_) => rustix::fs::access(binary, Access::EXEC_OK)
            .map_err(|error| UpgradeError(format!("{shown} cannot be executed: {error}; run: chmod 755 {shown}"))),
    }
}
