//! Members that were away while the log was purged: a snapshot takes the place of the entries that they missed, and
//! opens and closes the vote gate as those would have.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use baton::core::agreed::replicated::{Command, Set};
use baton::core_handle::SharedCore;
use tokio::time::sleep;

use super::front::Call;
use super::kit::{Cluster, LONG, Shape, eventually, long_lease, patient_lease, release};

/// Applied entries between two snapshots.
const EVERY: u64 = 4;

fn with_snapshots(shape: Shape) -> Shape {
    Shape { snapshot_every: EVERY, ..shape }
}

/// Has `leader` commit so many entries that those before them are purged.
async fn fill_the_log(cluster: &Cluster, leader: &str) -> Result<(), String> {
    for priority in 0..4 * EVERY as u32 {
        let order = Command::Set(Set::Priority { member: "a".into(), priority: Some(priority) });
        cluster.at(leader).consensus.propose(order).await?;
    }
    Ok(())
}

fn got_snapshot(cluster: &Cluster, name: &str) -> bool {
    cluster.front(name).count(|seen| seen.call == Call::Snapshot) > 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_holds_the_release_opens_the_gate_as_the_entry_would() {
    let cluster = Cluster::led_by_a(with_snapshots(Shape::arbiters(long_lease()))).await;
    assert!(!cluster.votes_for("c", "b", 2, false).await, "c has promised a");
    cluster.isolate("c");
    cluster.at("a").consensus.propose(release(0)).await.expect("committed");
    fill_the_log(&cluster, "a").await.expect("committed");
    cluster.join_again();
    let last = cluster.at("a").store.applied().borrow().last_applied;
    eventually("c has applied all", || cluster.at("c").store.applied().borrow().last_applied >= last).await;
    assert!(got_snapshot(&cluster, "c"), "c got the entries themselves: {:?}", cluster.front("c").seen());
    let opened = || cluster.at("c").core.read(|core, now| core.may_vote(now.boot, &"b".into()).is_ok());
    eventually("the gate of c is open by rule W", opened).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_reported_after_the_next_leader_was_accepted_does_not_make_its_own_leader_electable() {
    let cluster = Cluster::led_by_a(with_snapshots(Shape::arbiters(long_lease()))).await;
    cluster.isolate("c");
    fill_the_log(&cluster, "a").await.expect("committed");
    cluster.front("c").forget_seen();
    cluster.disk("c").stop();
    let applied = |name| cluster.at(name).store.applied().borrow().last_applied;
    let before = applied("c");
    cluster.join_again();
    eventually("c writes the snapshot of a", || got_snapshot(&cluster, "c") && cluster.disk("c").waiting() > 0).await;
    // Of what follows, c hears what b sends it and nothing else.
    cluster.front("c").cut("a");
    cluster.pause("c").stop();
    cluster.disk("c").go_on();
    eventually("c has the snapshot", || applied("c") > before).await;
    cluster.at("a").consensus.propose(release(0)).await.expect("committed");
    cluster.at("a").consensus.transfer_lead("b".into()).await;
    eventually("b leads with a lease", || cluster.leads("b") == Some(2) && cluster.lease("b").is_some()).await;
    let loyal_to_b = || cluster.at("c").core.read(|core, now| core.may_vote(now.boot, &"b".into()).is_ok());
    eventually("c has promised b", || cluster.vote_term("c") == 2 && loyal_to_b()).await;
    cluster.isolate("b");

    assert_eq!(cluster.pause("c").ended(), 0, "the snapshot of a is reported before b is accepted");
    cluster.pause("c").go_on();
    eventually("c has reported the snapshot of a", || cluster.pause("c").ended() > 0).await;
    assert!(cluster.lease("b").is_some());
    // Asked as by whom the lead was given to, which Raft's own lease does not refuse.
    assert!(!cluster.votes_for("c", "a", 3, true).await, "c votes for a inside the lease of b");
}

/// Never two of these have a lease at one moment.
async fn watch_leases(cores: Vec<Arc<SharedCore>>, ended: Arc<AtomicBool>) {
    while !ended.load(Ordering::Relaxed) {
        // The later one is read last: a lease that has ended meanwhile is not counted.
        let holders: Vec<_> = cores.iter().filter(|core| has_lease(core)).collect();
        let still: Vec<_> = holders.into_iter().filter(|core| has_lease(core)).collect();
        assert!(still.len() <= 1, "{} members have a lease at once", still.len());
        sleep(Duration::from_millis(1)).await;
    }
}

fn has_lease(core: &Arc<SharedCore>) -> bool {
    core.read(|core, now| core.lease_remaining(now.boot).is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_that_change_while_snapshots_are_sent_never_have_a_lease_at_once() {
    let shape = Shape { obeys_core: true, ..with_snapshots(Shape::arbiters(patient_lease())) };
    let cluster = Cluster::start(shape).await;
    let names = ["a", "b", "c"];
    let ended = Arc::new(AtomicBool::new(false));
    let cores = names.iter().map(|name| cluster.at(name).core.clone()).collect();
    let watch = tokio::spawn(watch_leases(cores, ended.clone()));
    let leader = || names.into_iter().find(|name| cluster.lease(name).is_some());
    for away in ["a", "b"] {
        eventually("somebody has a lease", || leader().is_some()).await;
        // Whoever leads then is cut off while the one that was away is still being sent a snapshot.
        cluster.isolate(away);
        eventually("somebody else has a lease", || leader().is_some_and(|name| name != away)).await;
        // On a busy machine, more than one leader may be needed for that.
        let fill = async {
            loop {
                let leading = leader();
                match leading {
                    Some(name) if fill_the_log(&cluster, name).await.is_ok() => return name,
                    Some(_) | None => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let leading = tokio::time::timeout(LONG, fill).await.expect("entries are committed");
        cluster.front(away).forget_seen();
        cluster.join_again();
        eventually("a snapshot is under way", || got_snapshot(&cluster, away)).await;
        cluster.isolate(leading);
        eventually("another leader has a lease", || leader().is_some_and(|name| name != leading)).await;
        cluster.join_again();
    }
    ended.store(true, Ordering::Relaxed);
    watch.await.expect("never two leases");
}
