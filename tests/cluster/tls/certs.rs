//! Certificates in a directory of the test's own, members that serve under them, and bare TLS clients.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use baton::base::ids::NodeId;
use baton::base::time::{BootTime, WallTime};
use baton::base::timing::Timing;
use baton::cluster::certificates::{Authority, Bearer, Validity};
use baton::cluster::identity::{Identity, Known};
use baton::cluster::roster::Roster;
use baton::cluster::transport::{self, Certificates, Entrance, Homes};
use baton::cluster::wire::proto::order_request::Order;
use baton::cluster::wire::proto::relay_client::RelayClient;
use baton::cluster::wire::proto::{OrderRequest, RelayedOrder, SetPause};
use baton::config::{self, Tls};
use baton::operator::admin::{self, Ask};
use baton::operator::order::Answer;
use baton::operator::relay::Relay;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::Status;

/// Longer than anything takes that is going to happen at all.
pub const LONG: Duration = Duration::from_secs(30);
pub const CLUSTER: &str = "net";
/// What a client of HTTP/2 says first, with an empty SETTINGS frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// `baton` with these arguments, run to its end.
pub fn baton(args: &[&str]) -> Output {
    baton_with(args, &[])
}

/// As [`baton`], with `variables` and no other one of ours.
pub fn baton_with(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = crate::kit::program::baton(args);
    command.envs(variables.iter().copied()).stdin(Stdio::null()).output().expect("the baton program starts")
}

/// An authority and what it has issued.
pub struct Certs {
    dir: TempDir,
}

impl Certs {
    pub fn new() -> Certs {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Authority::create(dir.path(), Validity::days(10)).expect("an authority");
        Certs { dir }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The files of `id`, made if need be.
    pub fn of(&self, id: &str) -> Tls {
        let tls = self.files(id);
        if !tls.cert.exists() {
            self.issue(&Bearer::member(id).expect("a plain id"), Validity::days(5));
        }
        tls
    }

    pub fn issue(&self, bearer: &Bearer, validity: Validity) {
        let hosts = ["127.0.0.1".to_owned()];
        Authority::open(self.dir()).expect("our own").issue(bearer, &hosts, validity, true).expect("a certificate");
    }

    pub fn files(&self, name: &str) -> Tls {
        let path = |file: String| -> PathBuf { self.dir().join(file) };
        Tls { ca: path("ca.pem".into()), cert: path(format!("{name}.pem")), key: path(format!("{name}.key")) }
    }

    /// The files of admin `name`, made if need be.
    pub fn of_admin(&self, name: &str) -> Tls {
        let tls = self.files(&format!("admin-{name}"));
        if !tls.cert.exists() {
            self.issue(&Bearer::admin(name).expect("a plain name"), Validity::days(5));
        }
        tls
    }

    pub fn certificates(&self, id: &str) -> Certificates {
        Certificates::read(&self.of(id), &id.into()).expect("good certificates")
    }
}

/// A day that is over.
pub fn expired() -> Validity {
    let ago = |hours: u64| WallTime::from_nanos(WallTime::now().as_nanos() - hours * 3_600_000_000_000);
    Validity { from: ago(48), until: ago(24) }
}

pub fn identity(me: &str) -> Arc<Identity> {
    Arc::new(Identity::new(CLUSTER, me.into(), 1, Known::listed(["a", "b", "c"].map(NodeId::from))))
}

/// It has nobody to pass anything on to.
fn alone(me: &str) -> Arc<Roster> {
    let cluster = config::Cluster {
        name: CLUSTER.into(),
        listen: ([127, 0, 0, 1], 1).into(),
        members: Vec::new(),
        failback: false,
    };
    Roster::new(me.into(), &cluster, watch::channel(Arc::default()).1, None, unhurried())
}

/// A member that takes orders from others and from admins, and does nothing; all ends with it.
pub struct Served {
    pub addr: String,
    pub certificates: Certificates,
    pub asked: mpsc::Receiver<Ask>,
    _tasks: JoinSet<()>,
    _run_dir: TempDir,
}

pub async fn serve(id: &str, certs: &Certs) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address").to_string();
    let certificates = certs.certificates(id);
    let (asks, asked) = mpsc::channel(64);
    let relay = Relay::new(identity(id), alone(id)).service(asks.clone());
    let server = transport::server(&unhurried()).add_service(relay).add_service(admin::NotHere);
    let (admins, callers) = mpsc::channel(16);
    let entrance = Entrance { certificates: certificates.clone(), admins, homes: Homes::default() };
    entrance.homes.add([127, 0, 0, 1].into());
    let incoming = transport::incoming(listener, Some(entrance), &unhurried());
    let run_dir = tempfile::tempdir().expect("a temporary directory");
    let socket = admin::bind(run_dir.path()).expect("bound");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { server.serve_with_incoming(incoming).await.expect("it serves") });
    tasks.spawn(admin::serve(socket, callers, asks));
    Served { addr, certificates, asked, _tasks: tasks, _run_dir: run_dir }
}

/// With time for everything on a busy machine.
pub fn unhurried() -> Timing {
    Timing::new(Duration::from_secs(1), 2 * LONG, Duration::from_millis(50), 1000).expect("safe")
}

/// Somebody who has `certificates` gives an order to `to`, which is to be at `addr`, as member `name`.
pub async fn order(name: &str, certificates: &Certificates, to: &str, addr: &str) -> Result<String, Status> {
    let toward = Some(certificates.toward(&to.into()));
    let channel = transport::channel(addr, toward, &unhurried()).expect("an address");
    let order = OrderRequest { order: Some(Order::Pause(SetPause { on: true, at_ns: 0 })) };
    let request = RelayedOrder { sender: Some((&identity(name).me()).into()), order: Some(order) };
    match RelayClient::new(channel).order(request).await?.into_inner().answer {
        Some(Answer::Done(done)) => Ok(done),
        other => panic!("{other:?}"),
    }
}

/// All that an error says, its causes too.
pub fn causes(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A connection of whoever has `files`, which may be anybody's; it trusts `ca`.
pub async fn connect(addr: &str, files: Option<&Tls>, ca: &Path) -> std::io::Result<TlsStream<TcpStream>> {
    connect_over(TcpStream::connect(addr).await?, files, ca).await
}

/// The same over `stream`, on which nothing was said yet.
pub async fn connect_over(stream: TcpStream, files: Option<&Tls>, ca: &Path) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in baton::cluster::certificates::read_certificates(ca).expect("an authority") {
        roots.add(certificate).expect("an authority");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots);
    let mut config = match files {
        Some(files) => builder
            .with_client_auth_cert(
                baton::cluster::certificates::read_certificates(&files.cert).expect("a certificate"),
                baton::cluster::certificates::read_key(&files.key).expect("a key"),
            )
            .expect("a pair"),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Each of `visitors` is turned away by `member` with its alert, and counted.
pub async fn are_refused(member: &Served, ca: &Path, visitors: &[(Option<Tls>, &str)]) {
    for (number, (files, alert)) in visitors.iter().enumerate() {
        let refused = admitted(&member.addr, files.as_ref(), ca).await.expect_err(alert);
        assert!(refused.contains(alert), "{alert}: {refused}");
        // The alert may be here before it is counted.
        eventually("it is counted", || member.certificates.refused() > number as u64).await;
        assert_eq!(member.certificates.refused(), number as u64 + 1);
    }
}

/// Whether the server begins to speak HTTP/2 with whoever has `files`.
///
/// # Errors
/// How it was refused.
pub async fn admitted(addr: &str, files: Option<&Tls>, ca: &Path) -> Result<(), String> {
    // Under TLS 1.3 the client may have finished before the server has looked at its certificate.
    let mut stream = connect(addr, files, ca).await.map_err(|error| error.to_string())?;
    let spoken = async {
        stream.write_all(PREFACE).await?;
        let mut first = [0; 9];
        stream.read_exact(&mut first).await?;
        Ok::<_, std::io::Error>(first)
    };
    match timeout(LONG, spoken).await {
        Ok(Ok(first)) => {
            assert_eq!(first[3], 4, "a SETTINGS frame: {first:?}");
            Ok(())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => panic!("neither admitted nor refused within {LONG:?}"),
    }
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let began_at = BootTime::now();
    while !condition() {
        assert!(BootTime::now().since(began_at) < LONG, "not within {LONG:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
