//! Situations, and what is done in each.

use super::*;
use crate::base::ids::Epoch;
use crate::base::time::WallTime;
use crate::core::agreed::replicated::MoveKind;
use crate::core::upgrades::kit::{self, name};
use crate::core::upgrades::plan::PlanStage;
use crate::core::upgrades::report::{Failed, Step, UnderWay};

const MINUTE: Duration = Duration::from_secs(60);

/// Owns what a [`Situation`] borrows: three validators of which `a`, the preferred one, holds the baton, and an
/// arbiter, before anybody is upgraded, and with the binary everywhere.
#[derive(Clone)]
struct Story {
    plan: Plan,
    hosts: Vec<Host>,
    holder: Option<NodeId>,
    active: bool,
    paused: bool,
    moves: VecDeque<Move>,
    turn_for: Duration,
    idle_for: Duration,
    unheld_for: Duration,
}

/// With the new binary in its place.
fn host(id: &str, priority: u32) -> Host {
    let mut host = kit::host(id, priority, "v1");
    let present = BinaryReport::Present { sha256: "ab".repeat(32) };
    host.report.as_mut().unwrap().binaries.insert(name("v2"), present);
    host
}

fn story() -> Story {
    let mut arbiter = Host { role: Role::Arbiter, report: None, ..host("z", 0) };
    arbiter.ready = Err("an arbiter".into());
    Story {
        plan: Plan {
            name: name("v2"),
            height: None,
            source: None,
            back: false,
            planned_at: WallTime::from_nanos(1_000),
            stage: PlanStage::Preparing,
        },
        hosts: vec![host("a", 100), host("b", 90), host("c", 80), arbiter],
        holder: Some("a".into()),
        active: true,
        paused: false,
        moves: VecDeque::new(),
        turn_for: Duration::ZERO,
        idle_for: Duration::ZERO,
        unheld_for: Duration::ZERO,
    }
}

impl Story {
    fn next(&self) -> Next {
        next(&Situation {
            plan: &self.plan,
            hosts: &self.hosts,
            holder: self.holder.as_ref(),
            active: self.active,
            paused: self.paused,
            moves: &self.moves,
            turn_for: self.turn_for,
            idle_for: self.idle_for,
            unheld_for: self.unheld_for,
        })
    }

    fn host(&mut self, id: &str) -> &mut Host {
        self.hosts.iter_mut().find(|host| host.id.as_str() == id).unwrap()
    }

    fn report(&mut self, id: &str) -> &mut UpgradeReport {
        self.host(id).report.as_mut().unwrap()
    }

    fn upgraded(mut self, ids: &[&str]) -> Story {
        for id in ids {
            self.report(id).current = name("v2");
        }
        self
    }

    /// It is `id`'s turn, and has been for a minute.
    fn turn(mut self, id: &str) -> Story {
        self.plan.stage = PlanStage::Rolling { turn: Some(id.into()), done: Default::default() };
        (self.turn_for, self.idle_for) = (MINUTE, MINUTE);
        self
    }

    fn unready(mut self, id: &str) -> Story {
        let host = self.host(id);
        (host.ready, host.synced) = (Err("the chain node is syncing".into()), false);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Story)) -> Story {
        change(&mut self);
        self
    }

    fn handed_over_to(mut self, to: &str) -> Story {
        self.moves.push_back(Move {
            epoch: Epoch(2),
            from: Some("a".into()),
            to: to.into(),
            kind: MoveKind::Handover,
            reason: HANDOVER_REASON.into(),
            claimed_at: WallTime::from_nanos(2_000),
            end: None,
            laid: None,
        });
        self
    }
}

fn work(step: Step, done: u64, total: u64) -> Option<UnderWay> {
    Some(UnderWay { name: name("v2"), step, done, total })
}

fn failed() -> Option<Failed> {
    Some(Failed { name: name("v2"), step: Step::Backup, reason: "no space; make room".into() })
}

#[track_caller]
fn assert_waits(story: &Story, words: &str) {
    match story.next() {
        Next::Wait(text) => assert!(text.contains(words), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_underway(story: &Story, words: &str) {
    match story.next() {
        Next::Underway(text) => assert!(text.contains(words), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_fails(story: &Story, at: &str, words: &str) {
    match story.next() {
        Next::Fail { member, reason } => {
            assert_eq!(member, at.into());
            assert!(reason.contains(words), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rolling_plan_from_its_first_turn_to_its_end() {
    assert_eq!(story().next(), Next::Turn("c".into()), "the lowest priority first");
    assert_underway(&story().turn("c"), "c, whose turn it is");
    let busy = story().turn("c").unready("c").with(|s| s.report("c").under_way = work(Step::Backup, 42, 100));
    assert_underway(&busy, "c: backup (42 %)");
    assert_underway(
        &story().turn("c").upgraded(&["c"]).unready("c"),
        "c, which is upgraded and not ready: the chain node is",
    );
    assert_eq!(story().turn("c").upgraded(&["c"]).next(), Next::Turn("b".into()));
    assert_eq!(story().turn("b").upgraded(&["b", "c"]).next(), Next::HandOver("b".into()), "the best of both");
    let moved = story().turn("b").upgraded(&["b", "c"]).handed_over_to("b").with(|s| s.holder = Some("b".into()));
    assert_eq!(moved.next(), Next::Turn("a".into()), "the old holder last");
    assert_eq!(moved.turn("a").upgraded(&["a", "b", "c"]).next(), Next::End);
}

#[test]
fn hosts_of_one_priority_go_in_the_reverse_order_of_succession() {
    let story = story().with(|s| s.hosts.iter_mut().for_each(|host| host.priority = 5));
    assert_eq!(story.next(), Next::Turn("c".into()));
    assert_eq!(story.upgraded(&["b", "c"]).next(), Next::HandOver("b".into()));
}

#[test]
fn nobody_stops_before_all_have_one_binary() {
    let binary = |id: &'static str, binary: Option<BinaryReport>| {
        story().with(|s| match binary {
            Some(binary) => drop(s.report(id).binaries.insert(name("v2"), binary)),
            None => drop(s.report(id).binaries.remove(&name("v2"))),
        })
    };
    let missing = BinaryReport::Missing { reason: "put it at /x".into() };
    assert_waits(&binary("a", Some(missing)), "the binary on a: put it at /x");
    assert_underway(
        &binary("b", Some(BinaryReport::Fetching { done: 7, total: Some(10) })),
        "b to get the binary (70 %)",
    );
    assert_underway(&binary("b", Some(BinaryReport::Fetching { done: 7, total: None })), "b to get the binary");
    assert_underway(&binary("b", None), "b to look for the binary");
    let other = BinaryReport::Present { sha256: "cd".repeat(32) };
    assert_waits(&binary("c", Some(other)), "one binary on all hosts: a has abababababab, c has cdcdcdcdcdcd");
}

#[test]
fn a_host_that_tells_nothing_is_waited_for() {
    assert_waits(&story().with(|s| s.host("b").report = None), "an [upgrade] section in the configuration of b");
    let gone = story().with(|s| {
        s.host("b").report = None;
        s.host("b").reachable = false;
    });
    assert_waits(&gone, "b, which cannot be reached");
}

#[test]
fn an_arbiter_has_no_turn_and_is_waited_for_by_nobody() {
    let story = story().upgraded(&["a", "b", "c"]).with(|s| s.host("z").reachable = false);
    assert_eq!(story.next(), Next::End);
}

#[test]
fn a_pause_stops_it_where_it_is() {
    let paused = |story: Story| story.with(|s| s.paused = true);
    for story in [story(), story().turn("c"), story().upgraded(&["b", "c"]), story().turn("c").upgraded(&["c"])] {
        assert_waits(&paused(story), "baton resume");
    }
    assert_waits(&paused(story().turn("c").with(|s| s.report("c").failed = failed())), "baton resume");
}

#[test]
fn only_one_host_is_down_at_a_time() {
    assert_waits(&story().with(|s| s.host("b").reachable = false), "b, which cannot be reached");
    assert_waits(&story().upgraded(&["c"]).with(|s| s.host("c").reachable = false), "c, which cannot be reached");
    assert_underway(&story().upgraded(&["c"]).unready("c"), "c, which is upgraded and not ready");
    assert_eq!(story().unready("c").next(), Next::Turn("c".into()), "it may be the old binary that keeps it from that");
}

#[test]
fn a_member_that_is_removed_in_its_turn_is_not_waited_for() {
    let story = story().turn("c").with(|s| s.hosts.retain(|host| host.id.as_str() != "c"));
    assert_eq!(story.next(), Next::Turn("b".into()));
}

#[test]
fn a_member_that_falls_silent_in_its_turn_ends_the_plan_in_the_end() {
    let silent = |idle_for| {
        story().turn("c").with(move |s| {
            s.host("c").reachable = false;
            s.idle_for = idle_for;
        })
    };
    assert_underway(&silent(9 * MINUTE), "c, whose turn it is and which cannot be reached");
    assert_fails(&silent(10 * MINUTE), "c", "could not be reached for 10 minutes");
}

#[test]
fn every_failure_of_a_turn_ends_the_plan() {
    let late = |story: Story| story.with(|s| s.idle_for = 10 * MINUTE);
    let attempt = story().turn("c").with(|s| s.report("c").failed = failed());
    assert_fails(&attempt, "c", "backup: no space; make room");
    let crashing = story().turn("c").upgraded(&["c"]).unready("c").with(|s| s.host("c").crashes = 3);
    assert_fails(&crashing, "c", "ended 3 times with the new binary");
    assert_fails(
        &late(story().turn("c").upgraded(&["c"]).unready("c")),
        "c",
        "not ready within 10 minutes: the chain node",
    );
    assert_fails(&late(story().turn("c")), "c", "did not run the new binary within 10 minutes");
    let maintained = story().turn("c").upgraded(&["c"]).unready("c").with(|s| {
        s.host("c").maintenance = true;
        s.host("c").ready = Ok(());
    });
    assert_fails(&late(maintained), "c", "not in sync within 10 minutes");
}

#[test]
fn what_is_no_failure_ends_nothing() {
    let old = story().turn("c").with(|s| {
        s.report("c").failed = failed();
        s.turn_for = Duration::from_secs(3);
    });
    assert_underway(&old, "c, whose turn it is");
    let again = story().turn("c").with(|s| {
        s.report("c").failed = failed();
        s.report("c").under_way = work(Step::Swap, 0, 0);
    });
    assert_underway(&again, "c: swap");
    let other = story().turn("c").with(|s| s.report("c").failed = failed().map(|f| Failed { name: name("v0"), ..f }));
    assert_underway(&other, "c, whose turn it is");
    assert_underway(&story().turn("c").with(|s| s.host("c").crashes = 9), "c, whose turn it is");
    let long = story().turn("c").with(|s| {
        s.report("c").under_way = work(Step::Backup, 1, 9);
        s.turn_for = 99 * MINUTE;
        s.idle_for = 99 * MINUTE;
    });
    assert_underway(&long, "c: backup (11 %)");
}

#[test]
fn the_holder_keeps_the_baton_until_an_upgraded_standby_can_take_it() {
    let last = || story().upgraded(&["b", "c"]);
    assert_eq!(last().next(), Next::HandOver("b".into()));
    assert_eq!(last().with(|s| s.host("b").maintenance = true).next(), Next::HandOver("c".into()));
    let all = last().with(|s| {
        s.host("b").maintenance = true;
        s.host("c").maintenance = true;
    });
    assert_waits(&all, "a standby that could take the baton from a, the last one to be upgraded");
    assert_underway(&last().unready("c"), "c, which is upgraded and not ready");
}

#[test]
fn a_host_in_maintenance_has_its_turn_and_is_done_when_it_is_in_sync() {
    let maintained = story().turn("c").upgraded(&["c"]).with(|s| {
        s.host("c").maintenance = true;
        s.host("c").ready = Err("in maintenance".into());
    });
    assert_eq!(maintained.next(), Next::Turn("b".into()));
    assert_underway(&maintained.with(|s| s.host("c").synced = false), "c, which is upgraded and not ready");
}

#[test]
fn a_baton_that_came_back_is_not_handed_over_twice() {
    let back = story().upgraded(&["b", "c"]).handed_over_to("b");
    assert_fails(&back, "b", "was handed the baton and did not keep it; a has it again");
    let earlier = back.with(|s| s.plan.planned_at = WallTime::from_nanos(3_000));
    assert_eq!(earlier.next(), Next::HandOver("b".into()), "that was for another plan");
}

#[test]
fn a_failover_in_the_middle_changes_who_is_last() {
    let lost = story().turn("c").upgraded(&["c"]).with(|s| {
        s.holder = Some("c".into());
        s.host("a").reachable = false;
    });
    assert_waits(&lost, "a, which cannot be reached");
    let back = lost.with(|s| s.host("a").reachable = true);
    assert_eq!(back.next(), Next::Turn("b".into()));
    assert_eq!(back.turn("b").upgraded(&["b", "c"]).next(), Next::Turn("a".into()), "which holds nothing any more");
}

#[test]
fn while_nobody_holds_the_baton_nobody_stops_unless_that_stays_so() {
    let unheld = |unheld_for| {
        story().with(move |s| {
            (s.holder, s.active, s.unheld_for) = (None, false, unheld_for);
        })
    };
    assert_underway(&unheld(Duration::from_secs(2)), "a member to hold the baton");
    assert_eq!(unheld(2 * MINUTE).next(), Next::Turn("c".into()), "there is nothing to lose");
    let claimed = unheld(2 * MINUTE).upgraded(&["b", "c"]).with(|s| s.holder = Some("a".into()));
    assert_waits(&claimed, "a, which has the baton and does not sign");
}

#[test]
fn a_new_leader_is_patient_anew_and_decides_the_same() {
    let turn = story().turn("c").upgraded(&["c"]).unready("c");
    assert_fails(&turn.clone().with(|s| s.idle_for = 11 * MINUTE), "c", "not ready within 10 minutes");
    let new_leader = turn.with(|s| (s.turn_for, s.idle_for) = (Duration::ZERO, Duration::ZERO));
    assert_underway(&new_leader, "c, which is upgraded and not ready");
    let failed = story().turn("c").with(|s| s.report("c").failed = failed());
    assert_fails(&failed, "c", "no space");
}

#[test]
fn at_a_height_every_host_swaps_by_itself_and_nobody_has_a_turn() {
    let planned = || story().with(|s| s.plan.height = Some(120));
    assert_underway(&planned(), "height 120; the chain is at 100");
    let missing = BinaryReport::Missing { reason: "put it at /x".into() };
    let lacks = planned().with(move |s| drop(s.report("b").binaries.insert(name("v2"), missing)));
    assert_waits(&lacks, "the binary on b: put it at /x");
    assert_underway(&planned().with(|s| s.paused = true), "height 120");
    let reached = || planned().with(|s| s.host("a").height = 120);
    assert_underway(&reached(), "a, b, c to run it: the chain is at 120");
    assert_underway(&reached().with(|s| s.report("b").under_way = work(Step::Swap, 0, 0)), "b: swap");
    assert_waits(&reached().with(|s| s.report("b").failed = failed()), "b, which failed at backup: no space");
    assert_underway(&reached().upgraded(&["a", "b"]), "c to run it");
    assert_eq!(reached().upgraded(&["a", "b", "c"]).next(), Next::End);
    assert_underway(&planned().with(|s| s.hosts.clear()), "height 120");
}

#[test]
fn a_name_in_another_case_is_the_same_name() {
    let planned = |story: Story| story.with(|s| s.plan.name = name("V2"));
    assert_eq!(planned(story()).next(), Next::Turn("c".into()), "its binary is there");
    assert_eq!(planned(story().upgraded(&["a", "b", "c"])).next(), Next::End);
    assert_fails(&planned(story().turn("c").with(|s| s.report("c").failed = failed())), "c", "no space");
}

#[test]
fn words_for_what_is_waited_for() {
    assert_eq!(Next::Turn("b".into()).to_string(), "b, whose turn it is");
    assert_eq!(Next::HandOver("b".into()).to_string(), "the baton to move to b");
    assert!(Next::Wait("x".into()).is_stuck() && !Next::Underway("x".into()).is_stuck());
    assert_eq!((percent(1, 3), percent(5, 0), percent(u64::MAX, u64::MAX), percent(9, 3)), (33, 0, 100, 100));
}
