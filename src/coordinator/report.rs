//! What this coordinator tells of itself: its gossip record, the status, the history and the metrics.

use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use super::signing::Signing;
use super::told_by_core;
use crate::base::chain_node::FloorBasis;
use crate::base::guard_frame::Containment;
use crate::base::ids::{NodeId, Vote};
use crate::base::time::{BootTime, WallTime};
use crate::cluster::gossip::{Gossip, Table};
use crate::cluster::identity::Identity;
use crate::cluster::raft::Consensus;
use crate::cluster::roster::Roster;
use crate::cluster::store::AppliedState;
use crate::cluster::transport::Certificates;
use crate::cluster::wire::proto::{
    ChainHealth, HistoryResponse, MemberStatus, MoveFloor, Record, SettlingRules, StatusResponse, TenureStage,
};
use crate::cluster::wire::{approvals_part, proto, signed_part};
use crate::config::{Config, Member};
use crate::core::agreed::members::voters_warning;
use crate::core::agreed::orders::Orders;
use crate::core::agreed::replicated::Move;
use crate::core::upgrades::{Next, UpgradeReport};
use crate::core_handle::SharedCore;
use crate::host::effects::{Effects, Seen};
use crate::operator::explain::{differences, key_alarm, lost_sentries};
use crate::operator::exporter::LetGo;
use crate::operator::metrics::{DiskSpace, Metrics};

#[derive(Clone)]
pub(super) struct Reporter {
    pub config: Arc<Config>,
    pub core: Arc<SharedCore>,
    pub consensus: Consensus,
    pub gossip: Gossip,
    pub identity: Arc<Identity>,
    pub roster: Arc<Roster>,
    pub effects: Option<Effects>,
    pub applied: watch::Receiver<AppliedState>,
    pub metrics: Metrics,
    /// `None` without TLS.
    pub certificates: Option<Certificates>,
    /// `None` where a chain node has the key.
    pub signing: Option<Signing>,
    /// How this host last stopped being the holder.
    pub let_go: watch::Receiver<Option<LetGo>>,
    /// Space on the disk of the state directory.
    pub disk: watch::Receiver<Option<DiskSpace>>,
    /// What is to be done about the plan in force; `None` without one.
    pub next_of_plan: watch::Receiver<Option<Next>>,
    /// Held by who changes, as the leader, what members there are or what they have to be able to read.
    pub changing: Arc<Mutex<()>>,
}

impl Reporter {
    fn seen(&self) -> Seen {
        self.effects.as_ref().map(|effects| effects.seen().borrow().clone()).unwrap_or_default()
    }

    /// How members may speak to this one.
    fn transport(&self) -> &'static str {
        match (&self.certificates, self.config.insecure) {
            (Some(_), _) => "tls",
            (None, true) => "insecure",
            (None, false) => "loopback",
        }
    }

    pub(super) fn certificate_until(&self) -> Option<WallTime> {
        self.certificates.as_ref().map(Certificates::valid_until)
    }

    /// What the own hands tell of the binaries of the chain node.
    fn upgrade_report(&self) -> Option<UpgradeReport> {
        let effects = self.effects.as_ref().filter(|_| self.runs_upgrades())?;
        effects.upgrade_report().borrow().clone()
    }

    /// This member's own gossip record, but for what gossip itself fills in.
    pub(super) fn record(&self) -> Record {
        let Seen { health, last_signed, note, foreign } = self.seen();
        let effects = self.effects.as_ref();
        let rest = Record {
            chain: health.map(|health| ChainHealth {
                reachable: true,
                synced: health.synced,
                height: health.height,
                head_time_ns: health.head_time.map_or(0, |time| time.as_nanos()),
                peers: health.peers.unwrap_or(0),
                probe_latency_us: health.latency.as_micros() as u32,
                version: health.version,
            }),
            last_signed: signed_part(last_signed),
            approvals: approvals_part(last_signed),
            guard: effects.map_or("absent", |effects| effects.guard_state().as_str()).into(),
            links: effects.map_or("standby", |effects| effects.links_seen().borrow().as_str()).into(),
            node_pid: effects.and_then(Effects::node_pid).unwrap_or(0),
            disk_free_bytes: self.disk.borrow().map_or(0, |disk| disk.free),
            term: self.consensus.leader().1,
            version_text: env!("CARGO_PKG_VERSION").into(),
            node_note: note,
            containment: effects.and_then(Effects::containment).map_or("", Containment::word).into(),
            transport: self.transport().into(),
            certificate_until_ns: self.certificate_until().map_or(0, WallTime::as_nanos),
            upgrade: self.upgrade_report().as_ref().map(Into::into),
            settling_rules: self.config.chain.as_ref().and_then(SettlingRules::of),
            foreign_node: foreign.unwrap_or_default(),
            ..Record::default()
        };
        self.core.read(|core, now| told_by_core::record(core, now, rest))
    }

    /// The others learn that this member is no standby any more, and need not find out.
    pub(super) async fn take_leave(&self) {
        self.gossip.take_leave(self.record()).await;
    }

    pub(super) fn status(&self) -> StatusResponse {
        let now = BootTime::now();
        let (leader, term) = self.consensus.leader();
        let orders = self.core.read(|core, _| core.view().orders.clone());
        let table = self.gossip.table().borrow().clone();
        let members: Vec<MemberStatus> = self
            .roster
            .all()
            .iter()
            .map(|(member, vote)| self.member_status(member, *vote, &orders, &table, now))
            .collect();
        let (floor, newest, in_force) = {
            let applied = self.applied.borrow();
            let (moves, plans) = (&applied.replicated.moves, &applied.replicated.plans);
            (moves.iter().rev().find_map(move_floor), plans.newest().map(Into::into), plans.in_force().is_some())
        };
        let next = self.next_of_plan.borrow().clone().filter(|_| in_force);
        let rest = StatusResponse {
            cluster: self.config.cluster.name.clone(),
            leader: leader.map(|leader| leader.to_string()).unwrap_or_default(),
            term,
            quorum: self.has_quorum(&members),
            warnings: [
                members.iter().filter_map(key_alarm).collect(),
                self.membership_warnings(),
                self.identity.warnings(BootTime::now()),
                self.log_warnings(),
            ]
            .concat(),
            members,
            floor,
            upgrade: newest,
            sign_log: self.applied.borrow().replicated.sign_log.as_ref().map(Into::into),
            signed_at_ns: self.signing.as_ref().and_then(Signing::signed_at).map_or(0, WallTime::as_nanos),
            sentries: self.signing.as_ref().map(Signing::sentries).unwrap_or_default(),
            upgrade_stuck: next.as_ref().is_some_and(Next::is_stuck),
            upgrade_waits_for: next.map(|next| next.to_string()).unwrap_or_default(),
            ..StatusResponse::default()
        };
        let mut status = self.core.read(|core, _| told_by_core::status(core, rest));
        status.warnings.extend(differences(&status));
        status.warnings.extend(lost_sentries(&status.sentries));
        status
    }

    /// Whether a majority of every voter set can be reached. A lease that runs is the answers of one, and gossip, which
    /// comes less often, may lag behind it.
    fn has_quorum(&self, seen: &[MemberStatus]) -> bool {
        if self.core.read(|core, now| core.lease_remaining(now.boot)).is_some() {
            return true;
        }
        let reachable = |id: &NodeId| seen.iter().any(|member| member.reachable && member.id == id.as_str());
        let members = self.consensus.members();
        if members.voters.is_empty() {
            return seen.iter().filter(|member| member.reachable).count() > seen.len() / 2;
        }
        members.voters.iter().all(|set| set.iter().filter(|id| reachable(id)).count() > set.len() / 2)
    }

    /// What an operator should know of the membership.
    pub(super) fn membership_warnings(&self) -> Vec<String> {
        let members = self.consensus.members();
        let mut warnings = self.roster.differences();
        warnings.extend(voters_warning(members.final_voters().len()).filter(|_| !members.is_joint()));
        warnings.extend(
            members.learners().map(|id| format!("{id} has no vote yet; baton member promote {id} gives it one")),
        );
        if members.is_joint() {
            warnings.push("a change of the membership is under way".into());
        }
        warnings
    }

    fn member_status(
        &self,
        member: &Member,
        vote: Vote,
        orders: &Orders,
        table: &Table,
        now: BootTime,
    ) -> MemberStatus {
        let reachable = table.is_reachable(&member.id, now);
        let own = (member.id == self.config.id).then(|| self.record());
        let told = || table.get(&member.id)?.record.as_deref().cloned();
        let mut record = own.or_else(told).unwrap_or_default();
        if !reachable {
            // What it last said of its lease and its work is not so any more.
            let mut meaning = record.meaning();
            meaning.set_stage(TenureStage::Unspecified);
            record.phase.clear();
            record.settling.clear();
            record.lease_remaining_ms = 0;
            record.meaning = Some(meaning);
        }
        MemberStatus {
            id: member.id.to_string(),
            addr: member.addr.clone(),
            role: member.role.as_str().into(),
            reachable,
            priority: orders.priority(&member.id, member.priority),
            maintenance: orders.is_in_maintenance(&member.id),
            vote: vote.as_str().into(),
            incarnation: self.known_store(&member.id),
            refused: self.identity.refused(&member.id, reachable, now).unwrap_or_default(),
            ..told_by_core::member(record)
        }
    }

    fn known_store(&self, member: &NodeId) -> u64 {
        let own = (*member == self.config.id).then(|| self.identity.incarnation());
        self.identity.joined_with(member).or(own).unwrap_or(0)
    }

    pub(super) fn history(&self) -> HistoryResponse {
        let applied = self.applied.borrow();
        let replicated = &applied.replicated;
        HistoryResponse {
            moves: replicated.moves.iter().map(history_row).collect(),
            plans: replicated.plans.0.iter().map(Into::into).collect(),
            member: self.config.id.to_string(),
            timelines: self.core.timelines().iter().map(Into::into).collect(),
        }
    }

    /// Counts the newest move once it has ended, on the member that it led to.
    pub(super) fn count_move(&self) {
        let replicated = self.applied.borrow().replicated.clone();
        if let Some(last) = replicated.moves.back().filter(|last| last.to == self.config.id) {
            self.metrics.moved(last.kind.as_str(), &last.reason, last.end.map(|end| end.gap));
        }
    }
}

fn history_row(row: &Move) -> proto::Move {
    proto::Move {
        epoch: row.epoch.0,
        from: row.from.as_ref().map(ToString::to_string).unwrap_or_default(),
        to: row.to.to_string(),
        kind: row.kind.as_str().into(),
        reason: row.reason.clone(),
        claimed_at_ns: row.claimed_at.as_nanos(),
        active_at_ns: row.end.map_or(0, |end| end.active_at.as_nanos()),
        gap_ns: row.end.map_or(0, |end| end.gap.as_nanos() as u64),
        floor: move_floor(row),
        laid: row.laid.as_ref().map(Into::into),
    }
}

fn move_floor(row: &Move) -> Option<MoveFloor> {
    let met = row.end?.floor;
    Some(MoveFloor {
        epoch: row.epoch.0,
        source: met.basis.map_or("", FloorBasis::as_str).into(),
        floor: met.floor.to_string(),
        met_at_height: met.height,
        settled_in_ns: met.settled_in.as_nanos() as u64,
    })
}
