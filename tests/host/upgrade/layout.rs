//! The folders and links of cosmovisor's layout.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use baton::base::guard_frame::NodeSpec;

use super::kit::{Home, name, wanted, without_backup};

#[test]
fn current_is_made_when_it_is_missing_and_leads_to_genesis() {
    let home = Home::new();
    assert_eq!(home.upgrades().program().expect("a binary"), home.path("cosmovisor/genesis/bin/gaiad"));
    assert_eq!(home.linked("current"), Path::new("genesis"));
    assert_eq!(home.current(), "genesis");
}

#[test]
fn nothing_is_made_by_asking_what_is_current() {
    let home = Home::new();
    assert_eq!(home.current(), "genesis");
    home.upgrades().check().expect("it would start");
    assert!(fs::symlink_metadata(home.path("cosmovisor/current")).is_err(), "a check changes nothing");
}

#[test]
fn a_missing_current_leads_to_the_upgrade_that_cosmovisor_carried_out_of_what_the_data_asks_for() {
    let home = Home::with_v2_due();
    assert_eq!(home.current(), "genesis", "asked for and not carried out");
    home.write("cosmovisor/upgrades/v2/upgrade-info.json", "{\"name\":\"v2\",\"height\":100}");
    assert_eq!(home.current(), "v2");
    assert_eq!(home.upgrades().program().expect("a binary"), home.path("cosmovisor/upgrades/v2/bin/gaiad"));
    assert_eq!(home.linked("current"), Path::new("upgrades/v2"));
}

#[test]
fn a_missing_current_leads_to_what_was_carried_out_here_last_and_to_nothing_older() {
    let home = without_backup(Home::with_v2_due());
    home.carry_out(&wanted("v2")).expect("carried out");
    fs::remove_file(home.path("cosmovisor/current")).expect("removed");
    fs::remove_file(home.path("data/upgrade-info.json")).expect("removed");
    assert_eq!(home.current(), "v2");
    fs::remove_dir_all(home.path("cosmovisor/upgrades/v2")).expect("removed");
    let error = home.upgrades().program().expect_err("genesis would start on data of v2").to_string();
    let (link, binary) = (home.path("cosmovisor/current"), home.path("cosmovisor/upgrades/v2/bin/gaiad"));
    let expected = format!(
        "{} is not there, and the binary of v2, which ran last, is not at {}; put it there",
        link.display(),
        binary.display()
    );
    assert_eq!(error, expected);
}

#[test]
fn an_absolute_current_is_made_relative() {
    let home = Home::with_v2_due();
    home.link("current", home.path("cosmovisor/upgrades/v2"));
    assert_eq!(home.current(), "v2");
    assert_eq!(home.upgrades().program().expect("a binary"), home.path("cosmovisor/upgrades/v2/bin/gaiad"));
    assert_eq!(home.linked("current"), Path::new("upgrades/v2"));
}

#[test]
fn a_current_that_goes_by_another_name_of_the_home_is_made_relative() {
    let home = Home::with_v2_due();
    let other = tempfile::tempdir().expect("a temporary directory");
    symlink(home.path("cosmovisor"), other.path().join("binaries")).expect("a link");
    home.link("current", other.path().join("binaries/upgrades/v2"));
    home.upgrades().program().expect("a binary");
    assert_eq!(home.linked("current"), Path::new("upgrades/v2"));
    home.link("current", "./upgrades/v2/");
    home.upgrades().program().expect("a binary");
    assert_eq!(home.current(), "v2");
}

#[test]
fn a_dangling_current_is_repaired() {
    let home = Home::new();
    for gone in ["upgrades/gone", "/nowhere/at/all", "nonsense"] {
        home.link("current", gone);
        assert_eq!(home.upgrades().program().expect("a binary"), home.path("cosmovisor/genesis/bin/gaiad"), "{gone}");
        assert_eq!(home.linked("current"), Path::new("genesis"));
    }
}

#[test]
fn a_current_that_is_no_link_or_leads_out_of_the_layout_is_told_and_left_alone() {
    let home = Home::new();
    let current = home.path("cosmovisor/current");
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    home.link("current", elsewhere.path());
    let error = home.upgrades().program().expect_err("elsewhere").to_string();
    assert!(error.contains("which is neither genesis nor upgrades/NAME; run: ln -sfn genesis"), "{error}");
    fs::remove_file(&current).expect("removed");
    fs::create_dir(&current).expect("a directory in its place");
    let error = home.upgrades().program().expect_err("a directory").to_string();
    assert_eq!(error, format!("{} is no link; move it away, and it is made anew", current.display()));
}

#[test]
fn names_are_lower_cased_and_uri_encoded_in_paths() {
    let home = Home::new();
    let path = |text: &str| home.upgrades().path_of(&name(text));
    assert_eq!(path("MyUpgrade"), home.path("cosmovisor/upgrades/myupgrade/bin/gaiad"));
    assert_eq!(path("v2 / ü"), home.path("cosmovisor/upgrades/v2%20%2F%20%C3%BC/bin/gaiad"));
    assert_eq!(path("../../etc"), home.path("cosmovisor/upgrades/..%2F..%2Fetc/bin/gaiad"));
    assert_eq!(path(".."), home.path("cosmovisor/upgrades/%2E%2E/bin/gaiad"), "no name leads out of its folder");
    assert_eq!(path("genesis"), home.path("cosmovisor/genesis/bin/gaiad"));
    home.put("upgrades/v2%20%2F%20%C3%BC");
    home.link("current", "upgrades/v2%20%2F%20%C3%BC");
    assert_eq!(home.current(), "v2 / ü");
}

#[test]
fn a_folder_in_the_plans_own_case_is_taken_when_there_is_none_in_lower_case() {
    let home = Home::new();
    let kept = home.put("upgrades/MyUpgrade");
    let upgrades = home.upgrades();
    assert_eq!(upgrades.path_of(&name("myupgrade")), kept, "as with COSMOVISOR_DISABLE_RECASE");
    home.link("current", "upgrades/MyUpgrade");
    assert_eq!(home.current(), "myupgrade");
    assert_eq!(upgrades.program().expect("a binary"), kept);
    let lower = home.put("upgrades/myupgrade");
    assert_eq!(upgrades.path_of(&name("MyUpgrade")), lower);
}

#[test]
fn a_binary_is_a_file_that_can_be_executed_and_its_checksum_follows_it() {
    let home = Home::new();
    let upgrades = home.upgrades();
    assert_eq!(upgrades.binary(&name("v2")).expect("no error"), None);
    let path = home.put("upgrades/v2");
    let first = upgrades.binary(&name("V2")).expect("no error").expect("there");
    assert_eq!((first.path.as_path(), first.sha256.len()), (path.as_path(), 64));
    assert_eq!(upgrades.binary(&name("v2")).expect("no error"), Some(first.clone()));
    home.put_script("upgrades/v2", "exit 7");
    assert_ne!(upgrades.binary(&name("v2")).expect("no error").expect("there").sha256, first.sha256);

    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("chmod");
    let shown = path.display();
    let error = upgrades.binary(&name("v2")).expect_err("nobody can run it").to_string();
    assert_eq!(error, format!("{shown} cannot be executed: Permission denied (os error 13); run: chmod 755 {shown}"));
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("a directory in its place");
    let error = upgrades.binary(&name("v2")).expect_err("a directory").to_string();
    assert_eq!(error, format!("{shown} is not a file; put the binary there"));
}

#[test]
fn the_chain_node_is_started_with_the_binary_that_current_leads_to_and_its_arguments_as_they_are() {
    let home = Home::with_v2_due();
    let spec = |program: &str| NodeSpec {
        argv: [program, "start", "--home", "x"].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        cwd: home.path(""),
        log: None,
    };
    home.link("current", "upgrades/v2");
    let started = home.upgrades().started(spec("gaiad")).expect("a binary");
    assert_eq!(started, spec(home.path("cosmovisor/upgrades/v2/bin/gaiad").to_str().expect("UTF-8")));
}

#[test]
fn a_home_that_is_not_laid_out_is_told_with_the_place_of_the_first_binary() {
    let home = Home::new();
    let genesis = home.path("cosmovisor/genesis/bin/gaiad");
    fs::remove_file(&genesis).expect("removed");
    let error = home.upgrades().check().expect_err("no binary").to_string();
    assert_eq!(error, format!("there is no binary at {}; put it there with mode 755", genesis.display()));
    fs::remove_dir_all(home.path("cosmovisor")).expect("removed");
    let error = home.upgrades().check().expect_err("no layout").to_string();
    let shown = home.path("cosmovisor");
    let expected = format!(
        "{} is no directory; put the node's binary at {}, or correct upgrade.root",
        shown.display(),
        genesis.display()
    );
    assert_eq!(error, expected);
}
