//! How a process that is no member yet and a cluster get to know each other: a store that is empty asks whether the
//! cluster exists already, and a leader asks whom it is about to add. It asks and tells; the coordinator decides.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::base::ids::{NodeId, Role};
use crate::cluster::identity::Identity;
use crate::cluster::roster::Roster;
use crate::cluster::transport::Visitor;
use crate::cluster::wire::proto::joining_client::JoiningClient;
use crate::cluster::wire::proto::joining_server::{Joining, JoiningServer};
use crate::cluster::wire::{Sender, proto};

/// For one answer to a host that starts, which all wait for.
const START_MAX: Duration = Duration::from_millis(700);
/// For the answer of a host that is to be added.
pub const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Who answers at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduced {
    pub sender: Sender,
    pub role: Role,
    pub priority: u32,
    /// Its store has followed or been a leader.
    pub led: bool,
    /// Its store was made to join.
    pub joins: bool,
}

/// Asks who answers on `channel`.
///
/// # Errors
/// Nobody does, or not in the way of this cluster.
pub async fn introduce(channel: Channel, identity: &Identity, limit: Duration) -> Result<Introduced, String> {
    let mut client = JoiningClient::new(channel);
    let request = proto::IntroduceRequest { sender: Some((&identity.me()).into()) };
    let answer = match timeout(limit, client.introduce(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Err(status.message().to_owned()),
        Err(_elapsed) => return Err(format!("no answer within {limit:?}")),
    };
    let proto::IntroduceResponse { sender, arbiter, priority, led, joins } = answer;
    let sender = sender.ok_or("its answer has no sender")?;
    let sender = Sender::try_from(sender).map_err(|error| error.to_string())?;
    identity.check_kin(&sender).map_err(|stranger| stranger.to_string())?;
    let role = if arbiter { Role::Arbiter } else { Role::Validator };
    Ok(Introduced { sender, role, priority, led, joins })
}

/// Somebody of those in the configuration by whose word the cluster has had a leader already.
pub async fn cluster_exists(roster: &Roster, identity: &Arc<Identity>) -> Option<NodeId> {
    let mut asked = JoinSet::new();
    for channel in roster.others().iter().filter_map(|id| roster.channel(id)) {
        let identity = identity.clone();
        asked.spawn(async move { introduce(channel, &identity, START_MAX).await });
    }
    while let Some(answer) = asked.join_next().await {
        if let Ok(Ok(Introduced { sender, led: true, .. })) = answer {
            return Some(sender.member);
        }
    }
    None
}

/// What this member says of itself.
pub struct Doorbell {
    pub identity: Arc<Identity>,
    pub role: Role,
    pub priority: u32,
    pub joins: bool,
    pub has_been_led: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Doorbell {
    pub fn service(self) -> JoiningServer<Doorbell> {
        JoiningServer::new(self)
    }
}

#[tonic::async_trait]
impl Joining for Doorbell {
    async fn introduce(
        &self,
        request: Request<proto::IntroduceRequest>,
    ) -> Result<Response<proto::IntroduceResponse>, Status> {
        let visitor = Visitor::of(&request);
        let sender = request.into_inner().sender.ok_or_else(|| Status::invalid_argument("no sender"))?;
        let sender = Sender::try_from(sender).map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.identity
            .check_kin_request(&sender, &visitor)
            .map_err(|stranger| Status::permission_denied(stranger.to_string()))?;
        Ok(Response::new(proto::IntroduceResponse {
            sender: Some((&self.identity.me()).into()),
            arbiter: self.role == Role::Arbiter,
            priority: self.priority,
            led: (self.has_been_led)(),
            joins: self.joins,
        }))
    }
}
