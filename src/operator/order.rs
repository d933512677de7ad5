//! One order of an operator and the answer to it, from `cli` by `admin` and `relay` to whoever carries it out.
//!
//! Earlier versions have a call of its own for each kind but the standing ones. They are asked by those calls, and answered:
//! `admin` and `relay` serve them, and `relay` and `cli` fall back to them. That can go once no member and no `cli` is older
//! than the first version with `Relay.Carry`.

use std::time::Duration;

use tonic::Status;

use crate::base::ids::NodeId;
pub use crate::cluster::wire::proto::order_request::Order;
pub use crate::cluster::wire::proto::order_response::Answer;
use crate::cluster::wire::proto::{
    HandoverRequest, HandoverResponse, MemberChangeResponse, OrderResponse, UpgradeChangeResponse,
};

/// For a handover, which waits for a chain node to stop and another to become active, when the operator names no time.
pub const HANDOVER_MAX: Duration = Duration::from_secs(60);
/// For an order: for a leader to be found, and for a quorum to have it on disk.
const ORDER_MAX: Duration = Duration::from_secs(8);
/// For a change of the membership: as an order, and a new member may have to catch up first.
const CHANGE_MAX: Duration = Duration::from_secs(15);

impl Order {
    /// By when it is answered.
    pub fn limit(&self) -> Duration {
        match self {
            Order::Handover(request) => WantedHandover::read(request.clone()).timeout,
            Order::Member(_) => CHANGE_MAX,
            Order::Maintenance(_)
            | Order::Pause(_)
            | Order::Priority(_)
            | Order::Floor(_)
            | Order::SignLog(_)
            | Order::Upgrade(_) => ORDER_MAX,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedHandover {
    /// `None`: the best ready standby.
    pub to: Option<NodeId>,
    /// Only to be told what would happen.
    pub dry_run: bool,
    /// By when it is answered.
    pub timeout: Duration,
    /// For how long it may wait for a stretch in which the validator has nothing to produce; zero begins at once.
    pub within: Duration,
}

impl WantedHandover {
    pub fn read(request: HandoverRequest) -> WantedHandover {
        let timeout = Duration::from_millis(request.timeout_ms.into());
        WantedHandover {
            to: Some(request.to).filter(|to| !to.is_empty()).map(NodeId::from),
            dry_run: request.dry_run,
            timeout: if timeout.is_zero() { HANDOVER_MAX } else { timeout },
            within: Duration::from_millis(request.within_ms.into()),
        }
    }

    pub fn request(&self) -> HandoverRequest {
        HandoverRequest {
            to: self.to.as_ref().map(NodeId::to_string).unwrap_or_default(),
            dry_run: self.dry_run,
            // Zero would mean that no time was named.
            timeout_ms: u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX).max(1),
            within_ms: u32::try_from(self.within.as_millis()).unwrap_or(u32::MAX),
        }
    }
}

/// The answer to one kind of order.
pub trait Answers: Sized {
    /// # Errors
    /// It answers another kind.
    fn of(answer: Answer) -> Result<Self, Status>;
}

impl Answers for Answer {
    fn of(answer: Answer) -> Result<Answer, Status> {
        Ok(answer)
    }
}

impl Answers for OrderResponse {
    fn of(answer: Answer) -> Result<OrderResponse, Status> {
        Ok(OrderResponse { answer: Some(answer) })
    }
}

macro_rules! answers {
    ($($kind:ident: $Answer:ty),*) => {
        $(impl Answers for $Answer {
            fn of(answer: Answer) -> Result<$Answer, Status> {
                match answer {
                    Answer::$kind(answer) => Ok(answer),
                    other => Err(Status::internal(format!("the answer to another order: {other:?}"))),
                }
            }
        })*
    };
}

answers!(Done: String, Handover: HandoverResponse, Member: MemberChangeResponse, Upgrade: UpgradeChangeResponse);
