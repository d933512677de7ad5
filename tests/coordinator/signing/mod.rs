//! Where the log decides what is signed: what a chain node is answered by the coordinators of three hosts, each with a
//! real signer.

mod kit;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use kit::{Cluster, HELD, Host, answer_probes, prevote};

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

/// Looks for the holder and does `what` there at a height of its own, until the baton has not moved meanwhile.
fn with_holder<T>(cluster: &mut Cluster, what: impl Fn(&mut Cluster, i64) -> Option<T>) -> T {
    let began_at = Instant::now();
    loop {
        cluster.find_holder();
        let height = cluster.next_height();
        if let Some(done) = what(cluster, height) {
            return done;
        }
        assert!(began_at.elapsed() < SETTLED_WITHIN, "the baton moves all the time");
    }
}

#[test]
fn both_nodes_get_the_first_signature_of_a_place_and_another_content_there_gets_none() {
    let mut cluster = Cluster::start();
    let ask =
        |cluster: &mut Cluster, height| Some((height, cluster.holder().node().ask(&prevote(height, 1, 10)).ok()?));
    let (height, given) = with_holder(&mut cluster, ask);
    assert_eq!(given.0.seconds, 10);
    assert_eq!(cluster.holder().node().ask(&prevote(height, 1, 11)), Ok(given.clone()), "again, at a later time");
    // The signer of the standby has no mark of its own: it gets it from the log.
    assert_eq!(cluster.standby().node().ask_along(&prevote(height, 1, 12)), Ok(given), "the node of the other host");
    for host in [Cluster::holder, Cluster::standby] {
        let refused = host(&mut cluster).node().ask(&prevote(height, 2, 10)).expect_err("another content");
        assert!(refused.contains("conflicting data"), "{refused}");
        let refused = host(&mut cluster).node().ask(&prevote(height - 1, 9, 10)).expect_err("a place below");
        assert!(refused.contains("step regression"), "{refused}");
    }
}

/// Beside its coordinator, with what that knows; without one, with what the store knows.
#[test]
fn another_key_than_the_agreed_one_is_refused_with_its_file_and_both_keys() {
    let mut cluster = Cluster::start();
    cluster.find_holder();
    let (agreed, other) = (cluster.agreed_key(), "ed25519:UjxDQgVTlHJOZ7axpMl/iczMIJXiQpFxCFjwKGvzYqE=");
    let host = cluster.standby();
    host.give_another_key();
    let key = host.path("key");
    let line = format!("signer.key {} is the key {other}, and the cluster has agreed on {agreed}; put", key.display());
    let refused = |host: &Host, command: &str| {
        let output = host.baton(&[command]).output().expect("it runs");
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(told.contains(&line), "{command}: {told}");
        assert!(!output.status.success(), "{command}: {told}");
    };
    refused(host, "check");
    host.kill();
    refused(host, "check");
    refused(host, "run");
}

#[test]
fn a_standby_waits_for_the_node_of_the_holder_and_then_votes_along() {
    let mut cluster = Cluster::start();
    with_holder(&mut cluster, |cluster, height| {
        // It asks first, and for something else than the one that is answered.
        cluster.standby().node().send(&prevote(height, 2, 20));
        let given = cluster.holder().node().ask(&prevote(height, 1, 21));
        let of_standby = cluster.standby().node().answer();
        given.as_ref().ok()?;
        assert!(of_standby.is_err(), "two contents at {height}: {given:?} and {of_standby:?}");
        assert_eq!(cluster.standby().node().ask_along(&prevote(height, 1, 22)), given);
        Some(())
    });
}

#[test]
fn a_sentry_steps_back_behind_the_node_of_the_holder_and_is_signed_for_when_that_one_is_silent() {
    let mut cluster = Cluster::start();
    cluster.find_holder();
    let sentry = RefCell::new(cluster.sentry());
    with_holder(&mut cluster, |cluster, height| {
        sentry.borrow_mut().send(&prevote(height, 2, 30));
        let of_holder = cluster.holder().node().ask(&prevote(height, 1, 31));
        let of_sentry = sentry.borrow_mut().answer();
        assert!(of_holder.is_err() || of_sentry.is_err(), "two contents: {of_holder:?} and {of_sentry:?}");
        of_holder.ok()
    });
    with_holder(&mut cluster, |_, height| {
        let asked_at = Instant::now();
        sentry.borrow_mut().ask(&prevote(height, 2, 30)).ok()?;
        assert!(asked_at.elapsed() >= Duration::from_millis(200), "after {:?}", asked_at.elapsed());
        Some(())
    });
}

/// A signature that is made beside the commit, or before it, leaves here.
#[test]
fn without_a_quorum_nothing_is_signed_each_request_is_refused_in_time_and_it_goes_on_by_itself() {
    let mut cluster = Cluster::start();
    cluster.find_holder();
    cluster.hold_back_the_quorum();
    // The first is made while the holder still leads: its entry is on its own disk and on no other.
    for _ in 0..3 {
        let vote = prevote(cluster.next_height(), 1, 1);
        let began_at = Instant::now();
        let answer = cluster.holder().node().ask(&vote);
        let took = began_at.elapsed();
        let refused = answer.expect_err("no other member has the entry");
        assert!(refused.contains(HELD), "{refused}");
        assert!(took < REFUSED_WITHIN, "refused after {took:?}");
    }
    cluster.let_the_quorum_go_on();
    cluster.find_holder();
}

/// Its entry is on its own disk alone when it freezes, and the others hear of that as they like.
#[test]
fn a_host_that_was_frozen_over_its_request_signs_nothing_once_it_thaws() {
    let mut cluster = Cluster::start();
    cluster.find_holder();
    cluster.hold_back_the_quorum();
    let vote = prevote(cluster.next_height(), 1, 1);
    cluster.holder().node().send(&vote);
    cluster.freeze_the_holder();
    cluster.let_the_quorum_go_on();
    cluster.await_another_holder();
    cluster.thaw_the_last_holder();
    let refused = cluster.standby().node().answer().expect_err("it was asked for long ago");
    assert!([HELD, "too late", "step regression"].iter().any(|why| refused.contains(why)), "{refused}");
}
