//! What Prometheus may ask of this coordinator: every metric of the contract, with exactly its name,
//! labels and unit, in a registry of its own. It decides nothing and knows neither sockets nor where
//! the numbers come from. The coordinator writes, the exporter reads; a reading never sees half a writing,
//! so of the six states exactly one is 1 in every answer.

mod hooks;
mod signing;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::base::guard_frame::LinkState;
use crate::base::hooks::{HookEvent, HookOutcome};
use crate::base::ids::NodeId;
use crate::base::signing::Hrs;
use crate::base::time::{BootTime, WallTime};
use crate::core::State;
use hooks::OfHooks;
use signing::OfSigning;
pub use signing::{SignOutcome, SignTook};

/// Upper bounds of `baton_move_gap_seconds`: from a planned handover to a lost host on a slow chain.
const GAP_SECONDS: [f64; 12] = [0.05, 0.1, 0.15, 0.3, 0.5, 1.0, 1.5, 3.0, 6.0, 15.0, 30.0, 60.0];

const LINK_STATES: [LinkState; 3] = [LinkState::Standby, LinkState::Validating, LinkState::Broken];

/// A gauge that can be absent is a family with no labels.
const NO_LABEL: [&str; 0] = [];

/// The cause of a fence that the guard carried out because nobody renewed its deadline.
const FENCED_BY_DEADLINE: &str = "deadline";

/// Clones share one set of numbers.
#[derive(Clone)]
pub struct Metrics {
    all: Arc<Mutex<All>>,
}

/// One moment of this member, as the coordinator sees it.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    /// One of the six of [`State`].
    pub state: &'a str,
    pub epoch: u64,
    pub term: u64,
    pub is_leader: bool,
    pub is_holder: bool,
    /// Whether some member is seen to be Active as holder, be it this one.
    pub holder_seen: bool,
    /// Zero without a lease.
    pub lease_remaining: Duration,
    /// What a renewal that took no time would leave of it.
    pub lease_max: Duration,
    /// Other members that tell another `[timing]`.
    pub timing_mismatches: usize,
    pub guard_armed: bool,
    /// One of the three of [`LinkState`].
    pub links: &'a str,
    /// `None` where no chain node belongs to the host: on an arbiter.
    pub node: Option<NodeSeen>,
    /// The highest of any member's chain node; `None` until one was told.
    pub cluster_height: Option<u64>,
    pub standbys_ready: usize,
    pub paused: bool,
    pub maintenance: bool,
    /// Whether members are let in without TLS, because somebody has written so.
    pub insecure: bool,
    /// `None` without TLS.
    pub certificate_until: Option<WallTime>,
    /// Since start.
    pub connections_refused: u64,
    /// Since start: starts of the chain node after its first.
    pub node_restarts: u64,
    /// Since start: how often the guard killed the chain node because its deadline had passed.
    pub fences: u64,
    pub voters: usize,
    pub learners: usize,
    /// `None` when the file system of the state directory does not tell.
    pub state_dir: Option<DiskSpace>,
    /// The plan in force.
    pub planned: Option<PlannedUpgrade<'a>>,
    /// `None` where binaries do not follow one another: without `[upgrade]`.
    pub binaries: Option<BinariesSeen>,
    /// Whether a chain node that is not the own one was found on the host; `None` on an arbiter.
    pub foreign_node: Option<bool>,
    /// Whether the validator's key is in use elsewhere, as this member sees it.
    pub key_elsewhere: bool,
    /// Up to where the log has admitted signatures; `None` where it does not decide.
    pub signed: Option<Hrs>,
}

/// An upgrade of the chain nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedUpgrade<'a> {
    pub name: &'a str,
    /// `None`: one host after the other.
    pub height: Option<u64>,
}

/// The binaries of the own chain node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinariesSeen {
    /// One that is asked for is not there, or is another one than elsewhere.
    pub missing: bool,
    pub failed: bool,
}

/// The own chain node. Everything is zero while it does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeSeen {
    pub height: u64,
    pub synced: bool,
    pub peers: u32,
}

/// A file system, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// What an unprivileged process can still write.
    pub free: u64,
    pub size: u64,
}

/// Another member, as this one sees it.
#[derive(Clone, Debug)]
pub struct PeerSeen {
    pub id: NodeId,
    pub up: bool,
    /// `None` until one was measured, and while the member cannot be reached.
    pub rtt: Option<Duration>,
    /// Its wall clock minus this host's, seconds; `None` as above.
    pub clock_offset: Option<f64>,
}

struct All {
    started_at: BootTime,
    registry: Registry,
    state: IntGaugeVec,
    node_restarts: IntCounter,
    uptime: Gauge,
    epoch: IntGauge,
    term: IntGauge,
    is_leader: IntGauge,
    is_holder: IntGauge,
    holder_seen: IntGauge,
    lease_remaining: Gauge,
    lease_max: Gauge,
    timing_mismatches: IntGauge,
    moves: IntCounterVec,
    move_gap: Histogram,
    fences: IntCounterVec,
    guard_armed: IntGauge,
    links: IntGaugeVec,
    node: OfNode,
    peers: OfPeers,
    standbys_ready: IntGauge,
    paused: IntGauge,
    maintenance: IntGauge,
    host: OfHost,
    voters: IntGauge,
    learners: IntGauge,
    upgrade: OfUpgrades,
    key_elsewhere: IntGauge,
    signing: OfSigning,
    hooks: OfHooks,
}

/// The metrics of the chain node's binaries.
struct OfUpgrades {
    planned: IntGaugeVec,
    missing: IntGaugeVec,
    failed: IntGaugeVec,
}

/// The metrics of the chain node, and those of the others to compare with.
struct OfNode {
    height: IntGaugeVec,
    synced: IntGaugeVec,
    peers: IntGaugeVec,
    cluster_height: IntGaugeVec,
    foreign: IntGaugeVec,
}

/// The metrics of the other members, one series each.
struct OfPeers {
    shown: BTreeSet<String>,
    up: IntGaugeVec,
    rtt: GaugeVec,
    clock_offset: GaugeVec,
}

/// The metrics of what the coordinator rests on: its disk, and how members reach it.
struct OfHost {
    insecure: IntGauge,
    certificate_until: IntGaugeVec,
    connections_refused: IntCounter,
    state_dir_free: IntGaugeVec,
    state_dir_size: IntGaugeVec,
    disk_hung: IntGaugeVec,
}

impl Metrics {
    /// `Startup` with links in standby, which is how a coordinator begins; all else is zero.
    pub fn new(started_at: BootTime) -> Self {
        let all = All::new(started_at);
        all.set_state(State::Startup.as_str());
        all.set_links(LinkState::Standby.as_str());
        // Shown before it happens: an alert on its increase would miss the first one otherwise.
        all.fences.with_label_values(&[FENCED_BY_DEADLINE]);
        let build = gauges(&all.registry, "baton_build_info", "Version of this coordinator, always 1", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Metrics { all: Arc::new(Mutex::new(all)) }
    }

    /// All gauges of this member are those of `s`, at once.
    pub fn publish(&self, s: &Snapshot) {
        let all = self.lock();
        all.set_state(s.state);
        all.set_links(s.links);
        all.epoch.set(whole(s.epoch));
        all.term.set(whole(s.term));
        all.is_leader.set(s.is_leader.into());
        all.is_holder.set(s.is_holder.into());
        all.holder_seen.set(s.holder_seen.into());
        all.lease_remaining.set(s.lease_remaining.as_secs_f64());
        all.lease_max.set(s.lease_max.as_secs_f64());
        all.timing_mismatches.set(whole(s.timing_mismatches as u64));
        all.guard_armed.set(s.guard_armed.into());
        show(&all.node.height, s.node.map(|node| whole(node.height)));
        show(&all.node.synced, s.node.map(|node| node.synced.into()));
        show(&all.node.peers, s.node.map(|node| node.peers.into()));
        show(&all.node.cluster_height, s.cluster_height.map(whole));
        all.standbys_ready.set(whole(s.standbys_ready as u64));
        all.paused.set(s.paused.into());
        all.maintenance.set(s.maintenance.into());
        all.host.insecure.set(s.insecure.into());
        show(&all.host.certificate_until, s.certificate_until.map(|until| whole(until.as_nanos() / 1_000_000_000)));
        rise_to(&all.host.connections_refused, s.connections_refused);
        rise_to(&all.node_restarts, s.node_restarts);
        rise_to(&all.fences.with_label_values(&[FENCED_BY_DEADLINE]), s.fences);
        all.voters.set(whole(s.voters as u64));
        all.learners.set(whole(s.learners as u64));
        show(&all.host.state_dir_free, s.state_dir.map(|disk| whole(disk.free)));
        show(&all.host.state_dir_size, s.state_dir.map(|disk| whole(disk.size)));
        all.upgrade.planned.reset();
        if let Some(PlannedUpgrade { name, height }) = s.planned {
            let height = height.map_or("rolling".to_owned(), |height| height.to_string());
            all.upgrade.planned.with_label_values(&[height.as_str(), name]).set(1);
        }
        show(&all.upgrade.missing, s.binaries.map(|binaries| binaries.missing.into()));
        show(&all.upgrade.failed, s.binaries.map(|binaries| binaries.failed.into()));
        show(&all.node.foreign, s.foreign_node.map(i64::from));
        all.key_elsewhere.set(s.key_elsewhere.into());
        all.signing.admitted(s.signed);
    }

    /// Exactly these peers are shown; one that is not among them is gone, with its labels.
    pub fn publish_peers(&self, peers: &[PeerSeen]) {
        self.lock().peers.publish(peers);
    }

    /// Whether the disk of a directory hangs, by the key of the configuration that names it.
    pub fn disk_hangs(&self, dir: &str, hangs: bool) {
        self.lock().host.disk_hung.with_label_values(&[dir]).set(hangs.into());
    }

    /// One more move of the baton. `reason` comes from a fixed set: each one is a time series for as
    /// long as this process runs. `gap` is the time in which nobody signed, when it is known.
    pub fn moved(&self, kind: &str, reason: &str, gap: Option<Duration>) {
        let all = self.lock();
        all.moves.with_label_values(&[kind, reason]).inc();
        if let Some(gap) = gap {
            all.move_gap.observe(gap.as_secs_f64());
        }
    }

    /// This host's chain node asks for signatures, and `sentries` may. None of their metrics is there before.
    pub fn sees_signing(&self, sentries: impl Iterator<Item = String>) {
        self.lock().signing.show_all(sentries);
    }

    /// A request to sign was answered, of the own chain node unless of a sentry, with a signature when it tells how long
    /// that took.
    pub fn sign_ended(&self, sentry: Option<&str>, outcome: SignOutcome, took: Option<SignTook>) {
        self.lock().signing.ended(sentry, outcome, took, WallTime::now());
    }

    /// Whether a sentry of this host asks it; `None` while nobody dials it.
    pub fn sees_sentry(&self, sentry: &str, is_connected: Option<bool>) {
        self.lock().signing.sentry(sentry, is_connected);
    }

    /// These hooks are configured. Their metric is not there before.
    pub fn sees_hooks(&self, hooks: impl Iterator<Item = HookEvent>) {
        self.lock().hooks.show_all(hooks);
    }

    pub fn hook_ended(&self, hook: HookEvent, outcome: HookOutcome) {
        self.lock().hooks.ended(hook, outcome);
    }

    /// Prometheus text format 0.0.4, one consistent moment.
    pub fn encode(&self) -> String {
        let all = self.lock();
        all.uptime.set(BootTime::now().since(all.started_at).as_secs_f64());
        let mut text = String::new();
        // It fails on a malformed family, and the registry takes none.
        TextEncoder::new().encode_utf8(&all.registry.gather(), &mut text).expect("our own metrics encode");
        text
    }

    /// A panic elsewhere leaves numbers that are at worst half written: still worth reading.
    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rise_to(counter: &IntCounter, count: u64) {
    counter.inc_by(count.saturating_sub(counter.get()));
}

impl All {
    fn new(started_at: BootTime) -> All {
        let registry = Registry::new();
        let r = &registry;
        let gap = HistogramOpts::new("baton_move_gap_seconds", "Time without a signer in a move of the baton, seconds");
        All {
            started_at,
            state: gauges(r, "baton_state", "State of this member: 1 for the one it is in, else 0", &["type"]),
            node_restarts: counter(r, "baton_node_restarts_total", "Restarts of the chain node, count since start"),
            uptime: add(r, Gauge::new("baton_uptime_seconds", "Time since the coordinator started, seconds")),
            epoch: gauge(r, "baton_epoch", "Epoch of the last committed claim, a number that only grows"),
            term: gauge(r, "baton_raft_term", "Raft term that this member is in, a number that only grows"),
            is_leader: gauge(r, "baton_is_leader", "Whether this member leads the cluster, 1 or 0"),
            is_holder: gauge(r, "baton_is_holder", "Whether the chain node of this member may sign, 1 or 0"),
            holder_seen: gauge(
                r,
                "baton_holder_seen",
                "Whether this member sees an active holder, itself or another, 1 or 0",
            ),
            lease_remaining: add(
                r,
                Gauge::new(
                    "baton_lease_remaining_seconds",
                    "Time until the own guard fires, zero without a lease, seconds",
                ),
            ),
            lease_max: add(
                r,
                Gauge::new("baton_lease_max_seconds", "Most that a renewal can leave until the guard fires, seconds"),
            ),
            timing_mismatches: gauge(r, "baton_timing_mismatches", "Other members that tell another [timing], count"),
            moves: counters(r, "baton_moves_total", "Moves of the baton, count since start", &["kind", "reason"]),
            move_gap: add(r, Histogram::with_opts(gap.buckets(GAP_SECONDS.to_vec()))),
            fences: counters(r, "baton_fence_total", "Chain nodes killed by a fence, count since start", &["cause"]),
            guard_armed: gauge(r, "baton_guard_armed", "Whether the guard has a deadline to kill at, 1 or 0"),
            links: gauges(r, "baton_links", "State of the links: 1 for the one they are in, else 0", &["state"]),
            node: OfNode::new(r),
            peers: OfPeers::new(r),
            standbys_ready: gauge(r, "baton_standbys_ready", "Other members that could take the baton now, count"),
            paused: gauge(r, "baton_paused", "Whether an operator has paused the cluster, 1 or 0"),
            maintenance: gauge(r, "baton_maintenance", "Whether this member is in maintenance, 1 or 0"),
            host: OfHost::new(r),
            voters: gauge(r, "baton_voters", "Members with a vote, by the log of this member, count"),
            learners: gauge(r, "baton_learners", "Members without a vote, by the log of this member, count"),
            upgrade: OfUpgrades::new(r),
            key_elsewhere: gauge(
                r,
                "baton_key_in_use_elsewhere",
                "Whether this member sees the validator's key in use elsewhere, 1 or 0",
            ),
            signing: OfSigning::new(r),
            hooks: OfHooks::new(r),
            registry,
        }
    }

    fn set_state(&self, now: &str) {
        exactly_one(&self.state, State::ALL.iter().map(|state| state.as_str()), now);
    }

    fn set_links(&self, now: &str) {
        exactly_one(&self.links, LINK_STATES.iter().map(|state| state.as_str()), now);
    }
}

impl OfNode {
    fn new(r: &Registry) -> OfNode {
        let blocks = "Highest height of any member's chain node, blocks";
        let foreign = "Whether a chain node that is not this member's own was found on its host, 1 or 0";
        OfNode {
            height: gauges(r, "baton_node_height", "Latest height of the chain node, blocks", &NO_LABEL),
            synced: gauges(r, "baton_node_synced", "Whether the chain node is in sync, 1 or 0", &NO_LABEL),
            peers: gauges(r, "baton_node_peers", "Peers of the chain node, count", &NO_LABEL),
            cluster_height: gauges(r, "baton_cluster_height", blocks, &NO_LABEL),
            foreign: gauges(r, "baton_foreign_node", foreign, &NO_LABEL),
        }
    }
}

impl OfPeers {
    fn new(r: &Registry) -> OfPeers {
        let offset = "Wall clock of the other member minus the own, seconds";
        OfPeers {
            shown: BTreeSet::new(),
            up: gauges(r, "baton_peer_up", "Whether the other member can be reached, 1 or 0", &["peer"]),
            rtt: of_peers(r, "baton_peer_rtt_seconds", "Round trip to the other member, seconds"),
            clock_offset: of_peers(r, "baton_peer_clock_offset_seconds", offset),
        }
    }

    fn publish(&mut self, peers: &[PeerSeen]) {
        let now: BTreeSet<String> = peers.iter().map(|peer| peer.id.to_string()).collect();
        for gone in self.shown.difference(&now) {
            forget(self.up.remove_label_values(&[gone]));
            show_of_peer(&self.rtt, gone, None);
            show_of_peer(&self.clock_offset, gone, None);
        }
        for PeerSeen { id, up, rtt, clock_offset } in peers {
            self.up.with_label_values(&[id.as_str()]).set((*up).into());
            show_of_peer(&self.rtt, id.as_str(), rtt.map(|rtt| rtt.as_secs_f64()));
            show_of_peer(&self.clock_offset, id.as_str(), *clock_offset);
        }
        self.shown = now;
    }
}

impl OfHost {
    fn new(r: &Registry) -> OfHost {
        let expiry = "End of the own certificate, absent without TLS, seconds since 1970";
        let refused = "Connections to the peer port refused for want of a good certificate, count since start";
        let free = "Space that is left in the file system of the state directory, bytes";
        let size = "Size of the file system of the state directory, bytes";
        let hung = "Whether the disk of a directory of this host has not answered for member.disk_timeout, 1 or 0";
        OfHost {
            insecure: gauge(r, "baton_insecure", "Whether members are let in without TLS by tls.insecure, 1 or 0"),
            certificate_until: gauges(r, "baton_certificate_expiry_timestamp_seconds", expiry, &NO_LABEL),
            connections_refused: counter(r, "baton_connections_refused_total", refused),
            state_dir_free: gauges(r, "baton_state_dir_free_bytes", free, &NO_LABEL),
            state_dir_size: gauges(r, "baton_state_dir_size_bytes", size, &NO_LABEL),
            disk_hung: gauges(r, "baton_disk_hung", hung, &["dir"]),
        }
    }
}

impl OfUpgrades {
    fn new(r: &Registry) -> OfUpgrades {
        let planned = "The upgrade of the chain nodes that is planned, absent without one, 1 or 0";
        let missing = "Whether a binary that is asked for is not on this host, or differs from the others', 1 or 0";
        let failed = "Whether the newest upgrade of this host's chain node failed, 1 or 0";
        OfUpgrades {
            planned: gauges(r, "baton_upgrade_planned", planned, &["height", "name"]),
            missing: gauges(r, "baton_upgrade_binary_missing", missing, &NO_LABEL),
            failed: gauges(r, "baton_upgrade_failed", failed, &NO_LABEL),
        }
    }
}

/// Only `now` is 1. A name that is none of ours changes nothing, so that still exactly one is 1.
fn exactly_one<'a>(gauges: &IntGaugeVec, names: impl Iterator<Item = &'a str> + Clone, now: &str) {
    let known = names.clone().any(|name| name == now);
    debug_assert!(known, "{now:?} is none of {:?}", names.collect::<Vec<_>>());
    if known {
        for name in names {
            gauges.with_label_values(&[name]).set((name == now).into());
        }
    }
}

/// The registry and the constructors refuse only names and labels that are malformed or used twice.
fn add<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("a well-formed name of our own");
    registry.register(Box::new(metric.clone())).expect("a name of our own that is used once");
    metric
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    add(registry, IntGauge::new(name, help))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    add(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    add(registry, IntCounter::new(name, help))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    add(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn of_peers(registry: &Registry, name: &str, help: &str) -> GaugeVec {
    add(registry, GaugeVec::new(Opts::new(name, help), &["peer"]))
}

/// The one number of a gauge that can be absent.
fn show(gauge: &IntGaugeVec, number: Option<i64>) {
    match number {
        Some(number) => gauge.with_label_values(&NO_LABEL).set(number),
        None => gauge.reset(),
    }
}

fn show_of_peer(gauges: &GaugeVec, peer: &str, number: Option<f64>) {
    match number {
        Some(number) => gauges.with_label_values(&[peer]).set(number),
        None => forget(gauges.remove_label_values(&[peer])),
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What was never shown cannot be removed, and need not be.
fn forget(removed: prometheus::Result<()>) {
    drop(removed);
}
