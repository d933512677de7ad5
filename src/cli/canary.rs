//! `baton canary`: asks a host's exporter, from anywhere, whether its coordinator and its chain node answer as they
//! should. The exit code says what does not, so that a probe of a load balancer or a cron job needs to read nothing.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Failure, one_line, print, runtime};
use crate::operator::exporter::NO_QUORUM;

/// Longer answers are not the exporter's.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What is wrong with a host, by exit code. 0 is none of them; 1 and 2 are as for every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    NoAnswer = 3,
    CoordinatorHangs = 4,
    NoQuorum = 5,
    NoChainNode = 6,
    NotReady = 7,
}

/// Says in one line how the host is.
pub(super) fn canary(addr: &str, bound: Duration) -> Result<ExitCode, Failure> {
    if addr.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
        return Err(Failure::BadInput(anyhow!(
            "{addr:?} is not HOST:PORT; write what metrics.listen of that host says"
        )));
    }
    let looked = runtime()?.block_on(async { timeout(bound, look(addr)).await });
    let wrong = match looked {
        Ok(Ok(None)) => {
            print(&format!("{addr}: ready\n"));
            return Ok(ExitCode::SUCCESS);
        }
        Ok(Ok(Some(wrong))) => wrong,
        Ok(Err(error)) => (Wrong::NoAnswer, format!("{error:#}")),
        Err(_) => (Wrong::NoAnswer, format!("no answer within {bound:?}")),
    };
    let (wrong, reason) = wrong;
    Err(Failure::Coded(anyhow!("{addr}: {}", one_line(&reason)), wrong as u8))
}

/// The first thing that is wrong, the gravest first.
async fn look(addr: &str) -> anyhow::Result<Option<(Wrong, String)>> {
    let (status, body) = get(addr, "/health").await?;
    match status {
        StatusCode::OK => {}
        StatusCode::SERVICE_UNAVAILABLE => return Ok(Some((Wrong::CoordinatorHangs, body))),
        other => return Err(anyhow!("/health is answered with {other}: this is not baton's exporter")),
    }
    let (status, body) = get(addr, "/ready").await?;
    if status == StatusCode::OK {
        return Ok(None);
    }
    if body.starts_with(NO_QUORUM) {
        return Ok(Some((Wrong::NoQuorum, body)));
    }
    let (status, _) = get(addr, "/node-pid").await?;
    let wrong = if status == StatusCode::NOT_FOUND { Wrong::NoChainNode } else { Wrong::NotReady };
    Ok(Some((wrong, body)))
}

/// One connection a request: the exporter closes it after the answer.
async fn get(addr: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(addr).await.context("connect")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its error reaches whoever waits for the answer, through `sender`.
    let task = tokio::spawn(async move { drop(connection.await) });
    let request = Request::get(path).header(header::HOST, addr).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await.with_context(|| format!("ask for {path}"))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    task.abort();
    let body = body.map_err(|error| anyhow!("read {path}: {error}"))?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).trim().to_owned()))
}
