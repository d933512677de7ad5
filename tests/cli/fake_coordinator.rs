//! The coordinator that answers, and the configuration of its host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use baton::cluster::wire::proto::admin_server::{Admin, AdminServer};
use baton::cluster::wire::proto::member_change_request::Change;
use baton::cluster::wire::proto::order_request::Order;
use baton::cluster::wire::proto::{
    HandoverRequest, HandoverResponse, HistoryRequest, HistoryResponse, MemberChangeRequest, MemberChangeResponse,
    MemberStatus, Move, MoveFloor, OrderRequest, OrderResponse, StatusRequest, StatusResponse, Timeline,
    UpgradeChangeRequest, UpgradeChangeResponse, UpgradePlan, order_response, upgrade_change_request,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use crate::kit::program;

const EXAMPLE: &str = include_str!("../data/design-example.toml");

/// Runs `baton` to its end. Nothing of this process's own BATON_ variables reaches it.
pub fn baton(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = program::baton(args);
    command.envs(env.iter().copied()).stdin(Stdio::null());
    command.output().expect("the baton program starts")
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Asserts an empty standard output, exactly one line on standard error, and the exit code.
pub fn assert_refused(output: &Output, code: i32, line: &str) {
    assert_eq!(text(&output.stderr), format!("{line}\n"));
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(code), ""), "{line}");
}

/// A configuration with its own key files, below a directory of its own.
pub struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Host {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for key in ["validator_key.json", "validator_node_key.json"] {
            fs::write(dir.path().join(key), r#"{"account_id": "a.near"}"#).expect("a key file");
            fs::set_permissions(dir.path().join(key), fs::Permissions::from_mode(0o600)).expect("chmod");
        }
        let text = EXAMPLE.replace("\"/run/baton\"", "\"run\"").replace("/etc/baton/keys/", "");
        fs::create_dir(dir.path().join("run")).expect("run_dir");
        fs::write(dir.path().join("baton.toml"), text).expect("the configuration");
        Host { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self) -> String {
        self.path("baton.toml").display().to_string()
    }
}

#[derive(Clone)]
pub struct Coordinator {
    pub status: StatusResponse,
    pub moves: Vec<Move>,
    pub plans: Vec<UpgradePlan>,
    pub timelines: Vec<Timeline>,
}

#[tonic::async_trait]
impl Admin for Coordinator {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.status.clone()))
    }

    async fn history(&self, _: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        Ok(Response::new(HistoryResponse {
            moves: self.moves.clone(),
            plans: self.plans.clone(),
            member: self.status.member.clone(),
            timelines: self.timelines.clone(),
        }))
    }

    async fn handover(&self, request: Request<HandoverRequest>) -> Result<Response<HandoverResponse>, Status> {
        let (from, epoch, took_ns) = ("host-a".to_owned(), 3, 123_000_000);
        let request = request.into_inner();
        match request.to.as_str() {
            "host-b" | "" if request.dry_run => {
                Ok(Response::new(HandoverResponse { from, to: "host-b".to_owned(), epoch: 2, ..Default::default() }))
            }
            "host-b" | "" => {
                let (to, moment) = ("host-b".to_owned(), String::new());
                Ok(Response::new(HandoverResponse { from, to, epoch, took_ns, moment }))
            }
            to @ "host-near" => {
                let (to, moment) = (to.to_owned(), format!("it could wait {} ms", request.within_ms));
                Ok(Response::new(HandoverResponse { from, to, epoch, took_ns, moment }))
            }
            "host-slow" => std::future::pending().await,
            other => Err(Status::failed_precondition(format!("{other} is not ready: syncing"))),
        }
    }

    async fn order(&self, request: Request<OrderRequest>) -> Result<Response<OrderResponse>, Status> {
        match request.into_inner().order {
            Some(Order::Priority(set)) if set.member == "host-x" => {
                Err(Status::failed_precondition("\"host-x\" is not a member"))
            }
            Some(Order::Handover(_) | Order::Member(_) | Order::Upgrade(_)) | None => {
                Err(Status::invalid_argument("as a coordinator of an earlier version, which finds no order in it"))
            }
            order => {
                Ok(Response::new(OrderResponse { answer: Some(order_response::Answer::Done(format!("{order:?}"))) }))
            }
        }
    }

    /// Says what it was asked; a removal of host-a is refused.
    async fn change_member(
        &self,
        request: Request<MemberChangeRequest>,
    ) -> Result<Response<MemberChangeResponse>, Status> {
        let request = request.into_inner();
        let refused = match &request.change {
            Some(Change::Remove(id)) if id == "host-a" => "host-a holds the baton".to_owned(),
            _ => String::new(),
        };
        if !refused.is_empty() && !request.dry_run {
            return Err(Status::failed_precondition(refused));
        }
        Ok(Response::new(MemberChangeResponse { lines: vec![format!("{request:?}"), "second".to_owned()], refused }))
    }

    /// Says what it was asked; a rollback is refused.
    async fn change_upgrade(
        &self,
        request: Request<UpgradeChangeRequest>,
    ) -> Result<Response<UpgradeChangeResponse>, Status> {
        let request = request.into_inner();
        let refused = match &request.change {
            Some(upgrade_change_request::Change::Rollback(_)) => "there is no one name to go back to".to_owned(),
            _ => String::new(),
        };
        if !refused.is_empty() && !request.dry_run {
            return Err(Status::failed_precondition(refused));
        }
        Ok(Response::new(UpgradeChangeResponse { lines: vec![format!("{request:?}")], refused }))
    }
}

pub fn two_members() -> Coordinator {
    let active = MemberStatus {
        meaning: None,
        timing: None,
        settling_rules: None,
        id: "host-a".to_owned(),
        addr: "127.0.0.1:7401".to_owned(),
        role: "validator".to_owned(),
        state: "Validating".to_owned(),
        phase: "Active".to_owned(),
        reachable: true,
        synced: true,
        height: 1234,
        priority: 100,
        maintenance: false,
        lease_remaining_ms: 812,
        guard: "armed".to_owned(),
        links: "validating".to_owned(),
        node_pid: 77,
        version: "0.1.0".to_owned(),
        not_ready_because: String::new(),
        gives_no_vote: false,
        node_note: String::new(),
        settling: String::new(),
        transport: "tls".to_owned(),
        certificate_until_ns: 4_000_000_000_000_000_000,
        vote: "voter".to_owned(),
        incarnation: 0xabc,
        upgrade: None,
        foreign_node: String::new(),
        refused: String::new(),
        key_alarm: String::new(),
        containment: "pid-namespace".to_owned(),
    };
    let standby = MemberStatus {
        id: "host-b".to_owned(),
        state: "Voting".to_owned(),
        phase: String::new(),
        synced: false,
        lease_remaining_ms: 0,
        guard: "idle".to_owned(),
        links: "standby".to_owned(),
        not_ready_because: "the chain node is syncing".to_owned(),
        ..active.clone()
    };
    let status = StatusResponse {
        lease_ms: 1000,
        promise_ms: 1001,
        cluster: "my-validator".to_owned(),
        member: "host-a".to_owned(),
        leader: "host-a".to_owned(),
        term: 3,
        epoch: 2,
        holder: "host-a".to_owned(),
        quorum: true,
        members: vec![active, standby],
        warnings: Vec::new(),
        paused_since_ns: None,
        floor: Some(MoveFloor {
            epoch: 2,
            source: "settled".to_owned(),
            floor: "a block after 2024-02-29T12:00:00.123Z".to_owned(),
            met_at_height: 1_234_567_890,
            settled_in_ns: 12_345_678_000,
        }),
        upgrade: None,
        upgrade_waits_for: String::new(),
        upgrade_stuck: false,
        sign_log: None,
        signed_at_ns: 0,
        sentries: Vec::new(),
    };
    let first = Move {
        epoch: 1,
        to: "host-b".to_owned(),
        kind: "first".to_owned(),
        reason: "the first claim".to_owned(),
        claimed_at_ns: 1_709_208_000_123_000_000,
        active_at_ns: 1_709_208_000_523_000_000,
        floor: status.floor.clone(),
        ..Move::default()
    };
    let second = Move {
        epoch: 2,
        from: "host-b".to_owned(),
        to: "host-a".to_owned(),
        kind: "failover".to_owned(),
        active_at_ns: 0,
        floor: None,
        ..first.clone()
    };
    Coordinator { status, moves: vec![first, second], plans: Vec::new(), timelines: Vec::new() }
}

/// Serves `coordinator` at `socket` for as long as the runtime lives.
pub fn serve(coordinator: Coordinator, socket: &Path) -> tokio::runtime::Runtime {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let listener = runtime.block_on(async { UnixListener::bind(socket) }).expect("the socket is bound");
    let server = tonic::transport::Server::builder().add_service(AdminServer::new(coordinator));
    runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    runtime
}
