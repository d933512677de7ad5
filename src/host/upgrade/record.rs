//! What this host remembers of its upgrades, in a small file of baton's own beside cosmovisor's: which writing of
//! `upgrade-info.json` has had its upgrade, what was swapped in last, and the backup of an attempt that has not ended
//! well.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::UpgradeError;
use super::files::Files;
use super::info::Stamp;
use crate::base::ids::UpgradeName;
use crate::base::time::WallTime;

const FILE: &str = "baton.json";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Carried out, or taken back.
    #[serde(default)]
    pub settled: Option<Stamp>,
    /// What `current` was pointed to last.
    #[serde(default)]
    pub last: Option<UpgradeName>,
    #[serde(default)]
    pub backup: Option<Taken>,
}

/// A backup that is whole, for an upgrade that is still to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    pub upgrade: UpgradeName,
    pub before: UpgradeName,
    pub path: PathBuf,
    pub at: WallTime,
}

impl Record {
    /// Empty where there is none.
    pub(super) fn read(cosmovisor: &Path) -> Result<Record, UpgradeError> {
        let file = cosmovisor.join(FILE);
        let shown = file.display();
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
            Err(error) => return Err(UpgradeError(format!("read {shown}: {error}"))),
        };
        serde_json::from_slice(&bytes).map_err(|error| {
            UpgradeError(format!(
                "{shown} is not understood: {error}; when upgrade-info.json in the data asks for nothing that was done \
                 already, remove it"
            ))
        })
    }

    pub(super) fn write(&self, files: &dyn Files, cosmovisor: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        replace(files, &cosmovisor.join(FILE), &text)
    }
}

/// `bytes` are in `file` for good when this returns; before, and on an error, what was there is.
pub(super) fn replace(files: &dyn Files, file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    files.write(&new, bytes)?;
    files.rename(&new, file)?;
    file.parent().map_or(Ok(()), |dir| files.sync_dir(dir))
}
