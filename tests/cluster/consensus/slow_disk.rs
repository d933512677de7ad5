//! The disk of one member, whose syncs a test makes slow or stops.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use baton::cluster::store::BeforeSync;

#[derive(Clone, Default)]
pub struct SlowDisk {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    sync_takes: Duration,
    stopped: bool,
    /// Syncs that stand still.
    waiting: usize,
}

impl SlowDisk {
    /// Each sync takes so much longer from now on.
    pub fn slow_down(&self, sync_takes: Duration) {
        self.shared.state.lock().unwrap().sync_takes = sync_takes;
    }

    /// No sync ends before [`SlowDisk::go_on`].
    pub fn stop(&self) {
        self.shared.state.lock().unwrap().stopped = true;
    }

    pub fn go_on(&self) {
        self.shared.state.lock().unwrap().stopped = false;
        self.shared.changed.notify_all();
    }

    pub fn waiting(&self) -> usize {
        self.shared.state.lock().unwrap().waiting
    }

    pub fn before_sync(&self) -> BeforeSync {
        let shared = self.shared.clone();
        Arc::new(move |_: &Path| {
            let mut state = shared.state.lock().unwrap();
            let sync_takes = state.sync_takes;
            state.waiting += 1;
            state = shared.changed.wait_while(state, |state| state.stopped).unwrap();
            state.waiting -= 1;
            drop(state);
            std::thread::sleep(sync_takes);
            Ok(())
        })
    }
}
