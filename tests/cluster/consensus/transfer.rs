//! Planned moves of the lead: nothing is waived without a `Release`, and everything that must be with one.

use std::time::Duration;

use baton::base::time::BootTime;
use baton::cluster::wire::{LogId, TransferAnswer, Vote};
use openraft::raft::TransferLeaderRequest;
use openraft::vote::leader_id_std::CommittedLeaderId;
use tokio::time::sleep;

use super::front::Call;
use super::kit::{Cluster, Shape, eventually, long_lease, release};

/// What a, leader of term 1, would send to have b lead.
fn offer_of_a() -> TransferLeaderRequest<baton::cluster::wire::TypeConfig> {
    let last_log = LogId { leader_id: CommittedLeaderId::new(1), index: 1 };
    TransferLeaderRequest::new(Vote::new_committed(1, "a".into()), "b".into(), Some(last_log))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_release_an_offer_of_the_lead_is_refused() {
    let cluster = Cluster::led_by_a(Shape::arbiters(long_lease())).await;
    let answer = cluster.offer_lead("b", &cluster.sender("a"), offer_of_a()).await.expect("it answers");
    let TransferAnswer::Refused(reason) = answer else { panic!("b accepted the offer") };
    assert!(reason.contains("promised to a for"), "{reason}");
    cluster.at("a").consensus.transfer_lead("b".into()).await;
    cluster.front("b").await_seen(1, |seen| seen.call == Call::Transfer).await;
    // Longer than the offer waits for a `Release` that it may have overtaken.
    sleep(Duration::from_millis(300)).await;
    for name in ["a", "c"] {
        assert_eq!(cluster.front(name).count(|seen| seen.from == "b" && seen.call == Call::Vote), 0, "at {name}");
    }
    assert_eq!((cluster.vote_term("b"), cluster.leads("b")), (1, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_release_the_lead_moves_inside_all_promises_but_only_once() {
    let cluster = Cluster::led_by_a(Shape::arbiters(long_lease())).await;
    cluster.at("a").consensus.propose(release(0)).await.expect("committed");
    cluster.at("a").consensus.transfer_lead("b".into()).await;
    eventually("b leads term 2 with a lease", || cluster.leads("b") == Some(2) && cluster.lease("b").is_some()).await;
    eventually("c follows it", || cluster.vote_term("c") == 2).await;
    assert_eq!(cluster.leads("a"), None);
    // The Release was of term 1 (rule W): what c promises in term 2 it keeps.
    cluster.isolate("b");
    sleep(Duration::from_millis(250)).await;
    for transfer in [false, true] {
        assert!(!cluster.votes_for("c", "a", 3, transfer).await, "leadership_transfer = {transfer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_that_overtakes_the_release_succeeds() {
    // The offer waits for 100 ms only, which a busy machine can miss; without the wait it never succeeds.
    for _ in 0..3 {
        let cluster = Cluster::led_by_a(Shape::arbiters(long_lease())).await;
        cluster.front("b").rule(|rules| rules.hold_appends = true);
        cluster.at("a").consensus.propose(release(0)).await.expect("committed by a and c");
        cluster.at("a").consensus.transfer_lead("b".into()).await;
        cluster.front("b").await_seen(1, |seen| seen.call == Call::Transfer).await;
        sleep(Duration::from_millis(20)).await;
        cluster.front("b").rule(|rules| rules.hold_appends = false);
        if within_two_seconds(|| cluster.leads("b") == Some(2)).await {
            return;
        }
    }
    panic!("three offers that overtook the Release were refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_request_that_overtakes_the_release_is_granted() {
    for _ in 0..3 {
        let cluster = Cluster::led_by_a(Shape::arbiters(long_lease())).await;
        // Without a's own vote, b needs c's.
        cluster.front("a").cut("b");
        cluster.front("c").rule(|rules| rules.hold_appends = true);
        cluster.at("a").consensus.propose(release(0)).await.expect("committed by a and b");
        cluster.at("a").consensus.transfer_lead("b".into()).await;
        cluster.front("c").await_seen(1, |seen| seen.from == "b" && seen.call == Call::Vote).await;
        sleep(Duration::from_millis(20)).await;
        cluster.front("c").rule(|rules| rules.hold_appends = false);
        if within_two_seconds(|| cluster.leads("b") == Some(2)).await {
            return;
        }
    }
    panic!("three vote requests that overtook the Release were refused");
}

async fn within_two_seconds(condition: impl Fn() -> bool) -> bool {
    let began_at = BootTime::now();
    while !condition() {
        if BootTime::now().since(began_at) > Duration::from_secs(2) {
            return false;
        }
        sleep(Duration::from_millis(5)).await;
    }
    true
}
