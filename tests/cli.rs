//! The `baton` program as an operator meets it: one clear line for bad input, exit codes, tables and
//! JSON. The coordinator is a small server in this process that answers the admin protocol.

#[path = "chain/fake_node.rs"]
#[allow(dead_code)] // The driver's tests use the rest.
mod fake_node;
mod program_kit;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use baton::wire::proto::admin_server::{Admin, AdminServer};
use baton::wire::proto::member_change_request::Change;
use baton::wire::proto::order_request::Order;
use baton::wire::proto::{
    AddMember, HandoverRequest, HandoverResponse, HistoryRequest, HistoryResponse, MemberChangeRequest,
    MemberChangeResponse, MemberStatus, Move, MoveFloor, OrderRequest, OrderResponse, SetMaintenance, SetPause,
    SetPriority, StatusRequest, StatusResponse,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use fake_node::{Answer, FakeNode};

const EXAMPLE: &str = include_str!("data/design-example.toml");

/// Runs `baton` to its end. Nothing of this process's own BATON_ variables reaches it.
fn baton(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = program_kit::baton(args);
    command.envs(env.iter().copied()).stdin(Stdio::null());
    command.output().expect("the baton program starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Asserts an empty standard output, exactly one line on standard error, and the exit code.
fn assert_refused(output: &Output, code: i32, line: &str) {
    assert_eq!(text(&output.stderr), format!("{line}\n"));
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(code), ""), "{line}");
}

/// A configuration with its own key files, below a directory of its own.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for key in ["validator_key.json", "validator_node_key.json"] {
            fs::write(dir.path().join(key), "{}").expect("a key file");
            fs::set_permissions(dir.path().join(key), fs::Permissions::from_mode(0o600)).expect("chmod");
        }
        let text = EXAMPLE.replace("\"/run/baton\"", "\"run\"").replace("/etc/baton/keys/", "");
        fs::create_dir(dir.path().join("run")).expect("run_dir");
        fs::write(dir.path().join("baton.toml"), text).expect("the configuration");
        Host { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> String {
        self.path("baton.toml").display().to_string()
    }
}

#[derive(Clone)]
struct Coordinator {
    status: StatusResponse,
    moves: Vec<Move>,
}

#[tonic::async_trait]
impl Admin for Coordinator {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.status.clone()))
    }

    async fn history(&self, _: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        Ok(Response::new(HistoryResponse { moves: self.moves.clone() }))
    }

    async fn handover(&self, request: Request<HandoverRequest>) -> Result<Response<HandoverResponse>, Status> {
        let (from, epoch, took_ns) = ("host-a".to_owned(), 3, 123_000_000);
        let request = request.into_inner();
        match request.to.as_str() {
            "host-b" | "" if request.dry_run => {
                Ok(Response::new(HandoverResponse { from, to: "host-b".to_owned(), epoch: 2, took_ns: 0 }))
            }
            "host-b" | "" => Ok(Response::new(HandoverResponse { from, to: "host-b".to_owned(), epoch, took_ns })),
            "host-slow" => std::future::pending().await,
            other => Err(Status::failed_precondition(format!("{other} is not ready: syncing"))),
        }
    }

    async fn order(&self, request: Request<OrderRequest>) -> Result<Response<OrderResponse>, Status> {
        match request.into_inner().order {
            Some(Order::Priority(set)) if set.member == "host-x" => {
                Err(Status::failed_precondition("\"host-x\" is not a member"))
            }
            order => Ok(Response::new(OrderResponse { done: format!("{order:?}") })),
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
}

fn two_members() -> Coordinator {
    let active = MemberStatus {
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
        node_note: String::new(),
        settling: String::new(),
        transport: "tls".to_owned(),
        certificate_until_ns: 4_000_000_000_000_000_000,
        vote: "voter".to_owned(),
        incarnation: 0xabc,
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
    Coordinator { status, moves: vec![first, second] }
}

/// Serves `coordinator` at `socket` for as long as the runtime lives.
fn serve(coordinator: Coordinator, socket: &Path) -> tokio::runtime::Runtime {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let listener = runtime.block_on(async { UnixListener::bind(socket) }).expect("the socket is bound");
    let server = tonic::transport::Server::builder().add_service(AdminServer::new(coordinator));
    runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    runtime
}

#[test]
fn a_wrong_command_line_is_one_line_and_exit_code_2() {
    for (args, line) in [
        (
            &[][..],
            "baton: no command is named; use run, status, active-validator, history, why, canary, fence, handover, maintenance, \
             pause, resume, priority, cert, member, init, check, completions or man (baton --help)",
        ),
        (
            &["histroy"],
            "baton: unrecognized subcommand 'histroy'; a similar subcommand exists: 'history' (baton --help)",
        ),
        (&["run", "--config"], "baton: a value is required for '--config <FILE>' but none was supplied (baton --help)"),
        (
            &["run", "--log-format", "xml"],
            "baton: invalid value 'xml' for '--log-format <LOG_FORMAT>' [possible values: human, json] (baton --help)",
        ),
        (
            &["handover", "--timeout", "30"],
            "baton: invalid value '30' for '--timeout <DURATION>': 30 has no unit; write \"30ms\" or \"30s\" (baton --help)",
        ),
        (
            &["priority", "host-b", "high"],
            "baton: invalid value 'high' for '<N|configured>': a number, or \"configured\" (baton --help)",
        ),
        (
            &["status", "--socket", "a", "--config", "b"],
            "baton: the argument '--socket <PATH>' cannot be used with '--config <FILE>' (baton --help)",
        ),
    ] {
        assert_refused(&baton(args, &[]), 2, line);
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for args in [&["--help"][..], &["--version"], &["handover", "--help"]] {
        let output = baton(args, &[]);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{args:?}");
        assert!(text(&output.stdout).contains("baton"), "{args:?}");
    }
}

#[test]
fn a_bad_configuration_is_one_line_and_exit_code_2_for_every_command() {
    let host = Host::new();
    let bad = fs::read_to_string(host.path("baton.toml")).expect("readable").replace("every =", "evry =");
    fs::write(host.path("baton.toml"), bad).expect("writable");
    let config = host.config();
    let line = format!("baton: unknown key chain.probe.evry in {config}:46; did you mean chain.probe.every?");
    for command in ["run", "check", "status", "active-validator", "history", "handover", "pause", "resume"] {
        assert_refused(&baton(&[command, "--config", &config], &[]), 2, &line);
    }
    let nowhere = "cannot read /nowhere/baton.toml: No such file or directory (os error 2); name the file with --config \
                   FILE or BATON_CONFIG";
    let by_variable = baton(&["check"], &[("BATON_CONFIG", "/nowhere/baton.toml")]);
    assert_refused(&by_variable, 2, &format!("baton: {nowhere}"));
    let variable = baton(&["check", "--config", &config], &[("BATON_TIMING_LEESE", "2s")]);
    assert_eq!(variable.status.code(), Some(2));
}

#[test]
fn a_key_that_others_can_read_stops_run_and_check_before_anything_happens() {
    let host = Host::new();
    let key = host.path("validator_key.json");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("chmod");
    let key = key.display();
    let line = format!("baton: key {key} has mode 0644, open to group or others; run: chmod 600 {key}");
    for command in ["run", "check"] {
        assert_refused(&baton(&[command, "--config", &host.config()], &[]), 2, &line);
    }
    assert_eq!(fs::read_dir(host.path("run")).expect("run_dir").count(), 0, "nothing was made in run_dir");
}

#[test]
fn an_unreadable_log_level_or_format_stops_run() {
    let host = Host::new();
    let output = baton(&["run", "--config", &host.config()], &[("BATON_LOG", "info=loud")]);
    let line = text(&output.stderr);
    assert_eq!((output.status.code(), line.lines().count()), (Some(2), 1), "{line}");
    assert!(line.starts_with("baton: BATON_LOG=\"info=loud\": write a level"), "{line}");
    let output = baton(&["run", "--config", &host.config()], &[("BATON_LOG_FORMAT", "xml")]);
    assert_refused(&output, 2, "baton: BATON_LOG_FORMAT=\"xml\": write human or json");
}

#[test]
fn check_says_ok_with_the_warnings() {
    let host = Host::new();
    let missing = baton(&["check", "--config", &host.config()], &[]);
    let line =
        format!("baton: [tls] read {}: No such file or directory (os error 2)", host.path("host-a.pem").display());
    assert_refused(&missing, 2, &line);
    let dir = host.config().replace("baton.toml", "");
    assert!(baton(&["cert", "ca", "--dir", &dir], &[]).status.success());
    assert!(baton(&["cert", "issue", "host-a", "--addr", "127.0.0.1", "--dir", &dir], &[]).status.success());
    let output = baton(&["check", "--config", &host.config()], &[]);
    let ok = format!("{}: ok; host-a of 3 members\n", host.config());
    assert_eq!((output.status.code(), text(&output.stdout), text(&output.stderr)), (Some(0), ok.as_str(), ""));
    let two = fs::read_to_string(host.path("baton.toml")).expect("readable");
    let two: String = two.lines().filter(|line| !line.contains("host-c")).map(|line| format!("{line}\n")).collect();
    fs::write(host.path("baton.toml"), two).expect("writable");
    let output = baton(&["check", "--config", &host.config()], &[]);
    assert!(text(&output.stdout).starts_with("warning: cluster.members has 2 members"), "{output:?}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn an_absent_coordinator_is_exit_code_2_with_its_socket() {
    let host = Host::new();
    let socket = host.path("run/admin.sock");
    let line = format!(
        "baton: cannot reach the coordinator at {}: No such file or directory (os error 2); is baton run up?",
        socket.display()
    );
    for command in ["status", "active-validator", "history", "handover", "pause", "resume"] {
        assert_refused(&baton(&[command, "--config", &host.config()], &[]), 2, &line);
    }
}

#[test]
fn a_coordinator_that_hangs_is_exit_code_2_after_seconds() {
    let host = Host::new();
    // Accepted by the kernel and never answered, as by a stopped process.
    let _listener = std::os::unix::net::UnixListener::bind(host.path("run/admin.sock")).expect("bound");
    let started = Instant::now();
    let output = baton(&["status", "--config", &host.config()], &[]);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    let line = text(&output.stderr);
    assert_eq!((output.status.code(), line.lines().count()), (Some(2), 1), "{line}");
    assert!(line.contains("no answer within 3s"), "{line}");
}

#[test]
fn status_is_found_by_config_socket_and_variable() {
    let host = Host::new();
    let socket = host.path("run/admin.sock");
    let _server = serve(two_members(), &socket);
    let (config, socket) = (host.config(), socket.display().to_string());
    for (args, env) in [
        (&["active-validator", "--config", &config][..], &[][..]),
        (&["active-validator", "--socket", &socket], &[]),
        (&["active-validator"], &[("BATON_CONFIG", config.as_str())]),
    ] {
        let output = baton(args, env);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "Name: host-a\n"), "{output:?}");
    }
}

#[test]
fn status_json_has_every_field_of_the_contract_by_name() {
    let host = Host::new();
    let _server = serve(two_members(), &host.path("run/admin.sock"));
    let output = baton(&["status", "--json", "--config", &host.config()], &[]);
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let member = |id: &str, state: &str, phase: &str, synced: bool, lease_ms: i64, guard: &str, links: &str| {
        serde_json::json!({
            "id": id, "addr": "127.0.0.1:7401", "role": "validator", "state": state, "phase": phase,
            "reachable": true, "synced": synced, "height": 1234, "priority": 100, "maintenance": false,
            "lease_remaining_ms": lease_ms, "guard": guard, "links": links, "node_pid": 77, "version": "0.1.0",
            "settling": null, "transport": "tls", "certificate_until": "2096-10-02T07:06:40.000Z", "vote": "voter",
        })
    };
    let expected = serde_json::json!({
        "cluster": "my-validator", "member": "host-a", "leader": "host-a", "term": 3, "epoch": 2,
        "holder": "host-a", "quorum": true, "paused": false,
        "floor": {
            "epoch": 2, "source": "settled", "floor": "a block after 2024-02-29T12:00:00.123Z",
            "met_at_height": 1_234_567_890, "settled_in_ms": 12345,
        },
        "members": [
            member("host-a", "Validating", "Active", true, 812, "armed", "validating"),
            member("host-b", "Voting", "", false, 0, "idle", "standby"),
        ],
        "warnings": [],
    });
    assert_eq!(seen, expected);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_status_table_says_why_a_member_is_not_ready() {
    let host = Host::new();
    let _server = serve(two_members(), &host.path("run/admin.sock"));
    let output = baton(&["status", "--config", &host.config()], &[]);
    assert_eq!(
        text(&output.stdout),
        "cluster my-validator, seen by host-a\n\
         leader host-a (term 3), holder host-a (epoch 2), quorum yes\n\
         sign floor of epoch 2, settled:\n  \
         floor a block after 2024-02-29T12:00:00.123Z, met at 1234567890 in 12345 ms\n\
         \n\
         HOST    ROLE       STATE       PHASE   HEIGHT  LINKS       GUARD  LEASE\n\
         host-a  validator  Validating  Active  1234    validating  armed  812ms\n\
         host-b  validator  Voting      -       1234    standby     idle   -\n  \
         not ready: the chain node is syncing\n"
    );
}

#[test]
fn an_arbiter_is_not_blamed_for_running_no_chain_node() {
    let host = Host::new();
    let mut coordinator = two_members();
    let arbiter = &mut coordinator.status.members[1];
    (arbiter.role, arbiter.not_ready_because) = ("arbiter".to_owned(), "an arbiter runs no chain node".to_owned());
    let _server = serve(coordinator, &host.path("run/admin.sock"));
    let output = baton(&["status", "--config", &host.config()], &[]);
    assert!(!text(&output.stdout).contains("not ready"), "{}", text(&output.stdout));
}

#[test]
fn a_holder_that_settles_says_what_it_waits_for() {
    let host = Host::new();
    let mut coordinator = two_members();
    let holder = &mut coordinator.status.members[0];
    (holder.phase, holder.settling) =
        ("Settling".to_owned(), "release: its chain node to reach height 1240".to_owned());
    let _server = serve(coordinator, &host.path("run/admin.sock"));
    let output = baton(&["status", "--config", &host.config()], &[]);
    let said = "  settling, waits for release: its chain node to reach height 1240\n";
    assert!(text(&output.stdout).contains(said), "{}", text(&output.stdout));
    let output = baton(&["status", "--json", "--config", &host.config()], &[]);
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(seen["members"][0]["settling"], "release: its chain node to reach height 1240");
}

#[test]
fn without_an_active_holder_the_exit_code_is_1() {
    let no_holder = |change: fn(&mut StatusResponse)| {
        let mut coordinator = two_members();
        change(&mut coordinator.status);
        coordinator
    };
    for coordinator in [
        no_holder(|status| status.holder.clear()),
        no_holder(|status| status.members[0].phase = "Settling".to_owned()),
        no_holder(|status| status.members[0].reachable = false),
        no_holder(|status| status.holder = "host-b".to_owned()),
    ] {
        let host = Host::new();
        let (holder, leader) = (coordinator.status.holder.clone(), coordinator.status.leader.clone());
        let _server = serve(coordinator, &host.path("run/admin.sock"));
        let output = baton(&["status", "--json", "--config", &host.config()], &[]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(seen["holder"].as_str().unwrap_or_default(), holder);
        assert_eq!((seen["holder"].is_null(), seen["leader"].as_str()), (holder.is_empty(), Some(leader.as_str())));
        let output = baton(&["active-validator", "--config", &host.config()], &[]);
        assert_refused(&output, 1, "baton: no holder is active; see baton status");
    }
}

#[test]
fn history_shows_each_move_and_its_reason() {
    let host = Host::new();
    let _server = serve(two_members(), &host.path("run/admin.sock"));
    let output = baton(&["history", "--config", &host.config()], &[]);
    assert_eq!(
        text(&output.stdout),
        "FROM    TO      EPOCH  KIND      CLAIMED                   GAP         FLOOR\n\
         -       host-b  1      first     2024-02-29T12:00:00.123Z  0ms         settled\n  the first claim\n  \
         floor a block after 2024-02-29T12:00:00.123Z, met at 1234567890 in 12345 ms\n\
         host-b  host-a  2      failover  2024-02-29T12:00:00.123Z  unfinished  -\n  the first claim\n"
    );
    let output = baton(&["history", "--json", "--config", &host.config()], &[]);
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(seen["moves"][0]["from"], serde_json::Value::Null);
    assert_eq!(seen["moves"][0]["floor"], "a block after 2024-02-29T12:00:00.123Z");
    assert_eq!(seen["moves"][0]["floor_source"], "settled");
    assert_eq!(seen["moves"][0]["floor_met_at_height"], 1_234_567_890);
    assert_eq!(seen["moves"][0]["settled_in_ms"], 12345);
    assert_eq!(seen["moves"][1]["active_at_ns"], serde_json::Value::Null);
    assert_eq!(seen["moves"][1]["floor_source"], serde_json::Value::Null);
    assert_eq!(seen["moves"][1]["claimed_at_ns"], 1_709_208_000_123_000_000_u64);
}

#[test]
fn a_handover_tells_where_the_baton_went_or_why_it_did_not() {
    let host = Host::new();
    let _server = serve(two_members(), &host.path("run/admin.sock"));
    let config = host.config();
    for args in [&["handover", "--config", &config][..], &["handover", "--to", "host-b", "--config", &config]] {
        let output = baton(args, &[]);
        let said = "host-a -> host-b under epoch 3 in 123 ms\n";
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), said), "{output:?}");
    }
    let refused = baton(&["handover", "--to", "host-x", "--config", &config], &[]);
    assert_refused(&refused, 1, "baton: handover: host-x is not ready: syncing");
    let slow = baton(&["handover", "--to", "host-slow", "--timeout", "200ms", "--config", &config], &[]);
    assert_refused(&slow, 1, "baton: handover: not done within 200ms; baton status shows how it goes on");
}

#[test]
fn a_dry_run_says_what_would_happen() {
    let host = Host::new();
    let _server = serve(two_members(), &host.path("run/admin.sock"));
    let config = host.config();
    let output = baton(&["handover", "--dry-run", "--config", &config], &[]);
    let said = "host-a -> host-b would be tried now; host-a keeps the baton under epoch 2\n";
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), said), "{output:?}");
    let refused = baton(&["handover", "--dry-run", "--to", "host-x", "--config", &config], &[]);
    assert_refused(&refused, 1, "baton: handover: host-x is not ready: syncing");
}

#[test]
fn each_order_reaches_the_coordinator_and_its_sentence_the_operator() {
    let host = Host::new();
    let _server = serve(two_members(), &host.path("run/admin.sock"));
    let config = host.config();
    let maintenance = |member: &str, on| Order::Maintenance(SetMaintenance { member: member.into(), on, at_ns: 0 });
    let priority = |priority| Order::Priority(SetPriority { member: "host-b".into(), priority });
    for (args, order) in [
        (&["maintenance", "on"][..], maintenance("", true)),
        (&["maintenance", "off", "--member", "host-b"], maintenance("host-b", false)),
        (&["pause"], Order::Pause(SetPause { on: true, at_ns: 0 })),
        (&["resume"], Order::Pause(SetPause { on: false, at_ns: 0 })),
        (&["priority", "host-b", "120"], priority(Some(120))),
        (&["priority", "host-b", "configured"], priority(None)),
    ] {
        let output = baton(&[args, &["--config", &config]].concat(), &[]);
        let said = format!("{:?}\n", Some(order));
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), said.as_str()), "{args:?}: {output:?}");
    }
    let refused = baton(&["priority", "host-x", "1", "--config", &config], &[]);
    assert_refused(&refused, 1, "baton: priority: \"host-x\" is not a member");
}

#[test]
fn a_pause_and_maintenance_are_shown() {
    let host = Host::new();
    let mut coordinator = two_members();
    coordinator.status.paused_since_ns = Some(1_709_208_000_123_000_000);
    coordinator.status.floor = None;
    for member in &mut coordinator.status.members {
        member.maintenance = true;
        member.not_ready_because = "in maintenance".to_owned();
    }
    let _server = serve(coordinator, &host.path("run/admin.sock"));
    let output = baton(&["status", "--config", &host.config()], &[]);
    assert_eq!(
        text(&output.stdout),
        "cluster my-validator, seen by host-a\n\
         leader host-a (term 3), holder host-a (epoch 2), quorum yes\n\
         PAUSED since 2024-02-29T12:00:00.123Z: the baton does not move; baton resume\n\
         \n\
         HOST    ROLE       STATE       PHASE   HEIGHT  LINKS       GUARD  LEASE\n\
         host-a  validator  Validating  Active  1234    validating  armed  812ms\n  \
         in maintenance: keeps the baton while the cluster is paused\n\
         host-b  validator  Voting      -       1234    standby     idle   -\n  \
         in maintenance\n"
    );
    let output = baton(&["status", "--json", "--config", &host.config()], &[]);
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&seen["paused"], &seen["members"][1]["maintenance"]), (&true.into(), &true.into()), "{seen:#}");
}

/// A host whose coordinator answers and whose neard tells these windows; its head is 18, 2 s a block.
fn near_host(windows: &str) -> (Host, tokio::runtime::Runtime, FakeNode) {
    let host = Host::new();
    let runtime = serve(two_members(), &host.path("run/admin.sock"));
    let status = Answer::Body(include_str!("data/near-status.json").to_owned());
    let node = runtime.block_on(FakeNode::start("/status", status));
    let genesis = 1_795_218_367_443_701_848_u64 - 36_000_000_000;
    let block = format!("{{\"result\": {{\"header\": {{\"timestamp_nanosec\": \"{genesis}\"}}}}}}");
    node.answer("/#block", Answer::Body(block));
    let windows = Answer::Body(format!("{{\"result\": {windows}}}"));
    node.answer("/#EXPERIMENTAL_maintenance_windows", windows);
    fs::write(host.path("validator_key.json"), "{\"account_id\": \"node3\"}").expect("a key");
    let text = fs::read_to_string(host.path("baton.toml")).expect("the configuration");
    fs::write(host.path("baton.toml"), text.replace("127.0.0.1:3030", &node.addr)).expect("the configuration");
    (host, runtime, node)
}

const HANDED_OVER: &str = "host-a -> host-b under epoch 3 in 123 ms\n";

#[test]
fn a_handover_in_an_open_window_shows_the_window_and_begins_at_once() {
    let (host, _runtime, _node) = near_host("[[2, 4], [10, 40]]");
    let output = baton(&["handover", "--window", "--config", &host.config()], &[]);
    let window = "maintenance window: heights 19 to 39 (21 blocks), about 42.0 s; it is open\n";
    assert_eq!((text(&output.stdout), text(&output.stderr)), (format!("{window}{HANDED_OVER}").as_str(), ""));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_handover_waits_for_the_first_window_that_is_long_enough() {
    let (host, _runtime, node) = near_host("[[20, 22], [25, 40]]");
    let config = host.config();
    let args = ["handover", "--window=6s", "--timeout", "60s", "--config", &config];
    let output = std::thread::scope(|scope| {
        let running = scope.spawn(|| baton(&args, &[]));
        let since = Instant::now();
        while !node.requests().iter().any(|request| request.contains("maintenance")) {
            assert!(since.elapsed() < Duration::from_secs(30) && !running.is_finished(), "{:?}", node.requests());
            std::thread::sleep(Duration::from_millis(2));
        }
        // The next block to be produced is the first of the window.
        let status = include_str!("data/near-status.json");
        let status = status.replace("\"latest_block_height\":18", "\"latest_block_height\":24");
        node.answer("/status", Answer::Body(status));
        running.join().expect("the end of baton")
    });
    let out = text(&output.stdout);
    let window = "maintenance window: heights 25 to 39 (15 blocks), about 30.0 s; it begins in about 12.0 s\n";
    assert_eq!((out, text(&output.stderr)), (format!("{window}{HANDED_OVER}").as_str(), ""));
}

#[test]
fn a_handover_whose_window_does_not_come_in_time_says_so_and_leaves_the_baton_where_it_is() {
    let advice = "raise --timeout, ask for a shorter --window=, or leave it out";
    for (windows, args, because) in [
        ("[]", ["--window=5s", "--timeout=1s"], "the node knows none of 4 blocks after height 18 in this epoch"),
        (
            "[[20, 22]]",
            ["--window=5s", "--timeout=1s"],
            "the node knows none of 4 blocks after height 18 in this epoch",
        ),
        (
            "[[318, 400]]",
            ["--window=5s", "--timeout=30s"],
            "the next one, heights 318 to 399 (82 blocks), begins in about 10 min",
        ),
    ] {
        let (host, _runtime, _node) = near_host(windows);
        let output = baton(&[&["handover", "--config", &host.config()], &args[..]].concat(), &[]);
        let within = args[1].trim_start_matches("--timeout=");
        let line =
            format!("baton: handover: not begun: no maintenance window of 5s within {within}: {because}; {advice}\n");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), line.as_str()), "{windows}");
        assert!(!text(&output.stdout).contains("->"), "{output:?}");
    }
}

#[test]
fn a_window_is_waited_for_only_where_it_can_be_told_and_used() {
    let (host, _runtime, _node) = near_host("[]");
    let near = fs::read_to_string(host.path("baton.toml")).expect("the configuration");
    fs::write(host.path("baton.toml"), near.replace("\"near\"", "\"generic\"")).expect("the configuration");
    let generic = baton(&["handover", "--window", "--config", &host.config()], &[]);
    assert_refused(&generic, 2, "baton: --window: only a near node tells maintenance windows; leave it out");

    let host = Host::new();
    let mut elsewhere = two_members();
    elsewhere.status.member = "host-b".to_owned();
    let _runtime = serve(elsewhere, &host.path("run/admin.sock"));
    let output = baton(&["handover", "--window", "--config", &host.config()], &[]);
    assert_refused(&output, 1, "baton: handover: host-b does not hold the baton; ask host-a, who does");
}

#[test]
fn what_there_is_to_know_of_a_node_stands_below_its_member() {
    let host = Host::new();
    let mut coordinator = two_members();
    coordinator.status.members[1].node_note = "the chain node refused to reload".to_owned();
    let _runtime = serve(coordinator, &host.path("run/admin.sock"));
    let output = baton(&["status", "--config", &host.config()], &[]);
    let lines: Vec<&str> = text(&output.stdout).lines().rev().take(2).collect();
    assert_eq!(lines, ["  the chain node refused to reload", "  not ready: the chain node is syncing"]);
    let output = baton(&["status", "--json", "--config", &host.config()], &[]);
    assert!(text(&output.stdout).contains("\"node_note\": \"the chain node refused to reload\""), "{output:?}");
}

#[test]
fn members_are_listed_with_vote_and_store_and_warnings_stand_below() {
    let host = Host::new();
    let mut coordinator = two_members();
    coordinator.status.warnings = vec!["two voters: the loss of EITHER stops signing".to_owned()];
    coordinator.status.members[1].vote = "learner".to_owned();
    coordinator.status.members[1].incarnation = 0;
    let _server = serve(coordinator, &host.path("run/admin.sock"));
    let output = baton(&["member", "list", "--config", &host.config()], &[]);
    assert_eq!(
        text(&output.stdout),
        "cluster my-validator, seen by host-a: 1 voter\n\n\
         HOST    VOTE     ROLE       PRIORITY  ADDRESS         UP   STORE\n\
         host-a  voter    validator  100       127.0.0.1:7401  yes  0000000000000abc\n\
         host-b  learner  validator  100       127.0.0.1:7401  yes  -\n\n\
         WARNING: two voters: the loss of EITHER stops signing\n"
    );
    let output = baton(&["member", "list", "--json", "--config", &host.config()], &[]);
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let member = |id: &str, vote: &str, store: Option<&str>| {
        serde_json::json!({
            "id": id, "vote": vote, "role": "validator", "priority": 100, "addr": "127.0.0.1:7401",
            "reachable": true, "store": store,
        })
    };
    let expected = serde_json::json!({
        "cluster": "my-validator", "member": "host-a", "leader": "host-a",
        "members": [member("host-a", "voter", Some("0000000000000abc")), member("host-b", "learner", None)],
        "warnings": ["two voters: the loss of EITHER stops signing"],
    });
    assert_eq!(seen, expected);
    let status = baton(&["status", "--config", &host.config()], &[]);
    assert!(text(&status.stdout).contains("\nWARNING: two voters: the loss of EITHER"), "{status:?}");
    assert!(text(&status.stdout).contains("\n  a learner: it has no vote\n"), "{status:?}");
}

#[test]
fn a_change_of_the_membership_says_what_is_so_now_or_why_not() {
    let host = Host::new();
    let _server = serve(two_members(), &host.path("run/admin.sock"));
    let add = AddMember { id: "host-d".to_owned(), addr: "127.0.0.1:7404".to_owned(), priority: Some(80) };
    let asked = |change, dry_run, force| {
        format!("{:?}\nsecond\n", MemberChangeRequest { change: Some(change), dry_run, force })
    };
    for (args, done) in [
        (&["add", "host-d", "--addr", "127.0.0.1:7404", "--priority", "80"][..], asked(Change::Add(add), false, false)),
        (&["promote", "host-d", "--dry-run"], asked(Change::Promote("host-d".to_owned()), true, false)),
        (&["remove", "host-b", "--force"], asked(Change::Remove("host-b".to_owned()), false, true)),
    ] {
        let output = baton(&[&["member"], args, &["--config", &host.config()]].concat(), &[]);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), done.as_str()), "{output:?}");
    }
    let refused = baton(&["member", "remove", "host-a", "--config", &host.config()], &[]);
    assert_refused(&refused, 1, "baton: member remove: host-a holds the baton");
    let foreseen = baton(&["member", "remove", "host-a", "--dry-run", "--config", &host.config()], &[]);
    assert_eq!(foreseen.status.code(), Some(1));
    assert!(text(&foreseen.stdout).ends_with("second\n"), "what it would lead to is shown all the same: {foreseen:?}");
    assert_eq!(text(&foreseen.stderr), "baton: member remove would be refused: host-a holds the baton\n");
}

/// Those of docs/operating.md are carried out by a test of the localnet.
#[test]
fn every_command_that_the_readme_shows_can_be_given() {
    let commands = include_str!("../README.md").lines().filter_map(|line| line.strip_prefix("$ baton "));
    let shown: Vec<Vec<&str>> = commands.map(|line| line.split_whitespace().collect()).collect();
    assert!(!shown.is_empty());
    for args in shown {
        // Understood, and then nothing is found at that address.
        let found = Host::new();
        let output = baton(&[&args[..], &["--socket", &found.path("none.sock").display().to_string()]].concat(), &[]);
        let line = text(&output.stderr);
        assert!(line.contains("none.sock") && output.status.code() == Some(2), "baton {args:?}: {line}");
    }
}

#[test]
fn why_answers_in_sentences_and_for_programs_with_the_exit_code_of_status() {
    let host = Host::new();
    let mut cluster = two_members();
    let socket = host.path("run/admin.sock");
    let server = serve(cluster.clone(), &socket);
    let output = baton(&["why", "--config", &host.config()], &[]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(said.starts_with("host-a holds the baton under epoch 2 and signs."), "{said}");
    assert!(said.ends_with("- host-b could not take the baton: the chain node is syncing.\n"), "{said}");
    drop(server);

    cluster.status.members[0].phase = "Claiming".to_owned();
    fs::remove_file(&socket).expect("the old socket");
    let _server = serve(cluster, &socket);
    let output = baton(&["why", "--json", "--config", &host.config()], &[]);
    let why: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(1), "nobody signs: {why}");
    assert_eq!((&why["holder"], &why["active"], &why["member"]), (&"host-a".into(), &false.into(), &"host-a".into()));
    assert_eq!(why["failover"]["works"], false, "{why}");
    assert_eq!(why["wrong"].as_array().map(Vec::len), Some(2), "{why}");
}
