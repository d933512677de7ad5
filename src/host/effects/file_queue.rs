//! Work on the files that decide who signs (links, the node's own record), in order, each in a task that takes as long
//! as its disk does. Whoever waits for it may stop waiting; the work is done all the same, and what is asked for later
//! begins only then. So a change that hangs is never overtaken by a newer one, and never undoes it. Called by
//! `node.rs`.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

#[derive(Default)]
pub(super) struct FileQueue {
    last: Option<JoinHandle<()>>,
}

/// What a piece of work came to. Never ready when the runtime ends before it.
pub(super) struct Done<T>(oneshot::Receiver<T>);

impl FileQueue {
    /// Does `work` after all that was asked for before.
    pub(super) fn then<T: Send + 'static>(&mut self, work: impl Future<Output = T> + Send + 'static) -> Done<T> {
        let (done, waiting) = oneshot::channel();
        let before = self.last.take();
        self.last = Some(tokio::spawn(async move {
            if let Some(before) = before {
                // It can fail by a panic only, which was reported where it happened.
                let _ = before.await;
            }
            // Nobody may wait for it any more.
            let _ = done.send(work.await);
        }));
        Done(waiting)
    }

    /// Returns once all is done that was asked for.
    pub(super) fn idle(&mut self) -> Done<()> {
        self.then(async {})
    }
}

impl<T> Future for Done<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.0).poll(context) {
            Poll::Ready(Ok(done)) => Poll::Ready(done),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_done_before_what_comes_later() {
        let (mut files, order) = (FileQueue::default(), Arc::new(Mutex::new(Vec::new())));
        let (thaw, frozen) = oneshot::channel::<()>();
        let first = order.clone();
        let hung = files.then(async move {
            let _ = frozen.await;
            first.lock().expect("whole").push("first");
        });
        timeout(Duration::from_millis(20), hung).await.expect_err("its disk hangs");
        let second = order.clone();
        let mut later = files.then(async move { second.lock().expect("whole").push("second") });
        timeout(Duration::from_millis(20), &mut later).await.expect_err("it waits its turn");
        assert!(order.lock().expect("whole").is_empty());
        thaw.send(()).expect("somebody waits");
        timeout(Duration::from_secs(10), later).await.expect("done");
        assert_eq!(*order.lock().expect("whole"), ["first", "second"]);
    }
}
