//! What can be wrong with a configuration. Every variant is one line that names the key, where it
//! was written and what to write instead; the command line prints it as it is.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::base::timing::TimingError;

/// Where a key got its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    File { file: PathBuf, line: usize },
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { file, line } => write!(f, "{}:{line}", file.display()),
            Origin::Variable(name) => f.write_str(name),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {reason}; name the file with --config FILE or BATON_CONFIG", file.display())]
    Unreadable { file: PathBuf, reason: io::Error },
    #[error("{at} is not TOML: {problem}")]
    Syntax { at: Origin, problem: String },
    #[error("unknown key {key} in {at}; {hint}")]
    UnknownKey { key: String, at: Origin, hint: String },
    #[error("unknown variable {name}; {hint}")]
    UnknownVariable { name: String, hint: String },
    #[error("{name} cannot override {key}, which is a list or a table; write it in {}", file.display())]
    NotOverridable { name: String, key: String, file: PathBuf },
    #[error("missing key {key} in {}; for example: {example}", file.display())]
    Missing { key: String, file: PathBuf, example: String },
    /// The value is there and cannot be used.
    #[error("{key} in {at}: {problem}")]
    Bad { key: String, at: Origin, problem: String },
    #[error(transparent)]
    Timing(#[from] TimingError),
    #[error("key {} cannot be read: {reason}; put the validator key there, or correct chain.links", file.display())]
    KeyUnreadable { file: PathBuf, reason: io::Error },
    #[error("key {} is not a regular file; correct chain.links", file.display())]
    KeyNotAFile { file: PathBuf },
    #[error("key {f} has mode {mode:04o}, open to group or others; run: chmod 600 {f}", f = file.display())]
    KeyOpenToOthers { file: PathBuf, mode: u32 },
}
