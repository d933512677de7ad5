//! Which configuration a command reads, and with which variables.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, bad_input};
use crate::config::{CREDENTIALS_DIRECTORY, Config};

pub(super) const DEFAULT_CONFIG: &str = "/etc/baton/baton.toml";
/// Where systemd puts the credentials of baton.service.
pub(super) const USUAL_CREDENTIALS: &str = "/run/credentials/baton.service";

#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// The configuration [default: BATON_CONFIG, else /etc/baton/baton.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl ConfigFile {
    pub(super) fn path(&self) -> PathBuf {
        let named = self.config.clone().or_else(|| std::env::var_os("BATON_CONFIG").map(PathBuf::from));
        named.unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG))
    }

    pub(super) fn load(&self) -> Result<Config, Failure> {
        Config::load(&self.path(), variables()).map_err(bad_input)
    }

    /// For a command that uses no key and may be given outside of the service, which alone is told where its
    /// credentials are.
    pub(super) fn load_without_keys(&self) -> Result<Config, Failure> {
        let usual = (CREDENTIALS_DIRECTORY.to_owned(), USUAL_CREDENTIALS.to_owned());
        Config::load(&self.path(), std::iter::once(usual).chain(variables())).map_err(bad_input)
    }
}

/// This process's variables that are UTF-8.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
