//! What a lease counts on: the time at which requests were sent. And what heartbeats cost: no write.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton::base::timing::Timing;
use tokio::time::{sleep, timeout};

use super::front::Call;
use super::kit::{Cluster, LONG, Shape, eventually, long_lease, release, short_lease};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_counts_from_the_sending_of_what_was_answered_late() {
    let late = Duration::from_millis(200);
    // openraft waits three quarters of a heartbeat for an answer.
    let ms = Duration::from_millis;
    let timing = Timing::new(ms(600), ms(60_000), ms(50), 1000).expect("safe");
    let cluster = Cluster::start(Shape::arbiters(timing)).await;
    ["b", "c"].iter().for_each(|name| cluster.front(name).rule(|rules| rules.late = late));
    let core = &cluster.at("a").core;
    let mut steps = core.steps();
    cluster.at("a").consensus.campaign().await;

    let longest = timing.lease_min() - timing.kill_max() - late;
    let (mut acks, mut seen) = (0, Duration::ZERO);
    timeout(LONG, async {
        while acks < 4 {
            steps.changed().await.expect("the core lives");
            let Some(left) = core.read(|core, now| core.lease_remaining(now.boot)) else { continue };
            assert!(left <= longest, "{left:?} of the lease are left, at most {longest:?} can be");
            acks += u32::from(left > seen);
            seen = left;
        }
    })
    .await
    .expect("late answers still carry a lease");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_nobody_answers_loses_its_lease() {
    let cluster = Cluster::led_by_a(Shape::arbiters(short_lease())).await;
    ["b", "c"].iter().for_each(|name| cluster.front(name).cut("a"));
    eventually("a's lease runs out", || cluster.lease("a").is_none()).await;
    assert_eq!(cluster.leads("a"), Some(1), "it has not heard of another leader");
    cluster.join_again();
    eventually("a's lease is renewed", || cluster.lease("a").is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_write_nothing_to_disk() {
    let cluster = Cluster::led_by_a(Shape::arbiters(long_lease())).await;
    cluster.at("a").consensus.propose(release(0)).await.expect("committed");
    let all = ["a", "b", "c"];
    eventually("all have applied it", || {
        all.iter().all(|name| cluster.at(name).store.applied().borrow().replicated.last_release.is_some())
    })
    .await;
    let mut still = BTreeMap::new();
    eventually_still(&cluster, &mut still).await;
    for name in ["b", "c"] {
        cluster.front(name).forget_seen();
        cluster.front(name).await_seen(6, |seen| seen.call == Call::Append).await;
    }
    for name in all {
        assert_eq!(files(cluster.dir(name)), still[name], "files of {name} before and after the heartbeats");
    }
}

/// What was written last may reach the files a moment after it was applied.
async fn eventually_still(cluster: &Cluster, still: &mut BTreeMap<&'static str, Vec<File>>) {
    for _ in 0..50 {
        let now = ["a", "b", "c"].map(|name| (name, files(cluster.dir(name)))).into();
        if *still == now {
            return;
        }
        *still = now;
        sleep(Duration::from_millis(100)).await;
    }
    panic!("the stores are written to all the time");
}

/// Path, inode, size and time of the last change.
type File = (PathBuf, u64, u64, i64, i64);

fn files(dir: &Path) -> Vec<File> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("readable") {
        let entry = entry.expect("readable");
        let meta = entry.metadata().expect("readable");
        found.push((entry.path(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()));
        if meta.is_dir() {
            found.extend(files(&entry.path()));
        }
    }
    found.sort();
    found
}
