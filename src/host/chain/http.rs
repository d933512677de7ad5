//! One kept-alive HTTP/1.1 connection to the chain node's status address, for probes alone. Every
//! request is bounded in time and every answer in size; a broken connection is replaced at the next
//! request. No TLS, no redirects, no proxies: a chain node is probed on its own host.

use std::time::Duration;

use base64::Engine as _;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::{DriverError, ProbeError};

/// Larger answers are refused unread, unless [`HttpClient::reading_up_to`] says otherwise.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

pub struct HttpClient {
    host: String,
    port: u16,
    /// As it stands in the URL, without user and password.
    authority: String,
    path: String,
    authorization: Option<String>,
    timeout: Duration,
    answer_bytes_max: usize,
    connection: Mutex<Option<Connection>>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HttpClient {
    /// `setting` is the name of the setting that `url` comes from, for errors.
    pub fn new(setting: &str, url: &str, timeout: Duration) -> Result<HttpClient, DriverError> {
        let bad = |reason: String| DriverError::setting(setting, reason);
        let uri: Uri = url.parse().map_err(|error| {
            bad(format!("`{}` is no URL ({error}); write http://HOST:PORT/PATH", without_user(url)))
        })?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(bad("https is not supported; probe the node's own http:// address on this host".into()));
            }
            Some(_) | None => {
                return Err(bad(format!(
                    "`{}` must start with http://; write http://HOST:PORT/PATH",
                    without_user(url)
                )));
            }
        }
        let full_authority = uri.authority().map(|a| a.as_str()).unwrap_or_default();
        let (user, authority) = match full_authority.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, full_authority),
        };
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(bad(format!("`{}` names no host", without_user(url))));
        }
        Ok(HttpClient {
            host,
            port: uri.port_u16().unwrap_or(80),
            authority: authority.to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            authorization: user.map(|user| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user))),
            timeout,
            answer_bytes_max: ANSWER_BYTES_MAX,
            connection: Mutex::new(None),
        })
    }

    /// Takes answers of up to `bytes`.
    pub fn reading_up_to(self, bytes: usize) -> HttpClient {
        HttpClient { answer_bytes_max: bytes, ..self }
    }

    /// The path and query of the URL.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The URL without user and password.
    pub fn target(&self) -> String {
        self.target_of(&self.path)
    }

    pub async fn get(&self) -> Result<Value, ProbeError> {
        self.request(Method::GET, &self.path, Bytes::new(), self.timeout).await
    }

    /// Another path of the same server, within `timeout` in place of the client's own.
    pub async fn get_path(&self, path: &str, timeout: Duration) -> Result<Value, ProbeError> {
        self.request(Method::GET, path, Bytes::new(), timeout).await
    }

    /// Another path of the same server, as text.
    pub async fn get_text(&self, path: &str) -> Result<String, ProbeError> {
        let body = self.request_bytes(Method::GET, path, Bytes::new(), self.timeout).await?;
        String::from_utf8(body.into()).map_err(|error| ProbeError::BadAnswer {
            target: self.target_of(path),
            reason: format!("the answer is not text: {error}"),
        })
    }

    /// Within `timeout` in place of the client's own.
    pub async fn post(&self, body: &Value, timeout: Duration) -> Result<Value, ProbeError> {
        self.request(Method::POST, &self.path, Bytes::from(body.to_string()), timeout).await
    }

    /// To another path of the same server.
    pub async fn post_path(&self, path: &str, body: &Value) -> Result<Value, ProbeError> {
        self.request(Method::POST, path, Bytes::from(body.to_string()), self.timeout).await
    }

    pub fn target_of(&self, path: &str) -> String {
        format!("http://{}{path}", self.authority)
    }

    async fn request(&self, method: Method, path: &str, body: Bytes, timeout: Duration) -> Result<Value, ProbeError> {
        let body = self.request_bytes(method, path, body, timeout).await?;
        serde_json::from_slice(&body).map_err(|error| ProbeError::BadAnswer {
            target: self.target_of(path),
            reason: format!("the answer is not JSON ({error}): {}", excerpt(&body)),
        })
    }

    async fn request_bytes(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, ProbeError> {
        let target = self.target_of(path);
        let answer = tokio::time::timeout(timeout, self.ask(&target, method, path, body)).await;
        answer.map_err(|_| ProbeError::Timeout { target, timeout })?
    }

    /// A connection that a failure or a timeout interrupts is not put back.
    async fn ask(&self, target: &str, method: Method, path: &str, body: Bytes) -> Result<Bytes, ProbeError> {
        let mut kept = self.connection.lock().await;
        if let Some(mut connection) = kept.take()
            && connection.sender.ready().await.is_ok()
            && let Ok(response) = connection.sender.send_request(self.build(target, &method, path, &body)?).await
        {
            // The server may have closed it since; only then is a second try on a new connection due.
            let answer = self.read(target, response).await?;
            *kept = Some(connection);
            return Ok(answer);
        }
        let unreachable = |reason: String| ProbeError::Unreachable { target: target.to_owned(), reason };
        let mut connection = self.connect().await.map_err(|error| unreachable(format!("connect: {error}")))?;
        let request = self.build(target, &method, path, &body)?;
        let response =
            connection.sender.send_request(request).await.map_err(|error| unreachable(format!("{method}: {error}")))?;
        let answer = self.read(target, response).await?;
        *kept = Some(connection);
        Ok(answer)
    }

    fn build(
        &self,
        target: &str,
        method: &Method,
        path: &str,
        body: &Bytes,
    ) -> Result<Request<Full<Bytes>>, ProbeError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::ACCEPT, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(body.clone())).map_err(|error| ProbeError::Unreachable {
            target: target.to_owned(),
            reason: format!("cannot be asked for: {error}"),
        })
    }

    async fn connect(&self) -> std::io::Result<Connection> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        // Its error reaches whoever waits for the answer, through `sender`.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, task })
    }

    async fn read(&self, target: &str, response: Response<hyper::body::Incoming>) -> Result<Bytes, ProbeError> {
        let status = response.status();
        let body = Limited::new(response.into_body(), self.answer_bytes_max).collect().await.map_err(|error| {
            let reason = if error.is::<LengthLimitError>() {
                format!("the answer is longer than {} bytes", self.answer_bytes_max)
            } else {
                format!("the answer broke off: {error}")
            };
            ProbeError::BadAnswer { target: target.to_owned(), reason }
        })?;
        let body = body.to_bytes();
        if status.is_success() {
            Ok(body)
        } else {
            Err(ProbeError::BadAnswer {
                target: target.to_owned(),
                reason: format!("HTTP status {status}: {}", excerpt(&body)),
            })
        }
    }
}

/// The beginning of an answer, fit for one line of a log.
pub fn excerpt(body: &[u8]) -> String {
    const CHARS_MAX: usize = 120;
    if body.is_empty() {
        return "(empty)".to_owned();
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * CHARS_MAX)]);
    let mut line: String = text.chars().take(CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() > CHARS_MAX || body.len() > 4 * CHARS_MAX {
        line.push('…');
    }
    line
}

fn without_user(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}…{}", &url[..scheme + 3], &url[at..]),
        (Some(_) | None, Some(_) | None) => url.to_owned(),
    }
}
