//! generic: pointers into all sorts of answers, JSON-RPC, commands and bare connections.

use baton::config::{KeyNames, LastSigned, RpcCall, TargetHeight};
use serde_json::{Value, json};

use super::*;

fn generic(home: &Path, target: ProbeTarget) -> Driver {
    driver(&chain(DriverKind::Generic, home, target), home)
}

fn sh(script: &str) -> Vec<String> {
    vec!["sh".into(), "-c".into(), script.into()]
}

#[tokio::test]
async fn each_kind_of_value_is_read_and_each_other_kind_refused() {
    let node = FakeNode::start("/s", Answer::Hang).await;
    let pointers = Pointers {
        syncing: at("/syncing"),
        height: at("/height"),
        head_time: at("/time"),
        peers: at("/peers"),
        key: at("/key"),
        version: at("/version"),
        ..Pointers::default()
    };
    let generic = generic(Path::new("/"), http(node.url("/s"), pointers));
    let good = json!({"syncing": false, "height": 7, "time": 5, "peers": 3, "key": "k", "version": "v1"});
    let ask = async |field: &str, value: &Value| {
        let mut answer = good.clone();
        answer[field] = value.clone();
        node.answer("/s", Answer::Body(answer.to_string()));
        generic.probe().await
    };
    for (value, synced) in [(json!(false), true), (json!(0), true), (json!(true), false), (json!(1), false)] {
        assert_eq!(ask("syncing", &value).await.expect("health").synced, synced, "{value}");
    }
    assert!(!ask("syncing", &json!({"currentBlock": "0x1"})).await.expect("health").synced);
    for (value, height) in [(json!(7), 7), (json!("7"), 7), (json!("0x1f"), 31)] {
        assert_eq!(ask("height", &value).await.expect("health").height, height, "{value}");
    }
    for value in [json!(5), json!("5"), json!("0x5"), json!("1970-01-01T00:00:05Z")] {
        assert_eq!(ask("time", &value).await.expect("health").head_time, Some(seconds(5)), "{value}");
    }
    for (value, peers) in [(json!(3), 3), (json!("3"), 3), (json!(["a", "b"]), 2), (json!([]), 0)] {
        assert_eq!(ask("peers", &value).await.expect("health").peers, Some(peers), "{value}");
    }
    for value in [json!(null), json!(false), json!("")] {
        assert_eq!(ask("key", &value).await.expect("health").key, KeyState::Absent, "{value}");
    }
    for value in [json!(true), json!("k"), json!({"address": 1})] {
        assert_eq!(ask("key", &value).await.expect("health").key, KeyState::Loaded, "{value}");
    }
    let wrong = [("syncing", json!(null)), ("syncing", json!("no")), ("syncing", json!(2)), ("height", json!(-1))];
    let wrong = wrong.into_iter().chain([("height", json!(null)), ("time", json!("x")), ("peers", json!(null))]);
    for (field, value) in wrong {
        let error = ask(field, &value).await.expect_err(field).to_string();
        assert!(error.contains(&format!("`/{field}`")) && error.contains(&value.to_string()), "{error}");
    }
    node.answer("/s", Answer::Body(json!({"error": "warming up"}).to_string()));
    let error = generic.probe().await.expect_err("an error object").to_string();
    assert!(error.contains("missing") && error.contains("warming up"), "{error}");
    assert!(generic.proves_key_by_probe());
}

#[tokio::test]
async fn a_key_field_that_is_not_there_proves_nothing() {
    let node = FakeNode::start("/s", Answer::Body("{\"error\": \"warming up\"}".into())).await;
    let told = generic(Path::new("/"), http(node.url("/s"), Pointers { key: at("/key"), ..Pointers::default() }));
    assert_eq!(told.probe().await.expect("health").key, KeyState::Untold);
    let untold = generic(Path::new("/"), http(node.url("/s"), Pointers::default()));
    assert_eq!(untold.probe().await.expect("health").key, KeyState::Untold);
    assert!(!untold.proves_key_by_probe());
}

#[tokio::test]
async fn probes_share_one_connection_and_outlive_it() {
    let node = FakeNode::start("/s", Answer::Body("{}".into())).await;
    let generic = generic(Path::new("/"), http(node.url("/s"), Pointers::default()));
    let mut best = TIMEOUT;
    for _ in 0..100 {
        best = best.min(generic.probe().await.expect("health").latency);
    }
    assert_eq!(node.connections(), 1, "100 probes");
    assert!(best < Duration::from_millis(1), "the best of 100 probes took {best:?}");
    node.answer("/s", Answer::BodyThenClose("{}".into()));
    for round in 0..20 {
        generic.probe().await.unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    assert!(node.connections() > 1);
}

#[tokio::test]
async fn a_node_that_is_not_there_is_unreachable() {
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.local_addr().expect("address").to_string()
    };
    for target in [
        http(format!("http://{nobody}/s"), Pointers::default()),
        ProbeTarget::Tcp { addr: nobody.clone() },
        ProbeTarget::Exec { command: vec!["/no/such/program".into()] },
    ] {
        let error = generic(Path::new("/"), target).probe().await.expect_err("nobody");
        assert!(matches!(error, ProbeError::Unreachable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn an_accepted_connection_is_all_that_tcp_asks_for() {
    let node = FakeNode::start("/", Answer::Hang).await;
    let health = generic(Path::new("/"), ProbeTarget::Tcp { addr: node.addr.clone() }).probe().await.expect("health");
    assert!(health.synced && health.latency < TIMEOUT, "{health:?}");
}

/// What is asked of a geth-like node.
pub fn geth_like(url: String) -> ProbeTarget {
    let calls = [("eth_syncing", json!([])), ("eth_getBlockByNumber", json!(["latest", false]))];
    let calls = calls.map(|(method, params)| RpcCall { method: method.into(), params }).to_vec();
    let pointers = Pointers {
        syncing: at("/eth_syncing"),
        height: at("/eth_getBlockByNumber/number"),
        head_time: at("/eth_getBlockByNumber/timestamp"),
        ..Pointers::default()
    };
    ProbeTarget::JsonRpc { url, calls, pointers }
}

#[tokio::test]
async fn a_geth_like_node_is_asked_in_one_batch() {
    // Servers may answer a batch in any order.
    let block = json!({"jsonrpc": "2.0", "id": 1, "result": {"number": "0x10", "timestamp": "0x64"}});
    let synced = json!([block, {"jsonrpc": "2.0", "id": 0, "result": false}]);
    let node = FakeNode::start("/rpc", Answer::Body(synced.to_string())).await;
    let url = format!("http://user:secret@{}/rpc", node.addr);
    let geth = generic(Path::new("/"), geth_like(url));
    let found = geth.probe().await.expect("health");
    assert_eq!((found.synced, found.height, found.head_time), (true, 16, Some(seconds(100))));
    let request = node.requests().pop().expect("a request");
    assert!(request.starts_with("POST /rpc ") && request.contains("Basic dXNlcjpzZWNyZXQ="), "{request}");
    assert!(request.contains("[\"latest\",false]"), "{request}");

    let failed = json!([block, {"jsonrpc": "2.0", "id": 0, "error": {"code": -32601, "message": "no such method"}}]);
    for (answer, expected) in [
        (failed, "no such method"),
        (json!([block]), "`eth_syncing` was not answered"),
        (json!([block, {"id": 0}]), "has no result"),
        (json!({"error": "no batches here"}), "no batches here"),
    ] {
        node.answer("/rpc", Answer::Body(answer.to_string()));
        let error = geth.probe().await.expect_err(expected).to_string();
        assert!(error.contains(expected) && !error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_command_tells_by_its_exit_code_and_may_say_more() {
    let home = tempfile::tempdir().expect("home");
    let ask = async |script: &str| generic(home.path(), ProbeTarget::Exec { command: sh(script) }).probe().await;
    let plain = ask("echo fine").await.expect("health");
    assert_eq!((plain.synced, plain.height, plain.head_time), (true, 0, None));
    assert!(!ask("exit 3").await.expect("health").synced);
    let told = ask(r#"echo '{"height": "12", "head_time": 9, "key": null, "synced": true}'; exit 1"#).await;
    let told = told.expect("health");
    assert_eq!((told.synced, told.height, told.head_time), (false, 12, Some(seconds(9))));
    assert_eq!(told.key, KeyState::Absent);
    assert!(ask("test \"$BATON_TEST\" = yes && test \"$PWD\" = \"$(pwd)\"").await.expect("health").synced);
    for (script, expected) in [(r#"echo '{"height": "high"}'"#, "high"), ("kill -9 $$", "signal")] {
        let error = ask(script).await.expect_err(script).to_string();
        assert!(error.contains(expected), "{error}");
    }
    // What a finished command leaves running does not hold up the answer.
    let asked_at = Instant::now();
    let lingering = ask("sleep 2 & exit 0").await.expect("health");
    assert!(lingering.synced && asked_at.elapsed() < Duration::from_secs(2), "{:?}", asked_at.elapsed());
}

/// Whether any process still has `marker` in its command line.
fn someone_runs(marker: &str) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { panic!("no /proc") };
    processes.flatten().any(|process| {
        let command_line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command_line).contains(marker)
    })
}

async fn until_nobody_runs(marker: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while someone_runs(marker) {
        assert!(Instant::now() < deadline, "something with `{marker}` in its command line still runs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_command_that_overruns_is_killed_with_its_children() {
    let marker = format!("61.{}", std::process::id());
    let script = sh(&format!("sleep {marker} & sleep {marker}"));
    let driver = generic(Path::new("/"), ProbeTarget::Exec { command: script.clone() });
    let error = driver.probe().await.expect_err("too slow");
    assert!(matches!(error, ProbeError::Timeout { .. }), "{error:?}");
    until_nobody_runs(&marker).await;

    let error = driver.run_exec(&script, TIMEOUT).await.expect_err("too slow").to_string();
    assert!(error.contains("within 300ms") && error.contains("sleep"), "{error}");
    until_nobody_runs(&marker).await;

    let dropped = tokio::time::timeout(TIMEOUT, driver.run_exec(&script, Duration::from_secs(60))).await;
    assert!(dropped.is_err(), "{dropped:?}");
    until_nobody_runs(&marker).await;
}

#[tokio::test]
async fn an_activation_command_must_end_with_zero() {
    let driver = generic(Path::new("/"), ProbeTarget::Tcp { addr: "127.0.0.1:1".into() });
    assert_eq!(driver.run_exec(&sh("exit 0"), SLACK).await, Ok(()));
    let error = driver.run_exec(&sh("echo 'no such identity' >&2; exit 4"), SLACK).await.expect_err("4").to_string();
    assert!(error.contains("no such identity") && error.contains('4'), "{error}");
    assert!(driver.run_exec(&[], SLACK).await.is_err());
    let flood = driver.run_exec(&sh("yes"), SLACK).await.expect_err("a flood").to_string();
    assert!(!flood.contains("within"), "a command that floods its output ends by itself: {flood}");
}

#[test]
fn replica_is_refused_where_no_mark_would_ever_be_told() {
    let home = tempfile::tempdir().expect("home");
    let mut chain = chain(DriverKind::Generic, home.path(), ProbeTarget::Tcp { addr: "127.0.0.1:1".into() });
    let keys = || baton::host::chain::KeyReader::new("baton-guard");
    assert!(Driver::new(&chain, home.path(), keys()).is_ok());
    chain.on_halt = OnHalt::Replica;
    let error = Driver::new(&chain, home.path(), keys()).err().expect("no mark").to_string();
    let expected = ["chain.on_halt", "\"replica\"", "\"generic\"", "[chain.last_signed]"];
    assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    chain.last_signed = Some(LastSigned { file: "signed".into(), height: "/height".into(), round: None, step: None });
    assert!(Driver::new(&chain, home.path(), keys()).is_ok());
    let mut near = super::near::near_chain(home.path(), "http://127.0.0.1:1/status".into());
    near.on_halt = OnHalt::Replica;
    assert!(Driver::new(&near, home.path(), keys()).is_ok(), "it tells how far it has approved");
}

#[tokio::test]
async fn the_last_signed_mark_is_read_by_pointers() {
    let home = tempfile::tempdir().expect("home");
    let mut chain = chain(DriverKind::Generic, home.path(), ProbeTarget::Tcp { addr: "127.0.0.1:1".into() });
    assert_eq!(driver(&chain, home.path()).last_signed().await, Ok(None));
    chain.last_signed = Some(LastSigned {
        file: "signed.json".into(),
        height: "/last/height".into(),
        round: at("/last/round"),
        step: None,
    });
    let driver = driver(&chain, home.path());
    assert_eq!(driver.last_signed().await, Ok(None), "before the node has signed anything");
    let file = home.path().join("signed.json");
    std::fs::write(&file, r#"{"last": {"height": "41", "round": 2}}"#).expect("file");
    assert_eq!(driver.last_signed().await, Ok(Some(SignMark::at_step(41, 2, 0))));
    for bad in ["", "{}", r#"{"last": {"height": 1}}"#, r#"{"last": {"height": -1, "round": 0}}"#] {
        std::fs::write(&file, bad).expect("file");
        let error = driver.last_signed().await.expect_err(bad).to_string();
        assert!(error.contains("signed.json"), "{error}");
    }
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let url = |url: &str| http(url.into(), Pointers::default());
    let table = [
        (url("https://node/status"), "https is not supported"),
        (url("node:26657/status"), "http://"),
        (url("http://"), "chain.probe.url"),
        (url("http://us er:hidden@node/"), "chain.probe.url"),
        (
            http("http://node/".into(), Pointers { height: at("result.height"), ..Pointers::default() }),
            "/result/height",
        ),
        (ProbeTarget::Exec { command: Vec::new() }, "chain.probe.exec"),
        (ProbeTarget::Tcp { addr: "localhost".into() }, "host:port"),
        (
            ProbeTarget::JsonRpc { url: "http://n/".into(), calls: Vec::new(), pointers: Pointers::default() },
            "chain.probe.calls",
        ),
    ];
    for (target, expected) in table {
        let error = refusal(&chain(DriverKind::Generic, Path::new("/"), target));
        assert!(error.contains(expected) && !error.contains("hidden"), "{error}");
    }
    let good = chain(DriverKind::Generic, Path::new("/"), url("http://[::1]:8545/"));
    driver(&good, Path::new("/"));
    assert!(refusal(&Chain { command: Vec::new(), ..good.clone() }).contains("chain.command"));
    assert!(refusal(&Chain { activation: Activation::Signal(99), ..good.clone() }).contains("99"));
    let half = Activation::Exec { activate: sh("true"), deactivate: Vec::new() };
    assert!(refusal(&Chain { activation: half, ..good }).contains("deactivate"));
}

#[tokio::test]
async fn a_command_that_is_no_executable_file_is_found_before_the_start() {
    let home = tempfile::tempdir().expect("home");
    let good = chain(DriverKind::Generic, home.path(), ProbeTarget::Exec { command: sh("exit 0") });
    assert_eq!(driver(&good, home.path()).check().await, Ok(Vec::new()));
    for command in ["./no-such-program", "/etc/passwd"] {
        let chain = Chain { command: vec![command.into()], ..good.clone() };
        let error = driver(&chain, home.path()).check().await.expect_err(command).to_string();
        assert!(error.contains(command), "{error}");
    }
}

#[tokio::test]
async fn a_probe_without_head_times_is_warned_of_unless_a_failover_needs_none() {
    let url = || "http://127.0.0.1:1/".to_owned();
    let timed = Pointers { head_time: at("/time"), ..Pointers::default() };
    for (target, on_halt, warned) in [
        (http(url(), Pointers::default()), OnHalt::Wait, true),
        (http(url(), Pointers::default()), OnHalt::Replica, false),
        (http(url(), timed), OnHalt::Wait, false),
        (ProbeTarget::Tcp { addr: "127.0.0.1:1".into() }, OnHalt::Wait, true),
        (ProbeTarget::Exec { command: sh("exit 0") }, OnHalt::Wait, false),
    ] {
        // Without it `replica` is refused.
        let signed = LastSigned { file: "signed".into(), height: "/height".into(), round: None, step: None };
        let last_signed = Some(signed).filter(|_| on_halt == OnHalt::Replica);
        let chain = Chain { on_halt, last_signed, ..chain(DriverKind::Generic, Path::new("/"), target) };
        let warnings = driver(&chain, Path::new("/")).check().await.expect("checked");
        let found = warnings.iter().any(|warning| warning.contains("head_time") && warning.contains("on_halt"));
        assert_eq!(found, warned, "{:?} {on_halt:?}: {warnings:?}", chain.probe.target);
    }
}

#[tokio::test]
async fn a_key_that_is_named_is_loaded_or_absent_by_its_name_alone() {
    let node = FakeNode::start("/s", Answer::Hang).await;
    let names = KeyNames { validating: "shared".into(), standby: "own".into() };
    let pointers = Pointers { key: at("/key"), key_names: Some(names), ..Pointers::default() };
    let generic = generic(Path::new("/"), http(node.url("/s"), pointers));
    for (answer, expected) in [
        (json!({"key": "shared"}), KeyState::Loaded),
        (json!({"key": "own"}), KeyState::Absent),
        (json!({"key": "another"}), KeyState::Untold),
        (json!({"key": ""}), KeyState::Untold),
        (json!({"key": null}), KeyState::Untold),
        (json!({"key": ["shared"]}), KeyState::Untold),
        (json!({}), KeyState::Untold),
    ] {
        node.answer("/s", Answer::Body(answer.to_string()));
        assert_eq!(generic.probe().await.expect("health").key, expected, "{answer}");
    }
    assert!(generic.proves_key_by_probe());
}

#[tokio::test]
async fn a_node_too_far_below_its_target_height_is_not_synced() {
    let node = FakeNode::start("/s", Answer::Hang).await;
    let target = Some(TargetHeight { pointer: "/target".into(), behind_max: 2 });
    let pointers = Pointers { height: at("/height"), target, ..Pointers::default() };
    let generic = generic(Path::new("/"), http(node.url("/s"), pointers));
    for (height, target, synced) in [(8, 10, true), (7, 10, false), (12, 10, true), (u64::MAX, u64::MAX, true)] {
        node.answer("/s", Answer::Body(json!({"height": height, "target": target}).to_string()));
        assert_eq!(generic.probe().await.expect("health").synced, synced, "{height} of {target}");
    }
    node.answer("/s", Answer::Body(json!({"height": 1}).to_string()));
    let error = generic.probe().await.expect_err("no target").to_string();
    assert!(error.contains("`/target` is missing"), "{error}");
}

#[tokio::test]
async fn two_batches_share_the_time_of_one_probe() {
    let node = FakeNode::start("/", Answer::Hang).await;
    let call = |method: &str, params| RpcCall { method: method.into(), params };
    let calls = vec![call("time", json!([{"of": ["$/head/number"]}])), call("head", json!(["$", "$plain"]))];
    let pointers = Pointers { head_time: at("/time"), ..Pointers::default() };
    let generic = generic(Path::new("/"), ProbeTarget::JsonRpc { url: node.url("/"), calls, pointers });
    let good = json!({"head": {"result": {"number": "0x10"}}, "time": {"result": 7}});
    node.answer("/", Answer::Rpc(good));
    assert_eq!(generic.probe().await.expect("health").head_time, Some(seconds(7)));
    let requests = node.requests();
    assert!(requests[0].contains(r#""params":["$","$plain"]"#), "only $/ is a reference: {}", requests[0]);
    assert!(requests[1].contains(r#""params":[{"of":["0x10"]}]"#), "{}", requests[1]);

    node.answer("/", Answer::Rpc(json!({"head": {"result": null}})));
    let error = generic.probe().await.expect_err("nothing to refer to").to_string();
    assert!(error.contains("`time` needs") && error.contains("$/head/number"), "{error}");
    node.answer("/", Answer::RpcThenHang(json!({"head": {"result": {"number": 1}}})));
    let asked_at = Instant::now();
    let error = generic.probe().await.expect_err("no second answer");
    assert!(matches!(error, ProbeError::Timeout { .. }) && asked_at.elapsed() < TIMEOUT + SLACK, "{error:?}");
}
