//! What the tests of the links have in common: a chain node's home with three links, and a guard's proof.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use baton::base::guard_frame::LinkState;
use baton::base::guard_frame::{Armed, ArmedGuard, FromGuard, LinkSpec};
use baton::base::ids::Epoch;
use baton::base::time::BootTime;
use baton::host::key_links::KeyLinks;

pub const DEADLINE: BootTime = BootTime::from_nanos(1000);
pub const BEFORE: BootTime = BootTime::from_nanos(999);

pub fn armed() -> ArmedGuard {
    let frame = FromGuard::Armed(Armed::by_guard(Epoch(7), DEADLINE));
    ArmedGuard::from_frame(&frame, BEFORE).expect("a live proof")
}

/// A home with three links: the validator key without a standby target, two others with one.
pub struct Home {
    root: PathBuf,
    /// Removed with this value; `None` where another process owns it.
    _dir: Option<tempfile::TempDir>,
}

impl Home {
    pub fn new() -> Home {
        let dir = tempfile::tempdir().unwrap();
        let home = Home { root: dir.path().to_path_buf(), _dir: Some(dir) };
        std::fs::create_dir(home.path("home")).unwrap();
        for name in ["key.v", "node.v", "extra.v", "node.s", "extra.s"] {
            std::fs::write(home.path(name), name).unwrap();
            std::fs::set_permissions(home.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        home
    }

    pub fn at(root: &Path) -> Home {
        Home { root: root.to_path_buf(), _dir: None }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn specs(&self) -> Vec<LinkSpec> {
        let spec = |name: &str, standby: Option<&str>| LinkSpec {
            link: self.path("home").join(name),
            validating: self.path(&format!("{name}.v")),
            standby: standby.map(|s| self.path(s)),
        };
        vec![spec("key", None), spec("node", Some("node.s")), spec("extra", Some("extra.s"))]
    }

    pub fn links(&self) -> KeyLinks {
        KeyLinks::new(self.specs()).unwrap()
    }

    pub fn key(&self) -> PathBuf {
        self.path("home/key")
    }

    /// What the chain node would read, and whether anything else lies in its home.
    pub fn listing(&self) -> Vec<(String, PathBuf)> {
        let entries = std::fs::read_dir(self.path("home")).unwrap().map(|e| e.unwrap().path());
        let mut all: Vec<_> = entries
            .map(|p| {
                (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_link(&p).unwrap_or_default())
            })
            .collect();
        all.sort();
        all
    }

    pub fn key_is_validating(&self) -> bool {
        std::fs::read_link(self.key()).is_ok_and(|target| target == self.path("key.v"))
    }

    /// Whether a node started on these links would sign although it is no complete validator.
    pub fn is_a_mix_that_signs(&self) -> bool {
        self.key_is_validating() && self.links().state() != LinkState::Validating
    }
}
