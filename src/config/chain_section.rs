//! The `[chain]` section: how the chain node is run, what its links are, how it is activated and
//! asked for its health. Each driver's defaults and limits stand here side by side.

use std::path::{Component, Path};
use std::time::Duration;

use crate::base::chain_node::Activation;
use crate::base::guard_frame::LinkSpec;

use super::error::ConfigError;
use super::file::{Document, Raw};
use super::signer_section;
use super::units;
use super::upgrade_section;
use super::{
    Chain, ChainLog, DriverKind, KeyNames, LastSigned, NearAddrs, OnHalt, Pointers, Probe, ProbeTarget, RpcCall,
    TargetHeight, reference,
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Pointers into an answer, and what belongs to them.
const POINTERS: [&str; 10] = [
    "chain.probe.syncing",
    "chain.probe.height",
    "chain.probe.target_height",
    "chain.probe.behind_max",
    "chain.probe.head_time",
    "chain.probe.peers",
    "chain.probe.key",
    "chain.probe.key_validating",
    "chain.probe.key_standby",
    "chain.probe.version",
];

pub(super) fn chain(doc: &Document) -> Result<Chain, ConfigError> {
    let kinds = [("near", DriverKind::Near), ("cometbft", DriverKind::CometBft), ("generic", DriverKind::Generic)];
    let driver = doc.required("chain.driver", doc.choice("chain.driver", &kinds)?)?;
    let home = doc.required_path("chain.home")?;
    let command = doc.required("chain.command", doc.argv("chain.command")?)?;
    let halt = [("wait", OnHalt::Wait), ("replica", OnHalt::Replica)];
    let on_halt = doc.choice("chain.on_halt", &halt)?.unwrap_or(OnHalt::Wait);
    let activation = activation(doc, driver)?;
    let signer = signer_section::signer(doc, driver)?;
    let links = links(doc, &home)?;
    if signer.is_none() {
        check_links(doc, &activation, &links)?;
    }
    let near_addrs = near_addrs(doc, driver, &activation)?;
    let mut chain = Chain {
        driver,
        command,
        env: doc.variables("chain.env")?,
        log: log(doc)?,
        stop_timeout: doc.duration_within("chain.stop_timeout", ms(100), ms(600_000))?.unwrap_or(ms(30_000)),
        clock_skew: doc.duration_within("chain.clock_skew", ms(1), ms(10_000))?.unwrap_or(ms(200)),
        on_halt,
        halt_after: halt_after(doc, on_halt)?,
        keys_on_tmpfs: doc.boolean("chain.keys_on_tmpfs")?.unwrap_or(false),
        links,
        activation,
        probe: probe(doc, driver)?,
        last_signed: last_signed(doc, &home)?,
        near_addrs,
        upgrade: None,
        signer,
        home,
    };
    chain.upgrade = upgrade_section::upgrade(doc, &chain)?;
    Ok(chain)
}

fn log(doc: &Document) -> Result<Option<ChainLog>, ConfigError> {
    let mib = doc.integer("chain.log_max_mib", 1, 65_536)?;
    let kept = doc.integer("chain.log_kept", 1, 100)?;
    match doc.path("chain.log")? {
        Some(file) => {
            let usual = ChainLog::at(file);
            let bytes_max = mib.map_or(usual.bytes_max, |mib| u64::from(mib) << 20);
            Ok(Some(ChainLog { bytes_max, kept: kept.unwrap_or(usual.kept), ..usual }))
        }
        None => match mib.map(|_| "chain.log_max_mib").or(kept.map(|_| "chain.log_kept")) {
            Some(key) => Err(doc.bad(key, "means nothing without chain.log; remove it or name a file in chain.log")),
            None => Ok(None),
        },
    }
}

fn halt_after(doc: &Document, on_halt: OnHalt) -> Result<Duration, ConfigError> {
    let key = "chain.halt_after";
    if on_halt == OnHalt::Wait && doc.entry(key).is_some() {
        return Err(doc.bad(key, "means nothing with on_halt = \"wait\"; remove it or set on_halt = \"replica\""));
    }
    Ok(doc.duration_within(key, ms(1000), ms(3_600_000))?.unwrap_or(ms(30_000)))
}

fn links(doc: &Document, home: &Path) -> Result<Vec<LinkSpec>, ConfigError> {
    let mut links: Vec<LinkSpec> = Vec::new();
    for index in 0..doc.count("chain.links") {
        let key = |name: &str| format!("chain.links[{index}].{name}");
        let written = doc.required_text(&key("link"))?;
        let link = home.join(&written);
        let below = link.strip_prefix(home).ok().filter(|rest| !rest.as_os_str().is_empty());
        if below.is_none_or(|rest| !rest.components().all(|part| matches!(part, Component::Normal(_)))) {
            let home = home.display();
            let problem =
                format!("{written:?} is not below chain.home = {home}; write a path relative to it without ..");
            return Err(doc.bad(&key("link"), problem));
        }
        let validating = doc.required_key_path(&key("validating"))?;
        let standby = doc.key_path(&key("standby"))?;
        if standby.as_ref() == Some(&validating) {
            let problem = "is the validating target too, so a standby would sign; name another file or remove it";
            return Err(doc.bad(&key("standby"), problem));
        }
        for target in [Some(&validating), standby.as_ref()].into_iter().flatten() {
            if *target == link {
                let problem = format!("{written:?} would point to itself; move the target out of the link's place");
                return Err(doc.bad(&key("link"), problem));
            }
        }
        if let Some(first) = links.iter().position(|other| other.link == link) {
            let problem = format!("{written:?} is the link of links[{first}] too; remove one of them");
            return Err(doc.bad(&key("link"), problem));
        }
        links.push(LinkSpec { link, validating, standby });
    }
    Ok(links)
}

/// What an activation needs from its links, beyond each being sound by itself.
fn check_links(doc: &Document, activation: &Activation, links: &[LinkSpec]) -> Result<(), ConfigError> {
    // A command can switch keys by itself; every other way of activation needs a link to change.
    if links.is_empty() && !matches!(activation, Activation::Exec { .. }) {
        return Err(doc.missing("chain.links[].link"));
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Restart,
    Signal,
    Exec,
}

impl How {
    const WORDS: [(&str, How); 3] = [("restart", How::Restart), ("signal", How::Signal), ("exec", How::Exec)];

    fn word(self) -> &'static str {
        match self {
            How::Restart => "restart",
            How::Signal => "signal",
            How::Exec => "exec",
        }
    }

    fn of(driver: DriverKind) -> How {
        match driver {
            DriverKind::Near => How::Signal,
            DriverKind::CometBft | DriverKind::Generic => How::Restart,
        }
    }
}

fn activation(doc: &Document, driver: DriverKind) -> Result<Activation, ConfigError> {
    let how = doc.choice("chain.activate.how", &How::WORDS)?.unwrap_or(How::of(driver));
    if driver == DriverKind::CometBft && how != How::Restart {
        let problem = "cometbft reads its key at start only; use how = \"restart\"";
        return Err(doc.bad("chain.activate.how", problem));
    }
    for (key, owner) in [
        ("chain.activate.signal", How::Signal),
        ("chain.activate.activate", How::Exec),
        ("chain.activate.deactivate", How::Exec),
    ] {
        if how != owner && doc.entry(key).is_some() {
            let (how, owner) = (how.word(), owner.word());
            let problem = format!("means nothing with how = \"{how}\"; remove it or set how = \"{owner}\"");
            return Err(doc.bad(key, problem));
        }
    }
    match how {
        How::Restart => Ok(Activation::Restart),
        How::Signal => Ok(Activation::Signal(signal(doc)?)),
        How::Exec => {
            let argv = |key: &str| doc.required(key, doc.argv(key)?);
            let (activate, deactivate) = (argv("chain.activate.activate")?, argv("chain.activate.deactivate")?);
            Ok(Activation::Exec { activate, deactivate })
        }
    }
}

fn signal(doc: &Document) -> Result<i32, ConfigError> {
    let key = "chain.activate.signal";
    let text = match doc.entry(key).map(|entry| &entry.value) {
        None => "SIGHUP".to_owned(),
        Some(Raw::Integer(number)) => number.to_string(),
        Some(Raw::Text(_) | Raw::Bool(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_)) => doc.required_text(key)?,
    };
    units::signal(&text).map_err(|problem| doc.bad(key, problem))
}

fn probe(doc: &Document, driver: DriverKind) -> Result<Probe, ConfigError> {
    let target = match driver {
        DriverKind::Near => fixed_target(doc, "near")?,
        DriverKind::CometBft => fixed_target(doc, "cometbft")?,
        DriverKind::Generic => generic_target(doc)?,
    };
    let every = doc.duration_within("chain.probe.every", ms(10), ms(60_000))?.unwrap_or(ms(1000));
    let timeout = doc.duration_within("chain.probe.timeout", ms(10), ms(60_000))?;
    let timeout = timeout.unwrap_or(every.min(ms(1000)));
    let failures = doc.integer("chain.probe.failures", 1, 100)?.unwrap_or(3);
    let min_peers = min_peers(doc, driver, &target)?;
    Ok(Probe { target, every, timeout, failures, min_peers })
}

/// Only where the chain node's answer tells how many peers it has: else the key would do nothing.
fn min_peers(doc: &Document, driver: DriverKind, target: &ProbeTarget) -> Result<Option<u32>, ConfigError> {
    let key = "chain.probe.min_peers";
    let Some(min) = doc.integer(key, 1, 1000)? else { return Ok(None) };
    let problem = match (driver, target) {
        (DriverKind::CometBft, _) => return Ok(Some(min)),
        (DriverKind::Near, _) => "driver near is not told the number of peers; remove it",
        (DriverKind::Generic, ProbeTarget::Http { pointers, .. } | ProbeTarget::JsonRpc { pointers, .. }) => {
            if pointers.peers.is_some() {
                return Ok(Some(min));
            }
            "needs chain.probe.peers, which points to the number; add it"
        }
        (DriverKind::Generic, ProbeTarget::Exec { .. } | ProbeTarget::Tcp { .. }) => {
            "this probe tells no number of peers; use chain.probe.url and chain.probe.peers, or remove it"
        }
    };
    Err(doc.bad(key, problem))
}

/// The target of a driver that knows the shape of its node's answer.
fn fixed_target(doc: &Document, driver: &str) -> Result<ProbeTarget, ConfigError> {
    for key in ["chain.probe.exec", "chain.probe.tcp"].into_iter().chain(POINTERS) {
        if doc.entry(key).is_some() {
            let problem = format!("driver {driver} knows its node's answer; remove it, or use driver = \"generic\"");
            return Err(doc.bad(key, problem));
        }
    }
    if doc.has_table("chain.probe.calls[0]") {
        let problem = format!("driver {driver} knows its node's answer; remove them, or use driver = \"generic\"");
        return Err(doc.bad("chain.probe.calls[0]", problem));
    }
    let url = doc.required("chain.probe.url", probe_url(doc)?)?;
    Ok(ProbeTarget::Http { url, pointers: Pointers::default() })
}

fn generic_target(doc: &Document) -> Result<ProbeTarget, ConfigError> {
    let (url, exec) = (probe_url(doc)?, doc.argv("chain.probe.exec")?);
    let tcp = doc.socket_addr("chain.probe.tcp")?;
    if let (None, Some(key)) = (&url, POINTERS.into_iter().find(|key| doc.entry(key).is_some())) {
        return Err(doc.bad(key, "points into the answer of chain.probe.url, which is missing; add it"));
    }
    let calls = calls(doc)?;
    if url.is_none() && !calls.is_empty() {
        return Err(doc.bad("chain.probe.calls[0]", "is asked at chain.probe.url, which is missing; add it"));
    }
    match (url, exec, tcp) {
        (Some(url), None, None) if calls.is_empty() => Ok(ProbeTarget::Http { url, pointers: pointers(doc)? }),
        (Some(url), None, None) => Ok(ProbeTarget::JsonRpc { url, calls, pointers: pointers(doc)? }),
        (None, Some(command), None) => Ok(ProbeTarget::Exec { command }),
        (None, None, Some(addr)) => Ok(ProbeTarget::Tcp { addr: addr.to_string() }),
        (None, None, None) => Err(doc.missing("chain.probe.url")),
        (Some(_), _, _) | (None, Some(_), Some(_)) => {
            let problem = "has more than one of url, exec and tcp; keep one";
            Err(doc.bad("chain.probe", problem))
        }
    }
}

/// The calls of a JSON-RPC batch, none for a plain GET.
fn calls(doc: &Document) -> Result<Vec<RpcCall>, ConfigError> {
    let mut calls: Vec<RpcCall> = Vec::new();
    for index in 0..doc.count("chain.probe.calls") {
        let method = doc.required_text(&format!("chain.probe.calls[{index}].method"))?;
        if let Some(first) = calls.iter().position(|call| call.method == method) {
            let problem = format!("{method} is called by calls[{first}] too, and results go by method; keep one");
            return Err(doc.bad(&format!("chain.probe.calls[{index}].method"), problem));
        }
        let key = format!("chain.probe.calls[{index}].params");
        let params = doc.json(&key)?.unwrap_or_else(|| serde_json::Value::Array(Vec::new()));
        calls.push(RpcCall { method, params });
    }
    check_references(doc, &calls)?;
    Ok(calls)
}

/// A call may take what another one has answered, and no more than that: two batches are sent, not three.
fn check_references(doc: &Document, calls: &[RpcCall]) -> Result<(), ConfigError> {
    for (index, call) in calls.iter().enumerate() {
        for pointer in references(&call.params) {
            let method = pointer[1..].split('/').next().unwrap_or_default();
            let first = calls.iter().find(|other| other.method == method && references(&other.params).is_empty());
            if first.is_none() {
                let problem =
                    format!("\"${pointer}\" needs a call of {method} whose own params have no \"$/\"; add it");
                return Err(doc.bad(&format!("chain.probe.calls[{index}].params"), problem));
            }
        }
    }
    Ok(())
}

fn references(params: &serde_json::Value) -> Vec<&str> {
    match params {
        serde_json::Value::Array(items) => items.iter().flat_map(references).collect(),
        serde_json::Value::Object(fields) => fields.values().flat_map(references).collect(),
        param => reference(param).into_iter().collect(),
    }
}

fn pointers(doc: &Document) -> Result<Pointers, ConfigError> {
    Ok(Pointers {
        syncing: doc.pointer("chain.probe.syncing")?,
        height: doc.pointer("chain.probe.height")?,
        target: target_height(doc)?,
        head_time: doc.pointer("chain.probe.head_time")?,
        peers: doc.pointer("chain.probe.peers")?,
        key: doc.pointer("chain.probe.key")?,
        key_names: key_names(doc)?,
        version: doc.pointer("chain.probe.version")?,
    })
}

fn target_height(doc: &Document) -> Result<Option<TargetHeight>, ConfigError> {
    let behind_max = doc.integer("chain.probe.behind_max", 0, 100_000)?;
    match (doc.pointer("chain.probe.target_height")?, behind_max) {
        (Some(_), _) if doc.entry("chain.probe.height").is_none() => Err(doc.missing("chain.probe.height")),
        (Some(pointer), behind_max) => Ok(Some(TargetHeight { pointer, behind_max: behind_max.unwrap_or(1) })),
        (None, Some(_)) => {
            let problem = "is counted from chain.probe.target_height, which is missing; add it";
            Err(doc.bad("chain.probe.behind_max", problem))
        }
        (None, None) => Ok(None),
    }
}

fn key_names(doc: &Document) -> Result<Option<KeyNames>, ConfigError> {
    let (validating, standby) = ("chain.probe.key_validating", "chain.probe.key_standby");
    let names = match (doc.text(validating)?, doc.text(standby)?) {
        (None, None) => return Ok(None),
        (Some(_), None) => return Err(doc.missing(standby)),
        (None, Some(_)) => return Err(doc.missing(validating)),
        (Some(validating), Some(standby)) => KeyNames { validating, standby },
    };
    if doc.entry("chain.probe.key").is_none() {
        return Err(doc.missing("chain.probe.key"));
    }
    if names.validating == names.standby {
        return Err(doc.bad(standby, "is key_validating too, so a standby would look like the holder; correct one"));
    }
    Ok(Some(names))
}

fn probe_url(doc: &Document) -> Result<Option<String>, ConfigError> {
    let key = "chain.probe.url";
    let Some(url) = doc.text(key)? else { return Ok(None) };
    let parsed = url.parse::<hyper::Uri>().ok();
    let usable =
        parsed.is_some_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some_and(|h| !h.is_empty()));
    if usable {
        Ok(Some(url))
    } else {
        Err(doc.bad(key, format!("{url:?} is not an http:// address; write \"http://127.0.0.1:3030/status\"")))
    }
}

fn last_signed(doc: &Document, home: &Path) -> Result<Option<LastSigned>, ConfigError> {
    if !doc.has_table("chain.last_signed") {
        return Ok(None);
    }
    let file = home.join(doc.required_text("chain.last_signed.file")?);
    let height = doc.required("chain.last_signed.height", doc.pointer("chain.last_signed.height")?)?;
    let (round, step) = (doc.pointer("chain.last_signed.round")?, doc.pointer("chain.last_signed.step")?);
    Ok(Some(LastSigned { file, height, round, step }))
}

/// neard's network address in either role, which goes with the node key and is read at start alone.
fn near_addrs(doc: &Document, driver: DriverKind, activation: &Activation) -> Result<Option<NearAddrs>, ConfigError> {
    let keys = ["chain.near.validating_addr", "chain.near.standby_addr"];
    let Some(written) = keys.into_iter().find(|key| doc.entry(key).is_some()) else { return Ok(None) };
    if driver != DriverKind::Near {
        return Err(doc.bad(written, "means something to driver near alone; remove it or set driver = \"near\""));
    }
    if *activation != Activation::Restart {
        let problem = "cannot change in a running neard; set chain.activate.how = \"restart\" or remove it";
        return Err(doc.bad(written, problem));
    }
    let [validating, standby] = keys.map(|key| doc.required(key, doc.socket_addr(key)?));
    let addrs = NearAddrs { validating: validating?, standby: standby? };
    if addrs.validating == addrs.standby {
        let problem = format!("{} is validating_addr too, so there is nothing to switch; remove both", addrs.standby);
        return Err(doc.bad("chain.near.standby_addr", problem));
    }
    Ok(Some(addrs))
}
