//! An upgrade that is stopped before any of its operations: what starts next is a binary as a whole, and carrying it
//! out again ends as if nothing had happened.

use std::path::Path;
use std::sync::atomic::Ordering;

use baton::config::Backup;
use baton::host::upgrade::Wanted;

use super::kit::{Fault, Hands, Home, carry_out, name, wanted};

fn home(backup: Backup) -> Home {
    let mut home = Home::with_v2_due();
    home.settings.backup = backup;
    home.write("data/application.db/000001.ldb", "level");
    home.upgrades().program().expect("current is made");
    home
}

fn operations(home: &Home, wanted: &Wanted) -> usize {
    let hands = Hands::new(Fault::None);
    let done = hands.done.clone();
    carry_out(&home.with(hands), wanted).expect("carried out");
    done.load(Ordering::SeqCst)
}

fn ends_the_same_wherever_it_is_stopped(backup: Backup) {
    let operations = operations(&home(backup), &wanted("v2"));
    assert!(operations > 10, "only {operations} are counted");
    for stop in 0..operations {
        let home = home(backup);
        let (genesis, v2) = (home.path("cosmovisor/genesis/bin/gaiad"), home.path("cosmovisor/upgrades/v2/bin/gaiad"));
        let ended = carry_out(&home.with(Hands::new(Fault::StopBefore(stop))), &wanted("v2"));
        let next = home.upgrades().program().unwrap_or_else(|error| panic!("stopped before {stop}: {error}"));
        match home.due() {
            Some(_) => assert_eq!(next, genesis, "stopped before {stop}: still due, {ended:?}"),
            None => assert_eq!(next, v2, "stopped before {stop}: not due any more, {ended:?}"),
        }
        if ended.is_ok() {
            assert_eq!(next, v2, "stopped before {stop}");
        }
        home.carry_out(&wanted("v2")).unwrap_or_else(|failed| panic!("stopped before {stop}, then {failed:?}"));
        assert_eq!(home.upgrades().program().expect("a binary"), v2);
        assert_eq!((home.due(), home.linked("current").as_path()), (None, Path::new("upgrades/v2")));
        assert_eq!(home.linked("previous"), Path::new("genesis"), "stopped before {stop}");
        assert_eq!(home.upgrades().previous(), Some(name("genesis")));
        let backups = home.backups();
        let usual = if backup == Backup::None { 0 } else { 1 };
        // One that was renamed and is not on record is taken again.
        assert!((usual..=usual * 2).contains(&backups.len()), "stopped before {stop}: {backups:?}");
        assert!(!backups.iter().any(|name| name.contains("partial")), "stopped before {stop}: {backups:?}");
        home.link("current", "genesis");
        assert_eq!(home.due(), None, "stopped before {stop}: it had its upgrade");
    }
}

#[test]
fn an_upgrade_that_is_stopped_anywhere_leaves_the_right_binary_and_is_finished_by_the_next_attempt() {
    ends_the_same_wherever_it_is_stopped(Backup::None);
}

#[test]
fn so_it_is_with_a_backup() {
    ends_the_same_wherever_it_is_stopped(Backup::Copy);
    ends_the_same_wherever_it_is_stopped(Backup::Links);
}

#[test]
fn a_rollback_that_is_stopped_anywhere_is_finished_by_the_next_attempt_and_the_old_file_is_not_due() {
    let back = Wanted { name: name("genesis"), back: true };
    let upgraded = || {
        let home = home(Backup::None);
        home.carry_out(&wanted("v2")).expect("carried out");
        home
    };
    for stop in 0..operations(&upgraded(), &back) {
        let home = upgraded();
        let _ = carry_out(&home.with(Hands::new(Fault::StopBefore(stop))), &back);
        assert_eq!(home.due(), None, "stopped before {stop}");
        home.carry_out(&back).unwrap_or_else(|failed| panic!("stopped before {stop}, then {failed:?}"));
        assert_eq!((home.due(), home.current().as_str()), (None, "genesis"), "stopped before {stop}");
        assert_eq!(home.upgrades().previous(), Some(name("v2")), "stopped before {stop}");
    }
}

#[test]
fn a_rolling_upgrade_that_is_stopped_anywhere_never_makes_the_old_file_due() {
    let upgraded = || {
        let home = home(Backup::None);
        home.put("upgrades/hotfix");
        // As cosmovisor left it, without a record of ours.
        home.link("current", "upgrades/v2");
        home
    };
    for stop in 0..operations(&upgraded(), &wanted("hotfix")) {
        let home = upgraded();
        let _ = carry_out(&home.with(Hands::new(Fault::StopBefore(stop))), &wanted("hotfix"));
        assert_eq!(home.due(), None, "stopped before {stop}");
        home.carry_out(&wanted("hotfix")).unwrap_or_else(|failed| panic!("stopped before {stop}, then {failed:?}"));
        assert_eq!((home.due(), home.current().as_str()), (None, "hotfix"), "stopped before {stop}");
    }
}
