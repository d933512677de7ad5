//! The calling end under TLS: nothing is said before the other end has proven that it is the member that
//! was dialled. An address proves nothing: it may be mistyped, or lead elsewhere tomorrow.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;

use super::certificates::Certificates;
use crate::base::ids::NodeId;
use crate::cluster::certificates::{Bearer, CertificateError, Facts};

/// Whom a channel leads to, and the certificates to show there.
#[derive(Clone)]
pub struct Toward {
    pub(super) certificates: Certificates,
    pub(super) peer: NodeId,
}

#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("connect to {addr}: {source}")]
    Connect { addr: String, source: io::Error },
    #[error("{addr} has no host that a certificate could be for")]
    NoHost { addr: String },
    #[error("TLS with {peer} at {addr}: {source}")]
    Handshake { peer: NodeId, addr: String, source: io::Error },
    #[error("{addr} is to be member {peer}, but its certificate names {found}; check the addresses of the members")]
    AnotherOne { peer: NodeId, addr: String, found: Bearer },
    #[error("{addr} is to be member {peer}: {source}")]
    NotNamed { peer: NodeId, addr: String, source: CertificateError },
}

impl Toward {
    async fn connect(&self, addr: &str) -> Result<TlsStream<TcpStream>, DialError> {
        let (peer, addr_text) = (self.peer.clone(), addr.to_owned());
        let failed = |source| DialError::Connect { addr: addr_text.clone(), source };
        let stream = TcpStream::connect(addr).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let name = server_name(addr).ok_or_else(|| DialError::NoHost { addr: addr_text.clone() })?;
        let stream = TlsConnector::from(self.certificates.client()).connect(name, stream).await;
        let stream = stream.map_err(|source| DialError::Handshake { peer, addr: addr_text, source })?;
        self.check(&stream, addr)?;
        Ok(stream)
    }

    /// The authority and the address have been checked by TLS.
    fn check(&self, stream: &TlsStream<TcpStream>, addr: &str) -> Result<(), DialError> {
        let (peer, addr) = (self.peer.clone(), addr.to_owned());
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        match Facts::read(certificate.map_or(&[], |certificate| certificate)) {
            Ok(Facts { bearer: Bearer::Member(found), .. }) if found == peer => Ok(()),
            Ok(Facts { bearer: found, .. }) => Err(DialError::AnotherOne { peer, addr, found }),
            Err(source) => Err(DialError::NotNamed { peer, addr, source }),
        }
    }
}

pub(super) fn server_name(addr: &str) -> Option<ServerName<'static>> {
    let (host, _port) = addr.rsplit_once(':')?;
    ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned()).ok()
}

/// Makes the connections of one channel.
pub(super) struct Connector {
    addr: String,
    toward: Toward,
}

impl Connector {
    pub(super) fn new(addr: &str, toward: Toward) -> Connector {
        Connector { addr: addr.to_owned(), toward }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    /// The time for it is bounded by the channel.
    fn call(&mut self, _: Uri) -> Self::Future {
        let (addr, toward) = (self.addr.clone(), self.toward.clone());
        Box::pin(async move { Ok(TokioIo::new(toward.connect(&addr).await?)) })
    }
}
