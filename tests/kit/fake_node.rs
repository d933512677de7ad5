//! A chain node's HTTP side, as the tests need it: each path, and each JSON-RPC method as `PATH#METHOD`,
//! answers one way until told otherwise.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

#[derive(Clone)]
pub enum Answer {
    Body(String),
    Status(u16, String),
    /// To a JSON-RPC batch: an object of `{"result": …}` or `{"error": …}` by method.
    Rpc(Value),
    /// The same, to the first batch only: the next is never answered.
    RpcThenHang(Value),
    /// The answer, after which the connection is closed without a word.
    BodyThenClose(String),
    /// Never.
    Hang,
    /// The head and a part of the body, then never more.
    HangMidway,
    /// More bytes than any status has.
    Huge,
    CloseAtOnce,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<BTreeMap<String, Answer>>,
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
}

pub struct FakeNode {
    pub addr: String,
    shared: Arc<Shared>,
    /// The whole server: its connections end with it.
    server: JoinHandle<()>,
}

impl FakeNode {
    pub async fn start(path: &str, answer: Answer) -> FakeNode {
        FakeNode::start_at("127.0.0.1:0", path, answer).await
    }

    pub async fn start_at(addr: &str, path: &str, answer: Answer) -> FakeNode {
        let listener = TcpListener::bind(addr).await.expect("bind");
        let addr = listener.local_addr().expect("address").to_string();
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(stream, accepting.clone()));
            }
        });
        let node = FakeNode { addr, shared, server };
        node.answer(path, answer);
        node
    }

    /// Returns when nobody listens any more and every connection is closed.
    pub async fn stop(&mut self) {
        self.server.abort();
        let ended = (&mut self.server).await;
        assert!(ended.is_err_and(|error| error.is_cancelled()), "the fake node ended before it was stopped");
    }

    pub fn answer(&self, path: &str, answer: Answer) {
        self.shared.answers.lock().expect("answers").insert(path.to_owned(), answer);
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Head and body of every request so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests_from(0)
    }

    /// The same without the first `seen` of them.
    pub fn requests_from(&self, seen: usize) -> Vec<String> {
        self.shared.requests.lock().expect("requests").split_at(seen).1.to_vec()
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some((path, request)) = read_request(&mut stream).await {
        let method = request.split("\"method\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let by_method = method.map(|method| format!("{path}#{method}")).unwrap_or_default();
        shared.requests.lock().expect("requests").push(request.clone());
        let answers = shared.answers.lock().expect("answers").clone();
        let answer = answers.get(&by_method).or(answers.get(&path)).cloned();
        let answer = answer.unwrap_or_else(|| Answer::Status(404, format!("no {path}")));
        let sent = match answer {
            Answer::Body(body) => send(&mut stream, 200, &body).await,
            Answer::Rpc(methods) => send(&mut stream, 200, &batch(&request, &methods)).await,
            Answer::RpcThenHang(methods) => {
                shared.answers.lock().expect("answers").insert(path, Answer::Hang);
                send(&mut stream, 200, &batch(&request, &methods)).await
            }
            Answer::Status(status, body) => send(&mut stream, status, &body).await,
            Answer::BodyThenClose(body) => {
                // Nothing is left to do when the client is gone already.
                let _ = send(&mut stream, 200, &body).await;
                return;
            }
            Answer::Hang => std::future::pending().await,
            Answer::HangMidway => {
                let part = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"half\":";
                let _ = stream.write_all(part).await;
                std::future::pending().await
            }
            Answer::Huge => send(&mut stream, 200, &format!("\"{}\"", "x".repeat(3 << 20))).await,
            Answer::CloseAtOnce => return,
        };
        if sent.is_err() {
            return;
        }
    }
}

fn batch(request: &str, methods: &Value) -> String {
    let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let Ok(Value::Array(calls)) = serde_json::from_str(body) else { return format!("{{\"error\": {body:?}}}") };
    let answers = calls.into_iter().map(|call| {
        let no_method = json!({"error": {"code": -32601, "message": "Method not found"}});
        let mut answer = methods.get(call["method"].as_str().unwrap_or_default()).unwrap_or(&no_method).clone();
        (answer["jsonrpc"], answer["id"]) = ("2.0".into(), call["id"].clone());
        answer
    });
    Value::Array(answers.collect()).to_string()
}

async fn send(stream: &mut TcpStream, status: u16, body: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status} Text\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&bytes).to_lowercase();
            let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            if bytes.len() >= head + 4 + length.unwrap_or(0) {
                let request = String::from_utf8_lossy(&bytes).into_owned();
                let path = request.split(' ').nth(1)?.to_owned();
                return Some((path, request));
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
