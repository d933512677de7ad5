//! From the words of the command line to what is to be written, with every fault that shows at once.

use std::net::SocketAddr;

use super::member::Named;
use super::{ChainKind, Init, all_loopback};
use crate::base::ids::Role;
use crate::config::template::{Standby, Wanted, WantedChain, WantedLink, WantedProbe};
use crate::config::{DriverKind, Member};

pub(super) const USUAL_KEYS: &str = "/etc/baton/keys";
const CREDENTIALS: [&str; 2] = ["$CREDENTIALS_DIRECTORY", "${CREDENTIALS_DIRECTORY}"];
/// Priorities that nobody has said: this, and so much less for each next validator.
const PRIORITY_FIRST: u32 = 100;
const PRIORITY_STEP: u32 = 10;

/// What is usual for a chain. A generic node has no usual anything.
pub(super) struct Usual {
    pub home: &'static str,
    pub probe: &'static str,
    command: &'static [&'static str],
    after_home: &'static [&'static str],
}

impl ChainKind {
    pub(super) fn usual(self) -> Option<Usual> {
        match self {
            ChainKind::Near => Some(Usual {
                home: "/var/lib/near",
                probe: "http://127.0.0.1:3030/status",
                command: &["neard"],
                after_home: &["run"],
            }),
            ChainKind::Cometbft => Some(Usual {
                home: "/var/lib/cometbft",
                probe: "http://127.0.0.1:26657/status",
                command: &["cometbft", "start"],
                after_home: &[],
            }),
            ChainKind::Generic | ChainKind::None => None,
        }
    }
}

impl Usual {
    pub(super) fn command(&self, home: &str) -> Vec<String> {
        let words = [self.command, &["--home", home], self.after_home].concat();
        words.into_iter().map(str::to_owned).collect()
    }
}

impl Init {
    /// The flags without which there is no configuration.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let mut missing = Vec::new();
        let mut need = |flag, given: bool| {
            if !given {
                missing.push(flag)
            }
        };
        need("--member", self.member.is_some());
        need("--cluster", self.cluster.is_some());
        need("--listen", self.listen.is_some());
        need("--peer", !self.peers.is_empty());
        need("--chain", self.chain.is_some());
        match self.chain {
            Some(ChainKind::Near | ChainKind::Cometbft) => need("--home", self.home.is_some()),
            Some(ChainKind::Generic) => {
                need("--home", self.home.is_some());
                need("--link", self.link.is_some());
                need("--probe", self.probe.is_some());
                need("-- NODE COMMAND", !self.command.is_empty());
            }
            Some(ChainKind::None) | None => {}
        }
        missing
    }
}

/// # Errors
/// Every fault in a line of its own.
pub(super) fn of(init: &Init) -> Result<Wanted, Vec<String>> {
    let mut faults = Vec::new();
    let missing = init.missing();
    if !missing.is_empty() {
        let last = if missing.len() == 1 { "is missing" } else { "are missing" };
        faults.push(format!("{} {last}; without a terminal nothing is asked", missing.join(", ")));
    }
    controls(init, &mut faults);
    let listen = init.listen.as_deref().and_then(|text| keep(flag("--listen", text, listens), &mut faults));
    let me = init.member.as_deref().and_then(|text| keep(flag("--member", text, Named::parse), &mut faults));
    let me = me.and_then(|me| own_role(me, init.chain, &mut faults));
    let peers: Vec<Named> =
        init.peers.iter().filter_map(|text| keep(flag("--peer", text, Named::parse_peer), &mut faults)).collect();
    if let Some(metrics) = &init.metrics {
        keep(flag("--metrics", metrics, listens), &mut faults);
    }
    let chain = init.chain.and_then(|kind| chain(init, kind, &mut faults));
    let (Some(me), Some(listen)) = (me, listen) else { return Err(faults) };
    let id = me.id.to_string();
    let me = keep(reached(me, listen), &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    let members = members(me.into_iter().chain(peers).collect());
    let addrs = members.iter().map(|member| member.addr.as_str());
    let tls = match (&init.tls_dir, all_loopback(addrs.chain([listen.to_string().as_str()]))) {
        (None, true) => None,
        (None, false) => Some(tls_files(&id, "")),
        (Some(dir), _) => Some(tls_files(&id, &format!("{}/", full(dir)))),
    };
    Ok(Wanted {
        id,
        state_dir: full(&init.state_dir),
        run_dir: full(&init.run_dir),
        join: init.join,
        cluster: init.cluster.clone().unwrap_or_default(),
        listen: listen.to_string(),
        members,
        tls,
        chain,
        metrics: init.metrics.clone(),
    })
}

fn keep<T>(found: Result<T, String>, faults: &mut Vec<String>) -> Option<T> {
    found.map_err(|fault| faults.push(fault)).ok()
}

fn flag<T>(flag: &str, text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    parse(text).map_err(|problem| format!("{flag} {text}: {problem}"))
}

/// No value of a configuration is empty or has a line break.
fn controls(init: &Init, faults: &mut Vec<String>) {
    let texts = [
        ("--cluster", &init.cluster),
        ("--home", &init.home),
        ("--keys", &init.keys),
        ("--link", &init.link),
        ("--probe", &init.probe),
        ("--tls-dir", &init.tls_dir),
    ];
    let texts = texts.into_iter().filter_map(|(flag, text)| Some((flag, text.as_ref()?)));
    let words = init.command.iter().take(1).map(|word| ("-- NODE COMMAND", word));
    let dirs = [("--state-dir", &init.state_dir), ("--run-dir", &init.run_dir)];
    for (flag, text) in texts.chain(dirs).chain(words) {
        if text.trim().is_empty() {
            faults.push(format!("{flag} is empty"));
        } else if text.contains(char::is_control) {
            faults.push(format!("{flag} has a control character: {text:?}"));
        }
    }
}

/// # Errors
/// `text` is no IP address with a port.
pub(super) fn listens(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(addr) if addr.port() > 0 => Ok(addr),
        Ok(_) => Err("has port 0; name a port".to_owned()),
        Err(_) => Err(format!("{text:?} is not IP:PORT; write 10.0.0.1:7401 or [::]:7401")),
    }
}

/// A host without a chain node is an arbiter, one with a chain node none.
fn own_role(me: Named, chain: Option<ChainKind>, faults: &mut Vec<String>) -> Option<Named> {
    let (id, none) = (&me.id, chain == Some(ChainKind::None));
    match (me.role, chain) {
        (Some(Role::Arbiter), Some(kind)) if kind != ChainKind::None => {
            faults.push(format!("--member: {id} is an arbiter and runs no chain node; say --chain none"));
        }
        (Some(Role::Validator), _) if none => {
            faults.push(format!("--member: {id} is a validator and has a chain node; --chain says none"));
        }
        (Some(_) | None, _) => {}
    }
    let role = if none { Role::Arbiter } else { Role::Validator };
    Some(Named { role: Some(role), ..me })
}

/// With the address at which the others reach this host.
fn reached(me: Named, listen: SocketAddr) -> Result<Named, String> {
    if me.addr.is_none() && listen.ip().is_unspecified() {
        let id = me.id;
        return Err(format!("--listen {listen}: nobody reaches {id} at that address; add --member {id}=HOST:PORT"));
    }
    let addr = me.addr.unwrap_or_else(|| listen.to_string());
    Ok(Named { addr: Some(addr), ..me })
}

/// In the order of their ids, so that every host's file says the same, whichever of them it is for.
fn members(mut named: Vec<Named>) -> Vec<Member> {
    named.sort_by(|a, b| a.id.cmp(&b.id));
    let mut next = PRIORITY_FIRST;
    let members = named.into_iter().map(|Named { id, addr, role, priority }| {
        let role = role.unwrap_or(Role::Validator);
        let usual = match role {
            Role::Arbiter => 0,
            Role::Validator => {
                let usual = next;
                next = next.saturating_sub(PRIORITY_STEP).max(1);
                usual
            }
        };
        Member { id, addr: addr.unwrap_or_default(), role, priority: priority.unwrap_or(usual) }
    });
    members.collect()
}

fn tls_files(id: &str, dir: &str) -> [String; 3] {
    [format!("{dir}ca.pem"), format!("{dir}{id}.pem"), format!("{dir}{id}.key")]
}

/// From here, since the file may lie elsewhere.
fn full(dir: &str) -> String {
    let dir = dir.strip_suffix('/').filter(|dir| !dir.is_empty()).unwrap_or(dir);
    if is_credentials(dir) {
        return dir.to_owned();
    }
    std::path::absolute(dir).map_or_else(|_| dir.to_owned(), |path| path.to_string_lossy().into_owned())
}

fn is_credentials(dir: &str) -> bool {
    CREDENTIALS
        .iter()
        .any(|variable| dir.strip_prefix(variable).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

fn chain(init: &Init, kind: ChainKind, faults: &mut Vec<String>) -> Option<WantedChain> {
    let Some(driver) = kind.driver() else {
        let given = [
            ("--home", init.home.is_some()),
            ("--keys", init.keys.is_some()),
            ("--link", init.link.is_some()),
            ("--probe", init.probe.is_some()),
            ("-- NODE COMMAND", !init.command.is_empty()),
        ];
        for (flag, _) in given.into_iter().filter(|(_, given)| *given) {
            faults.push(format!("{flag}: an arbiter (--chain none) runs no chain node; leave it out"));
        }
        return None;
    };
    if driver != DriverKind::Generic && init.link.is_some() {
        faults.push("--link: the links of this chain are known; it goes with --chain generic alone".to_owned());
    }
    let usual = kind.usual();
    let home = full(init.home.as_deref()?);
    let command = match (&usual, init.command.is_empty()) {
        (Some(usual), true) => usual.command(&home),
        (Some(_) | None, _) => init.command.clone(),
    };
    let keys = full(init.keys.as_deref().unwrap_or(USUAL_KEYS));
    let links = match driver {
        DriverKind::Near => near_links(&keys),
        DriverKind::CometBft => cometbft_links(&keys),
        DriverKind::Generic => generic_links(&keys, init.link.as_deref()?),
    };
    let probe = init.probe.as_deref().or(usual.map(|usual| usual.probe))?;
    let probe = keep(flag("--probe", probe, |text| health(driver, text)), faults)?;
    Some(WantedChain { driver, home, command, links, probe })
}

/// # Errors
/// `text` is no place where a node of this kind can be asked.
pub(super) fn health(driver: DriverKind, text: &str) -> Result<WantedProbe, String> {
    if text.starts_with("http://") {
        return Ok(WantedProbe::Url(text.to_owned()));
    }
    match driver {
        DriverKind::Generic if text.parse::<SocketAddr>().is_ok() => Ok(WantedProbe::Tcp(text.to_owned())),
        DriverKind::Generic => Err(format!("{text:?} is neither an http:// address nor IP:PORT")),
        DriverKind::Near | DriverKind::CometBft => {
            Err(format!("{text:?} is not an http:// address; write http://127.0.0.1:3030/status"))
        }
    }
}

fn near_links(keys: &str) -> Vec<WantedLink> {
    let at = |name: &str| format!("{keys}/{name}");
    let validator =
        WantedLink { link: "validator_key.json".into(), validating: at("validator_key.json"), standby: Standby::None };
    let node = WantedLink {
        link: "node_key.json".into(),
        validating: at("validator_node_key.json"),
        standby: Standby::At(at("voter_node_key.json")),
    };
    vec![validator, node]
}

fn cometbft_links(keys: &str) -> Vec<WantedLink> {
    vec![WantedLink {
        link: "config/priv_validator_key.json".into(),
        validating: format!("{keys}/priv_validator_key.json"),
        standby: Standby::Perhaps {
            example: format!("{keys}/standby_priv_validator_key.json"),
            absent: "a throwaway key in member.state_dir",
        },
    }]
}

fn generic_links(keys: &str, link: &str) -> Vec<WantedLink> {
    let name = link.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("key");
    vec![WantedLink {
        link: link.to_owned(),
        validating: format!("{keys}/{name}"),
        standby: Standby::Perhaps { example: format!("{keys}/standby-{name}"), absent: "no link" },
    }]
}
