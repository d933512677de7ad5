//! What a coordinator would have answered at a moment of its record, as far as its core knew. Called by `baton why --at`.

use super::told_by_core;
use crate::base::chain_node::Health;
use crate::base::ids::{NodeId, Role, Vote};
use crate::base::time::Now;
use crate::cluster::wire::proto::{ChainHealth, MemberStatus, Move, Record, StatusResponse};
use crate::core::agreed::replicated::MoveKind;
use crate::core::{Core, Peer, Stage, State};
use crate::record::{Step, Timeline, Timelines};

/// The status by `core` at `now`, and the moves that the record has, the oldest first.
pub fn then(core: &Core, now: Now, timelines: &Timelines) -> (StatusResponse, Vec<Move>) {
    let seen = Seen { core, now, timelines };
    let members: Vec<MemberStatus> = seen.members();
    let rest = StatusResponse {
        leader: core.leader(now.boot).map(ToString::to_string).unwrap_or_default(),
        term: core.term(),
        quorum: core.lease_remaining(now.boot).is_some() || has_majority(&members),
        members,
        ..StatusResponse::default()
    };
    (told_by_core::status(core, rest), timelines.moves().filter_map(row).collect())
}

struct Seen<'a> {
    core: &'a Core,
    now: Now,
    timelines: &'a Timelines,
}

impl Seen<'_> {
    fn members(&self) -> Vec<MemberStatus> {
        let mut ids: Vec<&NodeId> = self.core.members().keys().chain([self.core.me()]).collect();
        ids.sort();
        ids.dedup();
        ids.into_iter().map(|id| self.member(id)).collect()
    }

    fn member(&self, id: &NodeId) -> MemberStatus {
        let Seen { core, .. } = self;
        let told = if id == core.me() { self.own() } else { self.other(id, core.peers().get(id)) };
        let priority = core.members().get(id).copied().unwrap_or(0);
        MemberStatus {
            id: id.to_string(),
            priority,
            maintenance: core.view().orders.is_in_maintenance(id),
            vote: if core.is_voter(id) { Vote::Voter } else { Vote::Learner }.as_str().into(),
            ..told
        }
    }

    fn own(&self) -> MemberStatus {
        let Seen { core, now, .. } = self;
        let chain = core.host().health().map(|health: &Health| ChainHealth {
            reachable: true,
            synced: health.synced,
            height: health.height,
            ..ChainHealth::default()
        });
        let record = told_by_core::record(core, *now, Record { chain, ..Record::default() });
        let role = core.settings().role.as_str().into();
        MemberStatus { reachable: true, role, ..told_by_core::member(record) }
    }

    /// What gossip had told of it. Its phase is not among that: the log has it.
    fn other(&self, id: &NodeId, peer: Option<&Peer>) -> MemberStatus {
        let Seen { core, now, .. } = self;
        let Peer { ready, not_ready_because, reachable, height, .. } = peer.cloned().unwrap_or_default();
        let holds = core.view().holder.as_ref() == Some(id) && core.leader(now.boot) == Some(id);
        let (state, phase) = match (reachable, holds) {
            (false, _) => ("", ""),
            (true, true) if self.is_active() => (State::Validating.as_str(), Stage::Active.as_str()),
            (true, true) => (State::Validating.as_str(), "its activation is not in the log"),
            (true, false) if ready => (State::Voting.as_str(), ""),
            (true, false) => (State::Registering.as_str(), ""),
        };
        // An arbiter has no priority, unless somebody has given it one for nothing.
        let arbiter = core.settings().priorities.get(id) == Some(&0) && !ready;
        MemberStatus {
            role: if arbiter { Role::Arbiter } else { Role::Validator }.as_str().into(),
            state: state.into(),
            phase: phase.into(),
            reachable,
            height,
            not_ready_because,
            ..MemberStatus::default()
        }
    }

    /// Whether the holder is, by the log. One whose claim is older than the record had its time to become it.
    fn is_active(&self) -> bool {
        let epoch = self.core.view().epoch;
        let claimed = self.timelines.moves().find(|timeline| timeline.epoch == epoch);
        claimed.is_none_or(|timeline| timeline.at(Step::Recorded).is_some())
    }
}

fn has_majority(members: &[MemberStatus]) -> bool {
    let voters = || members.iter().filter(|member| member.vote == Vote::Voter.as_str());
    voters().filter(|member| member.reachable).count() > voters().count() / 2
}

/// As the history would have it. Where the baton came from may be older than the record; then there is no row.
fn row(timeline: &Timeline) -> Option<Move> {
    let Timeline { epoch, from, to, reason, released, moments: _ } = timeline;
    let first = epoch.0 == 1;
    let from = match from {
        Some(from) => from.to_string(),
        None if first => String::new(),
        None => return None,
    };
    let kind = match (first, released) {
        (true, _) => MoveKind::First,
        (false, true) => MoveKind::Handover,
        (false, false) => MoveKind::Failover,
    };
    let claimed = timeline.at(Step::Claimed)?;
    let active = timeline.at(Step::Active).or(timeline.at(Step::Recorded));
    Some(Move {
        epoch: epoch.0,
        from,
        to: to.to_string(),
        kind: kind.as_str().into(),
        reason: reason.clone(),
        claimed_at_ns: claimed.wall.as_nanos(),
        active_at_ns: active.map_or(0, |active| active.wall.as_nanos()),
        gap_ns: active.map_or(0, |active| active.boot.since(claimed.boot).as_nanos() as u64),
        ..Move::default()
    })
}
