//! Runs the operator's hooks, one at a time in each lane, on ordinary threads that nothing else waits for. How they end is
//! logged and told for the metrics, and goes nowhere else. `coordinator::hooks` says when, and with which facts.

mod child;
mod output;
mod run;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::base::hooks::{HookEvent, HookOutcome};
use crate::base::time::BootTime;

/// One hook to be run, with what it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookOrder {
    pub event: HookEvent,
    /// Not empty.
    pub argv: Vec<String>,
    /// Environment variables beside the few of the coordinator's own that a hook gets.
    pub facts: Vec<(&'static str, String)>,
}

/// Cheap to clone. Its threads end with the process.
#[derive(Clone)]
pub struct Hooks {
    lanes: Arc<[Lane; LANES]>,
    told: Told,
}

/// Called once for each order, with what became of it.
type Told = Arc<dyn Fn(HookEvent, HookOutcome) + Send + Sync>;

const LANES: usize = 3;

/// The events of one lane are about one thing, whose newest state is the last to be told.
fn lane_of(event: HookEvent) -> usize {
    match event {
        HookEvent::Holder | HookEvent::Standby => 0,
        HookEvent::LostQuorum => 1,
        HookEvent::Fenced => 2,
    }
}

#[derive(Default)]
struct Lane {
    orders: Mutex<Orders>,
    changed: Condvar,
}

/// At most two: one that runs, one that waits.
#[derive(Default)]
struct Orders {
    is_running: bool,
    waiting: Option<HookOrder>,
}

impl Hooks {
    /// No hook runs for longer than `timeout`. `told` is called on the threads of the lanes and by `run`.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(
        timeout: Duration,
        told: impl Fn(HookEvent, HookOutcome) + Send + Sync + 'static,
    ) -> io::Result<Hooks> {
        let hooks = Hooks { lanes: Arc::default(), told: Arc::new(told) };
        for lane in 0..LANES {
            let hooks = hooks.clone();
            // It never ends: a hook dies with the thread that started it (PR_SET_PDEATHSIG).
            let thread = thread::Builder::new().name(format!("baton-hook-{lane}"));
            thread.spawn(move || hooks.work(lane, timeout))?;
        }
        Ok(hooks)
    }

    /// As soon as no other of its lane runs, in the place of one that still waits. Returns at once.
    pub fn run(&self, order: HookOrder) {
        let lane = &self.lanes[lane_of(order.event)];
        let replaced = lane.lock().waiting.replace(order);
        lane.changed.notify_all();
        if let Some(replaced) = replaced {
            tracing::info!(
                hook = replaced.event.as_str(),
                "a hook is left out: something newer happened before its turn"
            );
            (self.told)(replaced.event, HookOutcome::Superseded);
        }
    }

    /// Blocks until none runs or waits, and no longer than `max`. Whether that is so.
    pub fn finish(&self, max: Duration) -> bool {
        let until = BootTime::now() + max;
        self.lanes.iter().all(|lane| {
            let mut orders = lane.lock();
            loop {
                if !orders.is_running && orders.waiting.is_none() {
                    return true;
                }
                let left = until.since(BootTime::now());
                if left.is_zero() {
                    return false;
                }
                orders = lane.changed.wait_timeout(orders, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        })
    }

    fn work(&self, lane: usize, timeout: Duration) {
        let lane = &self.lanes[lane];
        loop {
            let order = lane.next();
            (self.told)(order.event, run::run(&order, timeout));
            lane.lock().is_running = false;
            lane.changed.notify_all();
        }
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for it. It counts as running from here on.
    fn next(&self) -> HookOrder {
        let mut orders = self.lock();
        loop {
            if let Some(order) = orders.waiting.take() {
                orders.is_running = true;
                return order;
            }
            orders = self.changed.wait(orders).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
