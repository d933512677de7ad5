//! The admin protocol, spoken to the coordinator of this host over its unix socket, or to any member over TLS. An
//! error says whether the coordinator could not be reached or did not do what it was asked.

use std::error::Error;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use tokio::time::timeout;
use tonic::Code;

use tonic::transport::{Channel, Endpoint};

use crate::cluster::transport::{Credentials, cause, reason};
use crate::cluster::wire::proto::admin_client::AdminClient;
use crate::cluster::wire::proto::{
    HistoryRequest, HistoryResponse, Move, OrderRequest, StatusRequest, StatusResponse, UpgradePlan,
};
use crate::config::Tls;
use crate::operator::admin::is_allowed;
use crate::operator::order::{Answer, Answers, Order};

use super::Failure;
use super::reach::Place;

/// For a connection and for every answer to a question. A stopped coordinator gives none.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// By how much a coordinator is late at most with the answer to what takes its time.
const LATE_MAX: Duration = Duration::from_secs(2);

pub(super) struct Client {
    admin: AdminClient<Channel>,
    place: Place,
}

impl Client {
    pub(super) async fn connect(place: Place) -> Result<Client, Failure> {
        let late =
            |_| Err(Failure::Unreachable(anyhow!("{}: no connection within {ANSWER_MAX:?}", unreachable(&place))));
        let connected = match &place {
            Place::Socket(socket) => timeout(ANSWER_MAX, connect_here(socket)).await,
            Place::Member { addr, files } => timeout(ANSWER_MAX, call(addr, files)).await,
        };
        let channel = connected.unwrap_or_else(late)?;
        Ok(Client { admin: AdminClient::new(channel), place })
    }

    pub(super) async fn status(&mut self) -> Result<StatusResponse, Failure> {
        let answer = timeout(ANSWER_MAX, self.admin.status(StatusRequest {})).await;
        self.answered(answer.map(|result| result.map(tonic::Response::into_inner)).ok())
    }

    /// The moves, the oldest first.
    pub(super) async fn history(&mut self) -> Result<Vec<Move>, Failure> {
        Ok(self.whole_history().await?.moves)
    }

    /// Plans of upgrades, the oldest first.
    pub(super) async fn plans(&mut self) -> Result<Vec<UpgradePlan>, Failure> {
        Ok(self.whole_history().await?.plans)
    }

    pub(super) async fn whole_history(&mut self) -> Result<HistoryResponse, Failure> {
        let answer = timeout(ANSWER_MAX, self.admin.history(HistoryRequest {})).await;
        self.answered(answer.map(|result| result.map(tonic::Response::into_inner)).ok())
    }

    /// `what` names the order in an error; the answer says what is so now or, after a dry run, what would be.
    pub(super) async fn order<Done: Answers>(&mut self, what: &str, order: Order) -> Result<Done, Failure> {
        let (limit, is_upgrade) = (order.limit(), matches!(order, Order::Upgrade(_)));
        let late = late(&order, limit);
        let error = match timeout(limit + LATE_MAX, self.send(order)).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(older)) if older.code() == Code::Unimplemented && is_upgrade => anyhow!(
                "{what}: the coordinator at {} runs a baton that knows no upgrade plans; upgrade baton there first",
                self.place
            ),
            Ok(Err(refused)) => return Err(self.refused(what, &refused)),
            Err(_) => anyhow!("{what}: {late}"),
        };
        Err(Failure::Failed(error))
    }

    async fn send<Done: Answers>(&mut self, order: Order) -> Result<Done, tonic::Status> {
        let answer = match self.admin.order(OrderRequest { order: Some(order.clone()) }).await {
            // A coordinator of an earlier version finds none in it.
            Err(status) if status.code() == Code::InvalidArgument => match order {
                Order::Handover(request) => self.admin.handover(request).await?.map(Answer::Handover).into_inner(),
                Order::Member(request) => self.admin.change_member(request).await?.map(Answer::Member).into_inner(),
                Order::Upgrade(request) => self.admin.change_upgrade(request).await?.map(Answer::Upgrade).into_inner(),
                Order::Maintenance(_) | Order::Pause(_) | Order::Priority(_) | Order::Floor(_) | Order::SignLog(_) => {
                    return Err(status);
                }
            },
            answer => {
                let answer = answer?.into_inner().answer;
                answer.ok_or_else(|| tonic::Status::internal("it answers beyond recognition"))?
            }
        };
        Done::of(answer)
    }

    /// `None` is an answer that did not come in time.
    fn answered<T>(&self, answer: Option<Result<T, tonic::Status>>) -> Result<T, Failure> {
        let problem = match answer {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(error)) => match self.does_not_listen(&error) {
                Some(failure) => return Err(failure),
                None => reason(&error),
            },
            None => format!("no answer within {ANSWER_MAX:?}"),
        };
        Err(Failure::Unreachable(anyhow!("the coordinator at {} does not tell: {problem}", self.place)))
    }

    fn refused(&self, what: &str, status: &tonic::Status) -> Failure {
        let failed = || Failure::Failed(anyhow!("{what}: {}", reason(status)));
        self.does_not_listen(status).unwrap_or_else(failed)
    }

    /// Nothing was done, since we are not who may ask.
    fn does_not_listen(&self, status: &tonic::Status) -> Option<Failure> {
        let why = match &self.place {
            _ if status.code() == Code::PermissionDenied => reason(status),
            // Connections that it closes it has not listened to.
            Place::Socket(socket) if status.source().is_some() => another_user(socket)?,
            Place::Socket(_) | Place::Member { .. } => return None,
        };
        Some(not_listening(&self.place, &why))
    }
}

/// Of an order that was not answered within `limit`, and where to look then.
fn late(order: &Order, limit: Duration) -> String {
    match order {
        Order::Handover(_) => format!("not done within {limit:?}; baton status shows how it goes on"),
        Order::Member(_) => format!("no answer within {limit:?}; baton member list shows what is so"),
        Order::Upgrade(_) => format!("no answer within {limit:?}; baton upgrade list shows what is so"),
        Order::Maintenance(_) | Order::Pause(_) | Order::Priority(_) | Order::Floor(_) | Order::SignLog(_) => {
            format!("no answer within {limit:?}; baton status shows whether it was done")
        }
    }
}

fn not_listening(place: &Place, why: &str) -> Failure {
    Failure::Unreachable(anyhow!("the coordinator at {place} does not listen: {why}"))
}

fn unreachable(place: &Place) -> String {
    format!("cannot reach the coordinator at {place}")
}

async fn connect_here(socket: &Path) -> Result<Channel, Failure> {
    let failed = |reason: String, advice: &str| {
        let at = unreachable(&Place::Socket(socket.to_owned()));
        Failure::Unreachable(anyhow!("{at}: {reason}; {advice}"))
    };
    let is_up = "is baton run up?";
    let address = socket.to_str().ok_or_else(|| failed("the path is not UTF-8".to_owned(), is_up))?;
    let endpoint = Endpoint::from_shared(format!("unix:{address}"));
    let endpoint = endpoint.map_err(|error| failed(cause(&error).to_string(), is_up))?;
    endpoint.connect().await.map_err(|error| {
        if let Some(why) = another_user(socket) {
            return not_listening(&Place::Socket(socket.to_owned()), &why);
        }
        let cause = cause(&error);
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let forbidden = kind == Some(io::ErrorKind::PermissionDenied);
        failed(cause.to_string(), if forbidden { "run baton as the coordinator's own user, or as root" } else { is_up })
    })
}

async fn call(addr: &str, files: &Tls) -> Result<Channel, Failure> {
    let credentials = Credentials::read(files).map_err(|error| Failure::BadInput(error.into()))?;
    let failed = |error| Failure::Unreachable(anyhow!("cannot reach the coordinator at {addr}: {error}"));
    credentials.call(addr).await.map_err(failed)
}

/// Why a coordinator that listens at `socket` turns this user away, if it does.
fn another_user(socket: &Path) -> Option<String> {
    let stream = UnixStream::connect(socket).ok()?;
    let theirs = rustix::net::sockopt::socket_peercred(&stream).ok()?.uid.as_raw();
    let ours = rustix::process::geteuid().as_raw();
    let why = format!("it is run by user {theirs} and listens to that user and root alone; this is user {ours}");
    (!is_allowed(ours, theirs)).then_some(why)
}
