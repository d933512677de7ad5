//! The one core of a coordinator, shared by everything that reports to it or asks it.
//!
//! A step takes microseconds and never waits, so a plain mutex serves: the vote gate is asked and
//! promises are noted in the very handler that answers a peer. Actions leave in the order of the steps.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::base::ids::{Epoch, NodeId, Term};
use crate::base::time::{BootTime, Now, suspended};
use crate::core::fences::votes::Refusal;
use crate::core::{Action, Core, Event, Standing};
use crate::record::{Question, Recorder, Timeline, Timelines};

/// CLOCK_BOOTTIME and CLOCK_MONOTONIC are read one after the other; a process that was preempted in
/// between sees a difference that is no suspend. Half of the shortest allowed `kill_max`.
const SUSPEND_MIN: Duration = Duration::from_millis(5);

pub struct SharedCore {
    inner: Mutex<Inner>,
    actions: mpsc::UnboundedSender<Action>,
    steps: watch::Sender<u64>,
    news: watch::Sender<u64>,
}

struct Inner {
    core: Core,
    recorder: Recorder,
    timelines: Timelines,
    suspended: Duration,
    /// Where the member stood last, and who wants to know when that changes.
    told: Option<(Standing, Epoch, mpsc::UnboundedSender<Change>)>,
}

/// A change of what operators are shown: of the state, of the phase, or of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub from: Standing,
    pub to: Standing,
    pub why: String,
    /// The epoch of the tenure that begins, goes on or ends with it; outside of one, the newest known epoch.
    pub epoch: Epoch,
    pub term: Term,
}

impl SharedCore {
    /// The core, whose steps `recorder` takes down, and the actions that follow from them.
    pub fn new(core: Core, recorder: Recorder) -> (SharedCore, mpsc::UnboundedReceiver<Action>) {
        let (actions, receiver) = mpsc::unbounded_channel();
        let inner =
            Mutex::new(Inner { core, recorder, timelines: Timelines::default(), suspended: suspended(), told: None });
        (SharedCore { inner, actions, steps: watch::Sender::new(0), news: watch::Sender::new(0) }, receiver)
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
        let routine = is_routine(&event);
        let acts = self.take(&mut inner, event);
        let changed = inner.tell_change(BootTime::now());
        self.steps.send_modify(|steps| *steps += 1);
        if changed || acts || slept || !routine {
            self.news.send_modify(|news| *news += 1);
        }
    }

    /// Every change from here on, in order. What a step passes through without waiting is no change, and what time
    /// alone brings about is noticed with the next step. Only the newest receiver gets any.
    pub fn changes(&self) -> mpsc::UnboundedReceiver<Change> {
        let (told, changes) = mpsc::unbounded_channel();
        let mut inner = self.lock();
        inner.told = Some((inner.core.standing(BootTime::now()), inner.core.epoch(), told));
        changes
    }

    /// Reads the core at one moment.
    pub fn read<T>(&self, look: impl FnOnce(&Core, Now) -> T) -> T {
        let inner = self.lock();
        look(&inner.core, Now::read())
    }

    /// Of the last moves since the start, the oldest first.
    pub fn timelines(&self) -> Vec<Timeline> {
        self.lock().timelines.moves().cloned().collect()
    }

    /// Of the newest move since the start.
    pub fn last_timeline(&self) -> Option<Timeline> {
        self.lock().timelines.moves().next_back().cloned()
    }

    /// [`Core::may_vote`], asked now, and taken down.
    ///
    /// # Errors
    /// The rule that forbids it now.
    pub fn may_vote(&self, candidate: &NodeId) -> Result<(), Refusal> {
        let question = Question::Vote { candidate: candidate.clone() };
        self.ask(question, |core, now| core.may_vote(now.boot, candidate))
    }

    /// [`Core::may_campaign`], asked now, and taken down.
    ///
    /// # Errors
    /// The rule that forbids it now.
    pub fn may_campaign(&self) -> Result<(), Refusal> {
        self.ask(Question::Campaign, |core, now| core.may_campaign(now.boot))
    }

    /// Ends the record. The steps that follow are in none.
    pub fn close_record(&self) {
        // Outside of the mutex: the disk may take its time.
        let mut recorder = std::mem::replace(&mut self.lock().recorder, Recorder::off());
        recorder.close();
    }

    /// Changes with every step.
    pub fn steps(&self) -> watch::Receiver<u64> {
        self.steps.subscribe()
    }

    /// Changes with every step that may have changed what is told of this member, but for measures such as the
    /// remaining lease: the renewals of a lease, many a second, are no news.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Whether anything followed from it but a renewal.
    fn take(&self, inner: &mut Inner, event: Event) -> bool {
        let mut acts = false;
        let Inner { core, recorder, timelines, .. } = inner;
        let now = Now::read();
        let begun = recorder.begin(core, now, &event);
        timelines.before(core, now, &event);
        let actions = core.step(now, event);
        timelines.after(core, now, &actions);
        recorder.end(begun, &actions);
        for action in actions {
            acts |= !matches!(action, Action::Arm { .. });
            // Nobody performs actions any more once the coordinator is ending.
            let _ = self.actions.send(action);
        }
        acts
    }

    fn ask(&self, question: Question, gate: impl FnOnce(&Core, Now) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let mut inner = self.lock();
        let Inner { core, recorder, .. } = &mut *inner;
        let now = Now::read();
        let answer = gate(core, now);
        recorder.asked(core, now, question, &answer);
        answer
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a step of the core panicked; its state cannot be trusted")
    }
}

impl Inner {
    /// Whether there was one. Before anybody wants to know, anything may be one.
    fn tell_change(&mut self, now: BootTime) -> bool {
        let Inner { core, told, .. } = self;
        let Some((from, epoch, changes)) = told else { return true };
        let (to, before) = (core.standing(now), *epoch);
        *epoch = core.epoch();
        if to == *from {
            return false;
        }
        // A tenure whose claim came to nothing had an epoch that nobody knows any more.
        let epoch = if from.stage.is_some() && to.stage.is_none() { before } else { *epoch };
        let change = Change { from: *from, to, why: core.why_standing(now), epoch, term: core.term() };
        *from = to;
        // Nobody listens any more once the coordinator is ending.
        let _ = changes.send(change);
        true
    }
}

/// What a lease lives on, heartbeat by heartbeat.
fn is_routine(event: &Event) -> bool {
    matches!(event, Event::Tick | Event::Acked { .. } | Event::Accepted { .. } | Event::GuardArmed { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Role;
    use crate::base::timing::Timing;
    use crate::core::{Memory, Settings};

    #[test]
    fn what_keeps_a_lease_alive_is_a_step_and_no_news() {
        let timing = Timing::new(Duration::from_millis(500), Duration::from_secs(60), Duration::from_millis(500), 1000);
        let settings = Settings {
            me: "a".into(),
            role: Role::Validator,
            priorities: [("a", 100), ("b", 90)].map(|(id, priority)| (id.into(), priority)).into(),
            timing: timing.expect("sound"),
            unstated_lease: None,
            failback: false,
            clock_skew: Duration::ZERO,
            node_refuses: false,
            probe_failures_max: 3,
            min_peers: None,
            head_still_max: Duration::from_secs(60),
            activation_max: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(60),
            settle_max: None,
            sees_key_on_chain: false,
            custody: crate::base::signing::Custody::Links,
        };
        let (core, _actions) = SharedCore::new(Core::new(settings, Memory::fresh(), BootTime::now()), Recorder::off());
        // From here on it is known what a change is.
        let _changes = core.changes();
        core.step(Event::Voted { term: 1 });
        let (mut steps, mut news) = (core.steps(), core.news());
        let mut told = |event| {
            core.step(event);
            let told = (steps.has_changed().expect("open"), news.has_changed().expect("open"));
            steps.mark_unchanged();
            news.mark_unchanged();
            told
        };
        let promised = Some(Duration::from_secs(60));
        assert_eq!(told(Event::Tick), (true, false));
        assert_eq!(told(Event::Acked { from: "b".into(), term: 1, sent_at: BootTime::now(), promised }), (true, false));
        assert_eq!(told(Event::ProbeFailed { reason: "refused".into() }), (true, true));
        assert_eq!(told(Event::Voted { term: 2 }), (true, true));
    }
}
