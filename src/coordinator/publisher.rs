//! Keeps gossip, and all that the exporter shows, up to date.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::report::Reporter;
use super::sources::is_active;
use super::standbys::{self, Told};
use crate::base::guard_frame::LinkState;
use crate::base::ids::NodeId;
use crate::base::service_manager::ServiceManager;
use crate::base::time::{BootTime, WallTime};
use crate::cluster::gossip::Heard;
use crate::cluster::store::AppliedState;
use crate::cluster::transport::Certificates;
use crate::cluster::wire::proto::{self, ChainHealth, MemberState, Record, StatusResponse, TenureStage};
use crate::host::effects::{Effects, GuardState};
use crate::operator::explain::{timing_mismatches, upgrades};
use crate::operator::exporter::{NO_QUORUM, Overview, Place, Published, Vitals};
use crate::operator::metrics::{BinariesSeen, NodeSeen, PeerSeen, PlannedUpgrade, Snapshot};

/// Between two gossip records while much happens.
const RECORD_EVERY_MIN: Duration = Duration::from_millis(50);
/// Between two looks at everything else, unless the state changes.
const METRICS_EVERY: Duration = Duration::from_millis(500);

/// The service manager hears of every beat, so that it misses those of a coordinator that hangs.
pub(super) struct Publisher {
    reporter: Reporter,
    manager: ServiceManager,
    vitals: watch::Sender<Vitals>,
    overview: watch::Sender<Arc<Overview>>,
    /// Changes with the history.
    applied: watch::Receiver<AppliedState>,
    moves: Arc<Vec<proto::Move>>,
}

impl Publisher {
    pub(super) fn new(reporter: Reporter, manager: ServiceManager) -> (Publisher, Published) {
        let moves = Arc::new(reporter.history().moves);
        let status = reporter.status();
        let vitals = watch::Sender::new(reporter.vitals(&status));
        let overview = reporter.overview(status, moves.clone());
        let overview = watch::Sender::new(Arc::new(overview));
        let metrics = reporter.metrics.clone();
        let published = Published { metrics, vitals: vitals.subscribe(), overview: overview.subscribe() };
        let applied = reporter.applied.clone();
        (Publisher { reporter, manager, vitals, overview, applied, moves }, published)
    }

    pub(super) async fn run(mut self) {
        let mut news = self.reporter.core.news();
        // Of a host without a chain node there are none.
        let mut links = self.reporter.effects.as_ref().map(Effects::links_seen);
        let mut metrics_at = Instant::now();
        let mut told = (String::new(), String::new());
        loop {
            let record = self.reporter.record();
            let state = (record.state.clone(), record.phase.clone());
            if state != told || Instant::now() >= metrics_at {
                metrics_at = Instant::now() + BootTime::now().until_multiple_of(METRICS_EVERY);
                told = state;
                self.publish_overview();
                self.reporter.publish_metrics(&record, &self.overview.borrow().status);
                self.manager.beat(self.reporter.has_settled_in(), &self.reporter.status_line(&record));
            }
            self.reporter.gossip.publish(record);
            sleep(RECORD_EVERY_MIN).await;
            let changed = async {
                tokio::select! {
                    changed = news.changed() => changed,
                    changed = changed_links(&mut links) => changed,
                }
            };
            if let Ok(Err(_)) = timeout_at(metrics_at, changed).await {
                return;
            }
        }
    }

    fn publish_overview(&mut self) {
        if self.applied.has_changed().unwrap_or(false) {
            self.applied.mark_unchanged();
            self.moves = Arc::new(self.reporter.history().moves);
        }
        let status = self.reporter.status();
        self.vitals.send_replace(self.reporter.vitals(&status));
        let overview = self.reporter.overview(status, self.moves.clone());
        self.overview.send_replace(Arc::new(overview));
    }
}

/// Never without links.
async fn changed_links(links: &mut Option<watch::Receiver<LinkState>>) -> Result<(), watch::error::RecvError> {
    match links {
        Some(links) => links.changed().await,
        None => std::future::pending().await,
    }
}

impl Reporter {
    fn vitals(&self, status: &StatusResponse) -> Vitals {
        let mine = status.members.iter().find(|member| member.id == status.member);
        let ready = match mine {
            _ if !status.quorum => Err(format!("{NO_QUORUM} of members can be reached")),
            Some(own) if own.meaning().stage() == TenureStage::Active => Ok(()),
            Some(own) if own.meaning().state() == MemberState::Voting => Ok(()),
            Some(own) if own.phase.is_empty() => Err(format!("{}: {}", own.state, own.not_ready_because)),
            Some(own) => Err(format!("{}: {}", own.state, own.phase)),
            None => Err("this host is not a member".to_string()),
        };
        let node_pid = self.effects.as_ref().and_then(Effects::node_pid);
        Vitals { beat: BootTime::now(), ready, place: Place::of(status), node_pid }
    }

    fn overview(&self, status: StatusResponse, moves: Arc<Vec<proto::Move>>) -> Overview {
        Overview {
            status,
            moves,
            last_move: self.core.last_timeline().as_ref().map(Into::into),
            at: WallTime::now(),
            fences: self.fences(),
            let_go: self.let_go.borrow().clone(),
        }
    }

    /// What would be published now.
    pub(super) fn overview_now(&self) -> Overview {
        self.overview(self.status(), Arc::new(self.history().moves))
    }

    fn fences(&self) -> u64 {
        self.effects.as_ref().map_or(0, Effects::fences)
    }

    /// A guard is there and every link is in its place; of a host without a chain node, always.
    fn has_settled_in(&self) -> bool {
        let Some(effects) = &self.effects else { return true };
        effects.guard_state() != GuardState::Unreachable && *effects.links_seen().borrow() != LinkState::Broken
    }

    /// How this member is, for people who ask the service manager.
    fn status_line(&self, record: &Record) -> String {
        let Record { state, phase, epoch, not_ready_because, .. } = record;
        let holder = self.core.read(|core, _| core.view().holder.clone());
        match holder {
            _ if !phase.is_empty() => format!("{state}: {phase}, epoch {epoch}"),
            _ if !not_ready_because.is_empty() => format!("{state}: {not_ready_because}"),
            Some(holder) => format!("{state}: ready, {holder} holds the baton"),
            None => format!("{state}: ready, nobody holds the baton"),
        }
    }

    fn publish_metrics(&self, record: &Record, status: &StatusResponse) {
        let now = BootTime::now();
        let (is_leader, active, lease, paused, holder) = self.core.read(|core, now| {
            let lease = core.lease_remaining(now.boot).unwrap_or_default();
            (
                core.leads().is_some(),
                core.is_active(),
                lease,
                core.view().orders.is_paused(),
                core.view().holder.clone(),
            )
        });
        let table = self.gossip.table().borrow().clone();
        let mut told_by: BTreeMap<NodeId, Told> = table
            .others()
            .filter(|(_, heard)| heard.is_reachable(now))
            .filter_map(|(id, heard)| Some((id.clone(), told(heard.record.as_deref()?))))
            .collect();
        told_by.insert(self.config.id.clone(), Told { active, ..told(record) });
        let told = table.others().filter_map(|(_, heard)| heard.record.as_deref()?.chain.as_ref());
        let holder_seen = active || table.others().any(|(_, heard)| heard.is_reachable(now) && says_active(heard));
        let members = self.consensus.members();
        self.metrics.publish(&Snapshot {
            state: &record.state,
            epoch: record.epoch,
            term: record.term,
            is_leader,
            is_holder: active,
            holder_seen,
            lease_remaining: lease,
            lease_max: self.config.timing.lease_min() - self.config.timing.kill_max(),
            timing_mismatches: timing_mismatches(status),
            guard_armed: record.guard == GuardState::Armed.as_str(),
            links: &record.links,
            node: self.config.chain.as_ref().map(|_| record.chain.as_ref().map(node_seen).unwrap_or_default()),
            cluster_height: told.chain(&record.chain).map(|chain| chain.height).filter(|height| *height > 0).max(),
            paused,
            maintenance: record.maintenance,
            insecure: self.config.insecure,
            certificate_until: self.certificate_until(),
            connections_refused: self.certificates.as_ref().map_or(0, Certificates::refused),
            node_restarts: self.effects.as_ref().map_or(0, Effects::node_restarts),
            fences: self.fences(),
            voters: members.final_voters().len(),
            learners: members.learners().count(),
            state_dir: *self.disk.borrow(),
            key_elsewhere: !record.key_alarm.is_empty(),
            signed: self
                .applied
                .borrow()
                .replicated
                .sign_log
                .as_ref()
                .filter(|log| !log.closed)
                .map(|log| log.last.place),
            planned: status.upgrade.as_ref().filter(|_| !status.upgrade_waits_for.is_empty()).map(planned),
            binaries: self.runs_upgrades().then(|| BinariesSeen {
                missing: upgrades::lacks_binary(status),
                failed: upgrades::has_failed(status),
            }),
            foreign_node: self.config.chain.as_ref().map(|_| !record.foreign_node.is_empty()),
            standbys_ready: standbys::count(&members.final_voters(), holder.as_ref(), &told_by),
        });
        let peers: Vec<PeerSeen> = table.others().map(|(id, heard)| peer_seen(id, heard, now)).collect();
        self.metrics.publish_peers(&peers);
    }
}

fn told(record: &Record) -> Told {
    Told { ready: record.ready, active: is_active(record), gives_vote: !record.gives_no_vote }
}

fn planned(plan: &proto::UpgradePlan) -> PlannedUpgrade<'_> {
    PlannedUpgrade { name: &plan.name, height: plan.height }
}

fn peer_seen(id: &NodeId, heard: &Heard, now: BootTime) -> PeerSeen {
    let up = heard.is_reachable(now);
    // What was measured before it was lost is not so any more.
    let clock_offset = heard.clock_offset.filter(|_| up).map(|nanos| nanos as f64 / 1e9);
    PeerSeen { id: id.clone(), up, rtt: heard.rtt.filter(|_| up), clock_offset }
}

fn says_active(heard: &Heard) -> bool {
    heard.record.as_deref().is_some_and(is_active)
}

fn node_seen(chain: &ChainHealth) -> NodeSeen {
    NodeSeen { height: chain.height, synced: chain.synced, peers: chain.peers }
}
