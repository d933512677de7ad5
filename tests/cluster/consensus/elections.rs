//! Who is elected, and who never is: by our asking alone, after pre-votes, once a term.

use std::time::Duration;

use baton::base::timing::Timing;
use baton::cluster::raft::raft_config;
use baton::config::SNAPSHOT_EVERY;
use openraft::StepDownPolicy;
use tokio::time::sleep;

use super::front::Call;
use super::kit::{Cluster, Shape, candidacy, eventually, long_lease, short_lease};

/// Longer than openraft's election timeout with the short timing (at most 750 ms): for what must not happen, which
/// cannot be awaited.
const A_WHILE: Duration = Duration::from_millis(1000);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_cores_ask_for_nothing_elects_nobody() {
    let cluster = Cluster::start(Shape::arbiters(short_lease())).await;
    sleep(A_WHILE).await;
    for name in ["a", "b", "c"] {
        assert_eq!(cluster.front(name).seen(), [], "somebody called {name}");
        assert_eq!((cluster.vote_term(name), cluster.leads(name)), (0, None), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_falls_silent_is_followed_by_nobody_unless_a_core_asks() {
    let cluster = Cluster::led_by_a(Shape::arbiters(short_lease())).await;
    cluster.isolate("a");
    ["a", "b", "c"].iter().for_each(|name| cluster.front(name).forget_seen());
    sleep(A_WHILE).await;
    for name in ["a", "b", "c"] {
        assert_eq!(cluster.front(name).count(|seen| seen.call != Call::Append), 0, "somebody campaigned at {name}");
    }
    for name in ["b", "c"] {
        assert_eq!((cluster.vote_term(name), cluster.leads(name)), (1, None), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_whose_cores_are_obeyed_elect_a_leader_and_another_after_it() {
    let cluster = Cluster::start(Shape { obeys_core: true, ..Shape::arbiters(short_lease()) }).await;
    let leader = || ["a", "b", "c"].into_iter().find(|name| cluster.lease(name).is_some());
    eventually("one leads", || leader().is_some()).await;
    let first = leader().expect("just seen");
    let term = cluster.leads(first).expect("it leads");
    cluster.isolate(first);
    eventually("another one leads", || {
        ["a", "b", "c"].iter().any(|name| *name != first && cluster.leads(name).is_some_and(|later| later > term))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_against_live_promises_ends_with_the_pre_votes_and_burns_no_term() {
    let cluster = Cluster::start(Shape::arbiters(long_lease())).await;
    ["a", "b"].iter().for_each(|from| cluster.front("c").cut(from));
    cluster.at("a").consensus.campaign().await;
    eventually("a leads", || cluster.lease("a").is_some()).await;
    for round in 1..=2 {
        cluster.at("c").consensus.campaign().await;
        for name in ["a", "b"] {
            cluster.front(name).await_seen(round, |seen| seen.from == "c" && seen.call == Call::PreVote).await;
        }
    }
    sleep(Duration::from_millis(200)).await;
    for name in ["a", "b"] {
        assert_eq!(cluster.front(name).count(|seen| seen.from == "c" && seen.call == Call::Vote), 0, "at {name}");
        assert_eq!(cluster.vote_term(name), 1, "{name}");
    }
    assert!(cluster.vote_term("c") <= 1, "c went on to term {}", cluster.vote_term("c"));
    assert_eq!(cluster.leads("a"), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_cannot_be_reached_grants_no_pre_vote() {
    let cluster = Cluster::start(Shape::arbiters(long_lease())).await;
    cluster.isolate("a");
    for round in 1..=3 {
        cluster.at("a").consensus.campaign().await;
        for name in ["b", "c"] {
            // Were one of the earlier rounds won, this one would be about a later term.
            cluster.front(name).await_seen(round, |seen| seen.call == Call::PreVote && seen.term == 1).await;
        }
    }
    for name in ["b", "c"] {
        assert_eq!(cluster.front(name).count(|seen| seen.call == Call::Vote), 0, "at {name}");
    }
    assert_eq!((cluster.vote_term("a"), cluster.leads("a")), (0, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_leader_does_not_lead_again() {
    let mut cluster = Cluster::led_by_a(Shape::arbiters(short_lease())).await;
    cluster.stop_member("a").await;
    // What a sent before it stopped may still be under way.
    sleep(Duration::from_millis(200)).await;
    ["b", "c"].iter().for_each(|name| cluster.front(name).forget_seen());
    cluster.start_member("a").await;
    assert_eq!(cluster.vote_term("a"), 1, "it remembers that it led");
    sleep(A_WHILE).await;
    for name in ["b", "c"] {
        assert_eq!(cluster.front(name).seen(), [], "a called {name}");
    }
    assert_eq!(cluster.leads("a"), None);
}

/// With openraft's default kind of leader ids, c's request would beat the vote for b.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_votes_for_one_candidate_a_term() {
    let cluster = Cluster::start(Shape::arbiters(long_lease())).await;
    let first = cluster.ask_vote("a", &cluster.sender("b"), candidacy("b", 1)).await.expect("it answers");
    assert!(
        first.vote_granted,
        "{first:?}, {:?}",
        cluster.at("a").core.read(|core, now| core.may_vote(now.boot, &"b".into()))
    );
    assert!(!cluster.votes_for("a", "c", 1, false).await, "a second vote in term 1");
    let again = cluster.ask_pre_vote("a", &cluster.sender("c"), candidacy("c", 1)).await.expect("it answers");
    assert!(!again.vote_granted, "a pre-vote against its own vote of the same term");
    assert!(cluster.votes_for("a", "c", 2, false).await, "the next term is open");
}

#[test]
fn what_openraft_would_do_by_itself_is_off() {
    for timing in [Timing::LAN, Timing::WAN, long_lease(), short_lease()] {
        let config = raft_config("test", &timing, SNAPSHOT_EVERY.into()).validate().expect("openraft takes it");
        assert!(!config.enable_elect);
        assert_eq!(config.enable_pre_vote, Some(true));
        assert_eq!(config.enable_leader_restore, Some(false));
        assert!(matches!(config.removed_leader_step_down, StepDownPolicy::Never), "{config:?}");
        assert!(Duration::from_millis(config.election_timeout_max) < timing.lease(), "its lease is the shorter one");
        assert_eq!(Duration::from_millis(config.heartbeat_interval), timing.heartbeat());
        assert_eq!(Duration::from_millis(config.election_timeout_min), timing.vote_max());
    }
}
