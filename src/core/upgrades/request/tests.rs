use super::*;
use crate::core::upgrades::kit::{self, name};

fn host(id: &str, priority: u32, current: &str, previous: Option<&str>) -> Host {
    let mut host = kit::host(id, priority, current);
    host.report.as_mut().unwrap().previous = previous.map(name);
    host
}

fn hosts() -> Vec<Host> {
    let arbiter = Host { role: Role::Arbiter, report: None, ..host("z", 0, "v1", None) };
    vec![host("a", 100, "v1", None), host("b", 90, "v1", None), host("c", 80, "v1", None), arbiter]
}

fn judge(wanted: &Wanted, plans: &Plans, hosts: &[Host]) -> Result<Judged, String> {
    wanted.judge(&Facts { plans, hosts, holder: Some(&"a".into()) }, WallTime::from_nanos(5))
}

fn plan(of: &str) -> Wanted {
    Wanted::Plan { name: name(of), height: None, source: None }
}

fn at_height(height: u64) -> Wanted {
    Wanted::Plan { name: name("v2"), height: Some(height), source: None }
}

/// With every command that is accepted applied.
fn after(wanted: &[Wanted], hosts: &[Host]) -> Plans {
    let mut state = crate::core::agreed::replicated::Replicated::default();
    for wanted in wanted {
        let (command, _) = judge(wanted, &state.plans, hosts).unwrap();
        state.apply(1, &command.unwrap());
    }
    state.plans
}

#[track_caller]
fn assert_refused(wanted: &Wanted, plans: &Plans, hosts: &[Host], words: &str) {
    let reason = judge(wanted, plans, hosts).expect_err("refused");
    assert!(reason.contains(words), "{reason}");
}

#[test]
fn a_plan_says_who_stops_when() {
    let (command, lines) = judge(&plan("v2"), &Plans::default(), &hosts()).unwrap();
    assert_eq!(command.unwrap().to_string(), "PlanUpgrade{v2, rolling}");
    assert_eq!(lines[0], "v2, one host after the other: c, then b, then a, which hands the baton over first");
    let (command, lines) = judge(&at_height(120), &Plans::default(), &hosts()).unwrap();
    assert_eq!(command.unwrap().to_string(), "PlanUpgrade{v2, 120}");
    assert!(lines[0].contains("v2 at height 120, the chain is at 100"), "{lines:?}");
}

#[test]
fn what_cannot_be_carried_out_is_refused() {
    let none = Plans::default();
    assert_refused(&plan("v1"), &none, &hosts(), "every host runs v1 already");
    for height in [0, 99, 100] {
        assert_refused(&at_height(height), &none, &hosts(), "the chain is at 100 already");
    }
    for (source, words) in [("https://example.org/v2", "has no checksum"), ("bin/v2", "neither an absolute path")] {
        let wanted = Wanted::Plan { name: name("v2"), height: None, source: Some(source.into()) };
        assert_refused(&wanted, &none, &hosts(), words);
    }
    assert_refused(&plan("genesis"), &none, &hosts(), "choose another name");
    let planned = after(&[plan("v2")], &hosts());
    assert_refused(&plan("v3"), &planned, &hosts(), "v2, one host after the other, is planned already");
    assert_refused(&Wanted::Rollback, &planned, &hosts(), "is planned already");
    let mut without = hosts();
    without[1].report = None;
    assert_refused(
        &plan("v2"),
        &none,
        &without,
        "b tells nothing of its binaries: give its configuration an [upgrade]",
    );
    without[1].reachable = false;
    assert_refused(&plan("v2"), &none, &without, "b cannot be reached");
    assert_refused(&plan("v2"), &none, &hosts()[..1], "a is the only validator");
    assert_refused(&plan("v2"), &none, &hosts()[3..], "no validator has been heard of");
    assert!(judge(&at_height(120), &none, &hosts()[..1]).is_ok(), "at a height one is enough");
    assert_refused(&Wanted::Cancel { name: name("v2") }, &none, &hosts(), "no upgrade v2 is planned");
}

#[test]
fn what_is_so_already_is_no_second_entry() {
    let planned = after(&[plan("v2")], &hosts());
    assert_eq!(judge(&plan("v2"), &planned, &hosts()).unwrap().0, None);
    assert_refused(&at_height(120), &planned, &hosts(), "is planned already");
    let cancel = Wanted::Cancel { name: name("v2") };
    let cancelled = after(&[plan("v2"), cancel.clone()], &hosts());
    assert_eq!(judge(&cancel, &cancelled, &hosts()).unwrap().0, None);
    assert!(judge(&plan("v2"), &cancelled, &hosts()).unwrap().0.is_some(), "it may be planned again");
}

#[test]
fn a_rollback_goes_to_what_all_ran_before() {
    let none = Plans::default();
    let all = [host("a", 3, "v2", Some("v1")), host("b", 2, "v2", Some("v1"))];
    let (command, lines) = judge(&Wanted::Rollback, &none, &all).unwrap();
    assert_eq!(command.unwrap().to_string(), "PlanUpgrade{v1, rolling back}");
    assert!(lines.last().unwrap().contains("only binaries are taken back"), "{lines:?}");
    let planned = after(&[plan("v2")], &hosts());
    let mut half = planned.clone();
    half.end(&name("v2"), Some(("b".into(), "x".into())), WallTime::default()).unwrap();
    let hosts = [host("a", 3, "v1", Some("v0")), host("b", 2, "v2", Some("v1"))];
    let (command, _) = judge(&Wanted::Rollback, &half, &hosts).unwrap();
    assert_eq!(command.unwrap().to_string(), "PlanUpgrade{v1, rolling back}", "the one that was not reached runs it");
}

#[test]
fn a_rollback_without_one_name_to_go_to_is_refused() {
    let none = Plans::default();
    let differ = [host("a", 3, "v2", Some("v1")), host("b", 2, "v2", Some("v0"))];
    assert_refused(&Wanted::Rollback, &none, &differ, "no one name to go back to: a ran v1 before, b ran v0 before");
    let never = [host("a", 3, "v2", None), host("b", 2, "v2", Some("v1"))];
    assert_refused(&Wanted::Rollback, &none, &never, "a runs v2 and has run nothing else");
    let mut lacks = [host("a", 3, "v2", Some("v1")), host("b", 2, "v2", Some("v1"))];
    let missing = BinaryReport::Missing { reason: "it is gone".into() };
    lacks[1].report.as_mut().unwrap().binaries.insert(name("v1"), missing);
    assert_refused(&Wanted::Rollback, &none, &lacks, "b lacks the binary of v1: it is gone");
}

#[test]
fn a_rollback_is_not_rolled_back_and_one_that_failed_goes_on() {
    let all = [host("a", 3, "v2", Some("v1")), host("b", 2, "v2", Some("v1"))];
    let mut plans = after(&[Wanted::Rollback], &all);
    assert_eq!(judge(&Wanted::Rollback, &plans, &all).unwrap().0, None, "it is under way");
    plans.end(&name("v1"), Some(("b".into(), "x".into())), WallTime::default()).unwrap();
    let half = [host("a", 3, "v2", Some("v1")), host("b", 2, "v1", Some("v2"))];
    let (command, _) = judge(&Wanted::Rollback, &plans, &half).unwrap();
    assert_eq!(command.unwrap().to_string(), "PlanUpgrade{v1, rolling back}");
    let back = [host("a", 3, "v1", Some("v2")), host("b", 2, "v1", Some("v2"))];
    assert_refused(&Wanted::Rollback, &plans, &back, "every host is back at v1; baton upgrade plan goes forward again");
}

#[test]
fn nothing_is_written_that_a_member_might_not_read() {
    let members: Vec<NodeId> = ["a", "b", "c"].map(NodeId::from).to_vec();
    let check = |b: Option<u32>| check_known(members.iter(), |id| if id.as_str() == "b" { b } else { Some(7) });
    assert_eq!(check(Some(1)), Ok(()));
    assert_eq!(check(Some(2)), Ok(()), "a later one");
    let older = check(Some(0)).unwrap_err();
    assert!(older.starts_with("b runs a baton that knows no upgrade plans"), "{older}");
    assert!(check(None).unwrap_err().contains("which baton b runs"), "it was not heard");
}
