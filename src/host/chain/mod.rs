//! Chain drivers: what baton has to know about one kind of chain node. A driver never starts, stops
//! or signals the chain node and never touches a link; `effects` does that with what the driver says.
//!
//! [`ChainDriver`] is what a driver says, [`Driver`] whichever of them is configured. To add a chain,
//! follow docs/adding-a-chain.md. `http`, `answer`, `exec`, `files` and `key_reader` are what drivers share.
//!
//! A driver answers questions about its node: its links, what its own files must not say, its health, whether an
//! answer proves it active or keyless, what it signed last, how it is told the sign floor.
//! `tests/host/chain/contract.rs` holds for every driver.

mod answer;
pub mod cometbft;
mod error;
mod exec;
mod files;
pub mod generic;
mod home;
mod http;
mod key_reader;
mod log_text;
pub mod near;
mod owner;
pub mod process;
mod settings;
mod targets;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use crate::base::chain_node::{Activation, Health, KeyState, KeyWork, OnChain, SignFloor};
use crate::base::guard_frame::{LinkSpec, NodeSpec};
use crate::base::ids::SignMark;
use crate::config::{Chain, DriverKind, OnHalt};
use crate::core::fences::floor;
pub use answer::parse_rfc3339;
pub use error::{DriverError, ProbeError};
pub use home::foreign_user;
pub use key_reader::KeyReader;
pub use log_text::last_lines;
pub use near::Reload;
use near::windows::{Pace, Window};
pub use owner::{Endpoint, Owner};
use process::{Misplaced, Process};
use settings::{check_command, check_home, check_settings};
pub use targets::Stamps;

/// What a driver says of its kind of chain node, filled with this host's settings. The suite in
/// tests/host/chain/contract.rs holds every driver to it.
pub trait ChainDriver: Send + Sync {
    /// The settings that it was made from.
    fn chain(&self) -> &Chain;

    /// Every link that makes the node a validator or a standby, with absolute paths.
    fn links(&self) -> &[LinkSpec] {
        &self.chain().links
    }

    /// What reads key files for the driver.
    fn key_reader(&self) -> &KeyReader;

    /// Looks at the files that the chain node will read, and changes nothing. What it returns are warnings, one a line.
    fn inspect(&self) -> impl Future<Output = Result<Vec<String>, DriverError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// The same of what is not in the node's home: the keys that are shared, and what the node would inherit from this
    /// very process.
    fn inspect_outside(&self) -> impl Future<Output = Result<Vec<String>, DriverError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// Makes what may be missing of these files before the node's first start; `inspect` has found them sound.
    fn lay(&self) -> impl Future<Output = Result<(), DriverError>> + Send {
        async { Ok(()) }
    }

    /// What `process`, which is the configured command or one of the node's processes, says of its home and of its
    /// key's place that is not so by `chain.home` and `chain.links`. Reads no file but to follow links.
    fn misplaced(&self, process: &Process) -> Option<Misplaced> {
        process::past_links(self.chain(), process)
    }

    /// Asks the chain node once; the answer or an error comes within `probe.timeout`. Never an older
    /// answer in place of one that does not come.
    fn probe(&self) -> impl Future<Output = Result<Health, ProbeError>> + Send;

    /// Whether [`Health::key`] can be relied on, so that a node that runs can be proven to have no key.
    fn tells_key(&self) -> bool;

    /// Whether the chain node itself signs nothing at or below the mark that [`Self::before_validating`] gave it.
    fn enforces_floor(&self) -> bool {
        false
    }

    /// Makes the chain node's files those of a validator. A node that refuses by itself is handed the mark
    /// at or below which it may sign nothing, and never a lower one than before; for any other node the
    /// head is past the floor. What it returns are warnings.
    fn before_validating(
        &self,
        _floor: &MetFloor,
        _settled: Option<&Health>,
    ) -> impl Future<Output = Result<Vec<String>, DriverError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// Saves what the stopped chain node leaves behind, and makes its files those of a standby.
    fn after_stop(&self) -> impl Future<Output = Result<(), DriverError>> + Send {
        async { Ok(()) }
    }

    /// The exact last mark that the shared key signed on this host, if the chain records one.
    fn last_signed(&self) -> impl Future<Output = Result<Option<SignMark>, DriverError>> + Send {
        files::last_signed(self.chain())
    }

    /// The files that [`Self::last_signed`] reads: what it says changes only when one of them does.
    fn last_signed_files(&self) -> Vec<PathBuf> {
        let chain = self.chain();
        chain.last_signed.iter().map(|record| chain.home.join(&record.file)).collect()
    }

    /// Whether heights are approved ahead of their blocks on this chain, and [`Self::approved`] tells up to which.
    fn tells_approvals(&self) -> bool {
        false
    }

    /// The highest height that the running node has approved up to the answer, or would have with a key; only rises,
    /// also over restarts of the node.
    ///
    /// # Errors
    /// It does not tell. Ask again.
    fn approved(&self) -> impl Future<Output = Result<u64, ProbeError>> + Send {
        async { Ok(0) }
    }

    /// What stands on the chain of the shared key's work, if this chain can be asked for that.
    fn on_chain(&self) -> impl Future<Output = Result<Option<OnChain>, ProbeError>> + Send {
        async { Ok(None) }
    }

    /// Whether [`Self::key_work`] has an answer on this chain.
    fn sees_key_on_chain(&self) -> bool {
        false
    }

    /// What the newest block that this node has shows of the shared key's work.
    fn key_work(&self) -> impl Future<Output = Result<Option<KeyWork>, ProbeError>> + Send {
        async { Ok(None) }
    }

    /// Where the chain is, and the next maintenance window of at least `length`, in which the validator has no block
    /// and no chunk to produce; `None` on a chain that tells of no windows.
    fn maintenance_window(
        &self,
        _length: Duration,
    ) -> impl Future<Output = Option<Result<(Pace, Option<Window>), ProbeError>>> + Send {
        async { None }
    }

    /// The name of the chain, which its signatures carry.
    fn chain_id(&self) -> impl Future<Output = Result<Option<String>, DriverError>> + Send {
        async { Ok(None) }
    }

    /// What has to be remembered of the time before a reload, to tell later whether it was refused.
    fn begin_reload(&self) -> impl Future<Output = Reload> + Send {
        async { Reload::begin(None) }
    }

    /// The node's own word that it refused a reload, and why.
    fn reload_refusal(&self, _reload: &Reload) -> impl Future<Output = Option<String>> + Send {
        async { None }
    }

    /// Which of its own files a node could not read that ended at its start, in which line and why.
    fn broken_file(&self) -> impl Future<Output = Option<String>> + Send {
        async { None }
    }
}

/// A sign floor that a health has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetFloor {
    None,
    /// Exact: the chain may go on in the same height after it.
    Mark(SignMark),
    /// A block that is later than everything signed: its whole height counts as signed.
    Height(u64),
}

/// The configured driver.
pub enum Driver {
    Generic(generic::Generic),
    Near(near::Near),
    CometBft(cometbft::CometBft),
}

/// The one place that tells the drivers apart after [`Driver::new`].
macro_rules! each {
    ($driver:expr, $it:ident => $said:expr) => {
        match $driver {
            Driver::Generic($it) => $said,
            Driver::Near($it) => $said,
            Driver::CometBft($it) => $said,
        }
    };
}

impl Driver {
    /// A driver whose settings make sense by themselves; nothing on disk or network was looked at.
    /// `state_dir` is the member's own, for what a driver keeps between runs of the chain node; `keys` reads key files.
    pub fn new(chain: &Chain, state_dir: &Path, keys: KeyReader) -> Result<Driver, DriverError> {
        check_settings(chain)?;
        Ok(match chain.driver {
            DriverKind::Generic => Driver::Generic(generic::Generic::new(chain, keys)?),
            DriverKind::Near => Driver::Near(near::Near::new(chain, keys)?),
            DriverKind::CometBft => Driver::CometBft(cometbft::CometBft::new(chain, state_dir, keys)?),
        })
    }

    fn chain(&self) -> &Chain {
        each!(self, it => it.chain())
    }

    /// What is switched between standby and validating: absolute paths, what was configured and what
    /// the driver adds.
    pub fn links(&self) -> &[LinkSpec] {
        each!(self, it => it.links())
    }

    /// Looks at the files that the chain node will read, before its first start; makes what may be
    /// missing there (a throwaway standby key). What it returns are warnings, one a line.
    pub async fn check(&self) -> Result<Vec<String>, DriverError> {
        let warnings = self.inspect().await?;
        self.lay().await?;
        Ok(warnings)
    }

    /// Makes what may be missing in files that [`Driver::inspect`] has found sound.
    pub async fn lay(&self) -> Result<(), DriverError> {
        each!(self, it => it.lay().await)
    }

    /// As [`Driver::check`], and changes nothing: the command, the targets of the links, and the node's files.
    pub async fn inspect(&self) -> Result<Vec<String>, DriverError> {
        check_home(self.chain())?;
        check_command(self.chain())?;
        let mut warnings = self.inspect_settings().await?;
        warnings.extend(each!(self, it => it.inspect_outside().await)?);
        warnings.extend(each!(self, it => it.inspect().await)?);
        Ok(warnings)
    }

    /// What can be said of a host on which the chain node's home is not there yet, nor perhaps its program. A warning
    /// tells why `baton run` would refuse.
    pub async fn inspect_without_home(&self) -> Result<Vec<String>, DriverError> {
        let mut warnings = self.inspect_settings().await?;
        warnings.extend(each!(self, it => it.inspect_outside().await)?);
        let (chain, home) = (self.chain(), self.chain().home.display());
        warnings.push(format!(
            "chain.home {home} is not there: what the chain node's files in it say is not checked, and baton run needs it"
        ));
        let below_home = chain.command[0].contains('/') && !Path::new(&chain.command[0]).is_absolute();
        warnings.extend(check_command(chain).err().filter(|_| !below_home).map(|error| error.to_string()));
        Ok(warnings)
    }

    /// What the configuration alone shows.
    pub async fn inspect_settings(&self) -> Result<Vec<String>, DriverError> {
        let chain = self.chain();
        if let Some(found) = each!(self, it => it.misplaced(&Process::configured(chain))) {
            return Err(found.of_setting());
        }
        self.check_targets().await?;
        let script = Process::of_script(chain).and_then(|script| each!(self, it => it.misplaced(&script)));
        Ok(script.map(|found| format!("the script {}: {}", chain.command[0], found.of_setting())).into_iter().collect())
    }

    /// No standby target of a link holds the key of a validating one. Starts a process; worth asking when
    /// [`Driver::target_stamps`] have changed.
    pub async fn check_targets(&self) -> Result<(), DriverError> {
        targets::check(each!(self, it => it.key_reader()), self.links()).await
    }

    /// Blocking.
    pub fn target_stamps(&self) -> Stamps {
        targets::stamps(self.links())
    }

    /// What the running process `pid` of the chain node was told that leads past the links; see
    /// [`ChainDriver::misplaced`]. Blocking.
    pub fn misplaced_process(&self, pid: u32) -> Option<String> {
        let process = Process::running(pid)?;
        let found = each!(self, it => it.misplaced(&process))?;
        Some(format!("process {pid} ({}) of the chain node: {}", process.program(), found.of_process()))
    }

    /// How the guard starts the chain node, as a standby and as a validator alike.
    pub fn node_spec(&self) -> NodeSpec {
        let chain = self.chain();
        NodeSpec {
            argv: chain.command.clone(),
            env: chain.env.clone(),
            cwd: chain.home.clone(),
            log: chain.log.as_ref().map(|log| log.file.clone()),
        }
    }

    /// Where the chain node is probed; `None` when that is by a program.
    pub fn endpoint(&self) -> Option<Endpoint> {
        Endpoint::of(&self.chain().probe.target)
    }

    pub fn activation(&self) -> &Activation {
        &self.chain().activation
    }

    /// Asks the chain node once; the answer or an error comes within `probe.timeout`. Probes of one
    /// driver run one after the other, and the time spent waiting for another counts.
    pub async fn probe(&self) -> Result<Health, ProbeError> {
        each!(self, it => it.probe().await)
    }

    /// Whether an answer can prove that a running node has no validator key.
    pub fn proves_key_by_probe(&self) -> bool {
        each!(self, it => it.tells_key())
    }

    /// Whether this answer of a node that was activated proves that it has taken the key. A node that
    /// cannot tell proves it by answering.
    pub fn proves_active(&self, health: &Health) -> bool {
        !self.proves_key_by_probe() || health.key == KeyState::Loaded
    }

    /// Whether this answer of a running node proves that it has no validator key. For a node that
    /// cannot tell, only its end proves that.
    pub fn proves_keyless(&self, health: &Health) -> bool {
        self.proves_key_by_probe() && health.key == KeyState::Absent
    }

    /// Whether the chain node itself refuses to sign at or below the floor that it was given.
    pub fn enforces_floor(&self) -> bool {
        each!(self, it => it.enforces_floor())
    }

    /// Whether the links may go to validating as far as `floor` is concerned. Where the chain node
    /// itself enforces a floor, `prepare_validator` hands it over and an exact one is met at once.
    pub fn floor_met(&self, floor: &SignFloor, health: &Health) -> bool {
        floor::is_met(floor, health, self.enforces_floor())
    }

    /// Makes the chain node's files such that it signs nothing at or below `floor`; to be called with
    /// the node stopped (or, for a hot activation, without key) and before the links go to validating.
    /// `settled` is the health that met the floor. What it returns are warnings.
    ///
    /// # Errors
    /// When `settled` does not meet the floor, or a file cannot be read or written: then the links
    /// must stay in standby. Calling it again is safe. Await it to its end before the node starts:
    /// dropping it does not stop the file work.
    pub async fn prepare_validator(
        &self,
        floor: &SignFloor,
        settled: Option<&Health>,
    ) -> Result<Vec<String>, DriverError> {
        let met = self.met(floor, settled)?;
        each!(self, it => it.before_validating(&met, settled).await)
    }

    fn met(&self, floor: &SignFloor, settled: Option<&Health>) -> Result<MetFloor, DriverError> {
        match (floor, settled) {
            (SignFloor::None, _) => Ok(MetFloor::None),
            (SignFloor::Mark(mark), None) if self.enforces_floor() => Ok(MetFloor::Mark(*mark)),
            (SignFloor::Mark(mark), Some(health)) if self.floor_met(floor, health) => Ok(MetFloor::Mark(*mark)),
            (SignFloor::BlockAfter(_), Some(health)) if self.floor_met(floor, health) => {
                Ok(MetFloor::Height(health.height))
            }
            (SignFloor::Mark(_) | SignFloor::BlockAfter(_), _) => Err(DriverError::floor_not_met(floor, settled)),
        }
    }

    /// Saves what the stopped chain node leaves behind, and makes its files those of a standby. To be
    /// called whenever it was proven stopped, whatever it ran as, and before it starts again; calling it
    /// again is safe.
    pub async fn after_stop(&self) -> Result<(), DriverError> {
        each!(self, it => it.after_stop().await)
    }

    /// The exact last mark that the shared key signed on this host; true only after the chain node
    /// was proven inactive. `None` when the chain records none: then a successor has to settle.
    pub async fn last_signed(&self) -> Result<Option<SignMark>, DriverError> {
        each!(self, it => it.last_signed().await)
    }

    /// The files that [`Driver::last_signed`] reads; none when the chain records no mark.
    pub fn last_signed_files(&self) -> Vec<PathBuf> {
        each!(self, it => it.last_signed_files())
    }

    /// Whether the running node tells how far it has approved blocks; see [`Driver::approved`].
    pub fn tells_approvals(&self) -> bool {
        each!(self, it => it.tells_approvals())
    }

    /// Whether the other members shall hear how far the node approves while it has the key: with `on_halt = "replica"`.
    pub fn gossips_approvals(&self) -> bool {
        self.tells_approvals() && self.chain().on_halt == OnHalt::Replica
    }

    /// The highest height that the running node has approved, or would have with a key.
    ///
    /// # Errors
    /// It does not tell within half a second.
    pub async fn approved(&self) -> Result<u64, ProbeError> {
        each!(self, it => it.approved().await)
    }

    /// What stands on the chain of the shared key's work; `None` when this chain is not asked for that.
    pub async fn on_chain(&self) -> Result<Option<OnChain>, ProbeError> {
        each!(self, it => it.on_chain().await)
    }

    /// Whether this chain can be asked what the shared key signs, wherever that is.
    pub fn sees_key_on_chain(&self) -> bool {
        each!(self, it => it.sees_key_on_chain())
    }

    /// What the newest block of this node shows of the shared key's work; `None` when the chain does not show it.
    pub async fn key_work(&self) -> Result<Option<KeyWork>, ProbeError> {
        each!(self, it => it.key_work().await)
    }

    /// The name of the chain, which its signatures carry; `None` when the driver does not know such a name.
    pub async fn chain_id(&self) -> Result<Option<String>, DriverError> {
        each!(self, it => it.chain_id().await)
    }

    /// To be called just before the node is signalled to take notice of its links.
    pub async fn begin_reload(&self) -> Reload {
        each!(self, it => it.begin_reload().await)
    }

    /// The node's own word that it refused the reload that began with `reload`, and why. Worth asking once
    /// the reload has taken longer than it should.
    pub async fn reload_refusal(&self, reload: &Reload) -> Option<String> {
        each!(self, it => it.reload_refusal(reload).await)
    }

    /// Which of its own files a node could not read that ended at its start, in which line and why.
    pub async fn broken_file(&self) -> Option<String> {
        each!(self, it => it.broken_file().await)
    }

    /// Where the chain is, and the next maintenance window of at least `length`, if the chain knows of one. `None`: it
    /// tells of no windows.
    pub async fn maintenance_window(&self, length: Duration) -> Option<Result<(Pace, Option<Window>), ProbeError>> {
        each!(self, it => it.maintenance_window(length).await)
    }

    /// Runs a command of `Activation::Exec` to its end with exit code 0. On timeout, and when the
    /// returned future is dropped, the command and its process group are killed.
    pub async fn run_exec(&self, argv: &[String], timeout: Duration) -> Result<(), DriverError> {
        exec::run_activation(self.chain(), argv, timeout).await
    }
}
