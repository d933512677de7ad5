//! Chain nodes that baton does not run, and that ask the holder for their signatures.
//!
//! A node has one signer at a time, so only a host that is Active dials them, and lets go when it is not. They have a
//! thread with a runtime of its own: a handshake takes as long as no heartbeat shall wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::error;

use crate::base::privval_address::PrivvalAddress;
use crate::base::signing::PublicKey;
use crate::cluster::wire::proto;
use crate::host::privval::{Ask, Link, Privval, PrivvalSettings};
use crate::operator::metrics::Metrics;

pub(super) struct Setup {
    pub addresses: Vec<PrivvalAddress>,
    /// What they are told.
    pub public_key: PublicKey,
    pub asks: mpsc::Sender<Ask>,
    pub is_active: watch::Receiver<bool>,
    pub metrics: Metrics,
}

/// What is dialled, and how that stands. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Sentries(Arc<Mutex<BTreeMap<String, Link>>>);

impl Sentries {
    /// By address; none unless this host is Active.
    pub(super) fn seen(&self) -> Vec<proto::Sentry> {
        let seen = |(address, link): (&String, &Link)| proto::Sentry {
            address: address.clone(),
            lost_because: match link {
                Link::Down { why } => why.clone(),
                Link::Waiting { .. } => "it has asked nothing yet".to_owned(),
                Link::Up { .. } => String::new(),
            },
        };
        self.lock().iter().map(seen).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Link>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until the coordinator ends. Without addresses there is no thread.
pub(super) fn start(setup: Setup, sentries: Sentries) {
    if setup.addresses.is_empty() {
        return;
    }
    let thread = std::thread::Builder::new().name("baton-sentries".into());
    let started = thread.spawn(move || match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(serve(setup, sentries)),
        Err(error) => error!("no sentry is served: {error}"),
    });
    if let Err(error) = started {
        error!("no sentry is served: {error}");
    }
}

async fn serve(setup: Setup, sentries: Sentries) {
    let mut serving = JoinSet::new();
    for address in setup.addresses {
        let one = Sentry {
            address,
            public_key: setup.public_key.clone(),
            asks: setup.asks.clone(),
            is_active: setup.is_active.clone(),
            metrics: setup.metrics.clone(),
            sentries: sentries.clone(),
        };
        serving.spawn(one.serve());
    }
    serving.join_all().await;
}

struct Sentry {
    address: PrivvalAddress,
    public_key: PublicKey,
    asks: mpsc::Sender<Ask>,
    is_active: watch::Receiver<bool>,
    metrics: Metrics,
    sentries: Sentries,
}

impl Sentry {
    /// Returns when nobody says any more whether this host is Active.
    async fn serve(mut self) {
        while self.is_active.wait_for(|is_active| *is_active).await.is_ok() {
            let node = self.address.to_string();
            let settings = PrivvalSettings { address: self.address.clone(), node: node.clone() };
            let privval = Privval::dial(settings, self.public_key.clone(), self.asks.clone());
            let mut link = privval.link();
            loop {
                let seen = link.borrow_and_update().clone();
                self.metrics.sees_sentry(&node, Some(matches!(seen, Link::Up { .. })));
                self.sentries.lock().insert(node.clone(), seen);
                tokio::select! {
                    changed = link.changed() => if changed.is_err() { break },
                    _ = self.is_active.wait_for(|is_active| !is_active) => break,
                }
            }
            drop(privval);
            self.metrics.sees_sentry(&node, None);
            self.sentries.lock().remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixListener;
    use tokio::time::timeout;

    use super::*;
    use crate::base::signing::KeyKind;
    use crate::base::time::BootTime;

    const SOON: Duration = Duration::from_secs(30);

    /// A coordinator's side: whether it is Active, and its sentries.
    fn coordinator(socket: &Path) -> (watch::Sender<bool>, Sentries, Metrics) {
        let (active, is_active) = watch::channel(false);
        let (sentries, metrics) = (Sentries::default(), Metrics::new(BootTime::now()));
        let setup = Setup {
            addresses: vec![PrivvalAddress::Unix(socket.to_owned())],
            public_key: PublicKey { kind: KeyKind::Ed25519, bytes: vec![5; 32] },
            asks: mpsc::channel(1).0,
            is_active,
            metrics: metrics.clone(),
        };
        start(setup, sentries.clone());
        (active, sentries, metrics)
    }

    async fn until(what: &str, reached: impl Fn() -> bool) {
        let reaching = async {
            while !reached() {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, reaching).await.unwrap_or_else(|_| panic!("not reached: {what}"));
    }

    #[tokio::test]
    async fn a_sentry_is_dialled_by_whoever_is_active_and_by_nobody_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("privval.sock");
        let node = UnixListener::bind(&socket).expect("bound");
        let (first, second) = (coordinator(&socket), coordinator(&socket));
        assert_eq!((first.1.seen().len(), second.1.seen().len()), (0, 0));
        let accept = || async { timeout(SOON, node.accept()).await.expect("dialled").expect("accepted").0 };

        for ((active, sentries, metrics), (_, others, _)) in [(&first, &second), (&second, &first)] {
            active.send_replace(true);
            let mut stream = accept().await;
            let shown = format!("baton_sentry_connected{{sentry=\"unix://{}\"}} 0", socket.display());
            until("dialled", || sentries.seen().iter().any(|one| one.lost_because == "it has asked nothing yet")).await;
            assert!(metrics.encode().contains(&shown), "{}", metrics.encode());
            assert!(others.seen().is_empty(), "{:?}", others.seen());

            active.send_replace(false);
            let mut byte = [0; 1];
            let read = timeout(SOON, stream.read(&mut byte)).await.expect("let go");
            assert_eq!(read.expect("closed"), 0);
            until("forgotten", || sentries.seen().is_empty()).await;
            assert!(!metrics.encode().contains("baton_sentry_connected{"), "{}", metrics.encode());
        }
        let again = timeout(Duration::from_millis(300), node.accept()).await;
        assert!(again.is_err(), "dialled by a host that is not Active");
    }
}
