//! Clusters of three founders in this process, and whoever is added to them: real Raft, stores and gRPC over loopback,
//! with a `Front` before each member. The core decides, but unless a test wants it, nobody does what it asks for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton::base::ids::{Epoch, NodeId, Role, SignMark};
use baton::base::time::{BootTime, WallTime};
use baton::base::timing::Timing;
use baton::cluster::identity::{Identity, Known};
use baton::cluster::raft::{Consensus, Origin, Start};
use baton::cluster::roster::Roster;
use baton::cluster::store::{AppliedEntry, News, Opened, PromiseFile, Store, StoreError, count_start};
use baton::cluster::transport;
use baton::cluster::wire::proto::raft_client::RaftClient;
use baton::cluster::wire::{
    Entry, LogId, Message, OfLeader, PROTOCOL, Sender, Session, TransferAnswer, TypeConfig, Vote,
};
use baton::config;
use baton::core::agreed::members::{Change, Member as Belonging};
use baton::core::agreed::replicated::{Baton, Command};
use baton::core::{Action, Core, Event, Memory, Settings};
use baton::core_handle::SharedCore;
use baton::record::Recorder;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest, VoteResponse};
use openraft::vote::leader_id_std::CommittedLeaderId;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::Status;
use tonic::transport::Channel;

use super::front::Front;
use super::pause::{Pausable, Pause};
use super::slow_disk::SlowDisk;

/// Longer than anything takes that is going to happen at all.
pub const LONG: Duration = Duration::from_secs(20);
pub const CLUSTER: &str = "test";

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A promise that no test outlives. Raft waits for votes in heartbeats: these are long enough for a busy machine.
pub fn long_lease() -> Timing {
    Timing::new(ms(400), Duration::from_secs(60), ms(50), 1000).expect("safe")
}

/// A promise that runs out soon.
pub fn short_lease() -> Timing {
    Timing::new(ms(150), ms(900), ms(50), 1000).expect("safe")
}

/// One that runs out, but not on a busy machine.
pub fn patient_lease() -> Timing {
    Timing::new(ms(400), Duration::from_secs(3), ms(50), 1000).expect("safe")
}

/// What the members of a test are like.
#[derive(Clone)]
pub struct Shape {
    pub timing: Timing,
    pub roles: [Role; 3],
    /// Campaigns when the core asks for it, and lets it know that time passes, as the driver would.
    pub obeys_core: bool,
    /// They tell the processes of one member apart. Without gossip a restart is known to the leader alone.
    pub sessions: bool,
    /// Of members that are configured with another one than `timing`.
    pub timings: BTreeMap<NodeId, Timing>,
    pub snapshot_every: u64,
}

impl Shape {
    pub fn arbiters(timing: Timing) -> Shape {
        Shape {
            timing,
            roles: [Role::Arbiter; 3],
            obeys_core: false,
            sessions: false,
            timings: BTreeMap::new(),
            snapshot_every: config::SNAPSHOT_EVERY.into(),
        }
    }

    fn timing_of(&self, member: &NodeId) -> Timing {
        self.timings.get(member).copied().unwrap_or(self.timing)
    }
}

pub struct Cluster {
    shape: Shape,
    members: Vec<Member>,
}

struct Member {
    id: NodeId,
    /// It was not there when the cluster was formed.
    joins: bool,
    dir: TempDir,
    front: Front,
    disk: SlowDisk,
    /// Of what it does with a snapshot.
    pause: Pause,
    running: Option<Running>,
}

impl Member {
    async fn new(name: &str, joins: bool) -> Member {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (front, disk, pause) = (Front::start(name).await, SlowDisk::default(), Pause::default());
        Member { id: name.into(), joins, dir, front, disk, pause, running: None }
    }
}

pub struct Running {
    pub consensus: Consensus,
    pub core: Arc<SharedCore>,
    pub store: Store,
    pub incarnation: u64,
    pub identity: Arc<Identity>,
    /// What the core has asked for.
    pub asked: Arc<Mutex<Vec<Action>>>,
    /// Where it answers, without its front.
    pub addr: SocketAddr,
    pub direct: Channel,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Cluster {
    /// Members a, b and c, none of which has ever voted.
    pub async fn start(shape: Shape) -> Cluster {
        let mut members = Vec::new();
        for name in ["a", "b", "c"] {
            members.push(Member::new(name, false).await);
        }
        let mut cluster = Cluster { shape, members };
        for name in ["a", "b", "c"] {
            cluster.start_member(name).await;
        }
        cluster
    }

    /// `name` runs with an empty store and waits to be added.
    pub async fn start_joiner(&mut self, name: &str) {
        self.members.push(Member::new(name, true).await);
        self.start_member(name).await;
    }

    /// From its next start on, `name` joins: the cluster is not to be formed by it.
    pub fn set_joins(&mut self, name: &str) {
        self.member_mut(name).joins = true;
    }

    /// The order to add `name` with the store that it has now.
    pub fn addition(&self, name: &str) -> Change {
        let (addr, incarnation) = (self.front(name).addr.clone(), Some(self.at(name).incarnation));
        Change::Add { id: name.into(), member: Belonging { addr, role: Role::Arbiter, priority: 0, incarnation } }
    }

    /// `leader` makes the change, as soon as those before it are committed.
    pub async fn change(&self, leader: &str, change: Change) {
        let what = format!("{change:?}");
        let made = timeout(LONG, async {
            loop {
                match self.at(leader).consensus.change_members(change.clone()).await {
                    Err(error) if error.0.contains("already undergoing") => sleep(ms(20)).await,
                    made => break made,
                }
            }
        })
        .await;
        made.unwrap_or_else(|_| panic!("{what}: not within {LONG:?}"))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
    }

    /// A cluster that a leads in term 1, which b and c have heard of.
    pub async fn led_by_a(shape: Shape) -> Cluster {
        let cluster = Cluster::start(shape).await;
        cluster.elect("a", 1).await;
        cluster
    }

    /// `name` campaigns and leads `term`, with a live lease.
    pub async fn elect(&self, name: &str, term: u64) {
        self.at(name).consensus.campaign().await;
        let what = format!("{name} leads term {term} with a lease");
        eventually(&what, || self.leads(name) == Some(term) && self.lease(name).is_some()).await;
        // What a follower's core knows comes a moment after what its Raft knows.
        let has_promised =
            |id: &NodeId| self.at(id.as_str()).core.read(|core, now| core.may_vote(now.boot, id)).is_err();
        let followers = || self.members.iter().filter(|member| member.id != name.into() && member.running.is_some());
        eventually("all know the leader", || self.leaders().iter().all(|known| *known == (Some(name.into()), term)))
            .await;
        eventually("all have promised", || followers().all(|one| has_promised(&one.id))).await;
        // Until then openraft takes no change of the members.
        let has_committed =
            || self.at(name).store.applied().borrow().last_applied.is_some_and(|id| id.leader_id.term == term);
        eventually("an entry of its term is committed", has_committed).await;
    }

    pub fn at(&self, name: &str) -> &Running {
        self.member(name).running.as_ref().unwrap_or_else(|| panic!("{name} is down"))
    }

    pub fn front(&self, name: &str) -> &Front {
        &self.member(name).front
    }

    pub fn disk(&self, name: &str) -> &SlowDisk {
        &self.member(name).disk
    }

    pub fn pause(&self, name: &str) -> &Pause {
        &self.member(name).pause
    }

    pub fn dir(&self, name: &str) -> &std::path::Path {
        self.member(name).dir.path()
    }

    /// Nothing passes between `name` and the others any more.
    pub fn isolate(&self, name: &str) {
        for member in &self.members {
            let all_but_it = |other: &str| (other == name) != (member.id == name.into());
            member.front.rule(|rules| {
                let names = self.members.iter().map(|other| other.id.to_string());
                rules.cut.extend(names.filter(|other| all_but_it(other)))
            });
        }
    }

    pub fn join_again(&self) {
        self.members.iter().for_each(|member| member.front.rule(|rules| rules.cut.clear()));
    }

    /// The term that the core of `name` knows it leads.
    pub fn leads(&self, name: &str) -> Option<u64> {
        self.at(name).core.read(|core, _| core.leads())
    }

    pub fn lease(&self, name: &str) -> Option<Duration> {
        self.at(name).core.read(|core, now| core.lease_remaining(now.boot))
    }

    /// Term of the vote that `name` has on disk.
    pub fn vote_term(&self, name: &str) -> u64 {
        self.at(name).store.vote().map_or(0, |vote| vote.leader_id.term)
    }

    /// Leader and term as each running member sees them.
    pub fn leaders(&self) -> Vec<(Option<NodeId>, u64)> {
        self.members.iter().filter_map(|member| Some(member.running.as_ref()?.consensus.leader())).collect()
    }

    /// Ends `name` in good order; its store stays.
    pub async fn stop_member(&mut self, name: &str) {
        let member = self.member_mut(name);
        member.front.lead_to(None);
        let mut running = member.running.take().unwrap_or_else(|| panic!("{name} is down already"));
        running.consensus.shutdown().await;
        let _ = running.stop.take().map(|stop| stop.send(()));
        running.direct = Channel::from_static("http://127.0.0.1:1").connect_lazy();
        (&mut running.server).await.expect("the server ends");
    }

    /// To be called while `name` is down: it starts with another `[timing]`.
    pub fn set_timing(&mut self, name: &str, timing: Timing) {
        self.shape.timings.insert(name.into(), timing);
    }

    pub fn wipe(&self, name: &str) {
        std::fs::remove_dir_all(self.dir(name)).expect("the store is removed");
        std::fs::create_dir(self.dir(name)).expect("an empty state directory");
    }

    pub async fn start_member(&mut self, name: &str) {
        let running = self.start_in(name, self.dir(name)).await;
        let member = self.member_mut(name);
        member.front.lead_to(Some(running.direct.clone()));
        member.running = Some(running);
    }

    /// `name`, which is down, with what it has on disk, in another directory.
    pub async fn copy_of(&self, name: &str) -> TempDir {
        drop(self.open_store(self.dir(name), name).await);
        let copy = tempfile::tempdir().expect("a temporary directory");
        copy_all(self.dir(name), copy.path());
        copy
    }

    /// One more process of `name`, which nobody's requests reach.
    pub async fn start_in(&self, name: &str, dir: &Path) -> Running {
        let opened = self.open_store(dir, name).await;
        let start_number = self.shape.sessions.then(|| count_start(dir).expect("counted"));
        let listed = self.members.iter().enumerate().filter(|(place, m)| *place < 3 || m.id == name.into());
        let addrs: BTreeMap<NodeId, String> = listed.map(|(_, m)| (m.id.clone(), m.front.addr.clone())).collect();
        start(&self.shape, self.member(name), addrs, dir, opened, start_number).await
    }

    /// A store is let go of when the last task that uses it has ended, some time after it was told to.
    async fn open_store(&self, dir: &Path, name: &str) -> Opened {
        let began_at = BootTime::now();
        loop {
            match Store::open_observed(dir, CLUSTER, &name.into(), self.disk(name).before_sync()) {
                Ok(opened) => return opened,
                Err(StoreError::InUse { .. }) if BootTime::now().since(began_at) < LONG => sleep(ms(10)).await,
                Err(error) => panic!("open the store of {name}: {error}"),
            }
        }
    }

    fn member(&self, name: &str) -> &Member {
        self.members.iter().find(|member| member.id == name.into()).unwrap_or_else(|| panic!("no member {name}"))
    }

    fn member_mut(&mut self, name: &str) -> &mut Member {
        self.members.iter_mut().find(|member| member.id == name.into()).unwrap_or_else(|| panic!("no member {name}"))
    }
}

/// Requests that no member would make by itself.
impl Cluster {
    pub fn sender(&self, name: &str) -> Sender {
        let running = self.member(name).running.as_ref();
        let incarnation = running.map_or(7, |running| running.incarnation);
        let session = running.map_or(Session::default(), |running| running.identity.me().session);
        Sender {
            cluster: CLUSTER.into(),
            member: name.into(),
            incarnation,
            protocol: PROTOCOL,
            founders: 0,
            session,
            knows: 0,
        }
    }

    pub async fn ask_vote(
        &self,
        at: &str,
        sender: &Sender,
        request: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, Status> {
        let answer = RaftClient::new(self.at(at).direct.clone()).vote(request.to_proto(sender)).await?;
        Ok(VoteResponse::from_proto(answer.into_inner()).expect("a whole answer").1)
    }

    pub async fn ask_pre_vote(
        &self,
        at: &str,
        sender: &Sender,
        request: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, Status> {
        let answer = RaftClient::new(self.at(at).direct.clone()).pre_vote(request.to_proto(sender)).await?;
        Ok(VoteResponse::from_proto(answer.into_inner()).expect("a whole answer").1)
    }

    pub async fn offer_lead(
        &self,
        at: &str,
        sender: &Sender,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> Result<TransferAnswer, Status> {
        let answer = RaftClient::new(self.at(at).direct.clone()).transfer_leader(request.to_proto(sender)).await?;
        Ok(TransferAnswer::from_proto(answer.into_inner()).expect("a whole answer").1)
    }

    /// `at` gets `entries`, the first ones of its log, as if from `leader` in `term`.
    pub async fn append_as(&self, leader: &str, at: &str, term: u64, entries: Vec<Entry>) -> Result<(), Status> {
        let vote = Vote::new_committed(term, leader.into());
        let request = AppendEntriesRequest::<TypeConfig> { vote, prev_log_id: None, entries, leader_commit: None };
        let lease = Some(self.shape.timing_of(&leader.into()).span());
        let message = OfLeader { lease, request }.to_proto(&self.sender(leader));
        RaftClient::new(self.at(at).direct.clone()).append_entries(message).await.map(|_| ())
    }

    /// Whether `at` gives `candidate`, whose log is as long as can be, its vote in `term`.
    pub async fn votes_for(&self, at: &str, candidate: &str, term: u64, leadership_transfer: bool) -> bool {
        let request = VoteRequest { leadership_transfer, ..candidacy(candidate, term) };
        let answer = self.ask_vote(at, &self.sender(candidate), request).await.expect("it answers");
        answer.vote_granted
    }
}

/// A request for votes of somebody whose log is longer than any other.
pub fn candidacy(candidate: &str, term: u64) -> VoteRequest<TypeConfig> {
    let last_log = LogId { leader_id: CommittedLeaderId::new(term), index: 1_000_000 };
    VoteRequest::new(Vote::new(term, candidate.into()), Some(last_log))
}

pub fn release(epoch: u64) -> Command {
    let (last_signed, at) = (Some(SignMark::at_height(7)), WallTime::now());
    Command::Baton(Baton::Release { epoch: Epoch(epoch), last_signed, reason: "test".into(), at, to: None })
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let began_at = BootTime::now();
    while !condition() {
        assert!(BootTime::now().since(began_at) < LONG, "not within {LONG:?}: {what}");
        sleep(ms(5)).await;
    }
}

fn listed(addrs: &BTreeMap<NodeId, String>) -> config::Cluster {
    let member = |(id, addr): (&NodeId, &String)| config::Member {
        id: id.clone(),
        addr: addr.clone(),
        role: Role::Arbiter,
        priority: 0,
    };
    config::Cluster {
        name: CLUSTER.into(),
        listen: ([127, 0, 0, 1], 1).into(),
        members: addrs.iter().map(member).collect(),
        failback: false,
    }
}

async fn start(
    shape: &Shape,
    member: &Member,
    addrs: BTreeMap<NodeId, String>,
    state_dir: &Path,
    opened: Opened,
    start_number: Option<u64>,
) -> Running {
    let me = &member.id;
    let (mut promises, unreadable) = PromiseFile::open(state_dir, BootTime::now());
    assert!(unreadable.is_none(), "{unreadable:?}");
    let promised = promises.kept();
    promises.note(shape.timing_of(me).promise(), BootTime::now()).unwrap();
    let memory = Memory {
        promised,
        promise_lost: false,
        fresh: opened.fresh,
        vote_term: opened.store.vote().map_or(0, |vote| vote.leader_id.term),
        released_term: opened.store.last_release_term(),
        view: opened.store.applied().borrow().replicated.view(),
        mark_seen: None,
    };
    let settings = settings(shape, me, &addrs);
    let (core, actions) = SharedCore::new(Core::new(settings, memory, BootTime::now()), Recorder::off());
    let core = Arc::new(core);
    let (members, applied) = (opened.store.members(), opened.store.applied());
    let known = Known { listed: addrs.keys().cloned().collect(), members: members.clone(), applied };
    let identity = Identity::new(CLUSTER, me.clone(), opened.incarnation, known);
    let identity = Arc::new(match start_number {
        Some(start) => identity.in_session(start, &shape.timing),
        None => identity,
    });
    let roster = Roster::new(me.clone(), &listed(&addrs), members, None, shape.timing);
    let founder = |(id, addr): (&NodeId, &String)| {
        (id.clone(), Belonging { addr: addr.clone(), role: Role::Arbiter, priority: 0, incarnation: None })
    };
    let origin = if member.joins { Origin::Join } else { Origin::Found(addrs.iter().map(founder).collect()) };
    let consensus = Consensus::start(Start {
        cluster: CLUSTER.into(),
        origin,
        joined: opened.joined,
        identity: identity.clone(),
        roster,
        timing: shape.timing_of(me),
        log: opened.log,
        state_machine: opened.state_machine,
        core: core.clone(),
        promises,
        snapshot_every: shape.snapshot_every,
    })
    .await
    .expect("raft starts");

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let direct = Channel::from_shared(format!("http://{addr}")).expect("an address").connect_lazy();
    let (stop, stopped) = oneshot::channel::<()>();
    let service = Pausable::new(consensus.service(), member.pause.clone());
    let server = transport::server(&shape.timing).add_service(service);
    let incoming = transport::incoming(listener, None, &shape.timing);
    let server = server.serve_with_incoming_shutdown(incoming, async { drop(stopped.await) });
    let asked = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = vec![
        tokio::spawn(perform(shape.obeys_core, consensus.clone(), actions, asked.clone())),
        tokio::spawn(pass_applied(core.clone(), opened.news)),
    ];
    if shape.obeys_core {
        tasks.push(tokio::spawn(tick(core.clone())));
    }
    let server = tokio::spawn(async { server.await.expect("peers are answered") });
    let (store, incarnation) = (opened.store, opened.incarnation);
    Running { consensus, core, store, incarnation, identity, asked, addr, direct, stop: Some(stop), server, tasks }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("readable") {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("an entry");
        if path.is_dir() {
            std::fs::create_dir(to.join(&name)).expect("a directory");
            copy_all(&path, &to.join(&name));
        } else {
            std::fs::copy(&path, to.join(&name)).expect("copied");
        }
    }
}

fn settings(shape: &Shape, me: &NodeId, addrs: &BTreeMap<NodeId, String>) -> Settings {
    let place = addrs.keys().position(|id| id == me).expect("a member");
    Settings {
        me: me.clone(),
        role: shape.roles.get(place).copied().unwrap_or(Role::Arbiter),
        priorities: addrs.keys().map(|id| (id.clone(), 0)).collect(),
        timing: shape.timing_of(me),
        unstated_lease: None,
        failback: false,
        clock_skew: Duration::ZERO,
        node_refuses: false,
        probe_failures_max: 3,
        min_peers: None,
        head_still_max: LONG,
        activation_max: LONG,
        stop_timeout: LONG,
        settle_max: None,
        sees_key_on_chain: false,
        custody: baton::base::signing::Custody::Links,
    }
}

async fn perform(
    obeys: bool,
    consensus: Consensus,
    mut actions: mpsc::UnboundedReceiver<Action>,
    asked: Arc<Mutex<Vec<Action>>>,
) {
    while let Some(action) = actions.recv().await {
        asked.lock().expect("no panic in here").push(action.clone());
        // Of the rest, what a test wants to happen it reports by hand: there is no host.
        if obeys && action == Action::Campaign {
            consensus.campaign().await;
        }
    }
}

async fn pass_applied(core: Arc<SharedCore>, mut news: mpsc::UnboundedReceiver<News>) {
    while let Some(news) = news.recv().await {
        core.step(match news {
            News::Entry(AppliedEntry { term, index: _, command, result, view }) => {
                Event::Applied { term, command, outcome: result, view }
            }
            News::Snapshot(view, released_term) => Event::Restored { view, released_term },
            News::Forgotten(view) => Event::Forgotten { view },
        });
    }
}

async fn tick(core: Arc<SharedCore>) {
    loop {
        sleep(ms(10)).await;
        core.step(Event::Tick);
    }
}
