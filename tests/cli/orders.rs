//! What operators order: who is asked, and the sentence that comes back.

use baton::cluster::wire::proto::member_change_request::Change;
use baton::cluster::wire::proto::order_request::Order;
use baton::cluster::wire::proto::{
    AddMember, LayFloor, MemberChangeRequest, SetMaintenance, SetPause, SetPriority, UpgradeChangeRequest,
    upgrade_change_request,
};

use crate::fake_coordinator::{Host, assert_refused, baton, serve, text, two_members};

#[test]
fn a_handover_tells_where_the_baton_went_or_why_it_did_not() {
    let host = Host::new();
    let _server = serve(two_members(), &host.path("run/admin.sock"));
    let config = host.config();
    for args in [&["handover", "--config", &config][..], &["handover", "--to", "host-b", "--config", &config]] {
        let output = baton(args, &[]);
        let said = "host-a -> host-b under epoch 3 in 123 ms\n";
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), said), "{output:?}");
    }
    let refused = baton(&["handover", "--to", "host-x", "--config", &config], &[]);
    assert_refused(&refused, 1, "baton: handover: host-x is not ready: syncing");
    let slow = baton(&["handover", "--to", "host-slow", "--timeout", "200ms", "--config", &config], &[]);
    assert_refused(&slow, 1, "baton: handover: not done within 200ms; baton status shows how it goes on");
}

#[test]
fn a_dry_run_says_what_would_happen() {
    let host = Host::new();
    let _server = serve(two_members(), &host.path("run/admin.sock"));
    let config = host.config();
    let output = baton(&["handover", "--dry-run", "--config", &config], &[]);
    let said = "host-a -> host-b would be tried now; host-a keeps the baton under epoch 2\n";
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), said), "{output:?}");
    let refused = baton(&["handover", "--dry-run", "--to", "host-x", "--config", &config], &[]);
    assert_refused(&refused, 1, "baton: handover: host-x is not ready: syncing");
}

#[test]
fn each_order_reaches_the_coordinator_and_its_sentence_the_operator() {
    let host = Host::new();
    let _server = serve(two_members(), &host.path("run/admin.sock"));
    let config = host.config();
    let maintenance = |member: &str, on| Order::Maintenance(SetMaintenance { member: member.into(), on, at_ns: 0 });
    let priority = |priority| Order::Priority(SetPriority { member: "host-b".into(), priority });
    let floor = LayFloor { above: 315, because: "power cut".into(), ..LayFloor::default() };
    for (args, order) in [
        (&["maintenance", "on"][..], maintenance("", true)),
        (&["maintenance", "off", "--member", "host-b"], maintenance("host-b", false)),
        (&["pause"], Order::Pause(SetPause { on: true, at_ns: 0 })),
        (&["resume"], Order::Pause(SetPause { on: false, at_ns: 0 })),
        (&["priority", "host-b", "120"], priority(Some(120))),
        (&["priority", "host-b", "configured"], priority(None)),
        (&["floor", "--above", "315", "--because", "power cut"], Order::Floor(floor)),
    ] {
        let output = baton(&[args, &["--config", &config]].concat(), &[]);
        let said = format!("{:?}\n", Some(order));
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), said.as_str()), "{args:?}: {output:?}");
    }
    let refused = baton(&["priority", "host-x", "1", "--config", &config], &[]);
    assert_refused(&refused, 1, "baton: priority: \"host-x\" is not a member");
}

#[test]
fn a_change_of_the_membership_says_what_is_so_now_or_why_not() {
    let host = Host::new();
    let _server = serve(two_members(), &host.path("run/admin.sock"));
    let add = AddMember { id: "host-d".to_owned(), addr: "127.0.0.1:7404".to_owned(), priority: Some(80) };
    let asked = |change, dry_run, force| {
        format!("{:?}\nsecond\n", MemberChangeRequest { change: Some(change), dry_run, force })
    };
    for (args, done) in [
        (&["add", "host-d", "--addr", "127.0.0.1:7404", "--priority", "80"][..], asked(Change::Add(add), false, false)),
        (&["promote", "host-d", "--dry-run"], asked(Change::Promote("host-d".to_owned()), true, false)),
        (&["remove", "host-b", "--force"], asked(Change::Remove("host-b".to_owned()), false, true)),
    ] {
        let output = baton(&[&["member"], args, &["--config", &host.config()]].concat(), &[]);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), done.as_str()), "{output:?}");
    }
    let refused = baton(&["member", "remove", "host-a", "--config", &host.config()], &[]);
    assert_refused(&refused, 1, "baton: member remove: host-a holds the baton");
    let foreseen = baton(&["member", "remove", "host-a", "--dry-run", "--config", &host.config()], &[]);
    assert_eq!(foreseen.status.code(), Some(1));
    assert!(text(&foreseen.stdout).ends_with("second\n"), "what it would lead to is shown all the same: {foreseen:?}");
    assert_eq!(text(&foreseen.stderr), "baton: member remove would be refused: host-a holds the baton\n");
}

#[test]
fn an_upgrade_is_planned_cancelled_and_taken_back() {
    let host = Host::new();
    let _server = serve(two_members(), &host.path("run/admin.sock"));
    let upgrade = |args: &[&str]| baton(&[&["upgrade"], args, &["--config", &host.config()]].concat(), &[]);
    let asked = |change, dry_run| format!("{:?}\n", UpgradeChangeRequest { change: Some(change), dry_run });
    use upgrade_change_request::Change::{Cancel, Plan, Rollback};
    let plan = |height, source: &str| {
        let (name, source) = ("v0.2.0".to_owned(), source.to_owned());
        Plan(baton::cluster::wire::proto::PlanUpgrade { name, height, source, back: false, at_ns: 0 })
    };
    for (args, done) in [
        (&["plan", "v0.2.0"][..], asked(plan(None, ""), false)),
        (&["plan", "v0.2.0", "--height", "99", "--dry-run"], asked(plan(Some(99), ""), true)),
        (&["plan", "v0.2.0", "--binary", "/srv/v2"], asked(plan(None, "/srv/v2"), false)),
        (&["cancel", "v0.2.0"], asked(Cancel("v0.2.0".to_owned()), false)),
    ] {
        let output = upgrade(args);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), done.as_str()), "{output:?}");
    }
    assert_refused(&upgrade(&["rollback"]), 1, "baton: upgrade rollback: there is no one name to go back to");
    let foreseen = upgrade(&["rollback", "--dry-run"]);
    assert_eq!(foreseen.status.code(), Some(1));
    assert_eq!(text(&foreseen.stdout), asked(Rollback(baton::cluster::wire::proto::Blank {}), true));
    for (args, words) in [
        (&["plan", "v2", "--binary", "bin/v2"][..], "neither an absolute path"),
        (&["plan", "v2", "--binary", "https://example.org/v2"], "has no checksum; append ?checksum=sha256:HEX"),
        (&["plan", ""], "an upgrade has a name"),
        (&["plan", "v2", "--height", "soon"], "invalid digit"),
    ] {
        let output = upgrade(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(text(&output.stderr).contains(words), "{args:?}: {output:?}");
    }
}
