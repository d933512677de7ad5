//! The vote gate in front of openraft, which would grant what is refused here.

use std::time::Duration;

use baton::base::chain_node::{Health, KeyState};
use baton::base::guard_frame::ExitCause;
use baton::base::ids::{Epoch, Role};
use baton::base::time::{BootTime, WallTime};
use baton::cluster::wire::proto;
use baton::core::agreed::replicated::{Baton, Command};
use baton::core::fences::votes::Refusal;
use baton::core::{Action, Event, Peer, Stage};
use tokio::time::sleep;

use super::front::Call;
use super::kit::{Cluster, LONG, Shape, candidacy, eventually, long_lease, short_lease};

/// Longer than openraft's own lease with the short timing (750 ms).
const OPENRAFTS_LEASE: Duration = Duration::from_millis(800);

/// A cluster in which b has a live promise to a that openraft, whose lease is the shorter one, knows
/// nothing of any more: only the gate stands between b and a vote.
async fn promised_by_b_alone() -> Cluster {
    let cluster = Cluster::led_by_a(Shape::arbiters(short_lease())).await;
    cluster.isolate("a");
    sleep(OPENRAFTS_LEASE).await;
    let arrived_at = BootTime::now() + LONG;
    cluster.at("b").core.step(Event::Accepted {
        leader: "a".into(),
        term: 1,
        arrived_at,
        promise: short_lease().promise(),
    });
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inside_its_promise_a_member_votes_for_nobody_else_whatever_the_request_says() {
    let cluster = promised_by_b_alone().await;
    for transfer in [false, true] {
        assert!(!cluster.votes_for("b", "c", 2, transfer).await, "leadership_transfer = {transfer}");
    }
    let pre_vote = cluster.ask_pre_vote("b", &cluster.sender("c"), candidacy("c", 2)).await.expect("it answers");
    assert!(!pre_vote.vote_granted);
    assert_eq!(cluster.vote_term("b"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_that_has_run_out_binds_nobody() {
    let cluster = Cluster::led_by_a(Shape::arbiters(short_lease())).await;
    cluster.isolate("a");
    eventually("b's promise runs out", || {
        cluster.at("b").core.read(|core, now| core.may_vote(now.boot, &"c".into())).is_ok()
    })
    .await;
    assert!(cluster.votes_for("b", "c", 2, false).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_member_votes_for_nobody_while_it_may_have_forgotten_a_promise() {
    let mut cluster = Cluster::led_by_a(Shape::arbiters(long_lease())).await;
    cluster.isolate("a");
    cluster.stop_member("b").await;
    cluster.start_member("b").await;
    for transfer in [false, true] {
        assert!(!cluster.votes_for("b", "c", 2, transfer).await, "leadership_transfer = {transfer}");
    }
    cluster.at("b").consensus.campaign().await;
    sleep(OPENRAFTS_LEASE).await;
    assert_eq!(cluster.vote_term("b"), 1, "nor for itself");
}

/// The core may have asked for it before the promise was made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_inside_the_own_promise_asks_nobody() {
    let cluster = promised_by_b_alone().await;
    cluster.at("b").consensus.campaign().await;
    sleep(OPENRAFTS_LEASE).await;
    for name in ["a", "c"] {
        let asked = cluster.front(name).count(|seen| seen.from == "b" && seen.call != Call::Append);
        assert_eq!(asked, 0, "b asked {name}");
    }
}

/// openraft drops the role at once when it sees a higher vote, and its own lease with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_saw_a_higher_vote_does_not_give_its_own_inside_its_lease() {
    for (timing, lease_runs_out) in [(long_lease(), false), (short_lease(), true)] {
        let cluster = Cluster::led_by_a(Shape::arbiters(timing)).await;
        cluster.front("c").cut("a");
        let higher = proto::Ballot { term: 9, candidate: "c".to_owned(), committed: false };
        cluster.front("b").rule(|rules| rules.higher = Some(higher));
        eventually("a has seen the higher vote", || cluster.vote_term("a") == 9).await;
        eventually("a knows that it leads no more", || cluster.leads("a").is_none()).await;
        let refused = !cluster.votes_for("a", "c", 9, false).await;
        if lease_runs_out {
            let gate = || cluster.at("a").core.read(|core, now| core.may_vote(now.boot, &"c".into()));
            eventually("the lease is over", || gate().is_ok()).await;
            assert!(cluster.votes_for("a", "c", 9, false).await);
        } else {
            assert!(refused, "a gave its vote inside its own lease");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_whose_node_may_still_sign_votes_for_nobody_after_its_lease_either() {
    let roles = [Role::Validator, Role::Arbiter, Role::Arbiter];
    let cluster = Cluster::start(Shape { roles, ..Shape::arbiters(short_lease()) }).await;
    let core = &cluster.at("a").core;
    assert!(!cluster.votes_for("a", "b", 1, false).await, "before its guard has said what runs there");
    become_active(&cluster, BootTime::now() + LONG).await;

    cluster.isolate("a");
    eventually("a's lease runs out", || cluster.lease("a").is_none()).await;
    sleep(short_lease().promise()).await;
    assert!(!cluster.votes_for("a", "c", 2, false).await);
    assert!(!cluster.votes_for("a", "c", 2, true).await);
    let refusal = core.read(|core, now| core.may_vote(now.boot, &"c".into()));
    assert_eq!(refusal, Err(Refusal::NodeNotProven));
    core.step(Event::NodeExited { cause: ExitCause::Fenced });
    assert!(!cluster.votes_for("a", "c", 2, false).await, "the next start with the key may be ordered already");
    core.step(Event::Fenced { epoch: Epoch(1) });
    core.step(Event::Inactive { last_signed: None });
    assert!(cluster.votes_for("a", "c", 2, false).await, "its node is proven gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_whose_guard_falls_silent_gives_up_the_lead_and_another_is_elected_though_raft_goes_on() {
    let roles = [Role::Validator, Role::Validator, Role::Arbiter];
    let cluster = Cluster::start(Shape { roles, ..Shape::arbiters(short_lease()) }).await;
    let b = Peer { ready: true, reachable: true, height: 7, ..Peer::default() };
    cluster.at("a").core.step(Event::Peers([("b".into(), b)].into()));
    cluster.at("b").core.step(Event::GuardAttached { node: None, armed: None });

    // The last word of the guard; it is asked for later deadlines from here on.
    become_active(&cluster, BootTime::now()).await;
    eventually("a gives up its lead", || cluster.at("a").core.read(|core, _| core.has_resigned(1))).await;
    assert_eq!(cluster.leads("a"), None);
    let (raft_says, _) = cluster.at("a").consensus.leader();
    assert_eq!(raft_says, Some("a".into()), "Raft itself goes on, and nobody hears of it");
    let may_campaign = || cluster.at("b").core.read(|core, now| core.may_campaign(now.boot)).is_ok();
    eventually("what b promised a ends", may_campaign).await;
    cluster.elect("b", 2).await;
    eventually("a follows", || cluster.vote_term("a") == 2).await;
}

/// a, a validator, wins the lead and reports what guard, links and node of a new holder report.
/// The guard confirms this `deadline` and says nothing more.
async fn become_active(cluster: &Cluster, deadline: BootTime) {
    let (a, epoch) = (cluster.at("a"), Epoch(1));
    let has_asked = |wanted: &dyn Fn(&Action) -> bool| a.asked.lock().expect("no panic in here").iter().any(wanted);
    let probed = |height, head_time| {
        let version = String::new();
        let (peers, key, latency) = (None, KeyState::Absent, Duration::ZERO);
        a.core.step(Event::Probed(Health {
            synced: true,
            height,
            head_time,
            approved: 0,
            peers,
            key,
            latency,
            version,
        }));
    };
    a.core.step(Event::GuardAttached { node: None, armed: None });
    a.core.step(Event::NodeStarted { validator_epoch: None });
    probed(7, None);
    cluster.elect("a", 1).await;
    eventually("a claims", || has_asked(&|action| matches!(action, Action::ProposeClaim { .. }))).await;
    let claim = Command::Baton(Baton::Claim { epoch, member: "a".into(), reason: "test".into(), at: WallTime::now() });
    a.consensus.propose(claim).await.expect("the claim is committed");
    eventually("a arms its guard", || has_asked(&|action| matches!(action, Action::Arm { .. }))).await;
    a.core.step(Event::GuardArmed { epoch, deadline });
    probed(8, Some(WallTime::now() + Duration::from_secs(1)));
    eventually("a links", || has_asked(&|action| matches!(action, Action::LinkValidating { .. }))).await;
    a.core.step(Event::Linked { epoch });
    a.core.step(Event::Activated { epoch });
    assert_eq!(a.core.read(|core, _| core.stage()), Some(Stage::Active));
}
