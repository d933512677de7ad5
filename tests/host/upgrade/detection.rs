//! cosmovisor's rules of what is an upgrade, and what baton adds to them.

use std::fs;

use baton::host::upgrade::Wanted;

use super::kit::{Home, name, wanted, without_backup};

fn v2() -> Option<(String, u64)> {
    Some(("v2".to_owned(), 100))
}

#[test]
fn without_the_file_there_is_nothing_to_do() {
    assert_eq!(Home::new().due(), None);
}

#[test]
fn a_file_of_the_data_is_an_upgrade_when_current_has_none_of_its_own() {
    let home = Home::with_v2_due();
    assert_eq!(home.due(), v2());
    assert_eq!(home.due(), v2(), "until it is carried out");
}

#[test]
fn a_new_name_in_the_file_is_an_upgrade() {
    let home = without_backup(Home::with_v2_due());
    home.carry_out(&wanted("v2")).expect("carried out");
    assert_eq!(home.due(), None);
    home.put("upgrades/v3");
    home.ask_anew("v3", 200);
    assert_eq!(home.due(), Some(("v3".to_owned(), 200)));
}

#[test]
fn what_the_plan_says_of_binaries_is_handed_on() {
    let home = Home::new();
    home.write(
        "data/upgrade-info.json",
        r#"{"name":"v2","height":100,"info":"{\"binaries\":{}}","time":"0001-01-01T00:00:00Z"}"#,
    );
    let due = home.upgrades().due().expect("sound").expect("due");
    assert_eq!(due.info, r#"{"binaries":{}}"#);
}

#[test]
fn a_height_may_be_a_number_or_a_text() {
    let home = Home::new();
    home.write("data/upgrade-info.json", r#"{"name":"v2","height":"100"}"#);
    assert_eq!(home.due(), v2());
}

#[test]
fn names_are_compared_in_lower_case() {
    let home = Home::with_v2_due();
    home.ask("V2", 100);
    assert_eq!(home.due(), v2());
    home.link("current", "upgrades/v2");
    assert_eq!(home.due(), None);
}

#[test]
fn the_name_of_current_is_no_upgrade() {
    let home = Home::with_v2_due();
    home.link("current", "upgrades/v2");
    assert_eq!(home.due(), None);
}

#[test]
fn a_file_that_is_half_written_is_not_an_upgrade_yet() {
    let home = Home::new();
    let whole = r#"{"name":"v2","height":100,"info":"x"}"#;
    for length in 0..whole.len() {
        home.write("data/upgrade-info.json", &whole[..length]);
        assert_eq!(home.due(), None, "{:?}", &whole[..length]);
    }
    home.write("data/upgrade-info.json", whole);
    assert_eq!(home.due(), v2());
}

#[test]
fn a_file_that_is_whole_and_names_no_upgrade_is_told() {
    let home = Home::new();
    let shown = home.path("data/upgrade-info.json");
    for (text, problem) in [
        (r#"{"height":100}"#, "an upgrade has a name"),
        (r#"{"name":"v2"}"#, "it has no height above zero"),
        (r#"{"name":"v2","height":0}"#, "it has no height above zero"),
        (r#"{"name":"v2","height":-1}"#, "it has no height above zero"),
        (r#"{"name":"genesis","height":1}"#, "genesis is what the first binary is called"),
        ("v2", "expected value at line 1 column 1"),
    ] {
        home.write("data/upgrade-info.json", text);
        let error = home.upgrades().due().expect_err(text).to_string();
        assert_eq!(error, format!("{} names no upgrade: {problem}; correct it or remove it", shown.display()));
    }
}

#[test]
fn a_file_that_was_written_while_nothing_watched_is_found() {
    let home = Home::with_v2_due();
    // Whoever asks first was not there when it was written.
    assert_eq!(home.due(), v2());
}

#[test]
fn the_same_file_is_not_an_upgrade_twice() {
    let home = without_backup(Home::with_v2_due());
    home.carry_out(&wanted("v2")).expect("carried out");
    assert_eq!((home.due(), home.current()), (None, "v2".to_owned()));
    home.link("current", "genesis");
    assert_eq!(home.due(), None, "an operator's hand counts more than a file that had its upgrade");
}

#[test]
fn the_file_is_kept_beside_the_binary_as_cosmovisor_keeps_it() {
    let home = without_backup(Home::with_v2_due());
    home.carry_out(&wanted("v2")).expect("carried out");
    assert_eq!(home.read("cosmovisor/current/upgrade-info.json"), home.read("data/upgrade-info.json"));
}

#[test]
fn a_height_that_is_to_be_skipped_is_no_upgrade() {
    let mut home = Home::with_v2_due();
    home.settings.skip_heights.insert(99);
    assert_eq!(home.due(), v2());
    home.settings.skip_heights.insert(100);
    assert_eq!(home.due(), None);
}

#[test]
fn after_a_rollback_the_old_file_is_not_due_until_it_is_written_anew() {
    let home = without_backup(Home::with_v2_due());
    home.carry_out(&wanted("v2")).expect("carried out");
    home.carry_out(&Wanted { name: name("genesis"), back: true }).expect("taken back");
    assert_eq!((home.due(), home.current()), (None, "genesis".to_owned()));
    home.ask_anew("v2", 100);
    assert_eq!(home.due(), v2(), "the chain asks again");
}

#[test]
fn a_rollback_settles_also_what_cosmovisor_had_carried_out() {
    let home = without_backup(Home::with_v2_due());
    home.link("current", "upgrades/v2");
    home.carry_out(&Wanted { name: name("genesis"), back: true }).expect("taken back");
    assert_eq!((home.due(), home.current()), (None, "genesis".to_owned()));
}

#[test]
fn a_rolling_upgrade_from_what_the_file_names_leaves_nothing_due() {
    let home = without_backup(Home::with_v2_due());
    home.put("upgrades/v2-hotfix");
    home.link("current", "upgrades/v2");
    home.carry_out(&wanted("v2-hotfix")).expect("carried out");
    assert_eq!((home.due(), home.current()), (None, "v2-hotfix".to_owned()));
}

#[test]
fn a_rolling_upgrade_does_not_swallow_what_the_chain_asks_for_meanwhile() {
    let home = without_backup(Home::new());
    home.put("upgrades/hotfix");
    home.ask("v2", 100);
    home.carry_out(&wanted("hotfix")).expect("carried out");
    assert_eq!((home.due(), home.current()), (v2(), "hotfix".to_owned()));
}

#[test]
fn a_file_of_long_ago_is_no_reason_to_go_back() {
    let home = without_backup(Home::with_v2_due());
    home.carry_out(&wanted("v2")).expect("carried out");
    home.put("upgrades/v1");
    home.ask_anew("v1", 50);
    assert_eq!(home.due(), None, "data of a snapshot");
    home.ask_anew("other", 100);
    assert_eq!(home.due(), Some(("other".to_owned(), 100)));
}

#[test]
fn a_record_that_is_damaged_is_told_and_nothing_is_done_twice() {
    let home = without_backup(Home::with_v2_due());
    home.carry_out(&wanted("v2")).expect("carried out");
    home.link("current", "genesis");
    let file = home.path("cosmovisor/baton.json");
    assert!(fs::read_to_string(&file).expect("a record").contains("\"last\": \"v2\""));
    fs::write(&file, "{").expect("damaged");
    let error = home.upgrades().due().expect_err("damaged").to_string();
    assert!(error.starts_with(&format!("{} is not understood: EOF", file.display())), "{error}");
}
