//! What an operator asked of one member and another one has to do: an order goes to the leader, a handover to
//! the holder, over the connections between members. It passes questions on and decides nothing; the coordinator
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
use crate::cluster::wire::proto::relay_client::RelayClient;
use crate::cluster::wire::proto::relay_server::{Relay as RelayRpc, RelayServer};
use crate::cluster::wire::proto::{
    HandoverResponse, MemberChangeResponse, OrderRequest, OrderResponse, RelayedHandover, RelayedMemberChange,
    RelayedOrder, RelayedUpgradeChange, UpgradeChangeResponse,
};
use crate::cluster::wire::{Sender, proto};
use crate::operator::admin::{Ask, Asker, NotDone};
use crate::operator::order::{Answer, Answers, Order};

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

    /// Has `member` carry `order` out: the leader, or the holder a handover.
    ///
    /// # Errors
    /// `NotNow` when its fate is unknown as well.
    pub async fn order(&self, member: &NodeId, order: Order) -> Result<Answer, NotDone> {
        let mut client = self.client(member)?;
        // Nobody asks the holder again; the leader, `coordinator::orders` does.
        let (limit, heard_within) = match &order {
            Order::Handover(_) => (order.limit() + LATE_MAX, HEARD_MAX),
            Order::Member(_) => (order.limit(), Duration::ZERO),
            Order::Maintenance(_)
            | Order::Pause(_)
            | Order::Priority(_)
            | Order::Floor(_)
            | Order::SignLog(_)
            | Order::Upgrade(_) => (ORDER_MAX, Duration::ZERO),
        };
        let heard_by = Instant::now() + heard_within;
        let asked = async {
            loop {
                match carry(&mut client, self.sender(), order.clone()).await {
                    Err(status) if status.code() == NOT_HEARD && Instant::now() < heard_by => sleep(ASK_AGAIN).await,
                    answer => return answer,
                }
            }
        };
        answered(member, limit, asked).await
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

async fn carry(
    client: &mut RelayClient<Channel>,
    sender: Option<proto::Sender>,
    order: Order,
) -> Result<Answer, Status> {
    let request = RelayedOrder { sender: sender.clone(), order: Some(OrderRequest { order: Some(order.clone()) }) };
    let answer = match client.carry(request.clone()).await {
        // A member of an earlier version.
        Err(status) if status.code() == Code::Unimplemented => match order {
            Order::Handover(request) => {
                let request = RelayedHandover { sender, handover: Some(request) };
                return only(client.handover(request).await?.into_inner()).await.map(Answer::Handover);
            }
            Order::Member(change) => {
                let request = RelayedMemberChange { sender, change: Some(change) };
                return only(client.change_member(request).await?.into_inner()).await.map(Answer::Member);
            }
            Order::Upgrade(change) => {
                let request = RelayedUpgradeChange { sender, change: Some(change) };
                return Ok(Answer::Upgrade(client.change_upgrade(request).await?.into_inner()));
            }
            Order::Maintenance(_) | Order::Pause(_) | Order::Priority(_) | Order::Floor(_) | Order::SignLog(_) => {
                client.order(request).await?.into_inner()
            }
        },
        answer => only(answer?.into_inner()).await?,
    };
    answer.answer.ok_or_else(|| Status::internal("it answers beyond recognition"))
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

    /// Has the coordinator carry out what a member passed on; the answer comes later.
    async fn take<T>(
        &self,
        request: Request<T>,
        parts: impl FnOnce(T) -> (Option<proto::Sender>, Option<Order>),
    ) -> Result<Asked, Status> {
        let visitor = Visitor::of(&request);
        let (sender, order) = parts(request.into_inner());
        self.check(&visitor, sender)?;
        let order = order.ok_or_else(|| Status::invalid_argument("the request has no order"))?;
        let (answer, asked) = oneshot::channel();
        let ask = Ask::Order { order, from: Asker::Peer, answer };
        self.asks.send(ask).await.map_err(|_| Status::unavailable("the coordinator is stopping"))?;
        Ok(asked)
    }
}

type Asked = oneshot::Receiver<Result<Answer, NotDone>>;

/// The coordinator's answer, once it comes.
async fn answer<T: Answers>(asked: Asked) -> Result<T, Status> {
    asked.await.map_err(|_| Status::unavailable("the coordinator is stopping"))?.map_err(status).and_then(T::of)
}

/// A stream of one answer: a request is bounded, and this may take longer.
type Once<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn once<T: Answers + Send + 'static>(asked: Asked) -> Response<Once<T>> {
    let (done, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        // Nobody listens when the operator has gone away.
        let _ = done.send(answer(asked).await).await;
    });
    Response::new(Box::pin(ReceiverStream::new(stream)))
}

fn order(request: RelayedOrder) -> (Option<proto::Sender>, Option<Order>) {
    (request.sender, request.order.and_then(|request| request.order))
}

fn change(request: RelayedUpgradeChange) -> (Option<proto::Sender>, Option<Order>) {
    (request.sender, request.change.map(Order::Upgrade))
}

#[tonic::async_trait]
impl RelayRpc for RelayService {
    type CarryStream = Once<OrderResponse>;

    async fn carry(&self, request: Request<RelayedOrder>) -> Result<Response<Self::CarryStream>, Status> {
        self.take(request, order).await.map(once)
    }

    async fn order(&self, request: Request<RelayedOrder>) -> Result<Response<OrderResponse>, Status> {
        answer(self.take(request, order).await?).await.map(Response::new)
    }

    type HandoverStream = Once<HandoverResponse>;

    async fn handover(&self, request: Request<RelayedHandover>) -> Result<Response<Self::HandoverStream>, Status> {
        let parts = |of: RelayedHandover| (of.sender, Some(Order::Handover(of.handover.unwrap_or_default())));
        self.take(request, parts).await.map(once)
    }

    type ChangeMemberStream = Once<MemberChangeResponse>;

    async fn change_member(
        &self,
        request: Request<RelayedMemberChange>,
    ) -> Result<Response<Self::ChangeMemberStream>, Status> {
        self.take(request, |of| (of.sender, of.change.map(Order::Member))).await.map(once)
    }

    async fn change_upgrade(
        &self,
        request: Request<RelayedUpgradeChange>,
    ) -> Result<Response<UpgradeChangeResponse>, Status> {
        answer(self.take(request, change).await?).await.map(Response::new)
    }
}
