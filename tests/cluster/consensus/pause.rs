//! A member that has no time for a snapshot which its Raft has answered already: the task that is to report it stands
//! still until a test lets it go on. Stands between gRPC and the service of the member.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

const HELD: &str = "/InstallSnapshot";

#[derive(Clone, Default)]
pub struct Pause {
    on: watch::Sender<bool>,
    ended: watch::Sender<usize>,
}

impl Pause {
    /// Requests for snapshots make no step until [`Pause::go_on`].
    pub fn stop(&self) {
        self.on.send_replace(true);
    }

    pub fn go_on(&self) {
        self.on.send_replace(false);
    }

    /// Requests for snapshots that were answered.
    pub fn ended(&self) -> usize {
        *self.ended.borrow()
    }

    async fn run<T>(self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut on = self.on.subscribe();
        let result = loop {
            tokio::select! {
                biased;
                // The sender lives as long as this does.
                _ = on.wait_for(|on| *on) => {}
                result = &mut work => break result,
            }
            let _ = on.wait_for(|on| !*on).await;
        };
        self.ended.send_modify(|ended| *ended += 1);
        result
    }
}

#[derive(Clone)]
pub struct Pausable<S> {
    inner: S,
    pause: Pause,
}

impl<S> Pausable<S> {
    pub fn new(inner: S, pause: Pause) -> Pausable<S> {
        Pausable { inner, pause }
    }
}

impl<S: NamedService> NamedService for Pausable<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Pausable<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = BoxFuture<S::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let may_pause = request.uri().path().ends_with(HELD);
        let work = self.inner.call(request);
        if may_pause { Box::pin(self.pause.clone().run(work)) } else { Box::pin(work) }
    }
}
