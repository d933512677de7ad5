//! What the guard knows and how each frame changes it. It talks to nobody: replies are returned, and what
//! happens unasked is put into `news`, which the loop carries to the coordinator.

use std::path::PathBuf;
use std::time::Duration;

use super::backstop::Backstop;
use super::fence::Fence;
use super::host::Before;
use super::node::Node;
use super::say;
use super::say::{say_of, speak_for};
use crate::guard_frame::{Armed, ExitCause, FromGuard, GUARD_PROTOCOL, LinkSpec, NodeSpec, OTHER_PROTOCOL, ToGuard};
use crate::ids::{Epoch, NodeId};
use crate::key_links::KeyLinks;
use crate::time::BootTime;

pub(super) struct Guard {
    socket: PathBuf,
    before: Before,
    /// Whom we guard, from the newest accepted `Hello`.
    member: Option<NodeId>,
    /// The links of the newest `Hello` last. Older sets stay until a standby has put them away too.
    links: Vec<KeyLinks>,
    fence: Fence,
    /// Set for as long as the fence is armed.
    backstop: Backstop,
    /// From the deadline until the chain node must be dead, from the newest accepted `Hello`.
    kill_max: Duration,
    /// A fence that is not finished: its epoch and when it fired.
    firing: Option<(Epoch, BootTime)>,
    node: Option<Node>,
    /// Told to get out: as soon as no chain node is left, the guard ends.
    leaving: bool,
    pub news: Vec<FromGuard>,
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
    pub(super) fn new(socket: PathBuf, before: Before, backstop: Backstop) -> Guard {
        Guard {
            socket,
            before,
            member: None,
            links: Vec::new(),
            fence: Fence::default(),
            backstop,
            kill_max: Duration::ZERO,
            firing: None,
            node: None,
            leaving: false,
            news: Vec::new(),
        }
    }

    pub(super) fn armed(&self) -> Option<Armed> {
        self.fence.armed()
    }

    pub(super) fn node(&self) -> Option<&Node> {
        self.node.as_ref()
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
            let links_error = self.links_to_standby().err();
            if let Some(error) = &links_error {
                say_of(Some(epoch), &format!("after the fence: {error}"));
            }
            fenced = Some(FromGuard::Fenced { epoch, fired_at, done_at: BootTime::now(), links_error });
        }
        self.news.extend(exited.into_iter().chain(fenced));
    }

    /// Begins to get out: the chain node is killed at once.
    pub(super) fn leave(&mut self, now: BootTime) {
        self.leaving = true;
        if let Some(node) = &mut self.node {
            node.kill(ExitCause::Stopped { killed: true });
        }
        self.advance(now);
    }

    /// Whether the guard can end. Then the links are in standby.
    pub(super) fn has_left(&mut self) -> bool {
        if !self.leaving || self.node.is_some() {
            return false;
        }
        if let Err(error) = self.links_to_standby() {
            say(&format!("at the end: {error}"));
        }
        true
    }

    pub(super) fn handle(&mut self, frame: ToGuard, now: BootTime) -> Answer {
        let request = frame.name();
        let answer = match frame {
            ToGuard::Hello { protocol, member, links, kill_max } => {
                return match self.hello(protocol, member, links, kill_max) {
                    Ok(welcome) => Answer::Frame(welcome),
                    Err(reason) => Answer::Close(FromGuard::Refused { request: request.into(), reason }),
                };
            }
            ToGuard::Start { node, validator_epoch } => self.start(&node, validator_epoch).map(Some),
            ToGuard::Arm { epoch, deadline } => self.arm(epoch, deadline, now).map(Some),
            ToGuard::Disarm { epoch } => self.disarm(epoch).map(Some),
            ToGuard::Signal { signal, validator_epoch } => self.signal(signal, validator_epoch).map(Some),
            ToGuard::Stop { timeout } => self.stop(timeout, now).map(|()| None),
            ToGuard::Quit => self.quit().map(|()| None),
        };
        match answer {
            Ok(Some(frame)) => Answer::Frame(frame),
            Ok(None) => Answer::Later,
            Err(reason) => {
                say(&format!("refused {request}: {reason}"));
                Answer::Frame(FromGuard::Refused { request: request.into(), reason })
            }
        }
    }

    fn hello(
        &mut self,
        protocol: u32,
        member: NodeId,
        links: Vec<LinkSpec>,
        kill_max: Duration,
    ) -> Result<FromGuard, String> {
        if protocol != GUARD_PROTOCOL {
            return Err(format!("{OTHER_PROTOCOL}{protocol} is unknown, this guard speaks {GUARD_PROTOCOL}"));
        }
        let busy = self.node.is_some() || self.fence.armed().is_some();
        if let Some(served) = self.member.as_ref().filter(|served| busy && **served != member) {
            return Err(format!("this guard serves member {served}; give {member} a run_dir of its own"));
        }
        if self.links.last().is_none_or(|newest| newest.specs() != links) {
            self.links.push(KeyLinks::new(links).map_err(|e| e.to_string())?);
        }
        speak_for(&member);
        self.member = Some(member);
        self.kill_max = kill_max;
        Ok(FromGuard::Welcome {
            protocol: GUARD_PROTOCOL,
            guard_pid: std::process::id(),
            node: self.node.as_ref().map(|node| node.process.clone()),
            armed: self.fence.armed(),
        })
    }

    fn start(&mut self, spec: &NodeSpec, validator_epoch: Option<Epoch>) -> Result<FromGuard, String> {
        if let Some(node) = &self.node {
            return Err(format!("chain node {} runs already", node.process.pid));
        }
        if self.leaving {
            return Err("the guard is about to end".into());
        }
        match validator_epoch {
            Some(epoch) => self.fence.permit(epoch)?,
            None => self.links_to_standby()?,
        }
        let node = Node::start(spec, validator_epoch, &self.socket, &self.before)?;
        let process = node.process.clone();
        let role = if validator_epoch.is_some() { "validator" } else { "standby" };
        say_of(validator_epoch, &format!("chain node {} started as {role}", process.pid));
        self.node = Some(node);
        Ok(FromGuard::Started { node: process })
    }

    /// The kernel knows of the deadline before the coordinator hears that the guard does.
    fn arm(&mut self, epoch: Epoch, deadline: BootTime, now: BootTime) -> Result<FromGuard, String> {
        let mut renewed = self.fence.clone();
        let armed = renewed.arm(epoch, deadline, now)?;
        self.backstop.set(armed.deadline() + self.kill_max / 2).map_err(|e| format!("set the backstop: {e}"))?;
        self.fence = renewed;
        Ok(FromGuard::Armed(armed))
    }

    fn disarm(&mut self, epoch: Epoch) -> Result<FromGuard, String> {
        self.fence.disarm(epoch)?;
        if self.fence.armed().is_none() {
            self.unset_backstop();
        }
        if let Some(node) = &mut self.node {
            node.process.validator_epoch = None;
        }
        Ok(FromGuard::Disarmed { epoch })
    }

    fn signal(&mut self, signal: i32, validator_epoch: Option<Epoch>) -> Result<FromGuard, String> {
        if let Some(epoch) = validator_epoch {
            self.fence.permit(epoch)?;
        }
        let node = self.node.as_mut().ok_or("no chain node runs")?;
        node.signal(signal)?;
        if validator_epoch.is_some() {
            node.process.validator_epoch = validator_epoch;
        }
        Ok(FromGuard::Signalled { signal })
    }

    fn stop(&mut self, timeout: Duration, now: BootTime) -> Result<(), String> {
        let node = self.node.as_mut().ok_or("no chain node runs")?;
        node.stop(timeout, now);
        self.advance(now);
        Ok(())
    }

    fn quit(&mut self) -> Result<(), String> {
        if let Some(node) = &self.node {
            return Err(format!("chain node {} runs; stop it first", node.process.pid));
        }
        self.leaving = true;
        Ok(())
    }

    /// One that stays set costs a guard that has nothing left to fence.
    fn unset_backstop(&mut self) {
        if let Err(error) = self.backstop.unset() {
            say(&format!("unset the backstop: {error}"));
        }
    }

    /// Older sets first, so that the newest has the last word on a link that both hold.
    fn links_to_standby(&mut self) -> Result<(), String> {
        let mut first_error = Ok(());
        for links in &self.links {
            first_error = first_error.and(links.to_standby().map_err(|e| e.to_string()));
        }
        if first_error.is_ok() && self.links.len() > 1 {
            self.links.drain(..self.links.len() - 1);
        }
        first_error
    }
}
