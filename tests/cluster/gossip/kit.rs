//! Members that gossip over real connections on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use baton::base::ids::{NodeId, Role};
use baton::base::timing::Timing;
use baton::cluster::gossip::{Gossip, Table};
use baton::cluster::identity::{Identity, Known};
use baton::cluster::roster::Roster;
use baton::cluster::transport;
use baton::cluster::wire::proto::gossip_server::{Gossip as GossipRpc, GossipServer};
use baton::cluster::wire::proto::{Record, Sender};
use baton::cluster::wire::{AppliedState, PROTOCOL};
use baton::config;
use baton::core::agreed::members::Members;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint, Server};

pub const PATIENCE: Duration = Duration::from_secs(20);
const CLUSTER: &str = "test-cluster";

pub async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// An address where nobody listens.
pub async fn nowhere() -> SocketAddr {
    listen().await.1
}

pub fn channel(addr: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{addr}")).unwrap().connect_lazy()
}

pub fn incarnation(id: &str) -> u64 {
    id.bytes().map(u64::from).sum()
}

pub struct Member {
    pub gossip: Gossip,
    pub applied: watch::Sender<AppliedState>,
    pub members: watch::Sender<Arc<Members>>,
    _server: JoinSet<()>,
}

pub fn serve<S>(listener: TcpListener, service: GossipServer<S>) -> JoinSet<()>
where
    S: GossipRpc,
{
    let mut server = JoinSet::new();
    server.spawn(async move {
        let incoming = transport::incoming(listener, None, &Timing::LAN);
        Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
    });
    server
}

pub fn start(id: &str, listener: TcpListener, peers: &[(&str, SocketAddr)]) -> Member {
    let (applied, members) = (watch::Sender::new(AppliedState::default()), watch::Sender::new(Arc::default()));
    let own = (id, listener.local_addr().unwrap());
    let listed: Vec<config::Member> = peers.iter().chain([&own]).map(|(peer, addr)| listed(peer, *addr)).collect();
    let ids = listed.iter().map(|member| member.id.clone()).collect();
    let known = Known { listed: ids, members: members.subscribe(), applied: applied.subscribe() };
    let identity = Identity::new(CLUSTER, id.into(), incarnation(id), known);
    let cluster = config::Cluster { name: CLUSTER.into(), listen: own.1, members: listed, failback: false };
    let roster = Roster::new(id.into(), &cluster, members.subscribe(), None, Timing::LAN);
    let gossip = Gossip::start(Arc::new(identity), roster);
    let server = serve(listener, gossip.service());
    Member { gossip, applied, members, _server: server }
}

pub fn listed(id: &str, addr: SocketAddr) -> config::Member {
    config::Member { id: id.into(), addr: addr.to_string(), role: Role::Validator, priority: 1 }
}

pub fn in_state(state: &str) -> Record {
    Record { state: state.into(), ..Default::default() }
}

impl Member {
    /// As if the log had recorded these stores.
    pub fn record(&self, incarnations: BTreeMap<NodeId, u64>) {
        self.applied.send_modify(|state| Arc::make_mut(&mut state.replicated).incarnations = incarnations);
    }

    pub async fn sees(&self, what: &str, condition: impl Fn(&Table) -> bool) -> Arc<Table> {
        let mut table = self.gossip.table();
        let found = timeout(PATIENCE, table.wait_for(|table| condition(table))).await;
        if let Ok(found) = found {
            return found.expect("gossip goes on").clone();
        }
        let table = self.gossip.table().borrow().clone();
        panic!("{:?} never saw {what}; its table: {table:#?}", table.me());
    }

    pub async fn sees_state(&self, of: &str, state: &str) -> Arc<Table> {
        self.sees(&format!("{of} in {state}"), |table| state_of(table, of) == Some(state)).await
    }
}

pub fn state_of<'a>(table: &'a Table, of: &str) -> Option<&'a str> {
    table.get(&of.into())?.record.as_ref().map(|record| record.state.as_str())
}

pub async fn pair() -> (Member, Member, SocketAddr) {
    let ((listen_a, a), (listen_b, b)) = (listen().await, listen().await);
    (start("host-a", listen_a, &[("host-b", b)]), start("host-b", listen_b, &[("host-a", a)]), a)
}

pub fn sender(member: &str) -> Sender {
    Sender {
        cluster: CLUSTER.into(),
        member: member.into(),
        incarnation: incarnation(member),
        protocol: PROTOCOL,
        founders: 0,
        session: 0,
        start: 0,
        knows: 0,
    }
}
