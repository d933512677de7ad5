//! A server that does as it is told, and a host that obtains from it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use baton::host::upgrade::obtain::{Patience, Request, Source, obtain};
use ring::digest::{SHA256, SHA512, digest};
use tempfile::TempDir;

pub const NAME: &str = "noded";
pub const BYTES_MAX: u64 = 1 << 20;

/// Generous but where a test waits for the end of it.
pub const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(20),
    stall: Duration::from_secs(20),
    attempts: 3,
    pause: Duration::from_millis(5),
    pause_max: Duration::from_millis(5),
};

/// A program of some length, whose bytes do not repeat.
pub fn program(bytes: usize) -> Vec<u8> {
    let mut program = b"#!/bin/sh\necho the new one\nexit 0\n".to_vec();
    let mut word = 1u64;
    while program.len() < bytes {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        program.extend(word.to_le_bytes());
    }
    program.truncate(bytes.max(34));
    program
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

pub fn sha512(bytes: &[u8]) -> String {
    hex(digest(&SHA512, bytes).as_ref())
}

/// The directory of an upgrade, and how binaries are brought there.
pub struct Host {
    pub home: TempDir,
    pub bytes_max: u64,
    pub patience: Patience,
}

impl Host {
    pub fn new() -> Host {
        Host { home: tempfile::tempdir().unwrap(), bytes_max: BYTES_MAX, patience: PATIENCE }
    }

    pub fn outside(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn upgrade_dir(&self) -> PathBuf {
        self.home.path().join("cosmovisor/upgrades/v2")
    }

    pub fn binary(&self) -> PathBuf {
        self.upgrade_dir().join("bin").join(NAME)
    }

    pub fn download_dir(&self) -> PathBuf {
        self.upgrade_dir().join(".download")
    }

    /// Bytes of downloads that are not whole.
    pub fn partial_bytes(&self) -> u64 {
        let files = fs::read_dir(self.download_dir()).into_iter().flatten().flatten();
        let partial = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "part"));
        partial.map(|file| file.metadata().unwrap().len()).sum()
    }

    pub fn obtain_as(
        &self,
        source: Source<'_>,
        progress: &mut dyn FnMut(u64, Option<u64>) -> bool,
    ) -> Result<PathBuf, String> {
        let request = Request {
            upgrade_dir: &self.upgrade_dir(),
            binary_name: NAME,
            bytes_max: self.bytes_max,
            source,
            patience: self.patience,
        };
        match obtain(&request, progress) {
            Ok(binary) => {
                assert_eq!(binary.path, self.binary());
                assert_eq!(binary.sha256, sha256(&fs::read(&binary.path).unwrap()));
                Ok(binary.path)
            }
            Err(error) => {
                let error = error.to_string();
                assert!(!error.trim().is_empty() && !error.contains('\n'), "no line for a human: {error:?}");
                println!("says: {error}");
                Err(error)
            }
        }
    }

    pub fn obtain(&self, source: &str) -> Result<PathBuf, String> {
        self.obtain_as(Source::Operator(source), &mut |_, _| true)
    }

    /// The binary is there with these bytes, everybody may run it, and nothing else is left.
    pub fn assert_has(&self, program: &[u8]) {
        let found = fs::read(self.binary()).unwrap();
        assert!(found == program, "{} bytes in place of {}", found.len(), program.len());
        let mode = fs::metadata(self.binary()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "{mode:o}");
        assert!(!self.download_dir().exists(), "{:?}", listing(&self.download_dir()));
    }

    #[track_caller]
    pub fn assert_refused(&self, source: &str, words: &[&str]) -> String {
        let error = self.obtain(source).expect_err("refused");
        for word in words {
            assert!(error.contains(word), "{word:?} is not in {error:?}");
        }
        assert!(!self.binary().exists(), "a binary is there after {error}");
        error
    }
}

pub fn listing(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|file| file.path()).collect()
}

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    head: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    }

    /// The byte that it asks to begin with.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

pub trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// Writes an answer; the connection is closed when it returns.
type Answering = dyn Fn(&Asked, &mut dyn Wire) -> std::io::Result<()> + Send + Sync;
/// Around a connection, for TLS.
type Wrapping = dyn Fn(TcpStream, &dyn Fn(&mut dyn Wire)) + Send + Sync;

pub struct Server {
    pub addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Asked, &mut dyn Wire) -> std::io::Result<()> + Send + Sync + 'static) -> Server {
        Server::start_wrapped(Box::new(|mut stream, speak| speak(&mut stream)), answer)
    }

    pub fn start_wrapped(
        wrap: Box<Wrapping>,
        answer: impl Fn(&Asked, &mut dyn Wire) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let (asked, ended) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicBool>::default());
        let answer: Arc<Answering> = Arc::new(answer);
        let (wrap, seen, over) = (Arc::new(wrap), asked.clone(), ended.clone());
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (answer, wrap, seen) = (answer.clone(), wrap.clone(), seen.clone());
                thread::spawn(move || {
                    wrap(stream, &|wire| {
                        let Some(request) = read_request(wire) else { return };
                        seen.lock().unwrap().push(request.clone());
                        // A client that went away is not the server's trouble.
                        let _ = answer(&request, wire);
                    });
                });
            }
        });
        Server { addr, asked, ended, thread: Some(thread) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// With the checksum of `content`.
    pub fn link(&self, path: &str, content: &[u8]) -> String {
        format!("{}?checksum=sha256:{}", self.url(path), sha256(content))
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read_request(wire: &mut dyn Wire) -> Option<Asked> {
    let mut head = String::new();
    let mut lines = BufReader::with_capacity(1, wire);
    while !head.ends_with("\r\n\r\n") {
        if lines.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(Asked { path: head.split(' ').nth(1)?.to_owned(), head })
}

/// An answer with a body, its length said.
pub fn say(wire: &mut dyn Wire, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    write!(wire, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len())?;
    wire.write_all(body)
}

/// A file as a good server has it: with ranges, under the name `etag`. Only `cut` bytes of the body are sent.
pub fn serve(asked: &Asked, wire: &mut dyn Wire, body: &[u8], etag: &str, cut: Option<usize>) -> std::io::Result<()> {
    let same = asked.header("if-range").is_none_or(|wanted| wanted == etag);
    let from = asked.from().filter(|from| same && *from < body.len());
    let part = &body[from.unwrap_or(0)..];
    let head = match from {
        Some(from) => {
            format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{}", body.len() - 1, body.len())
        }
        None => "200 OK".to_owned(),
    };
    write!(wire, "HTTP/1.1 {head}\r\nETag: {etag}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", part.len())?;
    wire.write_all(&part[..cut.unwrap_or(part.len()).min(part.len())])
}
