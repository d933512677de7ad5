//! One node process from start to end: reads the home, binds the sockets, runs the slot timer and answers signals.
//! SIGHUP reads the validator key again; SIGTERM and SIGINT end the process at once, and so does a halt for an upgrade.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use super::genesis::{Genesis, GenesisError};
use super::gossip::{self, Shared};
use super::keys::{KeyError, KeyPair};
use super::node::{Node, NodeConfig, Now};
use super::rpc;
use super::signer::{SignError, Signer, load_validator_key};
use super::upgrades::{UpgradeOptions, Upgrades};
use crate::judge::signlog::{LogError, SignLog};

/// The flags of `simchain run`.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Holds `validator_key.json` (may be absent), `node_key.json` (made when absent) and `data/`.
    pub home: PathBuf,
    pub genesis: PathBuf,
    /// The name in the signature log.
    pub host: String,
    pub rpc: SocketAddr,
    pub p2p: SocketAddr,
    pub peers: Vec<SocketAddr>,
    pub sign_log: PathBuf,
    /// As `/status` tells it.
    pub version: String,
    pub upgrades: UpgradeOptions,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("create {}: {source}", path.display())]
    Home { path: PathBuf, source: std::io::Error },
    #[error("listen on {addr} for {purpose}: {source}")]
    Listen { addr: SocketAddr, purpose: &'static str, source: std::io::Error },
    #[error("start: {0}")]
    Start(#[from] std::io::Error),
    /// The node ran until the chain wanted another binary.
    #[error("{0}")]
    Halted(String),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// From the start, or from a halt for an upgrade; a node that runs does not give up otherwise.
pub fn run(options: RunOptions) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run_node(options))
}

async fn run_node(options: RunOptions) -> Result<(), RunError> {
    // First, so that an early SIGHUP does not kill the process.
    let signals = Signals {
        hangup: signal(SignalKind::hangup())?,
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    let node = open_node(&options)?;
    let p2p = listen(options.p2p, "p2p").await?;
    let rpc = listen(options.rpc, "rpc").await?;

    spawn_local(gossip::accept(p2p, node.clone()));
    spawn_local(rpc::serve(rpc, node.clone()));
    for addr in options.peers.iter().filter(|addr| **addr != options.p2p) {
        spawn_local(gossip::dial(*addr, node.clone()));
    }
    spawn_local(announce(node.clone()));
    spawn_local(keep_slots(node.clone()));
    signals.serve(node).await
}

fn open_node(options: &RunOptions) -> Result<Shared, RunError> {
    let genesis = Rc::new(Genesis::load(&options.genesis)?);
    let data = options.home.join("data");
    std::fs::create_dir_all(&data).map_err(|source| RunError::Home { path: data.clone(), source })?;
    let key_path = options.home.join("validator_key.json");
    let key = load_validator_key(&key_path, &genesis)?;
    let node_key = KeyPair::load_or_generate(&options.home.join("node_key.json"), "node")?;
    let signer = Signer::open(&data, key, SignLog::open(&options.sign_log, &options.host)?)?;
    let config = NodeConfig {
        host: options.host.clone(),
        node_key: node_key.public_key,
        key_path,
        data,
        version: options.version.clone(),
        configured_peers: options.peers.iter().filter(|addr| **addr != options.p2p).count(),
    };
    let upgrades = Upgrades::new(options.upgrades.clone());
    Ok(Rc::new(RefCell::new(Node::new(config, genesis, signer, upgrades, Now::read()))))
}

async fn listen(addr: SocketAddr, purpose: &'static str) -> Result<TcpListener, RunError> {
    TcpListener::bind(addr).await.map_err(|source| RunError::Listen { addr, purpose, source })
}

async fn announce(node: Shared) {
    loop {
        sleep(gossip::ANNOUNCE_EVERY).await;
        node.borrow_mut().announce();
    }
}

/// Wakes at the start of every slot. A slot that the machine slept through is left out, and none is begun twice,
/// whatever the wall clock does.
async fn keep_slots(node: Shared) {
    let genesis = node.borrow().genesis.clone();
    let mut last = 0;
    loop {
        let now = Now::read();
        let slot = genesis.slot_at(now.wall);
        if slot > last {
            last = slot;
            node.borrow_mut().on_slot(slot, now);
        }
        let now = Now::read();
        let to_next = genesis.time_of(genesis.slot_at(now.wall) + 1).since(now.wall);
        // A stepped wall clock is noticed within a slot.
        sleep(to_next.clamp(Duration::from_micros(1), genesis.slot)).await;
    }
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn serve(mut self, node: Shared) -> Result<(), RunError> {
        let ends = node.borrow().ends.clone();
        loop {
            let asked_to_end = tokio::select! {
                _ = self.hangup.recv() => {
                    node.borrow_mut().reload_key();
                    false
                }
                _ = self.terminate.recv() => true,
                _ = self.interrupt.recv() => true,
                _ = ends.notified() => {
                    let halted = node.borrow().halted.clone();
                    return halted.map_or(Ok(()), |why| Err(RunError::Halted(why)));
                }
            };
            if asked_to_end && !node.borrow().pretend.ignores_term {
                return Ok(());
            }
            if asked_to_end {
                eprintln!("told to end, which it pretends not to hear");
            }
        }
    }
}
