//! Slow disks and slow answers: what they may cost is time, and never the leader.

use std::time::Duration;

use baton::base::ids::Epoch;
use baton::base::time::{BootTime, WallTime};
use baton::base::timing::Timing;
use baton::core::agreed::replicated::{Baton, Command};
use tokio::time::timeout;

use super::front::Call;
use super::kit::{Cluster, LONG, Shape, candidacy, eventually, long_lease, release};

const ALL: [&str; 3] = ["a", "b", "c"];

/// Three of them, one after the other, are longer than any member may wait for a vote; one is not.
const SLOW_SYNC: Duration = Duration::from_millis(290);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_whose_syncs_are_slow_elect_a_leader_and_another_after_it() {
    let cluster = Cluster::start(Shape { obeys_core: true, ..Shape::arbiters(Timing::LAN) }).await;
    ALL.iter().for_each(|name| cluster.disk(name).slow_down(SLOW_SYNC));
    let leader_but = |not: &str| ALL.into_iter().find(|name| *name != not && cluster.lease(name).is_some());
    eventually("one leads", || leader_but("").is_some()).await;
    let first = leader_but("").expect("just seen");
    let term = cluster.leads(first).expect("it leads");
    cluster.isolate(first);
    eventually("another one leads", || leader_but(first).is_some_and(|name| cluster.leads(name) > Some(term))).await;
    let last = ALL.map(|name| cluster.vote_term(name)).into_iter().max().expect("three");
    // Candidates that stand within one sync of each other split the votes, several times in a row on a busy machine.
    assert!(last <= 40, "two leaders took {last} terms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_lives_on_answers_that_come_later_than_raft_waits_for_them() {
    // Raft waits for 112 ms.
    let ms = Duration::from_millis;
    let timing = Timing::new(ms(150), ms(2000), ms(50), 1000).expect("safe");
    let cluster = Cluster::led_by_a(Shape::arbiters(timing)).await;
    cluster.front("c").cut("a");
    cluster.front("b").rule(|rules| rules.late = ms(200));
    let core = &cluster.at("a").core;
    let (mut steps, began_at) = (core.steps(), BootTime::now());
    let longest = timing.lease_min() - timing.kill_max();
    while BootTime::now().since(began_at) < longest + timing.lease() / 2 {
        let _ = timeout(ms(50), steps.changed()).await;
        let left = core.read(|core, now| core.lease_remaining(now.boot));
        assert!(left.is_some(), "the lease was lost after {:?}", BootTime::now().since(began_at));
    }
    let committed = timeout(LONG, cluster.at("a").consensus.propose(release(0))).await.expect("an answer");
    committed.expect("Raft knows that it is followed, too");
}

/// What it sends arrives, and nothing comes back: each heartbeat that arrives would keep the others loyal for another
/// lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_nothing_sends_no_heartbeats_until_it_is_answered_or_two_leases_have_passed() {
    let ms = Duration::from_millis;
    let timing = Timing::new(ms(150), ms(3000), ms(50), 1000).expect("safe");
    let cluster = Cluster::led_by_a(Shape::arbiters(timing)).await;
    let answers_late_by = |late| ["b", "c"].iter().for_each(|name| cluster.front(name).rule(|rules| rules.late = late));
    answers_late_by(10 * LONG);
    ["b", "c"].iter().for_each(|name| cluster.front(name).forget_seen());
    eventually("a's lease is over", || cluster.lease("a").is_none()).await;
    for name in ["b", "c"] {
        let sent = cluster.front(name).count(|seen| seen.call == Call::Append && seen.from == "a");
        // One that was not late yet, the one that is owed an answer, and one beside that.
        assert!(sent <= 3, "{name} got {sent} heartbeats in a lease without an answer");
    }
    answers_late_by(Duration::ZERO);
    eventually("a is answered again", || cluster.lease("a").is_some()).await;
}

/// Each copy of an entry that nobody acknowledges would keep the others loyal, as a heartbeat would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_nothing_repeats_no_entries_until_it_is_answered_or_two_leases_have_passed() {
    let ms = Duration::from_millis;
    let timing = Timing::new(ms(150), ms(3000), ms(50), 1000).expect("safe");
    let cluster = Cluster::led_by_a(Shape::arbiters(timing)).await;
    let answers_late_by = |late| ["b", "c"].iter().for_each(|name| cluster.front(name).rule(|rules| rules.late = late));
    answers_late_by(10 * LONG);
    ["b", "c"].iter().for_each(|name| cluster.front(name).forget_seen());
    let consensus = cluster.at("a").consensus.clone();
    let proposed = tokio::spawn(async move { consensus.propose(release(0)).await });
    eventually("a's lease is over", || cluster.lease("a").is_none()).await;
    let began_at = BootTime::now();
    let sent = |name: &str| cluster.front(name).count(|seen| seen.call == Call::Append && seen.from == "a");
    let all = ["b", "c"].map(sent);
    // An entry is given up after half a lease, and would be sent again.
    eventually("half a lease more has passed", || BootTime::now().since(began_at) > timing.lease() / 2).await;
    let later = ["b", "c"].map(sent);
    assert!(all == later && later.iter().all(|sent| *sent <= 4), "{all:?} and then {later:?} requests in two leases");
    answers_late_by(Duration::ZERO);
    let committed = timeout(LONG, proposed).await.expect("an answer").expect("no panic");
    committed.expect("b and c are asked again");
}

/// Its own question says that its way to the leader is open again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_asks_for_a_vote_is_heard_while_the_lease_lives() {
    let ms = Duration::from_millis;
    let timing = Timing::new(ms(150), ms(6000), ms(50), 1000).expect("safe");
    let cluster = Cluster::led_by_a(Shape::arbiters(timing)).await;
    cluster.front("b").rule(|rules| rules.late = 10 * LONG);
    let sent = || cluster.front("b").count(|seen| seen.call == Call::Append && seen.from == "a");
    let began_at = BootTime::now();
    eventually("a is silent to b", || BootTime::now().since(began_at) > timing.heartbeat() * 10).await;
    let before = sent();
    let asked = cluster.ask_pre_vote("a", &cluster.sender("b"), candidacy("b", 1)).await.expect("it answers");
    assert!(!asked.vote_granted && cluster.lease("a").is_some(), "{asked:?}");
    let asked_at = BootTime::now();
    eventually("b is sent a heartbeat", || sent() > before).await;
    assert!(BootTime::now().since(asked_at) < timing.lease(), "that is what it would be sent anyway");
}

/// Appends and votes exclude each other; behind a disk that stands still, the appends that come later would
/// wait for the vote, and the vote for the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_that_the_gate_refuses_waits_for_no_disk() {
    let cluster = Cluster::led_by_a(Shape::arbiters(long_lease())).await;
    let disk = cluster.disk("c").clone();
    disk.stop();
    // No `Release`: c hears that it is committed, and would be free to vote.
    let claim = Command::Baton(Baton::Claim {
        epoch: Epoch(1),
        member: "a".into(),
        reason: "test".into(),
        at: WallTime::now(),
    });
    let consensus = cluster.at("a").consensus.clone();
    let proposed = tokio::spawn(async move { consensus.propose(claim).await });
    eventually("c's disk is waited for", || disk.waiting() > 0).await;
    let b = cluster.sender("b");
    let answer = timeout(LONG / 4, cluster.ask_vote("c", &b, candidacy("b", 2))).await;
    let still_waiting = disk.waiting();
    disk.go_on();
    let answer = answer.expect("an answer while the disk stands still").expect("it answers");
    assert!(!answer.vote_granted && still_waiting > 0, "{answer:?}, {still_waiting} syncs waited");
    proposed.await.expect("no panic").expect("committed by a and b");
}
