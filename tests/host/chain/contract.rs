//! The contract of a chain driver, tried on every driver beside a fake node of its chain. What the
//! suite has to know of a chain stands in `subjects.rs`.

use std::fs;

use serde_json::{Value, json};

use super::subjects::{ALL, Says, Subject};
use super::*;

const READY: Says = Says { syncing: false, height: 50, head_time: 1_000, key: KeyState::Absent };

/// A host with its driver, and the node that the driver asks.
struct Host {
    driver: Driver,
    chain: Chain,
    node: FakeNode,
    subject: &'static dyn Subject,
    folder: tempfile::TempDir,
}

impl Host {
    async fn of(subject: &'static dyn Subject) -> Host {
        let node = FakeNode::start(subject.path(), Answer::Body(subject.answer(READY).to_string())).await;
        let folder = tempfile::tempdir().expect("folder");
        let home = folder.path().join("home");
        for folder in [&home, &folder.path().join("state")] {
            fs::create_dir(folder).expect("folder");
        }
        subject.lay(&home);
        let chain = subject.chain(&home, node.url(subject.path()));
        let driver = driver(&chain, &folder.path().join("state"));
        Host { driver, chain, node, subject, folder }
    }

    fn node_says(&self, says: Says) {
        self.answers(self.subject.answer(says));
    }

    fn answers(&self, answer: Value) {
        self.node.answer(self.subject.path(), Answer::Body(answer.to_string()));
    }

    async fn probe(&self) -> Health {
        self.sound(self.driver.probe().await)
    }

    fn sound<T, E: std::fmt::Display>(&self, result: Result<T, E>) -> T {
        result.unwrap_or_else(|error| panic!("{}: {error}", self.subject.name()))
    }

    /// Writes what the node would have written; false for a chain that records nothing.
    fn node_signs(&self, mark: SignMark) -> bool {
        let Some(record) = self.subject.record() else { return false };
        fs::write(self.chain.home.join(record), self.subject.signed(mark).to_string()).expect(record);
        true
    }

    async fn last_signed(&self) -> Option<SignMark> {
        self.sound(self.driver.last_signed().await)
    }
}

fn mark(height: u64, round: u32, step: u32) -> SignMark {
    SignMark::at_step(height, round, step)
}

#[tokio::test]
async fn a_probe_tells_exactly_what_the_node_says() {
    for subject in ALL {
        let host = Host::of(subject).await;
        for syncing in [false, true] {
            for (height, head_time) in [(0, 0), (1, 86_400), (77, 1_795_218_367)] {
                host.node_says(Says { syncing, height, head_time, ..READY });
                let seen = host.probe().await;
                let (name, time) = (subject.name(), seconds(head_time));
                assert_eq!((seen.synced, seen.height, seen.head_time), (!syncing, height, Some(time)), "{name}");
                assert!(seen.latency > Duration::ZERO && seen.latency <= TIMEOUT + SLACK, "{name}: {seen:?}");
            }
        }
    }
}

#[tokio::test]
async fn active_and_keyless_are_proven_only_when_the_node_says_so() {
    for subject in ALL {
        let host = Host::of(subject).await;
        assert_eq!(host.driver.proves_key_by_probe(), subject.tells_key(), "{}", subject.name());
        for key in [KeyState::Loaded, KeyState::Absent, KeyState::Untold] {
            host.node_says(Says { key, ..READY });
            let health = host.probe().await;
            let proven = (host.driver.proves_active(&health), host.driver.proves_keyless(&health));
            let expected = match (subject.tells_key(), key) {
                // It has the key or has none: an answer after the activation, but never an answer before its end.
                (false, _) => (true, false),
                (true, KeyState::Loaded) => (true, false),
                (true, KeyState::Absent) => (false, true),
                (true, KeyState::Untold) => (false, false),
            };
            assert_eq!(proven, expected, "{}: {key:?} {health:?}", subject.name());
        }
    }
}

#[tokio::test]
async fn a_node_that_is_gone_gives_no_answer_and_no_older_one() {
    for subject in ALL {
        let mut host = Host::of(subject).await;
        host.probe().await;
        host.node.stop().await;
        for _ in 0..3 {
            let error = host.driver.probe().await.expect_err(subject.name());
            assert!(matches!(error, ProbeError::Unreachable { .. }), "{}: {error:?}", subject.name());
        }
    }
}

#[tokio::test]
async fn a_bad_answer_costs_one_error_of_its_kind_within_the_bound() {
    let body = |text: &str| Answer::Body(text.to_owned());
    let cases = [
        ("garbage", body("<html>"), "is not JSON"),
        ("nothing", body(""), "(empty)"),
        ("another shape", body("[1, 2]"), ""),
        ("a null", body("null"), ""),
        ("an RPC error", body(r#"{"id": 0, "error": {"message": "warming up"}}"#), "warming up"),
        ("an error", Answer::Status(500, "{\"error\": \"out of order\"}".into()), "500"),
        ("a huge answer", Answer::Huge, "longer than"),
        ("no answer", Answer::Hang, "no answer within 300ms"),
        ("half an answer", Answer::HangMidway, "no answer within 300ms"),
        ("a closed connection", Answer::CloseAtOnce, ""),
    ];
    for subject in ALL {
        let host = Host::of(subject).await;
        for (what, answer, expected) in &cases {
            host.node.answer(subject.path(), answer.clone());
            let asked_at = Instant::now();
            let error = host.driver.probe().await.expect_err(what);
            let took = asked_at.elapsed();
            let (name, text) = (subject.name(), error.to_string());
            assert!(text.contains(expected) && text.contains(&host.node.addr), "{name}, {what}: {text}");
            assert!(!text.contains('\n'), "{name}, {what}: {text:?}");
            assert!(took < TIMEOUT + SLACK, "{name}, {what}, took {took:?}");
            let kind_fits = match answer {
                Answer::Hang | Answer::HangMidway => matches!(error, ProbeError::Timeout { .. }),
                Answer::CloseAtOnce => matches!(error, ProbeError::Unreachable { .. }),
                Answer::Body(_) | Answer::Status(..) | Answer::Huge => {
                    matches!(error, ProbeError::BadAnswer { .. })
                }
                Answer::Rpc(_) | Answer::RpcThenHang(_) | Answer::BodyThenClose(_) => panic!("{what} is no bad answer"),
            };
            assert!(kind_fits, "{name}, {what}: {error:?}");
        }
        host.node_says(READY);
        assert_eq!(host.probe().await.height, 50, "{}: after all that a good answer counts", subject.name());
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_an_error() {
    for subject in ALL {
        let host = Host::of(subject).await;
        let whole = subject.answer(READY).to_string();
        for length in (0..whole.len()).step_by(17) {
            let part = whole.get(..length).expect("answers are ASCII");
            host.node.answer(subject.path(), Answer::Body(part.to_owned()));
            let error = host.driver.probe().await.expect_err(part);
            assert!(matches!(error, ProbeError::BadAnswer { .. }), "{}: {error:?}", subject.name());
        }
    }
}

#[tokio::test]
async fn no_garbled_value_makes_a_panic() {
    let garbage =
        [json!(null), json!(true), json!(-1), json!(1e300), json!(u64::MAX), json!("é\u{0}"), json!([]), json!({})];
    for subject in ALL {
        let host = Host::of(subject).await;
        let good = subject.answer(READY);
        let mut refused = 0;
        for path in places(&good, String::new()) {
            for value in &garbage {
                let mut answer = good.clone();
                *answer.pointer_mut(&path).expect("a place in it") = value.clone();
                host.answers(answer);
                // A panic in the driver would be one here.
                match host.driver.probe().await {
                    Ok(_) => {}
                    Err(ProbeError::BadAnswer { .. }) => refused += 1,
                    Err(other) => panic!("{}: {path} = {value}: {other:?}", subject.name()),
                }
            }
        }
        assert!(refused > 10, "{}: only {refused} garbled answers were refused", subject.name());
    }
}

/// The pointers to every value in `value`, itself included.
fn places(value: &Value, here: String) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, field)| (name.clone(), field)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    let below = children.into_iter().flat_map(|(name, child)| places(child, format!("{here}/{name}")));
    std::iter::once(here.clone()).chain(below.collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn a_floor_is_met_by_a_later_head_or_by_a_node_that_refuses_by_itself() {
    let head = health(10, Some(seconds(100)));
    let timeless = health(10, None);
    // floor, health, met by the head, met by a node that refuses below a mark
    let table = [
        (SignFloor::None, Some(&timeless), true, true),
        (SignFloor::None, None, true, true),
        (SignFloor::Mark(mark(9, 0, 0)), Some(&head), true, true),
        (SignFloor::Mark(mark(10, 2, 3)), Some(&head), true, true),
        (SignFloor::Mark(mark(11, 0, 0)), Some(&head), false, true),
        (SignFloor::Mark(mark(9, 0, 0)), None, false, true),
        (SignFloor::BlockAfter(seconds(99)), Some(&head), true, true),
        (SignFloor::BlockAfter(seconds(100)), Some(&head), false, false),
        (SignFloor::BlockAfter(seconds(1)), Some(&timeless), false, false),
        (SignFloor::BlockAfter(seconds(1)), None, false, false),
    ];
    for subject in ALL {
        let host = Host::of(subject).await;
        assert_eq!(host.driver.enforces_floor(), subject.enforces_floor(), "{}", subject.name());
        for (floor, settled, by_head, by_node) in &table {
            let met = if subject.enforces_floor() { *by_node } else { *by_head };
            let context = format!("{}: {floor:?} {settled:?}", subject.name());
            if let Some(health) = settled {
                assert_eq!(host.driver.floor_met(floor, health), met, "{context}");
            }
            let prepared = host.driver.prepare_validator(floor, *settled).await;
            assert_eq!(prepared.is_ok(), met, "{context}: {prepared:?}");
            if let Err(error) = prepared {
                assert!(error.to_string().contains("not met"), "{context}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn what_the_node_signed_is_told_after_its_end_and_never_lowered() {
    for subject in ALL {
        let host = Host::of(subject).await;
        assert_eq!(host.last_signed().await, None, "{}: before anything was signed", subject.name());
        let mut highest = None;
        for next in [mark(7, 0, 1), mark(7, 1, 3), mark(60, 0, 2)] {
            if host.node_signs(next) {
                highest = Some(next);
            }
            for _ in 0..2 {
                assert_eq!(host.driver.after_stop().await, Ok(()), "{}", subject.name());
                assert_eq!(host.last_signed().await, highest, "{}", subject.name());
            }
            // Floors below it, as an exact mark and as a settled block, change nothing.
            let settled = health(next.height - 1, Some(seconds(100)));
            for floor in [SignFloor::None, SignFloor::Mark(mark(1, 0, 0)), SignFloor::BlockAfter(seconds(99))] {
                host.sound(host.driver.prepare_validator(&floor, Some(&settled)).await);
                assert_eq!(host.last_signed().await, highest, "{} after {floor:?}", subject.name());
            }
        }
    }
}

#[tokio::test]
async fn a_floor_that_the_node_is_to_enforce_only_rises_also_over_a_restart() {
    for subject in ALL.into_iter().filter(|subject| subject.enforces_floor()) {
        let host = Host::of(subject).await;
        let mut highest = SignMark::default();
        for floor in [mark(5, 0, 3), mark(5, 0, 2), mark(9, 2, 0), mark(8, 9, 3), SignMark::default(), mark(9, 2, 1)] {
            let again = driver(&host.chain, &host.folder.path().join("state"));
            host.sound(again.prepare_validator(&SignFloor::Mark(floor), None).await);
            host.sound(again.after_stop().await);
            highest = highest.with(floor);
            assert_eq!(host.last_signed().await, Some(highest), "{} after {floor:?}", subject.name());
        }
    }
}

#[tokio::test]
async fn a_garbled_record_is_an_error_that_names_it_and_is_left_alone() {
    for subject in ALL {
        let Some(record) = subject.record() else { continue };
        let host = Host::of(subject).await;
        let file = host.chain.home.join(record);
        for garbage in ["", "{", "[]", "null", r#"{"height": -1, "round": 0, "step": 0}"#, r#"{"height": "x"}"#] {
            fs::write(&file, garbage).expect(record);
            let error = host.driver.last_signed().await.expect_err(garbage).to_string();
            assert!(error.contains(record) && !error.contains('\n'), "{}: {error}", subject.name());
            if subject.enforces_floor() {
                let prepared = host.driver.prepare_validator(&SignFloor::Mark(mark(9, 0, 0)), None).await;
                assert!(prepared.is_err(), "{}: {garbage:?}", subject.name());
            }
            assert_eq!(fs::read_to_string(&file).expect(record), garbage, "{}", subject.name());
        }
    }
}

#[tokio::test]
async fn the_links_are_absolute_below_the_home_and_lend_no_standby_the_key() {
    for subject in ALL {
        let host = Host::of(subject).await;
        let links = host.driver.links();
        assert!(!links.is_empty(), "{}", subject.name());
        for spec in links {
            let name = subject.name();
            assert!(spec.link.starts_with(&host.chain.home) && spec.validating.is_absolute(), "{name}: {spec:?}");
            assert_ne!(spec.standby.as_ref(), Some(&spec.validating), "{name}");
        }
    }
}

#[tokio::test]
async fn the_node_runs_in_its_home_with_the_configured_argv_environment_and_log() {
    for subject in ALL {
        let host = Host::of(subject).await;
        let spec = host.driver.node_spec();
        let log = host.chain.log.as_ref().map(|log| &log.file);
        let expected = (&host.chain.command, &host.chain.env, log, &host.chain.home);
        assert_eq!((&spec.argv, &spec.env, spec.log.as_ref(), &spec.cwd), expected, "{}", subject.name());
        assert_eq!(host.driver.activation(), &host.chain.activation, "{}", subject.name());
    }
}

#[tokio::test]
async fn a_check_can_be_repeated_and_finds_a_missing_program_or_home() {
    for subject in ALL {
        let host = Host::of(subject).await;
        let first = host.driver.check().await;
        assert!(first.is_ok(), "{}: {first:?}", subject.name());
        assert_eq!(host.driver.check().await, first, "{}", subject.name());
        let command = vec!["no-such-program-anywhere".to_owned()];
        let absent = Chain { command, ..host.chain.clone() };
        let error = driver(&absent, host.folder.path()).check().await.expect_err(subject.name()).to_string();
        assert!(error.contains("no-such-program-anywhere") && !error.contains('\n'), "{error}");
        fs::remove_dir_all(&host.chain.home).expect("home");
        let error = host.driver.check().await.expect_err(subject.name()).to_string();
        assert!(error.contains("not a directory") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn every_kind_of_driver_is_tried() {
    for kind in [DriverKind::Near, DriverKind::CometBft, DriverKind::Generic] {
        // A new kind makes this match incomplete: give it a page in `subjects.rs`.
        match kind {
            DriverKind::Near | DriverKind::CometBft | DriverKind::Generic => {}
        }
        let tried = ALL.iter().any(|subject| subject.chain(Path::new("/"), "http://h/".into()).driver == kind);
        assert!(tried, "no subject for {kind:?}");
    }
}
