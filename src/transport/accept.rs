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
use tokio_stream::{Stream, StreamExt};

use super::certificates::Certificates;
use super::door::{Door, Limits, Visit};
use crate::certificates::{Bearer, Facts};
use crate::timing::Timing;

/// From an accepted connection to a proven peer. Between members it is a round trip and a few milliseconds.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(3);
/// Handshakes under way. One more ends the oldest, which is hardly ever a member's: those are through in no time.
pub const HANDSHAKES_MAX: usize = 128;
/// After a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Of a member's port. Its peers keep one each, and a few more while they restart.
const CONNECTIONS_MAX: usize = 128;
/// Connections that wait to be served.
const BACKLOG: usize = 16;

/// What a connection proves of the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// This host uses no TLS: whoever reaches the port is taken at its word.
    Unproven,
    Proven(Bearer),
}

/// A connection that may carry requests.
pub enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

type Ready = mpsc::Sender<(Connection, Speaker)>;

/// The connections of peers, who ping twice a lease, until it is dropped. With `certificates`, nobody gets through
/// who has no certificate of the authority, or one that names nobody. Must be called inside the runtime.
pub fn incoming(
    listener: TcpListener,
    certificates: Option<Certificates>,
    timing: &Timing,
) -> impl Stream<Item = io::Result<Visit<Connection>>> + use<> {
    let door = Door::new(Limits { connections_max: CONNECTIONS_MAX, silence_max: 3 * timing.lease() });
    let (ready, connections) = mpsc::channel(BACKLOG);
    tokio::spawn(accept(listener, certificates, ready));
    ReceiverStream::new(connections).map(move |(connection, speaker)| Ok(door.admit(connection, speaker.into())))
}

async fn accept(listener: TcpListener, certificates: Option<Certificates>, ready: Ready) {
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
                    // Its receiver is gone: the next round ends this.
                    let _ = ready.send((Connection::Plain(stream), Speaker::Unproven)).await;
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
    fn start(&mut self, stream: TcpStream, from: SocketAddr, certificates: Certificates, ready: Ready) {
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
                Ok(proven) => drop(ready.send(proven).await),
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
async fn shake_hands(stream: TcpStream, certificates: &Certificates) -> Result<(Connection, Speaker), String> {
    let handshake = TlsAcceptor::from(certificates.server()).accept(stream);
    let stream = timeout(HANDSHAKE_MAX, handshake)
        .await
        .map_err(|_| format!("no TLS handshake within {HANDSHAKE_MAX:?}"))?
        .map_err(|error| format!("TLS: {error}"))?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let facts = Facts::read(certificate.map_or(&[], |certificate| certificate)).map_err(|error| error.to_string())?;
    Ok((Connection::Tls(Box::new(stream)), Speaker::Proven(facts.bearer)))
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Connection::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Connection::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Connection::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Connection::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Connection::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Connection::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Connection::Plain(stream) => stream.is_write_vectored(),
            Connection::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Connection::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Connection::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Connection::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Connection::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
