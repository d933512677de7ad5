//! What an operator asked of one member and another one has to do: an order goes to the leader, a handover to
//! the holder, over the connections between members. It passes questions on and decides nothing; the driver
//! at the other end answers them as if they had been asked there, and passes none on again.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::base::ids::NodeId;
use crate::cluster::identity::{Identity, Stranger};
use crate::cluster::roster::Roster;
use crate::cluster::transport::{self, Visitor};
use crate::cluster::wire::proto::order_request::Order;
use crate::cluster::wire::proto::relay_client::RelayClient;
use crate::cluster::wire::proto::relay_server::{Relay as RelayRpc, RelayServer};
use crate::cluster::wire::proto::{
    HandoverResponse, MemberChangeRequest, MemberChangeResponse, OrderRequest, OrderResponse, RelayedHandover,
    RelayedMemberChange, RelayedOrder, RelayedUpgradeChange, UpgradeChangeRequest, UpgradeChangeResponse,
};
use crate::cluster::wire::{Sender, proto};
use crate::operator::admin::{Ask, Asker, CHANGE_MAX, NotDone, WantedHandover};

/// For a leader to commit an order. The operator's coordinator asks again, maybe another leader.
const ORDER_MAX: Duration = Duration::from_secs(1);
/// Longest order or handover: names, numbers and a reason.
const ORDER_BYTES_MAX: usize = 64 * 1024;
/// For a member to hear that this process speaks in the place of an earlier one, which it does as soon as it has
/// dialled it.
const HEARD_MAX: Duration = Duration::from_secs(8);
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// By how much the answer to a handover is late at most.
const LATE_MAX: Duration = Duration::from_millis(500);

/// Passes questions on to other members.
#[derive(Clone)]
pub struct Relay {
    identity: Arc<Identity>,
    roster: Arc<Roster>,
}

impl Relay {
    pub fn new(identity: Arc<Identity>, roster: Arc<Roster>) -> Relay {
        Relay { identity, roster }
    }

    /// What other members pass on to this one goes to `asks`.
    pub fn service(&self, asks: mpsc::Sender<Ask>) -> RelayServer<RelayService> {
        RelayServer::new(RelayService { identity: self.identity.clone(), asks })
            .max_decoding_message_size(ORDER_BYTES_MAX)
    }

    /// Has `leader` commit `order`; the sentence that it says of it.
    ///
    /// # Errors
    /// `NotNow` when its fate is unknown as well.
    pub async fn order(&self, leader: &NodeId, order: Order) -> Result<String, NotDone> {
        let mut client = self.client(leader)?;
        let request = RelayedOrder { sender: self.sender(), order: Some(OrderRequest { order: Some(order) }) };
        let asked = async { Ok(client.order(request).await?.into_inner().done) };
        answered(leader, ORDER_MAX, asked).await
    }

    /// Has `holder` hand the baton over.
    pub async fn handover(&self, holder: &NodeId, wanted: &WantedHandover) -> Result<HandoverResponse, NotDone> {
        let mut client = self.client(holder)?;
        let request = RelayedHandover { sender: self.sender(), handover: Some(wanted.request()) };
        let heard_by = Instant::now() + HEARD_MAX;
        let asked = async {
            loop {
                match client.handover(request.clone()).await {
                    Err(status) if status.code() == NOT_HEARD && Instant::now() < heard_by => sleep(ASK_AGAIN).await,
                    answer => return only(answer?.into_inner()).await,
                }
            }
        };
        answered(holder, wanted.timeout + LATE_MAX, asked).await
    }

    /// Has `leader` change the membership.
    ///
    /// # Errors
    /// `NotNow` when its fate is unknown as well.
    pub async fn change_member(
        &self,
        leader: &NodeId,
        change: MemberChangeRequest,
    ) -> Result<MemberChangeResponse, NotDone> {
        let mut client = self.client(leader)?;
        let request = RelayedMemberChange { sender: self.sender(), change: Some(change) };
        let asked = async { only(client.change_member(request).await?.into_inner()).await };
        answered(leader, CHANGE_MAX, asked).await
    }

    /// Has `leader` plan an upgrade, or end one.
    ///
    /// # Errors
    /// `NotNow` when its fate is unknown as well.
    pub async fn change_upgrade(
        &self,
        leader: &NodeId,
        change: UpgradeChangeRequest,
    ) -> Result<UpgradeChangeResponse, NotDone> {
        let mut client = self.client(leader)?;
        let request = RelayedUpgradeChange { sender: self.sender(), change: Some(change) };
        let asked = async { Ok(client.change_upgrade(request).await?.into_inner()) };
        answered(leader, ORDER_MAX, asked).await
    }

    fn client(&self, member: &NodeId) -> Result<RelayClient<Channel>, NotDone> {
        let channel = self.roster.channel(member);
        channel
            .map(RelayClient::new)
            .ok_or_else(|| NotDone::Refused(format!("{member} is not a member of this cluster")))
    }

    fn sender(&self) -> Option<proto::Sender> {
        Some((&self.identity.me()).into())
    }
}

/// What `member` says within `limit`.
async fn answered<T>(
    member: &NodeId,
    limit: Duration,
    asked: impl Future<Output = Result<T, Status>>,
) -> Result<T, NotDone> {
    match timeout(limit, asked).await {
        Ok(answer) => answer.map_err(|status| not_done(member, &status)),
        Err(_) => Err(NotDone::NotNow(format!("{member} does not answer"))),
    }
}

/// The one message of a stream.
async fn only<T>(mut stream: Streaming<T>) -> Result<T, Status> {
    stream.message().await?.ok_or_else(|| Status::unavailable("it ended without an answer"))
}

/// Another process spoke for the asking member until now. It may be the one that it has just taken the place of.
const NOT_HEARD: Code = Code::AlreadyExists;

/// The code says whether it is worth asking again.
fn not_done(member: &NodeId, status: &Status) -> NotDone {
    let reason = status.message();
    match status.code() {
        Code::FailedPrecondition => NotDone::Refused(reason.to_owned()),
        Code::Aborted => NotDone::NotNow(reason.to_owned()),
        // An older version of baton.
        Code::Unimplemented => {
            NotDone::Refused(format!("{member} runs a version that knows no such order; upgrade it"))
        }
        _ => NotDone::NotNow(format!("{member} cannot be asked: {}", transport::reason(status))),
    }
}

fn status(not_done: NotDone) -> Status {
    match not_done {
        NotDone::Refused(reason) => Status::failed_precondition(reason),
        NotDone::NotNow(reason) => Status::aborted(reason),
    }
}

pub struct RelayService {
    identity: Arc<Identity>,
    asks: mpsc::Sender<Ask>,
}

impl RelayService {
    fn check(&self, visitor: &Visitor, sender: Option<proto::Sender>) -> Result<(), Status> {
        let sender: Result<Sender, _> =
            sender.ok_or_else(|| Status::invalid_argument("the request has no sender"))?.try_into();
        let sender = sender.map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.identity.check_request(&sender, visitor).map_err(|stranger| match stranger {
            Stranger::SecondProcess { .. } => Status::new(NOT_HEARD, stranger.to_string()),
            stranger => Status::permission_denied(stranger.to_string()),
        })
    }
}

/// The driver's answer, once it comes.
async fn answer<T>(asked: oneshot::Receiver<Result<T, NotDone>>) -> Result<T, Status> {
    asked.await.map_err(|_| Status::unavailable("the coordinator is stopping"))?.map_err(status)
}

/// A stream of one answer: a request is bounded, and this may take longer.
type Once<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn once<T: Send + 'static>(asked: oneshot::Receiver<Result<T, NotDone>>) -> Once<T> {
    let (done, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        // Nobody listens when the operator has gone away.
        let _ = done.send(answer(asked).await).await;
    });
    Box::pin(ReceiverStream::new(stream))
}

#[tonic::async_trait]
impl RelayRpc for RelayService {
    async fn order(&self, request: Request<RelayedOrder>) -> Result<Response<OrderResponse>, Status> {
        let visitor = Visitor::of(&request);
        let RelayedOrder { sender, order } = request.into_inner();
        self.check(&visitor, sender)?;
        let order = order.and_then(|request| request.order);
        let order = order.ok_or_else(|| Status::invalid_argument("RelayedOrder has no order"))?;
        let (sender, asked) = oneshot::channel();
        let ask = Ask::Order { order, from: Asker::Peer, answer: sender };
        self.asks.send(ask).await.map_err(|_| Status::unavailable("the coordinator is stopping"))?;
        Ok(Response::new(OrderResponse { done: answer(asked).await? }))
    }

    type HandoverStream = Once<HandoverResponse>;

    async fn handover(&self, request: Request<RelayedHandover>) -> Result<Response<Self::HandoverStream>, Status> {
        let visitor = Visitor::of(&request);
        let RelayedHandover { sender, handover } = request.into_inner();
        self.check(&visitor, sender)?;
        let wanted = WantedHandover::read(handover.unwrap_or_default());
        let (sender, asked) = oneshot::channel();
        let ask = Ask::Handover { wanted, from: Asker::Peer, answer: sender };
        self.asks.send(ask).await.map_err(|_| Status::unavailable("the coordinator is stopping"))?;
        Ok(Response::new(once(asked)))
    }

    type ChangeMemberStream = Once<MemberChangeResponse>;

    async fn change_member(
        &self,
        request: Request<RelayedMemberChange>,
    ) -> Result<Response<Self::ChangeMemberStream>, Status> {
        let visitor = Visitor::of(&request);
        let RelayedMemberChange { sender, change } = request.into_inner();
        self.check(&visitor, sender)?;
        let change = change.ok_or_else(|| Status::invalid_argument("RelayedMemberChange has no change"))?;
        let (sender, asked) = oneshot::channel();
        let ask = Ask::ChangeMember { change, from: Asker::Peer, answer: sender };
        self.asks.send(ask).await.map_err(|_| Status::unavailable("the coordinator is stopping"))?;
        Ok(Response::new(once(asked)))
    }

    async fn change_upgrade(
        &self,
        request: Request<RelayedUpgradeChange>,
    ) -> Result<Response<UpgradeChangeResponse>, Status> {
        let visitor = Visitor::of(&request);
        let RelayedUpgradeChange { sender, change } = request.into_inner();
        self.check(&visitor, sender)?;
        let change = change.ok_or_else(|| Status::invalid_argument("RelayedUpgradeChange has no change"))?;
        let (sender, asked) = oneshot::channel();
        let ask = Ask::ChangeUpgrade { change, from: Asker::Peer, answer: sender };
        self.asks.send(ask).await.map_err(|_| Status::unavailable("the coordinator is stopping"))?;
        Ok(Response::new(answer(asked).await?))
    }
}
