//! What an operator asks for, judged by what the leader knows at that moment, and what would come of it.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::next::{Host, short};
use super::plan::{PlanStage, Plans, check_source};
use super::report::{BinaryReport, UpgradeReport};
use crate::base::ids::{NodeId, Role, UpgradeName};
use crate::base::time::WallTime;
use crate::core::agreed::replicated::knows::KNOWS_PLANS;
use crate::core::agreed::replicated::{Command, Upgrade};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Plan {
        name: UpgradeName,
        height: Option<u64>,
        source: Option<String>,
    },
    Cancel {
        name: UpgradeName,
    },
    /// To what every host ran before.
    Rollback,
}

#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub plans: &'a Plans,
    pub hosts: &'a [Host],
    pub holder: Option<&'a NodeId>,
}

/// What is to be committed, nothing when it is so already, and sentences about what comes of it.
pub type Judged = (Option<Command>, Vec<String>);

impl Wanted {
    /// # Errors
    /// Why it is refused, in words.
    pub fn judge(&self, facts: &Facts<'_>, at: WallTime) -> Result<Judged, String> {
        match self {
            Wanted::Plan { name, height, source } => facts.plan(name, *height, source.as_deref(), at),
            Wanted::Cancel { name } => facts.cancel(name, at),
            Wanted::Rollback => facts.rollback(at),
        }
    }
}

impl<'a> Facts<'a> {
    fn validators(&self) -> impl Iterator<Item = &'a Host> {
        self.hosts.iter().filter(|host| host.role == Role::Validator)
    }

    /// The reports of all validators, with their hosts.
    fn reports(&self) -> Result<Vec<(&'a Host, &'a UpgradeReport)>, String> {
        let reports: Vec<_> = self
            .validators()
            .map(|host| match &host.report {
                Some(report) => Ok((host, report)),
                None if host.reachable => Err(format!(
                    "{} tells nothing of its binaries: give its configuration an [upgrade] section and start its baton again",
                    host.id
                )),
                None => Err(format!("{} cannot be reached, and has told nothing of its binaries yet", host.id)),
            })
            .collect::<Result<_, _>>()?;
        if reports.is_empty() { Err("no validator has been heard of yet".to_owned()) } else { Ok(reports) }
    }

    fn check_free(&self) -> Result<(), String> {
        match self.plans.in_force() {
            Some(plan) => Err(format!("{plan}, is planned already; baton upgrade cancel {} ends that", plan.name)),
            None => Ok(()),
        }
    }

    fn plan(
        &self,
        name: &UpgradeName,
        height: Option<u64>,
        source: Option<&str>,
        at: WallTime,
    ) -> Result<Judged, String> {
        if let Some(plan) = self.plans.in_force().filter(|plan| plan.name == *name && !plan.back)
            && plan.height == height
            && plan.source.as_deref() == source
        {
            return Ok((None, vec![format!("{plan}, is planned")]));
        }
        self.check_free()?;
        source.map_or(Ok(()), check_source)?;
        if name.as_str() == UpgradeName::GENESIS {
            return Err(format!(
                "{name} is what the binary of before the first upgrade is called; choose another name"
            ));
        }
        let reports = self.reports()?;
        if reports.iter().all(|(_, report)| report.runs(name)) {
            return Err(format!("every host runs {name} already"));
        }
        let head = self.validators().map(|host| host.height).max().unwrap_or_default();
        let mut lines = match height {
            Some(height) if height <= head => {
                return Err(format!("the chain is at {head} already, and {height} is not above that"));
            }
            Some(height) => vec![format!(
                "{name} at height {height}, the chain is at {head}: every host swaps when the chain halts there, and the holder \
                 keeps the baton"
            )],
            None => self.rolling(name, &reports)?,
        };
        lines.push(match source {
            Some(source) => format!("hosts without its binary get it from {source}"),
            None => {
                format!("the binary of {name} has to be in its place on every host; baton upgrade status shows where")
            }
        });
        let source = source.map(str::to_owned);
        Ok((Some(Command::Upgrade(Upgrade::Plan { name: name.clone(), height, source, back: false, at })), lines))
    }

    /// Who stops when.
    fn rolling(&self, name: &UpgradeName, reports: &[(&Host, &UpgradeReport)]) -> Result<Vec<String>, String> {
        if let [(only, _)] = reports {
            return Err(format!(
                "{} is the only validator, so nobody could hold the baton while it is upgraded; name the height at which the \
                 chain halts (--height)",
                only.id
            ));
        }
        let mut left: Vec<&Host> =
            reports.iter().filter(|(_, report)| !report.runs(name)).map(|(host, _)| *host).collect();
        left.sort_by_key(|host| (self.holder == Some(&host.id), host.priority, Reverse(&host.id)));
        let order: Vec<String> = left
            .iter()
            .map(|host| match self.holder {
                Some(holder) if *holder == host.id => format!("{holder}, which hands the baton over first"),
                Some(_) | None => host.id.to_string(),
            })
            .collect();
        Ok(vec![format!("{name}, one host after the other: {}", order.join(", then "))])
    }

    fn cancel(&self, name: &UpgradeName, at: WallTime) -> Result<Judged, String> {
        if let Some(plan) = self.plans.newest().filter(|plan| plan.name == *name)
            && matches!(plan.stage, PlanStage::Cancelled { .. })
        {
            return Ok((None, vec![format!("{plan}, is not planned any more")]));
        }
        let plan = self.plans.in_force().filter(|plan| plan.name == *name);
        let plan = plan.ok_or_else(|| format!("no upgrade {name} is planned; baton upgrade list shows what is"))?;
        let mut lines = vec![format!("{plan}, is not planned any more")];
        lines.extend(plan.turn().map(|turn| format!("{turn} had its turn, and goes on with what it has begun")));
        if plan.height.is_some() {
            lines.push(
                "what the chain itself asks for is carried out all the same, when its binary is there".to_owned(),
            );
        }
        Ok((Some(Command::Upgrade(Upgrade::Cancel { name: name.clone(), at })), lines))
    }

    fn rollback(&self, at: WallTime) -> Result<Judged, String> {
        if let Some(plan) = self.plans.in_force().filter(|plan| plan.back) {
            return Ok((None, vec![format!("{plan}, is planned")]));
        }
        self.check_free()?;
        let reports = self.reports()?;
        let to = self.before(&reports)?;
        for (host, report) in &reports {
            let id = &host.id;
            match report.binary(&to) {
                Some(BinaryReport::Missing { reason }) if !report.runs(&to) => {
                    return Err(format!("{id} lacks the binary of {to}: {reason}"));
                }
                Some(_) | None => {}
            }
        }
        let mut lines = self.rolling(&to, &reports)?;
        lines.push(
            "only binaries are taken back: what a new one has made of its data, the old one may not read".to_owned(),
        );
        Ok((Some(Command::Upgrade(Upgrade::Plan { name: to, height: None, source: None, back: true, at })), lines))
    }

    /// What all hosts ran before the newest upgrade; those that it has not reached run it still.
    fn before(&self, reports: &[(&Host, &UpgradeReport)]) -> Result<UpgradeName, String> {
        let newest = self.plans.newest();
        if let Some(plan) = newest.filter(|plan| plan.back) {
            let name = &plan.name;
            return if reports.iter().all(|(_, report)| report.runs(name)) {
                Err(format!("every host is back at {name}; baton upgrade plan goes forward again"))
            } else {
                Ok(name.clone())
            };
        }
        let upgraded = newest.map(|plan| &plan.name).filter(|name| reports.iter().any(|(_, report)| report.runs(name)));
        let from = upgraded.unwrap_or(&reports[0].1.current);
        let mut to = BTreeSet::new();
        let mut told = Vec::new();
        for (host, report) in reports {
            let id = &host.id;
            if !report.runs(from) {
                to.insert(&report.current);
                told.push(format!("{id} runs {}", report.current));
            } else if let Some(previous) = &report.previous {
                to.insert(previous);
                told.push(format!("{id} ran {previous} before"));
            } else {
                return Err(format!("{id} runs {from} and has run nothing else since baton looks after its binaries"));
            }
        }
        match to.pop_first() {
            Some(only) if to.is_empty() => Ok(only.clone()),
            Some(_) | None => Err(format!("there is no one name to go back to: {}", told.join(", "))),
        }
    }
}

/// Members that are not known to know of upgrade plans, when such an entry is to be written.
///
/// Invariant: no entry of the log is one that a member refuses to append, since it would follow no longer.
///
/// # Errors
/// Which member, and what to do.
pub fn check_known<'a>(
    members: impl Iterator<Item = &'a NodeId>,
    knows: impl Fn(&NodeId) -> Option<u32>,
) -> Result<(), String> {
    for id in members {
        match knows(id) {
            Some(known) if known >= KNOWS_PLANS => {}
            Some(_) => {
                return Err(format!(
                    "{id} runs a baton that knows no upgrade plans and could not follow the log: upgrade baton on every host \
                     first, then plan"
                ));
            }
            None => {
                return Err(format!(
                    "it is not known which baton {id} runs, since it has not been heard: start it, or remove it from the \
                     cluster, then plan"
                ));
            }
        }
    }
    Ok(())
}

/// The binaries of `name` that differ, in words.
pub fn differing<'a>(
    name: &UpgradeName,
    reports: impl Iterator<Item = (&'a str, &'a UpgradeReport)>,
) -> Option<String> {
    let sums: Vec<(&str, &str)> = reports
        .filter_map(|(id, report)| match report.binary(name)? {
            BinaryReport::Present { sha256 } => Some((id, sha256.as_str())),
            BinaryReport::Missing { .. } | BinaryReport::Fetching { .. } => None,
        })
        .collect();
    let (_, first) = sums.first()?;
    let differ = sums.iter().any(|(_, sum)| sum != first);
    let told: Vec<String> = sums.iter().map(|(id, sum)| format!("{id} has {}", short(sum))).collect();
    differ.then(|| told.join(", "))
}

#[cfg(test)]
mod tests;
