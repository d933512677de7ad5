//! Hosts whose chain node is swapped by upgrades: homes in cosmovisor's layout, the `[upgrade]` section, binaries that
//! can be told apart, and what the chain has planned. Of the stand-in chain a binary is a shell script that becomes
//! `simchain` with the flags of its version; of CometBFT it is one of two real programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::chains::cometbft;
use crate::hosts::{make_dir, quoted};
use crate::net::{ChainKind, Host, Net, write_file};
use crate::simchain::upgrades::{Planned, read_planned};

/// The binary that a chain begins with.
pub const GENESIS: &str = "genesis";

/// What the binary is called in every `bin/`.
pub fn program(chain: ChainKind) -> &'static str {
    match chain {
        ChainKind::Sim => "simd",
        ChainKind::Cometbft => "cometbft",
    }
}

/// Every host with a chain node has the first binary.
pub fn write(net: &Net) -> Result<()> {
    for host in net.signers() {
        // Of baton's backups; it makes no folders outside of the root.
        make_dir(&backups(net, &host.id))?;
        let file = place(net, &host.id, GENESIS);
        match net.chain {
            ChainKind::Sim => write_binary(&file, &script(net, GENESIS, &[]))?,
            ChainKind::Cometbft => copy_binary(&net.programs.chain_node, &file)?,
        }
    }
    Ok(())
}

/// Where `host` has the binary of the upgrade `name`, or would have it. The name is one that needs no encoding.
pub fn place(net: &Net, host: &str, name: &str) -> PathBuf {
    let root = net.chain_home(host).join("cosmovisor");
    let folder = if name == GENESIS { root.join(GENESIS) } else { root.join("upgrades").join(name) };
    folder.join("bin").join(program(net.chain))
}

/// Of the data of `host`, before each upgrade.
pub fn backups(net: &Net, host: &str) -> PathBuf {
    net.host_dir(host).join("backups")
}

/// `host` has the binary of `name`, which can carry out that upgrade and whatever the chain has planned before.
pub fn give(net: &Net, host: &str, name: &str) -> Result<()> {
    let file = place(net, host, name);
    match net.chain {
        ChainKind::Sim => {
            let planned = planned(net)?;
            let mut upgrades: Vec<&str> = planned.iter().map(|one| one.name.as_str()).collect();
            upgrades.push(name);
            write_binary(&file, &script(net, name, &upgrades))
        }
        ChainKind::Cometbft => copy_binary(&cometbft::find_next()?, &file),
    }
}

/// A binary of the stand-in chain at `file`, for a plan to take from there: it shows `version` and has the handlers of
/// `upgrades`.
pub fn make(net: &Net, file: &Path, version: &str, upgrades: &[&str]) -> Result<()> {
    write_binary(file, &script(net, version, upgrades))
}

/// What the `pre-upgrade` of the binary at `file` reads its exit code from; see `simchain::pre_upgrade`.
pub fn pre_upgrade_script(file: &Path) -> PathBuf {
    file.with_added_extension("pre-upgrade")
}

fn script(net: &Net, version: &str, upgrades: &[&str]) -> String {
    let simchain = net.programs.chain_node.display();
    let upgrades = upgrades.join(",");
    format!(
        "#!/bin/sh\n\
         case \"$1\" in\n\
         run) exec '{simchain}' \"$@\" --as-version '{version}' --upgrades '{upgrades}' ;;\n\
         pre-upgrade) exec '{simchain}' pre-upgrade --script \"$0.pre-upgrade\" ;;\n\
         *) exec '{simchain}' \"$@\" ;;\n\
         esac\n"
    )
}

/// Executable at `file`, whole or not at all.
pub fn write_binary(file: &Path, text: &str) -> Result<()> {
    place_binary(file, |temp| write_file(temp, text))
}

/// A copy, as it comes from a download; never a link, for what writes to one must not write to the other.
pub fn copy_binary(from: &Path, file: &Path) -> Result<()> {
    let what = || format!("copy {} to {}", from.display(), file.display());
    place_binary(file, |temp| fs::copy(from, temp).map(drop).with_context(what))
}

fn place_binary(file: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    make_dir(file.parent().context("a binary without a folder")?)?;
    let temp = file.with_added_extension("new");
    write(&temp)?;
    let what = || format!("make {} executable", file.display());
    fs::set_permissions(&temp, fs::Permissions::from_mode(0o755)).with_context(what)?;
    fs::rename(&temp, file).with_context(what)
}

/// The last section of a host's `baton.toml`.
pub fn section(net: &Net, host: &Host) -> String {
    let (name, backups) = (quoted(program(net.chain)), quoted(backups(net, &host.id)));
    format!("\n[upgrade]\nname = {name}\nbackup_dir = {backups}\n")
}

/// What every node of the stand-in chain has its planned upgrades from.
pub fn planned_file(net: &Net) -> PathBuf {
    net.dir.join("upgrades.json")
}

/// The stand-in chain halts for `name` at `height`, for binaries without it.
pub fn plan_on_chain(net: &Net, name: &str, height: u64, info: &str) -> Result<()> {
    if net.chain != ChainKind::Sim || !net.cosmovisor {
        bail!("only a network of the sim chain that was started with `localnet up --cosmovisor` plans upgrades");
    }
    let mut planned = planned(net)?;
    planned.push(Planned { name: name.into(), height, info: info.into() });
    write_file(&planned_file(net), &(serde_json::to_string(&planned)? + "\n"))
}

fn planned(net: &Net) -> Result<Vec<Planned>> {
    let file = planned_file(net);
    read_planned(&file).with_context(|| format!("read {}", file.display()))
}
