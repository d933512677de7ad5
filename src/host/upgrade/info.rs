//! `upgrade-info.json`: what the chain node writes into its data as it halts for an upgrade, and what cosmovisor keeps
//! of it beside the binary that it swapped in.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::layout::recased;
use super::{Due, UpgradeError, digest};
use crate::base::ids::UpgradeName;

const BYTES_MAX: u64 = 4 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Info {
    pub due: Due,
    pub stamp: Stamp,
    pub text: String,
}

/// Tells one writing of the file from the next, also of the same words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    written_at_ns: i64,
    sha256: String,
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    name: String,
    #[serde(default)]
    height: Height,
    #[serde(default)]
    info: String,
}

/// Go writes a number, protobuf's own writing in JSON a text.
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Height {
    #[default]
    Absent,
    Number(i64),
    Text(String),
}

/// `None` while there is no such file, and while it is not whole: it is written in place.
///
/// # Errors
/// It is whole and names no upgrade.
pub(super) fn read(file: &Path) -> Result<Option<Info>, UpgradeError> {
    let shown = file.display();
    let unreadable = |error: io::Error| UpgradeError(format!("read {shown}: {error}"));
    let open = match File::open(file) {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let found = open.metadata().map_err(unreadable)?;
    let mut bytes = Vec::new();
    open.take(BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    let bad = |problem: String| UpgradeError(format!("{shown} names no upgrade: {problem}; correct it or remove it"));
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let written: Written = match serde_json::from_slice(&bytes) {
        Ok(written) => written,
        Err(error) if error.is_eof() => return Ok(None),
        Err(error) => return Err(bad(error.to_string())),
    };
    let height = match written.height {
        Height::Absent => None,
        Height::Number(height) => u64::try_from(height).ok(),
        Height::Text(height) => height.parse().ok(),
    };
    let height = height.filter(|height| *height > 0).ok_or_else(|| bad("it has no height above zero".to_owned()))?;
    let name = recased(&UpgradeName::new(&written.name).map_err(bad)?);
    if name.as_str() == UpgradeName::GENESIS {
        return Err(bad("genesis is what the first binary is called".to_owned()));
    }
    let sha256 = digest::sha256(&bytes);
    let written_at_ns = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
    let stamp = Stamp { written_at_ns, sha256 };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Some(Info { due: Due { name, height, info: written.info }, stamp, text }))
}

/// Whether there is one at all beside a binary, which is so once that was swapped in.
pub(super) fn is_there(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file())
}
