//! What the guard knows and how each frame changes it. It talks to nobody: replies are returned, and what
//! happens unasked is put into `news`, which the loop carries to the coordinator.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::backstop::Backstop;
use super::fence::Fence;
use super::host::Before;
use super::node::Node;
use super::say;
use super::say::{say_of, speak_for};
use super::tidy::{Tidied, Tidier};
use super::watchdog::Watchdog;
use crate::base::guard_frame::{
    Armed, ExitCause, FromGuard, GUARD_PROTOCOL, LinkSpec, NodeSpec, OTHER_PROTOCOL, ToGuard, WatchdogSpec,
};
use crate::base::ids::{Epoch, NodeId};
use crate::base::time::BootTime;
use crate::host::key_links::KeyLinks;

/// For the program of a chain node to run, while nothing is to be fenced and while something is: less than half of the
/// shortest `kill_max` of the profiles, after which the kernel kills in the guard's stead.
const START_BOUND: Duration = Duration::from_secs(1);
const START_BOUND_ARMED: Duration = Duration::from_millis(25);

pub(super) struct Guard {
    socket: PathBuf,
    before: Before,
    /// Whom we guard, from the newest accepted `Hello`.
    member: Option<NodeId>,
    /// The links of the newest `Hello` last. Older sets stay until a standby has put them away too.
    links: Vec<Arc<KeyLinks>>,
    tidier: Tidier,
    fence: Fence,
    /// Set for as long as the fence is armed.
    backstop: Backstop,
    /// From the newest accepted `Hello`, if it named one. It is fed while the fence is armed, and until what that has fired
    /// for is dead.
    watchdog: Option<Watchdog>,
    /// From the deadline until the chain node must be dead, from the newest accepted `Hello`.
    kill_max: Duration,
    /// A fence that is not finished: its epoch and when it fired.
    firing: Option<(Epoch, BootTime)>,
    node: Option<Node>,
    /// A standby that is started once the links are in standby.
    waiting: Option<Waiting>,
    /// Told to get out: as soon as no chain node is left and the links are tidied up, the guard ends.
    leaving: bool,
    /// The last tidying before the end was asked for.
    tidies_up: bool,
    pub news: Vec<FromGuard>,
}

/// A start that was asked for.
struct Waiting {
    spec: NodeSpec,
    /// The number of the tidying that it waits for.
    number: u64,
}

/// What to do with the connection that a frame came from.
pub(super) enum Answer {
    Frame(FromGuard),
    /// What was asked is under way; `news` will tell.
    Later,
    /// Tell it the frame, then close it.
    Close(FromGuard),
}

impl Guard {
    pub(super) fn new(socket: PathBuf, before: Before, backstop: Backstop, tidier: Tidier) -> Guard {
        Guard {
            socket,
            before,
            member: None,
            links: Vec::new(),
            tidier,
            fence: Fence::default(),
            backstop,
            watchdog: None,
            kill_max: Duration::ZERO,
            firing: None,
            node: None,
            waiting: None,
            leaving: false,
            tidies_up: false,
            news: Vec::new(),
        }
    }

    pub(super) fn armed(&self) -> Option<Armed> {
        self.fence.armed()
    }

    pub(super) fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    pub(super) fn tidier(&self) -> &Tidier {
        &self.tidier
    }

    /// Whether a chain node runs that has to die at a deadline. In that time nothing may wait for a disk.
    pub(super) fn fences_a_node(&self) -> bool {
        self.node.is_some() && self.fence.armed().is_some()
    }

    /// Fires when the deadline has come. To be called before anything else in every turn, and before
    /// every frame.
    pub(super) fn check_deadline(&mut self, now: BootTime) {
        if let Some(epoch) = self.fence.expire(now) {
            self.firing = Some((epoch, now));
            if let Some(node) = &mut self.node {
                node.kill(ExitCause::Fenced);
            }
            // Only now, and before anything that may wait for a disk.
            self.unset_backstop();
            say_of(Some(epoch), "the deadline has passed: fencing");
            self.advance(now);
        }
    }

    /// Moves on the end of a chain node and the rest of a fence.
    pub(super) fn advance(&mut self, now: BootTime) {
        let mut exited = None;
        if let Some(node) = &mut self.node
            && let Some((status, cause)) = node.advance(now)
        {
            exited = Some(FromGuard::Exited { pid: node.process.pid, status, cause });
            let text = format!("chain node {} is gone: {status:?}, {cause:?}", node.process.pid);
            say_of(node.process.validator_epoch, &text);
            self.node = None;
        }
        let mut fenced = None;
        if self.node.is_none()
            && let Some((epoch, fired_at)) = self.firing.take()
        {
            // Told before the links are touched: they may take as long as their disk, and the node is dead.
            fenced = Some(FromGuard::Fenced { epoch, fired_at, done_at: BootTime::now(), links_error: None });
            self.tidier.ask(&self.links);
            self.rest_watchdog();
        }
        self.news.extend(exited.into_iter().chain(fenced));
    }

    /// Hears of links that were put to standby, and starts the standby that waited for them.
    pub(super) fn note_tidied(&mut self) {
        for Tidied { number, sets, result } in self.tidier.take() {
            match &result {
                // Links that came while these were put away are not in standby yet.
                Ok(()) if sets == self.links.len() => drop(self.links.drain(..sets.saturating_sub(1))),
                Ok(()) => (),
                Err(error) => say(&format!("links not in standby: {error}")),
            }
            if let Some(Waiting { spec, .. }) = self.waiting.take_if(|waiting| waiting.number <= number) {
                let started = result.and_then(|()| self.run(&spec, None));
                self.news.push(started.unwrap_or_else(|reason| refused(ToGuard::START, reason)));
            }
        }
    }

    /// Begins to get out: the chain node is killed at once.
    pub(super) fn leave(&mut self, now: BootTime) {
        self.leaving = true;
        self.withhold("the guard is about to end");
        if let Some(node) = &mut self.node {
            node.kill(ExitCause::Stopped { killed: true });
        }
        self.advance(now);
    }

    /// Whether the guard can end. Then the links are in standby, or it was said why not.
    pub(super) fn has_left(&mut self) -> bool {
        if !self.leaving || self.node.is_some() {
            return false;
        }
        if !std::mem::replace(&mut self.tidies_up, true) {
            self.tidier.ask(&self.links);
        }
        !self.tidier.is_at_work()
    }

    pub(super) fn handle(&mut self, frame: ToGuard, now: BootTime) -> Answer {
        let request = frame.name();
        let superseded_by = if let ToGuard::Arm { epoch, .. } = &frame { self.fence.superseded(*epoch) } else { None };
        let answer = match frame {
            ToGuard::Hello { protocol, member, links, kill_max, watchdog } => {
                return match self.hello(protocol, member, links, kill_max, watchdog) {
                    Ok(welcome) => Answer::Frame(welcome),
                    Err(reason) => Answer::Close(refused(request, reason)),
                };
            }
            ToGuard::Start { node, validator_epoch: Some(epoch) } => self.start_validator(&node, epoch).map(Some),
            ToGuard::Start { node, validator_epoch: None } => self.start_standby(node).map(|()| None),
            ToGuard::Arm { epoch, deadline } => self.arm(epoch, deadline, now).map(Some),
            ToGuard::Disarm { epoch } => self.disarm(epoch).map(Some),
            ToGuard::Signal { signal, validator_epoch } => self.signal(signal, validator_epoch).map(Some),
            ToGuard::Stop { timeout } => self.stop(timeout, now).map(|()| None),
            ToGuard::Quit => self.quit().map(|()| None),
            ToGuard::Ping => Ok(Some(FromGuard::Pong)),
        };
        match answer {
            Ok(Some(frame)) => Answer::Frame(frame),
            Ok(None) => Answer::Later,
            Err(reason) => {
                say(&format!("refused {request}: {reason}"));
                Answer::Frame(FromGuard::Refused { request: request.into(), reason, superseded_by })
            }
        }
    }

    fn hello(
        &mut self,
        protocol: u32,
        member: NodeId,
        links: Vec<LinkSpec>,
        kill_max: Duration,
        watchdog: Option<WatchdogSpec>,
    ) -> Result<FromGuard, String> {
        if protocol != GUARD_PROTOCOL {
            return Err(format!("{OTHER_PROTOCOL}{protocol} is unknown, this guard speaks {GUARD_PROTOCOL}"));
        }
        let busy = self.node.is_some() || self.fence.armed().is_some();
        if let Some(served) = self.member.as_ref().filter(|served| busy && **served != member) {
            return Err(format!("this guard serves member {served}; give {member} a run_dir of its own"));
        }
        if self.fence.armed().is_none() && self.firing.is_none() {
            self.have_watchdog(watchdog, kill_max)?;
        }
        if self.links.last().is_none_or(|newest| newest.specs() != links) {
            self.links.push(Arc::new(KeyLinks::new(links).map_err(|e| e.to_string())?));
        }
        // An earlier coordinator's order, of which this one knows nothing.
        self.waiting = None;
        speak_for(&member);
        self.member = Some(member);
        self.kill_max = kill_max;
        Ok(FromGuard::Welcome {
            protocol: GUARD_PROTOCOL,
            guard_pid: std::process::id(),
            node: self.node.as_ref().map(|node| node.process.clone()),
            armed: self.fence.armed(),
            answers_pings: true,
            watchdog: self.watchdog.as_ref().map(Watchdog::timeout),
        })
    }

    /// The one that is wanted, of which nothing is known until now, in place of another.
    fn have_watchdog(&mut self, wanted: Option<WatchdogSpec>, kill_max: Duration) -> Result<(), String> {
        let had = self.watchdog.take();
        if let Some(wanted) = wanted {
            let same = had.filter(|had| had.is_as(&wanted, kill_max));
            self.watchdog = Some(same.map_or_else(|| Watchdog::start(wanted, kill_max), Ok)?);
        }
        Ok(())
    }

    fn start_validator(&mut self, spec: &NodeSpec, epoch: Epoch) -> Result<FromGuard, String> {
        self.check_free()?;
        self.fence.permit(epoch)?;
        self.check_tidied()?;
        self.run(spec, Some(epoch))
    }

    /// Invariant: a node that is started without an epoch finds its links in standby. `news` tells once it runs, or why
    /// not.
    fn start_standby(&mut self, spec: NodeSpec) -> Result<(), String> {
        self.check_free()?;
        self.waiting = Some(Waiting { spec, number: self.tidier.ask(&self.links) });
        Ok(())
    }

    fn check_free(&self) -> Result<(), String> {
        if let Some(node) = &self.node {
            return Err(format!("chain node {} runs already", node.process.pid));
        }
        if self.waiting.is_some() {
            return Err("a standby is about to be started, once the links are in standby".into());
        }
        if self.leaving {
            return Err("the guard is about to end".into());
        }
        Ok(())
    }

    /// Nothing is under way that could still put links to standby.
    fn check_tidied(&self) -> Result<(), String> {
        match self.tidier.is_at_work() {
            true => Err("the links are still being put to standby; see to the disk of the chain node's home".into()),
            false => Ok(()),
        }
    }

    fn run(&mut self, spec: &NodeSpec, validator_epoch: Option<Epoch>) -> Result<FromGuard, String> {
        let bound = if self.fence.armed().is_some() { START_BOUND_ARMED } else { START_BOUND };
        let node = Node::start(spec, validator_epoch, &self.socket, &self.before, bound)?;
        let process = node.process.clone();
        let role = if validator_epoch.is_some() { "validator" } else { "standby" };
        say_of(validator_epoch, &format!("chain node {} started as {role}", process.pid));
        self.node = Some(node);
        Ok(FromGuard::Started { node: process })
    }

    /// The standby that waits for the links is not started; false when none does.
    fn withhold(&mut self, reason: &str) -> bool {
        let waited = self.waiting.take().is_some();
        if waited {
            self.news.push(refused(ToGuard::START, reason.into()));
        }
        waited
    }

    /// The kernel knows of the deadline before the coordinator hears that the guard does.
    fn arm(&mut self, epoch: Epoch, deadline: BootTime, now: BootTime) -> Result<FromGuard, String> {
        if self.fence.armed().is_none_or(|armed| armed.epoch() != epoch) {
            self.check_tidied()?;
        }
        let mut renewed = self.fence.clone();
        let armed = renewed.arm(epoch, deadline, now)?;
        self.backstop.set(armed.deadline() + self.kill_max / 2).map_err(|e| format!("set the backstop: {e}"))?;
        self.fence = renewed;
        if let Some(watchdog) = &self.watchdog {
            watchdog.watch(armed.deadline());
        }
        Ok(FromGuard::Armed(armed))
    }

    fn disarm(&mut self, epoch: Epoch) -> Result<FromGuard, String> {
        self.fence.disarm(epoch)?;
        if self.fence.armed().is_none() {
            self.unset_backstop();
            self.rest_watchdog();
        }
        if let Some(node) = &mut self.node {
            node.process.validator_epoch = None;
        }
        Ok(FromGuard::Disarmed { epoch })
    }

    fn signal(&mut self, signal: i32, validator_epoch: Option<Epoch>) -> Result<FromGuard, String> {
        if let Some(epoch) = validator_epoch {
            self.fence.permit(epoch)?;
            self.check_tidied()?;
        }
        let node = self.node.as_mut().ok_or("no chain node runs")?;
        node.signal(signal)?;
        if validator_epoch.is_some() {
            node.process.validator_epoch = validator_epoch;
        }
        Ok(FromGuard::Signalled { signal })
    }

    fn stop(&mut self, timeout: Duration, now: BootTime) -> Result<(), String> {
        if self.withhold("it was told to stop before the links were in standby") {
            return Ok(());
        }
        let node = self.node.as_mut().ok_or("no chain node runs")?;
        node.stop(timeout, now);
        self.advance(now);
        Ok(())
    }

    fn quit(&mut self) -> Result<(), String> {
        if let Some(node) = &self.node {
            return Err(format!("chain node {} runs; stop it first", node.process.pid));
        }
        self.withhold("the guard is about to end");
        self.leaving = true;
        Ok(())
    }

    fn rest_watchdog(&self) {
        if let (Some(watchdog), None) = (&self.watchdog, self.fence.armed()) {
            watchdog.rest();
        }
    }

    pub(super) fn note_watchdog(&self) {
        self.watchdog.iter().flat_map(Watchdog::troubles).for_each(|trouble| say(&trouble));
    }

    /// One that stays set costs a guard that has nothing left to fence.
    fn unset_backstop(&mut self) {
        if let Err(error) = self.backstop.unset() {
            say(&format!("unset the backstop: {error}"));
        }
    }
}

fn refused(request: &str, reason: String) -> FromGuard {
    FromGuard::Refused { request: request.into(), reason, superseded_by: None }
}
