//! A node with the validator's key that baton neither runs nor probes, while nobody holds the baton: the one slip that
//! only the chain shows. All hosts are in maintenance for as long as it runs, and what the holder signed last lies below
//! what the node signs first, so that nothing is signed twice.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::make::{home_with_key, refuse_cosmovisor};
use super::{Traces, await_start, stop};
use crate::chains::{cometbft, sim};
use crate::hosts::faults::{self, What};
use crate::judge::measure::head;
use crate::judge::status::{await_status, query};
use crate::net::{ChainKind, Custody, Host, Net, Usage, http, ports};
use crate::process::launch;
use crate::runs::demo::ask_baton;

/// For the holder to let go.
const LET_GO_BOUND: Duration = Duration::from_secs(20);
/// Blocks without the shared validator's signature, before the node starts.
const BLOCKS: u64 = 3;

pub(super) fn node(net: &Net, host: &str) -> Result<(String, Traces)> {
    refuse_cosmovisor(net)?;
    if net.custody != Custody::Links {
        bail!(Usage("this slip is for a network whose chain nodes have the key".into()));
    }
    let holder = query(net)?.active().map(|member| member.id.clone());
    // Any other first, so that the holder has nobody to hand over to.
    let (holding, others): (Vec<&Host>, Vec<&Host>) = net.signers().partition(|own| Some(&own.id) == holder.as_ref());
    maintain(net, host, "on", others.into_iter().chain(holding))?;
    // It keeps the baton until it is lost.
    if let Some(holder) = holder {
        faults::kill_host(net, &holder, &faults::of_host(net, &holder, What::Host))?;
        launch::start_coordinator(net, &holder)?;
        await_start(net, &holder)?;
    }
    await_status(net, "nobody holds the baton", LET_GO_BOUND, |_| (), |status| status.active().is_none())?;
    let from = head(net)?;
    launch::await_step(|| match head(net)? {
        now if now >= from + BLOCKS => Ok(()),
        now => bail!("the chain is at {now}, and was at {from} when nobody signed any more"),
    })?;
    stop(net, host)?;
    let home = home_with_key(net, host, "elsewhere")?;
    let [rpc, p2p] = ports::pick(&net.dir, 2)?[..] else { bail!("2 ports were picked") };
    let addr = net.host(host)?.addr;
    let (rpc, p2p): (SocketAddr, SocketAddr) = ((addr, rpc).into(), (addr, p2p).into());
    let command = match net.chain {
        ChainKind::Sim => sim::node_command(net, host, &home, rpc, p2p),
        ChainKind::Cometbft => {
            cometbft::move_node(&home, rpc, p2p)?;
            cometbft::node_command(net, &home)
        }
    };
    let namespace = launch::namespace_of(net, host)?;
    launch::spawn(net, command, host, &home.join("node.log"), namespace.as_deref())?;
    launch::await_step(|| http::get_json(rpc, "/status").map(drop)).context("start the node")?;
    let pid = faults::of_host(net, host, What::Node).first().context("the node has ended")?.pid;
    launch::start_coordinator(net, host)?;
    await_start(net, host)?;
    let done = format!(
        "all hosts are in maintenance, and a node with the validator's key that is not baton's, pid {pid}, signs; it listens at {rpc}, \
         where nobody looks"
    );
    Ok((done, Traces { pid: Some(pid), path: Some(home), ..Traces::default() }))
}

/// Once the node has ended.
pub(super) fn end(net: &Net, host: &str) -> Result<()> {
    maintain(net, host, "off", net.signers())
}

/// No host may take the baton, or each again. A host other than `host` is asked, which runs in any case.
fn maintain<'a>(net: &Net, host: &str, switch: &str, members: impl Iterator<Item = &'a Host>) -> Result<()> {
    let asked = net.hosts.iter().find(|other| other.id != host).context("no other host")?;
    for member in members {
        let answer = ask_baton(net, &asked.id, &["maintenance", switch, "--member", &member.id])?;
        if answer.code != Some(0) {
            bail!("baton maintenance {switch} of {}: {}{}", member.id, answer.stdout, answer.stderr);
        }
    }
    Ok(())
}
