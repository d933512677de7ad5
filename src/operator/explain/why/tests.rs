use super::*;
use crate::cluster::wire::proto::{Grant, Meaning, SignLog};
use crate::core::NotReady;

fn member(id: &str, state: &str, phase: &str) -> MemberStatus {
    MemberStatus {
        id: id.to_owned(),
        role: "validator".to_owned(),
        state: state.to_owned(),
        phase: phase.to_owned(),
        reachable: true,
        guard: "idle".to_owned(),
        links: "standby".to_owned(),
        ..MemberStatus::default()
    }
}

fn healthy() -> (StatusResponse, Vec<Move>) {
    let mut holder = member("host-a", "Validating", "Active");
    holder.links = "validating".to_owned();
    let arbiter = MemberStatus { role: "arbiter".to_owned(), ..member("host-c", "Voting", "") };
    let status = StatusResponse {
        member: "host-b".to_owned(),
        holder: "host-a".to_owned(),
        epoch: 4,
        quorum: true,
        lease_ms: 1000,
        promise_ms: 1001,
        members: vec![holder, member("host-b", "Voting", ""), arbiter],
        ..StatusResponse::default()
    };
    let mv = |epoch, from: &str, to: &str, kind: &str, reason: &str| Move {
        epoch,
        from: from.to_owned(),
        to: to.to_owned(),
        kind: kind.to_owned(),
        reason: reason.to_owned(),
        claimed_at_ns: 1_000_000_000_000,
        active_at_ns: 1_000_500_000_000,
        gap_ns: 1_130_000_000,
        ..Move::default()
    };
    let moves =
        vec![mv(3, "host-a", "host-b", "failover", "lease-lost"), mv(4, "host-b", "host-a", "handover", "operator")];
    (status, moves)
}

fn why(change: impl FnOnce(&mut StatusResponse)) -> Why {
    let (mut status, moves) = healthy();
    change(&mut status);
    Why::of(&status, &moves, WallTime::from_nanos(12_000_000_000_000))
}

#[test]
fn a_member_that_is_refused_is_told_from_one_that_is_unreachable() {
    let (mut status, moves) = healthy();
    let wrong = |status: &StatusResponse| Why::of(status, &moves, WallTime::from_nanos(2_000_000_000_000)).wrong;
    status.members[2].reachable = false;
    assert!(wrong(&status).contains(&"host-c cannot be reached from here.".to_owned()));
    status.members[2].refused = "host-c came with another store".to_owned();
    let told = "host-c cannot be reached from here: host-c came with another store.".to_owned();
    assert!(wrong(&status).contains(&told), "{:?}", wrong(&status));
    status.members[2].reachable = true;
    let told = "host-c: host-c came with another store.".to_owned();
    assert!(wrong(&status).contains(&told), "{:?}", wrong(&status));
    let notes = crate::operator::explain::words::notes(&status.members[2], false, WallTime::from_nanos(0));
    assert!(notes.contains(&status.members[2].refused), "{notes:?}");
}

#[test]
fn a_healthy_cluster_is_told_in_four_sentences() {
    let expected = "host-a holds the baton under epoch 4 and signs. host-b handed it over 3 h 3 min ago: an operator \
                    ordered it.\nhost-b (this host) is ready; host-a holds the baton.\nIf it were lost now, a \
                    failover would work: host-b would take it, not before the lease of 1s is over and its own node has \
                    seen a block made after that; the last failover took 1130 ms from its claim on.\nNothing is wrong.\n";
    assert_eq!(why(|_| ()).text(), expected);
}

#[test]
fn where_the_log_decides_a_failover_waits_for_no_block_and_what_was_signed_is_told() {
    let text = why(|status| {
        let last = Grant { height: 7, step: 2, digest: vec![1; 32], seconds: 1, ..Grant::default() };
        status.sign_log = Some(SignLog { chain: "c-1".to_owned(), last: Some(last), ..SignLog::default() });
    })
    .text();
    let failover = "host-b would take it, not before the lease of 1s is over. Its chain node runs, asks already, and is \
                    answered from then on; the last failover";
    assert!(text.contains(failover) && !text.contains("block"), "{text}");
    assert!(text.contains("\nSigned by the log on c-1: up to height 7, round 0, prevote, "), "{text}");
}

#[test]
fn a_node_that_is_not_ours_is_told_once_whatever_else_is_told_of_its_host() {
    let told = "neard (pid 7) listens at 127.0.0.1:3030";
    let count = |change: &dyn Fn(&mut MemberStatus)| {
        let told_of = why(|status| {
            let member = &mut status.members[1];
            member.foreign_node = told.to_owned();
            member.not_ready_because = told.to_owned();
            change(member);
        });
        told_of.wrong.iter().filter(|line| line.contains(told)).count()
    };
    assert_eq!(count(&|_| {}), 1, "a standby");
    assert_eq!(count(&|member| (member.maintenance, member.not_ready_because) = (true, "in maintenance".into())), 1);
    assert_eq!(count(&|member| member.phase = "Active".to_owned()), 1, "a holder");
}

#[test]
fn a_standby_that_is_not_ready_leaves_no_failover_and_is_named() {
    let why = why(|status| {
        status.members[1].state = "Syncing".to_owned();
        status.members[1].not_ready_because = "the chain node is syncing".to_owned();
    });
    assert_eq!(why.this_host, "host-b (this host) cannot take the baton: the chain node is syncing.");
    assert!(!why.failover.works, "{}", why.failover.because);
    assert_eq!(why.failover.because, "A failover would NOT work now: no other member could take it now.");
    assert_eq!(why.wrong, ["host-b could not take the baton: the chain node is syncing."]);
}

#[test]
fn an_arbiter_that_votes_for_nobody_leaves_too_few_and_is_named() {
    let reason = NotReady::PromiseLost { left: Duration::from_millis(100_400) }.to_string();
    let why = why(|status| {
        status.members[2].state = "Registering".to_owned();
        (status.members[2].gives_no_vote, status.members[2].not_ready_because) = (true, reason.clone());
    });
    let because = "A failover would NOT work now: without the holder 1 of 3 members give a vote, and 2 must; host-c gives \
                   none.";
    assert_eq!(why.failover.because, because);
    assert_eq!(why.wrong, [format!("host-c: {reason}.")]);
    assert!(reason.starts_with("it votes for nobody for 101 s more: state_dir/promise could not be read"), "{reason}");
    let plain = super::Why::of(&healthy().0, &[], WallTime::from_nanos(0));
    assert!(plain.failover.works, "{}", plain.text());
}

#[test]
fn an_arbiter_whose_disk_is_full_is_named_and_so_is_what_hangs_on_it() {
    let reason = "the disk of member.state_dir (/var/lib/baton) is full";
    let full = |status: &mut StatusResponse| {
        let arbiter = &mut status.members[2];
        arbiter.not_ready_because = reason.to_owned();
        arbiter.meaning = Some(Meaning { needs_mending: true, disk_full: true, ..arbiter.meaning() });
    };
    let alone = why(full);
    assert_eq!(alone.wrong, [format!("host-c: {reason}.")]);
    assert!(alone.failover.works, "{}", alone.text());
    let with_one_away = why(|status| {
        full(status);
        status.members[1].reachable = false;
    });
    let hangs = "The quorum hangs on host-c: with its disk full a member votes only for a while.";
    assert_eq!(with_one_away.wrong[0], hangs, "{}", with_one_away.text());
    let at_the_arbiter = why(|status| {
        full(status);
        status.member = "host-c".to_owned();
    });
    assert_eq!(at_the_arbiter.this_host, format!("host-c (this host) is an arbiter, and only votes: {reason}."));
}

#[test]
fn what_a_chain_node_said_last_is_told_once_unless_it_is_good_news() {
    let note = "the chain node ended with exit code 1, 0.4 s after its start; its last line: no such flag";
    let said = |status: &mut StatusResponse| status.members[1].node_note = note.to_owned();
    let told = why(said);
    assert_eq!(told.wrong, [format!("host-b: {note}.")]);
    let (mut status, _) = healthy();
    said(&mut status);
    let warnings = told.warnings(&status, WallTime::from_nanos(0));
    assert_eq!(warnings.iter().filter(|text| text.contains(note)).count(), 1, "{warnings:?}");
    let good = why(|status| status.members[0].node_note = "first vote on chain 1.2 s after".to_owned());
    assert!(good.wrong.is_empty(), "{:?}", good.wrong);
}

#[test]
fn a_lost_arbiter_leaves_too_few_to_replace_the_holder() {
    let why = why(|status| status.members[2].reachable = false);
    assert!(why.active && !why.failover.works);
    let because = "A failover would NOT work now: without the holder 1 of 3 members are left, and 2 must agree.";
    assert_eq!(why.failover.because, because);
    assert_eq!(why.wrong, ["host-c cannot be reached from here."]);
}

#[test]
fn a_learner_that_answers_does_not_make_up_for_a_lost_voter() {
    let why = why(|status| {
        status.members[2].reachable = false;
        status.members.push(MemberStatus { vote: "learner".to_owned(), ..member("host-d", "Registering", "") });
    });
    assert!(why.failover.because.ends_with("without the holder 1 of 3 members are left, and 2 must agree."));
}

#[test]
fn a_pause_forbids_the_failover_and_says_how_to_end_it() {
    let why = why(|status| status.paused_since_ns = Some(11_940_000_000_000));
    assert!(!why.failover.works && why.failover.because.contains("baton resume"), "{}", why.failover.because);
    assert_eq!(why.wrong, ["The cluster has been paused for 1 min; baton resume ends that."]);
}

#[test]
fn a_holder_that_settles_says_what_it_waits_for_and_one_that_is_gone_what_it_may_still_do() {
    let settling = why(|status| {
        status.members[0].phase = "Settling".to_owned();
        status.members[0].settling = "settled: a block after 09:00".to_owned();
    });
    assert!(
        settling.holder_because.contains("does not sign yet: it waits for settled: a block"),
        "{}",
        settling.text()
    );
    assert_eq!(settling.wrong, ["Nobody signs."]);
    let gone = why(|status| {
        status.members[0].reachable = false;
        status.members[0].phase.clear();
    });
    assert!(gone.holder_because.contains("signs until its lease is over"), "{}", gone.text());
    assert!(gone.failover.works, "the others are a quorum: {}", gone.text());
}

#[test]
fn a_key_in_use_elsewhere_is_the_gravest_and_told_once() {
    let (mut status, moves) = healthy();
    let alarm = "the chain node had the validator's key at height 40 without the baton";
    let own = status.members.iter_mut().find(|member| member.id == "host-b").expect("host-b");
    (own.state, own.key_alarm, own.not_ready_because) = ("Registering".into(), alarm.into(), alarm.into());
    status.warnings = status.members.iter().filter_map(key_alarm).collect();
    let now = WallTime::from_nanos(0);
    let why = Why::of(&status, &moves, now);
    assert_eq!(why.wrong, [format!("The validator's key is in use elsewhere, as host-b sees: {alarm}.")]);
    assert_eq!(why.warnings(&status, now).iter().filter(|text| text.contains(alarm)).count(), 1);
    assert!(!why.failover.works, "{}", why.text());
}
