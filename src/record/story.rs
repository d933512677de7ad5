//! What happened, in lines for people: what changed, what was decided, and what nobody has to be told of is left out.

use std::fmt::Write;

use super::entry::{Head, Question};
use crate::base::guard_frame::ExitCause;
use crate::base::ids::{Epoch, NodeId, Term};
use crate::base::time::{BootTime, Now, WallTime};
use crate::core::agreed::replicated::{Applied, Command};
use crate::core::fences::votes::Refusal;
use crate::core::{Action, Core, Event, Standing};

/// A line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub at: WallTime,
    pub text: String,
}

/// Grows with the replay.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    pub(super) told: Vec<Told>,
    now: WallTime,
    standing: Option<Standing>,
    /// The leader that was followed last, and in which term.
    followed: Option<(NodeId, Term)>,
    guard: Option<ArmedGuard>,
    /// Of its own vote, of the votes that it asked for last, and of its own lead.
    voted: Option<Term>,
    asked: Option<Term>,
    led: Option<Term>,
    probes_fail: bool,
    /// What the gate was asked and the rule that refused, when it is what was told last: retries are not told.
    answered: Option<(Question, Option<&'static str>)>,
}

/// The guard's deadline as the core knows it, which renewals move.
#[derive(Clone, Copy, Debug)]
struct ArmedGuard {
    epoch: Epoch,
    deadline: BootTime,
    renewals: u64,
}

impl Story {
    /// A run of a coordinator begins here, or the part of it that was kept.
    pub(super) fn begin(&mut self, head: &Head) {
        self.end();
        let told = std::mem::take(&mut self.told);
        *self = Story { told, now: self.now, ..Story::default() };
        let Head { version, member, started_at } = head;
        self.told.push(Told { at: *started_at, text: format!("{member} was started, baton {version}") });
    }

    pub(super) fn gap(&mut self, now: Option<Now>, entries: u64) {
        self.now = now.map_or(self.now, |now| now.wall);
        self.tell(format!("{entries} entries are missing here"));
    }

    /// Nothing follows.
    pub(super) fn end(&mut self) {
        if let Some(guard) = self.guard.take() {
            self.tell(format!("the record ends while the guard is armed under {}", renewed(guard)));
        }
    }

    /// `event` is about to be told to `core`.
    pub(super) fn before(&mut self, core: &Core, now: Now, event: &Event) {
        self.now = now.wall;
        if self.standing.is_none() {
            let standing = core.standing(now.boot);
            self.tell(format!("{standing}: {}", core.why_standing(now.boot)));
            self.standing = Some(standing);
        }
        self.hear(now, event);
    }

    /// It was, and `actions` followed.
    pub(super) fn after(&mut self, core: &Core, now: Now, actions: &[Action]) {
        let standing = core.standing(now.boot);
        if self.standing != Some(standing) {
            let from = self.standing.map_or_else(String::new, |from| format!("{from} → "));
            self.tell(format!("{from}{standing}: {}", core.why_standing(now.boot)));
            self.standing = Some(standing);
        }
        actions.iter().for_each(|action| self.order(action));
    }

    pub(super) fn asked(&mut self, core: &Core, now: Now, question: &Question, refused: Option<&Refusal>) {
        self.now = now.wall;
        let answered = Some((question.clone(), refused.map(Refusal::rule)));
        if self.answered == answered {
            return;
        }
        let answer = match refused {
            None => "the gate lets it".to_owned(),
            Some(refusal) => format!("refused by {}: {refusal}", refusal.rule()),
        };
        match question {
            Question::Vote { candidate } => {
                self.tell(format!("{candidate} asks for a vote, or is to get one: {answer}"))
            }
            Question::Campaign => self.tell(format!("{} is about to campaign: {answer}", core.me())),
        }
        self.answered = answered;
    }

    fn hear(&mut self, now: Now, event: &Event) {
        let text = match event {
            Event::Accepted { leader, term, .. } => {
                if !becomes(&mut self.followed, Some((leader.clone(), *term))) {
                    return;
                }
                format!("follows {leader}, which leads term {term}")
            }
            Event::Voted { term } if !becomes(&mut self.voted, Some(*term)) => return,
            Event::VotesAsked { term } if !becomes(&mut self.asked, Some(*term)) => return,
            Event::Led { term } if !becomes(&mut self.led, Some(*term)) => return,
            Event::LeadLost if !becomes(&mut self.led, None) => return,
            Event::GuardArmed { epoch, deadline } => return self.hear_armed(now, *epoch, *deadline),
            Event::GuardAttached { node, armed } => {
                let node = node.as_ref().map_or("no chain node".to_owned(), |node| match node.validator_epoch {
                    Some(epoch) => format!("chain node {}, a validator of epoch {epoch}", node.pid),
                    None => format!("chain node {}, a standby", node.pid),
                });
                let armed = armed.map_or(String::new(), |armed| format!(", armed under epoch {}", armed.epoch()));
                format!("a guard answers: {node}{armed}")
            }
            Event::GuardGone { node_proven_dead } => {
                self.disarm();
                let proven = if *node_proven_dead { "proven gone" } else { "not proven gone" };
                format!("the guard is gone; its chain node is {proven}")
            }
            Event::Fenced { epoch } => {
                self.disarm();
                format!("the guard's deadline passed in epoch {epoch}: it killed the chain node")
            }
            Event::ProbeFailed { reason } => {
                if !becomes(&mut self.probes_fail, true) {
                    return;
                }
                format!("a probe of the chain node failed: {reason}")
            }
            Event::Probed(_) => {
                if !becomes(&mut self.probes_fail, false) {
                    return;
                }
                "the chain node answers probes again".to_owned()
            }
            Event::Applied { command, outcome, .. } => match applied(command, outcome) {
                Some(text) => text,
                None => return,
            },
            event => match heard(event) {
                Some(text) => text,
                None => return,
            },
        };
        self.tell(text);
    }

    fn hear_armed(&mut self, now: Now, epoch: Epoch, deadline: BootTime) {
        if let Some(guard) = self.guard.as_mut().filter(|guard| guard.epoch == epoch) {
            guard.renewals += u64::from(deadline > guard.deadline);
            guard.deadline = guard.deadline.max(deadline);
            return;
        }
        self.disarm();
        self.guard = Some(ArmedGuard { epoch, deadline, renewals: 0 });
        let left = deadline.since(now.boot).as_millis();
        self.tell(format!("the guard is armed under epoch {epoch}, for {left} ms unless it is renewed"));
    }

    fn disarm(&mut self) {
        if let Some(guard) = self.guard.take() {
            self.tell(format!("so ends the guard's lease of {}", renewed(guard)));
        }
    }

    fn order(&mut self, action: &Action) {
        let text = match action {
            // What keeps a lease, and what only looks.
            Action::Arm { .. } | Action::WatchChain { .. } => return,
            Action::StartStandby => "orders: start the chain node as a standby".to_owned(),
            Action::EndGuard => "orders: end the guard, and its chain node with it".to_owned(),
            Action::Disarm { epoch } => {
                self.disarm();
                format!("orders: disarm the guard, epoch {epoch}")
            }
            Action::LinkValidating { epoch, floor } => format!("orders: link the key for epoch {epoch}; {floor}"),
            Action::Activate { epoch } => format!("orders: activate the chain node for epoch {epoch}"),
            Action::Deactivate { kill: false } => "orders: take the key from the chain node".to_owned(),
            Action::Deactivate { kill: true } => "orders: take the key from the chain node and kill it".to_owned(),
            Action::Upgrade { name, back } => {
                let back = if *back { ", back" } else { "" };
                format!("orders: upgrade the chain node, {name}{back}")
            }
            Action::ProposeClaim { epoch, reason } => format!("proposes to claim epoch {epoch}: {reason}"),
            Action::ProposeRelease { epoch, last_signed, reason, to } => {
                let mark = last_signed.map_or("no mark".to_owned(), |mark| format!("last signed {mark}"));
                let to = to.as_ref().map_or(String::new(), |to| format!(", for {to}"));
                format!("proposes to release epoch {epoch}, {mark}{to}: {reason}")
            }
            Action::ProposeActivated { epoch, floor, .. } => format!("proposes that epoch {epoch} is active; {floor}"),
            Action::Campaign => "campaigns".to_owned(),
            Action::TransferLead { to } => format!("offers the lead to {to}"),
            Action::AnswerHandover(Ok(done)) => format!("answers the handover: {} holds epoch {}", done.to, done.epoch),
            Action::AnswerHandover(Err(reason)) => format!("answers the handover: {reason}"),
            Action::Finish { stop_node: true } => "the coordinator may end, and the chain node with it".to_owned(),
            Action::Finish { stop_node: false } => "the coordinator may end; the chain node stays".to_owned(),
        };
        self.tell(text);
    }

    fn tell(&mut self, text: String) {
        self.answered = None;
        self.told.push(Told { at: self.now, text });
    }
}

/// Whether it was another one before.
fn becomes<T: PartialEq>(known: &mut T, now: T) -> bool {
    let before = std::mem::replace(known, now);
    before != *known
}

/// What became of a command of the log; `None` of what is signed, many a second.
fn applied(command: &Command, outcome: &Applied) -> Option<String> {
    if matches!(command, Command::Signing(_)) && !matches!(outcome, Applied::Recorded) {
        return None;
    }
    let mut text = format!("the log has {command}");
    if let Applied::Rejected { reason } = outcome {
        let _ = write!(text, ", which changed nothing: {reason}");
    }
    Some(text)
}

/// What is told of an event for itself; `None` of what only keeps things going.
fn heard(event: &Event) -> Option<String> {
    let text = match event {
        Event::Tick
        | Event::Voting { .. }
        | Event::Considered { .. }
        | Event::ReleaseLogged { .. }
        | Event::Acked { .. }
        | Event::Voters(_)
        | Event::Members(_)
        | Event::Forgotten { .. }
        | Event::Peers(_)
        | Event::ClockOffsets(_)
        | Event::MarkSeen(_)
        | Event::KeyLooked(_)
        | Event::Admitted { .. }
        | Event::StartWithheld
        // Told of with what it changes.
        | Event::Accepted { .. }
        | Event::Applied { .. }
        | Event::GuardAttached { .. }
        | Event::GuardGone { .. }
        | Event::GuardArmed { .. }
        | Event::Fenced { .. }
        | Event::Probed(_)
        | Event::ProbeFailed { .. } => return None,
        Event::Slept => "the host was suspended".to_owned(),
        Event::Voted { term } => format!("its own vote is of term {term}"),
        Event::Led { term } => format!("leads term {term}"),
        Event::LeadLost => "leads no term any more".to_owned(),
        Event::Restored { .. } => "a snapshot of another member took the place of the log".to_owned(),
        Event::ProposalFailed { reason } => format!("a proposal failed: {reason}"),
        Event::GuardAnswers(true) => "the guard answers again".to_owned(),
        Event::GuardAnswers(false) => "the guard does not answer".to_owned(),
        Event::GuardSuperseded { by } => format!("the guard refuses: it was armed under epoch {by}"),
        Event::NodeStarted { validator_epoch: Some(epoch) } => {
            format!("the chain node runs, a validator of epoch {epoch}")
        }
        Event::NodeStarted { validator_epoch: None } => "the chain node runs, a standby".to_owned(),
        Event::NodeStartFailed { reason } => format!("the chain node did not start: {reason}"),
        Event::NodeExited { cause: ExitCause::ByItself } => "the chain node ended by itself".to_owned(),
        Event::NodeExited { cause: ExitCause::Stopped { killed: true } } => "the chain node was killed".to_owned(),
        Event::NodeExited { cause: ExitCause::Stopped { killed: false } } => "the chain node has stopped".to_owned(),
        Event::NodeExited { cause: ExitCause::Fenced } => "the chain node was killed at the guard's deadline".to_owned(),
        Event::KeyDefect { reason: Some(reason) } => format!("a defect of the key's place: {reason}"),
        Event::KeyDefect { reason: None } => "the defect of the key's place is gone".to_owned(),
        Event::Linked { epoch } => format!("the links are validating, epoch {epoch}"),
        Event::LinksFailed { reason } => format!("the links failed: {reason}"),
        Event::LinksPutAway => "the links that were late are in standby".to_owned(),
        Event::Activated { epoch } => format!("proof: the chain node runs with the key, epoch {epoch}"),
        Event::ActivationFailed { epoch, reason } => format!("the activation of epoch {epoch} failed: {reason}"),
        Event::Inactive { last_signed: Some(mark) } => format!("proof: the chain node has no key; it signed last {mark}"),
        Event::Inactive { last_signed: None } => "proof: the chain node has no key; it has no record of what it signed".to_owned(),
        Event::UpgradeDue { name, back: _ } => format!("the upgrade {name} is due"),
        Event::UpgradeEnded { name, failed: None } => format!("the upgrade {name} is done"),
        Event::UpgradeEnded { name, failed: Some(reason) } => format!("the upgrade {name} failed: {reason}"),
        Event::NodeSilent => "the chain node, which is to give its key away, does not answer".to_owned(),
        Event::RivalHeard { member } => format!("{member} of another cluster of this name has called"),
        Event::NodeHides { below: Some(process) } => format!("below the chain node runs {process}"),
        Event::NodeHides { below: None } => "nothing runs below the chain node any more".to_owned(),
        Event::UnheldTold(_) => "a leader says that nobody holds the baton".to_owned(),
        Event::HandoverWanted { to: Some(to), reason, .. } => format!("a handover to {to} is wanted: {}", reason.as_str()),
        Event::HandoverWanted { to: None, reason, .. } => format!("a handover is wanted: {}", reason.as_str()),
        Event::ShutdownWanted { stop_node: true } => "it is to end, and its chain node too".to_owned(),
        Event::ShutdownWanted { stop_node: false } => "it is to end".to_owned(),
        Event::StoreFailed { reason } => format!("the store failed: {reason}"),
        Event::ForeignNode { found: Some(found) } => format!("a foreign chain node: {found}"),
        Event::ForeignNode { found: None } => "the foreign chain node is gone".to_owned(),
        Event::DiskHung { dir } => format!("the disk of {dir} does not answer"),
        Event::DiskBack { dir } => format!("the disk of {dir} answers again"),
        Event::DiskFull { room: Some(room) } => room.clone(),
        Event::DiskFull { room: None } => "the store has its reserve of room again".to_owned(),
        Event::KeysUnusable { reason: Some(reason) } => format!("the key cannot be linked: {reason}"),
        Event::KeysUnusable { reason: None } => "the key can be linked again".to_owned(),
        Event::VotesAsked { term } => format!("asks for votes of term {term}"),
        Event::VoteDenied { by, term } => format!("{by} gave no vote of term {term}"),
    };
    Some(text)
}

fn renewed(guard: ArmedGuard) -> String {
    let ArmedGuard { epoch, renewals, .. } = guard;
    format!("epoch {epoch}, renewed {renewals} times")
}
