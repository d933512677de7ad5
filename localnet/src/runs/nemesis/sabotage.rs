//! A violation on purpose, to see that the nemesis sees one. Nothing in baton can be told to break its promise; these
//! are what no fence prevents: somebody has the key and starts a second chain node with it by hand, beside the baton of
//! a host; and nobody is left who could sign.

use std::fs;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::SIGN_BOUND;
use crate::chains::sim;
use crate::hosts::faults::{self, What};
use crate::judge::measure::Watch;
use crate::net::ports;
use crate::net::{ChainKind, Net, Usage};
use crate::process::launch;
use crate::process::procs::signal;
use crate::runs::demo::Pair;

/// Signatures of either host while both nodes have the key.
const SIDE_BY_SIDE: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// On the standby's host, a chain node with the key that baton knows nothing of
    KeyByHand,
    /// Every process of every host is stopped until the round is over
    Silence,
}

impl Sabotage {
    /// # Errors
    /// It cannot be done on this chain.
    pub fn check(self, chain: ChainKind) -> Result<()> {
        match (self, chain) {
            (Sabotage::KeyByHand, ChainKind::Sim) | (Sabotage::Silence, _) => Ok(()),
            (Sabotage::KeyByHand, ChainKind::Cometbft) => {
                bail!(Usage("--sabotage key-by-hand is for the sim chain; leave out --chain cometbft".into()))
            }
        }
    }

    /// Both hosts have signed, one beside the other, and the second node is gone; or nobody signs any more.
    pub fn commit(self, net: &Net, pair: &Pair, watch: &mut Watch) -> Result<()> {
        match self {
            Sabotage::KeyByHand => key_by_hand(net, pair, watch),
            Sabotage::Silence => {
                net.hosts.iter().try_for_each(|host| signal(&faults::of_host(net, &host.id, What::Host), Signal::STOP))
            }
        }
    }
}

fn key_by_hand(net: &Net, pair: &Pair, watch: &mut Watch) -> Result<()> {
    let host = net.host(&pair.standby)?;
    let home = net.host_dir(&host.id).join("by-hand");
    sim::write_key_home(net, &home)?;
    let [rpc, p2p] = ports::pick(&net.dir, 2)?[..] else { bail!("two ports were asked for") };
    let command = sim::node_command(net, &host.id, &home, (host.addr, rpc).into(), (host.addr, p2p).into());
    let namespace = launch::namespace_of(net, &host.id)?;
    launch::spawn(net, command, &host.id, &home.join("node.log"), namespace.as_deref())?;
    eprintln!("nemesis: sabotage: {} runs a node with the key of {} by hand", pair.standby, pair.holder);
    let by_hand = watch.await_by(&pair.standby, SIDE_BY_SIDE, SIGN_BOUND);
    let by_holder = watch.await_more_by(&pair.holder, SIDE_BY_SIDE, SIGN_BOUND);
    let mut nodes = faults::of_host(net, &pair.standby, What::Node);
    nodes.retain(|node| node.argv.iter().any(|argument| *argument == home.to_string_lossy()));
    faults::kill(&nodes)?;
    fs::remove_dir_all(&home).with_context(|| format!("remove {}", home.display()))?;
    by_hand.and(by_holder).context("sabotage")
}
