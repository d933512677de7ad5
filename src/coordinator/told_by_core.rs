//! What the core knows of its member and of the cluster, in the words of record and status. A coordinator adds what it
//! knows from elsewhere (`report`); a core out of a record has nobody to add anything (`then`).

use crate::base::chain_node::{FloorBasis, SignFloor};
use crate::base::time::{Now, WallTime};
use crate::cluster::wire::proto::{Meaning, MemberStatus, Record, StatusResponse};
use crate::cluster::wire::{approvals_part, signed_part};
use crate::core::tenure::Halt;
use crate::core::{Core, NotReady};

/// `rest` with all that the core knows of its own member.
pub(super) fn record(core: &Core, now: Now, rest: Record) -> Record {
    let not_ready = core.not_ready(now.boot);
    let needs_mending = not_ready.as_ref().is_some_and(NotReady::needs_mending);
    let disk_full = matches!(not_ready, Some(NotReady::DiskFull { .. }));
    let unheld = core.unheld(now);
    let record = Record {
        state: core.state(now.boot).as_str().into(),
        phase: core.stage().map_or("", |stage| stage.as_str()).into(),
        ready: not_ready.is_none(),
        gives_no_vote: not_ready.as_ref().is_some_and(NotReady::gives_no_vote),
        not_ready_because: not_ready.map(|why| why.to_string()).unwrap_or_default(),
        mark_seen: signed_part(core.mark_seen()),
        approvals_seen: approvals_part(core.mark_seen()),
        settling: core.settling(now.boot).map(|on| awaited(on, core.halt(now))).unwrap_or_default(),
        maintenance: core.view().orders.is_in_maintenance(core.me()),
        epoch: core.view().epoch.0,
        lease_remaining_ms: core.lease_remaining(now.boot).unwrap_or_default().as_millis() as i64,
        node_crashes: core.host().crashes(),
        timing: Some(core.settings().timing.into()),
        key_alarm: core.key_alarm().map(|alarm| alarm.to_string()).unwrap_or_default(),
        unheld_since_ns: unheld.map_or(0, |unheld| unheld.since.as_nanos()),
        unheld_until_ns: unheld.map_or(0, |unheld| unheld.until.as_nanos()),
        ..rest
    };
    let meaning = Meaning { needs_mending, disk_full, ..record.meaning() };
    Record { meaning: Some(meaning), ..record }
}

/// `rest` with all that the core knows of the cluster.
pub(super) fn status(core: &Core, rest: StatusResponse) -> StatusResponse {
    let (view, timing) = (core.view(), &core.settings().timing);
    StatusResponse {
        member: core.me().to_string(),
        epoch: view.epoch.0,
        holder: view.holder.as_ref().map(ToString::to_string).unwrap_or_default(),
        paused_since_ns: view.orders.paused.map(WallTime::as_nanos),
        lease_ms: timing.lease().as_millis() as u32,
        promise_ms: timing.promise().as_millis() as u32,
        ..rest
    }
}

/// As `record` tells of its member; who that is, and what others know of it, is not in it.
pub(super) fn member(record: Record) -> MemberStatus {
    let meaning = record.meaning();
    let chain = record.chain.unwrap_or_default();
    MemberStatus {
        state: record.state,
        phase: record.phase,
        synced: chain.synced,
        height: chain.height,
        lease_remaining_ms: record.lease_remaining_ms,
        guard: record.guard,
        links: record.links,
        node_pid: record.node_pid,
        version: record.version_text,
        not_ready_because: record.not_ready_because,
        gives_no_vote: record.gives_no_vote,
        node_note: record.node_note,
        containment: record.containment,
        settling: record.settling,
        transport: record.transport,
        certificate_until_ns: record.certificate_until_ns,
        upgrade: record.upgrade,
        timing: record.timing,
        settling_rules: record.settling_rules,
        foreign_node: record.foreign_node,
        key_alarm: record.key_alarm,
        meaning: Some(meaning),
        ..MemberStatus::default()
    }
}

/// What a member that settles waits for.
fn awaited((floor, basis): (SignFloor, FloorBasis), halt: Option<Halt>) -> String {
    let basis = basis.as_str();
    if let Some(Halt { height, since, known }) = halt {
        return format!(
            "{basis}: the chain stands still at height {height} since {since}, and may wait for this validator; nothing above \
             {known} is known to be signed (baton floor)"
        );
    }
    match floor {
        SignFloor::None => format!("{basis}: its chain node to run"),
        SignFloor::Mark(mark) => format!("{basis}: its chain node to reach height {}", mark.height),
        SignFloor::BlockAfter(_) => format!("{basis}: {floor}"),
    }
}
