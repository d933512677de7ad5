//! Until the next wake-up of a core, time alone brings nothing about. A deadline that is acted on and not announced would
//! stall whatever waits for it, until something else happens to wake the core up.

use std::time::Duration;

use baton::base::time::Now;
use baton::core::{Action, Core, Event};

use crate::raft::Id;
use crate::world::World;

/// No deadline of the core is further away than this.
const FURTHEST: Duration = Duration::from_secs(120);
/// One tick in so many is looked at.
const ONE_IN: u64 = 8;

impl World {
    pub fn look_for_forgotten_deadlines(&mut self, host: Id) {
        let now = self.now(host);
        let Some(coordinator) = &self.hosts[host].coordinator else { return };
        if self.forgotten.is_none() && coordinator.tick.is_multiple_of(ONE_IN) {
            self.forgotten = forgotten_deadline(&coordinator.core, now).map(|found| format!("{host}: {found}"));
        }
    }
}

/// What is done before the next wake-up, although nothing happens.
fn forgotten_deadline(core: &Core, now: Now) -> Option<String> {
    let mut core = core.clone();
    // What is to be done at once may be done by the next tick.
    core.step(now, Event::Tick);
    let wakeup = core.next_wakeup(now.boot).unwrap_or(now.boot + FURTHEST);
    let done_after = |wait: Duration| -> Vec<Action> {
        core.clone().step(Now { boot: now.boot + wait, wall: now.wall + wait }, Event::Tick)
    };
    let (mut before, mut due) = (Duration::ZERO, wakeup.since(now.boot).checked_sub(Duration::from_nanos(1))?);
    if done_after(due).is_empty() {
        return None;
    }
    while due - before > Duration::from_nanos(1) {
        let middle = (before + due) / 2;
        if done_after(middle).is_empty() { before = middle } else { due = middle }
    }
    let (actions, stage) = (done_after(due), core.stage());
    Some(format!("in {stage:?}, {actions:?} is due in {due:?}, and nothing wakes the core up before {wakeup:?}"))
}
