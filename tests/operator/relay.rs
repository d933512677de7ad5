//! What one member passes on to another for an operator: it arrives as asked by a peer, its answer comes back
//! with the word on whether it is worth asking again, and strangers are not listened to.

use std::sync::Arc;
use std::time::Duration;

use baton::base::ids::{NodeId, Role};
use baton::base::timing::Timing;
use baton::cluster::identity::{Identity, Known};
use baton::cluster::roster::Roster;
use baton::cluster::transport;
use baton::cluster::wire::proto::upgrade_change_request::Change;
use baton::cluster::wire::proto::{
    Blank, HandoverResponse, SetMaintenance, SetPause, UpgradeChangeRequest, UpgradeChangeResponse,
};
use baton::config;
use baton::operator::admin::{Ask, Asker, NotDone};
use baton::operator::order::{Answer, Order, WantedHandover};
use baton::operator::relay::Relay;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// For a handover.
const WAIT: Duration = Duration::from_secs(30);

fn identity(cluster: &str, me: &str) -> Arc<Identity> {
    Arc::new(Identity::new(cluster, me.into(), 1, Known::listed(["a", "b"].map(NodeId::from))))
}

/// The `start`th of `me`.
fn process(me: &str, start: u64) -> Arc<Identity> {
    let identity = Identity::new("net", me.into(), 1, Known::listed(["a", "b"].map(NodeId::from)));
    Arc::new(identity.in_session(start, &Timing::LAN))
}

/// a and b, of whom b is at `addr`.
fn roster(addr: &str) -> Arc<Roster> {
    let member =
        |id: &str, addr: &str| config::Member { id: id.into(), addr: addr.into(), role: Role::Validator, priority: 1 };
    let members = vec![member("a", "127.0.0.1:1"), member("b", addr)];
    let listen = ([127, 0, 0, 1], 1).into();
    let cluster = config::Cluster { name: "net".into(), listen, members, failback: false };
    Roster::new("a".into(), &cluster, watch::channel(Arc::default()).1, None, Timing::LAN)
}

/// Member b, whose driver answers with `answer`; all ends with the set.
async fn serve_b(answer: fn(Ask)) -> (JoinSet<()>, String) {
    let (asks, mut asked) = mpsc::channel(4);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let service = Relay::new(process("b", 1), roster(&addr)).service(asks);
    let server = transport::server(&Timing::LAN).add_service(service);
    let mut tasks = JoinSet::new();
    tasks.spawn(
        async move { server.serve_with_incoming(transport::incoming(listener, None, &Timing::LAN)).await.unwrap() },
    );
    tasks.spawn(async move {
        while let Some(ask) = asked.recv().await {
            answer(ask);
        }
    });
    (tasks, addr)
}

fn relay(cluster: &str, addr: &str) -> Relay {
    Relay::new(identity(cluster, "a"), roster(addr))
}

fn maintenance(member: &str) -> Order {
    Order::Maintenance(SetMaintenance { member: member.into(), on: true, at_ns: 0 })
}

fn handover(to: &str) -> Order {
    let wanted = WantedHandover { to: Some(to.into()), dry_run: false, timeout: WAIT, within: Duration::ZERO };
    Order::Handover(wanted.request())
}

fn told(words: &str) -> Result<Answer, NotDone> {
    Ok(Answer::Done(words.into()))
}

fn answer(ask: Ask) {
    let Ask::Order { order, from: Asker::Peer, answer } = ask else { panic!("{ask:?}") };
    let done = match order {
        Order::Maintenance(set) => told(&format!("{} is in maintenance", set.member)),
        Order::Pause(_) => Err(NotDone::NotNow("b does not lead".into())),
        Order::Handover(request) => {
            tokio::spawn(async move {
                // Longer than a request between members may take.
                tokio::time::sleep(Duration::from_millis(1500)).await;
                let done = match request.to.as_str() {
                    "b" => Err(NotDone::Refused("b holds the baton already".into())),
                    _ => Ok(HandoverResponse { to: request.to, epoch: 7, ..HandoverResponse::default() }),
                };
                answer.send(done.map(Answer::Handover)).unwrap();
            });
            return;
        }
        Order::Upgrade(UpgradeChangeRequest { change: Some(Change::Cancel(name)), .. }) => {
            let lines = vec![format!("{name} is not planned any more")];
            Ok(Answer::Upgrade(UpgradeChangeResponse { lines, refused: String::new() }))
        }
        Order::Upgrade(request) => Err(NotDone::Refused(format!("not {:?}", request.change))),
        other @ (Order::Priority(_) | Order::Floor(_) | Order::Member(_) | Order::SignLog(_)) => panic!("{other:?}"),
    };
    answer.send(done).unwrap();
}

#[tokio::test]
async fn a_plan_of_an_upgrade_is_passed_on_and_why_it_is_refused_comes_back() {
    let (_b, addr) = serve_b(answer).await;
    let relay = relay("net", &addr);
    let ask = |change| Order::Upgrade(UpgradeChangeRequest { change: Some(change), dry_run: false });
    match relay.order(&"b".into(), ask(Change::Cancel("v2".into()))).await {
        Ok(Answer::Upgrade(done)) => assert_eq!(done.lines, ["v2 is not planned any more"]),
        other => panic!("{other:?}"),
    }
    match relay.order(&"b".into(), ask(Change::Rollback(Blank {}))).await {
        Err(NotDone::Refused(reason)) => assert!(reason.starts_with("not Some(Rollback"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_order_is_passed_on_and_its_answer_comes_back() {
    let (_b, addr) = serve_b(answer).await;
    let relay = relay("net", &addr);
    assert_eq!(relay.order(&"b".into(), maintenance("a")).await, told("a is in maintenance"));
    let pause = Order::Pause(SetPause { on: true, at_ns: 0 });
    assert_eq!(relay.order(&"b".into(), pause).await, Err(NotDone::NotNow("b does not lead".into())));
}

#[tokio::test]
async fn a_handover_may_take_longer_than_a_request() {
    let (_b, addr) = serve_b(answer).await;
    let relay = relay("net", &addr);
    let holder = "b".into();
    let (done, refused) = tokio::join!(relay.order(&holder, handover("a")), relay.order(&holder, handover("b")));
    let moved = HandoverResponse { to: "a".into(), epoch: 7, ..HandoverResponse::default() };
    assert_eq!(done, Ok(Answer::Handover(moved)));
    assert_eq!(refused, Err(NotDone::Refused("b holds the baton already".into())));
}

#[tokio::test]
async fn a_handover_waits_until_a_restarted_member_is_listened_to() {
    let (_b, addr) = serve_b(answer).await;
    let [before, after] = [1, 2].map(|start| Relay::new(process("a", start), roster(&addr)));
    let b = "b".into();
    assert_eq!(before.order(&b, maintenance("a")).await, told("a is in maintenance"));
    match after.order(&b, maintenance("a")).await {
        Err(NotDone::NotNow(reason)) => assert!(reason.contains("another process speaks for a"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(after.order(&b, handover("a")).await, Ok(Answer::Handover(HandoverResponse { epoch: 7, .. }))));
}

#[tokio::test]
async fn a_stranger_is_not_listened_to() {
    let (_b, addr) = serve_b(|ask| panic!("asked: {ask:?}")).await;
    match relay("another", &addr).order(&"b".into(), maintenance("a")).await {
        Err(NotDone::NotNow(reason)) => assert!(reason.contains("belongs to cluster \"another\""), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_absent_leader_is_worth_asking_again_and_an_unknown_one_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    let relay = relay("net", &addr);
    let absent = relay.order(&"b".into(), maintenance("a")).await;
    let says_why = |reason: &str| reason.starts_with("b cannot be asked: Connection refused");
    assert!(matches!(&absent, Err(NotDone::NotNow(reason)) if says_why(reason)), "{absent:?}");
    let unknown = relay.order(&"z".into(), maintenance("a")).await;
    assert!(
        matches!(&unknown, Err(NotDone::Refused(reason)) if reason.starts_with("z is not a member")),
        "{unknown:?}"
    );
}
