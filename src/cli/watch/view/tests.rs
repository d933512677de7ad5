//! Screens as they are read: expectations are written by hand, line by line, without the blanks at the end of a line.

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::host::chain::parse_rfc3339;

fn at(text: &str) -> WallTime {
    parse_rfc3339(text).expect("a time")
}

fn member(id: &str, role: &str, state: &str) -> MemberStatus {
    MemberStatus {
        id: id.to_owned(),
        role: role.to_owned(),
        state: state.to_owned(),
        reachable: true,
        synced: true,
        height: 1034,
        guard: "idle".to_owned(),
        links: "standby".to_owned(),
        ..MemberStatus::default()
    }
}

fn one_move(epoch: u64, from: &str, to: &str, kind: &str, reason: &str, claimed_at: &str, gap_ms: u64) -> Move {
    let claimed_at_ns = at(claimed_at).as_nanos();
    Move {
        epoch,
        from: from.to_owned(),
        to: to.to_owned(),
        kind: kind.to_owned(),
        reason: reason.to_owned(),
        claimed_at_ns,
        active_at_ns: claimed_at_ns + 1,
        gap_ns: gap_ms * 1_000_000,
        ..Move::default()
    }
}

fn healthy() -> View {
    let holder = MemberStatus {
        phase: "Active".to_owned(),
        links: "validating".to_owned(),
        lease_remaining_ms: 808,
        ..member("host-a", "validator", "Validating")
    };
    let arbiter = MemberStatus { synced: false, height: 0, ..member("host-c", "arbiter", "Voting") };
    let status = StatusResponse {
        cluster: "my-validator".to_owned(),
        member: "host-b".to_owned(),
        leader: "host-a".to_owned(),
        term: 6,
        epoch: 2,
        holder: "host-a".to_owned(),
        quorum: true,
        lease_ms: 1000,
        promise_ms: 1001,
        members: vec![holder, member("host-b", "validator", "Voting"), arbiter],
        ..StatusResponse::default()
    };
    let moves = vec![
        one_move(1, "host-a", "host-b", "failover", "lease-lost", "2026-06-13T22:01:59Z", 1130),
        one_move(2, "host-b", "host-a", "handover", "operator", "2026-06-14T06:28:04Z", 57),
    ];
    let answered = at("2026-06-14T09:31:07.204Z");
    View { status, moves, answered, now: answered, trouble: None, every: Duration::from_secs(1), colour: false }
}

fn changed(change: impl FnOnce(&mut View)) -> View {
    let mut view = healthy();
    change(&mut view);
    view
}

fn drawn(view: &View, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal in memory");
    terminal.draw(|frame| draw(view, frame.area(), frame.buffer_mut())).expect("drawn");
    terminal.backend().buffer().clone()
}

fn screen(view: &View, width: u16, height: u16) -> Vec<String> {
    let buffer = drawn(view, width, height);
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

/// Asserts the whole screen: `top`, empty lines, and `keys` in the last line.
fn assert_screen(view: &View, (width, height): (u16, u16), top: &[&str], keys: &str) {
    let mut expected: Vec<&str> = top.to_vec();
    expected.resize(usize::from(height) - 1, "");
    expected.push(keys);
    let seen = screen(view, width, height);
    assert_eq!(seen, expected, "\n{}", seen.join("\n"));
}

const KEYS: &str = "> has the baton   asked every 1s   q leaves";

#[test]
fn a_healthy_cluster_on_80_columns() {
    let top = [
        "my-validator, seen by host-b                             2026-06-14 09:31:07 UTC",
        "quorum yes, holder host-a (epoch 2), leader host-a (term 6)",
        "if host-a were lost now, host-b would take the baton",
        "",
        "  HOST    ROLE       STATE       PHASE   UP   SYNC  HEIGHT  LINKS",
        "> host-a  validator  Validating  Active  yes  yes   1034    validating",
        "    lease [################################--------] 808 of 1000 ms",
        "  host-b  validator  Voting      -       yes  yes   1034    standby",
        "  host-c  arbiter    Voting      -       yes  -     -       standby",
        "",
        "Nothing is wrong.",
        "",
        "LAST MOVES (UTC)                       KIND      GAP     REASON",
        "2026-06-14 06:28:04  host-b -> host-a  handover  57ms    operator",
        "2026-06-13 22:01:59  host-a -> host-b  failover  1130ms  lease-lost",
    ];
    assert_screen(&healthy(), (80, 24), &top, KEYS);
}

#[test]
fn a_healthy_cluster_on_60_columns() {
    let top = [
        "my-validator, seen by host-b         2026-06-14 09:31:07 UTC",
        "quorum yes, holder host-a (epoch 2), leader host-a (term 6)",
        "if host-a were lost now, host-b would take the baton",
        "",
        "  HOST    ROLE  STATE   UP   SYNC  HEIGHT  LINKS",
        "> host-a  val   Active  yes  yes   1034    validating",
        "    lease [########################------] 808 of 1000 ms",
        "  host-b  val   Voting  yes  yes   1034    standby",
        "  host-c  arb   Voting  yes  -     -       standby",
        "",
        "Nothing is wrong.",
        "",
        "LAST MOVES                        GAP     REASON",
        "06-14 06:28:04  host-b -> host-a  57ms    operator",
        "06-13 22:01:59  host-a -> host-b  1130ms  lease-lost",
    ];
    assert_screen(&healthy(), (60, 24), &top, KEYS);
}

#[test]
fn a_pause_is_shown_across_the_screen_and_says_how_to_end_it() {
    let view = changed(|view| view.status.paused_since_ns = Some(at("2026-06-14T09:00:00Z").as_nanos()));
    let seen = screen(&view, 60, 24);
    assert_eq!(
        seen[1..3],
        ["!! PAUSED since 2026-06-14T09:00:00.000Z: the baton does", "!! not move; baton resume ends it"]
    );
    assert!(seen.contains(&"NOBODY could take the baton over now".to_owned()), "{seen:#?}");
    let buffer = drawn(&view, 60, 24);
    assert!((0..60).all(|x| buffer[(x, 1)].modifier.contains(Modifier::REVERSED)), "the whole line stands out");
    assert!(!buffer[(0, 3)].modifier.contains(Modifier::REVERSED));
    let warnings = [
        "WARNINGS",
        "! The cluster has been paused for 31 min; baton resume ends",
        "  that.",
        "! A failover would NOT work now: the cluster is paused, and",
        "  the baton stays where it is until baton resume.",
    ];
    assert!(seen.windows(5).any(|lines| lines == warnings), "{seen:#?}");
}

#[test]
fn what_is_wrong_stands_in_words_and_not_in_colour_alone() {
    let view = changed(|view| {
        view.status.quorum = false;
        view.status.leader.clear();
        let [holder, standby, arbiter] = &mut view.status.members[..] else { panic!("three members") };
        (holder.reachable, holder.lease_remaining_ms) = (false, 0);
        holder.phase.clear();
        (standby.state, standby.synced) = ("Syncing".to_owned(), false);
        standby.not_ready_because = "the chain node is syncing".to_owned();
        standby.node_note = "the chain node refused to reload".to_owned();
        (arbiter.reachable, arbiter.state) = (false, String::new());
        view.status.warnings = vec!["two voters: the loss of EITHER stops signing".to_owned()];
    });
    let top = [
        "my-validator, seen by host-b                             2026-06-14 09:31:07 UTC",
        "quorum NO, nobody can be elected, holder host-a (epoch 2), leader - (term 6)",
        "NOBODY could take the baton over now",
        "",
        "  HOST    ROLE       STATE        PHASE  UP   SYNC  HEIGHT  LINKS",
        "> host-a  validator  unreachable  -      NO   -     1034    validating",
        "    lease: none that is known here",
        "  host-b  validator  Syncing      -      yes  NO    1034    standby",
        "  host-c  arbiter    unreachable  -      NO   -     -       standby",
        "",
        "WARNINGS",
        "! No quorum of members can be reached from here: nobody can be elected.",
        "! Nobody signs.",
        "! host-a cannot be reached from here.",
        "! host-b could not take the baton: the chain node is syncing.",
        "! host-b: the chain node refused to reload.",
        "! host-c cannot be reached from here.",
        "! A failover would NOT work now: without the holder 1 of 3 members are left, and",
        "  ... 2 more lines; baton why and baton status tell all",
        "",
        "LAST MOVES (UTC)                       KIND      GAP     REASON",
        "2026-06-14 06:28:04  host-b -> host-a  handover  57ms    operator",
    ];
    assert_screen(&view, (80, 23), &top, KEYS);
    let tall = screen(&view, 80, 40).join("\n");
    assert!(tall.contains("\n! two voters: the loss of EITHER stops signing\n"), "{tall}");
    assert_eq!(tall.matches("the chain node refused to reload").count(), 1, "{tall}");
}

#[test]
fn a_coordinator_that_went_away_is_told_and_the_last_answer_stays() {
    let reason = "cannot reach the coordinator at /run/baton/admin.sock: Connection refused".to_owned();
    let view = changed(|view| {
        view.trouble = Some(Trouble { since: at("2026-06-14T09:31:08Z"), reason });
        view.now = at("2026-06-14T09:31:50Z");
    });
    let seen = screen(&view, 80, 24);
    assert!(seen[0].ends_with("2026-06-14 09:31:07 UTC"), "when the answer came: {}", seen[0]);
    assert_eq!(
        seen[1..4],
        [
            "!! NO ANSWER for 42 s: cannot reach the coordinator at /run/baton/admin.sock:",
            "!! Connection refused. What stands below is old. It is asked again.",
            "quorum yes, holder host-a (epoch 2), leader host-a (term 6)",
        ]
    );
}

#[test]
fn a_member_that_settles_says_what_it_waits_for_and_a_move_that_it_is_not_finished() {
    let view = changed(|view| {
        view.status.members[0].phase = "Settling".to_owned();
        view.status.members[0].settling = "release: its chain node to reach height 1240".to_owned();
        view.moves[1].active_at_ns = 0;
    });
    let seen = screen(&view, 80, 24).join("\n");
    assert!(seen.contains("> host-a  validator  Validating  Settling  yes"), "{seen}");
    assert!(seen.contains("! host-a: settling, waits for release: its chain node to reach height 1240"), "{seen}");
    assert!(seen.contains("host-b -> host-a  handover  unfinished  operator"), "{seen}");
}

#[test]
fn the_bar_is_as_long_as_the_lease_that_is_left() {
    let bar = |left, width| {
        let line = lease(left, 1000, width);
        let (full, cells) = (line.matches('#').count(), line.matches(['#', '-']).count());
        (full, cells)
    };
    for (left, full) in [(1000, 40), (999, 40), (500, 20), (250, 10), (1, 1), (1500, 40)] {
        assert_eq!(bar(left, 80), (full, 40), "{left} ms");
    }
    assert_eq!((bar(500, 60), bar(500, 20)), ((15, 30), (3, 5)));
    assert_eq!((lease(0, 1000, 80).contains('['), lease(-5, 1000, 80).contains('[')), (false, false));
    assert_eq!(lease(700, 0, 80), "    lease: 700 ms", "an older coordinator tells no length");
}

#[test]
fn colour_adds_nothing_that_is_not_there_without_it() {
    let change = |view: &mut View| {
        view.status.paused_since_ns = Some(1);
        view.status.members[1].reachable = false;
    };
    let (plain, mut coloured) = (changed(change), changed(change));
    coloured.colour = true;
    assert_eq!(screen(&plain, 80, 24), screen(&coloured, 80, 24));
    let colours = |view| drawn(view, 80, 24).content().iter().filter(|cell| cell.fg != Color::Reset).count();
    assert_eq!(colours(&plain), 0);
    assert!(colours(&coloured) > 0);
}

#[test]
fn nine_members_and_many_warnings_leave_the_newest_move_and_the_keys_on_the_screen() {
    let view = changed(|view| {
        let more = (3..9).map(|n| member(&format!("host-{n}"), "validator", "Voting"));
        view.status.members.extend(more);
        view.status.warnings = (0..12).map(|n| format!("warning {n}")).collect();
    });
    let seen = screen(&view, 80, 24);
    assert!(seen.iter().any(|line| line.contains("host-8")), "{seen:#?}");
    assert_eq!(seen[18..20], ["! warning 1", "  ... 10 more lines; baton why and baton status tell all"]);
    assert!(seen[22].starts_with("2026-06-14 06:28:04  host-b -> host-a"), "{seen:#?}");
    assert_eq!(seen[23], KEYS);
    let low = screen(&view, 80, 16);
    assert_eq!(low[15], "! 12 lines of warnings have no room here   q leaves");
}

#[test]
fn every_size_can_be_drawn() {
    let long = changed(|view| {
        view.status.members[0].id = "a-host-with-a-very-long-name.example.org".repeat(2);
        view.status.holder = view.status.members[0].id.clone();
        view.status.paused_since_ns = Some(1);
        view.status.members[1].height = u64::MAX;
        view.trouble = Some(Trouble { since: view.now, reason: "x".repeat(300) });
    });
    let none = changed(|view| (view.status, view.moves) = (StatusResponse::default(), Vec::new()));
    for view in [&healthy(), &long, &none] {
        for width in (0..=100).step_by(3) {
            for height in [0, 1, 2, 3, 5, 8, 13, 24, 60] {
                drawn(view, width, height);
            }
        }
    }
}
