//! What stands between a member and those who call it: passes requests on, writes down who asked what,
//! and cuts, holds, delays or falsifies as a test wants it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton::cluster::wire::proto;
use baton::cluster::wire::proto::raft_client::RaftClient;
use baton::cluster::wire::proto::raft_server::{Raft, RaftServer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Append,
    Vote,
    PreVote,
    Snapshot,
    Transfer,
}

/// One request that arrived, whatever became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub from: String,
    pub call: Call,
    pub term: u64,
}

/// How requests are treated.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Nothing from these members gets through.
    pub cut: BTreeSet<String>,
    /// Appends wait until this is false again.
    pub hold_appends: bool,
    /// The answer to an append is kept back for as long.
    pub late: Duration,
    /// What appends are answered with, instead of being passed on.
    pub higher: Option<proto::Ballot>,
    /// Answers do not say for how long they promise, as those of an earlier version.
    pub silent: bool,
}

#[derive(Clone)]
pub struct Front {
    pub addr: String,
    name: String,
    target: Arc<Mutex<Option<Channel>>>,
    rules: watch::Sender<Rules>,
    seen: watch::Sender<Vec<Seen>>,
}

impl Front {
    /// Listens for as long as the runtime of the test lives.
    pub async fn start(name: &str) -> Front {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let front = Front {
            addr: listener.local_addr().expect("an address").to_string(),
            name: name.to_owned(),
            target: Arc::default(),
            rules: watch::Sender::default(),
            seen: watch::Sender::default(),
        };
        let server = Server::builder().add_service(RaftServer::new(front.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        front
    }

    /// Requests go to `target` from now on, or nowhere.
    pub fn lead_to(&self, target: Option<Channel>) {
        *self.target.lock().expect("no panic in here") = target;
    }

    pub fn rule(&self, change: impl FnOnce(&mut Rules)) {
        self.rules.send_modify(change);
    }

    /// Nothing from `name` gets through from now on.
    pub fn cut(&self, name: &str) {
        self.rule(|rules| rules.cut.extend([name.to_owned()]));
    }

    pub fn count(&self, wanted: impl Fn(&Seen) -> bool) -> usize {
        self.seen.borrow().iter().filter(|seen| wanted(seen)).count()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    pub fn forget_seen(&self) {
        self.seen.send_modify(Vec::clear);
    }

    /// Waits until `many` requests that are `wanted` have arrived.
    pub async fn await_seen(&self, many: usize, wanted: impl Fn(&Seen) -> bool) {
        let mut seen = self.seen.subscribe();
        let enough = seen.wait_for(|seen| seen.iter().filter(|one| wanted(one)).count() >= many);
        if timeout(super::kit::LONG, enough).await.is_err() {
            panic!("{} did not see {many} of these, but {:?}", self.name, self.seen.borrow());
        }
    }

    async fn pass_append(
        &self,
        request: proto::AppendEntriesRequest,
    ) -> Result<Response<proto::AppendEntriesResponse>, Status> {
        let mut target = self.pass(Call::Append, request.sender.as_ref(), request.ballot.as_ref()).await?;
        let Rules { late, higher, silent, .. } = self.rules.borrow().clone();
        let mut answer = target.append_entries(request).await?;
        if let Some(higher) = higher {
            answer.get_mut().result = Some(proto::append_entries_response::Result::Higher(higher));
        }
        if silent {
            answer.get_mut().promised_ns = 0;
        }
        sleep(late).await;
        Ok(answer)
    }

    async fn pass(
        &self,
        call: Call,
        sender: Option<&proto::Sender>,
        ballot: Option<&proto::Ballot>,
    ) -> Result<RaftClient<Channel>, Status> {
        let from = sender.map(|sender| sender.member.clone()).unwrap_or_default();
        let term = ballot.map_or(0, |ballot| ballot.term);
        self.seen.send_modify(|seen| seen.push(Seen { from: from.clone(), call, term }));
        if call == Call::Append {
            // The sender of the rules lives as long as this does.
            let _ = self.rules.subscribe().wait_for(|rules| !rules.hold_appends).await;
        }
        if self.rules.borrow().cut.contains(&from) {
            return Err(Status::unavailable("cut"));
        }
        let target = self.target.lock().expect("no panic in here").clone();
        target.map(RaftClient::new).ok_or_else(|| Status::unavailable("down"))
    }
}

#[tonic::async_trait]
impl Raft for Front {
    async fn append_entries(
        &self,
        request: Request<proto::AppendEntriesRequest>,
    ) -> Result<Response<proto::AppendEntriesResponse>, Status> {
        // In a task of its own: what was sent arrives, also when the sender does not wait any more.
        let (front, request) = (self.clone(), request.into_inner());
        tokio::spawn(async move { front.pass_append(request).await }).await.expect("no panic in here")
    }

    async fn vote(&self, request: Request<proto::VoteRequest>) -> Result<Response<proto::VoteResponse>, Status> {
        let request = request.into_inner();
        self.pass(Call::Vote, request.sender.as_ref(), request.ballot.as_ref()).await?.vote(request).await
    }

    async fn pre_vote(&self, request: Request<proto::VoteRequest>) -> Result<Response<proto::VoteResponse>, Status> {
        let request = request.into_inner();
        self.pass(Call::PreVote, request.sender.as_ref(), request.ballot.as_ref()).await?.pre_vote(request).await
    }

    async fn install_snapshot(
        &self,
        request: Request<proto::InstallSnapshotRequest>,
    ) -> Result<Response<proto::InstallSnapshotResponse>, Status> {
        let (front, request) = (self.clone(), request.into_inner());
        let passed = async move {
            let mut target = front.pass(Call::Snapshot, request.sender.as_ref(), request.ballot.as_ref()).await?;
            target.install_snapshot(request).await
        };
        // As for an append.
        tokio::spawn(passed).await.expect("no panic in here")
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let mut target = self.pass(Call::Transfer, request.sender.as_ref(), request.from.as_ref()).await?;
        target.transfer_leader(request).await
    }
}
