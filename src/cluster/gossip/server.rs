//! The receiving side of an exchange: checks who speaks, takes in what it says, answers with what this
//! member knows. Mounted by `coordinator` through `Gossip::service`.

use std::sync::Weak;

use tonic::{Request, Response, Status};

use super::{Shared, sender_of};
use crate::base::time::{BootTime, WallTime};
use crate::cluster::transport::Visitor;
use crate::cluster::wire::proto::gossip_server::Gossip as GossipRpc;
use crate::cluster::wire::proto::{ExchangeRequest, ExchangeResponse};

pub struct GossipService {
    /// Weak, so that connections which outlive the `Gossip` do not speak for a member that has stopped.
    shared: Weak<Shared>,
}

impl GossipService {
    pub(super) fn new(shared: Weak<Shared>) -> Self {
        GossipService { shared }
    }
}

#[tonic::async_trait]
impl GossipRpc for GossipService {
    async fn exchange(&self, request: Request<ExchangeRequest>) -> Result<Response<ExchangeResponse>, Status> {
        let received_at_ns = WallTime::now().as_nanos();
        let visitor = Visitor::of(&request);
        let request = request.into_inner();
        let shared = self.shared.upgrade().ok_or_else(|| Status::unavailable("this member is shutting down"))?;
        let sender = sender_of(request.sender, "ExchangeRequest");
        let sender = sender.map_err(|error| Status::invalid_argument(error.to_string()))?;
        shared
            .identity
            .check_request(&sender, &visitor)
            .map_err(|stranger| Status::permission_denied(stranger.to_string()))?;
        let now = BootTime::now();
        shared.merge(request.records, now);
        shared.update(|table| {
            table.called_by(&sender.member, now);
            true
        });
        let table = shared.table();
        Ok(Response::new(ExchangeResponse {
            sender: Some((&shared.identity.me()).into()),
            records: if request.full { table.records() } else { vec![(**table.mine()).clone()] },
            received_at_ns,
            answered_at_ns: WallTime::now().as_nanos(),
        }))
    }
}
