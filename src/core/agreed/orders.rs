//! What an operator has laid down for the whole cluster, and who may claim under it.
//!
//! Orders only ever forbid. They decide who takes the baton when, never whether it is safe to: the fences
//! know nothing of them.
//!
//! A pause asks who may claim at all. These are the *keepers*: the member that was proven active last, those that
//! claimed since and never became active, and the target that a holder's `Release` names when an operator moved the
//! baton. So a failed handover still leads back, and nobody else takes part.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::ids::NodeId;
use crate::base::time::WallTime;
use crate::core::agreed::replicated::Set;

/// Part of the replicated state, so every member knows the same ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Orders {
    /// Members that take no baton, and since when.
    #[serde(default)]
    pub maintenance: BTreeMap<NodeId, WallTime>,
    /// Since when the baton does not move by itself.
    #[serde(default)]
    pub paused: Option<WallTime>,
    /// In the place of what the configurations say.
    #[serde(default)]
    pub priorities: BTreeMap<NodeId, u32>,
}

/// Why a member that could take the baton may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Barred {
    Maintenance(NodeId),
    Paused(NodeId),
}

impl Orders {
    pub fn is_in_maintenance(&self, member: &NodeId) -> bool {
        self.maintenance.contains_key(member)
    }

    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Whether `member` may claim, when `keepers` are those with whom the baton stays during a pause.
    ///
    /// # Errors
    /// The order that forbids it.
    pub fn may_claim<'a>(&self, member: &NodeId, mut keepers: impl Iterator<Item = &'a NodeId>) -> Result<(), Barred> {
        if self.is_in_maintenance(member) {
            return Err(Barred::Maintenance(member.clone()));
        }
        if self.is_paused() && !keepers.any(|keeper| keeper == member) {
            return Err(Barred::Paused(member.clone()));
        }
        Ok(())
    }

    /// What a member is configured with, or what an operator has set in its place.
    pub fn priority(&self, member: &NodeId, configured: u32) -> u32 {
        self.priorities.get(member).copied().unwrap_or(configured)
    }

    /// Forgets the orders about members that are not `kept`.
    pub(super) fn retain(&mut self, kept: impl Fn(&NodeId) -> bool) {
        self.maintenance.retain(|id, _| kept(id));
        self.priorities.retain(|id, _| kept(id));
    }

    pub(super) fn set(&mut self, set: &Set) {
        match set {
            Set::Maintenance { member, on: true, at } => {
                self.maintenance.entry(member.clone()).or_insert(*at);
            }
            Set::Maintenance { member, on: false, .. } => {
                self.maintenance.remove(member);
            }
            Set::Pause { on, at } => self.paused = on.then(|| self.paused.unwrap_or(*at)),
            Set::Priority { member, priority: Some(priority) } => {
                self.priorities.insert(member.clone(), *priority);
            }
            Set::Priority { member, priority: None } => {
                self.priorities.remove(member);
            }
        }
    }

    /// Whether [`Orders::set`] would change nothing but a time.
    pub fn has(&self, set: &Set) -> bool {
        match set {
            Set::Maintenance { member, on, .. } => self.is_in_maintenance(member) == *on,
            Set::Pause { on, .. } => self.is_paused() == *on,
            Set::Priority { member, priority } => self.priorities.get(member) == priority.as_ref(),
        }
    }
}

impl fmt::Display for Barred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Barred::Maintenance(member) => write!(f, "{member} is in maintenance"),
            Barred::Paused(member) => write!(f, "the cluster is paused and the baton is not {member}'s to keep"),
        }
    }
}
