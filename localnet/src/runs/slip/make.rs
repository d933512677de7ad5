//! How each slip is made: the files that an operator would have changed, and the restart that makes them count.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Made, Slip, Traces, await_start, elsewhere, folder, stop};
use crate::chains::cometbft;
use crate::chains::cosmovisor::write_binary;
use crate::chains::sim;
use crate::hosts::faults::{self, What};
use crate::hosts::folders::{copy_dir, empty, take_for_original};
use crate::hosts::quoted;
use crate::net::http;
use crate::net::proxy::Plane;
use crate::net::{ChainKind, Custody, Ground, Host, Net, Usage, write_file};
use crate::process::launch;
use crate::runs::timing::{self, Timing};

/// What was done, in words, and what it would be known by.
pub(super) fn make(net: &Net, slip: Slip, host: &str) -> Result<(String, Traces)> {
    match slip {
        Slip::CopiedKey => copied_key(net, host),
        Slip::OtherHome => other_home(net, host),
        Slip::ForeignNode => foreign_node(net, host),
        Slip::Wrapper => wrapper(net, host),
        Slip::Timings => timings(net, host),
        Slip::SwappedAddresses => swapped_addresses(net, host),
        Slip::OtherFile => other_file(net, host),
        Slip::OldState => old_state(net, host),
        Slip::OtherProbe => other_probe(net, host),
        Slip::SecondCluster => second_cluster(net, host),
        Slip::SoleFounder => sole_founder(net, host),
        Slip::ClockSkew => clock_skew(net, host),
        Slip::NodeElsewhere => elsewhere::node(net, host),
    }
}

/// What is not undone by the file of before and a start with it. Nothing of the host runs.
pub(super) fn put_back(net: &Net, made: &Made) -> Result<()> {
    match made.slip {
        Slip::OldState => {
            let newest = folder(net, &made.host).join("state.newest");
            if newest.exists() {
                replace_dir(&newest, &net.state_dir(&made.host))?;
                take_for_original(&net.state_dir(&made.host))?;
            }
            Ok(())
        }
        Slip::CopiedKey | Slip::OtherHome | Slip::ForeignNode | Slip::Wrapper => Ok(()),
        Slip::Timings | Slip::SwappedAddresses | Slip::OtherFile | Slip::OtherProbe => Ok(()),
        Slip::SecondCluster | Slip::SoleFounder | Slip::ClockSkew => Ok(()),
        Slip::NodeElsewhere => elsewhere::end(net, &made.host),
    }
}

/// The file of `host` is changed, and the host started with it.
pub(super) fn edit(net: &Net, host: &str, change: impl FnOnce(&str) -> Option<String>) -> Result<()> {
    let file = net.config_file(host);
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let changed = change(&text).filter(|changed| *changed != text);
    let changed = changed.with_context(|| format!("{} does not say what is to be changed", file.display()))?;
    write_file(&file, &changed)
}

fn start_anew(net: &Net, host: &str) -> Result<()> {
    stop(net, host)?;
    launch::start_coordinator(net, host)?;
    await_start(net, host)
}

fn shared_key_file(net: &Net) -> PathBuf {
    match net.chain {
        ChainKind::Sim => sim::shared_key_file(net),
        ChainKind::Cometbft => cometbft::shared_key_file(net),
    }
}

/// At `to`, for the owner alone, as every copy of a key should be.
fn copy_key(net: &Net, to: &Path) -> Result<()> {
    // One that is a link would be written through to what it leads to.
    let _ = fs::remove_file(to);
    let what = || format!("copy the validator's key to {}", to.display());
    fs::copy(shared_key_file(net), to).with_context(what)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o600)).with_context(what)
}

fn copied_key(net: &Net, host: &str) -> Result<(String, Traces)> {
    let copy = folder(net, host).join("copied_key.json");
    copy_key(net, &copy)?;
    let validating = format!("validating = {}\n", quoted(shared_key_file(net)));
    edit(net, host, |text| Some(text.replacen(&validating, &format!("{validating}standby = {}\n", quoted(&copy)), 1)))?;
    start_anew(net, host)?;
    let done = format!("the link in standby leads to {}, a copy of the validator's key file", copy.display());
    Ok((done, Traces { path: Some(copy), ..Traces::default() }))
}

/// A home with the key in it, beside the one that baton knows. No node of the host runs.
pub(super) fn home_with_key(net: &Net, host: &str, name: &str) -> Result<PathBuf> {
    let home = folder(net, host).join(name);
    match net.chain {
        ChainKind::Sim => sim::write_key_home(net, &home)?,
        ChainKind::Cometbft => {
            copy_dir(&net.chain_home(host), &home)?;
            copy_key(net, &home.join(cometbft::KEY_LINK))?;
        }
    }
    Ok(home)
}

pub(super) fn refuse_cosmovisor(net: &Net) -> Result<()> {
    if net.cosmovisor {
        bail!(Usage("this slip is for a network that was started without --cosmovisor".into()));
    }
    Ok(())
}

fn other_home(net: &Net, host: &str) -> Result<(String, Traces)> {
    stop(net, host)?;
    let home = home_with_key(net, host, "other-home")?;
    let flag = |home: &Path| format!("\"--home\",{}", quoted(home));
    edit(net, host, |text| Some(text.replacen(&flag(&net.chain_home(host)), &flag(&home), 1)))?;
    start_anew(net, host)?;
    let done = format!("the node's command says --home {}, and the validator's key lies there", home.display());
    Ok((done, Traces { path: Some(home), ..Traces::default() }))
}

fn foreign_node(net: &Net, host: &str) -> Result<(String, Traces)> {
    refuse_cosmovisor(net)?;
    stop(net, host)?;
    let home = home_with_key(net, host, "old-service")?;
    let at = net.host(host)?;
    let command = match net.chain {
        ChainKind::Sim => sim::node_command(net, host, &home, at.rpc(), at.p2p()),
        ChainKind::Cometbft => cometbft::node_command(net, &home),
    };
    let namespace = launch::namespace_of(net, host)?;
    launch::spawn(net, command, host, &home.join("node.log"), namespace.as_deref())?;
    launch::await_step(|| http::get_json(at.rpc(), "/status").map(drop)).context("start the old service's node")?;
    let nodes = faults::of_host(net, host, What::Node);
    let pid = nodes.first().context("the old service's node has ended")?.pid;
    launch::start_coordinator(net, host)?;
    await_start(net, host)?;
    let rpc = at.rpc();
    let done = format!("a node with the validator's key that is not baton's, pid {pid}, listens at {rpc}");
    Ok((done, Traces { pid: Some(pid), path: Some(home), other: Some(rpc.to_string()) }))
}

/// Passes signals on, as start scripts do that were written for a service manager: without that, the shell would end by
/// the SIGHUP that is meant for the node.
const WAITS_FOR_NODE: &str = "node=$!\n\
    trap 'kill -HUP $node' HUP\n\
    trap 'kill -TERM $node' TERM INT\n\
    while kill -0 $node 2>/dev/null; do wait $node; done\n";

fn wrapper(net: &Net, host: &str) -> Result<(String, Traces)> {
    refuse_cosmovisor(net)?;
    let script = folder(net, host).join("start-node.sh");
    let mut program = String::new();
    edit(net, host, |text| {
        let line = text.lines().find(|line| line.starts_with("command = "))?;
        let mut argv: Vec<String> = serde_json::from_str(line.strip_prefix("command = ")?).ok()?;
        program = std::mem::replace(argv.first_mut()?, script.to_string_lossy().into_owned());
        Some(text.replacen(line, &format!("command = {}", quoted(argv)), 1))
    })?;
    let text = format!("#!/bin/sh\n'{program}' \"$@\" &\n{WAITS_FOR_NODE}");
    write_binary(&script, &text)?;
    start_anew(net, host)?;
    let done = format!("the node's command is {}, which does not end in exec", script.display());
    Ok((done, Traces { path: Some(script), other: Some(program), ..Traces::default() }))
}

fn timings(net: &Net, host: &str) -> Result<(String, Traces)> {
    timing::write(net, host, Timing::Wan)?;
    timing::restart(net, host)?;
    await_start(net, host)?;
    Ok((format!("{host} alone has profile = \"wan\" in [timing]"), Traces::default()))
}

fn swapped_addresses(net: &Net, host: &str) -> Result<(String, Traces)> {
    let others: Vec<&Host> = net.hosts.iter().filter(|other| other.id != host).take(2).collect();
    let [first, second] = others[..] else { bail!("{host} has fewer than two others") };
    let seen = |other: &Host| quoted(net.address_seen(host, &other.id, Plane::Raft, other.raft()));
    let (a, b) = (seen(first), seen(second));
    edit(net, host, |text| Some(text.replace(&a, "\"\u{0}\"").replace(&b, &a).replace("\"\u{0}\"", &b)))?;
    start_anew(net, host)?;
    let done = format!("the file of {host} has {} at {b} and {} at {a}, the wrong way round", first.id, second.id);
    Ok((done, Traces { other: Some(first.id.clone()), ..Traces::default() }))
}

/// As on a machine of its own, where the other's folders would be this host's.
fn other_file(net: &Net, host: &str) -> Result<(String, Traces)> {
    let own = net.host(host)?;
    let other = net.signers().find(|other| other.id != host).context("no other host has a chain node")?;
    let text =
        fs::read_to_string(net.config_file(&other.id)).with_context(|| format!("read the file of {}", other.id))?;
    let text = text
        .replace(&format!("listen = {}", quoted(other.raft())), &format!("listen = {}", quoted(own.raft())))
        .replace(&quoted(other.metrics()), &quoted(own.metrics()))
        .replace(&other.rpc().to_string(), &own.rpc().to_string())
        .replace(&other.p2p().to_string(), &own.p2p().to_string())
        .replace(&*net.host_dir(&other.id).to_string_lossy(), &net.host_dir(host).to_string_lossy())
        .replace(&*other.run_dir.to_string_lossy(), &own.run_dir.to_string_lossy());
    edit(net, host, |_| Some(text))?;
    start_anew(net, host)?;
    Ok((
        format!("{host} is started with the file of {}", other.id),
        Traces { other: Some(other.id.clone()), ..Traces::default() },
    ))
}

fn old_state(net: &Net, host: &str) -> Result<(String, Traces)> {
    let state = net.state_dir(host);
    let old = folder(net, host).join("state.old");
    stop(net, host)?;
    copy_dir(&state, &old)?;
    // It promises, votes and is started again, all of which the copy does not know.
    for _ in 0..2 {
        launch::start_coordinator(net, host)?;
        await_start(net, host)?;
        crate::runs::demo::await_pair(net, |_| ())?;
        stop(net, host)?;
    }
    copy_dir(&state, &folder(net, host).join("state.newest"))?;
    replace_dir(&old, &state)?;
    refused_as_a_copy(net, host)?;
    // By who is sure that nothing was written since, and is wrong.
    take_for_original(&state)?;
    launch::start_coordinator(net, host)?;
    await_start(net, host)?;
    let done = format!("{host} is started on a copy of {} that is two starts old", state.display());
    Ok((done, Traces { path: Some(state), ..Traces::default() }))
}

/// A start on a copied state directory ends, and says why.
fn refused_as_a_copy(net: &Net, host: &str) -> Result<()> {
    let log = net.host_dir(host).join("coordinator.log");
    let read = || fs::read_to_string(&log).with_context(|| format!("read {}", log.display()));
    let before = read()?.len();
    launch::start_coordinator(net, host)?;
    await_start(net, host)?;
    if !faults::of_host(net, host, What::Coordinator).is_empty() {
        bail!("{host} runs on a copied state directory");
    }
    let said = read()?.split_off(before);
    if !said.contains(&format!("{} is a copy", net.state_dir(host).display())) {
        bail!("{host} was not told that its state directory is a copy; {} has: {said}", log.display());
    }
    Ok(())
}

fn other_probe(net: &Net, host: &str) -> Result<(String, Traces)> {
    let own = net.host(host)?;
    let other = net.signers().find(|other| other.id != host).context("no other host has a chain node")?;
    let url = |of: &Host| quoted(format!("http://{}/status", of.rpc()));
    edit(net, host, |text| Some(text.replacen(&url(own), &url(other), 1)))?;
    start_anew(net, host)?;
    let at = other.rpc().to_string();
    let done = format!("{host} probes {at}, where the chain node of {} answers", other.id);
    Ok((done, Traces { other: Some(at), ..Traces::default() }))
}

/// In the file of `host`, `host` alone is a member and begins without a history.
fn founds_alone(net: &Net, host: &str, text: &str) -> Option<String> {
    let (before, rest) = text.split_once("members = [\n")?;
    let (members, after) = rest.split_once("]\n")?;
    let own = members.lines().find(|line| line.contains(&format!("id = {}", quoted(host))))?;
    let state = |dir: PathBuf| format!("state_dir = {}\n", quoted(dir));
    let text = format!("{before}members = [\n{own}\n]\n{after}");
    Some(text.replacen(&state(net.state_dir(host)), &state(folder(net, host).join("state")), 1))
}

fn second_cluster(net: &Net, host: &str) -> Result<(String, Traces)> {
    if net.ground == Ground::Namespaces {
        bail!(Usage(
            "this slip is for hosts that share a network: in namespaces of their own they see nothing of each other"
                .into()
        ));
    }
    if net.custody != Custody::Links {
        bail!(Usage("this slip is for a network whose chain nodes have the key".into()));
    }
    let copy = folder(net, host).join("copied_key.json");
    copy_key(net, &copy)?;
    let validating = |file: &Path| format!("validating = {}\n", quoted(file));
    edit(net, host, |text| {
        let alone = founds_alone(net, host, text)?.replacen("name = \"localnet\"", "name = \"second\"", 1);
        Some(alone.replacen(&validating(&shared_key_file(net)), &validating(&copy), 1))
    })?;
    start_anew(net, host)?;
    let done = format!(
        "{host} is started as a cluster of its own, with {}, a copy of the validator's key file",
        copy.display()
    );
    Ok((done, Traces { path: Some(copy), ..Traces::default() }))
}

fn sole_founder(net: &Net, host: &str) -> Result<(String, Traces)> {
    edit(net, host, |text| founds_alone(net, host, text))?;
    start_anew(net, host)?;
    Ok((format!("the file of {host} names it alone as a member, and its state_dir is empty"), Traces::default()))
}

fn clock_skew(net: &Net, host: &str) -> Result<(String, Traces)> {
    edit(net, host, |text| Some(text.replacen("clock_skew = \"10ms\"", "clock_skew = \"50ms\"", 1)))?;
    start_anew(net, host)?;
    Ok((format!("{host} alone has clock_skew = \"50ms\""), Traces::default()))
}

/// `to` has what `from` has and nothing else; `from` is gone. `to` itself stays: it may be where a disk is mounted.
fn replace_dir(from: &Path, to: &Path) -> Result<()> {
    empty(to)?;
    copy_dir(from, to)?;
    fs::remove_dir_all(from).with_context(|| format!("remove {}", from.display()))
}
