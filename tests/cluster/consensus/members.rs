//! Changes of the membership in a cluster that runs: over which voters a lease is counted, who may vote and lead,
//! and what becomes of a change whose leader is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use baton::cluster::wire::{Entry, LogId, Membership};
use baton::core::agreed::members::Change;
use baton::core::agreed::replicated::Command;
use baton::core::fences::votes::Refusal;
use baton::core::{Action, Event};
use openraft::EntryPayload;
use openraft::vote::leader_id_std::CommittedLeaderId;
use tokio::time::{sleep, timeout};

use super::front::Call;
use super::kit::{Cluster, Shape, candidacy, eventually, long_lease, patient_lease, release, short_lease};

fn promote(id: &str) -> Change {
    Change::Promote { id: id.into() }
}

fn remove(id: &str) -> Change {
    Change::Remove { id: id.into() }
}

/// a leads a, b and c, and d has the log without a vote.
async fn with_learner_d(shape: Shape) -> Cluster {
    let mut cluster = Cluster::led_by_a(shape).await;
    cluster.start_joiner("d").await;
    cluster.change("a", cluster.addition("d")).await;
    eventually("d has the log", || cluster.at("a").consensus.behind(&"d".into()) == Some(0)).await;
    cluster
}

fn voters(cluster: &Cluster, at: &str) -> Vec<String> {
    let members = cluster.at(at).consensus.members();
    members.voters.iter().map(|set| set.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_after_the_other_a_member_is_added_promoted_and_another_removed_while_the_lease_lives() {
    let cluster = with_learner_d(Shape::arbiters(long_lease())).await;
    assert_eq!(voters(&cluster, "a"), ["a b c"]);
    cluster.change("a", promote("d")).await;
    eventually("d knows of its vote", || voters(&cluster, "d") == ["a b c d"]).await;
    cluster.change("a", remove("b")).await;
    assert_eq!(voters(&cluster, "a"), ["a c d"]);
    assert_eq!(cluster.leads("a"), Some(1));
    assert!(cluster.lease("a").is_some());
    cluster.front("c").cut("a");
    cluster.at("a").consensus.propose(release(0)).await.expect("a and d are a quorum now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joint_membership_that_is_not_acknowledged_carries_no_lease_and_ends_well() {
    let cluster = with_learner_d(Shape::arbiters(short_lease())).await;
    // a and d are no majority of a, b and c; with d they were one of the new voters, were c to answer.
    cluster.front("b").cut("a");
    cluster.front("c").cut("a");
    let made = timeout(Duration::from_millis(500), cluster.at("a").consensus.change_members(promote("d"))).await;
    assert!(made.is_err(), "{made:?}");
    assert_eq!(voters(&cluster, "a"), ["a b c", "a b c d"]);
    eventually("a's lease runs out", || cluster.lease("a").is_none()).await;
    cluster.join_again();
    eventually("a has a lease again", || cluster.lease("a").is_some()).await;
    completed(&cluster, "a", "a b c d").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_being_removed_when_it_was_elected_takes_the_removal_back() {
    let mut cluster = Cluster::led_by_a(Shape::arbiters(short_lease())).await;
    // Only a and c hear of c's removal.
    cluster.front("b").cut("a");
    let made = timeout(Duration::from_millis(400), cluster.at("a").consensus.change_members(remove("c"))).await;
    assert!(made.is_err(), "it needs b: {made:?}");
    eventually("c has the joint membership", || voters(&cluster, "c") == ["a b c", "a b"]).await;
    // Without a, b and c are a majority of the three and none of the two.
    cluster.stop_member("a").await;
    let lets_pass = |name: &str| cluster.at(name).core.read(|core, now| core.may_vote(now.boot, &"c".into())).is_ok();
    eventually("their promises run out", || lets_pass("b") && lets_pass("c")).await;
    cluster.front("b").forget_seen();
    cluster.at("c").consensus.campaign().await;
    cluster.front("b").await_seen(1, |seen| seen.from == "c" && seen.call == Call::PreVote).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!((cluster.leads("c"), cluster.vote_term("b")), (None, 1));

    cluster.join_again();
    cluster.start_member("a").await;
    let lets_pass = |name: &str| cluster.at(name).core.read(|core, now| core.may_vote(now.boot, &"c".into())).is_ok();
    eventually("c leads", || {
        if lets_pass("a") && lets_pass("b") && lets_pass("c") && cluster.leads("c").is_none() {
            let consensus = cluster.at("c").consensus.clone();
            tokio::spawn(async move { consensus.campaign().await });
        }
        cluster.lease("c").is_some()
    })
    .await;
    completed(&cluster, "c", "a b c").await;
}

/// As the driver does: `leader` ends a joint membership. The first attempts come before that is committed.
async fn completed(cluster: &Cluster, leader: &str, whole: &str) {
    for _ in 0..400 {
        let _ = cluster.at(leader).consensus.complete_change().await;
        if voters(cluster, leader) == [whole] {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{leader} leads {:?}", voters(cluster, leader));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_neither_leads_nor_asks_for_votes() {
    let cluster = with_learner_d(Shape { obeys_core: true, ..Shape::arbiters(short_lease()) }).await;
    let d = cluster.at("d");
    assert_eq!(d.core.read(|core, now| core.may_campaign(now.boot)), Err(Refusal::NoVoter));
    for name in ["a", "b", "c"] {
        cluster.front(name).forget_seen();
    }
    cluster.isolate("d");
    eventually("its promise runs out", || d.core.read(|core, now| core.may_vote(now.boot, &"x".into())).is_ok()).await;
    d.consensus.campaign().await;
    sleep(Duration::from_secs(1)).await;
    for name in ["a", "b", "c"] {
        let asked = cluster.front(name).count(|seen| seen.from == "d");
        assert_eq!(asked, 0, "d asked {name}");
    }
    assert!(!d.asked.lock().expect("no panic in here").contains(&Action::Campaign));
}

/// openraft takes any set of answers for a quorum of no voters at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_waits_to_be_added_elects_neither_itself_nor_anybody_else() {
    let mut cluster = Cluster::led_by_a(Shape { obeys_core: true, ..Shape::arbiters(patient_lease()) }).await;
    cluster.start_joiner("d").await;
    let d = cluster.at("d");
    d.core.step(Event::Tick);
    d.consensus.campaign().await;
    assert!(!cluster.votes_for("d", "b", 7, false).await);
    let pre_vote = cluster.ask_pre_vote("d", &cluster.sender("b"), candidacy("b", 7)).await.expect("it answers");
    assert!(!pre_vote.vote_granted);
    sleep(Duration::from_millis(500)).await;
    assert_eq!((cluster.leads("d"), cluster.vote_term("d")), (None, 0));
    assert_eq!(d.core.read(|core, now| core.may_vote(now.boot, &"b".into())), Err(Refusal::NoMember));
}

/// openraft's documentation: a log that is replayed from the start passes through memberships in which an earlier
/// store of the name had a vote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_store_has_no_vote_before_its_log_says_that_it_was_added() {
    let mut cluster = Cluster::led_by_a(Shape::arbiters(short_lease())).await;
    let old_store = cluster.at("b").incarnation;
    cluster.change("a", remove("b")).await;
    cluster.stop_member("b").await;
    cluster.wipe("b");
    cluster.set_joins("b");
    cluster.start_member("b").await;
    assert_ne!(cluster.at("b").incarnation, old_store);

    // As a replay would begin, of which nothing more arrives: the first membership, with b in it.
    cluster.append_as("a", "b", 1, vec![first_entry(&cluster)]).await.expect("it answers");
    eventually("b has the first membership", || voters(&cluster, "b") == ["a b c"]).await;
    let b = cluster.at("b");
    assert_eq!(b.core.read(|core, now| core.may_vote(now.boot, &"c".into())), Err(Refusal::NoMember));
    assert!(!cluster.votes_for("b", "c", 9, true).await);

    // Also after a restart, which its store remembers by itself.
    cluster.stop_member("b").await;
    cluster.start_member("b").await;
    let b = cluster.at("b");
    assert_eq!(b.core.read(|core, now| core.may_vote(now.boot, &"c".into())), Err(Refusal::NoMember));

    cluster.change("a", cluster.addition("b")).await;
    let has_vote = || cluster.at("b").core.read(|core, _| core.is_voter(&"b".into()));
    eventually("b has come to its removal", || !has_vote()).await;
    cluster.change("a", promote("b")).await;
    eventually("b has a vote", has_vote).await;
    let knows = |at: &str| cluster.at(at).consensus.members().all[&"b".into()].incarnation;
    assert_eq!(knows("c"), Some(cluster.at("b").incarnation), "and everybody knows with which store");
}

/// The one with which a, b and c began.
fn first_entry(cluster: &Cluster) -> Entry {
    let membership = cluster.at("a").store.applied().borrow().membership.membership().clone();
    let mut all: BTreeMap<_, _> = membership.nodes().map(|(id, node)| (id.clone(), node.clone())).collect();
    all.insert("b".into(), all[&"c".into()].clone());
    let log_id = LogId { leader_id: CommittedLeaderId::new(0), index: 0 };
    Entry { log_id, payload: EntryPayload::Membership(Membership::from(all)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_store_of_a_member_that_was_replaced_is_refused_and_a_removed_member_disturbs_nobody() {
    let mut cluster = Cluster::led_by_a(Shape::arbiters(short_lease())).await;
    let old = cluster.sender("b");
    cluster.change("a", remove("b")).await;
    // It still runs, knows nothing of its removal and campaigns once its promise is over.
    eventually("b's promise runs out", || cluster.at("b").core.read(|core, now| core.may_campaign(now.boot)).is_ok())
        .await;
    for round in 1..=3 {
        cluster.at("b").consensus.campaign().await;
        cluster.front("c").await_seen(round, |seen| seen.from == "b" && seen.call == Call::PreVote).await;
    }
    assert_eq!((cluster.leads("a"), cluster.vote_term("c")), (Some(1), 1));

    cluster.stop_member("b").await;
    cluster.wipe("b");
    cluster.set_joins("b");
    cluster.start_member("b").await;
    cluster.change("a", cluster.addition("b")).await;
    eventually("c knows of it", || cluster.at("c").consensus.members().all.contains_key(&"b".into())).await;
    let refused = cluster.ask_vote("c", &old, candidacy("b", 9)).await.expect_err("its copy must not count");
    assert!(refused.message().contains("it was wiped or copied"), "{}", refused.message());
    let join = Command::Join { member: "b".into(), incarnation: old.incarnation };
    let joined = cluster.at("a").consensus.propose(join).await.expect("committed");
    let refused = cluster.ask_vote("c", &old, candidacy("b", 9)).await.expect_err("what was added counts");
    assert!(refused.message().contains("it was wiped or copied"), "{joined:?}: {}", refused.message());
}

/// Raft: whoever was away during the change may be needed by those who came meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_missed_the_change_votes_for_one_whom_it_does_not_know() {
    let mut cluster = Cluster::led_by_a(Shape::arbiters(short_lease())).await;
    // All have applied the first entry, which says who the founders were.
    cluster.at("a").consensus.propose(release(0)).await.expect("committed");
    let knows_founders = |name: &str| !cluster.at(name).store.applied().borrow().replicated.founders.is_empty();
    eventually("c knows the founders", || knows_founders("c")).await;
    cluster.stop_member("c").await;
    cluster.start_joiner("d").await;
    cluster.change("a", cluster.addition("d")).await;
    cluster.change("a", promote("d")).await;
    cluster.change("a", remove("b")).await;
    eventually("d has it all", || voters(&cluster, "d") == ["a c d"]).await;
    cluster.stop_member("a").await;
    cluster.stop_member("b").await;
    cluster.start_member("c").await;
    assert_eq!(voters(&cluster, "c"), ["a b c"]);
    eventually("d leads by c's vote", || {
        let may = |name: &str| cluster.at(name).core.read(|core, now| core.may_vote(now.boot, &"d".into())).is_ok();
        if cluster.leads("d").is_none() && may("c") && may("d") {
            let consensus = cluster.at("d").consensus.clone();
            tokio::spawn(async move { consensus.campaign().await });
        }
        cluster.lease("d").is_some()
    })
    .await;
    eventually("c follows it", || voters(&cluster, "c") == ["a c d"]).await;
}
