//! TLS handshakes of whoever connects: on two threads of ordinary priority, so that strangers cost those that carry the
//! lease nothing. One is for the addresses of members, the other for all others. A connection whose other end is proven
//! goes on to the runtime that serves it.
//!
//! Bounded for strangers: handshakes under way, in all and of one source, and how many a source may begin in a second.
//! What comes from a member's address is bounded in number alone, and takes its places from nobody else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::accept::{ACCEPT_PAUSE, Caller, Connection, Entrance, Ready, Speaker};
use super::certificates::Certificates;
use crate::base::time::BootTime;
use crate::cluster::certificates::{Bearer, Facts};

/// From an accepted connection to a proven peer. Between members it is a round trip and a few milliseconds.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(3);
/// Handshakes under way, of members' addresses and of all others. One more ends the oldest, which is hardly ever a
/// member's: those are through in no time.
pub const HANDSHAKES_MAX: usize = 128;
/// Handshakes under way from one source that is no member's address. One more ends its oldest.
const OF_A_SOURCE_MAX: usize = 16;
/// Handshakes that such a source may begin at once, and how long each of them takes to be forgotten.
pub const BURST_MAX: u32 = 40;
const FORGOTTEN_AFTER: Duration = Duration::from_millis(50);
/// Sources that are remembered; those that could begin the most again are forgotten.
const SOURCES_MAX: usize = 4096;

/// Where members connect from: where the roster's names lead to, and wherever a member has proven itself.
#[derive(Clone, Debug, Default)]
pub struct Homes(Arc<Mutex<BTreeSet<IpAddr>>>);

impl Homes {
    pub fn add(&self, addr: IpAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(addr.to_canonical());
    }

    /// Those to which `names`, with their ports, lead now. What leads nowhere is left out.
    pub async fn look_up(&self, names: impl IntoIterator<Item = String>) {
        for name in names {
            for addr in lookup_host(name).await.into_iter().flatten() {
                self.add(addr.ip());
            }
        }
    }

    fn has(&self, addr: IpAddr) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&addr.to_canonical())
    }
}

/// Accepts at `listener` from now on, until nobody takes what is `ready`. Called inside the runtime of the listener,
/// which it leaves.
///
/// # Errors
/// No thread or runtime is to be had.
pub(super) fn serve(listener: TcpListener, entrance: Entrance, ready: Ready) -> io::Result<()> {
    let of = || Builder::new_current_thread().enable_all().build();
    let (members, strangers): (Runtime, Runtime) = (of()?, of()?);
    let listener = listener.into_std()?;
    let listener = {
        let _inside = members.enter();
        TcpListener::from_std(listener)?
    };
    let (ends, end) = oneshot::channel::<()>();
    let pools = Pools {
        members: Pool::on(members.handle()),
        strangers: Pool::on(strangers.handle()),
        sources: Sources::default(),
        entrance: Arc::new(entrance),
        ready,
    };
    thread::Builder::new().name("baton-strangers".into()).spawn(move || drop(strangers.block_on(end)))?;
    let accepting = async move {
        let _ends = ends;
        pools.accept(listener).await;
    };
    thread::Builder::new().name("baton-peers".into()).spawn(move || members.block_on(accepting))?;
    Ok(())
}

struct Pools {
    members: Pool,
    strangers: Pool,
    sources: Sources,
    entrance: Arc<Entrance>,
    ready: Ready,
}

impl Pools {
    async fn accept(mut self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.ready.closed() => return,
            };
            // Without it on this end too, an answer waits up to 40 ms for the acknowledgement of the one before.
            let accepted = accepted.and_then(|(stream, from)| stream.set_nodelay(true).map(|()| (stream, from)));
            match accepted.and_then(|(stream, from)| Ok((stream.into_std()?, from))) {
                Ok((stream, from)) => self.start(stream, from),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of a peer");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn start(&mut self, stream: std::net::TcpStream, from: SocketAddr) {
        let (source, refusals) = (source(from.ip()), &self.entrance.certificates.refusals);
        let (pool, of_source_max) = if self.entrance.homes.has(from.ip()) {
            (&mut self.members, HANDSHAKES_MAX)
        } else if self.sources.admit(source, BootTime::now()) {
            (&mut self.strangers, OF_A_SOURCE_MAX)
        } else {
            refusals.note(from, format!("more than {BURST_MAX} connections at once came from there"));
            return;
        };
        if let Some(others) = pool.make_room(source, of_source_max) {
            refusals.note("somebody", format!("{others} others came before it was done"));
        }
        let (entrance, ready) = (self.entrance.clone(), self.ready.clone());
        pool.start(source, async move {
            if let Err(why) = lead_in(stream, from, &entrance, &ready).await {
                entrance.certificates.refusals.note(from, why);
            }
        });
    }
}

/// Whoever has many addresses of IPv6 has a whole network of them.
fn source(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(addr) => IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() & !u128::from(u64::MAX))),
        addr @ IpAddr::V4(_) => addr,
    }
}

/// Handshakes under way on one thread, the oldest first.
struct Pool {
    on: Handle,
    under_way: VecDeque<(IpAddr, AbortHandle)>,
}

impl Pool {
    fn on(runtime: &Handle) -> Pool {
        Pool { on: runtime.clone(), under_way: VecDeque::new() }
    }

    /// Ends the oldest one of `source`, or of all, when there are too many; how many there were.
    fn make_room(&mut self, source: IpAddr, of_source_max: usize) -> Option<usize> {
        self.under_way.retain(|(_, handshake)| !handshake.is_finished());
        let of_source = self.under_way.iter().filter(|(from, _)| *from == source).count();
        let (too_many, at) = if of_source >= of_source_max {
            (of_source, self.under_way.iter().position(|(from, _)| *from == source))
        } else {
            (self.under_way.len(), (self.under_way.len() >= HANDSHAKES_MAX).then_some(0))
        };
        let (_, oldest) = self.under_way.remove(at?)?;
        oldest.abort();
        Some(too_many)
    }

    fn start(&mut self, source: IpAddr, handshake: impl Future<Output = ()> + Send + 'static) {
        self.under_way.push_back((source, self.on.spawn(handshake).abort_handle()));
    }
}

/// When what each source has begun is forgotten: the later, the more it was.
#[derive(Default)]
struct Sources(BTreeMap<IpAddr, BootTime>);

impl Sources {
    /// Whether `source` may begin one more at `now`.
    fn admit(&mut self, source: IpAddr, now: BootTime) -> bool {
        if self.0.len() >= SOURCES_MAX {
            self.0.retain(|_, forgotten_at| *forgotten_at > now);
            while self.0.len() >= SOURCES_MAX {
                let first = self.0.iter().min_by_key(|(_, forgotten_at)| **forgotten_at).map(|(source, _)| *source);
                first.map(|first| self.0.remove(&first));
            }
        }
        let forgotten_at = self.0.entry(source).or_insert(now);
        let next = (*forgotten_at).max(now) + FORGOTTEN_AFTER;
        let admitted = next.since(now) <= BURST_MAX * FORGOTTEN_AFTER;
        if admitted {
            *forgotten_at = next;
        }
        admitted
    }
}

/// # Errors
/// Why whoever is there may not go on.
async fn lead_in(
    stream: std::net::TcpStream,
    from: SocketAddr,
    entrance: &Entrance,
    ready: &Ready,
) -> Result<(), String> {
    let stream = TcpStream::from_std(stream).map_err(|error| format!("its socket: {error}"))?;
    match shake_hands(stream, &entrance.certificates).await? {
        (stream, bearer @ Bearer::Member(_)) => {
            entrance.homes.add(from.ip());
            // The server may have ended meanwhile.
            let _ = ready.send((Connection::Tls(stream), Speaker::Proven(bearer))).await;
            Ok(())
        }
        (stream, Bearer::Admin(name)) => entrance.lead(Caller { name, from, stream }),
    }
}

/// # Errors
/// Why whoever is there may not go on.
async fn shake_hands(
    stream: TcpStream,
    certificates: &Certificates,
) -> Result<(Box<TlsStream<TcpStream>>, Bearer), String> {
    let handshake = TlsAcceptor::from(certificates.server()).accept(stream);
    let stream = timeout(HANDSHAKE_MAX, handshake)
        .await
        .map_err(|_| format!("no TLS handshake within {HANDSHAKE_MAX:?}"))?
        .map_err(|error| format!("TLS: {error}"))?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let facts = Facts::read(certificate.map_or(&[], |certificate| certificate)).map_err(|error| error.to_string())?;
    Ok((Box::new(stream), facts.bearer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_floods_is_slowed_and_another_one_is_not() {
        let mut sources = Sources::default();
        let (flood, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let at = |millis| BootTime::from_nanos(1_000_000_000) + Duration::from_millis(millis);
        let begun = (0..1000).filter(|_| sources.admit(flood, at(0))).count();
        assert_eq!(begun, BURST_MAX as usize);
        assert!(sources.admit(other, at(0)));
        let begun = (0..1000).filter(|millis| sources.admit(flood, at(*millis))).count();
        assert_eq!(begun, 19, "twenty a second, the first after 50 ms");
    }

    #[test]
    fn many_sources_cost_bounded_memory() {
        let mut sources = Sources::default();
        for number in 0..3 * SOURCES_MAX as u32 {
            assert!(sources.admit(IpAddr::V4(number.into()), BootTime::from_nanos(u64::from(number))));
        }
        assert!(sources.0.len() <= SOURCES_MAX);
    }

    #[test]
    fn a_network_of_ipv6_is_one_source_and_a_mapped_address_is_what_it_maps() {
        let of = |text: &str| source(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
