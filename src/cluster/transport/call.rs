//! The calling end of an admin, on whatever machine: one connection to a member under TLS, looked at before
//! anything is asked. `cli` uses it and nothing else; members dial each other in `dial.rs`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{self, ClientConfig};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use super::certificates::{Loaded, TlsError};
use super::dial::server_name;
use crate::cluster::certificates::{Bearer, Facts};
use crate::config::Tls;

/// What an admin shows, and whom he believes.
pub struct Credentials {
    config: Arc<ClientConfig>,
}

/// Why a member is not asked. The address that was dialled stands in front of it.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("it is not HOST:PORT")]
    NoHost,
    #[error("{0}; is baton run up there?")]
    Connect(io::Error),
    #[error(
        "what listens there does not speak TLS ({0}); a coordinator without [tls] takes orders on its own host alone"
    )]
    NoTls(rustls::Error),
    #[error("what listens there is not proven to be of this cluster: {0}; check the address and the authority")]
    NotProven(rustls::Error),
    #[error("its certificate names {0}, who is no member; check the address")]
    NoMember(Bearer),
    #[error("its certificate names no member: {0}")]
    Nameless(crate::cluster::certificates::CertificateError),
    #[error("it does not take this certificate: {0}")]
    TurnedAway(io::Error),
    #[error("TLS: {0}")]
    Handshake(io::Error),
    #[error("it has closed the connection; it may be stopping, or have too many connections of admins")]
    Closed,
    #[error("{0}")]
    Channel(tonic::transport::Error),
}

impl Credentials {
    /// # Errors
    /// What is wrong with the files; the certificate of a member is none of an admin.
    pub fn read(files: &Tls) -> Result<Credentials, TlsError> {
        let loaded = Loaded::read(files, |found| match found {
            Bearer::Admin(_) => Ok(()),
            Bearer::Member(_) => Err(TlsError::OfNoAdmin { path: files.cert.clone(), found: found.clone() }),
        })?;
        Ok(Credentials { config: Arc::new(loaded.client()?) })
    }

    /// A channel to the member at `addr`, of one connection that is open and that the member has taken.
    pub async fn call(&self, addr: &str) -> Result<Channel, CallError> {
        let stream = self.connect(addr).await?;
        let endpoint = Endpoint::from_shared(format!("https://{addr}")).map_err(CallError::Channel)?;
        endpoint.connect_with_connector(Made(Some(stream))).await.map_err(CallError::Channel)
    }

    async fn connect(&self, addr: &str) -> Result<TlsStream<TcpStream>, CallError> {
        let name = server_name(addr).ok_or(CallError::NoHost)?;
        let stream = TcpStream::connect(addr).await.map_err(CallError::Connect)?;
        stream.set_nodelay(true).map_err(CallError::Connect)?;
        let mut stream = TlsConnector::from(self.config.clone()).connect(name, stream).await.map_err(failed)?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        match Facts::read(certificate.map_or(&[], |certificate| certificate)) {
            Ok(Facts { bearer: Bearer::Member(_), .. }) => {}
            Ok(Facts { bearer, .. }) => return Err(CallError::NoMember(bearer)),
            Err(error) => return Err(CallError::Nameless(error)),
        }
        // Under TLS 1.3 we are done before the member has looked at our certificate. Over HTTP/2 it speaks first.
        let spoken = stream.fill_buf().await.map(|first| !first.is_empty()).map_err(failed)?;
        if spoken { Ok(stream) } else { Err(CallError::Closed) }
    }
}

fn failed(error: io::Error) -> CallError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(flaw @ (rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. })) => {
            CallError::NoTls(flaw.clone())
        }
        Some(flaw @ rustls::Error::InvalidCertificate(_)) => CallError::NotProven(flaw.clone()),
        Some(rustls::Error::AlertReceived(_)) => CallError::TurnedAway(error),
        _ if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => CallError::Closed,
        _ => CallError::Handshake(error),
    }
}

/// Gives the connection away once: what was ordered over it is not to be ordered again over another.
struct Made(Option<TlsStream<TcpStream>>);

impl Service<Uri> for Made {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let made = self.0.take().map(TokioIo::new);
        Box::pin(async move { made.ok_or_else(|| io::Error::other("the connection was lost")) })
    }
}
