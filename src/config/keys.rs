//! Whether the validator's key files can be used and are closed to everyone else. Run once at start
//! and by `baton check`, before any link or process is touched. What stands in a link's own place is
//! checked where links are changed (`key_links.rs`).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::Config;
use super::error::ConfigError;
use crate::base::private_file::is_open_to_others;

/// Every `validating` target of `config` is a readable file that neither group nor others may use.
///
/// # Errors
/// Names the first file that is not, and what to do. Nothing was changed.
pub fn check_keys(config: &Config) -> Result<(), ConfigError> {
    let links = config.chain.iter().flat_map(|chain| &chain.links).map(|link| &link.validating);
    let of_signer = config.chain.iter().filter_map(|chain| chain.signer.as_ref()).map(|signer| &signer.key);
    links.chain(of_signer).try_for_each(|file| check_key(file))
}

fn check_key(file: &Path) -> Result<(), ConfigError> {
    let unreadable = |reason| ConfigError::KeyUnreadable { file: file.to_owned(), reason };
    let found = std::fs::metadata(file).map_err(unreadable)?;
    if !found.is_file() {
        return Err(ConfigError::KeyNotAFile { file: file.to_owned() });
    }
    if is_open_to_others(file, &found) {
        let mode = found.permissions().mode() & 0o7777;
        return Err(ConfigError::KeyOpenToOthers { file: file.to_owned(), mode });
    }
    // Asked for and not tried: this process opens no key.
    accessat(CWD, file, Access::READ_OK, AtFlags::EACCESS).map_err(|error| unreadable(error.into()))
}
