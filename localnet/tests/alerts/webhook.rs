//! Where Alertmanager delivers to: it takes every POST, answers 200 and remembers when each alert came.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

const READ_BOUND: Duration = Duration::from_secs(10);

/// One alert of a notification.
#[derive(Clone, Debug)]
pub struct Delivered {
    pub at: Instant,
    /// Of the receiver that it came to.
    pub path: String,
    pub name: String,
    /// Else it fires.
    pub resolved: bool,
    pub alert: Value,
}

/// Listens until the test's process ends.
pub struct Webhook {
    pub addr: SocketAddr,
    delivered: Arc<Mutex<Vec<Delivered>>>,
}

impl Webhook {
    pub fn open() -> Webhook {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let delivered = Arc::new(Mutex::new(Vec::new()));
        let taken = delivered.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                match take(stream) {
                    Ok(alerts) => taken.lock().unwrap().extend(alerts),
                    Err(error) => eprintln!("webhook: {error}"),
                }
            }
        });
        Webhook { addr, delivered }
    }

    /// In the order in which they came.
    pub fn delivered(&self) -> Vec<Delivered> {
        self.delivered.lock().unwrap().clone()
    }
}

/// Reads one notification and answers it.
fn take(mut stream: TcpStream) -> std::io::Result<Vec<Delivered>> {
    stream.set_read_timeout(Some(READ_BOUND))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let at = Instant::now();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let body: Value = serde_json::from_slice(&body).map_err(std::io::Error::other)?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let alerts = body["alerts"].as_array().cloned().unwrap_or_default();
    let of = |alert: Value| Delivered {
        at,
        path: path.clone(),
        name: alert["labels"]["alertname"].as_str().unwrap_or_default().to_owned(),
        resolved: alert["status"] == "resolved",
        alert,
    };
    Ok(alerts.into_iter().map(of).collect())
}
