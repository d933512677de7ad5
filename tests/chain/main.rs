//! The chain drivers against fake nodes and real answers, one file a driver.

mod cometbft;
mod fake_node;
mod generic;
mod near;
mod real_cometbft;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use baton::chain::{Activation, Driver, Health, KeyState, ProbeError, SignFloor};
use baton::config::{Chain, DriverKind, OnHalt, Pointers, Probe, ProbeTarget};
use baton::guard_frame::LinkSpec;
use baton::ids::SignMark;
use baton::time::WallTime;

use fake_node::{Answer, FakeNode};

/// Of a probe in these tests, and what a bounded answer may take beyond it on a busy machine.
const TIMEOUT: Duration = Duration::from_millis(300);
const SLACK: Duration = Duration::from_secs(3);

fn chain(driver: DriverKind, home: &Path, target: ProbeTarget) -> Chain {
    Chain {
        driver,
        home: home.to_owned(),
        command: vec!["sh".into(), "-c".into(), "exec sleep 60".into()],
        env: BTreeMap::from([("BATON_TEST".into(), "yes".into())]),
        log: Some(home.join("node.log")),
        stop_timeout: Duration::from_secs(1),
        clock_skew: Duration::from_millis(10),
        on_halt: OnHalt::Wait,
        halt_after: Duration::from_secs(30),
        keys_on_tmpfs: false,
        links: Vec::new(),
        activation: Activation::Restart,
        probe: Probe { target, every: Duration::from_secs(1), timeout: TIMEOUT, failures: 3, min_peers: None },
        last_signed: None,
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

fn driver(chain: &Chain, state_dir: &Path) -> Driver {
    Driver::new(chain, state_dir).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(chain: &Chain) -> String {
    match Driver::new(chain, &chain.home) {
        Ok(_) => panic!("accepted: {chain:?}"),
        Err(error) => error.to_string(),
    }
}

fn health(height: u64, head_time: Option<WallTime>) -> Health {
    Health {
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

/// What every HTTP probe makes of a server that misbehaves; `path` is the one that `driver` asks.
async fn a_bad_server_costs_an_error_within_the_bound(driver: &Driver, node: &FakeNode, path: &str) {
    let body = |text: &str| Answer::Body(text.to_owned());
    let cases = [
        ("garbage", body("<html>"), "is not JSON"),
        ("nothing", body(""), "(empty)"),
        ("another shape", body("[1, 2]"), "is missing"),
        ("an error", Answer::Status(500, "{\"error\": \"out of order\"}".into()), "500"),
        ("a huge answer", Answer::Huge, "longer than"),
        ("no answer", Answer::Hang, "no answer within 300ms"),
        ("half an answer", Answer::HangMidway, "no answer within 300ms"),
        ("a closed connection", Answer::CloseAtOnce, "GET:"),
    ];
    for (name, answer, expected) in cases {
        node.answer(path, answer);
        let asked_at = Instant::now();
        let error = driver.probe().await.expect_err(name);
        let took = asked_at.elapsed();
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains(path), "{name}: {text}");
        assert!(took < TIMEOUT + SLACK, "{name} took {took:?}");
        let kind_fits = match name {
            "no answer" | "half an answer" => matches!(error, ProbeError::Timeout { .. }),
            "a closed connection" => matches!(error, ProbeError::Unreachable { .. }),
            _ => matches!(error, ProbeError::BadAnswer { .. }),
        };
        assert!(kind_fits, "{name}: {error:?}");
    }
}

#[test]
fn the_floor_is_met_by_the_head_or_by_the_node_itself() {
    let home = tempfile::tempdir().expect("home");
    let url = "http://127.0.0.1:1/status".to_owned();
    let near = driver(&near::near_chain(home.path(), url.clone()), home.path());
    let generic = driver(&chain(DriverKind::Generic, home.path(), http(url.clone(), Pointers::default())), home.path());
    let cometbft = driver(&cometbft::cometbft_chain(home.path(), url), home.path());
    let mark = |height| SignFloor::Mark(SignMark::at_height(height));
    let head = health(10, Some(seconds(100)));
    let timeless = health(10, None);
    // floor, health, met by near and generic, met by cometbft
    let table = [
        (SignFloor::None, &timeless, true, true),
        (mark(9), &head, true, true),
        (mark(10), &head, true, true),
        (mark(11), &head, false, true),
        (SignFloor::BlockAfter(seconds(99)), &head, true, true),
        (SignFloor::BlockAfter(seconds(100)), &head, false, false),
        (SignFloor::BlockAfter(seconds(1)), &timeless, false, false),
    ];
    for (floor, health, by_head, by_node) in table {
        assert_eq!(near.floor_met(&floor, health), by_head, "near {floor:?} {health:?}");
        assert_eq!(generic.floor_met(&floor, health), by_head, "generic {floor:?} {health:?}");
        assert_eq!(cometbft.floor_met(&floor, health), by_node, "cometbft {floor:?} {health:?}");
    }
}

#[test]
fn a_driver_is_shared_between_tasks() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Driver>();
}
