//! The stand-in chain in a network: genesis and keys, what a host's `[chain]` says, how a genesis
//! validator is started. The chain itself is `simchain/`.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use baton::base::time::WallTime;

use crate::chains::cosmovisor;
use crate::hosts::{make_dir, quoted};
use crate::net::{ChainKind, Host, Net, VALIDATORS, write_file};
use crate::simchain::genesis;

const SHARED: &str = "shared";

/// Genesis, keys and homes exist. Returns the public key that the hosts share.
pub fn write(net: &Net) -> Result<String> {
    let accounts: Vec<String> = VALIDATORS.into_iter().chain([SHARED]).map(String::from).collect();
    let made = genesis::init(&net.dir, &accounts, Duration::from_millis(net.slot_ms), WallTime::now())?;
    for host in net.signers() {
        write_home(net, &host.id)?;
    }
    for id in VALIDATORS {
        let home = net.validator_home(id);
        make_dir(&home)?;
        give_key(net, id, &home)?;
    }
    only_owner(&key_file(net, SHARED))?;
    let shared = made.validator(SHARED).context("the genesis lacks the shared validator")?;
    Ok(shared.public_key.to_string())
}

/// The chain node of `host` has a home.
pub fn write_home(net: &Net, host: &str) -> Result<()> {
    let home = net.chain_home(host);
    make_dir(&home)?;
    // Not read by the node: baton's near driver looks into it before it starts one.
    write_file(&home.join("config.json"), "{ \"tracked_shards_config\": \"AllShards\" }\n")
}

/// The host's own home holds the shared key, as where no links lead to it.
pub fn give_shared_key(net: &Net, host: &str) -> Result<()> {
    give_key(net, SHARED, &net.chain_home(host))
}

/// A node in `home` has the shared key from its start.
pub fn write_key_home(net: &Net, home: &Path) -> Result<()> {
    make_dir(home)?;
    give_key(net, SHARED, home)
}

fn give_key(net: &Net, account: &str, home: &Path) -> Result<()> {
    let (from, to) = (key_file(net, account), home.join("validator_key.json"));
    fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    only_owner(&to)
}

/// Of the validator that the hosts share.
pub fn shared_key_file(net: &Net) -> std::path::PathBuf {
    key_file(net, SHARED)
}

fn key_file(net: &Net, account: &str) -> std::path::PathBuf {
    net.keys_dir().join(format!("{account}.json"))
}

fn only_owner(file: &Path) -> Result<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).with_context(|| format!("chmod {}", file.display()))
}

/// The chain part of a host's `baton.toml`, after `home` and `log`.
pub fn section(net: &Net, host: &Host) -> String {
    let mut command = node_argv(net, &host.id, &net.chain_home(&host.id), host.rpc(), host.p2p());
    if net.cosmovisor {
        command[0] = cosmovisor::program(ChainKind::Sim).into();
    }
    format!(
        "driver = \"near\"\ncommand = {command}\nstop_timeout = \"2s\"\nclock_skew = \"10ms\"\n\n\
         [[chain.links]]\nlink = \"validator_key.json\"\nvalidating = {key}\n\n\
         [chain.activate]\nhow = \"signal\"\nsignal = \"SIGHUP\"\n\n\
         [chain.probe]\nurl = {url}\nevery = \"250ms\"\nfailures = 3\n\n\
         [chain.last_signed]\nfile = \"data/last_signed.json\"\nheight = \"/height\"\n",
        command = quoted(command),
        key = quoted(key_file(net, SHARED)),
        url = quoted(format!("http://{}/status", host.rpc())),
    )
}

/// The node `id`, not yet started.
pub fn node_command(net: &Net, id: &str, home: &Path, rpc: SocketAddr, p2p: SocketAddr) -> Command {
    let argv = node_argv(net, id, home, rpc, p2p);
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]);
    command
}

fn node_argv(net: &Net, id: &str, home: &Path, rpc: SocketAddr, p2p: SocketAddr) -> Vec<String> {
    let path = |p: &Path| p.to_string_lossy().into_owned();
    let peers = net.chain_peers(id).into_values().map(|peer| peer.to_string()).collect::<Vec<_>>().join(",");
    let flags = [
        ("--home", path(home)),
        ("--genesis", path(&net.dir.join("genesis.json"))),
        ("--host", id.into()),
        ("--rpc", rpc.to_string()),
        ("--p2p", p2p.to_string()),
        ("--peers", peers),
        ("--sign-log", path(&net.sign_log())),
    ];
    let planned = net.cosmovisor.then(|| ("--planned", path(&cosmovisor::planned_file(net))));
    let start = [path(&net.programs.chain_node), "run".into()];
    let flags = flags.into_iter().chain(planned);
    start.into_iter().chain(flags.flat_map(|(flag, value)| [flag.to_string(), value])).collect()
}
