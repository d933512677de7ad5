//! Records, from the step of a core to the replay: what is kept, what may be lost, and what a replay finds.

mod timeline;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use baton::base::ids::{Epoch, Role};
use baton::base::signing::Custody;
use baton::base::time::{BootTime, WallTime};
use baton::base::timing::Timing;
use baton::core::{Core, Event, Memory, Settings};
use baton::core_handle::SharedCore;
use baton::record::{Entry, Piece, Pieces, RecordError, Recorder, Replay, anonymous, encode, replay, segments, within};

const SOON: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;
/// Decisions in one call of `live`.
const LIVED: u64 = 11;

fn core() -> Core {
    let settings = Settings {
        me: "host-a".into(),
        role: Role::Validator,
        priorities: [("host-a", 100), ("host-b", 90), ("host-c", 0)].map(|(id, priority)| (id.into(), priority)).into(),
        timing: Timing::LAN,
        unstated_lease: None,
        failback: false,
        clock_skew: Duration::from_millis(200),
        node_refuses: false,
        probe_failures_max: 3,
        min_peers: None,
        head_still_max: Duration::from_secs(60),
        activation_max: Duration::from_secs(60),
        stop_timeout: Duration::from_secs(60),
        settle_max: None,
        sees_key_on_chain: false,
        custody: Custody::Links,
    };
    Core::new(settings, Memory::fresh(), BootTime::now())
}

fn recorded(dir: &Path, bytes_max: u64) -> SharedCore {
    SharedCore::new(core(), Recorder::start(dir.to_path_buf(), bytes_max, "host-a".into())).0
}

/// A term that is led and lost again, with a probe that fails in between.
fn live(core: &SharedCore, term: u64) {
    core.step(Event::Voted { term });
    core.step(Event::Led { term });
    core.step(Event::Acked { from: "host-b".into(), term, sent_at: BootTime::now(), promised: None });
    core.step(Event::ProbeFailed { reason: "connect 10.0.0.7:26657, /srv/chain/node.sock: refused".into() });
    core.step(Event::GuardArmed { epoch: Epoch(1), deadline: BootTime::now() + Duration::from_secs(1) });
    core.step(Event::LeadLost);
    assert!(core.may_campaign().is_err(), "nothing has proven that no chain node of this host signs");
    core.step(Event::GuardGone { node_proven_dead: true });
    core.may_vote(&"host-b".into()).expect("nobody has its promise");
    core.step(Event::Accepted {
        leader: "host-b".into(),
        term: term + 1,
        arrived_at: BootTime::now(),
        promise: Duration::from_secs(1),
    });
    assert!(core.may_vote(&"host-c".into()).is_err(), "promised to host-b");
}

fn read(dir: &Path) -> Vec<u8> {
    let segments = segments(dir).expect("readable");
    segments.iter().flat_map(|segment| fs::read(&segment.path).expect("readable")).collect()
}

fn pieces(bytes: &[u8]) -> Vec<Piece> {
    Pieces::read(bytes).expect("a record").collect()
}

fn replayed(bytes: &[u8]) -> Replay {
    replay(pieces(bytes))
}

fn story(replay: &Replay) -> String {
    replay.story.iter().map(|told| format!("{}\n", told.text)).collect()
}

/// What a coordinator leaves that has lived and ended.
fn a_record(dir: &Path) -> Vec<u8> {
    let core = recorded(dir, MIB);
    live(&core, 1);
    live(&core, 5);
    core.close_record();
    read(dir)
}

#[test]
fn what_was_recorded_replays_without_a_difference_and_tells_what_happened() {
    let dir = tempfile::tempdir().expect("a directory");
    let replay = replayed(&a_record(dir.path()));
    assert_eq!((replay.replayed, replay.passed_over, replay.lost), (2 * LIVED, 0, 0), "{replay:?}");
    assert_eq!((replay.differences.len(), replay.unreadable.len()), (0, 0), "{replay:?}");
    let story = story(&replay);
    for told in [
        "host-a was started",
        "leads term 1",
        "a probe of the chain node failed: connect 10.0.0.7:26657",
        "the guard is armed under epoch 1",
        "follows host-b, which leads term 2",
        "host-a is about to campaign: refused by rule (c): own chain node is not proven",
        "the guard is gone; its chain node is proven gone",
        "host-b asks for a vote, or is to get one: the gate lets it",
        "host-c asks for a vote, or is to get one: refused by rule (b): promised to host-b",
    ] {
        assert!(story.contains(told), "{told:?} is missing:\n{story}");
    }
}

#[test]
fn a_coordinator_that_is_killed_leaves_its_record_up_to_the_last_second() {
    let dir = tempfile::tempdir().expect("a directory");
    let core = recorded(dir.path(), MIB);
    live(&core, 1);
    // Nothing is closed: what is in the file is in the kernel's hands.
    let since = Instant::now();
    while read(dir.path()).is_empty() || replayed(&read(dir.path())).replayed < LIVED {
        assert!(since.elapsed() < SOON, "{:?}", segments(dir.path()));
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(core);
}

#[test]
fn a_record_keeps_its_bound_and_what_is_left_replays() {
    let dir = tempfile::tempdir().expect("a directory");
    let long = "a".repeat(20_000);
    for start in 0..3 {
        let core = recorded(dir.path(), MIB);
        for term in 0..100 {
            core.step(Event::ProbeFailed { reason: long.clone() });
            core.step(Event::Voted { term: start * 1000 + term });
            // The writer has to see each: what waits for it has a bound of its own.
            if term % 20 == 0 {
                let (since, before) = (Instant::now(), segments(dir.path()).expect("readable"));
                core.step(Event::Tick);
                while segments(dir.path()).expect("readable") == before {
                    assert!(since.elapsed() < SOON, "nothing is written: {before:?}");
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        core.close_record();
    }
    let bytes: u64 = segments(dir.path()).expect("readable").iter().map(|segment| segment.bytes).sum();
    // One flush may be longer than a segment, and than several.
    assert!(segments(dir.path()).expect("readable").len() >= 2);
    assert!(bytes > MIB / 4 && bytes < 2 * MIB, "{bytes} bytes");
    let replay = replayed(&read(dir.path()));
    assert_eq!((replay.differences.len(), replay.passed_over, replay.lost), (0, 0, 0), "{:?}", replay.differences);
    assert!(replay.replayed > 10, "{}", replay.replayed);
}

#[test]
fn nobody_waits_for_a_record_that_cannot_be_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("a-file");
    fs::write(&file, "").expect("written");
    let core = recorded(&file.join("record"), MIB);
    for term in 0..10_000 {
        core.step(Event::Voted { term });
    }
    core.close_record();
    assert_eq!(segments(dir.path()).expect("readable"), []);
}

#[test]
fn a_record_that_was_cut_off_or_damaged_replays_around_the_damage() {
    let (first, second) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (mut damaged, whole) = (a_record(first.path()), a_record(second.path()));
    damaged.truncate(damaged.len() - 3);
    let cut = replayed(&[damaged.as_slice(), &whole].concat());
    assert_eq!((cut.replayed, cut.unreadable.len(), cut.differences.len()), (4 * LIVED - 1, 1, 0), "{cut:?}");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let flipped = replayed(&[damaged.as_slice(), &whole].concat());
    assert!(flipped.replayed > 2 * LIVED && flipped.replayed < 4 * LIVED - 1, "{flipped:?}");
    assert_eq!((flipped.unreadable.len(), flipped.differences.len()), (1, 0), "{flipped:?}");
}

#[test]
fn another_decision_is_a_difference() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut pieces = pieces(&a_record(dir.path()));
    let steps = pieces.iter_mut().filter_map(|piece| match piece {
        Piece::Entry(Entry::Step { answer, .. }) => Some(answer),
        _ => None,
    });
    steps.last().expect("a step")[0] ^= 1;
    let asked = pieces.iter_mut().rev().find_map(|piece| match piece {
        Piece::Entry(Entry::Asked { refused, .. }) => Some(refused),
        _ => None,
    });
    *asked.expect("a question") = None;
    let differences = replay(pieces).differences;
    let texts: Vec<&str> = differences.iter().map(|difference| difference.text.as_str()).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].contains("on Accepted"), "{texts:?}");
    assert!(texts[1].contains("the recorded gate said \"yes\" and this one says \"promised to host-b"), "{texts:?}");
}

#[test]
fn a_record_of_another_format_is_refused_with_the_version_that_can_read_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut record = a_record(dir.path());
    record[8] = 9;
    let refused = Pieces::read(&record).map(drop).expect_err("refused");
    assert_eq!(refused, RecordError::OtherFormat { format: 9, version: env!("CARGO_PKG_VERSION").to_owned() });
    assert_eq!(Pieces::read(b"a text").map(drop), Err(RecordError::NoRecord));
}

#[test]
fn a_part_of_a_record_begins_where_it_can_be_replayed() {
    let dir = tempfile::tempdir().expect("a directory");
    let core = recorded(dir.path(), MIB);
    live(&core, 1);
    let between = WallTime::now();
    core.close_record();
    let core = recorded(dir.path(), MIB);
    live(&core, 5);
    core.close_record();
    let bytes = read(dir.path());
    let part = |since, until| replay(within(Pieces::read(&bytes).expect("a record"), since, until));
    let (start, end) = (WallTime::default(), WallTime::from_nanos(u64::MAX));
    assert_eq!(
        [(start, end), (between, end), (start, between)].map(|(a, b)| part(a, b).replayed),
        [2 * LIVED, LIVED, LIVED]
    );
    assert_eq!(part(end, end).replayed, 0);
}

#[test]
fn an_anonymous_record_names_nobody_and_replays_as_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut pieces = pieces(&a_record(dir.path()));
    let whole = replay(pieces.clone());
    let bytes = encode(&anonymous(pieces.clone()).expect("rewritten"));
    let text = String::from_utf8_lossy(&bytes);
    for told in ["host-", "10.0.0.7", "26657", "/srv", "node.sock"] {
        assert!(!text.contains(told), "{told} is still there");
    }
    let bare = replayed(&bytes);
    assert_eq!((bare.replayed, bare.differences.len()), (whole.replayed, 0), "{:?}", bare.differences);
    let names = |story: String| ["1", "2", "3"].map(|n| story.matches(&format!("member-{n}")).count());
    assert!(names(story(&bare)).iter().all(|named| *named > 0), "{}", story(&bare));
    assert!(story(&bare).contains("connect ADDRESS, PATH: refused"), "{}", story(&bare));
    // What differed still does.
    let step = pieces.iter_mut().rev().find_map(|piece| match piece {
        Piece::Entry(Entry::Step { answer, .. }) => Some(answer),
        _ => None,
    });
    step.expect("a step")[0] ^= 1;
    assert_eq!(replayed(&encode(&anonymous(pieces).expect("rewritten"))).differences.len(), 1);
}

/// Written by a member of a local network through a failover and a handover. When it cannot be read any more, what an
/// entry is made of has changed: raise `FORMAT` and make a new one. When it only differs, a decision has changed: make a
/// new one if that was meant.
#[test]
fn the_sample_is_read_and_replays() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/sample.rec");
    let replay = replayed(&fs::read(&file).expect("the sample"));
    assert!(replay.unreadable.is_empty(), "{:?}", replay.unreadable);
    assert!(replay.differences.is_empty(), "{:?}", replay.differences);
    assert!(replay.replayed > 100, "{}", replay.replayed);
    let story = story(&replay);
    for told in ["Validating/Active", "the log has Claim", "the log has Release", "proof: the chain node"] {
        assert!(story.contains(told), "{told:?} is missing:\n{story}");
    }
}
