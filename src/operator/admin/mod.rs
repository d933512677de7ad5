//! What an operator asks of the coordinator: on this host over `run_dir/admin.sock`, from others over TLS
//! (`remote`). It carries questions to the coordinator and answers back; it knows none of the answers and
//! decides nothing. On the socket, only this program's own user and root are listened to. The coordinator binds
//! it at start and runs `serve` on a thread of its own; `cli` is the other end.

mod remote;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::cluster::transport::{Caller, Door, Limits, Visit, Visitor, bounded_server};
use crate::cluster::wire::proto;
use crate::cluster::wire::proto::admin_server::{Admin, AdminServer};
use crate::operator::order::{Answer, Answers, Order};
use crate::operator::shared_answer::SharedAnswer;

pub use remote::NotHere;
use remote::Teller;

/// For every answer but that to a handover. Shorter than a client waits, so that it hears why.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// By how much a question is answered late at most when its own limit has passed.
const LATE_MAX: Duration = Duration::from_secs(1);
/// Between two looks at the status, and at the history, however often they are asked for.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// After a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// More displace the oldest.
const CONNECTIONS_MAX: usize = 64;
/// A client answers by itself, also while it waits for a handover.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Longest question: names, numbers and a reason.
const QUESTION_BYTES_MAX: usize = 64 * 1024;
/// For the socket of a dead coordinator to close, which a child that it forked just before its end holds until it has
/// begun its program.
const ORPHANED_MAX: Duration = Duration::from_millis(500);
/// Clients that the kernel keeps waiting.
const BACKLOG: i32 = 16;
/// Also what an earlier version says of a kind of order that it does not know.
const NO_ORDER: &str = "OrderRequest has no order";
/// Below `run_dir`.
pub const SOCKET_NAME: &str = "admin.sock";
const SOCKET_MODE: u32 = 0o600;

/// A question to the coordinator, with the way back. Nobody listens any more when sending fails.
#[derive(Debug)]
pub enum Ask {
    Status(oneshot::Sender<proto::StatusResponse>),
    History(oneshot::Sender<proto::HistoryResponse>),
    /// Answered when it is carried out, or with why it is not.
    Order {
        order: Order,
        from: Asker,
        answer: oneshot::Sender<Result<Answer, NotDone>>,
    },
}

/// Who asks. What a peer has passed on is not passed on again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    Operator,
    Peer,
}

/// Why what was asked is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// For good: asked again, the answer is the same.
    Refused(String),
    /// Not by this member now; another one, or this one later, may do it. An order may still be committed.
    NotNow(String),
}

impl NotDone {
    pub fn reason(self) -> String {
        match self {
            NotDone::Refused(reason) | NotDone::NotNow(reason) => reason,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("a coordinator already answers at {path}; stop it, or give this one a member.run_dir of its own")]
    Live { path: PathBuf },
    #[error("another coordinator is starting in {run_dir}; stop one of them")]
    Starting { run_dir: PathBuf },
    #[error("{path} is in the way of the admin socket and is no socket; move it away and restart")]
    NoSocket { path: PathBuf },
    #[error("{what} {path}: {source}; check that member.run_dir exists and belongs to this user")]
    Os { what: &'static str, path: PathBuf, source: io::Error },
}

/// Listens at `run_dir/admin.sock`, which no other user can connect to at any moment. The socket that
/// a dead coordinator left is replaced. Must be called inside the runtime.
///
/// # Errors
/// The socket of a live coordinator, even of a stopped or hung one, is left as it was.
pub fn bind(run_dir: &Path) -> Result<UnixListener, AdminError> {
    let path = run_dir.join(SOCKET_NAME);
    let failed = |what| {
        let path = path.clone();
        move |source: io::Error| AdminError::Os { what, path, source }
    };
    // Held until this one listens: of two that start at once, neither removes the other's socket.
    let _starting = lock(run_dir)?;
    let addr = SocketAddrUnix::new(&path).map_err(|e| failed("name the socket")(e.into()))?;
    if something_lies_at(&path)? {
        if answers(&addr).map_err(failed("ask who listens at"))? {
            return Err(AdminError::Live { path });
        }
        fs::remove_file(&path).map_err(failed("remove the stale socket"))?;
    }
    let socket = socket().map_err(failed("create the socket"))?;
    rustix::net::bind(&socket, &addr).map_err(|e| failed("bind the socket")(e.into()))?;
    // Nobody can connect before `listen`, so the mode is in force from the first client on.
    fs::set_permissions(&path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed("chmod"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(|e| failed("listen at")(e.into()))?;
    UnixListener::from_std(socket.into()).map_err(failed("listen at"))
}

/// As [`bind`] would find the place, which is left as it is.
///
/// # Errors
/// As of [`bind`].
pub fn look(run_dir: &Path) -> Result<(), AdminError> {
    let path = run_dir.join(SOCKET_NAME);
    let failed = |what, source: io::Error| AdminError::Os { what, path: path.clone(), source };
    let addr = SocketAddrUnix::new(&path).map_err(|error| failed("name the socket", error.into()))?;
    let answered = something_lies_at(&path)? && answers(&addr).map_err(|error| failed("ask who listens at", error))?;
    if answered { Err(AdminError::Live { path }) } else { Ok(()) }
}

/// An exclusive lock on the directory itself; it ends with the returned file.
fn lock(run_dir: &Path) -> Result<OwnedFd, AdminError> {
    let failed = |what, e: Errno| AdminError::Os { what, path: run_dir.to_owned(), source: e.into() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(run_dir, flags, Mode::empty()).map_err(|e| failed("open", e))?;
    match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(dir),
        Err(Errno::WOULDBLOCK) => Err(AdminError::Starting { run_dir: run_dir.to_owned() }),
        Err(e) => Err(failed("lock", e)),
    }
}

/// Whether there is a socket; anything else that is there is an error.
fn something_lies_at(path: &Path) -> Result<bool, AdminError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => Ok(true),
        Ok(_) => Err(AdminError::NoSocket { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(AdminError::Os { what: "look at", path: path.to_owned(), source }),
    }
}

/// Whether a process listens there. It need not be able to answer: the kernel connects for a stopped
/// one, and says "try again" when its queue is full.
fn answers(addr: &SocketAddrUnix) -> io::Result<bool> {
    let since = Instant::now();
    loop {
        let client = socket()?;
        match rustix::net::connect(&client, addr) {
            Ok(()) => {}
            Err(Errno::AGAIN) => return Ok(true),
            Err(Errno::CONNREFUSED) => return Ok(false),
            Err(other) => return Err(other.into()),
        }
        let left = ORPHANED_MAX.saturating_sub(since.elapsed());
        if left.is_zero() || !is_left_alone(&client, left)? {
            return Ok(true);
        }
    }
}

/// Whether whoever holds the other end lets go of it within `limit`, and has said nothing.
fn is_left_alone(client: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(client, PollFlags::IN)], Some(&limit)) {
        Ok(0) => return Ok(false),
        Ok(_) => {}
        // The caller asks again.
        Err(Errno::INTR) => return Ok(true),
        Err(other) => return Err(other.into()),
    }
    match rustix::io::read(client, &mut [0; 1]) {
        Ok(0) | Err(Errno::CONNRESET) => Ok(true),
        Ok(_) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Answers those who come to the socket, and the admins whose connections `callers` brings, until it is dropped. A
/// question that the coordinator does not take up or does not answer is answered with an error that says so.
pub async fn serve(listener: UnixListener, callers: mpsc::Receiver<Caller>, asks: mpsc::Sender<Ask>) {
    let questions = Questions { asks, status: SharedAnswer::new(LOOK_EVERY), history: SharedAnswer::new(LOOK_EVERY) };
    let questions = Arc::new(questions);
    tokio::join!(serve_here(listener, questions.clone()), remote::serve(callers, questions));
}

async fn serve_here(listener: UnixListener, questions: Arc<Questions>) {
    let (accepted, connections) = mpsc::channel(1);
    let server = bounded_server(PING_EVERY)
        .add_service(Desk { questions, stands: Stands::AtTheSocket }.service())
        .serve_with_incoming(ReceiverStream::new(connections).map(Ok::<Visit<UnixStream>, io::Error>));
    let ((), served) = tokio::join!(accept(listener, accepted), server);
    if let Err(error) = served {
        tracing::error!(%error, "the admin socket is no longer served");
    }
}

/// Hands on the connections of those who may ask, until nobody takes them.
async fn accept(listener: UnixListener, accepted: mpsc::Sender<Visit<UnixStream>>) {
    let door = Door::new(Limits { connections_max: CONNECTIONS_MAX, silence_max: 3 * PING_EVERY });
    loop {
        match listener.accept().await {
            Ok((stream, _)) if !may_ask(&stream) => drop(stream),
            Ok((stream, _)) => {
                if accepted.send(door.admit(stream, Visitor::default())).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the admin socket cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The user at the other end, as the kernel noted it when it connected, is ours or root.
fn may_ask(stream: &UnixStream) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if is_allowed(peer.uid(), ours) => true,
        Ok(peer) => {
            let (uid, pid) = (peer.uid(), peer.pid());
            tracing::warn!(uid, ?pid, ours, "turned away from the admin socket: neither our own user nor root");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "turned away from the admin socket: the user is unknown");
            false
        }
    }
}

/// Whether user `uid` may ask a coordinator that is run by `ours`.
pub fn is_allowed(uid: u32, ours: u32) -> bool {
    uid == ours || uid == 0
}

/// The way to the coordinator.
struct Questions {
    asks: mpsc::Sender<Ask>,
    status: SharedAnswer<proto::StatusResponse>,
    history: SharedAnswer<proto::HistoryResponse>,
}

impl Questions {
    /// The coordinator's answer, if it comes within `limit`, which starts before the question is taken up.
    async fn ask<T>(&self, limit: Duration, question: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Status> {
        let (sender, answer) = oneshot::channel();
        let question = question(sender);
        let asked = async {
            self.asks.send(question).await.ok()?;
            answer.await.ok()
        };
        match timeout(limit, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Status::unavailable("the coordinator is stopping")),
            Err(_) => Err(hangs(limit)),
        }
    }
}

/// Who comes to a desk.
#[derive(Clone, Copy)]
enum Stands {
    /// Users of this host, whom the kernel knows.
    AtTheSocket,
    /// Admins, whom their certificates name.
    AtThePort,
}

struct Desk {
    questions: Arc<Questions>,
    stands: Stands,
}

impl Desk {
    fn service(self) -> AdminServer<Desk> {
        AdminServer::new(self).max_decoding_message_size(QUESTION_BYTES_MAX)
    }

    async fn carry_out<T, Done: Answers>(
        &self,
        request: Request<T>,
        order: impl FnOnce(T) -> Option<Order>,
    ) -> Result<Response<Done>, Status> {
        let teller = Teller::of(&request, self.stands)?;
        let order = order(request.into_inner()).ok_or_else(|| Status::invalid_argument(NO_ORDER))?;
        let told = teller.tells(|| remote::order_in_words(&order));
        let limit = order.limit() + LATE_MAX;
        let asked = self.questions.ask(limit, |answer| Ask::Order { order, from: Asker::Operator, answer });
        told.ended(asked.await.and_then(done)).and_then(Done::of).map(Response::new)
    }

    /// What was found last for whoever asks; who waits behind others that wait in vain is told as soon as they are.
    async fn shared<T: Clone>(
        &self,
        last: &SharedAnswer<T>,
        question: impl FnOnce(oneshot::Sender<T>) -> Ask,
    ) -> Result<Response<T>, Status> {
        let found = last.get(self.questions.ask(ANSWER_MAX, question));
        timeout(ANSWER_MAX, found).await.unwrap_or_else(|_| Err(hangs(ANSWER_MAX))).map(Response::new)
    }
}

fn hangs(limit: Duration) -> Status {
    Status::unavailable(format!("the coordinator hangs: no answer within {limit:?}"))
}

#[tonic::async_trait]
impl Admin for Desk {
    async fn status(&self, request: Request<proto::StatusRequest>) -> Result<Response<proto::StatusResponse>, Status> {
        Teller::of(&request, self.stands)?;
        self.shared(&self.questions.status, Ask::Status).await
    }

    async fn history(
        &self,
        request: Request<proto::HistoryRequest>,
    ) -> Result<Response<proto::HistoryResponse>, Status> {
        Teller::of(&request, self.stands)?;
        self.shared(&self.questions.history, Ask::History).await
    }

    async fn order(&self, request: Request<proto::OrderRequest>) -> Result<Response<proto::OrderResponse>, Status> {
        self.carry_out(request, |request| request.order).await
    }

    async fn handover(
        &self,
        request: Request<proto::HandoverRequest>,
    ) -> Result<Response<proto::HandoverResponse>, Status> {
        self.carry_out(request, |request| Some(Order::Handover(request))).await
    }

    async fn change_member(
        &self,
        request: Request<proto::MemberChangeRequest>,
    ) -> Result<Response<proto::MemberChangeResponse>, Status> {
        self.carry_out(request, |request| Some(Order::Member(request))).await
    }

    async fn change_upgrade(
        &self,
        request: Request<proto::UpgradeChangeRequest>,
    ) -> Result<Response<proto::UpgradeChangeResponse>, Status> {
        self.carry_out(request, |request| Some(Order::Upgrade(request))).await
    }
}

fn done<T>(ended: Result<T, NotDone>) -> Result<T, Status> {
    ended.map_err(|not_done| Status::failed_precondition(not_done.reason()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_user_and_root_may_ask() {
        assert!(is_allowed(1000, 1000) && is_allowed(0, 1000) && is_allowed(0, 0));
        assert!(!is_allowed(1001, 1000) && !is_allowed(1000, 0));
    }
}
