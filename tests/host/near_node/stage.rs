//! A host with a fake neard.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton::base::chain_node::Activation;
use baton::base::guard_frame::LinkSpec;
use baton::config::{Chain, ChainLog, DriverKind, NearAddrs, OnHalt, Pointers, Probe, ProbeTarget};
use baton::core::tenure::Reason;
use baton::core::{Event, Stage};

use super::{fake_neard, host_kit, host_kit::SOON};
use crate::kit::program::free_addresses;

pub const CONFIG: &str =
    "{\n  \"tracked_shards_config\": \"AllShards\",\n  \"network\": { \"addr\": \"0.0.0.0:24567\" }\n}\n";

pub struct Host {
    // Dropped in this order: first all that runs, then the files.
    host: host_kit::Host,
    dir: tempfile::TempDir,
    /// Where its node listens and is probed.
    pub addr: String,
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

impl Host {
    /// Nothing runs but the guard; what the core asks for is not done.
    pub async fn new(activation: Activation) -> Host {
        Host::with(activation, |_| {}).await
    }

    /// As `new`, with another configuration.
    pub async fn with(activation: Activation, change: impl FnOnce(&mut Chain)) -> Host {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().canonicalize().expect("a path");
        let home = path.join("home");
        std::fs::create_dir(&home).expect("home");
        let keys = [
            ("shared.json", r#"{"account_id": "node3"}"#),
            ("validator_node.json", "validator"),
            ("voter_node.json", "voter"),
        ];
        for (name, key) in keys {
            host_kit::write_key(&path.join(name), key);
        }
        std::fs::write(home.join("config.json"), CONFIG).expect("config");
        let [addr] = free_addresses();
        let mut chain = chain(&path, &addr, activation);
        change(&mut chain);
        let host = host_kit::Host::start(&path, &chain, None).await;
        Host { host, dir, addr }
    }

    /// Its node follows the chain in the file `chain`, which stands still once no block came for `halt_after`.
    pub async fn following(file: &Path, on_halt: OnHalt, halt_after: Duration) -> Host {
        let file = file.to_str().expect("UTF-8").to_owned();
        Host::with(Activation::Signal(1), |chain| {
            chain.env.insert(fake_neard::CHAIN.to_owned(), file);
            (chain.on_halt, chain.halt_after) = (on_halt, halt_after);
        })
        .await
    }

    /// The core is obeyed, and leads with `b` ready to take over. Returns once its node signs.
    pub async fn holding(activation: Activation) -> Host {
        Host::holding_with(activation, |_| {}).await
    }

    /// As `holding`, with another configuration.
    pub async fn holding_with(activation: Activation, change: impl FnOnce(&mut Chain)) -> Host {
        let mut host = Host::with(activation, change).await;
        host.obey(true);
        host.until("active", |host| host.stage() == Some(Stage::Active)).await;
        host
    }

    pub fn home(&self, name: &str) -> PathBuf {
        self.dir.path().join("home").join(name)
    }

    /// Beside the home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().expect("a path").join(name)
    }

    /// Waits for an event that holds `what`; its place.
    pub async fn event(&self, from: usize, what: &str) -> usize {
        self.until(what, |host| host.event_after(from, what).is_some()).await;
        self.event_after(from, what).expect("just seen")
    }

    pub fn hand_over(&self) {
        self.core.step(Event::HandoverWanted {
            to: Some("b".into()),
            timeout: Duration::from_secs(60),
            reason: Reason::Operator,
        });
    }
}

fn chain(path: &Path, addr: &str, activation: Activation) -> Chain {
    let home = path.join("home");
    let me = std::env::current_exe().expect("this program").to_str().expect("UTF-8").to_owned();
    let link = |link: &str, validating: &str, standby: Option<&str>| LinkSpec {
        link: home.join(link),
        validating: path.join(validating),
        standby: standby.map(|standby| path.join(standby)),
    };
    let restarts = activation == Activation::Restart;
    Chain {
        signer: None,
        driver: DriverKind::Near,
        command: [&me, "--ignored", "--exact", "near_node::fake_neard_process", "--nocapture"]
            .map(String::from)
            .to_vec(),
        env: BTreeMap::from([(fake_neard::ADDR.to_owned(), addr.to_owned())]),
        log: Some(ChainLog::at(home.join("node.log"))),
        // Longer than a test waits: no node is killed but one that is not asked.
        stop_timeout: 2 * SOON,
        clock_skew: Duration::from_millis(10),
        on_halt: OnHalt::Wait,
        halt_after: Duration::from_secs(30),
        keys_on_tmpfs: false,
        links: vec![
            link("validator_key.json", "shared.json", None),
            link("node_key.json", "validator_node.json", Some("voter_node.json")),
        ],
        activation,
        probe: Probe {
            target: ProbeTarget::Http { url: format!("http://{addr}/status"), pointers: Pointers::default() },
            every: Duration::from_millis(50),
            timeout: Duration::from_secs(2),
            failures: 1000,
            min_peers: None,
        },
        last_signed: None,
        upgrade: None,
        near_addrs: restarts.then(|| NearAddrs {
            validating: "0.0.0.0:24567".parse().expect("an address"),
            standby: "0.0.0.0:24568".parse().expect("an address"),
        }),
        home,
    }
}
