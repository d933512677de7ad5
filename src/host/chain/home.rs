//! Who else works in the chain node's home: a node that baton did not start has its database open and locked there.
//! Files are neither opened nor read for that; the kernel tells who has what open.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::base::processes::{self, Lock};

/// Databases lie no deeper: `data/application.db/LOCK`, `geth/chaindata/LOCK`.
const DEPTH_MAX: u32 = 5;
/// A home with more entries than this is looked through in part.
const ENTRIES_MAX: usize = 50_000;

/// A process that has a file below `home` locked, or writes there and runs the same program as `command`, and neither
/// is nor descends from `guard`; in words, with what to do. `None` when there is none, or none is shown to this user.
/// Blocks for as long as /proc takes.
pub fn foreign_user(home: &Path, command: &[String], guard: Option<u32>) -> Option<String> {
    let home = home.canonicalize().ok()?;
    let all = processes::all().ok()?;
    let me = std::process::id();
    let mut ours = processes::family(guard.into_iter().collect(), &all, me);
    ours.insert(me);
    let mut locks = processes::locks().unwrap_or_default();
    // Whoever only reads what our node has locked is no node.
    locks.retain(|lock| lock.pid.is_none_or(|pid| !ours.contains(&pid)));
    let program = command.first().and_then(|program| Path::new(program).file_name()?.to_str());
    for pid in all.iter().map(|process| process.pid).filter(|pid| !ours.contains(pid)) {
        let same_program = || program.is_some() && processes::program(pid).as_deref() == program;
        let open = processes::open_files(pid, &home);
        let locked = open.iter().find(|file| locks.iter().any(|lock| lock.is_on(&file.is)));
        let written = || open.iter().find(|file| file.for_writing).filter(|_| same_program());
        if let Some(file) = locked.or_else(written) {
            return Some(told(pid, &file.path));
        }
    }
    // Another user's process shows its locks and no more.
    let device = fs::metadata(&home).ok()?.dev();
    let hidden: Vec<&Lock> = locks.iter().filter(|lock| lock.device == device && is_hidden(lock)).collect();
    let mut left = ENTRIES_MAX;
    let (lock, file) = if hidden.is_empty() { None } else { find(&home, &hidden, DEPTH_MAX, &mut left) }?;
    Some(told(lock.pid?, &file))
}

fn told(pid: u32, file: &Path) -> String {
    let (who, file) = (processes::named(pid), file.display());
    format!("{who} has {file} open, and baton did not start it; {}", processes::remedy(&[pid]))
}

fn is_hidden(lock: &Lock) -> bool {
    lock.pid.is_some_and(processes::is_unreadable)
}

fn find<'a>(folder: &Path, locks: &[&'a Lock], depth: u32, left: &mut usize) -> Option<(&'a Lock, PathBuf)> {
    for entry in fs::read_dir(folder).ok()?.flatten() {
        *left = left.checked_sub(1)?;
        let Ok(file) = entry.metadata() else { continue };
        if let Some(lock) = locks.iter().find(|lock| lock.is_on(&file)) {
            return Some((lock, entry.path()));
        }
        if file.is_dir()
            && depth > 0
            && let Some(found) = find(&entry.path(), locks, depth - 1, left)
        {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Holds a lock on `file` until it is dropped.
    struct Holder(Child);

    impl Holder {
        fn of(file: &Path) -> Holder {
            let mut command = Command::new("flock");
            command.arg(file).args(["sh", "-c", "echo held; read end"]);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("flock(1) starts");
            let mut out = std::io::BufReader::new(child.stdout.take().expect("its output"));
            let mut said = String::new();
            std::io::BufRead::read_line(&mut out, &mut said).expect("its word");
            assert_eq!(said, "held\n");
            Holder(child)
        }
    }

    impl Drop for Holder {
        fn drop(&mut self) {
            drop(self.0.stdin.take());
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_process_that_has_a_database_of_the_home_locked_is_named_until_it_ends() {
        let home = tempfile::tempdir().expect("a directory");
        let data = home.path().join("data/blockstore.db");
        fs::create_dir_all(&data).expect("folders");
        File::create(data.join("LOCK")).expect("a file");
        let node = ["noded".to_owned()];
        assert_eq!(foreign_user(home.path(), &node, None), None);
        let holder = Holder::of(&data.join("LOCK"));
        let told = foreign_user(home.path(), &node, None).expect("it is found");
        assert!(told.contains("(pid ") && told.contains("data/blockstore.db/LOCK"), "{told}");
        assert_eq!(foreign_user(home.path(), &node, Some(holder.0.id())), None, "a descendant of the guard");
        drop(holder);
        assert_eq!(foreign_user(home.path(), &node, None), None);
    }

    #[test]
    fn a_writer_that_locks_nothing_counts_when_it_runs_the_nodes_program() {
        let home = tempfile::tempdir().expect("a directory");
        let log = File::create(home.path().join("node.log")).expect("a file");
        let mut sleeper = Command::new("sleep").arg("1000").stdout(log).spawn().expect("sleep starts");
        // Until its exec is done it runs the program of this test.
        while processes::program(sleeper.id()).as_deref() != Some("sleep") {
            std::thread::yield_now();
        }
        let found = |program: &str| foreign_user(home.path(), &[program.to_owned()], None);
        let (other, same) = (found("/usr/bin/noded"), found("/usr/bin/sleep"));
        sleeper.kill().expect("it runs");
        sleeper.wait().expect("its end");
        assert_eq!(other, None);
        let same = same.expect("it is found");
        assert!(same.contains("sleep (pid ") && same.contains("node.log"), "{same}");
    }

    #[test]
    fn a_lock_is_found_below_folders() {
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("a/b/LOCK");
        fs::create_dir_all(home.path().join("a/b")).expect("folders");
        fs::write(&file, "").expect("a file");
        let meta = fs::metadata(&file).expect("a file");
        let lock = Lock { pid: Some(1), device: meta.dev(), inode: meta.ino() };
        assert_eq!(find(home.path(), &[&lock], 2, &mut 100), Some((&lock, file)));
        assert_eq!(find(home.path(), &[&lock], 1, &mut 100), None, "too deep");
    }
}
