//! The steps of moves, and a record up to a moment.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use baton::base::ids::Epoch;
use baton::base::time::WallTime;
use baton::record::{Entry, Piece, Pieces, Step, Timeline, encode, past, timeline_of};

const END: WallTime = WallTime::from_nanos(u64::MAX);

/// Of host-b: it takes the baton first, hands it to host-a, and takes it when that is lost.
fn sample() -> Vec<Piece> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/sample.rec");
    Pieces::read(&fs::read(&file).expect("the sample")).expect("a record").collect()
}

fn timelines(pieces: Vec<Piece>) -> Vec<Timeline> {
    past(pieces, END).timelines.moves().cloned().collect()
}

fn steps(timeline: &Timeline) -> Vec<Step> {
    timeline.moments.iter().map(|moment| moment.step).collect()
}

fn because(timeline: &Timeline, step: Step) -> &str {
    timeline.moments.iter().find(|moment| moment.step == step).map_or("", |moment| &moment.because)
}

fn between(timeline: &Timeline, from: Step, to: Step) -> Duration {
    let at = |step| timeline.at(step).expect("seen").boot;
    at(to).since(at(from))
}

#[test]
fn who_takes_the_baton_sees_every_step_of_a_failover() {
    use Step::{Active, Armed, Claimed, Detected, Elected, LastWord, Linked, Recorded, Settled};
    let moves = timelines(sample());
    let failover = &moves[2];
    assert_eq!((failover.epoch, failover.to.as_str(), failover.reason.as_str()), (Epoch(3), "host-b", "lease-lost"));
    assert_eq!(failover.from.as_ref().map(|from| from.as_str()), Some("host-a"));
    let all = [LastWord, Detected, Elected, Claimed, Armed, Settled, Linked, Active, Recorded];
    assert_eq!(steps(failover), all);
    assert!(failover.moments.is_sorted_by_key(|moment| moment.at.boot));
    assert_eq!(because(failover, Detected), "no leader is heard");
    assert_eq!(because(failover, Elected), "leads term 3");
    // Its promise ends a lease after the last word.
    let promise = between(failover, LastWord, Detected);
    assert!(promise > Duration::from_millis(900) && promise < Duration::from_millis(1500), "{promise:?}");
    assert!(between(failover, Armed, Settled) > Duration::from_millis(10), "it waits for a block");
    assert!(failover.is_over() && !failover.released);
}

#[test]
fn who_only_looks_on_sees_what_the_log_and_the_leaders_tell() {
    use Step::{Claimed, Detected, Elected, Recorded};
    let moves = timelines(sample());
    assert_eq!(moves.len(), 3);
    let handover = &moves[1];
    assert_eq!((handover.epoch, handover.to.as_str(), handover.reason.as_str()), (Epoch(2), "host-a", "operator"));
    assert_eq!(steps(handover), [Detected, Elected, Claimed, Recorded]);
    assert_eq!(because(handover, Detected), "host-b lets go: operator");
    assert!(handover.released);
    assert_eq!(moves[0].from, None, "the first move comes from nobody");
}

#[test]
fn a_gap_ends_what_was_seen_of_a_move_and_of_the_next_ones_beginning() {
    let mut pieces = sample();
    let claim = pieces.iter().position(|piece| is_claim_of(piece, 3)).expect("a claim");
    pieces.insert(claim, Piece::Entry(Entry::Gap { entries: 1 }));
    let moves = timelines(pieces);
    assert_eq!(moves.len(), 2, "nothing can be replayed after it");
    assert!(moves.iter().all(Timeline::is_over));
}

#[test]
fn an_epoch_is_found_across_the_segments_of_its_steps_the_newest_first() {
    let pieces = sample();
    let whole = timelines(pieces.clone());
    // Each segment but the first begins in the midst of the failover, with the core as it was.
    let claim = pieces.iter().position(|piece| is_claim_of(piece, 3)).expect("a claim");
    let head = pieces[0].clone();
    assert!(matches!(head, Piece::Head(_)), "{head:?}");
    for cut in [claim - 1, claim, claim + 1, claim + 3] {
        let core = core_before(&pieces, cut);
        let (older, newer) = pieces.split_at(cut);
        let newer = [&[head.clone(), core], newer].concat();
        let mut taken = 0;
        let segments = [newer, older.to_vec(), Vec::new()].into_iter().inspect(|_| taken += 1);
        let found = timeline_of(Epoch(3), segments.map(Ok::<_, Infallible>)).expect("readable");
        let (member, found) = found.expect("it is there");
        assert_eq!((member.as_str(), Some(&found)), ("host-b", whole.last()), "cut at {cut}");
        assert!(taken >= 2);
    }
    let none = timeline_of(Epoch(4), [Ok::<_, Infallible>(pieces)]).expect("readable");
    assert_eq!(none, None);
}

#[test]
fn a_record_up_to_a_moment_has_the_core_of_then() {
    let pieces = sample();
    let last = |until| {
        let past = past(pieces.clone(), until);
        let (core, now) = past.core().map(|(core, now)| (core.clone(), now)).expect("a core");
        assert!(now.wall <= until && past.next.is_none_or(|next| next > until), "{now:?} {:?}", past.next);
        assert_eq!(past.differ, 0);
        (core.epoch(), core.is_active())
    };
    let failover = timelines(pieces.clone()).pop().expect("a move");
    let active = failover.at(Step::Active).expect("seen").wall;
    assert_eq!(last(active), (Epoch(3), true));
    assert_eq!(last(active - Duration::from_nanos(1)), (Epoch(3), false));
    assert_eq!(last(failover.at(Step::LastWord).expect("seen").wall), (Epoch(2), false));
    let before = past(pieces.clone(), WallTime::default());
    assert!(before.core().is_none() && before.since.is_some() && before.next == before.since);
    // Another decision is counted, and followed.
    let mut pieces = Pieces::read(&encode(&pieces)).expect("a record").collect::<Vec<_>>();
    let answer = pieces.iter_mut().rev().find_map(|piece| match piece {
        Piece::Entry(Entry::Step { answer, .. }) => Some(answer),
        _ => None,
    });
    answer.expect("a step")[0] ^= 1;
    assert_eq!(past(pieces, END).differ, 1);
}

fn is_claim_of(piece: &Piece, epoch: u64) -> bool {
    let Piece::Entry(Entry::Step { event, .. }) = piece else { return false };
    format!("{event:?}").contains("Claimed { epoch: ")
        && format!("{event:?}").contains(&format!("Claim {{ epoch: Epoch({epoch})"))
}

fn core_before(pieces: &[Piece], cut: usize) -> Piece {
    let past = past(pieces[..cut].to_vec(), END);
    let (core, _) = past.core().expect("a core");
    Piece::Entry(Entry::Core(Box::new(Cow::Owned(core.clone()))))
}
