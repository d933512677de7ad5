//! The links on a real file system: every error by its text, and a crash between every two system calls.

use std::cell::Cell;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::kit::links::{BEFORE, DEADLINE, Home, armed};
use baton::base::guard_frame::{LinkSpec, LinkState};
use baton::base::ids::Epoch;
use baton::host::key_links::{KeyLinks, LinkError, LinkFs, OsFs};
use proptest::prelude::*;

/// Does `left` calls, then fails this one and all that follow, like a process that was killed.
struct Crashing {
    left: Cell<usize>,
}

impl Crashing {
    fn step(&self, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                call()
            }
            None => Err(io::Error::other("crashed")),
        }
    }
}

impl LinkFs for Crashing {
    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        self.step(|| OsFs.symlink(target, link))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|| OsFs.rename(from, to))
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.step(|| OsFs.unlink(path))
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step(|| OsFs.sync_dir(dir))
    }
}

fn crashing(home: &Home, after: usize) -> KeyLinks<Crashing> {
    KeyLinks::on(Crashing { left: Cell::new(after) }, home.specs()).unwrap()
}

#[test]
fn a_swap_makes_a_validator_and_to_standby_a_standby_again() {
    let home = Home::new();
    let links = home.links();
    links.to_standby().unwrap();
    assert_eq!(links.state(), LinkState::Standby);
    links.swap(&armed(), || BEFORE).unwrap();
    assert_eq!(links.state(), LinkState::Validating);
    assert_eq!(std::fs::read_to_string(home.key()).unwrap(), "key.v");
    links.to_standby().unwrap();
    assert_eq!(links.state(), LinkState::Standby);
    let expected = vec![("extra".into(), home.path("extra.s")), ("node".into(), home.path("node.s"))];
    assert_eq!(home.listing(), expected);
}

#[test]
fn the_key_comes_last_and_goes_first() {
    let home = Home::new();
    home.links().to_standby().unwrap();
    for after in 0.. {
        if crashing(&home, after).swap(&armed(), || BEFORE).is_ok() {
            break;
        }
        if home.key_is_validating() {
            assert_eq!(home.links().state(), LinkState::Validating, "after {after} calls: {:?}", home.listing());
        }
        home.links().to_standby().unwrap();
    }
    for after in 1.. {
        home.links().swap(&armed(), || BEFORE).unwrap();
        let done = crashing(&home, after).to_standby().is_ok();
        assert!(!home.key_is_validating(), "the first call of a release is the key's");
        if done {
            break;
        }
    }
}

#[test]
fn a_crash_between_any_two_calls_leaves_no_mix_that_signs_and_is_repaired() {
    let mut crashes = 0;
    for to_validating in [true, false] {
        for after in 0.. {
            let home = Home::new();
            home.links().to_standby().unwrap();
            let old = if to_validating { LinkState::Standby } else { LinkState::Validating };
            let links = crashing(&home, after);
            let finished = if to_validating {
                links.swap(&armed(), || BEFORE)
            } else {
                home.links().swap(&armed(), || BEFORE).unwrap();
                links.to_standby()
            };
            let seen = home.links().state();
            assert!(!home.is_a_mix_that_signs(), "after {after} calls: {:?}", home.listing());
            assert!(finished.is_ok() || after > 0 || seen == old, "nothing was done, and yet {old:?} became {seen:?}");
            home.links().to_standby().unwrap();
            assert_eq!(home.links().state(), LinkState::Standby);
            assert_eq!(home.listing().len(), 2, "left over after {after} calls: {:?}", home.listing());
            if finished.is_ok() {
                break;
            }
            crashes += 1;
        }
    }
    println!("{crashes} crashes");
    assert!(crashes >= 9, "only {crashes} crashes: the seam does not see the calls");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn whatever_crashes_in_whatever_order_no_mix_signs(
        moves in prop::collection::vec((any::<bool>(), 0usize..14, any::<bool>()), 1..12)
    ) {
        let home = Home::new();
        for (to_validating, after, in_time) in moves {
            let links = crashing(&home, after);
            let now = if in_time { BEFORE } else { DEADLINE };
            let was_validating = home.key_is_validating();
            let done = if to_validating { links.swap(&armed(), || now) } else { links.to_standby() };
            prop_assert!(!home.is_a_mix_that_signs(), "{:?}", home.listing());
            if done.is_ok() {
                let wanted = if to_validating { LinkState::Validating } else { LinkState::Standby };
                prop_assert_eq!(home.links().state(), wanted);
            }
            prop_assert!(was_validating || in_time || !home.key_is_validating(), "linked after the deadline");
        }
    }
}

#[test]
fn a_deadline_that_passes_midway_puts_everything_back() {
    let home = Home::new();
    home.links().to_standby().unwrap();
    let mut reads = 0;
    for live_reads in 0.. {
        let clock = Cell::new(0);
        let now = || {
            clock.set(clock.get() + 1);
            if clock.get() > live_reads { DEADLINE } else { BEFORE }
        };
        match home.links().swap(&armed(), now) {
            Ok(()) => break,
            Err(LinkError::DeadlinePassed { epoch: Epoch(7) }) => reads += 1,
            Err(other) => panic!("{other}"),
        }
        assert_eq!(home.links().state(), LinkState::Standby, "after {live_reads} reads: {:?}", home.listing());
        assert_eq!(home.listing().len(), 2, "{:?}", home.listing());
    }
    // Once at the start, before each of three renames, once at the end.
    assert_eq!(reads, 5);
}

/// Notes every rename that puts a validating target in place.
struct Noting<'a>(&'a Cell<u32>);

impl LinkFs for Noting<'_> {
    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        OsFs.symlink(target, link)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if std::fs::read_link(from)?.extension().is_some_and(|ext| ext == "v") {
            self.0.set(self.0.get() + 1);
        }
        OsFs.rename(from, to)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        OsFs.unlink(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsFs.sync_dir(dir)
    }
}

#[test]
fn nothing_is_linked_once_the_deadline_has_passed() {
    // The clock is read at the start and before each of three renames.
    for live_reads in 0..4u32 {
        let (home, clock, linked) = (Home::new(), Cell::new(0u32), Cell::new(0u32));
        let links = KeyLinks::on(Noting(&linked), home.specs()).unwrap();
        let now = || {
            clock.set(clock.get() + 1);
            if clock.get() > live_reads { DEADLINE } else { BEFORE }
        };
        assert!(matches!(links.swap(&armed(), now), Err(LinkError::DeadlinePassed { .. })));
        assert_eq!(linked.get(), live_reads.saturating_sub(1), "links made with {live_reads} reads in time");
    }
}

#[test]
fn a_file_in_a_links_place_is_named_and_never_overwritten() {
    let home = Home::new();
    home.links().to_standby().unwrap();
    std::fs::remove_file(home.path("home/extra")).unwrap();
    std::fs::write(home.path("home/extra"), "precious").unwrap();
    let before = home.listing();
    let error = home.links().swap(&armed(), || BEFORE).unwrap_err().to_string();
    let expected = format!("link {} is a regular file; move it away and restart", home.path("home/extra").display());
    assert_eq!(error, expected);
    assert_eq!(home.listing(), before, "something was changed before all was checked");
    assert_eq!(home.links().check_places().unwrap_err().to_string(), expected);
    assert_eq!(home.links().state(), LinkState::Broken);

    std::fs::create_dir(home.key()).unwrap();
    let error = home.links().to_standby().unwrap_err().to_string();
    assert_eq!(error, format!("link {} is a directory; move it away and restart", home.key().display()));
    assert_eq!(std::fs::read_to_string(home.path("home/extra")).unwrap(), "precious");
}

#[test]
fn letting_go_of_the_key_does_not_wait_for_a_link_that_cannot_be_changed() {
    let home = Home::new();
    home.links().swap(&armed(), || BEFORE).unwrap();
    std::fs::remove_file(home.path("home/node")).unwrap();
    std::fs::write(home.path("home/node"), "precious").unwrap();
    let error = home.links().to_standby().unwrap_err().to_string();
    assert!(error.contains("home/node is a regular file"), "{error}");
    assert!(!home.key_is_validating());
    assert_eq!(std::fs::read_link(home.path("home/extra")).unwrap(), home.path("extra.s"));
}

#[test]
fn dangling_and_foreign_links_are_broken_and_repaired() {
    let home = Home::new();
    symlink("/nowhere", home.path("home/node")).unwrap();
    symlink(home.path("key.v"), home.path("home/extra")).unwrap();
    assert_eq!(home.links().state(), LinkState::Broken);
    home.links().to_standby().unwrap();
    assert_eq!(home.links().state(), LinkState::Standby);

    symlink("/nowhere", home.key()).unwrap();
    home.links().swap(&armed(), || BEFORE).unwrap();
    assert_eq!(home.links().state(), LinkState::Validating);

    std::fs::remove_file(home.path("node.v")).unwrap();
    assert_eq!(home.links().state(), LinkState::Broken, "a validating target is missing");
    home.links().to_standby().unwrap();
    std::fs::remove_file(home.path("node.s")).unwrap();
    assert_eq!(home.links().state(), LinkState::Broken, "a standby target is missing");
}

#[test]
fn left_over_temporary_links_of_any_process_are_removed_and_files_are_not() {
    let home = Home::new();
    symlink("/nowhere", home.path("home/.key.baton-4194305")).unwrap();
    symlink("/nowhere", home.path("home/.node.baton-1")).unwrap();
    std::fs::write(home.path("home/.node.baton-notes"), "mine").unwrap();
    home.links().to_standby().unwrap();
    let names: Vec<_> = home.listing().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [".node.baton-notes", "extra", "node"]);
}

#[test]
fn keys_that_are_missing_or_open_to_others_are_refused_with_the_remedy() {
    let home = Home::new();
    home.links().check_keys().unwrap();
    let set_mode = |mode| {
        std::fs::set_permissions(home.path("node.v"), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for mode in [0o640, 0o604, 0o610, 0o777] {
        set_mode(mode);
        let error = home.links().check_keys().unwrap_err().to_string();
        let key = home.path("node.v").display().to_string();
        assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
        assert!(error.ends_with(&format!("chmod 600 {key}")), "{error}");
    }
    assert!(home.links().swap(&armed(), || BEFORE).is_err());
    assert_eq!(home.listing(), [], "a refused swap has changed something");
    set_mode(0o400);
    home.links().check_keys().unwrap();
    std::fs::remove_file(home.path("node.v")).unwrap();
    let error = home.links().check_keys().unwrap_err().to_string();
    assert!(error.contains("node.v") && error.contains("does not exist"), "{error}");
    std::fs::create_dir(home.path("node.v")).unwrap();
    let error = home.links().check_keys().unwrap_err().to_string();
    assert!(error.contains("is not a regular file"), "{error}");
}

#[test]
fn link_sets_that_make_no_sense_are_refused() {
    let home = Home::new();
    let refuse = |specs: Vec<LinkSpec>| KeyLinks::new(specs).unwrap_err().to_string();
    let [key, node, _] = &home.specs()[..] else { unreachable!() };
    assert!(refuse(vec![key.clone(), key.clone()]).contains("listed twice"));
    let relative = LinkSpec { validating: "key.v".into(), ..key.clone() };
    assert!(refuse(vec![relative]).contains("key.v is not an absolute path"));
    let to_itself = LinkSpec { validating: key.link.clone(), ..key.clone() };
    assert!(refuse(vec![to_itself]).contains("three different paths"));
    let no_difference = LinkSpec { standby: Some(node.validating.clone()), ..node.clone() };
    assert!(refuse(vec![no_difference]).contains("node.v occurs twice"));
    assert_eq!(KeyLinks::new(Vec::new()).unwrap().state(), LinkState::Standby);
}
