//! The admin protocol, spoken to the coordinator of this host over its unix socket. An error says
//! whether the coordinator could not be reached or did not do what it was asked.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::admin::{CHANGE_MAX, ORDER_MAX, WantedHandover};
use crate::wire::proto::admin_client::AdminClient;
use crate::wire::proto::order_request::Order;
use crate::wire::proto::{
    HandoverResponse, HistoryRequest, MemberChangeRequest, MemberChangeResponse, Move, OrderRequest, StatusRequest,
    StatusResponse,
};

use super::Failure;

/// For a connection and for every answer to a question. A stopped coordinator gives none.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// By how much a coordinator is late at most with the answer to what takes its time.
const LATE_MAX: Duration = Duration::from_secs(2);

pub(super) struct Client {
    admin: AdminClient<Channel>,
    socket: PathBuf,
}

impl Client {
    pub(super) async fn connect(socket: PathBuf) -> Result<Client, Failure> {
        let unreachable = |reason: String| {
            let at = socket.display();
            Failure::Unreachable(anyhow::anyhow!("cannot reach the coordinator at {at}: {reason}; is baton run up?"))
        };
        let address = socket.to_str().ok_or_else(|| unreachable("the path is not UTF-8".to_owned()))?;
        let endpoint = Endpoint::from_shared(format!("unix:{address}")).map_err(|error| unreachable(cause(&error)))?;
        let channel = tokio::time::timeout(ANSWER_MAX, endpoint.connect())
            .await
            .map_err(|_| unreachable(format!("no connection within {ANSWER_MAX:?}")))?
            .map_err(|error| unreachable(cause(&error)))?;
        Ok(Client { admin: AdminClient::new(channel), socket })
    }

    pub(super) async fn status(&mut self) -> Result<StatusResponse, Failure> {
        let answer = tokio::time::timeout(ANSWER_MAX, self.admin.status(StatusRequest {})).await;
        self.answered(answer.map(|result| result.map(tonic::Response::into_inner)).ok())
    }

    /// The oldest first.
    pub(super) async fn history(&mut self) -> Result<Vec<Move>, Failure> {
        let answer = tokio::time::timeout(ANSWER_MAX, self.admin.history(HistoryRequest {})).await;
        self.answered(answer.map(|result| result.map(|response| response.into_inner().moves)).ok())
    }

    pub(super) async fn handover(&mut self, wanted: &WantedHandover) -> Result<HandoverResponse, Failure> {
        let timeout = wanted.timeout;
        let answer = tokio::time::timeout(timeout + LATE_MAX, self.admin.handover(wanted.request())).await;
        let error = match answer {
            Ok(Ok(done)) => return Ok(done.into_inner()),
            Ok(Err(refused)) => anyhow::anyhow!("handover: {}", reason(&refused)),
            Err(_) => anyhow::anyhow!("handover: not done within {timeout:?}; baton status shows how it goes on"),
        };
        Err(Failure::Failed(error))
    }

    /// `what` names the order in an error; the sentence that comes back says what is so now.
    pub(super) async fn order(&mut self, what: &str, order: Order) -> Result<String, Failure> {
        let request = OrderRequest { order: Some(order) };
        let error = match tokio::time::timeout(ORDER_MAX + LATE_MAX, self.admin.order(request)).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner().done),
            Ok(Err(refused)) => anyhow::anyhow!("{what}: {}", reason(&refused)),
            Err(_) => anyhow::anyhow!("{what}: no answer within {ORDER_MAX:?}; baton status shows whether it was done"),
        };
        Err(Failure::Failed(error))
    }

    /// What is so now or, after a dry run, what would be.
    pub(super) async fn change_member(
        &mut self,
        what: &str,
        change: MemberChangeRequest,
    ) -> Result<MemberChangeResponse, Failure> {
        let error = match tokio::time::timeout(CHANGE_MAX + LATE_MAX, self.admin.change_member(change)).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(refused)) => anyhow::anyhow!("member {what}: {}", reason(&refused)),
            Err(_) => {
                anyhow::anyhow!("member {what}: no answer within {CHANGE_MAX:?}; baton member list shows what is so")
            }
        };
        Err(Failure::Failed(error))
    }

    /// `None` is an answer that did not come in time.
    fn answered<T>(&self, answer: Option<Result<T, tonic::Status>>) -> Result<T, Failure> {
        let problem = match answer {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(error)) => reason(&error),
            None => format!("no answer within {ANSWER_MAX:?}"),
        };
        let at = self.socket.display();
        Err(Failure::Unreachable(anyhow::anyhow!("the coordinator at {at} does not tell: {problem}")))
    }
}

/// What the coordinator said, or the code when it said nothing.
fn reason(status: &tonic::Status) -> String {
    if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() }
}

/// The innermost cause: the outer ones say only "transport error".
fn cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}
