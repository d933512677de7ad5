//! Writes each host's `baton.toml`: the contract of baton with its operator, used here as an operator
//! would. What a chain wants in it comes from the chain's own file in this crate.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result};
use baton::ids::Role;
use serde::Serialize;

use crate::net::{ChainKind, Host, Net, write_file};
use crate::proxy::Plane;
use crate::{chain_cometbft, chain_sim};

/// Folders and configuration of every host exist.
pub fn write_all(net: &Net) -> Result<()> {
    for host in &net.hosts {
        make_dir(&net.host_dir(&host.id))?;
        make_dir(&net.host_dir(&host.id).join("state"))?;
        make_dir(&host.run_dir)?;
        write_file(&net.config_file(&host.id), &config(net, host))?;
    }
    Ok(())
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
        "[member]\nid = {id}\nstate_dir = {state}\nrun_dir = {run}\n\n\
         [cluster]\nname = \"localnet\"\nlisten = {listen}\nmembers = [\n{members}]\n\n\
         [timing]\nprofile = \"lan\"\n\n\
         [metrics]\nlisten = {metrics}\n",
        id = quoted(&host.id),
        state = quoted(net.host_dir(&host.id).join("state")),
        run = quoted(&host.run_dir),
        listen = quoted(loopback(host.raft_port)),
        metrics = quoted(loopback(host.metrics_port)),
    );
    if host.role == Role::Validator {
        let section = match net.chain {
            ChainKind::Sim => chain_sim::section(net, host),
            ChainKind::Cometbft => chain_cometbft::section(net, host),
        };
        let log = quoted(net.node_log(&host.id));
        let home = quoted(net.chain_home(&host.id));
        // Writing to a String cannot fail.
        let _ = write!(text, "\n[chain]\nhome = {home}\nlog = {log}\n{section}");
    }
    text
}

fn member_line(net: &Net, seen_from: &Host, other: &Host) -> String {
    let port = net.port_seen(&seen_from.id, &other.id, Plane::Raft, other.raft_port);
    let (id, addr, role) = (quoted(&other.id), quoted(loopback(port)), quoted(other.role.as_str()));
    let priority = match other.role {
        Role::Validator => format!(", priority = {}", other.priority),
        Role::Arbiter => String::new(),
    };
    format!("  {{ id = {id}, addr = {addr}, role = {role}{priority} }},\n")
}

pub fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
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
        let programs = Programs { localnet: "/b/l".into(), baton: "/b/b".into(), chain_node: "/b/simchain".into() };
        let net = Net::lay_out(dir.path(), Shape::usual(ChainKind::Sim), programs).unwrap();
        let (a, b, c) = (&net.hosts[0], &net.hosts[1], &net.hosts[2]);
        let text = config(&net, a);
        assert_eq!(text.matches(&loopback(a.raft_port)).count(), 2, "listen and its own member line:\n{text}");
        assert!(!text.contains(&loopback(b.raft_port)), "host-b without a wire:\n{text}");
        assert!(text.contains("[chain.probe]") && text.contains(&format!("127.0.0.1:{}/status", a.rpc_port)), "{text}");
        assert!(!config(&net, c).contains("[chain]"));
    }

    #[test]
    fn baton_takes_the_configuration_of_every_host_on_both_chains() {
        for chain in [ChainKind::Sim, ChainKind::Cometbft] {
            let dir = tempfile::tempdir().unwrap();
            let programs = Programs { localnet: "/b/l".into(), baton: "/b/b".into(), chain_node: "/b/node".into() };
            let net = Net::lay_out(dir.path(), Shape::usual(chain), programs).unwrap();
            write_all(&net).unwrap();
            for host in &net.hosts {
                let file = net.config_file(&host.id);
                let marker = (crate::procs::MARKER.to_string(), dir.path().display().to_string());
                let config = Config::load(&file, std::iter::once(marker));
                let config = config.unwrap_or_else(|error| panic!("{chain:?}: {error}\n{}", config_text(&file)));
                assert_eq!(config.chain.is_some(), host.role == Role::Validator, "{chain:?} {}", host.id);
                assert_eq!(config.warnings, Vec::<String>::new(), "{chain:?} {}", host.id);
            }
        }
    }

    fn config_text(file: &Path) -> String {
        fs::read_to_string(file).unwrap()
    }
}
