//! cometbft without a key: what its own settings have to say so that it asks baton, and nobody else, for signatures.

use std::fs;

use baton::host::chain::cometbft::{check_not_shared, check_signer, misplaced_signer};
use baton::host::chain::process::{Misplaced, Process, Told};

use super::cometbft::{LOADED, OTHER, cometbft_chain, key_file};
use super::*;

const SOCKET: &str = "/run/node/privval.sock";
const LADDR: &str = "priv_validator_laddr = \"unix:///run/node/privval.sock\"";

struct Home {
    folder: tempfile::TempDir,
    chain: Chain,
}

impl Home {
    fn new() -> Home {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("config")).expect("config");
        let mut chain = cometbft_chain(folder.path(), "http://127.0.0.1:1/status".into());
        chain.links.clear();
        let home = Home { folder, chain };
        home.put("config/config.toml", LADDR);
        home
    }

    fn put(&self, name: &str, content: &str) {
        fs::write(self.folder.path().join(name), content).expect(name);
    }

    fn check(&self) -> Result<Vec<String>, String> {
        let checked = check_signer(&self.chain, Path::new(SOCKET));
        checked.map(|node| node.warnings).map_err(|error| error.to_string())
    }

    fn misplaced(&self) -> Option<Misplaced> {
        misplaced_signer(&self.chain, Path::new(SOCKET), &Process::configured(&self.chain))
    }
}

#[test]
fn a_node_that_does_not_listen_where_baton_dials_is_refused() {
    let home = Home::new();
    assert_eq!(home.check(), Ok(Vec::new()));
    let file = home.folder.path().join("config/config.toml");
    for (config, value) in [
        ("", ""),
        ("priv_validator_laddr = \"\"", ""),
        ("priv_validator_laddr = 7", ""),
        ("priv_validator_laddr = \"tcp://127.0.0.1:26659\"", "tcp://127.0.0.1:26659"),
        ("priv_validator_laddr = \"unix:///run/node/other.sock\"", "unix:///run/node/other.sock"),
        ("[p2p]\npriv_validator_laddr = \"unix:///run/node/privval.sock\"", ""),
    ] {
        home.put("config/config.toml", config);
        let expected = format!(
            "{}: priv_validator_laddr = \"{value}\" must be \"unix://{SOCKET}\": the node has no key and signs only \
             through baton, which dials there",
            file.display()
        );
        assert_eq!(home.check(), Err(expected));
    }
    home.put("config/config.toml", "= nonsense");
    assert!(home.check().expect_err("nonsense").contains("config.toml"));
}

/// Its own key is a throwaway, so that only the place of that one is looked at, and no sign state.
#[test]
fn another_key_file_is_refused_and_another_sign_state_is_not() {
    let home = Home::new();
    home.put("config/config.toml", &format!("{LADDR}\npriv_validator_key_file = \"/srv/keys/key.json\""));
    let refused = home.check().expect_err("another key file");
    assert!(refused.contains("priv_validator_key_file = \"/srv/keys/key.json\" must be"), "{refused}");
    home.put("config/config.toml", &format!("{LADDR}\npriv_validator_state_file = \"/srv/state.json\""));
    assert_eq!(home.check(), Ok(Vec::new()));
    home.put("config/config.toml", &format!("{LADDR}\n[consensus]\ndouble_sign_check_height = 10"));
    let warnings = home.check().expect("only warned");
    assert!(warnings.len() == 1 && warnings[0].contains("double_sign_check_height = 10"), "{warnings:?}");
}

#[test]
fn command_line_and_environment_may_say_the_same_and_nothing_else() {
    let mut home = Home::new();
    let plain = home.chain.clone();
    assert_eq!(home.misplaced(), None);
    let own = format!("--priv_validator_laddr=unix://{SOCKET}");
    for (words, expected) in [
        (&[own.as_str()][..], None),
        (&["--priv_validator_laddr", "$SIGNER"][..], None),
        (
            &["--priv_validator_laddr="][..],
            Some("priv_validator_laddr = \"\" must be \"unix:///run/node/privval.sock\""),
        ),
        (
            &["--priv-validator-laddr", "tcp://0.0.0.0:1"][..],
            Some("priv_validator_laddr = \"tcp://0.0.0.0:1\" must be \"unix:///run/node/privval.sock\""),
        ),
        (
            &["--priv_validator_key_file=/srv/key.json"][..],
            Some("priv_validator_key_file = \"/srv/key.json\" must be \"config/priv_validator_key.json\""),
        ),
        (
            &["exec node --priv_validator_laddr=tcp://0.0.0.0:1"][..],
            Some("mentions priv_validator_laddr: what it is told"),
        ),
        (&["--home", "/srv/other"][..], Some("--home /srv/other is not chain.home")),
    ] {
        home.chain = plain.clone();
        home.chain.command.extend(words.iter().copied().map(str::to_owned));
        let found = home.misplaced();
        match expected {
            None => assert_eq!(found, None, "{words:?}"),
            Some(expected) => {
                let Some(Misplaced { told: Told::CommandLine, what }) = &found else { panic!("{words:?}: {found:?}") };
                assert!(what.contains(expected), "{what}");
            }
        }
    }
    home.chain = plain.clone();
    home.chain.env.insert("GAIAD_PRIV_VALIDATOR_LADDR".into(), format!("unix://{SOCKET}"));
    assert_eq!(home.misplaced(), None);
    home.chain.env.insert("GAIAD_PRIV_VALIDATOR_LADDR".into(), "tcp://127.0.0.1:1".into());
    let found = home.misplaced().expect("another signer");
    assert_eq!(found.told, Told::Variable("GAIAD_PRIV_VALIDATOR_LADDR".into()));
    assert!(found.what.contains("must be \"unix:///run/node/privval.sock\""), "{found:?}");
}

#[tokio::test]
async fn the_key_that_baton_signs_with_is_refused_in_the_nodes_own_home() {
    let home = Home::new();
    let shared = home.folder.path().join("shared.json");
    home.put("shared.json", &key_file(LOADED));
    let check =
        async || check_not_shared(&keys(), home.folder.path(), &shared).await.map_err(|error| error.to_string());
    assert_eq!(check().await, Ok(()), "the node makes itself a throwaway key");
    home.put("config/priv_validator_key.json", &key_file(OTHER));
    assert_eq!(check().await, Ok(()), "a throwaway key");
    home.put("config/priv_validator_key.json", &key_file(LOADED));
    let refused = check().await.expect_err("the shared key");
    let file = home.folder.path().join("config/priv_validator_key.json");
    assert!(refused.contains(&file.display().to_string()) && refused.contains("move it out"), "{refused}");
}
