//! What baton is compared with where blocks are counted: one CometBFT that has the key in a file and signs for itself,
//! started again by its service manager half a second after it was lost.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Contender, Fault, Round, gap_since};
use crate::chains::cometbft;
use crate::hosts::faults::{self, What};
use crate::judge::measure::Watch;
use crate::net::{ChainKind, Net, Shape, Usage};
use crate::process::launch;
use crate::runs::demo::Pair;

/// As `RestartSec=500ms`.
const RESTARTED_AFTER: Duration = Duration::from_millis(500);
const STEADY_SIGNATURES: usize = 12;
/// A node that comes back has to meet its peers again.
const STEADY_BOUND: Duration = Duration::from_secs(60);

/// # Errors
/// Another chain, or a fault of what a single node does not have.
pub(super) fn only(faults: Vec<Fault>, chain: ChainKind) -> Result<Vec<Fault>> {
    if chain != ChainKind::Cometbft {
        bail!(Usage("--custody single is one node of CometBFT: give --chain cometbft".into()));
    }
    match faults[..] {
        [] | [Fault::Node] => Ok(vec![Fault::Node]),
        _ => bail!(Usage("--custody single is measured with --faults node alone: it has nothing else to lose".into())),
    }
}

/// The node of the first host has the key; the other hosts run nothing.
pub(super) struct Single {
    net: Net,
    host: String,
}

impl Single {
    pub fn up(dir: &Path, shape: Shape) -> Result<Single> {
        let net = launch::prepare(dir, shape)?;
        let host = net.signers().next().context("a network has hosts")?.id.clone();
        launch::start_wires(&net)?;
        launch::start_validators(&net)?;
        cometbft::give_shared_key(&net, &host)?;
        // Logs that a watch can be kept over.
        for other in net.signers() {
            std::fs::write(net.node_log(&other.id), "").with_context(|| format!("begin the log of {}", other.id))?;
        }
        let single = Single { net, host };
        single.start()?;
        Ok(single)
    }

    fn start(&self) -> Result<()> {
        let command = cometbft::node_command(&self.net, &self.net.chain_home(&self.host));
        launch::spawn(&self.net, command, &self.host, &self.net.node_log(&self.host), None)
    }
}

impl Contender for Single {
    fn name(&self) -> &'static str {
        "single"
    }

    fn net(&self) -> &Net {
        &self.net
    }

    fn await_steady(&self) -> Result<Pair> {
        Watch::begin(&self.net)?.await_by(&self.host, STEADY_SIGNATURES, STEADY_BOUND)?;
        Ok(Pair { holder: self.host.clone(), standby: String::new() })
    }

    fn strike(&self, fault: Fault, _pair: &Pair, watch: &mut Watch) -> Result<Duration> {
        if fault != Fault::Node {
            bail!("a single node has no {}", fault.name());
        }
        let targets = faults::find(&self.net, &self.host, What::Node)?;
        let at = watch.now_ns();
        faults::kill(&targets)?;
        std::thread::sleep(RESTARTED_AFTER);
        self.start()?;
        gap_since(watch, at, "nobody")
    }

    fn await_recovered(&self) -> Result<()> {
        self.await_steady().map(drop)
    }

    fn with_diagnosis(&self, result: Result<Round>) -> Result<Round> {
        launch::with_diagnosis(&self.net, result)
    }
}
