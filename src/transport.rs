//! How members reach each other: one gRPC channel a peer, with or without TLS. Who may speak and what
//! is said is decided above.

mod door;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};

pub use self::door::{Door, Limits, Visit, Visitor};
use crate::config::Tls;
use crate::timing::Timing;

/// Largest message that a member sends or accepts, in bytes. A snapshot is the largest.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("read {path}: {source}; check [tls] in the configuration")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("address {addr} of a member is not usable: {source}")]
    BadAddress { addr: String, source: tonic::transport::Error },
}

/// Certificates of this member, read once at start.
#[derive(Clone)]
pub struct TlsFiles {
    ca: Certificate,
    identity: Identity,
}

impl TlsFiles {
    pub fn read(tls: &Tls) -> Result<TlsFiles, TransportError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| TransportError::Unreadable { path: path.clone(), source })
        };
        Ok(TlsFiles {
            ca: Certificate::from_pem(read(&tls.ca)?),
            identity: Identity::from_pem(read(&tls.cert)?, read(&tls.key)?),
        })
    }

    /// Peers must present a certificate of the same authority.
    pub fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new().identity(self.identity.clone()).client_ca_root(self.ca.clone())
    }

    fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().ca_certificate(self.ca.clone()).identity(self.identity.clone())
    }
}

/// A channel that connects when it is first used, and again after a loss. A peer that stops answering
/// is noticed within a lease, so that a healed network is not waited for on a dead connection.
pub fn channel(addr: &str, tls: Option<&TlsFiles>, timing: &Timing) -> Result<Channel, TransportError> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let bad = |source| TransportError::BadAddress { addr: addr.to_string(), source };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{addr}"))
        .map_err(bad)?
        .connect_timeout(timing.lease() / 2)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(timing.lease() / 2)
        .keep_alive_timeout(timing.lease() / 2)
        .keep_alive_while_idle(true);
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls.client()).map_err(bad)?;
    }
    Ok(endpoint.connect_lazy())
}

/// Of a member's port. Its peers keep one each, and a few more while they restart.
const CONNECTIONS_MAX: usize = 128;
/// Requests that one peer may have under way.
const STREAMS_MAX: u32 = 64;
/// Refused requests after which a connection is cut off. A peer that heeds what we say has none.
const REFUSALS_MAX: usize = 32;
/// What one connection may send before it is read: room for the largest message.
const WINDOW_BYTES: u32 = 2 * MESSAGE_BYTES_MAX as u32;
/// Of one request.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// Connections of peers, who ping twice a lease. Without `nodelay` on this end too, an answer waits up to 40 ms for
/// the acknowledgement of the one before.
pub fn incoming(listener: TcpListener, timing: &Timing) -> impl Stream<Item = io::Result<Visit<TcpStream>>> + use<> {
    let door = Door::new(Limits { connections_max: CONNECTIONS_MAX, silence_max: 3 * timing.lease() });
    let streams = TcpIncoming::from(listener).with_nodelay(Some(true));
    streams.map(move |stream| stream.map(|stream| door.admit(stream)))
}

/// Bounds on what one peer may ask of this server.
pub fn server(timing: &Timing) -> tonic::transport::Server {
    bounded_server(timing.lease()).timeout(timing.lease().max(Duration::from_secs(1)))
}

/// Bounds on what one client may ask of any of our servers; one that does not answer a ping within `ping` is cut off.
pub fn bounded_server(ping: Duration) -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .concurrency_limit_per_connection(STREAMS_MAX as usize)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_local_error_reset_streams(Some(REFUSALS_MAX))
        .http2_max_pending_accept_reset_streams(Some(REFUSALS_MAX))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(ping))
        .http2_keepalive_timeout(Some(ping))
}
