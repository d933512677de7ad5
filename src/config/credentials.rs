//! Paths of key files, which may begin with systemd's directory of credentials: the one variable that a value of the
//! configuration may hold.

use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::file::Document;

/// Set by systemd for a service with `LoadCredential=` or `LoadCredentialEncrypted=`.
pub const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";
const SPELLINGS: [&str; 2] = ["$CREDENTIALS_DIRECTORY", "${CREDENTIALS_DIRECTORY}"];

impl Document {
    /// As `path`, of a file that systemd may hand over as a credential.
    pub(super) fn key_path(&self, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        match text.starts_with('$') {
            true => self.credential(key, &text).map(Some),
            false => self.path(key),
        }
    }

    pub(super) fn required_key_path(&self, key: &str) -> Result<PathBuf, ConfigError> {
        self.required(key, self.key_path(key)?)
    }

    fn credential(&self, key: &str, text: &str) -> Result<PathBuf, ConfigError> {
        let name = SPELLINGS.iter().find_map(|variable| text.strip_prefix(variable)?.strip_prefix('/'));
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            let problem = format!(
                "{text:?} has a variable that is not known; write \"$CREDENTIALS_DIRECTORY/NAME\" or the path in full"
            );
            return Err(self.bad(key, problem));
        };
        match self.credentials() {
            Some(dir) if Path::new(dir).is_absolute() => Ok(Path::new(dir).join(name)),
            Some(dir) => Err(self.bad(key, format!("CREDENTIALS_DIRECTORY is {dir:?}, which is no absolute path"))),
            None => {
                let problem = format!(
                    "CREDENTIALS_DIRECTORY is not set; systemd sets it for a service with LoadCredential={name}:FILE, and \
                     by hand CREDENTIALS_DIRECTORY=DIR does"
                );
                Err(self.bad(key, problem))
            }
        }
    }

    /// A path that no credential has a place in.
    pub(super) fn refuse_variable(&self, key: &str, text: &str) -> Result<(), ConfigError> {
        if !text.starts_with('$') {
            return Ok(());
        }
        let problem = format!(
            "{text:?} begins with a variable; $CREDENTIALS_DIRECTORY/ may stand in tls and in the targets of chain.links \
             alone, write the path in full"
        );
        Err(self.bad(key, problem))
    }
}
