//! Members that gossip over real connections on loopback: what they learn of each other, how quickly,
//! around which cuts, and whom they refuse.

mod kit;
mod strangers;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton::base::ids::NodeId;
use baton::base::time::{BootTime, WallTime};
use baton::cluster::gossip::{EXCHANGE_EVERY, FAILURES_MAX, PUSH_EVERY, Table};
use baton::cluster::wire::proto::gossip_client::GossipClient;
use baton::cluster::wire::proto::gossip_server::{Gossip as GossipRpc, GossipServer};
use baton::cluster::wire::proto::{ExchangeRequest, ExchangeResponse, Record};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use kit::{PATIENCE, channel, in_state, incarnation, listen, nowhere, pair, sender, serve, start, state_of};

#[tokio::test]
async fn three_members_learn_records_round_trips_and_clock_offsets_of_each_other() {
    let ((listen_a, a), (listen_b, b), (listen_c, c)) = (listen().await, listen().await, listen().await);
    let members = [
        start("host-a", listen_a, &[("host-b", b), ("host-c", c)]),
        start("host-b", listen_b, &[("host-a", a), ("host-c", c)]),
        start("host-c", listen_c, &[("host-a", a), ("host-b", b)]),
    ];
    for (member, state) in members.iter().zip(["Validating", "Voting", "Syncing"]) {
        member.gossip.publish(in_state(state));
    }
    for member in &members {
        let table = member
            .sees("everybody", |table| {
                let states = ["host-a", "host-b", "host-c"].map(|id| state_of(table, id));
                states == [Some("Validating"), Some("Voting"), Some("Syncing")]
                    && table.others().all(|(_, heard)| heard.is_reachable(BootTime::now()))
            })
            .await;
        for (id, heard) in table.others() {
            let record = heard.record.as_ref().unwrap();
            assert_eq!((record.member.as_str(), record.incarnation), (id.as_str(), incarnation(id.as_str())));
            // One machine, one clock: an estimate is wrong by half a round trip at most.
            let (rtt, offset) = (heard.rtt.unwrap(), heard.clock_offset.unwrap());
            assert!(rtt > Duration::ZERO && rtt < Duration::from_millis(500), "{id}: {rtt:?}");
            assert!(u128::from(offset.unsigned_abs()) <= rtt.as_nanos() / 2 + 1000, "{id}: {offset} ns, {rtt:?}");
        }
    }
}

#[tokio::test]
async fn a_member_that_has_published_nothing_yet_is_heard_of_as_starting() {
    let (a, _b, _) = pair().await;
    let table = a.sees_state("host-b", "Startup").await;
    let record = table.get(&"host-b".into()).unwrap().record.clone().unwrap();
    assert!(!record.ready && record.phase.is_empty(), "{record:?}");
}

#[tokio::test]
async fn a_change_reaches_a_peer_long_before_the_next_full_exchange() {
    let (a, b, _) = pair().await;
    let mut quickest = Duration::MAX;
    for round in 0..6 {
        let state = format!("round {round}");
        let at = BootTime::now();
        a.gossip.publish(in_state(&state));
        b.sees_state("host-a", &state).await;
        quickest = quickest.min(BootTime::now().since(at));
    }
    assert!(quickest < Duration::from_millis(200), "the quickest of six took {quickest:?}");
}

#[tokio::test]
async fn a_member_keeps_sight_of_another_through_a_third_when_the_way_between_them_is_cut() {
    let ((listen_a, a), (listen_b, b), (listen_c, c)) = (listen().await, listen().await, listen().await);
    let cut = nowhere().await;
    let a_member = start("host-a", listen_a, &[("host-b", cut), ("host-c", c)]);
    let b_member = start("host-b", listen_b, &[("host-a", cut), ("host-c", c)]);
    let _c_member = start("host-c", listen_c, &[("host-a", a), ("host-b", b)]);
    b_member.gossip.publish(in_state("Voting"));
    let table = a_member.sees_state("host-b", "Voting").await;
    let first = table.get(&"host-b".into()).unwrap().heard_at;
    let table = a_member
        .sees("a later sign of life of host-b", |table| {
            let heard = table.get(&"host-b".into()).unwrap();
            heard.heard_at > first && heard.error.is_some()
        })
        .await;
    assert!(!table.is_reachable(&"host-b".into(), BootTime::now()), "it does not answer here");
    assert_eq!(table.get(&"host-b".into()).unwrap().rtt, None);
    let error = table.get(&"host-b".into()).unwrap().error.clone().unwrap();
    assert!(error.to_lowercase().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_peer_that_accepts_and_never_answers_delays_nobody_else() {
    let ((listen_a, a), (listen_b, b), (silent, silent_addr)) = (listen().await, listen().await, listen().await);
    let a_member = start("host-a", listen_a, &[("host-b", b), ("host-c", silent_addr)]);
    let b_member = start("host-b", listen_b, &[("host-a", a)]);
    let mut held = JoinSet::new();
    held.spawn(async move {
        let mut connections = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            connections.push(stream);
        }
    });
    let silence = |table: &Table| {
        let error = table.get(&"host-c".into()).unwrap().error.clone();
        error.is_some_and(|error| error.contains("500ms"))
    };
    a_member.sees("the silence of host-c", silence).await;
    let at = BootTime::now();
    for round in 0..10 {
        let state = format!("round {round}");
        a_member.gossip.publish(in_state(&state));
        b_member.sees_state("host-a", &state).await;
    }
    let took = BootTime::now().since(at);
    assert!(took < Duration::from_secs(4), "ten pushes beside a silent peer took {took:?}");
    let table = a_member.gossip.table().borrow().clone();
    assert!(table.is_reachable(&"host-b".into(), BootTime::now()));
    assert!(!table.is_reachable(&"host-c".into(), BootTime::now()));
}

#[tokio::test]
async fn a_member_whose_process_is_gone_is_unreachable_after_two_exchanges_in_quick_succession() {
    let (listen_a, a) = listen().await;
    // In a runtime of its own, whose end closes every socket as the end of a process does.
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let b_starts = async move {
        let (listener, b) = listen().await;
        (start("host-b", listener, &[("host-a", a)]), b)
    };
    let (_b_member, b) = process.spawn(b_starts).await.unwrap();
    let a_member = start("host-a", listen_a, &[("host-b", b)]);
    a_member.sees("host-b", |table| table.is_reachable(&"host-b".into(), BootTime::now())).await;
    process.shutdown_background();
    a_member.sees("a failed exchange", |table| table.get(&"host-b".into()).unwrap().failures > 0).await;
    let failed_at = BootTime::now();
    let unreachable = |table: &Table| !table.is_reachable(&"host-b".into(), BootTime::now());
    let table = a_member.sees("host-b unreachable", unreachable).await;
    let took = BootTime::now().since(failed_at);
    assert!(took < EXCHANGE_EVERY / 2, "{took:?} after the first failure");
    let heard = table.get(&"host-b".into()).unwrap();
    assert!(heard.error.as_ref().unwrap().to_lowercase().contains("refused"), "{heard:?}");
}

#[tokio::test]
async fn a_member_that_was_unreachable_is_tried_again_as_soon_as_it_calls() {
    let ((listen_a, a), gone) = (listen().await, nowhere().await);
    let a_member = start("host-a", listen_a, &[("host-b", gone)]);
    let failures = |table: &Table| table.get(&"host-b".into()).unwrap().failures;
    a_member.sees("host-b unreachable", |table| failures(table) >= FAILURES_MAX).await;
    let mut host_b = GossipClient::new(channel(a));
    let mut quickest = Duration::MAX;
    for _ in 0..4 {
        let failed = failures(&a_member.gossip.table().borrow());
        let at = BootTime::now();
        let request = ExchangeRequest { sender: Some(sender("host-b")), ..Default::default() };
        host_b.exchange(request).await.expect("host-a answers");
        a_member.sees("another attempt", |table| failures(table) > failed).await;
        quickest = quickest.min(BootTime::now().since(at));
    }
    assert!(quickest < EXCHANGE_EVERY / 2, "the quickest of four took {quickest:?}");
}

#[tokio::test]
async fn a_restarted_member_replaces_what_it_said_in_its_earlier_life() {
    let ((listen_a, a), (listen_b, b)) = (listen().await, listen().await);
    let a_member = start("host-a", listen_a, &[("host-b", b)]);
    let b_member = start("host-b", listen_b, &[("host-a", a)]);
    for height in 0..20 {
        b_member.gossip.publish(Record { epoch: height, ..in_state("Validating") });
    }
    let before = a_member.sees_state("host-b", "Validating").await;
    drop(b_member);
    a_member.sees("host-b gone", |table| table.get(&"host-b".into()).unwrap().failures > 0).await;
    let b_member = start("host-b", TcpListener::bind(b).await.unwrap(), &[("host-a", a)]);
    b_member.gossip.publish(in_state("Startup"));
    let after = a_member.sees_state("host-b", "Startup").await;
    let generation = |table: &Table| table.get(&"host-b".into()).unwrap().record.as_ref().unwrap().generation;
    assert!(generation(&before) < generation(&after));
    a_member.sees("host-b back", |table| table.is_reachable(&"host-b".into(), BootTime::now())).await;
}

#[tokio::test]
async fn a_rumour_about_a_member_ends_when_the_member_hears_of_it() {
    let (a, b, addr) = pair().await;
    a.gossip.publish(in_state("Voting"));
    b.sees_state("host-a", "Voting").await;
    let rumour = Record {
        member: "host-a".into(),
        generation: WallTime::now().as_nanos() * 2,
        version: 77,
        incarnation: incarnation("host-a"),
        ..in_state("Validating")
    };
    let request =
        ExchangeRequest { sender: Some(sender("host-b")), records: vec![rumour.clone()], ..Default::default() };
    let answer = GossipClient::new(channel(addr)).exchange(request).await.unwrap().into_inner();
    assert_eq!(answer.records[0].state, "Voting", "the answer to a rumour is the truth");
    assert_eq!((answer.records[0].generation, answer.records[0].version), (rumour.generation, 78));
    b.sees("the outbid record", |table| {
        table.get(&"host-a".into()).unwrap().record.as_ref().is_some_and(|r| r.generation == rumour.generation)
    })
    .await;
    b.sees_state("host-a", "Voting").await;
}

#[tokio::test]
async fn whoever_leaves_has_told_all_that_it_could_reach_and_is_held_up_by_nobody() {
    let ((listen_a, a), (listen_b, b), gone) = (listen().await, listen().await, nowhere().await);
    let others = [("host-b", b), ("host-c", gone)];
    let (a_member, b_member) = (start("host-a", listen_a, &others), start("host-b", listen_b, &[("host-a", a)]));
    a_member.gossip.publish(in_state("Voting"));
    b_member.sees_state("host-a", "Voting").await;
    a_member.sees("host-b", |table| table.is_reachable(&"host-b".into(), BootTime::now())).await;
    timeout(PATIENCE, a_member.gossip.take_leave(in_state("Shutdown"))).await.expect("host-c is not waited for");
    assert_eq!(state_of(&b_member.gossip.table().borrow(), "host-a"), Some("Shutdown"), "and nobody waited for it");
}

/// Answers as host-b and keeps what it was sent.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<ExchangeRequest>>>);

#[tonic::async_trait]
impl GossipRpc for Recorder {
    async fn exchange(&self, request: Request<ExchangeRequest>) -> Result<Response<ExchangeResponse>, Status> {
        let now = WallTime::now().as_nanos();
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExchangeResponse {
            sender: Some(sender("host-b")),
            records: Vec::new(),
            received_at_ns: now + 3_600_000_000_000,
            answered_at_ns: now + 3_600_000_000_000,
        }))
    }
}

impl Recorder {
    fn pushes(&self) -> Vec<ExchangeRequest> {
        self.0.lock().unwrap().iter().filter(|request| !request.full).cloned().collect()
    }
}

#[tokio::test]
async fn a_storm_of_changes_is_pushed_at_most_every_fifty_milliseconds_and_ends_with_the_last() {
    let ((listen_a, _), (listen_b, b)) = (listen().await, listen().await);
    let recorder = Recorder::default();
    let _b = serve(listen_b, GossipServer::new(recorder.clone()));
    let a = start("host-a", listen_a, &[("host-b", b)]);
    a.sees("host-b", |table| table.is_reachable(&"host-b".into(), BootTime::now())).await;
    let started = BootTime::now();
    for epoch in 1..=5000 {
        a.gossip.publish(Record { epoch, ..in_state("Voting") });
        tokio::task::yield_now().await;
    }
    let last_came = async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while !recorder.0.lock().unwrap().iter().any(|request| request.records.iter().any(|r| r.epoch == 5000)) {
            tick.tick().await;
        }
    };
    timeout(PATIENCE, last_came).await.expect("the last change arrives");
    let (pushes, took) = (recorder.pushes(), BootTime::now().since(started));
    let allowed = took.as_millis() / PUSH_EVERY.as_millis() + 2;
    assert!(!pushes.is_empty() && pushes.len() as u128 <= allowed, "{} pushes in {took:?}", pushes.len());
    for push in &pushes {
        let owners: Vec<_> = push.records.iter().map(|record| record.member.as_str()).collect();
        assert_eq!(owners, ["host-a"], "a push carries the own record only");
    }
}

#[tokio::test]
async fn measures_alone_wait_for_the_full_exchange() {
    let ((listen_a, _), (listen_b, b)) = (listen().await, listen().await);
    let recorder = Recorder::default();
    let _b = serve(listen_b, GossipServer::new(recorder.clone()));
    let a = start("host-a", listen_a, &[("host-b", b)]);
    a.sees("host-b", |table| table.is_reachable(&"host-b".into(), BootTime::now())).await;
    a.gossip.publish(Record { lease_remaining_ms: 640, ..in_state("Startup") });
    let carried = async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        let carries = |request: &ExchangeRequest| request.records.iter().any(|r| r.lease_remaining_ms == 640);
        while !recorder.0.lock().unwrap().iter().any(carries) {
            tick.tick().await;
        }
    };
    timeout(PATIENCE, carried).await.expect("a full exchange carries it");
    assert!(recorder.pushes().is_empty(), "{:?}", recorder.pushes());
}

#[tokio::test]
async fn a_clock_an_hour_ahead_shows_in_the_table_and_in_the_own_record() {
    let ((listen_a, _), (listen_b, b)) = (listen().await, listen().await);
    let _b = serve(listen_b, GossipServer::new(Recorder::default()));
    let a = start("host-a", listen_a, &[("host-b", b)]);
    let hour = 3_600_000_000_000_i64;
    let about_an_hour = |offset: i64| (offset - hour).abs() < 500_000_000;
    let shows = |table: &Table| about_an_hour(table.mine().clock_offset_ns);
    let table = a.sees("the offset in its own record", shows).await;
    let heard = table.get(&NodeId::from("host-b")).unwrap();
    assert!(about_an_hour(heard.clock_offset.unwrap()), "{:?}", heard.clock_offset);
}

#[tokio::test]
async fn dropping_gossip_ends_its_tasks() {
    let ((listen_a, _), (listen_b, b)) = (listen().await, listen().await);
    let recorder = Recorder::default();
    let _b = serve(listen_b, GossipServer::new(recorder.clone()));
    let a = start("host-a", listen_a, &[("host-b", b)]);
    a.sees("host-b", |table| table.is_reachable(&"host-b".into(), BootTime::now())).await;
    let mut table = a.gossip.table();
    drop(a);
    let closed = async { while table.changed().await.is_ok() {} };
    timeout(PATIENCE, closed).await.expect("nobody holds the table's sender any more");
}
