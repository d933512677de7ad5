//! CometBFT's own `config.toml`, command line and environment: the settings that would lead the node
//! past the key link or past the sign state that the driver writes, or, of a node that asks baton for its signatures,
//! past baton. Read before a start, never changed.

use std::path::{Path, PathBuf};

use super::{KEY_FILE, STATE_FILE};
use crate::config::Chain;
use crate::host::chain::DriverError;
use crate::host::chain::process::{self, Misplaced, Process, Told};

const LADDR: &str = "priv_validator_laddr";
/// Each with the only value that it may have.
const FILES: [(&str, &str); 2] = [("priv_validator_key_file", KEY_FILE), ("priv_validator_state_file", STATE_FILE)];

/// Who signs for the node, from which follows what its settings may say.
#[derive(Clone, Copy)]
enum Signs<'a> {
    /// The node itself, with the key of its link.
    Node,
    /// Baton, which dials `socket`.
    Baton { socket: &'a Path },
}

/// What a sound configuration tells.
pub struct NodeConfig {
    pub genesis: PathBuf,
    /// One a line.
    pub warnings: Vec<String>,
}

/// Of a node that signs with the key of its link.
///
/// # Errors
/// Names the one setting to change, and where it stands.
pub fn check(chain: &Chain) -> Result<NodeConfig, DriverError> {
    read(chain, Signs::Node)
}

/// Of a node that has no key and listens at `socket`, an absolute path, for baton to sign.
///
/// # Errors
/// Names the one setting to change, where it stands and what it has to be.
pub fn check_signer(chain: &Chain, socket: &Path) -> Result<NodeConfig, DriverError> {
    read(chain, Signs::Baton { socket })
}

fn read(chain: &Chain, signs: Signs<'_>) -> Result<NodeConfig, DriverError> {
    let path = chain.home.join("config/config.toml");
    let text = std::fs::read_to_string(&path).map_err(|error| DriverError::file("read", &path, error))?;
    let config: toml::Table =
        toml::from_str(&text).map_err(|error| DriverError::file("read", &path, error.message()))?;
    let in_file = |name: &str| config.get(name).and_then(toml::Value::as_str);
    for name in signs.settings() {
        let value = in_file(name).or_else(|| signs.unless_told(name));
        if let Some(what) = value.and_then(|value| signs.bad_setting(&chain.home, name, value)) {
            return Err(DriverError::setting(path.display().to_string(), what));
        }
    }
    let genesis = in_file("genesis_file").unwrap_or("config/genesis.json");
    Ok(NodeConfig { genesis: chain.home.join(genesis), warnings: warnings(&config, &path) })
}

impl Signs<'_> {
    /// Those that are looked at. Without a key of its own, the node's sign state decides nothing.
    fn settings(self) -> &'static [&'static str] {
        match self {
            Signs::Node => &[LADDR, FILES[0].0, FILES[1].0],
            Signs::Baton { .. } => &[LADDR, FILES[0].0],
        }
    }

    /// What a setting is that does not stand in the file, where that matters.
    fn unless_told(self, name: &str) -> Option<&'static str> {
        match self {
            Signs::Baton { .. } if name == LADDR => Some(""),
            Signs::Baton { .. } | Signs::Node => None,
        }
    }

    fn bad_setting(self, home: &Path, name: &str, value: &str) -> Option<String> {
        match self {
            Signs::Node if name == LADDR => {
                let reason = "a remote signer signs past the key link; remove it, or set it to \"\"";
                (!value.is_empty()).then(|| format!("{name} = \"{value}\": {reason}"))
            }
            Signs::Baton { socket } if name == LADDR => {
                let needed = format!("unix://{}", socket.display());
                let reason = "the node has no key and signs only through baton, which dials there";
                (value != needed).then(|| format!("{name} = \"{value}\" must be \"{needed}\": {reason}"))
            }
            Signs::Node | Signs::Baton { .. } => {
                let (_, needed) = FILES.iter().find(|(file, _)| *file == name)?;
                let is_other = home.join(value) != home.join(needed);
                is_other.then(|| format!("{name} = \"{value}\" must be \"{needed}\": only that file is looked after"))
            }
        }
    }

    /// What the arguments and the variables of `process` say past `config.toml`.
    fn misplaced(self, chain: &Chain, process: &Process) -> Option<Misplaced> {
        for name in self.settings() {
            // What a shell would put in cannot be known; that there is some signer other than baton can.
            let is_known = |value: &str| !value.starts_with('$') || *name == LADDR && matches!(self, Signs::Node);
            let bad = |value: &str| self.bad_setting(&chain.home, name, value).filter(|_| is_known(value));
            if let Some(what) = process.values(name).find_map(|(_, value)| bad(value)) {
                return Some(Misplaced::by_command(what));
            }
            let variable = in_environment(process, name).find_map(|(key, value)| Some((key, bad(value)?)));
            if let Some((variable, what)) = variable {
                return Some(Misplaced { told: Told::Variable(variable.to_owned()), what });
            }
        }
        if process.argv.iter().any(|word| word.contains(LADDR)) && process.values(LADDR).next().is_none() {
            let reason = match self {
                Signs::Node => "a remote signer signs past the key link; remove it",
                Signs::Baton { .. } => "what it is told cannot be seen; remove it and write it in config.toml",
            };
            return Some(Misplaced::by_command(format!("mentions {LADDR}: {reason}")));
        }
        other_home(chain, process).or_else(|| process::past_links(chain, process))
    }
}

/// What the arguments and the variables of `process` say past `config.toml`.
pub fn misplaced(chain: &Chain, process: &Process) -> Option<Misplaced> {
    Signs::Node.misplaced(chain, process)
}

/// The same of a node that listens at `socket` for baton to sign.
pub fn misplaced_signer(chain: &Chain, socket: &Path, process: &Process) -> Option<Misplaced> {
    Signs::Baton { socket }.misplaced(chain, process)
}

/// Programs made with the Cosmos SDK have each a usual home of their own, which cannot be known here.
pub fn untold_home(chain: &Chain) -> Option<String> {
    let process = Process::configured(chain);
    let (program, home) = (process.program(), chain.home.display());
    let variables = home_variables(&process);
    let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
    let is_told = process.values("home").next().is_some() || process.variable(&variables).is_some();
    if is_told || process.is_shell() || Process::of_script(chain).is_some() || program == "cometbft" {
        return None;
    }
    Some(format!(
        "chain.command: {program} is told no home and uses its usual one; unless that is chain.home, the links decide nothing; \
         add --home {home}"
    ))
}

/// A node with another home has other keys. The flag counts before the variables, and those before the usual home.
fn other_home(chain: &Chain, process: &Process) -> Option<Misplaced> {
    let variables = home_variables(process);
    let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
    let habit = (process.program() == "cometbft").then_some(".cometbft");
    process.other_home(&chain.home, &["home"], &variables, habit)
}

/// From which a program takes its home. Others that run are handed them down and make nothing of them.
fn home_variables(process: &Process) -> Vec<String> {
    let program = process.program().to_uppercase().replace('-', "_");
    let mut names = vec![format!("{program}_HOME"), format!("{program}HOME")];
    if !process.runs || ["cometbft", "tendermint"].iter().any(|name| process.program().contains(name)) {
        names.extend(["CMTHOME", "CMT_HOME", "TMHOME", "TM_HOME"].map(str::to_owned));
    }
    if !process.runs || process.program() == "cosmovisor" {
        names.push("DAEMON_HOME".to_owned());
    }
    names
}

/// A program made with viper takes every setting from a variable too, with a prefix of its own and with or without a
/// `_` behind that: `CMT_PRIV_VALIDATOR_LADDR`, `GAIADPRIV_VALIDATOR_LADDR`.
fn in_environment<'a>(process: &'a Process, name: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let ending = name.to_uppercase();
    let set = process.env.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    set.filter(move |(key, _)| key.ends_with(&ending) && key.len() > ending.len())
}

fn warnings(config: &toml::Table, path: &Path) -> Vec<String> {
    let double_sign_check = config.get("consensus").and_then(|section| section.get("double_sign_check_height"));
    match double_sign_check.and_then(toml::Value::as_integer) {
        Some(blocks) if blocks > 0 => vec![format!(
            "{}: double_sign_check_height = {blocks}: CometBFT will not start as validator while the old holder's \
             signatures are among the last {blocks} blocks, so no failover is shorter than that; set it to 0",
            path.display()
        )],
        Some(_) | None => Vec::new(),
    }
}
