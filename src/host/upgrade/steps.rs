//! The steps from one binary to the next, with the chain node stopped, in an order in which every state in between is
//! sound: the old binary starts until `current` has moved, the new one from then on, and no writing of
//! `upgrade-info.json` has its upgrade twice.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::info::{self, Info};
use super::layout::{CURRENT, INFO_FILE, PREVIOUS, recased};
use super::record::{Record, Taken, replace};
use super::{Upgrades, Wanted, backup, pre_upgrade};
use crate::base::ids::UpgradeName;
use crate::base::time::WallTime;
use crate::config::Backup;
use crate::core::upgrades::{Failed, Step, UnderWay};

/// An attempt that failed after its backup is soon made again: that backup is still good for it, and a second one would
/// fill the disk. From then on a new one is taken.
const BACKUP_GOOD_FOR: Duration = Duration::from_secs(24 * 3600);
/// Between two reports of a backup's progress.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Where an attempt ended, and why.
type Ended = (Step, String);

pub(super) fn carry_out(
    upgrades: &Upgrades,
    wanted: &Wanted,
    progress: &mut dyn FnMut(UnderWay),
) -> Result<(), Failed> {
    let mut tell = |step, done, total| progress(UnderWay { name: wanted.name.clone(), step, done, total });
    attempt(upgrades, &recased(&wanted.name), wanted.back, &mut tell).map_err(|(step, reason)| {
        let reason = reason.replace(char::is_control, " ");
        Failed { name: wanted.name.clone(), step, reason }
    })
}

fn attempt(
    upgrades: &Upgrades,
    name: &UpgradeName,
    back: bool,
    tell: &mut dyn FnMut(Step, u64, u64),
) -> Result<(), Ended> {
    let before = upgrades.current().map_err(|error| (Step::Swap, error.to_string()))?;
    if before == *name {
        tell(Step::Swap, 0, 0);
        finish_or_warn(upgrades, name);
        return Ok(());
    }
    let binary = upgrades.binary(name).map_err(|error| (Step::Swap, error.to_string()))?;
    let binary = binary.ok_or_else(|| {
        let place = upgrades.path_of(name);
        (Step::Swap, format!("its binary is not at {}; put it there with mode 755", place.display()))
    })?;
    if upgrades.settings().backup != Backup::None {
        back_up(upgrades, name, &before, tell).map_err(|reason| (Step::Backup, reason))?;
    }
    if !back {
        tell(Step::PreUpgrade, 0, 0);
        pre_upgrade::run(upgrades.settings(), &binary.path, upgrades.pre_upgrade_max())
            .map_err(|reason| (Step::PreUpgrade, reason))?;
    }
    tell(Step::Swap, 0, 0);
    move_current(upgrades, name, &before).map_err(|reason| (Step::Swap, reason))
}

fn not_written(upgrades: &Upgrades, error: &io::Error) -> String {
    format!("write {}: {error}; make it writable for this user", upgrades.layout().cosmovisor().display())
}

fn back_up(
    upgrades: &Upgrades,
    name: &UpgradeName,
    before: &UpgradeName,
    tell: &mut dyn FnMut(Step, u64, u64),
) -> Result<(), String> {
    let (layout, now) = (upgrades.layout(), WallTime::now());
    let mut record = Record::read(&layout.cosmovisor()).map_err(|error| error.to_string())?;
    let good = record.backup.as_ref().filter(|taken| {
        let same = (&taken.upgrade, &taken.before) == (name, before);
        same && taken.path.is_dir() && now.since(taken.at) < BACKUP_GOOD_FOR && taken.at <= now
    });
    if let Some(taken) = good {
        tracing::info!("the backup of an earlier attempt is used: {}", taken.path.display());
        return Ok(());
    }
    let mut told_at: Option<WallTime> = None;
    let mut report = |done: u64, total: u64| {
        let now = WallTime::now();
        if done == total || told_at.is_none_or(|told| now.since(told) >= REPORT_EVERY || now < told) {
            told_at = Some(now);
            tell(Step::Backup, done, total);
        }
    };
    let path = backup::take(upgrades.files(), upgrades.settings(), &layout.data(), name, &mut report)?;
    tracing::info!("the data is backed up: {}", path.display());
    record.backup = Some(Taken { upgrade: name.clone(), before: before.clone(), path, at: now });
    record.write(upgrades.files(), &layout.cosmovisor()).map_err(|error| not_written(upgrades, &error))
}

/// Invariant: whatever writing of `upgrade-info.json` brought the old binary here is settled before `current` leads
/// away from it, so that it is not due again.
fn move_current(upgrades: &Upgrades, name: &UpgradeName, before: &UpgradeName) -> Result<(), String> {
    let (old, _) = upgrades.standing().map_err(|error| error.to_string())?;
    let written = |done: io::Result<()>| done.map_err(|error| not_written(upgrades, &error));
    written(point(upgrades, PREVIOUS, &old))?;
    if let Some(info) = readable(upgrades).filter(|info| info.due.name == *before) {
        written(settle(upgrades, info))?;
    }
    let moved = point(upgrades, CURRENT, &upgrades.layout().folder(name));
    if moved.is_err() && upgrades.current().is_ok_and(|current| current == *name) {
        // It moved and may not stay so: what is told and what starts next are to be the same.
        written(point(upgrades, CURRENT, &old))?;
    }
    written(moved)?;
    finish_or_warn(upgrades, name);
    Ok(())
}

/// The new binary is the one that starts, whatever becomes of this.
fn finish_or_warn(upgrades: &Upgrades, name: &UpgradeName) {
    if let Err(error) = finish(upgrades, name) {
        let problem = not_written(upgrades, &error);
        tracing::warn!("upgrade {name} is carried out, but not on record: {problem}");
    }
}

/// What is left to do once `current` leads to `name`.
fn finish(upgrades: &Upgrades, name: &UpgradeName) -> io::Result<()> {
    let (layout, files) = (upgrades.layout(), upgrades.files());
    let cosmovisor = layout.cosmovisor();
    let record = Record::read(&cosmovisor).map_err(io::Error::other)?;
    let mut wanted = Record { last: Some(name.clone()), backup: None, ..record.clone() };
    if let Some(info) = readable(upgrades).filter(|info| info.due.name == *name) {
        // cosmovisor keeps it there, and knows by it that the upgrade was carried out.
        let kept = cosmovisor.join(layout.folder(name)).join(INFO_FILE);
        if info::read(&kept).ok().flatten().is_none_or(|kept| kept.text != info.text) {
            replace(files, &kept, info.text.as_bytes())?;
        }
        wanted.settled = Some(info.stamp);
    }
    if record == wanted { Ok(()) } else { wanted.write(files, &cosmovisor) }
}

fn settle(upgrades: &Upgrades, info: Info) -> io::Result<()> {
    let cosmovisor = upgrades.layout().cosmovisor();
    let record = Record::read(&cosmovisor).map_err(io::Error::other)?;
    if record.settled.as_ref() == Some(&info.stamp) {
        return Ok(());
    }
    Record { settled: Some(info.stamp), ..record }.write(upgrades.files(), &cosmovisor)
}

/// What cannot be understood asks for nothing; `due` says so.
fn readable(upgrades: &Upgrades) -> Option<Info> {
    info::read(&upgrades.layout().info_file()).ok().flatten()
}

/// Lets `link` lead to `folder` of the layout, at once and for good.
pub(super) fn point(upgrades: &Upgrades, link: &str, folder: &Path) -> io::Result<()> {
    let (files, cosmovisor) = (upgrades.files(), upgrades.layout().cosmovisor());
    let new = cosmovisor.join(format!("{link}.new"));
    match files.remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    files.symlink(folder, &new)?;
    files.rename(&new, &cosmovisor.join(link))?;
    files.sync_dir(&cosmovisor)
}
