//! Feeds the host's watchdog while a lease lives, on a thread of its own: a device that hangs holds up neither a kill nor a
//! word of the guard. It decides nothing about the chain node.
//!
//! Invariant (fence 1): it is fed for the last time no later than its time-out before the end of the lease. So a host whose
//! kernel kills nothing any more is reset before anybody else is elected.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::base::guard_frame::WatchdogSpec;
use crate::base::realtime::{self, Priority};
use crate::base::time::BootTime;
use crate::host::watchdog::{Device, fit};

/// As in `tidy.rs`.
const STACK_BYTES: usize = 256 << 10;
/// For the device to be stopped when the guard ends.
const END_MAX: Duration = Duration::from_secs(1);

pub(super) struct Watchdog {
    spec: WatchdogSpec,
    timeout: Duration,
    /// From a deadline of the guard to the end of the lease.
    kill_max: Duration,
    /// The order to the feeder: nanoseconds of [`BootTime`], or one of the two below.
    fed_until: Arc<AtomicU64>,
    feeder: Thread,
    troubles: Receiver<String>,
}

/// The device is not to run.
const REST: u64 = 0;
/// And the feeder is to end.
const END: u64 = u64::MAX;

impl Watchdog {
    /// # Errors
    /// The device cannot be had, or does not fit the lease; in words.
    pub(super) fn start(spec: WatchdogSpec, kill_max: Duration) -> Result<Watchdog, String> {
        let timeout = fit(&spec.device, spec.timeout_max)?;
        let fed_until = Arc::new(AtomicU64::new(REST));
        let (tell, troubles) = channel();
        let feeder = Feeder {
            path: spec.device.clone(),
            timeout,
            pause: pause(timeout, kill_max),
            fed_until: fed_until.clone(),
            device: None,
            trouble: None,
            tell,
        };
        let thread = thread::Builder::new().name("watchdog".into()).stack_size(STACK_BYTES);
        let thread =
            thread.spawn(move || feeder.run()).map_err(|error| format!("the thread of the watchdog: {error}"))?;
        Ok(Watchdog { spec, timeout, kill_max, fed_until, feeder: thread.thread().clone(), troubles })
    }

    pub(super) fn is_as(&self, spec: &WatchdogSpec, kill_max: Duration) -> bool {
        self.spec == *spec && self.kill_max == kill_max
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The guard is armed until `deadline`: the lease lives until `kill_max` later.
    pub(super) fn watch(&self, deadline: BootTime) {
        self.order(last_feeding(deadline, self.kill_max, self.timeout).as_nanos().clamp(REST + 1, END - 1));
    }

    /// Nothing is left that a reset would have to end.
    pub(super) fn rest(&self) {
        self.order(REST);
    }

    fn order(&self, fed_until: u64) {
        self.fed_until.store(fed_until, Ordering::Release);
        self.feeder.unpark();
    }

    /// What went wrong since this was asked last.
    pub(super) fn troubles(&self) -> impl Iterator<Item = String> {
        self.troubles.try_iter()
    }
}

impl Drop for Watchdog {
    /// The device is stopped before the process ends, which would leave it running.
    fn drop(&mut self) {
        self.order(END);
        // Until its end of the channel is gone.
        while self.troubles.recv_timeout(END_MAX).is_ok() {}
    }
}

/// The lease of a guard that is armed until `deadline` lives until `kill_max` later, and the device runs out then.
fn last_feeding(deadline: BootTime, kill_max: Duration, timeout: Duration) -> BootTime {
    deadline + kill_max - timeout
}

/// Between two feedings: a feeder that is late by one is in time still, and the last feeding comes late enough for the
/// guard to have killed by then.
fn pause(timeout: Duration, kill_max: Duration) -> Duration {
    (timeout / 4).min(kill_max / 3)
}

struct Feeder {
    path: PathBuf,
    timeout: Duration,
    pause: Duration,
    fed_until: Arc<AtomicU64>,
    /// While it runs.
    device: Option<Device>,
    /// The last that was told.
    trouble: Option<String>,
    tell: Sender<String>,
}

impl Feeder {
    fn run(mut self) {
        // Said already, where it is refused: the guard has asked for the same.
        let _ = realtime::take(Priority::Guard);
        loop {
            match self.fed_until.load(Ordering::Acquire) {
                END => return self.rest(),
                REST => {
                    self.rest();
                    thread::park();
                }
                until => self.feed_until(BootTime::from_nanos(until)),
            }
        }
    }

    /// Feeds it once, unless it is too late, and waits for the next time or another order.
    fn feed_until(&mut self, until: BootTime) {
        let now = BootTime::now();
        if now > until {
            // Left alone, it resets the host at the end of the lease.
            return thread::park();
        }
        self.feed();
        thread::park_timeout(self.pause.min(until.since(now)));
    }

    fn feed(&mut self) {
        let fed = match &mut self.device {
            Some(device) => {
                device.feed().map_err(|error| format!("feed the watchdog {}: {error}", self.path.display()))
            }
            None => Device::start(&self.path, self.timeout).map(|device| self.device = Some(device)),
        };
        self.note(fed.err());
    }

    fn rest(&mut self) {
        if let Some(device) = self.device.take() {
            let stopped = device.stop();
            self.note(stopped.err().map(|error| format!("stop the watchdog {}: {error}", self.path.display())));
        }
    }

    /// Tells a trouble when it begins, and not each time.
    fn note(&mut self, trouble: Option<String>) {
        if let Some(told) = trouble.as_ref().filter(|_| self.trouble != trouble) {
            let _ = self.tell.send(told.clone());
        }
        self.trouble = trouble;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_runs_out_with_the_lease_and_after_the_deadline_and_never_while_renewals_come() {
        let ms = Duration::from_millis;
        // Of profile `wan`: the lease less drift, and the longest time-out in whole seconds that fits it.
        let (lease, kill_max, heartbeat, timeout) = (ms(2997), ms(300), ms(400), ms(2000));
        let acked_at = BootTime::from_nanos(1_000_000_000_000);
        let deadline = acked_at + lease - kill_max;
        let last = last_feeding(deadline, kill_max, timeout);
        assert_eq!(last + timeout, acked_at + lease, "before any promise ends");
        let earliest = last + timeout - pause(timeout, kill_max);
        assert!(earliest > deadline, "a guard that kills in time stops it before");
        // An answer that took a heartbeat.
        assert!(acked_at + heartbeat + pause(timeout, kill_max) < last, "each renewal leaves time for a feeding");
    }
}
