//! The chain drivers against fake nodes and real answers: `contract.rs` holds for all of them, then one file a
//! driver for what is its own.

mod cometbft;
mod cometbft_signer;
mod contract;
mod examples;
mod generic;
mod near;
mod places;
mod real_cometbft;
mod subjects;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use baton::base::guard_frame::LinkSpec;
use baton::base::ids::SignMark;
use baton::base::time::WallTime;
use baton::config::{Chain, ChainLog, DriverKind, NearAddrs, OnHalt, Pointers, Probe, ProbeTarget};
use baton::host::chain::{Activation, Driver, Health, KeyReader, KeyState, ProbeError, SignFloor};

use crate::kit::fake_node::{Answer, FakeNode};

/// Of a probe in these tests, and what a bounded answer may take beyond it on a busy machine.
const TIMEOUT: Duration = Duration::from_millis(300);
const SLACK: Duration = Duration::from_secs(3);

fn chain(driver: DriverKind, home: &Path, target: ProbeTarget) -> Chain {
    Chain {
        signer: None,
        driver,
        home: home.to_owned(),
        command: vec!["sh".into(), "-c".into(), "exec sleep 60".into()],
        env: BTreeMap::from([("BATON_TEST".into(), "yes".into())]),
        log: Some(ChainLog::at(home.join("node.log"))),
        stop_timeout: Duration::from_secs(1),
        clock_skew: Duration::from_millis(10),
        on_halt: OnHalt::Wait,
        halt_after: Duration::from_secs(30),
        keys_on_tmpfs: false,
        links: Vec::new(),
        activation: Activation::Restart,
        probe: Probe { target, every: Duration::from_secs(1), timeout: TIMEOUT, failures: 3, min_peers: None },
        last_signed: None,
        near_addrs: None,
        upgrade: None,
    }
}

fn http(url: String, pointers: Pointers) -> ProbeTarget {
    ProbeTarget::Http { url, pointers }
}

fn link(link: PathBuf, validating: PathBuf, standby: Option<PathBuf>) -> LinkSpec {
    LinkSpec { link, validating, standby }
}

fn at(pointer: &str) -> Option<String> {
    Some(pointer.to_owned())
}

fn keys() -> KeyReader {
    KeyReader::new(env!("CARGO_BIN_EXE_baton-guard"))
}

fn driver(chain: &Chain, state_dir: &Path) -> Driver {
    Driver::new(chain, state_dir, keys()).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(chain: &Chain) -> String {
    match Driver::new(chain, &chain.home, keys()) {
        Ok(_) => panic!("accepted: {chain:?}"),
        Err(error) => error.to_string(),
    }
}

fn health(height: u64, head_time: Option<WallTime>) -> Health {
    Health {
        approved: 0,
        synced: true,
        height,
        head_time,
        peers: None,
        key: KeyState::Untold,
        latency: Duration::ZERO,
        version: String::new(),
    }
}

fn seconds(seconds: u64) -> WallTime {
    WallTime::from_nanos(seconds * 1_000_000_000)
}

#[test]
fn a_driver_is_shared_between_tasks() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Driver>();
}
