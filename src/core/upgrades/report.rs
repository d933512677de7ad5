//! What a host tells of the binaries of its chain node. Gossip carries it; it never grants anything.

use std::collections::BTreeMap;
use std::fmt;

use super::next::percent;
use crate::base::ids::UpgradeName;

/// What a host tells whose configuration has an `[upgrade]` section; others tell nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeReport {
    /// What the next start of the chain node runs.
    pub current: UpgradeName,
    /// What it ran before the last swap.
    pub previous: Option<UpgradeName>,
    /// The binary of every upgrade that is asked for: by a plan in force, or by the chain.
    pub binaries: BTreeMap<UpgradeName, BinaryReport>,
    pub under_way: Option<UnderWay>,
    /// The newest attempt, when it failed; gone once another one begins.
    pub failed: Option<Failed>,
}

impl UpgradeReport {
    pub fn runs(&self, name: &UpgradeName) -> bool {
        same(&self.current, name)
    }

    pub fn binary(&self, name: &UpgradeName) -> Option<&BinaryReport> {
        self.binaries.iter().find(|(other, _)| same(other, name)).map(|(_, binary)| binary)
    }

    pub fn work_on(&self, name: &UpgradeName) -> Option<&UnderWay> {
        self.under_way.as_ref().filter(|work| same(&work.name, name))
    }

    pub fn failure_of(&self, name: &UpgradeName) -> Option<&Failed> {
        self.failed.as_ref().filter(|failed| same(&failed.name, name))
    }
}

/// A chain may write a name in another case than the folder of its binary has it.
pub fn same(a: &UpgradeName, b: &UpgradeName) -> bool {
    a == b || a.as_str().to_lowercase() == b.as_str().to_lowercase()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BinaryReport {
    Present {
        /// In hexadecimal digits.
        sha256: String,
    },
    /// And nothing is being done about it; why, in words.
    Missing { reason: String },
    /// Bytes so far, and of how many, when that is known.
    Fetching { done: u64, total: Option<u64> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    pub name: UpgradeName,
    pub step: Step,
    /// Bytes, where a step counts any; else zero.
    pub done: u64,
    pub total: u64,
}

impl fmt::Display for UnderWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.step.as_str())?;
        if self.total > 0 { write!(f, " ({} %)", percent(self.done, self.total)) } else { Ok(()) }
    }
}

/// What is done to a host, in this order, while its chain node is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Stop,
    Backup,
    PreUpgrade,
    Swap,
}

impl Step {
    pub const ALL: [Step; 4] = [Step::Stop, Step::Backup, Step::PreUpgrade, Step::Swap];

    pub fn as_str(self) -> &'static str {
        match self {
            Step::Stop => "stop",
            Step::Backup => "backup",
            Step::PreUpgrade => "pre-upgrade",
            Step::Swap => "swap",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub name: UpgradeName,
    pub step: Step,
    /// What went wrong and how to go on, in one line.
    pub reason: String,
}
