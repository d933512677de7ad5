//! Who belongs to the cluster and who of them votes, and what a change of that would mean for the quorum. Pure: the
//! log of every member holds the same `Members`, the coordinator of the leader asks here before it changes them.
//!
//! `cluster::store` tells the core of a membership in the very call that appends it, because fence 1 needs that. It
//! also publishes it to `cluster::roster`, from which Raft, gossip and the relay have their connections.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::base::ids::{NodeId, Role};
use crate::core::fences::lease::VoterSets;

/// What the cluster has laid down about one member.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// `host:port` that the other members connect to.
    pub addr: String,
    pub role: Role,
    /// Higher is preferred.
    pub priority: u32,
    /// The incarnation of its store, when an operator added it. A founder's is recorded by a `Join` after the start.
    pub incarnation: Option<u64>,
}

/// openraft's storage test suite makes members up.
impl Default for Member {
    fn default() -> Self {
        Member { addr: String::new(), role: Role::Validator, priority: 0, incarnation: None }
    }
}

/// The membership as the last such entry of a log has it, committed or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// One set, or two while a change is under way; none before the cluster is formed.
    pub voters: VoterSets,
    /// Voters and learners.
    pub all: BTreeMap<NodeId, Member>,
}

impl Members {
    pub fn is_voter(&self, id: &NodeId) -> bool {
        self.voters.iter().any(|set| set.contains(id))
    }

    pub fn is_joint(&self) -> bool {
        self.voters.len() > 1
    }

    /// The voters once the change that is under way, if any, is complete.
    pub fn final_voters(&self) -> BTreeSet<NodeId> {
        self.voters.last().cloned().unwrap_or_default()
    }

    pub fn learners(&self) -> impl Iterator<Item = &NodeId> {
        self.all.keys().filter(|id| !self.is_voter(id))
    }

    /// The names, for an error.
    pub fn names(&self) -> String {
        listed(self.all.keys())
    }
}

/// One step of an operator; never more than one voter comes or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// As a learner: it gets the log and has no vote.
    Add { id: NodeId, member: Member },
    /// A learner gets a vote.
    Promote { id: NodeId },
    /// A voter or a learner goes.
    Remove { id: NodeId },
}

/// What the leader knows when it is asked for a change.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    pub members: &'a Members,
    /// The one that is asked, which leads.
    pub leader: &'a NodeId,
    pub holder: Option<&'a NodeId>,
    /// Those that have acknowledged the leader just now, itself included.
    pub answering: &'a BTreeSet<NodeId>,
    /// Entries that the learner to be promoted lacks; `None` when it acknowledged none yet.
    pub behind: Option<u64>,
}

/// Why a change is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Never in this state.
    Always(String),
    /// Unless the operator insists.
    Unforced(String),
    /// It is so already.
    Done(String),
    /// In a moment it may be different.
    NotYet(String),
}

impl Refused {
    pub fn reason(self) -> String {
        match self {
            Refused::Always(reason) | Refused::Unforced(reason) | Refused::Done(reason) | Refused::NotYet(reason) => {
                reason
            }
        }
    }
}

/// A learner that lacks more entries than this would hold up every commit once it votes.
const BEHIND_MAX: u64 = 50;

/// What a change would lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    what: String,
    before: BTreeSet<NodeId>,
    after: BTreeSet<NodeId>,
    answering: BTreeSet<NodeId>,
    validators: usize,
}

impl Change {
    pub fn id(&self) -> &NodeId {
        match self {
            Change::Add { id, .. } | Change::Promote { id } | Change::Remove { id } => id,
        }
    }

    /// What would come of it, whether it is allowed or not.
    pub fn plan(&self, facts: &Facts<'_>) -> Plan {
        let before = facts.members.final_voters();
        let (mut after, mut all) = (before.clone(), facts.members.all.clone());
        let what = match self {
            Change::Add { id, member } => {
                all.insert(id.clone(), member.clone());
                let Member { addr, role, priority, .. } = member;
                format!("add {id} ({}, priority {priority}, {addr}) as a learner, without a vote", role.as_str())
            }
            Change::Promote { id } => {
                after.insert(id.clone());
                format!("promote {id}: it gets a vote")
            }
            Change::Remove { id } => {
                all.remove(id);
                let vote = if after.remove(id) { "a voter" } else { "a learner" };
                format!("remove {id}, {vote}")
            }
        };
        let validates = |id: &&NodeId| all.get(*id).is_some_and(|member| member.role == Role::Validator);
        let validators = after.iter().filter(validates).count();
        Plan { what, before, after, answering: facts.answering.clone(), validators }
    }

    /// # Errors
    /// Why it must not be made, or that there is nothing to do.
    pub fn check(&self, facts: &Facts<'_>, plan: &Plan) -> Result<(), Refused> {
        let members = facts.members;
        if members.is_joint() {
            let reason = "a change of the membership is under way; try again in a moment";
            return Err(Refused::NotYet(reason.into()));
        }
        match self {
            Change::Add { id, member } => check_add(members, id, member),
            Change::Promote { id } => check_promote(facts, id).and_then(|()| plan.check_quorum()),
            Change::Remove { id } => check_remove(facts, id, plan).and_then(|()| plan.check_quorum()),
        }
    }
}

fn check_add(members: &Members, id: &NodeId, member: &Member) -> Result<(), Refused> {
    if let Some(known) = members.all.get(id) {
        return Err(if known.incarnation == member.incarnation && known.addr == member.addr {
            let vote = if members.is_voter(id) { "a voter" } else { "a learner" };
            Refused::Done(format!("{id} is a member already, {vote}"))
        } else if known.incarnation == member.incarnation {
            Refused::Always(format!(
                "{id} is a member at {}; remove it before you add it at {}",
                known.addr, member.addr
            ))
        } else {
            Refused::Always(format!(
                "{id} is a member, with another store than this one, which was wiped or copied; baton member remove {id} \
                 comes first"
            ))
        });
    }
    match members.all.iter().find(|(_, known)| known.addr.eq_ignore_ascii_case(&member.addr)) {
        Some((other, _)) => Err(Refused::Always(format!("{} is the address of {other}", member.addr))),
        None => Ok(()),
    }
}

fn check_promote(facts: &Facts<'_>, id: &NodeId) -> Result<(), Refused> {
    if !facts.members.all.contains_key(id) {
        return Err(stranger(facts.members, id, "add it first"));
    }
    if facts.members.is_voter(id) {
        return Err(Refused::Done(format!("{id} is a voter already")));
    }
    if !facts.answering.contains(id) {
        return Err(Refused::Always(format!(
            "{id} does not answer {}, so its vote would only make the quorum larger; see baton status",
            facts.leader
        )));
    }
    match facts.behind {
        Some(behind) if behind <= BEHIND_MAX => Ok(()),
        Some(behind) => Err(Refused::NotYet(format!("{id} still lacks {behind} entries of the log; try again later"))),
        None => Err(Refused::NotYet(format!("{id} has none of the log yet; try again in a moment"))),
    }
}

fn check_remove(facts: &Facts<'_>, id: &NodeId, plan: &Plan) -> Result<(), Refused> {
    if !facts.members.all.contains_key(id) {
        return Err(Refused::Done(format!("{id} is no member any more")));
    }
    // Whoever holds the baton leads: a holder that does not is one whose lease is over.
    if facts.leader == id && facts.holder == Some(id) {
        return Err(Refused::Always(format!("{id} holds the baton; move it away first: baton handover")));
    }
    if facts.leader == id {
        return Err(Refused::Always(format!(
            "{id} leads at this moment, though it does not hold the baton; stop its coordinator first, so that another \
             leads"
        )));
    }
    if plan.after.is_empty() {
        return Err(Refused::Always(format!("{id} is the last voter")));
    }
    if plan.validators == 0 {
        return Err(Refused::Always(format!("{id} is the last validator with a vote: nobody could sign")));
    }
    Ok(())
}

fn stranger(members: &Members, id: &NodeId, advice: &str) -> Refused {
    Refused::Always(format!("{id} is not a member of this cluster; there are {}; {advice}", members.names()))
}

impl Plan {
    pub fn quorum(&self) -> usize {
        self.after.len() / 2 + 1
    }

    /// Voters that answer, of those there will be.
    fn answering_after(&self) -> BTreeSet<&NodeId> {
        self.after.intersection(&self.answering).collect()
    }

    /// How many of those that answer may fail before nobody can sign; `None` when nobody can anyway.
    pub fn spare(&self) -> Option<usize> {
        self.answering_after().len().checked_sub(self.quorum())
    }

    /// The change is complete only once a quorum of the voters before it and of those after it has it.
    fn check_quorum(&self) -> Result<(), Refused> {
        let answer_before = self.before.intersection(&self.answering).count();
        let short = if answer_before <= self.before.len() / 2 {
            Some((answer_before, &self.before, "there are now"))
        } else if self.spare().is_none() {
            Some((self.answering_after().len(), &self.after, "there would be"))
        } else {
            None
        };
        match short {
            None => Ok(()),
            Some((answering, voters, when)) => Err(Refused::Unforced(format!(
                "{answering} of the {} voters that {when} ({}) answer, {} must: nobody would sign until more of them are \
                 back; bring them back first, or insist with --force",
                voters.len(),
                listed(voters),
                voters.len() / 2 + 1
            ))),
        }
    }

    /// What an operator should think of twice; `None` when nothing is odd.
    pub fn warning(&self) -> Option<String> {
        voters_warning(self.after.len())
    }

    /// For a terminal.
    pub fn lines(&self) -> Vec<String> {
        let of = |voters: &BTreeSet<NodeId>| {
            format!("{}: quorum {} of {}", listed(voters), voters.len() / 2 + 1, voters.len())
        };
        let answering = self.answering_after();
        let risk = match self.spare() {
            None => "no quorum of those would answer: NOBODY COULD SIGN".to_string(),
            Some(0) => format!("none of them may fail: the loss of {} stops signing", either(&answering)),
            Some(1) => "1 of them may fail; the loss of a second one stops signing".to_string(),
            Some(spare) => format!("{spare} of them may fail; the loss of one more stops signing"),
        };
        let silent: Vec<&NodeId> = self.after.iter().filter(|id| !self.answering.contains(*id)).collect();
        let silent = if silent.is_empty() { String::new() } else { format!(" (not {})", listed(silent)) };
        let mut lines = vec![
            self.what.clone(),
            format!("voters now:    {}", of(&self.before)),
            format!("voters after:  {}", of(&self.after)),
            format!("answering:     {}{silent}", listed(answering)),
            format!("risk after it: {risk}"),
        ];
        lines.extend(self.warning().map(|warning| format!("WARNING: {warning}")));
        lines
    }
}

/// What is odd about a cluster of `voters`.
pub fn voters_warning(voters: usize) -> Option<String> {
    match voters {
        1 => Some("one voter: nobody takes over when it fails".into()),
        2 => Some("two voters: the loss of EITHER stops signing; add a third one, an arbiter is enough".into()),
        even if even > 0 && even.is_multiple_of(2) => {
            Some(format!("{even} voters survive the loss of {}, no more than {} would", (even - 1) / 2, even - 1))
        }
        _ => None,
    }
}

fn listed<'a>(ids: impl IntoIterator<Item = &'a NodeId>) -> String {
    let names: Vec<&str> = ids.into_iter().map(NodeId::as_str).collect();
    if names.is_empty() { "nobody".into() } else { names.join(", ") }
}

fn either(ids: &BTreeSet<&NodeId>) -> String {
    let names: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    names.join(" or ")
}

#[cfg(test)]
mod tests;
