//! What leads a chain node past its links, found before it starts: a standby target that is the validator key once
//! more, and a command, an environment or a file that names another home or another key.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use baton::config::Config;
use baton::host::chain::near::Near;
use baton::host::chain::process::{Process, Told};
use baton::host::chain::{ChainDriver as _, cometbft::CometBft, generic::Generic};

use super::*;
use crate::kit::program::write_program;

const NEAR_KEY: &str = r#"{"account_id": "node3", "public_key": "ed25519:P", "secret_key": "ed25519:S"}"#;
const UNUSED: &str = "http://127.0.0.1:1/status";

/// A NEAR host with two links, both with standby targets that are not there yet.
fn near_host() -> (tempfile::TempDir, Chain) {
    let place = tempfile::tempdir().expect("home");
    let path = |name: &str| place.path().join(name);
    fs::write(path("shared_key.json"), NEAR_KEY).expect("key");
    fs::write(path("shared_node.json"), r#"{"public_key": "ed25519:N", "secret_key": "ed25519:M"}"#).expect("key");
    fs::write(path("config.json"), r#"{"tracked_shards_config": "AllShards"}"#).expect("config");
    let mut chain = near::near_chain(place.path(), UNUSED.into());
    chain.links = vec![
        link(path("validator_key.json"), path("shared_key.json"), Some(path("standby.json"))),
        link(path("node_key.json"), path("shared_node.json"), Some(path("voter_node.json"))),
    ];
    (place, chain)
}

async fn refused(chain: &Chain) -> String {
    let driver = driver(chain, &chain.home);
    let error = driver.check().await.expect_err("accepted").to_string();
    assert_eq!(driver.inspect().await.expect_err("accepted").to_string(), error, "baton check says the same");
    error
}

#[tokio::test]
async fn a_standby_target_that_is_the_validator_key_once_more_is_refused_however_it_got_there() {
    let (place, chain) = near_host();
    let path = |name: &str| place.path().join(name);
    driver(&chain, place.path()).check().await.expect("no standby key is there");
    let (shared, standby) = (path("shared_key.json"), path("standby.json"));
    let ways: [(&str, &dyn Fn()); 5] = [
        ("copied", &|| assert!(fs::copy(&shared, &standby).is_ok())),
        ("linked", &|| fs::hard_link(&shared, &standby).expect("linked")),
        ("linked by name", &|| symlink(&shared, &standby).expect("linked")),
        ("written anew", &|| {
            let key = "{ \"secret_key\":\"ed25519:S\",\n\"public_key\":\"ed25519:P\",\"account_id\":\"node3\"}";
            fs::write(&standby, key).expect("written");
        }),
        ("its public half alone", &|| {
            fs::write(&standby, r#"{"account_id": "x", "public_key": "P"}"#).expect("written");
        }),
    ];
    for (way, make) in ways {
        make();
        let error = refused(&chain).await;
        let expected = format!(
            "chain.links: the standby target {} of link {} is the validator key {} once more: every standby would sign",
            standby.display(),
            path("validator_key.json").display(),
            shared.display()
        );
        assert!(error.starts_with(&expected), "{way}: {error}");
        assert!(!error.contains("ed25519"), "{way}: {error}");
        fs::remove_file(&standby).expect("removed");
    }
    fs::write(&standby, r#"{"account_id": "node3", "public_key": "ed25519:Q", "secret_key": "ed25519:R"}"#)
        .expect("key");
    driver(&chain, place.path()).check().await.expect("another key");
}

#[tokio::test]
async fn the_keys_of_other_links_are_compared_too() {
    let (place, chain) = near_host();
    let path = |name: &str| place.path().join(name);
    fs::copy(path("shared_key.json"), path("voter_node.json")).expect("copied");
    let error = refused(&chain).await;
    assert!(error.contains("voter_node.json of link") && error.contains("is the validator key"), "{error}");
    fs::copy(path("shared_node.json"), path("voter_node.json")).expect("copied");
    let error = refused(&chain).await;
    assert!(error.contains("holds the same key as") && error.contains("its validating target"), "{error}");
    fs::remove_file(path("voter_node.json")).expect("removed");
    fs::copy(path("shared_node.json"), path("standby.json")).expect("copied");
    let error = refused(&chain).await;
    assert!(error.contains("the validating target of link") && error.contains("node_key.json"), "{error}");
}

#[tokio::test]
async fn a_node_of_the_cosmos_sdk_that_is_told_no_home_is_warned_of() {
    let place = tempfile::tempdir().expect("home");
    for folder in ["config", "data", "keys"] {
        fs::create_dir(place.path().join(folder)).expect(folder);
    }
    fs::write(place.path().join("config/config.toml"), "").expect("config.toml");
    fs::write(place.path().join("keys/validator.json"), cometbft::key_file(cometbft::LOADED)).expect("key");
    let mut chain = cometbft::cometbft_chain(place.path(), UNUSED.into());
    chain.command = ["true", "start"].map(str::to_owned).to_vec();
    let warnings = driver(&chain, place.path()).check().await.expect("only warned");
    assert!(warnings.len() == 1 && warnings[0].contains("true is told no home"), "{warnings:?}");
    chain.command.extend(["--home".to_owned(), place.path().display().to_string()]);
    assert_eq!(driver(&chain, place.path()).check().await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_large_standby_wallet_is_compared_with_the_validators() {
    let place = tempfile::tempdir().expect("home");
    let path = |name: &str| place.path().join(name);
    let mut wallet: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    fs::write(path("wallet"), &wallet).expect("written");
    fs::write(path("copy"), &wallet).expect("written");
    let mut chain = chain(DriverKind::Generic, place.path(), ProbeTarget::Exec { command: vec!["true".into()] });
    chain.links = vec![link(path("link"), path("wallet"), Some(path("copy")))];
    assert!(refused(&chain).await.contains("is the validator key"));
    *wallet.last_mut().expect("bytes") ^= 1;
    fs::write(path("copy"), &wallet).expect("written");
    assert_eq!(driver(&chain, place.path()).check().await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_target_that_is_replaced_has_another_stamp_and_one_that_is_read_the_same() {
    let (place, chain) = near_host();
    let near = driver(&chain, place.path());
    let before = near.target_stamps();
    fs::read(place.path().join("shared_key.json")).expect("read");
    assert_eq!(near.target_stamps(), before);
    fs::copy(place.path().join("shared_key.json"), place.path().join("standby.json")).expect("copied");
    let copied = near.target_stamps();
    assert_ne!(copied, before);
    let inode = |name: &str| fs::metadata(place.path().join(name)).expect("there").ino();
    fs::write(place.path().join("new"), NEAR_KEY).expect("written");
    assert_ne!(inode("new"), inode("standby.json"));
    fs::rename(place.path().join("new"), place.path().join("standby.json")).expect("renamed");
    assert_ne!(near.target_stamps(), copied);
}

#[tokio::test]
async fn a_command_with_another_home_is_refused_with_both_homes_named() {
    let (place, mut chain) = near_host();
    let plain = chain.clone();
    let home = place.path().display().to_string();
    let other = tempfile::tempdir().expect("home");
    let other = other.path().display().to_string();
    for words in [
        vec!["neard", "--home", &other, "run"],
        vec!["neard", &*format!("--home={other}"), "run"],
        vec!["neard", "-home", &other, "run"],
        vec!["nice", "-n", "5", "neard", "--home", &other, "run"],
        vec!["neard", "--home", &home, "--home", &other, "run"],
        vec!["sh", "-c", &*format!("exec neard --home '{other}' run")],
        vec!["env", &*format!("NEAR_HOME={other}"), "neard", "run"],
    ] {
        // A program that is there is told the same.
        chain.command = words.iter().map(|word| word.replace("neard", "true")).collect();
        let error = refused(&chain).await;
        assert!(error.contains(&format!("{other} is not chain.home = {home}")), "{words:?}: {error}");
        assert!(error.starts_with("chain.command: ") || error.starts_with("the environment: "), "{words:?}: {error}");
    }
    chain = plain.clone();
    chain.env.insert("NEAR_HOME".into(), other.clone());
    let error = refused(&chain).await;
    assert!(error.starts_with(&format!("the environment: NEAR_HOME {other} is not chain.home = {home}")), "{error}");
    let alias = tempfile::tempdir().expect("folder");
    let alias = alias.path().join("alias");
    symlink(place.path(), &alias).expect("a link");
    let alias = alias.display().to_string();
    for words in [
        vec!["true", "--home", &home, "run"],
        vec!["true", "--home", &alias, "run"],
        vec!["true", "--home", ".", "run"],
        vec!["true", "--home", "$NEAR", "run"],
        vec!["sh", "-c", "cd /srv && exec neard --home near run"],
        vec!["sh", "-c", "exec neard --home \"$NEAR\" run"],
        vec!["true", "docker", "run", "near", "neard", "--home", "/srv/near", "run"],
    ] {
        chain = plain.clone();
        chain.command = words.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(driver(&chain, place.path()).check().await.map(drop), Ok(()), "{words:?}");
    }
}

#[tokio::test]
async fn a_script_that_names_another_home_is_warned_of() {
    let (place, mut chain) = near_host();
    let script = place.path().join("start.sh");
    write_program(&script, "#!/bin/sh\n# --home /srv/near\nexec neard \\\n  --home /srv/other run\n");
    chain.command = vec![script.display().to_string()];
    let warnings = driver(&chain, place.path()).inspect().await.expect("only warned");
    let of_script: Vec<&String> = warnings.iter().filter(|line| line.contains("start.sh")).collect();
    assert!(of_script.len() == 1 && of_script[0].contains("--home /srv/other is not chain.home"), "{warnings:?}");
}

#[tokio::test]
async fn key_files_of_neards_own_configuration_that_are_no_links_are_refused() {
    let (place, chain) = near_host();
    let put = |text: &str| fs::write(place.path().join("config.json"), text).expect("config");
    for (name, usual) in [("validator_key_file", "validator_key.json"), ("node_key_file", "node_key.json")] {
        put(&format!(r#"{{"tracked_shards_config": "AllShards", "{name}": "/srv/keys/mine.json"}}"#));
        let error = refused(&chain).await;
        assert!(error.contains("config.json") && error.contains(name) && error.contains(usual), "{error}");
        assert!(error.contains("/srv/keys/mine.json"), "{error}");
        put(&format!(r#"{{"tracked_shards_config": "AllShards", "{name}": "./{usual}"}}"#));
        driver(&chain, place.path()).check().await.expect("the link, written in another way");
    }
}

fn process(words: &[&str], env: &[(&str, &str)]) -> Process {
    Process {
        argv: words.iter().map(|word| (*word).to_owned()).collect(),
        env: env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        cwd: "/var/lib/node".into(),
        root: None,
        runs: true,
    }
}

#[test]
fn a_running_neard_is_held_against_its_own_arguments_and_variables_alone() {
    let home = Path::new("/var/lib/node");
    let near = Near::new(&near::near_chain(home, UNUSED.into()), keys()).expect("a driver");
    let told = |words: &[&str], env: &[(&str, &str)]| near.misplaced(&process(words, env)).map(|found| found.told);
    let (user, other) = (("HOME", "/home/near"), ("NEAR_HOME", "/srv/other"));
    assert_eq!(told(&["/usr/bin/neard", "--home", "/var/lib/node", "run"], &[other, user]), None);
    assert_eq!(told(&["neard-2.6", "run"], &[other]), Some(Told::Environment));
    assert_eq!(told(&["neard", "run"], &[user]), Some(Told::CommandLine), "it uses ~/.near");
    assert_eq!(told(&["neard", "run"], &[("HOME", "/var/lib"), ("NEAR_HOME", "/var/lib/node")]), None);
    assert_eq!(told(&["neard", "run"], &[]), None, "nothing is known");
    assert_eq!(told(&["tee", "log"], &[other, user]), None, "it is handed the variable and makes nothing of it");
    assert_eq!(told(&["sh", "start.sh"], &[other, user]), None);
}

#[test]
fn a_running_cometbft_node_is_held_against_all_that_viper_reads() {
    let home = Path::new("/var/lib/node");
    let chain = cometbft::cometbft_chain(home, UNUSED.into());
    let comet = CometBft::new(&chain, home, keys()).expect("a driver");
    let found = |words: &[&str], env: &[(&str, &str)]| comet.misplaced(&process(words, env));
    let home = ["--home", "/var/lib/node"];
    assert_eq!(found(&["gaiad", "start", home[0], home[1]], &[("GAIAD_HOME", "/srv/x"), ("CMTHOME", "/srv/x")]), None);
    assert_eq!(found(&["tee", "log"], &[("CMTHOME", "/srv/x"), ("DAEMON_HOME", "/srv/x")]), None);
    for (words, env, expected) in [
        (&["gaiad", "start", "--home=/srv/x"][..], &[][..], "--home /srv/x is not chain.home = /var/lib/node"),
        (&["gaiad", "start"][..], &[("GAIAD_HOME", "/srv/x")][..], "GAIAD_HOME /srv/x is not chain.home"),
        (&["cometbft", "start"][..], &[("TMHOME", "/srv/x")][..], "TMHOME /srv/x is not chain.home"),
        (&["cometbft", "start"][..], &[("HOME", "/root")][..], "/root/.cometbft, which is not chain.home"),
        (&["cosmovisor", "run", "start"][..], &[("DAEMON_HOME", "/srv/x")][..], "DAEMON_HOME /srv/x is not"),
        (
            &["gaiad", "start"][..],
            &[("GAIADPRIV_VALIDATOR_LADDR", "tcp://x")][..],
            "priv_validator_laddr = \"tcp://x\"",
        ),
        (
            &["cometbft", "start", "--home", "/var/lib/node"][..],
            &[("CMT_PRIV_VALIDATOR_KEY_FILE", "config/mine.json")][..],
            "priv_validator_key_file = \"config/mine.json\" must be",
        ),
        (
            &["gaiad", "start", "--home", "/var/lib/node", "--priv_validator_key_file", "/srv/k.json"][..],
            &[][..],
            "priv_validator_key_file = \"/srv/k.json\" must be",
        ),
    ] {
        let found = found(words, env).unwrap_or_else(|| panic!("{words:?} {env:?}"));
        assert!(found.what.contains(expected), "{found:?} instead of {expected}");
    }
}

#[test]
fn a_generic_node_is_held_against_the_links_it_should_read() {
    let place = Path::new("/var/lib/node");
    let mut chain = chain(DriverKind::Generic, place, ProbeTarget::Tcp { addr: "127.0.0.1:1".into() });
    chain.links = vec![link(place.join("keys/id.json"), "/etc/keys/id.json".into(), None)];
    let generic = Generic::new(&chain, keys()).expect("a driver");
    for (words, expected) in [
        (&["agave-validator", "--identity", "/var/lib/node/keys/id.json"][..], None),
        (&["agave-validator", "--identity", "keys/id.json", "--authorized-voter", "/etc/keys/id.json"][..], None),
        (
            &["agave-validator", "--identity", "/etc/keys/id.json"][..],
            Some("/etc/keys/id.json, the validator key itself"),
        ),
        (&["agave-validator", "-i", "/srv/id.json"][..], Some("-i /srv/id.json is none of chain.links")),
        (&["ssh", "-i", "/srv/id.json"][..], None),
        (&["geth", "--datadir", "/var/lib/node", "--mine"][..], None),
        (&["geth", "--datadir=/var/lib/node/keys"][..], None),
        (&["geth", "--datadir", "/srv/geth"][..], Some("--datadir /srv/geth has not the link")),
        (&["geth", "--datadir", "/srv/geth", "--nodekey", "/var/lib/node/keys/id.json"][..], None),
        (&["geth", "--nodekey", "/srv/nodekey"][..], Some("--nodekey /srv/nodekey is none of chain.links")),
        (&["geth", "--nodekeyhex", "00ff"][..], Some("--nodekeyhex gives the node a key past link")),
        (&["bitcoind", "-datadir=/srv/bitcoin"][..], Some("-datadir /srv/bitcoin has not the link")),
    ] {
        let found = generic.misplaced(&process(words, &[])).map(|found| found.what);
        assert_eq!(found.is_some(), expected.is_some(), "{words:?}: {found:?}");
        let (found, expected) = (found.unwrap_or_default(), expected.unwrap_or_default());
        assert!(found.contains(expected), "{words:?}: {found}");
        assert!(!found.contains("00ff"), "{found}");
    }
}

#[tokio::test]
async fn nothing_is_found_in_the_documented_configurations() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("tests/data/design-example.toml")];
    let examples = fs::read_dir(root.join("docs/examples")).expect("docs/examples").flatten();
    files.extend(examples.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "toml")));
    assert_eq!(files.len(), 5);
    for file in files {
        let config = Config::load(&file, std::iter::empty()).expect("a configuration");
        let chain = config.chain.expect("a validator");
        let found = driver(&chain, Path::new("/nowhere")).inspect_settings().await;
        assert_eq!(found, Ok(Vec::new()), "{}", file.display());
    }
}
