//! Strangers who connect to the ports of members and begin TLS handshakes that come to nothing: silent ones, ones that
//! stall after their first message, ones that send no TLS, and ones with a certificate of another authority. At a
//! stated rate, bounded in number, until it is dropped. They come from addresses of loopback at which no member is,
//! some of them from one address. Called by the load, the nemesis and tests.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use baton::cluster::certificates::{read_certificates, read_key};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::net::namespaces;
use crate::net::tls;
use crate::net::{Host, Net};
use crate::process::launch::namespace_of;

/// Open at one member; what is due beyond is not begun.
const OPEN_MAX: usize = 256;
/// A member ends a handshake after three seconds at the latest.
const KEPT_MAX: Duration = Duration::from_secs(30);
const BATCH_EVERY: Duration = Duration::from_millis(5);
/// Every other stranger comes from the first address, the rest from all of these in turn.
const SOURCES: u32 = 250;
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// What a stranger does at the port of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Says nothing.
    Silent,
    /// Says all of its first message, which costs the member a key exchange and a signature, and no more.
    Stalling,
    /// Says what is no TLS.
    Babbling,
    /// Shows a certificate that names a member and is signed by an authority of its own.
    Foreign,
}

impl Manner {
    const ALL: [Manner; 4] = [Manner::Silent, Manner::Stalling, Manner::Babbling, Manner::Foreign];
}

/// What became of the strangers so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were made.
    pub begun: u64,
    /// Of these, those that the member has ended.
    pub ended: u64,
    /// Of these, those that the member kept for longer than [`KEPT_MAX`].
    pub kept: u64,
    /// That were due and found no member listening, or had no place under [`OPEN_MAX`].
    pub left_out: u64,
}

impl Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts {
            begun: self.begun + other.begun,
            ended: self.ended + other.ended,
            kept: self.kept + other.kept,
            left_out: self.left_out + other.left_out,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { begun, ended, kept, left_out } = self;
        write!(f, "{begun} handshakes begun, {ended} ended by the member, {kept} kept, {left_out} left out")
    }
}

#[derive(Default)]
struct Tally {
    begun: AtomicU64,
    ended: AtomicU64,
    kept: AtomicU64,
    left_out: AtomicU64,
}

/// Strangers at one member, until this is dropped. Their connections end then.
struct AtMember {
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// Strangers at some members.
pub struct Flood(Vec<AtMember>);

impl Flood {
    /// Begins at each of `hosts`, with so many handshakes a second at each. The network has TLS.
    ///
    /// # Errors
    /// The certificates of the strangers cannot be made, or the network has none to be a stranger to.
    pub fn begin<'a>(net: &Net, hosts: impl IntoIterator<Item = &'a Host>, per_s: u64) -> Result<Flood> {
        let config = strangers_config(net).context("make the certificate of a stranger")?;
        let at = |host: &Host| {
            let (tally, stop) = (Arc::<Tally>::default(), Arc::<AtomicBool>::default());
            let namespace = namespace_of(net, &host.id)?;
            let strangers = Strangers { at: host.raft(), per_s, config: config.clone(), tally: tally.clone() };
            let stopped = stop.clone();
            let thread = thread::spawn(move || match namespace {
                None => strangers.come(&stopped),
                Some(namespace) => namespaces::in_network(&namespace, move || strangers.come(&stopped)),
            });
            Ok(AtMember { tally, stop, thread: Some(thread) })
        };
        hosts.into_iter().map(at).collect::<Result<_>>().map(Flood)
    }

    /// Of all members together.
    pub fn counts(&self) -> Counts {
        self.at_each().into_iter().fold(Counts::default(), Counts::add)
    }

    /// Of each member, in the order in which they were given.
    pub fn at_each(&self) -> Vec<Counts> {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = |Tally { begun, ended, kept, left_out }: &Tally| Counts {
            begun: of(begun),
            ended: of(ended),
            kept: of(kept),
            left_out: of(left_out),
        };
        self.0.iter().map(|member| counts(&member.tally)).collect()
    }
}

impl Drop for AtMember {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => eprintln!("flood of handshakes: {error:#}"),
            Some(Err(_)) => eprintln!("flood of handshakes: its thread panicked"),
        }
    }
}

/// It trusts the network's authority, as anybody may, and shows what another authority has signed.
fn strangers_config(net: &Net) -> Result<Arc<ClientConfig>> {
    let [certificate, key] = tls::stranger(net)?;
    let mut roots = RootCertStore::empty();
    for authority in read_certificates(&tls::authority_file(net))? {
        roots.add(authority)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots);
    let mut config = builder.with_client_auth_cert(read_certificates(&certificate)?, read_key(&key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

struct Strangers {
    at: SocketAddr,
    per_s: u64,
    config: Arc<ClientConfig>,
    tally: Arc<Tally>,
}

impl Strangers {
    /// Until `stop`.
    fn come(self, stop: &AtomicBool) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let (strangers, places) = (Arc::new(self), Arc::new(Semaphore::new(OPEN_MAX)));
        runtime.block_on(async {
            let (from, mut due) = (Instant::now(), 0);
            while !stop.load(Ordering::Relaxed) {
                let by_now = (from.elapsed().as_secs_f64() * strangers.per_s as f64) as u64;
                for number in due..by_now {
                    let Ok(place) = places.clone().try_acquire_owned() else {
                        strangers.tally.left_out.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    let strangers = strangers.clone();
                    tokio::spawn(async move {
                        strangers.one(number).await;
                        drop(place);
                    });
                }
                due = by_now;
                tokio::time::sleep(BATCH_EVERY).await;
            }
        });
        Ok(())
    }

    async fn one(&self, number: u64) {
        let count = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
        let Ok(stream) = self.connect(number).await else {
            count(&self.tally.left_out);
            return;
        };
        count(&self.tally.begun);
        let manner = Manner::ALL[(number / 2 % Manner::ALL.len() as u64) as usize];
        match tokio::time::timeout(KEPT_MAX, self.behave(manner, stream)).await {
            Ok(()) => count(&self.tally.ended),
            Err(_) => count(&self.tally.kept),
        };
    }

    async fn connect(&self, number: u64) -> io::Result<TcpStream> {
        let of_many = if number.is_multiple_of(2) { 0 } else { 1 + (number / 2) as u32 % SOURCES };
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::from_bits(FIRST_SOURCE.to_bits() + of_many), 0).into())?;
        socket.connect(self.at).await
    }

    /// Until the member ends it.
    async fn behave(&self, manner: Manner, mut stream: TcpStream) {
        let name = ServerName::IpAddress(self.at.ip().into());
        match manner {
            Manner::Silent => {}
            Manner::Stalling => {
                let mut first = Vec::new();
                let connection = ClientConnection::new(self.config.clone(), name);
                if connection.is_ok_and(|mut connection| connection.write_tls(&mut first).is_ok()) {
                    // One that was ended already is seen below.
                    let _ = stream.write_all(&first).await;
                }
            }
            Manner::Babbling => drop(stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await),
            Manner::Foreign => {
                let Ok(stream) = TlsConnector::from(self.config.clone()).connect(name, stream).await else { return };
                return read_to_end(stream).await;
            }
        }
        read_to_end(stream).await;
    }
}

async fn read_to_end(mut stream: impl tokio::io::AsyncRead + Unpin) {
    let mut bytes = [0; 4096];
    while stream.read(&mut bytes).await.is_ok_and(|size| size > 0) {}
}
