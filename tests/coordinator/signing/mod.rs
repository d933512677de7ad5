//! Where the log decides what is signed: what a chain node is answered by the coordinators of three hosts, each with a
//! real signer.

mod kit;

use std::time::{Duration, Instant};

use kit::{Cluster, answer_probes, prevote};

/// A chain node is refused within a second where no quorum is. The rest is for a busy machine; after 4 s the connection
/// itself would refuse.
const REFUSED_WITHIN: Duration = Duration::from_secs(3);
/// Until no election falls between two requests any more.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// Not a test: the coordinators of the others start it as their chain node.
#[test]
#[ignore = "the chain node that the other tests start"]
fn node_process() {
    if let Ok(addr) = std::env::var("SIGNING_NODE") {
        answer_probes(&addr);
    }
}

#[test]
fn both_nodes_get_the_first_signature_of_a_place_and_another_content_there_gets_none() {
    let mut cluster = Cluster::start();
    cluster.until_a_signs();
    let began_at = Instant::now();
    // An election may fall between two requests on a busy machine.
    let (height, given) = loop {
        let height = cluster.next_height();
        match cluster.a.node().ask(&prevote(height, 1, 10)) {
            Ok(given) => break (height, given),
            Err(why) => assert!(began_at.elapsed() < SETTLED_WITHIN, "{why}"),
        }
    };
    assert_eq!(given.0.seconds, 10);
    assert_eq!(cluster.a.node().ask(&prevote(height, 1, 11)), Ok(given.clone()), "again, at a later time");
    // The signer of `b` has no mark of its own: it gets it from the log.
    assert_eq!(cluster.b.node().ask(&prevote(height, 1, 12)), Ok(given), "the node of the other host");
    for host in [&mut cluster.a, &mut cluster.b] {
        let refused = host.node().ask(&prevote(height, 2, 10)).expect_err("another content");
        assert!(refused.contains("conflicting data"), "{refused}");
        let refused = host.node().ask(&prevote(height - 1, 9, 10)).expect_err("a place below");
        assert!(refused.contains("step regression"), "{refused}");
    }
}

/// Beside its coordinator, with what that knows; without one, with what the store knows.
#[test]
fn another_key_than_the_agreed_one_is_refused_with_its_file_and_both_keys() {
    let mut cluster = Cluster::start();
    cluster.until_a_signs();
    let (agreed, other) = (cluster.agreed_key(), "ed25519:UjxDQgVTlHJOZ7axpMl/iczMIJXiQpFxCFjwKGvzYqE=");
    cluster.b.give_another_key();
    let key = cluster.b.path("key");
    let refused = |cluster: &Cluster, command: &str| {
        let output = cluster.b.baton(&[command]).output().expect("it runs");
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        let line = format!(
            "signer.key {} is the key {other}, and the cluster has agreed on {agreed}; put the file",
            key.display()
        );
        assert!(told.contains(&line), "{command}: {told}");
        assert!(!output.status.success(), "{command}: {told}");
    };
    refused(&cluster, "check");
    cluster.b.kill();
    refused(&cluster, "check");
    refused(&cluster, "run");
}

#[test]
fn a_standby_waits_for_the_node_of_the_holder_and_then_votes_along() {
    let mut cluster = Cluster::start();
    cluster.until_a_signs();
    let began_at = Instant::now();
    loop {
        let height = cluster.next_height();
        // It asks first, and for something else than the one that is answered.
        cluster.b.node().send(&prevote(height, 2, 20));
        let of_a = cluster.a.node().ask(&prevote(height, 1, 21));
        let of_b = cluster.b.node().answer();
        // Nobody holds the baton where an election falls in between.
        if of_a.is_ok() {
            assert!(of_b.is_err(), "two contents at {height}: {of_a:?} and {of_b:?}");
            let along = cluster.b.node().ask(&prevote(height, 1, 22));
            assert_eq!(along, of_a);
            return;
        }
        assert!(began_at.elapsed() < SETTLED_WITHIN, "{of_a:?}, {of_b:?}");
    }
}

#[test]
fn a_sentry_steps_back_behind_the_node_of_the_holder_and_is_signed_for_when_that_one_is_silent() {
    let mut cluster = Cluster::start();
    cluster.until_a_signs();
    let mut sentry = cluster.sentry();
    let began_at = Instant::now();
    let mut is_behind = false;
    // An election, or a slow machine, may fall between two requests.
    loop {
        assert!(began_at.elapsed() < SETTLED_WITHIN, "is behind: {is_behind}");
        let height = cluster.next_height();
        sentry.send(&prevote(height, 2, 30));
        if is_behind {
            let asked_at = Instant::now();
            if sentry.answer().is_ok() {
                assert!(asked_at.elapsed() >= Duration::from_millis(150), "after {:?}", asked_at.elapsed());
                return;
            }
        } else {
            let of_a = cluster.a.node().ask(&prevote(height, 1, 31));
            let of_sentry = sentry.answer();
            is_behind = of_a.is_ok();
            assert!(of_a.is_err() || of_sentry.is_err(), "two contents at {height}: {of_a:?} and {of_sentry:?}");
        }
    }
}

/// A signature that is made beside the commit, or before it, leaves here.
#[test]
fn without_a_quorum_nothing_is_signed_each_request_is_refused_in_time_and_it_goes_on_by_itself() {
    let mut cluster = Cluster::start();
    cluster.until_a_signs();
    cluster.hold_back_the_quorum();
    // The first is made while `a` still leads: its entry is on its own disk and on no other.
    for _ in 0..3 {
        let height = cluster.next_height();
        let began_at = Instant::now();
        let answer = cluster.a.node().ask(&prevote(height, 1, 1));
        let took = began_at.elapsed();
        let refused = answer.expect_err("no other member has the entry");
        assert!(refused.contains("no quorum is there"), "{refused}");
        assert!(took < REFUSED_WITHIN, "refused after {took:?}");
    }
    cluster.let_the_quorum_go_on();
    cluster.until_a_signs();
}
