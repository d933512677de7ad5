//! What is told of upgrades: tables for people, one JSON object for programs.

use serde::Serialize;

use crate::base::ids::{Role, UpgradeName};
use crate::base::time::WallTime;
use crate::cluster::wire::proto::{MemberStatus, StatusResponse, UpgradePlan, UpgradeStage};
use crate::core::upgrades::next::{percent, short};
use crate::core::upgrades::{BinaryReport, UpgradeReport};
use crate::operator::explain::upgrades::{failed_plan, plan_in_force, report, upgrade_troubles};
use crate::operator::explain::{is_active, or_dash};

use crate::cli::table::{folded, render};

const HEADS: [&str; 6] = ["HOST", "ROLE", "CURRENT", "BINARY", "STEP", "READY"];
const PLAN_HEADS: [&str; 5] = ["NAME", "WHEN", "PLANNED", "STATE", "ENDED"];

/// Characters of a bar.
const BAR: u64 = 10;

/// No line is wider than 80 characters; what a host lacks stands below it, and what is waited for in the last line.
pub(super) fn table(status: &StatusResponse) -> String {
    let asked = asked(status);
    let rows: Vec<_> = status.members.iter().map(|member| row(member, status, asked.as_ref())).collect();
    let mut out = match &status.upgrade {
        Some(plan) => format!("cluster {}, seen by {}: {}\n\n", status.cluster, status.member, sentence(plan)),
        None => format!("cluster {}, seen by {}: no upgrade was ever planned\n\n", status.cluster, status.member),
    };
    out.push_str(&render(&HEADS, &rows));
    let troubles: Vec<String> = match plan_in_force(status) {
        Some(_) => upgrade_troubles(status).into_iter().filter(|text| text.starts_with("The binaries")).collect(),
        None => upgrade_troubles(status).into_iter().filter(|text| text.starts_with("The ")).collect(),
    };
    let waits = plan_in_force(status).map(|_| match status.upgrade_waits_for.as_str() {
        "" => "waits for the coordinators to look at it".to_owned(),
        waits => format!("waits for {waits}"),
    });
    let lines: Vec<String> = troubles.into_iter().chain(waits).collect();
    if !lines.is_empty() {
        out.push('\n');
        lines.iter().for_each(|line| out.push_str(&folded(line)));
    }
    out
}

/// The upgrade whose binaries are shown: of the plan, or what the chain asks for by itself.
fn asked(status: &StatusResponse) -> Option<UpgradeName> {
    let planned = plan_in_force(status).or(failed_plan(status)).and_then(|plan| UpgradeName::new(&plan.name).ok());
    planned.or_else(|| {
        let reports = status.members.iter().filter_map(report);
        reports.flat_map(|report| report.binaries.into_keys().filter(move |name| *name != report.current)).next()
    })
}

/// The cells, and what stands below them.
fn row(member: &MemberStatus, status: &StatusResponse, asked: Option<&UpgradeName>) -> (Vec<String>, Option<String>) {
    let (id, role) = (member.id.clone(), or_dash(&member.role));
    let dash = || "-".to_owned();
    if member.role == Role::Arbiter.as_str() {
        return (vec![id, role, dash(), dash(), dash(), dash()], None);
    }
    let Some(report) = report(member) else {
        let note =
            (!member.state.is_empty()).then(|| "no [upgrade] in its configuration, or an older baton".to_owned());
        return (vec![id, role, dash(), dash(), dash(), readiness(member, status)], note);
    };
    let (binary, missing) = asked.map_or((dash(), None), |name| binary(&report, name));
    let (step, failed) = step(&report, failed_plan(status).is_none());
    let unready = (!member.not_ready_because.is_empty() && member.phase.is_empty())
        .then(|| format!("not ready: {}", member.not_ready_because));
    let notes: Vec<String> = [missing, failed, unready].into_iter().flatten().collect();
    let cells = vec![id, role, report.current.to_string(), binary, step, readiness(member, status)];
    (cells, (!notes.is_empty()).then(|| notes.iter().map(|note| folded(note)).collect()))
}

fn binary(report: &UpgradeReport, name: &UpgradeName) -> (String, Option<String>) {
    match report.binary(name) {
        Some(BinaryReport::Present { sha256 }) => (short(sha256).to_owned(), None),
        Some(BinaryReport::Missing { reason }) => ("MISSING".to_owned(), Some(format!("binary of {name}: {reason}"))),
        Some(BinaryReport::Fetching { done, total: Some(total) }) => (bar(*done, *total), None),
        Some(BinaryReport::Fetching { done, total: None }) => (format!("{} MiB", done >> 20), None),
        None => ("-".to_owned(), None),
    }
}

fn step(report: &UpgradeReport, is_repeated: bool) -> (String, Option<String>) {
    let failed = report.failed.as_ref();
    let again = if is_repeated { "; it is tried again every 30 s, and at once with another binary" } else { "" };
    let note =
        failed.map(|failed| format!("{} failed at {}: {}{again}", failed.name, failed.step.as_str(), failed.reason));
    match &report.under_way {
        Some(work) if work.total > 0 => (format!("{} {}", work.step.as_str(), bar(work.done, work.total)), note),
        Some(work) => (work.step.as_str().to_owned(), note),
        None if failed.is_some() => ("FAILED".to_owned(), note),
        None => ("-".to_owned(), None),
    }
}

fn bar(done: u64, total: u64) -> String {
    let percent = percent(done, total);
    let full = (percent * BAR / 100) as usize;
    format!("[{}{}] {percent}%", "#".repeat(full), ".".repeat(BAR as usize - full))
}

fn readiness(member: &MemberStatus, status: &StatusResponse) -> String {
    let word = match member.phase.as_str() {
        _ if !member.reachable => "unreachable",
        _ if is_active(member) && member.id == status.holder => "holder",
        "" if member.not_ready_because.is_empty() => "yes",
        "" => "no",
        phase => phase,
    };
    word.to_owned()
}

fn sentence(plan: &UpgradePlan) -> String {
    let (name, when, state) = (&plan.name, when(plan), state(plan));
    let verb = match plan.stage() {
        UpgradeStage::Unspecified | UpgradeStage::Preparing | UpgradeStage::Rolling | UpgradeStage::Done => "is",
        UpgradeStage::Cancelled => "was",
        UpgradeStage::Failed => "has",
    };
    format!("upgrade {name} ({when}) {verb} {state}")
}

fn when(plan: &UpgradePlan) -> String {
    match plan.height {
        Some(height) => format!("height {height}"),
        None if plan.back => "rolling back".to_owned(),
        None => "rolling".to_owned(),
    }
}

fn state(plan: &UpgradePlan) -> &'static str {
    match plan.stage() {
        UpgradeStage::Unspecified => "unknown",
        UpgradeStage::Preparing => "planned",
        UpgradeStage::Rolling => "under way",
        UpgradeStage::Done => "done",
        UpgradeStage::Cancelled => "cancelled",
        UpgradeStage::Failed => "failed",
    }
}

pub(super) fn list(plans: &[UpgradePlan]) -> String {
    if plans.is_empty() {
        return "no upgrade was ever planned\n".to_owned();
    }
    let moment = |ns: u64| if ns == 0 { "-".to_owned() } else { WallTime::from_nanos(ns).to_string()[..19].to_owned() };
    let row = |plan: &UpgradePlan| {
        let ended = moment(plan.ended_at_ns);
        let cells = vec![plan.name.clone(), when(plan), moment(plan.planned_at_ns), state(plan).to_owned(), ended];
        let failed =
            (plan.stage() == UpgradeStage::Failed).then(|| folded(&format!("{}: {}", plan.member, plan.reason)));
        let source = Some(&plan.source).filter(|source| !source.is_empty()).map(|source| folded(source));
        (cells, failed.or(source))
    };
    render(&PLAN_HEADS, &plans.iter().map(row).collect::<Vec<_>>())
}

#[derive(Serialize)]
struct PlansObject<'a> {
    plans: Vec<PlanObject<'a>>,
}

#[derive(Serialize)]
struct PlanObject<'a> {
    name: &'a str,
    /// Null: one host after the other.
    height: Option<u64>,
    source: Option<&'a str>,
    back: bool,
    planned_at_ns: u64,
    /// planned | under way | done | cancelled | failed
    state: &'static str,
    ended_at_ns: Option<u64>,
    /// Whose turn it is.
    turn: Option<&'a str>,
    failed_at: Option<&'a str>,
    reason: Option<&'a str>,
}

fn plan_object(plan: &UpgradePlan) -> PlanObject<'_> {
    let failed = plan.stage() == UpgradeStage::Failed;
    let member = some(&plan.member);
    PlanObject {
        name: &plan.name,
        height: plan.height,
        source: some(&plan.source),
        back: plan.back,
        planned_at_ns: plan.planned_at_ns,
        state: state(plan),
        ended_at_ns: (plan.ended_at_ns != 0).then_some(plan.ended_at_ns),
        turn: member.filter(|_| plan.stage() == UpgradeStage::Rolling),
        failed_at: member.filter(|_| failed),
        reason: some(&plan.reason).filter(|_| failed),
    }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

pub(super) fn list_json(plans: &[UpgradePlan]) -> String {
    written(&PlansObject { plans: plans.iter().map(plan_object).collect() })
}

/// The object of `status --json`. The order and the names are part of baton's contract.
#[derive(Serialize)]
struct StatusObject<'a> {
    cluster: &'a str,
    member: &'a str,
    holder: Option<&'a str>,
    /// The plan in force, or the newest one.
    plan: Option<PlanObject<'a>>,
    waits_for: Option<&'a str>,
    stuck: bool,
    hosts: Vec<HostObject<'a>>,
}

#[derive(Serialize)]
struct HostObject<'a> {
    id: &'a str,
    role: &'a str,
    reachable: bool,
    ready: bool,
    not_ready_because: Option<&'a str>,
    phase: Option<&'a str>,
    /// Null without [upgrade].
    current: Option<String>,
    previous: Option<String>,
    binaries: Vec<BinaryObject>,
    step: Option<&'static str>,
    step_done: Option<u64>,
    step_total: Option<u64>,
    failed: Option<FailedObject>,
}

#[derive(Serialize)]
struct BinaryObject {
    name: String,
    sha256: Option<String>,
    missing: Option<String>,
    fetched: Option<u64>,
    of: Option<u64>,
}

#[derive(Serialize)]
struct FailedObject {
    name: String,
    step: &'static str,
    reason: String,
}

pub(super) fn json(status: &StatusResponse) -> String {
    written(&StatusObject {
        cluster: &status.cluster,
        member: &status.member,
        holder: some(&status.holder),
        plan: status.upgrade.as_ref().map(plan_object),
        waits_for: some(&status.upgrade_waits_for),
        stuck: status.upgrade_stuck,
        hosts: status.members.iter().map(host_object).collect(),
    })
}

fn host_object(member: &MemberStatus) -> HostObject<'_> {
    let report = report(member);
    let (current, previous, binaries, under_way, failed) = match report {
        Some(UpgradeReport { current, previous, binaries, under_way, failed }) => {
            (Some(current.to_string()), previous.map(|name| name.to_string()), binaries, under_way, failed)
        }
        None => Default::default(),
    };
    HostObject {
        id: &member.id,
        role: &member.role,
        reachable: member.reachable,
        ready: member.reachable && !member.state.is_empty() && member.not_ready_because.is_empty(),
        not_ready_because: some(&member.not_ready_because),
        phase: some(&member.phase),
        current,
        previous,
        binaries: binaries.into_iter().map(|(name, binary)| binary_object(&name, binary)).collect(),
        step: under_way.as_ref().map(|work| work.step.as_str()),
        step_done: under_way.as_ref().map(|work| work.done),
        step_total: under_way.as_ref().map(|work| work.total),
        failed: failed.map(|failed| FailedObject {
            name: failed.name.to_string(),
            step: failed.step.as_str(),
            reason: failed.reason,
        }),
    }
}

fn binary_object(name: &UpgradeName, binary: BinaryReport) -> BinaryObject {
    let object = BinaryObject { name: name.to_string(), sha256: None, missing: None, fetched: None, of: None };
    match binary {
        BinaryReport::Present { sha256 } => BinaryObject { sha256: Some(sha256), ..object },
        BinaryReport::Missing { reason } => BinaryObject { missing: Some(reason), ..object },
        BinaryReport::Fetching { done, total } => BinaryObject { fetched: Some(done), of: total, ..object },
    }
}

fn written(object: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(object).expect("strings, numbers and booleans have a JSON form");
    format!("{text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::upgrades::{Step, UnderWay};

    fn member(id: &str, phase: &str, binary: BinaryReport, step: Option<UnderWay>) -> MemberStatus {
        let name = |name: &str| UpgradeName::new(name).unwrap();
        let report = UpgradeReport {
            current: name("v0.1.9"),
            previous: None,
            binaries: [(name("v0.2.0"), binary)].into(),
            under_way: step,
            failed: None,
        };
        MemberStatus {
            id: id.to_owned(),
            role: "validator".to_owned(),
            state: "Voting".to_owned(),
            phase: phase.to_owned(),
            reachable: true,
            upgrade: Some((&report).into()),
            ..MemberStatus::default()
        }
    }

    #[test]
    fn one_table_has_what_every_host_is_at_and_fits_a_terminal() {
        let name = UpgradeName::new("v0.2.0").unwrap();
        let sha256 = "0123456789abcdef".repeat(4);
        let work = UnderWay { name, step: Step::Backup, done: 42, total: 100 };
        let reason = "put it at /var/lib/chain/cosmovisor/upgrades/v0.2.0/bin/chaind, the same one on every host";
        let mut plan = UpgradePlan { name: "v0.2.0".to_owned(), ..UpgradePlan::default() };
        plan.set_stage(UpgradeStage::Rolling);
        let status = StatusResponse {
            cluster: "net".to_owned(),
            member: "host-a".to_owned(),
            holder: "host-a".to_owned(),
            members: vec![
                member("host-a", "Active", BinaryReport::Present { sha256: sha256.clone() }, None),
                member("host-b", "", BinaryReport::Present { sha256 }, Some(work)),
                member("host-c", "", BinaryReport::Missing { reason: reason.to_owned() }, None),
                member("host-d", "", BinaryReport::Fetching { done: 7, total: Some(10) }, None),
                MemberStatus { id: "host-e".to_owned(), role: "arbiter".to_owned(), ..MemberStatus::default() },
            ],
            upgrade: Some(plan),
            upgrade_waits_for: "host-b: backup (42 %)".to_owned(),
            ..StatusResponse::default()
        };
        let text = table(&status);
        for line in [
            "cluster net, seen by host-a: upgrade v0.2.0 (rolling) is under way",
            "host-a  validator  v0.1.9   0123456789ab       -                         holder",
            "host-b  validator  v0.1.9   0123456789ab       backup [####......] 42%   yes",
            "host-d  validator  v0.1.9   [#######...] 70%   -                         yes",
            "  binary of v0.2.0: put it at",
        ] {
            let found = text.lines().any(|shown| {
                shown
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ")
                    .starts_with(&line.split_whitespace().collect::<Vec<_>>().join(" "))
            });
            assert!(found, "no {line:?} in\n{text}");
        }
        assert_eq!(text.lines().last(), Some("waits for host-b: backup (42 %)"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let words: Vec<&str> = text.split_whitespace().collect();
        assert!(words.join(" ").contains("bin/chaind, the same one on every host"), "nothing is cut off: {text}");
    }

    #[test]
    fn plans_are_listed_with_how_they_ended() {
        let mut plan =
            UpgradePlan { name: "v2".to_owned(), planned_at_ns: 1, ended_at_ns: 2, ..UpgradePlan::default() };
        plan.set_stage(UpgradeStage::Failed);
        (plan.member, plan.reason) = ("host-b".to_owned(), "backup: no space".to_owned());
        let text = list(&[plan]);
        assert!(text.contains("failed") && text.contains("host-b: backup: no space"), "{text}");
        assert_eq!(list(&[]), "no upgrade was ever planned\n");
    }
}
