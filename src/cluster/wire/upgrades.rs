//! Upgrades of the chain node: plans as they are stored, and what a host tells of its binaries.

use super::proto;
use super::{WireError, member, name_or_empty, some_name};
use crate::base::ids::UpgradeName;
use crate::base::time::WallTime;
use crate::core::upgrades::{BinaryReport, Failed, Plan, PlanStage, Step, UnderWay, UpgradeReport};

pub fn upgrade_name(name: &str, message: &'static str) -> Result<UpgradeName, WireError> {
    UpgradeName::new(name).map_err(|reason| WireError::Invalid { message, field: "name", reason })
}

impl From<&Plan> for proto::UpgradePlan {
    fn from(plan: &Plan) -> Self {
        use proto::UpgradeStage as Stage;
        let mut stored = proto::UpgradePlan {
            name: plan.name.to_string(),
            height: plan.height,
            source: plan.source.clone().unwrap_or_default(),
            back: plan.back,
            planned_at_ns: plan.planned_at.as_nanos(),
            ..proto::UpgradePlan::default()
        };
        let stage = match &plan.stage {
            PlanStage::Preparing => Stage::Preparing,
            PlanStage::Rolling { turn, done } => {
                stored.member = name_or_empty(turn);
                stored.done = done.iter().map(ToString::to_string).collect();
                Stage::Rolling
            }
            PlanStage::Done { at } => {
                stored.ended_at_ns = at.as_nanos();
                Stage::Done
            }
            PlanStage::Cancelled { at } => {
                stored.ended_at_ns = at.as_nanos();
                Stage::Cancelled
            }
            PlanStage::Failed { member, reason, at } => {
                stored.member = member.to_string();
                stored.reason.clone_from(reason);
                stored.ended_at_ns = at.as_nanos();
                Stage::Failed
            }
        };
        stored.set_stage(stage);
        stored
    }
}

impl TryFrom<proto::UpgradePlan> for Plan {
    type Error = WireError;

    fn try_from(stored: proto::UpgradePlan) -> Result<Self, WireError> {
        use proto::UpgradeStage as Stage;
        const NAME: &str = "UpgradePlan";
        let at = WallTime::from_nanos(stored.ended_at_ns);
        let stage = match stored.stage() {
            Stage::Unspecified => return Err(WireError::Missing { message: NAME, field: "stage" }),
            Stage::Preparing => PlanStage::Preparing,
            Stage::Rolling => PlanStage::Rolling {
                turn: some_name(stored.member),
                done: stored.done.into_iter().map(|name| member(name, NAME, "done")).collect::<Result<_, _>>()?,
            },
            Stage::Done => PlanStage::Done { at },
            Stage::Cancelled => PlanStage::Cancelled { at },
            Stage::Failed => {
                PlanStage::Failed { member: member(stored.member, NAME, "member")?, reason: stored.reason, at }
            }
        };
        Ok(Plan {
            name: upgrade_name(&stored.name, NAME)?,
            height: stored.height,
            source: Some(stored.source).filter(|source| !source.is_empty()),
            back: stored.back,
            planned_at: WallTime::from_nanos(stored.planned_at_ns),
            stage,
        })
    }
}

impl From<Step> for proto::UpgradeStep {
    fn from(step: Step) -> Self {
        match step {
            Step::Stop => proto::UpgradeStep::Stop,
            Step::Backup => proto::UpgradeStep::Backup,
            Step::PreUpgrade => proto::UpgradeStep::PreUpgrade,
            Step::Swap => proto::UpgradeStep::Swap,
        }
    }
}

/// Steps of a later version lie between those that are known: it is at work, and that is what counts.
impl From<proto::UpgradeStep> for Step {
    fn from(step: proto::UpgradeStep) -> Self {
        match step {
            proto::UpgradeStep::Unspecified | proto::UpgradeStep::Stop => Step::Stop,
            proto::UpgradeStep::Backup => Step::Backup,
            proto::UpgradeStep::PreUpgrade => Step::PreUpgrade,
            proto::UpgradeStep::Swap => Step::Swap,
        }
    }
}

impl From<&UpgradeReport> for proto::UpgradeReport {
    fn from(report: &UpgradeReport) -> Self {
        let binaries = report.binaries.iter().map(|(name, binary)| (name.to_string(), binary.into()));
        proto::UpgradeReport {
            current: report.current.to_string(),
            previous: report.previous.as_ref().map(ToString::to_string).unwrap_or_default(),
            binaries: binaries.collect(),
            under_way: report.under_way.as_ref().map(|work| proto::UpgradeWork {
                name: work.name.to_string(),
                step: proto::UpgradeStep::from(work.step).into(),
                done: work.done,
                total: work.total,
            }),
            failed: report.failed.as_ref().map(|failed| proto::UpgradeFailure {
                name: failed.name.to_string(),
                step: proto::UpgradeStep::from(failed.step).into(),
                reason: failed.reason.clone(),
            }),
        }
    }
}

impl From<&BinaryReport> for proto::UpgradeBinary {
    fn from(binary: &BinaryReport) -> Self {
        use proto::upgrade_binary::State;
        let state = match binary {
            BinaryReport::Present { sha256 } => State::Sha256(sha256.clone()),
            BinaryReport::Missing { reason } => State::Missing(reason.clone()),
            BinaryReport::Fetching { done, total } => {
                State::Fetching(proto::UpgradeFetch { done: *done, total: *total })
            }
        };
        proto::UpgradeBinary { state: Some(state) }
    }
}

impl TryFrom<proto::UpgradeReport> for UpgradeReport {
    type Error = WireError;

    fn try_from(report: proto::UpgradeReport) -> Result<Self, WireError> {
        use proto::upgrade_binary::State;
        let name = |name: &str| upgrade_name(name, "UpgradeReport");
        let mut binaries = std::collections::BTreeMap::new();
        for (of, binary) in report.binaries {
            let binary = match binary.state {
                Some(State::Sha256(sha256)) => BinaryReport::Present { sha256 },
                Some(State::Missing(reason)) => BinaryReport::Missing { reason },
                Some(State::Fetching(fetch)) => BinaryReport::Fetching { done: fetch.done, total: fetch.total },
                // A later version's report: this one cannot read it.
                None => continue,
            };
            binaries.insert(name(&of)?, binary);
        }
        let under_way = report.under_way.map(|work| {
            Ok(UnderWay { name: name(&work.name)?, step: work.step().into(), done: work.done, total: work.total })
        });
        let failed = report.failed.map(|failed| {
            let step = failed.step().into();
            Ok(Failed { name: name(&failed.name)?, step, reason: failed.reason })
        });
        Ok(UpgradeReport {
            current: name(&report.current)?,
            previous: Some(report.previous).filter(|name| !name.is_empty()).map(|of| name(&of)).transpose()?,
            binaries,
            under_way: under_way.transpose()?,
            failed: failed.transpose()?,
        })
    }
}
