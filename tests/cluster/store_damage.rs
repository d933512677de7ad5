//! Stores whose files were cut, torn, mixed up or lost. Each is refused with a line that says why, or
//! has everything that was acknowledged; none is repaired in silence.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::kit::storage::{filled, id, open, vote};
use baton::base::ids::Epoch;
use baton::base::time::BootTime;
use baton::cluster::store::{Store, StoreError};
use openraft::storage::RaftLogStorage;
use tempfile::TempDir;

/// Opens a store that must be refused, and returns what it says.
fn refusal(dir: &Path) -> String {
    match Store::open(dir, "test", &"a".into()) {
        Ok(_) => panic!("the store in {} was opened, but must be refused", dir.display()),
        Err(error) => error.to_string(),
    }
}

/// A copy of the files of a closed store.
struct Files(Vec<(PathBuf, Vec<u8>)>);

impl Files {
    fn of(dir: &Path) -> Self {
        let paths = fs::read_dir(dir.join("store")).unwrap().map(|file| file.unwrap().path());
        Files(paths.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).unwrap())).collect())
    }

    fn restore(&self, dir: &Path) {
        fs::remove_dir_all(dir.join("store")).unwrap();
        fs::create_dir_all(dir.join("store/blobs")).unwrap();
        for (path, bytes) in &self.0 {
            fs::write(path, bytes).unwrap();
        }
    }

    fn database(&self) -> &[u8] {
        &self.0.iter().find(|(path, _)| path.ends_with("db")).unwrap().1
    }
}

/// Whether a store with a changed database is refused as damaged; one that is opened must be whole.
async fn refused_or_whole(dir: &Path, what: &str) -> bool {
    match Store::open(dir, "test", &"a".into()) {
        Err(StoreError::Damaged { .. }) => true,
        Err(error) => panic!("{what}: {error}"),
        Ok(mut opened) => {
            assert_eq!(opened.store.vote(), Some(vote(2, "a")), "{what}");
            assert_eq!(opened.store.applied().borrow().replicated.epoch, Epoch(1), "{what}");
            let log = opened.log.get_log_state().await.unwrap();
            assert_eq!((log.last_purged_log_id, log.last_log_id), (Some(id(2, 0)), Some(id(2, 10))), "{what}");
            false
        }
    }
}

#[tokio::test]
async fn a_torn_vote_file_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(filled(dir.path()).await);
    let path = dir.path().join("store/vote");
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let said = refusal(dir.path());
        assert!(said.contains("fails its checksum"), "{length} bytes left: {said}");
    }
    for place in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[place] ^= 1;
        fs::write(&path, &flipped).unwrap();
        let said = refusal(dir.path());
        assert!(said.contains("fails its checksum"), "bit flipped in byte {place}: {said}");
    }
    fs::write(&path, &whole).unwrap();
    open(dir.path());
}

#[tokio::test]
async fn missing_files_beside_the_database_are_refused() {
    for (name, used) in [("vote", true), ("vote", false), ("seal", true), ("seal", false)] {
        let dir = TempDir::new().unwrap();
        drop(if used { filled(dir.path()).await } else { open(dir.path()) });
        fs::remove_file(dir.path().join("store").join(name)).unwrap();
        let said = refusal(dir.path());
        assert!(said.contains(name) && said.contains("is missing"), "without {name}, used {used}: {said}");
    }
}

#[tokio::test]
async fn a_store_whose_making_was_cut_short_is_made_anew() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("store.new/blobs")).unwrap();
    fs::write(dir.path().join("store.new/conf"), "half").unwrap();
    // As an operator or a package may have made it.
    fs::create_dir(dir.path().join("store")).unwrap();
    let made = open(dir.path());
    assert!(made.fresh);
    let incarnation = made.incarnation;
    drop(made);
    assert_eq!(open(dir.path()).incarnation, incarnation);
    assert!(!dir.path().join("store.new").exists());
}

#[tokio::test]
async fn a_vote_that_reached_the_database_but_not_its_file_holds() {
    let dir = TempDir::new().unwrap();
    let mut opened = filled(dir.path()).await;
    let older = fs::read(dir.path().join("store/vote")).unwrap();
    opened.log.save_vote(&vote(9, "b")).await.unwrap();
    drop(opened);
    fs::write(dir.path().join("store/vote"), older).unwrap();
    assert_eq!(open(dir.path()).store.vote(), Some(vote(9, "b")));
}

#[tokio::test]
async fn a_vote_file_that_is_ahead_of_the_database_or_disagrees_is_refused() {
    for in_file in [vote(4, "b"), vote(3, "b")] {
        let (newer, dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        filled(newer.path()).await.log.save_vote(&in_file).await.unwrap();
        filled(dir.path()).await.log.save_vote(&vote(3, "c")).await.unwrap();
        fs::copy(newer.path().join("store/vote"), dir.path().join("store/vote")).unwrap();
        let said = refusal(dir.path());
        assert!(said.contains("says that it voted") && said.contains("the database says"), "{said}");
    }
}

#[tokio::test]
async fn an_older_copy_of_the_database_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(filled(dir.path()).await);
    let older = Files::of(dir.path());
    let mut opened = open(dir.path());
    opened.log.truncate_after(Some(id(2, 4))).await.unwrap();
    // No new vote: the seal alone knows.
    opened.log.save_vote(&vote(2, "a")).await.unwrap();
    drop(opened);
    let newer_seal = fs::read(dir.path().join("store/seal")).unwrap();
    older.restore(dir.path());
    fs::write(dir.path().join("store/seal"), newer_seal).unwrap();
    let said = refusal(dir.path());
    assert!(said.contains("groups of writes were acknowledged"), "{said}");
}

#[tokio::test]
async fn a_database_that_was_cut_is_refused_or_whole() {
    let dir = TempDir::new().unwrap();
    drop(filled(dir.path()).await);
    let files = Files::of(dir.path());
    let used = files.database().iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let (mut tried, mut refused) = (0, 0);
    for length in (0..=used).step_by((used / 24).max(1)) {
        files.restore(dir.path());
        fs::write(dir.path().join("store/db"), &files.database()[..length]).unwrap();
        tried += 1;
        refused += u32::from(refused_or_whole(dir.path(), &format!("cut to {length} of {used} bytes")).await);
    }
    assert!(refused * 2 > tried, "only {refused} of {tried} cut databases were refused");
}

#[tokio::test]
async fn a_database_with_a_flipped_bit_is_refused_or_whole() {
    let dir = TempDir::new().unwrap();
    drop(filled(dir.path()).await);
    let files = Files::of(dir.path());
    let used = files.database().iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut refused = 0;
    for place in (0..used).step_by((used / 40).max(1)) {
        files.restore(dir.path());
        let mut flipped = files.database().to_vec();
        flipped[place] ^= 0x10;
        fs::write(dir.path().join("store/db"), flipped).unwrap();
        refused += u32::from(refused_or_whole(dir.path(), &format!("bit flipped in byte {place} of {used}")).await);
    }
    assert!(refused > 0, "no flipped bit was noticed");
}

#[tokio::test]
async fn other_files_without_a_database_are_refused() {
    let dir = TempDir::new().unwrap();
    drop(filled(dir.path()).await);
    for (path, _) in Files::of(dir.path()).0 {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "db" || name.starts_with("snap.") {
            fs::remove_file(path).unwrap();
        }
    }
    let said = refusal(dir.path());
    assert!(said.contains("empty or nameless"), "{said}");
    assert!(said.contains("remove it from the cluster"), "{said}");
}

/// Changes the database behind the store's back, as soon as sled's threads have let go of the store's own.
fn with_database(dir: &Path, change: fn(&sled::Db)) {
    let config = sled::Config::new().path(dir.join("store")).flush_every_ms(None);
    let began_at = BootTime::now();
    let db = loop {
        match config.open() {
            Ok(db) => break db,
            Err(sled::Error::Io(_)) if BootTime::now().since(began_at) < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("open the database in {}: {error}", dir.display()),
        }
    };
    change(&db);
    db.flush().unwrap();
}

fn log_key(index: u64) -> Vec<u8> {
    [&b"log/"[..], &index.to_be_bytes()].concat()
}

#[tokio::test]
async fn logs_with_a_hole_a_lost_tail_or_a_lost_head_are_refused() {
    type Damage = (&'static str, fn(&sled::Db), &'static str);
    let cases: [Damage; 6] = [
        ("a hole", |db| drop(db.remove(log_key(5)).unwrap()), "where index 5 must stand"),
        ("a lost head", |db| drop(db.remove(log_key(1)).unwrap()), "where index 1 must stand"),
        ("a lost tail", |db| (1..11).for_each(|i| drop(db.remove(log_key(i)).unwrap())), "but its log ends with"),
        ("a lost purge mark", |db| drop(db.remove("purged").unwrap()), "where index 0 must stand"),
        ("a lost state", |db| drop(db.remove("applied").unwrap()), "but nothing was applied"),
        ("an unreadable entry", |db| drop(db.insert(log_key(5), &[0xff_u8; 3]).unwrap()), "Entry cannot be decoded"),
    ];
    for (what, damage, expected) in cases {
        let dir = TempDir::new().unwrap();
        drop(filled(dir.path()).await);
        with_database(dir.path(), damage);
        let said = refusal(dir.path());
        assert!(said.contains(expected), "{what}: {said}");
    }
}

#[tokio::test]
async fn a_store_of_a_later_format_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(filled(dir.path()).await);
    with_database(dir.path(), |db| {
        let identity = baton::cluster::wire::proto::StoreIdentity { format: 99, ..Default::default() };
        db.insert("identity", prost::Message::encode_to_vec(&identity)).unwrap();
    });
    let said = refusal(dir.path());
    assert!(said.contains("has format 99"), "{said}");
}
