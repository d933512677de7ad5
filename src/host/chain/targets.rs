//! Whether what the links name is what it should be: no standby target holds the key of a validating one. A copy of the
//! validator key as standby target makes every standby sign, for as long as nobody notices.
//!
//! The files are compared by a helper process (`key_reader.rs`); here is only what is compared with what, and how an
//! operator is told. `Stamps` tell cheaply whether there is anything to compare again.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::DriverError;
use super::key_reader::KeyReader;
use crate::base::guard_frame::LinkSpec;

/// Which files the targets are, and when each changed last; equal while nobody has replaced or written to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamps(Vec<Option<Stamp>>);

/// Device, inode, length, and the last change in seconds and nanoseconds, which no copy of an older time hides.
type Stamp = (u64, u64, u64, i64, i64);

/// Blocking, for as long as a look at a directory takes.
pub fn stamps(links: &[LinkSpec]) -> Stamps {
    let stamp = |file: &Path| {
        let meta = std::fs::metadata(file).ok()?;
        Some((meta.dev(), meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec()))
    };
    let targets = links.iter().flat_map(|spec| [Some(&spec.validating), spec.standby.as_ref()]);
    Stamps(targets.map(|target| stamp(target?)).collect())
}

/// No standby target of `links` holds the key of a validating target, whatever the files are called.
///
/// # Errors
/// Names both files, or why they could not be compared.
pub async fn check(reader: &KeyReader, links: &[LinkSpec]) -> Result<(), DriverError> {
    let standbys = || links.iter().filter_map(|spec| Some((spec, spec.standby.as_ref()?)));
    if standbys().next().is_none() {
        return Ok(());
    }
    let validating = links.iter().map(|spec| spec.validating.clone());
    let files: Vec<PathBuf> = validating.chain(standbys().map(|(_, standby)| standby.clone())).collect();
    for (one, other) in reader.same(&files).await? {
        // Two targets of one kind may be the same: the same file in two places of the home.
        let (Some(holder), Some(index)) = (links.get(one), other.checked_sub(links.len())) else { continue };
        if let Some((spec, standby)) = standbys().nth(index) {
            return Err(DriverError::setting("chain.links", sentence(holder, spec, standby, one == 0)));
        }
    }
    Ok(())
}

fn sentence(holder: &LinkSpec, spec: &LinkSpec, standby: &Path, is_validator_key: bool) -> String {
    let (standby, link, validating) = (standby.display(), spec.link.display(), holder.validating.display());
    if is_validator_key {
        return format!(
            "the standby target {standby} of link {link} is the validator key {validating} once more: every standby would \
             sign; remove that file, and name one with another key, or none, in `standby`"
        );
    }
    let of = match holder.link == spec.link {
        true => "its validating target".to_owned(),
        false => format!("the validating target of link {}", holder.link.display()),
    };
    format!(
        "the standby target {standby} of link {link} holds the same key as {validating}, {of}: a standby would have what is \
         the holder's alone; put another key there"
    )
}
