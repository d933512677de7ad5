//! What the leader does next about the plan in force. The same situation gives the same answer on every member, so that
//! each can say what the plan waits for, and a new leader goes on where the one before it was lost.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::plan::Plan;
use super::report::{BinaryReport, UpgradeReport};
use crate::base::ids::{NodeId, Role};
use crate::core::agreed::replicated::Move;

/// A chain node that ends this often with its new binary will not do.
const CRASHES_MAX: u32 = 3;
/// In which a host in its turn has to be in sync, from the last moment at which it was seen at work.
const FIT_WITHIN: Duration = Duration::from_secs(600);
/// In which a failure that a host tells of may be one from before its turn.
const OLD_FAILURE: Duration = Duration::from_secs(10);
/// A failover is over by then: from here on nobody is kept from an upgrade because there might be one to come.
const UNHELD_MAX: Duration = Duration::from_secs(60);

/// As in the history, of a handover that a plan asks for.
pub const HANDOVER_REASON: &str = "upgrade";

/// A member as gossip tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub id: NodeId,
    pub role: Role,
    pub priority: u32,
    pub reachable: bool,
    /// It could take the baton now; else why not.
    pub ready: Result<(), String>,
    pub synced: bool,
    pub maintenance: bool,
    pub height: u64,
    /// Ends of its chain node that are not forgotten yet.
    pub crashes: u32,
    /// `None` without an `[upgrade]` section, or while nothing was heard of it.
    pub report: Option<UpgradeReport>,
}

/// All that the decision is made of.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    pub plan: &'a Plan,
    pub hosts: &'a [Host],
    pub holder: Option<&'a NodeId>,
    /// The holder signs, by its own word.
    pub active: bool,
    pub paused: bool,
    pub moves: &'a VecDeque<Move>,
    /// Since this member saw whose turn it is.
    pub turn_for: Duration,
    /// Since it last saw the host in its turn at work.
    pub idle_for: Duration,
    /// Since it last saw an active holder.
    pub unheld_for: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes on by itself; with what.
    Underway(String),
    /// For what an operator may have to bring about.
    Wait(String),
    /// This standby is upgraded now.
    Turn(NodeId),
    /// The holder hands the baton to this one, which is upgraded and ready.
    HandOver(NodeId),
    /// Everybody is upgraded.
    End,
    Fail {
        member: NodeId,
        reason: String,
    },
}

impl Next {
    pub fn is_stuck(&self) -> bool {
        match self {
            Next::Wait(_) | Next::Fail { .. } => true,
            Next::Underway(_) | Next::Turn(_) | Next::HandOver(_) | Next::End => false,
        }
    }
}

/// What a plan waits for.
impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Next::Underway(what) | Next::Wait(what) => f.write_str(what),
            Next::Turn(member) => write!(f, "{member}, whose turn it is"),
            Next::HandOver(to) => write!(f, "the baton to move to {to}"),
            Next::End => f.write_str("the leader to note that every host is upgraded"),
            Next::Fail { member, reason } => write!(f, "the leader to end it: {member}: {reason}"),
        }
    }
}

/// What is to be done now about the plan, which has not ended.
pub fn next(situation: &Situation<'_>) -> Next {
    match situation.plan.height {
        Some(height) => situation.at_height(height),
        None => situation.rolling(),
    }
}

impl<'a> Situation<'a> {
    fn validators(&self) -> impl Iterator<Item = &'a Host> {
        self.hosts.iter().filter(|host| host.role == Role::Validator)
    }

    fn is_upgraded(&self, host: &Host) -> bool {
        host.report.as_ref().is_some_and(|report| report.runs(&self.plan.name))
    }

    fn holds(&self, host: &Host) -> bool {
        self.holder == Some(&host.id)
    }

    /// It signs, or could.
    fn is_fit(&self, host: &Host) -> bool {
        let could = if host.maintenance { host.synced } else { host.ready.is_ok() };
        host.reachable && (could || self.holds(host) && self.active)
    }

    /// The plan is for a height: every host swaps by itself, and the holder keeps the baton.
    fn at_height(&self, height: u64) -> Next {
        let mut left = self.validators().filter(|host| !self.is_upgraded(host)).peekable();
        if left.peek().is_none() && self.validators().next().is_some() {
            return Next::End;
        }
        let head = self.validators().map(|host| host.height).max().unwrap_or_default();
        if let Some(obstacle) = self.binaries() {
            return obstacle;
        }
        for host in left.by_ref() {
            let (id, name) = (&host.id, &self.plan.name);
            let Some(report) = &host.report else { continue };
            if let Some(under_way) = report.work_on(name) {
                return Next::Underway(format!("{id}: {under_way}"));
            }
            if let Some(failed) = report.failure_of(name) {
                return Next::Wait(format!("{id}, which failed at {}: {}", failed.step.as_str(), failed.reason));
            }
        }
        if head < height {
            return Next::Underway(format!("height {height}; the chain is at {head}"));
        }
        let left: Vec<&str> =
            self.validators().filter(|host| !self.is_upgraded(host)).map(|host| host.id.as_str()).collect();
        Next::Underway(format!("{} to run it: the chain is at {head}", left.join(", ")))
    }

    fn rolling(&self) -> Next {
        if self.paused {
            return Next::Wait("the end of the pause, which is baton resume".into());
        }
        let turn = self.plan.turn().and_then(|turn| self.validators().find(|host| host.id == *turn));
        if let Some(host) = turn.filter(|host| !self.is_upgraded(host) || !self.is_fit(host)) {
            return match self.failure(host) {
                Some(reason) => Next::Fail { member: host.id.clone(), reason },
                None => Next::Underway(self.progress(host)),
            };
        }
        if let Some(failed) = self.lost_again() {
            return failed;
        }
        if let Some(obstacle) = self.binaries().or_else(|| self.unfit()) {
            return obstacle;
        }
        if !self.active && self.unheld_for < UNHELD_MAX {
            return Next::Underway("a member to hold the baton".into());
        }
        let left = || self.validators().filter(|host| !self.is_upgraded(host));
        match left().filter(|host| !self.holds(host)).min_by_key(|host| (host.priority, Reverse(&host.id))) {
            Some(standby) => Next::Turn(standby.id.clone()),
            None if left().next().is_some() => self.hand_over(),
            None => Next::End,
        }
    }

    /// Only the holder is left.
    fn hand_over(&self) -> Next {
        let taker = self
            .validators()
            .filter(|host| !self.holds(host) && host.reachable && host.ready.is_ok() && !host.maintenance)
            .max_by_key(|host| (host.priority, host.height, Reverse(&host.id)));
        let holder = self.holder.map_or("nobody", NodeId::as_str);
        match taker {
            Some(taker) if self.active => Next::HandOver(taker.id.clone()),
            Some(_) => Next::Wait(format!("{holder}, which has the baton and does not sign")),
            None => {
                Next::Wait(format!("a standby that could take the baton from {holder}, the last one to be upgraded"))
            }
        }
    }

    /// The baton was handed to an upgraded host, and one that is not upgraded has it again: never twice.
    fn lost_again(&self) -> Option<Next> {
        let holder = self.validators().find(|host| self.holds(host) && !self.is_upgraded(host))?;
        let of_plan = |row: &&Move| row.claimed_at >= self.plan.planned_at && row.reason == HANDOVER_REASON;
        let row = self.moves.iter().rev().find(of_plan).filter(|row| row.to != holder.id)?;
        let reason = format!("it was handed the baton and did not keep it; {} has it again", holder.id);
        Some(Next::Fail { member: row.to.clone(), reason })
    }

    /// Why nobody can be upgraded yet, as far as binaries go.
    fn binaries(&self) -> Option<Next> {
        let name = &self.plan.name;
        let mut sums: Vec<(&NodeId, &str)> = Vec::new();
        for host in self.validators() {
            let id = &host.id;
            let Some(report) = &host.report else {
                return Some(Next::Wait(if host.reachable {
                    format!("an [upgrade] section in the configuration of {id}, or {id} to be no member any more")
                } else {
                    format!("{id}, which cannot be reached")
                }));
            };
            let upgraded = self.is_upgraded(host);
            match report.binary(name) {
                Some(BinaryReport::Present { sha256 }) => sums.push((id, sha256)),
                Some(BinaryReport::Missing { reason }) if !upgraded => {
                    return Some(Next::Wait(format!("the binary on {id}: {reason}")));
                }
                Some(BinaryReport::Fetching { done, total }) if !upgraded => {
                    let far = total.map(|total| format!(" ({} %)", percent(*done, total))).unwrap_or_default();
                    return Some(Next::Underway(format!("{id} to get the binary{far}")));
                }
                None if !upgraded => {
                    return Some(Next::Underway(format!("{id} to look for the binary")));
                }
                Some(BinaryReport::Missing { .. } | BinaryReport::Fetching { .. }) | None => {}
            }
        }
        let (first, sum) = sums.first()?;
        let (other, differs) = sums.iter().find(|(_, other)| other != sum)?;
        Some(Next::Wait(format!("one binary on all hosts: {first} has {}, {other} has {}", short(sum), short(differs))))
    }

    /// A host that is down stays the only one that is.
    fn unfit(&self) -> Option<Next> {
        self.validators().find_map(|host| {
            let id = &host.id;
            match &host.ready {
                _ if !host.reachable => Some(Next::Wait(format!("{id}, which cannot be reached"))),
                Err(reason) if self.is_upgraded(host) && !self.is_fit(host) => {
                    Some(Next::Underway(format!("{id}, which is upgraded and not ready: {reason}")))
                }
                Ok(()) | Err(_) => None,
            }
        })
    }

    /// Why the host in its turn ends the plan, if it does.
    fn failure(&self, host: &Host) -> Option<String> {
        let (name, report) = (&self.plan.name, host.report.as_ref());
        let at_work = report.is_some_and(|report| report.under_way.is_some());
        let failed = report.and_then(|report| report.failure_of(name));
        if let Some(failed) = failed.filter(|_| !at_work && self.turn_for >= OLD_FAILURE) {
            return Some(format!("{}: {}", failed.step.as_str(), failed.reason));
        }
        if self.is_upgraded(host) && host.crashes >= CRASHES_MAX {
            return Some(format!("its chain node ended {} times with the new binary", host.crashes));
        }
        let late = !at_work && self.idle_for >= FIT_WITHIN;
        let minutes = FIT_WITHIN.as_secs() / 60;
        late.then(|| match &host.ready {
            _ if !host.reachable => format!("it could not be reached for {minutes} minutes"),
            _ if !self.is_upgraded(host) => format!("it did not run the new binary within {minutes} minutes"),
            Err(reason) => format!("it was not ready within {minutes} minutes: {reason}"),
            Ok(()) => format!("it was not in sync within {minutes} minutes"),
        })
    }

    /// What the host in its turn is at.
    fn progress(&self, host: &Host) -> String {
        let id = &host.id;
        if !host.reachable {
            return format!("{id}, whose turn it is and which cannot be reached");
        }
        let under_way = host.report.as_ref().and_then(|report| report.under_way.as_ref());
        match (under_way, &host.ready) {
            (Some(under_way), _) => format!("{id}: {under_way}"),
            (None, Err(reason)) if self.is_upgraded(host) => format!("{id}, which is upgraded and not ready: {reason}"),
            (None, _) if self.is_upgraded(host) => format!("{id}, which is upgraded and not in sync"),
            (None, _) => format!("{id}, whose turn it is"),
        }
    }
}

/// The part of a whole that may be unknown.
pub fn percent(done: u64, total: u64) -> u64 {
    (u128::from(done) * 100).checked_div(total.into()).map_or(0, |percent| percent.min(100) as u64)
}

/// Enough of a checksum to tell two from each other.
pub fn short(sha256: &str) -> &str {
    &sha256[..sha256.floor_char_boundary(12)]
}

#[cfg(test)]
mod tests;
