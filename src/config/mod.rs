//! The configuration as the rest of baton sees it: complete, checked, without defaults to look up.
//! Reading, overriding and checking it is the business of this folder; nothing else parses TOML.

mod chain_section;
mod credentials;
mod daemon_variables;
mod error;
mod file;
mod hooks_section;
mod key_list;
mod keys;
mod read;
mod schema;
mod sections;
mod signer_section;
pub mod template;
pub mod units;
mod upgrade_section;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use credentials::CREDENTIALS_DIRECTORY;
pub use error::{ConfigError, Origin};
pub use hooks_section::check_hooks;
pub use key_list::{Absent, KEYS, Key};
pub use keys::check_keys;
pub use sections::{PRIORITY_MAX, SNAPSHOT_EVERY, check_address, check_id, is_loopback};

use crate::base::chain_node::Activation;
use crate::base::guard_frame::LinkSpec;
use crate::base::hooks::HookEvent;
use crate::base::ids::{NodeId, Role};
use crate::base::privval_address::PrivvalAddress;
use crate::base::signing::Custody;
use crate::base::timing::Timing;

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub id: NodeId,
    pub state_dir: PathBuf,
    /// Guard and admin sockets.
    pub run_dir: PathBuf,
    /// A disk of this host that does not answer for longer hangs.
    pub disk_timeout: Duration,
    /// So much of what the core is told and answers is kept; 0 keeps nothing.
    pub record_bytes: u64,
    /// Applied entries between two snapshots.
    pub snapshot_every: u64,
    /// This host never forms a cluster: with an empty store it waits until it is added to one.
    pub join: bool,
    pub cluster: Cluster,
    pub timing: Timing,
    /// `timing.lease` of members of an earlier version, which do not state theirs.
    pub older_members_lease: Option<Duration>,
    /// Absent only when every address is loopback, or when `insecure`.
    pub tls: Option<Tls>,
    /// Whether somebody has written out that the members do without TLS.
    pub insecure: bool,
    /// Absent on an arbiter.
    pub chain: Option<Chain>,
    /// Where /metrics, /health, /ready and /node-pid are served; `None` serves nothing.
    pub metrics_listen: Option<SocketAddr>,
    /// Fed by the guard while this host holds.
    pub watchdog: Option<PathBuf>,
    pub hooks: Hooks,
    /// What is allowed and probably not meant, a line each, for the log.
    pub warnings: Vec<String>,
}

impl Config {
    /// The configuration in `path` with the `BATON_SECTION_KEY` variables of `env` in its place,
    /// checked as a whole. Relative paths are counted from the directory of the file, paths of keys that
    /// begin with `$CREDENTIALS_DIRECTORY/` from the one that `env` names so.
    ///
    /// # Errors
    /// The first mistake, in one line. Nothing but `path` was read; `check_keys` looks at the keys.
    pub fn load(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|reason| ConfigError::Unreadable { file: path.to_owned(), reason })?;
        Config::read(path, &text, env)
    }

    /// As `load`, of a `text` that `path` is going to have.
    pub fn read(path: &Path, text: &str, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
        let mut document = file::Document::parse(path, text)?;
        document.override_from(env)?;
        sections::config(&document)
    }

    /// The chain node gets `arguments` behind those of its command.
    ///
    /// # Errors
    /// There is no chain node.
    pub fn append_to_command(&mut self, arguments: Vec<String>) -> Result<(), String> {
        if arguments.is_empty() {
            return Ok(());
        }
        let Some(chain) = &mut self.chain else {
            return Err(format!("{} is an arbiter and runs no chain node; leave out what follows --", self.id));
        };
        chain.command.extend(arguments);
        if let Some(upgrade) = &mut chain.upgrade {
            upgrade.skip_heights = upgrade_section::skip_heights(&chain.command);
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    pub name: String,
    pub listen: SocketAddr,
    pub members: Vec<Member>,
    /// Whether a returning preferred member takes the baton back by itself, by handover.
    pub failback: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub id: NodeId,
    /// `host:port` that the other members connect to.
    pub addr: String,
    pub role: Role,
    /// Higher is preferred.
    pub priority: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Commands of the operator's that are told what has happened. None of them decides anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Of an event without one, nobody is told.
    pub commands: BTreeMap<HookEvent, HookCommand>,
    /// From the start of one to SIGKILL.
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookCommand {
    pub key: String,
    pub at: Origin,
    /// Not empty.
    pub argv: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    Generic,
    Near,
    CometBft,
}

/// A file of its own for what the chain node says, and how much of it stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainLog {
    pub file: PathBuf,
    /// From here on its older part is set aside.
    pub bytes_max: u64,
    /// Older parts that stay beside it; at least one.
    pub kept: u32,
}

impl ChainLog {
    /// With the usual bounds.
    pub fn at(file: PathBuf) -> ChainLog {
        ChainLog { file, bytes_max: 64 << 20, kept: 4 }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    pub driver: DriverKind,
    pub home: PathBuf,
    /// argv of the chain node.
    pub command: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// Where the node's standard output and error go; `None` inherits.
    pub log: Option<ChainLog>,
    /// From SIGTERM to SIGKILL.
    pub stop_timeout: Duration,
    /// Largest assumed difference between this host's wall clock and a block header's.
    pub clock_skew: Duration,
    pub on_halt: OnHalt,
    /// With [`OnHalt::Replica`]: how long the chain stands still before gossip's mark is taken.
    pub halt_after: Duration,
    /// Whether links go through `run_dir`, so that a reboot leaves no key. The targets below are the
    /// configured ones in either case.
    pub keys_on_tmpfs: bool,
    /// Absolute paths.
    pub links: Vec<LinkSpec>,
    pub activation: Activation,
    pub probe: Probe,
    pub last_signed: Option<LastSigned>,
    /// For driver near with restart activation alone.
    pub near_addrs: Option<NearAddrs>,
    /// `None`: the command is run as it stands.
    pub upgrade: Option<Upgrade>,
    /// `None`: the holder's chain node has the key.
    pub signer: Option<Signer>,
}

impl Chain {
    pub fn custody(&self) -> Custody {
        if self.signer.is_some() { Custody::Signer } else { Custody::Links }
    }
}

/// The validator's key where no chain node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Opened by `baton-signer` alone.
    pub key: PathBuf,
    /// The unix socket at which the chain node waits for its signer.
    pub node: PathBuf,
    /// Chain nodes that baton does not run, and that ask for signatures too. Each address once.
    pub sentries: Vec<PrivvalAddress>,
}

/// How binaries of the chain node follow one another, in cosmovisor's layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Upgrade {
    /// Has `cosmovisor/` and `data/` in it.
    pub root: PathBuf,
    /// The binary's name in every `bin/`.
    pub name: String,
    pub allow_download: bool,
    /// Whether the chain node, and this coordinator with it, goes on after an upgrade.
    pub restart_after: bool,
    /// Between two looks at `upgrade-info.json`.
    pub poll: Duration,
    pub backup: Backup,
    /// Where backups go.
    pub backup_dir: PathBuf,
    pub preupgrade_retries: u32,
    /// Limits a download, and what is unpacked from it.
    pub download_bytes_max: u64,
    /// From `--unsafe-skip-upgrades` in the chain node's command.
    pub skip_heights: BTreeSet<u64>,
    /// Where the chain node runs and what is added to its environment: `pre-upgrade` gets the same.
    pub home: PathBuf,
    pub env: BTreeMap<String, String>,
}

/// What is done with the data directory before an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backup {
    Copy,
    /// Files that are never written again are hard-linked, the others copied.
    Links,
    None,
}

/// What neard's `network.addr` is in either role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NearAddrs {
    pub validating: SocketAddr,
    pub standby: SocketAddr,
}

/// What to do when the chain stands still because this validator is needed for it to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnHalt {
    Wait,
    Replica,
}

/// How to ask the chain node for its health.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    pub target: ProbeTarget,
    /// Between two probes of a settled node.
    pub every: Duration,
    /// For one answer.
    pub timeout: Duration,
    /// Failed probes in a row until the node counts as unhealthy.
    pub failures: u32,
    /// A node with fewer peers is unfit to hold the baton.
    pub min_peers: Option<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ProbeTarget {
    /// GET, a JSON answer, values by JSON pointer.
    Http { url: String, pointers: Pointers },
    /// POST of a JSON-RPC 2.0 batch, and of another for the calls that need results of the first; the
    /// pointers go into an object of `method: result`.
    JsonRpc { url: String, calls: Vec<RpcCall>, pointers: Pointers },
    /// The exit code says synced (0) or not.
    Exec { command: Vec<String> },
    /// A connection is accepted.
    Tcp { addr: String },
}

/// One call of a JSON-RPC batch.
#[derive(Clone, Debug, PartialEq)]
pub struct RpcCall {
    pub method: String,
    /// An array or an object, passed on as it is, but that a text of `$` and a JSON pointer stands for
    /// what the results of the other calls have there.
    pub params: serde_json::Value,
}

/// The pointer in a parameter that stands for an earlier result.
pub fn reference(param: &serde_json::Value) -> Option<&str> {
    param.as_str()?.strip_prefix('$').filter(|pointer| pointer.starts_with('/'))
}

/// JSON pointers (RFC 6901) into a status answer, and what to make of the values there. A driver with a
/// fixed status shape fills them in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pointers {
    /// True while the node is still catching up: a boolean, 0/1, or an object for true.
    pub syncing: Option<String>,
    /// A number, or a string of a decimal or 0x-hexadecimal number.
    pub height: Option<String>,
    pub target: Option<TargetHeight>,
    /// RFC 3339, or seconds since 1970.
    pub head_time: Option<String>,
    /// A number, or an array to count.
    pub peers: Option<String>,
    /// Present and not null, false or empty when the validator key is loaded.
    pub key: Option<String>,
    /// When the node names its key at `key` instead: which name is which.
    pub key_names: Option<KeyNames>,
    pub version: Option<String>,
}

/// The height that the node is on its way to.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetHeight {
    /// To the same kinds of value as `height`.
    pub pointer: String,
    /// A node that is further below it is syncing.
    pub behind_max: u32,
}

/// Any other name proves nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyNames {
    pub validating: String,
    pub standby: String,
}

/// A file in which the chain node records what it signed last, read after it was proven inactive.
#[derive(Clone, Debug, PartialEq)]
pub struct LastSigned {
    pub file: PathBuf,
    pub height: String,
    pub round: Option<String>,
    pub step: Option<String>,
}
