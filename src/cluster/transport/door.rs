//! Connections from outside, bounded: how many there are, and how long one may be silent. Who floods a port takes
//! no place from a member: when all are taken, a new connection displaces the oldest one on which nobody has
//! proven to be a member. Used by the servers of peers and of operators.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::Connected;

use super::accept::Speaker;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections_max: usize,
    /// Without a byte from the other end. Longer than its pings are apart.
    pub silence_max: Duration,
}

/// Who is at the other end of a connection; stands in the extensions of every request that comes over it.
#[derive(Clone, Debug, Default)]
pub struct Visitor {
    /// What its connection says of it; nothing on a socket of this host.
    speaker: Option<Speaker>,
    is_member: Arc<AtomicBool>,
    from: Option<SocketAddr>,
}

impl From<Speaker> for Visitor {
    fn from(speaker: Speaker) -> Visitor {
        Visitor { speaker: Some(speaker), ..Visitor::default() }
    }
}

impl Visitor {
    /// The one that sent `request`.
    pub fn of<T>(request: &tonic::Request<T>) -> Visitor {
        request.extensions().get().cloned().unwrap_or_default()
    }

    pub fn speaker(&self) -> Option<&Speaker> {
        self.speaker.as_ref()
    }

    pub fn coming_from(self, from: SocketAddr) -> Visitor {
        Visitor { from: Some(from), ..self }
    }

    /// Where its connection comes from, when that was noted.
    pub fn address(&self) -> Option<SocketAddr> {
        self.from
    }

    /// A request of it has passed every check of who speaks.
    pub fn is_a_member(&self) {
        self.is_member.store(true, Ordering::Relaxed);
    }
}

/// Lets connections in.
#[derive(Debug)]
pub struct Door {
    limits: Limits,
    /// Oldest first.
    inside: Mutex<Vec<Inside>>,
}

#[derive(Debug)]
struct Inside {
    visitor: Visitor,
    /// Dropped to send the visitor away; closed when it has gone by itself.
    stays: oneshot::Sender<()>,
}

impl Door {
    pub fn new(limits: Limits) -> Door {
        Door { limits, inside: Mutex::default() }
    }

    pub fn admit<S>(&self, stream: S, visitor: Visitor) -> Visit<S> {
        let (stays, leave) = oneshot::channel();
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.retain(|one| !one.stays.is_closed());
        if inside.len() >= self.limits.connections_max {
            let stranger = inside.iter().position(|one| !one.visitor.is_member.load(Ordering::Relaxed));
            inside.remove(stranger.unwrap_or(0));
        }
        inside.push(Inside { visitor: visitor.clone(), stays });
        let silence_max = self.limits.silence_max;
        Visit { stream, visitor, leave, silence: Box::pin(sleep(silence_max)), silence_max }
    }
}

/// A connection that ends when it is silent for too long, or when its place is needed.
pub struct Visit<S> {
    stream: S,
    visitor: Visitor,
    leave: oneshot::Receiver<()>,
    silence: Pin<Box<Sleep>>,
    silence_max: Duration,
}

impl<S> Connected for Visit<S> {
    type ConnectInfo = Visitor;

    fn connect_info(&self) -> Visitor {
        self.visitor.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Visit<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if Pin::new(&mut self.leave).poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "displaced by newer connections",
            )));
        }
        // Read first: after a pause of this process, what has arrived counts.
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            let until = Instant::now() + self.silence_max;
            self.silence.as_mut().reset(until);
            return Poll::Ready(read);
        }
        match self.silence.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "silent for too long"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Visit<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn admit(door: &Door) -> (Visit<DuplexStream>, DuplexStream) {
        let (here, there) = duplex(64);
        (door.admit(here, Visitor::default()), there)
    }

    /// How reading from a connection on which nothing comes ends, or `None` when it does not.
    async fn ended(visit: &mut Visit<DuplexStream>) -> Option<io::ErrorKind> {
        let read = tokio::time::timeout(Duration::from_millis(1), visit.read_u8()).await;
        read.ok().map(|read| read.expect_err("nothing was sent").kind())
    }

    #[tokio::test]
    async fn strangers_make_room_before_members_and_the_oldest_first() {
        let door = Door::new(Limits { connections_max: 3, silence_max: LONG });
        let (mut member, _a) = admit(&door);
        member.visitor.is_a_member();
        let (mut older, _b) = admit(&door);
        let (mut newer, _c) = admit(&door);
        let (mut newest, _d) = admit(&door);
        assert_eq!(ended(&mut older).await, Some(io::ErrorKind::ConnectionAborted));
        for stays in [&mut member, &mut newer, &mut newest] {
            assert_eq!(ended(stays).await, None);
        }
        newer.visitor.is_a_member();
        newest.visitor.is_a_member();
        let (_last, _e) = admit(&door);
        assert_eq!(ended(&mut member).await, Some(io::ErrorKind::ConnectionAborted), "members alone: the oldest");
    }

    #[tokio::test]
    async fn who_has_gone_takes_no_place() {
        let door = Door::new(Limits { connections_max: 2, silence_max: LONG });
        let (mut stays, _a) = admit(&door);
        for _ in 0..5 {
            drop(admit(&door));
        }
        assert_eq!(ended(&mut stays).await, None);
    }

    #[tokio::test]
    async fn silence_ends_a_connection_but_what_has_arrived_counts() {
        let silence_max = Duration::from_millis(20);
        let door = Door::new(Limits { connections_max: 2, silence_max });
        let (mut visit, mut peer) = admit(&door);
        for _ in 0..4 {
            peer.write_u8(7).await.unwrap();
            // As after a pause of this process.
            sleep(silence_max * 2).await;
            assert_eq!(visit.read_u8().await.unwrap(), 7);
        }
        let began_at = Instant::now();
        assert_eq!(visit.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began_at.elapsed() >= silence_max, "{:?}", began_at.elapsed());
    }
}
