//! Who is not listened to: members with another store than they joined with, and those who say that
//! they are somebody else.

use std::time::Duration;

use baton::cluster::wire::proto::raft_client::RaftClient;
use baton::cluster::wire::{
    Message, OfLeader, PROTOCOL, Sender, Session, SnapshotData, SnapshotMeta, SnapshotRequest, TypeConfig, Vote,
};
use baton::core::agreed::replicated::Command;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest};
use tokio::time::timeout;
use tonic::{Code, Status};

use super::front::Call;
use super::kit::{Cluster, Shape, candidacy, eventually, patient_lease, release, short_lease};

/// b is down with an empty store, and the others know which one it had.
async fn wipe_known_b(cluster: &mut Cluster) {
    let join = Command::Join { member: "b".into(), incarnation: cluster.at("b").incarnation };
    cluster.at("a").consensus.propose(join).await.expect("committed");
    eventually("c knows b's store too", || {
        cluster.at("c").store.applied().borrow().replicated.incarnations.contains_key(&"b".into())
    })
    .await;
    cluster.stop_member("b").await;
    cluster.wipe("b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_store_was_wiped_neither_votes_nor_carries_a_lease() {
    let mut cluster = Cluster::led_by_a(Shape::arbiters(short_lease())).await;
    let joined = cluster.at("b").incarnation;
    wipe_known_b(&mut cluster).await;
    cluster.start_member("b").await;
    let wiped = cluster.at("b").incarnation;
    assert_ne!(wiped, joined);

    let refused = cluster.ask_vote("c", &cluster.sender("b"), candidacy("b", 9)).await.expect_err("c must not vote");
    let told = format!(
        "b came with the store {wiped:016x} but joined with {joined:016x}: it was wiped or copied, and may have \
         forgotten a vote; remove the member from the cluster and add it again"
    );
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, told.as_str()));

    // b answers a's appends, and nobody else does.
    cluster.front("c").cut("a");
    cluster.front("b").forget_seen();
    cluster.front("b").await_seen(3, |seen| seen.call == Call::Append).await;
    eventually("a's lease runs out", || cluster.lease("a").is_none()).await;
    // openraft refuses it, or waits for a quorum.
    let proposed = timeout(Duration::from_millis(300), cluster.at("a").consensus.propose(release(0))).await;
    assert!(!matches!(proposed, Ok(Ok(_))), "committed by the answers of a wiped store");
    cluster.front("b").forget_seen();
    cluster.front("b").await_seen(3, |seen| seen.call == Call::Append).await;
    assert_eq!(cluster.lease("a"), None, "carried by the answers of a wiped store");
    cluster.join_again();
    eventually("c carries a's lease", || cluster.lease("a").is_some()).await;
    cluster.at("a").consensus.propose(release(0)).await.expect("c makes a quorum with a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_gets_no_vote_for_its_own_candidacy() {
    let mut cluster = Cluster::led_by_a(Shape::arbiters(short_lease())).await;
    wipe_known_b(&mut cluster).await;
    cluster.isolate("a");
    cluster.start_member("b").await;
    eventually("c's promise runs out", || {
        cluster.at("c").core.read(|core, now| core.may_vote(now.boot, &"b".into())).is_ok()
    })
    .await;
    for round in 1..=2 {
        cluster.at("b").consensus.campaign().await;
        cluster.front("c").await_seen(round, |seen| seen.from == "b" && seen.call == Call::PreVote).await;
    }
    assert_eq!(cluster.front("c").count(|seen| seen.from == "b" && seen.call == Call::Vote), 0);
    assert_eq!(cluster.vote_term("b"), 0);
}

/// Of a member and a copy of it, both with the store that joined, `first` asks before `second`.
async fn one_vote_of_a_term(copy_is_first: bool) {
    let mut cluster = Cluster::led_by_a(Shape { sessions: true, ..Shape::arbiters(patient_lease()) }).await;
    cluster.stop_member("b").await;
    let copy = cluster.copy_of("b").await;
    cluster.start_member("b").await;
    let copied = cluster.start_in("b", copy.path()).await;
    let (b, second) = (cluster.sender("b"), cluster.sender("b"));
    let second = Sender { session: copied.identity.me().session, ..second };
    assert_eq!((b.incarnation, b.session.start), (copied.incarnation, second.session.start), "nothing else tells them");
    assert_ne!(b.session, second.session);
    cluster.isolate("a");
    let c = &cluster.at("c").core;
    eventually("c's promise runs out", || c.read(|core, now| core.may_vote(now.boot, &"b".into())).is_ok()).await;

    let (heard, unheard) = if copy_is_first { (second, b) } else { (b, second) };
    let granted = cluster.ask_vote("c", &heard, candidacy("b", 9)).await.expect("it is listened to");
    assert!(granted.vote_granted, "{granted:?}");
    // Raft alone gives the same candidate the same vote once more.
    let restarted =
        Sender { session: Session { start: unheard.session.start + 1, ..unheard.session }, ..unheard.clone() };
    for other in [unheard, restarted] {
        let refused = cluster.ask_vote("c", &other, candidacy("b", 9)).await.expect_err("one process speaks for b");
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().starts_with("another process speaks for b (start 2 of its store"), "{refused}");
    }
    let again = cluster.ask_vote("c", &heard, candidacy("b", 9)).await.expect("it is listened to");
    assert!(again.vote_granted, "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_and_a_copy_of_its_store_get_one_vote_of_a_term_between_them() {
    one_vote_of_a_term(false).await;
    one_vote_of_a_term(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_an_earlier_store_that_answers_in_its_members_place_carries_no_lease() {
    let mut cluster = Cluster::led_by_a(Shape { sessions: true, ..Shape::arbiters(patient_lease()) }).await;
    cluster.stop_member("b").await;
    let copy = cluster.copy_of("b").await;
    cluster.start_member("b").await;
    cluster.stop_member("b").await;
    cluster.start_member("b").await;
    cluster.front("c").cut("a");
    cluster.front("b").forget_seen();
    cluster.front("b").await_seen(6, |seen| seen.call == Call::Append).await;
    eventually("b, started anew, carries a's lease", || cluster.lease("a").is_some()).await;

    let copied = cluster.start_in("b", copy.path()).await;
    cluster.front("b").lead_to(Some(copied.direct.clone()));
    eventually("a's lease runs out", || cluster.lease("a").is_none()).await;
    cluster.front("b").forget_seen();
    cluster.front("b").await_seen(6, |seen| seen.call == Call::Append).await;
    assert_eq!(cluster.lease("a"), None, "carried by the answers of a copy");
    cluster.front("b").lead_to(Some(cluster.at("b").direct.clone()));
    eventually("b carries a's lease again", || cluster.lease("a").is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_in_anothers_name_or_for_another_cluster_is_refused_whatever_it_asks() {
    let cluster = Cluster::start(Shape::arbiters(short_lease())).await;
    let b = cluster.sender("b");
    let not_in_list = "x is not a member of this cluster; baton member list shows who is, baton member add takes it in";
    let second_self = "two coordinators run as member a; give each its own member.id, and check the addresses";
    let cases = [
        (b.clone(), "c", "b speaks in the name of c".to_owned()),
        (Sender { member: "c".into(), ..b.clone() }, "b", "c speaks in the name of b".to_owned()),
        (Sender { member: "x".into(), ..b.clone() }, "x", not_in_list.to_owned()),
        (Sender { member: "a".into(), ..b.clone() }, "a", second_self.to_owned()),
        (
            Sender { cluster: "other".into(), ..b.clone() },
            "b",
            "b belongs to cluster \"other\", this is \"test\"; check cluster.name and the addresses".into(),
        ),
        (
            Sender { protocol: PROTOCOL + 1, ..b },
            "b",
            format!("b speaks protocol {}, this is {PROTOCOL}; upgrade the older one", PROTOCOL + 1),
        ),
    ];
    for (sender, named, why) in cases {
        for refused in ask_everything(&cluster, &sender, named).await {
            assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, why.as_str()), "{sender:?}");
        }
    }
    assert_eq!((cluster.vote_term("a"), cluster.leads("a")), (0, None), "none of it left a trace");
}

/// Sends a each kind of request from `sender`, in term 9 and the name of `named`; all must be refused.
async fn ask_everything(cluster: &Cluster, sender: &Sender, named: &str) -> [Status; 5] {
    let vote = Vote::new_committed(9, named.into());
    let request = AppendEntriesRequest::<TypeConfig> {
        vote: vote.clone(),
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    let append = OfLeader { lease: None, request };
    let request = SnapshotRequest { vote: vote.clone(), meta: SnapshotMeta::default(), data: SnapshotData::default() };
    let snapshot = OfLeader { lease: None, request };
    let offer = TransferLeaderRequest::<TypeConfig>::new(vote, "a".into(), None);
    let mut client = RaftClient::new(cluster.at("a").direct.clone());
    let said = "must be refused";
    [
        client.append_entries(append.to_proto(sender)).await.map(drop).expect_err(said),
        client.vote(candidacy(named, 9).to_proto(sender)).await.map(drop).expect_err(said),
        client.pre_vote(candidacy(named, 9).to_proto(sender)).await.map(drop).expect_err(said),
        client.install_snapshot(snapshot.to_proto(sender)).await.map(drop).expect_err(said),
        client.transfer_leader(offer.to_proto(sender)).await.map(drop).expect_err(said),
    ]
}
