//! `baton handover --at` as an operator meets it. The coordinator is a small server in this process that remembers what
//! it was asked, and when.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::kit::program::baton;
use baton::base::time::WallTime;
use baton::cluster::wire::proto::admin_server::{Admin, AdminServer};
use baton::cluster::wire::proto::{
    HandoverRequest, HandoverResponse, HistoryRequest, HistoryResponse, MemberChangeRequest, MemberChangeResponse,
    OrderRequest, OrderResponse, StatusRequest, StatusResponse, UpgradeChangeRequest, UpgradeChangeResponse,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// Every handover that was asked for; any other question fails.
#[derive(Clone, Default)]
struct Coordinator(Arc<Mutex<Vec<(WallTime, HandoverRequest)>>>);

#[tonic::async_trait]
impl Admin for Coordinator {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Err(Status::unimplemented("status"))
    }

    async fn history(&self, _: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        Err(Status::unimplemented("history"))
    }

    /// To host-slow it never ends.
    async fn handover(&self, request: Request<HandoverRequest>) -> Result<Response<HandoverResponse>, Status> {
        let request = request.into_inner();
        self.0.lock().expect("not poisoned").push((WallTime::now(), request.clone()));
        if request.to == "host-slow" {
            std::future::pending::<()>().await;
        }
        let (from, to, epoch) = ("host-a".to_owned(), request.to, if request.dry_run { 2 } else { 3 });
        Ok(Response::new(HandoverResponse { from, to, epoch, took_ns: 123_000_000, ..HandoverResponse::default() }))
    }

    async fn order(&self, _: Request<OrderRequest>) -> Result<Response<OrderResponse>, Status> {
        Err(Status::invalid_argument("as a coordinator of an earlier version, which finds no order in it"))
    }

    async fn change_member(&self, _: Request<MemberChangeRequest>) -> Result<Response<MemberChangeResponse>, Status> {
        Err(Status::unimplemented("change_member"))
    }

    async fn change_upgrade(
        &self,
        _: Request<UpgradeChangeRequest>,
    ) -> Result<Response<UpgradeChangeResponse>, Status> {
        Err(Status::unimplemented("nobody asks for that here"))
    }
}

struct Host {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    coordinator: Coordinator,
    _runtime: tokio::runtime::Runtime,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (socket, coordinator) = (dir.path().join("admin.sock"), Coordinator::default());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(async { UnixListener::bind(&socket) }).expect("the socket is bound");
        let server = tonic::transport::Server::builder().add_service(AdminServer::new(coordinator.clone()));
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Host { _dir: dir, socket, coordinator, _runtime: runtime }
    }

    fn asked(&self) -> Vec<(WallTime, HandoverRequest)> {
        self.coordinator.0.lock().expect("not poisoned").clone()
    }

    fn baton(&self, args: &[&str]) -> Output {
        handover(&self.socket, args).output().expect("baton starts")
    }
}

fn handover(socket: &Path, args: &[&str]) -> Command {
    let mut command = baton(&["handover", "--socket"]);
    command.arg(socket).args(args).stdin(Stdio::null());
    command
}

/// A `baton handover` that has said until when it waits.
struct Waiting {
    child: Child,
    out: BufReader<ChildStdout>,
    said: String,
}

impl Waiting {
    fn start(host: &Host, args: &[&str]) -> Waiting {
        let mut command = handover(&host.socket, args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("baton starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut said = String::new();
        out.read_line(&mut said).expect("a line");
        Waiting { child, out, said }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a process of our own");
    }

    /// How it ended, what it still wrote, and its errors.
    fn end(mut self) -> (std::process::ExitStatus, String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        self.out.read_to_string(&mut out).expect("UTF-8");
        self.child.stderr.take().expect("piped").read_to_string(&mut err).expect("UTF-8");
        (self.child.wait().expect("an end"), out, err)
    }
}

#[test]
fn nothing_is_asked_before_it_is_time_and_then_what_would_have_been_asked_at_once() {
    let host = Host::new();
    let due = WallTime::now() + Duration::from_millis(1500);
    let waiting = Waiting::start(&host, &["--at", &due.to_string(), "--to", "host-b", "--timeout", "7s"]);
    let said = format!("handover at {due}, in ");
    assert!(waiting.said.starts_with(&said), "{}", waiting.said);
    assert!(waiting.said.ends_with(" s; until then Ctrl-C cancels it\n"), "{}", waiting.said);
    let (status, out, err) = waiting.end();
    assert!(out.ends_with("host-a -> host-b under epoch 3 in 123 ms\n"), "{out}");
    assert_eq!((status.code(), err.as_str()), (Some(0), ""));
    let [(at, request)] = &host.asked()[..] else { panic!("asked once: {:?}", host.asked()) };
    assert_eq!((request.to.as_str(), request.timeout_ms, request.dry_run), ("host-b", 7000, false));
    let whole_millis = due.as_nanos() / 1_000_000 * 1_000_000;
    assert!(at.as_nanos() >= whole_millis, "asked at {at}, which is before {due}");
}

#[test]
fn a_while_from_now_is_counted_from_the_start() {
    let host = Host::new();
    let began = WallTime::now();
    let output = host.baton(&["--at", "+300ms", "--to", "host-b"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let asked = host.asked();
    assert!(asked[0].0.since(began) >= Duration::from_millis(300), "{:?}", asked[0].0.since(began));
}

#[test]
fn ctrl_c_before_the_time_cancels_it_and_nothing_was_asked() {
    for signal in [Signal::INT, Signal::TERM] {
        let host = Host::new();
        let waiting = Waiting::start(&host, &["--at", "+1h"]);
        assert!(
            waiting.said.contains(", in 1 h 0 min; ") || waiting.said.contains(", in 59 min; "),
            "{}",
            waiting.said
        );
        let due = waiting.said["handover at ".len()..].split(',').next().expect("a time").to_owned();
        waiting.signal(signal);
        let (status, out, err) = waiting.end();
        let line = format!("baton: handover: cancelled before {due}; nothing was asked of the cluster\n");
        assert_eq!((status.code(), out.as_str(), err.as_str()), (Some(1), "", line.as_str()));
        assert!(host.asked().is_empty(), "{:?}", host.asked());
    }
}

#[test]
fn ctrl_c_after_the_time_ends_the_command_as_it_ends_any_other() {
    use std::os::unix::process::ExitStatusExt;
    let host = Host::new();
    let waiting = Waiting::start(&host, &["--at", "+100ms", "--to", "host-slow"]);
    while host.asked().is_empty() {
        std::thread::sleep(Duration::from_millis(2));
    }
    waiting.signal(Signal::INT);
    let (status, _, err) = waiting.end();
    assert_eq!((status.signal(), err.as_str()), (Some(Signal::INT.as_raw()), ""));
}

#[test]
fn a_dry_run_answers_at_once_for_then() {
    let host = Host::new();
    let output = host.baton(&["--at", "2100-01-01T00:00:00+01:00", "--to", "host-b", "--dry-run"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("host-a -> host-b would be tried at 2099-12-31T23:00:00.000Z, in "), "{said}");
    assert!(said.ends_with(" h, if all is as it is now; host-a keeps the baton under epoch 2\n"), "{said}");
    assert_eq!((output.status.code(), host.asked().len()), (Some(0), 1));
    assert!(host.asked()[0].1.dry_run);
}

#[test]
fn a_wrong_time_is_one_line_and_exit_code_2() {
    let host = Host::new();
    for (args, line) in [
        (
            &["--at", "tomorrow"][..],
            "invalid value 'tomorrow' for '--at <TIME>': write \"2026-06-14T09:30:00Z\" or another zone, \"09:30\" or \
             \"09:30:00\" in UTC, or \"+30m\" (baton --help)",
        ),
        (
            &["--at", "+30"],
            "invalid value '+30' for '--at <TIME>': 30 has no unit; write \"30ms\" or \"30s\" (baton --help)",
        ),
        (
            &["--at", "09:30", "--window"],
            "the argument '--at <TIME>' cannot be used with '--window[=<DURATION>]' (baton --help)",
        ),
        (&["--at", "2020-01-01T00:00:00Z"], "--at: 2020-01-01T00:00:00.000Z is not in the future: it is "),
    ] {
        let output = host.baton(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.starts_with(&format!("baton: {line}")), "{said}");
        assert_eq!((output.status.code(), said.lines().count(), output.stdout.len()), (Some(2), 1, 0), "{said}");
    }
    assert!(host.asked().is_empty(), "{:?}", host.asked());
}

#[test]
fn nobody_waits_for_a_coordinator_that_is_not_there() {
    let output = handover(Path::new("/nowhere/admin.sock"), &["--at", "+1h"]).output().expect("baton starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("baton: cannot reach the coordinator at /nowhere/admin.sock"), "{said}");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
}
