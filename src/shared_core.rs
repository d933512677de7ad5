//! The one core of a coordinator, shared by everything that reports to it or asks it.
//!
//! A step takes microseconds and never waits, so a plain mutex serves: the vote gate is asked and
//! promises are noted in the very handler that answers a peer. Actions leave in the order of the steps.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::core::{Action, Core, Event};
use crate::time::{Now, suspended};

/// CLOCK_BOOTTIME and CLOCK_MONOTONIC are read one after the other; a process that was preempted in
/// between sees a difference that is no suspend. Half of the shortest allowed `kill_max`.
const SUSPEND_MIN: Duration = Duration::from_millis(5);

pub struct SharedCore {
    inner: Mutex<Inner>,
    actions: mpsc::UnboundedSender<Action>,
    steps: watch::Sender<u64>,
}

struct Inner {
    core: Core,
    suspended: Duration,
}

impl SharedCore {
    /// The core, and the actions that follow from its steps.
    pub fn new(core: Core) -> (SharedCore, mpsc::UnboundedReceiver<Action>) {
        let (actions, receiver) = mpsc::unbounded_channel();
        let inner = Mutex::new(Inner { core, suspended: suspended() });
        (SharedCore { inner, actions, steps: watch::Sender::new(0) }, receiver)
    }

    /// Reports `event` as happening now. When this returns, the core has taken note of it and every
    /// action that follows is queued.
    pub fn step(&self, event: Event) {
        let mut inner = self.lock();
        let suspended = suspended();
        let slept = suspended > inner.suspended + SUSPEND_MIN;
        inner.suspended = if slept { suspended } else { inner.suspended.min(suspended) };
        if slept {
            self.take(&mut inner, Event::Slept);
        }
        self.take(&mut inner, event);
        self.steps.send_modify(|steps| *steps += 1);
    }

    /// Reads the core at one moment.
    pub fn read<T>(&self, look: impl FnOnce(&Core, Now) -> T) -> T {
        let inner = self.lock();
        look(&inner.core, Now::read())
    }

    /// Changes with every step.
    pub fn steps(&self) -> watch::Receiver<u64> {
        self.steps.subscribe()
    }

    fn take(&self, inner: &mut Inner, event: Event) {
        for action in inner.core.step(Now::read(), event) {
            // Nobody performs actions any more once the coordinator is ending.
            let _ = self.actions.send(action);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a step of the core panicked; its state cannot be trusted")
    }
}
