//! A host whose chain node is a script, below a cosmovisor layout.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use baton::base::chain_node::Activation;
use baton::base::guard_frame::LinkSpec;
use baton::base::ids::UpgradeName;
use baton::config::{self, Backup, Chain, ChainLog, DriverKind, OnHalt, Probe, ProbeTarget};
use baton::host::effects::Planned;
use baton::host::upgrade::Upgrades;

use crate::kit::host as host_kit;

/// Tells which binary it is, and ends when it is asked to halt, once it has said for what.
const NODE: &str = r#"
[ "$1" = run ] || exit 1
echo "start $FOLDER" >> "$2/events"
while :; do
    if [ -e "$2/halt" ]; then mv "$2/halt" "$2/data/upgrade-info.json"; exit 1; fi
    sleep 0.02
done
"#;
const PROBE: &str = r#"printf '{"height":%s,"head_time":%s}' "$(cat "$1/height")" "$(($(date +%s) + 5))""#;

pub struct Host {
    // Dropped in this order: first all that runs, then the files.
    host: host_kit::Host,
    home: PathBuf,
    _dir: tempfile::TempDir,
}

impl Deref for Host {
    type Target = host_kit::Host;

    fn deref(&self) -> &host_kit::Host {
        &self.host
    }
}

impl DerefMut for Host {
    fn deref_mut(&mut self) -> &mut host_kit::Host {
        &mut self.host
    }
}

pub fn upgrade(name: &str) -> UpgradeName {
    UpgradeName::new(name).expect("a name")
}

impl Host {
    /// Nothing runs but the guard; what the core asks for is not done.
    pub async fn new(change: impl FnOnce(&mut config::Upgrade)) -> Host {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().canonicalize().expect("a path");
        std::fs::create_dir(home.join("data")).expect("data");
        host_kit::write_key(&home.join("key.json"), "key");
        std::fs::write(home.join("height"), "10").expect("a height");
        put(&home, "genesis", "");
        let mut settings = config::Upgrade::at(&home, "noded");
        (settings.poll, settings.backup) = (Duration::from_millis(20), Backup::None);
        change(&mut settings);
        let chain = chain(&home, &settings);
        let host = host_kit::Host::start(&home, &chain, Some(Upgrades::new(settings))).await;
        Host { host, home, _dir: dir }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.home.join(below)
    }

    pub fn put(&self, folder: &str) {
        put(&self.home, folder, "");
    }

    pub fn put_with(&self, folder: &str, first: &str) {
        put(&self.home, folder, first);
    }

    /// It is this host's turn in a plan.
    pub fn follow(&self, name: &str) {
        self.effects.follow_plan(Some(Planned { name: upgrade(name), source: None, back: false, now: true }));
    }

    /// The chain node writes what it wants, and ends.
    pub fn halt_for(&self, name: &str) {
        self.write_whole("halt", &format!(r#"{{"name":"{name}","height":11,"info":""}}"#));
    }

    pub fn ask(&self, name: &str, height: u64) {
        self.write_whole("data/upgrade-info.json", &format!(r#"{{"name":"{name}","height":{height},"info":""}}"#));
    }

    pub fn show_height(&self, height: u64) {
        self.write_whole("height", &height.to_string());
    }

    fn write_whole(&self, below: &str, text: &str) {
        std::fs::write(self.path("written"), text).expect("written");
        std::fs::rename(self.path("written"), self.path(below)).expect("renamed");
    }

    pub async fn event(&self, what: &str) {
        self.until(what, |host| host.events().iter().any(|line| line == what)).await;
    }
}

/// By another process: a file that this one has open for writing goes into whatever another test starts at that moment,
/// and cannot be run until that has begun.
fn put(home: &Path, folder: &str, first: &str) {
    let path = home.join("cosmovisor").join(folder).join("bin/noded");
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    let text = format!("#!/bin/sh\nFOLDER={folder}\n{first}\n{NODE}");
    let write = r#"printf %s "$1" > "$2.new" && chmod 755 "$2.new" && mv "$2.new" "$2""#;
    let written = Command::new("sh").args(["-c", write, "sh", &text]).arg(&path).status().expect("it runs");
    assert!(written.success(), "{}: {written}", path.display());
}

fn chain(home: &Path, upgrade: &config::Upgrade) -> Chain {
    let home_text = home.to_str().expect("UTF-8").to_owned();
    Chain {
        signer: None,
        driver: DriverKind::Generic,
        command: ["noded", "run", &home_text].map(String::from).to_vec(),
        env: BTreeMap::new(),
        log: Some(ChainLog::at(home.join("node.log"))),
        stop_timeout: Duration::from_secs(2),
        clock_skew: Duration::from_millis(10),
        on_halt: OnHalt::Wait,
        halt_after: Duration::from_secs(30),
        keys_on_tmpfs: false,
        links: vec![LinkSpec { link: home.join("linked.json"), validating: home.join("key.json"), standby: None }],
        activation: Activation::Restart,
        probe: Probe {
            target: ProbeTarget::Exec { command: ["sh", "-c", PROBE, "sh", &home_text].map(String::from).to_vec() },
            every: Duration::from_millis(50),
            timeout: Duration::from_secs(20),
            failures: 1000,
            min_peers: None,
        },
        last_signed: None,
        upgrade: Some(upgrade.clone()),
        near_addrs: None,
        home: home.to_owned(),
    }
}
