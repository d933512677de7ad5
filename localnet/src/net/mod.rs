//! What a network consists of: hosts, genesis validators, ports, wires, programs. Laid out once,
//! kept in `net.json`, read by every later command. Starts and signals nothing.

pub mod http;
pub mod namespaces;
pub mod ports;
pub mod proxy;
pub mod shape;
pub mod switch;
pub mod tls;
pub mod wires;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use baton::base::ids::Role;
use serde::{Deserialize, Serialize};

use crate::compose::Containers;
use crate::net::proxy::{Plane, Route};
pub use shape::{ChainKind, Custody, HOSTS, HookKind, Profile, Shape};

pub const VALIDATORS: [&str; 3] = ["val-1", "val-2", "val-3"];
/// A socket path has at most 107 bytes; `run_dir` leaves room for the names in it.
const RUN_DIR_MAX: usize = 70;

/// Bad input: the command ends with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Absolute paths of what runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Programs {
    pub localnet: PathBuf,
    pub baton: PathBuf,
    pub chain_node: PathBuf,
    /// The library by which a host's wall clock is stepped.
    pub stepped_clock: PathBuf,
}

#[cfg(test)]
impl Programs {
    /// For networks that are laid out and never started.
    pub fn nowhere() -> Programs {
        Programs {
            localnet: "/b/localnet".into(),
            baton: "/b/baton".into(),
            chain_node: "/b/simchain".into(),
            stepped_clock: "/b/libstepped_clock.so".into(),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    pub id: String,
    pub role: Role,
    pub priority: u32,
    /// Of everything that runs on it, as its own processes and its neighbours see it.
    pub addr: Ipv4Addr,
    pub raft_port: u16,
    pub metrics_port: u16,
    /// Zero on the arbiter, like `p2p_port`.
    pub rpc_port: u16,
    pub p2p_port: u16,
    pub run_dir: PathBuf,
}

/// A genesis validator that signs with a key of its own and knows nothing of baton.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Validator {
    pub id: String,
    pub addr: Ipv4Addr,
    pub rpc_port: u16,
    pub p2p_port: u16,
}

impl Host {
    pub fn raft(&self) -> SocketAddr {
        (self.addr, self.raft_port).into()
    }

    pub fn metrics(&self) -> SocketAddr {
        (self.addr, self.metrics_port).into()
    }

    pub fn rpc(&self) -> SocketAddr {
        (self.addr, self.rpc_port).into()
    }

    pub fn p2p(&self) -> SocketAddr {
        (self.addr, self.p2p_port).into()
    }
}

impl Validator {
    pub fn rpc(&self) -> SocketAddr {
        (self.addr, self.rpc_port).into()
    }

    pub fn p2p(&self) -> SocketAddr {
        (self.addr, self.p2p_port).into()
    }
}

/// What a node of the chain listens on, whether a host's or a genesis validator's.
pub struct ChainNode<'a> {
    pub name: &'a str,
    pub rpc: SocketAddr,
    pub p2p: SocketAddr,
}

/// What the hosts stand on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ground {
    /// All share this machine's loopback device; userspace proxies are their wires.
    #[default]
    Loopback,
    /// Each has a network namespace of its own, and a small file system for its state.
    Namespaces,
    /// Each is a container of a Docker engine.
    Containers,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Net {
    /// Absolute and without links; the marker of every process.
    pub dir: PathBuf,
    pub ground: Ground,
    pub chain: ChainKind,
    pub slot_ms: u64,
    pub programs: Programs,
    pub hosts: Vec<Host>,
    pub validators: Vec<Validator>,
    pub routes: Vec<Route>,
    /// Stands in for `dir` where a socket needs a short path; removed at the end.
    pub short_dir: Option<PathBuf>,
    /// The public key that the hosts share, as the chain writes it. Empty until the chain is laid out.
    pub shared_key: String,
    /// Of a network on [`Ground::Containers`].
    #[serde(default)]
    pub containers: Option<Containers>,
    /// As in [`Shape`].
    #[serde(default)]
    pub cosmovisor: bool,
    /// As in [`Shape`].
    #[serde(default)]
    pub tls: bool,
    /// As in [`Shape`].
    #[serde(default)]
    pub profile: Profile,
    /// As in [`Shape`].
    #[serde(default)]
    pub custody: Custody,
    /// As in [`Shape`].
    #[serde(default)]
    pub delay_ms: u64,
    /// As in [`Shape`].
    #[serde(default)]
    pub record_mib: Option<u32>,
    /// As in [`Shape`].
    #[serde(default)]
    pub hooks: HookKind,
}

impl Net {
    /// A fresh network under `dir`, which exists and is absolute. Picks ports; writes no file of it.
    pub fn lay_out(dir: &Path, shape: Shape, programs: Programs) -> Result<Net> {
        let short_dir = match shape.ground {
            Ground::Containers => None,
            Ground::Loopback | Ground::Namespaces => short_dir_for(dir)?,
        };
        let mut ports = ports::pick_anew(dir, shape.ports())?.into_iter();
        let mut port = move || ports.next().context("more ports needed than picked");
        let mut hosts = Vec::new();
        for (i, letter) in ('a'..).take(shape.hosts).enumerate() {
            let id = format!("host-{letter}");
            let arbiter = i >= shape.signers();
            let run_dir = match &short_dir {
                Some(short) => short.join(&id),
                None => dir.join("hosts").join(&id).join("run"),
            };
            hosts.push(Host {
                id,
                role: if arbiter { Role::Arbiter } else { Role::Validator },
                priority: 100 - 10 * i as u32,
                addr: shape.ground.addr(1 + i as u8),
                raft_port: port()?,
                metrics_port: port()?,
                rpc_port: if arbiter { 0 } else { port()? },
                p2p_port: if arbiter { 0 } else { port()? },
                run_dir,
            });
        }
        let mut validators = Vec::new();
        for id in VALIDATORS {
            validators.push(Validator {
                id: id.into(),
                addr: shape.ground.addr(OUTSIDE),
                rpc_port: port()?,
                p2p_port: port()?,
            });
        }
        let mut routes = Vec::new();
        let wires = match shape.ground {
            Ground::Loopback => wires(&hosts, &validators),
            Ground::Namespaces | Ground::Containers => Vec::new(),
        };
        for (from, to, plane, target) in wires {
            routes.push(Route { from, to, plane, listen: port()?, target });
        }
        let Shape { ground, chain, slot_ms, hosts: _, cosmovisor, tls, profile, custody, .. } = shape;
        let Shape { delay_ms, record_mib, hooks: hooks_do, .. } = shape;
        Ok(Net {
            dir: dir.to_path_buf(),
            ground,
            chain,
            slot_ms,
            programs,
            hosts,
            validators,
            routes,
            short_dir,
            shared_key: String::new(),
            containers: None,
            cosmovisor,
            tls,
            profile,
            custody,
            delay_ms,
            record_mib,
            hooks: hooks_do,
        })
    }

    /// # Errors
    /// There is no network under `dir`, or its description cannot be read.
    pub fn load(dir: &Path) -> Result<Net> {
        let file = dir.join("net.json");
        if !file.exists() {
            return Err(Usage(format!("no network under {}: start one with `localnet up`", dir.display())).into());
        }
        let text = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("read {}", file.display()))
    }

    pub fn save(&self) -> Result<()> {
        write_file(&self.dir.join("net.json"), &(serde_json::to_string_pretty(self)? + "\n"))
    }

    /// # Errors
    /// Names the hosts that exist.
    pub fn host(&self, id: &str) -> Result<&Host> {
        let host = self.hosts.iter().find(|h| h.id == id);
        host.ok_or_else(|| {
            let ids: Vec<&str> = self.hosts.iter().map(|h| h.id.as_str()).collect();
            Usage(format!("no host {id:?}: there are {}", ids.join(", "))).into()
        })
    }

    /// Whether members prove themselves to each other.
    pub fn has_tls(&self) -> bool {
        match self.ground {
            Ground::Loopback => self.tls,
            Ground::Namespaces | Ground::Containers => true,
        }
    }

    /// The hosts that run a chain node.
    pub fn signers(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|h| h.role == Role::Validator)
    }

    pub fn host_dir(&self, id: &str) -> PathBuf {
        self.dir.join("hosts").join(id)
    }

    /// Where its coordinator keeps its store.
    pub fn state_dir(&self, id: &str) -> PathBuf {
        self.host_dir(id).join("state")
    }

    pub fn config_file(&self, id: &str) -> PathBuf {
        self.host_dir(id).join("baton.toml")
    }

    /// What the chain node of a host prints.
    pub fn node_log(&self, id: &str) -> PathBuf {
        self.host_dir(id).join("node.log")
    }

    /// The chain node's home.
    pub fn chain_home(&self, id: &str) -> PathBuf {
        self.host_dir(id).join("chain")
    }

    pub fn validator_home(&self, id: &str) -> PathBuf {
        self.dir.join("validators").join(id)
    }

    pub fn keys_dir(&self) -> PathBuf {
        self.dir.join("keys")
    }

    pub fn sign_log(&self) -> PathBuf {
        self.dir.join("signatures.log")
    }

    pub fn wires_socket(&self) -> PathBuf {
        self.short_dir.as_ref().unwrap_or(&self.dir).join("wires.sock")
    }

    pub fn route(&self, from: &str, to: &str, plane: Plane) -> Option<&Route> {
        self.routes.iter().find(|r| r.from == from && r.to == to && r.plane == plane)
    }

    /// Where `from` reaches `to`: at a proxy where there is one, else at `direct`, where `to` listens.
    pub fn address_seen(&self, from: &str, to: &str, plane: Plane, direct: SocketAddr) -> SocketAddr {
        self.route(from, to, plane).map_or(direct, |route| (Ipv4Addr::LOCALHOST, route.listen).into())
    }

    pub fn chain_nodes(&self) -> Vec<ChainNode<'_>> {
        let hosts = self.signers().map(|h| ChainNode { name: &h.id, rpc: h.rpc(), p2p: h.p2p() });
        hosts.chain(self.validators.iter().map(|v| ChainNode { name: &v.id, rpc: v.rpc(), p2p: v.p2p() })).collect()
    }

    /// Name and address of every chain node that `node` dials, as seen from there. A node of the sim chain begins once
    /// half of these are there, and the genesis validators begin before the hosts: so they dial as many hosts as
    /// validators, and are dialled by the others.
    pub fn chain_peers(&self, node: &str) -> BTreeMap<&str, SocketAddr> {
        let is_validator = self.validators.iter().any(|v| v.id == node);
        let hosts = if is_validator { self.validators.len() - 1 } else { self.hosts.len() };
        let beyond: Vec<&str> = self.signers().skip(hosts).map(|h| h.id.as_str()).collect();
        let nodes = self.chain_nodes().into_iter();
        let others = nodes.filter(|other| other.name != node && !beyond.contains(&other.name));
        others.map(|other| (other.name, self.address_seen(node, other.name, Plane::Chain, other.p2p))).collect()
    }
}

/// The last part of the address of what is no host: the genesis validators and the harness.
pub const OUTSIDE: u8 = 254;

impl Ground {
    /// In namespaces every host has one of these; nobody else can see them. Containers get others later.
    pub fn addr(self, last: u8) -> Ipv4Addr {
        match self {
            Ground::Loopback => Ipv4Addr::LOCALHOST,
            Ground::Namespaces | Ground::Containers => Ipv4Addr::new(10, 77, 0, last),
        }
    }
}

/// Both directions of every pair of neighbours of which one at least is a host.
fn wires(hosts: &[Host], validators: &[Validator]) -> Vec<(String, String, Plane, u16)> {
    let mut wires = Vec::new();
    for from in hosts {
        for to in hosts.iter().filter(|to| to.id != from.id) {
            wires.push((from.id.clone(), to.id.clone(), Plane::Raft, to.raft_port));
            if from.role == Role::Validator && to.role == Role::Validator {
                wires.push((from.id.clone(), to.id.clone(), Plane::Chain, to.p2p_port));
            }
        }
        for validator in validators.iter().filter(|_| from.role == Role::Validator) {
            wires.push((from.id.clone(), validator.id.clone(), Plane::Chain, validator.p2p_port));
            wires.push((validator.id.clone(), from.id.clone(), Plane::Chain, from.p2p_port));
        }
    }
    wires
}

fn short_dir_for(dir: &Path) -> Result<Option<PathBuf>> {
    if dir.join("hosts/host-a/run").as_os_str().len() <= RUN_DIR_MAX {
        return Ok(None);
    }
    let short = PathBuf::from(format!("/tmp/baton-localnet-{:08x}", rand::random::<u32>()));
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700).create(&short).with_context(|| format!("create {}", short.display()))?;
    Ok(Some(short))
}

/// `file` holds `text`, whole or not at all.
pub fn write_file(file: &Path, text: &str) -> Result<()> {
    let what = || format!("write {}", file.display());
    let temp = file.with_extension("tmp");
    let mut out = fs::File::create(&temp).with_context(what)?;
    out.write_all(text.as_bytes()).with_context(what)?;
    fs::rename(&temp, file).with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn hosts_reach_each_other_and_the_chain_through_wires_only() {
        let dir = tempfile::tempdir().unwrap();
        let net = Net::lay_out(dir.path(), Shape::usual(ChainKind::Sim), Programs::nowhere()).unwrap();
        let direct: BTreeSet<SocketAddr> = net.chain_nodes().iter().map(|node| node.p2p).collect();
        assert_eq!(net.chain_peers("host-a").len(), 4);
        assert!(net.chain_peers("host-a").values().all(|addr| !direct.contains(addr)), "{net:?}");
        let from_val = net.chain_peers("val-1");
        assert!(direct.contains(&from_val["val-2"]) && !direct.contains(&from_val["host-b"]), "{net:?}");
        for (from, to) in [("host-a", "host-c"), ("host-c", "host-a"), ("host-b", "host-a")] {
            assert!(net.route(from, to, Plane::Raft).is_some(), "no wire from {from} to {to}");
        }
    }

    #[test]
    fn a_network_of_any_size_has_a_majority_of_signers_and_a_port_for_each_purpose() {
        for hosts in HOSTS {
            let dir = tempfile::tempdir().unwrap();
            let shape = Shape { hosts, ..Shape::usual(ChainKind::Sim) };
            let net = Net::lay_out(dir.path(), shape, Programs::nowhere()).unwrap();
            assert_eq!((net.hosts.len(), net.signers().count()), (hosts, hosts / 2 + 1), "{net:?}");
            let of_hosts = net.hosts.iter().flat_map(|h| [h.raft_port, h.metrics_port]);
            let of_chain = net.chain_nodes().into_iter().flat_map(|node| [node.rpc.port(), node.p2p.port()]);
            let ports: Vec<u16> = of_hosts.chain(of_chain).chain(net.routes.iter().map(|r| r.listen)).collect();
            let distinct: BTreeSet<u16> = ports.iter().copied().collect();
            assert_eq!((distinct.len(), ports.len()), (shape.ports(), shape.ports()), "{net:?}");
            let (from_start, dialled) = (net.validators.len() - 1, net.chain_peers("val-1").len());
            assert!(2 * from_start >= dialled, "a genesis validator waits for hosts: {net:?}");
        }
    }

    #[test]
    fn a_saved_network_is_read_back_and_a_missing_one_says_how_to_start() {
        let dir = tempfile::tempdir().unwrap();
        let error = Net::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("localnet up"), "{error}");
        let net = Net::lay_out(dir.path(), Shape::usual(ChainKind::Cometbft), Programs::nowhere()).unwrap();
        net.save().unwrap();
        let again = Net::load(dir.path()).unwrap();
        assert_eq!((again.chain, &again.routes), (ChainKind::Cometbft, &net.routes));
    }

    #[test]
    fn sockets_of_a_deep_network_get_a_short_folder() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a-rather-long-name-of-a-folder/".repeat(4));
        let net = Net::lay_out(&deep, Shape::usual(ChainKind::Sim), Programs::nowhere()).unwrap();
        let longest = net.hosts.iter().map(|h| h.run_dir.as_os_str().len()).max().unwrap();
        assert!(longest <= RUN_DIR_MAX, "{net:?}");
        fs::remove_dir_all(net.short_dir.unwrap()).unwrap();
    }
}
