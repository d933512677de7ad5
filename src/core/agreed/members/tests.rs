use super::*;

fn set(names: &str) -> BTreeSet<NodeId> {
    names.split_whitespace().map(NodeId::from).collect()
}

fn member(id: &str) -> Member {
    let role = if id == "c" { Role::Arbiter } else { Role::Validator };
    Member { addr: format!("{id}:1"), role, priority: 9, incarnation: Some(id.len() as u64) }
}

fn members(voters: &str, learners: &str) -> Members {
    let names = set(voters).into_iter().chain(set(learners));
    let all = names.map(|id| (id.clone(), member(id.as_str()))).collect();
    Members { voters: vec![set(voters)], all }
}

/// Led and held by a, which has the word of `answering` (and its own).
fn asked(members: &Members, answering: &str, change: &Change) -> (Plan, Result<(), Refused>) {
    let (a, answering) = (NodeId::from("a"), set(answering));
    let facts = Facts { members, leader: &a, holder: Some(&a), answering: &answering, behind: Some(0) };
    let plan = change.plan(&facts);
    let checked = change.check(&facts, &plan);
    (plan, checked)
}

fn remove(id: &str) -> Change {
    Change::Remove { id: id.into() }
}

fn promote(id: &str) -> Change {
    Change::Promote { id: id.into() }
}

fn add(id: &str) -> Change {
    Change::Add { id: id.into(), member: member(id) }
}

#[test]
fn a_dead_host_is_replaced_step_by_step() {
    assert_eq!(asked(&members("a b c", ""), "a c", &add("d")).1, Ok(()));
    assert_eq!(asked(&members("a b c", "d"), "a c d", &promote("d")).1, Ok(()));
    let (plan, checked) = asked(&members("a b c d", ""), "a c d", &remove("b"));
    assert_eq!(checked, Ok(()));
    assert_eq!(
        plan.lines(),
        [
            "remove b, a voter",
            "voters now:    a, b, c, d: quorum 3 of 4",
            "voters after:  a, c, d: quorum 2 of 3",
            "answering:     a, c, d",
            "risk after it: 1 of them may fail; the loss of a second one stops signing",
        ]
    );
    assert_eq!(plan.warning(), None);
}

#[test]
fn a_plan_says_whose_loss_stops_signing() {
    let lines = asked(&members("a b c", "d"), "a c d", &promote("d")).0.lines();
    assert_eq!(
        lines[2..],
        [
            "voters after:  a, b, c, d: quorum 3 of 4",
            "answering:     a, c, d (not b)",
            "risk after it: none of them may fail: the loss of a or c or d stops signing",
            "WARNING: 4 voters survive the loss of 1, no more than 3 would",
        ]
    );
    let lines = asked(&members("a b c", ""), "a b c", &remove("c")).0.lines();
    assert!(lines[5].starts_with("WARNING: two voters: the loss of EITHER stops signing"), "{lines:?}");
}

#[test]
fn what_would_leave_no_quorum_is_refused_unless_forced() {
    for (voters, learners, answering, change) in
        [("a b c", "", "a c", remove("c")), ("a b c", "", "a", remove("b")), ("a b c", "d", "a d", promote("d"))]
    {
        let (plan, checked) = asked(&members(voters, learners), answering, &change);
        assert!(matches!(checked, Err(Refused::Unforced(_))), "{change:?}: {checked:?} {plan:?}");
    }
    let reason = asked(&members("a b c", ""), "a c", &remove("c")).1.unwrap_err().reason();
    assert!(
        reason.starts_with("1 of the 2 voters that there would be (a, b) answer, 2 must: nobody would sign"),
        "{reason}"
    );
}

#[test]
fn the_holder_and_the_last_who_could_sign_stay() {
    let refused = |members: &Members, change: Change| match asked(members, "a b c", &change).1 {
        Err(Refused::Always(reason)) => reason,
        other => panic!("{change:?}: {other:?}"),
    };
    assert!(refused(&members("a b c", ""), remove("a")).contains("baton handover"));
    // Led by a, whose baton is another's.
    let (all, a, b) = (members("b c", "a"), NodeId::from("a"), NodeId::from("b"));
    let answering = set("a b c");
    let facts = Facts { members: &all, leader: &a, holder: Some(&b), answering: &answering, behind: None };
    let change = remove("b");
    let Err(Refused::Always(reason)) = change.check(&facts, &change.plan(&facts)) else { panic!("not refused") };
    assert!(reason.contains("the last validator"), "{reason}");
}

#[test]
fn a_learner_that_is_silent_or_far_behind_gets_no_vote() {
    let silent = asked(&members("a b c", "d"), "a b c", &promote("d")).1.unwrap_err().reason();
    assert!(silent.contains("d does not answer a"), "{silent}");
    let (all, a, answering) = (members("a b c", "d"), NodeId::from("a"), set("a b c d"));
    for (behind, allowed) in [(Some(BEHIND_MAX), true), (Some(BEHIND_MAX + 1), false), (None, false)] {
        let facts = Facts { members: &all, leader: &a, holder: None, answering: &answering, behind };
        let change = promote("d");
        assert_eq!(change.check(&facts, &change.plan(&facts)).is_ok(), allowed, "{behind:?}");
    }
}

#[test]
fn a_second_change_waits_for_the_first() {
    let joint = Members { voters: vec![set("a b c"), set("a b c d")], ..members("a b c", "d e") };
    for change in [add("f"), promote("e"), remove("b")] {
        let refused = asked(&joint, "a b c d e", &change).1;
        assert!(matches!(&refused, Err(Refused::NotYet(reason)) if reason.contains("under way")), "{refused:?}");
    }
}

#[test]
fn a_change_asked_for_twice_is_done_and_another_store_under_the_name_is_refused() {
    let cluster = members("a b c", "d");
    assert!(matches!(asked(&cluster, "a b c d", &add("d")).1, Err(Refused::Done(_))));
    assert!(matches!(asked(&cluster, "a b c d", &promote("b")).1, Err(Refused::Done(_))));
    assert!(matches!(asked(&cluster, "a b c d", &remove("x")).1, Err(Refused::Done(_))));
    let with = |incarnation, addr: &str| {
        let member = Member { incarnation, addr: addr.into(), ..member("d") };
        asked(&cluster, "a b c d", &Change::Add { id: "d".into(), member }).1
    };
    let wiped = with(Some(77), "d:1").unwrap_err();
    assert!(matches!(&wiped, Refused::Always(reason) if reason.contains("wiped or copied")), "{wiped:?}");
    let moved = with(Some(1), "d:2").unwrap_err();
    assert!(matches!(&moved, Refused::Always(reason) if reason.contains("remove it before")), "{moved:?}");
    let taken = Change::Add { id: "e".into(), member: member("b") };
    assert!(asked(&cluster, "a b c", &taken).1.unwrap_err().reason().contains("b:1 is the address of b"));
}
