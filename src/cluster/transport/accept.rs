//! The listening end: connections whose other end is known by its certificate, or, without TLS, by nothing.
//! `handshakes.rs` has the handshakes, so that a peer which says nothing holds up nobody.
//!
//! Invariant: what serves members gets no connection of an admin, and what serves admins none of a member.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::sleep;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};

use super::certificates::Certificates;
use super::door::{Door, Limits, Visit, Visitor};
use super::handshakes::{self, Homes};
use crate::base::timing::Timing;
use crate::cluster::certificates::Bearer;

/// After a failed accept, which is mostly a lack of file descriptors.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Places at a member's port. Its peers keep one each, and a few more while they restart.
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

/// Where connections under TLS lead to.
pub struct Entrance {
    pub certificates: Certificates,
    /// Those of admins. They take no place among the members' and reach none of their services.
    pub admins: mpsc::Sender<Caller>,
    /// Where members connect from: nobody else's handshakes take a place of theirs.
    pub homes: Homes,
}

/// An admin whose connection was made at the port of the members, and is to be served elsewhere.
pub struct Caller {
    pub(super) name: String,
    pub(super) from: SocketAddr,
    pub(super) stream: Box<TlsStream<TcpStream>>,
}

impl Caller {
    /// The connection, which costs the runtime that calls this from now on, and costs no other.
    ///
    /// # Errors
    /// No file descriptor is left; the connection ends.
    pub fn move_here(self) -> io::Result<(Connection, Visitor)> {
        let Caller { name, from, mut stream } = self;
        move_here(&mut stream)?;
        let visitor = Visitor::from(Speaker::Proven(Bearer::Admin(name))).coming_from(from);
        Ok((Connection::Tls(stream), visitor))
    }
}

fn move_here(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    let socket: std::net::TcpStream = stream.get_ref().0.as_fd().try_clone_to_owned()?.into();
    // The one before, which the other runtime watches, is closed here.
    *stream.get_mut().0 = TcpStream::from_std(socket)?;
    Ok(())
}

/// A connection that may carry requests.
pub enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

pub(super) type Ready = mpsc::Sender<(Connection, Speaker)>;

/// The connections of peers, who ping twice a lease, until it is dropped. With an `entrance`, nobody gets through
/// who has no certificate of the authority, or one that names no member. Must be called inside the runtime.
pub fn incoming(
    listener: TcpListener,
    entrance: Option<Entrance>,
    timing: &Timing,
) -> impl Stream<Item = io::Result<Visit<Connection>>> + use<> {
    let door = Door::new(Limits { connections_max: CONNECTIONS_MAX, silence_max: 3 * timing.lease() });
    let (ready, connections) = mpsc::channel(BACKLOG);
    match entrance {
        Some(entrance) => {
            if let Err(error) = handshakes::serve(listener, entrance, ready) {
                tracing::error!(%error, "no thread for the handshakes of peers: nobody is let in");
            }
        }
        None => drop(tokio::spawn(accept(listener, ready))),
    }
    ReceiverStream::new(connections).filter_map(move |(mut connection, speaker)| {
        if let Connection::Tls(stream) = &mut connection
            && let Err(error) = move_here(stream)
        {
            tracing::warn!(%error, "cannot take over a connection of a peer");
            return None;
        }
        Some(Ok(door.admit(connection, speaker.into())))
    })
}

/// Without TLS there is nothing to be proven.
async fn accept(listener: TcpListener, ready: Ready) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        // Without it on this end too, an answer waits up to 40 ms for the acknowledgement of the one before.
        match accepted.and_then(|(stream, _)| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => {
                // Its receiver is gone: the next round ends this.
                let _ = ready.send((Connection::Plain(stream), Speaker::Unproven)).await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of a peer");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Entrance {
    /// Does not wait: whoever serves admins is to keep up, and members come first here.
    pub(super) fn lead(&self, admin: Caller) -> Result<(), String> {
        self.admins.try_send(admin).map_err(|unled| match unled {
            TrySendError::Full(admin) => format!("admin {}: too many connections of admins at once", admin.name),
            TrySendError::Closed(admin) => format!("admin {}: nobody here answers admins", admin.name),
        })
    }
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
