//! One order of an operator and the answer to it, from `cli` by `admin` and `relay` to whoever carries it out.
//!
//! Earlier versions have a call of its own for each kind but the standing ones. They are asked by those calls, and answered:
//! `admin` and `relay` serve them, and `relay` and `cli` fall back to them. That can go once no member and no `cli` is older
//! than the first version with `Relay.Carry`.

use std::time::Duration;

use tonic::Status;

pub use crate::cluster::wire::proto::order_request::Order;
pub use crate::cluster::wire::proto::order_response::Answer;
use crate::cluster::wire::proto::{HandoverResponse, MemberChangeResponse, OrderResponse, UpgradeChangeResponse};
use crate::operator::admin::{CHANGE_MAX, ORDER_MAX, WantedHandover};

impl Order {
    /// By when it is answered.
    pub fn limit(&self) -> Duration {
        match self {
            Order::Handover(request) => WantedHandover::read(request.clone()).timeout,
            Order::Member(_) => CHANGE_MAX,
            Order::Maintenance(_) | Order::Pause(_) | Order::Priority(_) | Order::Floor(_) | Order::Upgrade(_) => {
                ORDER_MAX
            }
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
