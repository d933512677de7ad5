//! One GET over HTTP/1.1 or HTTPS, redirects followed, up to the headers of the answer. Every wait is bounded and ends
//! when the download is not wanted any more. No proxies and no users; TLS 1.3 alone, as everywhere in baton. Probes have a
//! client of their own: it keeps one connection to this host, and knows neither TLS nor redirects.

use std::io;
use std::sync::{Arc, OnceLock};

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT_ENCODING, HOST, HeaderMap, HeaderName, LOCATION, USER_AGENT};
use hyper::rt::{Read, Write};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::source::{short, shown, with_path, without_secrets};
use super::watch::{Cut, Unwanted, Watch};
use super::{ObtainError, Patience};

const REDIRECTS_MAX: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("cannot reach {server}: {reason}")]
    Connect { server: String, reason: io::Error },
    #[error("{server} did not answer within {seconds} s")]
    Late { server: String, seconds: f32 },
    #[error(
        "{server} is not trusted: {reason}; if its certificate is from an authority of your own, add that to this host's CA \
         certificates or name a bundle with it in SSL_CERT_FILE"
    )]
    Untrusted { server: String, reason: rustls::Error },
    #[error(
        "this host has no CA certificates to tell {server} by{reason}; install the package ca-certificates, or name a bundle \
         in SSL_CERT_FILE (a container made from nothing has none: mount one)"
    )]
    NoAuthorities { server: String, reason: String },
    #[error("cannot speak TLS 1.3 with {server}: {reason}")]
    Tls { server: String, reason: rustls::Error },
    #[error("{url} answers {status}; check the address, or put the binary in its place by hand")]
    Status { url: String, status: StatusCode },
    #[error("{url} has another file than the one that came in part; that part was removed")]
    OtherFile { url: String },
    #[error("the connection to {server} broke after {got} bytes: {reason}")]
    Broken { server: String, got: u64, reason: String },
    #[error("{server} sent nothing for {seconds} s, after {got} bytes")]
    Stalled { server: String, got: u64, seconds: f32 },
    #[error("{url} leads to {to:?}, which is no address to follow: {reason}")]
    BadRedirect { url: String, to: String, reason: String },
    #[error("{url} leads away from https, to {to}; that is not followed")]
    Downgrade { url: String, to: String },
    #[error("{url}: more than {REDIRECTS_MAX} redirects")]
    TooManyRedirects { url: String },
}

impl HttpError {
    /// Whether it may be different a little later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            HttpError::Connect { .. }
            | HttpError::Late { .. }
            | HttpError::OtherFile { .. }
            | HttpError::Broken { .. }
            | HttpError::Stalled { .. } => true,
            HttpError::Status { status, .. } => {
                status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
            HttpError::Untrusted { .. }
            | HttpError::NoAuthorities { .. }
            | HttpError::Tls { .. }
            | HttpError::BadRedirect { .. }
            | HttpError::Downgrade { .. }
            | HttpError::TooManyRedirects { .. } => false,
        }
    }
}

pub(super) struct Client {
    pub(super) patience: Patience,
    /// Read from the host's files when the first server asks for it.
    tls: OnceLock<Arc<ClientConfig>>,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Incoming,
    /// The last address asked.
    pub(super) url: String,
    pub(super) server: String,
    /// The body comes through it.
    _connection: Connection,
}

struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    pub(super) fn new(patience: Patience) -> Client {
        Client { patience, tls: OnceLock::new() }
    }

    pub(super) async fn get(
        &self,
        from: &Uri,
        headers: &[(HeaderName, String)],
        watch: &mut Watch<'_>,
    ) -> Result<Answer, ObtainError> {
        let mut uri = from.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.ask(&uri, headers, watch).await?;
            match answer.headers.get(LOCATION) {
                Some(to) if answer.status.is_redirection() => {
                    uri = follow(&uri, &String::from_utf8_lossy(to.as_bytes()))?
                }
                Some(_) | None => return Ok(answer),
            }
        }
        Err(HttpError::TooManyRedirects { url: shown(from) }.into())
    }

    async fn ask(
        &self,
        uri: &Uri,
        headers: &[(HeaderName, String)],
        watch: &mut Watch<'_>,
    ) -> Result<Answer, ObtainError> {
        let is_https = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let authority = uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::get(path)
            .header(HOST, &authority)
            .header(USER_AGENT, concat!("baton/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT_ENCODING, "identity");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Empty::new()).map_err(|error| HttpError::BadRedirect {
            url: shown(uri),
            to: short(path),
            reason: error.to_string(),
        })?;

        let stream = self.connect(&host, port, &authority, watch).await?;
        let (mut sender, connection) = if is_https {
            let connector = TlsConnector::from(self.tls(&authority)?);
            let name = ServerName::try_from(host.clone()).map_err(|_| HttpError::Connect {
                server: authority.clone(),
                reason: io::Error::other("no name that a certificate can have"),
            })?;
            let stream = self.bounded(&authority, watch, connector.connect(name, stream)).await?;
            self.speak(TokioIo::new(stream.map_err(|error| tls_error(&authority, error))?), &authority).await?
        } else {
            self.speak(TokioIo::new(stream), &authority).await?
        };
        match watch.within(self.patience.stall, sender.send_request(request)).await {
            Ok(Ok(answer)) => {
                let (head, body) = answer.into_parts();
                Ok(Answer {
                    status: head.status,
                    headers: head.headers,
                    body,
                    url: shown(uri),
                    server: authority,
                    _connection: connection,
                })
            }
            Ok(Err(reason)) => Err(HttpError::Broken { server: authority, got: 0, reason: causes(&reason) }.into()),
            Err(Cut::Late) => {
                Err(HttpError::Late { server: authority, seconds: self.patience.stall.as_secs_f32() }.into())
            }
            Err(Cut::Unwanted) => Err(Unwanted.into()),
        }
    }

    /// Tries one address of the host after the other.
    async fn connect(
        &self,
        host: &str,
        port: u16,
        server: &str,
        watch: &mut Watch<'_>,
    ) -> Result<TcpStream, ObtainError> {
        let no_way = |reason: io::Error| HttpError::Connect { server: server.to_owned(), reason };
        let found = self.bounded(server, watch, tokio::net::lookup_host((host, port))).await?;
        let mut last = ObtainError::from(no_way(io::Error::other("its name has no address")));
        for address in found.map_err(no_way)? {
            match watch.within(self.patience.connect, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(reason)) => last = no_way(reason).into(),
                Err(Cut::Late) => last = self.late(server).into(),
                Err(Cut::Unwanted) => return Err(Unwanted.into()),
            }
        }
        Err(last)
    }

    async fn speak<S: Read + Write + Unpin + Send + 'static>(
        &self,
        stream: S,
        server: &str,
    ) -> Result<(SendRequest<Empty<Bytes>>, Connection), ObtainError> {
        let (sender, connection) = http1::handshake(stream).await.map_err(|reason| HttpError::Broken {
            server: server.to_owned(),
            got: 0,
            reason: causes(&reason),
        })?;
        let task = tokio::spawn(async move {
            // What ends it is told to whoever reads the answer.
            let _ = connection.await;
        });
        Ok((sender, Connection(task)))
    }

    async fn bounded<T>(
        &self,
        server: &str,
        watch: &mut Watch<'_>,
        work: impl Future<Output = T>,
    ) -> Result<T, ObtainError> {
        watch.within(self.patience.connect, work).await.map_err(|cut| match cut {
            Cut::Late => self.late(server).into(),
            Cut::Unwanted => Unwanted.into(),
        })
    }

    fn late(&self, server: &str) -> HttpError {
        HttpError::Late { server: server.to_owned(), seconds: self.patience.connect.as_secs_f32() }
    }

    fn tls(&self, server: &str) -> Result<Arc<ClientConfig>, HttpError> {
        if let Some(ready) = self.tls.get() {
            return Ok(ready.clone());
        }
        let loaded = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(loaded.certs);
        if added == 0 {
            let reason = loaded.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
            return Err(HttpError::NoAuthorities { server: server.to_owned(), reason });
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(|reason| HttpError::Tls { server: server.to_owned(), reason })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(self.tls.get_or_init(|| Arc::new(config)).clone())
    }
}

fn tls_error(server: &str, error: io::Error) -> HttpError {
    let server = server.to_owned();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).cloned();
    match inner {
        Some(reason @ rustls::Error::InvalidCertificate(_)) => HttpError::Untrusted { server, reason },
        Some(reason) => HttpError::Tls { server, reason },
        None => HttpError::Connect { server, reason: error },
    }
}

/// An error with what it comes from; hyper's own words leave that out.
pub(super) fn causes(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Where an answer with this `Location` sends whoever asked for `from`.
fn follow(from: &Uri, location: &str) -> Result<Uri, HttpError> {
    let bad =
        |reason: String| HttpError::BadRedirect { url: shown(from), to: short(without_secrets(location)), reason };
    let scheme = from.scheme_str().unwrap_or("https");
    let parse = |text: &str| text.parse::<Uri>().map_err(|error| bad(error.to_string()));
    let to = if location.starts_with("//") {
        parse(&format!("{scheme}:{location}"))?
    } else if location.starts_with('/') {
        with_path(from, location).map_err(bad)?
    } else if location.contains("://") {
        parse(location)?
    } else {
        let (folder, _) = from.path().rsplit_once('/').unwrap_or_default();
        with_path(from, &format!("{folder}/{location}")).map_err(bad)?
    };
    match (scheme, to.scheme_str()) {
        (_, Some("https")) | ("http", Some("http")) => {}
        ("https", Some("http")) => return Err(HttpError::Downgrade { url: shown(from), to: shown(&to) }),
        (_, Some(_) | None) => return Err(bad("only http and https are spoken".to_owned())),
    }
    if to.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return Err(bad("it has a user in it, or no host".to_owned()));
    }
    Ok(to)
}
