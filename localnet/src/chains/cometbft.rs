//! Real CometBFT in a network: homes made by `cometbft testnet` and edited for one machine, what a
//! host's `[chain]` says, how a genesis validator is started. Three of the four genesis validators run
//! alone; the fourth identity is shared by the hosts, whose nodes have throwaway keys of their own.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::chains::cosmovisor;
use crate::hosts::folders::copy_dir;
use crate::hosts::{make_dir, quoted};
use crate::judge::status::run_bounded;
use crate::net::{ChainKind, ChainNode, Custody, Host, Net, write_file};

pub const KEY_LINK: &str = "config/priv_validator_key.json";
/// The key that `cometbft testnet` made for a host, out of the link's place. baton makes a throwaway of its own.
const STANDBY_KEY: &str = "config/standby_priv_validator_key.json";

/// The program, wherever it is installed.
pub fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let go_bin = std::env::var_os("HOME").map(|home| PathBuf::from(home).join("go/bin"));
    let mut candidates = std::env::split_paths(&path).chain(go_bin).map(|folder| folder.join("cometbft"));
    candidates.find(|file| file.is_file()).context(
        "cometbft is neither on PATH nor in ~/go/bin; install it with \
         `go install github.com/cometbft/cometbft/cmd/cometbft@v0.38.19`",
    )
}

/// Another patch version of the program, to upgrade to.
pub fn find_next() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::var_os("BATON_COMETBFT_NEXT").map(PathBuf::from);
    let mut candidates =
        named.into_iter().chain(std::env::split_paths(&path).map(|folder| folder.join("cometbft-next")));
    candidates.find(|file| file.is_file()).context(
        "no second cometbft: BATON_COMETBFT_NEXT names none, and cometbft-next is not on PATH; install one with \
         `GOBIN=$PWD/next go install github.com/cometbft/cometbft/cmd/cometbft@v0.38.18` and set it to $PWD/next/cometbft",
    )
}

/// Homes, genesis and keys exist. Returns the public key that the hosts share, in base64.
pub fn write(net: &Net) -> Result<String> {
    let made = net.dir.join("testnet");
    generate(net, &made)?;
    let mut homes = BTreeMap::new();
    for (i, validator) in net.validators.iter().enumerate() {
        homes.insert(validator.id.as_str(), (made.join(format!("node{i}")), net.validator_home(&validator.id)));
    }
    let shared = made.join(format!("node{}", net.validators.len()));
    for (i, host) in net.signers().enumerate() {
        let node = made.join(format!("node{}", net.validators.len() + 1 + i));
        homes.insert(host.id.as_str(), (node, net.chain_home(&host.id)));
    }
    for (from, to) in homes.values() {
        make_dir(to.parent().context("a home without a parent")?)?;
        // A host's home may be a disk of its own.
        if to.exists() { copy_dir(from, to)? } else { rename(from, to)? }
    }
    let homes: BTreeMap<&str, PathBuf> = homes.into_iter().map(|(id, (_, home))| (id, home)).collect();
    let ids = node_ids(net, &homes)?;
    for ChainNode { name, rpc, p2p } in net.chain_nodes() {
        let mut settings = settings(rpc, p2p, &peers_to_dial(net, name, &ids));
        if let Some(host) = net.signers().find(|host| host.id == name) {
            settings.extend(votes_logged());
            if net.custody == Custody::Signer {
                settings.push(("", "priv_validator_laddr", quoted(signer_address(host))));
            }
        }
        edit_config(&homes[name].join("config/config.toml"), &settings)?;
    }
    if net.custody != Custody::Signer {
        for host in net.signers() {
            let home = &homes[host.id.as_str()];
            rename(&home.join(KEY_LINK), &home.join(STANDBY_KEY))?;
        }
    }
    make_dir(&net.keys_dir())?;
    rename(&shared.join("data/priv_validator_state.json"), &first_mark(net))?;
    rename(&shared.join(KEY_LINK), &shared_key_file(net))?;
    fs::remove_dir_all(&made).with_context(|| format!("remove {}", made.display()))?;
    let key = read_json(&shared_key_file(net))?;
    Ok(key["pub_key"]["value"].as_str().context("the shared key file lacks pub_key.value")?.into())
}

fn generate(net: &Net, made: &Path) -> Result<()> {
    let mut command = Command::new(&net.programs.chain_node);
    let (validators, others) = (net.validators.len() + 1, net.signers().count());
    command.args(["testnet", "--v", &validators.to_string(), "--n", &others.to_string(), "--o"]).arg(made);
    // Its own default home is created by every command; keep it inside the network.
    command.arg("--home").arg(net.dir.join("cometbft-home"));
    let answer = run_bounded(command, Duration::from_secs(30))?;
    if answer.code != Some(0) {
        bail!("cometbft testnet: exit code {:?}: {}", answer.code, answer.stderr.trim());
    }
    Ok(())
}

/// One node of every pair dials, a host before a validator. Two that dial each other at the same moment may each take
/// the other's connection for a duplicate of its own, close both, and try again only after seconds.
fn peers_to_dial(net: &Net, name: &str, ids: &BTreeMap<String, String>) -> String {
    let nodes = net.chain_nodes();
    let later = nodes.iter().skip_while(|node| node.name != name).skip(1);
    let addresses = net.chain_peers(name);
    let peers: Vec<String> = later.map(|peer| format!("{}@{}", ids[peer.name], addresses[peer.name])).collect();
    peers.join(",")
}

fn node_ids(net: &Net, homes: &BTreeMap<&str, PathBuf>) -> Result<BTreeMap<String, String>> {
    let mut ids = BTreeMap::new();
    for (name, home) in homes {
        let mut command = Command::new(&net.programs.chain_node);
        command.args(["show-node-id", "--home"]).arg(home);
        let answer = run_bounded(command, Duration::from_secs(30))?;
        if answer.code != Some(0) {
            bail!("cometbft show-node-id of {name}: exit code {:?}: {}", answer.code, answer.stderr.trim());
        }
        ids.insert(name.to_string(), answer.stdout.trim().into());
    }
    Ok(ids)
}

fn edit_config(file: &Path, settings: &[Setting]) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let edited = edit(&text, settings).with_context(|| format!("edit {}", file.display()))?;
    write_file(file, &edited)
}

/// Section, key and value as TOML.
type Setting = (&'static str, &'static str, String);

/// A node with these logs every proposal and vote that it signs, for `votelog`.
fn votes_logged() -> [Setting; 2] {
    [("", "log_level", quoted("consensus:debug,*:info")), ("", "log_format", quoted("json"))]
}

/// One machine, no discovery, a block a second.
fn settings(rpc: SocketAddr, p2p: SocketAddr, peers: &str) -> Vec<Setting> {
    let tcp = |addr: SocketAddr| quoted(format!("tcp://{addr}"));
    let text = |value: &str| quoted(value);
    vec![
        ("", "proxy_app", text("kvstore")),
        ("rpc", "laddr", tcp(rpc)),
        ("p2p", "laddr", tcp(p2p)),
        ("p2p", "persistent_peers", text(peers)),
        ("p2p", "persistent_peers_max_dial_period", text("1s")),
        ("p2p", "addr_book_strict", "false".into()),
        ("p2p", "allow_duplicate_ip", "true".into()),
        ("p2p", "pex", "false".into()),
        ("p2p", "flush_throttle_timeout", text("10ms")),
        ("consensus", "timeout_propose", text("1s")),
        ("consensus", "timeout_prevote", text("300ms")),
        ("consensus", "timeout_precommit", text("300ms")),
        ("consensus", "timeout_commit", text("900ms")),
        ("consensus", "peer_gossip_sleep_duration", text("20ms")),
    ]
}

/// Every setting replaces the line of its key in its section; a key that is not there is an error.
fn edit(text: &str, settings: &[(&str, &str, String)]) -> Result<String> {
    let mut left: Vec<_> = settings.iter().collect();
    let mut section = "";
    let mut lines = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name;
        }
        let key = line.split_once(" = ").map(|(key, _)| key.trim());
        match left.iter().position(|(s, k, _)| *s == section && Some(*k) == key) {
            Some(i) => lines.push(format!("{} = {}", left[i].1, left.remove(i).2)),
            None => lines.push(line.into()),
        }
    }
    if let Some((section, key, _)) = left.first() {
        bail!("no key {key:?} in section [{section}]; is this cometbft v0.38?");
    }
    Ok(lines.join("\n") + "\n")
}

/// The chain part of a host's `baton.toml`, after `home` and `log`.
pub fn section(net: &Net, host: &Host) -> String {
    let home = net.chain_home(&host.id);
    let mut command = node_argv(net, &home);
    if net.cosmovisor {
        command[0] = cosmovisor::program(ChainKind::Cometbft).into();
    }
    let key = quoted(shared_key_file(net));
    let custody = match net.custody {
        Custody::Links | Custody::Single => format!(
            "\n[[chain.links]]\nlink = {KEY_LINK:?}\nvalidating = {key}\n\n[chain.activate]\nhow = \"restart\"\n"
        ),
        Custody::Signer => {
            format!("custody = \"signer\"\n\n[signer]\nkey = {key}\nnode = {}\n", quoted(signer_address(host)))
        }
    };
    format!(
        "driver = \"cometbft\"\ncommand = {command}\nstop_timeout = \"5s\"\nclock_skew = \"10ms\"\n{custody}\n\
         [chain.probe]\nurl = {url}\nevery = \"250ms\"\nfailures = 3\n",
        command = quoted(command),
        url = quoted(format!("http://{}/status", host.rpc())),
    )
}

/// The node with this home, not yet started.
pub fn node_command(net: &Net, home: &Path) -> Command {
    let argv = node_argv(net, home);
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]);
    command
}

fn node_argv(net: &Net, home: &Path) -> Vec<String> {
    let (program, home) = (net.programs.chain_node.to_string_lossy().into_owned(), home.to_string_lossy().into_owned());
    vec![program, "start".into(), "--home".into(), home]
}

/// The settings of a host's stopped chain node are those of the network's custody.
pub fn lay_custody(net: &Net, host: &Host) -> Result<()> {
    let address = match net.custody {
        Custody::Links | Custody::Single => String::new(),
        Custody::Signer => signer_address(host),
    };
    let file = net.chain_home(&host.id).join("config/config.toml");
    edit_config(&file, &[("", "priv_validator_laddr", quoted(address))])
}

/// A node of no host, which asks whoever dials it at `laddr` for the shared validator's signatures. It dials the peers of
/// `host`, whose node has not run yet.
pub fn lay_sentry(net: &Net, host: &str, home: &Path, [rpc, p2p, laddr]: [SocketAddr; 3]) -> Result<()> {
    copy_dir(&net.chain_home(host), home)?;
    move_node(home, rpc, p2p)?;
    let laddr = quoted(format!("tcp://{laddr}"));
    edit_config(&home.join("config/config.toml"), &[("", "priv_validator_laddr", laddr)])
}

/// The node of `home`, a copy of another one's, is one of its own to its peers, at these addresses.
pub fn move_node(home: &Path, rpc: SocketAddr, p2p: SocketAddr) -> Result<()> {
    let node_key = home.join("config/node_key.json");
    fs::remove_file(&node_key).with_context(|| format!("remove {}", node_key.display()))?;
    let tcp = |addr: SocketAddr| quoted(format!("tcp://{addr}"));
    edit_config(&home.join("config/config.toml"), &[("rpc", "laddr", tcp(rpc)), ("p2p", "laddr", tcp(p2p))])
}

/// The node of `host` signs for itself, from the validator's first mark on.
pub fn give_shared_key(net: &Net, host: &str) -> Result<()> {
    let home = net.chain_home(host);
    let copies =
        [(shared_key_file(net), home.join(KEY_LINK)), (first_mark(net), home.join("data/priv_validator_state.json"))];
    for (from, to) in copies {
        fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// Where a host's chain node waits for its signer.
fn signer_address(host: &Host) -> String {
    format!("unix://{}", host.run_dir.join("privval.sock").display())
}

/// The shared validator's state before it has signed anything.
pub fn first_mark(net: &Net) -> PathBuf {
    net.keys_dir().join("priv_validator_state.json")
}

pub fn shared_key_file(net: &Net) -> PathBuf {
    net.keys_dir().join("priv_validator_key.json")
}

/// The shared validator's address as block commits name it.
pub fn shared_address(net: &Net) -> Result<String> {
    let key = read_json(&shared_key_file(net))?;
    Ok(key["address"].as_str().context("the shared key file lacks its address")?.into())
}

fn read_json(file: &Path) -> Result<Value> {
    let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("read {}", file.display()))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("move {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_changed_in_its_own_section_only() {
        let text = "top = 1\n[rpc]\nladdr = \"a\"\n[p2p]\nladdr = \"b\"\n";
        let edited = edit(text, &[("p2p", "laddr", quoted("c"))]).unwrap();
        assert_eq!(edited, "top = 1\n[rpc]\nladdr = \"a\"\n[p2p]\nladdr = \"c\"\n");
        let error = edit(text, &[("rpc", "nothing", "1".into())]).unwrap_err().to_string();
        assert!(error.contains("nothing") && error.contains("[rpc]"), "{error}");
    }
}
