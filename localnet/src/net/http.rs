//! The one HTTP request that the harness makes: GET, a JSON answer, bounded in time.
//! Called by the checker and the measurements.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(3);

/// The JSON body of `http://ADDR/PATH`.
pub fn get_json(addr: SocketAddr, path: &str) -> Result<Value> {
    let what = || format!("GET http://{addr}{path}");
    let body = get(addr, path).with_context(what)?;
    serde_json::from_slice(&body).with_context(what)
}

/// The body of `http://ADDR/PATH`.
pub fn get(addr: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0: the body ends with the connection and is never chunked.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n").context("the answer has no end of headers")?;
    let head = String::from_utf8_lossy(&answer[..split]);
    let status = head.lines().next().unwrap_or_default();
    if status.split_whitespace().nth(1) != Some("200") {
        bail!("answered {status:?}");
    }
    Ok(answer.split_off(split + 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answer_once(text: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
        });
        addr
    }

    #[test]
    fn the_body_of_a_200_is_parsed_and_other_answers_name_the_url() {
        let addr = answer_once("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"height\": 7}");
        assert_eq!(get_json(addr, "/status").unwrap()["height"], 7);
        let addr = answer_once("HTTP/1.0 404 Not Found\r\n\r\n{}");
        let error = format!("{:#}", get_json(addr, "/nowhere").unwrap_err());
        assert!(error.contains("/nowhere") && error.contains("404"), "{error}");
    }
}
