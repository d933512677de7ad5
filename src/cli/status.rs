//! `baton status`: a table for people, one JSON object for programs, and an exit code for scripts.

use std::process::ExitCode;

use serde::Serialize;

use crate::base::time::WallTime;
use crate::cluster::wire::proto::{Grant, MemberStatus, Sentry, SignLog, StatusResponse, Timing};
use crate::operator::explain::{active_holder, certificate_until, granted_at, notes, or_dash, signed};

use super::history::floor_line;
use super::table::{folded, render};

const HEADS: [&str; 8] = ["HOST", "ROLE", "STATE", "PHASE", "HEIGHT", "LINKS", "GUARD", "LEASE"];

/// The object of `--json`. The order and the names are part of baton's contract.
#[derive(Serialize)]
struct StatusObject<'a> {
    cluster: &'a str,
    member: &'a str,
    leader: Option<&'a str>,
    term: u64,
    epoch: u64,
    holder: Option<&'a str>,
    quorum: bool,
    paused: bool,
    floor: Option<FloorObject<'a>>,
    /// Left out where the log never decided what is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<SignerObject<'a>>,
    members: Vec<MemberObject<'a>>,
    warnings: &'a [String],
}

/// The sign floor of the newest move that has ended.
#[derive(Serialize)]
struct FloorObject<'a> {
    epoch: u64,
    source: Option<&'a str>,
    floor: &'a str,
    met_at_height: u64,
    settled_in_ms: u64,
}

/// What the log has admitted to be signed.
#[derive(Serialize)]
struct SignerObject<'a> {
    chain: &'a str,
    key: &'a str,
    height: u64,
    round: u32,
    step: u32,
    /// The host whose chain node asked for it; null when that is not known.
    by: Option<&'a str>,
    /// Where that node waits for its signer, when it is none that the host runs.
    sentry: Option<&'a str>,
    /// The time of that request, which is the one that is signed; null of what was signed before the log decided.
    signed_for: Option<String>,
    /// When the member that was asked last gave its chain node a signature.
    answered_at: Option<String>,
    /// Whether the log decides now.
    open: bool,
    /// What the member that was asked dials beside its own node: none unless it is the holder.
    sentries: Vec<SentryObject<'a>>,
}

#[derive(Serialize)]
struct SentryObject<'a> {
    address: &'a str,
    /// Null while it asks.
    lost_because: Option<&'a str>,
}

#[derive(Serialize)]
struct MemberObject<'a> {
    id: &'a str,
    addr: &'a str,
    role: &'a str,
    state: &'a str,
    phase: &'a str,
    reachable: bool,
    synced: bool,
    height: u64,
    priority: u32,
    maintenance: bool,
    lease_remaining_ms: i64,
    guard: &'a str,
    links: &'a str,
    node_pid: u32,
    version: &'a str,
    /// Left out while there is nothing to say.
    #[serde(skip_serializing_if = "str::is_empty")]
    node_note: &'a str,
    /// Left out while it could take the baton.
    #[serde(skip_serializing_if = "str::is_empty")]
    not_ready_because: &'a str,
    settling: Option<&'a str>,
    /// Left out while it is unknown.
    #[serde(skip_serializing_if = "str::is_empty")]
    transport: &'a str,
    /// Left out without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_until: Option<String>,
    vote: &'a str,
    /// Left out while it is unknown.
    #[serde(skip_serializing_if = "str::is_empty")]
    containment: &'a str,
    /// Left out while there is none.
    #[serde(skip_serializing_if = "str::is_empty")]
    key_alarm: &'a str,
    /// Left out while there is none.
    #[serde(skip_serializing_if = "str::is_empty")]
    foreign_node: &'a str,
    /// Left out while there is none.
    #[serde(skip_serializing_if = "str::is_empty")]
    refused: &'a str,
    /// Left out while it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    timing: Option<TimingObject>,
}

#[derive(Serialize)]
struct TimingObject {
    heartbeat_ms: f64,
    lease_ms: f64,
    kill_max_ms: f64,
    drift_ppm: u32,
}

impl From<Timing> for TimingObject {
    fn from(timing: Timing) -> TimingObject {
        let ms = |nanos: u64| nanos as f64 / 1e6;
        TimingObject {
            heartbeat_ms: ms(timing.heartbeat_ns),
            lease_ms: ms(timing.lease_ns),
            kill_max_ms: ms(timing.kill_max_ns),
            drift_ppm: timing.drift_ppm,
        }
    }
}

/// `leader`, `holder` and `floor` are null when there is none; `settling` unless a member settles.
pub(super) fn json(status: &StatusResponse) -> String {
    let object = StatusObject {
        cluster: &status.cluster,
        member: &status.member,
        leader: some(&status.leader),
        term: status.term,
        epoch: status.epoch,
        holder: some(&status.holder),
        quorum: status.quorum,
        paused: status.paused_since_ns.is_some(),
        floor: status.floor.as_ref().map(|floor| FloorObject {
            epoch: floor.epoch,
            source: some(&floor.source),
            floor: &floor.floor,
            met_at_height: floor.met_at_height,
            settled_in_ms: floor.settled_in_ns / 1_000_000,
        }),
        signer: status.sign_log.as_ref().map(|log| signer_object(log, status)),
        members: status.members.iter().map(member_object).collect(),
        warnings: &status.warnings,
    };
    let text = serde_json::to_string_pretty(&object).expect("strings, numbers and booleans have a JSON form");
    format!("{text}\n")
}

fn signer_object<'a>(log: &'a SignLog, status: &'a StatusResponse) -> SignerObject<'a> {
    let Grant { height, round, step, .. } = log.last.clone().unwrap_or_default();
    let sentry =
        |sentry: &'a Sentry| SentryObject { address: &sentry.address, lost_because: some(&sentry.lost_because) };
    SignerObject {
        chain: &log.chain,
        key: &log.key,
        height,
        round,
        step,
        by: some(&log.by),
        sentry: some(&log.sentry),
        signed_for: granted_at(log).map(|at| at.to_string()),
        answered_at: Some(status.signed_at_ns).filter(|at| *at > 0).map(|at| WallTime::from_nanos(at).to_string()),
        open: !log.closed,
        sentries: status.sentries.iter().map(sentry).collect(),
    }
}

fn member_object(member: &MemberStatus) -> MemberObject<'_> {
    MemberObject {
        id: &member.id,
        addr: &member.addr,
        role: &member.role,
        state: &member.state,
        phase: &member.phase,
        reachable: member.reachable,
        synced: member.synced,
        height: member.height,
        priority: member.priority,
        maintenance: member.maintenance,
        lease_remaining_ms: member.lease_remaining_ms,
        guard: &member.guard,
        links: &member.links,
        node_pid: member.node_pid,
        version: &member.version,
        node_note: &member.node_note,
        not_ready_because: &member.not_ready_because,
        settling: some(&member.settling),
        transport: &member.transport,
        certificate_until: certificate_until(member).map(|until| until.to_string()),
        vote: &member.vote,
        foreign_node: &member.foreign_node,
        refused: &member.refused,
        timing: member.timing.map(Into::into),
        key_alarm: &member.key_alarm,
        containment: &member.containment,
    }
}

/// No line is wider than 80 characters; why a member is not ready stands below it.
pub(super) fn table(status: &StatusResponse) -> String {
    let quorum = if status.quorum { "yes" } else { "NO, nobody can sign" };
    let (leader, holder) = (or_dash(&status.leader), or_dash(&status.holder));
    let mut out = format!(
        "cluster {}, seen by {}\nleader {leader} (term {}), holder {holder} (epoch {}), quorum {quorum}\n",
        status.cluster, status.member, status.term, status.epoch
    );
    if let Some(since) = status.paused_since_ns.map(WallTime::from_nanos) {
        out.push_str(&format!("PAUSED since {since}: the baton does not move; baton resume\n"));
    }
    if let Some(floor) = &status.floor {
        let (epoch, source, line) = (floor.epoch, or_dash(&floor.source), floor_line(floor));
        out.push_str(&format!("sign floor of epoch {epoch}, {source}:\n  {line}\n"));
    }
    let now = WallTime::now();
    out.extend(signed(status, now).map(|signed| folded(&signed)));
    out.push('\n');
    let paused = status.paused_since_ns.is_some();
    let note = |member| Some(notes(member, paused, now).join("\n")).filter(|note| !note.is_empty());
    let rows: Vec<_> = status.members.iter().map(|member| (cells(member), note(member))).collect();
    out.push_str(&render(&HEADS, &rows));
    out.push_str(&warnings(status));
    out
}

/// Below a table, in lines of the width of one.
pub(super) fn warnings(status: &StatusResponse) -> String {
    let mut out = String::new();
    for warning in &status.warnings {
        out.push_str(&folded(&format!("WARNING: {warning}")));
    }
    if out.is_empty() { out } else { format!("\n{out}") }
}

fn cells(member: &MemberStatus) -> Vec<String> {
    let state = if member.reachable { or_dash(&member.state) } else { "unreachable".to_owned() };
    let height = if member.height == 0 { "-".to_owned() } else { member.height.to_string() };
    let lease = match member.lease_remaining_ms {
        left if left > 0 => format!("{left}ms"),
        _ => "-".to_owned(),
    };
    let (phase, links, guard) = (or_dash(&member.phase), or_dash(&member.links), or_dash(&member.guard));
    vec![member.id.clone(), or_dash(&member.role), state, phase, height, links, guard, lease]
}

/// 0: a holder is active; 1: none.
pub(super) fn exit_code(status: &StatusResponse) -> ExitCode {
    ExitCode::from(u8::from(active_holder(status).is_none()))
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_words_fit_a_terminal_of_80_characters() {
        let member = MemberStatus {
            id: "a-host-with-a-very-long-name.example.org".to_owned(),
            role: "validator".to_owned(),
            state: "Registering".to_owned(),
            phase: "Activating".to_owned(),
            reachable: true,
            height: 1_234_567_890,
            lease_remaining_ms: 2_999,
            guard: "unreachable".to_owned(),
            links: "validating".to_owned(),
            not_ready_because: "the node has said nothing since ".repeat(5),
            ..MemberStatus::default()
        };
        let status = StatusResponse { members: vec![member], ..StatusResponse::default() };
        let text = table(&status);
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(80), "{widest:?} characters:\n{text}");
        let words: Vec<&str> = text.split_whitespace().collect();
        let reason = ["the", "node", "has", "said", "nothing", "since"].repeat(5);
        assert!(words.windows(reason.len()).any(|found| found == reason), "a part of the note is gone:\n{text}");
        assert!(text.contains("Registering Activating 1234567890 validating unreachable 2999ms"), "{text}");
    }
}
