//! The certificates that this member lives by, and what TLS makes of them. They are read again when their
//! files change; connections that are made from then on use the new ones, and those that are open go on.
//!
//! Invariant: what is in use names this member and is signed by the authority that it came with. Files
//! that are not so are left aside.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, CertificateError as Flaw, ClientConfig, RootCertStore, ServerConfig};

use super::dial::Toward;
use super::refusals::Refusals;
use crate::base::ids::NodeId;
use crate::base::time::{BootTime, WallTime};
use crate::cluster::certificates::{Bearer, CertificateError, Facts, read_certificates, read_key};
use crate::config::Tls;

/// Between two looks at the files. They are read once they have stayed the same from one look to the next:
/// certificate and key are replaced one after the other.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A certificate that is valid for no longer is told of, at start and once a day.
pub const EXPIRY_NEAR: Duration = Duration::from_secs(30 * 86_400);
const REMIND_EVERY: Duration = Duration::from_secs(86_400);
/// HTTP/2, which is all that is spoken.
const ALPN: &[u8] = b"h2";

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{0}")]
    File(CertificateError),
    #[error("{path}: {reason}")]
    Named { path: PathBuf, reason: CertificateError },
    #[error("{path} names {found}, this is member {me}; issue one with baton cert issue {me}")]
    OfAnother { path: PathBuf, found: Bearer, me: NodeId },
    #[error(
        "{path} names {found}, who gives no orders; name the certificate of an admin, as baton cert issue --admin NAME \
         makes it"
    )]
    OfNoAdmin { path: PathBuf, found: Bearer },
    #[error("{path} expired at {until}; issue a new one with baton cert issue {whose} --replace")]
    Expired { path: PathBuf, until: WallTime, whose: String },
    #[error("{path} is not signed by the authority in {authority}, so no member would listen: {reason}")]
    NotSigned { path: PathBuf, authority: PathBuf, reason: rustls::Error },
    #[error("{path} holds no usable authority: {reason}")]
    BadAuthority { path: PathBuf, reason: String },
    #[error("{cert} and {key} do not belong together: {reason}")]
    NoPair { cert: PathBuf, key: PathBuf, reason: rustls::Error },
}

impl From<CertificateError> for TlsError {
    fn from(error: CertificateError) -> Self {
        TlsError::File(error)
    }
}

/// Clones share what is in use.
#[derive(Clone)]
pub struct Certificates {
    files: Arc<Tls>,
    me: NodeId,
    in_use: Arc<watch::Sender<InUse>>,
    pub(super) refusals: Arc<Refusals>,
    /// The state of the files when they were read at start.
    read_first: Arc<Stamps>,
}

#[derive(Clone)]
struct InUse {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    until: WallTime,
}

impl Certificates {
    /// # Errors
    /// What is wrong with the files. A certificate that has expired is refused as well: nobody would listen.
    pub fn read(files: &Tls, me: &NodeId) -> Result<Certificates, TlsError> {
        // What is replaced from here on is noticed.
        let read_first = stamps(files);
        let in_use = read(files, me)?;
        Ok(Certificates {
            files: Arc::new(files.clone()),
            me: me.clone(),
            in_use: Arc::new(watch::Sender::new(in_use)),
            refusals: Arc::default(),
            read_first: Arc::new(read_first),
        })
    }

    /// For a channel to `peer`.
    pub fn toward(&self, peer: &NodeId) -> Toward {
        Toward { certificates: self.clone(), peer: peer.clone() }
    }

    /// When this member's own certificate stops being valid.
    pub fn valid_until(&self) -> WallTime {
        self.in_use.borrow().until
    }

    /// What an operator should know of a certificate that is valid for a month or less.
    pub fn expiry_warning(&self) -> Option<String> {
        let (until, me) = (self.valid_until(), &self.me);
        let left = until.since(WallTime::now());
        let days = left.as_secs() / 86_400;
        (left <= EXPIRY_NEAR).then(|| {
            format!(
                "{} is valid until {until} ({days} days), and no member listens afterwards; issue a new one with baton \
                 cert issue {me} --replace",
                self.files.cert.display()
            )
        })
    }

    /// Connections that were turned away or given up while TLS was set up, since start.
    pub fn refused(&self) -> u64 {
        self.refusals.count()
    }

    /// Takes changed files up. Ends never.
    pub async fn follow_files(self) {
        let mut read_last = (*self.read_first).clone();
        let mut seen = read_last.clone();
        let mut reminded_at = BootTime::now();
        loop {
            sleep(BootTime::now().until_multiple_of(LOOK_EVERY)).await;
            if BootTime::now().since(reminded_at) >= REMIND_EVERY
                && let Some(warning) = self.expiry_warning()
            {
                reminded_at = BootTime::now();
                tracing::warn!("{warning}");
            }
            let files = self.files.clone();
            let now = blocking(move || stamps(&files)).await;
            let settled = now == seen;
            seen = now;
            if settled && seen != read_last {
                read_last.clone_from(&seen);
                self.read_again().await;
            }
        }
    }

    async fn read_again(&self) {
        let (files, me) = (self.files.clone(), self.me.clone());
        match blocking(move || read(&files, &me)).await {
            Ok(new) => {
                tracing::info!(until = %new.until, "the certificates were replaced; new connections use them");
                self.in_use.send_replace(new);
            }
            Err(error) => {
                let until = self.valid_until();
                tracing::warn!(%until, "the new certificates are left aside, the earlier ones stay in use: {error}");
            }
        }
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.in_use.borrow().server.clone()
    }

    pub(super) fn client(&self) -> Arc<ClientConfig> {
        self.in_use.borrow().client.clone()
    }
}

/// The stamps of all three files; `None` for one that is not there.
type Stamps = [Option<Stamp>; 3];

fn stamps(files: &Tls) -> Stamps {
    [&files.ca, &files.cert, &files.key].map(|path| Stamp::of(path))
}

/// What differs between two states of a file. Times alone do not: copies may keep them.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    inode: u64,
    bytes: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let found = std::fs::metadata(path).ok()?;
        Some(Stamp {
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
            inode: found.ino(),
            bytes: found.len(),
        })
    }
}

/// A disk that hangs holds up no heartbeat.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("reading files does not panic")
}

fn read(files: &Tls, me: &NodeId) -> Result<InUse, TlsError> {
    let loaded = Loaded::read(files, |found| {
        let of_another = || TlsError::OfAnother { path: files.cert.clone(), found: found.clone(), me: me.clone() };
        if *found == Bearer::Member(me.clone()) { Ok(()) } else { Err(of_another()) }
    })?;
    let (client, until) = (loaded.client()?, loaded.facts.until);
    let mut server = ServerConfig::builder_with_provider(loaded.provider.clone())
        .with_protocol_versions(&[&TLS13])
        .and_then(|builder| {
            let builder = builder.with_client_cert_verifier(loaded.verifier.clone());
            builder.with_single_cert(loaded.chain.clone(), loaded.private.clone_key())
        })
        .map_err(|reason| loaded.no_pair(reason))?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would not look at the peer's certificate again.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(InUse { server: Arc::new(server), client: Arc::new(client), until })
}

/// What the files hold: a certificate that the authority stands for now.
pub(super) struct Loaded<'a> {
    files: &'a Tls,
    pub(super) facts: Facts,
    chain: Vec<CertificateDer<'static>>,
    private: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Loaded<'_> {
    /// With `check` of whom the certificate names.
    pub(super) fn read(
        files: &Tls,
        check: impl FnOnce(&Bearer) -> Result<(), TlsError>,
    ) -> Result<Loaded<'_>, TlsError> {
        let Tls { ca, cert, key } = files;
        let chain = read_certificates(cert)?;
        let facts = Facts::read(&chain[0]).map_err(|reason| TlsError::Named { path: cert.clone(), reason })?;
        check(&facts.bearer)?;
        let private = read_key(key)?;

        let bad_authority = |reason: String| TlsError::BadAuthority { path: ca.clone(), reason };
        let mut roots = RootCertStore::empty();
        for authority in read_certificates(ca)? {
            roots.add(authority).map_err(|error| bad_authority(error.to_string()))?;
        }
        let (provider, roots) = (Arc::new(ring::default_provider()), Arc::new(roots));
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error: VerifierBuilderError| bad_authority(error.to_string()))?;
        verifier.verify_client_cert(&chain[0], &chain[1..], UnixTime::now()).map_err(|reason| match reason {
            rustls::Error::InvalidCertificate(Flaw::Expired | Flaw::ExpiredContext { .. }) => {
                TlsError::Expired { path: cert.clone(), until: facts.until, whose: facts.bearer.argument() }
            }
            reason => TlsError::NotSigned { path: cert.clone(), authority: ca.clone(), reason },
        })?;
        Ok(Loaded { files, facts, chain, private, roots, provider, verifier })
    }

    /// For the calling end, which trusts the authority and shows the certificate.
    pub(super) fn client(&self) -> Result<ClientConfig, TlsError> {
        let mut client = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| {
                let builder = builder.with_root_certificates(self.roots.clone());
                builder.with_client_auth_cert(self.chain.clone(), self.private.clone_key())
            })
            .map_err(|reason| self.no_pair(reason))?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(client)
    }

    fn no_pair(&self, reason: rustls::Error) -> TlsError {
        TlsError::NoPair { cert: self.files.cert.clone(), key: self.files.key.clone(), reason }
    }
}
