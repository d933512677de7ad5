//! From a `Document` to a `Config`: defaults, the meaning of every section but `[chain]`, and the
//! checks across sections. What is returned needs no further check.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::ids::{NodeId, Role, is_plain_name};
use crate::base::signing::Custody;
use crate::base::timing::{LeaseSpan, Timing};

use super::chain_section;
use super::error::ConfigError;
use super::file::Document;
use super::hooks_section;
use super::{Chain, Cluster, Config, Member, Tls};

/// The highest priority of a member, in a configuration or by an operator's order.
pub const PRIORITY_MAX: u32 = 1_000_000;
/// A busy disk takes a second for a sync at times, and a holder gives the baton up for one that hangs.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);
const DISK_TIMEOUT_MIN: Duration = Duration::from_millis(500);
const DISK_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Some hours of an ordinary member.
const RECORD_MIB: u32 = 64;
const RECORD_MIB_MAX: u32 = 4096;
/// An entry is a few hundred bytes and moves are rare.
pub const SNAPSHOT_EVERY: u32 = 500;
const SNAPSHOT_EVERY_MIN: u32 = 10;
const SNAPSHOT_EVERY_MAX: u32 = 10_000;
/// A unix socket's path has 107 bytes at most; the rest of it is for the file name.
const RUN_DIR_BYTES_MAX: usize = 90;

pub(super) fn config(doc: &Document) -> Result<Config, ConfigError> {
    let id = member_id(doc, "member.id")?;
    let state_dir = doc.required_path("member.state_dir")?;
    let run_dir = doc.required_path("member.run_dir")?;
    check_run_dir(doc, &run_dir)?;
    let disk_timeout = doc.duration_within("member.disk_timeout", DISK_TIMEOUT_MIN, DISK_TIMEOUT_MAX)?;
    let record_mib = doc.integer("member.record_mib", 0, RECORD_MIB_MAX)?.unwrap_or(RECORD_MIB);
    let snapshot_every = doc.integer("member.snapshot_every", SNAPSHOT_EVERY_MIN, SNAPSHOT_EVERY_MAX)?;
    let join = doc.boolean("member.join")?.unwrap_or(false);
    let cluster = cluster(doc)?;
    let Some(me) = cluster.members.iter().find(|member| member.id == id) else {
        return Err(not_a_member(doc, &id, &cluster.members));
    };
    let role = me.role;
    let chain = match (role, doc.has_table("chain")) {
        (Role::Validator, true) => Some(chain_section::chain(doc)?),
        (Role::Arbiter, false) => None,
        (Role::Validator, false) => {
            let problem = format!("{id} is a validator and has no [chain] section; add one, or make it an arbiter");
            return Err(doc.bad("member.id", problem));
        }
        (Role::Arbiter, true) => {
            let problem =
                format!("{id} is an arbiter and runs no chain node; remove the section, or make it a validator");
            return Err(doc.bad("chain", problem));
        }
    };
    if chain.is_none() && doc.has_table("upgrade") {
        let problem = format!("{id} is an arbiter and runs no chain node that could be upgraded; remove the section");
        return Err(doc.bad("upgrade", problem));
    }
    let insecure = doc.boolean("tls.insecure")?.unwrap_or(false);
    let tls = tls(doc, insecure)?;
    if tls.is_none() && !insecure {
        check_all_loopback(doc, &cluster)?;
    }
    let mut warnings = warnings(&cluster);
    if chain.is_some() {
        warnings.extend_from_slice(doc.warnings());
    }
    if insecure {
        let listen = cluster.listen;
        warnings.push(format!(
            "tls.insecure is true: whoever reaches {listen} can speak as any member and have two hosts sign; use \
             certificates (baton cert)"
        ));
    }
    let timing = timing(doc)?;
    let older_members_lease = older_members_lease(doc)?;
    let metrics_listen = doc.socket_addr("metrics.listen")?;
    let watchdog = watchdog(doc, &id, chain.as_ref())?;
    let hooks = hooks_section::hooks(doc, &id, role)?;
    Ok(Config {
        id,
        state_dir,
        run_dir,
        disk_timeout: disk_timeout.unwrap_or(DISK_TIMEOUT),
        record_bytes: u64::from(record_mib) << 20,
        snapshot_every: snapshot_every.unwrap_or(SNAPSHOT_EVERY).into(),
        join,
        cluster,
        timing,
        older_members_lease,
        tls,
        insecure,
        chain,
        metrics_listen,
        watchdog,
        hooks,
        warnings,
    })
}

/// Of a host whose guard has a deadline to keep.
fn watchdog(doc: &Document, id: &NodeId, chain: Option<&Chain>) -> Result<Option<PathBuf>, ConfigError> {
    let key = "watchdog.device";
    let device = doc.path(key)?;
    let reason = match chain {
        _ if device.is_none() => return Ok(None),
        None => format!("{id} is an arbiter and never holds the baton, so there is nothing to watch"),
        Some(chain) if chain.custody() == Custody::Signer => {
            "with chain.custody = \"signer\" the log decides what is signed, and no deadline".to_owned()
        }
        Some(_) => return Ok(device),
    };
    Err(doc.bad(key, format!("{reason}; remove it")))
}

fn member_id(doc: &Document, key: &str) -> Result<NodeId, ConfigError> {
    check_id(doc.required_text(key)?).map_err(|problem| doc.bad(key, problem))
}

/// # Errors
/// `text` is no name that a member could have.
pub fn check_id(text: String) -> Result<NodeId, String> {
    if !is_plain_name(&text) {
        return Err(format!("{text:?} is not a member id; use up to 64 letters, digits, '-', '_' and '.'"));
    }
    Ok(NodeId::from(text))
}

fn check_run_dir(doc: &Document, run_dir: &Path) -> Result<(), ConfigError> {
    let bytes = run_dir.as_os_str().len();
    if bytes <= RUN_DIR_BYTES_MAX {
        return Ok(());
    }
    let limit = RUN_DIR_BYTES_MAX;
    Err(doc.bad("member.run_dir", format!("{bytes} bytes are too long for a unix socket's path; use {limit} at most")))
}

fn cluster(doc: &Document) -> Result<Cluster, ConfigError> {
    let name = doc.required_text("cluster.name")?;
    let listen = doc.required("cluster.listen", doc.socket_addr("cluster.listen")?)?;
    let failback = doc.boolean("cluster.failback")?.unwrap_or(false);
    let count = doc.count("cluster.members");
    if count == 0 {
        return Err(ConfigError::Missing {
            key: "cluster.members".to_owned(),
            file: doc.file().to_owned(),
            example: r#"[cluster] members = [{ id = "host-a", addr = "10.0.0.1:7401" }]"#.to_owned(),
        });
    }
    let members: Vec<Member> = (0..count).map(|index| member(doc, index)).collect::<Result<_, _>>()?;
    check_members(doc, &members)?;
    Ok(Cluster { name, listen, members, failback })
}

fn member(doc: &Document, index: usize) -> Result<Member, ConfigError> {
    let key = |name: &str| format!("cluster.members[{index}].{name}");
    let id = member_id(doc, &key("id"))?;
    let addr = doc.required_text(&key("addr"))?;
    check_address(&addr).map_err(|problem| doc.bad(&key("addr"), problem))?;
    let roles = [("validator", Role::Validator), ("arbiter", Role::Arbiter)];
    let role = doc.choice(&key("role"), &roles)?.unwrap_or(Role::Validator);
    let default_priority = match role {
        Role::Validator => 100,
        Role::Arbiter => 0,
    };
    let priority = doc.integer(&key("priority"), 0, PRIORITY_MAX)?.unwrap_or(default_priority);
    Ok(Member { id, addr, role, priority })
}

fn check_members(doc: &Document, members: &[Member]) -> Result<(), ConfigError> {
    let (mut ids, mut addrs) = (BTreeMap::new(), BTreeMap::new());
    for (index, member) in members.iter().enumerate() {
        if let Some(first) = ids.insert(member.id.clone(), index) {
            let problem = format!("{} is the id of members[{first}] too; give each member its own", member.id);
            return Err(doc.bad(&format!("cluster.members[{index}].id"), problem));
        }
        if let Some(first) = addrs.insert(member.addr.to_lowercase(), index) {
            let problem = format!("{} is the address of members[{first}] too; give each member its own", member.addr);
            return Err(doc.bad(&format!("cluster.members[{index}].addr"), problem));
        }
    }
    if members.iter().all(|member| member.role == Role::Arbiter) {
        let problem = "no member is a validator, so nobody could sign; give one role = \"validator\"";
        return Err(doc.bad("cluster.members", problem));
    }
    Ok(())
}

fn not_a_member(doc: &Document, id: &NodeId, members: &[Member]) -> ConfigError {
    let ids: Vec<&str> = members.iter().map(|member| member.id.as_str()).collect();
    let problem = format!("{id} is not in cluster.members ({}); add it or correct the id", ids.join(", "));
    doc.bad("member.id", problem)
}

fn timing(doc: &Document) -> Result<Timing, ConfigError> {
    let profiles = [("fast", Timing::FAST), ("lan", Timing::LAN), ("signer", Timing::SIGNER), ("wan", Timing::WAN)];
    let profile = doc.choice("timing.profile", &profiles)?.unwrap_or(Timing::LAN);
    let heartbeat = doc.duration("timing.heartbeat")?.unwrap_or(profile.heartbeat());
    let lease = doc.duration("timing.lease")?.unwrap_or(profile.lease());
    let kill_max = doc.duration("timing.kill_max")?.unwrap_or(profile.kill_max());
    let drift_ppm = doc.integer("timing.drift_ppm", 0, 100_000)?.unwrap_or(profile.drift_ppm());
    Ok(Timing::new(heartbeat, lease, kill_max, drift_ppm)?)
}

fn older_members_lease(doc: &Document) -> Result<Option<std::time::Duration>, ConfigError> {
    const KEY: &str = "timing.older_members_lease";
    let lease = doc.duration(KEY)?;
    if let Some(Err(error)) = lease.map(|lease| LeaseSpan::new(lease, 0)) {
        return Err(doc.bad(KEY, error.to_string()));
    }
    Ok(lease)
}

fn tls(doc: &Document, insecure: bool) -> Result<Option<Tls>, ConfigError> {
    const FILES: [&str; 3] = ["tls.ca", "tls.cert", "tls.key"];
    if insecure {
        let named = FILES.into_iter().find(|key| doc.entry(key).is_some());
        return named.map_or(Ok(None), |key| {
            Err(doc.bad("tls.insecure", format!("is true, so {key} would not be used; remove one of them")))
        });
    }
    if !doc.has_table("tls") {
        return Ok(None);
    }
    let [ca, cert, key] = FILES.map(|key| doc.required_key_path(key));
    Ok(Some(Tls { ca: ca?, cert: cert?, key: key? }))
}

/// Without TLS nothing but this machine may be spoken to.
fn check_all_loopback(doc: &Document, cluster: &Cluster) -> Result<(), ConfigError> {
    let listens = std::iter::once(("cluster.listen".to_owned(), cluster.listen.to_string()));
    let addrs = cluster.members.iter().enumerate();
    let addrs = addrs.map(|(index, member)| (format!("cluster.members[{index}].addr"), member.addr.clone()));
    for (key, addr) in listens.chain(addrs) {
        if !is_loopback(&addr) {
            let problem = format!("{addr} is not a loopback address, so [tls] is required; add its ca, cert and key");
            return Err(doc.bad(&key, problem));
        }
    }
    Ok(())
}

/// `host:port`, `1.2.3.4:port` or `[::1]:port`.
fn host_and_port(addr: &str) -> Option<(&str, u16)> {
    let (host, port) = addr.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let plain = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    (plain || addr.parse::<SocketAddr>().is_ok()).then_some((host, port))
}

/// # Errors
/// `addr` is nothing that a member could be reached at.
pub fn check_address(addr: &str) -> Result<(), String> {
    match host_and_port(addr) {
        Some(_) => Ok(()),
        None => Err(format!("{addr:?} is not HOST:PORT; write \"10.0.0.1:7401\"")),
    }
}

pub fn is_loopback(addr: &str) -> bool {
    let Some((host, _)) = host_and_port(addr) else { return false };
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    ip.map_or(host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback())
}

fn warnings(cluster: &Cluster) -> Vec<String> {
    let members = cluster.members.len();
    let validators = cluster.members.iter().filter(|member| member.role == Role::Validator).count();
    let mut warnings = Vec::new();
    if members == 1 {
        warnings.push("cluster.members has 1 member: nobody takes over when it fails; use 3".to_owned());
    } else if members == 2 {
        warnings.push(
            "cluster.members has 2 members: the loss of EITHER stops signing; use 3 (an arbiter is enough)".to_owned(),
        );
    } else if members.is_multiple_of(2) {
        let (survives, more) = ((members - 1) / 2, members + 1);
        warnings.push(format!(
            "cluster.members has {members} members and survives the loss of {survives}, as {} would; use {more} \
             (an arbiter is enough)",
            members - 1
        ));
    }
    if members > 1 && validators == 1 {
        warnings.push("cluster.members has 1 validator: nobody takes over when it fails; use 2 or more".to_owned());
    }
    warnings
}
