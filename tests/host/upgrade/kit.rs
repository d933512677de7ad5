//! A home in a temporary directory, and hands that stop, fill the disk or copy wrongly.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use baton::base::ids::UpgradeName;
use baton::config::{self, Backup};
use baton::core::upgrades::{Failed, Step, UnderWay};
use baton::host::upgrade::{Files, OsFiles, Upgrades, Wanted};

/// Long enough for a script on any machine.
const PRE_UPGRADE_MAX: Duration = Duration::from_secs(120);

pub struct Home {
    dir: tempfile::TempDir,
    pub settings: config::Upgrade,
}

pub fn name(text: &str) -> UpgradeName {
    UpgradeName::new(text).expect("a name")
}

pub fn wanted(text: &str) -> Wanted {
    Wanted { name: name(text), back: false }
}

impl Home {
    /// With the first binary, and data without anything to do.
    pub fn new() -> Home {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let settings = config::Upgrade::at(dir.path(), "gaiad");
        let home = Home { dir, settings };
        home.put("genesis");
        home.write("data/priv_validator_state.json", "{\"height\": \"41\"}");
        fs::set_permissions(home.path("data/priv_validator_state.json"), Permissions::from_mode(0o600)).expect("chmod");
        home
    }

    /// And `v2`, which the chain asks for.
    pub fn with_v2_due() -> Home {
        let home = Home::new();
        home.put("upgrades/v2");
        home.ask("v2", 100);
        home
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub fn write(&self, below: &str, text: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    pub fn read(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap_or_else(|error| panic!("{below}: {error}"))
    }

    /// A binary that has no command pre-upgrade.
    pub fn put(&self, folder: &str) -> PathBuf {
        self.put_script(folder, "exit 1")
    }

    pub fn put_script(&self, folder: &str, script: &str) -> PathBuf {
        let below = format!("cosmovisor/{folder}/bin/gaiad");
        let path = self.path(&below);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        // By another process: a file that this one has open for writing goes into whatever another test starts at that
        // moment, and cannot be run until that has begun.
        let text = format!("#!/bin/sh\n# {folder}\n{script}\n");
        let write = r#"rm -f "$2" && printf %s "$1" > "$2" && chmod 755 "$2""#;
        let written = Command::new("sh").args(["-c", write, "sh", &text]).arg(&path).status().expect("it runs");
        assert!(written.success(), "{}: {written}", path.display());
        path
    }

    /// As the chain node does when it halts.
    pub fn ask(&self, name: &str, height: u64) {
        self.write("data/upgrade-info.json", &format!("{{\"name\":\"{name}\",\"height\":{height},\"info\":\"\"}}"));
    }

    /// As `ask` at another moment, also where the clock of the file system has not moved.
    pub fn ask_anew(&self, name: &str, height: u64) {
        let file = self.path("data/upgrade-info.json");
        let before = fs::metadata(&file).expect("it was written before").modified().expect("a time");
        self.ask(name, height);
        let written = fs::File::options().write(true).open(&file).expect("the file");
        written.set_modified(before + Duration::from_millis(10)).expect("a later time");
    }

    pub fn link(&self, link: &str, to: impl AsRef<Path>) {
        let path = self.path("cosmovisor").join(link);
        let _ = fs::remove_file(&path);
        symlink(to, path).expect("a link");
    }

    pub fn linked(&self, link: &str) -> PathBuf {
        fs::read_link(self.path("cosmovisor").join(link)).unwrap_or_else(|error| panic!("{link}: {error}"))
    }

    pub fn upgrades(&self) -> Upgrades {
        self.with(OsFiles)
    }

    pub fn with(&self, files: impl Files + 'static) -> Upgrades {
        Upgrades::on(self.settings.clone(), Arc::new(files), PRE_UPGRADE_MAX)
    }

    pub fn due(&self) -> Option<(String, u64)> {
        let due = self.upgrades().due().unwrap_or_else(|error| panic!("{error}"));
        due.map(|due| (due.name.as_str().to_owned(), due.height))
    }

    pub fn current(&self) -> String {
        self.upgrades().current().unwrap_or_else(|error| panic!("{error}")).as_str().to_owned()
    }

    pub fn carry_out(&self, wanted: &Wanted) -> Result<(), Failed> {
        carry_out(&self.upgrades(), wanted)
    }

    /// Below the root, sorted.
    pub fn backups(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.settings.backup_dir).expect("the directory of the backups");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
        let mut names: Vec<String> = names.filter(|name| name.starts_with("data-backup-")).collect();
        names.sort();
        names
    }
}

pub fn carry_out(upgrades: &Upgrades, wanted: &Wanted) -> Result<(), Failed> {
    upgrades.carry_out(wanted, &mut |_| {})
}

pub fn carry_out_told(upgrades: &Upgrades, wanted: &Wanted) -> (Result<(), Failed>, Vec<UnderWay>) {
    let mut told = Vec::new();
    (upgrades.carry_out(wanted, &mut |under_way| told.push(under_way)), told)
}

pub fn failed_in(ended: Result<(), Failed>, step: Step) -> String {
    match ended {
        Err(failed) if failed.step == step => failed.reason,
        other => panic!("not failed in {}: {other:?}", step.as_str()),
    }
}

pub fn without_backup(mut home: Home) -> Home {
    home.settings.backup = Backup::None;
    home
}

/// What goes wrong, and at which operation.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It and all that come after are not done, as if the process had ended.
    StopBefore(usize),
    /// The disk is full when the file of this name is copied.
    FullAt(&'static str),
    /// As much is free, it says.
    Free(u64),
    /// The copy of the file of this name is not what was read.
    Lie(&'static str),
    /// None of this kind, and operations are counted.
    None,
}

pub struct Hands {
    pub fault: Fault,
    pub done: Arc<AtomicUsize>,
}

impl Hands {
    pub fn new(fault: Fault) -> Hands {
        Hands { fault, done: Arc::default() }
    }

    fn allow(&self) -> io::Result<()> {
        let number = self.done.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::StopBefore(stop) if number >= stop => Err(io::Error::other("stopped")),
            Fault::StopBefore(_) | Fault::FullAt(_) | Fault::Free(_) | Fault::Lie(_) | Fault::None => Ok(()),
        }
    }
}

impl Files for Hands {
    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        self.allow().and_then(|()| OsFiles.symlink(target, link))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.allow().and_then(|()| OsFiles.rename(from, to))
    }
    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        self.allow().and_then(|()| OsFiles.write(file, bytes))
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.allow().and_then(|()| OsFiles.sync_dir(dir))
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.allow().and_then(|()| OsFiles.remove_file(path))
    }
    fn remove_tree(&self, dir: &Path) -> io::Result<()> {
        self.allow().and_then(|()| OsFiles.remove_tree(dir))
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.allow().and_then(|()| OsFiles.create_dir(dir))
    }
    fn make_like(&self, path: &Path, like: &Path) -> io::Result<()> {
        self.allow().and_then(|()| OsFiles.make_like(path, like))
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.allow().and_then(|()| OsFiles.hard_link(from, to))
    }
    fn copy(&self, from: &Path, to: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<String> {
        self.allow()?;
        match self.fault {
            Fault::FullAt(name) if from.ends_with(name) => {
                fs::write(to, "a part of it")?;
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            Fault::Lie(name) if from.ends_with(name) => {
                let sum = OsFiles.copy(from, to, progress)?;
                fs::write(to, "something else").map(|()| sum)
            }
            Fault::StopBefore(_) | Fault::FullAt(_) | Fault::Free(_) | Fault::Lie(_) | Fault::None => {
                OsFiles.copy(from, to, progress)
            }
        }
    }
    fn sync_all(&self, dir: &Path) -> io::Result<()> {
        self.allow().and_then(|()| OsFiles.sync_all(dir))
    }
    fn free(&self, dir: &Path) -> io::Result<u64> {
        match self.fault {
            Fault::Free(bytes) => Ok(bytes),
            Fault::StopBefore(_) | Fault::FullAt(_) | Fault::Lie(_) | Fault::None => OsFiles.free(dir),
        }
    }
}
