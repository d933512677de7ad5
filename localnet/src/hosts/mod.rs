//! Writes each host's `baton.toml`: the contract of baton with its operator, used here as an operator
//! would. What a chain wants in it comes from the chain's own file in this crate.

pub mod clock;
pub mod disks;
pub mod faults;
pub mod folders;
pub mod hooks;
pub mod power;
pub mod watchdog;

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use baton::base::ids::Role;
use serde::Serialize;

use crate::chains::cometbft;
use crate::chains::cosmovisor;
use crate::chains::sim;
use crate::net::namespaces::small_disk;
use crate::net::ports;
use crate::net::proxy::Plane;
use crate::net::tls;
use crate::net::{ChainKind, Ground, Host, Net, write_file};

/// Of a host in a namespace, for its store: some times of what a long run needs, and filled in a moment.
const DISK_BYTES: u64 = 24 << 20;

/// Folders and configuration of every host exist.
pub fn write_all(net: &Net) -> Result<()> {
    if net.has_tls() {
        tls::write(net)?;
    }
    for host in &net.hosts {
        make_dir(&net.host_dir(&host.id))?;
        make_dir(&net.state_dir(&host.id))?;
        // Where it cannot have one that freezes.
        if net.ground == Ground::Namespaces && !disks::is_own(&net.state_dir(&host.id)) {
            small_disk(&net.state_dir(&host.id), DISK_BYTES)?;
        }
        make_dir(&host.run_dir)?;
        write_file(&net.config_file(&host.id), &config(net, host))?;
    }
    Ok(())
}

/// A further host with a chain node, laid out to join a network of the stand-in chain that runs. Nobody has wires
/// to it, and its own lead straight to the others.
pub fn add_joiner(net: &mut Net, id: &str) -> Result<()> {
    let ports = ports::pick(&net.dir, 4)?;
    let [raft_port, metrics_port, rpc_port, p2p_port] = ports[..] else { bail!("4 ports were picked") };
    let run_dir = net.hosts[0].run_dir.to_string_lossy().replace(&net.hosts[0].id, id).into();
    let role = Role::Validator;
    let addr = net.hosts[0].addr;
    let host = Host { id: id.into(), role, priority: 50, addr, raft_port, metrics_port, rpc_port, p2p_port, run_dir };
    net.hosts.push(host.clone());
    for dir in [&net.host_dir(id), &net.host_dir(id).join("state"), &host.run_dir] {
        make_dir(dir)?;
    }
    sim::write_home(net, id)?;
    write_file(&net.config_file(id), &config(net, &host).replacen("[member]\n", "[member]\njoin = true\n", 1))?;
    net.save()
}

/// The folder exists and is the owner's alone.
pub fn make_dir(dir: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir).with_context(|| format!("create {}", dir.display()))
}

/// The text of one host's `baton.toml`. Peers stand in it at the addresses that this host dials.
pub fn config(net: &Net, host: &Host) -> String {
    let members = net.hosts.iter().map(|other| member_line(net, host, other)).collect::<String>();
    let mut text = format!(
        "[member]\nid = {id}\nstate_dir = {state}\nrun_dir = {run}\n{record}\n\
         [cluster]\nname = \"localnet\"\nlisten = {listen}\nmembers = [\n{members}]\n\n\
         [timing]\nprofile = \"{profile}\"\n\n\
         [metrics]\nlisten = {metrics}\n",
        id = quoted(&host.id),
        state = quoted(net.state_dir(&host.id)),
        run = quoted(&host.run_dir),
        record = net.record_mib.map_or(String::new(), |mib| format!("record_mib = {mib}\n")),
        listen = quoted(host.raft()),
        profile = net.profile.as_str(),
        metrics = quoted(host.metrics()),
    );
    if net.has_tls() {
        text += &tls::section(net, host);
    }
    text += &hooks::section(net.hooks, host.role);
    if host.role == Role::Validator {
        let section = match net.chain {
            ChainKind::Sim => sim::section(net, host),
            ChainKind::Cometbft => cometbft::section(net, host),
        };
        let log = quoted(net.node_log(&host.id));
        let home = quoted(net.chain_home(&host.id));
        // Writing to a String cannot fail.
        let _ = write!(text, "\n[chain]\nhome = {home}\nlog = {log}\n{section}");
        if net.cosmovisor {
            text += &cosmovisor::section(net, host);
        }
    }
    text
}

fn member_line(net: &Net, seen_from: &Host, other: &Host) -> String {
    let addr = net.address_seen(&seen_from.id, &other.id, Plane::Raft, other.raft());
    let (id, addr, role) = (quoted(&other.id), quoted(addr), quoted(other.role.as_str()));
    let priority = match other.role {
        Role::Validator => format!(", priority = {}", other.priority),
        Role::Arbiter => String::new(),
    };
    format!("  {{ id = {id}, addr = {addr}, role = {role}{priority} }},\n")
}

/// A TOML string or array: a JSON string is a TOML basic string too.
pub fn quoted(value: impl Serialize) -> String {
    serde_json::to_string(&value).expect("a path of the localnet is UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Programs, Shape};
    use baton::config::Config;

    #[test]
    fn a_host_lists_itself_directly_and_its_peers_at_wires_and_an_arbiter_has_no_chain() {
        let dir = tempfile::tempdir().unwrap();
        let net = Net::lay_out(dir.path(), Shape::usual(ChainKind::Sim), Programs::nowhere()).unwrap();
        let (a, b, c) = (&net.hosts[0], &net.hosts[1], &net.hosts[2]);
        let text = config(&net, a);
        assert_eq!(text.matches(&a.raft().to_string()).count(), 2, "listen and its own member line:\n{text}");
        assert!(!text.contains(&b.raft().to_string()), "host-b without a wire:\n{text}");
        assert!(text.contains("[chain.probe]") && text.contains(&format!("{}/status", a.rpc())), "{text}");
        assert!(!config(&net, c).contains("[chain]"));
    }

    #[test]
    fn baton_takes_the_configuration_of_every_host_on_both_chains() {
        let shapes = [ChainKind::Sim, ChainKind::Cometbft].map(Shape::usual);
        let upgraded = shapes.map(|shape| Shape { cosmovisor: true, ..shape });
        for shape @ Shape { chain, cosmovisor, .. } in shapes.into_iter().chain(upgraded) {
            let dir = tempfile::tempdir().unwrap();
            let net = Net::lay_out(dir.path(), shape, Programs::nowhere()).unwrap();
            write_all(&net).unwrap();
            for host in &net.hosts {
                let file = net.config_file(&host.id);
                let marker = (crate::process::procs::MARKER.to_string(), dir.path().display().to_string());
                let config = Config::load(&file, std::iter::once(marker));
                let config = config.unwrap_or_else(|error| panic!("{chain:?}: {error}\n{}", config_text(&file)));
                assert_eq!(config.chain.is_some(), host.role == Role::Validator, "{chain:?} {}", host.id);
                let upgrades = config.chain.is_some_and(|chain| chain.upgrade.is_some());
                assert_eq!(upgrades, cosmovisor && host.role == Role::Validator, "{chain:?} {}", host.id);
                assert_eq!(config.warnings, Vec::<String>::new(), "{chain:?} {}", host.id);
            }
        }
    }

    fn config_text(file: &Path) -> String {
        fs::read_to_string(file).unwrap()
    }
}
