//! CometBFT's own `config.toml`, command line and environment: the settings that would lead the node
//! past the key link or past the sign state that the driver writes. Read before a start, never changed.

use std::path::{Path, PathBuf};

use super::{KEY_FILE, STATE_FILE};
use crate::chain::DriverError;
use crate::config::Chain;

const LADDR: &str = "priv_validator_laddr";
/// Each with the only value that it may have.
const FILES: [(&str, &str); 2] = [("priv_validator_key_file", KEY_FILE), ("priv_validator_state_file", STATE_FILE)];

/// What a sound configuration tells.
pub struct NodeConfig {
    pub genesis: PathBuf,
    /// One a line.
    pub warnings: Vec<String>,
}

/// # Errors
/// Names the one setting to change, and where it stands.
pub fn check(chain: &Chain) -> Result<NodeConfig, DriverError> {
    let path = chain.home.join("config/config.toml");
    let text = std::fs::read_to_string(&path).map_err(|error| DriverError::file("read", &path, error))?;
    let config: toml::Table =
        toml::from_str(&text).map_err(|error| DriverError::file("read", &path, error.message()))?;
    let in_file = |name: &str| config.get(name).and_then(toml::Value::as_str).map(str::to_owned);
    for name in [LADDR, FILES[0].0, FILES[1].0] {
        let set = in_file(name).map(|value| (path.display().to_string(), value));
        let in_argv = flag(&chain.command, name).map(|value| ("chain.command".to_owned(), value));
        for (place, value) in set.into_iter().chain(in_argv).chain(in_environment(chain, name)) {
            check_setting(&chain.home, name, &place, &value)?;
        }
    }
    if chain.command.iter().any(|word| word.contains(LADDR)) && flag(&chain.command, LADDR).is_none() {
        let reason = format!("mentions {LADDR}: a remote signer signs past the key link; remove it");
        return Err(DriverError::setting("chain.command", reason));
    }
    check_home(chain)?;
    let genesis = in_file("genesis_file").unwrap_or_else(|| "config/genesis.json".to_owned());
    Ok(NodeConfig { genesis: chain.home.join(genesis), warnings: warnings(&config, &path) })
}

fn check_setting(home: &Path, name: &str, place: &str, value: &str) -> Result<(), DriverError> {
    let refuse = |reason: String| Err(DriverError::setting(place, format!("{name} = \"{value}\"{reason}")));
    if name == LADDR && !value.is_empty() {
        return refuse(": a remote signer signs past the key link; remove it, or set it to \"\"".to_owned());
    }
    match FILES.iter().find(|(file, _)| *file == name) {
        Some((_, needed)) if home.join(value) != home.join(needed) => {
            refuse(format!(" must be \"{needed}\": only that file is looked after"))
        }
        Some(_) | None => Ok(()),
    }
}

/// A node with another home has other keys. The flag counts before the variables.
fn check_home(chain: &Chain) -> Result<(), DriverError> {
    let in_argv = flag(&chain.command, "home").map(|home| ("chain.command".to_owned(), "--home".to_owned(), home));
    let program = Path::new(&chain.command[0]).file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    let variables = ["CMTHOME".to_owned(), "CMT_HOME".to_owned(), "DAEMON_HOME".to_owned(), format!("{program}_HOME")];
    let in_environment = || environment(chain).find(|(key, _)| variables.contains(key));
    let told = in_argv.or_else(|| in_environment().map(|(key, home)| ("the environment".to_owned(), key, home)));
    let Some((place, name, home)) = told else { return Ok(()) };
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if real(&chain.home.join(&home)) == real(&chain.home) {
        return Ok(());
    }
    let reason = format!("{name} {home} is not chain.home = {}; the links lie below chain.home", chain.home.display());
    Err(DriverError::setting(place, reason))
}

/// The value of `--name value` or `--name=value`, with one dash or two, and with `-` for `_`.
fn flag(argv: &[String], name: &str) -> Option<String> {
    let mut words = argv.iter().skip(1);
    while let Some(word) = words.next() {
        let Some(rest) = word.strip_prefix('-') else { continue };
        let rest = rest.strip_prefix('-').unwrap_or(rest);
        let (flag, value) = rest.split_once('=').map_or((rest, None), |(flag, value)| (flag, Some(value)));
        if flag.replace('-', "_") == name {
            return value.map(str::to_owned).or_else(|| words.next().cloned());
        }
    }
    None
}

/// A program made with viper takes every setting from a variable too, with a prefix of its own:
/// `CMT_PRIV_VALIDATOR_LADDR`, `GAIAD_PRIV_VALIDATOR_LADDR`.
fn in_environment(chain: &Chain, name: &str) -> Vec<(String, String)> {
    let ending = format!("_{}", name.to_uppercase());
    let set = environment(chain).filter(|(key, _)| key.ends_with(&ending));
    set.map(|(key, value)| (format!("the variable {key}"), value)).collect()
}

/// What the node will find: the configured variables, and those of this process.
fn environment(chain: &Chain) -> impl Iterator<Item = (String, String)> {
    let inherited = std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value)));
    let inherited = inherited.map(|(key, value)| (key, value.to_string_lossy().into_owned()));
    let own = chain.env.iter().map(|(key, value)| (key.clone(), value.clone()));
    own.chain(inherited.filter(|(key, _)| !chain.env.contains_key(key)))
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
