//! The admin socket: who can connect to it, what becomes of the one before, and that every question
//! is answered in time whatever the driver does. The other end is `baton` itself, or its protocol.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use baton::cluster::wire::proto::admin_client::AdminClient;
use baton::cluster::wire::proto::{
    HandoverRequest, HandoverResponse, HistoryRequest, HistoryResponse, MemberChangeResponse, MemberStatus, Move,
    OrderRequest, SetPause, StatusRequest, StatusResponse, UpgradeChangeResponse,
};
use baton::operator::admin::{self, Ask, Asker, NotDone};
use baton::operator::order::{Answer, HANDOVER_MAX, Order, WantedHandover};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response};

/// Far more than any answer here needs.
const GENEROUS: Duration = Duration::from_secs(30);

/// A `run_dir` with a coordinator's admin socket served in it until this is dropped.
struct Host {
    dir: tempfile::TempDir,
    tasks: JoinSet<()>,
}

fn run_dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

impl Host {
    /// With the driver's end of the questions.
    fn new() -> (Host, mpsc::Receiver<Ask>) {
        let dir = run_dir();
        let listener = admin::bind(dir.path()).expect("bound");
        let (asks, asked) = mpsc::channel(4);
        let mut tasks = JoinSet::new();
        tasks.spawn(admin::serve(listener, mpsc::channel(1).1, asks));
        (Host { dir, tasks }, asked)
    }

    /// With a driver that answers at once.
    fn answering() -> Host {
        let (mut host, mut asked) = Host::new();
        host.tasks.spawn(async move {
            while let Some(ask) = asked.recv().await {
                answer(ask);
            }
        });
        host
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    async fn client(&self) -> AdminClient<Channel> {
        client(&self.socket()).await
    }

    /// Runs `baton` against this socket to its end.
    async fn baton(&self, args: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_baton"));
        command.args(args).arg("--socket").arg(self.socket()).env_remove("BATON_CONFIG").kill_on_drop(true);
        timeout(GENEROUS, command.output()).await.expect("an end in time").expect("baton starts")
    }
}

async fn client(socket: &Path) -> AdminClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).expect("an address");
    AdminClient::new(endpoint.connect().await.expect("connected"))
}

/// What a driver with two members says; host-b can take the baton and host-x cannot.
fn answer(ask: Ask) {
    match ask {
        Ask::Status(to) => drop(to.send(status())),
        Ask::History(to) => drop(to.send(HistoryResponse { moves: vec![first_move()], ..Default::default() })),
        Ask::Order { order, from: _, answer } => drop(answer.send(match order {
            Order::Handover(request) if request.to == "host-x" => {
                Err(NotDone::Refused("host-x is not ready: syncing".to_owned()))
            }
            Order::Handover(request) => Ok(Answer::Handover(HandoverResponse {
                from: "host-a".to_owned(),
                to: if request.to.is_empty() { "host-b".to_owned() } else { request.to },
                epoch: 3,
                took_ns: 123_000_000,
                ..HandoverResponse::default()
            })),
            Order::Pause(SetPause { on: true, .. }) => Ok(Answer::Done("paused".to_owned())),
            Order::Member(change) => {
                let lines = vec![format!("{change:?}")];
                Ok(Answer::Member(MemberChangeResponse { lines, refused: String::new() }))
            }
            Order::Upgrade(change) => {
                let lines = vec![format!("{change:?}")];
                Ok(Answer::Upgrade(UpgradeChangeResponse { lines, refused: String::new() }))
            }
            order @ (Order::Maintenance(_)
            | Order::Pause(_)
            | Order::Priority(_)
            | Order::Floor(_)
            | Order::SignLog(_)) => Err(NotDone::NotNow(format!("no leader for {order:?}"))),
        })),
    }
}

fn status() -> StatusResponse {
    let active = MemberStatus {
        id: "host-a".to_owned(),
        role: "validator".to_owned(),
        state: "Validating".to_owned(),
        phase: "Active".to_owned(),
        reachable: true,
        links: "validating".to_owned(),
        ..MemberStatus::default()
    };
    StatusResponse {
        cluster: "my-validator".to_owned(),
        member: "host-a".to_owned(),
        holder: "host-a".to_owned(),
        epoch: 2,
        quorum: true,
        members: vec![active],
        ..StatusResponse::default()
    }
}

fn first_move() -> Move {
    Move { epoch: 1, to: "host-a".to_owned(), kind: "first".to_owned(), ..Move::default() }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[tokio::test]
async fn the_driver_is_asked_for_its_status_a_hundred_times_a_second_at_most() {
    let (mut host, mut asked) = Host::new();
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    host.tasks.spawn(async move {
        while let Some(ask) = asked.recv().await {
            counted.fetch_add(1, Ordering::SeqCst);
            answer(ask);
        }
    });
    let client = host.client().await;
    let (begun, mut calls) = (Instant::now(), JoinSet::new());
    for _ in 0..400 {
        let mut client = client.clone();
        calls.spawn(async move { client.status(StatusRequest {}).await.map(Response::into_inner) });
    }
    let answers = timeout(GENEROUS, calls.join_all()).await.expect("all answered in time");
    for answer in answers {
        assert_eq!(answer.expect("an answer"), status());
    }
    let (times, most) = (count.load(Ordering::SeqCst), 1 + begun.elapsed().as_millis() as u64 / 10);
    assert!((1..=most).contains(&times), "asked {times} times in {:?}", begun.elapsed());
}

#[tokio::test]
async fn the_socket_is_open_to_its_owner_alone() {
    let dir = run_dir();
    let _listener = admin::bind(dir.path()).expect("bound");
    let mode = fs::metadata(dir.path().join("admin.sock")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
}

#[tokio::test]
async fn the_socket_of_a_dead_coordinator_is_replaced() {
    let dir = run_dir();
    let path = dir.path().join("admin.sock");
    drop(StdListener::bind(&path).expect("bound"));
    assert!(path.exists(), "a closed listener leaves its socket behind");
    let _listener = admin::bind(dir.path()).expect("replaced");
    std::os::unix::net::UnixStream::connect(&path).expect("the new one answers");
}

#[tokio::test]
async fn a_live_coordinator_keeps_its_socket() {
    let host = Host::answering();
    let error = admin::bind(host.dir.path()).expect_err("refused").to_string();
    let expected = format!("a coordinator already answers at {}; ", host.socket().display());
    assert!(error.starts_with(&expected) && error.contains("run_dir"), "{error}");
    host.client().await.status(StatusRequest {}).await.expect("still served");
}

/// A child that was forked and has not begun its program yet holds what its parent listened at.
#[tokio::test]
async fn a_socket_that_closes_a_moment_after_its_coordinator_ended_is_replaced() {
    let dir = run_dir();
    let listener = StdListener::bind(dir.path().join("admin.sock")).expect("bound");
    let child = std::thread::spawn(move || {
        let mut asked = [PollFd::new(&listener, PollFlags::IN)];
        poll(&mut asked, None).expect("somebody asks who listens");
    });
    admin::bind(dir.path()).expect("nobody answers there any more");
    child.join().expect("it was asked");
}

#[tokio::test]
async fn a_hung_coordinator_with_a_full_queue_keeps_its_socket() {
    let dir = run_dir();
    let path = dir.path().join("admin.sock");
    let listener = StdListener::bind(&path).expect("bound");
    // The shortest queue there is, filled by clients that nobody accepts.
    rustix::net::listen(&listener, 0).expect("a short queue");
    let mut waiting = Vec::new();
    let full = loop {
        let flags = rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC;
        let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
        let socket = rustix::net::socket_with(family, kind, flags, None).expect("a socket");
        let addr = rustix::net::SocketAddrUnix::new(&path).expect("an address");
        match rustix::net::connect(&socket, &addr) {
            Ok(()) if waiting.len() < 1000 => waiting.push(socket),
            other => break other,
        }
    };
    assert_eq!(full, Err(rustix::io::Errno::AGAIN), "after {} clients", waiting.len());
    let error = admin::bind(dir.path()).expect_err("refused").to_string();
    assert!(error.starts_with("a coordinator already answers at "), "{error}");
    assert!(path.exists());
}

#[tokio::test]
async fn a_file_in_the_way_is_named_and_left_alone() {
    let dir = run_dir();
    let path = dir.path().join("admin.sock");
    fs::write(&path, "precious").expect("written");
    let error = admin::bind(dir.path()).expect_err("refused").to_string();
    assert!(error.contains(path.to_str().expect("UTF-8")) && error.contains("is no socket"), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("there"), "precious");
}

#[tokio::test]
async fn two_that_start_at_once_do_not_take_each_others_socket() {
    let dir = run_dir();
    let other = fs::File::open(dir.path()).expect("opened");
    rustix::fs::flock(&other, rustix::fs::FlockOperation::NonBlockingLockExclusive).expect("locked");
    let error = admin::bind(dir.path()).expect_err("refused").to_string();
    assert!(error.starts_with("another coordinator is starting in "), "{error}");
    drop(other);
    admin::bind(dir.path()).expect("the lock ended with its file");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_start_over_a_dead_ones_socket_exactly_one_gets_it() {
    let dir = run_dir();
    drop(StdListener::bind(dir.path().join("admin.sock")).expect("bound"));
    let mut starting = JoinSet::new();
    for _ in 0..16 {
        let dir = dir.path().to_owned();
        starting.spawn(async move { admin::bind(&dir).map_err(|error| error.to_string()) });
    }
    let (mut bound, mut refused) = (Vec::new(), Vec::new());
    for started in timeout(GENEROUS, starting.join_all()).await.expect("all have tried") {
        match started {
            Ok(listener) => bound.push(listener),
            Err(error) => refused.push(error),
        }
    }
    assert_eq!(bound.len(), 1, "{refused:?}");
    let expected = ["another coordinator is starting in ", "a coordinator already answers at "];
    let other: Vec<_> = refused.iter().filter(|error| !expected.iter().any(|start| error.starts_with(start))).collect();
    assert!(other.is_empty(), "{other:?}");
    let left: Vec<_> =
        fs::read_dir(dir.path()).expect("readable").map(|entry| entry.expect("read").file_name()).collect();
    assert_eq!(left, ["admin.sock"]);
}

#[tokio::test]
async fn an_absent_run_dir_is_named() {
    let dir = run_dir();
    let absent = dir.path().join("absent");
    let error = admin::bind(&absent).expect_err("refused").to_string();
    assert!(error.contains(absent.to_str().expect("UTF-8")) && error.contains("member.run_dir"), "{error}");
}

/// Whether this process may become another user; says what is missing, and fails where it must not be.
fn may_become_another_user() -> bool {
    let may = rustix::process::geteuid().is_root();
    if !may {
        let missing = "not tried as another user: only root can become one";
        assert!(std::env::var_os("BATON_REQUIRE_NAMESPACES").is_none(), "{missing}");
        eprintln!("{missing}");
    }
    may
}

#[tokio::test]
async fn another_user_is_turned_away_even_when_the_mode_lets_him_in() {
    const NOBODY: u32 = 65_534;
    let (mut host, mut asked) = Host::new();
    let socket = host.socket();
    // Others may pass now, so that it is the server that has to tell who they are.
    fs::set_permissions(host.dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).expect("chmod");
    if may_become_another_user() {
        // He may not reach where programs are built. Copied by a process of its own: one that is forked here meanwhile
        // would keep the copy open for writing, and then it cannot be run.
        let program = host.dir.path().join("baton");
        let copied = tokio::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_baton")).arg(&program).status().await;
        assert!(copied.expect("cp starts").success());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
        for command in ["status", "pause"] {
            let mut child = tokio::process::Command::new(&program);
            child.args([command, "--socket"]).arg(&socket).env_clear().current_dir("/");
            child.uid(NOBODY).gid(NOBODY).kill_on_drop(true);
            let output = timeout(GENEROUS, child.output()).await.expect("an end in time").expect("it starts");
            assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""), "{output:?}");
            let line = format!(
                "baton: the coordinator at {} does not listen: it is run by user 0 and listens to that user and root \
                 alone; this is user {NOBODY}\n",
                socket.display()
            );
            assert_eq!(text(&output.stderr), line);
        }
        assert!(asked.try_recv().is_err(), "nothing of it arrives");
    }
    host.tasks.spawn(async move {
        while let Some(ask) = asked.recv().await {
            answer(ask);
        }
    });
    let output = host.baton(&["status"]).await;
    assert_eq!(output.status.code(), Some(0), "our own user: {output:?}");
}

#[tokio::test]
async fn questions_and_answers_pass_unchanged() {
    let host = Host::answering();
    let mut client = host.client().await;
    assert_eq!(client.status(StatusRequest {}).await.expect("told").into_inner(), status());
    assert_eq!(client.history(HistoryRequest {}).await.expect("told").into_inner().moves, [first_move()]);
    for (to, moved_to) in [("", "host-b"), ("host-d", "host-d")] {
        let done = client
            .handover(HandoverRequest { to: to.to_owned(), ..HandoverRequest::default() })
            .await
            .expect("moved")
            .into_inner();
        assert_eq!((done.to.as_str(), done.epoch, done.took_ns), (moved_to, 3, 123_000_000));
    }
    let refused = client
        .handover(HandoverRequest { to: "host-x".to_owned(), ..HandoverRequest::default() })
        .await
        .expect_err("not ready");
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "host-x is not ready: syncing"));
}

#[tokio::test]
async fn clients_that_say_nothing_keep_nobody_out_and_are_closed() {
    use tokio::io::AsyncReadExt;
    let host = Host::answering();
    let mut before = host.client().await;
    before.status(StatusRequest {}).await.expect("told");
    let mut silent = Vec::new();
    // More than are let in.
    for _ in 0..100 {
        silent.push(tokio::net::UnixStream::connect(host.socket()).await.expect("connected"));
    }
    let mut client = host.client().await;
    assert_eq!(client.status(StatusRequest {}).await.expect("told").into_inner(), status());
    for stream in &mut silent {
        let mut first = [0; 64];
        // It may be greeted before it is closed.
        while !matches!(timeout(GENEROUS, stream.read(&mut first)).await.expect("closed in time"), Ok(0) | Err(_)) {}
    }
    let large = HandoverRequest { to: "x".repeat(1 << 20), ..HandoverRequest::default() };
    let refused = host.client().await.handover(large).await.expect_err("too large");
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
}

#[tokio::test]
async fn an_order_is_answered_with_a_sentence_or_with_why_it_is_not_done() {
    let host = Host::answering();
    let mut client = host.client().await;
    let pause = |on| OrderRequest { order: Some(Order::Pause(SetPause { on, at_ns: 0 })) };
    let done = client.order(pause(true)).await.expect("done").into_inner();
    assert_eq!(done.answer, Some(Answer::Done("paused".to_owned())));
    let refused = client.order(pause(false)).await.expect_err("no leader");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().starts_with("no leader for Pause"), "{refused}");
    let empty = client.order(OrderRequest { order: None }).await.expect_err("says nothing");
    assert_eq!(empty.code(), Code::InvalidArgument, "{empty}");
    let output = host.baton(&["pause"]).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "paused\n"), "{output:?}");
    assert_eq!(host.baton(&["resume"]).await.status.code(), Some(1));
}

#[tokio::test]
async fn the_baton_command_is_answered() {
    let host = Host::answering();
    let output = host.baton(&["active-validator"]).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "Name: host-a\n"), "{output:?}");
    let output = host.baton(&["history"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = host.baton(&["handover"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = host.baton(&["handover", "--to", "host-x"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(text(&output.stderr), "baton: handover: host-x is not ready: syncing\n");
}

#[tokio::test]
async fn a_driver_that_does_not_answer_is_reported_before_the_client_gives_up() {
    // The questions are kept: taken up or not, none is answered.
    let (host, _asked) = Host::new();
    let started = Instant::now();
    let output = host.baton(&["status"]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let line = text(&output.stderr);
    assert!(line.contains("the coordinator hangs: no answer within 2s"), "{line}");
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    let mut client = host.client().await;
    let error = client.history(HistoryRequest {}).await.expect_err("no answer");
    assert_eq!(error.code(), Code::Unavailable, "{error}");
}

#[tokio::test]
async fn a_full_queue_of_questions_is_reported_too() {
    let (host, _asked) = Host::new();
    let mut tasks = JoinSet::new();
    // Four fill the queue, the fifth does not even get in.
    for _ in 0..5 {
        let mut client = host.client().await;
        tasks.spawn(async move { client.status(StatusRequest {}).await.expect_err("no answer").code() });
    }
    let codes = timeout(GENEROUS, tasks.join_all()).await.expect("all are answered");
    assert_eq!(codes, [Code::Unavailable; 5]);
}

#[tokio::test]
async fn a_driver_that_is_gone_is_reported_at_once() {
    let (host, asked) = Host::new();
    drop(asked);
    let error = host.client().await.status(StatusRequest {}).await.expect_err("nobody is there");
    assert_eq!((error.code(), error.message()), (Code::Unavailable, "the coordinator is stopping"));
    let error = host.client().await.handover(HandoverRequest::default()).await.expect_err("nobody is there");
    assert_eq!(error.code(), Code::Unavailable, "{error}");
}

#[tokio::test]
async fn a_long_handover_holds_up_no_status() {
    let (host, mut asked) = Host::new();
    let mut client = host.client().await;
    let mut long = client.clone();
    let handover = tokio::spawn(async move { long.handover(HandoverRequest::default()).await });
    let Some(Ask::Order { order: Order::Handover(request), from: Asker::Operator, answer: pending }) =
        timeout(GENEROUS, asked.recv()).await.expect("asked")
    else {
        panic!("no handover was asked for by an operator")
    };
    let best = WantedHandover { to: None, dry_run: false, timeout: HANDOVER_MAX, within: Duration::ZERO };
    assert_eq!(WantedHandover::read(request), best, "the best ready standby");
    let driver = tokio::spawn(async move { answer(asked.recv().await.expect("asked")) });
    client.status(StatusRequest {}).await.expect("told meanwhile");
    driver.await.expect("answered");
    let moved = HandoverResponse { epoch: 9, ..HandoverResponse::default() };
    pending.send(Ok(Answer::Handover(moved))).expect("it still waits");
    assert_eq!(handover.await.expect("ended").expect("moved").into_inner().epoch, 9);
}

#[tokio::test]
async fn a_client_that_gave_up_on_a_handover_is_seen_by_the_driver() {
    let (host, mut asked) = Host::new();
    let mut client = host.client().await;
    let asking = tokio::spawn(async move { client.handover(HandoverRequest::default()).await });
    let Some(Ask::Order { order: Order::Handover(_), mut answer, .. }) =
        timeout(GENEROUS, asked.recv()).await.expect("asked")
    else {
        panic!("no handover was asked for")
    };
    asking.abort();
    timeout(GENEROUS, answer.closed()).await.expect("the question is withdrawn");
}
