//! How members reach each other: one gRPC channel a peer, under mutual TLS or in the clear, and on both
//! ends the name that the other one's certificate proves. Whether that name may speak, and what is said, is
//! decided above.
//!
//! Whoever reaches the port of a member can open connections, so everything is bounded. The door has 128 places; a
//! new connection displaces the oldest one that has not proven to be a member's. Handshakes run on threads of their
//! own (`handshakes`). A connection ends after three leases of silence. It may have 64 requests and 2 MiB under way,
//! 1 MiB a message, 16 KiB of headers, and a request may take one lease. The admin socket has the same door with 64
//! places, admins on other machines one with 32 and 16 requests each.

mod accept;
mod call;
mod certificates;
mod dial;
mod door;
mod handshakes;
mod reason;
mod refusals;

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

pub use accept::{Caller, Connection, Entrance, Speaker, incoming};
pub use call::{CallError, Credentials};
pub use certificates::{Certificates, EXPIRY_NEAR, TlsError};
pub use dial::Toward;
pub use door::{Door, Limits, Visit, Visitor};
pub use handshakes::{BURST_MAX, HANDSHAKE_MAX, HANDSHAKES_MAX, Homes};
pub use reason::{cause, reason};

use crate::base::timing::Timing;

/// Largest message that a member sends or accepts, in bytes. A snapshot is the largest.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Requests that one peer may have under way.
const STREAMS_MAX: u32 = 64;
/// Refused requests after which a connection is cut off. A peer that heeds what we say has none.
const REFUSALS_MAX: usize = 32;
/// What one connection may send before it is read: room for the largest message.
const WINDOW_BYTES: u32 = 2 * MESSAGE_BYTES_MAX as u32;
/// Longest head of one request.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("address {addr} of a member is not usable: {source}")]
    BadAddress { addr: String, source: tonic::transport::Error },
}

/// A channel that connects when it is first used, and again after a loss. With `toward` it speaks to nobody
/// but that member, whatever `addr` leads to. A peer that stops answering is noticed within a lease, so
/// that a healed network is not waited for on a dead connection.
pub fn channel(addr: &str, toward: Option<Toward>, timing: &Timing) -> Result<Channel, TransportError> {
    let scheme = if toward.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{addr}"))
        .map_err(|source| TransportError::BadAddress { addr: addr.to_string(), source })?
        .connect_timeout(timing.lease() / 2)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(timing.lease() / 2)
        .keep_alive_timeout(timing.lease() / 2)
        .keep_alive_while_idle(true);
    Ok(match toward {
        Some(toward) => endpoint.connect_with_connector_lazy(dial::Connector::new(addr, toward)),
        None => endpoint.connect_lazy(),
    })
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
