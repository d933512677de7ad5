//! What a driver may know of a validator's key: its public half.
//!
//! Invariant: no byte of a validator's key file comes into this process. A helper, `baton-guard public-key`, opens the
//! file, answers with the public half and ends.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::process::Command;
use tokio::time::timeout;

use super::DriverError;
use crate::base::public_key::{CometBftKey, KeyFormat, NearKey};
use crate::base::realtime::polled_without_priority;
use crate::base::service_manager::VARIABLES;

/// It takes milliseconds; this is for a disk that hangs.
const ANSWER_BOUND: Duration = Duration::from_secs(10);

/// Asks the helper.
#[derive(Clone, Debug)]
pub struct KeyReader {
    binary: PathBuf,
}

impl KeyReader {
    /// `binary` is that of the guard.
    pub fn new(binary: impl Into<PathBuf>) -> KeyReader {
        KeyReader { binary: binary.into() }
    }

    pub async fn near(&self, file: &Path) -> Result<NearKey, DriverError> {
        self.ask(KeyFormat::Near, file).await
    }

    pub async fn cometbft(&self, file: &Path) -> Result<CometBftKey, DriverError> {
        self.ask(KeyFormat::CometBft, file).await
    }

    /// Pairs of places in `files` that hold the same key, the lower place first; see `host/guard/same_key.rs`.
    pub async fn same(&self, files: &[PathBuf]) -> Result<Vec<(usize, usize)>, DriverError> {
        let uncompared =
            |reason: String| DriverError::setting("chain.links", format!("its keys are not compared: {reason}"));
        let arguments = std::iter::once(OsStr::new("same-key")).chain(files.iter().map(|file| file.as_os_str()));
        let output = self.answer(arguments).await.map_err(uncompared)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(uncompared(said.trim_end().trim_start_matches("baton-guard: ").to_owned()));
        }
        serde_json::from_slice(&output.stdout).map_err(|_| uncompared(self.of_another_version()))
    }

    async fn ask<T: DeserializeOwned>(&self, format: KeyFormat, file: &Path) -> Result<T, DriverError> {
        let helper = self.binary.display();
        let arguments = ["public-key", "--format", format.as_str()].map(OsStr::new).into_iter();
        let output = self.answer(arguments.chain([file.as_os_str()])).await.map_err(|reason| unread(file, reason))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let reason = said.trim_end().strip_prefix(&format!("baton-guard: {}: ", file.display()));
            return Err(match reason {
                Some(reason) => unread(file, reason),
                None => unread(file, format!("{helper}: {}: {}", output.status, super::http::excerpt(&output.stderr))),
            });
        }
        serde_json::from_slice(&output.stdout).map_err(|_| unread(file, self.of_another_version()))
    }

    async fn answer<'a>(&self, arguments: impl Iterator<Item = &'a OsStr>) -> Result<Output, String> {
        let helper = self.binary.display();
        let mut command = Command::new(&self.binary);
        VARIABLES.iter().for_each(|name| _ = command.env_remove(name));
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        match timeout(ANSWER_BOUND, polled_without_priority(command.output())).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(error)) => Err(format!("{helper} cannot be started: {error}; install it beside baton")),
            Err(_) => Err(format!("no answer of {helper} within {ANSWER_BOUND:?}")),
        }
    }

    fn of_another_version(&self) -> String {
        format!("{} gave no answer of this version; install it anew beside baton", self.binary.display())
    }
}

fn unread(file: &Path, reason: impl ToString) -> DriverError {
    DriverError::file("read the public key from", file, reason)
}
