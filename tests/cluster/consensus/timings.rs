//! Members that are configured with different `[timing]`: whoever follows promises for the longer lease, also over a
//! restart, and no lease rests on a promise that is shorter, or that nobody gave.

use std::time::Duration;

use baton::base::timing::Timing;
use tokio::time::sleep;

use super::kit::{Cluster, Shape, eventually, patient_lease, short_lease};

/// The lease of a is longer than those of b and c.
fn a_has(timing: Timing) -> Shape {
    let mut shape = Shape::arbiters(short_lease());
    shape.timings.insert("a".into(), timing);
    shape
}

fn minute() -> Timing {
    let ms = Duration::from_millis;
    Timing::new(ms(400), Duration::from_secs(60), ms(50), 1000).expect("safe")
}

/// What a follower promised by its own configuration alone is over.
async fn outlive_the_shorter_promise() {
    sleep(short_lease().promise() + Duration::from_millis(200)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_with_a_shorter_lease_elect_nobody_inside_the_longer_one_of_their_leader() {
    let cluster = Cluster::led_by_a(a_has(minute())).await;
    cluster.isolate("a");
    outlive_the_shorter_promise().await;
    assert!(cluster.lease("a").is_some_and(|left| left > short_lease().lease()), "{:?}", cluster.lease("a"));
    for (voter, candidate) in [("b", "c"), ("c", "b")] {
        assert!(!cluster.votes_for(voter, candidate, 2, false).await, "{voter} votes inside the lease of a");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_restarted_keeps_the_longer_promise() {
    let mut cluster = Cluster::led_by_a(a_has(minute())).await;
    cluster.isolate("a");
    cluster.stop_member("b").await;
    cluster.start_member("b").await;
    outlive_the_shorter_promise().await;
    assert!(cluster.lease("a").is_some());
    assert!(!cluster.votes_for("b", "c", 2, false).await, "b has forgotten what it promised to a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_own_lease_was_made_shorter_keeps_what_it_promised_before() {
    let mut shape = Shape::arbiters(short_lease());
    shape.timings.extend(["a", "b", "c"].map(|name| (name.into(), minute())));
    let mut cluster = Cluster::led_by_a(shape).await;
    cluster.isolate("a");
    cluster.stop_member("b").await;
    cluster.set_timing("b", short_lease());
    cluster.start_member("b").await;
    outlive_the_shorter_promise().await;
    assert!(cluster.lease("a").is_some());
    assert!(!cluster.votes_for("b", "c", 2, false).await, "b takes its new lease for the one that it promised");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_the_shorter_lease_loses_nothing_by_the_longer_one_of_its_followers() {
    let mut shape = Shape::arbiters(patient_lease());
    shape.timings.insert("b".into(), minute());
    shape.timings.insert("c".into(), minute());
    let cluster = Cluster::led_by_a(shape).await;
    let longest = patient_lease().lease_min() - patient_lease().kill_max();
    eventually("a has a lease by its own timing", || cluster.lease("a").is_some_and(|left| left <= longest)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_promise_nothing_make_no_lease_until_one_says_for_how_long() {
    let cluster = Cluster::start(Shape::arbiters(patient_lease())).await;
    ["b", "c"].iter().for_each(|name| cluster.front(name).rule(|rules| rules.silent = true));
    cluster.at("a").consensus.campaign().await;
    let follow_a = || cluster.leaders().iter().all(|known| *known == (Some("a".into()), 1));
    eventually("a leads and all follow it", || cluster.leads("a") == Some(1) && follow_a()).await;
    let answering = || cluster.at("a").core.read(|core, now| core.answering(now.boot)).len();
    eventually("a has been answered by all", || answering() == 3).await;
    assert_eq!(cluster.lease("a"), None, "by promises that nobody gave");
    cluster.front("c").rule(|rules| rules.silent = false);
    eventually("c's promise makes a lease", || cluster.lease("a").is_some()).await;
}
