use super::*;
use crate::base::ids::UpgradeName;
use crate::base::signing::{Hrs, SignDigest, SignTime};
use crate::core::agreed::sign_log::{Grant, SignRequest, Verdict};

fn at(ms: u64) -> WallTime {
    WallTime::from_nanos(ms * 1_000_000)
}

fn claim(epoch: u64, member: &str, ms: u64) -> Command {
    Command::Baton(Baton::Claim { epoch: Epoch(epoch), member: member.into(), reason: "test".into(), at: at(ms) })
}

fn release(epoch: u64, height: Option<u64>, ms: u64) -> Command {
    let last_signed = height.map(SignMark::at_height);
    Command::Baton(Baton::Release { epoch: Epoch(epoch), last_signed, reason: "test".into(), at: at(ms), to: None })
}

fn activated(epoch: u64, ms: u64) -> Command {
    let took = Duration::from_millis(5);
    Command::Baton(Baton::Activated { epoch: Epoch(epoch), at: at(ms), floor: MetFloor::default(), took })
}

/// The state after `(term, command)`s, all of which must be accepted.
fn after(commands: &[(Term, Command)]) -> Replicated {
    let mut state = Replicated::default();
    for (term, command) in commands {
        let applied = state.apply(*term, command);
        assert!(!matches!(applied, Applied::Rejected { .. }), "term {term}, {command}: {applied:?}");
    }
    state
}

/// Asserts that a command is rejected, for a reason with `words` in it, and changes nothing.
fn assert_rejected(state: &Replicated, term: Term, command: Command, words: &str) {
    let mut changed = state.clone();
    match changed.apply(term, &command) {
        Applied::Rejected { reason } => assert!(reason.contains(words), "{command}: {reason}"),
        applied => panic!("{command} was accepted: {applied:?}"),
    }
    assert_eq!(&changed, state, "{command} was rejected but changed the state");
}

#[test]
fn a_claim_takes_the_next_epoch_and_no_other() {
    let state = after(&[(1, claim(1, "a", 0)), (2, claim(2, "b", 5))]);
    assert_eq!((state.epoch, state.holder.clone(), state.claimed_in_term), (Epoch(2), Some("b".into()), 2));
    for epoch in [0, 1, 2, 4] {
        assert_rejected(&state, 3, claim(epoch, "a", 9), "the next epoch is 3");
    }
}

#[test]
fn a_leader_that_released_cannot_claim_again_in_its_term() {
    let state = after(&[(4, claim(1, "a", 0)), (4, release(1, Some(7), 1))]);
    assert_rejected(&state, 4, claim(2, "a", 2), "must win a new one first");
    assert_eq!(after(&[(4, claim(1, "a", 0)), (4, release(1, Some(7), 1)), (5, claim(2, "a", 2))]).epoch, Epoch(2));
}

#[test]
fn a_release_by_the_holder_clears_the_holder_and_makes_the_floor_exact() {
    let state = after(&[(1, claim(1, "a", 0)), (1, release(1, Some(7), 1))]);
    assert_eq!(state.holder, None);
    assert_eq!(state.floor_source(), FloorSource::Exact(SignMark::at_height(7)));
    let release = state.last_release.unwrap();
    assert_eq!((release.term, release.epoch, release.at), (1, Epoch(1), at(1)));
}

#[test]
fn before_the_first_claim_nothing_was_signed_whatever_was_released() {
    assert_eq!(Replicated::default().floor_source(), FloorSource::NeverSigned);
    let state = after(&[(3, release(0, Some(9), 1))]);
    assert_eq!(state.floor_source(), FloorSource::NeverSigned);
    assert_eq!(state.last_release.map(|release| (release.term, release.last_signed)), Some((3, None)));
}

#[test]
fn a_claim_makes_the_floor_unknown() {
    let state = after(&[(1, claim(1, "a", 0)), (1, release(1, Some(7), 1)), (2, claim(2, "b", 2))]);
    assert_eq!(state.floor_source(), FloorSource::Unknown);
}

#[test]
fn a_release_by_another_leader_than_the_holder_does_not_make_the_floor_exact() {
    let state = after(&[(1, claim(1, "a", 0)), (2, release(1, Some(7), 1))]);
    assert_eq!(state.holder, None, "its epoch is dead");
    assert_eq!(state.floor_source(), FloorSource::Unknown);
    assert_eq!(state.last_release.map(|release| (release.term, release.last_signed)), Some((2, None)));
    assert_eq!(
        after(&[(1, claim(1, "a", 0)), (2, release(1, Some(7), 1)), (3, claim(2, "b", 2))]).moves[1].kind,
        MoveKind::Failover,
        "the old holder never let go by itself"
    );
}

#[test]
fn an_exact_floor_survives_the_releases_of_leaders_that_never_claimed() {
    let mut commands = vec![(1, claim(1, "a", 0)), (1, release(1, Some(7), 1))];
    commands.extend([(2, release(1, None, 2)), (3, release(1, Some(3), 3)), (3, release(0, Some(9), 3))]);
    let state = after(&commands);
    assert_eq!(state.floor_source(), FloorSource::Exact(SignMark::at_height(7)));
    assert_eq!(state.last_release.map(|release| release.term), Some(3), "rule W reads the newest");
    commands.push((4, claim(2, "b", 9)));
    assert_eq!(after(&commands).moves[1].kind, MoveKind::Handover);
}

#[test]
fn a_release_of_another_epoch_leaves_the_holder() {
    let state = after(&[(1, claim(1, "a", 0)), (2, claim(2, "b", 1)), (2, release(1, Some(7), 2))]);
    assert_eq!(state.holder, Some("b".into()));
    assert_eq!(state.floor_source(), FloorSource::Unknown);
    assert_eq!(state.last_release.map(|release| release.term), Some(2));
}

#[test]
fn a_release_that_is_written_twice_never_lowers_the_mark() {
    for (first, second) in [(Some(7), None), (None, Some(7)), (Some(7), Some(5)), (Some(5), Some(7))] {
        let state = after(&[(1, claim(1, "a", 0)), (1, release(1, first, 1)), (1, release(1, second, 2))]);
        assert_eq!(state.floor_source(), FloorSource::Exact(SignMark::at_height(7)), "{first:?}, then {second:?}");
        assert_eq!(state.let_go.map(|release| release.at), Some(at(1)));
    }
}

#[test]
fn a_claim_tells_its_proposer_what_stood_before_it_in_the_log() {
    let mut state = after(&[(1, claim(1, "a", 0)), (1, release(1, Some(7), 1))]);
    let claimed = |epoch, source| Applied::Claimed { epoch: Epoch(epoch), member: "b".into(), source };
    let exact = FloorSource::Exact(SignMark::at_height(7));
    assert_eq!(state.apply(2, &claim(2, "b", 2)), claimed(2, exact));
    assert_eq!(state.apply(3, &claim(3, "b", 3)), claimed(3, FloorSource::Unknown));
    assert_eq!(Replicated::default().apply(1, &claim(1, "b", 0)), claimed(1, FloorSource::NeverSigned));
}

#[test]
fn a_move_after_a_release_has_the_reason_of_the_release() {
    let let_go = |reason: &str| {
        Command::Baton(Baton::Release {
            epoch: Epoch(1),
            last_signed: None,
            reason: reason.into(),
            at: at(1),
            to: None,
        })
    };
    let state = after(&[(1, claim(1, "a", 0)), (1, let_go("operator")), (1, let_go("again")), (2, claim(2, "b", 2))]);
    assert_eq!(state.moves[1].reason, "operator");
    let state = after(&[(1, claim(1, "a", 0)), (2, let_go("cannot-hold")), (3, claim(2, "b", 2))]);
    assert_eq!(state.moves[1].reason, "test", "the holder never let go by itself");
}

#[test]
fn a_release_without_a_mark_leaves_the_floor_unknown() {
    let state = after(&[(1, claim(1, "a", 0)), (1, release(1, None, 1))]);
    assert_eq!(state.floor_source(), FloorSource::Unknown);
}

#[test]
fn the_history_tells_first_handover_and_failover_apart() {
    let state = after(&[
        (1, claim(1, "a", 100)),
        (1, activated(1, 130)),
        (1, release(1, Some(7), 1_000)),
        (2, claim(2, "b", 1_020)),
        (2, activated(2, 1_090)),
        (3, claim(3, "c", 5_000)),
        (3, activated(3, 5_400)),
    ]);
    let rows: Vec<_> = state
        .moves
        .iter()
        .map(|row| (row.kind, row.from.clone(), row.to.to_string(), row.end.map(|end| end.gap.as_millis())))
        .collect();
    assert_eq!(
        rows,
        [
            (MoveKind::First, None, "a".to_string(), Some(30)),
            (MoveKind::Handover, Some("a".into()), "b".to_string(), Some(90)),
            (MoveKind::Failover, Some("b".into()), "c".to_string(), Some(400)),
        ]
    );
}

#[test]
fn only_the_open_move_of_its_epoch_can_be_ended() {
    let state = after(&[(1, claim(1, "a", 0)), (2, claim(2, "b", 1)), (2, activated(2, 3))]);
    assert_rejected(&state, 2, activated(2, 4), "before");
    assert_rejected(&state, 2, activated(1, 4), "the epoch is 2");
    assert_rejected(&Replicated::default(), 1, activated(1, 4), "the epoch is 0");
    assert_eq!(state.moves[0].end, None, "a's move never ended");
}

#[test]
fn a_member_s_incarnation_is_recorded_once() {
    let join = |incarnation| Command::Join { member: "a".into(), incarnation };
    let mut state = after(&[(1, join(7))]);
    assert_eq!(state.apply(1, &join(7)), Applied::Recorded);
    assert_rejected(&state, 1, join(8), "wiped or copied");
    assert_eq!(state.incarnations, BTreeMap::from([("a".into(), 7)]));
}

#[test]
fn the_history_is_bounded_in_rows_and_reasons() {
    let mut state = Replicated::default();
    for epoch in 1..=MOVES_MAX as u64 + 3 {
        let reason = "ä".repeat(100);
        let command = Command::Baton(Baton::Claim { epoch: Epoch(epoch), member: "a".into(), reason, at: at(epoch) });
        state.apply(epoch, &command);
    }
    assert_eq!(state.moves.len(), MOVES_MAX);
    assert_eq!(state.moves[0].epoch, Epoch(4));
    assert!(state.moves.iter().all(|row| row.reason.len() <= REASON_BYTES_MAX));
}

fn maintenance(member: &str, on: bool, ms: u64) -> Command {
    Command::Set(Set::Maintenance { member: member.into(), on, at: at(ms) })
}

fn pause(on: bool, ms: u64) -> Command {
    Command::Set(Set::Pause { on, at: at(ms) })
}

#[test]
fn a_member_in_maintenance_claims_nothing_until_it_ends() {
    let mut commands = vec![(1, claim(1, "a", 0)), (1, maintenance("b", true, 5)), (1, maintenance("b", true, 9))];
    let state = after(&commands);
    assert_eq!(state.orders.maintenance, BTreeMap::from([("b".into(), at(5))]), "since the first order");
    assert_rejected(&state, 2, claim(2, "b", 10), "b is in maintenance");
    commands.extend([(1, maintenance("b", false, 20)), (2, claim(2, "b", 30))]);
    assert_eq!(after(&commands).holder, Some("b".into()));
}

#[test]
fn in_a_pause_only_the_last_holder_claims() {
    let mut commands = vec![(1, claim(1, "a", 0)), (1, activated(1, 5)), (1, pause(true, 9)), (1, pause(true, 10))];
    let state = after(&commands);
    assert_eq!(state.orders.paused, Some(at(9)), "since the first order");
    assert_rejected(&state, 2, claim(2, "b", 20), "paused");
    commands.push((2, claim(2, "a", 21)));
    assert_rejected(&after(&commands), 3, claim(3, "b", 30), "paused");
    commands.extend([(3, pause(false, 31)), (3, claim(3, "b", 32))]);
    assert_eq!(after(&commands).holder, Some("b".into()));
}

#[test]
fn before_the_first_claim_a_pause_keeps_the_baton_from_everybody() {
    assert_rejected(&after(&[(1, pause(true, 0))]), 1, claim(1, "a", 1), "paused");
}

#[test]
fn in_a_pause_an_operator_s_handover_names_the_next_holder_and_a_failed_one_leads_back() {
    let to_b = Command::Baton(Baton::Release {
        epoch: Epoch(1),
        last_signed: None,
        reason: "operator".into(),
        at: at(10),
        to: Some("b".into()),
    });
    let mut commands = vec![(1, claim(1, "a", 0)), (1, activated(1, 5)), (1, pause(true, 9)), (1, to_b)];
    assert_rejected(&after(&commands), 2, claim(2, "c", 20), "paused");
    after(&[commands.clone(), vec![(2, claim(2, "a", 20))]].concat());
    commands.push((2, claim(2, "b", 20)));
    assert_rejected(&after(&commands), 3, claim(3, "c", 30), "paused");
    after(&[commands.clone(), vec![(3, claim(3, "a", 30))]].concat());
    commands.push((2, activated(2, 25)));
    assert_rejected(&after(&commands), 3, claim(3, "a", 30), "paused");
}

#[test]
fn a_priority_set_by_an_operator_replaces_the_configured_one_until_it_is_taken_back() {
    let set = |priority| Command::Set(Set::Priority { member: "a".into(), priority });
    let state = after(&[(1, set(Some(7))), (1, set(Some(8)))]);
    assert_eq!((state.orders.priority(&"a".into(), 100), state.orders.priority(&"b".into(), 90)), (8, 90));
    assert_eq!(after(&[(1, set(Some(7))), (1, set(None))]), Replicated::default());
}

#[test]
fn a_turn_is_never_the_holders_whatever_its_proposer_knew() {
    let name = UpgradeName::new("v2").unwrap();
    let plan =
        Command::Upgrade(Upgrade::Plan { name: name.clone(), height: None, source: None, back: false, at: at(1) });
    let state = after(&[(1, claim(1, "a", 0)), (1, plan)]);
    let turn = |member: &str| Command::Upgrade(Upgrade::Turn { name: name.clone(), member: member.into(), at: at(2) });
    assert_rejected(&state, 1, turn("a"), "a holds the baton");
    let moved = {
        let mut state = state.clone();
        state.apply(1, &turn("b"));
        state.apply(1, &release(1, None, 3));
        state
    };
    assert_eq!(moved.plans.newest().and_then(|plan| plan.turn()), Some(&"b".into()));
    assert!(matches!(moved.clone().apply(1, &turn("a")), Applied::Recorded), "it has let go");
}

#[test]
fn the_reason_of_a_failed_upgrade_is_bounded_and_who_goes_has_no_turn() {
    let name = UpgradeName::new("v2").unwrap();
    let plan =
        Command::Upgrade(Upgrade::Plan { name: name.clone(), height: None, source: None, back: false, at: at(1) });
    let turn = Command::Upgrade(Upgrade::Turn { name: name.clone(), member: "b".into(), at: at(2) });
    let mut state = after(&[(1, plan), (1, turn)]);
    state.note_members(3, ["a".into()].iter());
    assert_eq!(state.plans.newest().and_then(|plan| plan.turn()), None);
    let failed = Some(("b".into(), "é".repeat(700)));
    state.apply(1, &Command::Upgrade(Upgrade::End { name, failed, at: at(9) }));
    let Some(crate::core::upgrades::PlanStage::Failed { reason, .. }) = state.plans.newest().map(|plan| &plan.stage)
    else {
        panic!("{:?}", state.plans)
    };
    assert!(reason.len() <= FAILURE_BYTES_MAX && reason.ends_with("é…"), "{reason}");
}

#[test]
fn a_floor_is_laid_only_while_the_holder_of_its_epoch_is_not_active() {
    let lay = |epoch, above| Command::LayFloor {
        epoch: Epoch(epoch),
        above,
        because: "b".repeat(REASON_BYTES_MAX + 1),
        at: at(3),
    };
    let mut state = after(&[(1, claim(1, "a", 0)), (2, claim(2, "b", 1))]);
    assert_rejected(&state, 2, lay(1, 7), "nobody settles under epoch 1");
    assert_rejected(&Replicated::default(), 2, lay(0, 7), "nobody settles under epoch 0");
    for above in [7, 5] {
        assert_eq!(state.apply(2, &lay(2, above)), Applied::Recorded);
        let laid = state.moves.back().and_then(|row| row.laid.clone()).expect("it stands in the history");
        assert_eq!((laid.above, laid.at, laid.because.len()), (above, at(3), REASON_BYTES_MAX), "the newest counts");
    }
    let mut active = state.clone();
    active.apply(
        2,
        &Command::Baton(Baton::Activated {
            epoch: Epoch(2),
            at: at(4),
            floor: MetFloor::default(),
            took: Duration::ZERO,
        }),
    );
    assert_rejected(&active, 2, lay(2, 9), "nobody settles under epoch 2");
    state.apply(2, &release(2, None, 4));
    assert_rejected(&state, 2, lay(2, 9), "nobody settles under epoch 2");
}

fn place(height: u64) -> Hrs {
    Hrs::new(height, 0, Hrs::PRECOMMIT)
}

fn open(height: u64) -> Command {
    let last = Grant { place: place(height), digest: None, time: SignTime::default() };
    Command::Signing(Signing::Open { chain: "c-1".into(), key: "k".into(), last, at: at(0) })
}

fn sign(height: u64) -> Command {
    let (digest, time) = (SignDigest([1; 32]), SignTime::default());
    Command::Signing(Signing::Sign(SignRequest { chain: "c-1".into(), place: place(height), digest, time, by: None }))
}

fn close() -> Command {
    Command::Signing(Signing::Close { at: at(9) })
}

#[test]
fn nothing_is_signed_before_a_mark_was_committed() {
    let mut state = Replicated::default();
    assert_eq!(state.apply(1, &sign(7)), Applied::Weighed(Verdict::NotHere { chain: None }));
    assert_eq!(state, Replicated::default());
    let mut state = after(&[(1, open(7))]);
    assert_eq!(state.custody(), Custody::Signer);
    assert_eq!(state.apply(1, &sign(7)), Applied::Weighed(Verdict::Conflict { place: place(7) }));
    assert_eq!(state.apply(1, &sign(8)), Applied::Weighed(Verdict::Granted));
}

#[test]
fn the_custody_of_the_key_changes_while_nobody_holds_the_baton() {
    let held = after(&[(1, claim(1, "a", 0))]);
    assert_rejected(&held, 1, open(7), "a holds the baton");
    let held = after(&[(1, open(7)), (1, claim(2, "a", 0))]);
    assert_rejected(&held, 1, close(), "a holds the baton");
    assert_rejected(&after(&[]), 1, close(), "has the key already");
}

/// A chain node would get the key under a claim that overtakes the order, and the signer sign beside it.
#[test]
fn a_claim_from_before_a_change_of_custody_is_none() {
    let state = after(&[(1, open(7))]);
    assert_rejected(&state, 1, claim(1, "a", 1), "the next epoch is 2");
    let state = after(&[(1, open(7)), (1, close())]);
    assert_rejected(&state, 1, claim(2, "a", 1), "the next epoch is 3");
}

#[test]
fn the_log_begins_above_what_the_last_holder_signed_and_never_forgets() {
    let released = after(&[(1, claim(1, "a", 0)), (1, release(1, Some(7), 1))]);
    assert_rejected(&released, 1, open(6), "the last holder signed 7");
    let state = after(&[(1, open(7)), (1, sign(9))]);
    assert_rejected(&state, 1, open(8), "9/0/3 was signed");
    let closed = after(&[(1, open(7)), (1, sign(9)), (1, close())]);
    assert_rejected(&closed, 1, open(8), "9/0/3 was signed");
    let other = Signing::Open {
        chain: "c-1".into(),
        key: "another".into(),
        last: Grant { place: place(10), digest: None, time: SignTime::default() },
        at: at(0),
    };
    assert_rejected(&closed, 1, Command::Signing(other), "signs for chain c-1 with the key k");
}

/// Otherwise a request for what the record says would be repeated, beside what was signed there.
#[test]
fn an_import_at_the_last_place_brings_no_other_content_there() {
    let admitted = Grant { place: place(9), digest: Some(SignDigest([1; 32])), time: SignTime::default() };
    let open_with = |last| Command::Signing(Signing::Open { chain: "c-1".into(), key: "k".into(), last, at: at(0) });
    let signed = after(&[(1, open(7)), (1, sign(9))]);
    let other = Grant { digest: Some(SignDigest([2; 32])), ..admitted };
    let later = Grant { time: SignTime { seconds: 1, nanos: 0 }, ..admitted };
    for last in [other, later] {
        assert_rejected(&signed, 1, open_with(last), "9/0/3 was signed, and not with this content");
    }
    assert_rejected(&after(&[(1, open(9))]), 1, open_with(admitted), "9/0/3 was signed, and not with this content");
    for (last, expected) in [
        (admitted, Verdict::Repeated { time: SignTime::default() }),
        (Grant { digest: None, ..admitted }, Verdict::Conflict { place: place(9) }),
    ] {
        let mut state = signed.clone();
        assert_eq!(state.apply(1, &open_with(last)), Applied::Recorded);
        assert_eq!(state.apply(1, &sign(9)), Applied::Weighed(expected));
    }
}

#[test]
fn a_chain_node_that_gets_the_key_back_starts_above_all_that_the_log_admitted() {
    let mut state = after(&[(1, open(7)), (2, claim(2, "a", 0)), (2, sign(9)), (2, release(2, None, 1)), (3, close())]);
    assert_eq!(state.custody(), Custody::Links);
    assert_eq!(state.floor_source(), FloorSource::Exact(place(9).into()));
    assert_eq!(state.apply(3, &sign(10)), Applied::Weighed(Verdict::NotHere { chain: None }));
    // A leader without a tenure that lets go of that epoch is no holder whose word would count.
    state.apply(3, &release(4, None, 2));
    assert_eq!(state.floor_source(), FloorSource::Exact(place(9).into()));
}
