//! HTTP for people and monitors: the status page at `/`, and `/metrics`, `/health`, `/ready`, `/node-pid` and the
//! roles of `roles`, on `metrics.listen`. It reads what the coordinator has published and can ask nothing of it, so that no client,
//! however slow or many, holds up a heartbeat. The coordinator binds it at start and runs `serve` on a thread of its own.

mod html;
mod page;
mod roles;
mod steps;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::base::time::{BootTime, WallTime};
use crate::cluster::wire::proto::{Move, StatusResponse, Timeline};
use crate::operator::metrics::Metrics;
use crate::operator::shared_answer::SharedAnswer;
pub use roles::Place;

/// More wait in the kernel's queue until one is done.
const CONNECTIONS_MAX: usize = 64;
/// From the accepted connection to the end of the request's head.
const HEADER_MAX: Duration = Duration::from_secs(5);
/// Longest head of a request; a longer one is answered with an error.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// From the accepted connection to the end of the answer, however slowly it is read.
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// A coordinator whose last beat is older than this is taken for hung.
const BEAT_MAX: Duration = Duration::from_secs(2);
/// After a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Between two renderings of the metrics, and of the page, however often they are asked for.
const RENDER_EVERY: Duration = Duration::from_millis(50);

const HTML_FORMAT: &str = "text/html; charset=utf-8";
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How `/ready` begins when the cluster has no quorum as far as this host sees.
pub const NO_QUORUM: &str = "no quorum";

/// What the coordinator says of itself with every round of its loop.
#[derive(Clone, Debug)]
pub struct Vitals {
    /// When the coordinator last came round.
    pub beat: BootTime,
    /// Why this member could not take the baton now, or that it could.
    pub ready: Result<(), String>,
    pub place: Place,
    pub node_pid: Option<u32>,
}

/// What the status page shows: the cluster as this host knows it.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    pub status: StatusResponse,
    /// The oldest first.
    pub moves: Arc<Vec<Move>>,
    /// The newest move since this coordinator was started, step by step.
    pub last_move: Option<Timeline>,
    /// When it was so.
    pub at: WallTime,
    /// How often the guard killed the chain node at its deadline, since this coordinator started.
    pub fences: u64,
    /// How this host last stopped being the holder; `None` when this coordinator has not seen that.
    pub let_go: Option<LetGo>,
}

/// The end of a tenure of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetGo {
    pub epoch: u64,
    pub why: String,
}

/// Where the coordinator publishes what is shown here.
#[derive(Clone)]
pub struct Published {
    pub metrics: Metrics,
    pub vitals: watch::Receiver<Vitals>,
    pub overview: watch::Receiver<Arc<Overview>>,
}

#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    #[error("metrics.listen {addr} is in use by another program; stop that or choose another address")]
    InUse { addr: SocketAddr },
    #[error("metrics.listen {addr} cannot be listened on: {source}; choose an address of this host")]
    Bind { addr: SocketAddr, source: io::Error },
}

/// Clients may connect from here on; they are answered once `serve` runs.
pub async fn bind(addr: SocketAddr) -> Result<TcpListener, ExporterError> {
    TcpListener::bind(addr).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ExporterError::InUse { addr },
        _ => ExporterError::Bind { addr, source },
    })
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, published: Published) {
    let routes = Router::new()
        .route("/", get(show_page))
        .route("/metrics", get(show_metrics))
        .route("/health", get(show_health).options(show_health))
        .route("/ready", get(show_ready).options(show_ready))
        .route("/node-pid", get(show_node_pid))
        .merge(roles::routes())
        .with_state(Shown { published, text: shared(), page: shared() });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let routes = routes.clone();
                tokio::spawn(async move {
                    answer(stream, routes).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the exporter cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One request a connection: an idle client keeps no place.
async fn answer(stream: TcpStream, routes: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    match timeout(CONNECTION_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a client of the exporter got no answer"),
        Err(_) => tracing::debug!("a client of the exporter was too slow"),
    }
}

#[derive(Clone)]
struct Shown {
    published: Published,
    text: Arc<SharedAnswer<Bytes>>,
    page: Arc<SharedAnswer<Bytes>>,
}

fn shared() -> Arc<SharedAnswer<Bytes>> {
    Arc::new(SharedAnswer::new(RENDER_EVERY))
}

async fn show_page(State(shown): State<Shown>) -> Response {
    let Published { vitals, overview, metrics: _ } = &shown.published;
    let render = async {
        let hung = alive(&vitals.borrow()).is_err();
        let overview = overview.borrow().clone();
        Ok::<Bytes, Infallible>(page::render(&overview, hung).into())
    };
    let Ok(page) = shown.page.get(render).await;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(HTML_FORMAT)),
        (CONTENT_SECURITY_POLICY, page::POLICY.clone()),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, page).into_response()
}

async fn show_metrics(State(shown): State<Shown>) -> Response {
    let render = async { Ok::<Bytes, Infallible>(shown.published.metrics.encode().into()) };
    let Ok(text) = shown.text.get(render).await;
    ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response()
}

async fn show_health(State(shown): State<Shown>) -> (StatusCode, String) {
    answer_to(alive(&shown.published.vitals.borrow()).map(|()| "ok"))
}

async fn show_ready(State(shown): State<Shown>) -> (StatusCode, String) {
    let vitals = shown.published.vitals.borrow();
    // What a coordinator that hangs said of itself last is not so any more.
    answer_to(alive(&vitals).and_then(|()| vitals.ready.clone()).map(|()| "ready"))
}

/// # Errors
/// The coordinator has not come round for too long.
fn alive(vitals: &Vitals) -> Result<(), String> {
    let age = BootTime::now().since(vitals.beat);
    if age < BEAT_MAX {
        return Ok(());
    }
    Err(format!("the coordinator hangs: its last beat was {:.1} s ago", age.as_secs_f64()))
}

fn answer_to(question: Result<&str, String>) -> (StatusCode, String) {
    match question {
        Ok(word) => (StatusCode::OK, format!("{word}\n")),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn show_node_pid(State(shown): State<Shown>) -> (StatusCode, String) {
    match shown.published.vitals.borrow().node_pid {
        Some(pid) => (StatusCode::OK, format!("{pid}\n")),
        None => (StatusCode::NOT_FOUND, "no chain node runs\n".to_owned()),
    }
}
