//! Where events come from: the store, gossip, time and the operating system. Each source has a task of its
//! own and knows nothing of the others.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::report::Reporter;
use crate::base::ids::NodeId;
use crate::base::service_manager::ServiceManager;
use crate::base::time::BootTime;
use crate::base::timing::Timing;
use crate::cluster::gossip::{Heard, Table};
use crate::cluster::raft::Consensus;
use crate::cluster::store::{AppliedEntry, Health, News};
use crate::cluster::wire::proto::{Record, TenureStage};
use crate::core::agreed::replicated::{Baton, Command};
use crate::core::{ClockOffset, Event, Peer, Stage, Standing};
use crate::core_handle::{Change, SharedCore};
use crate::operator::exporter::LetGo;

/// Committed commands, in log order, and snapshots in place of some.
pub(super) async fn applied(core: Arc<SharedCore>, mut news: mpsc::UnboundedReceiver<News>, reporter: Reporter) {
    while let Some(news) = news.recv().await {
        let AppliedEntry { term, index, command, result, view } = match news {
            News::Entry(entry) => entry,
            News::Snapshot(view, released_term) => {
                info!(epoch = view.epoch.0, "took over another member's snapshot");
                core.step(Event::Restored { view, released_term });
                continue;
            }
            News::Forgotten(view) => {
                core.step(Event::Forgotten { view });
                continue;
            }
        };
        info!(term, index, epoch = command.epoch().map(|epoch| epoch.0), ?result, "applied {command}");
        let activated = matches!(command, Command::Baton(Baton::Activated { .. }));
        core.step(Event::Applied { term, command, outcome: result, view });
        if activated {
            reporter.count_move();
        }
    }
}

/// Calls from another cluster of this name.
pub(super) async fn rivals(core: Arc<SharedCore>, mut rivals: watch::Receiver<Option<NodeId>>) {
    while rivals.changed().await.is_ok() {
        let Some(member) = rivals.borrow_and_update().clone() else { continue };
        core.step(Event::RivalHeard { member });
    }
}

/// Says every change of state or phase, one line each. `let_go` has the newest end of a holder's work.
pub(super) async fn changes(mut changes: mpsc::UnboundedReceiver<Change>, let_go: watch::Sender<Option<LetGo>>) {
    let holds = |standing: Standing| matches!(standing.stage, Some(Stage::Active | Stage::Upgrading));
    while let Some(Change { from, to, why, epoch, term }) = changes.recv().await {
        info!(%from, %to, why, epoch = epoch.0, term, "state changed");
        if holds(from) && !holds(to) {
            let_go.send_replace(Some(LetGo { epoch: epoch.0, why }));
        }
    }
}

/// What gossip tells of the other members, also when one of them falls silent.
pub(super) async fn peers(core: Arc<SharedCore>, mut table: watch::Receiver<Arc<Table>>) {
    const SILENCE_CHECK: Duration = Duration::from_millis(500);
    let mut told = BTreeMap::new();
    loop {
        let now = BootTime::now();
        let peers: BTreeMap<NodeId, Peer> =
            table.borrow_and_update().others().map(|(id, heard)| (id.clone(), peer(heard, now))).collect();
        if peers != told {
            told.clone_from(&peers);
            core.step(Event::Peers(peers));
        }
        tokio::select! {
            changed = table.changed() => if changed.is_err() { return },
            () = sleep(now.until_multiple_of(SILENCE_CHECK)) => {}
        }
    }
}

/// What gossip measures of the other members' clocks, when it has changed by more than it matters.
pub(super) async fn clocks(core: Arc<SharedCore>, mut table: watch::Receiver<Arc<Table>>) {
    let mut told = BTreeMap::new();
    loop {
        let now = BootTime::now();
        let offsets: BTreeMap<NodeId, ClockOffset> = table
            .borrow_and_update()
            .others()
            .filter(|(_, heard)| heard.is_reachable(now))
            .filter_map(|(id, heard)| Some((id.clone(), clock_offset(heard)?)))
            .collect();
        if offsets != told {
            told.clone_from(&offsets);
            core.step(Event::ClockOffsets(offsets));
        }
        if table.changed().await.is_err() {
            return;
        }
    }
}

/// Rounded, and less sure by as much.
fn clock_offset(heard: &Heard) -> Option<ClockOffset> {
    const ROUNDED_TO: Duration = Duration::from_millis(20);
    let step = ROUNDED_TO.as_nanos() as i64;
    let nanos = heard.clock_offset?.saturating_add(step / 2).div_euclid(step).saturating_mul(step);
    let half_rtt = heard.rtt? / 2;
    let steps = half_rtt.as_nanos() as u64 / ROUNDED_TO.as_nanos() as u64 + 1;
    Some(ClockOffset { nanos, error: Duration::from_nanos(steps * ROUNDED_TO.as_nanos() as u64) })
}

fn peer(heard: &Heard, now: BootTime) -> Peer {
    let reachable = heard.is_reachable(now);
    let Some(record) = &heard.record else { return Peer { reachable, ..Peer::default() } };
    Peer {
        ready: record.ready,
        not_ready_because: record.not_ready_because.clone(),
        reachable,
        height: record.chain.as_ref().map_or(0, |chain| chain.height),
        silent_on_lease: record.timing.is_none(),
    }
}

/// While this member leads, records the incarnation of every member that it hears of for the first time.
pub(super) async fn joins(reporter: Reporter) {
    let mut table = reporter.gossip.table();
    loop {
        let leads = reporter.core.read(|core, _| core.is_active() || core.leads().is_some() && core.stage().is_none());
        let recorded = |id: &NodeId| reporter.identity.joined_with(id).is_some();
        let unknown: Vec<(NodeId, u64)> = table
            .borrow_and_update()
            .iter()
            .filter_map(|(id, heard)| Some((id.clone(), heard.record.as_ref()?.incarnation)))
            .filter(|(id, _)| leads && !recorded(id))
            .collect();
        for (member, incarnation) in unknown {
            // What fails is tried again by whoever leads when gossip next moves.
            if let Err(reason) = reporter.consensus.propose(Command::Join { member, incarnation }).await {
                debug!("{reason}");
            }
        }
        if table.changed().await.is_err() {
            return;
        }
    }
}

/// While this member leads, ends a change of the membership that an earlier leader could not complete.
pub(super) async fn unfinished_changes(reporter: Reporter) {
    const LOOK_EVERY: Duration = Duration::from_secs(1);
    let mut members = reporter.roster.members();
    loop {
        // Its own takes milliseconds, so one that stands for long is nobody's.
        sleep(BootTime::now().until_multiple_of(LOOK_EVERY)).await;
        let leads = reporter.core.read(|core, _| core.leads().is_some());
        if members.borrow_and_update().is_joint() {
            if leads {
                match reporter.consensus.complete_change().await {
                    Ok(()) => info!("completed a change of the membership that an earlier leader had begun"),
                    Err(reason) => debug!("{reason}"),
                }
            }
        } else if members.changed().await.is_err() {
            return;
        }
    }
}

/// Says what the log and this host's configuration disagree on, whenever that changes.
pub(super) async fn differences(reporter: Reporter) {
    let mut members = reporter.roster.members();
    let mut told = Vec::new();
    loop {
        members.mark_unchanged();
        let lines = reporter.membership_warnings();
        for line in lines.iter().filter(|line| !told.contains(*line)) {
            warn!("{line}");
        }
        told = lines;
        if members.changed().await.is_err() {
            return;
        }
    }
}

/// Time, at the moments that the core waits for, and often enough to notice a suspend.
pub(super) async fn time(core: Arc<SharedCore>, timing: Timing) {
    let mut steps = core.steps();
    loop {
        steps.mark_unchanged();
        let (wakeup, leads) =
            core.read(|core, now| (core.next_wakeup(now.boot).map(|at| at.since(now.boot)), core.leads().is_some()));
        let longest = if leads { timing.heartbeat() } else { Duration::from_secs(1) };
        tokio::select! {
            () = sleep(wakeup.map_or(longest, |wakeup| wakeup.min(longest))) => core.step(Event::Tick),
            changed = steps.changed() => if changed.is_err() { return },
        }
    }
}

/// SIGTERM and SIGINT ask for an orderly end. Who presses Ctrl-C wants nothing left behind; a service manager restarts.
/// Both are caught from the call on, not from the first poll.
pub(super) fn signals(
    core: Arc<SharedCore>,
    manager: ServiceManager,
    stop_node: bool,
) -> io::Result<impl Future<Output = ()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        loop {
            let stop_node = tokio::select! {
                _ = term.recv() => stop_node,
                _ = int.recv() => true,
            };
            info!(stop_node, "asked to stop");
            manager.stopping();
            core.step(Event::ShutdownWanted { stop_node });
        }
    })
}

/// Ends when store or Raft can never be relied on again, with the reason.
pub(super) async fn broken(mut store: watch::Receiver<Health>, consensus: Consensus) -> String {
    let store_failed = async {
        match store.wait_for(|health| *health != Health::Good).await.as_deref() {
            Ok(Health::Failed(reason)) => format!("the store failed: {reason}"),
            Ok(Health::Good) | Err(_) => "the store ended".to_string(),
        }
    };
    tokio::select! {
        reason = store_failed => reason,
        reason = consensus.failed() => format!("raft stopped: {reason}"),
    }
}

/// Whether `record` was written by a holder whose node signs.
pub(super) fn is_active(record: &Record) -> bool {
    record.meaning().stage() == TenureStage::Active
}
