//! HTTP for operators, tests and the coordinator: `/status` in neard's shape, `/metrics`, `/evidence`, `/blocks`, of
//! neard's JSON-RPC the method `validators`, and `/pretend` for tests. Just enough HTTP/1.1 with keep-alive; no TLS,
//! no chunked bodies.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::genesis::rfc3339;
use super::gossip::Shared;
use super::node::{Node, Now};
use super::pretend::Pretend;

/// Bound of the request line with all headers, and of a body.
const REQUEST_MAX: u64 = 16 << 10;

/// An idle keep-alive connection is closed after this.
const IDLE_MAX: Duration = Duration::from_secs(60);

const JSON: &str = "application/json";

struct Request {
    method: String,
    path: String,
    keep_alive: bool,
    body: Vec<u8>,
}

pub async fn serve(listener: TcpListener, node: Shared) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = node.clone();
                // An error means that the client went away or spoke no HTTP: there is nobody left to tell.
                spawn_local(async move { converse(stream, &node).await });
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn converse(stream: TcpStream, node: &Shared) -> std::io::Result<()> {
    let rpc_addr = stream.local_addr()?;
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(request) = timeout(IDLE_MAX, read_request(&mut stream)).await?? {
        if node.borrow().pretend.hangs && request.path == "/status" {
            return std::future::pending().await;
        }
        let pretend = request.path.strip_prefix("/pretend?").map(|words| play(&mut node.borrow_mut(), words));
        let (code, kind, body) = pretend.unwrap_or_else(|| answer(&node.borrow(), &request, rpc_addr));
        let connection = if request.keep_alive { "keep-alive" } else { "close" };
        let length = body.len();
        let response = format!(
            "HTTP/1.1 {code}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: {connection}\r\n\r\n{body}"
        );
        stream.get_mut().write_all(response.as_bytes()).await?;
        if !request.keep_alive {
            break;
        }
    }
    Ok(())
}

/// `None` when the client closed instead of asking again.
async fn read_request<R: AsyncRead + Unpin>(stream: &mut BufReader<R>) -> std::io::Result<Option<Request>> {
    let mut limited = stream.take(REQUEST_MAX);
    let mut first = String::new();
    if limited.read_line(&mut first).await? == 0 {
        return Ok(None);
    }
    let bad = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_string());
    let [method, path, version] = first.split_ascii_whitespace().collect::<Vec<_>>()[..] else {
        return Err(bad("no request line"));
    };
    let (mut keep_alive, mut body_length) = (version != "HTTP/1.0", 0);
    loop {
        let mut line = String::new();
        if limited.read_line(&mut line).await? == 0 {
            return Err(bad("headers without an end"));
        }
        if line.trim_end().is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else { return Err(bad("header without a colon")) };
        match name.trim().to_ascii_lowercase().as_str() {
            "connection" => keep_alive = value.trim().eq_ignore_ascii_case("keep-alive"),
            "content-length" => body_length = value.trim().parse().map_err(|_| bad("content-length"))?,
            _ => {}
        }
    }
    if body_length > REQUEST_MAX {
        return Err(bad("body too long"));
    }
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut body = Vec::new();
    stream.take(body_length).read_to_end(&mut body).await?;
    Ok(Some(Request { method, path, keep_alive, body }))
}

fn play(node: &mut Node, words: &str) -> (&'static str, &'static str, String) {
    match Pretend::parse(words, node.chain.head().height) {
        Ok(pretend) => {
            node.pretend = pretend;
            node.signer.dies_signing = pretend.dies_signing;
            node.note(format_args!("from now on: {pretend:?}"));
            ("200 OK", JSON, json!({ "pretend": words }).to_string())
        }
        Err(error) => ("400 Bad Request", JSON, json!({ "error": error }).to_string()),
    }
}

fn answer(node: &Node, request: &Request, rpc_addr: SocketAddr) -> (&'static str, &'static str, String) {
    if request.method == "POST" && request.path == "/" {
        return ("200 OK", JSON, json_rpc(node, &request.body).to_string());
    }
    if request.method != "GET" {
        return ("405 Method Not Allowed", JSON, json!({ "error": "only GET is answered here" }).to_string());
    }
    let now = Now::read();
    match request.path.split('?').next().unwrap_or_default() {
        "/status" => ("200 OK", JSON, status(node, rpc_addr, now).to_string()),
        "/metrics" => ("200 OK", "text/plain; version=0.0.4", metrics(node, now)),
        "/evidence" => {
            let evidence = node.chain.evidence();
            ("200 OK", JSON, json!({ "count": evidence.len(), "evidence": evidence }).to_string())
        }
        "/blocks" => ("200 OK", JSON, blocks(node).to_string()),
        _ => ("404 Not Found", JSON, json!({ "error": "try /status /metrics /evidence /blocks" }).to_string()),
    }
}

/// The answer of neard's `/status`, field by field; what this chain does not have is there with a fixed value.
/// `num_active_peers` is this chain's own.
fn status(node: &Node, rpc_addr: SocketAddr, now: Now) -> Value {
    let (genesis, head, earliest) = (&node.genesis, node.chain.head(), node.chain.earliest());
    let key = node.signer.key();
    let pretend = node.pretend;
    let height = pretend.head.or(node.halt_height).unwrap_or(head.height);
    json!({
        "version": {
            "version": node.config.version,
            "build": env!("CARGO_PKG_VERSION"),
            "commit": "unknown",
            "rustc_version": env!("CARGO_PKG_RUST_VERSION"),
        },
        "chain_id": genesis.chain_id,
        "protocol_version": 1,
        "latest_protocol_version": 1,
        "rpc_addr": rpc_addr.to_string(),
        "validators": genesis.validators.iter().map(|v| json!({ "account_id": v.account_id })).collect::<Value>(),
        "sync_info": {
            "latest_block_hash": head.hash,
            "latest_block_height": height,
            "latest_state_root": head.state_root,
            "latest_block_time": rfc3339(genesis.time_of(height)),
            "syncing": pretend.syncing.unwrap_or_else(|| node.syncing(now)),
            "earliest_block_hash": earliest.hash,
            "earliest_block_height": earliest.height,
            "earliest_block_time": rfc3339(genesis.time_of(earliest.height)),
            "epoch_id": "11111111111111111111111111111111",
            "epoch_start_height": 1,
        },
        "validator_account_id": key.map(|k| &k.account_id),
        "validator_public_key": key.map(|k| k.public_key),
        "num_active_peers": pretend.peers.unwrap_or_else(|| node.peers() as u64),
        "node_public_key": node.config.node_key,
        "node_key": node.config.node_key,
        "uptime_sec": now.boot.since(node.started).as_secs(),
        "genesis_hash": genesis.hash,
    })
}

fn json_rpc(node: &Node, body: &[u8]) -> Value {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let answer = |name: &str, value: Value| json!({ "jsonrpc": "2.0", "id": request["id"], name: value });
    if request["method"] != "validators" {
        let cause = json!({ "name": "METHOD_NOT_FOUND" });
        return answer("error", json!({ "name": "REQUEST_VALIDATION_ERROR", "cause": cause, "code": -32601 }));
    }
    let validator = |account: &String| {
        let (blocks, approvals) = node.chain.seen_of(account);
        json!({ "account_id": account, "num_produced_blocks": blocks, "num_produced_chunks": 0,
            "num_produced_endorsements": approvals })
    };
    let validators: Value = node.genesis.validators.iter().map(|v| validator(&v.account_id)).collect();
    answer("result", json!({ "epoch_start_height": 1, "current_validators": validators }))
}

/// This node's chain as far as it is kept, lowest first: for comparing nodes with each other.
fn blocks(node: &Node) -> Value {
    let one = |block: std::rc::Rc<super::message::Block>| {
        json!({
            "height": block.height,
            "hash": block.hash,
            "parent": block.parent,
            "proposer": block.proposer,
            "approvals": block.approvals.iter().map(|a| &a.account_id).collect::<Vec<_>>(),
        })
    };
    node.chain.from_height(0).into_iter().map(one).collect()
}

fn metrics(node: &Node, now: Now) -> String {
    let counters = node.counters;
    let families: [(&str, &str, &str, u64); 9] = [
        ("simchain_height", "gauge", "Height of the head", node.chain.head().height),
        ("simchain_syncing", "gauge", "1 while the node does not follow the head", node.syncing(now).into()),
        ("simchain_peers", "gauge", "Nodes that are connected", node.peers() as u64),
        ("simchain_evidence", "gauge", "Keys and heights with two signatures", node.chain.evidence().len() as u64),
        ("simchain_blocks_produced_total", "counter", "Blocks signed here", counters.blocks_produced),
        ("simchain_approvals_total", "counter", "Approvals signed here", counters.approvals_signed),
        ("simchain_sign_failures_total", "counter", "Signatures given up for an I/O error", counters.sign_failures),
        ("simchain_bad_messages_total", "counter", "Connections closed for what came", counters.bad_messages),
        ("near_config_correct", "gauge", "0 after a reload that changed nothing", node.key_file_good.into()),
    ];
    let family = |(name, kind, help, value)| format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    families.map(family).concat()
}
