//! What `deploy/compose` finds in BATON_NET: each host's folder with a configuration of the paths that the container
//! has, keys and certificates that belong to the user in the container, and the values of compose's variables.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use baton::base::ids::Role;
use rustix::process::{getegid, geteuid};
use sha2::{Digest, Sha256};

use super::Containers;
use super::engine::Engine;
use crate::chains::sim;
use crate::hosts::{self, make_dir};
use crate::net::tls;
use crate::net::{Host, Net, Shape, write_file};
use crate::process::programs::find_static_programs;

const COMPOSE: &str = include_str!("../../../deploy/compose/compose.yaml");
const COMPOSE_SIM: &str = include_str!("../../../deploy/compose/compose.sim.yaml");
const DOCKERFILE: &str = include_str!("../../../deploy/container/Dockerfile");

/// As compose.yaml and compose.sim.yaml have them.
const RAFT: u16 = 7401;
const METRICS: u16 = 2233;
const RPC: u16 = 3030;
const P2P: u16 = 24567;
const FIRST_HOST: u8 = 11;
const FIRST_VALIDATOR: u8 = 31;
/// Where compose.sim.yaml puts what is the network's and not a host's.
const INSIDE: &str = "/net";
/// Of the image, for a localnet that is run by root.
const NOBODY: u32 = 65532;

/// Everything but the image.
pub fn write(dir: &Path, shape: Shape, engine: Engine) -> Result<Net> {
    let mut net = Net::lay_out(dir, shape, find_static_programs()?)?;
    place(&mut net, engine)?;
    net.save()?;
    net.shared_key = sim::write(&net)?;
    tls::write(&net)?;
    write_hosts(&net)?;
    write_file(&net.sign_log(), "")?;
    stage_image(&net)?;
    for (file, text) in compose_files(&net).iter().zip([COMPOSE, COMPOSE_SIM]) {
        write_file(file, text)?;
    }
    let lines: String = variables(&net)?.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    write_file(&env_file(&net), &lines)?;
    give_away(&net)?;
    net.save()?;
    Ok(net)
}

/// Hosts and validators have the addresses, ports and folders that the compose files give them.
fn place(net: &mut Net, engine: Engine) -> Result<()> {
    let (uid, gid) = match geteuid().is_root() {
        true => (NOBODY, NOBODY),
        false => (geteuid().as_raw(), getegid().as_raw()),
    };
    // Two networks on one engine shall not meet, and one that is made again has its old addresses.
    let hash = Sha256::digest(net.dir.as_os_str().as_encoded_bytes());
    let project = format!("baton-{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3]);
    let subnet = format!("10.{}.{}", 64 + hash[4] % 64, hash[5]);
    let published = net.hosts.iter().map(|host| host.metrics_port).collect();
    let addr = |last: u8| format!("{subnet}.{last}").parse().context("an address of the network");
    for (host, last) in net.hosts.iter_mut().zip(FIRST_HOST..) {
        host.addr = addr(last)?;
        (host.raft_port, host.metrics_port) = (RAFT, METRICS);
        (host.rpc_port, host.p2p_port) = if host.role == Role::Arbiter { (0, 0) } else { (RPC, P2P) };
        host.run_dir = "/run/baton".into();
    }
    for (validator, last) in net.validators.iter_mut().zip(FIRST_VALIDATOR..) {
        (validator.addr, validator.rpc_port, validator.p2p_port) = (addr(last)?, RPC, P2P);
    }
    net.containers = Some(Containers { project, engine, subnet, uid, gid, published });
    Ok(())
}

fn write_hosts(net: &Net) -> Result<()> {
    let inside = Net { dir: INSIDE.into(), ..net.clone() };
    for host in &net.hosts {
        make_dir(&net.host_dir(&host.id))?;
        make_dir(&net.state_dir(&host.id))?;
        write_file(&net.config_file(&host.id), &config(&inside, host)?)?;
    }
    Ok(())
}

/// A host's `baton.toml` with the paths that compose.yaml gives it.
fn config(inside: &Net, host: &Host) -> Result<String> {
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    let tls = |name: &str| path(inside.dir.join("tls").join(name));
    let moved = [
        (path(inside.state_dir(&host.id)), "/var/lib/baton"),
        (path(inside.chain_home(&host.id)), "/var/lib/chain"),
        (tls("ca.pem"), "/run/secrets/ca.pem"),
        (tls(&format!("{}.pem", host.id)), "/run/secrets/member.pem"),
        (tls(&format!("{}.key", host.id)), "/run/secrets/member.key"),
        (path(sim::shared_key_file(inside)), "/run/secrets/validator_key.json"),
        // Standard output of the container; coordinator and guard write to standard error, and Docker keeps them apart.
        (path(inside.node_log(&host.id)), "/proc/1/fd/1"),
        // What Docker publishes, and the container's own health check.
        (format!("listen = \"{}:", host.addr), "listen = \"0.0.0.0:"),
    ];
    let mut text = hosts::config(inside, host);
    for (from, to) in &moved {
        text = text.replace(from, to);
    }
    if text.contains("/net/hosts") || text.contains("/net/keys") || text.contains("/net/tls") {
        bail!("{}: a path of baton.toml has no place in the container:\n{text}", host.id);
    }
    Ok(text)
}

/// What `docker build` gets: the Dockerfile and the four programs.
fn stage_image(net: &Net) -> Result<()> {
    let context = image_context(net);
    make_dir(&context)?;
    write_file(&context.join("Dockerfile"), DOCKERFILE)?;
    let folder = net.programs.baton.parent().context("the static programs have no folder")?;
    for name in ["baton", "baton-guard", "baton-signer", "simchain"] {
        let (from, to) = (folder.join(name), context.join(name));
        fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

pub fn image_context(net: &Net) -> PathBuf {
    net.dir.join("image")
}

pub fn compose_files(net: &Net) -> [PathBuf; 2] {
    ["compose.yaml", "compose.sim.yaml"].map(|name| net.dir.join(name))
}

pub fn env_file(net: &Net) -> PathBuf {
    net.dir.join("compose.env")
}

/// Values of compose's variables. They are also given to compose itself, so that none of the caller's own environment
/// takes the place of one: BATON_NET of a real validator may stand there.
pub fn variables(net: &Net) -> Result<Vec<(String, String)>> {
    let own = super::of(net)?;
    let mut all: Vec<(String, String)> = [
        ("BATON_NET", net.dir.display().to_string()),
        ("BATON_IMAGE", super::image(net)?),
        ("BATON_PROJECT", own.project.clone()),
        ("BATON_SUBNET", own.subnet.clone()),
        ("BATON_UID", own.uid.to_string()),
        ("BATON_GID", own.gid.to_string()),
        ("BATON_VALIDATOR_KEY", "shared.json".into()),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .into();
    let ports = ["A", "B", "C"].iter().zip(&own.published);
    all.extend(ports.map(|(host, port)| (format!("BATON_METRICS_{host}"), port.to_string())));
    for validator in &net.validators {
        let peers: Vec<String> = net.chain_peers(&validator.id).values().map(ToString::to_string).collect();
        all.push((format!("BATON_PEERS_{}", validator.id.to_uppercase().replace('-', "_")), peers.join(",")));
    }
    Ok(all)
}

/// Whatever a container mounts belongs to its user; the authority's own key stays ours.
fn give_away(net: &Net) -> Result<()> {
    let own = super::of(net)?;
    if !geteuid().is_root() {
        return Ok(());
    }
    let tls = net.dir.join("tls");
    let of_hosts = net.hosts.iter().flat_map(|host| [format!("{}.pem", host.id), format!("{}.key", host.id)]);
    let mut given: Vec<PathBuf> = of_hosts.chain(["ca.pem".into()]).map(|name| tls.join(name)).collect();
    given.extend([net.dir.join("hosts"), net.dir.join("validators"), net.sign_log(), net.dir.join("genesis.json")]);
    given.push(sim::shared_key_file(net));
    given.iter().try_for_each(|path| give(path, own.uid, own.gid))
}

fn give(path: &Path, uid: u32, gid: u32) -> Result<()> {
    let what = || format!("give {} to user {uid}", path.display());
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(what)? {
            give(&entry.with_context(what)?.path(), uid, gid)?;
        }
    }
    chown(path, Some(uid), Some(gid)).with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{ChainKind, Ground, Programs};
    use baton::config::Config;

    #[test]
    fn baton_takes_what_a_container_is_given_and_no_path_of_this_machine_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape { ground: Ground::Containers, ..Shape::usual(ChainKind::Sim) };
        let mut net = Net::lay_out(dir.path(), shape, Programs::nowhere()).unwrap();
        place(&mut net, Engine::nowhere()).unwrap();
        let inside = Net { dir: INSIDE.into(), ..net.clone() };
        for host in &net.hosts {
            let text = config(&inside, host).unwrap();
            let file = dir.path().join("baton.toml");
            write_file(&file, &text).unwrap();
            let config = Config::load(&file, std::iter::empty()).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(config.warnings, Vec::<String>::new(), "{text}");
            assert!(!text.contains(&*dir.path().to_string_lossy()), "{text}");
            assert!(text.contains("listen = \"0.0.0.0:") && text.contains("/run/secrets/member.key"), "{text}");
            let has_key = text.contains("/run/secrets/validator_key.json");
            assert_eq!(has_key, host.role == Role::Validator, "{text}");
        }
    }
}
