//! Where operators and monitors are answered: a thread with a runtime of its own, so that however much they ask,
//! no heartbeat stands in a queue behind them. What is asked of the coordinator still goes through its channel.
//!
//! An admin on another machine connects to the members' port. Once the handshake has shown whose certificate it is,
//! `transport::accept` hands the connection over, and the desk's runtime takes the socket for its own
//! (`Caller::move_here`). What is asked often is found once for all who asked meanwhile (`operator::shared_answer`):
//! the status and the history at most a hundred times a second, the metrics twenty times. An answer is never older
//! than the question. The exporter asks nobody: `report` publishes what it shows.

use anyhow::{Context, Result};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tracing::error;

use crate::cluster::transport::Caller;
use crate::operator::admin::{self, Ask};
use crate::operator::exporter::{self, Published};

/// Where clients connect to.
pub(super) struct Doors {
    pub admin: UnixListener,
    /// Admins who came to the port of the members; closed without TLS.
    pub callers: mpsc::Receiver<Caller>,
    pub exporter: Option<TcpListener>,
}

/// Both are served until the process ends. Called inside the coordinator's runtime, which the listeners leave here.
pub(super) fn open(doors: Doors, asks: mpsc::Sender<Ask>, published: Published) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build().context("start the desk's runtime")?;
    let (admin, exporter) = {
        let admin = doors.admin.into_std().context("hand the admin socket to the desk")?;
        let exporter = doors.exporter.map(TcpListener::into_std).transpose();
        let exporter = exporter.context("hand metrics.listen to the desk")?;
        let _inside = runtime.enter();
        let exporter = exporter.map(TcpListener::from_std).transpose();
        let admin = UnixListener::from_std(admin).context("listen at the admin socket")?;
        (admin, exporter.context("listen at metrics.listen")?)
    };
    let callers = doors.callers;
    let serve = async move {
        let exporter = async {
            if let Some(listener) = exporter {
                exporter::serve(listener, published).await;
            }
        };
        tokio::join!(admin::serve(admin, callers, asks), exporter);
        error!("operators and monitors are not answered any more");
    };
    let thread = std::thread::Builder::new().name("baton-desk".into());
    thread.spawn(move || runtime.block_on(serve)).context("start the desk's thread")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use tokio::sync::{oneshot, watch};

    use super::*;
    use crate::base::time::BootTime;
    use crate::base::timing::Timing;
    use crate::cluster::certificates::{Authority, Bearer, Validity};
    use crate::cluster::transport::{self, Certificates, Credentials, Entrance};
    use crate::cluster::wire::proto::OrderRequest;
    use crate::cluster::wire::proto::admin_client::AdminClient;
    use crate::config::Tls;
    use crate::operator::exporter::{Place, Vitals};
    use crate::operator::metrics::Metrics;

    fn published(node_pid: Option<u32>) -> Published {
        let vitals = Vitals { beat: BootTime::now(), ready: Ok(()), place: Place::Holder, node_pid };
        let overview = watch::Sender::new(Default::default()).subscribe();
        Published { metrics: Metrics::new(BootTime::now()), vitals: watch::Sender::new(vitals).subscribe(), overview }
    }

    #[tokio::test]
    async fn monitors_are_answered_while_the_drivers_runtime_does_something_else() {
        let dir = tempfile::tempdir().expect("temp dir");
        let admin = admin::bind(dir.path()).expect("bound");
        let listener = exporter::bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let (asks, _driver) = mpsc::channel(1);
        let doors = Doors { admin, callers: mpsc::channel(1).1, exporter: Some(listener) };
        open(doors, asks, published(Some(7))).expect("opened");

        // From here on the one thread of this runtime waits for the answer, and drives nothing.
        let mut stream = TcpStream::connect(addr).expect("connected");
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).expect("set");
        stream.write_all(b"GET /node-pid HTTP/1.1\r\nHost: desk\r\n\r\n").expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer in time");
        assert!(answer.ends_with("\r\n\r\n7\n"), "{answer}");
    }

    /// Files of an authority of the test's own: those of member a, and of admin ops.
    fn files(dir: &std::path::Path) -> [Tls; 2] {
        Authority::create(dir, Validity::days(2)).expect("an authority");
        let authority = Authority::open(dir).expect("our own");
        let bearers = [Bearer::member("a").expect("plain"), Bearer::admin("ops").expect("plain")];
        bearers.map(|bearer| {
            let made = authority.issue(&bearer, &["127.0.0.1".into()], Validity::days(1), false).expect("issued");
            Tls { ca: dir.join("ca.pem"), cert: made.certificate, key: made.key }
        })
    }

    /// Says when it has been let in, then asks.
    fn ask_as_admin(files: &Tls, addr: &str, let_in: oneshot::Sender<()>) -> tonic::Code {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let channel = Credentials::read(files).expect("good files").call(addr).await.expect("let in");
            let_in.send(()).expect("awaited");
            let empty = OrderRequest { order: None };
            AdminClient::new(channel).order(empty).await.expect_err("it orders nothing").code()
        })
    }

    #[tokio::test]
    async fn admins_are_answered_while_the_drivers_runtime_does_something_else() {
        let dir = tempfile::tempdir().expect("temp dir");
        let [member, ops] = files(dir.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("its address").to_string();
        let certificates = Certificates::read(&member, &"a".into()).expect("good files");
        let (admins, callers) = mpsc::channel(1);
        let entrance = Entrance { certificates, admins, homes: Default::default() };
        let _peers = transport::incoming(listener, Some(entrance), &Timing::LAN);
        let (asks, _driver) = mpsc::channel(1);
        let doors = Doors { admin: admin::bind(dir.path()).expect("bound"), callers, exporter: None };
        open(doors, asks, published(None)).expect("opened");

        let ((let_in, is_in), (told, answer)) = (oneshot::channel(), std::sync::mpsc::channel());
        std::thread::spawn(move || told.send(ask_as_admin(&ops, &addr, let_in)));
        is_in.await.expect("let in");
        // From here on the one thread of this runtime waits for the answer, and drives nothing.
        let answer = answer.recv_timeout(std::time::Duration::from_secs(30)).expect("an answer in time");
        assert_eq!(answer, tonic::Code::InvalidArgument);
    }
}
