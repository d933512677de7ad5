//! Reading a configuration: what the example of the design means, and for every mistake the one line
//! that an operator sees. Files are written into a directory of their own; nothing is started.

mod chain_mistakes;
mod credentials;
mod hooks;
mod keys;
mod meaning;
mod mistakes;
mod nix;
mod signer;
mod upgrade;
mod watchdog;

use std::fs;

use baton::config::Config;

const EXAMPLE: &str = include_str!("../data/design-example.toml");

const ARBITER: &str = r#"
[member]
id = "c"
state_dir = "state"
run_dir = "run"
[cluster]
name = "one"
listen = "127.0.0.1:7403"
members = [
  { id = "a", addr = "127.0.0.1:7401" },
  { id = "b", addr = "127.0.0.1:7402", priority = 7 },
  { id = "c", addr = "localhost:7403", role = "arbiter" },
]
"#;

/// Loads `text` from `baton.toml`; an error is its line, with the directory taken out.
fn load_with(text: &str, env: &[(&str, &str)]) -> Result<Config, String> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("baton.toml");
    fs::write(&file, text).expect("the configuration is written");
    let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let here = format!("{}/", dir.path().display());
    Config::load(&file, env).map_err(|error| error.to_string().replace(&here, ""))
}

fn load(text: &str) -> Result<Config, String> {
    load_with(text, &[])
}

/// The example with one piece replaced; the piece must be there.
fn edited(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from), "the example has no {from:?}");
    EXAMPLE.replacen(from, to, 1)
}
