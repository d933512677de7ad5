//! What the shell has felt of the disks below this host, and of the key files on them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Host, NotReady};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Disks {
    /// Directories whose disk does not answer, as people know them.
    hung: BTreeSet<String>,
    /// What the store has left, in words, once its reserve is given up.
    full: Option<String>,
    /// Why the key of a validator could not be linked.
    keys_unusable: Option<String>,
}

impl Host {
    pub fn disk_hung(&mut self, dir: String) {
        self.disks.hung.insert(dir);
    }

    pub fn disk_back(&mut self, dir: &str) {
        self.disks.hung.remove(dir);
    }

    /// A holder with one cannot prove what it did, and a standby could not do what it must.
    pub fn has_hung_disk(&self) -> bool {
        !self.disks.hung.is_empty()
    }

    /// The directories whose disk does not answer, in a sentence's form.
    pub(super) fn hung_disks(&self) -> Option<String> {
        let dirs: Vec<&str> = self.disks.hung.iter().map(String::as_str).collect();
        (!dirs.is_empty()).then(|| dirs.join(" and "))
    }

    pub fn note_disk_full(&mut self, full: Option<String>) {
        self.disks.full = full;
    }

    pub(super) fn disk_full(&self) -> Option<NotReady> {
        self.disks.full.clone().map(|room| NotReady::DiskFull { room })
    }

    pub fn note_keys_unusable(&mut self, reason: Option<String>) {
        self.disks.keys_unusable = reason;
    }

    pub(in crate::core) fn keys_unusable(&self) -> Option<&String> {
        self.disks.keys_unusable.as_ref()
    }
}
