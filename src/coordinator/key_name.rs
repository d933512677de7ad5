//! By what names the coordinators of one machine tell each other which validator's key they switch, so that two clusters
//! with one key are refused. A name is an abstract socket, which every coordinator of this network namespace sees and
//! which ends with its process: one for the place of the key's file, and one for the key itself, where the driver can
//! tell its public half. By the second a copy of the file is known, too.
//!
//! Invariant: no coordinator reads a key. A helper tells the public half, and a name has only a digest of that.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use ring::digest::{SHA256, digest};

use super::key_reader;
use crate::config::{Chain, Config, DriverKind};

const KEY_IN_USE: &str = "baton-key/";
/// Bytes of the name of an abstract socket.
const NAME_MAX: usize = 107;
/// Of the digest of a public key, bytes.
const DIGEST_BYTES: usize = 16;

/// What a name says of the key, up to the slash before the process.
enum Prefix {
    /// Device and inode.
    File(String),
    Public(String),
}

impl Prefix {
    fn of_public(half: &str) -> Prefix {
        // neard takes a key without its curve for one of this.
        let half = half.strip_prefix("ed25519:").unwrap_or(half);
        let digest = digest(&SHA256, half.as_bytes());
        let hex: String = digest.as_ref()[..DIGEST_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        Prefix::Public(format!("{KEY_IN_USE}public.{hex}/"))
    }

    fn text(&self) -> &str {
        let (Prefix::File(text) | Prefix::Public(text)) = self;
        text
    }
}

pub(super) struct KeyName {
    file: String,
    /// That of the file comes first.
    prefixes: Vec<Prefix>,
    cluster: String,
}

impl KeyName {
    /// `None` while the key is not there.
    pub(super) async fn of(config: &Config, chain: &Chain) -> Option<KeyName> {
        // The first link is the validator's key.
        let file = &chain.links.first()?.validating;
        let key = fs::metadata(file).ok()?;
        let mut prefixes = vec![Prefix::File(format!("{KEY_IN_USE}{:x}.{:x}/", key.dev(), key.ino()))];
        prefixes.extend(public_half(chain.driver, file).await.as_deref().map(Prefix::of_public));
        Some(KeyName { file: file.display().to_string(), prefixes, cluster: config.cluster.name.clone() })
    }

    /// Without a name that cannot be had, as for a member of the same cluster in a container beside this one.
    pub(super) fn take(&self) -> Vec<UnixListener> {
        let take = |prefix: &Prefix| {
            let mut name = format!("{}{}/{}", prefix.text(), std::process::id(), self.cluster);
            name.truncate(NAME_MAX);
            UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).ok()?).ok()
        };
        self.prefixes.iter().filter_map(take).collect()
    }

    /// Who of another cluster switches the same key, in words.
    pub(super) fn other_cluster(&self) -> Option<String> {
        self.told_by(&fs::read_to_string("/proc/thread-self/net/unix").ok()?)
    }

    fn told_by(&self, table: &str) -> Option<String> {
        self.prefixes.iter().find_map(|prefix| {
            let (pid, cluster) = self.other_in(table, prefix.text())?;
            let copy = match prefix {
                Prefix::File(_) => "",
                Prefix::Public(_) => "a copy of ",
            };
            Some(format!(
                "{copy}validator key {} is switched by another coordinator of this machine too, baton (pid {pid}) of cluster \
                 {cluster}: two clusters with one key sign twice; stop that one, or give this cluster its own key",
                self.file
            ))
        })
    }

    fn other_in<'a>(&self, table: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
        let names = table.lines().filter_map(|line| line.split_once('@')?.1.strip_prefix(prefix));
        let mut told = names.filter_map(|name| name.split_once('/'));
        told.find(|(pid, cluster)| {
            // A long name is cut to the room that there is.
            let room = NAME_MAX.saturating_sub(prefix.len() + pid.len() + 1);
            *cluster != self.cluster.get(..room).unwrap_or(&self.cluster)
        })
    }
}

/// `None` where no driver knows how the file is written, or it cannot be read: the driver says so itself.
async fn public_half(driver: DriverKind, file: &Path) -> Option<String> {
    let keys = key_reader().ok()?;
    match driver {
        DriverKind::Near => keys.near(file).await.ok()?.public_key,
        DriverKind::CometBft => Some(keys.cometbft(file).await.ok()?.pub_key.value),
        DriverKind::Generic => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cluster: &str) -> KeyName {
        let prefixes = vec![Prefix::File(format!("{KEY_IN_USE}1.2/")), Prefix::of_public("ed25519:P")];
        KeyName { file: "keys/a.json".to_owned(), prefixes, cluster: cluster.to_owned() }
    }

    #[test]
    fn a_coordinator_of_another_cluster_with_the_same_key_is_found_by_its_name_alone() {
        let table = "Num RefCount Protocol Flags Type St Inode Path\n\
                     0: 2 0 10000 1 1 7 /run/x/admin.sock\n\
                     0: 2 0 10000 1 1 8 @baton-key/1.3/5/other\n\
                     0: 2 0 10000 1 1 9 @baton-key/1.2/6/mine\n";
        assert_eq!(key("mine").told_by(table), None, "another member of this cluster, and another key");
        let told = key("yours").told_by(table).expect("found");
        assert!(
            told.starts_with("validator key keys/a.json") && told.contains("baton (pid 6) of cluster mine:"),
            "{told}"
        );
    }

    #[test]
    fn a_copy_of_the_key_in_another_file_is_found_by_its_public_half() {
        let of = |half| format!("0: 2 0 10000 1 1 9 @{}6/mine\n", Prefix::of_public(half).text());
        assert_eq!(key("yours").told_by(&of("ed25519:Q")), None, "another key");
        assert_eq!(key("mine").told_by(&of("ed25519:P")), None, "another member of this cluster");
        for written in ["ed25519:P", "P"] {
            let told = key("yours").told_by(&of(written)).expect("found");
            assert!(told.starts_with("a copy of validator key keys/a.json") && told.contains("(pid 6)"), "{told}");
        }
    }

    #[test]
    fn a_long_name_of_a_cluster_is_its_own() {
        let long = key(&"c".repeat(120));
        for prefix in &long.prefixes {
            let mut name = format!("{}77/{}", prefix.text(), long.cluster);
            name.truncate(NAME_MAX);
            assert_eq!(long.told_by(&format!("0: 2 0 10000 1 1 9 @{name}\n")), None);
        }
    }
}
