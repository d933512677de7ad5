//! Changes of the membership, as far as openraft is concerned: one step at a time, each through a joint membership
//! when voters change. What may be changed is decided above (`core::members`); here is how it is written.

use std::collections::BTreeSet;
use std::sync::Arc;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};

use super::Consensus;
use crate::base::ids::NodeId;
use crate::cluster::wire::{Node, TypeConfig};
use crate::core::agreed::members::{Change, Members};

/// Why a change of the membership did not come about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the membership was not changed: {0}; baton member list shows what is so")]
pub struct NotChanged(pub String);

impl Consensus {
    /// Who belongs by the log of this member, committed or not.
    pub fn members(&self) -> Arc<Members> {
        self.members.borrow().clone()
    }

    /// Makes one change as the leader. Returns once it is committed as a whole.
    ///
    /// openraft refuses it while an earlier one is not committed. A leader that is lost in the midst of it leaves a
    /// joint membership: [`Consensus::complete_change`] ends that.
    ///
    /// # Errors
    /// Not made, made in part, or its fate is unknown.
    pub async fn change_members(&self, change: Change) -> Result<(), NotChanged> {
        let voters = |id: NodeId| BTreeSet::from([id]);
        let learner = |id: &NodeId| !self.members().is_voter(id);
        let changes = match change {
            Change::Add { id, member } => ChangeMembers::AddNodes([(id, member)].into()),
            Change::Promote { id } => ChangeMembers::AddVoterIds(voters(id)),
            Change::Remove { id } if learner(&id) => ChangeMembers::RemoveNodes(voters(id)),
            Change::Remove { id } => ChangeMembers::RemoveVoters(voters(id)),
        };
        self.write_members(changes).await
    }

    /// Ends the joint membership that an earlier leader left: forward, or back when this member, which leads, would
    /// lose its own vote by it.
    ///
    /// # Errors
    /// As [`Consensus::change_members`].
    pub async fn complete_change(&self) -> Result<(), NotChanged> {
        let members = self.members();
        let me = self.identity.member();
        let keeps_vote = |set: &&BTreeSet<NodeId>| set.contains(me);
        let Some(target) = members.voters.iter().rev().find(keeps_vote).filter(|_| members.is_joint()) else {
            return Ok(());
        };
        self.write_members(ChangeMembers::ReplaceAllVoters(target.clone())).await
    }

    /// Entries that `id` lacks, as far as this leader knows; `None` when it acknowledged none, or this is no leader.
    pub fn behind(&self, id: &NodeId) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matching = metrics.replication.as_ref()?.get(id)?.as_ref()?.index;
        Some(metrics.last_log_index?.saturating_sub(matching))
    }

    async fn write_members(&self, changes: ChangeMembers<NodeId, Node>) -> Result<(), NotChanged> {
        type Failed = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;
        let done = self.raft.change_membership(changes, false).await;
        done.map(|_| ()).map_err(|error: Failed| NotChanged(error.to_string()))
    }
}
