//! The `[upgrade]` section: whether and how the binary of the chain node is swapped. cosmovisor's variables have been
//! filled in before (`daemon_variables.rs`).

use std::collections::BTreeSet;
use std::path::{Component, Path};
use std::time::Duration;

use super::error::ConfigError;
use super::file::Document;
use super::key_list::KEYS;
use super::{Backup, Chain, Upgrade};

const SKIP_FLAG: &str = "--unsafe-skip-upgrades";

impl Upgrade {
    /// With the usual settings.
    pub fn at(root: &Path, name: &str) -> Upgrade {
        Upgrade {
            root: root.to_owned(),
            name: name.to_owned(),
            allow_download: false,
            restart_after: true,
            poll: Duration::from_millis(300),
            backup: Backup::Copy,
            backup_dir: root.to_owned(),
            preupgrade_retries: 0,
            download_bytes_max: 2048 << 20,
            skip_heights: BTreeSet::new(),
            home: root.to_owned(),
            env: Default::default(),
        }
    }
}

/// `None` when nobody has named a binary.
pub(super) fn upgrade(doc: &Document, chain: &Chain) -> Result<Option<Upgrade>, ConfigError> {
    let Some(name) = doc.text("upgrade.name")? else {
        let mut keys = KEYS.iter().map(|key| key.path).filter(|path| path.starts_with("upgrade."));
        return keys.find(|key| doc.entry(key).is_some()).map_or(Ok(None), |key| {
            Err(doc.bad(key, "means nothing without upgrade.name; name the binary, as \"gaiad\", or remove it"))
        });
    };
    check_name(doc, &name)?;
    check_program(doc, &name, &chain.command)?;
    let root = doc.path("upgrade.root")?.unwrap_or_else(|| chain.home.clone());
    let usual = Upgrade::at(&root, &name);
    let backups = [("copy", Backup::Copy), ("links", Backup::Links), ("none", Backup::None)];
    let backup_dir = doc.path("upgrade.backup_dir")?.unwrap_or_else(|| root.clone());
    let data = root.join("data");
    if backup_dir.starts_with(&data) {
        let problem = format!("lies in {}, which is backed up; use a directory outside of it", data.display());
        return Err(doc.bad("upgrade.backup_dir", problem));
    }
    let download_mib = doc.integer("upgrade.download_max_mib", 1, 65_536)?;
    let (poll_min, poll_max) = (Duration::from_millis(10), Duration::from_secs(3600));
    Ok(Some(Upgrade {
        allow_download: doc.boolean("upgrade.allow_download")?.unwrap_or(usual.allow_download),
        restart_after: doc.boolean("upgrade.restart_after")?.unwrap_or(usual.restart_after),
        poll: doc.duration_within("upgrade.poll", poll_min, poll_max)?.unwrap_or(usual.poll),
        backup: doc.choice("upgrade.backup", &backups)?.unwrap_or(usual.backup),
        backup_dir,
        preupgrade_retries: doc.integer("upgrade.preupgrade_retries", 0, 1000)?.unwrap_or(usual.preupgrade_retries),
        download_bytes_max: download_mib.map_or(usual.download_bytes_max, |mib| u64::from(mib) << 20),
        skip_heights: skip_heights(&chain.command),
        home: chain.home.clone(),
        env: chain.env.clone(),
        root,
        name,
    }))
}

fn check_name(doc: &Document, name: &str) -> Result<(), ConfigError> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(part)), None) if part == name && !name.contains('\0') => Ok(()),
        _ => Err(doc.bad("upgrade.name", format!("{name:?} is no name of a file; write it as \"gaiad\""))),
    }
}

fn check_program(doc: &Document, name: &str, command: &[String]) -> Result<(), ConfigError> {
    let program = command.first().map(String::as_str).unwrap_or_default();
    if Path::new(program).file_name().is_some_and(|file| file == name) {
        return Ok(());
    }
    let problem = format!(
        "its program {program:?} is not upgrade.name, {name:?}; write command = [\"{name}\", …]: what runs is that binary \
         in cosmovisor/current/bin, with the arguments as they are"
    );
    Err(doc.bad("chain.command", problem))
}

/// What stands behind `--unsafe-skip-upgrades` up to the next flag, as cosmovisor reads it; and with `=` or commas, as
/// the chain node itself does.
pub(super) fn skip_heights(command: &[String]) -> BTreeSet<u64> {
    let mut heights = BTreeSet::new();
    let mut inside = false;
    for word in command {
        let values = match word.strip_prefix(SKIP_FLAG) {
            Some("") => {
                inside = true;
                continue;
            }
            Some(rest) => rest.strip_prefix('=').unwrap_or_default(),
            None if word.starts_with('-') => {
                inside = false;
                continue;
            }
            None if inside => word.as_str(),
            None => continue,
        };
        heights.extend(values.split(',').filter_map(|height| height.trim().parse::<u64>().ok()));
    }
    heights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_to_skip_stand_behind_their_flag() {
        let heights = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            skip_heights(&words).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(heights("gaiad start"), Vec::<u64>::new());
        assert_eq!(heights("gaiad start --unsafe-skip-upgrades 12 30 --home /x 7"), [12, 30]);
        assert_eq!(heights("gaiad start --unsafe-skip-upgrades=12,30 7"), [12, 30]);
        assert_eq!(heights("gaiad start --unsafe-skip-upgrades 5,x,6"), [5, 6]);
        assert_eq!(heights("gaiad start --unsafe-skip-upgrades-not 5"), Vec::<u64>::new());
    }
}
