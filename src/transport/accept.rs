//! The listening end: connections whose other end is known by its certificate, or, without TLS, by nothing.
//! Each handshake has a task and a time of its own, so that a peer which says nothing holds up nobody.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::certificates::Certificates;
use crate::certificates::{Bearer, Facts};

/// From an accepted connection to a proven peer. Between members it is a round trip and a few milliseconds.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(3);
/// Handshakes under way. One more ends the oldest, which is hardly ever a member's: those are through in no time.
pub const HANDSHAKES_MAX: usize = 128;
/// After a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that wait to be served.
const BACKLOG: usize = 16;

/// Who is at the other end of a connection; stands in the extensions of every request that comes over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// This host uses no TLS: whoever reaches the port is taken at its word.
    Unproven,
    Proven(Bearer),
}

/// A connection that may carry requests.
pub struct Connection {
    stream: Stream,
    speaker: Speaker,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The connections of peers, until it is dropped. With `certificates`, nobody gets through who has no
/// certificate of the authority, or one that names nobody. Must be called inside the runtime.
pub fn incoming(listener: TcpListener, certificates: Option<Certificates>) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(BACKLOG);
    tokio::spawn(accept(listener, certificates, ready));
    ReceiverStream::new(connections)
}

async fn accept(
    listener: TcpListener,
    certificates: Option<Certificates>,
    ready: mpsc::Sender<io::Result<Connection>>,
) {
    let mut handshakes = Handshakes::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        // Without it on this end too, an answer waits up to 40 ms for the acknowledgement of the one before.
        match accepted.and_then(|(stream, from)| stream.set_nodelay(true).map(|()| (stream, from))) {
            Ok((stream, from)) => match &certificates {
                Some(certificates) => handshakes.start(stream, from, certificates.clone(), ready.clone()),
                None => {
                    let connection = Connection { stream: Stream::Plain(stream), speaker: Speaker::Unproven };
                    // Its receiver is gone: the next round ends this.
                    let _ = ready.send(Ok(connection)).await;
                }
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of a peer");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Those under way, the oldest first.
#[derive(Default)]
struct Handshakes(VecDeque<AbortHandle>);

impl Handshakes {
    fn start(
        &mut self,
        stream: TcpStream,
        from: SocketAddr,
        certificates: Certificates,
        ready: mpsc::Sender<io::Result<Connection>>,
    ) {
        self.0.retain(|handshake| !handshake.is_finished());
        if self.0.len() >= HANDSHAKES_MAX
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
            certificates.refusals.note("somebody", format!("{HANDSHAKES_MAX} others came before it was done"));
        }
        let handshake = tokio::spawn(async move {
            match shake_hands(stream, &certificates).await {
                // The server may have ended meanwhile.
                Ok(connection) => drop(ready.send(Ok(connection)).await),
                Err(why) => certificates.refusals.note(from, why),
            }
        });
        self.0.push_back(handshake.abort_handle());
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// # Errors
/// Why whoever is there may not go on.
async fn shake_hands(stream: TcpStream, certificates: &Certificates) -> Result<Connection, String> {
    let handshake = TlsAcceptor::from(certificates.server()).accept(stream);
    let stream = timeout(HANDSHAKE_MAX, handshake)
        .await
        .map_err(|_| format!("no TLS handshake within {HANDSHAKE_MAX:?}"))?
        .map_err(|error| format!("TLS: {error}"))?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let facts = Facts::read(certificate.map_or(&[], |certificate| certificate)).map_err(|error| error.to_string())?;
    Ok(Connection { stream: Stream::Tls(Box::new(stream)), speaker: Speaker::Proven(facts.bearer) })
}

impl Connected for Connection {
    type ConnectInfo = Speaker;

    fn connect_info(&self) -> Speaker {
        self.speaker.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
