//! Whom members listen to, and whose word they pass on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use baton::base::ids::{NodeId, Role};
use baton::base::time::BootTime;
use baton::cluster::gossip::Table;
use baton::cluster::wire::PROTOCOL;
use baton::cluster::wire::proto::gossip_client::GossipClient;
use baton::cluster::wire::proto::{ExchangeRequest, Record, Sender};
use baton::core::agreed::members::{self, Members};
use tonic::Code;

use super::kit::{channel, in_state, incarnation, listen, nowhere, pair, sender, start, state_of};

#[tokio::test]
async fn a_relayed_record_of_a_replaced_store_is_not_taken() {
    let ((listen_c, c), away) = (listen().await, nowhere().await);
    let c_member = start("host-c", listen_c, &[("host-a", away), ("host-d", away)]);
    c_member.record(BTreeMap::from([("host-d".into(), incarnation("host-d"))]));
    let request = |incarnation, state| ExchangeRequest {
        sender: Some(sender("host-a")),
        records: vec![Record { member: "host-d".into(), generation: 1, incarnation, ..in_state(state) }],
        ..Default::default()
    };
    let mut client = GossipClient::new(channel(c));
    client.exchange(request(4711, "of another store")).await.expect("host-a itself is welcome");
    assert_eq!(state_of(&c_member.gossip.table().borrow(), "host-d"), None);
    client.exchange(request(incarnation("host-d"), "Voting")).await.expect("host-a itself is welcome");
    assert_eq!(state_of(&c_member.gossip.table().borrow(), "host-d"), Some("Voting"));
}

#[tokio::test]
async fn whoever_does_not_belong_is_refused_with_a_reason_and_changes_nothing() {
    let (a, _b, addr) = pair().await;
    let recorded = BTreeMap::from([("host-b".into(), incarnation("host-b"))]);
    a.record(recorded);
    let b = sender("host-b");
    let cases = [
        (None, Code::InvalidArgument, "no sender"),
        (Some(Sender { cluster: "other".into(), ..b.clone() }), Code::PermissionDenied, "cluster.name"),
        (Some(Sender { protocol: PROTOCOL + 1, ..b.clone() }), Code::PermissionDenied, "upgrade the older"),
        (Some(sender("host-z")), Code::PermissionDenied, "not a member of this cluster"),
        (Some(sender("host-a")), Code::PermissionDenied, "two coordinators"),
        (Some(Sender { incarnation: 1, ..b.clone() }), Code::PermissionDenied, "remove the member from the cluster"),
    ];
    let mut client = GossipClient::new(channel(addr));
    let forged = Record { member: "host-b".into(), generation: u64::MAX, ..in_state("forged") };
    for (sender, code, text) in cases {
        let request = ExchangeRequest { sender, records: vec![forged.clone()], full: true, ..Default::default() };
        let refused = client.exchange(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(text), "{refused}");
        assert_ne!(state_of(&a.gossip.table().borrow(), "host-b"), Some("forged"));
    }
    let request = ExchangeRequest { sender: Some(b), full: true, ..Default::default() };
    let answer = client.exchange(request).await.expect("host-b itself is welcome").into_inner();
    assert!(answer.received_at_ns <= answer.answered_at_ns && answer.received_at_ns > 0);
}

#[tokio::test]
async fn a_replaced_store_is_refused_from_the_moment_the_record_says_so() {
    let (a, b, _) = pair().await;
    b.sees("host-a", |table| table.is_reachable(&"host-a".into(), BootTime::now())).await;
    a.record(BTreeMap::from([("host-b".into(), 4711)]));
    let told = |table: &Table| {
        let error = table.get(&"host-a".into()).unwrap().error.clone();
        error.is_some_and(|error| error.contains("wiped or copied"))
    };
    b.sees("that host-a refuses it", told).await;
}

#[tokio::test]
async fn an_address_that_leads_to_another_member_is_named_and_does_not_count() {
    let ((listen_a, _), (listen_c, c)) = (listen().await, listen().await);
    let a = start("host-a", listen_a, &[("host-b", c), ("host-c", c)]);
    let _c = start("host-c", listen_c, &[("host-a", nowhere().await), ("host-b", nowhere().await)]);
    let mixed_up = |table: &Table| {
        let error = table.get(&"host-b".into()).unwrap().error.clone();
        error.is_some_and(|error| error.contains("host-c answers where host-b should"))
    };
    let table = a.sees("the mix-up", mixed_up).await;
    assert!(!table.is_reachable(&"host-b".into(), BootTime::now()));
    a.sees("host-c itself", |table| table.is_reachable(&"host-c".into(), BootTime::now())).await;
}

#[tokio::test]
async fn a_member_that_is_added_is_heard_of_and_one_that_is_removed_no_more() {
    let ((listen_a, a), (listen_b, b)) = (listen().await, listen().await);
    // Neither configuration lists the other.
    let (a_member, b_member) = (start("host-a", listen_a, &[]), start("host-b", listen_b, &[]));
    b_member.gossip.publish(in_state("Voting"));
    let by_log = |ids: &[(&str, SocketAddr)]| {
        let member = |(id, addr): &(&str, SocketAddr)| {
            let addr = addr.to_string();
            let incarnation = Some(incarnation(id));
            (NodeId::from(*id), members::Member { addr, role: Role::Validator, priority: 1, incarnation })
        };
        let all: BTreeMap<_, _> = ids.iter().map(member).collect();
        Arc::new(Members { voters: vec![all.keys().cloned().collect()], all })
    };
    for member in [&a_member, &b_member] {
        member.members.send_replace(by_log(&[("host-a", a), ("host-b", b)]));
    }
    a_member.sees_state("host-b", "Voting").await;
    a_member.members.send_replace(by_log(&[("host-a", a)]));
    a_member.sees("host-b gone", |table| table.get(&"host-b".into()).is_none()).await;
    b_member
        .sees("host-a's refusal", |table| {
            table
                .get(&"host-a".into())
                .and_then(|heard| heard.error.as_deref())
                .is_some_and(|e| e.contains("not a member"))
        })
        .await;
}
