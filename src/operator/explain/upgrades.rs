//! What is wrong with the upgrades of the chain nodes, in sentences, by the plans and by what the hosts tell.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::ids::UpgradeName;
use crate::cluster::wire::proto::{MemberStatus, StatusResponse, UpgradePlan, UpgradeStage};
use crate::core::upgrades::request::differing;
use crate::core::upgrades::{BinaryReport, UpgradeReport};

/// One for every member that tells of its binaries.
fn reports(status: &StatusResponse) -> Vec<(&str, UpgradeReport)> {
    status.members.iter().filter_map(|member| Some((member.id.as_str(), report(member)?))).collect()
}

/// What a member tells of its binaries; nothing when a later version says it in another way.
pub fn report(member: &MemberStatus) -> Option<UpgradeReport> {
    member.upgrade.clone().and_then(|report| report.try_into().ok())
}

/// The plan that has not ended.
pub fn plan_in_force(status: &StatusResponse) -> Option<&UpgradePlan> {
    status.upgrade.as_ref().filter(|plan| match plan.stage() {
        UpgradeStage::Preparing | UpgradeStage::Rolling => true,
        UpgradeStage::Unspecified | UpgradeStage::Done | UpgradeStage::Cancelled | UpgradeStage::Failed => false,
    })
}

/// The newest plan, when it failed and has left hosts that run different binaries.
pub fn failed_plan(status: &StatusResponse) -> Option<&UpgradePlan> {
    let plan = status.upgrade.as_ref().filter(|plan| plan.stage() == UpgradeStage::Failed)?;
    let current: BTreeSet<UpgradeName> = reports(status).into_iter().map(|(_, report)| report.current).collect();
    (current.len() > 1).then_some(plan)
}

/// A sentence for each trouble.
pub fn upgrade_troubles(status: &StatusResponse) -> Vec<String> {
    let reports = reports(status);
    let mut troubles = Vec::new();
    for (id, report) in &reports {
        for (name, binary) in &report.binaries {
            match binary {
                BinaryReport::Missing { reason } => {
                    troubles.push(format!("{id} lacks the binary of the upgrade {name}: {reason}."));
                }
                BinaryReport::Present { .. } | BinaryReport::Fetching { .. } => {}
            }
        }
        if let Some(failed) = &report.failed {
            let step = failed.step.as_str();
            troubles.push(format!("{id}: the upgrade {} failed at {step}: {}.", failed.name, failed.reason));
        }
    }
    for name in reports.iter().flat_map(|(_, report)| report.binaries.keys()).collect::<BTreeSet<_>>() {
        if let Some(differ) = differing(name, reports.iter().map(|(id, report)| (*id, report))) {
            troubles.push(format!("The binaries of the upgrade {name} differ: {differ}."));
        }
    }
    if let Some(plan) = failed_plan(status) {
        troubles.push(format!(
            "The upgrade {} failed at {}: {}; baton upgrade rollback takes back the hosts that have it, baton upgrade plan {0} \
             goes on.",
            plan.name, plan.member, plan.reason
        ));
    }
    if let Some(plan) = plan_in_force(status).filter(|_| status.upgrade_stuck && troubles.is_empty()) {
        troubles.push(format!("The upgrade {} waits for {}.", plan.name, status.upgrade_waits_for));
    }
    troubles
}

/// Whether the asked member lacks a binary that is asked for, or has another one than most of the others.
pub fn lacks_binary(status: &StatusResponse) -> bool {
    let reports = reports(status);
    let Some((_, own)) = reports.iter().find(|(id, _)| *id == status.member) else { return false };
    own.binaries.iter().any(|(name, binary)| match binary {
        BinaryReport::Missing { .. } => true,
        BinaryReport::Fetching { .. } => false,
        BinaryReport::Present { sha256 } => {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for (_, report) in &reports {
                if let Some(BinaryReport::Present { sha256 }) = report.binary(name) {
                    *counts.entry(sha256).or_default() += 1;
                }
            }
            // When two are equally frequent, nobody knows which one is right.
            let most = counts.values().max().copied().unwrap_or_default();
            let mine = counts.get(sha256.as_str()).copied().unwrap_or_default();
            mine < most || counts.values().filter(|count| **count == most).count() > 1
        }
    })
}

/// Whether the newest upgrade of the asked member's chain node failed.
pub fn has_failed(status: &StatusResponse) -> bool {
    let own = status.members.iter().find(|member| member.id == status.member);
    own.and_then(report).is_some_and(|report| report.failed.is_some())
        || failed_plan(status).is_some_and(|plan| plan.member == status.member)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::upgrades::{Failed, Step};

    fn name(name: &str) -> UpgradeName {
        UpgradeName::new(name).unwrap()
    }

    fn member(id: &str, current: &str, binary: Option<BinaryReport>) -> MemberStatus {
        let report = UpgradeReport {
            current: name(current),
            previous: None,
            binaries: binary.map(|binary| (name("v2"), binary)).into_iter().collect(),
            under_way: None,
            failed: None,
        };
        MemberStatus { id: id.to_owned(), upgrade: Some((&report).into()), ..MemberStatus::default() }
    }

    fn has(sum: &str) -> Option<BinaryReport> {
        Some(BinaryReport::Present { sha256: sum.repeat(32) })
    }

    fn status(members: Vec<MemberStatus>) -> StatusResponse {
        let mut plan = UpgradePlan { name: "v2".to_owned(), ..UpgradePlan::default() };
        plan.set_stage(UpgradeStage::Rolling);
        let arbiter = MemberStatus { id: "host-z".to_owned(), ..MemberStatus::default() };
        let members = members.into_iter().chain([arbiter]).collect();
        StatusResponse { member: "host-a".to_owned(), members, upgrade: Some(plan), ..StatusResponse::default() }
    }

    #[test]
    fn a_host_without_the_binary_and_one_with_another_are_named() {
        let missing = Some(BinaryReport::Missing { reason: "put it at /x".to_owned() });
        let missing = status(vec![member("host-a", "v1", missing), member("host-b", "v1", has("ab"))]);
        assert_eq!(upgrade_troubles(&missing), ["host-a lacks the binary of the upgrade v2: put it at /x."]);
        assert!(lacks_binary(&missing));
        let three = [("host-a", "ab"), ("host-b", "cd"), ("host-c", "ab")].map(|(id, sum)| member(id, "v1", has(sum)));
        let mut differ = status(three.to_vec());
        let text = "The binaries of the upgrade v2 differ: host-a has abababababab, host-b has cdcdcdcdcdcd, host-c has \
                    abababababab.";
        assert_eq!(upgrade_troubles(&differ), [text]);
        assert!(!lacks_binary(&differ), "two of three have the same");
        differ.member = "host-b".to_owned();
        assert!(lacks_binary(&differ));
        let good = status(vec![member("host-a", "v1", has("ab")), member("host-b", "v1", has("ab"))]);
        assert_eq!((upgrade_troubles(&good), lacks_binary(&good), has_failed(&good)), (Vec::new(), false, false));
    }

    #[test]
    fn a_plan_that_waits_for_an_operator_says_so_once() {
        let mut waits = status(vec![member("host-a", "v1", has("ab"))]);
        (waits.upgrade_stuck, waits.upgrade_waits_for) = (true, "host-b, which cannot be reached".to_owned());
        assert_eq!(upgrade_troubles(&waits), ["The upgrade v2 waits for host-b, which cannot be reached."]);
        waits.upgrade_stuck = false;
        assert_eq!(upgrade_troubles(&waits), Vec::<String>::new(), "it goes on by itself");
    }

    #[test]
    fn a_failed_plan_is_told_for_as_long_as_hosts_run_different_binaries() {
        let mut failed = status(vec![member("host-a", "v2", None), member("host-b", "v1", None)]);
        let plan = failed.upgrade.as_mut().unwrap();
        plan.set_stage(UpgradeStage::Failed);
        (plan.member, plan.reason) = ("host-a".to_owned(), "not in sync".to_owned());
        let told = upgrade_troubles(&failed).concat();
        assert!(told.starts_with("The upgrade v2 failed at host-a: not in sync; baton upgrade rollback"), "{told}");
        assert!(has_failed(&failed));
        failed.members[0] = member("host-a", "v1", None);
        assert_eq!((upgrade_troubles(&failed), has_failed(&failed)), (Vec::new(), false));
    }

    #[test]
    fn a_failed_attempt_names_its_step() {
        let mut failed = status(vec![member("host-a", "v1", None)]);
        let mut report = report(&failed.members[0]).unwrap();
        let reason = "no space; make room".to_owned();
        report.failed = Some(Failed { name: name("v2"), step: Step::Backup, reason });
        failed.members[0].upgrade = Some((&report).into());
        assert_eq!(upgrade_troubles(&failed), ["host-a: the upgrade v2 failed at backup: no space; make room."]);
        assert!(has_failed(&failed));
    }
}
