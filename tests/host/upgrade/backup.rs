//! The backup of the data before an upgrade.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use baton::config::Backup;
use baton::core::upgrades::Step;
use baton::host::upgrade::Wanted;

use super::kit::{Fault, Hands, Home, carry_out, carry_out_told, failed_in, name, wanted};

fn home(backup: Backup) -> Home {
    let mut home = Home::with_v2_due();
    home.settings.backup = backup;
    home.write("data/application.db/000001.ldb", "level");
    home.write("data/application.db/000002.sst", "sorted");
    home.write("data/application.db/CURRENT", "MANIFEST-1\n");
    home
}

fn only_backup(home: &Home) -> PathBuf {
    let backups = home.backups();
    assert_eq!(backups.len(), 1, "{backups:?}");
    home.settings.backup_dir.join(&backups[0])
}

#[test]
fn everything_that_means_something_is_copied_as_it_is() {
    let home = home(Backup::Copy);
    symlink("application.db/CURRENT", home.path("data/pointer")).expect("a link");
    symlink("/nowhere", home.path("data/dangling")).expect("a link");
    fs::create_dir(home.path("data/empty")).expect("a folder");
    fs::set_permissions(home.path("data/empty"), Permissions::from_mode(0o555)).expect("chmod");
    let _socket = UnixListener::bind(home.path("data/socket")).expect("a socket");
    home.carry_out(&wanted("v2")).expect("carried out");

    let backup = only_backup(&home);
    let file = backup.file_name().expect("a name").to_str().expect("UTF-8");
    assert!(file.starts_with("data-backup-2") && file.ends_with("-before-v2"), "{file}");
    let state = backup.join("priv_validator_state.json");
    assert_eq!(fs::metadata(&state).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read(&state).expect("there"), fs::read(home.path("data/priv_validator_state.json")).expect("there"));
    for table in ["application.db/000001.ldb", "application.db/000002.sst", "application.db/CURRENT"] {
        let (copy, original) = (fs::metadata(backup.join(table)), fs::metadata(home.path("data").join(table)));
        let (copy, original) = (copy.expect("there"), original.expect("there"));
        assert_ne!(copy.ino(), original.ino(), "{table} is a copy");
        assert_eq!((copy.len(), copy.mtime_nsec()), (original.len(), original.mtime_nsec()), "{table}");
    }
    assert_eq!(fs::read_link(backup.join("pointer")).expect("a link"), PathBuf::from("application.db/CURRENT"));
    assert_eq!(fs::read_link(backup.join("dangling")).expect("a link"), PathBuf::from("/nowhere"));
    assert_eq!(fs::metadata(backup.join("empty")).expect("there").permissions().mode() & 0o777, 0o555);
    assert!(!backup.join("socket").exists(), "a socket means nothing in a backup");
}

#[test]
fn links_are_made_of_the_files_that_stay_as_they_are_and_copies_of_the_others() {
    let home = home(Backup::Links);
    home.carry_out(&wanted("v2")).expect("carried out");
    let backup = only_backup(&home);
    let same = |file: &str| {
        let [copy, original] = [backup.join(file), home.path("data").join(file)];
        fs::metadata(copy).expect("there").ino() == fs::metadata(original).expect("there").ino()
    };
    assert!(same("application.db/000001.ldb") && same("application.db/000002.sst"));
    assert!(!same("application.db/CURRENT") && !same("priv_validator_state.json"));
}

#[test]
fn without_a_backup_none_is_taken() {
    let home = home(Backup::None);
    let (ended, told) = carry_out_told(&home.upgrades(), &wanted("v2"));
    assert_eq!((ended, home.backups()), (Ok(()), Vec::new()));
    assert_eq!(told.iter().map(|told| told.step).collect::<Vec<_>>(), [Step::PreUpgrade, Step::Swap]);
}

#[test]
fn its_progress_is_told_in_bytes() {
    let home = home(Backup::Copy);
    let bytes = 3 << 20;
    home.write("data/big", &"x".repeat(bytes));
    let (ended, told) = carry_out_told(&home.upgrades(), &wanted("v2"));
    assert_eq!(ended, Ok(()));
    let steps: Vec<_> = told.iter().filter(|told| told.step == Step::Backup).collect();
    let (first, last) = (steps.first().expect("told"), steps.last().expect("told"));
    assert_eq!(first.done, 0);
    assert!(last.total > bytes as u64 && last.done == last.total, "{last:?}");
    assert!(steps.windows(2).all(|pair| pair[0].done <= pair[1].done), "{steps:?}");
    assert!(told.is_sorted_by_key(|told| told.step), "{told:?}");
}

#[test]
fn a_disk_that_has_no_room_is_told_before_anything_is_written() {
    let home = home(Backup::Copy);
    let hands = Hands::new(Fault::Free(64 << 20));
    let reason = failed_in(carry_out(&home.with(hands), &wanted("v2")), Step::Backup);
    let dir = home.settings.backup_dir.display();
    let expected = format!(
        "the backup needs 65 MiB and {dir} has 64 MiB free; make room, name another upgrade.backup_dir, or set \
         upgrade.backup = \"links\" or \"none\""
    );
    assert_eq!((reason, home.backups()), (expected, Vec::new()));
    assert_eq!(home.upgrades().program().expect("a binary"), home.path("cosmovisor/genesis/bin/gaiad"));
    assert!(home.due().is_some());
}

#[test]
fn a_disk_that_fills_in_the_middle_leaves_the_data_untouched_and_the_old_binary() {
    let home = home(Backup::Copy);
    let listing = || {
        let mut files: Vec<_> = ["data/application.db", "data"]
            .iter()
            .flat_map(|dir| fs::read_dir(home.path(dir)).expect("a folder"))
            .map(|entry| entry.expect("an entry").path())
            .map(|path| (fs::read(&path).ok(), path))
            .collect();
        files.sort();
        files
    };
    let before = listing();
    let ended = carry_out(&home.with(Hands::new(Fault::FullAt("CURRENT"))), &wanted("v2"));
    let reason = failed_in(ended, Step::Backup);
    let dir = home.settings.backup_dir.display();
    let expected = format!(
        "the backup in {dir}: application.db/CURRENT: no storage space; the data is untouched; make room, or name \
         another upgrade.backup_dir"
    );
    assert_eq!((reason, home.backups()), (expected, Vec::new()));
    assert_eq!(listing(), before);
    assert_eq!(home.upgrades().program().expect("a binary"), home.path("cosmovisor/genesis/bin/gaiad"));
    home.carry_out(&wanted("v2")).expect("with room again");
}

#[test]
fn a_copy_that_is_not_what_was_read_is_no_backup() {
    let home = home(Backup::Copy);
    let reason = failed_in(carry_out(&home.with(Hands::new(Fault::Lie("CURRENT"))), &wanted("v2")), Step::Backup);
    assert!(reason.contains("application.db/CURRENT: the copy reads as "), "{reason}");
    assert!(reason.contains("the disk is not to be trusted; the data is untouched"), "{reason}");
    assert_eq!(home.backups(), Vec::<String>::new());
}

#[test]
fn what_a_crash_has_left_is_removed_at_the_next_attempt_and_nothing_of_others_is() {
    let home = home(Backup::Copy);
    // It can clean up no more.
    let _ = carry_out(&home.with(Hands::new(Fault::StopBefore(5))), &wanted("v2"));
    let left = home.backups();
    assert!(left.len() == 1 && left[0].contains("-before-v2.partial-"), "{left:?}");
    let others = format!("{}0", left[0]);
    fs::create_dir(home.path(&others)).expect("a folder");
    home.carry_out(&wanted("v2")).expect("carried out");
    let backups = home.backups();
    assert_eq!((backups.len(), backups.contains(&others), backups.contains(&left[0])), (2, true, false), "{backups:?}");
}

#[test]
fn the_backup_of_an_attempt_that_failed_later_is_used_by_the_next_and_one_of_another_upgrade_is_not() {
    let home = home(Backup::Copy);
    home.put_script("upgrades/v2", "exit 30");
    for _ in 0..3 {
        failed_in(home.carry_out(&wanted("v2")), Step::PreUpgrade);
        assert_eq!(home.backups().len(), 1, "a backup for each attempt would fill the disk");
    }
    home.put("upgrades/v2");
    home.carry_out(&wanted("v2")).expect("carried out");
    assert_eq!(home.backups().len(), 1);
    home.carry_out(&Wanted { name: name("genesis"), back: true }).expect("taken back");
    home.carry_out(&wanted("v2")).expect("carried out");
    assert_eq!(home.backups().len(), 3, "{:?}", home.backups());
}

#[test]
fn data_that_is_not_there_is_told() {
    let home = home(Backup::Copy);
    fs::remove_dir_all(home.path("data")).expect("removed");
    let reason = failed_in(home.carry_out(&wanted("v2")), Step::Backup);
    assert!(reason.ends_with("correct upgrade.root, or set upgrade.backup = \"none\""), "{reason}");
}
